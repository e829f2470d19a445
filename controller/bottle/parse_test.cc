#include "controller/bottle/parse.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "controller/bottle/literal_secret.h"
#include "controller/bottle/quantity.h"
#include "controller/bottle/test_bottle.h"

namespace bottle {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

Bottle only_bottle(const std::string& text) {
  EXPECT_EQ(diagnostics_of(text), "");
  BottleFile file = parse_bottle_file(text);
  EXPECT_EQ(file.bottles.size(), 1u);
  return file.bottles.empty() ? Bottle() : file.bottles[0];
}

TEST(Parse, FillsInDefaults) {
  Bottle b = only_bottle(in_route("{ host: API.Test. }"));
  EXPECT_EQ(b.name, "t");
  EXPECT_EQ(b.agent.working_dir, "/workspace");
  EXPECT_EQ(b.agent.run_as_user, 1000u);
  EXPECT_EQ(b.egress.engine, Engine::kMitmproxy);
  ASSERT_EQ(b.egress.routes.size(), 1u);
  EXPECT_EQ(b.egress.routes[0].host, "api.test");
  EXPECT_THAT(b.egress.routes[0].ports, ElementsAre(443));
  EXPECT_THAT(b.egress.routes[0].methods, ElementsAre("GET", "HEAD"));
  EXPECT_THAT(b.egress.routes[0].paths, ElementsAre("/"));
  EXPECT_FALSE(b.egress.routes[0].inspect.has_value());
  EXPECT_TRUE(b.pipelock_set);
  EXPECT_FALSE(b.pipelock_enabled);
  EXPECT_EQ(b.ttl_seconds_after_finished, -1);
}

TEST(Parse, ReadsEveryField) {
  Bottle b = only_bottle(in_spec(R"(agent:
  image: registry.test:5000/team/agent@sha256:00
  command: [claude, -p, "fix the test"]
  args: ["1"]
  env: [{ name: LOG_LEVEL, value: debug }, { name: EMPTY }]
  workingDir: /src/
  runAsUser: 2000
  tty: true
  resources: { requests: { cpu: 100m, memory: 64Mi }, limits: { cpu: "1.5", memory: 1Gi } }
  restartPolicy: OnFailure
  workspace: { hostPath: { path: /home/me/src } }
pipelock: { enabled: false, dlp: { action: block }, injection: { action: warn } }
egress:
  engine: mitmproxy
  mode: learn
  routes:
  - host: "*.A.test"
    ports: [443, 8443]
    methods: [post]
    paths: [/a/./b/]
    encodedSlash: allow
    inspect: headers
    inject: [{ header: X-Key, prefix: "Bearer ", secretKeyRef: { name: api.one, key: k_1 } }]
  allowCIDRs: [10.0.0.0/8, "fd00::/8"]
  hostAliases: [{ ip: 10.0.0.1, hostnames: [x.a.test] }]
  upstreamCAs: [{ file: ca.pem }]
supervise: { enabled: false }
pki: { keyType: ECDSA-P256 }
isolation: Sidecar
suspend: true
activeDeadlineSeconds: 60
ttlSecondsAfterFinished: 0
)"));
  EXPECT_THAT(b.agent.command, ElementsAre("claude", "-p", "fix the test"));
  EXPECT_THAT(b.agent.args, ElementsAre("1"));
  ASSERT_EQ(b.agent.env.size(), 2u);
  EXPECT_EQ(b.agent.env[1].value, "");
  EXPECT_EQ(b.agent.working_dir, "/src");
  EXPECT_EQ(b.agent.run_as_user, 2000u);
  EXPECT_TRUE(b.agent.tty);
  EXPECT_EQ(b.agent.requests.cpu_millis, 100);
  EXPECT_EQ(b.agent.requests.memory_bytes, 64 << 20);
  EXPECT_EQ(b.agent.limits.cpu_millis, 1500);
  EXPECT_EQ(b.agent.restart_policy, RestartPolicy::kOnFailure);
  EXPECT_EQ(b.agent.workspace.kind, WorkspaceSpec::Kind::kHostPath);
  EXPECT_EQ(b.agent.workspace.host_path, "/home/me/src");
  const RouteSpec& r = b.egress.routes[0];
  EXPECT_EQ(b.egress.mode, policy::Mode::kLearn);
  EXPECT_EQ(r.host, "*.a.test");
  EXPECT_THAT(r.ports, ElementsAre(443, 8443));
  EXPECT_THAT(r.paths, ElementsAre("/a/b/"));
  EXPECT_EQ(r.encoded_slash, policy::EncodedSlash::kAllow);
  EXPECT_EQ(r.inspect, policy::Inspect::kHeaders);
  EXPECT_EQ(r.inject[0].header, "x-key");
  EXPECT_EQ(r.inject[0].prefix, "Bearer ");
  EXPECT_EQ(r.inject[0].secret, (SecretKeyRef{"api.one", "k_1"}));
  EXPECT_THAT(b.egress.allow_cidrs, ElementsAre("10.0.0.0/8", "fd00::/8"));
  EXPECT_EQ(b.egress.host_aliases[0].ip, "10.0.0.1");
  EXPECT_THAT(b.egress.upstream_ca_files, ElementsAre("ca.pem"));
  EXPECT_EQ(b.key_type, KeyType::kEcdsaP256);
  EXPECT_TRUE(b.suspend);
  EXPECT_EQ(b.active_deadline_seconds, 60);
  EXPECT_EQ(b.ttl_seconds_after_finished, 0);

  // And nothing of it is lost on the way out and back.
  std::string json = render_bottle_json(b);
  EXPECT_EQ(render_bottle_json(only_bottle(json)), json);
}

TEST(Parse, ReadsJsonAndWhatAnApiServerAdds) {
  Bottle b = only_bottle(R"({"apiVersion": "bot-bottle.dev/v1alpha1", "kind": "Bottle",
    "metadata": {"name": "j", "namespace": "dev", "uid": "u-1", "generation": 3, "resourceVersion": "12",
                 "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a": "b"}, "managedFields": [{}]},
    "spec": {"agent": {"image": "a", "env": [{"name": "A", "value": "\u00e9\n\"\u0001"}]}},
    "status": {"conditions": []}})");
  EXPECT_EQ(b.namespace_, "dev");
  EXPECT_EQ(b.uid, "u-1");
  EXPECT_EQ(b.generation, 3);
  EXPECT_EQ(b.agent.env[0].value, "\xc3\xa9\n\"\x01");
}

TEST(Parse, ReadsSecretsBesideBottles) {
  std::string bottle = in_spec("agent: { image: a }\n");
  BottleFile file = parse_bottle_file(bottle + R"(---
apiVersion: v1
kind: Secret
metadata: { name: api }
type: Opaque
data: { token: aHVudGVyMg==, both: eA== }
stringData: { both: "plain", "quoted": "123" }
---
)");
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file.bottles.size(), 1u);
  ASSERT_EQ(file.secrets.size(), 3u);
  EXPECT_EQ(file.secrets.at({"api", "token"}).expose(), "hunter2");
  EXPECT_EQ(file.secrets.at({"api", "both"}).expose(), "plain");
  EXPECT_EQ(file.secrets.at({"api", "quoted"}).expose(), "123");
}

TEST(Parse, NoMessageRepeatsACredential) {
  const std::string token = "ghp_0123456789abcdefghij";
  for (const std::string& text :
       {in_spec("agent: { image: \"" + token + " x\", env: [{ name: \"" + token + "!\", value: " + token +
                " }], restartPolicy: " + token + ", " + token + ": 1, tty: " + token + ", command: " + token + " }\n" +
                "egress: " + token + "\n"),
        in_route("{ host: \"" + token + "/\", methods: [\"" + token + " \"], paths: [\"" + token + "\"], ports: [\"" +
                 token + "\"], inject: [{ header: \"" + token + ":\", token: " + token + ", secretKeyRef: { name: " +
                 token + ", key: \"" + token + "/\" } }] }"),
        "apiVersion: v1\nkind: Secret\nmetadata: { name: s }\ndata: { a: " + token + " }\nstringData: [" + token + "]\n",
        "apiVersion: v1\nkind: " + token + "\n", token, "a: {" + token + ": 1, " + token + ": 2}\nb: [\n"}) {
    std::string told = diagnostics_of(text);
    EXPECT_NE(told, "");
    EXPECT_THAT(told, Not(HasSubstr(token)));
  }
}

TEST(Parse, IsBounded) {
  EXPECT_EQ(diagnostics_of(std::string((1 << 20) + 1, ' ')), "0:0: the file is larger than 1 MiB\n");
  EXPECT_NE(diagnostics_of(repeat("[", 500000)), "");
  EXPECT_THAT(diagnostics_of("a: " + repeat("[a, ", 40) + repeat("]", 40)), HasSubstr("nested deeper than 32 levels"));
  EXPECT_THAT(diagnostics_of("a: " + repeat("{a: ", 40) + repeat("}", 40)), HasSubstr("nested deeper than 32 levels"));
  EXPECT_THAT(diagnostics_of(repeat("- ", 200000)), HasSubstr("nested deeper than 32 levels"));
  EXPECT_THAT(diagnostics_of("[" + repeat("a,", 30000) + "]"), HasSubstr("more than 20000 values"));
  EXPECT_THAT(diagnostics_of(repeat("--- a\n", 17)), HasSubstr("more than 16 documents"));
  std::string bomb = "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b, *b]\nkind: Bottle\n";
  EXPECT_THAT(diagnostics_of(bomb), HasSubstr("b[0]: aliases are not supported"));
}

TEST(Parse, RefusesWhatIsNotText) {
  EXPECT_EQ(diagnostics_of(std::string("a: b\n\0", 6)), "2:1: the file holds a control character\n");
  EXPECT_EQ(diagnostics_of("a: \xc0\xaf\n"), "1:4: the file is not UTF-8\n");
  EXPECT_EQ(diagnostics_of("\xff\xfe" "a"), "1:1: the file is not UTF-8\n");
  EXPECT_THAT(diagnostics_of(in_spec("agent: { image: \"a\\0b\" }\n")), HasSubstr("the text holds a NUL byte"));
}

TEST(Parse, DiagnosticsReadLikeACompilers) {
  Diagnostic d{Diagnostic::Severity::kError, 7, 5, "spec.egress.routes[1].hots", "unknown field, did you mean \"host\"?"};
  EXPECT_EQ(to_string(d, "hello.yaml"),
            "hello.yaml:7:5: error: spec.egress.routes[1].hots: unknown field, did you mean \"host\"?");
  Diagnostic whole{Diagnostic::Severity::kWarning, 0, 0, "", "is odd"};
  EXPECT_EQ(to_string(whole, "hello.yaml"), "hello.yaml: warning: is odd");
}

TEST(Parse, TokenEnvName) {
  EXPECT_EQ(token_env_name({"my-api.v1", "api_key"}), "BOT_BOTTLE_TOKEN_MY_API_V1_API_KEY");
}

TEST(Parse, EveryExampleIsValidAndSurvivesRendering) {
  int examples = 0;
  for (const auto& entry : std::filesystem::directory_iterator(BOTTLE_SOURCE_DIR "/examples")) {
    if (entry.path().extension() != ".yaml") continue;
    SCOPED_TRACE(entry.path());
    ++examples;
    std::ifstream in(entry.path());
    std::stringstream text;
    text << in.rdbuf();
    EXPECT_EQ(diagnostics_of(text.str()), "");
    BottleFile file = parse_bottle_file(text.str());
    EXPECT_FALSE(file.bottles.empty());
    for (const Bottle& b : file.bottles) {
      std::string json = render_bottle_json(b);
      EXPECT_EQ(render_bottle_json(only_bottle(json)), json);
      for (const RouteSpec& route : b.egress.routes) {
        for (const InjectSpec& inject : route.inject) {
          EXPECT_TRUE(file.secrets.count(inject.secret)) << inject.secret.name << "/" << inject.secret.key;
        }
      }
    }
  }
  EXPECT_GE(examples, 6);
}

TEST(Quantity, Reads) {
  EXPECT_EQ(*parse_quantity("10Gi", 1), int64_t{10} << 30);
  EXPECT_EQ(*parse_quantity("1.5Ki", 1), 1536);
  EXPECT_EQ(*parse_quantity("500m", 1000), 500);
  EXPECT_EQ(*parse_quantity("0.1", 1000), 100);
  EXPECT_EQ(*parse_quantity("1e3", 1), 1000);
  EXPECT_EQ(*parse_quantity("7E", 1), 7'000'000'000'000'000'000);
  EXPECT_EQ(*parse_quantity("1m", 1), 1);  // rounded up
  for (const char* bad : {"", ".", "Gi", "-1", "+1", "1 Gi", "1gi", "1.2.3", "1e", "1e-3", "1e99", "0", "0.0", "8Ei",
                          "9999999999999999", "1mi"}) {
    EXPECT_FALSE(parse_quantity(bad, 1)) << bad;
  }
}

TEST(LiteralSecret, KnowsShapes) {
  for (const char* text : {"ghp_0123456789ab", "x=github_pat_11ABCDEFG0", "sk-ant-api03-abc", "sk-0123456789abcdef",
                           "AKIAIOSFODNN7EXAMPLE", "xoxb-123456789-abc", "-----BEGIN RSA PRIVATE KEY-----",
                           "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.x", "glpat-0123456789abcdef"}) {
    EXPECT_TRUE(looks_like_secret(text)) << text;
  }
  for (const char* text : {"", "debug", "task-0123456789abcdef", "sk-learn", "ghp_", "AKIA", "-----BEGIN CERTIFICATE-----",
                           "Bearer ", "eyJ", "https://api.test/v1"}) {
    EXPECT_FALSE(looks_like_secret(text)) << text;
  }
}

}  // namespace
}  // namespace bottle
