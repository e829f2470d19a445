#include "backends/docker/engine_client.h"

#include <curl/curl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>

#include "backends/backend.h"
#include "base/digest.h"
#include "base/encoding.h"
#include "base/file.h"

namespace bottle::docker {
namespace {

// The newest version whose answers this code was written for. Engines accept a range that reaches
// back several years.
constexpr int kMinMinor = 41, kMaxMinor = 47;
constexpr size_t kMaxAnswer = 64u << 20;

std::string env_of(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

Result<EngineAddress> parse_host(const std::string& host) {
  EngineAddress a;
  a.shown = host;
  if (host.rfind("unix://", 0) == 0) {
    a.socket = host.substr(7);
  } else if (!host.empty() && host[0] == '/') {
    a.socket = host;
    a.shown = "unix://" + host;
  } else if (host.rfind("tcp://", 0) == 0 || host.rfind("http://", 0) == 0 ||
             host.rfind("https://", 0) == 0) {
    bool tls = !env_of("DOCKER_TLS_VERIFY").empty() || host.rfind("https://", 0) == 0;
    a.url = (tls ? "https://" : "http://") + host.substr(host.find("//") + 2);
    while (!a.url.empty() && a.url.back() == '/') a.url.pop_back();
    if (tls) {
      a.cert_dir = env_of("DOCKER_CERT_PATH");
      if (a.cert_dir.empty()) a.cert_dir = env_of("HOME") + "/.docker";
    }
  } else {
    return Status(Code::kUnsupported,
                  "engine address '" + host +
                      "' is not understood; use unix:///path or tcp://host:port (set DOCKER_HOST)");
  }
  return a;
}

// The endpoint of the current context; empty when there is none.
std::string context_host() {
  std::string dir = env_of("DOCKER_CONFIG");
  if (dir.empty()) dir = env_of("HOME") + "/.docker";
  std::string name = env_of("DOCKER_CONTEXT");
  if (name.empty()) {
    auto config = read_file(dir + "/config.json");
    if (!config) return "";
    name = text_at(Json::parse(*config, nullptr, false), "/currentContext");
  }
  if (name.empty() || name == "default") return "";
  auto meta = read_file(dir + "/contexts/meta/" + sha256_hex(name) + "/meta.json");
  return meta ? text_at(Json::parse(*meta, nullptr, false), "/Endpoints/docker/Host") : "";
}

struct Transfer {
  const EngineClient::OnData* on_data = nullptr;
  CURL* curl = nullptr;
  std::string body;  // of an error, or of the whole answer without on_data
  std::string api_version, server;
  bool stopped = false, too_large = false;
};

size_t on_body(char* data, size_t, size_t size, void* user) {
  auto* t = static_cast<Transfer*>(user);
  long status = 0;
  curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
  if (t->on_data && status < 400) {
    if ((*t->on_data)({data, size})) return size;
    t->stopped = true;
    return 0;
  }
  if (t->body.size() + size > kMaxAnswer) {
    t->too_large = true;
    return 0;
  }
  t->body.append(data, size);
  return size;
}

size_t on_header(char* data, size_t, size_t size, void* user) {
  auto* t = static_cast<Transfer*>(user);
  std::string line(data, size);
  while (!line.empty() && (line.back() == '\r' || line.back() == '\n')) line.pop_back();
  auto colon = line.find(": ");
  if (colon == std::string::npos) return size;
  std::string name = line.substr(0, colon);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  if (name == "api-version") t->api_version = line.substr(colon + 2);
  if (name == "server") t->server = line.substr(colon + 2);
  return size;
}

int on_progress(void*, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return g_cancelled.load() ? 1 : 0;
}

Status transport_error(CURL* curl, CURLcode code, const EngineAddress& a, const Transfer& t,
                       std::string_view what) {
  if (t.too_large)
    return Status(Code::kExhausted, std::string(what) + ": the engine's answer is too large");
  if (code == CURLE_ABORTED_BY_CALLBACK)
    return Status(Code::kCancelled, std::string(what) + ": interrupted");
  if (code == CURLE_OPERATION_TIMEDOUT)
    return Status(Code::kTimeout,
                  std::string(what) + ": the engine at " + a.shown + " did not answer in time");
  long os_errno = 0;
  curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &os_errno);
  if (code == CURLE_COULDNT_CONNECT && !a.socket.empty()) {
    // libcurl does not always keep the errno of a unix socket: ask the file itself.
    if (os_errno == 0 && access(a.socket.c_str(), R_OK | W_OK) != 0) os_errno = errno;
    if (os_errno == EACCES || os_errno == EPERM)
      return Status(
          Code::kPermission,
          "no permission on the engine's socket " + a.socket +
              "; add yourself to its group (sudo usermod -aG docker $USER, then log in again)");
    return Status(Code::kUnavailable,
                  "no container engine answers at " + a.shown +
                      "; start it (sudo systemctl start docker) or set DOCKER_HOST");
  }
  if (code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST)
    return Status(Code::kUnavailable,
                  "no container engine answers at " + a.shown + "; check DOCKER_HOST");
  return Status(Code::kUnavailable, std::string(what) + ": talking to the engine at " + a.shown +
                                        ": " + curl_easy_strerror(code));
}

struct Request {
  std::string method, path;
  std::string_view body;
  std::string content_type;  // empty: no body
  long timeout_ms = 0;
};

Status perform(const EngineAddress& a, const Request& r, Transfer& t) {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
  std::unique_ptr<CURL, void (*)(CURL*)> handle(curl_easy_init(), curl_easy_cleanup);
  CURL* c = handle.get();
  if (!c) return Status(Code::kExhausted, "out of memory for a request to the engine");
  t.curl = c;
  std::unique_ptr<curl_slist, void (*)(curl_slist*)> headers(nullptr, curl_slist_free_all);
  auto add = [&](const std::string& line) {
    headers.reset(curl_slist_append(headers.release(), line.c_str()));
  };
  add("Expect:");
  curl_easy_setopt(c, CURLOPT_URL, (a.url + r.path).c_str());
  curl_easy_setopt(c, CURLOPT_PROXY, "");  // http_proxy is not for the engine
  if (!a.socket.empty()) curl_easy_setopt(c, CURLOPT_UNIX_SOCKET_PATH, a.socket.c_str());
  if (!a.cert_dir.empty()) {
    curl_easy_setopt(c, CURLOPT_CAINFO, (a.cert_dir + "/ca.pem").c_str());
    curl_easy_setopt(c, CURLOPT_SSLCERT, (a.cert_dir + "/cert.pem").c_str());
    curl_easy_setopt(c, CURLOPT_SSLKEY, (a.cert_dir + "/key.pem").c_str());
  }
  curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, 10'000L);
  if (r.timeout_ms > 0) curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, r.timeout_ms);
  if (!r.content_type.empty()) {
    add("Content-Type: " + r.content_type);
    curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(r.body.size()));
    curl_easy_setopt(c, CURLOPT_POSTFIELDS, r.body.data());
  } else if (r.method == "POST") {
    curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE, 0L);
    curl_easy_setopt(c, CURLOPT_POSTFIELDS, "");
  }
  curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, r.method.c_str());
  curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(c, CURLOPT_WRITEDATA, &t);
  curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(c, CURLOPT_HEADERDATA, &t);
  // Streams and pulls end on Ctrl-C; short calls run to their end, so that a create's answer (the
  // id) is not lost.
  if (t.on_data) {
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
  }
  std::string what = r.method + " " + r.path.substr(0, r.path.find('?'));
  CURLcode code = curl_easy_perform(c);
  if (t.stopped) return Status::ok();
  if (code != CURLE_OK) return transport_error(c, code, a, t, what);
  long status = 0;
  curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
  if (status >= 400) return engine_error(status, t.body, what);
  return Status::ok();
}

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace

Result<EngineAddress> find_engine(const std::string& host) {
  if (!host.empty()) return parse_host(host);
  if (auto env = env_of("DOCKER_HOST"); !env.empty()) return parse_host(env);
  if (auto context = context_host(); !context.empty()) return parse_host(context);
  std::string runtime = env_of("XDG_RUNTIME_DIR");
  for (const std::string& path : {std::string("/var/run/docker.sock"), runtime + "/docker.sock",
                                  runtime + "/podman/podman.sock"})
    if (access(path.c_str(), F_OK) == 0) return parse_host("unix://" + path);
  return parse_host("unix:///var/run/docker.sock");
}

Status engine_error(long http_status, std::string_view body, std::string_view what) {
  std::string message = text_at(Json::parse(body, nullptr, false), "/message");
  if (message.empty())
    message =
        body.empty() ? "HTTP " + std::to_string(http_status) : std::string(body.substr(0, 500));
  std::string said = std::string(what) + ": " + message;
  if (has(message, "no space left on device") || has(message, "disk quota exceeded"))
    return Status(
        Code::kExhausted,
        said + "; the engine's disk is full: free space (docker system df, bottle cleanup)");
  if (has(message, "non-overlapping IPv4 address pool") || has(message, "fully subnetted") ||
      has(message, "no available network"))
    return Status(
        Code::kExhausted,
        said +
            "; the engine has no free network range: remove unused networks (bottle cleanup, "
            "docker network prune) or add default-address-pools to the engine's settings");
  if (has(message, "port is already allocated") || has(message, "address already in use"))
    return Status(Code::kExhausted,
                  said + "; a port of the host is taken: free it or choose another");
  if (has(message, "toomanyrequests") || has(message, "429"))
    return Status(Code::kUnavailable, said + "; the registry limits pulls: log in or wait");
  switch (http_status) {
    case 400:
      return Status(Code::kInvalid, said);
    case 401:
    case 403:
      return Status(Code::kPermission, said);
    case 404:
      return Status(Code::kNotFound, said);
    case 409:
      return Status(Code::kConflict, said);
    case 503:
      return Status(Code::kUnavailable, said);
    default:
      return Status(Code::kUnavailable, said);
  }
}

Result<EngineClient> EngineClient::connect(EngineAddress address) {
  EngineClient client(std::move(address));
  Transfer t;
  Request r;
  r.method = "GET";
  r.path = "/_ping";
  r.timeout_ms = 10'000;
  if (auto s = perform(client.address_, r, t); !s) return s;
  int major = 0, minor = 0;
  if (std::sscanf(t.api_version.c_str(), "%d.%d", &major, &minor) != 2)
    return Status(Code::kUnsupported, "what answers at " + client.address_.shown +
                                          " is not a container engine (no Api-Version)");
  if (major != 1 || minor < kMinMinor)
    return Status(Code::kUnsupported, "the engine at " + client.address_.shown + " speaks API " +
                                          t.api_version +
                                          "; 1.41 (Docker 20.10) or newer is needed");
  client.prefix_ = "/v1." + std::to_string(std::min(minor, kMaxMinor));
  client.server_ = t.server;
  return client;
}

Result<std::string> EngineClient::bytes(const std::string& method, const std::string& path,
                                        std::string_view body, const std::string& content_type,
                                        long timeout_ms) const {
  Transfer t;
  Request r{method, prefix_ + path, body, content_type, timeout_ms};
  if (auto s = perform(address_, r, t); !s) return s;
  return std::move(t.body);
}

Result<Json> EngineClient::call(const std::string& method, const std::string& path,
                                const Json& body, long timeout_ms) const {
  auto answer = bytes(method, path, body.is_null() ? "" : dump(body),
                      body.is_null() ? "" : "application/json", timeout_ms);
  if (!answer) return answer.status();
  if (answer->empty()) return Json();
  Json json = Json::parse(*answer, nullptr, false);
  if (json.is_discarded())
    return Status(Code::kUnavailable, method + " " + path.substr(0, path.find('?')) +
                                          ": the engine's answer is not JSON");
  return json;
}

Status EngineClient::stream(const std::string& method, const std::string& path,
                            const OnData& on_data, long timeout_ms) const {
  Transfer t;
  t.on_data = &on_data;
  Request r{method, prefix_ + path, "", "", timeout_ms};
  return perform(address_, r, t);
}

std::string filters_query(const Json& filters) { return "?filters=" + percent_encode(dump(filters)); }

namespace {
const Json* find_at(const Json& json, const std::string& pointer) {
  Json::json_pointer p(pointer);
  return json.is_discarded() || !json.contains(p) ? nullptr : &json.at(p);
}
}  // namespace

std::string text_at(const Json& json, const std::string& pointer) {
  const Json* j = find_at(json, pointer);
  return j && j->is_string() ? j->get<std::string>() : "";
}

int64_t int_at(const Json& json, const std::string& pointer) {
  const Json* j = find_at(json, pointer);
  return j && j->is_number() ? j->get<int64_t>() : 0;
}

bool bool_at(const Json& json, const std::string& pointer) {
  const Json* j = find_at(json, pointer);
  return j && j->is_boolean() && j->get<bool>();
}

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace bottle::docker
