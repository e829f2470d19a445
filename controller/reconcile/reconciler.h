// One pass over one bottle: make the cluster more like what the Bottle says, and say so in its status. Level-based: only the key comes in,
// everything else is read. Any number of threads, never two for one key (the queue sees to that).
#ifndef CONTROLLER_RECONCILE_RECONCILER_H_
#define CONTROLLER_RECONCILE_RECONCILER_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "backends/kubernetes/egress_status.h"
#include "backends/kubernetes/render.h"
#include "base/metrics.h"
#include "controller/kube/client.h"
#include "controller/plan/plan.h"
#include "controller/reconcile/snapshot.h"

namespace bottle::reconcile {

// What the reconciler asks the world for besides the API server; tests give their own.
struct Surroundings {
  std::function<int64_t()> now;   // Unix seconds
  std::function<std::chrono::steady_clock::time_point()> monotonic;
  std::function<Result<kubernetes::EgressStatus>(const std::string& ip, const SecretString& key)> ask_egress;
};
Surroundings real_surroundings();

struct ReconcilerOptions {
  PlanOptions plan;
  kubernetes::RenderOptions render;
  std::string identity;           // reportingInstance of events
  metrics::Registry* metrics = nullptr;  // bottle_*; not owned
  std::chrono::milliseconds status_delay{3'000};  // a state that is only passing is written when it lasts longer than this
  size_t rsa_keys_ahead = 8;      // RSA keys made before they are needed; 0 = none
};

struct Outcome {
  Status status;                               // not OK: try again with back-off, unless `terminal`
  bool terminal = false;                       // waiting for a change of the Bottle: no retry
  std::chrono::milliseconds requeue_after{0};  // 0 = none
};

class Reconciler {
 public:
  // `client` and `view` outlive it.
  static std::unique_ptr<Reconciler> create(kube::Client& client, View& view, ReconcilerOptions options, Surroundings surroundings);
  virtual ~Reconciler() = default;
  virtual Outcome reconcile(const std::string& ns, const std::string& name) = 0;
  // Sends what is still to be sent (events); at most `limit`.
  virtual void flush(std::chrono::milliseconds limit) = 0;
};

}  // namespace bottle::reconcile

#endif  // CONTROLLER_RECONCILE_RECONCILER_H_
