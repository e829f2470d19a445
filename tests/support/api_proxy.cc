#include "tests/support/api_proxy.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "controller/kube/client.h"
#include "controller/kube/config.h"

namespace bottle::test {
namespace {

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

bool send_all(int fd, std::string_view data) {
  while (!data.empty()) {
    ssize_t n = ::send(fd, data.data(), data.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

std::string chunk(std::string_view data) {
  char size[20];
  std::snprintf(size, sizeof size, "%zx\r\n", data.size());
  return size + std::string(data) + "\r\n";
}

class Proxy final : public ApiProxy {
 public:
  Proxy(kube::Config config, int listener, uint16_t port) : config_(std::move(config)), listener_(listener), port_(port) {
    acceptor_ = std::thread([this] { accept_all(); });
  }
  ~Proxy() override {
    ::shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    ::close(listener_);
    std::vector<std::thread> threads;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      over_ = true;
      for (int fd : open_) ::shutdown(fd, SHUT_RDWR);
      threads.swap(threads_);
    }
    for (auto& t : threads) t.join();
  }

  std::string kubeconfig() const override {
    return "apiVersion: v1\nkind: Config\ncurrent-context: proxy\nclusters:\n- name: proxy\n  cluster: {server: \"http://127.0.0.1:" +
           std::to_string(port_) + "\"}\nusers:\n- name: proxy\n  user: {}\ncontexts:\n- name: proxy\n  context: {cluster: proxy, user: proxy}\n";
  }
  void before(std::function<std::optional<Reply>(const Request&)> hook) override {
    std::lock_guard<std::mutex> lock(mutex_);
    before_ = std::move(hook);
  }
  void after(std::function<std::optional<Reply>(const Request&, int)> hook) override {
    std::lock_guard<std::mutex> lock(mutex_);
    after_ = std::move(hook);
  }
  void cut_watch_data(int n) override { cuts_ = n; }
  int cuts_left() const override { return cuts_; }
  void drop_watches() override {
    std::lock_guard<std::mutex> lock(mutex_);
    for (int fd : watches_) ::shutdown(fd, SHUT_RDWR);
  }
  std::vector<Seen> seen() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    return seen_;
  }
  int writes() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    return writes_;
  }
  void forget() override {
    std::lock_guard<std::mutex> lock(mutex_);
    seen_.clear();
    writes_ = 0;
  }

 private:
  struct Headers {
    std::vector<std::string> pass;  // lines for the server
    size_t length = 0;
    bool expects = false;
  };
  // One exchange with the server, as libcurl's callbacks see it.
  struct Exchange {
    Proxy* proxy;
    int fd;
    const Request* request;
    std::string head;               // for the client: status line and headers
    std::string body;               // collected, unless it is a stream
    int code = 0;
    bool begun = false;             // the client has its head
    bool failed = false;
  };

  void accept_all() {
    for (;;) {
      int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) {
        if (errno == EINTR || errno == ECONNABORTED) continue;
        return;
      }
      std::lock_guard<std::mutex> lock(mutex_);
      open_.insert(fd);
      threads_.emplace_back([this, fd] { connection(fd); });
    }
  }

  void connection(int fd) {
    int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    CURL* easy = curl_easy_init();
    std::string buffer;
    while (exchange(fd, easy, &buffer)) {
    }
    curl_easy_cleanup(easy);
    std::lock_guard<std::mutex> lock(mutex_);
    open_.erase(fd);
    watches_.erase(fd);
    ::close(fd);
  }

  // Reads one request of the client.
  static bool read_request(int fd, std::string* buffer, Request* request, Headers* headers) {
    auto more = [&] {
      char data[16384];
      ssize_t n = ::recv(fd, data, sizeof data, 0);
      if (n > 0) buffer->append(data, static_cast<size_t>(n));
      return n > 0;
    };
    size_t end;
    while ((end = buffer->find("\r\n\r\n")) == std::string::npos) {
      if (!more()) return false;
    }
    std::string head = buffer->substr(0, end + 2);
    buffer->erase(0, end + 4);
    size_t line_end = head.find("\r\n"), a = head.find(' '), b = head.find(' ', a + 1);
    request->method = head.substr(0, a);
    request->target = head.substr(a + 1, b - a - 1);
    for (size_t at = line_end + 2; at < head.size();) {
      size_t stop = head.find("\r\n", at);
      std::string line = head.substr(at, stop - at), name = lower(line.substr(0, line.find(':')));
      std::string value = line.substr(std::min(line.size(), line.find(':') + 2));
      at = stop + 2;
      if (name == "user-agent") request->user_agent = value;
      if (name == "content-length") headers->length = std::stoul(value);
      else if (name == "expect") headers->expects = true;
      else if (name != "host" && name != "connection" && name != "authorization") headers->pass.push_back(std::move(line));
    }
    if (headers->expects && !send_all(fd, "HTTP/1.1 100 Continue\r\n\r\n")) return false;
    while (buffer->size() < headers->length) {
      if (!more()) return false;
    }
    request->body = buffer->substr(0, headers->length);
    buffer->erase(0, headers->length);
    request->watch = request->target.find("watch=1") != std::string::npos || request->target.find("watch=true") != std::string::npos;
    return true;
  }

  bool exchange(int fd, CURL* easy, std::string* buffer) {
    Request request;
    Headers headers;
    if (!read_request(fd, buffer, &request, &headers)) return false;
    std::function<std::optional<Reply>(const Request&)> before;
    std::function<std::optional<Reply>(const Request&, int)> after;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (over_) return false;
      if (request.method != "GET" && request.method != "HEAD") request.write = ++writes_;
      if (request.watch) watches_.insert(fd);
      before = before_;
      after = after_;
    }
    if (before) {
      if (auto reply = before(request)) return answer(fd, request, *reply);
    }
    Exchange x{this, fd, &request, {}, {}, 0, false, false};
    forward(easy, headers, &x);
    if (x.begun) return !x.failed && send_all(fd, "0\r\n\r\n");
    if (x.failed) return answer(fd, request, {0, {}, {}});
    if (after) {
      if (auto reply = after(request, x.code)) return answer(fd, request, *reply);
    }
    remember(request, x.code);
    return send_all(fd, x.head + "Content-Length: " + std::to_string(x.body.size()) + "\r\n\r\n" + x.body);
  }

  void forward(CURL* easy, const Headers& headers, Exchange* x) {
    curl_easy_reset(easy);  // keeps the connection
    auto keep = kube::configure_easy(easy, config_, x->request->target);
    curl_slist* list = nullptr;
    for (const auto& line : headers.pass) list = curl_slist_append(list, line.c_str());
    list = curl_slist_append(list, "Expect:");
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, list);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    if (!x->request->body.empty() || x->request->method == "POST") {
      curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(x->request->body.size()));
      curl_easy_setopt(easy, CURLOPT_POSTFIELDS, x->request->body.c_str());
    }
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, x->request->method.c_str());
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, &Proxy::on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, x);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &Proxy::on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, x);
    // A watch ends when the client does: without data, only this notices.
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, &Proxy::on_progress);
    curl_easy_setopt(easy, CURLOPT_XFERINFODATA, x);
    if (!keep.is_ok() || curl_easy_perform(easy) != CURLE_OK) x->failed = true;
    curl_slist_free_all(list);
  }

  static size_t on_header(char* data, size_t size, size_t n, void* p) {
    auto* x = static_cast<Exchange*>(p);
    std::string line(data, size * n), name = lower(line.substr(0, line.find(':')));
    if (line.rfind("HTTP/", 0) == 0) {
      x->code = std::atoi(line.c_str() + line.find(' '));
      x->head = line;
    } else if (line != "\r\n" && name != "transfer-encoding" && name != "content-length" && name != "connection") {
      x->head += line;
    } else if (line == "\r\n" && x->request->watch && x->code == 200) {
      // Now and not with the first event: a client bounds the wait for the head.
      x->begun = true;
      x->proxy->remember(*x->request, x->code);
      if (!send_all(x->fd, x->head + "Transfer-Encoding: chunked\r\n\r\n")) return 0;
    }
    return size * n;
  }

  static size_t on_body(char* data, size_t size, size_t n, void* p) {
    auto* x = static_cast<Exchange*>(p);
    std::string_view piece(data, size * n);
    if (!x->begun) {
      x->body += piece;
      return piece.size();
    }
    int cuts = x->proxy->cuts_;
    while (cuts > 0 && !x->proxy->cuts_.compare_exchange_weak(cuts, cuts - 1)) {
    }
    if (cuts > 0) {
      send_all(x->fd, chunk(piece.substr(0, piece.size() / 2)));
      ::shutdown(x->fd, SHUT_RDWR);
      return 0;
    }
    return send_all(x->fd, chunk(piece)) ? piece.size() : 0;
  }

  static int on_progress(void* p, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    auto* x = static_cast<Exchange*>(p);
    char byte;
    ssize_t n = ::recv(x->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
  }

  bool answer(int fd, const Request& request, const Reply& reply) {
    remember(request, reply.code);
    if (reply.code == 0) return false;
    return send_all(fd, "HTTP/1.1 " + std::to_string(reply.code) + " Status\r\nContent-Type: application/json\r\n" + reply.headers +
                            "Content-Length: " + std::to_string(reply.body.size()) + "\r\n\r\n" + reply.body);
  }

  void remember(const Request& request, int code) {
    std::lock_guard<std::mutex> lock(mutex_);
    Seen seen;
    static_cast<Request&>(seen) = request;
    seen.code = code;
    seen_.push_back(std::move(seen));
  }

  const kube::Config config_;
  const int listener_;
  const uint16_t port_;
  std::thread acceptor_;
  mutable std::mutex mutex_;
  std::vector<std::thread> threads_;
  std::set<int> open_, watches_;
  std::function<std::optional<Reply>(const Request&)> before_;
  std::function<std::optional<Reply>(const Request&, int)> after_;
  std::vector<Seen> seen_;
  int writes_ = 0;
  bool over_ = false;
  std::atomic<int> cuts_{0};
};

}  // namespace

Result<std::unique_ptr<ApiProxy>> ApiProxy::create(const std::string& kubeconfig) {
  kube::ConfigOptions options;
  options.kubeconfig = kubeconfig;
  auto config = kube::load_config(options);
  if (!config.is_ok()) return config.status();
  curl_global_init(CURL_GLOBAL_DEFAULT);
  int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (fd < 0 || ::bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(fd, 128) != 0 ||
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return Status(Code::kUnavailable, std::string("listen on 127.0.0.1: ") + std::strerror(errno));
  }
  return std::unique_ptr<ApiProxy>(std::make_unique<Proxy>(std::move(config).value(), fd, ntohs(address.sin_port)));
}

}  // namespace bottle::test
