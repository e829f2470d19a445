// Between a program and a real API server: takes plain HTTP, forwards over TLS with the credentials of a kubeconfig, streams watches, and does
// what a test orders in between: answer itself, cut, or let the test act before or after a request reaches the server. Any thread.
#ifndef TESTS_SUPPORT_API_PROXY_H_
#define TESTS_SUPPORT_API_PROXY_H_

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"

namespace bottle::test {

class ApiProxy {
 public:
  struct Request {
    std::string method, target, user_agent, body;
    int write = 0;                   // this is the n-th request that changes something (POST, PUT, PATCH, DELETE), from 1; 0: it reads
    bool watch = false;
    bool about(const std::string& part) const { return (method + ' ' + target).find(part) != std::string::npos; }
  };
  struct Reply {
    int code = 0;                    // 0: close the connection without a byte
    std::string body;
    std::string headers;             // whole lines, each with \r\n
  };
  struct Seen : Request {
    int code = 0;                    // what the client got; 0: nothing
  };

  // With the server and the credentials of a kubeconfig file.
  static Result<std::unique_ptr<ApiProxy>> create(const std::string& kubeconfig);
  virtual ~ApiProxy() = default;
  virtual std::string kubeconfig() const = 0;  // YAML that leads here

  // Before a request goes on: a reply means that it does not. After the server has answered, before the client knows: the same.
  // Hooks run on the connection's thread. An empty one is none.
  virtual void before(std::function<std::optional<Reply>(const Request&)> hook) = 0;
  virtual void after(std::function<std::optional<Reply>(const Request&, int code)> hook) = 0;

  // The next `n` pieces of watches are passed on by half, and the connection closed.
  virtual void cut_watch_data(int n) = 0;
  virtual int cuts_left() const = 0;
  // Closes every connection with a watch.
  virtual void drop_watches() = 0;

  virtual std::vector<Seen> seen() const = 0;  // all requests that are answered or dropped, and watches that have begun
  virtual int writes() const = 0;
  virtual void forget() = 0;                   // seen() and writes() start anew
};

}  // namespace bottle::test

#endif  // TESTS_SUPPORT_API_PROXY_H_
