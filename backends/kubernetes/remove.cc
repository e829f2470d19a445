// down and cleanup: the garbage collector of the cluster removes what belongs to a Bottle; we wait for it and say what it has not got to.
#include <thread>

#include "backends/kubernetes/kubernetes_impl.h"
#include "controller/kube/objects.h"

namespace bottle::kubernetes {

Status KubernetesBackend::remove(const std::string& name, const Progress& progress) {
  const Key key = key_of(name);
  auto bottle = bottle_of(key);
  if (!bottle) return bottle.status();
  const std::string uid = text_at(*bottle, "/metadata/uid");
  kube::Request r;
  r.method = "DELETE";
  r.path = kube::object_path(kube::kBottles, key.ns, key.name);
  r.body = Json{{"apiVersion", "v1"}, {"kind", "DeleteOptions"}, {"propagationPolicy", "Background"}, {"preconditions", {{"uid", uid}}}}.dump();
  const kube::Answer deleted = client_->call(r);
  if (!deleted.ok() && !(deleted.transport && deleted.code == 404)) return deleted.status("delete bottle " + key.text());
  progress("bottle", key.text() + " deleted");

  const auto deadline = std::chrono::steady_clock::now() + waits_.gone;
  for (std::string left;;) {
    if (g_cancelled) return {Code::kCancelled, "interrupted"};
    const kube::Answer b = get(kube::object_path(kube::kBottles, key.ns, key.name), kube::kMetadataOnly);
    const kube::Answer p = get(kube::object_path(kube::kPods, key.ns, key.name));
    const Json bj = b.ok() ? Json::parse(b.body, nullptr, false) : Json(), pj = p.ok() ? Json::parse(p.body, nullptr, false) : Json();
    const bool bottle_there = b.ok() && text_at(bj, "/metadata/uid") == uid, pod_there = p.ok() && owned_by(pj, uid);
    if (!bottle_there && !pod_there) {
      if (b.transport && (b.ok() || b.code == 404) && p.transport && (p.ok() || p.code == 404)) return Status::ok();
      if (b.transport && b.code == 404 && p.transport && p.code == 403) return Status::ok();  // the pod is not ours to see
    }
    const std::string now = pod_there ? "its pod is going" + (text_at(pj, "/spec/nodeName").empty() ? "" : " (node " + text_at(pj, "/spec/nodeName") + ")")
                            : bottle_there && !at(bj, "/metadata/finalizers").empty() ? "waits for " + at(bj, "/metadata/finalizers").dump()
                                                                                      : "waiting for the API server";
    if (now != left) progress("down", left = now);
    if (std::chrono::steady_clock::now() > deadline)
      return {Code::kTimeout, "bottle " + key.text() + " is deleted, but " + now + " still; if the node is lost: kubectl -n " + key.ns + " delete pod " + key.name +
                                  " --grace-period=0 --force"};
    std::this_thread::sleep_for(waits_.poll);
  }
}

Result<CleanupReport> KubernetesBackend::cleanup(bool) {
  auto bottles = list_all(kube::kBottles, namespace_, {}, kube::kMetadataListOnly);
  if (!bottles) return bottles.status();
  std::vector<std::string> uids;
  for (const auto& b : *bottles) uids.push_back(text_at(b, "/metadata/uid"));
  CleanupReport report;
  for (const kube::Resource& kind : {kube::kPods, kube::kConfigMaps, kube::kSecrets, kube::kNetworkPolicies}) {
    auto all = list_all(kind, namespace_, {{"labelSelector", std::string(kube::kManagedBy) + "=bottle-controller," + std::string(kube::kBottleLabel)}}, kube::kMetadataListOnly);
    if (!all && all.status().code() == Code::kPermission) {
      report.left.push_back(std::string(kind.plural) + ": not seen (no permission to list them)");
      continue;
    }
    if (!all) return all.status();
    for (const auto& object : *all) {
      bool owned = false;
      for (const auto& uid : uids) owned |= owned_by(object, uid);
      if (owned) continue;
      std::string why = "its Bottle is gone, the cluster's garbage collector takes it";
      if (at(object, "/metadata/ownerReferences").empty()) why = "it has our label and no owner: somebody else made it";
      report.left.push_back(std::string(kind.kind) + " " + text_at(object, "/metadata/namespace") + "/" + text_at(object, "/metadata/name") + ": " + why);
    }
  }
  return report;
}

}  // namespace bottle::kubernetes
