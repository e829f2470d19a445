// The commands of `bottle` against a real node: a controller as a process of this machine, a bottle in a pod, and what a person types.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <random>

#include "tests/e2e/fixture.h"

namespace e2e {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kNs = "cli-test";

std::string variable(const char* name) { return getenv(name) != nullptr ? getenv(name) : ""; }

std::string bottle_text(const std::string& name) {
  return "apiVersion: bot-bottle.dev/v1alpha1\nkind: Bottle\nmetadata: { name: " + name + R"( }
spec:
  agent: { image: "bot-bottle/agent:latest", command: [sh, -c, "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.2; done"] }
  egress:
    routes:
    - { host: api.bottle.test, paths: [/v1/], inject: [{ header: authorization, prefix: "Bearer ", secretKeyRef: { name: )" + name + R"(-api, key: token } }] }
  pipelock: { enabled: false }
---
apiVersion: v1
kind: Secret
metadata: { name: )" + name + "-api }\nstringData: { token: s3cr3t-value }\n";
}

class CliClusterTest : public ::testing::Test {
 public:
  static std::vector<std::string> command(std::vector<std::string> args) {
    args.insert(args.begin(), {kBin + "/bottle", "--kubeconfig", variable("BOTTLE_KUBECONFIG_NODE"), "-n", kNs});
    return args;
  }
  static Output bottle(const std::vector<std::string>& args, int timeout_s = 150) { return run(command(args), timeout_s); }
  static Output kubectl(std::vector<std::string> args) {
    args.insert(args.begin(), {variable("BOTTLE_CLUSTER_BIN") + "/kubectl", "--kubeconfig", variable("BOTTLE_KUBECONFIG_NODE"), "-n", kNs});
    return run(args, 120);
  }
  // With the shell's redirections around the command: "< in > out".
  static Output shell(const std::vector<std::string>& args, const std::string& before, const std::string& behind) {
    std::string line = before;
    for (const auto& a : command(args)) line += " '" + a + "'";
    return run({"sh", "-c", line + " " + behind}, 120);
  }
  static std::string file(const std::string& name) {
    const std::string path = dir_ + "/" + name + ".yaml";
    std::ofstream(path) << bottle_text(name);
    return path;
  }

  static void SetUpTestSuite() {
    for (const char* v : {"BOTTLE_KUBECONFIG_NODE", "BOTTLE_CLUSTER_BIN"}) ASSERT_NE(variable(v), "") << v << " is not set: scripts/test cluster runs these tests";
    char dir[] = "/tmp/bottle-cli-XXXXXX";
    ASSERT_NE(mkdtemp(dir), nullptr);
    dir_ = dir;
    ASSERT_EQ(kubectl({"apply", "--server-side", "-f", std::string(BOTTLE_SOURCE_DIR) + "/crds/bot-bottle.dev_bottles.yaml"}).code, 0);
    ASSERT_EQ(kubectl({"wait", "--for=condition=Established", "crd/bottles.bot-bottle.dev", "--timeout=30s"}).code, 0);
    (void)kubectl({"delete", "namespace", kNs, "--ignore-not-found", "--timeout=60s"});  // of a run that was killed
    ASSERT_EQ(kubectl({"create", "namespace", kNs}).code, 0);
    controller_ = fork();
    if (controller_ == 0) {
      const int log = open((dir_ + "/controller.log").c_str(), O_CREAT | O_WRONLY, 0600);
      dup2(log, 1), dup2(log, 2);
      execl((kBin + "/bottle-controller").c_str(), "bottle-controller", "--kubeconfig", variable("BOTTLE_KUBECONFIG_NODE").c_str(), "--watch-namespace", kNs.c_str(),
            "--leader-elect=false", "--metrics-bind-address", "0", "--probe-bind-address", "0", nullptr);
      _exit(127);
    }
    const Output up = bottle({"up", file("work")});
    ASSERT_EQ(up.code, 0) << up.out << up.err << slurp(dir_ + "/controller.log");
    EXPECT_THAT(up.out, HasSubstr("Ready"));
    EXPECT_THAT(up.out + up.err, Not(HasSubstr("s3cr3t")));
  }
  static void TearDownTestSuite() {
    if (controller_ > 0) {
      kill(controller_, SIGTERM);
      waitpid(controller_, nullptr, 0);
    }
    EXPECT_EQ(kubectl({"delete", "namespace", kNs, "--ignore-not-found", "--timeout=60s"}).code, 0);
    if (!dir_.empty()) (void)run({"rm", "-r", dir_});
  }
  static inline std::string dir_;
  static inline pid_t controller_ = -1;
};

TEST_F(CliClusterTest, LsAndGetTellTheBottleAndNoSecret) {
  EXPECT_THAT(bottle({"ls"}).out, HasSubstr("work"));
  EXPECT_THAT(bottle({"ls", "-o", "name"}).out, HasSubstr("work\n"));
  const auto list = json::parse(bottle({"ls", "-o", "json"}).out);
  ASSERT_FALSE(list["items"].empty());
  EXPECT_EQ(list["items"][0]["metadata"]["namespace"], kNs);
  const Output all = run({kBin + "/bottle", "--kubeconfig", variable("BOTTLE_KUBECONFIG_NODE"), "ls", "-A"});
  EXPECT_THAT(all.out, HasSubstr("NAMESPACE"));
  EXPECT_THAT(all.out, HasSubstr(kNs));
  const Output get = bottle({"get", "work", "-o", "json"});
  const auto j = json::parse(get.out);
  EXPECT_EQ(j["status"]["conditions"][0]["type"], "Ready");
  EXPECT_EQ(j["status"]["policyHash"], j["status"]["desiredPolicyHash"]);
  EXPECT_EQ(j["status"]["containers"].size(), 3u);
  EXPECT_THAT(get.out, Not(HasSubstr("s3cr3t")));
  EXPECT_EQ(bottle({"get", "nobody"}).code, 3);
}

TEST_F(CliClusterTest, ExecGivesStreamsAndExitCode) {
  const Output o = bottle({"exec", "work", "--", "sh", "-c", "echo out; echo err >&2; exit 42"});
  EXPECT_EQ(o.code, 42);
  EXPECT_EQ(o.out, "out\n");
  EXPECT_EQ(o.err, "err\n");
  EXPECT_EQ(bottle({"exec", "-w", "/tmp", "-e", "A=b c", "work", "--", "sh", "-c", "pwd; echo $A; id -u"}).out, "/tmp\nb c\n1000\n");
  EXPECT_EQ(bottle({"exec", "work", "--", "no-such-program"}).code, 127);
  EXPECT_EQ(bottle({"exec", "work", "--", "/etc/passwd"}).code, 126);
  EXPECT_EQ(bottle({"exec", "-u", "0", "work", "--", "id"}).code, 1);
  EXPECT_EQ(bottle({"exec", "nobody", "--", "id"}).code, 3);
}

TEST_F(CliClusterTest, ExecPipesEveryByteBothWays) {
  const std::string in = dir_ + "/in", out = dir_ + "/out";
  std::mt19937_64 random(1);
  {
    std::ofstream f(in, std::ios::binary);
    for (int i = 0; i < (10 << 20) / 8; ++i) {
      const uint64_t word = random();
      f.write(reinterpret_cast<const char*>(&word), sizeof word);
    }
  }
  EXPECT_EQ(shell({"exec", "-i", "work", "--", "cat"}, "", "< " + in + " > " + out).code, 0);
  EXPECT_TRUE(slurp(in) == slurp(out)) << slurp(out).size();
  // A program that stops reading, and one that never reads. Only as much as the pipes in between hold: with megabytes left unread the node's
  // runtime may never tell that the program ended (kubectl exec waits as long; seen with containerd 1.6).
  const std::string little = dir_ + "/little";
  std::ofstream(little, std::ios::binary) << std::string(4096, 'x');
  EXPECT_EQ(shell({"exec", "-i", "work", "--", "head", "-c", "10"}, "", "< " + little + " | wc -c").out, "10\n");
  EXPECT_EQ(shell({"exec", "-i", "work", "--", "true"}, "", "< " + little).code, 0);
  EXPECT_EQ(shell({"exec", "-i", "work", "--", "wc", "-c"}, "", "< /dev/null").out, "0\n");
}

TEST_F(CliClusterTest, ATerminalIsRawAndItsSizeIsFollowed) {
  int terminal = -1;
  winsize size{};
  size.ws_row = 33, size.ws_col = 77;
  const auto argv = command({"exec", "-it", "work", "--", "sh", "-c", "until [ \"$(stty size)\" = '33 77' ]; do sleep 0.1; done; echo first; "
                                                                     "until [ \"$(stty size)\" = '44 99' ]; do sleep 0.1; done; echo second; read x; echo got $x; exit 5"});
  const pid_t pid = forkpty(&terminal, nullptr, nullptr, &size);
  ASSERT_GE(pid, 0);
  if (pid == 0) {
    std::vector<char*> words;
    for (const auto& a : argv) words.push_back(const_cast<char*>(a.c_str()));
    words.push_back(nullptr);
    execv(words[0], words.data());
    _exit(127);
  }
  fcntl(terminal, F_SETFL, O_NONBLOCK);
  std::string seen;
  const auto shows = [&](const std::string& what) {
    return wait_until(
        [&] {
          char b[4096];
          for (ssize_t n; (n = read(terminal, b, sizeof b)) > 0;) seen.append(b, static_cast<size_t>(n));
          return seen.find(what) != std::string::npos;
        },
        20);
  };
  EXPECT_TRUE(shows("first")) << seen;
  size.ws_row = 44, size.ws_col = 99;
  ioctl(terminal, TIOCSWINSZ, &size);
  EXPECT_TRUE(shows("second")) << seen;
  EXPECT_EQ(write(terminal, "hey\r", 4), 4);
  EXPECT_TRUE(shows("got hey")) << seen;
  int status = -1;
  EXPECT_TRUE(wait_until([&] { return waitpid(pid, &status, WNOHANG) == pid; }, 20));
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 5) << status;
  close(terminal);
}

TEST_F(CliClusterTest, LogsAreTheContainers) {
  EXPECT_TRUE(wait_until([] { return bottle({"logs", "work"}).out.find("line 3\n") != std::string::npos; }, 20));
  const std::string two = bottle({"logs", "--tail", "2", "work"}).out;
  EXPECT_EQ(std::count(two.begin(), two.end(), '\n'), 2);
  // Ctrl-C is how one leaves a log that is followed.
  const Output followed = shell({"logs", "-f", "--tail", "1", "--timestamps", "work"}, "timeout -s INT 3", "; echo code $?");
  EXPECT_THAT(followed.out, HasSubstr("Z line "));
  EXPECT_GT(std::count(followed.out.begin(), followed.out.end(), '\n'), 3);
  EXPECT_EQ(bottle({"logs", "work", "guard"}).code, 0);
  EXPECT_EQ(bottle({"logs", "work", "egress"}).code, 0);
}

TEST_F(CliClusterTest, ExplainAndAuditTellTheRunningPolicy) {
  EXPECT_EQ(bottle({"explain", "work", "https://api.bottle.test/v1/a"}).code, 0);
  EXPECT_EQ(bottle({"explain", "work", "https://api.bottle.test/v2/a"}).code, 1);
  (void)bottle({"exec", "work", "--", "curl", "-sS", "-m", "10", "https://evil.example.net/"});
  EXPECT_TRUE(wait_until([] { return bottle({"audit", "work"}).out.find("host_not_allowed") != std::string::npos; }, 20));
  const Output audit = bottle({"audit", "work"});
  EXPECT_EQ(audit.code, 0);
  EXPECT_THAT(audit.out, HasSubstr(R"("type":"guard")"));
}

TEST_F(CliClusterTest, DoctorAndRender) {
  const auto checks = json::parse(bottle({"doctor", "-o", "json"}).out);
  std::map<std::string, std::string> by_name;
  for (const auto& c : checks["checks"]) by_name[c["name"]] = c["status"];
  for (const char* good : {"API server", "CRD", "rights", "namespace", "nodes"}) EXPECT_EQ(by_name[good], "ok") << good;
  const Output rendered = bottle({"render", file("work")});
  EXPECT_EQ(json::parse(rendered.out)["items"].size(), 4u);
  EXPECT_THAT(rendered.out, Not(HasSubstr("s3cr3t")));
}

TEST_F(CliClusterTest, UpAgainIsAnUpdateAndDownTakesTheTokenAlong) {
  const std::string path = file("gone");
  ASSERT_EQ(bottle({"up", path}).code, 0);
  const std::string first = kubectl({"get", "pod", "gone", "-o", "jsonpath={.metadata.uid}"}).out;
  const Output again = bottle({"up", path});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.err, HasSubstr("applied"));
  EXPECT_EQ(kubectl({"get", "pod", "gone", "-o", "jsonpath={.metadata.uid}"}).out, first);
  const Output down = bottle({"down", "gone"});
  EXPECT_EQ(down.code, 0) << down.err;
  EXPECT_NE(kubectl({"get", "pod", "gone"}).code, 0);
  EXPECT_TRUE(wait_until([] { return kubectl({"get", "secret", "gone-api"}).code != 0; }, 60));
  EXPECT_EQ(bottle({"down", "gone"}).code, 3);
}

TEST_F(CliClusterTest, ASecretAndAFieldOfSomebodyElseStayTheirs) {
  ASSERT_EQ(kubectl({"create", "secret", "generic", "theirs-api", "--from-literal=token=kept"}).code, 0);
  const Output up = bottle({"up", file("theirs")});
  EXPECT_EQ(up.code, 1);
  EXPECT_THAT(up.err, HasSubstr("theirs-api"));
  EXPECT_NE(kubectl({"get", "bottle", "theirs"}).code, 0);
  EXPECT_EQ(kubectl({"get", "secret", "theirs-api", "-o", "jsonpath={.data.token}"}).out, "a2VwdA==");

  ASSERT_EQ(kubectl({"patch", "bottle", "work", "--type=merge", "-p", R"({"spec":{"egress":{"mode":"learn"}}})"}).code, 0);
  const Output conflict = bottle({"up", file("work")});
  EXPECT_EQ(conflict.code, 1);
  EXPECT_THAT(conflict.err, HasSubstr(".spec.egress.mode"));
  EXPECT_THAT(conflict.err, HasSubstr("kubectl-patch"));
  ASSERT_EQ(kubectl({"patch", "bottle", "work", "--type=merge", "-p", R"({"spec":{"egress":{"mode":"enforce"}}})"}).code, 0);
}

TEST_F(CliClusterTest, AnImageThatIsNowhereIsToldAndDoesNotHang) {
  std::string text = bottle_text("noimage");
  text.replace(text.find("bot-bottle/agent:latest"), 23, "nowhere.invalid/none:1");
  const std::string path = dir_ + "/noimage.yaml";
  std::ofstream(path) << text;
  const Output up = bottle({"up", path});
  EXPECT_EQ(up.code, 1);
  EXPECT_THAT(up.err, HasSubstr("Image"));
  EXPECT_LT(up.seconds, 100);
  EXPECT_EQ(bottle({"down", "-f", path}).code, 0);
}

TEST_F(CliClusterTest, ThePluginIsTheSameProgram) {
  const Output o = run({"env", "KUBECONFIG=" + variable("BOTTLE_KUBECONFIG_NODE"), "PATH=" + kBin + ":/usr/bin:/bin", variable("BOTTLE_CLUSTER_BIN") + "/kubectl", "bottle",
                        "get", "work", "-n", kNs, "-o", "json"});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(json::parse(o.out)["metadata"]["name"], "work");
}

}  // namespace
}  // namespace e2e
