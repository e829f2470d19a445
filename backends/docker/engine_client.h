// HTTP to a container engine (Docker Engine API 1.41 and up) over its unix socket or TCP with TLS,
// by libcurl. Any thread: every request has its own handle. Connections to a local socket cost less
// than keeping a pool right.
#ifndef BACKENDS_DOCKER_ENGINE_CLIENT_H_
#define BACKENDS_DOCKER_ENGINE_CLIENT_H_

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace bottle::docker {

using Json = nlohmann::json;

struct EngineAddress {
  std::string socket;                 // path of a unix socket; empty: `url` is dialled
  std::string url = "http://engine";  // scheme and authority
  std::string cert_dir;               // ca.pem, cert.pem, key.pem, as DOCKER_CERT_PATH
  std::string shown;                  // for messages: "unix:///var/run/docker.sock"
};

// `host` (an option), else $DOCKER_HOST, else the current context of ~/.docker, else the first
// socket that exists: /var/run/docker.sock, $XDG_RUNTIME_DIR/docker.sock,
// $XDG_RUNTIME_DIR/podman/podman.sock.
Result<EngineAddress> find_engine(const std::string& host);

// Failure of an engine as Status: what happened and what to do about it. `body` is the answer's,
// {"message": …}.
Status engine_error(long http_status, std::string_view body, std::string_view what);

class EngineClient {
 public:
  // Asks /_ping and settles on an API version.
  static Result<EngineClient> connect(EngineAddress address);

  // `path` without version: "/containers/json". An answer >= 400 is a Status; an empty body is
  // null.
  Result<Json> call(const std::string& method, const std::string& path, const Json& body = nullptr,
                    long timeout_ms = 60'000) const;
  // The same with bytes both ways. `content_type` is that of `body`.
  Result<std::string> bytes(const std::string& method, const std::string& path,
                            std::string_view body, const std::string& content_type,
                            long timeout_ms = 60'000) const;
  // An answer that goes on: `on_data` gets what arrives and stops the stream by returning false.
  // Returns kCancelled soon after g_cancelled, kTimeout after `timeout_ms` (0 = never).
  using OnData = std::function<bool(std::string_view)>;
  Status stream(const std::string& method, const std::string& path, const OnData& on_data,
                long timeout_ms = 0) const;

  const EngineAddress& address() const { return address_; }
  const std::string& prefix() const { return prefix_; }  // "/v1.41"
  const std::string& server() const { return server_; }  // "Docker/20.10.24 (linux)"

 private:
  explicit EngineClient(EngineAddress address) : address_(std::move(address)) {}
  EngineAddress address_;
  std::string prefix_, server_;
};

// "?filters=" + the JSON filter, encoded: filters_query({{"label", {"a=b"}}}).
std::string filters_query(const Json& filters);
// The string at a JSON pointer, or "" when it is absent or not a string.
std::string text_at(const Json& json, const std::string& pointer);
int64_t int_at(const Json& json, const std::string& pointer);
bool bool_at(const Json& json, const std::string& pointer);
std::string dump(const Json& json);  // never throws; bad UTF-8 is replaced

}  // namespace bottle::docker

#endif  // BACKENDS_DOCKER_ENGINE_CLIENT_H_
