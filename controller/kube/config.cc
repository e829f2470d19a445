#include "controller/kube/config.h"

#include <unistd.h>

#include <cstdlib>

#include "base/file.h"
#include "controller/kube/credentials.h"
#include "controller/kube/kubeconfig.h"

namespace bottle::kube {
namespace {

constexpr size_t kMaxBytes = 1u << 20;

std::string absolute(const std::string& path) {
  if (!path.empty() && path[0] == '/') return path;
  char* cwd = getcwd(nullptr, 0);
  std::string out = cwd ? std::string(cwd) + "/" + path : path;
  std::free(cwd);
  return out;
}

Status add_file(Kubeconfig* to, const std::string& path) {
  auto text = read_file(path, kMaxBytes);
  if (!text) return text.status().with_context("kubeconfig");
  SecretString wiped(std::move(*text));
  return to->add(wiped.expose(), absolute(path));
}

Result<Config> from_list(const std::string& list, const std::string& context) {
  Kubeconfig merged;
  bool any = false;
  for (size_t at = 0; at <= list.size();) {
    size_t end = std::min(list.find(':', at), list.size());
    std::string path = list.substr(at, end - at);
    at = end + 1;
    // Like kubectl: one that is not there is no error as long as another is.
    if (path.empty() || access(path.c_str(), F_OK) != 0) continue;
    if (auto s = add_file(&merged, path); !s) return s;
    any = true;
  }
  if (!any) return Status(Code::kNotFound, "KUBECONFIG names no file that exists: " + list);
  return merged.select(context);
}

Result<Config> in_cluster(std::string host, const std::string& port, const std::string& dir) {
  Config c;
  if (host.find(':') != std::string::npos && host[0] != '[') host = "[" + host + "]";
  auto server = clean_server("https://" + host + ":" + port);
  if (!server)
    return Status(Code::kInvalid, "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT do not make an address: " + server.status().message());
  c.server = *server;
  c.source = "in-cluster";
  c.ca_file = dir + "/ca.crt";
  auto ca = read_file(c.ca_file, kMaxBytes);
  if (!ca) return ca.status().with_context("in-cluster configuration");
  c.ca_pem = std::move(*ca);
  if (c.ca_pem.find("-----BEGIN ") == std::string::npos) return Status(Code::kInvalid, c.ca_file + ": no certificate in PEM");
  if (auto ns = read_file(dir + "/namespace", 4096)) {
    size_t end = ns->find_last_not_of(" \r\n\t");
    if (end != std::string::npos) c.namespace_ = ns->substr(0, end + 1);
  }
  WrittenCredentials w;
  w.token_file = dir + "/token";
  auto made = make_credentials(std::move(w));
  if (!made) return made.status().with_context("in-cluster configuration");
  c.credentials = std::move(*made);
  return c;
}

}  // namespace

Result<Config> load_config(const ConfigOptions& options) {
  Environment env = options.env;
  if (!env)
    env = [](const std::string& name) -> std::optional<std::string> {
      const char* v = std::getenv(name.c_str());
      return v ? std::optional<std::string>(v) : std::nullopt;
    };
  if (!options.kubeconfig.empty()) {
    Kubeconfig one;
    if (auto s = add_file(&one, options.kubeconfig); !s) return s;
    return one.select(options.context);
  }
  if (auto list = env("KUBECONFIG"); list && !list->empty()) return from_list(*list, options.context);

  auto host = env("KUBERNETES_SERVICE_HOST"), port = env("KUBERNETES_SERVICE_PORT");
  bool in_pod = host && port && !host->empty() && !port->empty();
  if (in_pod && access((options.service_account_dir + "/token").c_str(), F_OK) == 0)
    return in_cluster(*host, *port, options.service_account_dir);

  std::string home = env("HOME").value_or("") + "/.kube/config";
  if (access(home.c_str(), F_OK) == 0) {
    Kubeconfig one;
    if (auto s = add_file(&one, home); !s) return s;
    return one.select(options.context);
  }
  if (in_pod)
    return Status(Code::kNotFound, "this is a pod without a service account token in " + options.service_account_dir +
                                       ": set automountServiceAccountToken, or KUBECONFIG");
  return Status(Code::kNotFound, "no cluster is configured: neither --kubeconfig, nor KUBECONFIG, nor " + home);
}

}  // namespace bottle::kube
