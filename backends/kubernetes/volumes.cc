#include "backends/kubernetes/volumes.h"

#include <nlohmann/json.hpp>

#include "backends/kubernetes/render_internal.h"

namespace bottle::kubernetes {
namespace {

// The pod's volumes.
constexpr char kPolicyVolume[] = "policy", kRulesVolume[] = "guard-rules";
constexpr char kTrustInVolume[] = "trust-files", kUpstreamInVolume[] = "upstream-files";
constexpr char kFilesVolume[] = "files", kTokensVolume[] = "tokens", kCaVolume[] = "egress-ca", kCaCertVolume[] = "egress-ca-cert";
constexpr char kAgentTrustVolume[] = "agent-trust", kUpstreamVolume[] = "upstream-trust", kRunVolume[] = "run", kTmpVolume[] = "tmp";
constexpr char kWorkspaceVolume[] = "workspace";

// Where the guard finds and leaves things, beside the rules.
constexpr char kGuardCa[] = "/etc/bot-bottle/ca";
constexpr char kGuardTrustIn[] = "/etc/bot-bottle/trust-files", kGuardUpstreamIn[] = "/etc/bot-bottle/upstream-files";
constexpr char kGuardTrustOut[] = "/run/bot-bottle/trust", kGuardUpstreamOut[] = "/run/bot-bottle/upstream";

constexpr char kRoots[] = "/etc/ssl/certs/ca-certificates.crt";  // in the sidecars' image
constexpr int kReadable = 0444;  // the containers' users are not root, and each sees its own volumes only

Json items(const std::map<std::string, std::string>& key_to_path) {
  Json list = Json::array();
  for (const auto& [key, path] : key_to_path) list.push_back({{"key", key}, {"path", path}});
  return list;
}

Json config_volume(const char* name, const std::string& config_map, const std::map<std::string, std::string>& key_to_path) {
  return {{"name", name}, {"configMap", {{"name", config_map}, {"defaultMode", kReadable}, {"items", items(key_to_path)}}}};
}

Json secret_volume(const char* name, const std::string& secret, const std::map<std::string, std::string>& key_to_path) {
  return {{"name", name}, {"secret", {{"secretName", secret}, {"defaultMode", kReadable}, {"items", items(key_to_path)}}}};
}

Json empty_volume(const char* name, const char* size, bool memory) {
  Json source = {{"sizeLimit", size}};
  if (memory) source["medium"] = "Memory";
  return {{"name", name}, {"emptyDir", source}};
}

std::string trust_key(const std::string& file) { return "trust-" + file; }
std::string upstream_file(size_t i) { return "upstream-" + std::to_string(i) + ".pem"; }

// Projected by the kubelet, so that no one of ours ever reads a token. A Secret or key that does not exist is a missing token: its routes
// answer 503, and the kubelet adds the file when it comes.
Json tokens_volume(const BottlePlan& plan) {
  std::map<std::string, Json> sources;
  for (const auto& token : plan.tokens) {
    Json& source = sources[token.secret.name];
    if (source.is_null()) source = {{"secret", {{"name", token.secret.name}, {"optional", true}, {"items", Json::array()}}}};
    source["secret"]["items"].push_back({{"key", token.secret.key}, {"path", token.env}});
  }
  Json list = Json::array();
  for (auto& [name, source] : sources) list.push_back(std::move(source));
  return {{"name", kTokensVolume}, {"projected", {{"defaultMode", kReadable}, {"sources", std::move(list)}}}};
}

Json workspace_volume(const WorkspaceSpec& workspace) {
  if (workspace.kind == WorkspaceSpec::Kind::kPersistentVolumeClaim)
    return {{"name", kWorkspaceVolume}, {"persistentVolumeClaim", {{"claimName", workspace.claim_name}}}};
  Json source = Json::object();
  if (workspace.size_limit_bytes > 0) source["sizeLimit"] = memory_quantity(workspace.size_limit_bytes);
  return {{"name", kWorkspaceVolume}, {"emptyDir", source}};
}

Json mount(const char* volume, const std::string& path, bool read_only, const std::string& sub_path = {}) {
  Json m = {{"name", volume}, {"mountPath", path}};
  if (read_only) m["readOnly"] = true;
  if (!sub_path.empty()) m["subPath"] = sub_path;
  return m;
}

// The volume of a source; null where a pod has nothing to mount: the cluster's resolv.conf is there already, and the kubelet starts no
// container before the guard has ended well, so nothing has to stand before the agent's command.
const char* volume_of(Source source, const BottlePlan& plan) {
  switch (source) {
    case Source::kPolicy: return kPolicyVolume;
    case Source::kGuardRules: return kRulesVolume;
    case Source::kTokens: return plan.tokens.empty() ? nullptr : kTokensVolume;
    case Source::kEgressCa: return kCaVolume;
    case Source::kUpstreamTrust: return kUpstreamVolume;
    case Source::kAgentTrust: return kAgentTrustVolume;
    case Source::kSidecarHosts: return kFilesVolume;
    case Source::kEmptyResolver: return kFilesVolume;
    case Source::kRun: return kRunVolume;
    case Source::kWorkspace: return kWorkspaceVolume;
    case Source::kTmp: return kTmpVolume;
    case Source::kResolvers: return nullptr;
    case Source::kGate: return nullptr;
  }
  return nullptr;
}

}  // namespace

std::map<std::string, std::string> policy_data(const BottlePlan& plan) {
  std::map<std::string, std::string> data = plan.policy_files;
  data.insert(plan.guard_files.begin(), plan.guard_files.end());
  data["hosts"] = plan.hosts_file;
  data["resolv.conf"] = "";
  for (const auto& [name, text] : plan.trust_files) data[trust_key(name)] = text;
  for (size_t i = 0; i < plan.upstream_ca_pems.size(); ++i) data[upstream_file(i)] = plan.upstream_ca_pems[i];
  return data;
}

Json pod_volumes(const BottlePlan& plan) {
  const std::string policy = policy_name(plan.name), ca = egress_ca_name(plan.name);
  std::map<std::string, std::string> routes, rules, trust, upstream;
  for (const auto& [name, text] : plan.policy_files) routes[name] = name;
  for (const auto& [name, text] : plan.guard_files) rules[name] = name;
  for (const auto& [name, text] : plan.trust_files) trust[trust_key(name)] = name;
  for (size_t i = 0; i < plan.upstream_ca_pems.size(); ++i) upstream[upstream_file(i)] = upstream_file(i);

  Json volumes = Json::array();
  volumes.push_back(config_volume(kPolicyVolume, policy, routes));
  volumes.push_back(config_volume(kRulesVolume, policy, rules));
  // An empty list of items would mean all keys.
  if (!trust.empty()) volumes.push_back(config_volume(kTrustInVolume, policy, trust));
  if (!upstream.empty()) volumes.push_back(config_volume(kUpstreamInVolume, policy, upstream));
  volumes.push_back(config_volume(kFilesVolume, policy, {{"hosts", "hosts"}, {"resolv.conf", "resolv.conf"}}));
  volumes.push_back(secret_volume(kCaVolume, ca, {{"mitmproxy-ca.pem", "mitmproxy-ca.pem"}, {"status.key", "status.key"}}));
  volumes.push_back(secret_volume(kCaCertVolume, ca, {{"ca.pem", "ca.pem"}}));
  if (!plan.tokens.empty()) volumes.push_back(tokens_volume(plan));
  volumes.push_back(empty_volume(kAgentTrustVolume, "16Mi", false));
  volumes.push_back(empty_volume(kUpstreamVolume, "16Mi", false));
  volumes.push_back(empty_volume(kRunVolume, "1Mi", true));
  volumes.push_back(empty_volume(kTmpVolume, "64Mi", true));
  volumes.push_back(workspace_volume(plan.workspace));
  return volumes;
}

Json mounts_of(const ContainerPlan& container, const BottlePlan& plan) {
  Json list = Json::array();
  for (const auto& m : container.mounts)
    if (const char* volume = volume_of(m.source, plan)) list.push_back(mount(volume, m.target, m.read_only, m.file));
  if (container.role != Role::kGuard) return list;
  list.push_back(mount(kCaCertVolume, kGuardCa, true));
  if (!plan.trust_files.empty()) list.push_back(mount(kTrustInVolume, kGuardTrustIn, true));
  if (!plan.upstream_ca_pems.empty()) list.push_back(mount(kUpstreamInVolume, kGuardUpstreamIn, true));
  list.push_back(mount(kAgentTrustVolume, kGuardTrustOut, false));
  list.push_back(mount(kUpstreamVolume, kGuardUpstreamOut, false));
  return list;
}

std::vector<std::string> guard_args(const BottlePlan& plan) {
  // The plan's own, with the verb for a pod: nobody has to hold a namespace that the pod's sandbox holds.
  std::vector<std::string> args = plan.guard.args;
  if (!args.empty()) args[0] = "init";
  args.insert(args.end(), {"--ca", std::string(kGuardCa) + "/ca.pem", "--roots", kRoots});
  if (!plan.trust_files.empty()) args.insert(args.end(), {"--trust-in", kGuardTrustIn});
  if (!plan.upstream_ca_pems.empty()) args.insert(args.end(), {"--upstream-in", kGuardUpstreamIn});
  args.insert(args.end(), {"--trust-out", kGuardTrustOut, "--upstream-out", kGuardUpstreamOut});
  return args;
}

}  // namespace bottle::kubernetes
