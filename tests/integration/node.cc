// A node that is played: what scheduler, kubelet and egress would do for a bottle's pod, by the same API and the same port.
#include <httplib.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <atomic>
#include <map>
#include <mutex>
#include <thread>

#include "base/encoding.h"
#include "base/rfc3339.h"
#include "controller/kube/resource.h"
#include "tests/integration/plane.h"

namespace bottle::test {
namespace {

constexpr const char* kNode = "played";
constexpr int kEgressPort = 9091;
const std::string kAllPods = "/api/v1/pods?labelSelector=app.kubernetes.io%2Fmanaged-by%3Dbottle-controller";

std::string hmac_hex(const std::string& key, const std::string& text) {
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char*>(text.data()), text.size(), mac, &size);
  return hex({reinterpret_cast<const char*>(mac), size});
}

Json container(const std::string& name, const Json& state, bool ready) {
  return {{"name", name}, {"image", "x"}, {"imageID", "x"}, {"restartCount", 0}, {"ready", ready}, {"started", ready}, {"state", state}};
}

}  // namespace

struct Node::Impl {
  httplib::Server egress;
  std::thread server, kubelet;
  std::atomic<bool> over{false};
  std::mutex mutex;
  std::map<std::string, std::string> pods;  // address -> "namespace/name"
  int next = 1;

  // Not Plane's calls: the server may be away, and then the node just tries again.
  static kube::Answer call(const std::string& method, const std::string& path, const Json& body = nullptr, std::string_view type = "") {
    kube::Request r;
    r.method = method;
    r.path = path;
    if (!body.is_null()) r.body = body.dump();
    r.content_type = type;
    r.timeout = std::chrono::seconds(5);
    return plane->client().call(r);
  }

  Json node_status() const {
    return {{"conditions", Json::array({{{"type", "Ready"}, {"status", "True"}, {"reason", "Played"}, {"lastHeartbeatTime", format_rfc3339(std::time(nullptr))}}})}};
  }

  void tend(const Json& pod) {
    const Json& meta = pod["metadata"];
    const std::string ns = meta["namespace"], name = meta["name"], path = kube::object_path(kube::kPods, ns, name);
    if (meta.contains("deletionTimestamp")) {
      call("DELETE", path, {{"kind", "DeleteOptions"}, {"apiVersion", "v1"}, {"gracePeriodSeconds", 0}, {"preconditions", {{"uid", meta["uid"]}}}});
      return;
    }
    if (!pod["spec"].contains("nodeName")) {
      call("POST", path + "/binding", {{"apiVersion", "v1"}, {"kind", "Binding"}, {"metadata", {{"name", name}}}, {"target", {{"kind", "Node"}, {"name", kNode}}}});
      return;
    }
    if (pod["status"].contains("podIP")) return;
    std::string ip;
    {
      std::lock_guard<std::mutex> lock(mutex);
      ip = "127.77." + std::to_string(next / 250) + "." + std::to_string(next % 250 + 1);
      ++next;
      pods[ip] = ns + "/" + name;
    }
    const Json started = {{"startedAt", meta["creationTimestamp"]}};
    const Json done = {{"terminated", {{"exitCode", 0}, {"reason", "Completed"}, {"startedAt", meta["creationTimestamp"]}, {"finishedAt", meta["creationTimestamp"]}}}};
    call("PATCH", path + "/status",
         {{"metadata", {{"uid", meta["uid"]}}},
          {"status",
           {{"phase", "Running"},
            {"podIP", ip},
            {"podIPs", Json::array({{{"ip", ip}}})},
            {"conditions", Json::array({{{"type", "Ready"}, {"status", "True"}}, {{"type", "ContainersReady"}, {"status", "True"}}})},
            {"initContainerStatuses", Json::array({container("guard", done, true), container("egress", {{"running", started}}, true)})},
            {"containerStatuses", Json::array({container("agent", {{"running", started}}, true)})}}}},
         kube::kMergePatch);
  }

  void run() {
    call("POST", "/api/v1/nodes", {{"metadata", {{"name", kNode}}}});
    auto heartbeat = std::chrono::steady_clock::time_point();
    while (!over) {
      if (auto now = std::chrono::steady_clock::now(); now - heartbeat > std::chrono::seconds(5)) {
        heartbeat = now;
        call("PATCH", std::string("/api/v1/nodes/") + kNode + "/status", {{"status", node_status()}}, kube::kStrategicPatch);
      }
      auto list = call("GET", kAllPods);
      if (list.ok()) {
        const Json pods_now = Json::parse(list.body);
        for (const auto& pod : pods_now["items"]) tend(pod);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
    }
  }

  // What egress says: it enforces what its pod was last told.
  void answer(const httplib::Request& q, httplib::Response& a) {
    const std::string host = q.get_header_value("Host");
    std::string pod;
    {
      std::lock_guard<std::mutex> lock(mutex);
      auto it = pods.find(host.substr(0, host.find(':')));
      if (it != pods.end()) pod = it->second;
    }
    const size_t slash = pod.find('/');
    if (slash == std::string::npos) {
      a.status = 404;
      return;
    }
    const std::string ns = pod.substr(0, slash), name = pod.substr(slash + 1);
    auto object = call("GET", kube::object_path(kube::kPods, ns, name)), secret = call("GET", kube::object_path(kube::kSecrets, ns, name + "-egress-ca"));
    if (!object.ok() || !secret.ok()) {
      a.status = 503;
      return;
    }
    const std::string nonce = q.get_param_value("nonce"), hash = Json::parse(object.body)["metadata"]["annotations"].value("bot-bottle.dev/policy-hash", "");
    const std::string body = Json{{"nonce", nonce}, {"policyHash", hash}, {"ready", true}, {"error", ""}, {"tokens", Json::object()}}.dump();
    a.set_header("Bottle-Mac", hmac_hex(decode_base64(Json::parse(secret.body)["data"]["status.key"].get<std::string>()).value_or(""), nonce + "\n" + body));
    a.set_content(body, "application/json");
  }
};

Node::Node() : impl_(std::make_unique<Impl>()) {
  Impl* i = impl_.get();
  i->egress.Get("/status", [i](const httplib::Request& q, httplib::Response& a) { i->answer(q, a); });
  EXPECT_TRUE(i->egress.bind_to_port("0.0.0.0", kEgressPort)) << "port 9091 is taken";
  i->server = std::thread([i] { i->egress.listen_after_bind(); });
  i->kubelet = std::thread([i] { i->run(); });
}

Node::~Node() {
  impl_->over = true;
  impl_->egress.stop();
  impl_->server.join();
  impl_->kubelet.join();
}

}  // namespace bottle::test
