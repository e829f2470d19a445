#include "controller/reconcile/findings.h"
#include "controller/reconcile/text.h"

namespace bottle::reconcile {
namespace {

using Egress = Findings::Egress;
using Life = PodState::Life;

constexpr size_t kMessageLimit = 4096;

Condition make(const char* type, const char* status, std::string_view reason, std::string message = "") {
  return {type, status, std::string(reason), plain(message, kMessageLimit)};
}

bool invalid(const Findings& f) { return !f.spec || !f.spec->status; }

std::string keep_note(const Findings& f) {
  return f.pod ? "; nothing was changed: the pod and its policy stay as they are until the Bottle is corrected" : "; no pod is made";
}

Condition ready(const Findings& f, bool* passing) {
  const PodState& s = f.state;
  *passing = false;
  if (invalid(f)) return make("Ready", "False", "InvalidSpec", (f.spec ? f.spec->status.message() : "") + keep_note(f));
  if (f.suspended) {
    const bool going = f.pod != nullptr;
    return make("Ready", "False", "Suspended", going ? "spec.suspend is true: the pod is being deleted" : "spec.suspend is true: no pod runs");
  }
  if (!f.problem.none()) {
    *passing = f.problem.kind == Problem::Kind::kTransient || f.problem.kind == Problem::Kind::kStale || f.problem.kind == Problem::Kind::kWaiting ||
               f.problem.kind == Problem::Kind::kNamespaceEnding;
    return make("Ready", "False", f.problem.reason(), f.problem.message);
  }
  if (s.life == Life::kFinished || f.finished_before)
    return make("Ready", "False", "Finished", f.finished_before ? "the agent has finished" : s.message);
  if (s.life == Life::kLost) return make("Ready", f.pod && f.pod->deleting ? "False" : "Unknown", "NodeLost", s.message);
  if (!f.replacing.empty()) {
    *passing = true;
    return make("Ready", "False", "Replacing", f.replacing);
  }
  if (s.life == Life::kNone) {
    *passing = true;
    return make("Ready", "False", "Pending", "the pod is about to be made");
  }
  if (!s.reason.empty()) {
    *passing = s.passing;
    return make("Ready", "False", s.reason, s.message);
  }
  if (!f.guard_update_failed.empty()) return make("Ready", "False", "GuardFailed", f.guard_update_failed);
  *passing = true;
  const std::string at = (f.pod->ip.find(':') == std::string::npos ? f.pod->ip : "[" + f.pod->ip + "]") + ":" + std::to_string(kEgressHealthPort);
  switch (f.egress) {
    case Egress::kUnreachable:
      return make("Ready", "Unknown", "StatusUnreachable",
                  "egress does not answer at " + at + ": what it enforces is not known" + (f.egress_said.empty() ? "" : " (" + f.egress_said + ")") +
                      "; let the controller's namespace reach TCP port " + std::to_string(kEgressHealthPort) + " of the pod (NetworkPolicy with ingress from it)");
    case Egress::kUntrusted:
      return make("Ready", "Unknown", "StatusNotTrusted", "what answers at " + at + " does not have the bottle's status key: " + f.egress_said);
    case Egress::kNotReady: return make("Ready", "False", "EgressNotReady", f.egress_said.empty() ? "egress reports that it is not ready" : f.egress_said);
    case Egress::kOldPolicy:
      *passing = f.egress_said.empty();
      return make("Ready", "False", f.egress_said.empty() ? "PolicyNotEnforced" : "PolicyRejected",
                  f.egress_said.empty() ? "egress enforces " + f.enforced_hash + ", wanted is " + f.spec->policy_hash
                                        : "egress keeps " + f.enforced_hash + " and does not take " + f.spec->policy_hash + ": " + f.egress_said);
    case Egress::kNotAsked: return make("Ready", "False", "Starting", "egress is about to be asked what it enforces");
    case Egress::kEnforced: break;
  }
  if (!f.guard_current) return make("Ready", "False", "GuardUpdating", "changed guard rules are being loaded into the running pod");
  *passing = false;
  return make("Ready", "True", "Enforced", "the agent runs behind " + f.enforced_hash);
}

Condition planned(const Findings& f) {
  if (invalid(f)) return make("Planned", "False", "InvalidSpec", f.spec ? f.spec->status.message() : "");
  if (f.outdated)
    return make("Planned", "True", "Outdated",
                "the controller's images or options have changed since the pod was made; it runs on as it is. To renew it: kubectl -n " + f.bottle->ns +
                    " delete pod " + f.bottle->name);
  if (f.ca_renewing) return make("Planned", "True", "CARenewal", "the egress CA was renewed at two thirds of its lifetime: the pod is replaced");
  return make("Planned", "True", "Planned", joined(f.spec->warnings, "; "));
}

Condition secrets_found(const Findings& f) {
  if (!f.missing_secrets.empty()) {
    std::vector<std::string> all = f.missing_secrets;
    all.insert(all.end(), f.missing_keys.begin(), f.missing_keys.end());
    return make("SecretsFound", "False", "SecretMissing", joined(all, "; "));
  }
  if (!f.missing_keys.empty()) return make("SecretsFound", "False", "KeyMissing", joined(f.missing_keys, "; "));
  if (invalid(f)) return make("SecretsFound", "Unknown", "InvalidSpec");
  return make("SecretsFound", "True", f.spec->tokens.empty() ? "NoneNeeded" : "Found");
}

Condition isolated(const Findings& f) {
  if (f.problem.kind == Problem::Kind::kPodSecurity) return make("Isolated", "False", "PodSecurityForbidden", "the namespace forbids the guard, so no pod is made");
  if (!f.state.guard_failed.empty()) return make("Isolated", "False", "GuardFailed", f.state.guard_failed);
  if (f.state.life == Life::kNone) return make("Isolated", "False", "NotStarted", "there is no pod");
  if (!f.state.guard_done)
    return make("Isolated", f.state.life == Life::kLost ? "Unknown" : "False", f.pod->deleting ? "Terminating" : "GuardPending",
                f.pod->deleting ? "the pod is being deleted" : "the agent starts when the guard has closed the network");
  if (!f.guard_update_failed.empty()) return make("Isolated", "False", "GuardFailed", f.guard_update_failed);
  if (!f.guard_current) return make("Isolated", "True", "GuardUpdating", "the former guard rules hold until the changed ones are loaded");
  if (!f.widened.empty())
    return make("Isolated", "True", "NetworkPolicyWidened",
                "the guard holds, but the second layer is wider than planned: NetworkPolicy " + joined(f.widened) +
                    " also selects the pod and allows egress; narrow its podSelector if that is not meant");
  return make("Isolated", "True", "GuardVerified");
}

Condition sidecars(const Findings& f) {
  if (f.state.guard_done && f.state.egress_ready) return make("SidecarsReady", "True", "Ready");
  return make("SidecarsReady", f.state.life == Life::kLost ? "Unknown" : "False", "NotReady", f.state.egress_message);
}

Condition agent(const Findings& f) {
  if (f.state.life == Life::kLost) return make("AgentRunning", "Unknown", "NodeLost", f.state.message);
  if (f.state.agent_running) return make("AgentRunning", "True", "Running");
  if (f.finished_before) return make("AgentRunning", "False", "Finished", "the agent has finished");
  return make("AgentRunning", "False", f.state.agent_reason.empty() ? "NotRunning" : f.state.agent_reason, f.state.agent_message);
}

Condition finished(const Findings& f) {
  if (f.state.life == Life::kFinished) return make("Finished", "True", f.state.finish_reason, f.state.finish_message);
  return make("Finished", "False", f.state.life == Life::kNone ? "NotStarted" : "Running");
}

}  // namespace

const Condition* find(const std::vector<Condition>& conditions, std::string_view type) {
  for (const auto& c : conditions)
    if (c.type == type) return &c;
  return nullptr;
}

Told tell(const Findings& f) {
  Told t;
  t.conditions = {ready(f, &t.passing), planned(f), secrets_found(f), isolated(f), sidecars(f), agent(f), finished(f)};
  const bool scanned = f.spec && f.spec->scanned;
  t.conditions.push_back(scanned ? make("Scanned", "True", "Scanner")
                                 : make("Scanned", "False", "NoScanner", "what goes through the allowed routes is not scanned"));
  return t;
}

}  // namespace bottle::reconcile
