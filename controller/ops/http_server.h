// A server for probes and metrics: GET and HEAD, one answer a connection, everything bounded. One thread with poll(2), so neither idle nor
// slow clients hold anything but their own slot, and when all slots are taken the longest-waiting client loses its own.
//
// Why not cpp-httplib: version 0.11.4 of Debian 12 reads lines and headers without a limit, ignores the payload limit for chunked bodies
// (CVE-2025-46728, CVE-2025-52887, CVE-2025-53628) and holds one thread a connection, so a few idle connections starve a liveness probe.
#ifndef CONTROLLER_OPS_HTTP_SERVER_H_
#define CONTROLLER_OPS_HTTP_SERVER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

namespace bottle::ops {

struct Page {
  int code = 200;
  std::string body;
  std::string type = "text/plain; charset=utf-8";
};

struct ServerOptions {
  std::string address;                       // ":8080" (all addresses, v6 and v4), "127.0.0.1:8080", "[::1]:8080"; port 0 picks one
  size_t max_connections = 64;
  size_t max_head_bytes = 4096;              // request line and headers; a body is never read
  std::chrono::milliseconds timeout{5'000};  // for the head; then again for the answer
};

class HttpServer {
 public:
  // Called on the server's thread with the path (no query); a code of 404 for what is not there. It should not block.
  using Handler = std::function<Page(std::string_view path)>;
  // Listens and serves at once. kInvalid: no such address; kConflict: in use; kPermission: not ours to bind.
  static Result<std::unique_ptr<HttpServer>> create(ServerOptions options, Handler handler);
  virtual ~HttpServer() = default;  // stops; open connections are cut
  virtual uint16_t port() const = 0;
};

}  // namespace bottle::ops

#endif  // CONTROLLER_OPS_HTTP_SERVER_H_
