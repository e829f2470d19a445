// The work queue: a key is handed out to one worker at a time, added again meanwhile it comes once more after done(). Higher priority first, then
// the order of readiness; merged entries take the higher priority and the earlier time. Any thread.
// Source: controller-runtime pkg/controller/priorityqueue, client-go util/workqueue (back-off 5 ms * 2^n up to 1000 s; ours ends at 5 min).
#ifndef CONTROLLER_RECONCILE_QUEUE_H_
#define CONTROLLER_RECONCILE_QUEUE_H_

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/metrics.h"

namespace bottle::reconcile {

inline constexpr int kUserPriority = 0, kLowPriority = -100;  // start-up and resync are low

struct QueueItem {
  std::string key;  // "namespace/name"
  int priority = 0;
};

class Queue {
 public:
  using Clock = std::function<std::chrono::steady_clock::time_point()>;  // tests give their own
  static std::unique_ptr<Queue> create(std::string name, metrics::Registry* metrics = nullptr, Clock clock = {});
  virtual ~Queue() = default;
  virtual void add(const std::string& key, int priority = kUserPriority) = 0;
  virtual void add_after(const std::string& key, std::chrono::milliseconds delay, int priority = kUserPriority) = 0;
  virtual void add_rate_limited(const std::string& key, int priority = kUserPriority) = 0;  // counts a failure
  virtual void forget(const std::string& key) = 0;                                          // failures back to 0
  virtual int failures(const std::string& key) const = 0;
  // Blocks; nothing after shut_down(). Each item must be given back by done().
  virtual std::optional<QueueItem> get() = 0;
  virtual void done(const std::string& key) = 0;
  virtual void shut_down() = 0;              // get() hands out no more; waiting getters return
  virtual void wake() = 0;                   // a clock of a test has moved: waiting getters look at it again
  virtual size_t depth() const = 0;          // ready and not handed out
};

}  // namespace bottle::reconcile

#endif  // CONTROLLER_RECONCILE_QUEUE_H_
