#include "controller/kube/config.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <map>

#include "base/file.h"

namespace bottle::kube {
namespace {

constexpr char kCa[] = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
// base64 of "-----BEGIN CERTIFICATE-----\ndata\n"
constexpr char kCaData[] = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCmRhdGEK";

class ConfigTest : public testing::Test {
 protected:
  ConfigTest() {
    char name[] = "/tmp/kube-config-XXXXXX";
    dir_ = mkdtemp(name);
    options_.env = [this](const std::string& n) -> std::optional<std::string> {
      auto it = env_.find(n);
      return it == env_.end() ? std::nullopt : std::optional(it->second);
    };
    options_.service_account_dir = dir_ + "/sa";
    env_["HOME"] = dir_ + "/home";
  }
  ~ConfigTest() override { (void)remove_tree(dir_); }
  std::string file(const std::string& name, const std::string& text, mode_t mode = 0600) {
    std::string path = dir_ + "/" + name;
    EXPECT_TRUE(make_dirs(path.substr(0, path.rfind('/')), 0700).is_ok());
    EXPECT_TRUE(write_file(path, text, mode).is_ok());
    return path;
  }
  // One cluster, user and context with these fields.
  Result<Config> one(const std::string& cluster, const std::string& user = "", const std::string& context = "") {
    options_.kubeconfig = file("one/config", "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: k, cluster: {" + cluster +
                                                 "}}]\nusers: [{name: u, user: {" + user + "}}]\ncontexts: [{name: c, context: {cluster: k, user: u" +
                                                 (context.empty() ? "" : ", " + context) + "}}]\n");
    return load_config(options_);
  }
  std::string error(const Result<Config>& r) { return r.is_ok() ? "" : r.status().message(); }
  std::string token(const Config& c) { return std::string(c.credentials->token()->expose()); }

  std::string dir_;
  std::map<std::string, std::string> env_;
  ConfigOptions options_;
};

TEST_F(ConfigTest, ReadsEveryFieldThatMatters) {
  file("one/ca.crt", "-----BEGIN CERTIFICATE-----\nfile\n");
  file("one/tok", "from-file\n");
  auto c = one("server: 'https://[::1]:6443/', certificate-authority: ca.crt, certificate-authority-data: " + std::string(kCaData) +
                   ", tls-server-name: api.example, proxy-url: 'socks5://127.0.0.1:1080', disable-compression: true",
               "token: loses, tokenFile: tok, as: jane, as-uid: 7, as-groups: [a, b], as-user-extra: {scopes: [x, y]}", "namespace: dev");
  ASSERT_TRUE(c.is_ok()) << error(c);
  EXPECT_EQ(c->server, "https://[::1]:6443");
  EXPECT_EQ(c->ca_pem, "-----BEGIN CERTIFICATE-----\ndata\n") << "data beats the file";
  EXPECT_EQ(c->ca_file, "");
  EXPECT_EQ(c->tls_server_name, "api.example");
  EXPECT_EQ(c->proxy_url, "socks5://127.0.0.1:1080");
  EXPECT_TRUE(c->disable_compression);
  EXPECT_EQ(c->namespace_, "dev");
  EXPECT_EQ(token(*c), "from-file");
  EXPECT_EQ(c->as_user, "jane");
  EXPECT_EQ(c->as_uid, "7");
  EXPECT_EQ(c->as_groups, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(c->as_extra.size(), 2u);
  EXPECT_EQ(c->source, options_.kubeconfig + " (context c)");

  c = one("server: https://h, certificate-authority: ca.crt", "username: jane, password: pw");
  ASSERT_TRUE(c.is_ok()) << error(c);
  EXPECT_EQ(c->ca_pem, "-----BEGIN CERTIFICATE-----\nfile\n");
  EXPECT_EQ(c->ca_file, dir_ + "/one/ca.crt") << "relative to the kubeconfig";
  EXPECT_EQ(c->credentials->authorization()->expose(), "Basic amFuZTpwdw==");
}

TEST_F(ConfigTest, MergesAListOfFilesFirstWins) {
  std::string a = file("a/config", R"(
clusters: [{name: k, cluster: {server: "https://a"}}]
contexts: [{name: x, context: {cluster: k, user: u}}]
users: [{name: u, user: {tokenFile: tok}}]
)");
  file("a/tok", "a-token");
  std::string b = file("b/config", R"(
current-context: x
clusters: [{name: k, cluster: {server: "https://b", tls-server-name: b}}, {name: l, cluster: {server: "https://l"}}]
users: [{name: u, user: {token: b-token}}]
contexts: [{name: x, context: {cluster: l}}, {name: y, context: {cluster: l, namespace: why}}]
)");
  env_["KUBECONFIG"] = ":" + dir_ + "/missing:" + a + ":" + b;
  auto c = load_config(options_);
  ASSERT_TRUE(c.is_ok()) << error(c);
  EXPECT_EQ(c->server, "https://a");
  EXPECT_EQ(c->tls_server_name, "") << "an entry is taken whole";
  EXPECT_EQ(token(*c), "a-token");
  options_.context = "y";
  c = load_config(options_);
  ASSERT_TRUE(c.is_ok()) << error(c);
  EXPECT_EQ(c->server, "https://l");
  EXPECT_EQ(c->namespace_, "why");
  EXPECT_EQ(token(*c), "");
  env_["KUBECONFIG"] = dir_ + "/missing:" + dir_ + "/missing2";
  EXPECT_EQ(load_config(options_).status().code(), Code::kNotFound);
}

TEST_F(ConfigTest, NamesWhatExists) {
  options_.kubeconfig = file("f", "contexts: [{name: dev, context: {cluster: k}}, {name: prod, context: {cluster: nope, user: u}},\n"
                                  "  {name: who, context: {cluster: k, user: nobody}}]\n"
                                  "clusters: [{name: k, cluster: {server: 'https://k'}}]\nusers: [{name: jane}]\n");
  EXPECT_NE(error(load_config(options_)).find("no current-context is set: choose one with --context; there are: dev, prod"), std::string::npos);
  options_.context = "staging";
  EXPECT_EQ(load_config(options_).status().code(), Code::kNotFound);
  EXPECT_NE(error(load_config(options_)).find("no context \"staging\"; there are: dev, prod, who"), std::string::npos);
  options_.context = "prod";
  EXPECT_NE(error(load_config(options_)).find("context prod: no cluster \"nope\"; there are: k"), std::string::npos);
  options_.context = "who";
  EXPECT_NE(error(load_config(options_)).find("no user \"nobody\"; there are: jane"), std::string::npos);
  options_.kubeconfig = dir_ + "/none";
  EXPECT_EQ(load_config(options_).status().code(), Code::kNotFound);
}

TEST_F(ConfigTest, RefusesWhatIsAmbiguousOrUnsafe) {
  struct {
    std::string cluster, user, says;
  } cases[] = {
      {"", "", "it has no server"},
      {"server: https://h, server: https://i", "", "duplicate key"},
      {"server: 'ftp://h'", "", "server must be a URL"},
      {"server: 'h:6443'", "", "server must be a URL"},
      {"server: 'https://jane:pw@h'", "", "must not hold a user"},
      {"server: 'https://h/?x=1'", "", "must not hold a query"},
      {"server: [a]", "", "server must be text"},
      {"server: 'http://h'", "token: s3cret", "is not https"},
      {"server: 'http://localhost.example:80'", "token: s3cret", "is not https"},
      {"server: 'http://127.0.0.1.example:80'", "token: s3cret", "is not https"},
      {"server: 'https://h', certificate-authority-data: '%%'", "", "certificate-authority-data is not base64"},
      {"server: 'https://h', certificate-authority-data: eA==", "", "holds no certificate"},
      {"server: 'https://h', certificate-authority: none", "", "certificate-authority"},
      {"server: 'https://h', insecure-skip-tls-verify: true, certificate-authority-data: " + std::string(kCaData), "", "exclude each other"},
      {"server: 'https://h', insecure-skip-tls-verify: 'true'", "", "must be true or false"},
      {"server: 'https://h', tls-server-name: 'a/b'", "", "tls-server-name must be a host name"},
      {"server: 'https://h', proxy-url: 'ftp://p'", "", "proxy-url must begin with"},
      {"server: 'https://h'", "token: s3cret, username: jane", "exclude each other"},
      {"server: 'https://h'", "token: \"s3cret\\nX: y\"", "control character"},
      {"server: 'https://h'", "as-groups: [a]", "need as"},
      {"server: 'https://h'", "client-key-data: czNjcmV0", "without a certificate"},
      {"server: 'https://h'", "client-certificate-data: eA==, client-key-data: czNjcmV0", "not a certificate in PEM"},
      {"server: 'https://h'", "auth-provider: {name: gcp}", "use an exec plugin"},
      {"server: 'https://h'", "exec: {command: x, apiVersion: client.authentication.k8s.io/v1alpha1}", "older ones are no longer spoken"},
      {"server: 'https://h'", "exec: {apiVersion: client.authentication.k8s.io/v1}", "it has no command"},
      {"server: 'https://h'", "exec: {command: x, apiVersion: client.authentication.k8s.io/v1, interactiveMode: Always}", "wants a terminal"},
      {"server: 'https://h'", "exec: {command: x, apiVersion: client.authentication.k8s.io/v1, env: [{name: 'A=B'}]}", "without '='"},
      {"server: &a https://h, tls-server-name: *a", "", "aliases are not supported"},
  };
  for (const auto& c : cases) {
    auto r = one(c.cluster, c.user);
    EXPECT_FALSE(r.is_ok()) << c.cluster << " " << c.user;
    EXPECT_NE(error(r).find(c.says), std::string::npos) << error(r);
    EXPECT_EQ(error(r).find("s3cret"), std::string::npos) << error(r);
    EXPECT_EQ(error(r).find(":pw"), std::string::npos) << error(r);
  }
  EXPECT_TRUE(one("server: 'http://127.0.0.1:8001'", "token: t").is_ok());
  EXPECT_TRUE(one("server: 'http://[::1]:8001'", "token: t").is_ok());
  EXPECT_TRUE(one("server: 'https://h', insecure-skip-tls-verify: yes").is_ok());
}

TEST_F(ConfigTest, AFileIsTakenWholeOrNotAtAll) {
  options_.kubeconfig = file("f", "kind: Pod\n");
  EXPECT_NE(error(load_config(options_)).find("not a kubeconfig"), std::string::npos);
  for (std::string text : {"[", "a: b: c", "clusters: 7", "clusters: [7]", "clusters: [{cluster: {}}]", "users: [{name: u, user: x}]", "users: [{name: u}, {name: u}]",
                           "---\na: 1\n---\nb: 2\n"}) {
    options_.kubeconfig = file("f", text);
    EXPECT_EQ(load_config(options_).status().code(), Code::kInvalid) << text;
  }
  options_.kubeconfig = file("f", std::string((1 << 20) + 1, ' '));
  EXPECT_FALSE(load_config(options_).is_ok());
  options_.kubeconfig = file("f", std::string(1000, '['));
  EXPECT_FALSE(load_config(options_).is_ok());
}

TEST_F(ConfigTest, APluginIsToldOfTheClusterAndFoundBesideTheFile) {
  file("one/bin/plugin",
       "#!/bin/sh\nprintf %s \"$KUBERNETES_EXEC_INFO\" > " + dir_ +
           "/info\necho '{\"kind\":\"ExecCredential\",\"apiVersion\":\"client.authentication.k8s.io/v1beta1\",\"status\":{\"token\":\"t\"}}'\n",
       0755);
  std::string cluster = "server: 'https://h', certificate-authority-data: " + std::string(kCaData) +
                        ", extensions: [{name: client.authentication.k8s.io/exec, extension: {audience: a, n: 1}}]";
  std::string exec = "exec: {command: bin/plugin, apiVersion: client.authentication.k8s.io/v1beta1, interactiveMode: IfAvailable";
  auto c = one(cluster, exec + ", provideClusterInfo: true}");
  ASSERT_TRUE(c.is_ok()) << error(c);
  auto t = c->credentials->token();
  ASSERT_TRUE(t.is_ok()) << t.status().message();
  EXPECT_EQ(t->expose(), "t");
  EXPECT_EQ(*read_file(dir_ + "/info"),
            R"({"apiVersion":"client.authentication.k8s.io/v1beta1","kind":"ExecCredential","spec":{"cluster":{"certificate-authority-data":")" +
                std::string(kCaData) + R"(","config":{"audience":"a","n":1},"server":"https://h"},"interactive":false}})");
  c = one(cluster, exec + "}");
  ASSERT_TRUE(c.is_ok() && c->credentials->token().is_ok());
  EXPECT_EQ(read_file(dir_ + "/info")->find("cluster"), std::string::npos);
  // Without '/' it is looked for in PATH, never in the folder.
  c = one(cluster, "exec: {command: plugin, apiVersion: client.authentication.k8s.io/v1beta1, installHint: get it}");
  ASSERT_TRUE(c.is_ok()) << error(c);
  EXPECT_EQ(c->credentials->token().status().code(), Code::kNotFound);
}

TEST_F(ConfigTest, InAPod) {
  env_["KUBERNETES_SERVICE_HOST"] = "fd00::1";
  env_["KUBERNETES_SERVICE_PORT"] = "443";
  EXPECT_NE(error(load_config(options_)).find("automountServiceAccountToken"), std::string::npos);
  file("sa/token", "sa-token\n");
  EXPECT_FALSE(load_config(options_).is_ok()) << "no CA, no connection";
  file("sa/ca.crt", kCa);
  file("sa/namespace", "bot-bottle-system\n");
  auto c = load_config(options_);
  ASSERT_TRUE(c.is_ok()) << error(c);
  EXPECT_EQ(c->server, "https://[fd00::1]:443");
  EXPECT_EQ(c->namespace_, "bot-bottle-system");
  EXPECT_EQ(c->ca_file, dir_ + "/sa/ca.crt");
  EXPECT_EQ(token(*c), "sa-token");
  EXPECT_EQ(c->source, "in-cluster");
  env_["KUBERNETES_SERVICE_HOST"] = "10.0.0.1/x@y";
  EXPECT_FALSE(load_config(options_).is_ok());
}

TEST_F(ConfigTest, LooksInTheOrderOfKubectl) {
  auto with = [](const std::string& host) {
    return "current-context: c\ncontexts: [{name: c, context: {cluster: k}}]\nclusters: [{name: k, cluster: {server: 'https://" + host + "'}}]\n";
  };
  EXPECT_EQ(load_config(options_).status().code(), Code::kNotFound);
  file("home/.kube/config", with("home"));
  EXPECT_EQ(load_config(options_)->server, "https://home");
  env_["KUBERNETES_SERVICE_HOST"] = "10.0.0.1";
  env_["KUBERNETES_SERVICE_PORT"] = "443";
  EXPECT_EQ(load_config(options_)->server, "https://home") << "a pod without a token";
  file("sa/token", "t");
  file("sa/ca.crt", kCa);
  EXPECT_EQ(load_config(options_)->server, "https://10.0.0.1:443");
  env_["KUBECONFIG"] = file("env", with("env"));
  EXPECT_EQ(load_config(options_)->server, "https://env");
  options_.kubeconfig = file("flag", with("flag"));
  EXPECT_EQ(load_config(options_)->server, "https://flag");
}

}  // namespace
}  // namespace bottle::kube
