// What egress enforces, as egress itself says with the bottle's status key: Ready means that, and not that something was sent.
#include "controller/reconcile/pass.h"
#include "controller/reconcile/text.h"

namespace bottle::reconcile {
namespace {

using namespace std::chrono_literals;
constexpr std::chrono::milliseconds kFirst = 100ms, kMax = 5s, kMaxUnreachable = 30s;
// The kubelet takes 0.2-0.65 s to refresh a pod's files after an annotation changes (measured); one change that got lost is made again.
constexpr auto kBumpAgain = 2s, kBumpLater = 30s;
constexpr auto kTokensSettle = 8s;

}  // namespace

void Pass::ask_egress() {
  Enforcement& e = m_.egress;
  const kube::ContainerState* egress = pod_->container("egress");
  if (!egress || !f_.state.egress_ready || pod_->ip.empty()) return;
  const std::string revision(pod_->annotation(kubernetes::kTokensRevision));
  const std::string run = pod_->uid + "/" + std::to_string(egress->restarts) + "/" + std::to_string(egress->started_at) + "/";
  const std::string need = run + spec_->policy_hash + "/" + revision;
  const Moment at = monotonic();
  if (e.need != need) {
    const bool same_run = e.need.starts_with(run);
    const bool other_tokens = same_run && !e.need.ends_with("/" + revision);
    if (!same_run) e.answered = false;
    e.need = need;
    e.confirmed = false;
    e.backoff = 0ms;
    e.since = e.next = e.bumped = at;
    e.tokens_until = other_tokens ? at + kTokensSettle : at;
    // A running egress has not heard yet: the first question would be for nothing.
    if (same_run) e.backoff = kFirst, e.next = at + kFirst;
  }
  const auto again = [&](std::chrono::milliseconds most) {
    e.backoff = std::min(e.backoff.count() ? e.backoff * 2 : kFirst, most);
    e.next = at + e.backoff;
  };
  const bool settling = at < e.tokens_until;
  if ((!e.confirmed || settling) && at >= e.next) {
    Result<kubernetes::EgressStatus> answer(Code::kInternal, "not asked");
    auto key = status_key();
    if (key)
      answer = s_.world.ask_egress(pod_->ip, *key);
    else
      answer = key.status();
    if (answer) {
      e.failed = Status::ok();
      e.answered = true;
      e.answer = std::move(*answer);
      const bool enforced = e.answer.ready && e.answer.policy_hash == spec_->policy_hash;
      if (enforced && !e.confirmed) {
        e.confirmed = true;
        if (m_.push_started) s_.meters.pushed(since(*m_.push_started));
        if (m_.policy_changed) say(Events::Type::kNormal, "PolicyEnforced", "UpdatePolicy", "egress enforces " + spec_->policy_hash);
        m_.push_started.reset();
        m_.policy_changed = false;
      }
      again(kMax);
    } else {
      e.failed = answer.status();
      e.answered = false;
      // Who answers without the key: an agent on a free port, or our copy of the key is old.
      if (e.failed.code() == Code::kPermission) s_.status_keys.forget(b_.uid);
      again(e.backoff >= kMax ? kMaxUnreachable : kMax);
    }
  }
  if (e.answered) f_.enforced_hash = plain(e.answer.policy_hash, 128);
  if (e.confirmed) {
    f_.egress = Findings::Egress::kEnforced;
    report_missing_keys();
  } else if (!e.failed) {
    f_.egress = e.failed.code() == Code::kPermission ? Findings::Egress::kUntrusted : Findings::Egress::kUnreachable;
    f_.egress_said = plain(e.failed.message(), 300);
  } else if (e.answered) {
    f_.egress_said = plain(e.answer.error, 300);
    f_.egress = e.answer.policy_hash == spec_->policy_hash ? Findings::Egress::kNotReady : Findings::Egress::kOldPolicy;
    if (f_.egress == Findings::Egress::kOldPolicy && at - e.bumped >= (e.bumped == e.since ? kBumpAgain : kBumpLater)) {
      e.bumped = at;
      annotations_["refresh"] = std::to_string(now());
    }
  }
  if (!e.confirmed || settling) requeue(std::max(1ms, std::chrono::ceil<std::chrono::milliseconds>(e.next - at)));
}

}  // namespace bottle::reconcile
