// The pod: made once everything it mounts exists, replaced when what it is made of changes, never two of them.
#include "controller/reconcile/pass.h"
#include "controller/reconcile/text.h"

namespace bottle::reconcile {
namespace {

using Life = PodState::Life;

constexpr std::chrono::seconds kTrustOwnPod{10};
constexpr int64_t kGuardRetryFirstS = 30, kGuardRetryMaxS = 600;

std::string generation_text(const kube::ObjectMeta& b) { return std::to_string(b.generation); }

}  // namespace

// The cached pod, or what our last write gave back as long as the cache has not caught up with it.
void Pass::find_pod() {
  pod_ = snap_.pod;
  if (m_.pod) {
    const bool caught_up = pod_ && not_older(pod_->resource_version, m_.pod->resource_version);
    if (caught_up || monotonic() - m_.pod_at > kTrustOwnPod) {
      m_.pod.reset();
    } else {
      if (!pod_) requeue(kTrustOwnPod + std::chrono::seconds(1));  // deleted before we ever saw it?
      pod_ = m_.pod;
    }
  }
  if (pod_ && pod_->uid == m_.deleted_pod && !pod_->deleting) {
    auto going = std::make_shared<kube::PodObject>(*pod_);
    going->deleting = now();
    pod_ = going;
  }
  f_.pod = pod_;
}

// Why the pod that runs has to go; "" when it may stay.
std::string Pass::replace_reason() {
  const kube::PodObject& pod = *pod_;
  if (!f_.ca_fingerprint.empty() && pod.annotation(kubernetes::kCaFingerprint) != f_.ca_fingerprint)
    return "the pod is replaced, because its egress CA was renewed";
  const bool other_pod = pod.annotation(kubernetes::kPodHash) != spec_->pod_hash;
  const bool other_tokens = pod.annotation(kubernetes::kTokenRefs) != spec_->token_refs;
  if (!other_pod && !other_tokens) return "";
  if (pod.annotation(kubernetes::kBottleGeneration) != generation_text(b_))
    return other_pod ? "the pod is replaced, because the Bottle's spec has changed (generation " + generation_text(b_) + ")"
                     : "the pod is replaced, because the Bottle names other Secrets (generation " + generation_text(b_) + ")";
  f_.outdated = true;  // the controller's options, not the person's wish: an agent at work is not cut off for that
  return "";
}

Problem Pass::ensure_pod() {
  if (!pod_) return create_pod();
  const auto& state = f_.state;
  switch (state.life) {
    case Life::kTerminating:
    case Life::kLost:
      if (pod_->deleting && m_.deleted_pod == pod_->uid) f_.replacing = state.life == Life::kTerminating ? "the former pod is being deleted" : "";
      if (state.look_again_s > 0) requeue(std::chrono::seconds(state.look_again_s));
      return {};
    case Life::kDisrupted: return delete_pod("a new pod is made: " + state.message, "Replacing");
    case Life::kGuardFailed: {
      // The agent has not run, so nothing is lost by another try; later and later, for what fails here mostly fails again.
      const kube::ContainerState* guard = pod_->container("guard");
      const int64_t ended = guard ? guard->finished_at : now();
      const int64_t wait = ended + std::min(kGuardRetryMaxS, kGuardRetryFirstS << std::min(m_.guard_failures, 5)) - now();
      if (wait > 0) {
        requeue(std::chrono::seconds(wait));
        break;
      }
      ++m_.guard_failures;
      return delete_pod("another try after the guard failed", "Replacing");
    }
    default: break;
  }
  if (const std::string why = replace_reason(); !why.empty()) return delete_pod(why, "Replacing");
  return {};
}

Status Pass::take_pod(std::string_view json) {
  auto pod = std::make_shared<kube::PodObject>();
  if (Status s = decoder().pod(json, pod.get()); !s) return s;
  m_.pod = pod_ = f_.pod = std::move(pod);
  m_.pod_at = monotonic();
  return Status::ok();
}

Problem Pass::create_pod() {
  kubernetes::PodExtras extras;
  extras.ca_fingerprint = f_.ca_fingerprint;
  extras.tokens_revision = tokens_revision_;
  extras.active_deadline_seconds = spec_->active_deadline_seconds;
  const Json object = kubernetes::render_pod(planned()->plan, owner_of(b_), s_.options.render, extras);
  const std::string what = "create pod " + b_.ns + "/" + b_.name;
  bool existed = false;
  const kube::Answer a = post(kube::kPods, b_.name, object.dump(-1, ' ', false, Json::error_handler_t::replace), "application/json", &existed);
  if (!a.ok()) return classify(a, what, b_.ns);
  auto pod = std::make_shared<kube::PodObject>();
  if (Status s = decoder().pod(a.body, pod.get()); !s) return transient(s.with_context(what));
  if (ours(*pod) != Ours::kYes) return not_ours(kube::kPods, *pod);
  const bool again = !existed && old_status_.is_object() && old_status_.contains("pod") && m_.deleted_pod.empty() &&
                     old_status_.value("observedGeneration", Json()) == b_.generation;
  m_.pod = pod_ = f_.pod = pod;
  m_.pod_at = monotonic();
  m_.deleted_pod.clear();
  f_.state = read_pod(pod_.get(), spec_.get(), now());
  if (existed) return {};
  say(Events::Type::kNormal, "PodCreated", "CreatePod",
      (again ? "pod " + b_.name + " was gone and is made again, with policy " : "made pod " + b_.name + " with policy ") + spec_->policy_hash);
  if (m_.launching) s_.meters.created(since(m_.first_seen));
  return {};
}

Problem Pass::delete_pod(const std::string& why, std::string_view event) {
  if (Problem p = remove(kube::kPods, pod_->name, pod_->uid); !p.none()) return p;
  m_.deleted_pod = pod_->uid;
  f_.replacing = why;
  say(Events::Type::kNormal, event, "DeletePod", why);
  auto going = std::make_shared<kube::PodObject>(*pod_);
  going->deleting = now();
  pod_ = f_.pod = going;
  f_.state = read_pod(pod_.get(), spec_.get(), now());
  // The cache tells when it is gone; this is for a node that never does.
  requeue(std::chrono::seconds(45));
  return {};
}

Problem Pass::patch_pod() {
  if (annotations_.empty()) return {};
  Json patch;
  patch["metadata"]["uid"] = pod_->uid;
  for (const auto& [name, value] : annotations_) annotate(patch, name, value);
  annotations_.clear();
  kube::Request request =
      request_of("PATCH", kube::object_path(kube::kPods, b_.ns, pod_->name, {}, {{"fieldManager", std::string(kube::kFieldManager)}}), kube::kMergePatch);
  std::string body = patch.dump();
  const kube::Answer a = send(std::move(request), &body);
  if (a.is("NotFound")) return {};  // gone: the cache will say so
  if (!a.ok()) return classify(a, "annotate pod " + b_.ns + "/" + pod_->name, b_.ns);
  (void)take_pod(a.body);  // else the cache brings it
  return {};
}

}  // namespace bottle::reconcile
