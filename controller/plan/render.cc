#include <nlohmann/json.hpp>

#include "controller/plan/internal.h"

namespace bottle {
namespace {

using Json = nlohmann::ordered_json;

const char* source_name(Source s) {
  switch (s) {
    case Source::kPolicy: return "policy";
    case Source::kGuardRules: return "guardRules";
    case Source::kTokens: return "tokens";
    case Source::kEgressCa: return "egressCA";
    case Source::kUpstreamTrust: return "upstreamTrust";
    case Source::kAgentTrust: return "agentTrust";
    case Source::kSidecarHosts: return "sidecarHosts";
    case Source::kResolvers: return "resolvers";
    case Source::kEmptyResolver: return "emptyResolver";
    case Source::kRun: return "run";
    case Source::kWorkspace: return "workspace";
    case Source::kGate: return "gate";
    case Source::kTmp: return "tmp";
  }
  return "unknown";
}

const char* restart_name(RestartPolicy r) {
  switch (r) {
    case RestartPolicy::kNever: return "Never";
    case RestartPolicy::kOnFailure: return "OnFailure";
    case RestartPolicy::kAlways: return "Always";
  }
  return "unknown";
}

Json container_json(const ContainerPlan& c) {
  Json j;
  j["image"] = c.image;
  j["command"] = c.command;
  j["args"] = c.args;
  j["env"] = Json::object();
  for (const auto& e : c.env) j["env"][e.name] = e.value;
  j["workingDir"] = c.working_dir;
  j["uid"] = c.uid;
  j["gid"] = c.gid;
  j["capabilities"] = c.capabilities;
  j["readOnlyRoot"] = c.read_only_root;
  j["tty"] = c.tty;
  j["restartPolicy"] = restart_name(c.restart_policy);
  j["limits"] = {{"memoryBytes", c.memory_limit_bytes}, {"cpuMillis", c.cpu_limit_millis}, {"pids", c.pids_limit}};
  j["requests"] = {{"memoryBytes", c.memory_request_bytes}, {"cpuMillis", c.cpu_request_millis}};
  j["mounts"] = Json::array();
  for (const auto& m : c.mounts) {
    Json mount = {{"source", source_name(m.source)}};
    if (!m.file.empty()) mount["file"] = m.file;
    mount["target"] = m.target;
    mount["readOnly"] = m.read_only;
    j["mounts"].push_back(std::move(mount));
  }
  return j;
}

Json workspace_json(const WorkspaceSpec& w) {
  switch (w.kind) {
    case WorkspaceSpec::Kind::kEmptyDir: return {{"emptyDir", {{"sizeLimitBytes", w.size_limit_bytes}}}};
    case WorkspaceSpec::Kind::kPersistentVolumeClaim: return {{"persistentVolumeClaim", {{"claimName", w.claim_name}}}};
    case WorkspaceSpec::Kind::kHostPath: return {{"hostPath", {{"path", w.host_path}}}};
  }
  return {};
}

Json pod_json(const BottlePlan& p) {
  Json j;
  j["name"] = p.name;
  j["slug"] = p.slug;
  j["guard"] = container_json(p.guard);
  j["egress"] = container_json(p.egress);
  j["agent"] = container_json(p.agent);
  j["workspace"] = workspace_json(p.workspace);
  j["caKeyType"] = p.ca_key_type == KeyType::kEcdsaP256 ? "ECDSA-P256" : "RSA-2048";
  j["upstreamCAs"] = p.upstream_ca_pems;
  j["sidecarHosts"] = p.hosts_file;
  j["agentHosts"] = Json::array();
  for (const auto& h : p.agent_hosts) j["agentHosts"].push_back({{"ip", h.ip}, {"hostnames", h.hostnames}});
  j["trustFiles"] = p.trust_files;
  return j;
}

std::string dump(const Json& j) { return j.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

}  // namespace

std::string plan_internal::render_pod_json(const BottlePlan& p) { return dump(pod_json(p)); }

std::string render_plan_json(const BottlePlan& p) {
  Json j;
  j["policyHash"] = p.policy_hash;
  j["podHash"] = p.pod_hash;
  j["scanned"] = p.scanned;
  j["warnings"] = p.warnings;
  j["tokens"] = Json::array();
  for (const auto& t : p.tokens)
    j["tokens"].push_back({{"env", t.env}, {"secret", {{"name", t.secret.name}, {"key", t.secret.key}}}});
  j["policyFiles"] = Json::object();
  for (const auto& [name, text] : p.policy_files) {
    // Shown as the structure it is, not as one long string.
    Json file = Json::parse(text, nullptr, false);
    j["policyFiles"][name] = file.is_discarded() ? Json(text) : std::move(file);
  }
  // One array element per line of text, so that a person can read it and a diff can show it.
  j["guardFiles"] = Json::object();
  for (const auto& [name, text] : p.guard_files) {
    Json lines = Json::array();
    for (size_t at = 0; at < text.size();) {
      const size_t end = text.find('\n', at);
      lines.push_back(text.substr(at, end - at));
      at = end == std::string::npos ? text.size() : end + 1;
    }
    j["guardFiles"][name] = std::move(lines);
  }
  j.update(pod_json(p));
  return dump(j);
}

}  // namespace bottle
