// The policy: ConfigMap, and getting a changed one into a running pod.
#include <cstdlib>

#include "controller/reconcile/pass.h"
#include "controller/reconcile/text.h"

namespace bottle::reconcile {
namespace {

constexpr size_t kGuardTries = 8;
constexpr int64_t kGuardRetryS = 15;

}  // namespace

Problem Pass::ensure_policy() {
  bool rewritten = false;
  if (Problem p = ensure(kube::kConfigMaps, kubernetes::policy_name(b_.name), snap_.policy, &m_.policy, spec_->policy_content, kubernetes::render_policy,
                         &rewritten);
      !p.none())
    return p;
  if (rewritten && pod_ && f_.state.life == PodState::Life::kRunning) {
    m_.push_started = monotonic();
    m_.policy_changed = true;
    say(Events::Type::kNormal, "PolicyChanged", "UpdatePolicy", "the policy is now " + spec_->policy_hash + "; egress takes it without a restart");
  }
  return {};
}

// The kubelet refreshes a pod's files at once when an annotation changes; without that it may take more than a minute.
void Pass::push_policy() {
  if (pod_->annotation(kubernetes::kPolicyHash) != spec_->policy_hash) annotations_[std::string(kubernetes::kPolicyHash)] = spec_->policy_hash;
}

// Rules are not files: a container that runs once loads them. The last one of these tells what the pod has; without any, the guard of its start.
void Pass::update_guard() {
  // The last one is that with the highest serial at the end of its name (none is 0): a strategic patch puts new ones in front.
  const std::string* last = nullptr;
  size_t count = 0;
  long highest = -1;
  for (const auto& name : pod_->ephemeral) {
    if (!name.starts_with("guard-")) continue;
    ++count;
    const size_t dash = name.find('-', 6);
    const long serial = dash == name.npos ? 0 : std::strtol(name.c_str() + dash + 1, nullptr, 10);
    if (serial > highest) highest = serial, last = &name;
  }
  const bool wanted_last = last && last->starts_with(spec_->guard_update) && (last->size() == spec_->guard_update.size() || (*last)[spec_->guard_update.size()] == '-');
  if (!last && pod_->annotation(kubernetes::kGuardHash) == spec_->guard_hash) return;
  f_.guard_current = false;
  if (wanted_last) {
    const kube::ContainerState* c = pod_->container(*last);
    if (!c || c->state != kube::ContainerState::State::kTerminated) {
      requeue(std::chrono::seconds(2));
      return;  // at work
    }
    if (c->exit_code == 0) {
      f_.guard_current = true;
      if (pod_->annotation(kubernetes::kGuardHash) != spec_->guard_hash) {
        annotations_[std::string(kubernetes::kGuardHash)] = spec_->guard_hash;
        say(Events::Type::kNormal, "GuardUpdated", "UpdateGuard", "the running pod has the changed guard rules");
      }
      return;
    }
    const std::string words = plain(c->message, 400);
    f_.guard_update_failed = "changed guard rules could not be loaded (container " + *last + ", exit code " + std::to_string(c->exit_code) + ")" +
                             (words.empty() ? "" : ": " + words) + "; the former rules hold";
    if (count >= kGuardTries) {
      f_.guard_update_failed += "; delete the pod to start it with the new rules: kubectl -n " + b_.ns + " delete pod " + pod_->name;
      return;
    }
    if (const int64_t wait = c->finished_at + kGuardRetryS - now(); c->finished_at && wait > 0) {
      requeue(std::chrono::seconds(wait));
      return;
    }
  }
  // An ephemeral container stays in the pod for good, so each has a name of its own: the count of those before it.
  const Json patch = kubernetes::render_guard_update(planned()->plan, s_.options.render, static_cast<int64_t>(count));
  kube::Request request = request_of(
      "PATCH", kube::object_path(kube::kPods, b_.ns, pod_->name, "ephemeralcontainers", {{"fieldManager", std::string(kube::kFieldManager)}}),
      kube::kStrategicPatch);
  std::string body = patch.dump();
  const kube::Answer a = send(std::move(request), &body);
  if (!a.ok()) {
    settle(classify(a, "load guard rules into pod " + b_.ns + "/" + pod_->name, b_.ns));
    return;
  }
  (void)take_pod(a.body);  // else the cache brings it
}

}  // namespace bottle::reconcile
