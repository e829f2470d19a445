// Sources of a plan as volumes of a pod. Every container sees the items it needs and no more; what has to follow a change is mounted as a
// whole folder, because a subPath never does. Private to this folder.
#ifndef BACKENDS_KUBERNETES_VOLUMES_H_
#define BACKENDS_KUBERNETES_VOLUMES_H_

#include <map>
#include <string>

#include "backends/kubernetes/render.h"

namespace bottle::kubernetes {

// The policy ConfigMap's data: everything that is neither a token nor a key.
std::map<std::string, std::string> policy_data(const BottlePlan& plan);

Json pod_volumes(const BottlePlan& plan);
Json mounts_of(const ContainerPlan& container, const BottlePlan& plan);
// argv after `bottle-guard`, for what mounts_of() mounts into it.
std::vector<std::string> guard_args(const BottlePlan& plan);

}  // namespace bottle::kubernetes

#endif  // BACKENDS_KUBERNETES_VOLUMES_H_
