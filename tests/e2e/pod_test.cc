// What is a pod's alone: its hardening, what happens when the kubelet restarts a part of it, live changes, and what a person is told when a
// bottle cannot be. On the node of scripts/cluster; whether something got out is judged at the far end.
#include <ctime>
#include <nlohmann/json.hpp>

#include "tests/e2e/fixture.h"

namespace e2e {
namespace {

using nlohmann::json;

json status_of(const std::string& bottle, const std::string& ns = "") {
  std::vector<std::string> args = {"get", "bottle", bottle, "-o", "json"};
  if (!ns.empty()) args.insert(args.end(), {"--namespace", ns});
  return json::parse(world->kubectl(args).out, nullptr, false);
}

// "True/Enforced" of a condition; "" when there is none, or when it is of an older generation.
std::string condition(const json& bottle, const std::string& type, std::string* message = nullptr) {
  if (!bottle.is_object() || !bottle.contains("status")) return "";
  for (const auto& c : bottle["status"].value("conditions", json::array()))
    if (c.value("type", "") == type && c.value("observedGeneration", int64_t{0}) == bottle["metadata"].value("generation", int64_t{-1})) {
      if (message) *message = c.value("message", "");
      return c.value("status", "") + "/" + c.value("reason", "");
    }
  return "";
}

testing::AssertionResult becomes(const std::string& bottle, const std::string& type, const std::string& wanted, double seconds = 60, const std::string& ns = "") {
  std::string last;
  if (wait_until([&] { return (last = condition(status_of(bottle, ns), type)) == wanted; }, seconds)) return testing::AssertionSuccess();
  return testing::AssertionFailure() << bottle << ": " << type << " is " << last << ", wanted " << wanted << "\n" << status_of(bottle, ns).dump(1);
}

// A bottle without routes, and one line more for its agent.
std::string small(const std::string& name, const std::string& agent, const std::string& more = "") {
  return "apiVersion: bot-bottle.dev/v1alpha1\nkind: Bottle\nmetadata: { name: " + name + " }\nspec:\n  agent: { " + agent + " }\n" + more;
}
const std::string kSleeper = "image: \"bot-bottle/agent:latest\", command: [sleep, infinity]";

Output call() { return world->exec({"curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "https://secret.bottle.test/v1/x"}); }

TEST(Call, ArrivesWithTheTokenOfTheSecret) {
  const Mark before = world->mark();
  EXPECT_EQ(call().out, "200");
  bool seen = false;
  for (const auto& r : world->requests(before)) seen = seen || r.dump().find("Bearer " + world->token()) != std::string::npos;
  EXPECT_TRUE(seen) << "the origin did not see the token";
}

TEST(Hardening, TheAgentHasNothingToClimbOn) {
  const Output o = world->exec({"sh", "-c",
                                "ls -d /var/run/secrets/kubernetes.io 2>&1; grep -E '^(CapEff|CapPrm|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; id -u; "
                                "ls /proc | grep -cE '^[0-9]+$'; cat /etc/resolv.conf | wc -c; cat /proc/*/comm 2>/dev/null | grep -c mitmdump"});
  EXPECT_NE(o.out.find("No such file"), std::string::npos) << o.out;
  for (const char* line : {"CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"})
    EXPECT_NE(o.out.find(line), std::string::npos) << line << "\n" << o.out;
  EXPECT_EQ(o.out.substr(o.out.size() - 4), "0\n0\n") << "a resolver, or a sidecar's process, is in sight:\n" << o.out;
}

TEST(Hardening, SidecarsCannotWriteToTheirRoot) {
  const json pod = json::parse(world->kubectl({"get", "pod", world->name(), "-o", "json"}).out);
  for (const auto& c : pod["spec"]["initContainers"]) {
    EXPECT_EQ(c["securityContext"]["readOnlyRootFilesystem"], true) << c["name"];
    EXPECT_TRUE(c["resources"].contains("limits") && c["resources"].contains("requests")) << c["name"];
    EXPECT_EQ(c["securityContext"]["capabilities"].value("add", json::array()), c["name"] == "guard" ? json{"NET_ADMIN"} : json::array());
  }
  EXPECT_EQ(pod["spec"]["automountServiceAccountToken"], false);
  EXPECT_FALSE(pod["spec"].value("shareProcessNamespace", false));
}

TEST(Refused, AnAgentThatIsRoot) {
  const Output o = world->apply(small("root", kSleeper + ", runAsUser: 0"));
  EXPECT_NE(o.code, 0);
  EXPECT_NE(o.err.find("runAsUser"), std::string::npos) << o.err;
}

TEST(Refused, ANamespaceThatForbidsTheGuard) {
  ASSERT_EQ(world->kubectl({"label", "namespace", "e2e-pod-strict", "pod-security.kubernetes.io/enforce=baseline", "--overwrite"}).code, 0);
  ASSERT_EQ(world->apply(small("guarded", kSleeper), "e2e-pod-strict").code, 0);
  EXPECT_TRUE(becomes("guarded", "Ready", "False/PodSecurityForbidden", 60, "e2e-pod-strict"));
  std::string message;
  condition(status_of("guarded", "e2e-pod-strict"), "Ready", &message);
  EXPECT_NE(message.find("pod-security.kubernetes.io/enforce"), std::string::npos) << message;
  EXPECT_EQ(world->kubectl({"get", "pods", "--namespace", "e2e-pod-strict", "-o", "name"}).out, "");
}

TEST(Policy, ChangesLiveWhileTheAgentRuns) {
  const std::string container = "{.status.containerStatuses[0].containerID}";
  const std::string before = world->jsonpath("pod/" + world->name(), container);
  EXPECT_EQ(world->exec({"curl", "-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "https://secret.bottle.test/v2/x"}).out, "403");
  const std::string routes = world->jsonpath("bottle/" + world->name(), "{.spec.egress.routes}");
  json changed = json::parse(routes);
  for (auto& r : changed)
    if (r["host"] == "secret.bottle.test") r["paths"] = {"/v1/", "/v2/"};
  const auto patch = [&](const json& to) {
    EXPECT_EQ(world->kubectl({"patch", "bottle", world->name(), "--type=merge", "-p", json{{"spec", {{"egress", {{"routes", to}}}}}}.dump()}).code, 0);
  };
  patch(changed);
  EXPECT_TRUE(wait_until([&] {
    return world->exec({"curl", "-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "https://secret.bottle.test/v2/x"}).out == "200";
  }, 10));
  patch(json::parse(routes));
  EXPECT_TRUE(wait_until([&] {
    return world->exec({"curl", "-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "https://secret.bottle.test/v2/x"}).out == "403";
  }, 10));
  EXPECT_EQ(world->jsonpath("pod/" + world->name(), container), before) << "the agent was restarted";
  EXPECT_TRUE(becomes(world->name(), "Ready", "True/Enforced"));
}

TEST(Policy, ANewPortOpensInTheGuardOfTheRunningPod) {
  const std::string container = "{.status.containerStatuses[0].containerID}";
  const std::string before = world->jsonpath("pod/" + world->name(), container);
  const auto asked = [] {
    return world->exec({"curl", "-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "http://port.bottle.test:8080/echo"}).out;
  };
  EXPECT_EQ(asked(), "403");
  const std::string routes = world->jsonpath("bottle/" + world->name(), "{.spec.egress.routes}");
  json changed = json::parse(routes);
  for (auto& r : changed)
    if (r["host"] == "port.bottle.test") r["ports"] = {8443, 8080};
  const auto patch = [&](const json& to) {
    EXPECT_EQ(world->kubectl({"patch", "bottle", world->name(), "--type=merge", "-p", json{{"spec", {{"egress", {{"routes", to}}}}}}.dump()}).code, 0);
  };
  patch(changed);
  EXPECT_TRUE(wait_until([&] { return asked() == "200"; }, 30)) << world->jsonpath("pod/" + world->name(), "{.status.ephemeralContainerStatuses}");
  patch(json::parse(routes));
  EXPECT_TRUE(wait_until([&] { return asked() == "403"; }, 30));
  EXPECT_EQ(world->jsonpath("pod/" + world->name(), container), before) << "the agent was restarted";
  EXPECT_TRUE(becomes(world->name(), "Ready", "True/Enforced"));
}

TEST(Tokens, FollowTheSecret) {
  ASSERT_EQ(world->kubectl({"delete", "secret", "origin"}).code, 0);
  EXPECT_TRUE(becomes(world->name(), "SecretsFound", "False/SecretMissing"));
  EXPECT_TRUE(wait_until([] { return call().out == "503"; }, 30));
  ASSERT_EQ(world->kubectl({"create", "secret", "generic", "origin", "--from-literal=token=" + world->token()}).code, 0);
  EXPECT_TRUE(becomes(world->name(), "SecretsFound", "True/Found"));
  EXPECT_TRUE(wait_until([] { return call().out == "200"; }, 30));
}

TEST(Restart, AKilledEgressOpensNothing) {
  const Mark before = world->mark();
  // The agent dials out all the while.
  world->exec({"sh", "-c", "(for i in $(seq 150); do curl -s -m 1 --noproxy '*' http://203.0.113.66/ -o /dev/null; sleep 0.1; done) >/dev/null 2>&1 &"});
  const std::string restarts = "{.status.initContainerStatuses[?(@.name==\"egress\")].restartCount}";
  const std::string id = world->jsonpath("pod/" + world->name(), "{.status.initContainerStatuses[?(@.name==\"egress\")].containerID}");
  ASSERT_NE(id.find("containerd://"), std::string::npos) << id;
  const Output killed = world->on_node({"ctr", "-n", "k8s.io", "tasks", "kill", "-s", "KILL", id.substr(13)});
  ASSERT_EQ(killed.code, 0) << killed.err;
  EXPECT_TRUE(wait_until([&] { return world->jsonpath("pod/" + world->name(), restarts) == "1"; }, 60));
  EXPECT_TRUE(becomes(world->name(), "Ready", "True/Enforced", 90));
  EXPECT_TRUE(wait_until([] { return call().out == "200"; }, 30));
  EXPECT_EQ(world->arrived(before), "");
}

// The kubelet makes another network namespace then, which is open until the guard has run in it. The agent dials from its first instruction on.
TEST(Restart, AKilledSandboxIsClosedAgainBeforeTheAgentStarts) {
  const Mark before = world->mark();
  const char* dialler = R"Y(image: "bot-bottle/agent:latest", restartPolicy: Always, command: ["python3", "-uc", "import socket, time\ndef d(k, a, p):\n  try:\n    s = socket.socket(2, k); s.settimeout(0.2)\n    s.sendto(b'x', (a, p)) if k == 2 else s.connect((a, p))\n  except OSError: pass\nwhile True:\n  for a in ('203.0.113.66', '169.254.169.254', '10.99.0.1', '198.51.100.7'): d(1, a, 443); d(2, a, 53)\n  print(time.time())"])Y";
  ASSERT_EQ(world->apply(small("sandbox", dialler)).code, 0);
  ASSERT_TRUE(becomes("sandbox", "Ready", "True/Enforced", 90));
  const std::string uid = world->jsonpath("pod/sandbox", "{.metadata.uid}");
  const auto sandbox = [&] {
    return world->on_node({"ctr", "-n", "k8s.io", "containers", "ls", "-q", "labels.\"io.kubernetes.pod.uid\"==" + uid + ",labels.\"io.cri-containerd.kind\"==sandbox"}).out;
  };
  const std::string first = sandbox();
  ASSERT_NE(first, "");
  const Output killed = world->on_node({"ctr", "-n", "k8s.io", "tasks", "kill", "-s", "KILL", first.substr(0, first.find('\n'))});
  ASSERT_EQ(killed.code, 0) << killed.err;
  EXPECT_TRUE(wait_until([&] {
    return strtol(world->jsonpath("pod/sandbox", "{.status.initContainerStatuses[?(@.name==\"guard\")].restartCount}").c_str(), nullptr, 10) >= 1;
  }, 60)) << "the guard did not run again";
  EXPECT_TRUE(becomes("sandbox", "Ready", "True/Enforced", 90));
  // And the agent that runs now has dialled.
  const double now = static_cast<double>(time(nullptr));
  EXPECT_TRUE(wait_until([&] { return strtod(world->kubectl({"logs", "--tail=1", "sandbox", "-c", "agent"}).out.c_str(), nullptr) > now; }, 30));
  EXPECT_EQ(world->jsonpath("pod/sandbox", "{.metadata.uid}"), uid) << "another pod, not another sandbox";
  EXPECT_EQ(world->arrived(before), "");
  world->kubectl({"delete", "bottle", "sandbox", "--wait=false"});
}

TEST(Told, AnImageThatDoesNotExist) {
  ASSERT_EQ(world->apply(small("noimage", "image: \"bot-bottle/none:1\", command: [sleep, infinity]")).code, 0);
  std::string message;
  EXPECT_TRUE(wait_until([&] { return condition(status_of("noimage"), "Ready", &message).rfind("False/", 0) == 0 && message.find("bot-bottle/none:1") != std::string::npos; }, 60))
      << message << status_of("noimage").dump(1);
  world->kubectl({"delete", "bottle", "noimage", "--wait=false"});
}

TEST(Told, ANameThatIsTakenAndIsLeftAlone) {
  ASSERT_EQ(world->kubectl({"create", "configmap", "taken-policy", "--from-literal=mine=yes"}).code, 0);
  ASSERT_EQ(world->apply(small("taken", kSleeper)).code, 0);
  EXPECT_TRUE(becomes("taken", "Ready", "False/NameTaken"));
  EXPECT_EQ(world->jsonpath("configmap/taken-policy", "{.data.mine}"), "yes");
  EXPECT_EQ(world->jsonpath("configmap/taken-policy", "{.metadata.ownerReferences}"), "");
  ASSERT_EQ(world->kubectl({"delete", "bottle", "taken"}).code, 0);
  EXPECT_EQ(world->jsonpath("configmap/taken-policy", "{.data.mine}"), "yes");
}

TEST(Life, APodThatAPersonDeletedComesBackAndASuspendedOneDoesNot) {
  ASSERT_EQ(world->apply(small("life", kSleeper)).code, 0);
  EXPECT_TRUE(becomes("life", "Ready", "True/Enforced", 90));
  const std::string uid = world->jsonpath("pod/life", "{.metadata.uid}");
  ASSERT_EQ(world->kubectl({"delete", "pod", "life"}).code, 0);
  EXPECT_TRUE(wait_until([&] { const auto now = world->jsonpath("pod/life", "{.metadata.uid}"); return !now.empty() && now != uid; }, 60));
  EXPECT_TRUE(becomes("life", "Ready", "True/Enforced", 90));
  ASSERT_EQ(world->kubectl({"patch", "bottle", "life", "--type=merge", "-p", "{\"spec\":{\"suspend\":true}}"}).code, 0);
  EXPECT_TRUE(becomes("life", "Ready", "False/Suspended"));
  EXPECT_TRUE(wait_until([] { return world->kubectl({"get", "pod", "life"}).code != 0; }, 60));
  // Deletion takes everything with it.
  ASSERT_EQ(world->kubectl({"delete", "bottle", "life"}).code, 0);
  EXPECT_TRUE(wait_until([] { return world->kubectl({"get", "configmap,secret,networkpolicy", "-l", "bot-bottle.dev/bottle=life", "-o", "name"}).out.empty(); }, 60));
}

TEST(Told, AQuotaThatIsFullAndItGoesOnWhenThereIsRoom) {
  ASSERT_EQ(world->kubectl({"create", "quota", "full", "--hard=pods=0"}).code, 0);
  ASSERT_EQ(world->apply(small("quota", kSleeper)).code, 0);
  EXPECT_TRUE(becomes("quota", "Ready", "False/QuotaExceeded"));
  ASSERT_EQ(world->kubectl({"delete", "quota", "full"}).code, 0);
  EXPECT_TRUE(becomes("quota", "Ready", "True/Enforced", 120));
  world->kubectl({"delete", "bottle", "quota", "--wait=false"});
}

TEST(Life, ADeadlineEndsTheAgent) {
  ASSERT_EQ(world->apply(small("late", kSleeper, "  activeDeadlineSeconds: 8\n")).code, 0);
  EXPECT_TRUE(becomes("late", "Finished", "True/DeadlineExceeded", 90));
  world->kubectl({"delete", "bottle", "late", "--wait=false"});
}

TEST(Life, AnAgentThatEndsIsFinishedWithItsCode) {
  ASSERT_EQ(world->apply(small("done", "image: \"bot-bottle/agent:latest\", command: [sh, -c, \"exit 7\"]", "  ttlSecondsAfterFinished: 5\n")).code, 0);
  EXPECT_TRUE(becomes("done", "Finished", "True/Error", 90));
  EXPECT_EQ(world->jsonpath("bottle/done", "{.status.agent.exitCode}"), "7");
  EXPECT_TRUE(wait_until([] { return world->kubectl({"get", "bottle", "done"}).code != 0; }, 60)) << "the bottle outlives its ttl";
}

}  // namespace
}  // namespace e2e

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  auto* world = new e2e::World("e2e-pod", "[sleep, infinity]");
  world->also("e2e-pod-strict");
  ::testing::AddGlobalTestEnvironment(world);
  return RUN_ALL_TESTS();
}
