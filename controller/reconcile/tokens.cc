// The user's Secrets. Their metadata alone is watched: the kubelet mounts the values, egress reads them, and egress says which keys are missing.
#include <set>

#include "base/digest.h"
#include "controller/reconcile/pass.h"
#include "controller/reconcile/text.h"

namespace bottle::reconcile {
namespace {

std::string where(const Token& t) { return t.routes.empty() ? "" : " (route " + t.routes + ")"; }

}  // namespace

void Pass::look_at_tokens() {
  std::set<std::string> names;
  for (const auto& t : spec_->tokens) names.insert(t.ref.secret.name);
  // Asked also for none: the view then forgets that the bottle wanted some.
  secrets_ = s_.view.secrets(b_.ns, b_.name, {names.begin(), names.end()});
  std::string all;
  for (const auto& [name, version] : secrets_) all += name + "\n" + version + "\n";
  tokens_revision_ = all.empty() ? "" : sha256_hex(all).substr(0, 16);
  std::set<std::string> told;
  for (const auto& t : spec_->tokens) {
    const auto& [name, key] = t.ref.secret;
    if (secrets_.count(name) || !told.insert(name).second) continue;
    f_.missing_secrets.push_back("secret \"" + name + "\" in namespace \"" + b_.ns + "\" does not exist" + where(t) +
                                 ": create it with kubectl -n " + b_.ns + " create secret generic " + name + " --from-literal=" + key +
                                 "=…; until then its routes answer 503");
  }
}

void Pass::report_missing_keys() {
  for (const auto& env : m_.egress.answer.missing_tokens)
    for (const auto& t : spec_->tokens) {
      if (t.ref.env != env || !secrets_.count(t.ref.secret.name)) continue;
      const auto& [name, key] = t.ref.secret;
      f_.missing_keys.push_back("secret \"" + name + "\" in namespace \"" + b_.ns + "\" has no key \"" + key + "\"" + where(t) +
                                ": create it with kubectl -n " + b_.ns + " patch secret " + name + " --type merge -p '{\"stringData\":{\"" + key +
                                "\":\"…\"}}'; until then its routes answer 503");
    }
}

}  // namespace bottle::reconcile
