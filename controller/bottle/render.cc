#include <nlohmann/json.hpp>

#include "controller/bottle/parse.h"

namespace bottle {
namespace {

using Json = nlohmann::ordered_json;  // fields in the order of the documentation
using policy::Inspect;

Json resources(const Resources& r) {
  Json out = Json::object();
  if (r.memory_bytes) out["memory"] = std::to_string(r.memory_bytes);
  if (r.cpu_millis) out["cpu"] = std::to_string(r.cpu_millis) + "m";
  return out;
}

Json workspace(const WorkspaceSpec& w) {
  switch (w.kind) {
    case WorkspaceSpec::Kind::kPersistentVolumeClaim:
      return {{"persistentVolumeClaim", {{"claimName", w.claim_name}}}};
    case WorkspaceSpec::Kind::kHostPath: return {{"hostPath", {{"path", w.host_path}}}};
    case WorkspaceSpec::Kind::kEmptyDir: break;
  }
  Json empty_dir = Json::object();
  if (w.size_limit_bytes) empty_dir["sizeLimit"] = std::to_string(w.size_limit_bytes);
  return {{"emptyDir", empty_dir}};
}

Json agent(const AgentSpec& a) {
  static constexpr const char* kRestart[] = {"Never", "OnFailure", "Always"};
  Json env = Json::array();
  for (const EnvVar& v : a.env) env.push_back({{"name", v.name}, {"value", v.value}});
  return {{"image", a.image},
          {"command", a.command},
          {"args", a.args},
          {"env", env},
          {"workingDir", a.working_dir},
          {"runAsUser", a.run_as_user},
          {"tty", a.tty},
          {"resources", {{"requests", resources(a.requests)}, {"limits", resources(a.limits)}}},
          {"restartPolicy", kRestart[static_cast<int>(a.restart_policy)]},
          {"workspace", workspace(a.workspace)}};
}

Json route(const RouteSpec& r) {
  static constexpr const char* kInspect[] = {"full", "headers", "none"};
  Json out = {{"host", r.host}, {"ports", r.ports}};
  if (r.inspect != Inspect::kNone) {  // spliced: neither is known, and neither may be set
    out["methods"] = r.methods;
    out["paths"] = r.paths;
  }
  out["encodedSlash"] = r.encoded_slash == policy::EncodedSlash::kAllow ? "allow" : "refuse";
  if (r.inspect) out["inspect"] = kInspect[static_cast<int>(*r.inspect)];
  out["inject"] = Json::array();
  for (const InjectSpec& i : r.inject) {
    out["inject"].push_back({{"header", i.header},
                             {"prefix", i.prefix},
                             {"secretKeyRef", {{"name", i.secret.name}, {"key", i.secret.key}}}});
  }
  return out;
}

Json egress(const EgressSpec& e) {
  Json routes = Json::array(), aliases = Json::array(), cas = Json::array();
  for (const RouteSpec& r : e.routes) routes.push_back(route(r));
  for (const HostAlias& a : e.host_aliases) aliases.push_back({{"ip", a.ip}, {"hostnames", a.hostnames}});
  for (const std::string& pem : e.upstream_ca_pems) cas.push_back({{"pem", pem}});
  for (const std::string& file : e.upstream_ca_files) cas.push_back({{"file", file}});
  return {{"engine", e.engine == Engine::kNative ? "native" : "mitmproxy"},
          {"mode", e.mode == policy::Mode::kLearn ? "learn" : "enforce"},
          {"routes", routes},
          {"allowCIDRs", e.allow_cidrs},
          {"hostAliases", aliases},
          {"upstreamCAs", cas}};
}

}  // namespace

std::string render_bottle_json(const Bottle& b) {
  static constexpr const char* kKeyTypes[] = {"", "RSA-2048", "ECDSA-P256"};
  Json metadata = {{"name", b.name}};
  if (!b.namespace_.empty()) metadata["namespace"] = b.namespace_;
  if (!b.uid.empty()) metadata["uid"] = b.uid;
  if (b.generation) metadata["generation"] = b.generation;

  Json spec = {{"agent", agent(b.agent)}, {"egress", egress(b.egress)}};
  if (b.pipelock_set) spec["pipelock"] = {{"enabled", b.pipelock_enabled}};
  spec["pki"] = {{"keyType", kKeyTypes[static_cast<int>(b.key_type)]}};
  spec["isolation"] = b.isolation == Isolation::kGateway ? "Gateway" : "Sidecar";
  spec["runtimeClassName"] = b.runtime_class_name;
  spec["suspend"] = b.suspend;
  if (b.active_deadline_seconds) spec["activeDeadlineSeconds"] = b.active_deadline_seconds;
  if (b.ttl_seconds_after_finished >= 0) spec["ttlSecondsAfterFinished"] = b.ttl_seconds_after_finished;

  Json out = {{"apiVersion", "bot-bottle.dev/v1alpha1"}, {"kind", "Bottle"}, {"metadata", metadata}, {"spec", spec}};
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace bottle
