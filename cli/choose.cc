// Which backend a command goes to. A kubeconfig within reach is no reason to go there: a bottle meant for the laptop must not end up on
// somebody's cluster. So a cluster has to be named (--backend, BOT_BOTTLE_BACKEND, kubectl bottle, or an option that only a cluster has),
// or there has to be no engine on this machine at all, and then it is said.
#include <ostream>

#include "cli/cli.h"
#include "cli/output.h"

namespace bottle::cli {

Result<std::optional<BackendKind>> named_backend(const Context& c) {
  const auto& o = c.backend;
  const bool for_cluster = !o.kubeconfig.empty() || !o.context.empty() || !o.namespace_.empty() || o.all_namespaces;
  const bool for_engine = !o.host.empty();
  std::string choice = o.choice, where = "--backend";
  if (choice.empty()) {
    choice = c.env("BOT_BOTTLE_BACKEND").value_or("");
    where = "BOT_BOTTLE_BACKEND";
    // What is typed beats what was set once.
    if (for_cluster && choice == "docker") choice.clear();
    if (for_engine && choice == "kubernetes") choice.clear();
  }
  if (!choice.empty() && choice != "docker" && choice != "kubernetes" && choice != "auto")
    return Status(Code::kInvalid, where + ": \"" + choice + "\" is none of docker, kubernetes, auto");
  if (for_cluster && (for_engine || choice == "docker"))
    return Status(Code::kInvalid, "--kubeconfig, --context, --namespace and -A are for a cluster, --host and --backend docker for an engine: leave one of them out");
  if (for_engine && choice == "kubernetes") return Status(Code::kInvalid, "--host is for an engine, and --backend says kubernetes: leave one of them out");
  if (choice == "docker" || for_engine) return std::optional(BackendKind::kDocker);
  if (choice == "kubernetes" || for_cluster || c.program == "kubectl-bottle") return std::optional(BackendKind::kKubernetes);
  return std::optional<BackendKind>();
}

Result<std::unique_ptr<Backend>> open_backend(Context& c, BackendKind* kind) {
  auto named = named_backend(c);
  if (!named) return named.status();
  BackendKind unused;
  BackendKind& chosen = kind ? *kind : unused;
  chosen = named->value_or(BackendKind::kDocker);
  if (chosen == BackendKind::kKubernetes) return c.kubernetes.open(c.backend);
  auto engine = c.docker.open(c.backend);
  // An engine that was named, or that is there and refuses, is what has to be repaired.
  if (engine || *named || engine.status().code() != Code::kUnavailable || c.env("DOCKER_HOST").value_or("") != "") return engine;
  auto target = c.kubernetes_target(c.backend);
  if (!target) return engine;
  c.err << "no container engine answers; using the cluster " << printable(*target) << " (--backend docker|kubernetes chooses)\n";
  chosen = BackendKind::kKubernetes;
  return c.kubernetes.open(c.backend);
}

}  // namespace bottle::cli
