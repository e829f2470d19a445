// What the caches know about one bottle, at one moment. The reconciler reads the cluster through this alone.
#ifndef CONTROLLER_RECONCILE_SNAPSHOT_H_
#define CONTROLLER_RECONCILE_SNAPSHOT_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "controller/kube/objects.h"

namespace bottle::reconcile {

struct Snapshot {
  std::shared_ptr<const kube::BottleObject> bottle;        // null: it is gone
  // By deterministic name; whoever owns it (only objects with our managed-by label are in the caches).
  std::shared_ptr<const kube::MetaObject> policy, egress_ca;
  std::shared_ptr<const kube::NetworkPolicyObject> network_policy;
  std::shared_ptr<const kube::PodObject> pod;
  std::map<std::string, std::string> secrets;              // of the namespace, those asked for: name -> resourceVersion
  std::vector<std::shared_ptr<const kube::NetworkPolicyObject>> other_network_policies;  // of the namespace, not ours
};

class View {
 public:
  virtual ~View() = default;
  virtual Snapshot snapshot(const std::string& ns, const std::string& name) = 0;  // without `secrets`
  // Which of these Secrets exist. Also remembers that the bottle wants them: it is queued when one of them changes.
  virtual std::map<std::string, std::string> secrets(const std::string& ns, const std::string& bottle, const std::vector<std::string>& names) = 0;
};

}  // namespace bottle::reconcile

#endif  // CONTROLLER_RECONCILE_SNAPSHOT_H_
