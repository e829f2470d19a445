// The pod: guard (init container) -> egress (native sidecar) -> agent. All the hardening is here, in one place. There is no limit on the
// number of processes: a pod cannot ask for one, the kubelet's podPidsLimit is for the node's administrator to set.

#include "backends/kubernetes/render_internal.h"
#include "backends/kubernetes/volumes.h"
#include "base/digest.h"

namespace bottle::kubernetes {
namespace {

constexpr int64_t kMiB = 1 << 20;
constexpr char kRulesVariable[] = "BOTTLE_GUARD_RULES";  // sidecars/guard/main.cc

// The kubelet expands $(NAME) in commands, arguments and variables, and nobody else does: a Bottle means the same on every backend.
// "$$" is a "$" to it.
std::string literal(const std::string& text) {
  if (text.find("$(") == text.npos && text.find("$$") == text.npos) return text;
  std::string out;
  for (char c : text) out.append(c == '$' ? 2 : 1, c);
  return out;
}

Json literals(const std::vector<std::string>& words) {
  Json list = Json::array();
  for (const auto& word : words) list.push_back(literal(word));
  return list;
}

const char* restart_name(RestartPolicy policy) {
  switch (policy) {
    case RestartPolicy::kNever: return "Never";
    case RestartPolicy::kOnFailure: return "OnFailure";
    case RestartPolicy::kAlways: return "Always";
  }
  return "Never";
}

Json security_context(const ContainerPlan& c) {
  Json capabilities = {{"drop", {"ALL"}}};
  if (!c.capabilities.empty()) capabilities["add"] = c.capabilities;
  return {{"runAsUser", c.uid},
          {"runAsGroup", c.gid},
          {"runAsNonRoot", c.uid != 0},
          {"privileged", false},
          {"allowPrivilegeEscalation", false},
          {"readOnlyRootFilesystem", c.read_only_root},
          {"capabilities", capabilities}};
}

Json amounts(int64_t memory_bytes, int64_t cpu_millis) {
  Json j = Json::object();
  if (memory_bytes > 0) j["memory"] = memory_quantity(memory_bytes);
  if (cpu_millis > 0) j["cpu"] = cpu_quantity(cpu_millis);
  return j;
}

// A sidecar has both requests and limits, whatever the plan leaves open: a namespace with a quota takes no pod without, and what an agent
// can make a sidecar do has a bound.
Json resources(const ContainerPlan& c) {
  int64_t memory_request = c.memory_request_bytes, memory_limit = c.memory_limit_bytes;
  int64_t cpu_request = c.cpu_request_millis, cpu_limit = c.cpu_limit_millis;
  if (c.role != Role::kAgent) {
    if (memory_request == 0) memory_request = 16 * kMiB;
    if (memory_limit == 0) memory_limit = 64 * kMiB;
    if (cpu_request == 0) cpu_request = c.role == Role::kGuard ? 10 : 50;
    if (cpu_limit == 0) cpu_limit = 1000;
  }
  Json j = Json::object();
  if (Json requests = amounts(memory_request, cpu_request); !requests.empty()) j["requests"] = requests;
  if (Json limits = amounts(memory_limit, cpu_limit); !limits.empty()) j["limits"] = limits;
  return j;
}

Json container(const ContainerPlan& c, const BottlePlan& plan, const RenderOptions& options) {
  Json j = {{"name", std::string(role_name(c.role))},
            {"image", c.image},
            {"imagePullPolicy", options.image_pull_policy},
            {"workingDir", c.working_dir},
            {"securityContext", security_context(c)},
            {"volumeMounts", mounts_of(c, plan)}};
  if (!c.command.empty()) j["command"] = literals(c.command);
  const std::vector<std::string> args = c.role == Role::kGuard ? guard_args(plan) : c.args;
  if (!args.empty()) j["args"] = literals(args);
  for (const auto& e : c.env) j["env"].push_back({{"name", e.name}, {"value", literal(e.value)}});
  if (Json r = resources(c); !r.empty()) j["resources"] = r;
  if (c.tty) j["stdin"] = j["tty"] = true;
  return j;
}

Json probe(int period_seconds, int timeout_seconds, int failures) {
  return {{"httpGet", {{"path", "/healthz"}, {"port", kEgressHealthPort}}},
          {"periodSeconds", period_seconds},
          {"timeoutSeconds", timeout_seconds},
          {"failureThreshold", failures}};
}

Json guard_container(const BottlePlan& plan, const RenderOptions& options) {
  Json j = container(plan.guard, plan, options);
  j["terminationMessagePolicy"] = "FallbackToLogsOnError";  // its one line of JSON says why it failed
  return j;
}

Json egress_container(const BottlePlan& plan, const RenderOptions& options) {
  Json j = container(plan.egress, plan, options);
  j["restartPolicy"] = "Always";
  j["terminationMessagePolicy"] = "FallbackToLogsOnError";
  // /healthz is 503 until a policy is in force. The other probe begins when this one has succeeded, and then 503 does not come back.
  j["startupProbe"] = probe(1, 2, 120);
  j["livenessProbe"] = probe(10, 5, 3);
  return j;
}

Json host_aliases(const BottlePlan& plan) {
  Json list = Json::array();
  for (const auto& alias : plan.agent_hosts) list.push_back({{"ip", alias.ip}, {"hostnames", alias.hostnames}});
  return list;
}

Json pod_spec(const BottlePlan& plan, const RenderOptions& options, const PodExtras& extras) {
  Json security = {{"runAsNonRoot", true}, {"seccompProfile", {{"type", "RuntimeDefault"}}}};
  // A claim's files belong to whoever made them. An emptyDir is open to all, and then no sidecar joins the agent's group.
  if (plan.workspace.kind == WorkspaceSpec::Kind::kPersistentVolumeClaim) {
    security["fsGroup"] = plan.agent.gid;
    security["fsGroupChangePolicy"] = "OnRootMismatch";
  }
  Json spec = {{"restartPolicy", restart_name(plan.agent.restart_policy)},
               {"terminationGracePeriodSeconds", options.termination_grace_seconds},
               {"automountServiceAccountToken", false},
               {"enableServiceLinks", false},
               {"shareProcessNamespace", false},
               {"dnsPolicy", "ClusterFirst"},
               {"hostAliases", host_aliases(plan)},
               {"securityContext", security},
               {"initContainers", Json::array({guard_container(plan, options), egress_container(plan, options)})},
               {"containers", Json::array({container(plan.agent, plan, options)})},
               {"volumes", pod_volumes(plan)}};
  if (extras.active_deadline_seconds > 0) spec["activeDeadlineSeconds"] = extras.active_deadline_seconds;
  for (const auto& name : options.image_pull_secrets) spec["imagePullSecrets"].push_back({{"name", name}});
  return spec;
}

std::string rules_of(const BottlePlan& plan) {
  auto it = plan.guard_files.find("rules.nft");
  return it == plan.guard_files.end() ? std::string() : it->second;
}

}  // namespace

std::string guard_hash(const BottlePlan& plan) { return "sha256:" + sha256_hex(rules_of(plan)); }

std::string token_refs_hash(const BottlePlan& plan) {
  Json refs = Json::array();
  for (const auto& t : plan.tokens) refs.push_back({t.env, t.secret.name, t.secret.key});
  return "sha256:" + sha256_hex(json_text(refs));
}

Json render_pod(const BottlePlan& plan, const Owner& owner, const RenderOptions& options, const PodExtras& extras) {
  Json object = child("v1", "Pod", plan.name, owner);
  Json& metadata = object["metadata"];
  metadata["labels"]["app.kubernetes.io/name"] = "bot-bottle";
  metadata["labels"]["app.kubernetes.io/component"] = "bottle";
  Json& annotations = metadata["annotations"];
  annotations[annotation(kPodHash)] = plan.pod_hash;
  annotations[annotation(kTokenRefs)] = token_refs_hash(plan);
  annotations[annotation(kPolicyHash)] = plan.policy_hash;
  annotations[annotation(kGuardHash)] = guard_hash(plan);
  annotations[annotation(kBottleGeneration)] = std::to_string(owner.generation);
  if (!extras.tokens_revision.empty()) annotations[annotation(kTokensRevision)] = extras.tokens_revision;
  if (!extras.ca_fingerprint.empty()) annotations[annotation(kCaFingerprint)] = extras.ca_fingerprint;
  annotations["kubectl.kubernetes.io/default-container"] = "agent";
  object["spec"] = pod_spec(plan, options, extras);
  seal(object);
  return object;
}

std::string guard_update_name(const BottlePlan& plan, int64_t serial) {
  std::string name = "guard-" + sha256_hex(rules_of(plan)).substr(0, 8);
  if (serial > 0) name += "-" + std::to_string(serial);
  return name;
}

Json render_guard_update(const BottlePlan& plan, const RenderOptions& options, int64_t serial) {
  Json c = {{"name", guard_update_name(plan, serial)},
            {"image", plan.guard.image},
            {"imagePullPolicy", options.image_pull_policy},
            {"workingDir", plan.guard.working_dir},
            {"command", literals(plan.guard.command)},
            {"args", {"apply", "--resolv-conf", "/etc/resolv.conf"}},
            {"env", Json::array({{{"name", kRulesVariable}, {"value", literal(rules_of(plan))}}})},
            {"securityContext", security_context(plan.guard)},
            {"terminationMessagePolicy", "FallbackToLogsOnError"}};
  return {{"spec", {{"ephemeralContainers", Json::array({c})}}}};
}

}  // namespace bottle::kubernetes
