// Leader election by a coordination.k8s.io/v1 Lease. A holder's clock is never compared with ours: a lease has run out when its record has not
// changed for its duration by our own monotonic clock. Source: client-go tools/leaderelection. One thread of its own; any thread asks.
#ifndef CONTROLLER_KUBE_LEASE_H_
#define CONTROLLER_KUBE_LEASE_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "base/metrics.h"
#include "controller/kube/client.h"

namespace bottle::kube {

struct LeaseOptions {
  std::string ns, name;
  std::string identity;                        // hostname_random
  // controller-runtime's.
  std::chrono::milliseconds duration{15'000}, renew_deadline{10'000}, retry_period{2'000};
  metrics::Registry* metrics = nullptr;        // leader_election_master_status{name}
};

class LeaderElector {
 public:
  // `on_started` once, when we lead; `on_lost` once, when we no longer do (the process has to end then). Both on the elector's thread.
  static std::unique_ptr<LeaderElector> create(Client& client, LeaseOptions options, std::function<void()> on_started, std::function<void()> on_lost);
  virtual ~LeaderElector() = default;
  virtual void start() = 0;
  virtual bool leading() const = 0;
  // Stops and, when leading, releases (empty holder, duration 1 s), so that the next one takes over at once. No on_lost.
  virtual void stop_and_release() = 0;
};

}  // namespace bottle::kube

#endif  // CONTROLLER_KUBE_LEASE_H_
