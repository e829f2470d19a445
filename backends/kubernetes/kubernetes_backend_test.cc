// The backend against an API server that answers as a test says: what is asked of it, and what a person is told.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "backends/kubernetes/kubernetes_impl.h"
#include "controller/bottle/parse.h"
#include "tests/support/fake_api.h"

namespace bottle::kubernetes {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using kube::FakeApi;

constexpr char kHello[] = R"(apiVersion: bot-bottle.dev/v1alpha1
kind: Bottle
metadata: { name: hello }
spec:
  agent: { image: "busybox:1", env: [{ name: EMPTY, value: "" }] }
  egress:
    routes:
    - { host: api.example.com, inject: [{ header: authorization, secretKeyRef: { name: api, key: token } }] }
  pipelock: { enabled: false }
)";
const std::string kBottlePath = "/apis/bot-bottle.dev/v1alpha1/namespaces/dev/bottles/hello";
const std::string kSecretPath = "/api/v1/namespaces/dev/secrets/api";
const std::string kPodPath = "/api/v1/namespaces/dev/pods/hello";

Json bottle(int generation, const Json& status = {}) {
  static int version = 5;
  Json b = {{"apiVersion", "bot-bottle.dev/v1alpha1"},
            {"kind", "Bottle"},
            {"metadata",
             {{"name", "hello"}, {"namespace", "dev"}, {"uid", "u1"}, {"generation", generation}, {"resourceVersion", std::to_string(++version)}}},
            {"spec", {{"agent", {{"image", "busybox:1"}}}}}};
  if (!status.is_null()) b["status"] = status;
  return b;
}
Json status_of(int generation, const char* ready, const char* reason, const char* message = "") {
  return {{"observedGeneration", generation}, {"conditions", {{{"type", "Ready"}, {"status", ready}, {"reason", reason}, {"message", message}}}}};
}
Json pod(const char* owner = "u1") {
  Json p = {{"spec", {{"nodeName", "n1"}, {"containers", {{{"name", "agent"}, {"image", "busybox:1"}}}}}}};
  p["metadata"] = {{"name", "hello"}, {"namespace", "dev"}, {"ownerReferences", {{{"kind", "Bottle"}, {"uid", owner}, {"controller", true}}}}};
  Json agent = {{"name", "agent"}, {"restartCount", 2}};
  agent["state"]["running"]["startedAt"] = "2026-01-01T00:00:01Z";
  p["status"]["containerStatuses"] = Json::array({agent});
  return p;
}
Json list_of(const std::vector<Json>& items) { return {{"metadata", Json::object()}, {"items", items}}; }
std::string event(const char* type, const Json& object) { return Json{{"type", type}, {"object", object}}.dump() + "\n"; }
std::string synced() {
  Json b = {{"kind", "Bottle"}, {"apiVersion", "bot-bottle.dev/v1alpha1"}};
  b["metadata"] = {{"resourceVersion", "9"}, {"annotations", {{"k8s.io/initial-events-end", "true"}}}};
  return event("BOOKMARK", b);
}
FakeApi::Reply json_reply(const Json& body) {
  FakeApi::Reply r;
  r.body = body.dump();
  return r;
}
FakeApi::Reply missing(const std::string& what) { return FakeApi::error(404, "NotFound", what + " \"hello\" not found"); }

class KubernetesBackendTest : public ::testing::Test {
 protected:
  void SetUp() override {
    g_cancelled = false;
    reply("GET /api/v1/namespaces/dev/events", list_of({}));
    open();
  }
  void TearDown() override { g_cancelled = false; }
  void open(bool all_namespaces = false) {
    auto client = kube::Client::create(api_.config("person"), {});
    ASSERT_TRUE(client);
    KubernetesOptions o;
    o.namespace_ = "dev", o.all_namespaces = all_namespaces;
    using namespace std::chrono_literals;
    backend_ = std::make_unique<KubernetesBackend>(std::move(*client), o, Waits{20s, notice_, 10s, 10ms});
  }
  void reply(const std::string& what, const Json& body, int code = 200) { api_.reply(what, code, body.dump()); }
  // Applies kHello; `tell` is the watch's side, as soon as it is open.
  Status apply(const std::function<void(FakeApi::Stream&)>& tell, bool with_token = false, bool from_environment = false) {
    const BottleFile file = parse_bottle_file(kHello);
    ApplyRequest request;
    request.plan = *plan(file.bottles.at(0));
    request.bottle_json = render_bottle_json(file.bottles[0]);
    const std::string env = token_env_name({"api", "token"});
    if (with_token) request.tokens.emplace(env, SecretString("s3cr3t-value"));
    if (from_environment) request.tokens_of_environment.insert(env);
    std::thread teller([&] {
      auto stream = tell ? api_.wait_stream("/bottles?") : nullptr;
      if (stream) tell(*stream);
    });
    Status s = backend_->apply(request, [&](std::string_view step, std::string_view text) { progress_ += std::string(step) + ": " + std::string(text) + "\n"; });
    teller.join();
    return s;
  }
  static std::function<void(FakeApi::Stream&)> says(const Json& now) {
    return [now](FakeApi::Stream& s) { s.send(event("ADDED", now) + synced()); };
  }

  FakeApi api_;
  std::chrono::milliseconds notice_{10'000};
  std::unique_ptr<KubernetesBackend> backend_;
  std::string progress_;
};

TEST_F(KubernetesBackendTest, UpAppliesWhatTheFileSaysAndWaitsForItsGeneration) {
  reply("PATCH " + kBottlePath, bottle(2), 201);
  const Status s = apply([](FakeApi::Stream& w) {
    w.send(event("ADDED", bottle(2, status_of(1, "True", "Enforced"))) + synced());  // Ready, but of what was before
    w.send(event("MODIFIED", bottle(2, status_of(2, "False", "Starting", "pulling"))));
    w.send(event("MODIFIED", bottle(2, status_of(2, "True", "Enforced"))));
  });
  EXPECT_TRUE(s) << s.message();
  EXPECT_THAT(progress_, HasSubstr("ready: Starting: pulling\nready: Enforced\n"));
  const auto call = api_.calls("PATCH").at(0);
  EXPECT_THAT(call.target, HasSubstr("fieldManager=bottle-cli&force=false"));
  EXPECT_EQ(call.header("content-type"), kube::kApply);
  const Json sent = Json::parse(call.body);
  EXPECT_EQ(sent["metadata"], (Json{{"name", "hello"}, {"namespace", "dev"}}));
  EXPECT_EQ(sent["spec"]["agent"]["env"][0]["value"], "");
  for (const char* empty : {"/spec/runtimeClassName", "/spec/agent/args", "/spec/agent/resources", "/spec/egress/allowCIDRs"})
    EXPECT_FALSE(sent.contains(Json::json_pointer(empty))) << empty;
  EXPECT_TRUE(api_.calls("secrets").empty());
}

TEST_F(KubernetesBackendTest, WhatWillNotChangeByWaitingIsToldAtOnce) {
  reply("PATCH " + kBottlePath, bottle(1), 201);
  const Status s = apply(says(bottle(1, status_of(1, "False", "PodSecurityForbidden", "label the namespace"))));
  EXPECT_EQ(s.code(), Code::kUnavailable);
  EXPECT_THAT(s.message(), HasSubstr("PodSecurityForbidden: label the namespace"));
}

TEST_F(KubernetesBackendTest, AnAgentThatIsDoneWasUp) {
  reply("PATCH " + kBottlePath, bottle(1));
  Json status = status_of(1, "False", "Finished");
  status["conditions"].push_back({{"type", "Finished"}, {"status", "True"}, {"reason", "Completed"}});
  EXPECT_TRUE(apply(says(bottle(1, status))));
}

TEST_F(KubernetesBackendTest, NobodyLooksAtTheBottle) {
  notice_ = std::chrono::milliseconds(300);
  open();
  reply("PATCH " + kBottlePath, bottle(1), 201);
  const Status s = apply(says(bottle(1)));
  EXPECT_EQ(s.code(), Code::kUnavailable);
  EXPECT_THAT(s.message(), HasSubstr("kubectl -n bot-bottle-system get deploy"));
}

TEST_F(KubernetesBackendTest, AFieldOfSomebodyElseIsNamed) {
  api_.reply("PATCH", 409,
             R"({"kind":"Status","status":"Failure","reason":"Conflict","message":"Apply failed with 1 conflict","details":{"causes":[)"
             R"({"reason":"FieldManagerConflict","message":"conflict with \"kubectl-edit\" using bot-bottle.dev/v1alpha1","field":".spec.agent.image"}]}})");
  const Status s = apply(nullptr);
  EXPECT_EQ(s.code(), Code::kConflict);
  EXPECT_THAT(s.message(), HasSubstr(".spec.agent.image"));
  EXPECT_THAT(s.message(), HasSubstr("kubectl-edit"));
  EXPECT_THAT(s.message(), HasSubstr("--force-conflicts"));
}

TEST_F(KubernetesBackendTest, AClusterThatDoesNotKnowBottlesSaysHowToInstall) {
  api_.reply("/bottles", 404, "404 page not found");
  EXPECT_THAT(apply(nullptr).message(), HasSubstr("install the controller"));
  EXPECT_THAT(backend_->list().status().message(), HasSubstr("install the controller"));
  EXPECT_THAT(backend_->observe("hello").status().message(), HasSubstr("install the controller"));
}

TEST_F(KubernetesBackendTest, ATokenBecomesASecretThatTheBottleOwns) {
  api_.on("GET " + kSecretPath, [](const FakeApi::Call&) { return missing("secrets"); });
  reply("PATCH " + kBottlePath, bottle(1), 201);
  reply("PATCH " + kSecretPath, Json::object());
  EXPECT_TRUE(apply(says(bottle(1, status_of(1, "True", "Enforced"))), true));
  const auto call = api_.calls("PATCH " + kSecretPath).at(0);
  EXPECT_THAT(call.target, HasSubstr("fieldManager=bottle-cli.hello&force=false"));
  EXPECT_EQ(call.header("accept"), kube::kMetadataOnly);
  const Json sent = Json::parse(call.body);
  EXPECT_EQ(sent["data"], (Json{{"token", "czNjcjN0LXZhbHVl"}}));
  EXPECT_EQ(sent["metadata"]["ownerReferences"][0]["uid"], "u1");
  EXPECT_EQ(sent["metadata"]["labels"]["app.kubernetes.io/managed-by"], "bottle-cli");
  for (const auto& c : api_.calls()) {
    if (c.line().rfind("PATCH " + kSecretPath, 0) == 0) continue;
    EXPECT_THAT(c.body + c.target, Not(HasSubstr("czNjcjN0")));
  }
  EXPECT_THAT(progress_, Not(HasSubstr("s3cr3t")));
}

TEST_F(KubernetesBackendTest, ASecretOfSomebodyElseIsNotWritten) {
  Json secret;
  secret["metadata"] = {{"name", "api"}, {"uid", "s1"}, {"managedFields", {{{"manager", "helm"}}}}};
  reply("GET " + kSecretPath, secret);
  reply("PATCH " + kBottlePath, bottle(1), 201);
  // A value in the file was meant; one in the environment stands back.
  const Status s = apply(nullptr, true);
  EXPECT_EQ(s.code(), Code::kConflict);
  EXPECT_THAT(s.message(), HasSubstr("helm"));
  EXPECT_TRUE(api_.calls("PATCH").empty());
  EXPECT_TRUE(apply(says(bottle(1, status_of(1, "True", "Enforced"))), true, true));
  EXPECT_TRUE(api_.calls("PATCH " + kSecretPath).empty());
  EXPECT_THAT(progress_, HasSubstr("exists and is used"));
}

TEST_F(KubernetesBackendTest, ASharedTokenIsTakenOverFromOurOtherBottlesAlone) {
  Json secret;
  secret["metadata"] = {{"name", "api"}, {"uid", "s1"}, {"labels", {{"app.kubernetes.io/managed-by", "bottle-cli"}}}};
  reply("GET " + kSecretPath, secret);
  reply("PATCH " + kBottlePath, bottle(1));
  std::string manager = "bottle-cli.other";
  api_.on("PATCH " + kSecretPath, [&](const FakeApi::Call& c) {
    if (c.target.find("force=true") != std::string::npos) return json_reply(Json::object());
    Json status = {{"kind", "Status"}, {"reason", "Conflict"}};
    status["details"]["causes"] = Json::array({{{"field", ".data.token"}, {"message", "conflict with \"" + manager + "\" using v1"}}});
    FakeApi::Reply r = json_reply(status);
    r.status = 409;
    return r;
  });
  EXPECT_TRUE(apply(says(bottle(1, status_of(1, "True", "Enforced"))), true));
  EXPECT_EQ(api_.calls("force=true").size(), 1u);
  manager = "kubectl-edit";
  const Status s = apply(nullptr, true);
  EXPECT_EQ(s.code(), Code::kConflict);
  EXPECT_THAT(s.message(), HasSubstr(".data.token"));
  EXPECT_EQ(api_.calls("force=true").size(), 1u);
}

TEST_F(KubernetesBackendTest, AFileForAnotherNamespaceIsRefused) {
  ApplyRequest request;
  const BottleFile file = parse_bottle_file(kHello);
  request.plan = *plan(file.bottles.at(0));
  Json j = Json::parse(render_bottle_json(file.bottles[0]));
  j["metadata"]["namespace"] = "prod";
  request.bottle_json = j.dump();
  EXPECT_EQ(backend_->apply(request, {}).code(), Code::kInvalid);
  EXPECT_TRUE(api_.calls().empty());
}

TEST_F(KubernetesBackendTest, AnInterruptEndsTheWait) {
  reply("PATCH " + kBottlePath, bottle(1), 201);
  EXPECT_EQ(apply([](FakeApi::Stream&) { g_cancelled = true; }).code(), Code::kCancelled);
}

TEST_F(KubernetesBackendTest, ListTellsStatusAndPodOfEveryNamespace) {
  open(true);
  reply("GET /apis/bot-bottle.dev/v1alpha1/bottles?", list_of({bottle(1, status_of(1, "True", "Enforced"))}));
  reply("GET /api/v1/pods?", list_of({pod()}));
  auto all = backend_->list();
  ASSERT_TRUE(all) << all.status().message();
  ASSERT_EQ(all->size(), 1u);
  const Observation& o = all->at(0);
  EXPECT_EQ(o.namespace_ + "/" + o.name, "dev/hello");
  EXPECT_EQ(o.condition("Ready")->status, "True");
  ASSERT_EQ(o.containers.size(), 3u);
  EXPECT_EQ(o.containers[2].state + std::to_string(o.containers[2].restarts), "running2");
  EXPECT_EQ(o.containers[0].state, "missing");
  EXPECT_EQ(parse_bottle_file(o.bottle_json).bottles.size(), 1u);
}

TEST_F(KubernetesBackendTest, AnOldStatusAndAForeignPodAreNotTheBottles) {
  reply("GET " + kBottlePath, bottle(2, status_of(1, "True", "Enforced")));
  reply("GET " + kPodPath, pod("u2"));
  auto one = backend_->observe("hello");
  ASSERT_TRUE(one);
  EXPECT_EQ(one->condition("Ready")->reason, "NotReconciled");
  EXPECT_TRUE(one->containers.empty());
  ExecOptions o;
  o.argv = {"true"};
  EXPECT_EQ(backend_->exec("hello", o).status().code(), Code::kNotFound);
  EXPECT_TRUE(api_.calls("/exec").empty());
}

TEST_F(KubernetesBackendTest, PagesAreFollowedAndBegunAgainWhenTheyExpire) {
  int round = 0;
  api_.on("GET /apis/bot-bottle.dev/v1alpha1/namespaces/dev/bottles?", [&](const FakeApi::Call& c) {
    const bool second = c.target.find("continue=") != std::string::npos;
    if (second && round++ == 0) return FakeApi::error(410, "Expired", "too old");
    Json page = list_of({bottle(1)});
    page["metadata"]["continue"] = second ? "" : "next";
    return json_reply(page);
  });
  auto all = backend_->list();
  ASSERT_TRUE(all) << all.status().message();
  EXPECT_EQ(all->size(), 2u);
}

TEST_F(KubernetesBackendTest, DownWaitsUntilThePodIsGone) {
  std::atomic<int> looks = 0;
  api_.on("GET " + kBottlePath, [&](const FakeApi::Call&) { return looks > 0 ? missing("bottles.bot-bottle.dev") : json_reply(bottle(1)); });
  api_.on("GET " + kPodPath, [&](const FakeApi::Call&) { return ++looks > 3 ? missing("pods") : json_reply(pod()); });
  reply("DELETE", Json::object());
  EXPECT_TRUE(backend_->remove("hello", [](auto, auto) {}));
  EXPECT_GT(looks, 3);
  EXPECT_THAT(api_.calls("DELETE").at(0).body, HasSubstr(R"("uid":"u1")"));
  EXPECT_EQ(backend_->remove("hello", [](auto, auto) {}).code(), Code::kNotFound);
}

TEST_F(KubernetesBackendTest, LogsGoOnUntilTheyEndAndStopWhenAsked) {
  reply("GET " + kBottlePath, bottle(1));
  reply("GET " + kPodPath, pod());
  api_.on("/log?", [](const FakeApi::Call&) {
    FakeApi::Reply r;
    r.stream = true, r.body = "";
    return r;
  });
  std::string got;
  std::thread server([&] {
    auto s = api_.wait_stream("/log?");
    ASSERT_TRUE(s);
    s->send("one\ntwo\n");
    s->end();
  });
  LogOptions follow;
  follow.follow = true, follow.tail = 5;
  EXPECT_TRUE(backend_->logs("hello", Role::kAgent, follow, [&](bool, std::string_view b) { return got += b, true; }));
  server.join();
  EXPECT_EQ(got, "one\ntwo\n");
  EXPECT_THAT(api_.calls("/log?").at(0).target, HasSubstr("container=agent&follow=true&tailLines=5"));

  const size_t size = 3u << 20;
  api_.on("/log?", [&](const FakeApi::Call&) {
    FakeApi::Reply r;
    r.body = std::string(size, 'x');
    return r;
  });
  EXPECT_TRUE(backend_->logs("hello", Role::kEgress, {}, [](bool, std::string_view) { return false; }));
  size_t n = 0;
  EXPECT_TRUE(backend_->logs("hello", Role::kEgress, {}, [&](bool, std::string_view b) { return n += b.size(), true; }));
  EXPECT_EQ(n, size);
  api_.on("/log?", [](const FakeApi::Call&) { return FakeApi::error(400, "BadRequest", "container \"agent\" is waiting to start"); });
  EXPECT_THAT(backend_->logs("hello", Role::kAgent, {}, [](bool, std::string_view) { return true; }).message(), HasSubstr("waiting to start"));
}

TEST_F(KubernetesBackendTest, WhatAClusterCannotDoIsSaid) {
  EXPECT_EQ(backend_->guard_counters("hello").status().code(), Code::kUnsupported);
  ExecOptions o;
  o.argv = {"id"}, o.user = "0";
  EXPECT_EQ(backend_->exec("hello", o).status().code(), Code::kUnsupported);
  EXPECT_TRUE(api_.calls().empty());
}

TEST_F(KubernetesBackendTest, CleanupNamesWhatHasNoBottleAndRemovesNothing) {
  reply("/bottles?", list_of({bottle(1)}));
  for (const char* kind : {"configmaps?", "secrets?", "networkpolicies?"}) reply(kind, list_of({}));
  reply("/pods?", list_of({pod(), pod("u0")}));
  auto report = backend_->cleanup(false);
  ASSERT_TRUE(report) << report.status().message();
  EXPECT_TRUE(report->removed.empty());
  EXPECT_THAT(report->left, ElementsAre(HasSubstr("Pod dev/hello: its Bottle is gone")));
  EXPECT_TRUE(api_.calls("DELETE").empty());
}

TEST_F(KubernetesBackendTest, DoctorTellsEachThingAndItsFix) {
  const auto look = [&](const std::string& name) {
    for (const auto& c : backend_->doctor())
      if (c.name == name) return c.status + " " + c.message + " | " + c.fix;
    return std::string("-");
  };
  EXPECT_THAT(look("API server"), HasSubstr("fail"));
  reply("GET /version", {{"major", "1"}, {"minor", "28+"}, {"gitVersion", "v1.28.1"}});
  EXPECT_THAT(look("API server"), HasSubstr("fail"));
  reply("GET /version", {{"major", "1"}, {"minor", "33"}, {"gitVersion", "v1.33.0"}});
  EXPECT_THAT(look("API server"), HasSubstr("ok"));
  EXPECT_THAT(look("CRD"), HasSubstr("install it"));
  EXPECT_THAT(look("controller"), HasSubstr("fail no deployment"));
  Json lease;
  lease["spec"] = {{"holderIdentity", "a"}, {"renewTime", "2020-01-01T00:00:00.000000Z"}};
  lease["metadata"]["resourceVersion"] = "1";
  reply("/leases/", lease);
  EXPECT_THAT(look("controller"), HasSubstr("not renewed by a"));
  int version = 0;
  api_.on("/leases/", [&](const FakeApi::Call&) {  // renewed, by a clock that is not ours
    lease["metadata"]["resourceVersion"] = std::to_string(++version);
    return json_reply(lease);
  });
  EXPECT_THAT(look("controller"), HasSubstr("ok a leads"));
  api_.on("selfsubjectaccessreviews", [](const FakeApi::Call& c) {
    Json review;
    review["status"]["allowed"] = c.body.find("secrets") == std::string::npos;
    return json_reply(review);
  });
  EXPECT_THAT(look("rights"), HasSubstr("create secrets (for up with tokens)"));
  Json ns;
  ns["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "restricted";
  reply("GET /api/v1/namespaces/dev", ns);
  EXPECT_THAT(look("namespace"), HasSubstr("fail dev enforces"));
  Json node;
  node["metadata"]["name"] = "n";
  node["status"]["nodeInfo"] = {{"operatingSystem", "linux"}, {"kernelVersion", "4.18.0"}, {"kubeletVersion", "v1.33.0"}};
  reply("GET /api/v1/nodes", list_of({node}));
  EXPECT_THAT(look("nodes"), HasSubstr("4.18.0"));
}

}  // namespace
}  // namespace bottle::kubernetes
