#include "controller/reconcile/queue.h"

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <tuple>
#include <unordered_map>

namespace bottle::reconcile {
namespace {

using Time = std::chrono::steady_clock::time_point;
using std::chrono::milliseconds;

constexpr milliseconds kBackoffFirst{5};             // client-go: default_rate_limiters.go
constexpr milliseconds kBackoffMax{5 * 60 * 1000};   // client-go has 1000 s; a bottle that was put right should not wait so long
double seconds(Time::duration d) { return std::chrono::duration<double>(d).count(); }

struct Entry {
  int priority;
  Time ready_at;
  uint64_t order;    // of arrival: breaks ties
  bool ready = false;
};

// What the metrics need outlives the queue, for the registry calls back as long as it lives itself.
struct State {
  std::mutex mutex;
  std::condition_variable changed;
  Queue::Clock clock;
  bool real_clock = true;
  bool shut_down = false;
  uint64_t arrivals = 0;
  std::unordered_map<std::string, Entry> entries;
  std::set<std::tuple<int, Time, uint64_t, std::string>> ready;   // by -priority, then time
  std::set<std::tuple<Time, uint64_t, std::string>> waiting;
  std::unordered_map<std::string, Time> working;                  // handed out, since when
  std::unordered_map<std::string, int> failures;

  metrics::Registry* registry = nullptr;
  std::string name;
  std::map<int, metrics::Gauge*> depth;
  metrics::Counter* adds = nullptr;
  metrics::Counter* retries = nullptr;
  metrics::Histogram* queue_duration = nullptr;
  metrics::Histogram* work_duration = nullptr;

  void count_depth(int priority, int change) {
    if (!registry) return;
    metrics::Gauge*& gauge = depth[priority];
    if (!gauge) {
      gauge = &registry->gauge("workqueue_depth", "Current depth of workqueue by workqueue and priority",
                               {{"name", name}, {"controller", name}, {"priority", std::to_string(priority)}});
    }
    gauge->add(change);
  }

  // A key that is being worked on stays out of both orders until done().
  void enter(const std::string& key, Entry& e, Time now) {
    if (working.count(key)) return;
    if (e.ready_at <= now) {
      e.ready = true;
      ready.emplace(-e.priority, e.ready_at, e.order, key);
      count_depth(e.priority, 1);
    } else {
      waiting.emplace(e.ready_at, e.order, key);
    }
  }
  void leave(const std::string& key, Entry& e) {
    if (e.ready) {
      ready.erase({-e.priority, e.ready_at, e.order, key});
      count_depth(e.priority, -1);
      e.ready = false;
    } else {
      waiting.erase({e.ready_at, e.order, key});
    }
  }
  void promote(Time now) {
    while (!waiting.empty() && std::get<0>(*waiting.begin()) <= now) {
      const std::string key = std::get<2>(*waiting.begin());
      waiting.erase(waiting.begin());
      enter(key, entries.at(key), now);
    }
  }

  void put(const std::string& key, milliseconds delay, int priority) {
    if (shut_down) return;
    const Time now = clock();
    const Time at = now + std::max(delay, milliseconds(0));
    auto [it, is_new] = entries.try_emplace(key, Entry{priority, at, arrivals, false});
    if (is_new) {
      ++arrivals;
      if (adds) adds->add();
    } else {
      Entry& e = it->second;
      if (priority <= e.priority && at >= e.ready_at) return;
      leave(key, e);
      e.priority = std::max(e.priority, priority);
      e.ready_at = std::min(e.ready_at, at);
    }
    enter(key, it->second, now);
    changed.notify_one();
  }

  void make_metrics(const std::shared_ptr<State>& self) {
    const metrics::Labels labels{{"name", name}, {"controller", name}};
    adds = &registry->counter("workqueue_adds_total", "Total number of adds handled by workqueue", labels);
    retries = &registry->counter("workqueue_retries_total", "Total number of retries handled by workqueue", labels);
    queue_duration = &registry->histogram("workqueue_queue_duration_seconds", "How long in seconds an item stays in workqueue before being requested",
                                          metrics::queue_buckets(), labels);
    work_duration = &registry->histogram("workqueue_work_duration_seconds", "How long in seconds processing an item from workqueue takes",
                                         metrics::queue_buckets(), labels);
    auto* unfinished = &registry->gauge("workqueue_unfinished_work_seconds",
                                        "How many seconds of work has been done that is in progress and hasn't been observed by work_duration", labels);
    auto* longest = &registry->gauge("workqueue_longest_running_processor_seconds",
                                     "How many seconds has the longest running processor for workqueue been running", labels);
    registry->on_expose([weak = std::weak_ptr<State>(self), unfinished, longest] {
      double sum = 0, most = 0;
      if (auto state = weak.lock()) {
        std::lock_guard lock(state->mutex);
        const Time now = state->clock();
        state->promote(now);
        for (const auto& [key, since] : state->working) {
          const double s = seconds(now - since);
          sum += s;
          most = std::max(most, s);
        }
      }
      unfinished->set(sum);
      longest->set(most);
    });
  }
};

class QueueImpl final : public Queue {
 public:
  explicit QueueImpl(std::shared_ptr<State> state) : s_(std::move(state)) {}
  ~QueueImpl() override { shut_down(); }

  void add(const std::string& key, int priority) override { add_after(key, milliseconds(0), priority); }
  void add_after(const std::string& key, milliseconds delay, int priority) override {
    std::lock_guard lock(s_->mutex);
    s_->put(key, delay, priority);
  }
  void add_rate_limited(const std::string& key, int priority) override {
    std::lock_guard lock(s_->mutex);
    int& n = s_->failures[key];
    milliseconds delay = kBackoffFirst;
    for (int i = 0; i < n && delay < kBackoffMax; ++i) delay *= 2;
    ++n;
    if (s_->retries) s_->retries->add();
    s_->put(key, std::min(delay, kBackoffMax), priority);
  }
  void forget(const std::string& key) override {
    std::lock_guard lock(s_->mutex);
    s_->failures.erase(key);
  }
  int failures(const std::string& key) const override {
    std::lock_guard lock(s_->mutex);
    auto it = s_->failures.find(key);
    return it == s_->failures.end() ? 0 : it->second;
  }

  std::optional<QueueItem> get() override {
    std::unique_lock lock(s_->mutex);
    for (;;) {
      if (s_->shut_down) return std::nullopt;
      const Time now = s_->clock();
      s_->promote(now);
      if (!s_->ready.empty()) {
        const auto [minus_priority, ready_at, order, key] = *s_->ready.begin();
        s_->leave(key, s_->entries.at(key));
        s_->entries.erase(key);
        s_->working.emplace(key, now);
        if (s_->queue_duration) s_->queue_duration->observe(seconds(now - ready_at));
        // A notification may have been for two entries at once, or for one that this getter was not waiting for.
        if (!s_->ready.empty() || !s_->waiting.empty()) s_->changed.notify_one();
        return QueueItem{key, -minus_priority};
      }
      if (s_->waiting.empty() || !s_->real_clock) {
        s_->changed.wait(lock);
      } else {
        // A copy: the entry can be gone when the wait compares with it once more.
        const Time first = std::get<0>(*s_->waiting.begin());
        s_->changed.wait_until(lock, first);
      }
    }
  }

  void done(const std::string& key) override {
    std::lock_guard lock(s_->mutex);
    auto it = s_->working.find(key);
    if (it == s_->working.end()) return;
    const Time now = s_->clock();
    if (s_->work_duration) s_->work_duration->observe(seconds(now - it->second));
    s_->working.erase(it);
    auto again = s_->entries.find(key);
    if (again == s_->entries.end()) return;
    s_->enter(key, again->second, now);
    s_->changed.notify_one();
  }

  void shut_down() override {
    std::lock_guard lock(s_->mutex);
    s_->shut_down = true;
    s_->changed.notify_all();
  }
  void wake() override {
    std::lock_guard lock(s_->mutex);
    s_->changed.notify_all();
  }
  size_t depth() const override {
    std::lock_guard lock(s_->mutex);
    s_->promote(s_->clock());
    return s_->ready.size();
  }

 private:
  std::shared_ptr<State> s_;
};

}  // namespace

std::unique_ptr<Queue> Queue::create(std::string name, metrics::Registry* metrics, Clock clock) {
  auto state = std::make_shared<State>();
  state->real_clock = !clock;
  state->clock = clock ? std::move(clock) : Clock(&std::chrono::steady_clock::now);
  state->name = std::move(name);
  state->registry = metrics;
  if (metrics) state->make_metrics(state);
  return std::make_unique<QueueImpl>(std::move(state));
}

}  // namespace bottle::reconcile
