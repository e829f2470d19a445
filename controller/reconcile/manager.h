// Everything of a running controller wired together: caches, queue, workers, lease. main.cc gives it options and signals; tests run it in process.
#ifndef CONTROLLER_RECONCILE_MANAGER_H_
#define CONTROLLER_RECONCILE_MANAGER_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/metrics.h"
#include "controller/kube/client.h"
#include "controller/reconcile/reconciler.h"

namespace bottle::reconcile {

struct ManagerOptions {
  std::vector<std::string> namespaces;         // empty: all
  int workers = 16;                            // reconciles wait for the API server, not for the CPU
  bool leader_elect = true;
  std::string lease_namespace = "bot-bottle-system", lease_name = "bottle-controller", identity;
  std::chrono::milliseconds lease_duration{15'000}, lease_renew_deadline{10'000}, lease_retry_period{2'000};
  // How often it is said what keeps the caches from filling; the first time after 3 s. Never an end: what is missing (the CRD, a role)
  // may still come, and /readyz tells.
  std::chrono::milliseconds cache_sync_timeout{120'000};
  std::chrono::milliseconds resync{36'000'000};  // controller-runtime: 10 h; delivers again, does not list again
  std::chrono::milliseconds graceful_timeout{30'000};
  ReconcilerOptions reconciler;
  metrics::Registry* metrics = nullptr;        // controller_runtime_*, workqueue_*; not owned
};

class Manager {
 public:
  static Result<std::unique_ptr<Manager>> create(kube::Client& client, ManagerOptions options, Surroundings surroundings = real_surroundings());
  virtual ~Manager() = default;
  // Starts the caches at once (warm standby), the workers when we lead. Returns when stop() was called or the lease was lost (not OK then).
  virtual Status run() = 0;
  virtual void stop() = 0;                     // any thread, also a signal-handling one: queue, workers, events, lease, in this order
  virtual bool ready() const = 0;              // caches synced: /readyz
  virtual std::vector<std::string> waiting_for() const = 0;  // what is missing for that: "the cache of bottles"
  virtual bool leading() const = 0;
};

}  // namespace bottle::reconcile

#endif  // CONTROLLER_RECONCILE_MANAGER_H_
