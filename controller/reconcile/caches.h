// The caches behind a View: one informer a kind, and which bottle an event concerns. Whatever happened, only a key is queued; the pass that
// follows reads the state. Any thread.
#ifndef CONTROLLER_RECONCILE_CACHES_H_
#define CONTROLLER_RECONCILE_CACHES_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/metrics.h"
#include "base/status.h"
#include "controller/kube/client.h"
#include "controller/reconcile/snapshot.h"

namespace bottle::reconcile {

struct CachesOptions {
  std::vector<std::string> namespaces;                         // empty: all
  // Of a watch that cannot be had. client-go goes up to 30 s (and jitter doubles it), for clusters of thousands of clients: one controller that
  // is back sooner costs a server that recovers nothing.
  std::chrono::milliseconds backoff_first{800}, backoff_max{8'000};
  metrics::Registry* metrics = nullptr;
};

class Caches : public View {
 public:
  // `enqueue` runs on the informers' threads and must not block: Queue::add. `client` outlives this.
  using Enqueue = std::function<void(const std::string& key, int priority)>;
  static std::unique_ptr<Caches> create(kube::Client& client, CachesOptions options, Enqueue enqueue);

  virtual void start() = 0;
  virtual void stop() = 0;                                     // no event after it returns
  virtual std::vector<std::string> not_synced() const = 0;     // plural names, "bottles"; empty: all are there
  virtual bool wait_synced(std::chrono::milliseconds limit) = 0;
  virtual void resync() = 0;                                   // every bottle once more, at low priority
  // Asks the server for one object of each kind that is not synced: what it refuses, in words that name the fix. Blocks.
  virtual std::vector<Status> diagnose() = 0;
};

}  // namespace bottle::reconcile

#endif  // CONTROLLER_RECONCILE_CACHES_H_
