// Bottles on a cluster, as a person works on them: the Bottle objects that the controller carries out, and the pods that it made of them.
#ifndef BACKENDS_KUBERNETES_KUBERNETES_BACKEND_H_
#define BACKENDS_KUBERNETES_KUBERNETES_BACKEND_H_

#include <memory>
#include <string>
#include <vector>

#include "backends/backend.h"

namespace bottle {

// A bottle's name may be written "namespace/name".
struct KubernetesOptions {
  std::string kubeconfig;      // empty: $KUBECONFIG, in-cluster, ~/.kube/config
  std::string context;         // empty: the current one
  std::string namespace_;      // empty: the context's
  bool all_namespaces = false; // of list() alone
};

// Reads the kubeconfig; asks the server nothing yet. kNotFound when there is no kubeconfig.
Result<std::unique_ptr<Backend>> open_kubernetes_backend(const KubernetesOptions& options);

// What `bottle doctor` says, cluster or no cluster.
std::vector<Check> kubernetes_doctor(const KubernetesOptions& options);

// Where a bottle would go, for a person: "https://… (~/.kube/config, context kind), namespace default".
Result<std::string> kubernetes_target(const KubernetesOptions& options);

}  // namespace bottle

#endif  // BACKENDS_KUBERNETES_KUBERNETES_BACKEND_H_
