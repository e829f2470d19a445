#include "controller/reconcile/caches.h"

#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "backends/kubernetes/render.h"
#include "controller/kube/informer.h"
#include "controller/kube/resource.h"
#include "controller/reconcile/queue.h"

namespace bottle::reconcile {
namespace {

using kube::BottleObject;
using kube::EventKind;
using kube::Informer;
using kube::MetaObject;
using kube::NetworkPolicyObject;
using kube::ObjectMeta;
using kube::PodObject;

// Types that no bottle can refer to and that clusters have thousands of.
constexpr std::string_view kUserSecrets = "type!=kubernetes.io/service-account-token,type!=helm.sh/release.v1";

std::string key_of(std::string_view ns, std::string_view name) { return std::string(ns) + '/' + std::string(name); }

int priority_of(EventKind kind) { return kind == EventKind::kInitial || kind == EventKind::kResync ? kLowPriority : kUserPriority; }

// Which bottles use which Secrets: as the last pass over each bottle said.
class WantedSecrets {
 public:
  void set(const std::string& bottle_key, const std::string& ns, const std::vector<std::string>& names) {
    std::set<std::string> secrets;
    for (const auto& n : names) secrets.insert(key_of(ns, n));
    std::lock_guard<std::mutex> lock(mutex_);
    auto it = by_bottle_.find(bottle_key);
    if (it == by_bottle_.end() && secrets.empty()) return;
    if (it != by_bottle_.end()) {
      if (it->second == secrets) return;
      for (const auto& s : it->second) {
        auto b = by_secret_.find(s);
        b->second.erase(bottle_key);
        if (b->second.empty()) by_secret_.erase(b);
      }
      if (secrets.empty()) {
        by_bottle_.erase(it);
        return;
      }
    }
    for (const auto& s : secrets) by_secret_[s].insert(bottle_key);
    by_bottle_[bottle_key] = std::move(secrets);
  }
  std::vector<std::string> bottles(const std::string& secret_key) const {
    std::lock_guard<std::mutex> lock(mutex_);
    auto it = by_secret_.find(secret_key);
    return it == by_secret_.end() ? std::vector<std::string>() : std::vector<std::string>(it->second.begin(), it->second.end());
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::set<std::string>> by_bottle_, by_secret_;
};

class RealCaches : public Caches {
 public:
  RealCaches(kube::Client& client, CachesOptions options, Enqueue enqueue)
      : client_(client), options_(std::move(options)), enqueue_(std::move(enqueue)) {
    const std::string ours = std::string(kube::kManagedBy) + '=' + std::string(kube::kFieldManager);
    bottles_ = make<BottleObject>(kube::kBottles, "", "", false, &RealCaches::on_bottle);
    pods_ = make<PodObject>(kube::kPods, ours, "", false, &RealCaches::on_pod);
    config_maps_ = make<MetaObject>(kube::kConfigMaps, ours, "", true, &RealCaches::on_config_map);
    // Not by our label: the Secrets that routes refer to are the user's. One cache serves both.
    secrets_ = make<MetaObject>(kube::kSecrets, "", kUserSecrets, true, &RealCaches::on_secret);
    // Not by our label either: somebody else's policy may widen what a bottle's pod may reach.
    network_policies_ = make<NetworkPolicyObject>(kube::kNetworkPolicies, "", "", false, &RealCaches::on_network_policy);
  }
  ~RealCaches() override { stop(); }

  void start() override {
    bottles_->start();
    network_policies_->start();
    pods_->start();
    config_maps_->start();
    secrets_->start();
  }
  void stop() override {
    bottles_->stop();
    pods_->stop();
    config_maps_->stop();
    secrets_->stop();
    network_policies_->stop();
  }
  std::vector<std::string> not_synced() const override {
    std::vector<std::string> out;
    for (const auto& r : unsynced()) out.emplace_back(r.plural);
    return out;
  }
  bool wait_synced(std::chrono::milliseconds limit) override {
    const auto end = std::chrono::steady_clock::now() + limit;
    auto left = [&] {
      auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
      return std::max(ms, std::chrono::milliseconds(0));
    };
    return bottles_->wait_synced(left()) && pods_->wait_synced(left()) && config_maps_->wait_synced(left()) && secrets_->wait_synced(left()) &&
           network_policies_->wait_synced(left());
  }
  void resync() override { bottles_->resync(); }

  std::vector<Status> diagnose() override {
    std::vector<Status> out;
    const std::vector<std::string> everywhere{""};
    for (const auto& resource : unsynced()) {
      for (const auto& ns : options_.namespaces.empty() ? everywhere : options_.namespaces) {
        kube::Request request;
        request.path = kube::collection_path(resource, ns, {{"limit", "1"}});
        request.accept = kube::kMetadataListOnly;  // also of Bottles: nothing but the code is looked at
        request.timeout = std::chrono::seconds(10);
        auto answer = client_.call(request);
        if (answer.ok()) continue;
        const std::string plural(resource.plural), where = ns.empty() ? "in all namespaces" : "in namespace " + ns;
        auto status = answer.status("list " + plural + ' ' + where);
        std::string fix;
        if (answer.transport.is_ok() && answer.code == 404 && resource.plural == kube::kBottles.plural) {
          fix = "the CustomResourceDefinition bottles.bot-bottle.dev is not installed: apply crds/, or install with the Helm chart or manifests/";
        } else if (answer.transport.is_ok() && answer.code == 403) {
          fix = "the controller needs the verbs list and watch on " + plural + ' ' + where + ": apply the roles of the Helm chart or of manifests/" +
                (ns.empty() ? ", or watch single namespaces with --watch-namespace" : "");
        }
        out.emplace_back(status.code(), fix.empty() ? status.message() : status.message() + "; " + fix);
        break;  // the other namespaces most likely fail alike
      }
    }
    return out;
  }

  Snapshot snapshot(const std::string& ns, const std::string& name) override {
    Snapshot s;
    s.bottle = bottles_->get(ns, name);
    if (!s.bottle) wanted_.set(key_of(ns, name), ns, {});
    s.policy = config_maps_->get(ns, kubernetes::policy_name(name));
    s.egress_ca = secrets_->get(ns, kubernetes::egress_ca_name(name));
    s.network_policy = network_policies_->get(ns, kubernetes::network_policy_name(name));
    s.pod = pods_->get(ns, name);
    std::lock_guard<std::mutex> lock(mutex_);
    auto it = others_.find(ns);
    if (it == others_.end()) return s;
    for (const auto& [_, policy] : it->second) {
      if (!is_ours(*policy)) s.other_network_policies.push_back(policy);
    }
    return s;
  }

  std::map<std::string, std::string> secrets(const std::string& ns, const std::string& bottle, const std::vector<std::string>& names) override {
    // First say what is wanted, then look: a change in between is queued instead of missed.
    wanted_.set(key_of(ns, bottle), ns, names);
    std::map<std::string, std::string> out;
    for (const auto& n : names) {
      if (auto secret = secrets_->get(ns, n)) out[n] = secret->resource_version;
    }
    return out;
  }

 private:
  template <class T>
  std::unique_ptr<Informer<T>> make(const kube::Resource& resource, std::string label, std::string_view field, bool metadata_only,
                                    void (RealCaches::*handler)(EventKind, const std::shared_ptr<const T>&, const std::shared_ptr<const T>&)) {
    kube::InformerOptions o;
    o.resource = resource;
    o.namespaces = options_.namespaces;
    o.label_selector = std::move(label);
    o.field_selector = std::string(field);
    o.metadata_only = metadata_only;
    o.metrics = options_.metrics;
    o.backoff_first = options_.backoff_first;
    o.backoff_max = options_.backoff_max;
    return Informer<T>::create(client_, std::move(o), [this, handler](EventKind kind, const auto& old, const auto& now) { (this->*handler)(kind, old, now); });
  }

  std::vector<kube::Resource> unsynced() const {
    std::vector<kube::Resource> out;
    if (!bottles_->synced()) out.push_back(kube::kBottles);
    if (!pods_->synced()) out.push_back(kube::kPods);
    if (!config_maps_->synced()) out.push_back(kube::kConfigMaps);
    if (!secrets_->synced()) out.push_back(kube::kSecrets);
    if (!network_policies_->synced()) out.push_back(kube::kNetworkPolicies);
    return out;
  }

  // A status that we wrote comes back as an event and needs no pass. One that somebody removed does, and so do annotations of ours, with
  // which people nudge controllers.
  void on_bottle(EventKind kind, const std::shared_ptr<const BottleObject>& old, const std::shared_ptr<const BottleObject>& now) {
    const BottleObject& b = now ? *now : *old;
    if (now) forget_other(b.ns, kubernetes::network_policy_name(b.name));
    const bool same = old && now && old->uid == now->uid && old->generation == now->generation && old->deleting == now->deleting &&
                      old->annotations == now->annotations && (old->status_json.empty() || !now->status_json.empty());
    if (kind == EventKind::kModified && same) return;
    enqueue_(key_of(b.ns, b.name), priority_of(kind));
  }

  // The bottle that owns the object, before or after the change, and the one that would like to have its name: when a stranger's object
  // goes away, the bottle that was refused the name goes on.
  void on_child(EventKind kind, const ObjectMeta* old, const ObjectMeta* now, std::string_view suffix) {
    std::string first;
    for (const ObjectMeta* o : {now, old}) {
      if (!o || o->owner_name.empty() || o->owner_name == first) continue;
      enqueue_(key_of(o->ns, o->owner_name), priority_of(kind));
      first = o->owner_name;
    }
    const ObjectMeta& o = now ? *now : *old;
    if (o.name.size() <= suffix.size() || o.name.compare(o.name.size() - suffix.size(), suffix.size(), suffix) != 0) return;
    std::string namesake = o.name.substr(0, o.name.size() - suffix.size());
    if (namesake != first && bottles_->get(o.ns, namesake)) enqueue_(key_of(o.ns, namesake), priority_of(kind));
  }

  void on_pod(EventKind kind, const std::shared_ptr<const PodObject>& old, const std::shared_ptr<const PodObject>& now) {
    on_child(kind, old.get(), now.get(), "");
  }
  void on_config_map(EventKind kind, const std::shared_ptr<const MetaObject>& old, const std::shared_ptr<const MetaObject>& now) {
    on_child(kind, old.get(), now.get(), kubernetes::policy_name(""));
  }
  void on_secret(EventKind kind, const std::shared_ptr<const MetaObject>& old, const std::shared_ptr<const MetaObject>& now) {
    on_child(kind, old.get(), now.get(), kubernetes::egress_ca_name(""));
    if (old && now && old->resource_version == now->resource_version) return;
    const MetaObject& secret = now ? *now : *old;
    for (const auto& key : wanted_.bottles(key_of(secret.ns, secret.name))) enqueue_(key, priority_of(kind));
  }

  // A label and an ownerReference can be written by anybody who may make NetworkPolicies, so "ours" takes the one name that a bottle's own
  // policy has, and the UID of the bottle that is there.
  static bool claims_to_be_ours(const NetworkPolicyObject& p) {
    return p.managed && !p.owner_name.empty() && p.name == kubernetes::network_policy_name(p.owner_name);
  }
  bool is_ours(const NetworkPolicyObject& p) const {
    if (!claims_to_be_ours(p)) return false;
    auto bottle = bottles_->get(p.ns, p.owner_name);
    return bottle && bottle->uid == p.owner_uid;
  }

  void on_network_policy(EventKind kind, const std::shared_ptr<const NetworkPolicyObject>& old, const std::shared_ptr<const NetworkPolicyObject>& now) {
    const NetworkPolicyObject& p = now ? *now : *old;
    on_child(kind, old.get(), now.get(), kubernetes::network_policy_name(""));
    {
      // Strangers' policies by namespace: a bottle's pass must not walk over the policies of all other bottles.
      const bool other = now && !is_ours(*now);
      std::lock_guard<std::mutex> lock(mutex_);
      if (other) {
        others_[p.ns][p.name] = now;
      } else if (auto it = others_.find(p.ns); it != others_.end()) {
        it->second.erase(p.name);
        if (it->second.empty()) others_.erase(it);
      }
    }
    auto matters = [](const std::shared_ptr<const NetworkPolicyObject>& o) { return o && o->affects_egress && !claims_to_be_ours(*o); };
    if (kind == EventKind::kInitial || kind == EventKind::kResync || !(matters(old) || matters(now))) return;
    for (const auto& pod : pods_->in_namespace(p.ns)) {
      if (!pod->owner_name.empty()) enqueue_(key_of(pod->ns, pod->owner_name), kLowPriority);
    }
  }

  // A policy may be seen before the bottle it belongs to, and waits among the strangers' until then.
  void forget_other(const std::string& ns, const std::string& name) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto it = others_.find(ns);
    if (it == others_.end()) return;
    auto policy = it->second.find(name);
    if (policy != it->second.end() && is_ours(*policy->second)) it->second.erase(policy);
    if (it->second.empty()) others_.erase(it);
  }

  kube::Client& client_;
  const CachesOptions options_;
  const Enqueue enqueue_;
  WantedSecrets wanted_;
  std::mutex mutex_;
  std::map<std::string, std::map<std::string, std::shared_ptr<const NetworkPolicyObject>>> others_;  // namespace, name
  std::unique_ptr<Informer<BottleObject>> bottles_;
  std::unique_ptr<Informer<PodObject>> pods_;
  std::unique_ptr<Informer<MetaObject>> config_maps_, secrets_;
  std::unique_ptr<Informer<NetworkPolicyObject>> network_policies_;
};

}  // namespace

std::unique_ptr<Caches> Caches::create(kube::Client& client, CachesOptions options, Enqueue enqueue) {
  return std::make_unique<RealCaches>(client, std::move(options), std::move(enqueue));
}

}  // namespace bottle::reconcile
