#include "backends/docker/hijack.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <memory>

#include "backends/backend.h"
#include "backends/terminal.h"

namespace bottle::docker {
namespace {

constexpr size_t kMaxHead = 64u << 10, kChunk = 32u << 10;

class Connection {
 public:
  static Result<Connection> open(const EngineAddress& a) {
    Connection c;
    CURL* h = curl_easy_init();
    c.handle_.reset(h);
    if (!h) return Status(Code::kExhausted, "out of memory for a connection to the engine");
    curl_easy_setopt(h, CURLOPT_URL, a.url.c_str());
    curl_easy_setopt(h, CURLOPT_PROXY, "");
    curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h, CURLOPT_CONNECT_ONLY, 1L);
    curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT_MS, 10'000L);
    if (!a.socket.empty()) curl_easy_setopt(h, CURLOPT_UNIX_SOCKET_PATH, a.socket.c_str());
    if (!a.cert_dir.empty()) {
      curl_easy_setopt(h, CURLOPT_CAINFO, (a.cert_dir + "/ca.pem").c_str());
      curl_easy_setopt(h, CURLOPT_SSLCERT, (a.cert_dir + "/cert.pem").c_str());
      curl_easy_setopt(h, CURLOPT_SSLKEY, (a.cert_dir + "/key.pem").c_str());
    }
    curl_socket_t fd = CURL_SOCKET_BAD;
    if (curl_easy_perform(h) != CURLE_OK ||
        curl_easy_getinfo(h, CURLINFO_ACTIVESOCKET, &fd) != CURLE_OK || fd == CURL_SOCKET_BAD)
      return Status(Code::kUnavailable, "cannot connect to the engine at " + a.shown);
    c.fd_ = fd;
    c.plain_ = a.cert_dir.empty();
    return c;
  }
  int fd() const { return fd_; }
  // Bytes sent; 0 = would block; -1 = the connection is gone.
  ssize_t send(std::string_view data) {
    size_t n = 0;
    CURLcode code = curl_easy_send(handle_.get(), data.data(), data.size(), &n);
    return code == CURLE_OK ? static_cast<ssize_t>(n) : code == CURLE_AGAIN ? 0 : -1;
  }
  // Bytes received; 0 = would block; -1 = the end.
  ssize_t receive(char* buffer, size_t size) {
    size_t n = 0;
    CURLcode code = curl_easy_recv(handle_.get(), buffer, size, &n);
    if (code == CURLE_AGAIN) return 0;
    return code == CURLE_OK && n > 0 ? static_cast<ssize_t>(n) : -1;
  }
  void end_of_input() {
    if (plain_) ::shutdown(fd_, SHUT_WR);
  }

 private:
  std::unique_ptr<CURL, void (*)(CURL*)> handle_{nullptr, curl_easy_cleanup};
  int fd_ = -1;
  bool plain_ = true;
};

// Sends the request and reads the head of the answer; what follows it is the first of the stream.
Result<std::string> upgrade(Connection& c, const EngineClient& engine, const std::string& path,
                            const Json& body) {
  std::string payload = body.is_null() ? "" : dump(body);
  std::string out =
      "POST " + engine.prefix() + path +
      " HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n" +
      "Content-Type: application/json\r\nContent-Length: " + std::to_string(payload.size()) +
      "\r\n\r\n" + payload;
  auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  std::string in;
  char buffer[4096];
  for (size_t at = std::string::npos;;) {
    if (g_cancelled) return Status(Code::kCancelled, "interrupted");
    if (std::chrono::steady_clock::now() > deadline)
      return Status(Code::kTimeout, "the engine did not start the stream in 30 s");
    pollfd p{c.fd(), static_cast<short>(POLLIN | (out.empty() ? 0 : POLLOUT)), 0};
    ::poll(&p, 1, kTickMs);
    if (!out.empty()) {
      ssize_t n = c.send(out);
      if (n < 0) return Status(Code::kUnavailable, "the engine closed the connection");
      out.erase(0, static_cast<size_t>(n));
    }
    ssize_t n = c.receive(buffer, sizeof buffer);
    if (n > 0) in.append(buffer, static_cast<size_t>(n));
    at = in.find("\r\n\r\n");
    int status = 0;
    if (at != std::string::npos && std::sscanf(in.c_str(), "HTTP/1.%*d %d", &status) == 1) {
      if (status == 101 || status == 200) return in.substr(at + 4);
      // The error's body is small and in the same packet or the next: take what comes until the
      // engine is done.
      if (n < 0 || in.find('}', at) != std::string::npos) {
        auto from = in.find('{', at), to = in.rfind('}');
        return engine_error(status,
                            from < to ? std::string_view(in).substr(from, to - from + 1) : "",
                            "POST " + path.substr(0, path.find('?')));
      }
    }
    if (n < 0) return Status(Code::kUnavailable, "the engine closed the connection");
    if (in.size() > kMaxHead) return Status(Code::kUnavailable, "the engine's answer is not HTTP");
  }
}

}  // namespace

bool FrameDemux::feed(std::string_view data, const Sink& sink) {
  if (!framed_) return data.empty() || sink(false, data);
  while (!data.empty()) {
    if (left_ == 0) {
      size_t take = std::min(data.size(), 8 - header_.size());
      header_.append(data.substr(0, take));
      data.remove_prefix(take);
      if (header_.size() < 8) return true;
      auto byte = [&](int i) { return static_cast<unsigned char>(header_[i]); };
      if (byte(0) > 3 || byte(1) || byte(2) || byte(3)) {
        broken_ = true;
        return false;
      }
      is_stderr_ = byte(0) >= 2;
      left_ = size_t{byte(4)} << 24 | size_t{byte(5)} << 16 | size_t{byte(6)} << 8 | byte(7);
      header_.clear();
      continue;
    }
    size_t take = std::min(data.size(), left_);
    left_ -= take;
    if (!sink(is_stderr_, data.substr(0, take))) return false;
    data.remove_prefix(take);
  }
  return true;
}

Status hijack(const EngineClient& engine, const std::string& path, const Json& body,
              const HijackIo& io) {
  auto connection = Connection::open(engine.address());
  if (!connection) return connection.status();
  auto first = upgrade(*connection, engine, path, body);
  if (!first) return first.status();

  RawTerminal raw(io.tty ? io.in : -1);
  FrameDemux demux(!io.tty);
  auto sink = [&](bool is_stderr, std::string_view bytes) {
    return write_all(is_stderr ? io.err : io.out, bytes);
  };
  if (!demux.feed(*first, sink))
    return Status(Code::kUnavailable, "the output stream of the engine broke");

  TerminalSize size;
  std::string pending;  // from `in`, not yet sent; read no more before it is gone, so that output
                        // never waits for input
  bool in_open = io.in >= 0;
  char buffer[kChunk];
  for (;;) {
    if (g_cancelled) return Status(Code::kCancelled, "interrupted");
    if (io.tty && io.resize)
      if (auto now = terminal_size(io.out); now && *now != size) {
        size = *now;
        io.resize(size.rows, size.columns);
      }
    pollfd p[2] = {
        {connection->fd(), static_cast<short>(POLLIN | (pending.empty() ? 0 : POLLOUT)), 0},
        {in_open && pending.empty() ? io.in : -1, POLLIN, 0}};
    if (::poll(p, 2, kTickMs) < 0 && errno != EINTR) return Status(Code::kInternal, "poll failed");
    if (p[1].revents) {
      ssize_t n = ::read(io.in, buffer, sizeof buffer);
      if (n > 0) {
        pending.assign(buffer, static_cast<size_t>(n));
      } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
        in_open = false;
        connection->end_of_input();
      }
    }
    if (!pending.empty()) {
      ssize_t n = connection->send(pending);
      if (n < 0) {  // the program does not read any more; its output may still come
        in_open = false;
        pending.clear();
      } else {
        pending.erase(0, static_cast<size_t>(n));
      }
    }
    // TLS may hold bytes that poll does not see: read until there are none.
    for (;;) {
      ssize_t n = connection->receive(buffer, sizeof buffer);
      if (n == 0) break;
      if (n < 0)
        return demux.broken() ? Status(Code::kUnavailable, "the output stream of the engine broke")
                              : Status::ok();
      if (!demux.feed({buffer, static_cast<size_t>(n)}, sink))
        return demux.broken() ? Status(Code::kUnavailable, "the output stream of the engine broke")
                              : Status::ok();
    }
  }
}

}  // namespace bottle::docker
