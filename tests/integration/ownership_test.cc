// What is whose: labels that others put on our objects stay, what they change of ours is taken back, and with the Bottle everything goes.
#include "tests/integration/plane.h"

namespace bottle::test {
namespace {

class OwnershipTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto proxy = ApiProxy::create(plane->kubeconfig());
    ASSERT_TRUE(proxy.is_ok()) << proxy.status().message();
    proxy_ = std::move(proxy).value();
    controller_ = std::make_unique<Controller>(*proxy_, std::vector<std::string>{"--leader-elect=false"});
  }
  // As another manager with server-side apply, or as a person with kubectl edit.
  Json apply(const std::string& path, Json object) {
    return plane->patch(path + "?fieldManager=somebody&force=true", object, kube::kApply);
  }

  Node node_;
  std::unique_ptr<ApiProxy> proxy_;
  std::unique_ptr<Controller> controller_;
};

TEST_F(OwnershipTest, ForeignLabelsStayAndForeignEditsOfOurDataGo) {
  Namespace ns("ownership");
  ns.create_bottle("hello");
  ASSERT_TRUE(wait_until([&] { return ns.is_ready("hello"); })) << controller_->log();
  const std::string path = ns.path("configmaps", "hello-policy");
  apply(path, {{"apiVersion", "v1"}, {"kind", "ConfigMap"}, {"metadata", {{"name", "hello-policy"}, {"labels", {{"team", "blue"}}}}}});
  plane->patch(ns.path("pods", "hello"), {{"metadata", {{"labels", {{"team", "blue"}}}, {"annotations", {{"example.com/note", "mine"}}}}}});
  // Somebody opens the policy; the Bottle is the policy, so with our next write theirs is gone.
  const std::string routes = plane->get(path)["data"]["routes.yaml"];
  plane->patch(path, {{"data", {{"routes.yaml", "routes: []\n"}}}});
  ns.set_hosts("hello", {"api.example.com", "more.example.com"});
  ASSERT_TRUE(wait_until([&] { return ns.is_ready("hello"); })) << controller_->log();
  const Json policy = plane->get(path), pod = plane->get(ns.path("pods", "hello"));
  EXPECT_EQ(policy["metadata"]["labels"]["team"], "blue");
  EXPECT_EQ(pod["metadata"]["labels"]["team"], "blue");
  EXPECT_EQ(pod["metadata"]["annotations"]["example.com/note"], "mine");
  const std::string now = policy["data"]["routes.yaml"];
  EXPECT_NE(now.find("more.example.com"), std::string::npos);
  EXPECT_NE(now, routes);
  // Who owns what: our manager has the data, the other one its label and nothing else.
  bool ours = false, theirs = false;
  for (const auto& m : policy["metadata"]["managedFields"]) {
    const std::string fields = m["fieldsV1"].dump();
    if (m["manager"] == "bottle-controller" && fields.find("f:routes.yaml") != std::string::npos) ours = true;
    if (m["manager"] == "somebody") theirs = fields.find("f:team") != std::string::npos && fields.find("f:data") == std::string::npos;
  }
  EXPECT_TRUE(ours && theirs) << policy["metadata"]["managedFields"].dump(1);
}

TEST_F(OwnershipTest, WhatIsDeletedComesBackOnce) {
  Namespace ns("deleted");
  ns.create_bottle("hello");
  ASSERT_TRUE(wait_until([&] { return ns.is_ready("hello"); })) << controller_->log();
  for (const char* child : {"configmaps/hello-policy", "networkpolicies/hello-bottle", "pods/hello"}) {
    const std::string text = child, path = ns.path(text.substr(0, text.find('/')), text.substr(text.find('/') + 1));
    const std::string uid = plane->get(path)["metadata"]["uid"];
    plane->remove(path);
    EXPECT_TRUE(wait_until([&] {
      const Json o = plane->get(path);
      return o.is_object() && o["metadata"]["uid"] != uid;
    })) << child << " does not come back\n" << controller_->log();
  }
  EXPECT_TRUE(wait_until([&] { return ns.is_ready("hello") && ns.children_of({"hello"}).empty(); })) << ns.children_of({"hello"});
}

TEST_F(OwnershipTest, AStrangersObjectIsNeitherTakenNorRemoved) {
  Namespace ns("stranger");
  Json stranger = {{"apiVersion", "v1"}, {"kind", "ConfigMap"}, {"metadata", {{"name", "hello-policy"}}}, {"data", {{"mine", "1"}}}};
  const Json made = plane->post(ns.path("configmaps"), stranger);
  ns.create_bottle("hello");
  ASSERT_TRUE(wait_until([&] { return plane->get(ns.path("bottles", "hello")).dump().find("NameTaken") != std::string::npos; })) << controller_->log();
  EXPECT_TRUE(ns.list("pods").empty());
  EXPECT_EQ(plane->get(ns.path("configmaps", "hello-policy"))["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
  plane->remove(ns.path("bottles", "hello"));
  ASSERT_TRUE(wait_until([&] { return plane->get(ns.path("bottles", "hello")).is_null(); }));
  EXPECT_TRUE(plane->get(ns.path("configmaps", "hello-policy")).is_object());
}

TEST_F(OwnershipTest, WithTheBottleEverythingGoesAlsoWithoutAController) {
  Namespace ns("collect");
  ns.create_bottle("hello");
  ASSERT_TRUE(wait_until([&] { return ns.is_ready("hello"); })) << controller_->log();
  controller_->kill9();
  plane->remove(ns.path("bottles", "hello"));
  EXPECT_TRUE(ns.collected());
}

}  // namespace
}  // namespace bottle::test
