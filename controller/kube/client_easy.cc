#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <sys/socket.h>

#include <cstring>
#include <mutex>

#include "base/encoding.h"
#include "base/file.h"
#include "base/log.h"
#include "controller/kube/client_internal.h"
#include "controller/kube/kubeconfig.h"

namespace bottle::kube {
namespace {

constexpr long kKeepIdleSeconds = 30, kKeepIntervalSeconds = 5;  // client-go: ReadIdleTimeout 30 s
constexpr unsigned kUserTimeoutMs = 30'000;                       // a half-open connection is noticed, not waited on for 15 min
constexpr long kConnectTimeoutMs = 10'000;
constexpr auto kCaPeriod = std::chrono::minutes(5);               // client-go transport/ca_rotation.go
constexpr size_t kMaxCaBytes = 4u << 20;

// libcurl opens sockets without close-on-exec; a plugin or a pager must not inherit them.
int on_socket(void*, curl_socket_t fd, curlsocktype) {
  fcntl(fd, F_SETFD, fcntl(fd, F_GETFD) | FD_CLOEXEC);
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &kUserTimeoutMs, sizeof kUserTimeoutMs);
  return CURL_SOCKOPT_OK;
}

struct Url {
  std::string scheme, host, port;  // host in brackets when IPv6
};

Result<Url> split(const std::string& server) {
  std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> u(curl_url(), curl_url_cleanup);
  Url out;
  if (!u || curl_url_set(u.get(), CURLUPART_URL, server.c_str(), 0) != CURLUE_OK)
    return Status(Code::kInvalid, "the server's address is not a URL");
  auto part = [&](CURLUPart which, std::string* to) {
    char* text = nullptr;
    if (curl_url_get(u.get(), which, &text, CURLU_DEFAULT_PORT) == CURLUE_OK && text) *to = text;
    curl_free(text);
  };
  part(CURLUPART_SCHEME, &out.scheme);
  part(CURLUPART_HOST, &out.host);
  part(CURLUPART_PORT, &out.port);
  return out;
}

// Percent-encodes what a header name cannot hold (client-go transport/round_trippers.go, headerKeyEscape).
std::string extra_key(std::string_view key) {
  std::string out;
  for (unsigned char c : key) {
    bool token = std::isalnum(c) || std::strchr("!#$&'*+-.^_`|~", c) != nullptr;
    if (token && c != 0) {
      out += static_cast<char>(c);
    } else {
      append_percent(out, c);
    }
  }
  return out;
}

}  // namespace

struct EasyKeep {
  AuthPtr auth;
  curl_slist* headers = nullptr;
  curl_slist* connect_to = nullptr;
  std::vector<std::string> auth_headers;

  ~EasyKeep() {
    for (curl_slist* h = headers; h; h = h->next) OPENSSL_cleanse(h->data, std::strlen(h->data));
    for (std::string& h : auth_headers) OPENSSL_cleanse(h.data(), h.size());
    curl_slist_free_all(headers);
    curl_slist_free_all(connect_to);
  }
  Status add(const std::string& line) {
    for (unsigned char c : line)
      if (c < 0x20 || c == 0x7f)
        return Status(Code::kInvalid, "the value of the header " + line.substr(0, line.find(':')) +
                                          " holds a line break or another control character");
    curl_slist* longer = curl_slist_append(headers, line.c_str());
    if (!longer) return Status(Code::kExhausted, "out of memory");
    headers = longer;
    return Status::ok();
  }
  Status add_auth(std::string line) {
    Status s = add(line);
    auth_headers.push_back(std::move(line));
    return s;
  }
};
void EasyKeepDelete::operator()(EasyKeep* keep) const { delete keep; }
const std::vector<std::string>& auth_headers(const EasyKeep& keep) { return keep.auth_headers; }

void init_curl_once() {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
}

std::string authority_of(const std::string& server) {
  size_t at = server.find("://");
  std::string rest = at == std::string::npos ? server : server.substr(at + 3);
  return rest.substr(0, rest.find('/'));
}

void AuthSource::refresh_ca() {
  auto now = Clock::now();
  if (ca_read_ != Clock::time_point{} && (config_.ca_file.empty() || now - ca_read_ < kCaPeriod)) return;
  bool first = ca_read_ == Clock::time_point{};
  ca_read_ = now;
  if (first) ca_pem_ = config_.ca_pem;
  if (config_.ca_file.empty()) return;
  auto text = read_file(config_.ca_file, kMaxCaBytes);
  if (!text || text->find("-----BEGIN CERTIFICATE-----") == std::string::npos) {
    log::warn("cannot read the API server's CA again: going on with the old one", {{"file", config_.ca_file}});
    return;
  }
  ca_pem_ = std::move(*text);
}

AuthPtr AuthSource::load() {
  auto auth = std::make_shared<Auth>();
  refresh_ca();
  auth->ca_pem = ca_pem_;
  auto authorization = config_.credentials->authorization();
  auto certificate = authorization ? config_.credentials->certificate() : Result<ClientCertificate>(ClientCertificate{});
  if (!authorization || !certificate) {
    auth->error = (authorization ? certificate.status() : authorization.status()).with_context("credentials of " + config_.source);
    return auth;
  }
  auth->authorization = std::move(*authorization);
  auth->certificate = std::move(*certificate);
  uint64_t generation = config_.credentials->certificate_generation();
  auth->epoch = auth->pool = 1;
  if (last_) {
    bool same_pool = last_->ca_pem == auth->ca_pem && certificate_generation_ == generation &&
                     last_->certificate.cert_pem == auth->certificate.cert_pem;
    bool same = same_pool && last_->authorization.expose() == auth->authorization.expose();
    auth->pool = last_->pool + (same_pool ? 0 : 1);
    auth->epoch = last_->epoch + (same ? 0 : 1);
  }
  certificate_generation_ = generation;
  last_ = auth;
  return auth;
}

Result<EasyKeepPtr> configure_easy(CURL* easy, const Config& config, const std::string& path) {
  init_curl_once();
  AuthSource source(config);
  AuthPtr auth = source.load();
  if (!auth->error) return auth->error;
  return configure_easy_with(easy, config, auth, path, {});
}

Result<EasyKeepPtr> configure_easy_with(CURL* easy, const Config& config, AuthPtr auth, const std::string& path,
                                        const std::vector<std::string>& headers) {
  auto url = split(config.server);
  if (!url) return url.status().with_context(config.source);
  EasyKeepPtr keep(new EasyKeep);
  keep->auth = auth;
  bool tls = url->scheme == "https";

  std::string base = config.server;
  if (tls && !config.tls_server_name.empty() && config.tls_server_name != url->host) {
    // libcurl takes the name in SNI and in the certificate from the URL: name the server there, and say where it is.
    std::string real = authority_of(config.server);
    size_t path_at = config.server.find('/', config.server.find("://") + 3);
    base = "https://" + config.tls_server_name + ":" + url->port + (path_at == std::string::npos ? "" : config.server.substr(path_at));
    keep->connect_to = curl_slist_append(nullptr, (config.tls_server_name + ":" + url->port + ":" + url->host + ":" + url->port).c_str());
    curl_easy_setopt(easy, CURLOPT_CONNECT_TO, keep->connect_to);
    if (auto s = keep->add("Host: " + real); !s) return s;
  }
  curl_easy_setopt(easy, CURLOPT_URL, (base + path).c_str());
  curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);

  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, kConnectTimeoutMs);
  curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
  curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, kKeepIdleSeconds);
  curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, kKeepIntervalSeconds);
  curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, on_socket);

  if (tls) {
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, config.insecure_skip_tls_verify ? 0L : 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, config.insecure_skip_tls_verify ? 0L : 2L);
    if (!auth->ca_pem.empty()) {
      curl_blob ca{const_cast<char*>(auth->ca_pem.data()), auth->ca_pem.size(), CURL_BLOB_NOCOPY};
      curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &ca);
      // The blob replaces the bundle, not the folder of roots: without this every public CA could speak for the API server.
      curl_easy_setopt(easy, CURLOPT_CAPATH, nullptr);
    }
    if (!auth->certificate.empty()) {
      const std::string& cert = auth->certificate.cert_pem;
      std::string_view key = auth->certificate.key_pem.expose();
      curl_blob cert_blob{const_cast<char*>(cert.data()), cert.size(), CURL_BLOB_NOCOPY};
      curl_blob key_blob{const_cast<char*>(key.data()), key.size(), CURL_BLOB_NOCOPY};
      curl_easy_setopt(easy, CURLOPT_SSLCERT_BLOB, &cert_blob);
      curl_easy_setopt(easy, CURLOPT_SSLKEY_BLOB, &key_blob);
      curl_easy_setopt(easy, CURLOPT_SSLCERTTYPE, "PEM");
      curl_easy_setopt(easy, CURLOPT_SSLKEYTYPE, "PEM");
      curl_easy_setopt(easy, CURLOPT_KEYPASSWD, "");  // else OpenSSL asks the terminal for an encrypted key's passphrase
    }
  }

  if (!config.proxy_url.empty()) {
    // Go's socks5 lets the proxy resolve; libcurl calls that socks5h.
    bool socks = config.proxy_url.starts_with("socks5://");
    curl_easy_setopt(easy, CURLOPT_PROXY, (socks ? "socks5h" + config.proxy_url.substr(6) : config.proxy_url).c_str());
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
  } else if (is_loopback_host(authority_of(config.server))) {
    curl_easy_setopt(easy, CURLOPT_PROXY, "");  // as Go does: the environment's proxy is not for this machine
  }

  if (!auth->authorization.empty()) {
    std::string line = "Authorization: " + std::string(auth->authorization.expose());
    Status s = keep->add_auth(line);
    OPENSSL_cleanse(line.data(), line.size());
    if (!s) return s;
  }
  std::vector<std::string> impersonate;
  if (!config.as_user.empty()) impersonate.push_back("Impersonate-User: " + config.as_user);
  if (!config.as_uid.empty()) impersonate.push_back("Impersonate-Uid: " + config.as_uid);
  for (const auto& group : config.as_groups) impersonate.push_back("Impersonate-Group: " + group);
  for (const auto& [key, value] : config.as_extra) impersonate.push_back("Impersonate-Extra-" + extra_key(key) + ": " + value);
  for (const auto& line : impersonate)
    if (auto s = keep->add_auth(line); !s) return s;
  for (const auto& line : headers)
    if (auto s = keep->add(line); !s) return s;
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, keep->headers);
  return keep;
}

Status transport_error(CURLcode code, const std::string& said, const Config& config) {
  std::string text = said.empty() ? curl_easy_strerror(code) : said;
  std::string where = authority_of(config.server) + " (" + config.source + "): ";
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
      return Status(Code::kUnavailable, where + text + "; check the name of the server, and this machine's DNS");
    case CURLE_COULDNT_CONNECT:
      return Status(Code::kUnavailable, where + text + "; is the cluster running, and does the kubeconfig name its address?");
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
      return Status(Code::kPermission, where + text + "; the server's certificate is not from the CA that is configured, or is for another name: "
                                                      "check certificate-authority, server and tls-server-name");
    case CURLE_SSL_CERTPROBLEM:
      return Status(Code::kPermission, where + text + "; check client-certificate and client-key: a pair in PEM, the key without a passphrase");
    case CURLE_SSL_CONNECT_ERROR:
      return Status(Code::kUnavailable, where + text + "; TLS failed: is this the port of an API server, and the client certificate still good?");
    case CURLE_OPERATION_TIMEDOUT:
      return Status(Code::kTimeout, where + text);
    case CURLE_OUT_OF_MEMORY:
      return Status(Code::kExhausted, where + text);
    default:
      return Status(Code::kUnavailable, where + text);
  }
}

}  // namespace bottle::kube
