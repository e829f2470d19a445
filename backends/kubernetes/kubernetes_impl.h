// The class behind kubernetes_backend.h, by noun: apply.cc, secrets.cc, observe.cc, interact.cc, remove.cc, doctor.cc.
#ifndef BACKENDS_KUBERNETES_KUBERNETES_IMPL_H_
#define BACKENDS_KUBERNETES_KUBERNETES_IMPL_H_

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/kubernetes/kubernetes_backend.h"
#include "controller/kube/client.h"
#include "controller/kube/resource.h"

namespace bottle::kubernetes {

using Json = nlohmann::json;

inline constexpr std::string_view kCliManager = "bottle-cli";  // fieldManager of Bottles, managed-by of Secrets that `up` makes
inline constexpr char kSystemNamespace[] = "bot-bottle-system", kControllerName[] = "bottle-controller";

// "" / 0 / a null when there is no such thing there.
std::string text_at(const Json& j, const char* pointer);
int64_t int_at(const Json& j, const char* pointer);
const Json& at(const Json& j, const char* pointer);

// The Bottle without what is empty anyway: a field that we send is a field that we own, and what nobody wrote is nobody's.
Json sparse_bottle(Json bottle);
// A Bottle object, and its pod or null, as a person sees them.
Observation observe_objects(const Json& bottle, const Json& pod);
bool owned_by(const Json& object, const std::string& uid);  // its controller
std::string conflict_text(const kube::Answer& answer);      // ".spec.agent.image (kubectl-edit), …"
std::vector<std::string> conflict_managers(const kube::Answer& answer);

struct Waits {  // tests make them short
  std::chrono::milliseconds ready{120'000}, noticed{15'000}, gone{120'000}, poll{300};
};

class KubernetesBackend : public Backend {
 public:
  KubernetesBackend(std::unique_ptr<kube::Client> client, const KubernetesOptions& options, Waits waits = {});

  Status apply(const ApplyRequest& request, const Progress& progress) override;
  Result<std::vector<Observation>> list() override;
  Result<Observation> observe(const std::string& name) override;
  Status remove(const std::string& name, const Progress& progress) override;
  Status logs(const std::string& name, Role role, const LogOptions& options, const Sink& sink) override;
  Result<int> exec(const std::string& name, const ExecOptions& options) override;
  Result<int> attach(const std::string& name) override;
  Result<std::string> guard_counters(const std::string& name) override;
  Result<CleanupReport> cleanup(bool dry_run) override;
  std::vector<Check> doctor() override;

 private:
  struct Key {
    std::string ns, name;
    std::string text() const { return ns + "/" + name; }
  };
  Key key_of(const std::string& name) const;  // "name" or "namespace/name"

  kube::Answer get(const std::string& path, std::string_view accept = {});
  Result<Json> get_json(const std::string& path, const std::string& what);
  Result<Json> bottle_of(const Key& key);
  Result<std::vector<Json>> list_all(const kube::Resource& resource, const std::string& ns, const kube::Query& query, std::string_view accept = {});
  // The pod that the controller made for the bottle; kNotFound with the reason when there is none, or only somebody else's.
  Result<Json> pod_of(const Key& key);
  Result<Json> running_agent(const Key& key);  // the same, with its agent running

  // secrets.cc. Looked at first, so that nothing is written when a Secret is in the way.
  struct SecretWrite {
    std::string name, uid;              // uid empty: to be made
    std::vector<const TokenRef*> keys;
  };
  Result<std::vector<SecretWrite>> plan_secrets(const Key& key, const ApplyRequest& request, const Progress& progress);
  Status write_secret(const Key& key, const SecretWrite& write, const ApplyRequest& request, const std::string& bottle_uid);

  Status wait_ready(const Key& key, const Json& applied, const Progress& progress);
  // doctor.cc
  Check access_check(const std::string& ns);
  Check controller_check();
  Check namespace_check(const std::string& ns);
  void node_checks(std::vector<Check>& out);

  std::unique_ptr<kube::Client> client_;
  std::string namespace_;
  bool namespace_given_, all_namespaces_;
  Waits waits_;
};

}  // namespace bottle::kubernetes

#endif  // BACKENDS_KUBERNETES_KUBERNETES_IMPL_H_
