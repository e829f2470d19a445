// For tests: the API server's side of all caches. Objects are the smallest JSON that a decoder takes.
#ifndef CONTROLLER_RECONCILE_TEST_FEED_H_
#define CONTROLLER_RECONCILE_TEST_FEED_H_

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "controller/kube/client.h"
#include "tests/support/fake_api.h"

namespace bottle::reconcile {

using Json = nlohmann::json;

inline Json object(const std::string& api_version, const std::string& kind, const std::string& ns, const std::string& name, const std::string& uid = "") {
  static int version = 100;
  return {{"apiVersion", api_version},
          {"kind", kind},
          {"metadata", {{"namespace", ns}, {"name", name}, {"uid", uid.empty() ? "uid-" + name : uid}, {"resourceVersion", std::to_string(++version)}}}};
}
inline Json bottle_object(const std::string& ns, const std::string& name, int generation = 1, const std::string& uid = "") {
  Json o = object("bot-bottle.dev/v1alpha1", "Bottle", ns, name, uid);
  o["metadata"]["generation"] = generation;
  o["spec"] = {{"agent", {{"image", "bot-bottle/agent:latest"}}}};
  return o;
}
// Makes `o` a child of the Bottle `owner` as the controller does.
inline Json owned(Json o, const std::string& owner, const std::string& owner_uid = "") {
  o["metadata"]["labels"] = {{"app.kubernetes.io/managed-by", "bottle-controller"}, {"bot-bottle.dev/bottle", owner}};
  o["metadata"]["ownerReferences"] = Json::array({{{"apiVersion", "bot-bottle.dev/v1alpha1"},
                                                   {"kind", "Bottle"},
                                                   {"name", owner},
                                                   {"uid", owner_uid.empty() ? "uid-" + owner : owner_uid},
                                                   {"controller", true}}});
  return o;
}
inline Json pod_object(const std::string& ns, const std::string& name) {
  Json o = object("v1", "Pod", ns, name, "pod-" + name);
  o["spec"] = {{"containers", Json::array({{{"name", "agent"}}})}};
  o["status"] = {{"phase", "Running"}};
  return o;
}
inline Json secret_object(const std::string& ns, const std::string& name) {
  return object("meta.k8s.io/v1", "PartialObjectMetadata", ns, name, "secret-" + name);
}
inline Json egress_policy(const std::string& ns, const std::string& name) {
  Json o = object("networking.k8s.io/v1", "NetworkPolicy", ns, name, "np-" + name);
  o["spec"] = {{"podSelector", Json::object()}, {"policyTypes", {"Egress"}}, {"egress", Json::array({Json::object()})}};
  return o;
}

class Feed {
 public:
  explicit Feed(kube::FakeApi& api) : api_(api) {}
  // The initial state of one kind: the events, then "that is all".
  void open(const std::string& plural, const std::vector<Json>& objects = {}) {
    auto stream = api_.wait_stream("/" + plural + "?");
    ASSERT_TRUE(stream) << plural << " is not watched";
    streams_[plural] = stream;
    for (const auto& o : objects) send(plural, "ADDED", o);
    stream->line(Json{{"type", "BOOKMARK"},
                      {"object", {{"kind", "X"}, {"metadata", {{"resourceVersion", "100"}, {"annotations", {{"k8s.io/initial-events-end", "true"}}}}}}}}
                     .dump());
  }
  void open_all(const std::vector<Json>& bottles = {}) {
    open("bottles", bottles);
    for (const char* plural : {"pods", "configmaps", "secrets", "networkpolicies"}) open(plural);
  }
  void send(const std::string& plural, const std::string& type, const Json& o) { streams_.at(plural)->line(Json{{"type", type}, {"object", o}}.dump()); }

 private:
  kube::FakeApi& api_;
  std::map<std::string, std::shared_ptr<kube::FakeApi::Stream>> streams_;
};

inline std::unique_ptr<kube::Client> client_of(const kube::FakeApi& api) {
  kube::ClientOptions options;
  options.user_agent = "bottle-controller/test";
  auto client = kube::Client::create(api.config(), options);
  EXPECT_TRUE(client.is_ok()) << client.status().message();
  return std::move(client).value();
}

}  // namespace bottle::reconcile

#endif  // CONTROLLER_RECONCILE_TEST_FEED_H_
