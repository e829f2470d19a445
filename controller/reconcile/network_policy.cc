// The NetworkPolicy, second layer where the CNI enforces it, and those of others that make it wider.
#include "controller/reconcile/pass.h"

namespace bottle::reconcile {

Problem Pass::ensure_network_policy() {
  bool rewritten = false;
  return ensure(kube::kNetworkPolicies, kubernetes::network_policy_name(b_.name), snap_.network_policy, &m_.network_policy, spec_->network_policy_content,
                kubernetes::render_network_policy, &rewritten);
}

// NetworkPolicies add up: one that selects the pod and allows egress widens what ours closes. The guard does not care, a person may.
void Pass::look_at_network_policies() {
  if (!spec_->status) return;
  for (const auto& np : snap_.other_network_policies)
    if (np && np->affects_egress && np->allows_egress && kube::selects(np->pod_selector, spec_->pod_labels)) f_.widened.push_back("\"" + np->name + "\"");
  std::sort(f_.widened.begin(), f_.widened.end());
}

}  // namespace bottle::reconcile
