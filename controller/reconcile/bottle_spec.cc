#include "controller/reconcile/bottle_spec.h"

#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "controller/bottle/parse.h"
#include "controller/reconcile/text.h"

namespace bottle::reconcile {
namespace {

using kubernetes::Json;

// The object as a file of one document: the same reader judges what a laptop and what a cluster is given.
std::string document(const kube::BottleObject& b) {
  std::string text = R"({"apiVersion":"bot-bottle.dev/v1alpha1","kind":"Bottle","metadata":)";
  text += Json{{"name", b.name}, {"namespace", b.ns}, {"uid", b.uid}, {"generation", b.generation}}.dump();
  text += ",\"spec\":" + (b.spec_json.empty() ? "{}" : b.spec_json) + "}";
  return text;
}

std::string diagnostics(const BottleFile& file) {
  std::string text;
  for (const auto& d : file.diagnostics) {
    if (d.severity != Diagnostic::Severity::kError) continue;
    // Lines and columns of JSON on one line help nobody: the path does.
    text += (text.empty() ? "" : "; ") + (d.path.empty() ? "" : d.path + ": ") + d.message;
  }
  return text.empty() ? "the Bottle cannot be read" : text;
}

}  // namespace

kubernetes::Owner owner_of(const kube::BottleObject& b) { return {b.ns, b.name, b.uid, b.generation}; }

Result<Planned> plan_bottle(const kube::BottleObject& object, const PlanOptions& options) {
  BottleFile file = parse_bottle_file(document(object));
  if (!file.ok() || file.bottles.size() != 1) return {Code::kInvalid, diagnostics(file)};
  Bottle& bottle = file.bottles.front();
  if (Status s = kubernetes::check(bottle); !s) return s;
  auto made = plan(bottle, options);
  if (!made) return made.status();
  return Planned{std::move(bottle), std::move(*made)};
}

Spec summarize(const Planned& planned, const kubernetes::Owner& owner, const kubernetes::RenderOptions& render) {
  const auto& [bottle, plan] = planned;
  Spec s;
  s.policy_hash = plan.policy_hash;
  s.pod_hash = plan.pod_hash;
  s.policy_content = annotation_of(kubernetes::render_policy(plan, owner), kubernetes::kContentHash);
  s.network_policy_content = annotation_of(kubernetes::render_network_policy(plan, owner), kubernetes::kContentHash);
  s.guard_update = kubernetes::guard_update_name(plan);
  const Json pod = kubernetes::render_pod(plan, owner, render, {});
  s.guard_hash = annotation_of(pod, kubernetes::kGuardHash);
  s.token_refs = annotation_of(pod, kubernetes::kTokenRefs);
  if (const Json::json_pointer at("/metadata/labels"); pod.contains(at))
    for (const auto& [key, value] : pod.at(at).items())
      if (value.is_string()) s.pod_labels[key] = value.get<std::string>();
  for (const auto& ref : plan.tokens) {
    Token t{ref, ""};
    for (const auto& route : plan.routes.routes)
      for (const auto& inject : route.inject)
        if (inject.token_env == ref.env) {
          t.routes += (t.routes.empty() ? "" : ", ") + route.host;
          break;
        }
    s.tokens.push_back(std::move(t));
  }
  s.key_type = plan.ca_key_type;
  s.restart_policy = bottle.agent.restart_policy;
  s.suspend = bottle.suspend;
  s.scanned = plan.scanned;
  s.active_deadline_seconds = bottle.active_deadline_seconds;
  s.ttl_seconds = bottle.ttl_seconds_after_finished;
  s.guard_image = plan.guard.image;
  s.egress_image = plan.egress.image;
  s.agent_image = plan.agent.image;
  s.warnings = plan.warnings;
  return s;
}

std::shared_ptr<const Spec> SpecCache::get(const std::string& uid, int64_t generation) {
  std::lock_guard lock(mutex_);
  auto it = by_uid_.find(uid);
  if (it == by_uid_.end() || it->second->generation != generation) return nullptr;
  order_.splice(order_.begin(), order_, it->second);
  return it->second->spec;
}

void SpecCache::put(const std::string& uid, int64_t generation, std::shared_ptr<const Spec> spec) {
  std::lock_guard lock(mutex_);
  if (auto it = by_uid_.find(uid); it != by_uid_.end()) {
    order_.erase(it->second);
    by_uid_.erase(it);
  }
  order_.push_front({uid, generation, std::move(spec)});
  by_uid_[uid] = order_.begin();
  if (order_.size() <= capacity_) return;
  by_uid_.erase(order_.back().uid);
  order_.pop_back();
}

}  // namespace bottle::reconcile
