#include "controller/reconcile/memory.h"

#include <algorithm>
#include <array>

namespace bottle::reconcile {

std::shared_ptr<Memory> Memories::of(const std::string& key, const std::string& uid, bool* fresh) {
  std::lock_guard lock(mutex_);
  auto& m = all_[key];
  *fresh = !m || m->uid != uid;
  if (*fresh) {
    m = std::make_shared<Memory>();
    m->uid = uid;
  }
  return m;
}

void Memories::forget(const std::string& key) {
  std::lock_guard lock(mutex_);
  all_.erase(key);
}

size_t Memories::size() const {
  std::lock_guard lock(mutex_);
  return all_.size();
}

SecretString StatusKeys::get(const std::string& uid) {
  std::lock_guard lock(mutex_);
  auto it = by_uid_.find(uid);
  if (it == by_uid_.end()) return {};
  order_.splice(order_.begin(), order_, it->second);
  return it->second->second.clone();
}

void StatusKeys::put(const std::string& uid, SecretString key) {
  std::lock_guard lock(mutex_);
  if (auto it = by_uid_.find(uid); it != by_uid_.end()) {
    order_.erase(it->second);
    by_uid_.erase(it);
  }
  order_.emplace_front(uid, std::move(key));
  by_uid_[uid] = order_.begin();
  if (order_.size() <= capacity_) return;
  by_uid_.erase(order_.back().first);
  order_.pop_back();
}

void StatusKeys::forget(const std::string& uid) {
  std::lock_guard lock(mutex_);
  auto it = by_uid_.find(uid);
  if (it == by_uid_.end()) return;
  order_.erase(it->second);
  by_uid_.erase(it);
}

namespace {
constexpr std::array<std::string_view, 6> kStates = {"ready", "starting", "blocked", "finished", "suspended", "invalid"};
}

struct Meters::Tally {
  struct Bottle {
    size_t state;
    int64_t ca_not_after;
  };
  std::mutex mutex;
  std::unordered_map<std::string, Bottle> bottles;
};

Meters::Meters(metrics::Registry* registry, std::function<int64_t()> now) : tally_(std::make_shared<Tally>()) {
  if (!registry) return;
  static const std::vector<double> kLaunch = {.005, .01, .025, .05, .1, .25, .5, .75, 1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10, 15, 30, 60, 120, 300};
  static const std::vector<double> kPush = {.05, .1, .2, .3, .4, .5, .6, .8, 1, 1.5, 2, 3, 5, 10, 30, 60};
  auto phase = [&](const char* name) {
    return &registry->histogram("bottle_time_to_ready_seconds", "From the first sight of a new bottle to each phase of its launch", kLaunch, {{"phase", name}});
  };
  planned_ = phase("planned");
  created_ = phase("created");
  scheduled_ = phase("scheduled");
  ready_ = phase("ready");
  pushed_ = &registry->histogram("bottle_policy_push_seconds", "From writing a changed policy to egress reporting that it enforces it", kPush);
  std::array<metrics::Gauge*, kStates.size()> gauges;
  for (size_t i = 0; i < kStates.size(); ++i)
    gauges[i] = &registry->gauge("bottle_bottles", "Bottles by state", {{"state", std::string(kStates[i])}});
  metrics::Gauge* expiry = &registry->gauge("bottle_ca_expiry_seconds", "Time until the first egress CA ends; 0 without bottles");
  // The registry may outlive us, so the callback owns what it reads.
  registry->on_expose([tally = std::weak_ptr<Tally>(tally_), gauges, expiry, now] {
    auto t = tally.lock();
    if (!t) return;
    std::array<double, kStates.size()> counts{};
    int64_t first = 0;
    {
      std::lock_guard lock(t->mutex);
      for (const auto& [key, b] : t->bottles) {
        ++counts[b.state];
        if (b.ca_not_after && (!first || b.ca_not_after < first)) first = b.ca_not_after;
      }
    }
    for (size_t i = 0; i < kStates.size(); ++i) gauges[i]->set(counts[i]);
    expiry->set(first ? static_cast<double>(first - now()) : 0);
  });
}

void Meters::planned(double s) { if (planned_) planned_->observe(s); }
void Meters::created(double s) { if (created_) created_->observe(s); }
void Meters::scheduled(double s) { if (scheduled_) scheduled_->observe(s); }
void Meters::ready(double s) { if (ready_) ready_->observe(s); }
void Meters::pushed(double s) { if (pushed_) pushed_->observe(s); }

void Meters::bottle(const std::string& key, std::string_view state, int64_t ca_not_after) {
  const size_t i = static_cast<size_t>(std::find(kStates.begin(), kStates.end(), state) - kStates.begin());
  std::lock_guard lock(tally_->mutex);
  auto& b = tally_->bottles[key];
  b.state = std::min(i, kStates.size() - 1);
  if (ca_not_after) b.ca_not_after = ca_not_after;
}

void Meters::forget(const std::string& key) {
  std::lock_guard lock(tally_->mutex);
  tally_->bottles.erase(key);
}

}  // namespace bottle::reconcile
