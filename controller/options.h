// bottle-controller's flags. Each has an environment variable, BOT_BOTTLE_ and the flag in capitals; the flag wins.
#ifndef CONTROLLER_OPTIONS_H_
#define CONTROLLER_OPTIONS_H_

#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "controller/plan/plan.h"

namespace bottle {

struct ControllerOptions {
  std::string kubeconfig, context;
  std::vector<std::string> namespaces;  // sorted, each once; empty: all
  int workers = 16;
  bool leader_elect = true;
  std::string lease_namespace, lease_name = "bottle-controller";
  PlanOptions plan;                     // the images
  std::string image_pull_policy = "IfNotPresent";
  std::vector<std::string> image_pull_secrets;
  std::string metrics_address = ":8080", probe_address = ":8081";  // "0": none
  log::Level log_level = log::Level::kInfo;
  bool http1 = false;
  int kube_api_in_flight = 64;
};

inline constexpr int kExitOk = 0, kExitFailed = 1, kExitUsage = 2;

// The process is to go on when `exit_code` is empty; else it has been told on `out` (help, version) or `err` why not.
// `service_account_dir` has the namespace of a pod in its file "namespace".
struct ParsedOptions {
  ControllerOptions options;
  std::optional<int> exit_code;
};
ParsedOptions parse_options(std::vector<std::string> arguments, std::ostream& out, std::ostream& err,
                            const std::string& service_account_dir = "/var/run/secrets/kubernetes.io/serviceaccount");

}  // namespace bottle

#endif  // CONTROLLER_OPTIONS_H_
