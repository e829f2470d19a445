#include "controller/reconcile/reconciler.h"

#include <algorithm>

#include "base/log.h"
#include "controller/reconcile/pass.h"
#include "controller/reconcile/text.h"

namespace bottle::reconcile {
namespace {

using Life = PodState::Life;

constexpr size_t kSpecs = 4096;        // of about 1 kB
constexpr size_t kStatusKeys = 16384;  // of about 200 bytes
constexpr std::chrono::milliseconds kAskTimeout{1500};  // egress is one hop away; a worker waits for it

nlohmann::json parse_status(const std::string& text) {
  if (text.empty()) return nullptr;
  auto j = nlohmann::json::parse(text, nullptr, false);
  return j.is_object() ? j : nlohmann::json();
}

}  // namespace

Shared::Shared(kube::Client& c, View& v, ReconcilerOptions o, Surroundings w)
    : client(c),
      view(v),
      options(std::move(o)),
      world(std::move(w)),
      meters(options.metrics, world.now),
      specs(kSpecs),
      status_keys(kStatusKeys),
      keys(options.rsa_keys_ahead),
      events(client, options.identity, world.now, options.metrics) {}

Pass::Pass(Shared& shared, Snapshot snapshot, std::shared_ptr<Memory> memory, bool fresh)
    : s_(shared),
      snap_(std::move(snapshot)),
      memory_(std::move(memory)),
      m_(*memory_),
      fresh_(fresh),
      b_(*snap_.bottle),
      key_(b_.ns + "/" + b_.name) {}

void Pass::say(Events::Type type, std::string_view reason, std::string_view action, const std::string& note) {
  s_.events.record(b_, type, reason, action, note);
  log::info("event", {{"reason", reason}, {"note", plain(note, 300)}});
}

void Pass::requeue(std::chrono::milliseconds after) {
  if (after.count() > 0 && (out_.requeue_after.count() == 0 || after < out_.requeue_after)) out_.requeue_after = after;
}

bool Pass::settle(const Problem& p) {
  if (p.none()) return true;
  f_.problem = p;
  if (p.status)
    requeue(p.retry());
  else if (out_.status)
    out_.status = p.status;
  return false;
}

void Pass::load_spec() {
  spec_ = s_.specs.get(b_.uid, b_.generation);
  if (spec_) return;
  auto made = plan_bottle(b_, s_.options.plan);
  auto spec = std::make_shared<Spec>();
  if (made) {
    *spec = summarize(*made, owner_of(b_), s_.options.render);
    planned_ = std::move(*made);
  } else {
    spec->status = Status(made.status().code(), plain(made.status().message(), 3000));
  }
  spec_ = std::move(spec);
  s_.specs.put(b_.uid, b_.generation, spec_);
}

const Planned* Pass::planned() {
  if (!planned_)
    if (auto made = plan_bottle(b_, s_.options.plan); made) planned_ = std::move(*made);
  return planned_ ? &*planned_ : nullptr;
}

// In the order in which a pod needs things; a crash after any of them leaves what the next pass finds and continues with.
void Pass::converge() {
  if (f_.state.life == Life::kFinished && pod_ && !pod_->deleting) {
    // A finished agent is only replaced by another wish.
    const std::string ca_kept(pod_->annotation(kubernetes::kCaFingerprint));
    f_.ca_fingerprint = ca_kept;
    const std::string why = replace_reason();
    if (why.empty()) return;
  }
  if (!pod_ && finished_before()) {
    f_.finished_before = true;
    return;
  }
  look_at_tokens();
  if (!settle(ensure_policy()) || !settle(ensure_egress_ca()) || !settle(ensure_network_policy()) || !settle(ensure_pod())) return;
  if (!pod_ || pod_->deleting || f_.state.life == Life::kFinished) return;
  push_policy();
  if (pod_->annotation(kubernetes::kTokensRevision) != tokens_revision_) {
    annotations_[std::string(kubernetes::kTokensRevision)] = tokens_revision_;
    say(Events::Type::kNormal, "TokenChanged", "RefreshTokens", "a Secret of the bottle has changed: egress reads it again");
  }
  if (f_.state.guard_done && f_.state.life != Life::kLost) update_guard();
  if (!settle(patch_pod())) return;
  ask_egress();
  settle(patch_pod());
}

Outcome Pass::run() {
  // Our last status, until the cache has it.
  if (!m_.status_rv.empty() && !not_older(b_.resource_version, m_.status_rv)) {
    old_status_ = parse_status(m_.status_json);
  } else {
    m_.status_rv.clear();
    m_.status_json.clear();
    old_status_ = parse_status(b_.status_json);
  }
  f_.bottle = snap_.bottle;
  find_pod();
  if (fresh_) {
    m_.first_seen = monotonic();
    m_.launching = !old_status_.is_object() && !pod_;
  }
  load_spec();
  f_.spec = spec_;
  if (!spec_->status) {
    // The last good policy and pod stay as they are.
    if (pod_ && ours(*pod_) == Ours::kNo) pod_ = f_.pod = nullptr;
    f_.state = read_pod(pod_.get(), nullptr, now());
    if (snap_.egress_ca && ours(*snap_.egress_ca) == Ours::kYes) {
      f_.ca_fingerprint = snap_.egress_ca->annotation(kubernetes::kCaFingerprint);
      f_.ca_not_after = snap_.egress_ca->annotation(kubernetes::kCaNotAfter);
    }
    if (pod_ && old_status_.is_object() && old_status_.contains("policyHash") && old_status_["policyHash"].is_string())
      f_.enforced_hash = old_status_["policyHash"];
    write_status();
    out_.terminal = static_cast<bool>(out_.status);
    return out_;
  }
  if (fresh_ && m_.launching) s_.meters.planned(since(m_.first_seen));
  if (pod_ && pod_->owner_uid != b_.uid) {
    // Somebody else's, or a former bottle's: neither is touched, and no other pod can be made under this name.
    settle(not_ours(kube::kPods, *pod_));
    pod_ = f_.pod = nullptr;
  } else {
    f_.state = read_pod(pod_.get(), spec_.get(), now());
    if (!suspend()) converge();
  }
  if (f_.problem.kind == Problem::Kind::kNamespaceEnding) return out_;
  if (f_.ca_fingerprint.empty() && snap_.egress_ca && ours(*snap_.egress_ca) == Ours::kYes)
    f_.ca_fingerprint = snap_.egress_ca->annotation(kubernetes::kCaFingerprint);
  if (f_.ca_not_after.empty() && snap_.egress_ca && ours(*snap_.egress_ca) == Ours::kYes)
    f_.ca_not_after = snap_.egress_ca->annotation(kubernetes::kCaNotAfter);
  look_at_network_policies();
  write_status();
  expire();
  return out_;
}

namespace {

class RealReconciler : public Reconciler {
 public:
  RealReconciler(kube::Client& client, View& view, ReconcilerOptions options, Surroundings surroundings)
      : shared_(client, view, std::move(options), std::move(surroundings)) {}

  Outcome reconcile(const std::string& ns, const std::string& name) override {
    const std::string key = ns + "/" + name;
    log::Scope scope("bottle", key);
    Snapshot snap = shared_.view.snapshot(ns, name);
    if (!snap.bottle || snap.bottle->deleting) {
      // The garbage collector takes the children by their ownerReferences; what we know of the bottle goes here.
      if (!snap.bottle) shared_.view.secrets(ns, name, {});
      shared_.memories.forget(key);
      shared_.meters.forget(key);
      return {};
    }
    bool fresh = false;
    auto memory = shared_.memories.of(key, snap.bottle->uid, &fresh);
    return Pass(shared_, std::move(snap), std::move(memory), fresh).run();
  }

  void flush(std::chrono::milliseconds limit) override { shared_.events.flush(limit); }

 private:
  Shared shared_;
};

}  // namespace

Surroundings real_surroundings() {
  Surroundings s;
  s.now = [] { return static_cast<int64_t>(std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count()); };
  s.monotonic = [] { return std::chrono::steady_clock::now(); };
  s.ask_egress = [](const std::string& ip, const SecretString& key) { return kubernetes::ask_egress(ip, kEgressHealthPort, key, kAskTimeout); };
  return s;
}

std::unique_ptr<Reconciler> Reconciler::create(kube::Client& client, View& view, ReconcilerOptions options, Surroundings surroundings) {
  return std::make_unique<RealReconciler>(client, view, std::move(options), std::move(surroundings));
}

}  // namespace bottle::reconcile
