// A bottle's life: what `up` changes in a running bottle and what it leaves alone, what bad input costs (nothing), clients whose
// trust needs more than a variable, and that `down` and `cleanup` leave nothing.
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/e2e/fixture.h"

namespace e2e {
namespace {

namespace fs = std::filesystem;
const std::string kBottle = std::string(BOTTLE_BIN_DIR) + "/bottle";

std::string replace(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

std::string original() {
  std::ifstream in(world->bottle_file());
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

Output up(const std::string& yaml, const std::vector<std::string>& more = {}) {
  const std::string file = world->dir() + "/changed.yaml";
  std::ofstream(file) << yaml;
  std::vector<std::string> argv = {kBottle, "up", "-f", file, "--resolver", "203.0.113.53", "--upstream-ca", world->dir() + "/ca.pem"};
  argv.insert(argv.end(), more.begin(), more.end());
  return run(argv, 120);
}

std::string status_of(const std::string& url, const std::string& more = "") {
  return world->exec({"sh", "-c", "curl -sS -m 10 -o /dev/null -w '%{http_code}' " + more + " " + url}).out;
}

std::string started(const std::string& role) {
  return run({"docker", "inspect", "-f", "{{.Id}} {{.State.StartedAt}}", world->container(role)}).out;
}

// Each test leaves the bottle as it found it.
class Life : public ::testing::Test {
 protected:
  void TearDown() override {
    const Output o = up(original());
    EXPECT_EQ(o.code, 0) << o.err;
  }
};

TEST_F(Life, ANewPathWorksAtOnceAndNothingRestarts) {
  const std::string before = started("guard") + started("egress") + started("agent");
  EXPECT_EQ(status_of("https://secret.bottle.test/v2/echo"), "403");
  const Output o = up(replace(original(), "paths: [/v1/]", "paths: [/v1/, /v2/]"));
  ASSERT_EQ(o.code, 0) << o.err;
  // `up` returns when the engine says that it enforces the new policy: the very next request is judged by it.
  EXPECT_EQ(status_of("https://secret.bottle.test/v2/echo"), "200");
  EXPECT_EQ(started("guard") + started("egress") + started("agent"), before);
}

TEST_F(Life, ARemovedRouteIsClosedAtOnceAndItsStreamIsCut) {
  const std::string before = started("egress") + started("agent");
  // A stream of 60 s that must end long before, because its route goes.
  ASSERT_EQ(world->exec({"sh", "-c", "(curl -sSN -m 60 'https://api.bottle.test/sse?n=300' >/tmp/stream 2>&1; echo ended >>/tmp/stream) >/dev/null 2>&1 & "
                                     "for i in $(seq 100); do grep -q data /tmp/stream 2>/dev/null && exit 0; sleep 0.1; done; exit 1"}).code, 0);
  const Output o = up(replace(original(), "    - host: \"api.bottle.test\"\n      methods: [GET, HEAD, POST, PUT]\n", ""));
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(world->exec({"curl", "-sS", "-m", "10", "https://api.bottle.test/echo"}).code, 56) << "CONNECT is refused";
  EXPECT_TRUE(wait_until([] { return world->exec({"grep", "-c", "ended", "/tmp/stream"}).out == "1\n"; }, 5));
  EXPECT_EQ(started("egress") + started("agent"), before);
}

TEST_F(Life, ANewPortOpensInTheGuardToo) {
  const std::string before = started("guard") + started("agent");
  const Output o = up(replace(original(), "ports: [8443]", "ports: [8443, 8080]"));
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(status_of("http://port.bottle.test:8080/echo"), "200");
  EXPECT_EQ(started("guard") + started("agent"), before);
}

TEST_F(Life, ANewTokenIsUsedAtOnceAndAMissingOneClosesItsRouteAlone) {
  const std::string before = started("agent");
  ASSERT_EQ(up(replace(original(), world->token(), "tok-another-0123456789")).code, 0);
  Mark m = world->mark();
  EXPECT_EQ(status_of("https://secret.bottle.test/v1/echo"), "200");
  ASSERT_TRUE(wait_until([&] { return !world->requests(m).empty(); }, 5));
  EXPECT_NE(world->requests(m)[0].dump().find("Bearer tok-another-0123456789"), std::string::npos);
  const std::string yaml = original();
  const Output missing = up(yaml.substr(0, yaml.find("---\napiVersion: v1")));
  m = world->mark();
  EXPECT_EQ(status_of("https://secret.bottle.test/v1/echo"), "503") << missing.err;
  EXPECT_TRUE(world->requests(m).empty());
  EXPECT_EQ(status_of("https://api.bottle.test/echo"), "200");
  EXPECT_EQ(started("agent"), before);
}

TEST_F(Life, ABadFileReportsEveryErrorAndChangesNothing) {
  const std::string before = started("guard") + started("egress") + started("agent");
  const Output o = up(replace(replace(original(), "ports: [8443]", "prots: [8443]"), "paths: [/v1/]", "paths: [v1]"));
  EXPECT_EQ(o.code, 2);
  EXPECT_NE(o.err.find("did you mean \"ports\"?"), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("paths[0]"), std::string::npos) << o.err;
  EXPECT_EQ(o.err.find(world->token()), std::string::npos);
  EXPECT_EQ(status_of("https://secret.bottle.test/v1/echo"), "200");
  EXPECT_EQ(started("guard") + started("egress") + started("agent"), before);
}

TEST_F(Life, ABrokenTableOnDiskLeavesTheLastGoodOneInForce) {
  const std::string table = run({"sh", "-c", "find " + world->dir() + "/state -name routes.yaml"}).out;
  const std::string file = table.substr(0, table.find('\n'));
  ASSERT_TRUE(fs::exists(file)) << table;
  const std::string hash = run({kBottle, "get", world->name(), "-o", "json"}).out;
  fs::copy_file(file, world->dir() + "/good");
  std::ofstream(file, std::ios::trunc) << "{\"routes\": [";
  EXPECT_TRUE(wait_until([&] { return run({"sh", "-c", "grep -L '\"error\":null' $(find " + world->dir() + "/state -name status.json)"}).out != "" ; }, 5));
  EXPECT_EQ(status_of("https://secret.bottle.test/v1/echo"), "200");
  EXPECT_EQ(status_of("https://secret.bottle.test/v2/echo"), "403");
  fs::copy_file(world->dir() + "/good", file, fs::copy_options::overwrite_existing);
  EXPECT_NE(hash.find("sha256:"), std::string::npos);
}

TEST(Name, TakenByAStrangerIsAnErrorAndTheStrangerStays) {
  const std::string stranger = "claude-bottle-agent-e2e-taken";
  ASSERT_EQ(run({"docker", "create", "--name", stranger, "--network", "none", "bot-bottle/agent:latest", "true"}).code, 0);
  const std::string id = run({"docker", "inspect", "-f", "{{.Id}}", stranger}).out;
  const Output o = up(bottle_yaml("e2e-taken", "[sleep, infinity]", "tok-0123456789abcdef"));
  EXPECT_EQ(o.code, 1) << o.out;
  EXPECT_NE(o.err.find(stranger), std::string::npos) << o.err;
  run({kBottle, "down", "e2e-taken"});
  run({kBottle, "cleanup"});
  EXPECT_EQ(run({"docker", "inspect", "-f", "{{.Id}}", stranger}).out, id);
  run({"docker", "rm", "-f", id.substr(0, id.find('\n'))});
  EXPECT_EQ(run({"sh", "-c", "docker ps -aq --filter label=dev.bot-bottle.slug=e2e-taken; docker network ls -q --filter label=dev.bot-bottle.slug=e2e-taken"}).out, "");
}

TEST(Down, LeavesNothingAndMayBeSaidTwice) {
  ASSERT_EQ(up(bottle_yaml("e2e-gone", "[sleep, infinity]", "tok-0123456789abcdef")).code, 0);
  EXPECT_EQ(run({kBottle, "down", "e2e-gone"}, 60).code, 0);
  for (const char* what : {"docker ps -aq", "docker network ls -q", "docker volume ls -q"})
    EXPECT_EQ(run({"sh", "-c", std::string(what) + " --filter label=dev.bot-bottle.slug=e2e-gone"}).out, "") << what;
  EXPECT_FALSE(fs::exists(world->dir() + "/state/e2e-gone"));
  EXPECT_EQ(run({kBottle, "get", "e2e-gone"}).code, 3);
  EXPECT_EQ(status_of("https://api.bottle.test/echo"), "200") << "the other bottle is as it was";
}

// What the documentation shows must run as it stands.
TEST(Examples, EachComesUpAndGoes) {
  int seen = 0;
  for (const auto& entry : fs::directory_iterator(std::string(BOTTLE_SOURCE_DIR) + "/examples")) {
    const std::string file = entry.path();
    const std::string name = run({"sed", "-n", "s/^metadata: *{ *name: *\\([a-z0-9-]*\\).*/\\1/p;/^metadata:/{n;s/^ *name: *//p}", file}).out;
    const std::string first = name.substr(0, name.find('\n'));
    ASSERT_FALSE(first.empty()) << file;
    const Output o = run({kBottle, "up", "-f", file, "--resolver", "203.0.113.53"}, 120);
    EXPECT_EQ(o.code, 0) << file << o.out << o.err;
    EXPECT_EQ(run({kBottle, "down", first}, 60).code, 0) << file;
    ++seen;
  }
  EXPECT_GE(seen, 6);
}

TEST(Explain, SaysWhatTheEngineDoes) {
  EXPECT_EQ(run({kBottle, "explain", world->name(), "https://secret.bottle.test/v1/x"}).code, 0);
  const Output o = run({kBottle, "explain", world->name(), "https://secret.bottle.test/v1/../x"});
  EXPECT_EQ(o.code, 1);
  EXPECT_NE(o.out.find("path_not_allowed"), std::string::npos) << o.out;
  EXPECT_EQ(status_of("https://secret.bottle.test/v1/../x", "--path-as-is"), "403");
}

TEST(Audit, HasALineForEveryVerdictAndNoToken) {
  status_of("https://secret.bottle.test/v1/audited?key=hidden");
  status_of("https://nowhere.bottle.test/");
  std::string out;
  EXPECT_TRUE(wait_until([&] {
    out = run({kBottle, "audit", world->name()}).out;
    return out.find("/v1/audited") != std::string::npos && out.find("nowhere.bottle.test") != std::string::npos;
  }, 10)) << out;
  EXPECT_EQ(out.find(world->token()), std::string::npos);
  EXPECT_EQ(out.find("hidden"), std::string::npos) << "queries are not logged";
}

// Programs of the host inside the agent's network namespace, as the agent's user: their only way out is egress.
class Trust : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = world->dir() + "/trust";
    ASSERT_EQ(run({"sh", "-c", "mkdir -p " + dir_ + " && chmod 755 " + world->dir() + " " + dir_ + " && for f in ca.pem truststore.p12; do docker cp " +
                                   world->container("agent") + ":/etc/bot-bottle/trust/$f " + dir_ + "/; done; chmod 644 " + dir_ + "/*"}).code, 0);
  }
  Output inside(const std::string& command) {
    const std::string pid = run({"docker", "inspect", "-f", "{{.State.Pid}}", world->container("agent")}).out;
    return run({"nsenter", "-t", pid.substr(0, pid.find('\n')), "-n", "setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "--no-new-privs", "sh", "-c",
                "cd " + dir_ + " && " + command}, 120);
  }
  std::string dir_;
};

TEST_F(Trust, StrictVerificationTakesTheLeavesThatAreMinted) {
  const Output o = inside("openssl s_client -proxy 127.0.0.1:9099 -connect api.bottle.test:443 -servername api.bottle.test -x509_strict "
                          "-verify_return_error -verify_hostname api.bottle.test -CAfile ca.pem </dev/null 2>&1");
  EXPECT_EQ(o.code, 0) << o.out;
  EXPECT_NE(o.out.find("Verify return code: 0 (ok)"), std::string::npos) << o.out;
}

TEST_F(Trust, JavaReadsThroughEgressWithItsStore) {
  std::ofstream(dir_ + "/Get.java") << R"(import java.net.*;
public class Get { public static void main(String[] a) throws Exception {
  System.out.print(new String(new URL(a[0]).openStream().readAllBytes())); } }
)";
  ASSERT_EQ(run({"sh", "-c", "cd " + dir_ + " && javac Get.java && chmod 644 *"}, 120).code, 0);
  const std::string options = world->exec({"sh", "-c", "printf %s \"$JAVA_TOOL_OPTIONS\""}).out;
  // The options that the agent gets, but for the two names that mean something only inside its container.
  std::string here = replace(options, "/etc/bot-bottle/trust/", dir_ + "/");
  for (size_t at; (at = here.find("proxyHost=egress")) != std::string::npos;) here.replace(at, 16, "proxyHost=127.0.0.1");
  const Output o = inside("JAVA_TOOL_OPTIONS='" + here + "' java -Xmx128m -cp . Get https://api.bottle.test/echo 2>&1");
  EXPECT_EQ(o.code, 0) << o.out;
  EXPECT_NE(o.out.find("\"server\":\"tls\""), std::string::npos) << o.out;
}

}  // namespace
}  // namespace e2e

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  ::testing::AddGlobalTestEnvironment(new e2e::World("e2e-life", "[sleep, infinity]"));
  return RUN_ALL_TESTS();
}
