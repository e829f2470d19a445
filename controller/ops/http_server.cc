#include "controller/ops/http_server.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <list>
#include <thread>
#include <utility>
#include <vector>

namespace bottle::ops {
namespace {

using Clock = std::chrono::steady_clock;

// An answer that was sent is followed by the client's last bytes: closing over unread ones would reset the connection under the answer.
constexpr auto kLinger = std::chrono::seconds(1);

struct Connection {
  int fd;
  enum class State { kReading, kWriting, kLingering } state = State::kReading;
  Clock::time_point deadline;
  std::string in, out;
  size_t sent = 0;
};

std::string_view reason_of(int code) {
  switch (code) {
    case 200: return "OK";
    case 400: return "Bad Request";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    default: return "Status";
  }
}

std::string render(const Page& page, bool head_only) {
  std::string out = "HTTP/1.1 " + std::to_string(page.code) + ' ' + std::string(reason_of(page.code));
  out += "\r\nContent-Type: " + page.type + "\r\nContent-Length: " + std::to_string(page.body.size());
  if (page.code == 405) out += "\r\nAllow: GET, HEAD";
  out += "\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n";
  if (!head_only) out += page.body;
  return out;
}

// "GET /path?query HTTP/1.1": all that is looked at of a request.
std::string answer(std::string_view head, const HttpServer::Handler& handler) {
  std::string_view line = head.substr(0, head.find('\n'));
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  size_t a = line.find(' '), b = line.rfind(' ');
  if (a == std::string_view::npos || a == b) return render({400, "bad request\n"}, false);
  std::string_view method = line.substr(0, a), path = line.substr(a + 1, b - a - 1), version = line.substr(b + 1);
  if (path.empty() || path[0] != '/' || path.find_first_of(" \t\r") != std::string_view::npos) return render({400, "bad request\n"}, false);
  if (version != "HTTP/1.1" && version != "HTTP/1.0") return render({505, "HTTP/1.1 alone\n"}, false);
  if (method != "GET" && method != "HEAD") return render({405, "GET and HEAD alone\n"}, false);
  return render(handler(path.substr(0, path.find('?'))), method == "HEAD");
}

class Server : public HttpServer {
 public:
  Server(ServerOptions options, Handler handler, int listener, int wake, uint16_t port)
      : options_(std::move(options)), handler_(std::move(handler)), listener_(listener), wake_(wake), port_(port), thread_([this] { loop(); }) {}

  ~Server() override {
    uint64_t one = 1;
    while (::write(wake_, &one, sizeof one) < 0 && errno == EINTR) {
    }
    thread_.join();
    for (auto& c : connections_) ::close(c.fd);
    ::close(listener_);
    ::close(wake_);
  }
  uint16_t port() const override { return port_; }

 private:
  void loop() {
    std::vector<pollfd> fds;
    for (;;) {
      auto now = Clock::now();
      fds.clear();
      fds.push_back({wake_, POLLIN, 0});
      fds.push_back({listener_, static_cast<short>(now < accept_again_ ? 0 : POLLIN), 0});
      auto next = now + std::chrono::hours(1);
      if (now < accept_again_) next = accept_again_;
      for (const auto& c : connections_) {
        fds.push_back({c.fd, static_cast<short>(c.state == Connection::State::kWriting ? POLLOUT : POLLIN), 0});
        next = std::min(next, c.deadline);
      }
      auto wait = std::chrono::duration_cast<std::chrono::milliseconds>(next - now).count() + 1;
      if (::poll(fds.data(), fds.size(), static_cast<int>(std::max<int64_t>(wait, 0))) < 0) {
        if (errno == EINTR) continue;
        return;  // EFAULT, EINVAL, ENOMEM: none of them goes away
      }
      if (fds[0].revents) return;
      now = Clock::now();
      size_t i = 2;
      for (auto it = connections_.begin(); it != connections_.end(); ++i) {
        bool keep = now < it->deadline;
        if (keep && fds[i].revents) keep = serve(*it, now);
        if (keep) {
          ++it;
        } else {
          ::close(it->fd);
          it = connections_.erase(it);
        }
      }
      if (fds[1].revents) accept_all(now);
    }
  }

  void accept_all(Clock::time_point now) {
    for (int burst = 0; burst < 16; ++burst) {
      int fd = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) {
        // Out of descriptors: the connection stays in the backlog, and poll would wake us for it without end.
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) accept_again_ = now + std::chrono::milliseconds(100);
        return;
      }
      if (connections_.size() >= options_.max_connections) {
        ::close(connections_.front().fd);  // the oldest
        connections_.pop_front();
      }
      int on = 1;
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      connections_.push_back({fd, Connection::State::kReading, now + options_.timeout, {}, {}, 0});
    }
  }

  // False: done with it.
  bool serve(Connection& c, Clock::time_point now) {
    if (c.state == Connection::State::kLingering) {
      char sink[4096];
      ssize_t n = ::recv(c.fd, sink, sizeof sink, 0);
      return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
    }
    if (c.state == Connection::State::kReading) {
      char buffer[4096];
      ssize_t n = ::recv(c.fd, buffer, std::min(sizeof buffer, options_.max_head_bytes + 1 - c.in.size()), 0);
      if (n < 0) return errno == EAGAIN || errno == EINTR;
      if (n == 0) return false;
      c.in.append(buffer, static_cast<size_t>(n));
      size_t end = c.in.find("\r\n\r\n");
      if (end == std::string::npos) end = c.in.find("\n\n");
      if (end != std::string::npos) {
        c.out = answer(std::string_view(c.in).substr(0, end + 1), handler_);
      } else if (c.in.size() > options_.max_head_bytes) {
        c.out = render({431, "request too large\n"}, false);
      } else {
        return true;
      }
      c.state = Connection::State::kWriting;
      c.deadline = now + options_.timeout;
    }
    while (c.sent < c.out.size()) {
      ssize_t n = ::send(c.fd, c.out.data() + c.sent, c.out.size() - c.sent, MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno == EAGAIN;
      c.sent += static_cast<size_t>(n);
    }
    ::shutdown(c.fd, SHUT_WR);
    c.state = Connection::State::kLingering;
    c.deadline = now + kLinger;
    std::string().swap(c.in);
    std::string().swap(c.out);
    return true;
  }

  const ServerOptions options_;
  const Handler handler_;
  const int listener_, wake_;
  const uint16_t port_;
  std::list<Connection> connections_;  // oldest first; the loop's alone
  Clock::time_point accept_again_{};
  std::thread thread_;
};

Status bind_error(const std::string& address, int err) {
  Code code = err == EADDRINUSE ? Code::kConflict : err == EACCES || err == EPERM ? Code::kPermission : Code::kInvalid;
  return Status(code, "listen on " + address + ": " + std::strerror(err));
}

// The listening socket, or the error number as a negative.
int listen_on(const addrinfo& where) {
  int fd = ::socket(where.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  int on = 1, off = 0;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (where.ai_family == AF_INET6) ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  if (::bind(fd, where.ai_addr, where.ai_addrlen) == 0 && ::listen(fd, 128) == 0) return fd;
  int err = errno;
  ::close(fd);
  return -err;
}

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::create(ServerOptions options, Handler handler) {
  const std::string& address = options.address;
  size_t colon = address.rfind(':');
  auto wrong = [&] { return Status(Code::kInvalid, "\"" + address + "\" is no address to listen on: give \":8080\", \"127.0.0.1:8080\" or \"[::1]:8080\""); };
  if (colon == std::string::npos) return wrong();
  std::string host = address.substr(0, colon), service = address.substr(colon + 1);
  if (service.empty() || service.size() > 5 || service.find_first_not_of("0123456789") != std::string::npos || std::stoi(service) > 65535) return wrong();
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  else if (host.find(':') != std::string::npos) return wrong();

  // Without a host: first [::], which takes v4 as well, then 0.0.0.0 for kernels without IPv6.
  int fd = -EINVAL;
  for (std::string_view candidate : host.empty() ? std::vector<std::string_view>{"::", "0.0.0.0"} : std::vector<std::string_view>{host}) {
    addrinfo hints{}, *found = nullptr;
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE;
    hints.ai_socktype = SOCK_STREAM;
    if (::getaddrinfo(std::string(candidate).c_str(), service.c_str(), &hints, &found) != 0) return wrong();
    fd = listen_on(*found);
    ::freeaddrinfo(found);
    if (fd >= 0 || fd == -EADDRINUSE || fd == -EACCES) break;
  }
  if (fd < 0) return bind_error(address, -fd);
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size);
  uint16_t port = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port : reinterpret_cast<sockaddr_in&>(bound).sin_port);
  int wake = ::eventfd(0, EFD_CLOEXEC);
  if (wake < 0) {
    int err = errno;
    ::close(fd);
    return Status(Code::kExhausted, std::string("eventfd: ") + std::strerror(err));
  }
  return std::unique_ptr<HttpServer>(std::make_unique<Server>(std::move(options), std::move(handler), fd, wake, port));
}

}  // namespace bottle::ops
