// An API server for tests, to order faults from: HTTP/1.1, plain or TLS, on a port of 127.0.0.1. It keeps no objects: a test says what is
// answered. What a real server does is tested against a real server.
#ifndef TESTS_SUPPORT_FAKE_API_H_
#define TESTS_SUPPORT_FAKE_API_H_

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "controller/kube/config.h"

namespace bottle::kube {

class FakeApi {
 public:
  struct Options {
    bool tls = false;
    bool client_certificates = false;  // wants one of client_certificate()
    int port = 0;                      // 0: any
  };
  struct Call {
    std::string method, target;                  // target: path and query as sent
    std::map<std::string, std::string> headers;  // names in lower case
    std::string body;
    int connection = 0;                          // the client's port: the same number is the same connection
    std::string line() const { return method + " " + target; }
    std::string header(const std::string& name) const;  // empty when it was not sent
  };
  struct Reply {
    int status = 200;
    std::string body = "{}";
    std::string content_type = "application/json";
    std::vector<std::pair<std::string, std::string>> headers = {};
    bool stream = false;               // stays open after `body`: see Stream
  };
  // What goes wrong with the next `times` requests that match.
  struct Fault {
    int status = 0;                    // answer with it and a Status of `reason` and `message`
    std::string reason = {}, message = {};
    std::string retry_after = {};      // the header's value
    bool drop = false;                 // close the connection without a byte
    bool cut = false;                  // close it in the middle of the body
    std::chrono::milliseconds delay{0};  // before anything else; ends early with the server
    int times = 1;
  };
  // The server's side of a request that stays open: a watch, a followed log.
  class Stream {
   public:
    virtual ~Stream() = default;
    virtual const Call& call() const = 0;
    virtual void send(const std::string& bytes) = 0;
    void line(const std::string& json) { send(json + "\n"); }
    virtual void end() = 0;            // as a server does whose timeoutSeconds has passed
    virtual void cut() = 0;            // closes the connection in the middle
    virtual bool closed() const = 0;   // the client went away, or it was ended
  };
  using Handler = std::function<Reply(const Call&)>;

  FakeApi();
  explicit FakeApi(Options options);
  ~FakeApi();
  FakeApi(const FakeApi&) = delete;
  FakeApi& operator=(const FakeApi&) = delete;

  std::string url() const;             // "http://127.0.0.1:41234"
  int port() const;
  std::string ca_pem() const;          // with TLS
  ClientCertificate client_certificate() const;  // one that the server takes
  Config config(const std::string& token = "") const;  // how to get here, with a fixed token

  // `what` is a part of "METHOD target". Of the handlers that match, the one set last answers. Without one: a GET with watch=1|true or
  // follow=1|true stays open, anything else is a 404. A handler runs on a thread of the server.
  void on(const std::string& what, Handler handler);
  void reply(const std::string& what, int status, const std::string& body);
  void fault(const std::string& what, Fault fault);
  static Reply error(int status, const std::string& reason, const std::string& message);  // a metav1.Status

  std::vector<Call> calls(const std::string& what = "") const;  // in order
  // Waits until `n` requests have matched; false when they have not in time.
  bool wait_calls(const std::string& what, size_t n, std::chrono::milliseconds limit = std::chrono::seconds(10)) const;
  // The oldest stream that matches and was not taken yet; null when none is opened in time. Those not taken stay open too.
  std::shared_ptr<Stream> wait_stream(const std::string& what, std::chrono::milliseconds limit = std::chrono::seconds(10));

  void drop_connections();             // all that are open, at once
  void pause();                        // the server is gone: connections closed, new ones refused
  void resume();                       // it is back, on the same port

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace bottle::kube

#endif  // TESTS_SUPPORT_FAKE_API_H_
