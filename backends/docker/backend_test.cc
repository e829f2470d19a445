// The backend against an engine of the test's own: order, faults, updates, what is never touched.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "backends/docker/container_body.h"
#include "backends/docker/docker_backend.h"
#include "backends/docker/fake_engine.h"
#include "base/file.h"

namespace bottle::docker {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Not;

class DockerBackendTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/bottle-docker-test-XXXXXX";
    dir_ = ::mkdtemp(name);
    engine_ = std::make_unique<FakeEngine>(dir_ + "/engine.sock");
    for (const char* image :
         {"bot-bottle/sidecars:latest", "bot-bottle/mitmproxy:latest", "agent:1"})
      engine_->add_image(image, {{"Cmd", {"run"}}});
    auto backend = open_docker_backend({dir_ + "/engine.sock", dir_ + "/state"});
    ASSERT_TRUE(backend) << backend.status().message();
    backend_ = std::move(*backend);
  }
  void TearDown() override {
    backend_.reset();
    engine_.reset();
    (void)remove_tree(dir_);
  }
  ApplyRequest request(const std::string& host = "example.com", uint16_t port = 443) {
    Bottle b;
    b.name = "one";
    b.agent.image = "agent:1";
    b.key_type = KeyType::kEcdsaP256;
    RouteSpec r;
    r.host = host, r.ports = {port};
    r.inject.push_back({"authorization", "Bearer ", {"api", "key"}});
    b.egress.routes = {r};
    auto p = plan(b);
    EXPECT_TRUE(p) << p.status().message();
    ApplyRequest q;
    q.plan = std::move(*p);
    q.bottle_json = "{}";
    q.resolvers = {"192.0.2.53"};
    q.tokens[q.plan.tokens.at(0).env] = SecretString("t0p-s3cr3t");
    return q;
  }
  Status up(const ApplyRequest& q) { return backend_->apply(q, {}); }
  Condition ready() {
    auto o = backend_->observe("one");
    return o && o->condition("Ready") ? *o->condition("Ready") : Condition{};
  }
  std::vector<std::string> names() {
    std::vector<std::string> out;
    for (const auto& [name, c] : engine_->containers()) out.push_back(name);
    return out;
  }
  std::string dir_;
  std::unique_ptr<FakeEngine> engine_;
  std::unique_ptr<Backend> backend_;
};

TEST_F(DockerBackendTest, StartsInOrderInsideTheGuardsNamespace) {
  auto q = request();
  Status s = up(q);
  ASSERT_TRUE(s) << s.message();
  EXPECT_THAT(engine_->starts(), ElementsAre("guard", "egress", "agent"));
  auto all = engine_->containers();
  ASSERT_THAT(names(), ElementsAre("claude-bottle-agent-one", "claude-bottle-egress-one",
                                   "claude-bottle-guard-one"));
  const std::string holder = all.at("claude-bottle-guard-one").id;
  EXPECT_EQ(all.at("claude-bottle-guard-one").body["HostConfig"]["NetworkMode"],
            "claude-bottle-net-one");
  for (const char* name : {"claude-bottle-agent-one", "claude-bottle-egress-one"})
    EXPECT_EQ(all.at(name).body["HostConfig"]["NetworkMode"], "container:" + holder);
  EXPECT_EQ(ready().status, "True") << ready().message;
  auto o = backend_->observe("one");
  EXPECT_EQ(o->policy_hash, q.plan.policy_hash);
  EXPECT_THAT(engine_->all_bodies(), Not(HasSubstr("t0p-s3cr3t")));
  EXPECT_THAT(engine_->all_bodies(), Not(HasSubstr("PRIVATE KEY")));
  for (const auto& [name, c] : all)
    for (const auto& m : c.body["HostConfig"]["Mounts"])
      EXPECT_THAT(m.value("Source", ""), Not(HasSubstr("/one/ca"))) << "the bare key is mounted";
}

TEST_F(DockerBackendTest, AGuardThatFailsKeepsEverythingDown) {
  engine_->script("guard", "{\"guard\":\"failed\",\"reason\":\"no nft_ct\"}\n", 1);
  Status s = up(request());
  EXPECT_EQ(s.code(), Code::kUnsupported);
  EXPECT_THAT(s.message(), HasSubstr("no nft_ct"));
  EXPECT_THAT(engine_->starts(), ElementsAre("guard"));
  EXPECT_THAT(ready().message, HasSubstr("no nft_ct"));
  engine_->script("guard", "{\"guard\":\"verified\"}\n");
  EXPECT_TRUE(up(request()));
  EXPECT_EQ(ready().status, "True");
}

TEST_F(DockerBackendTest, AGuardThatSaysNothingKeepsEverythingDown) {
  engine_->script("guard", "Segmentation fault\n", 139);
  Status s = up(request());
  EXPECT_FALSE(s);
  EXPECT_THAT(s.message(), HasSubstr("139"));
  EXPECT_THAT(engine_->starts(), ElementsAre("guard"));
}

TEST_F(DockerBackendTest, AnEgressThatEndsKeepsTheAgentDown) {
  engine_->script("egress", "cannot read routes\n", 1);
  Status s = up(request());
  EXPECT_FALSE(s);
  EXPECT_THAT(s.message(), HasSubstr("cannot read routes"));
  EXPECT_THAT(engine_->starts(), ElementsAre("guard", "egress"));
  for (const auto& [name, c] : engine_->containers()) EXPECT_FALSE(c.running) << name;
}

TEST_F(DockerBackendTest, ANameOfSomebodyElseIsLeftAlone) {
  engine_->add_container("claude-bottle-agent-one",
                         {{"Image", "theirs"}, {"Labels", {{"a", "b"}}}});
  Status s = up(request());
  EXPECT_EQ(s.code(), Code::kConflict);
  EXPECT_THAT(s.message(), HasSubstr("not ours"));
  EXPECT_EQ(engine_->containers().at("claude-bottle-agent-one").body["Image"], "theirs");
  ASSERT_TRUE(backend_->remove("one", {}));
  EXPECT_THAT(names(), ElementsAre("claude-bottle-agent-one"));
}

TEST_F(DockerBackendTest, AContainerOfAnotherStateFolderIsLeftAlone) {
  Json labels = {{kLabelManaged, "true"},
                 {kLabelSlug, "one"},
                 {kLabelName, "one"},
                 {kLabelState, "/home/other/.bot-bottle/state"}};
  engine_->add_container("claude-bottle-guard-one", {{"Image", "x"}, {"Labels", labels}});
  engine_->add_network("claude-bottle-net-one", labels);
  EXPECT_EQ(up(request()).code(), Code::kConflict);
  ASSERT_TRUE(backend_->cleanup(false));
  EXPECT_THAT(names(), ElementsAre("claude-bottle-guard-one"));
  EXPECT_TRUE(engine_->networks().contains("claude-bottle-net-one"));
}

TEST_F(DockerBackendTest, WhatAnInterruptedCommandLeftIsReplaced) {
  Json labels = {{kLabelManaged, "true"},
                 {kLabelSlug, "one"},
                 {kLabelName, "one"},
                 {kLabelState, dir_ + "/state"},
                 {kLabelRole, "agent"}};
  std::string old =
      engine_->add_container("claude-bottle-agent-one", {{"Image", "x"}, {"Labels", labels}});
  engine_->add_network("claude-bottle-net-one", labels);
  Status s = up(request());
  ASSERT_TRUE(s) << s.message();
  EXPECT_NE(engine_->containers().at("claude-bottle-agent-one").id, old);
}

TEST_F(DockerBackendTest, FaultsOfTheEngineSayWhatToDo) {
  engine_->fail(
      "POST /networks/create", 500,
      "could not find an available, non-overlapping IPv4 address pool among the defaults");
  Status s = up(request());
  EXPECT_EQ(s.code(), Code::kExhausted);
  EXPECT_THAT(s.message(), HasSubstr("bottle cleanup"));
  engine_->fail("create?name=claude-bottle-agent-one", 500,
                "mkdir /var/lib/docker/x: no space left on device");
  s = up(request());
  EXPECT_EQ(s.code(), Code::kExhausted);
  EXPECT_THAT(s.message(), HasSubstr("disk is full"));
  EXPECT_THAT(engine_->starts(), Not(Contains("egress")));
  engine_->fail("-agent-one/start", 500, "failed");
  EXPECT_FALSE(up(request()));
  for (const auto& [name, c] : engine_->containers()) EXPECT_FALSE(c.running) << name;
  EXPECT_TRUE(up(request()));
}

TEST_F(DockerBackendTest, APullThatFailsInsideItsStream) {
  engine_->remove_image("agent:1");
  engine_->set_pull_answer(
      "{\"status\":\"Pulling\"}\n{\"errorDetail\":{\"message\":\"manifest "
      "unknown\"},\"error\":\"manifest unknown\"}\n");
  auto q = request();
  Status s = up(q);
  EXPECT_EQ(s.code(), Code::kNotFound);
  EXPECT_THAT(s.message(), HasSubstr("manifest unknown"));
  q.pull = false;
  EXPECT_EQ(up(q).code(), Code::kNotFound);
  EXPECT_TRUE(engine_->starts().empty());
}

TEST_F(DockerBackendTest, APolicyChangeRestartsNothing) {
  ASSERT_TRUE(up(request()));
  auto before = engine_->containers();
  auto q = request("other.example.com", 8443);
  Status s = up(q);
  ASSERT_TRUE(s) << s.message();
  EXPECT_THAT(engine_->starts(), ElementsAre("guard", "egress", "agent", "guard-apply"));
  for (const auto& [name, c] : before) EXPECT_EQ(engine_->containers().at(name).id, c.id);
  EXPECT_THAT(names(), ElementsAre("claude-bottle-agent-one", "claude-bottle-egress-one",
                                   "claude-bottle-guard-one"));
  EXPECT_EQ(backend_->observe("one")->policy_hash, q.plan.policy_hash);
  ASSERT_TRUE(up(q));
  EXPECT_EQ(engine_->starts().size(), 4u) << "nothing changed: nothing runs";
}

TEST_F(DockerBackendTest, RulesThatDoNotLoadAreAFailureAndTriedAgain) {
  ASSERT_TRUE(up(request()));
  engine_->script("guard-apply", "{\"guard\":\"failed\",\"reason\":\"busy\"}\n", 1);
  auto q = request("example.com", 8443);
  Status s = up(q);
  EXPECT_FALSE(s);
  EXPECT_THAT(s.message(), HasSubstr("busy"));
  EXPECT_EQ(ready().status, "False");
  engine_->script("guard-apply", "{\"guard\":\"verified\"}\n", 0);
  EXPECT_TRUE(up(q));
  EXPECT_EQ(ready().status, "True");
}

TEST_F(DockerBackendTest, ADeadGuardOrOneOfAnotherNamespaceMeansANewBottle) {
  ASSERT_TRUE(up(request()));
  engine_->restart("claude-bottle-guard-one");
  EXPECT_EQ(ready().reason, "GuardDown");
  auto before = engine_->containers();
  ASSERT_TRUE(up(request()));
  for (const auto& [name, c] : before) EXPECT_NE(engine_->containers().at(name).id, c.id);
  engine_->kill("claude-bottle-guard-one");
  EXPECT_EQ(ready().reason, "GuardDown");
  ASSERT_TRUE(up(request()));
  EXPECT_EQ(ready().status, "True");
  engine_->kill("claude-bottle-egress-one");
  EXPECT_EQ(ready().reason, "EgressNotReady");
  ASSERT_TRUE(up(request()));
  EXPECT_EQ(ready().status, "True");
}

TEST_F(DockerBackendTest, ANewTokenAloneIsWaitedFor) {
  ASSERT_TRUE(up(request()));
  auto q = request();
  q.tokens.begin()->second = SecretString("second");
  ASSERT_TRUE(up(q));
  EXPECT_THAT(engine_->starts(), ElementsAre("guard", "egress", "agent"));
  EXPECT_EQ(*read_file(dir_ + "/state/one/tokens/" + q.plan.tokens[0].env), "second");
}

TEST_F(DockerBackendTest, AnInterruptLeavesWhatDownAndCleanupHandle) {
  for (bool by_down : {true, false}) {
    engine_->script("egress", "");  // runs, and never reports
    const size_t before = engine_->starts().size();
    std::jthread user([&] {
      while (engine_->starts().size() < before + 2) std::this_thread::yield();
      g_cancelled = true;
    });
    Status s = up(request());
    user.join();
    g_cancelled = false;
    EXPECT_EQ(s.code(), Code::kCancelled) << s.message();
    for (const auto& [name, c] : engine_->containers()) EXPECT_FALSE(c.running) << name;
    EXPECT_EQ(ready().reason, "Interrupted");
    EXPECT_TRUE(by_down ? backend_->remove("one", {}) : backend_->cleanup(false).status());
    EXPECT_TRUE(names().empty());
    EXPECT_TRUE(engine_->networks().empty());
    EXPECT_NE(::access((dir_ + "/state/one").c_str(), F_OK), 0);
  }
}

TEST_F(DockerBackendTest, OneCommandAtATimeChangesABottle) {
  ASSERT_TRUE(up(request()));
  auto other = open_docker_backend({dir_ + "/engine.sock", dir_ + "/state"});
  ASSERT_TRUE(other);
  engine_->script("egress", "");
  engine_->kill("claude-bottle-guard-one");
  std::jthread first([&] { (void)up(request()); });
  while (engine_->starts().size() < 5) std::this_thread::yield();
  EXPECT_EQ((*other)->remove("one", {}).code(), Code::kConflict);
  auto swept = (*other)->cleanup(false);
  ASSERT_TRUE(swept);
  EXPECT_TRUE(swept->removed.empty());
  g_cancelled = true;
  first.join();
  g_cancelled = false;
}

TEST_F(DockerBackendTest, AMissingTokenIsACondition) {
  auto q = request();
  q.tokens.clear();
  ASSERT_TRUE(up(q));
  auto o = backend_->observe("one");
  EXPECT_EQ(o->condition("SecretsFound")->status, "False");
  EXPECT_EQ(o->condition("Ready")->status, "True");
}

TEST_F(DockerBackendTest, DownTakesAllAndCleanupTheLeftovers) {
  ASSERT_TRUE(up(request()));
  Json labels = {{kLabelManaged, "true"},
                 {kLabelSlug, "old"},
                 {kLabelName, "old"},
                 {kLabelState, dir_ + "/state"},
                 {kLabelRole, "egress"}};
  engine_->add_container("claude-bottle-egress-old", {{"Labels", labels}});
  engine_->add_network("claude-bottle-net-old", labels);
  auto dry = backend_->cleanup(true);
  ASSERT_TRUE(dry);
  EXPECT_THAT(dry->removed,
              ElementsAre("container claude-bottle-egress-old", "network claude-bottle-net-old"));
  EXPECT_THAT(names(), Contains("claude-bottle-egress-old"));
  ASSERT_TRUE(backend_->cleanup(false));
  EXPECT_THAT(names(), Not(Contains("claude-bottle-egress-old")));
  EXPECT_EQ(ready().status, "True") << "cleanup leaves a bottle that is one";
  ASSERT_TRUE(backend_->remove("one", {}));
  EXPECT_TRUE(names().empty());
  EXPECT_TRUE(engine_->networks().empty());
  EXPECT_EQ(backend_->observe("one").status().code(), Code::kNotFound);
  EXPECT_EQ(backend_->remove("one", {}).code(), Code::kNotFound);
  EXPECT_NE(::access((dir_ + "/state/one").c_str(), F_OK), 0);
}

TEST_F(DockerBackendTest, ExecNeverBecomesASidecar) {
  ASSERT_TRUE(up(request()));
  ExecOptions o;
  o.argv = {"id"};
  for (const char* user : {"10001", "10099:0", "egress", "010001", "1000:x"}) {
    o.user = user;
    EXPECT_FALSE(backend_->exec("one", o)) << user;
  }
  EXPECT_THAT(engine_->all_bodies(), Not(HasSubstr("/exec")));
}

TEST_F(DockerBackendTest, CountersAreTheGuardsOwnWords) {
  ASSERT_TRUE(up(request()));
  auto counters = backend_->guard_counters("one");
  ASSERT_TRUE(counters) << counters.status().message();
  EXPECT_EQ(*counters, "{\"refused\":{\"packets\":1}}");
  EXPECT_THAT(names(), Not(Contains("claude-bottle-guard-counters-one")));
}

TEST(DockerBackendOpen, SaysThatThereIsNoEngine) {
  char name[] = "/tmp/bottle-docker-test-XXXXXX";
  std::string dir = ::mkdtemp(name);
  auto none = open_docker_backend({dir + "/none.sock", dir + "/state"});
  EXPECT_EQ(none.status().code(), Code::kUnavailable);
  EXPECT_THAT(none.status().message(), HasSubstr("start it"));
  auto checks = docker_doctor({dir + "/none.sock", dir + "/state"});
  ASSERT_EQ(checks.size(), 1u);
  EXPECT_EQ(checks[0].status, "fail");
  (void)remove_tree(dir);
}

}  // namespace
}  // namespace bottle::docker
