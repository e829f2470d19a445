// A container of the plan as the body of POST /containers/create: all the hardening is here, in one
// place.
#ifndef BACKENDS_DOCKER_CONTAINER_BODY_H_
#define BACKENDS_DOCKER_CONTAINER_BODY_H_

#include <string>
#include <vector>

#include "backends/docker/engine_client.h"
#include "backends/docker/state.h"
#include "controller/plan/plan.h"

namespace bottle::docker {

inline constexpr char kLabelManaged[] = "dev.bot-bottle.managed";
inline constexpr char kLabelName[] = "dev.bot-bottle.name";
inline constexpr char kLabelSlug[] = "dev.bot-bottle.slug";
inline constexpr char kLabelRole[] = "dev.bot-bottle.role";
inline constexpr char kLabelPodHash[] = "dev.bot-bottle.pod-hash";
inline constexpr char kLabelPolicyHash[] = "dev.bot-bottle.policy-hash";
inline constexpr char kLabelState[] =
    "dev.bot-bottle.state";  // the state folder it belongs to: two folders never touch each other's

std::string container_name(std::string_view role, const std::string& slug);
std::string network_name(const std::string& slug);
std::string workspace_volume(const std::string& slug);

Json labels_of(const BottlePlan& plan, const StateDir& state, std::string_view role);

// The agent's argv behind the gate: Kubernetes' rules for command and args. kInvalid when there is
// nothing to run.
Result<std::vector<std::string>> agent_argv(const ContainerPlan& agent, const Json& image);

// `network_mode`: the network's name for the guard, "container:<id>" for what joins it. `image`:
// its inspect answer.
Result<Json> container_body(const BottlePlan& plan, const ContainerPlan& container,
                            const StateDir& state, const std::string& network_mode,
                            const Json& image);

// The container of a running guard (its inspect answer) with another verb ("apply", "counters"), to
// run once in its namespace.
Json guard_once_body(const Json& holder, const std::string& verb);

}  // namespace bottle::docker

#endif  // BACKENDS_DOCKER_CONTAINER_BODY_H_
