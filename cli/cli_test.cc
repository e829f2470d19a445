// The commands against a backend that only remembers what it was asked.
#include "cli/cli.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "base/file.h"
#include "cli/output.h"
#include "controller/bottle/parse.h"

namespace bottle {
std::atomic<bool> g_cancelled{false};  // the real one belongs to the backends, which are not linked here
}

namespace bottle::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kHello[] = R"(apiVersion: bot-bottle.dev/v1alpha1
kind: Bottle
metadata: { name: hello }
spec:
  agent: { image: "busybox:1" }
  egress:
    engine: mitmproxy
    routes:
    - host: api.example.com
      methods: [GET]
      paths: [/v1/]
      inject:
      - { header: authorization, prefix: "Bearer ", secretKeyRef: { name: api, key: token } }
  pipelock: { enabled: false }
)";
constexpr char kSecret[] = R"(---
apiVersion: v1
kind: Secret
metadata: { name: api }
stringData: { token: s3cr3t-value }
)";

struct World {  // outlives the backend objects, which a command opens and closes
  std::map<std::string, Observation> bottles;
  std::vector<std::pair<std::string, std::string>> tokens;  // of the last apply
  std::vector<std::string> resolvers, removed, calls;
  std::vector<EnvVar> exec_env;
  std::vector<std::string> exec_argv;
  std::string log, exec_user;
  Status apply_status, open_status;
  Status cluster_status = {Code::kNotFound, "no kubeconfig"};
  std::string opened;  // the backend that a command went to
  Result<std::string> counters = std::string(R"({"refused":{"packets":3,"bytes":180}})");
  std::set<std::string> tokens_of_environment;
  BackendOptions options;
  std::vector<Check> checks;
  bool cancel_in_apply = false;
};

class FakeBackend : public Backend {
 public:
  explicit FakeBackend(World& w) : w_(w) {}
  Status apply(const ApplyRequest& r, const Progress& progress) override {
    w_.calls.push_back("apply " + r.plan.name);
    progress("guard", "rules verified");
    for (const auto& [k, v] : r.tokens) w_.tokens.emplace_back(k, std::string(v.expose()));
    w_.resolvers = r.resolvers;
    w_.tokens_of_environment = r.tokens_of_environment;
    if (w_.cancel_in_apply) return {Code::kCancelled, "interrupted"};
    Observation o;
    o.name = r.plan.name;
    o.bottle_json = r.bottle_json;
    o.policy_hash = o.desired_policy_hash = r.plan.policy_hash;
    o.conditions = {{"Ready", w_.apply_status ? "True" : "False", "Ready", ""}, {"Scanned", "False", "NoScanner", ""}};
    o.containers = {{"agent", "claude-bottle-agent-hello", "id", "busybox:1", "running", "", 0, "", "", 0}};
    w_.bottles[o.name] = o;
    return w_.apply_status;
  }
  Result<std::vector<Observation>> list() override {
    std::vector<Observation> all;
    for (const auto& [name, o] : w_.bottles) all.push_back(o);
    return all;
  }
  Result<Observation> observe(const std::string& name) override {
    const auto it = w_.bottles.find(name);
    if (it == w_.bottles.end()) return Status(Code::kNotFound, "bottle \"" + name + "\" does not exist; `bottle ls` lists those that do");
    return it->second;
  }
  Status remove(const std::string& name, const Progress&) override {
    if (!w_.bottles.erase(name)) return {Code::kNotFound, "bottle \"" + name + "\" does not exist"};
    w_.removed.push_back(name);
    return Status::ok();
  }
  Status logs(const std::string&, Role role, const LogOptions&, const Sink& sink) override {
    w_.calls.push_back("logs " + std::string(role_name(role)));
    for (size_t i = 0; i < w_.log.size(); i += 7)  // in pieces, as a socket gives them
      if (!sink(false, std::string_view(w_.log).substr(i, 7))) break;
    return Status::ok();
  }
  Result<int> exec(const std::string&, const ExecOptions& o) override {
    w_.exec_argv = o.argv;
    w_.exec_user = o.user;
    w_.exec_env = o.env;
    return 42;
  }
  Result<int> attach(const std::string&) override { return 0; }
  Result<std::string> guard_counters(const std::string&) override { return w_.counters; }
  Result<CleanupReport> cleanup(bool) override { return CleanupReport{{"container x"}, {}}; }
  std::vector<Check> doctor() override { return {}; }

 private:
  World& w_;
};

class CliTest : public ::testing::Test {
 protected:
  void SetUp() override {
    g_cancelled = false;
    char dir[] = "/tmp/bottle-cli-XXXXXX";
    ASSERT_NE(mkdtemp(dir), nullptr);
    dir_ = dir;
  }
  void TearDown() override { EXPECT_TRUE(remove_tree(dir_)); }

  std::string file(const std::string& text, const std::string& name = "b.yaml") {
    EXPECT_TRUE(write_file(dir_ + "/" + name, text, 0600));
    return dir_ + "/" + name;
  }
  int run(const std::vector<std::string>& args) {
    std::istringstream in(stdin_);
    std::ostringstream out, err;
    const auto entry = [this](const char* kind, const Status& status) {
      return BackendEntry{[this, kind, &status](const BackendOptions& o) -> Result<std::unique_ptr<Backend>> {
                            w_.options = o;
                            if (!status) return status;
                            w_.opened = kind;
                            return std::unique_ptr<Backend>(std::make_unique<FakeBackend>(w_));
                          },
                          [this, kind](const BackendOptions&) {
                            w_.opened = kind;
                            return w_.checks;
                          }};
    };
    Context c{in, out, err, false, false, entry("docker", w_.open_status), entry("kubernetes", w_.cluster_status),
              [this](const BackendOptions&) -> Result<std::string> {
                if (!w_.cluster_status) return w_.cluster_status;
                return std::string("https://cluster.example:6443 (kubeconfig), namespace default");
              },
              [this](const std::string& name) -> std::optional<std::string> {
                const auto it = env_.find(name);
                return it == env_.end() ? std::nullopt : std::optional<std::string>(it->second);
              },
              program_};
    const int code = cli::run(c, args);
    out_ = out.str();
    err_ = err.str();
    return code;
  }

  World w_;
  std::map<std::string, std::string> env_;
  std::string dir_, out_, err_, stdin_, program_ = "bottle";
};

TEST_F(CliTest, UpTakesTokensFromTheFileAndShowsConditions) {
  EXPECT_EQ(run({"up", "-f", file(std::string(kHello) + kSecret), "--resolver", "192.0.2.1", "--resolver", "2001:db8::1"}), kOk) << err_;
  ASSERT_EQ(w_.tokens.size(), 1u);
  EXPECT_EQ(w_.tokens[0].second, "s3cr3t-value");
  EXPECT_EQ(w_.resolvers, (std::vector<std::string>{"192.0.2.1", "2001:db8::1"}));
  EXPECT_THAT(out_, HasSubstr("Ready"));
  EXPECT_THAT(err_, HasSubstr("Scanned=False"));
  EXPECT_THAT(err_, HasSubstr("rules verified"));
  EXPECT_THAT(out_ + err_, Not(HasSubstr("s3cr3t-value")));
  EXPECT_THAT(w_.bottles["hello"].bottle_json, Not(HasSubstr("s3cr3t-value")));
}

TEST_F(CliTest, UpTakesTokensThatTheFileLacksFromTheEnvironment) {
  const std::string path = file(kHello);
  EXPECT_EQ(run({"up", path}), kOk) << err_;
  EXPECT_TRUE(w_.tokens.empty());
  EXPECT_THAT(err_, HasSubstr(token_env_name({"api", "token"})));
  env_[token_env_name({"api", "token"})] = "from-env";
  EXPECT_EQ(run({"up", path}), kOk) << err_;
  ASSERT_EQ(w_.tokens.size(), 1u);
  EXPECT_EQ(w_.tokens[0].second, "from-env");
  EXPECT_THAT(out_ + err_, Not(HasSubstr("from-env")));
}

TEST_F(CliTest, UpReadsStandardInput) {
  stdin_ = std::string(kHello) + kSecret;
  EXPECT_EQ(run({"up", "-f", "-"}), kOk) << err_;
  EXPECT_EQ(w_.calls, std::vector<std::string>{"apply hello"});
}

TEST_F(CliTest, BadFileStartsNothing) {
  std::string bad = kHello;
  bad.replace(bad.find("host:"), 5, "hots:");
  EXPECT_EQ(run({"up", "-f", file(std::string(kHello) + "---\n" + bad)}), kBadInput);
  EXPECT_THAT(err_, HasSubstr("hots"));
  EXPECT_THAT(err_, HasSubstr("nothing was started"));
  EXPECT_TRUE(w_.calls.empty());
}

TEST_F(CliTest, BadOptionsAreBadInput) {
  const std::string path = file(kHello);
  EXPECT_EQ(run({"up", path, "--resolver", "dns.example.com"}), kBadInput);
  EXPECT_EQ(run({"up", path, "--upstream-ca", file("no certificate", "ca.pem")}), kBadInput);
  EXPECT_EQ(run({"up", path, "--upstream-ca", file("-----BEGIN PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----", "key.pem")}), kBadInput);
  EXPECT_THAT(err_, HasSubstr("private key"));
  EXPECT_EQ(run({"up"}), kBadInput);
  EXPECT_EQ(run({"upp"}), kBadInput);
  EXPECT_EQ(run({}), kBadInput);
  EXPECT_EQ(run({"get", "hello", "-o", "xml"}), kBadInput);
  EXPECT_EQ(run({"up", dir_ + "/absent.yaml"}), kNotFoundExit);
  EXPECT_TRUE(w_.calls.empty());
}

TEST_F(CliTest, FailureAndInterruptionHaveTheirCodes) {
  w_.apply_status = {Code::kUnavailable, "egress did not become ready"};
  const std::string path = file(std::string(kHello) + kSecret);
  EXPECT_EQ(run({"up", path}), kFailed);
  EXPECT_THAT(out_, HasSubstr("Ready"));
  EXPECT_THAT(err_, HasSubstr("egress did not become ready"));
  w_.cancel_in_apply = true;
  EXPECT_EQ(run({"up", path}), kInterrupted);
  EXPECT_THAT(err_, HasSubstr("bottle down hello"));
  w_.open_status = {Code::kPermission, "no permission on the socket"};
  EXPECT_EQ(run({"ls"}), kFailed);
  EXPECT_EQ(run({"--host", "unix:///x.sock", "--state-dir", "/s", "ls"}), kFailed);
  EXPECT_EQ(w_.options.host, "unix:///x.sock");
  EXPECT_EQ(w_.options.state_dir, "/s");
}

TEST_F(CliTest, ListGetAndDown) {
  ASSERT_EQ(run({"up", file(std::string(kHello) + kSecret)}), kOk) << err_;
  EXPECT_EQ(run({"ls"}), kOk);
  EXPECT_THAT(out_, HasSubstr("hello"));
  EXPECT_EQ(run({"ls", "-o", "name"}), kOk);
  EXPECT_EQ(out_, "hello\n");
  EXPECT_EQ(run({"get", "hello", "-o", "json"}), kOk);
  const auto j = nlohmann::json::parse(out_);
  EXPECT_EQ(j["kind"], "Bottle");
  EXPECT_EQ(j["status"]["conditions"][0]["type"], "Ready");
  EXPECT_EQ(run({"get", "hello"}), kOk);
  EXPECT_THAT(out_, HasSubstr("kind: Bottle"));
  EXPECT_EQ(run({"get", "nobody"}), kNotFoundExit);
  EXPECT_EQ(run({"down"}), kBadInput);
  EXPECT_EQ(run({"down", "hello"}), kOk);
  EXPECT_EQ(run({"down", "hello"}), kNotFoundExit);
  EXPECT_EQ(w_.removed, std::vector<std::string>{"hello"});
}

TEST_F(CliTest, DownByFile) {
  const std::string path = file(std::string(kHello) + kSecret);
  ASSERT_EQ(run({"up", path}), kOk) << err_;
  EXPECT_EQ(run({"down", "-f", path}), kOk) << err_;
  EXPECT_EQ(w_.removed, std::vector<std::string>{"hello"});
}

TEST_F(CliTest, ExecLeavesTheCommandAlone) {
  EXPECT_EQ(run({"exec", "-u", "0", "-e", "A=b=c", "hello", "--", "sh", "-c", "exit", "--help", "-u"}), 42) << err_;
  EXPECT_EQ(w_.exec_argv, (std::vector<std::string>{"sh", "-c", "exit", "--help", "-u"}));
  EXPECT_EQ(w_.exec_user, "0");
  ASSERT_EQ(w_.exec_env.size(), 1u);
  EXPECT_EQ(w_.exec_env[0].value, "b=c");
  EXPECT_EQ(run({"exec", "hello", "curl", "-f", "--", "x"}), 42) << err_;
  EXPECT_EQ(w_.exec_argv, (std::vector<std::string>{"curl", "-f", "--", "x"}));
  EXPECT_EQ(run({"exec", "hello"}), kBadInput);
  EXPECT_EQ(run({"exec", "-e", "novalue", "hello", "true"}), kBadInput);
}

TEST_F(CliTest, ExplainIsTheVerdictOfTheRunningBottleAndOfAFile) {
  const std::string path = file(std::string(kHello) + kSecret);
  ASSERT_EQ(run({"up", path}), kOk) << err_;
  EXPECT_EQ(run({"explain", "hello", "https://api.example.com/v1/a?x=1#frag"}), kOk) << out_ << err_;
  EXPECT_THAT(out_, HasSubstr("allowed"));
  EXPECT_THAT(out_, HasSubstr("authorization: Bearer <BOT_BOTTLE_TOKEN_API_TOKEN>"));
  EXPECT_EQ(run({"explain", "-f", path, "https://api.example.com/v2/"}), kFailed);
  EXPECT_THAT(out_, HasSubstr("path_not_allowed"));
  EXPECT_EQ(run({"explain", "hello", "https://api.example.com/v1/", "--method", "DELETE", "-o", "json"}), kFailed);
  EXPECT_EQ(nlohmann::json::parse(out_)["code"], "method_not_allowed");
  EXPECT_EQ(run({"explain", "hello", "https://evil.example.net/"}), kFailed);
  EXPECT_THAT(out_, HasSubstr("host_not_allowed"));
  EXPECT_EQ(run({"explain", "hello", "https://api.example.com:8443/v1/"}), kFailed);
  EXPECT_EQ(run({"explain", "hello", "https://u:p@api.example.com/v1/"}), kBadInput);
  EXPECT_EQ(run({"explain", "hello", "ftp://api.example.com/"}), kBadInput);
  EXPECT_EQ(run({"explain", "hello"}), kBadInput);
  EXPECT_EQ(run({"explain", "nobody", "https://x.example/"}), kNotFoundExit);
}

TEST_F(CliTest, AuditShowsVerdictsOnlyAndNoControlCharacters) {
  w_.log =
      "Loading script\n"
      R"({"type":"audit","time":"2026-01-01T00:00:00Z","event":"request","allowed":true,"host":"a.example","port":443,"method":"GET","path":"/"})"
      "\n{\"type\":\"other\"}\n"
      R"({"type":"audit","time":"2026-01-01T00:00:01Z","event":"connect","allowed":false,"code":"host_not_allowed","host":"x\u001b[2J","port":443,"reason":"no route"})"
      "\n";
  EXPECT_EQ(run({"audit", "hello"}), kOk);
  EXPECT_EQ(w_.calls, std::vector<std::string>{"logs egress"});
  std::istringstream lines(out_);
  std::vector<nlohmann::json> all;
  for (std::string line; std::getline(lines, line);) all.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[2]["counters"]["refused"]["packets"], 3);
  EXPECT_EQ(run({"audit", "hello", "-o", "text", "--tail", "1"}), kOk);
  EXPECT_THAT(out_, HasSubstr("host_not_allowed"));
  EXPECT_THAT(out_, Not(HasSubstr("a.example")));
  EXPECT_EQ(out_.find('\x1b'), std::string::npos);
}

TEST_F(CliTest, DoctorFailsWhenACheckDoes) {
  w_.checks = {{"engine", "ok", "20.10", ""}, {"dns", "warn", "slow", ""}};
  EXPECT_EQ(run({"doctor"}), kOk);
  w_.checks.push_back({"nftables", "fail", "no kernel support", "modprobe nf_tables"});
  EXPECT_EQ(run({"doctor"}), kFailed);
  EXPECT_THAT(out_, HasSubstr("modprobe nf_tables"));
}

TEST_F(CliTest, EveryCommandHasAnExample) {
  for (const char* name : {"up", "render", "ls", "get", "exec", "attach", "logs", "audit", "explain", "down", "cleanup", "doctor", "completion", "version"}) {
    EXPECT_EQ(run({name, "--help"}), kOk) << name;
    EXPECT_THAT(out_, HasSubstr(std::string("bottle ") + (std::string(name) == "completion" ? "completion" : name))) << name;
    EXPECT_THAT(out_, HasSubstr("example: ")) << name;
  }
  for (const char* shell : {"bash", "zsh", "fish"}) {
    EXPECT_EQ(run({"completion", shell}), kOk);
    EXPECT_THAT(out_, HasSubstr("cleanup doctor"));
  }
  EXPECT_EQ(run({"completion", "tcsh"}), kBadInput);
  EXPECT_EQ(run({"version"}), kOk);
}

TEST_F(CliTest, RenderTouchesNoBackend) {
  w_.open_status = {Code::kUnavailable, "no engine"};
  EXPECT_EQ(run({"render", "-f", file(std::string(kHello) + kSecret)}), kOk) << err_;
  EXPECT_TRUE(nlohmann::json::parse(out_).is_object());
  EXPECT_THAT(out_, Not(HasSubstr("s3cr3t")));
}

TEST_F(CliTest, ABottleGoesToAClusterOnlyWhenOneIsNamed) {
  w_.cluster_status = Status::ok();
  const std::string path = file(std::string(kHello) + kSecret);
  const auto goes_to = [&](std::vector<std::string> args) {
    w_.opened.clear();
    return run(args) == kBadInput ? "bad input" : w_.opened;
  };
  EXPECT_EQ(goes_to({"ls"}), "docker");  // a kubeconfig in reach is no reason
  EXPECT_EQ(goes_to({"--backend", "kubernetes", "ls"}), "kubernetes");
  EXPECT_EQ(goes_to({"ls", "-n", "dev"}), "kubernetes");
  EXPECT_EQ(w_.options.namespace_, "dev");
  EXPECT_EQ(goes_to({"--context", "kind", "up", path}), "kubernetes");
  EXPECT_EQ(goes_to({"ls", "-A"}), "kubernetes");
  EXPECT_EQ(goes_to({"--kubeconfig", "/k", "doctor"}), "kubernetes");
  EXPECT_EQ(goes_to({"exec", "hello", "-n", "dev", "--", "true"}), "kubernetes");
  EXPECT_EQ(w_.exec_argv, std::vector<std::string>{"true"});
  env_["BOT_BOTTLE_BACKEND"] = "kubernetes";
  EXPECT_EQ(goes_to({"ls"}), "kubernetes");
  EXPECT_EQ(goes_to({"--backend", "docker", "ls"}), "docker");
  EXPECT_EQ(goes_to({"--host", "unix:///s", "ls"}), "docker");
  env_["BOT_BOTTLE_BACKEND"] = "podman";
  EXPECT_EQ(goes_to({"ls"}), "bad input");
  env_.clear();
  EXPECT_EQ(goes_to({"--host", "unix:///s", "ls", "-n", "dev"}), "bad input");
  EXPECT_EQ(goes_to({"--backend", "docker", "ls", "-A"}), "bad input");
  program_ = "kubectl-bottle";
  EXPECT_EQ(goes_to({"ls"}), "kubernetes");
  EXPECT_EQ(goes_to({"--backend", "docker", "ls"}), "docker");
}

TEST_F(CliTest, WithoutAnEngineTheClusterIsUsedAndNamed) {
  w_.open_status = {Code::kUnavailable, "cannot connect to the engine"};
  EXPECT_EQ(run({"ls"}), kFailed);
  EXPECT_THAT(err_, HasSubstr("cannot connect to the engine"));
  w_.cluster_status = Status::ok();
  EXPECT_EQ(run({"ls"}), kOk);
  EXPECT_EQ(w_.opened, "kubernetes");
  EXPECT_THAT(err_, HasSubstr("https://cluster.example:6443"));
  EXPECT_EQ(run({"doctor"}), kOk);
  EXPECT_EQ(w_.opened, "kubernetes");
  // An engine that somebody named has to answer itself.
  EXPECT_EQ(run({"--backend", "docker", "ls"}), kFailed);
  env_["DOCKER_HOST"] = "tcp://engine.example:2376";
  EXPECT_EQ(run({"ls"}), kFailed);
  env_.clear();
  w_.open_status = {Code::kPermission, "the socket is closed to you"};
  EXPECT_EQ(run({"ls"}), kFailed);
}

TEST_F(CliTest, WhatOnlyALaptopHasIsRefusedOnACluster) {
  w_.cluster_status = Status::ok();
  const std::string path = file(std::string(kHello) + kSecret);
  EXPECT_EQ(run({"-n", "dev", "up", path, "--resolver", "192.0.2.1"}), kBadInput);
  EXPECT_THAT(err_, HasSubstr("--resolver"));
  EXPECT_EQ(run({"-n", "dev", "up", path, "--no-pull"}), kBadInput);
  EXPECT_EQ(run({"-n", "dev", "up", path, "--upstream-ca", file("-----BEGIN CERTIFICATE-----", "ca.pem")}), kBadInput);
  EXPECT_THAT(err_, HasSubstr("upstreamCAs"));
  std::string host_path = kHello;
  host_path.replace(host_path.find("\"busybox:1\""), 11, "\"busybox:1\", workspace: { hostPath: { path: /srv } }");
  EXPECT_EQ(run({"-n", "dev", "up", file(host_path, "h.yaml")}), kBadInput);
  EXPECT_THAT(err_, HasSubstr("hostPath"));
  EXPECT_TRUE(w_.calls.empty());
}

TEST_F(CliTest, OnAClusterAMissingTokenIsTheClustersToSay) {
  w_.cluster_status = Status::ok();
  const std::string path = file(kHello);
  EXPECT_EQ(run({"-n", "dev", "up", path}), kOk) << err_;
  EXPECT_THAT(err_, Not(HasSubstr("BOT_BOTTLE_TOKEN")));
  env_[token_env_name({"api", "token"})] = "from-env";
  EXPECT_EQ(run({"-n", "dev", "up", path}), kOk) << err_;
  EXPECT_EQ(w_.tokens_of_environment, std::set<std::string>{token_env_name({"api", "token"})});
}

TEST_F(CliTest, RenderForAClusterPrintsItsObjectsWithoutWhatIsSecret) {
  const std::string path = file(std::string(kHello) + kSecret);
  EXPECT_EQ(run({"--backend", "kubernetes", "-n", "dev", "render", path}), kOk) << err_;
  const auto list = nlohmann::json::parse(out_);
  std::vector<std::string> kinds;
  for (const auto& item : list["items"]) {
    kinds.push_back(item["kind"]);
    EXPECT_EQ(item["metadata"]["namespace"], "dev");
    EXPECT_FALSE(item["kind"] == "Secret" && (item.contains("data") || item.contains("stringData")));
  }
  EXPECT_EQ(kinds, (std::vector<std::string>{"ConfigMap", "Secret", "NetworkPolicy", "Pod"}));
  EXPECT_THAT(out_, Not(HasSubstr("s3cr3t")));
  const std::string first = out_;
  EXPECT_EQ(run({"--backend", "kubernetes", "-n", "dev", "render", path}), kOk);
  EXPECT_EQ(out_, first);
  EXPECT_TRUE(w_.opened.empty());
}

TEST_F(CliTest, AuditSaysWhenThereAreNoCounters) {
  w_.counters = Status(Code::kUnsupported, "the guard is gone");
  EXPECT_EQ(run({"audit", "hello"}), kOk);
  EXPECT_EQ(nlohmann::json::parse(out_)["counters"], nullptr);
  EXPECT_EQ(nlohmann::json::parse(out_)["reason"], "the guard is gone");
  EXPECT_EQ(run({"audit", "hello", "-o", "text"}), kOk);
  EXPECT_THAT(err_, HasSubstr("the guard is gone"));
}

TEST_F(CliTest, KubectlCompletesThePluginsWords) {
  w_.cluster_status = Status::ok();
  ASSERT_EQ(run({"-n", "dev", "up", file(std::string(kHello) + kSecret)}), kOk) << err_;
  program_ = "kubectl_complete-bottle";
  EXPECT_EQ(run({"ge"}), kOk);
  EXPECT_EQ(out_, "get\n:4\n");
  EXPECT_EQ(run({"-n", "dev", "exec", ""}), kOk);
  EXPECT_EQ(out_, "hello\n:4\n");
  EXPECT_EQ(w_.options.namespace_, "dev");
  EXPECT_EQ(run({"logs", "hello", "eg"}), kOk);
  EXPECT_EQ(out_, "egress\n:4\n");
  EXPECT_EQ(run({"up", "-f", ""}), kOk);
  EXPECT_EQ(out_, ":0\n");
}

TEST(Output, YamlQuotesWhatWouldChangeItsMeaning) {
  const Json j = {{"a", "yes"}, {"b", "1.0"}, {"c", "plain/text"}, {"d", {1, "x: y", {{"k", "v"}, {"l", Json::array()}}}}, {"e", Json::object()}, {"f", nullptr}};
  EXPECT_EQ(to_yaml(j), "a: \"yes\"\nb: \"1.0\"\nc: plain/text\nd:\n- 1\n- \"x: y\"\n- k: v\n  l: []\ne: {}\nf: null\n");
}

TEST(Output, AgeOfATime) {
  EXPECT_EQ(age("1970-01-01T00:00:00Z", 90), "90s");
  EXPECT_EQ(age("1970-01-01T00:00:00Z", 600), "10m");
  EXPECT_EQ(age("1970-01-01T00:00:00.123Z", 86400 * 3), "3d");
  EXPECT_EQ(age("soon", 5), "-");
}

}  // namespace
}  // namespace bottle::cli
