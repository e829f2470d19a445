// Credentials from a program that the kubeconfig names: KEP-541, client.authentication.k8s.io/v1 and v1beta1. The program is run without a
// shell, without a terminal, and for at most a minute; what it prints on stdout is a secret.
#ifndef CONTROLLER_KUBE_EXEC_PLUGIN_H_
#define CONTROLLER_KUBE_EXEC_PLUGIN_H_

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "controller/kube/config.h"

namespace bottle::kube {

inline constexpr std::string_view kExecV1 = "client.authentication.k8s.io/v1";
inline constexpr std::string_view kExecV1Beta1 = "client.authentication.k8s.io/v1beta1";

struct ExecPlugin {
  std::string api_version;
  std::string command;                     // a name for PATH, or an absolute path
  std::vector<std::string> args;
  std::vector<std::pair<std::string, std::string>> env;
  std::string info;                        // KUBERNETES_EXEC_INFO
  std::string install_hint;
  std::chrono::milliseconds limit{60'000};
  std::function<int64_t()> unix_now;       // seconds; empty: the clock
};

struct ExecCredential {
  SecretString token;
  ClientCertificate certificate;
  std::optional<int64_t> expires;          // Unix seconds
};

// What a plugin printed. Bounded by the caller; messages never hold any of it.
Result<ExecCredential> parse_exec_credential(std::string_view json, std::string_view api_version);

// Runs the program and gives its stdout. The message of a failure holds the install hint and the last line of stderr.
Result<SecretString> run_exec_plugin(const ExecPlugin& plugin);

// Runs it when something is asked for the first time, when that expires, and after rejected().
std::shared_ptr<Credentials> exec_credentials(ExecPlugin plugin);

}  // namespace bottle::kube

#endif  // CONTROLLER_KUBE_EXEC_PLUGIN_H_
