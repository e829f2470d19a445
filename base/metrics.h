// Counters, gauges and histograms in the Prometheus text format 0.0.4. Any thread; updates are lock-free, series are made on first use
// and live as long as the registry. Names and buckets of what controller-runtime has too are its own, so that dashboards fit.
#ifndef BASE_METRICS_H_
#define BASE_METRICS_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bottle::metrics {

using Labels = std::vector<std::pair<std::string, std::string>>;

class Counter {
 public:
  void add(double v = 1) {
    for (double old = value_.load(std::memory_order_relaxed); !value_.compare_exchange_weak(old, old + v, std::memory_order_relaxed);) {
    }
  }
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

class Gauge {
 public:
  void set(double v) { value_.store(v, std::memory_order_relaxed); }
  void add(double v) {
    for (double old = value_.load(std::memory_order_relaxed); !value_.compare_exchange_weak(old, old + v, std::memory_order_relaxed);) {
    }
  }
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

class Histogram {
 public:
  explicit Histogram(std::vector<double> upper_bounds);  // ascending, without +Inf
  void observe(double v);
  uint64_t count() const;
  double sum() const;
  const std::vector<double>& bounds() const { return bounds_; }
  uint64_t cumulative(size_t i) const;  // observations <= bounds()[i]

 private:
  std::vector<double> bounds_;
  std::vector<std::atomic<uint64_t>> buckets_;  // one more than bounds: +Inf; not cumulative
  std::atomic<double> sum_{0};
};

class Registry {
 public:
  Registry();
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;
  // References stay good as long as the registry. The same name and labels give the same series; help and buckets of the first call count.
  Counter& counter(std::string_view name, std::string_view help, const Labels& labels = {});
  Gauge& gauge(std::string_view name, std::string_view help, const Labels& labels = {});
  Histogram& histogram(std::string_view name, std::string_view help, const std::vector<double>& bounds, const Labels& labels = {});
  // Called at every expose(), to set gauges that are read from elsewhere.
  void on_expose(std::function<void()> refresh);
  std::string expose() const;  // sorted by name, labels escaped; with process_* (CPU, RSS, fds, start time)

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// controller_runtime_reconcile_time_seconds (controller-runtime, pkg/internal/controller/metrics).
const std::vector<double>& reconcile_buckets();
// workqueue_queue_duration_seconds, workqueue_work_duration_seconds: 10 powers of ten from 1e-8.
const std::vector<double>& queue_buckets();
// rest_client_request_duration_seconds (component-base).
const std::vector<double>& request_buckets();

}  // namespace bottle::metrics

#endif  // BASE_METRICS_H_
