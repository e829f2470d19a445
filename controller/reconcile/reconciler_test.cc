// A bottle's life, told pass by pass.
#include <gmock/gmock.h>

#include <thread>

#include "controller/reconcile/test_world.h"

namespace bottle::reconcile {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using namespace std::chrono_literals;

std::string hello(const std::string& from = "", const std::string& to = "") {
  std::string s = kHello;
  if (!from.empty()) s.replace(s.find(from), from.size(), to);
  return s;
}
// With more at the top of the spec.
std::string hello_and(const std::string& more) { return "{" + more + "," + std::string(kHello).substr(1); }

std::string annotation(World& w, const std::string& key, const std::string& name) {
  auto o = w.get(key);
  return o ? (*o)["metadata"]["annotations"].value("bot-bottle.dev/" + name, "") : "";
}

// Launched and Ready.
void launch(World& w, const std::string& spec = kHello) {
  w.secret("github", "token");
  w.apply_bottle(spec);
  w.pass();
  w.run_pod();
  w.pass();
  ASSERT_EQ(w.condition("Ready"), "True/Enforced") << w.message("Ready");
}

TEST(Launch, FourObjectsAndOneStatus) {
  World w;
  w.secret("github", "token");
  w.apply_bottle(kHello);
  const Outcome first = w.pass();
  EXPECT_TRUE(first.status) << first.status.message();
  EXPECT_THAT(w.log(), ElementsAre("POST configmaps/hello-policy", "POST secrets/hello-egress-ca", "POST networkpolicies/hello-bottle", "POST pods/hello"));
  EXPECT_EQ(w.condition("Ready"), "");  // passing: not worth a write yet
  w.pod_status({{"phase", "Pending"}});
  w.pass();
  w.run_pod();
  w.pass();
  EXPECT_EQ(w.writes(), 5);
  EXPECT_EQ(w.condition("Ready"), "True/Enforced");
  EXPECT_EQ(w.condition("Isolated"), "True/GuardVerified");
  EXPECT_EQ(w.condition("SecretsFound"), "True/Found");
  EXPECT_EQ(w.condition("Scanned"), "False/NoScanner");
  EXPECT_EQ(w.condition("Finished"), "False/Running");
  const Json status = (*w.get("dev/bottles/hello"))["status"];
  EXPECT_EQ(status["observedGeneration"], 1);
  EXPECT_EQ(status["policyHash"], annotation(w, "dev/configmaps/hello-policy", "policy-hash"));
  EXPECT_EQ(status["pod"], (Json{{"name", "hello"}, {"node", "node-1"}, {"ip", "10.1.2.3"}}));
  EXPECT_EQ(status["agent"]["state"], "Running");
  EXPECT_EQ(status["ca"]["fingerprint"], annotation(w, "dev/secrets/hello-egress-ca", "ca-fingerprint"));
  // And then nothing any more.
  for (int i = 0; i < 3; ++i) w.advance(60), w.pass();
  EXPECT_EQ(w.writes(), 5);
  EXPECT_EQ(w.asked, 1);
  EXPECT_THAT(w.events(), ElementsAre("PodCreated", "Ready"));
  EXPECT_THAT(w.registry.expose(), HasSubstr("bottle_bottles{state=\"ready\"} 1"));
}

TEST(Launch, ACacheThatIsBehindCausesNoSecondWrite) {
  World w;
  w.secret("github", "token");
  w.apply_bottle(kHello);
  w.freeze();
  w.pass();
  w.pass();
  w.pass();
  EXPECT_EQ(w.writes(), 4);
  w.frozen_cache = false;
  w.run_pod();
  w.pass();
  w.freeze();  // and of the status
  w.pass();
  EXPECT_EQ(w.writes(), 5);
}

TEST(Launch, APassingStateIsWrittenWhenItLasts) {
  World w;
  w.apply_bottle(kHello);
  EXPECT_LE(w.pass().requeue_after, 3s);
  w.advance(4);
  w.pass();
  EXPECT_EQ(w.condition("Ready"), "False/Pending");
  EXPECT_EQ(w.writes("bottles"), 1);
}

TEST(Launch, KilledAfterAnyWriteItConvergesToOnePod) {
  for (int n = 1; n <= 5; ++n) {
    World w;
    w.secret("github", "token");
    w.apply_bottle(kHello);
    w.kill_after = n;
    bool killed = false;
    for (int i = 0; i < 8; ++i) {
      try {
        w.pass();
        if (w.get("dev/pods/hello")) w.run_pod();
      } catch (const Killed&) {
        killed = true;
        w.start();
      }
    }
    EXPECT_TRUE(killed) << n;
    EXPECT_EQ(w.condition("Ready"), "True/Enforced") << n;
    EXPECT_EQ(w.writes("pods"), 1) << n;
    EXPECT_EQ(w.writes("secrets"), 1) << n;
    EXPECT_EQ(w.writes("configmaps"), 1) << n;
    // The pod has the CA that is there: also when a pass before made it.
    EXPECT_EQ(annotation(w, "dev/pods/hello", "ca-fingerprint"), annotation(w, "dev/secrets/hello-egress-ca", "ca-fingerprint"));
  }
}

TEST(Launch, ASecondProcessThatSeesNothingYetAdoptsWhatIsThere) {
  World w;
  w.secret("github", "token");
  w.apply_bottle(kHello);
  w.freeze();
  w.pass();
  w.start();
  w.pass();  // the cache is empty, everything AlreadyExists
  EXPECT_EQ(w.writes(), 4);
  w.frozen_cache = false;
  w.run_pod();
  w.pass();
  EXPECT_EQ(w.condition("Ready"), "True/Enforced");  // with the status key read back
}

TEST(Spec, AnInvalidOneChangesNothing) {
  World w;
  launch(w);
  w.clear_writes();
  w.apply_bottle(R"({"agent":{"image":"agent:1","runAsUser":0},"egress":{"rutes":[]}})");
  const Outcome o = w.pass();
  EXPECT_TRUE(o.terminal);
  EXPECT_EQ(w.condition("Planned"), "False/InvalidSpec");
  EXPECT_EQ(w.condition("Ready"), "False/InvalidSpec");
  EXPECT_THAT(w.message("Ready"), AllOf(HasSubstr("rutes"), HasSubstr("nothing was changed")));
  EXPECT_THAT(w.log(), ElementsAre("PATCH bottles/hello/status"));
  EXPECT_EQ((*w.get("dev/bottles/hello"))["status"]["observedGeneration"], 2);
  EXPECT_THAT(w.events(), Contains("InvalidSpec"));
}

TEST(Policy, AChangeIsPushedIntoTheRunningPod) {
  World w;
  launch(w);
  w.clear_writes();
  const std::string uid = (*w.get("dev/pods/hello"))["metadata"]["uid"], before = annotation(w, "dev/pods/hello", "policy-hash");
  w.enforced = before;
  w.apply_bottle(hello("\"host\":\"api.github.com\"", "\"host\":\"api.github.com\",\"paths\":[\"/repos/\"]"));
  Outcome o = w.pass();
  EXPECT_THAT(w.log(), ElementsAre("PATCH configmaps/hello-policy", "PATCH pods/hello"));
  EXPECT_NE(annotation(w, "dev/pods/hello", "policy-hash"), before);
  EXPECT_LE(o.requeue_after, 100ms);
  w.advance_ms(100);
  o = w.pass();  // egress has not heard yet
  EXPECT_LE(o.requeue_after, 200ms);
  w.enforced.clear();
  w.advance_ms(200);
  w.pass();
  EXPECT_EQ(w.condition("Ready"), "True/Enforced");
  EXPECT_EQ((*w.get("dev/bottles/hello"))["status"]["policyHash"], annotation(w, "dev/pods/hello", "policy-hash"));
  EXPECT_EQ(w.writes("bottles"), 1);
  EXPECT_EQ((*w.get("dev/pods/hello"))["metadata"]["uid"], uid);  // nothing was restarted
  EXPECT_THAT(w.events(), AllOf(Contains("PolicyChanged"), Contains("PolicyEnforced")));
  EXPECT_THAT(w.registry.expose(), HasSubstr("bottle_policy_push_seconds_count 1"));
}

TEST(Policy, OneThatEgressDoesNotTakeIsToldAndBumpedAgain) {
  World w;
  launch(w);
  w.enforced = "sha256:old";
  w.egress_error = "routes.yaml: line 3";
  w.apply_bottle(hello("\"host\":\"api.github.com\"", "\"host\":\"api.github.com\",\"paths\":[\"/repos/\"]"));
  w.pass();
  for (int i = 0; i < 4; ++i) w.advance(1), w.pass();
  EXPECT_EQ(w.condition("Ready"), "False/PolicyRejected");
  EXPECT_THAT(w.message("Ready"), HasSubstr("routes.yaml: line 3"));
  EXPECT_NE(annotation(w, "dev/pods/hello", "refresh"), "");
}

TEST(Policy, ChangedGuardRulesAreLoadedByAContainerOfTheirOwn) {
  World w;
  launch(w);
  w.clear_writes();
  w.apply_bottle(hello("\"host\":\"api.github.com\"", "\"host\":\"api.github.com\",\"ports\":[8443]"));
  w.pass();
  EXPECT_EQ(w.writes("pods/hello/ephemeralcontainers"), 1);
  w.pass();
  EXPECT_EQ(w.writes("pods/hello/ephemeralcontainers"), 1);
  w.guard_update_ends(1);
  w.pass();
  EXPECT_EQ(w.condition("Isolated"), "False/GuardFailed");
  w.advance(20);
  w.pass();
  EXPECT_EQ(w.writes("pods/hello/ephemeralcontainers"), 2);  // another try, under another name
  w.guard_update_ends(0);
  w.advance_ms(200);
  w.pass();
  w.advance_ms(200);
  w.pass();
  EXPECT_EQ(w.condition("Ready"), "True/Enforced") << w.message("Ready");
  EXPECT_THAT(w.events(), Contains("GuardUpdated"));
  // Back to the first rules: loaded again, and not taken for loaded because the pod started with them.
  w.apply_bottle(kHello);
  w.pass();
  EXPECT_EQ(w.writes("pods/hello/ephemeralcontainers"), 3);
}

TEST(Pki, RenewedAtTwoThirdsAndThePodFollows) {
  World w;
  launch(w);
  const std::string first = annotation(w, "dev/secrets/hello-egress-ca", "ca-fingerprint");
  w.advance(243 * 86'400);
  w.pass();
  EXPECT_EQ(annotation(w, "dev/secrets/hello-egress-ca", "ca-fingerprint"), first);
  w.advance(86'400);
  w.pass();
  EXPECT_NE(annotation(w, "dev/secrets/hello-egress-ca", "ca-fingerprint"), first);
  EXPECT_FALSE(w.get("dev/pods/hello"));
  w.pass();
  EXPECT_EQ(annotation(w, "dev/pods/hello", "ca-fingerprint"), annotation(w, "dev/secrets/hello-egress-ca", "ca-fingerprint"));
  w.run_pod();
  w.pass();
  EXPECT_EQ(w.condition("Ready"), "True/Enforced");
  EXPECT_THAT(w.events(), AllOf(Contains("CARenewal"), Contains("Replacing")));
  w.clear_writes();
  for (int i = 0; i < 240; ++i) w.advance(86'400), w.pass();
  EXPECT_EQ(w.writes(), 0);  // the Secret's age is not the CA's
}

TEST(Tokens, MissingThenThereThenWithoutItsKey) {
  World w;
  w.apply_bottle(kHello);
  w.pass();
  w.run_pod();
  w.pass();
  EXPECT_EQ(w.condition("Ready"), "True/Enforced");  // its routes answer 503, the rest works
  EXPECT_EQ(w.condition("SecretsFound"), "False/SecretMissing");
  EXPECT_THAT(w.message("SecretsFound"), AllOf(HasSubstr("secret \"github\" in namespace \"dev\""), HasSubstr("route api.github.com"), HasSubstr("kubectl")));
  w.missing_tokens = {"BOT_BOTTLE_TOKEN_GITHUB_TOKEN"};
  w.secret("github", "other");
  w.pass();
  EXPECT_NE(annotation(w, "dev/pods/hello", "tokens-revision"), "");
  w.advance_ms(100);
  w.pass();
  EXPECT_EQ(w.condition("SecretsFound"), "False/KeyMissing");
  EXPECT_THAT(w.message("SecretsFound"), HasSubstr("secret \"github\" in namespace \"dev\" has no key \"token\" (route api.github.com)"));
  w.missing_tokens.clear();
  w.secret("github", "token");
  w.pass();
  w.advance_ms(100);
  w.pass();
  EXPECT_EQ(w.condition("SecretsFound"), "True/Found");
  EXPECT_THAT(w.events(), AllOf(Contains("TokenChanged"), Contains("SecretMissing"), Contains("KeyMissing")));
}

TEST(Pod, SpecDriftReplacesItAndNeverMakesTwo) {
  World w;
  launch(w);
  w.graceful = true;
  w.clear_writes();
  w.apply_bottle(hello("agent:1", "agent:2"));
  w.pass();
  w.pass();
  EXPECT_EQ(w.writes("pods"), 1);  // the deletion
  EXPECT_EQ(w.condition("Ready"), "False/Replacing");
  w.erase("dev/pods/hello");
  w.pass();
  EXPECT_EQ(w.log().back(), "POST pods/hello");
  w.run_pod();
  w.pass();
  EXPECT_EQ(w.condition("Ready"), "True/Enforced");
  EXPECT_THAT(w.events(), Contains("Replacing"));
}

TEST(Pod, OtherControllerOptionsLeaveItAlone) {
  World w;
  launch(w);
  w.clear_writes();
  w.start([](ReconcilerOptions* o) { o->plan.sidecars_image = "sidecars:2"; });
  w.pass();
  EXPECT_EQ(w.writes("pods"), 0);
  EXPECT_EQ(w.condition("Planned"), "True/Outdated");
  EXPECT_EQ(w.condition("Ready"), "True/Enforced");
}

TEST(Pod, DeletedByAPersonItComesBack) {
  World w;
  launch(w);
  w.erase("dev/pods/hello");
  w.pass();
  EXPECT_TRUE(w.get("dev/pods/hello"));
  EXPECT_THAT(w.notes(), HasSubstr("made again"));
}

Json ended(int code, const std::string& reason, const std::string& at) {
  return {{"phase", code ? "Failed" : "Succeeded"},
          {"initContainerStatuses", Json::array({{{"name", "guard"}, {"state", {{"terminated", {{"exitCode", 0}}}}}}})},
          {"containerStatuses",
           Json::array({{{"name", "agent"}, {"restartCount", 0}, {"state", {{"terminated", {{"exitCode", code}, {"reason", reason}, {"finishedAt", at}}}}}}})}};
}

TEST(Pod, AFinishedAgentStaysFinished) {
  World w;
  launch(w);
  w.pod_status(ended(137, "OOMKilled", "2027-01-15T08:00:00Z"));
  w.pass();
  EXPECT_EQ(w.condition("Finished"), "True/OOMKilled");
  EXPECT_EQ(w.condition("Ready"), "False/Finished");
  EXPECT_EQ((*w.get("dev/bottles/hello"))["status"]["agent"]["exitCode"], 137);
  EXPECT_THAT(w.events(), Contains("Finished"));  // sent before the controller below takes over
  w.clear_writes();
  w.erase("dev/pods/hello");
  w.start();
  w.pass();
  w.pass();
  EXPECT_EQ(w.writes("pods"), 0);
  EXPECT_EQ(w.condition("Finished"), "True/OOMKilled");
  w.apply_bottle(hello("agent:1", "agent:2"));  // another wish
  w.pass();
  EXPECT_EQ(w.writes("pods"), 1);
}

TEST(Pod, EvictedIsNotFinished) {
  World w;
  launch(w);
  Json s = ended(137, "Error", "2027-01-15T08:00:00Z");
  s["reason"] = "Evicted";
  s["message"] = "The node was low on resource: memory";
  w.pod_status(s);
  w.pass();
  w.pass();
  EXPECT_THAT(w.log().back(), "POST pods/hello");
  EXPECT_THAT(w.notes(), HasSubstr("low on resource"));
}

TEST(Pod, SuspendedAndResumed) {
  World w;
  launch(w);
  w.apply_bottle(hello_and("\"suspend\":true"));
  w.pass();
  EXPECT_FALSE(w.get("dev/pods/hello"));
  w.pass();
  EXPECT_EQ(w.condition("Ready"), "False/Suspended");
  EXPECT_THAT(w.events(), Contains("Suspended"));
  w.apply_bottle(kHello);
  w.pass();
  EXPECT_TRUE(w.get("dev/pods/hello"));
}

TEST(Pod, FinishedForItsTimeTheBottleIsDeleted) {
  World w;
  launch(w, hello_and("\"ttlSecondsAfterFinished\":60"));
  w.pod_status(ended(0, "Completed", "2027-01-15T08:00:00Z"));
  const Outcome o = w.pass();
  EXPECT_EQ(w.condition("Finished"), "True/Completed");
  EXPECT_LE(o.requeue_after, 60s);
  w.advance(61);
  w.pass();
  EXPECT_FALSE(w.get("dev/bottles/hello"));
  EXPECT_THAT(w.events(), Contains("Expired"));
}

TEST(Pod, AFailedGuardMeansNotIsolated) {
  World w;
  w.apply_bottle(kHello);
  w.pass();
  w.pod_status({{"phase", "Failed"},
                {"initContainerStatuses",
                 Json::array({{{"name", "guard"}, {"state", {{"terminated", {{"exitCode", 3}, {"message", "{\"error\":\"no nf_tables\"}"}, {"finishedAt", "2027-01-15T08:00:00Z"}}}}}}})}});
  w.pass();
  EXPECT_EQ(w.condition("Isolated"), "False/GuardFailed");
  EXPECT_EQ(w.condition("Finished"), "False/Running");
  EXPECT_THAT(w.message("Isolated"), AllOf(HasSubstr("exit code 3"), HasSubstr("no nf_tables")));
  EXPECT_THAT(w.events(), Contains("GuardFailed"));
}

TEST(Pod, AWrongImageIsToldOnceForBothReasons) {
  World w;
  w.apply_bottle(kHello);
  w.pass();
  auto waiting = [](const std::string& reason, const std::string& message) {
    return Json{{"phase", "Pending"}, {"containerStatuses", Json::array({{{"name", "agent"}, {"state", {{"waiting", {{"reason", reason}, {"message", message}}}}}}})}};
  };
  w.pod_status(waiting("ErrImagePull", "not found"));
  w.pass();
  EXPECT_EQ(w.condition("Ready"), "False/ImagePullBackOff");
  EXPECT_THAT(w.message("Ready"), AllOf(HasSubstr("agent:1"), HasSubstr("not found")));
  w.pod_status(waiting("ImagePullBackOff", "Back-off pulling image \"agent:1\": ErrImagePull: not found"));
  w.pass();
  EXPECT_EQ(w.writes("bottles"), 1);
}

TEST(Pod, NoNodeTakesIt) {
  World w;
  w.apply_bottle(kHello);
  w.pass();
  w.pod_status({{"phase", "Pending"}, {"conditions", Json::array({{{"type", "PodScheduled"}, {"status", "False"}, {"reason", "Unschedulable"}, {"message", "0/1 nodes: Insufficient cpu"}}})}});
  w.pass();
  EXPECT_EQ(w.condition("Ready"), "False/Unschedulable");
  EXPECT_THAT(w.message("Ready"), HasSubstr("Insufficient cpu"));
}

TEST(Pod, OnALostNodeIsWaitedFor) {
  World w;
  launch(w);
  w.graceful = true;
  w.apply_bottle(hello("agent:1", "agent:2"));
  w.pass();
  w.advance(60);
  w.clear_writes();
  w.pass();
  EXPECT_EQ(w.condition("Ready"), "False/NodeLost");
  EXPECT_THAT(w.message("Ready"), HasSubstr("kubectl delete node node-1"));
  EXPECT_EQ(w.writes("pods"), 0);
}

TEST(Egress, UnreachableIsUnknownAndSaysWhatToOpen) {
  World w;
  w.egress_up = false;
  w.secret("github", "token");
  w.apply_bottle(kHello);
  w.pass();
  w.run_pod();
  w.pass();
  w.advance(4);
  w.pass();
  EXPECT_EQ(w.condition("Ready"), "Unknown/StatusUnreachable");
  EXPECT_THAT(w.message("Ready"), AllOf(HasSubstr("10.1.2.3:9091"), HasSubstr("NetworkPolicy")));
}

TEST(Names, TakenByOthersAreLeftAlone) {
  for (const char* key : {"dev/configmaps/hello-policy", "dev/secrets/hello-egress-ca", "dev/networkpolicies/hello-bottle", "dev/pods/hello"}) {
    World w;
    w.put(key, {{"data", {{"mine", "eA=="}}}});
    const Json before = *w.get(key);
    w.apply_bottle(kHello);
    const Outcome o = w.pass();
    EXPECT_EQ(w.condition("Ready"), "False/NameTaken") << key;
    EXPECT_GT(o.requeue_after, 0s);
    EXPECT_EQ(*w.get(key), before);
    EXPECT_THAT(w.events(), Contains("NameTaken"));
  }
}

TEST(Names, OfAFormerBottleAreWaitedFor) {
  World w;
  launch(w);
  const std::string old = (*w.get("dev/bottles/hello"))["metadata"]["uid"];
  w.erase("dev/bottles/hello");
  w.pass();
  w.apply_bottle(kHello);
  w.clear_writes();
  w.pass();
  EXPECT_EQ(w.writes("pods"), 0);
  for (const char* key : {"dev/configmaps/hello-policy", "dev/secrets/hello-egress-ca", "dev/networkpolicies/hello-bottle", "dev/pods/hello"}) w.erase(key);
  w.pass();
  w.run_pod();
  w.pass();
  EXPECT_EQ(w.condition("Ready"), "True/Enforced");
}

TEST(Refusals, EachHasItsConditionAndNoPod) {
  struct Case { int code; const char* reason; const char* words; const char* told; const char* fix; };
  for (const Case& c : {Case{403, "Forbidden", "pods \"hello\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1", "QuotaExceeded", "ResourceQuota"},
                        Case{403, "Forbidden", "pods \"hello\" is forbidden: violates PodSecurity \"restricted:latest\": non-default capabilities", "PodSecurityForbidden", "pod-security.kubernetes.io/enforce=privileged"},
                        Case{400, "BadRequest", "admission webhook \"v.example.com\" denied the request: not on Fridays", "AdmissionDenied", "not on Fridays"},
                        Case{403, "Forbidden", "pods is forbidden: User \"system:serviceaccount:x:y\" cannot create resource \"pods\" in API group \"\"", "ControllerForbidden", "RBAC"},
                        Case{422, "Invalid", "Pod \"hello\" is invalid: spec.x", "Rejected", "spec.x"}}) {
    World w;
    w.fault = [&](const kube::Request& r) -> std::optional<kube::Answer> {
      if (r.method == "POST" && r.path.find("/pods") != std::string::npos) return World::refuse(c.code, c.reason, c.words);
      return std::nullopt;
    };
    w.apply_bottle(kHello);
    const Outcome o = w.pass();
    EXPECT_TRUE(o.status);
    EXPECT_GE(o.requeue_after, 30s) << c.told;
    EXPECT_EQ(w.condition("Ready"), std::string("False/") + c.told);
    EXPECT_THAT(w.message("Ready"), HasSubstr(c.fix));
    EXPECT_EQ(w.condition("Isolated"), std::string(c.told) == "PodSecurityForbidden" ? "False/PodSecurityForbidden" : "False/NotStarted");
    EXPECT_FALSE(w.get("dev/pods/hello"));
    EXPECT_THAT(w.events(), Contains(c.told));
    w.clear_writes();
    w.pass();
    EXPECT_EQ(w.writes(), 0);  // told once
    w.fault = nullptr;
    w.pass();
    EXPECT_TRUE(w.get("dev/pods/hello"));
  }
}

TEST(Refusals, ANamespaceThatEndsIsQuiet) {
  World w;
  w.fault = [&](const kube::Request& r) -> std::optional<kube::Answer> {
    if (r.method != "GET") return World::refuse(403, "Forbidden", "unable to create new content in namespace dev because it is being terminated");
    return std::nullopt;
  };
  w.apply_bottle(kHello);
  EXPECT_TRUE(w.pass().status);
  w.fault = nullptr;
  EXPECT_EQ(w.condition("Ready"), "");
}

TEST(Refusals, ATransientOneIsTriedAgain) {
  World w;
  w.fault = [&](const kube::Request& r) -> std::optional<kube::Answer> {
    if (r.method == "POST" && r.path.find("/secrets") != std::string::npos) return World::refuse(503, "ServiceUnavailable", "etcd is away");
    return std::nullopt;
  };
  w.apply_bottle(kHello);
  EXPECT_FALSE(w.pass().status);
  w.fault = nullptr;
  EXPECT_TRUE(w.pass().status);
  EXPECT_TRUE(w.get("dev/pods/hello"));
}

TEST(NetworkPolicies, OfOthersThatWidenAreTold) {
  World w;
  w.put("dev/networkpolicies/open", {{"spec", {{"podSelector", Json::object()}, {"policyTypes", {"Egress"}}, {"egress", Json::array({Json::object()})}}}});
  launch(w);
  EXPECT_EQ(w.condition("Isolated"), "True/NetworkPolicyWidened");
  EXPECT_THAT(w.message("Isolated"), HasSubstr("\"open\""));
  EXPECT_THAT(w.events(), Contains("NetworkPolicyWidened"));
}

TEST(Secrets, AreInNoStatusAndNoEvent) {
  World w;
  launch(w);
  const Json data = (*w.get("dev/secrets/hello-egress-ca"))["data"];
  const std::string told = w.get("dev/bottles/hello")->dump() + w.notes() + w.get("dev/pods/hello")->dump() + w.get("dev/configmaps/hello-policy")->dump();
  for (const auto& [name, value] : data.items())
    if (name != "ca.pem") {
      EXPECT_THAT(told, Not(HasSubstr(value.get<std::string>()))) << name;
    }
}

TEST(Threads, WorkersOnDifferentBottlesDoNotMeet) {
  World w;
  w.secret("github", "token");
  constexpr int kBottles = 12;
  auto name = [](int i) { return "b" + std::to_string(i); };
  for (int i = 0; i < kBottles; ++i) w.apply_bottle(kHello, name(i));
  auto all = [&](const std::function<void(const std::string&)>& work) {
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&, t] {
        for (int i = t; i < kBottles; i += 4) work(name(i));
      });
    for (auto& t : threads) t.join();
  };
  all([&](const std::string& n) { w.pass(n); });
  all([&](const std::string& n) { w.run_pod(n); w.pass(n); w.registry.expose(); });
  for (int i = 0; i < kBottles; ++i) EXPECT_EQ(w.condition("Ready", name(i)), "True/Enforced");
  EXPECT_EQ(w.writes(), 5 * kBottles);
}

}  // namespace
}  // namespace bottle::reconcile
