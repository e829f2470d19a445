// Writing the status, and the events that go with its changes: when it says something new, and not while a bottle only passes through.
#include <algorithm>
#include <array>

#include "controller/reconcile/pass.h"

namespace bottle::reconcile {
namespace {

// Of Ready: what is no reason to warn a person.
constexpr std::array<std::string_view, 14> kCalm = {"Enforced",  "Pending",   "Starting",           "Terminating",   "Replacing",         "Suspended",      "Finished",
                                                    "EgressNotReady", "AgentNotRunning", "WaitingForDeletion", "GuardUpdating", "PolicyNotEnforced", "ApiUnavailable", "NamespaceTerminating"};

bool calm(std::string_view reason) { return std::find(kCalm.begin(), kCalm.end(), reason) != kCalm.end(); }

std::string old_text(const nlohmann::json& old, std::string_view type, const char* field) {
  if (!old.is_object() || !old.contains("conditions") || !old["conditions"].is_array()) return "";
  for (const auto& c : old["conditions"])
    if (c.is_object() && c.value("type", nlohmann::json()) == std::string(type)) {
      auto it = c.find(field);
      return it != c.end() && it->is_string() ? it->get<std::string>() : "";
    }
  return "";
}

}  // namespace

// Once for each change: what the former status said already is not said again, also by another process.
void Pass::announce(const Told& told, const Json& old) {
  std::string warned;
  for (const Condition& c : told.conditions) {
    const bool news = old_text(old, c.type, "reason") != c.reason || old_text(old, c.type, "status") != c.status;
    if (!news || c.reason == warned) continue;
    if (c.type == "Ready" && c.status == "True") {
      say(Events::Type::kNormal, "Ready", "Observe", c.message);
    } else if (c.type == "Ready" && c.reason == "Suspended") {
      say(Events::Type::kNormal, "Suspended", "Suspend", c.message);
    } else if (c.type == "Finished" && c.status == "True" && !f_.finished_before) {
      say(f_.state.exit_code == 0 ? Events::Type::kNormal : Events::Type::kWarning, "Finished", "Observe", c.reason + ": " + c.message);
    } else if ((c.type == "Ready" && !calm(c.reason)) || c.reason == "SecretMissing" || c.reason == "KeyMissing" || c.reason == "NetworkPolicyWidened" ||
               (c.type == "Isolated" && c.reason == "GuardFailed")) {
      say(Events::Type::kWarning, c.reason, "Observe", c.message);
      warned = c.reason;
    }
  }
}

void Pass::write_status() {
  const Told told = tell(f_);
  const Condition* ready = find(told.conditions, "Ready");
  const bool is_ready = ready->status == "True";
  s_.meters.bottle(key_,
                   is_ready                          ? "ready"
                   : ready->reason == "Finished"    ? "finished"
                   : ready->reason == "Suspended"   ? "suspended"
                   : ready->reason == "InvalidSpec" ? "invalid"
                   : told.passing                   ? "starting"
                                                    : "blocked",
                   ca_not_after_);
  if (m_.launching && !m_.scheduled && pod_ && !pod_->node.empty()) {
    m_.scheduled = true;
    s_.meters.scheduled(since(m_.first_seen));
  }
  if (m_.launching && is_ready) {
    m_.launching = false;
    s_.meters.ready(since(m_.first_seen));
  }
  Json status = render_status(f_, told, old_status_, now());
  // What egress enforced last stays true until it says otherwise.
  if (!status.contains("policyHash") && f_.pod && f_.egress == Findings::Egress::kUnreachable && old_status_.is_object() && old_status_.contains("policyHash"))
    status["policyHash"] = old_status_["policyHash"];
  if (status == old_status_) {
    m_.passing_since.reset();
    return;
  }
  if (told.passing) {
    // A launch goes through several states within seconds; only what lasts is worth a write. A bottle that was Ready and lost its agent is not
    // kept looking Ready.
    const bool was_ready = old_text(old_status_, "Ready", "status") == "True";
    if (!m_.passing_since) m_.passing_since = monotonic();
    const auto lasts = monotonic() - *m_.passing_since;
    if (!(was_ready && !f_.state.agent_running) && lasts < s_.options.status_delay) {
      requeue(std::chrono::ceil<std::chrono::milliseconds>(s_.options.status_delay - lasts));
      return;
    }
  }
  const Json object = {{"apiVersion", kube::api_version(kube::kBottles)},
                       {"kind", "Bottle"},
                       {"metadata", {{"name", b_.name}, {"namespace", b_.ns}, {"uid", b_.uid}}},
                       {"status", status}};
  kube::Request patch = request_of(
      "PATCH",
      kube::object_path(kube::kBottles, b_.ns, b_.name, "status", {{"fieldManager", std::string(kube::kFieldManager)}, {"force", "true"}}), kube::kApply);
  patch.accept = kube::kMetadataOnly;
  std::string body = object.dump(-1, ' ', false, Json::error_handler_t::replace);
  const kube::Answer a = send(std::move(patch), &body);
  if (!a.ok()) {
    if (a.is("NotFound") || a.is("Conflict")) return;  // gone, or made anew: its own pass comes
    const Problem p = classify(a, "write the status of bottle " + b_.ns + "/" + b_.name, b_.ns);
    if (p.kind == Problem::Kind::kNamespaceEnding) return;
    if (out_.status) out_.status = p.status ? a.status("write the status of bottle " + b_.ns + "/" + b_.name) : p.status;
    return;
  }
  kube::MetaObject meta;
  if (decoder().meta(a.body, &meta)) m_.status_rv = meta.resource_version;
  m_.status_json = status.dump();
  m_.passing_since.reset();
  if (told.passing) m_.passing_since = monotonic();
  announce(told, old_status_);
  old_status_ = std::move(status);
}

}  // namespace bottle::reconcile
