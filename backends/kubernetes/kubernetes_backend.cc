#include "backends/kubernetes/kubernetes_impl.h"

namespace bottle {
namespace kubernetes {

const Json& at(const Json& j, const char* pointer) {
  static const Json kNothing;
  const Json::json_pointer where(pointer);
  return j.is_structured() && j.contains(where) ? j.at(where) : kNothing;
}

std::string text_at(const Json& j, const char* pointer) {
  const Json& v = at(j, pointer);
  return v.is_string() ? v.get<std::string>() : std::string();
}

int64_t int_at(const Json& j, const char* pointer) {
  const Json& v = at(j, pointer);
  return v.is_number_integer() ? v.get<int64_t>() : 0;
}

bool owned_by(const Json& object, const std::string& uid) {
  for (const auto& owner : at(object, "/metadata/ownerReferences"))
    if (owner.is_object() && owner.value("controller", false) && text_at(owner, "/uid") == uid) return !uid.empty();
  return false;
}

KubernetesBackend::KubernetesBackend(std::unique_ptr<kube::Client> client, const KubernetesOptions& options, Waits waits)
    : client_(std::move(client)),
      namespace_(options.namespace_.empty() ? client_->config().namespace_ : options.namespace_),
      namespace_given_(!options.namespace_.empty()),
      all_namespaces_(options.all_namespaces),
      waits_(waits) {}

KubernetesBackend::Key KubernetesBackend::key_of(const std::string& name) const {
  const size_t slash = name.find('/');
  if (slash == std::string::npos) return {namespace_, name};
  return {name.substr(0, slash), name.substr(slash + 1)};
}

kube::Answer KubernetesBackend::get(const std::string& path, std::string_view accept) {
  kube::Request r;
  r.path = path;
  if (!accept.empty()) r.accept = accept;
  return client_->call(r);
}

Result<Json> KubernetesBackend::get_json(const std::string& path, const std::string& what) {
  const kube::Answer a = get(path);
  if (!a.ok()) return a.status(what);
  Json j = Json::parse(a.body, nullptr, false);
  if (!j.is_object()) return Status(Code::kUnavailable, what + ": the API server's answer is no JSON object");
  return j;
}

Result<std::vector<Json>> KubernetesBackend::list_all(const kube::Resource& resource, const std::string& ns, const kube::Query& query, std::string_view accept) {
  std::vector<Json> out;
  const std::string what = "list " + std::string(resource.plural) + (ns.empty() ? "" : " in namespace " + ns);
  bool restarted = false;
  for (std::string next;;) {
    kube::Query q = query;
    q.emplace_back("limit", "500");
    if (!next.empty()) q.emplace_back("continue", next);
    const kube::Answer a = get(kube::collection_path(resource, ns, q), accept);
    if (a.transport && a.code == 410 && !restarted) {  // the pages have expired: begin again
      restarted = true, next.clear(), out.clear();
      continue;
    }
    if (!a.ok()) return a.status(what);
    Json j = Json::parse(a.body, nullptr, false);
    if (!j.is_object() || !at(j, "/items").is_array()) return Status(Code::kUnavailable, what + ": the API server's answer is no list");
    for (auto& item : j["items"]) out.push_back(std::move(item));
    next = text_at(j, "/metadata/continue");
    if (next.empty()) return out;
  }
}

Result<Json> KubernetesBackend::bottle_of(const Key& key) {
  const std::string what = "bottle " + key.text();
  const kube::Answer a = get(kube::object_path(kube::kBottles, key.ns, key.name));
  if (a.transport && a.code == 404 && a.message.find("\"" + key.name + "\"") == std::string::npos)
    return Status(Code::kUnsupported,
                  "this cluster does not know Bottles (no resource bottles.bot-bottle.dev); install the controller: kubectl apply -k manifests/, or the Helm chart");
  if (a.transport && a.code == 404)
    return Status(Code::kNotFound, "there is no bottle \"" + key.name + "\" in namespace " + key.ns + "; `bottle ls -A` shows those there are");
  if (!a.ok()) return a.status("get " + what);
  Json j = Json::parse(a.body, nullptr, false);
  if (!j.is_object()) return Status(Code::kUnavailable, what + ": the API server's answer is no JSON object");
  return j;
}

Result<Json> KubernetesBackend::pod_of(const Key& key) {
  auto bottle = bottle_of(key);
  if (!bottle) return bottle.status();
  const kube::Answer a = get(kube::object_path(kube::kPods, key.ns, key.name));
  Json pod = a.ok() ? Json::parse(a.body, nullptr, false) : Json();
  if (a.transport && !a.ok() && a.code != 404) return a.status("get pod " + key.text());
  if (!a.transport) return a.status("get pod " + key.text());
  if (pod.is_object() && owned_by(pod, text_at(*bottle, "/metadata/uid"))) return pod;
  const Observation seen = observe_objects(*bottle, Json());
  const Condition* ready = seen.condition("Ready");
  std::string why = pod.is_object() ? "pod " + key.text() + " is not this bottle's" : "bottle " + key.text() + " has no pod";
  if (ready) why += ": " + ready->reason + (ready->message.empty() ? "" : ": " + ready->message);
  return Status(Code::kNotFound, why);
}

Result<std::string> KubernetesBackend::guard_counters(const std::string&) {
  return Status(Code::kUnsupported, "on Kubernetes the guard is gone before the agent starts, and nobody who stays in the pod may read its counters");
}

}  // namespace kubernetes

namespace {

Result<std::unique_ptr<kubernetes::KubernetesBackend>> open(const KubernetesOptions& options) {
  kube::ConfigOptions where;
  where.kubeconfig = options.kubeconfig;
  where.context = options.context;
  auto config = kube::load_config(where);
  if (!config) return config.status();
  kube::ClientOptions how;
  how.user_agent = "bottle-cli";
  auto client = kube::Client::create(std::move(*config), std::move(how));
  if (!client) return client.status();
  return std::make_unique<kubernetes::KubernetesBackend>(std::move(*client), options);
}

}  // namespace

Result<std::unique_ptr<Backend>> open_kubernetes_backend(const KubernetesOptions& options) {
  auto backend = open(options);
  if (!backend) return backend.status();
  return std::unique_ptr<Backend>(std::move(*backend));
}

std::vector<Check> kubernetes_doctor(const KubernetesOptions& options) {
  auto backend = open(options);
  if (backend) return (*backend)->doctor();
  return {{"kubeconfig", "fail", backend.status().message(), "give --kubeconfig FILE, or set KUBECONFIG"}};
}

Result<std::string> kubernetes_target(const KubernetesOptions& options) {
  kube::ConfigOptions where;
  where.kubeconfig = options.kubeconfig;
  where.context = options.context;
  auto config = kube::load_config(where);
  if (!config) return config.status();
  return config->server + " (" + config->source + "), namespace " + (options.namespace_.empty() ? config->namespace_ : options.namespace_);
}

}  // namespace bottle
