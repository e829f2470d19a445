// HTTP to a Kubernetes API server: one libcurl multi on one loop thread, connections kept, HTTP/2 for requests, and an HTTP/1.1 connection
// of its own for each stream (watch, log). Any thread may call; nothing that is sent or received is ever logged.
// Source: Kubernetes API concepts (kubernetes.io), client-go rest/with_retry.go; facts on each number stand at its constant.
#ifndef CONTROLLER_KUBE_CLIENT_H_
#define CONTROLLER_KUBE_CLIENT_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/metrics.h"
#include "base/status.h"
#include "controller/kube/config.h"

typedef void CURL;

namespace bottle::kube {

inline constexpr std::string_view kApply = "application/apply-patch+yaml";      // with fieldManager and force
inline constexpr std::string_view kMergePatch = "application/merge-patch+json";
inline constexpr std::string_view kStrategicPatch = "application/strategic-merge-patch+json";
inline constexpr std::string_view kMetadataOnly = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
inline constexpr std::string_view kMetadataListOnly = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

struct Request {
  std::string method = "GET";
  std::string path;          // absolute, encoded, with query: see resource.h
  std::string body;          // JSON
  std::string content_type;  // default for a body: application/json
  std::string accept = "application/json";
  std::chrono::milliseconds timeout{30'000};
  size_t max_response_bytes = 64u << 20;
};

struct Cause {               // of Status.details.causes
  std::string field, reason, message;
};

// What came back: a transport failure, or an HTTP code with a body; of a Status body the parts that decide.
struct Answer {
  Status transport;          // not OK: there was no answer
  int code = 0;
  std::string body;
  std::string reason;        // "AlreadyExists", "Invalid", …: of a Status; empty without one
  std::string message;       // the server's words
  std::vector<Cause> causes;
  double retry_after_s = 0;
  std::string source;        // Config::source, for the message of a 401
  bool ok() const { return transport.is_ok() && code >= 200 && code < 300; }
  bool is(std::string_view r) const { return transport.is_ok() && reason == r; }
  // As a Status: 404 kNotFound, 409 kConflict, 401/403 kPermission, 400/422 kInvalid, 429/5xx kUnavailable, … with the server's words
  // behind `what` ("create pod dev/hello") and, for 401, 403, TLS and connection failures, what to do.
  Status status(std::string_view what) const;
};

// Fills reason, message, causes of an answer >= 400 from its body; a body that is no Status gives a reason by the code.
void decode_status(Answer* answer);

struct ClientOptions {
  int max_in_flight = 64;        // more only adds latency (measured); the rest waits in our own queue
  bool http1 = false;
  std::string user_agent = {};   // never curl's: the server would pretty-print for it
  metrics::Registry* metrics = nullptr;  // rest_client_*; not owned
};

// An open stream; closes when the last owner lets go. Its callbacks run on the loop thread and must not block.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual void close() = 0;      // no callback after it returns, except when called from one
};

class Client {
 public:
  static Result<std::unique_ptr<Client>> create(Config config, ClientOptions options);
  virtual ~Client() = default;

  // Blocks the caller (never the loop thread). Retries: transport failures of GET, HEAD, PUT, DELETE and apply-patch once on a new
  // connection; 429 and >= 500 with Retry-After up to 10 times within `timeout`; 401 once with fresh credentials.
  virtual Answer call(const Request& request) = 0;
  // The same without blocking; `done` runs on the loop thread.
  virtual void send(Request request, std::function<void(Answer)> done) = 0;
  // A GET whose answer goes on. `on_data` gets what arrives; returning false ends it. `on_end` comes exactly once: an answer >= 400 with
  // its body, a transport failure, or code 200 when the server ended it. request.timeout bounds the wait for the head of the answer;
  // `idle` (0 = none) the silence between bytes.
  virtual std::shared_ptr<Stream> stream(const Request& request, std::chrono::milliseconds idle, std::function<bool(std::string_view)> on_data,
                                         std::function<void(Answer)> on_end) = 0;
  virtual const Config& config() const = 0;
};

// TLS, proxy, authentication, keep-alive (30 s, 5 s) and TCP_USER_TIMEOUT (30 s) of `config` on a handle: what every connection to the
// server gets, also those made elsewhere (exec). Strings that libcurl does not copy must outlive the handle: `keep` holds them.
struct EasyKeep;
struct EasyKeepDelete { void operator()(EasyKeep*) const; };
using EasyKeepPtr = std::unique_ptr<EasyKeep, EasyKeepDelete>;
Result<EasyKeepPtr> configure_easy(CURL* easy, const Config& config, const std::string& path);
// The headers of `keep` that say who we are ("Authorization: …", "Impersonate-User: …"), for a request that is written by hand on a
// connection made with CURLOPT_CONNECT_ONLY. Secret.
const std::vector<std::string>& auth_headers(const EasyKeep& keep);

}  // namespace bottle::kube

#endif  // CONTROLLER_KUBE_CLIENT_H_
