// The planner's parts. Each is a pure function of the Bottle's values.
#ifndef CONTROLLER_PLAN_INTERNAL_H_
#define CONTROLLER_PLAN_INTERNAL_H_

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "controller/plan/plan.h"

namespace bottle::plan_internal {

inline constexpr const char* kTrustDir = "/etc/bot-bottle/trust";

// rules.nft: `table inet bottle_guard { … }`, without the resolvers and without the transaction around it.
std::string render_guard_rules(const policy::RouteTable& table);

// The agent's variables for its proxy and for trust in the egress CA; sorted by name.
std::vector<EnvVar> trust_env(uint16_t egress_port);
// Static files that some of these variables name: wgetrc, apt.conf.
std::map<std::string, std::string> trust_files(uint16_t egress_port);

// What a change of containers is decided by: the plan as JSON, without what can be replaced while it runs.
std::string render_pod_json(const BottlePlan& plan);

}  // namespace bottle::plan_internal

#endif  // CONTROLLER_PLAN_INTERNAL_H_
