// The status of a Bottle: rendered from what was found. Written only when it says something new (reconciler.cc).
#include <nlohmann/json.hpp>

#include "base/rfc3339.h"
#include "controller/reconcile/findings.h"

namespace bottle::reconcile {
namespace {

using Json = nlohmann::json;
using State = kube::ContainerState::State;

const Json* old_condition(const Json& old, const std::string& type) {
  if (!old.is_object()) return nullptr;
  auto list = old.find("conditions");
  if (list == old.end() || !list->is_array()) return nullptr;
  for (const auto& c : *list)
    if (c.is_object() && c.value("type", Json()) == type) return &c;
  return nullptr;
}

Json agent_status(const kube::ContainerState& c) {
  Json a;
  a["state"] = c.state == State::kRunning ? "Running" : c.state == State::kTerminated ? "Terminated" : "Waiting";
  // A reason of waiting alternates with each try (ErrImagePull, ImagePullBackOff): the conditions tell it once.
  if (c.state == State::kTerminated) {
    if (!c.reason.empty()) a["reason"] = c.reason;
    a["exitCode"] = c.exit_code;
    if (c.finished_at) a["finishedAt"] = format_rfc3339(c.finished_at);
  }
  a["restarts"] = c.restarts;
  if (c.started_at) a["startedAt"] = format_rfc3339(c.started_at);
  return a;
}

}  // namespace

Json render_status(const Findings& f, const Told& told, const Json& old, int64_t now) {
  Json s;
  s["observedGeneration"] = f.bottle->generation;
  s["conditions"] = Json::array();
  for (const Condition& c : told.conditions) {
    const Json* before = old_condition(old, c.type);
    Json entry;
    if (before && c.type == "Finished" && f.finished_before) {
      entry = *before;  // the pod that would tell it is gone
      entry["observedGeneration"] = f.bottle->generation;
    } else {
      entry = {{"type", c.type}, {"status", c.status}, {"reason", c.reason}, {"message", c.message}, {"observedGeneration", f.bottle->generation}};
      const bool same = before && before->value("status", Json()) == c.status && before->contains("lastTransitionTime");
      entry["lastTransitionTime"] = same ? (*before)["lastTransitionTime"] : Json(format_rfc3339(now));
    }
    s["conditions"].push_back(std::move(entry));
  }
  if (!f.enforced_hash.empty()) s["policyHash"] = f.enforced_hash;
  if (!f.ca_fingerprint.empty()) {
    s["ca"]["fingerprint"] = f.ca_fingerprint;
    if (!f.ca_not_after.empty()) s["ca"]["notAfter"] = f.ca_not_after;
  }
  if (f.pod) {
    s["pod"]["name"] = f.pod->name;
    if (!f.pod->node.empty()) s["pod"]["node"] = f.pod->node;
    if (!f.pod->ip.empty()) s["pod"]["ip"] = f.pod->ip;
    if (const auto* c = f.pod->container("agent")) s["agent"] = agent_status(*c);
  } else if (f.finished_before && old.is_object() && old.contains("agent")) {
    s["agent"] = old["agent"];
  }
  return s;
}

}  // namespace bottle::reconcile
