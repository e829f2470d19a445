#include "controller/reconcile/queue.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace bottle::reconcile {
namespace {

using std::chrono::milliseconds;
using Time = std::chrono::steady_clock::time_point;

// A clock that stands still until it is moved.
class FakeClock {
 public:
  Queue::Clock clock() {
    return [this] { return Time(milliseconds(ms_.load())); };
  }
  void advance(milliseconds by) { ms_ += by.count(); }

 private:
  std::atomic<int64_t> ms_{1'000'000};
};

class QueueTest : public ::testing::Test {
 protected:
  void advance(milliseconds by) {
    clock_.advance(by);
    queue_->wake();
  }
  // Never blocks: an empty key when nothing is ready.
  std::string take() {
    if (queue_->depth() == 0) return "";
    return queue_->get()->key;
  }
  FakeClock clock_;
  metrics::Registry registry_;
  std::unique_ptr<Queue> queue_ = Queue::create("bottle", &registry_, clock_.clock());
  metrics::Labels labels_{{"name", "bottle"}, {"controller", "bottle"}};
};

TEST_F(QueueTest, HandsOutInOrderAndMergesWhatIsAlreadyThere) {
  queue_->add("dev/a");
  queue_->add("dev/b");
  queue_->add("dev/a");
  EXPECT_EQ(queue_->depth(), 2u);
  EXPECT_EQ(take(), "dev/a");
  EXPECT_EQ(take(), "dev/b");
  EXPECT_EQ(take(), "");
}

TEST_F(QueueTest, HigherPriorityComesFirstAndAMergeKeepsTheHigher) {
  queue_->add("dev/resync", kLowPriority);
  queue_->add("dev/other", kLowPriority);
  queue_->add("dev/user", kUserPriority);
  queue_->add("dev/other", kUserPriority);
  queue_->add("dev/user", kLowPriority);
  EXPECT_EQ(take(), "dev/other");  // it came before dev/user and is now as urgent
  EXPECT_EQ(queue_->get()->priority, kUserPriority);
  auto last = queue_->get();
  EXPECT_EQ(last->key, "dev/resync");
  EXPECT_EQ(last->priority, kLowPriority);
}

TEST_F(QueueTest, AKeyIsWithOneWorkerAtATimeAndComesOnceMore) {
  queue_->add("dev/a");
  EXPECT_EQ(take(), "dev/a");
  queue_->add("dev/a");
  queue_->add("dev/a");
  EXPECT_EQ(queue_->depth(), 0u);
  queue_->done("dev/a");
  EXPECT_EQ(take(), "dev/a");
  queue_->done("dev/a");
  EXPECT_EQ(queue_->depth(), 0u);
}

TEST_F(QueueTest, DelaysUntilTheTimeAndAnEarlierAddWins) {
  queue_->add_after("dev/a", milliseconds(1000));
  EXPECT_EQ(queue_->depth(), 0u);
  advance(milliseconds(999));
  EXPECT_EQ(queue_->depth(), 0u);
  advance(milliseconds(1));
  EXPECT_EQ(take(), "dev/a");
  queue_->done("dev/a");

  queue_->add_after("dev/a", milliseconds(1000));
  queue_->add_after("dev/a", milliseconds(5000));
  queue_->add_after("dev/a", milliseconds(10));
  advance(milliseconds(10));
  EXPECT_EQ(take(), "dev/a");
  queue_->done("dev/a");
  advance(milliseconds(10'000));
  EXPECT_EQ(queue_->depth(), 0u) << "the later times were merged into the first";
}

TEST_F(QueueTest, AddedWithADelayWhileBeingWorkedOnItComesWhenTheDelayIsOver) {
  queue_->add("dev/a");
  EXPECT_EQ(take(), "dev/a");
  queue_->add_after("dev/a", milliseconds(100));
  queue_->done("dev/a");
  EXPECT_EQ(queue_->depth(), 0u);
  advance(milliseconds(100));
  EXPECT_EQ(take(), "dev/a");
}

TEST_F(QueueTest, FailuresBackOffExponentiallyUpToFiveMinutes) {
  milliseconds want{5};
  for (int i = 0; i < 30; ++i) {
    queue_->add_rate_limited("dev/a");
    EXPECT_EQ(queue_->failures("dev/a"), i + 1);
    advance(want - milliseconds(1));
    ASSERT_EQ(queue_->depth(), 0u) << i;
    advance(milliseconds(1));
    ASSERT_EQ(take(), "dev/a") << i;
    queue_->done("dev/a");
    want = std::min(want * 2, milliseconds(300'000));
  }
  queue_->forget("dev/a");
  EXPECT_EQ(queue_->failures("dev/a"), 0);
  queue_->add_rate_limited("dev/a");
  advance(milliseconds(5));
  EXPECT_EQ(take(), "dev/a");
}

TEST_F(QueueTest, AWaitingGetterSeesTheMovedClock) {
  queue_->add_after("dev/a", milliseconds(60'000));
  std::thread worker([this] { EXPECT_EQ(queue_->get()->key, "dev/a"); });
  advance(milliseconds(60'000));
  worker.join();
}

TEST_F(QueueTest, ShutDownReleasesEveryGetterAndRefusesMore) {
  std::vector<std::thread> workers;
  for (int i = 0; i < 4; ++i) workers.emplace_back([this] { EXPECT_FALSE(queue_->get().has_value()); });
  queue_->shut_down();
  for (auto& t : workers) t.join();
  queue_->add("dev/a");
  EXPECT_EQ(queue_->depth(), 0u);
  EXPECT_FALSE(queue_->get().has_value());
}

TEST_F(QueueTest, CountsWhatDashboardsAskFor) {
  queue_->add("dev/a");
  queue_->add("dev/b", kLowPriority);
  queue_->add("dev/a");
  metrics::Labels user = labels_, low = labels_;
  user.emplace_back("priority", "0");
  low.emplace_back("priority", "-100");
  EXPECT_EQ(registry_.counter("workqueue_adds_total", "", labels_).value(), 2);
  EXPECT_EQ(registry_.gauge("workqueue_depth", "", user).value(), 1);
  EXPECT_EQ(registry_.gauge("workqueue_depth", "", low).value(), 1);
  advance(milliseconds(2000));
  EXPECT_EQ(take(), "dev/a");
  EXPECT_EQ(registry_.gauge("workqueue_depth", "", user).value(), 0);
  EXPECT_EQ(registry_.histogram("workqueue_queue_duration_seconds", "", {}, labels_).sum(), 2);
  advance(milliseconds(3000));
  EXPECT_EQ(take(), "dev/b");
  advance(milliseconds(1000));
  registry_.expose();
  EXPECT_EQ(registry_.gauge("workqueue_unfinished_work_seconds", "", labels_).value(), 5);
  EXPECT_EQ(registry_.gauge("workqueue_longest_running_processor_seconds", "", labels_).value(), 4);
  queue_->done("dev/a");
  queue_->done("dev/b");
  EXPECT_EQ(registry_.histogram("workqueue_work_duration_seconds", "", {}, labels_).sum(), 5);
  queue_->add_rate_limited("dev/a");
  EXPECT_EQ(registry_.counter("workqueue_retries_total", "", labels_).value(), 1);
  queue_.reset();
  registry_.expose();  // the queue is gone, its series stay
  EXPECT_EQ(registry_.gauge("workqueue_unfinished_work_seconds", "", labels_).value(), 0);
}

TEST(Queue, OnTheRealClockADelayEndsByItself) {
  auto queue = Queue::create("bottle");
  queue->add_after("dev/a", milliseconds(20));
  const Time before = std::chrono::steady_clock::now();
  EXPECT_EQ(queue->get()->key, "dev/a");
  EXPECT_GE(std::chrono::steady_clock::now() - before, milliseconds(20));
}

TEST(Queue, ManyWorkersNeverHoldTheSameKeyAndNothingIsLost) {
  auto queue = Queue::create("bottle");
  constexpr int kKeys = 16, kAdds = 4000;
  std::array<std::atomic<int>, kKeys> holders{};
  std::array<std::atomic<int>, kKeys> wanted{}, seen{};  // `seen` is what a worker read when it began: nothing newer may stay unseen
  std::vector<std::thread> workers;
  for (int w = 0; w < 4; ++w) {
    workers.emplace_back([&] {
      while (auto item = queue->get()) {
        const size_t k = std::stoul(item->key);
        EXPECT_EQ(holders[k].fetch_add(1), 0) << "two workers hold " << item->key;
        seen[k] = wanted[k].load();
        holders[k].fetch_sub(1);
        queue->done(item->key);
      }
    });
  }
  std::vector<std::thread> adders;
  for (int a = 0; a < 2; ++a) {
    adders.emplace_back([&, a] {
      for (int i = 0; i < kAdds; ++i) {
        const size_t k = static_cast<size_t>((i * 7 + a) % kKeys);
        ++wanted[k];
        if (i % 5 == 0) queue->add_after(std::to_string(k), milliseconds(1)); else queue->add(std::to_string(k), i % 2 ? kLowPriority : kUserPriority);
      }
    });
  }
  for (auto& t : adders) t.join();
  const Time limit = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  auto all_seen = [&] {
    for (size_t k = 0; k < kKeys; ++k) if (seen[k] != wanted[k]) return false;
    return true;
  };
  while (!all_seen() && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
  EXPECT_TRUE(all_seen());
  queue->shut_down();
  for (auto& t : workers) t.join();
}

// The queue said again, without any cleverness.
struct NaiveQueue {
  struct Entry { int priority; int64_t at; int order; };
  std::map<std::string, Entry> entries;
  std::set<std::string> working;
  int64_t now = 0;
  int order = 0;

  void add(const std::string& key, int64_t delay, int priority) {
    auto it = entries.find(key);
    if (it == entries.end()) {
      entries[key] = {priority, now + delay, order++};
    } else {
      it->second.priority = std::max(it->second.priority, priority);
      it->second.at = std::min(it->second.at, now + delay);
    }
  }
  std::vector<std::string> ready() const {
    std::vector<std::string> keys;
    for (const auto& [key, e] : entries) if (e.at <= now && !working.count(key)) keys.push_back(key);
    std::sort(keys.begin(), keys.end(), [this](const auto& a, const auto& b) {
      const Entry &x = entries.at(a), &y = entries.at(b);
      return std::tuple(-x.priority, x.at, x.order) < std::tuple(-y.priority, y.at, y.order);
    });
    return keys;
  }
};

TEST(Queue, BehavesAsTheNaiveOneForEverySequenceOfCalls) {
  const bool held = rc::check([] {
    FakeClock clock;
    auto queue = Queue::create("bottle", nullptr, clock.clock());
    NaiveQueue naive;
    std::map<std::string, int> failures;
    const int steps = *rc::gen::inRange(0, 200);
    for (int i = 0; i < steps; ++i) {
      const std::string key(1, static_cast<char>('a' + *rc::gen::inRange(0, 5)));
      const int priority = *rc::gen::element(kUserPriority, kLowPriority, 10);
      switch (*rc::gen::inRange(0, 8)) {
        case 0: case 1: queue->add(key, priority); naive.add(key, 0, priority); break;
        case 2: {
          const int delay = *rc::gen::inRange(-1, 20);
          queue->add_after(key, milliseconds(delay), priority);
          naive.add(key, std::max(delay, 0), priority);
          break;
        }
        case 3: {
          const int64_t delay = std::min<int64_t>(int64_t{5} << std::min(failures[key]++, 30), 300'000);
          queue->add_rate_limited(key, priority);
          naive.add(key, delay, priority);
          break;
        }
        case 4: queue->forget(key); failures[key] = 0; break;
        case 5: queue->done(key); naive.working.erase(key); break;
        case 6: {
          const int by = *rc::gen::inRange(0, 30);
          clock.advance(milliseconds(by));
          naive.now += by;
          break;
        }
        default: {
          const auto ready = naive.ready();
          if (ready.empty()) break;
          const auto item = queue->get();
          RC_ASSERT(item.has_value());
          RC_ASSERT(item->key == ready.front());
          RC_ASSERT(item->priority == naive.entries.at(ready.front()).priority);
          naive.entries.erase(ready.front());
          naive.working.insert(ready.front());
        }
      }
      RC_ASSERT(queue->depth() == naive.ready().size());
      RC_ASSERT(queue->failures(key) == failures[key]);
    }
  });
  EXPECT_TRUE(held);
}

}  // namespace
}  // namespace bottle::reconcile
