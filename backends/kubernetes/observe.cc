// What is, as the Bottle's status and its pod say it.
#include "backends/kubernetes/kubernetes_impl.h"
#include "base/rfc3339.h"
#include "controller/kube/objects.h"

namespace bottle::kubernetes {
namespace {

std::string annotation(const Json& object, const char* name) {
  const Json& all = at(object, "/metadata/annotations");
  const auto it = all.is_object() ? all.find(std::string(kube::kAnnotationPrefix) + name) : all.end();
  return all.is_object() && it != all.end() && it->is_string() ? it->get<std::string>() : "";
}

const Json* by_name(const Json& list, std::string_view name) {
  for (const auto& item : list)
    if (item.is_object() && text_at(item, "/name") == name) return &item;
  return nullptr;
}

ContainerObservation container(const Json& pod, Role role) {
  ContainerObservation o;
  o.role = role_name(role);
  const bool init = role != Role::kAgent;
  const std::string pod_name = text_at(pod, "/metadata/name");
  o.name = pod_name.empty() ? o.role : pod_name + "/" + o.role;
  o.state = "missing";
  if (const Json* spec = by_name(at(pod, init ? "/spec/initContainers" : "/spec/containers"), o.role)) o.image = text_at(*spec, "/image");
  const Json* status = by_name(at(pod, init ? "/status/initContainerStatuses" : "/status/containerStatuses"), o.role);
  if (!status) return o;
  o.id = text_at(*status, "/containerID");
  o.restarts = static_cast<int>(int_at(*status, "/restartCount"));
  if (const Json& s = at(*status, "/state/running"); s.is_object()) {
    o.state = "running", o.started_at = text_at(s, "/startedAt");
  } else if (const Json& t = at(*status, "/state/terminated"); t.is_object()) {
    o.state = "exited", o.reason = text_at(t, "/reason"), o.exit_code = static_cast<int>(int_at(t, "/exitCode"));
    o.started_at = text_at(t, "/startedAt"), o.finished_at = text_at(t, "/finishedAt");
  } else {
    o.state = "waiting", o.reason = text_at(*status, "/state/waiting/reason");
  }
  return o;
}

}  // namespace

Observation observe_objects(const Json& bottle, const Json& pod) {
  Observation o;
  o.name = text_at(bottle, "/metadata/name"), o.namespace_ = text_at(bottle, "/metadata/namespace");
  o.slug = slug_of(o.name);
  o.created_at = text_at(bottle, "/metadata/creationTimestamp");
  const int64_t generation = int_at(bottle, "/metadata/generation");
  const Json shown = {{"apiVersion", "bot-bottle.dev/v1alpha1"},
                      {"kind", "Bottle"},
                      {"metadata", {{"name", o.name}, {"namespace", o.namespace_}, {"uid", text_at(bottle, "/metadata/uid")}, {"generation", generation}}},
                      {"spec", at(bottle, "/spec")}};
  o.bottle_json = shown.dump(2, ' ', false, Json::error_handler_t::replace);

  const Json& status = at(bottle, "/status");
  for (const auto& c : at(status, "/conditions"))
    if (c.is_object()) o.conditions.push_back({text_at(c, "/type"), text_at(c, "/status"), text_at(c, "/reason"), text_at(c, "/message")});
  // What the controller said of an older generation is not what is asked for.
  const bool noticed = int_at(status, "/observedGeneration") >= generation && !o.conditions.empty();
  if (!text_at(bottle, "/metadata/deletionTimestamp").empty() || !noticed) {
    std::erase_if(o.conditions, [](const Condition& c) { return c.type == "Ready"; });
    o.conditions.insert(o.conditions.begin(), noticed ? Condition{"Ready", "False", "Deleting", "the bottle is being deleted"}
                                                      : Condition{"Ready", "Unknown", "NotReconciled",
                                                                  "the controller has not looked at generation " + std::to_string(generation) +
                                                                      " yet; `bottle doctor` says whether it runs"});
  }
  o.policy_hash = text_at(status, "/policyHash");
  o.desired_policy_hash = annotation(pod, "policy-hash");
  o.ca_fingerprint = text_at(status, "/ca/fingerprint");
  o.ca_not_after = parse_rfc3339(text_at(status, "/ca/notAfter"));
  if (pod.is_object()) {
    for (Role role : {Role::kGuard, Role::kEgress, Role::kAgent}) o.containers.push_back(container(pod, role));
  } else if (const Json& agent = at(status, "/agent"); agent.is_object()) {
    // The pod is gone or not ours to see: what the controller remembers of it.
    ContainerObservation c;
    c.role = "agent", c.name = text_at(status, "/pod/name") + "/agent", c.image = text_at(bottle, "/spec/agent/image");
    const std::string state = text_at(agent, "/state");
    c.state = at(agent, "/exitCode").is_number() ? "exited" : state == "Running" || state == "running" ? "running" : "missing";
    c.reason = text_at(agent, "/reason"), c.exit_code = static_cast<int>(int_at(agent, "/exitCode"));
    c.restarts = static_cast<int>(int_at(agent, "/restarts"));
    c.started_at = text_at(agent, "/startedAt"), c.finished_at = text_at(agent, "/finishedAt");
    o.containers.push_back(std::move(c));
  }
  return o;
}

Result<std::vector<Observation>> KubernetesBackend::list() {
  const std::string ns = all_namespaces_ ? "" : namespace_;
  auto bottles = list_all(kube::kBottles, ns, {});
  if (!bottles) {
    if (bottles.status().code() != Code::kNotFound) return bottles.status();
    return Status(Code::kUnsupported,
                  "this cluster does not know Bottles (no resource bottles.bot-bottle.dev); install the controller: kubectl apply -k manifests/, or the Helm chart");
  }
  // Who may see Bottles but no pods still gets a list: the status names the agent's state.
  std::map<std::string, Json> pods;
  if (auto all = list_all(kube::kPods, ns, {{"labelSelector", std::string(kube::kManagedBy) + "=bottle-controller"}}); all)
    for (auto& pod : *all) {
      std::string key = text_at(pod, "/metadata/namespace") + "/" + text_at(pod, "/metadata/name");
      pods.emplace(std::move(key), std::move(pod));
    }
  std::vector<Observation> out;
  for (const auto& b : *bottles) {
    const auto it = pods.find(text_at(b, "/metadata/namespace") + "/" + text_at(b, "/metadata/name"));
    out.push_back(observe_objects(b, it != pods.end() && owned_by(it->second, text_at(b, "/metadata/uid")) ? it->second : Json()));
  }
  return out;
}

Result<Observation> KubernetesBackend::observe(const std::string& name) {
  const Key key = key_of(name);
  auto bottle = bottle_of(key);
  if (!bottle) return bottle.status();
  auto pod = get_json(kube::object_path(kube::kPods, key.ns, key.name), "get pod");
  return observe_objects(*bottle, pod && owned_by(*pod, text_at(*bottle, "/metadata/uid")) ? *pod : Json());
}

}  // namespace bottle::kubernetes
