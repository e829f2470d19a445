#include "controller/kube/credentials.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>

#include "base/file.h"
#include "controller/kube/exec_plugin.h"
#include "tests/support/fake_api.h"

namespace bottle::kube {
namespace {

using namespace std::chrono_literals;

class CredentialsTest : public testing::Test {
 protected:
  CredentialsTest() {
    char name[] = "/tmp/kube-credentials-XXXXXX";
    dir_ = mkdtemp(name);
  }
  ~CredentialsTest() override { (void)remove_tree(dir_); }
  std::string file(const std::string& name, const std::string& text, mode_t mode = 0600) {
    std::string path = dir_ + "/" + name;
    EXPECT_TRUE(write_file(path, text, mode).is_ok());
    return path;
  }
  std::string script(const std::string& body) { return file("plugin", "#!/bin/sh\n" + body, 0755); }
  std::string text(const std::string& name) { return read_file(dir_ + "/" + name).is_ok() ? *read_file(dir_ + "/" + name) : ""; }
  ExecPlugin plugin(const std::string& body) {
    ExecPlugin p;
    p.api_version = std::string(kExecV1);
    p.command = script(body);
    p.info = R"({"kind":"ExecCredential"})";
    p.unix_now = [this] { return unix_; };
    return p;
  }
  static std::string answer(const std::string& status) {
    return R"({"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":)" + status + "}";
  }
  // Prints `status`, and a byte into "runs" each time.
  std::string prints(const std::string& status) { return "printf . >> " + dir_ + "/runs\ncat <<'END'\n" + answer(status) + "\nEND\n"; }

  std::string dir_;
  std::chrono::steady_clock::time_point now_ = std::chrono::steady_clock::now();
  int64_t unix_ = 1'000'000'000;
};

std::string token_of(Credentials& c) {
  auto t = c.token();
  return t.is_ok() ? std::string(t->expose()) : "error: " + t.status().message();
}

TEST_F(CredentialsTest, ReadsTheTokenFileAgain) {
  WrittenCredentials w;
  w.token = SecretString("loses");
  w.token_file = file("token", " one\n");
  w.now = [this] { return now_; };
  auto c = make_credentials(std::move(w));
  ASSERT_TRUE(c.is_ok());
  EXPECT_EQ(token_of(**c), "one");
  file("token", "two");
  now_ += 49s;
  EXPECT_EQ(token_of(**c), "one");
  now_ += 1s;
  EXPECT_EQ(token_of(**c), "two");
  file("token", "three");
  (*c)->rejected();
  EXPECT_EQ(token_of(**c), "three");
  unlink((dir_ + "/token").c_str());
  now_ += 60s;
  EXPECT_EQ(token_of(**c), "three") << "what was good stays";
  file("token", "");
  now_ += 60s;
  EXPECT_EQ(token_of(**c), "three");
  EXPECT_EQ((*c)->authorization()->expose(), "Bearer three");
}

TEST_F(CredentialsTest, ErrorsComeAtOnceAndHoldNoSecret) {
  WrittenCredentials w;
  w.token_file = dir_ + "/none";
  EXPECT_EQ(make_credentials(std::move(w)).status().code(), Code::kNotFound);
  WrittenCredentials bad;
  bad.token = SecretString("s3cret\nX: y");
  auto s = make_credentials(std::move(bad)).status();
  EXPECT_EQ(s.code(), Code::kInvalid);
  EXPECT_EQ(s.message().find("s3cret"), std::string::npos);
  WrittenCredentials basic;
  basic.username = "jane";
  basic.password = SecretString("pw");
  EXPECT_EQ((*make_credentials(std::move(basic)))->authorization()->expose(), "Basic amFuZTpwdw==");
  EXPECT_TRUE((*make_credentials({}))->authorization()->empty());
}

TEST_F(CredentialsTest, RenewsACertificateOnlyAsAPair) {
  FakeApi one({.tls = true}), two({.tls = true});
  auto a = one.client_certificate(), b = two.client_certificate();
  WrittenCredentials w;
  w.cert_file = file("crt", a.cert_pem);
  w.key_file = file("key", std::string(a.key_pem.expose()));
  w.now = [this] { return now_; };
  auto made = make_credentials(std::move(w));
  ASSERT_TRUE(made.is_ok()) << made.status().message();
  Credentials& c = **made;
  auto generation = c.certificate_generation();
  file("crt", b.cert_pem);
  now_ += 5min;
  EXPECT_EQ(c.certificate()->cert_pem, a.cert_pem) << "half of a renewal";
  EXPECT_EQ(c.certificate_generation(), generation);
  file("key", std::string(b.key_pem.expose()));
  now_ += 5min;
  EXPECT_EQ(c.certificate()->cert_pem, b.cert_pem);
  EXPECT_NE(c.certificate_generation(), generation);

  WrittenCredentials mixed;
  mixed.certificate = {a.cert_pem, b.key_pem.clone()};
  EXPECT_NE(make_credentials(std::move(mixed)).status().message().find("not the key of"), std::string::npos);
}

TEST_F(CredentialsTest, RunsAPluginWithWhatItNeedsAndNothingElse) {
  auto p = plugin("[ -t 0 ] || cat > " + dir_ + "/stdin\nls /proc/self/fd > " + dir_ + "/fds\nprintf '%s\\n' \"$@\" > " + dir_ + "/args\nenv > " +
                  dir_ + "/env\n" + prints(R"({"token":"t1"})"));
  p.args = {"a b", "$(touch " + dir_ + "/shell)", ";"};
  p.env = {{"REGION", "x y"}, {"HOME", "/nowhere"}};
  setenv("KUBERNETES_EXEC_INFO", "stale", 1);
  auto c = exec_credentials(p);
  EXPECT_EQ(token_of(*c), "t1");
  unsetenv("KUBERNETES_EXEC_INFO");
  EXPECT_EQ(text("args"), "a b\n$(touch " + dir_ + "/shell)\n;\n");
  EXPECT_EQ(access((dir_ + "/shell").c_str(), F_OK), -1);
  EXPECT_EQ(text("stdin"), "");
  EXPECT_EQ(text("fds"), "0\n1\n2\n3\n") << "3 is what ls reads";
  std::string env = "\n" + text("env");
  EXPECT_NE(env.find("\nKUBERNETES_EXEC_INFO={\"kind\":\"ExecCredential\"}\n"), env.npos);
  EXPECT_EQ(env.find("stale"), env.npos);
  EXPECT_NE(env.find("\nREGION=x y\n"), env.npos);
  EXPECT_NE(env.find("\nHOME=/nowhere\n"), env.npos);
}

TEST_F(CredentialsTest, KeepsWhatAPluginGaveUntilItExpires) {
  auto c = exec_credentials(plugin(prints(R"({"token":"t1","expirationTimestamp":"2001-09-09T02:46:40Z"})")));  // in an hour
  EXPECT_EQ(token_of(*c), "t1");
  unix_ += 3500;
  EXPECT_EQ(token_of(*c), "t1");
  EXPECT_EQ(text("runs"), ".");
  script(prints(R"({"token":"t2","expirationTimestamp":"2001-09-09T06:46:40+02:00"})"));
  unix_ += 90;
  EXPECT_EQ(token_of(*c), "t2") << "renewed before it expires";
  script(prints(R"({"token":"t3"})"));
  c->rejected();
  EXPECT_EQ(token_of(*c), "t3");
  unix_ += 1'000'000;
  EXPECT_EQ(token_of(*c), "t3") << "no expiry: until a 401";
  EXPECT_EQ(text("runs"), "...");
}

TEST_F(CredentialsTest, KeepsAGoodCredentialWhenThePluginFails) {
  auto c = exec_credentials(plugin(prints(R"({"token":"t1","expirationTimestamp":"2001-09-09T02:46:40Z"})")));
  EXPECT_EQ(token_of(*c), "t1");
  script("exit 1\n");
  unix_ += 3595;
  EXPECT_EQ(token_of(*c), "t1");
  unix_ += 10;
  EXPECT_EQ(token_of(*c).substr(0, 6), "error:");
}

TEST_F(CredentialsTest, TellsWhyAPluginFailed) {
  auto p = plugin("echo s3cret-on-stdout\necho first >&2\necho 'log in again' >&2\nexit 3\n");
  p.install_hint = "get it at example.org";
  auto s = run_exec_plugin(p).status();
  EXPECT_EQ(s.code(), Code::kPermission);
  EXPECT_EQ(s.message(), "credential plugin " + p.command + ": exit code 3: log in again; get it at example.org");
  p.command = "no-such-plugin-of-ours";
  s = run_exec_plugin(p).status();
  EXPECT_EQ(s.code(), Code::kNotFound);
  EXPECT_NE(s.message().find("get it at example.org"), std::string::npos);
}

TEST_F(CredentialsTest, EndsAPluginWithItsChildren) {
  auto p = plugin("sleep 300 & echo $! > " + dir_ + "/child\nwait\n");
  p.limit = 300ms;
  auto s = run_exec_plugin(p).status();
  EXPECT_EQ(s.code(), Code::kTimeout);
  pid_t child = std::atoi(text("child").c_str());
  ASSERT_GT(child, 0);
  auto gone = [&] {  // a zombie of whoever adopts it is gone too
    auto stat = read_file("/proc/" + std::to_string(child) + "/stat");
    return !stat.is_ok() || stat->find(") Z ") != std::string::npos;
  };
  auto end = std::chrono::steady_clock::now() + 10s;
  while (!gone() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  EXPECT_TRUE(gone());

  auto much = run_exec_plugin(plugin("yes s3cret\n")).status();
  EXPECT_NE(much.message().find("more than 1 MiB"), std::string::npos) << much.message();
  // One that leaves a daemon behind which holds the pipes is not waited for.
  auto left = run_exec_plugin(plugin("sleep 20 & echo $! > " + dir_ + "/child\necho done\n"));
  ASSERT_TRUE(left.is_ok());
  EXPECT_EQ(left->expose(), "done\n");
  kill(std::atoi(text("child").c_str()), SIGKILL);
}

TEST_F(CredentialsTest, TakesOnlyACredentialOfTheVersionAskedFor) {
  FakeApi one({.tls = true}), two({.tls = true});
  auto parse = [](const std::string& text) { return parse_exec_credential(text, kExecV1); };
  EXPECT_TRUE(parse(answer(R"({"token":"t"})")).is_ok());
  for (const std::string& status :
       {std::string("{}"), std::string("null"), std::string("[]"), std::string(R"({"token":7})"), std::string(R"({"token":"s3cret\n1"})"),
        std::string(R"({"token":"s3cret","expirationTimestamp":"tomorrow"})"), std::string(R"({"token":"s3cret","expirationTimestamp":5})"),
        std::string(R"({"clientCertificateData":"s3cret"})"), std::string(R"({"clientKeyData":"s3cret"})")}) {
    auto s = parse(answer(status)).status();
    EXPECT_EQ(s.code(), Code::kInvalid) << status;
    EXPECT_EQ(s.message().find("s3cret"), std::string::npos) << s.message();
  }
  EXPECT_FALSE(parse_exec_credential(answer(R"({"token":"t"})"), kExecV1Beta1).is_ok());
  EXPECT_FALSE(parse("").is_ok());
  EXPECT_FALSE(parse("token").is_ok());
  EXPECT_FALSE(parse(std::string(200'000, '[')).is_ok());
}

}  // namespace
}  // namespace bottle::kube
