// One connection to the API server that becomes a WebSocket: TLS and proxy by libcurl, the rest by us. One thread.
#ifndef BACKENDS_KUBERNETES_CONNECTION_H_
#define BACKENDS_KUBERNETES_CONNECTION_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "controller/kube/client.h"

namespace bottle::kubernetes {

class Connection {
 public:
  // Connects and asks for the upgrade, offering `protocols`; with fresh credentials once more after a 401. kCancelled on g_cancelled.
  static Result<std::unique_ptr<Connection>> open(const kube::Config& config, const std::string& path, const std::vector<std::string>& protocols);

  int fd() const { return fd_; }
  const std::string& protocol() const { return protocol_; }  // the one that the server chose
  std::string take_first() { return std::move(first_); }     // what came in the same packet as the answer
  // Bytes sent; 0 = would block; -1 = the connection is gone.
  ssize_t send(std::string_view data);
  // Bytes received; 0 = would block; -1 = the end.
  ssize_t receive(char* buffer, size_t size);
  // A receiver that does not read for long is alive all the same: see TCP_USER_TIMEOUT in tcp(7), which also ends a closed window.
  void wait_for_slow_reader();

 private:
  Connection() = default;
  Status connect(const kube::Config& config, const std::string& path);
  Status upgrade(const kube::Config& config, const std::string& path, const std::vector<std::string>& protocols, int* code);

  // Declared in this order: the handle goes before what it points to.
  kube::EasyKeepPtr keep_;
  std::unique_ptr<CURL, void (*)(CURL*)> handle_{nullptr, nullptr};
  int fd_ = -1;
  std::string protocol_, first_;
};

}  // namespace bottle::kubernetes

#endif  // BACKENDS_KUBERNETES_CONNECTION_H_
