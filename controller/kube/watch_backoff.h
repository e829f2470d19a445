// How long to wait before a watch is asked for again. Source: client-go tools/cache/reflector.go. Not for several threads.
#ifndef CONTROLLER_KUBE_WATCH_BACKOFF_H_
#define CONTROLLER_KUBE_WATCH_BACKOFF_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <random>

namespace bottle::kube {

// `first` (0.8 s), doubled up to `max` (30 s), each times 1 to 2 so that many clients do not come back at once; from the start again after
// two minutes without a failure.
class WatchBackoff {
 public:
  using Clock = std::chrono::steady_clock;
  WatchBackoff(std::chrono::milliseconds first, std::chrono::milliseconds max) : first_(first), max_(max), now_(first) {}
  std::chrono::milliseconds next(std::mt19937& random, Clock::time_point now = Clock::now()) {
    if (now - last_ > kReset) now_ = first_;
    last_ = now;
    const std::chrono::milliseconds base = std::min(now_, max_);
    now_ = std::min(now_ * 2, max_);
    return base + std::chrono::milliseconds(std::uniform_int_distribution<int64_t>(0, base.count())(random));
  }

 private:
  static constexpr std::chrono::seconds kReset{120};
  std::chrono::milliseconds first_, max_, now_;
  Clock::time_point last_{};
};

}  // namespace bottle::kube

#endif  // CONTROLLER_KUBE_WATCH_BACKOFF_H_
