// The kinds we speak of, and their paths. Pure.
#ifndef CONTROLLER_KUBE_RESOURCE_H_
#define CONTROLLER_KUBE_RESOURCE_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bottle::kube {

struct Resource {
  std::string_view group, version, plural, kind;
};
inline constexpr Resource kBottles{"bot-bottle.dev", "v1alpha1", "bottles", "Bottle"};
inline constexpr Resource kPods{"", "v1", "pods", "Pod"};
inline constexpr Resource kConfigMaps{"", "v1", "configmaps", "ConfigMap"};
inline constexpr Resource kSecrets{"", "v1", "secrets", "Secret"};
inline constexpr Resource kNamespaces{"", "v1", "namespaces", "Namespace"};
inline constexpr Resource kNodes{"", "v1", "nodes", "Node"};
inline constexpr Resource kNetworkPolicies{"networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"};
inline constexpr Resource kEvents{"events.k8s.io", "v1", "events", "Event"};
inline constexpr Resource kLeases{"coordination.k8s.io", "v1", "leases", "Lease"};
inline constexpr Resource kCustomResourceDefinitions{"apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition"};

using Query = std::vector<std::pair<std::string, std::string>>;

// "/apis/bot-bottle.dev/v1alpha1/namespaces/dev/bottles?watch=1"; an empty namespace is the whole cluster. Every part is encoded.
std::string collection_path(const Resource& resource, std::string_view ns, const Query& query = {});
// `subresource`: "status", "log", "exec", … or empty.
std::string object_path(const Resource& resource, std::string_view ns, std::string_view name, std::string_view subresource = {}, const Query& query = {});
std::string api_version(const Resource& resource);  // "v1", "bot-bottle.dev/v1alpha1"

}  // namespace bottle::kube

#endif  // CONTROLLER_KUBE_RESOURCE_H_
