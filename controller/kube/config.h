// Where the API server is and who we are: kubeconfig files, or the service account of a pod.
// Source: client-go tools/clientcmd (merging, precedence), KEP-541 (exec credentials), kubernetes.io "Accessing the API from a Pod".
#ifndef CONTROLLER_KUBE_CONFIG_H_
#define CONTROLLER_KUBE_CONFIG_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/secret.h"
#include "base/status.h"

namespace bottle::kube {

struct ClientCertificate {
  std::string cert_pem;
  SecretString key_pem;
  bool empty() const { return cert_pem.empty(); }
};

// What authenticates a request. Any thread. Files are read again (token: every 60 s, certificate: every 5 min), exec plugins run again
// before their credential expires; when that fails the old credential stays while it is good.
class Credentials {
 public:
  virtual ~Credentials() = default;
  // Empty when there is none. May block for as long as an exec plugin takes (at most 60 s).
  virtual Result<SecretString> token() = 0;
  // The value of the header Authorization: "Bearer " and the token, or what another scheme says. Empty when there is none.
  virtual Result<SecretString> authorization();
  virtual Result<ClientCertificate> certificate() = 0;
  // Changes whenever a certificate does: connections made with another number are to be closed.
  virtual uint64_t certificate_generation() = 0;
  // The server answered 401: the next token() is a fresh one.
  virtual void rejected() = 0;
};

struct Config {
  std::string server;       // "https://[::1]:6443": scheme, authority and an optional path, no '/' at the end
  std::string namespace_ = "default";
  std::string ca_pem;       // empty: the system's roots
  std::string ca_file;      // when set, ca_pem is read from it again every 5 min
  bool insecure_skip_tls_verify = false;
  std::string tls_server_name;
  std::string proxy_url;    // http, https or socks5; empty: HTTPS_PROXY and NO_PROXY of the environment
  bool disable_compression = false;
  std::string as_user, as_uid;
  std::vector<std::string> as_groups;
  std::vector<std::pair<std::string, std::string>> as_extra;
  std::shared_ptr<Credentials> credentials;  // never null
  std::string source;       // for messages: "/home/a/.kube/config (context kind)", "in-cluster"
};

using Environment = std::function<std::optional<std::string>(const std::string&)>;
struct ConfigOptions {
  std::string kubeconfig;   // --kubeconfig: wins over everything
  std::string context;      // empty: current-context
  Environment env;          // empty: the process's
  std::string service_account_dir = "/var/run/secrets/kubernetes.io/serviceaccount";
};

// --kubeconfig, then $KUBECONFIG (a ':' list, first wins for each key), then in-cluster, then ~/.kube/config. kNotFound when there is none.
Result<Config> load_config(const ConfigOptions& options);

}  // namespace bottle::kube

#endif  // CONTROLLER_KUBE_CONFIG_H_
