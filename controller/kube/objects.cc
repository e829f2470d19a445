#include "controller/kube/objects.h"

#include <algorithm>

namespace bottle::kube {

// metav1.LabelSelector: every requirement holds; NotIn and DoesNotExist hold where there is no label. An operator that we do not know is
// taken to hold: what is asked is whether somebody's NetworkPolicy reaches a bottle, and the answer must not be a false no.
bool selects(const std::vector<LabelRequirement>& selector, const std::map<std::string, std::string, std::less<>>& labels) {
  return std::all_of(selector.begin(), selector.end(), [&](const LabelRequirement& r) {
    auto it = labels.find(r.key);
    const bool exists = it != labels.end();
    const bool among = exists && std::find(r.values.begin(), r.values.end(), it->second) != r.values.end();
    if (r.op == "In") return among;
    if (r.op == "NotIn") return !among;
    if (r.op == "Exists") return exists;
    if (r.op == "DoesNotExist") return !exists;
    return true;
  });
}

}  // namespace bottle::kube
