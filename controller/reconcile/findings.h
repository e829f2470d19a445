// What one pass found out about a bottle, and how it is told: conditions and status. Pure.
#ifndef CONTROLLER_RECONCILE_FINDINGS_H_
#define CONTROLLER_RECONCILE_FINDINGS_H_

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "controller/kube/objects.h"
#include "controller/reconcile/bottle_spec.h"
#include "controller/reconcile/pod_state.h"
#include "controller/reconcile/problem.h"

namespace bottle::reconcile {

struct Findings {
  std::shared_ptr<const kube::BottleObject> bottle;
  std::shared_ptr<const Spec> spec;        // spec->status not OK: the Bottle is invalid
  std::shared_ptr<const kube::PodObject> pod;
  PodState state;
  Problem problem;                         // of the writes
  bool suspended = false;
  bool finished_before = false;            // Finished at this generation, and the pod is gone
  bool outdated = false;                   // the pod was made with other controller options
  std::string replacing;                   // why the pod is being replaced

  std::vector<std::string> missing_secrets;  // messages
  std::vector<std::string> missing_keys;     // messages
  std::vector<std::string> widened;          // NetworkPolicies that allow the pod more

  bool guard_current = true;               // the running pod has the wanted rules
  std::string guard_update_failed;
  std::string guard_rules_now;             // for the message

  enum class Egress { kNotAsked, kEnforced, kOldPolicy, kNotReady, kUnreachable, kUntrusted } egress = Egress::kNotAsked;
  std::string egress_said;                 // why it did not take the policy, or why it did not answer
  std::string enforced_hash;               // what it reported last; empty when never

  std::string ca_fingerprint, ca_not_after;  // RFC 3339
  bool ca_renewing = false;
};

struct Told {
  std::vector<Condition> conditions;
  bool passing = false;                    // Ready is not True for a reason that goes by itself
};
Told tell(const Findings& f);

// The status as it is to be, with times taken from `old` where a condition's status is unchanged. `old` may be null.
nlohmann::json render_status(const Findings& f, const Told& told, const nlohmann::json& old, int64_t now);

const Condition* find(const std::vector<Condition>& conditions, std::string_view type);

}  // namespace bottle::reconcile

#endif  // CONTROLLER_RECONCILE_FINDINGS_H_
