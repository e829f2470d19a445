// What this process remembers of bottles between passes. Nothing here is needed to be right: it saves reads and writes, and a new process
// starts without it.
#ifndef CONTROLLER_RECONCILE_MEMORY_H_
#define CONTROLLER_RECONCILE_MEMORY_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "backends/kubernetes/egress_status.h"
#include "base/metrics.h"
#include "base/secret.h"
#include "controller/kube/objects.h"

namespace bottle::reconcile {

using Moment = std::chrono::steady_clock::time_point;

// Our last write of an object, used until the cache has it: or the next pass would write it again.
struct Written {
  std::shared_ptr<const kube::ObjectMeta> meta;
  Moment at;
};

struct Enforcement {
  std::string need;            // pod, egress' start, policy, tokens: what the last answer was about
  bool confirmed = false;
  kubernetes::EgressStatus answer;
  Status failed;               // of the last question
  bool answered = false;
  Moment since, next;          // when the need arose; not asked again before
  std::chrono::milliseconds backoff{0};
  Moment bumped;
  Moment tokens_until;         // Secrets changed: asked again until then, for a kubelet that is still refreshing files
};

// Of one bottle. Used by one pass at a time: the queue hands out a key once.
struct Memory {
  std::string uid;
  Written policy, egress_ca, network_policy;
  std::shared_ptr<const kube::PodObject> pod;
  Moment pod_at;
  std::string deleted_pod;     // uid of the pod that we deleted
  std::string status_rv, status_json;  // our last status, until the cache has it
  Enforcement egress;
  std::optional<Moment> passing_since;
  std::optional<Moment> push_started;
  int guard_failures = 0;
  bool policy_changed = false;
  // Of a launch that this process saw from its beginning.
  Moment first_seen;
  bool launching = false, scheduled = false;
};

class Memories {
 public:
  // The memory of this bottle; a fresh one when the name has another UID now. `fresh` tells.
  std::shared_ptr<Memory> of(const std::string& key, const std::string& uid, bool* fresh);
  void forget(const std::string& key);
  size_t size() const;

 private:
  mutable std::mutex mutex_;
  std::unordered_map<std::string, std::shared_ptr<Memory>> all_;
};

// Status keys of bottles, the most recently used ones. Wiped when they go.
class StatusKeys {
 public:
  explicit StatusKeys(size_t capacity) : capacity_(capacity) {}
  SecretString get(const std::string& uid);  // empty: not known
  void put(const std::string& uid, SecretString key);
  void forget(const std::string& uid);

 private:
  const size_t capacity_;
  std::mutex mutex_;
  std::list<std::pair<std::string, SecretString>> order_;
  std::unordered_map<std::string, std::list<std::pair<std::string, SecretString>>::iterator> by_uid_;
};

// bottle_bottles{state}, bottle_ca_expiry_seconds, and the histograms of launches and pushes.
class Meters {
 public:
  Meters(metrics::Registry* registry, std::function<int64_t()> now);
  void planned(double s);
  void created(double s);
  void scheduled(double s);
  void ready(double s);
  void pushed(double s);
  void bottle(const std::string& key, std::string_view state, int64_t ca_not_after);
  void forget(const std::string& key);

 private:
  struct Tally;
  std::shared_ptr<Tally> tally_;
  metrics::Histogram* planned_ = nullptr;
  metrics::Histogram* created_ = nullptr;
  metrics::Histogram* scheduled_ = nullptr;
  metrics::Histogram* ready_ = nullptr;
  metrics::Histogram* pushed_ = nullptr;
};

}  // namespace bottle::reconcile

#endif  // CONTROLLER_RECONCILE_MEMORY_H_
