// The test cluster comes up, does what its help says, and leaves nothing of itself, however it ended.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/e2e/fixture.h"

namespace {

namespace fs = std::filesystem;
using e2e::Output;
using e2e::run;
using e2e::wait_until;

const std::string kScript = std::string(BOTTLE_SOURCE_DIR) + "/scripts/cluster";
std::string states() { return getenv("BOTTLE_CLUSTER_STATE") ? getenv("BOTTLE_CLUSTER_STATE") : "/var/lib/bot-bottle-cluster"; }

std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

class Cluster : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "namespaces need root";
  }
  void TearDown() override { cluster({"down", "--purge"}); }

  Output cluster(std::vector<std::string> args, int timeout_s = 120) {
    std::vector<std::string> all = {kScript, args[0], "--id", id_};
    all.insert(all.end(), args.begin() + 1, args.end());
    return run(all, timeout_s);
  }
  // Starts `up` and does not wait for it.
  pid_t up_in_background() {
    const pid_t pid = fork();
    if (pid == 0) {
      execl(kScript.c_str(), kScript.c_str(), "up", "--control-plane", "--id", id_.c_str(), nullptr);
      _exit(127);
    }
    return pid;
  }
  // The process that `up` recorded; 0 when there is none.
  long recorded() { return strtol(slurp(states() + "/" + id_ + "/run/process").c_str(), nullptr, 10); }
  // The namespaces in which the cluster's programs run, as the kernel names them.
  std::string namespace_of(long outer) {
    const Output child = run({"ps", "-o", "pid=", "--ppid", std::to_string(outer)});
    std::error_code ec;
    return fs::read_symlink("/proc/" + std::to_string(strtol(child.out.c_str(), nullptr, 10)) + "/ns/pid", ec).string();
  }
  // Everything of the cluster that can be seen on this machine; empty when it is gone.
  std::string traces(const std::string& pid_namespace) {
    std::string found;
    std::error_code ec;
    if (fs::exists(states() + "/" + id_)) found += states() + "/" + id_ + "\n";
    if (fs::exists("/sys/class/net/bc-" + id_)) found += "link bc-" + id_ + "\n";
    for (const auto& e : fs::directory_iterator("/sys/fs/cgroup", ec))
      if (fs::exists(e.path() / ("bottle-" + id_))) found += (e.path() / ("bottle-" + id_)).string() + "\n";
    if (fs::exists("/sys/fs/cgroup/bottle-" + id_)) found += "/sys/fs/cgroup/bottle-" + id_ + "\n";
    if (slurp("/proc/mounts").find("/" + id_ + "/") != std::string::npos) found += "a mount\n";
    for (const auto& e : fs::directory_iterator("/proc", ec)) {
      const std::string ns = fs::read_symlink(e.path() / "ns/pid", ec).string();
      if (!ec && !pid_namespace.empty() && ns == pid_namespace) found += "process " + e.path().filename().string() + "\n";
    }
    return found;
  }

  std::string id_ = "ct-" + std::to_string(getpid() % 100000);
};

TEST_F(Cluster, AControlPlaneAnswersAndLeavesNothing) {
  const Output up = cluster({"up", "--control-plane"});
  ASSERT_EQ(up.code, 0) << up.err;
  const std::string kubeconfig = states() + "/" + id_ + "/kubeconfig";
  EXPECT_EQ(up.out, kubeconfig + "\n");
  EXPECT_EQ(fs::status(kubeconfig).permissions() & (fs::perms::group_all | fs::perms::others_all), fs::perms::none);
  const std::string ns = namespace_of(recorded());
  ASSERT_NE(ns, "");
  const Output create = cluster({"shell", "kubectl", "create", "namespace", "kept"});
  ASSERT_EQ(create.code, 0) << create.err;
  EXPECT_EQ(cluster({"up", "--control-plane"}).out, up.out) << "up again is no error";

  // Down without --purge keeps the state, and only that.
  ASSERT_EQ(cluster({"down"}).code, 0);
  EXPECT_EQ(traces(ns), states() + "/" + id_ + "\n");
  ASSERT_EQ(cluster({"up", "--control-plane"}).code, 0);
  EXPECT_EQ(cluster({"shell", "kubectl", "get", "namespace", "kept"}).code, 0);
  const std::string second = namespace_of(recorded());
  ASSERT_EQ(cluster({"down", "--purge"}).code, 0);
  EXPECT_EQ(traces(second), "");
  EXPECT_EQ(cluster({"down", "--purge"}).code, 0) << "down again is no error";
}

TEST_F(Cluster, ComponentsAreKilledStoppedAndStarted) {
  ASSERT_EQ(cluster({"up", "--control-plane"}).code, 0);
  const auto answers = [&] { return cluster({"shell", "kubectl", "get", "--raw", "/readyz"}).code == 0; };
  EXPECT_GT(strtol(cluster({"compact"}).out.c_str(), nullptr, 10), 0);
  ASSERT_EQ(cluster({"kill", "kube-apiserver"}).code, 0);
  EXPECT_TRUE(wait_until(answers, 60)) << "killed, it is started again";
  ASSERT_EQ(cluster({"stop", "kube-apiserver"}).code, 0);
  EXPECT_FALSE(answers());
  ASSERT_EQ(cluster({"start", "kube-apiserver"}).code, 0);
  EXPECT_TRUE(wait_until(answers, 60));
  const Output unknown = cluster({"kill", "kubelet"});
  EXPECT_NE(unknown.code, 0);
  EXPECT_NE(unknown.err.find("runs no kubelet"), std::string::npos) << unknown.err;
}

TEST_F(Cluster, ANodeRunsAPodAndLeavesNothing) {
  const Output up = cluster({"up"}, 180);
  ASSERT_EQ(up.code, 0) << up.err;
  const std::string ns = namespace_of(recorded());
  const std::string manifest = R"({"apiVersion":"v1","kind":"Pod","metadata":{"name":"one"},"spec":{"terminationGracePeriodSeconds":0,
    "containers":[{"name":"c","image":"bot-bottle.test/pause:1","imagePullPolicy":"Never"}]}})";
  const std::string file = "/tmp/cluster-test-" + id_ + ".json";
  std::ofstream(file) << manifest;
  EXPECT_EQ(cluster({"shell", "kubectl", "create", "-f", file}).code, 0);
  const Output ready = cluster({"shell", "kubectl", "wait", "--for=condition=Ready", "pod/one", "--timeout=60s"}, 90);
  EXPECT_EQ(ready.code, 0) << ready.err;
  fs::remove(file);
  ASSERT_EQ(cluster({"down", "--purge"}).code, 0);
  EXPECT_EQ(traces(ns), "");
}

TEST_F(Cluster, AnInterruptedUpCleansUpAfterItself) {
  const pid_t up = up_in_background();
  ASSERT_TRUE(wait_until([&] { return recorded() != 0; }, 60));
  const std::string ns = namespace_of(recorded());
  kill(up, SIGTERM);
  int status = 0;
  ASSERT_EQ(waitpid(up, &status, 0), up);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 143) << status;
  EXPECT_EQ(traces(ns), "");
}

TEST_F(Cluster, WhatAKilledUpLeftIsTakenDown) {
  const pid_t up = up_in_background();
  ASSERT_TRUE(wait_until([&] { return recorded() != 0 && !namespace_of(recorded()).empty(); }, 60));
  const std::string ns = namespace_of(recorded());
  kill(up, SIGKILL);
  ASSERT_EQ(waitpid(up, nullptr, 0), up);
  ASSERT_EQ(cluster({"down", "--purge"}).code, 0);
  EXPECT_EQ(traces(ns), "");
}

TEST_F(Cluster, ANumberThatIsSomebodyElsesByNowIsLeftAlone) {
  const pid_t stranger = fork();
  if (stranger == 0) {
    execlp("sleep", "sleep", "600", nullptr);
    _exit(127);
  }
  fs::create_directories(states() + "/" + id_ + "/run");
  std::ofstream(states() + "/" + id_ + "/run/process") << stranger << " 1 another-boot\n";
  EXPECT_EQ(cluster({"down", "--purge"}).code, 0);
  EXPECT_EQ(waitpid(stranger, nullptr, WNOHANG), 0) << "it still runs";
  kill(stranger, SIGKILL);
  waitpid(stranger, nullptr, 0);
}

TEST_F(Cluster, WhatItIsGivenWrongItSays) {
  EXPECT_EQ(run({kScript, "up", "--id", "Not Good"}).code, 2);
  EXPECT_EQ(run({kScript, "up", "--id", id_, "--net", "10"}).code, 2);
  EXPECT_EQ(run({kScript, "sideways"}).code, 2);
  const Output load = cluster({"load", "bot-bottle/agent:latest"});
  EXPECT_NE(load.code, 0);
  EXPECT_NE(load.err.find("is not up"), std::string::npos) << load.err;
}

}  // namespace
