// What we keep of objects: small structs, projected while the JSON is parsed; no DOM and no secret is kept. Immutable once stored.
#ifndef CONTROLLER_KUBE_OBJECTS_H_
#define CONTROLLER_KUBE_OBJECTS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace bottle::kube {

inline constexpr std::string_view kFieldManager = "bottle-controller";
inline constexpr std::string_view kManagedBy = "app.kubernetes.io/managed-by";  // = bottle-controller: scopes the watches, identifies nobody
inline constexpr std::string_view kBottleLabel = "bot-bottle.dev/bottle";
inline constexpr std::string_view kAnnotationPrefix = "bot-bottle.dev/";

struct ObjectMeta {
  std::string ns, name, uid, resource_version;
  int64_t generation = 0;
  std::string owner_name, owner_uid;  // of the ownerReference with controller: true, of kind Bottle in our group; else empty
  bool owned_by_other = false;    // some other controller owns it
  int64_t created = 0;            // Unix seconds
  int64_t deleting = 0;           // deletionTimestamp; 0 = not being deleted
  std::map<std::string, std::string, std::less<>> annotations;  // those under bot-bottle.dev/ alone, without the prefix
  std::string_view annotation(std::string_view name) const {
    auto it = annotations.find(name);
    return it == annotations.end() ? std::string_view() : std::string_view(it->second);
  }
};

struct BottleObject : ObjectMeta {
  std::string spec_json;          // raw, as the server has it
  std::string status_json;        // raw, "" without a status
};

struct MetaObject : ObjectMeta {};  // ConfigMaps and Secrets: metadata alone

struct ContainerState {
  std::string name;
  enum class Kind { kInit, kMain, kEphemeral } kind = Kind::kMain;
  enum class State { kWaiting, kRunning, kTerminated } state = State::kWaiting;
  bool ready = false, started = false;
  std::string reason, message;    // of waiting or terminated
  int exit_code = 0, restarts = 0;
  int64_t started_at = 0, finished_at = 0;
  std::string last_reason;        // of lastState.terminated: OOMKilled, Error
  int last_exit_code = 0;
};

struct PodCondition {
  std::string type, status, reason, message;
};

struct PodObject : ObjectMeta {
  std::string phase, reason, message, node, ip;
  int64_t start_time = 0;
  std::vector<PodCondition> conditions;
  std::vector<ContainerState> containers;
  std::vector<std::string> ephemeral;  // names in spec.ephemeralContainers
  const ContainerState* container(std::string_view name) const {
    for (const auto& c : containers) if (c.name == name) return &c;
    return nullptr;
  }
  const PodCondition* condition(std::string_view type) const {
    for (const auto& c : conditions) if (c.type == type) return &c;
    return nullptr;
  }
};

struct LabelRequirement {         // metav1.LabelSelectorRequirement; matchLabels become "In" with one value
  std::string key, op;            // In, NotIn, Exists, DoesNotExist
  std::vector<std::string> values;
};
struct NetworkPolicyObject : ObjectMeta {
  bool managed = false;           // carries our managed-by label
  std::vector<LabelRequirement> pod_selector;
  bool affects_egress = false;    // policyTypes has Egress (or, unset, there is an egress section)
  bool allows_egress = false;     // at least one egress rule
};
bool selects(const std::vector<LabelRequirement>& selector, const std::map<std::string, std::string, std::less<>>& labels);

// Each takes one object's JSON text and fills `out`; unknown fields are skipped. kInvalid when it is no such object. Bounded by depth and
// size of the text. `scratch` is the parser's, to be kept per thread.
class Decoder {
 public:
  Decoder();
  ~Decoder();
  Status bottle(std::string_view json, BottleObject* out);
  Status meta(std::string_view json, MetaObject* out);
  Status pod(std::string_view json, PodObject* out);
  Status network_policy(std::string_view json, NetworkPolicyObject* out);

  // One line of a watch. `object` is a slice of `line`.
  struct Event {
    enum class Type { kAdded, kModified, kDeleted, kBookmark, kError } type;
    std::string_view object;
    std::string resource_version;       // of a bookmark
    bool initial_events_end = false;    // a bookmark with k8s.io/initial-events-end
    int code = 0;                       // of an error's Status
    std::string reason, message;
  };
  Status event(std::string_view line, Event* out);
  // A list: calls `each` for every item's JSON text; gives metadata.resourceVersion and metadata.continue.
  Status list(std::string_view body, const std::function<Status(std::string_view)>& each, std::string* resource_version, std::string* next);

 private:
  struct Impl;
  Impl* impl_;
};

}  // namespace bottle::kube

#endif  // CONTROLLER_KUBE_OBJECTS_H_
