#include "controller/kube/kubeconfig.h"

#include <curl/curl.h>
#include <openssl/crypto.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/encoding.h"
#include "base/file.h"
#include "base/log.h"
#include "controller/kube/credentials.h"
#include "controller/kube/exec_plugin.h"

namespace bottle::kube {
namespace {

using Json = nlohmann::json;
using Kind = YamlNode::Kind;

constexpr size_t kMaxPemBytes = 1u << 20;
constexpr size_t kNamesShown = 20;

void wipe(YamlNode& node) {
  if (!node.text.empty()) OPENSSL_cleanse(node.text.data(), node.text.size());
  for (auto& item : node.items) wipe(item);
  for (auto& entry : node.entries) wipe(entry.value);
}

std::string shown(std::string_view text) {
  std::string out(text.substr(0, 100));
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  return out;
}

std::string folder_of(const std::string& path) {
  size_t at = path.rfind('/');
  return at == std::string::npos ? "." : at == 0 ? "/" : path.substr(0, at);
}

std::string resolve(const std::string& path, const std::string& file) {
  return path.empty() || path[0] == '/' ? path : folder_of(file) + "/" + path;
}

// Reads the fields of one mapping; the first thing that is wrong is kept and told by status().
class Fields {
 public:
  Fields(const YamlNode& node, std::string where, std::string file) : node_(node), where_(std::move(where)), file_(std::move(file)) {
    if (node.kind != Kind::kMap && node.kind != Kind::kNull) wrong(node, "must be a mapping");
  }
  const YamlNode* find(std::string_view key) const {
    for (const auto& e : node_.entries)
      if (e.key == key) return e.value.kind == Kind::kNull ? nullptr : &e.value;
    return nullptr;
  }
  std::string text(std::string_view key) {
    const YamlNode* n = find(key);
    if (!n) return "";
    if (n->kind == Kind::kMap || n->kind == Kind::kList) {
      wrong(*n, std::string(key) + " must be text");
      return "";
    }
    return n->text;
  }
  bool flag(std::string_view key) {
    const YamlNode* n = find(key);
    if (!n) return false;
    if (n->kind != Kind::kBool) wrong(*n, std::string(key) + " must be true or false");
    return n->kind == Kind::kBool && (n->text[0] == 't' || n->text[0] == 'T' || n->text[0] == 'y' || n->text[0] == 'Y' || n->text == "on" ||
                                      n->text == "On" || n->text == "ON");
  }
  std::vector<std::string> texts(const YamlNode* n, std::string_view key) {
    std::vector<std::string> out;
    if (!n) return out;
    if (n->kind != Kind::kList) wrong(*n, std::string(key) + " must be a list");
    for (const auto& item : n->items) {
      if (item.kind == Kind::kMap || item.kind == Kind::kList)
        wrong(item, std::string(key) + " must be a list of texts");
      else
        out.push_back(item.text);
    }
    return out;
  }
  std::vector<std::string> texts(std::string_view key) { return texts(find(key), key); }
  std::string data(std::string_view key) {
    const YamlNode* n = find(key);
    std::string encoded = text(key);
    auto bytes = decode_base64(encoded);
    OPENSSL_cleanse(encoded.data(), encoded.size());
    if (!bytes) wrong(*n, std::string(key) + " is not base64");
    return bytes.value_or("");
  }
  std::string path(std::string_view key) { return resolve(text(key), file_); }
  void wrong(const YamlNode& at, const std::string& what) {
    if (status_) status_ = Status(Code::kInvalid, file_ + ":" + std::to_string(at.line) + ": " + where_ + ": " + what);
  }
  void wrong(const std::string& what) { wrong(node_, what); }
  const Status& status() const { return status_; }

 private:
  const YamlNode& node_;
  const std::string where_, file_;
  Status status_;
};

Json to_json(const YamlNode& node) {
  switch (node.kind) {
    case Kind::kMap: {
      Json out = Json::object();
      for (const auto& e : node.entries) out[e.key] = to_json(e.value);
      return out;
    }
    case Kind::kList: {
      Json out = Json::array();
      for (const auto& item : node.items) out.push_back(to_json(item));
      return out;
    }
    case Kind::kBool:
      return node.text[0] == 't' || node.text[0] == 'T' || node.text[0] == 'y' || node.text[0] == 'Y' || node.text.ends_with('n') ||
             node.text.ends_with('N');
    case Kind::kInt:
    case Kind::kFloat: {
      Json number = Json::parse(node.text, nullptr, false);
      return number.is_number() ? number : Json(node.text);
    }
    case Kind::kNull:
      return nullptr;
    default:
      return node.text;
  }
}

std::string names_of(std::vector<std::string> names) {
  std::string out;
  for (size_t i = 0; i < names.size() && i < kNamesShown; ++i) out += (i ? ", " : "") + shown(names[i]);
  if (names.size() > kNamesShown) out += ", …";
  return out.empty() ? "none" : out;
}

// clusters, users and contexts are lists of {name, <what>}.
template <class Add>
Status read_list(Fields& root, std::string_view list, std::string_view what, const std::string& file, const Add& add) {
  const YamlNode* node = root.find(list);
  if (!node) return Status::ok();
  if (node->kind != Kind::kList) {
    root.wrong(*node, std::string(list) + " must be a list");
    return root.status();
  }
  std::set<std::string> seen;
  for (const auto& item : node->items) {
    Fields f(item, std::string(list), file);
    std::string name = f.text("name");
    if (f.status().is_ok() && name.empty()) f.wrong("an entry without a name");
    const YamlNode* body = f.find(what);
    if (f.status().is_ok() && body && body->kind != Kind::kMap) f.wrong(*body, std::string(what) + " must be a mapping");
    if (f.status().is_ok() && !seen.insert(name).second) f.wrong("the name \"" + shown(name) + "\" is there twice");
    if (!f.status()) return f.status();
    add(std::move(name), body ? *body : YamlNode{});
  }
  return Status::ok();
}

struct Endpoint {
  Config config;
  Json for_plugin;  // ExecCredential.spec.cluster
};

Status read_cluster(Fields& f, Endpoint* out) {
  Config& c = out->config;
  std::string server = f.text("server");
  c.insecure_skip_tls_verify = f.flag("insecure-skip-tls-verify");
  c.tls_server_name = f.text("tls-server-name");
  c.proxy_url = f.text("proxy-url");
  c.disable_compression = f.flag("disable-compression");
  std::string ca_file = f.path("certificate-authority");
  c.ca_pem = f.data("certificate-authority-data");
  if (!f.status()) return f.status();

  if (server.empty()) f.wrong("it has no server");
  auto clean = clean_server(server);
  if (!clean) f.wrong(clean.status().message());
  if (!f.status()) return f.status();
  c.server = *clean;
  if (c.insecure_skip_tls_verify && (!c.ca_pem.empty() || !ca_file.empty()))
    f.wrong("insecure-skip-tls-verify and a certificate authority exclude each other: leave one out");
  if (c.tls_server_name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") != std::string::npos)
    f.wrong("tls-server-name must be a host name");
  if (!c.proxy_url.empty()) {
    bool known = false;
    for (const char* scheme : {"http://", "https://", "socks5://", "socks5h://"}) known = known || c.proxy_url.starts_with(scheme);
    if (!known) f.wrong("proxy-url must begin with http://, https:// or socks5://");
  }
  if (!f.status()) return f.status();
  if (c.ca_pem.empty() && !ca_file.empty()) {
    auto pem = read_file(ca_file, kMaxPemBytes);
    if (!pem) return pem.status().with_context("certificate-authority");
    c.ca_pem = std::move(*pem);
    c.ca_file = ca_file;
  }
  if (!c.ca_pem.empty() && c.ca_pem.find("-----BEGIN ") == std::string::npos) f.wrong("the certificate authority holds no certificate in PEM");
  if (!f.status()) return f.status();

  Json& p = out->for_plugin;
  p = {{"server", c.server}};
  if (!c.tls_server_name.empty()) p["tls-server-name"] = c.tls_server_name;
  if (c.insecure_skip_tls_verify) p["insecure-skip-tls-verify"] = true;
  if (!c.proxy_url.empty()) p["proxy-url"] = c.proxy_url;
  if (c.disable_compression) p["disable-compression"] = true;
  if (!c.ca_pem.empty()) p["certificate-authority-data"] = base64(c.ca_pem);
  if (const YamlNode* extensions = f.find("extensions"); extensions && extensions->kind == Kind::kList)
    for (const auto& e : extensions->items) {
      Fields named(e, "extensions", "");
      if (named.text("name") == "client.authentication.k8s.io/exec")
        if (const YamlNode* body = named.find("extension")) p["config"] = to_json(*body);
    }
  return Status::ok();
}

Result<std::shared_ptr<Credentials>> read_exec(const YamlNode& node, const std::string& file, const std::string& where, const Json& cluster) {
  Fields f(node, where, file);
  ExecPlugin plugin;
  plugin.api_version = f.text("apiVersion");
  plugin.command = f.text("command");
  plugin.args = f.texts("args");
  plugin.install_hint = f.text("installHint");
  bool with_cluster = f.flag("provideClusterInfo");
  std::string mode = f.text("interactiveMode");
  if (const YamlNode* env = f.find("env")) {
    if (env->kind != Kind::kList) f.wrong(*env, "env must be a list");
    for (const auto& item : env->items) {
      Fields e(item, where + ": env", file);
      std::string name = e.text("name"), value = e.text("value");
      if (name.empty() || name.find('=') != std::string::npos) e.wrong("an entry needs a name without '='");
      if (!e.status()) return e.status();
      plugin.env.emplace_back(std::move(name), std::move(value));
    }
  }
  if (plugin.command.empty()) f.wrong("it has no command");
  if (plugin.api_version != kExecV1 && plugin.api_version != kExecV1Beta1)
    f.wrong("apiVersion must be " + std::string(kExecV1) + " or " + std::string(kExecV1Beta1) + ": older ones are no longer spoken");
  if (mode == "Always") f.wrong("the plugin wants a terminal (interactiveMode: Always), and there is none: use a token or another plugin");
  if (!f.status()) return f.status();
  // A bare name is looked for in PATH; only what holds a '/' is a path, relative to the file (client-go, clientcmd/loader.go).
  if (plugin.command.find('/') != std::string::npos) plugin.command = resolve(plugin.command, file);
  Json info = {{"apiVersion", plugin.api_version}, {"kind", "ExecCredential"}, {"spec", {{"interactive", false}}}};
  if (with_cluster) info["spec"]["cluster"] = cluster;
  plugin.info = info.dump(-1, ' ', false, Json::error_handler_t::replace);
  return exec_credentials(std::move(plugin));
}

Status read_user(Fields& f, const std::string& file, const std::string& where, Endpoint* out) {
  WrittenCredentials w;
  w.token = SecretString(f.text("token"));
  w.token_file = f.path("tokenFile");
  w.username = f.text("username");
  w.password = SecretString(f.text("password"));
  w.certificate.cert_pem = f.data("client-certificate-data");
  w.certificate.key_pem = SecretString(f.data("client-key-data"));
  w.cert_file = f.path("client-certificate");
  w.key_file = f.path("client-key");
  Config& c = out->config;
  c.as_user = f.text("as");
  c.as_uid = f.text("as-uid");
  c.as_groups = f.texts("as-groups");
  if (const YamlNode* extra = f.find("as-user-extra")) {
    if (extra->kind != Kind::kMap) f.wrong(*extra, "as-user-extra must be a mapping");
    for (const auto& e : extra->entries)
      for (auto& value : f.texts(&e.value, "as-user-extra")) c.as_extra.emplace_back(e.key, std::move(value));
  }
  if (c.as_user.empty() && (!c.as_uid.empty() || !c.as_groups.empty() || !c.as_extra.empty())) f.wrong("as-uid, as-groups and as-user-extra need as");
  const YamlNode* exec = f.find("exec");
  bool has_token = !w.token.empty() || !w.token_file.empty(), has_pair = !w.certificate.cert_pem.empty() || !w.cert_file.empty();
  if (has_token && !w.username.empty()) f.wrong("a token and a user name exclude each other: leave one out");
  if (w.username.find(':') != std::string::npos) f.wrong("a user name cannot hold ':'");
  if (f.find("auth-provider")) f.wrong("auth-provider is gone from Kubernetes: use an exec plugin");
  if (exec && !has_token && w.username.empty() && has_pair) f.wrong("an exec plugin and a client certificate exclude each other: leave one out");
  if (!f.status()) return f.status();

  bool secret = has_token || !w.username.empty() || exec;
  if (secret && c.server.starts_with("http://")) {
    std::string host = c.server.substr(7);
    if (!is_loopback_host(host.substr(0, host.find('/'))))
      return Status(Code::kInvalid, where + ": " + c.server + " is not https: the credentials would be readable on the way");
  }
  if (exec && !has_token && w.username.empty()) {
    auto made = read_exec(*exec, file, where + ": exec", out->for_plugin);
    if (!made) return made.status();
    c.credentials = std::move(*made);
    return Status::ok();
  }
  auto made = make_credentials(std::move(w));
  if (!made) return made.status().with_context(file + ": " + where);
  c.credentials = std::move(*made);
  return Status::ok();
}

}  // namespace

bool is_loopback_host(std::string_view host) {
  if (host.starts_with("[::1]")) return true;
  host = host.substr(0, host.rfind(':'));
  return host == "localhost" || (host.starts_with("127.") && host.find_first_not_of("0123456789.") == std::string_view::npos);
}

Result<std::string> clean_server(const std::string& server) {
  std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> u(curl_url(), curl_url_cleanup);
  auto part = [&](CURLUPart which) {
    char* text = nullptr;
    std::string out;
    if (curl_url_get(u.get(), which, &text, 0) == CURLUE_OK && text) out = text;
    curl_free(text);
    return out;
  };
  bool plain = !server.empty() && server.size() < 2048 &&
               std::all_of(server.begin(), server.end(), [](unsigned char c) { return c > 0x20 && c < 0x7f && c != '\\'; });
  bool http = server.starts_with("https://") || server.starts_with("http://");
  if (!plain || !http || !u || curl_url_set(u.get(), CURLUPART_URL, server.c_str(), 0) != CURLUE_OK)
    return Status(Code::kInvalid, "server must be a URL like https://HOST:6443");
  if (!part(CURLUPART_USER).empty() || !part(CURLUPART_PASSWORD).empty() || server.find('@') != std::string::npos)
    return Status(Code::kInvalid, "server must not hold a user or a password");
  if (server.find('?') != std::string::npos || server.find('#') != std::string::npos)
    return Status(Code::kInvalid, "server must not hold a query or a fragment");
  std::string out = server;
  while (out.ends_with('/')) out.pop_back();
  return out;
}

Kubeconfig::~Kubeconfig() {
  for (auto* list : {&clusters_, &users_, &contexts_})
    for (auto& e : *list) wipe(e.body);
}

const Kubeconfig::Entry* Kubeconfig::find(const std::vector<Entry>& among, const std::string& name) const {
  for (const auto& e : among)
    if (e.name == name) return &e;
  return nullptr;
}

Status Kubeconfig::add(std::string_view text, const std::string& path) {
  std::vector<Diagnostic> diagnostics;
  auto documents = read_yaml(text, &diagnostics);
  for (const auto& d : diagnostics)
    if (d.severity == Diagnostic::Severity::kError)
      return Status(Code::kInvalid, path + ":" + std::to_string(d.line) + ": " + (d.path.empty() ? "" : d.path + ": ") + d.message);
  if (documents.size() > 1) return Status(Code::kInvalid, path + ": a kubeconfig is one document");
  files_.push_back(path);
  if (documents.empty()) return Status::ok();
  YamlNode& document = documents[0];
  Fields root(document, "kubeconfig", path);
  std::string kind = root.text("kind"), version = root.text("apiVersion"), current = root.text("current-context");
  if (root.status().is_ok() && ((!kind.empty() && kind != "Config") || (!version.empty() && version != "v1")))
    root.wrong("this is not a kubeconfig (kind: Config, apiVersion: v1)");
  if (!root.status()) return root.status();

  std::vector<Entry> clusters, users, contexts;
  struct List {
    const char *key, *what;
    std::vector<Entry>* to;
  };
  for (List list : {List{"clusters", "cluster", &clusters}, {"users", "user", &users}, {"contexts", "context", &contexts}}) {
    auto s = read_list(root, list.key, list.what, path, [&](std::string name, YamlNode body) {
      list.to->push_back({std::move(name), path, std::move(body)});
    });
    if (!s) return s;
  }
  if (current_context_.empty()) current_context_ = current;
  for (auto [from, to] : {std::pair{&clusters, &clusters_}, {&users, &users_}, {&contexts, &contexts_}})
    for (auto& e : *from)
      if (!find(*to, e.name)) to->push_back(std::move(e));
  wipe(document);
  return Status::ok();
}

Result<Config> Kubeconfig::select(const std::string& wanted) const {
  auto names = [](const std::vector<Entry>& list) {
    std::vector<std::string> out;
    for (const auto& e : list) out.push_back(e.name);
    return names_of(std::move(out));
  };
  std::string files;
  for (const auto& f : files_) files += (files.empty() ? "" : ", ") + f;
  const std::string& name = wanted.empty() ? current_context_ : wanted;
  if (name.empty())
    return Status(Code::kNotFound, files + ": no current-context is set: choose one with --context; there are: " + names(contexts_));
  const Entry* context = find(contexts_, name);
  if (!context) return Status(Code::kNotFound, files + ": no context \"" + shown(name) + "\"; there are: " + names(contexts_));
  Fields f(context->body, "context " + shown(name), context->file);
  std::string cluster_name = f.text("cluster"), user_name = f.text("user"), ns = f.text("namespace");
  if (f.status().is_ok() && cluster_name.empty()) f.wrong("it names no cluster; there are: " + names(clusters_));
  const Entry* cluster = find(clusters_, cluster_name);
  if (f.status().is_ok() && !cluster) f.wrong("no cluster \"" + shown(cluster_name) + "\"; there are: " + names(clusters_));
  const Entry* user = user_name.empty() ? nullptr : find(users_, user_name);
  if (f.status().is_ok() && !user_name.empty() && !user) f.wrong("no user \"" + shown(user_name) + "\"; there are: " + names(users_));
  if (!f.status()) return f.status();

  Endpoint out;
  out.config.source = context->file + " (context " + shown(name) + ")";
  if (!ns.empty()) out.config.namespace_ = ns;
  Fields cf(cluster->body, "cluster " + shown(cluster_name), cluster->file);
  if (auto s = read_cluster(cf, &out); !s) return s;
  if (user) {
    Fields uf(user->body, "user " + shown(user_name), user->file);
    if (auto s = read_user(uf, user->file, "user " + shown(user_name), &out); !s) return s;
  } else {
    auto nobody = make_credentials({});
    if (!nobody) return nobody.status();
    out.config.credentials = std::move(*nobody);
  }
  if (out.config.insecure_skip_tls_verify)
    log::warn("the API server's certificate is not verified (insecure-skip-tls-verify): anyone on the way can read and change everything",
              {{"kubeconfig", out.config.source}});
  return std::move(out.config);
}

}  // namespace bottle::kube
