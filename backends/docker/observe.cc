// What is, as the engine and the egress say it, told as conditions.
#include <algorithm>
#include <ctime>

#include "backends/docker/docker_impl.h"
#include "base/file.h"

namespace bottle::docker {
namespace {

ContainerObservation observe_container(const Result<Json>& inspect, Role role,
                                       const BottleState& s) {
  ContainerObservation o;
  o.role = role_name(role), o.name = container_name(o.role, s.slug), o.id = s.id(role);
  if (!inspect) {
    o.state = "missing";
    return o;
  }
  const Json& j = *inspect;
  o.image = text_at(j, "/Config/Image"), o.state = text_at(j, "/State/Status");
  o.exit_code = static_cast<int>(int_at(j, "/State/ExitCode")),
  o.restarts = static_cast<int>(int_at(j, "/RestartCount"));
  o.started_at = text_at(j, "/State/StartedAt"), o.finished_at = text_at(j, "/State/FinishedAt");
  if (o.finished_at.rfind("0001-", 0) == 0) o.finished_at.clear();
  if (o.started_at.rfind("0001-", 0) == 0) o.started_at.clear();
  if (bool_at(j, "/State/OOMKilled"))
    o.reason = "OOMKilled";
  else if (o.state == "exited")
    o.reason = o.exit_code == 0 ? "Completed" : "Error";
  else if (o.state == "created" && !text_at(j, "/State/Error").empty())
    o.reason = "StartError";
  return o;
}

Condition condition(const char* type, bool is, const std::string& reason,
                    const std::string& message = "") {
  return {type, is ? "True" : "False", reason, message};
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const auto& w : words) out += (out.empty() ? "" : ", ") + w;
  return out;
}

}  // namespace

Observation DockerBackend::observe_state(const BottleState& s) const {
  Observation o;
  o.name = s.name, o.slug = s.slug, o.created_at = s.created_at;
  o.desired_policy_hash = s.policy_hash, o.ca_fingerprint = s.ca_fingerprint,
  o.ca_not_after = s.ca_not_after;
  if (auto text = state_.bottle_json(s.slug); text) o.bottle_json = *text;

  Json inspects[3];
  bool there[3] = {}, joined_right = true;
  Status engine_down;
  int i = 0;
  for (Role role : {Role::kGuard, Role::kEgress, Role::kAgent}) {
    Result<Json> now(Code::kNotFound, "never created");
    if (!s.id(role).empty()) now = engine_.call("GET", "/containers/" + s.id(role) + "/json");
    if (!now && now.status().code() != Code::kNotFound) engine_down = now.status();
    // A container is what we say it is only with our labels on it.
    if (now && !ours(now->value("Config", Json::object()).value("Labels", Json::object()), s.slug))
      now = Status(Code::kNotFound, "not ours");
    o.containers.push_back(observe_container(now, role, s));
    there[i] = now.is_ok();
    if (now) inspects[i] = std::move(*now);
    if (role != Role::kGuard && there[i] &&
        text_at(inspects[i], "/HostConfig/NetworkMode") != "container:" + s.guard_id)
      joined_right = false;
    ++i;
  }
  const auto &guard = o.containers[0], &egress = o.containers[1], &agent = o.containers[2];
  const bool guarded =
      guard.state == "running" && guard.started_at == s.guard_started_at && joined_right;
  const std::string guard_said =
      guard.state != "running" ? "the guard is " + guard.state
      : guarded
          ? ""
          : "the guard was started again: egress and agent belong to its old network namespace";
  std::string egress_said = "egress is " + egress.state;
  bool egress_ready = false;
  if (egress.state == "running") {
    auto text = read_file(state_.source_dir(s.slug, Source::kRun) + "/status.json", 1u << 20);
    Json j = text ? Json::parse(*text, nullptr, false) : Json();
    o.policy_hash = text_at(j, "/policyHash");
    egress_ready = bool_at(j, "/ready");
    egress_said = !text_at(j, "/error").empty() ? text_at(j, "/error")
                  : egress_ready                ? ""
                                                : "egress has not reported that it is ready";
  }
  const bool enforced = egress_ready && o.policy_hash == s.policy_hash;
  const bool finished = agent.state == "exited" && s.restart_policy != "Always" &&
                        (agent.exit_code == 0 || s.restart_policy == "Never");

  auto& c = o.conditions;
  if (!engine_down.is_ok())
    c.push_back({"Ready", "Unknown", "EngineUnavailable", engine_down.message()});
  else if (finished)
    c.push_back(
        condition("Ready", false, "Finished",
                  "the agent has finished with exit code " + std::to_string(agent.exit_code)));
  else if (!s.ready && !s.message.empty())
    c.push_back(condition("Ready", false, s.reason, s.message));
  else if (!guarded)
    c.push_back(
        condition("Ready", false, "GuardDown", guard_said + "; bottle up makes the bottle again"));
  else if (!egress_ready)
    c.push_back(condition("Ready", false, "EgressNotReady", egress_said));
  else if (!enforced)
    c.push_back(condition("Ready", false, "PolicyNotEnforced",
                          "egress enforces " + o.policy_hash + ", wanted is " + s.policy_hash));
  else if (agent.state != "running")
    c.push_back(condition(
        "Ready", false, "AgentNotRunning",
        "the agent is " + agent.state + " (exit code " + std::to_string(agent.exit_code) + ")"));
  else
    c.push_back(condition("Ready", true, "Enforced"));
  c.push_back(condition("Planned", true, "Planned"));
  c.push_back(s.missing_tokens.empty()
                  ? condition("SecretsFound", true, "Found")
                  : condition("SecretsFound", false, "Missing",
                              "no value for " + joined(s.missing_tokens) +
                                  "; their routes answer 503 until the next up with them"));
  c.push_back(guarded ? condition("Isolated", true, "GuardVerified")
                      : condition("Isolated", false, "GuardDown", guard_said));
  c.push_back(guarded && egress_ready ? condition("SidecarsReady", true, "Ready")
                                      : condition("SidecarsReady", false, "NotReady", egress_said));
  c.push_back(agent.state == "running"
                  ? condition("AgentRunning", true, "Running")
                  : condition("AgentRunning", false,
                              agent.reason.empty() ? "NotRunning" : agent.reason,
                              "the agent is " + agent.state));
  c.push_back(finished ? condition("Finished", true, agent.exit_code == 0 ? "Completed" : "Error",
                                   "exit code " + std::to_string(agent.exit_code))
                       : condition("Finished", false, "Running"));
  c.push_back(condition("Scanned", s.scanned, s.scanned ? "Scanner" : "NoScanner",
                        s.scanned ? "" : "what goes through the allowed routes is not scanned"));
  return o;
}

Result<BottleState> DockerBackend::state_of(const std::string& name) const {
  auto state = state_.load(slug_of(name));
  if (state && state->name == name) return state;
  if (!state && state.status().code() != Code::kNotFound) return state;
  return Status(Code::kNotFound,
                "there is no bottle '" + name + "'; bottle ls shows those there are");
}

Result<std::vector<Observation>> DockerBackend::list() {
  std::vector<Observation> out;
  for (const auto& slug : state_.slugs())
    if (auto state = state_.load(slug); state) out.push_back(observe_state(*state));
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return out;
}

Result<Observation> DockerBackend::observe(const std::string& name) {
  auto state = state_of(name);
  if (!state) return state.status();
  return observe_state(*state);
}

}  // namespace bottle::docker
