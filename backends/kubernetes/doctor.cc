// doctor: what a cluster needs for bottles, looked at with the rights of the person who asks. What these rights hide is said to be unknown.
#include <algorithm>
#include <ctime>
#include <set>
#include <thread>

#include "backends/kubernetes/kubernetes_impl.h"
#include "base/rfc3339.h"
#include "controller/kube/objects.h"
#include "controller/plan/plan.h"

namespace bottle::kubernetes {
namespace {

constexpr char kInstall[] = "kubectl apply -k manifests/, or the Helm chart in charts/bot-bottle";

// "30+" of a vendor's build is 30.
int number(const std::string& text) { return std::atoi(text.c_str()); }

struct Access {
  const char *group, *resource, *subresource, *verb, *what_for;
};
// pods/exec: "get" is what the WebSocket needs up to Kubernetes 1.34, "create" from 1.35 on.
constexpr Access kAccess[] = {
    {"bot-bottle.dev", "bottles", "", "get", "get, exec, logs"}, {"bot-bottle.dev", "bottles", "", "list", "ls"},
    {"bot-bottle.dev", "bottles", "", "watch", "up"},            {"bot-bottle.dev", "bottles", "", "create", "up"},
    {"bot-bottle.dev", "bottles", "", "patch", "up"},            {"bot-bottle.dev", "bottles", "", "delete", "down"},
    {"", "pods", "", "get", "get, exec, logs, down"},            {"", "pods", "", "list", "ls"},
    {"", "pods", "log", "get", "logs, audit"},                   {"", "pods", "exec", "create", "exec"},
    {"", "pods", "exec", "get", "exec"},                         {"", "pods", "attach", "create", "attach"},
    {"", "secrets", "", "get", "up with tokens"},                {"", "secrets", "", "create", "up with tokens"},
    {"", "secrets", "", "patch", "up with tokens"},
};

std::string cannot_see(const kube::Answer& a, const std::string& what) { return what + " cannot be seen: " + (a.transport ? a.reason : a.transport.message()); }

bool has_image(const Json& node, const std::string& repository) {
  for (const auto& image : at(node, "/status/images"))
    for (const auto& tag : at(image, "/names"))
      if (tag.is_string() && tag.get_ref<const std::string&>().find(repository) != std::string::npos) return true;
  return false;
}

}  // namespace

Check KubernetesBackend::access_check(const std::string& ns) {
  std::string missing;
  std::set<std::string> fixes;
  for (const auto& access : kAccess) {
    Json review = {{"apiVersion", "authorization.k8s.io/v1"},
                   {"kind", "SelfSubjectAccessReview"},
                   {"spec", {{"resourceAttributes", {{"namespace", ns}, {"group", access.group}, {"resource", access.resource}, {"verb", access.verb}}}}}};
    if (access.subresource[0]) review["spec"]["resourceAttributes"]["subresource"] = access.subresource;
    kube::Request r;
    r.method = "POST";
    r.path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    r.body = review.dump();
    const kube::Answer a = client_->call(r);
    if (!a.ok()) return {"rights", "warn", "cannot ask what you may do: " + a.status("access review").message(), ""};
    if (at(Json::parse(a.body, nullptr, false), "/status/allowed") == true) continue;
    missing += (missing.empty() ? "" : "; ") + std::string(access.verb) + " " + access.resource + (access.subresource[0] ? "/" : "") + access.subresource +
               " (for " + access.what_for + ")";
  }
  if (missing.empty()) return {"rights", "ok", "everything that the commands need in namespace " + ns, ""};
  return {"rights", "warn", "in namespace " + ns + " you may not: " + missing,
          "ask for a RoleBinding to ClusterRole edit (it has the bottle rights in it once the controller is installed)"};
}

Check KubernetesBackend::controller_check() {
  const std::string where = std::string(kSystemNamespace) + "/" + kControllerName;
  const std::string look = std::string("see why: kubectl -n ") + kSystemNamespace + " get deploy,pods";
  const kube::Answer d = get(kube::object_path({"apps", "v1", "deployments", "Deployment"}, kSystemNamespace, kControllerName));
  const Json deployment = d.ok() ? Json::parse(d.body, nullptr, false) : Json();
  const std::string path = kube::object_path(kube::kLeases, kSystemNamespace, kControllerName);
  const auto held = [](const Json& lease) { return text_at(lease, "/spec/holderIdentity"); };
  kube::Answer l = get(path);
  Json lease = l.ok() ? Json::parse(l.body, nullptr, false) : Json();
  if (l.transport && l.code == 404) {
    if (d.ok())
      return {"controller", "fail", "deployment " + where + " is there (" + std::to_string(int_at(deployment, "/status/availableReplicas")) + " available), but nobody holds its lease", look};
    if (d.transport && d.code == 404)
      return {"controller", "fail", "no deployment and no lease " + where + ": nothing carries bottles out (a controller in another namespace, or without leader election, cannot be told from here)",
              std::string("install it: ") + kInstall};
    return {"controller", "warn", cannot_see(d, "deployment " + where) + "; nobody holds lease " + where, look};
  }
  if (!l.ok()) {
    if (d.ok() && int_at(deployment, "/status/availableReplicas") > 0) return {"controller", "ok", "deployment " + where + " is available; its lease cannot be seen", ""};
    return {"controller", "warn", cannot_see(l, "lease " + where), look};
  }
  // A clock of ours may be wrong: a lease whose time looks old is watched for as long as a renewal may take (2 s; the lease holds for 15 s).
  const int64_t age = static_cast<int64_t>(std::time(nullptr)) - parse_rfc3339(text_at(lease, "/spec/renewTime"));
  bool alive = !held(lease).empty() && age < 15;
  const std::string version = text_at(lease, "/metadata/resourceVersion");
  for (int i = 0; !alive && !held(lease).empty() && i < 12 && !g_cancelled; ++i) {
    std::this_thread::sleep_for(waits_.poll);
    l = get(path);
    lease = l.ok() ? Json::parse(l.body, nullptr, false) : Json();
    alive = l.ok() && text_at(lease, "/metadata/resourceVersion") != version;
  }
  if (!alive) return {"controller", "fail", held(lease).empty() ? "nobody holds lease " + where : "lease " + where + " is not renewed by " + held(lease), look};
  return {"controller", "ok", held(lease) + " leads" + (d.ok() ? ", " + std::to_string(int_at(deployment, "/status/availableReplicas")) + " available" : ""), ""};
}

Check KubernetesBackend::namespace_check(const std::string& ns) {
  const kube::Answer a = get(kube::object_path(kube::kNamespaces, "", ns));
  if (a.transport && a.code == 404) return {"namespace", "fail", "there is no namespace " + ns, "kubectl create namespace " + ns};
  if (!a.ok()) return {"namespace", "warn", cannot_see(a, "the pod security level of namespace " + ns), ""};
  const Json labels = at(Json::parse(a.body, nullptr, false), "/metadata/labels");
  const std::string level = labels.is_object() ? labels.value("pod-security.kubernetes.io/enforce", "") : "";
  if (level == "baseline" || level == "restricted")
    return {"namespace", "fail", ns + " enforces pod security \"" + level + "\", which forbids the guard's NET_ADMIN: no bottle can start",
            "kubectl label namespace " + ns + " pod-security.kubernetes.io/enforce=privileged --overwrite"};
  if (level.empty()) return {"namespace", "ok", ns + " says no pod security level; a cluster-wide default of the API server cannot be seen", ""};
  return {"namespace", "ok", ns + " enforces pod security \"" + level + "\"", ""};
}

void KubernetesBackend::node_checks(std::vector<Check>& out) {
  auto nodes = list_all(kube::kNodes, "", {});
  if (!nodes) {
    out.push_back({"nodes", "warn", "kernels and runtimes cannot be seen: " + nodes.status().message(), ""});
    return;
  }
  std::set<std::string> kernels, runtimes, old_kernels, old_kubelets;
  size_t linux_nodes = 0, with_images = 0;
  const std::string sidecars = PlanOptions().sidecars_image;
  for (const auto& n : *nodes) {
    if (text_at(n, "/status/nodeInfo/operatingSystem") != "linux") continue;
    ++linux_nodes;
    const std::string name = text_at(n, "/metadata/name"), kernel = text_at(n, "/status/nodeInfo/kernelVersion");
    kernels.insert(kernel), runtimes.insert(text_at(n, "/status/nodeInfo/containerRuntimeVersion"));
    // 5.2: `meta skuid` and `ct state` in one inet table with named counters and reject, as the guard's rules have them.
    int major = 0, minor = 0;
    if (std::sscanf(kernel.c_str(), "%d.%d", &major, &minor) == 2 && (major < 5 || (major == 5 && minor < 2))) old_kernels.insert(name + " (" + kernel + ")");
    const std::string kubelet = text_at(n, "/status/nodeInfo/kubeletVersion");
    if (std::sscanf(kubelet.c_str(), "v%d.%d", &major, &minor) == 2 && major == 1 && minor < 29) old_kubelets.insert(name + " (" + kubelet + ")");
    with_images += has_image(n, sidecars.substr(0, sidecars.find(':')));
  }
  const auto joined = [](const std::set<std::string>& words) {
    std::string s;
    for (const auto& w : words) s += (s.empty() ? "" : ", ") + w;
    return s;
  };
  if (linux_nodes == 0) out.push_back({"nodes", "fail", "there is no Linux node", "add one: the guard is nftables"});
  else if (!old_kubelets.empty()) out.push_back({"nodes", "fail", "kubelets older than 1.29 have no native sidecars: " + joined(old_kubelets), "upgrade them"});
  else if (!old_kernels.empty()) out.push_back({"nodes", "fail", "kernels older than 5.2 lack what the guard's rules need: " + joined(old_kernels), "upgrade them"});
  else out.push_back({"nodes", "ok", std::to_string(linux_nodes) + " Linux, kernel " + joined(kernels) + ", " + joined(runtimes), ""});
  if (linux_nodes == 0) return;
  if (with_images > 0)
    out.push_back({"images", "ok", sidecars + " is on " + std::to_string(with_images) + " of " + std::to_string(linux_nodes) + " nodes", ""});
  else
    out.push_back({"images", "warn", "no node reports " + sidecars + " (kubelets report their 50 largest images): the nodes have to be able to pull what the controller was told to use",
                   "push the images and give the controller their names, or load them into the nodes (scripts/images)"});
}

std::vector<Check> KubernetesBackend::doctor() {
  std::vector<Check> out;
  const kube::Config& config = client_->config();
  out.push_back({"kubeconfig", "ok", config.source + ", namespace " + namespace_, ""});
  if (config.insecure_skip_tls_verify)
    out.push_back({"TLS", "warn", "insecure-skip-tls-verify: anybody in between can read and change everything", "put the cluster's CA into the kubeconfig"});
  const kube::Answer v = get("/version");
  if (!v.ok()) {
    out.push_back({"API server", "fail", config.server + ": " + v.status("version").message(), "start the cluster, or choose another (--context, --kubeconfig)"});
    return out;
  }
  const Json version = Json::parse(v.body, nullptr, false);
  const int major = number(text_at(version, "/major")), minor = number(text_at(version, "/minor"));
  const std::string shown = config.server + ", " + text_at(version, "/gitVersion");
  if (major == 1 && minor < 29)
    out.push_back({"API server", "fail", shown + ": bottles need native sidecars", "upgrade to Kubernetes 1.29 or newer (1.33 has them for good)"});
  else if (major == 1 && minor < 30)
    out.push_back({"API server", "warn", shown + ": `bottle exec -i` with piped input needs 1.30", "upgrade when you can"});
  else
    out.push_back({"API server", "ok", shown, ""});

  const kube::Answer api = get("/apis/bot-bottle.dev/v1alpha1");
  bool served = false;
  if (api.ok()) {
    const Json resources = Json::parse(api.body, nullptr, false);
    for (const auto& r : at(resources, "/resources")) served |= text_at(r, "/name") == "bottles";
  }
  if (served) out.push_back({"CRD", "ok", "bottles.bot-bottle.dev is served as v1alpha1", ""});
  else if (api.transport && (api.code == 404 || api.ok()))
    out.push_back({"CRD", "fail", "bottles.bot-bottle.dev/v1alpha1 is not served", std::string("install it: ") + kInstall});
  else
    out.push_back({"CRD", "warn", cannot_see(api, "bottles.bot-bottle.dev"), ""});
  out.push_back(controller_check());
  out.push_back(access_check(namespace_));
  out.push_back(namespace_check(namespace_));
  node_checks(out);
  out.push_back({"NetworkPolicy", "ok",
                 "whether this cluster's network enforces it cannot be told from here; the guard in each pod does not depend on it", ""});
  return out;
}

}  // namespace bottle::kubernetes
