// What ends: suspended bottles' pods, and finished bottles whose time has come. Everything else goes with its owner, by the garbage collector.
#include "base/rfc3339.h"
#include "controller/reconcile/pass.h"

namespace bottle::reconcile {

// True when the bottle is suspended: nothing else is to be done then.
bool Pass::suspend() {
  if (!spec_->suspend) return false;
  f_.suspended = true;
  if (pod_ && !pod_->deleting) {
    Problem p = remove(kube::kPods, pod_->name, pod_->uid);
    if (!settle(p)) {
      f_.suspended = false;  // the problem is what there is to tell
      return true;
    }
    m_.deleted_pod = pod_->uid;
    auto going = std::make_shared<kube::PodObject>(*pod_);
    going->deleting = now();
    pod_ = f_.pod = going;
    f_.state = read_pod(pod_.get(), spec_.get(), now());
  }
  if (pod_) requeue(std::chrono::seconds(45));
  return true;
}

// Finished at this generation, says the status: then a pod that is gone is not made again.
bool Pass::finished_before() const {
  if (!old_status_.is_object() || !old_status_.contains("conditions") || !old_status_["conditions"].is_array()) return false;
  for (const auto& c : old_status_["conditions"])
    if (c.is_object() && c.value("type", Json()) == "Finished")
      return c.value("status", Json()) == "True" && c.value("observedGeneration", Json()) == b_.generation;
  return false;
}

void Pass::expire() {
  if (spec_->ttl_seconds < 0 || !(f_.finished_before || f_.state.life == PodState::Life::kFinished)) return;
  int64_t ended = f_.state.finished_at;
  const Json::json_pointer at("/agent/finishedAt");
  if (!ended && old_status_.is_object() && old_status_.contains(at) && old_status_[at].is_string())
    ended = parse_rfc3339(old_status_[at].get<std::string>());
  if (!ended && old_status_.is_object() && old_status_.contains("conditions"))
    for (const auto& c : old_status_["conditions"])
      if (c.value("type", Json()) == "Finished") ended = parse_rfc3339(c.value("lastTransitionTime", ""));
  if (!ended) ended = now();
  if (const int64_t wait = ended + spec_->ttl_seconds - now(); wait > 0) {
    requeue(std::chrono::seconds(std::min<int64_t>(wait, 86'400)));
    return;
  }
  if (!out_.status) return;  // its end is not in the status yet
  say(Events::Type::kNormal, "Expired", "DeleteBottle", "finished for " + std::to_string(spec_->ttl_seconds) + " s (spec.ttlSecondsAfterFinished): the bottle is deleted");
  settle(remove(kube::kBottles, b_.name, b_.uid));
}

}  // namespace bottle::reconcile
