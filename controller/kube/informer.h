// A cache of one kind that follows the API server: WatchList first, LIST where the server has no WatchList, then a watch that is resumed from
// the last resourceVersion, with bookmarks; 410 anywhere starts over; what vanished meanwhile is deleted with the last known state.
// Source: client-go tools/cache/reflector.go; KEP-3157. Any thread reads; events come on the informer's own thread, in order.
#ifndef CONTROLLER_KUBE_INFORMER_H_
#define CONTROLLER_KUBE_INFORMER_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/metrics.h"
#include "controller/kube/client.h"
#include "controller/kube/objects.h"
#include "controller/kube/resource.h"

namespace bottle::kube {

struct InformerOptions {
  Resource resource = kBottles;
  std::vector<std::string> namespaces;   // empty: the whole cluster; several: one watch each, one cache
  std::string label_selector, field_selector;
  bool metadata_only = false;            // PartialObjectMetadata: secret data never comes to this process
  metrics::Registry* metrics = nullptr;
  // Back-off of a watch that cannot be had (client-go: 0.8 s, doubling to 30 s, jitter 1.0); tests make it short.
  std::chrono::milliseconds backoff_first{800}, backoff_max{30'000};
};

enum class EventKind { kInitial, kAdded, kModified, kDeleted, kResync };

// T is BottleObject, MetaObject, PodObject or NetworkPolicyObject.
template <class T>
class Informer {
 public:
  using Object = std::shared_ptr<const T>;
  // `old` is null for an addition, `now` null for a deletion. Runs after the cache has changed.
  using Handler = std::function<void(EventKind kind, const Object& old, const Object& now)>;

  static std::unique_ptr<Informer> create(Client& client, InformerOptions options, Handler handler);
  virtual ~Informer() = default;         // stops
  virtual void start() = 0;
  virtual void stop() = 0;
  virtual bool synced() const = 0;       // the first full state is in the cache
  virtual bool wait_synced(std::chrono::milliseconds limit) = 0;

  virtual Object get(std::string_view ns, std::string_view name) const = 0;  // null when there is none
  virtual std::vector<Object> by_owner(std::string_view owner_uid) const = 0;
  virtual std::vector<Object> in_namespace(std::string_view ns) const = 0;
  virtual std::vector<Object> all() const = 0;
  virtual size_t size() const = 0;
  // kResync for every object, in order with other events.
  virtual void resync() = 0;
};

}  // namespace bottle::kube

#endif  // CONTROLLER_KUBE_INFORMER_H_
