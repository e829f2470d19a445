#include "controller/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <ostream>
#include <set>

#include "base/file.h"

namespace bottle {
namespace {

// RFC 1123 label, which is what a namespace is called.
std::string check_namespace(const std::string& name) {
  const auto inner = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; };
  if (!name.empty() && name.size() <= 63 && name.front() != '-' && name.back() != '-' && std::all_of(name.begin(), name.end(), inner)) return {};
  return "\"" + name + "\" is no name of a namespace";
}

std::string trimmed(std::string text) {
  text.erase(text.find_last_not_of(" \t\r\n") + 1);
  text.erase(0, text.find_first_not_of(" \t\r\n"));
  return text;
}

// "a, b" and a trailing comma are what people write into environment variables.
void tidy(std::vector<std::string>* list) {
  for (auto& item : *list) item = trimmed(item);
  std::sort(list->begin(), list->end());
  list->erase(std::unique(list->begin(), list->end()), list->end());
  list->erase(std::remove(list->begin(), list->end(), ""), list->end());
}

std::string own_namespace(const std::string& service_account_dir) {
  const char* pod = std::getenv("POD_NAMESPACE");
  if (pod && *pod) return pod;
  auto file = read_file(service_account_dir + "/namespace", 1024);
  std::string name = file.is_ok() ? trimmed(*file) : "";
  return name.empty() ? "bot-bottle-system" : name;
}

}  // namespace

ParsedOptions parse_options(std::vector<std::string> arguments, std::ostream& out, std::ostream& err, const std::string& service_account_dir) {
  ParsedOptions parsed;
  ControllerOptions& o = parsed.options;
  CLI::App app("bottle-controller makes a pod of every Bottle of a cluster and keeps it as the Bottle says.", "bottle-controller");
  app.set_version_flag("--version", "bottle-controller " BOTTLE_VERSION);
  app.footer(
      "Each flag can be given as BOT_BOTTLE_ and its name: BOT_BOTTLE_WATCH_NAMESPACE=dev,ci.\n"
      "Exit codes: 0 stopped, 1 failed or lost the lease, 2 bad flags. A second SIGTERM or SIGINT does not wait.\n"
      "example: bottle-controller --kubeconfig ~/.kube/config --watch-namespace dev --leader-elect=false --log-level debug");
  const auto named = [](CLI::Option* option) {
    std::string env = "BOT_BOTTLE_" + option->get_lnames().at(0);
    for (char& c : env) c = c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return option->envname(env);
  };
  std::string level = "info";
  named(app.add_option("--kubeconfig", o.kubeconfig, "file that says where the API server is (default: KUBECONFIG, then the pod's service account, then ~/.kube/config)"));
  named(app.add_option("--context", o.context, "context of the kubeconfig (default: its current-context)"));
  named(app.add_option("--watch-namespace", o.namespaces, "namespace whose Bottles are looked after; several times or with commas (default: all)"))->delimiter(',');
  named(app.add_option("--workers", o.workers, "Bottles that are worked on at once")->capture_default_str()->check(CLI::Range(1, 1000)));
  named(app.add_flag("--leader-elect", o.leader_elect, "one replica works, the others stand by; =false for a single one (default: true)"));
  named(app.add_option("--lease-namespace", o.lease_namespace, "namespace of the Lease (default: POD_NAMESPACE, then the pod's own, then bot-bottle-system)"));
  named(app.add_option("--lease-name", o.lease_name, "name of the Lease")->capture_default_str());
  named(app.add_option("--sidecars-image", o.plan.sidecars_image, "image of the guard")->capture_default_str());
  named(app.add_option("--egress-image", o.plan.egress_image, "image of the egress sidecar")->capture_default_str());
  named(app.add_option("--image-pull-policy", o.image_pull_policy, "of the containers of a bottle")
            ->capture_default_str()
            ->check(CLI::IsMember(std::set<std::string>{"Always", "IfNotPresent", "Never"})));
  named(app.add_option("--image-pull-secret", o.image_pull_secrets, "Secret, in the Bottle's namespace, for the registry; several times or with commas"))->delimiter(',');
  named(app.add_option("--metrics-bind-address", o.metrics_address, "where /metrics is served; 0 turns it off")->capture_default_str());
  named(app.add_option("--probe-bind-address", o.probe_address, "where /healthz and /readyz are served; 0 turns them off")->capture_default_str());
  named(app.add_option("--log-level", level, "what is logged")->capture_default_str()->check(CLI::IsMember(std::set<std::string>{"debug", "info", "warn", "error"})));
  named(app.add_flag("--http1", o.http1, "speak HTTP/1.1 to the API server, for proxies that break HTTP/2"));
  named(app.add_option("--kube-api-in-flight", o.kube_api_in_flight, "requests to the API server at once")->capture_default_str()->check(CLI::Range(1, 1000)));
  try {
    std::reverse(arguments.begin(), arguments.end());
    app.parse(std::move(arguments));
    tidy(&o.namespaces);
    tidy(&o.image_pull_secrets);
    for (const auto& ns : o.namespaces) {
      if (auto wrong = check_namespace(ns); !wrong.empty()) throw CLI::ValidationError("--watch-namespace", wrong);
    }
    if (o.lease_namespace.empty()) o.lease_namespace = own_namespace(service_account_dir);
    if (auto wrong = check_namespace(o.lease_namespace); !wrong.empty()) throw CLI::ValidationError("--lease-namespace", wrong);
    if (o.lease_name.empty()) throw CLI::ValidationError("--lease-name", "is empty");
  } catch (const CLI::ParseError& e) {
    parsed.exit_code = app.exit(e, out, err) == 0 ? kExitOk : kExitUsage;
    return parsed;
  }
  log::parse_level(level, &o.log_level);
  return parsed;
}

}  // namespace bottle
