#include "backends/kubernetes/connection.h"

#include <curl/curl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <strings.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "backends/backend.h"
#include "backends/kubernetes/websocket.h"
#include "backends/terminal.h"

namespace bottle::kubernetes {
namespace {

constexpr size_t kMaxHead = 64u << 10, kMaxError = 256u << 10;
constexpr auto kUpgradeLimit = std::chrono::seconds(30);

struct Head {
  int code = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string header(const std::string& name) const {
    auto it = headers.find(name);
    return it == headers.end() ? "" : it->second;
  }
};

Head parse_head(std::string_view text) {
  Head head;
  size_t end = text.find("\r\n");
  const std::string first(text.substr(0, end));
  if (std::sscanf(first.c_str(), "HTTP/1.%*d %d", &head.code) != 1) head.code = 0;
  while (end != std::string_view::npos && end + 2 < text.size()) {
    text.remove_prefix(end + 2);
    end = text.find("\r\n");
    const std::string_view line = text.substr(0, end);
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    std::string name(line.substr(0, colon));
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const size_t from = std::min(line.find_first_not_of(" \t", colon + 1), line.size());
    std::string value(line.substr(from));
    while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.pop_back();
    head.headers[name] = value;
  }
  return head;
}

// All of an error's body is here: by its length, or (chunked) by the Status's last brace.
bool whole_body(const Head& head, std::string_view body) {
  if (const auto length = head.header("content-length"); !length.empty()) return body.size() >= std::strtoull(length.c_str(), nullptr, 10);
  return body.find("\r\n0\r\n") != std::string_view::npos;
}

bool one_line(std::string_view text) { return text.find_first_of("\r\n") == std::string_view::npos && text.find('\0') == std::string_view::npos; }

// The request with the token in it: the caller wipes it.
Result<std::string> request_text(const kube::Config& config, const std::string& path, const std::vector<std::string>& protocols, const std::string& key) {
  const size_t scheme = config.server.find("://");
  const size_t start = scheme == std::string::npos ? 0 : scheme + 3;
  const size_t slash = config.server.find('/', start);
  const std::string prefix = slash == std::string::npos ? "" : config.server.substr(slash);
  auto token = config.credentials->token();
  if (!token) return token.status();
  std::string out;
  out.reserve(4096 + path.size() + token->size());
  out += "GET " + prefix + path + " HTTP/1.1\r\nHost: " + config.server.substr(start, slash == std::string::npos ? slash : slash - start) +
         "\r\nUser-Agent: bottle\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key +
         "\r\nSec-WebSocket-Protocol: ";
  for (size_t i = 0; i < protocols.size(); ++i) out += (i ? ", " : "") + protocols[i];
  out += "\r\n";
  bool clean = one_line(out.substr(0, out.find("\r\n"))) && one_line(token->expose());
  const auto header = [&](const char* name, const std::string& value) {
    clean = clean && one_line(value);
    if (!value.empty()) out += std::string(name) + ": " + value + "\r\n";
  };
  header("Impersonate-User", config.as_user);
  header("Impersonate-Uid", config.as_uid);
  for (const auto& group : config.as_groups) header("Impersonate-Group", group);
  if (!clean) return Status(Code::kInvalid, "the kubeconfig's token or impersonation holds a line break: " + config.source);
  if (!token->empty()) out.append("Authorization: Bearer ").append(token->expose()).append("\r\n");
  out += "\r\n";
  return out;
}

}  // namespace

Result<std::unique_ptr<Connection>> Connection::open(const kube::Config& config, const std::string& path, const std::vector<std::string>& protocols) {
  for (bool again : {false, true}) {
    std::unique_ptr<Connection> c(new Connection);
    if (auto s = c->connect(config, path); !s) return s;
    int code = 0;
    Status s = c->upgrade(config, path, protocols, &code);
    if (s) return c;
    if (code != 401 || again) return s;
    config.credentials->rejected();
  }
  return Status(Code::kInternal, "not reached");
}

Status Connection::connect(const kube::Config& config, const std::string& path) {
  handle_ = {curl_easy_init(), curl_easy_cleanup};
  CURL* h = handle_.get();
  if (!h) return {Code::kExhausted, "out of memory for a connection to the API server"};
  auto keep = kube::configure_easy(h, config, path);
  if (!keep) return keep.status();
  keep_ = std::move(*keep);
  curl_easy_setopt(h, CURLOPT_CONNECT_ONLY, 1L);
  curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(h, CURLOPT_HTTPPROXYTUNNEL, 1L);
  curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT_MS, 10'000L);
  // An upgrade is HTTP/1.1; with ALPN the server would choose HTTP/2.
  curl_easy_setopt(h, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  curl_easy_setopt(h, CURLOPT_SSL_ENABLE_ALPN, 0L);
  curl_socket_t fd = CURL_SOCKET_BAD;
  const CURLcode code = curl_easy_perform(h);
  if (code != CURLE_OK || curl_easy_getinfo(h, CURLINFO_ACTIVESOCKET, &fd) != CURLE_OK || fd == CURL_SOCKET_BAD)
    return {Code::kUnavailable, "cannot connect to the API server " + config.server + " (" + config.source + "): " + curl_easy_strerror(code)};
  fd_ = fd;
  return Status::ok();
}

Status Connection::upgrade(const kube::Config& config, const std::string& path, const std::vector<std::string>& protocols, int* code) {
  auto key = websocket_key();
  if (!key) return key.status();
  auto request = request_text(config, path, protocols, *key);
  if (!request) return request.status();
  std::string& out = *request;
  std::string in;
  const auto deadline = std::chrono::steady_clock::now() + kUpgradeLimit;
  const auto exchange = [&]() -> Status {
    char buffer[4096];
    for (size_t sent = 0;;) {
      if (g_cancelled) return {Code::kCancelled, "interrupted"};
      if (std::chrono::steady_clock::now() > deadline) return {Code::kTimeout, "the API server did not start the stream in 30 s"};
      pollfd p{fd_, static_cast<short>(POLLIN | (sent < out.size() ? POLLOUT : 0)), 0};
      ::poll(&p, 1, kTickMs);
      if (sent < out.size()) {
        const ssize_t n = send(std::string_view(out).substr(sent));
        if (n < 0) return {Code::kUnavailable, "the API server closed the connection"};
        sent += static_cast<size_t>(n);
      }
      const ssize_t n = receive(buffer, sizeof buffer);
      if (n > 0) in.append(buffer, static_cast<size_t>(n));
      const size_t end = in.find("\r\n\r\n");
      if (end == std::string::npos) {
        if (n < 0) return {Code::kUnavailable, "the API server closed the connection"};
        if (in.size() > kMaxHead) return {Code::kUnavailable, "the API server's answer is not HTTP"};
        continue;
      }
      const Head head = parse_head(std::string_view(in).substr(0, end + 2));
      const std::string body = in.substr(end + 4);
      *code = head.code;
      if (head.code == 0) return {Code::kUnavailable, "the API server's answer is not HTTP"};
      if (head.code != 101) {
        if (n >= 0 && !whole_body(head, body) && body.size() < kMaxError) continue;
        kube::Answer answer;
        answer.code = head.code < 400 ? 502 : head.code;  // an answer that is neither the upgrade nor an error comes from something in between
        const size_t from = body.find('{'), to = body.rfind('}');
        if (from != std::string::npos && to != std::string::npos && from < to) answer.body = body.substr(from, to - from + 1);
        kube::decode_status(&answer);
        return answer.status("open the stream");
      }
      if (::strcasecmp(head.header("upgrade").c_str(), "websocket") != 0 || head.header("sec-websocket-accept") != websocket_accept(*key))
        return {Code::kUnavailable, "the API server's answer to the WebSocket handshake is wrong; is a proxy in between that cannot pass it on?"};
      protocol_ = head.header("sec-websocket-protocol");
      if (std::find(protocols.begin(), protocols.end(), protocol_) == protocols.end())
        return {Code::kUnsupported, "the API server chose no protocol of ours: \"" + protocol_.substr(0, 100) + "\""};
      first_ = body;
      return Status::ok();
    }
  };
  const Status s = exchange();
  OPENSSL_cleanse(out.data(), out.size());
  return s;
}

ssize_t Connection::send(std::string_view data) {
  size_t n = 0;
  const CURLcode code = curl_easy_send(handle_.get(), data.data(), data.size(), &n);
  return code == CURLE_OK ? static_cast<ssize_t>(n) : code == CURLE_AGAIN ? 0 : -1;
}

ssize_t Connection::receive(char* buffer, size_t size) {
  size_t n = 0;
  const CURLcode code = curl_easy_recv(handle_.get(), buffer, size, &n);
  if (code == CURLE_AGAIN) return 0;
  return code == CURLE_OK && n > 0 ? static_cast<ssize_t>(n) : -1;
}

void Connection::wait_for_slow_reader() {
  const unsigned int off = 0;
  (void)::setsockopt(fd_, IPPROTO_TCP, TCP_USER_TIMEOUT, &off, sizeof off);
}

}  // namespace bottle::kubernetes
