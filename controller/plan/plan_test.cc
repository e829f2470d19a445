#include "controller/plan/plan.h"

#include <gmock/gmock.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "controller/bottle/parse.h"
#include "controller/plan/internal.h"

namespace bottle {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;
using nlohmann::json;

const char* const kGolden[] = {"hello", "no-routes", "learn", "wildcard", "ports", "cidrs", "several-tokens",
                               "agent-settings", "claim", "host-path", "long-name", "addresses"};

Bottle base_bottle() {
  Bottle b;
  b.name = "demo";
  b.agent.image = "agent:1";
  RouteSpec route;
  route.host = "api.example.com";
  route.inject = {{"authorization", "Bearer ", {"api", "token"}}};
  b.egress.routes = {route};
  return b;
}

std::string env_of(const ContainerPlan& c, std::string_view name) {
  for (const auto& e : c.env)
    if (e.name == name) return e.value;
  return "(unset)";
}

size_t count_of(std::string_view text, std::string_view word) {
  size_t n = 0;
  for (size_t at = text.find(word); at != text.npos; at = text.find(word, at + word.size())) ++n;
  return n;
}

// --- one case each -----------------------------------------------------------------------------------------------------------------

TEST(Plan, SaysWhatTheContainersAre) {
  auto p = plan(base_bottle());
  ASSERT_TRUE(p) << p.status().message();
  EXPECT_EQ(p->guard.uid, 0u);
  EXPECT_EQ(p->guard.capabilities, std::vector<std::string>{"NET_ADMIN"});
  EXPECT_EQ(p->egress.uid, kEgressUid);
  EXPECT_TRUE(p->egress.capabilities.empty());
  EXPECT_TRUE(p->egress.read_only_root);
  EXPECT_EQ(p->egress.command, std::vector<std::string>{"mitmdump"});
  EXPECT_EQ(p->agent.uid, 1000u);
  EXPECT_TRUE(p->agent.capabilities.empty());
  EXPECT_TRUE(p->agent.command.empty());  // the image's own
  EXPECT_EQ(p->ca_key_type, KeyType::kRsa2048);
  EXPECT_EQ(p->tokens, (std::vector<TokenRef>{{token_env_name({"api", "token"}), {"api", "token"}}}));
  EXPECT_EQ(p->routes.policy_hash, p->policy_hash);
  EXPECT_FALSE(p->scanned);
}

TEST(Plan, KeepsWhatIsTheSidecarsAwayFromTheAgent) {
  auto p = plan(base_bottle());
  ASSERT_TRUE(p);
  for (const auto& m : p->agent.mounts) {
    EXPECT_NE(m.source, Source::kTokens);
    EXPECT_NE(m.source, Source::kEgressCa);
    EXPECT_NE(m.source, Source::kPolicy);
    EXPECT_NE(m.source, Source::kRun);
    EXPECT_NE(m.source, Source::kResolvers);
    EXPECT_EQ(m.read_only, m.source != Source::kWorkspace) << m.target;
  }
}

TEST(Plan, LeadsEveryClientThroughTheProxy) {
  auto p = plan(base_bottle());
  ASSERT_TRUE(p);
  for (const char* name : {"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"})
    EXPECT_EQ(env_of(p->agent, name), "http://egress:9099") << name;
  for (const char* name : {"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS", "npm_config_cafile",
                           "GIT_SSL_CAINFO", "CARGO_HTTP_CAINFO", "AWS_CA_BUNDLE", "DENO_CERT", "BUNDLE_SSL_CA_CERT", "BUN_CA"})
    EXPECT_EQ(env_of(p->agent, name), "/etc/bot-bottle/trust/bundle.pem") << name;
  EXPECT_EQ(env_of(p->agent, "NODE_USE_ENV_PROXY"), "1");
  EXPECT_THAT(env_of(p->agent, "JAVA_TOOL_OPTIONS"), HasSubstr("-Dhttps.proxyPort=9099"));
  EXPECT_THAT(p->trust_files.at("wgetrc"), HasSubstr("ca_certificate = /etc/bot-bottle/trust/bundle.pem"));
  EXPECT_THAT(p->trust_files.at("apt.conf"), HasSubstr("Acquire::https::Proxy \"http://egress:9099\";"));
  EXPECT_TRUE(std::is_sorted(p->agent.env.begin(), p->agent.env.end(), [](auto& a, auto& b) { return a.name < b.name; }));
}

TEST(Plan, FollowsAnotherEgressPort) {
  auto p = plan(base_bottle(), {.egress_port = 18080});
  ASSERT_TRUE(p);
  EXPECT_EQ(env_of(p->agent, "https_proxy"), "http://egress:18080");
  EXPECT_THAT(p->egress.args, Contains("18080"));
  EXPECT_EQ(render_plan_json(*p).find("9099"), std::string::npos);
  for (uint16_t port : {0, 80, 8888, 9090, 9091, 9098})
    EXPECT_EQ(plan(base_bottle(), {.egress_port = port}).status().code(), Code::kInvalid) << port;
}

TEST(Plan, AgentsOwnValueWinsWithAWarning) {
  Bottle b = base_bottle();
  b.agent.env = {{"https_proxy", "http://elsewhere:1"}};
  auto p = plan(b);
  ASSERT_TRUE(p);
  EXPECT_EQ(env_of(p->agent, "https_proxy"), "http://elsewhere:1");
  EXPECT_THAT(p->warnings, Contains(HasSubstr("https_proxy")));
}

TEST(Plan, RefusesWhatItCannotConfine) {
  for (uint32_t uid : {0u, 10001u, 10099u}) {
    Bottle b = base_bottle();
    b.agent.run_as_user = uid;
    EXPECT_EQ(plan(b).status().code(), Code::kInvalid) << uid;
  }
  Bottle b = base_bottle();
  b.egress.engine = Engine::kNative;
  EXPECT_EQ(plan(b).status().code(), Code::kUnsupported);
  b = base_bottle();
  b.isolation = Isolation::kGateway;
  EXPECT_EQ(plan(b).status().code(), Code::kUnsupported);
  b = base_bottle();
  b.pipelock_enabled = true;
  EXPECT_EQ(plan(b).status().code(), Code::kUnsupported);
  b = base_bottle();
  b.name.clear();
  EXPECT_EQ(plan(b).status().code(), Code::kInvalid);
}

TEST(Plan, HashesTellPolicyFromPod) {
  const auto hashes = [](const Bottle& b) {
    auto p = plan(b);
    EXPECT_TRUE(p) << p.status().message();
    return std::pair(p->policy_hash, p->pod_hash);
  };
  const auto before = hashes(base_bottle());
  Bottle policy = base_bottle();
  policy.egress.routes[0].paths = {"/v1/"};
  EXPECT_NE(hashes(policy).first, before.first);
  EXPECT_EQ(hashes(policy).second, before.second);  // a route is a live change
  policy = base_bottle();
  policy.egress.mode = policy::Mode::kLearn;
  policy.egress.routes[0].ports = {8443};
  EXPECT_EQ(hashes(policy).second.size(), before.second.size());
  EXPECT_NE(hashes(policy).first, before.first);
  Bottle pod = base_bottle();
  pod.agent.image = "agent:2";
  EXPECT_EQ(hashes(pod).first, before.first);
  EXPECT_NE(hashes(pod).second, before.second);
}

TEST(Plan, LearnModeKeepsTheRoutesAndOpensNothing) {
  Bottle b = base_bottle();
  b.egress.mode = policy::Mode::kLearn;
  auto p = plan(b);
  ASSERT_TRUE(p);
  EXPECT_THAT(p->routes.routes, SizeIs(1));
  EXPECT_EQ(p->routes.mode, policy::Mode::kLearn);
  EXPECT_THAT(p->guard_files.at("rules.nft"), Not(HasSubstr("meta skuid 10001")));
  EXPECT_NE(p->policy_hash, plan(base_bottle())->policy_hash);
}

TEST(Guard, AllowsNamedRangesBeforeItRefusesPrivateOnes) {
  Bottle b = base_bottle();
  b.egress.allow_cidrs = {"10.0.0.0/8", "fd00::/8"};
  const std::string rules = plan(b)->guard_files.at("rules.nft");
  const size_t four = rules.find("ip daddr 10.0.0.0/8 tcp dport 443 accept"), six = rules.find("ip6 daddr fd00::/8 tcp dport 443 accept");
  const size_t refused = rules.find("ip daddr { 0.0.0.0/8");
  ASSERT_NE(four, rules.npos);
  ASSERT_NE(six, rules.npos);
  EXPECT_LT(four, refused);
  EXPECT_LT(six, refused);
  // Owner before state before anything that accepts.
  EXPECT_LT(rules.find("meta skuid != 10001 goto refuse"), rules.find("ct state established"));
  EXPECT_THAT(rules, Not(HasSubstr("1000 ")));  // the agent's UID is never named
}

TEST(Slug, KeepsPlainNamesAndTellsOthersApart) {
  EXPECT_EQ(slug_of("hello-1"), "hello-1");
  EXPECT_THAT(slug_of("a.b"), testing::StartsWith("a-b-"));
  EXPECT_NE(slug_of("a.b"), slug_of("a_b"));
  EXPECT_NE(slug_of("A"), slug_of("a"));
  EXPECT_THAT(slug_of(""), testing::StartsWith("bottle-"));
  EXPECT_THAT(slug_of("é"), testing::StartsWith("bottle-"));
  EXPECT_THAT(slug_of("-x-"), testing::MatchesRegex("x-[0-9a-f]+"));
  EXPECT_EQ(slug_of(std::string(40, 'a')), std::string(40, 'a'));
  EXPECT_THAT(slug_of(std::string(41, 'a')), SizeIs(40));
}

// --- golden files: BOTTLE_UPDATE_GOLDEN=1 rewrites them -------------------------------------------------------------------------------

class Golden : public testing::TestWithParam<const char*> {
 protected:
  static std::string path(const std::string& suffix) {
    return std::string(BOTTLE_SOURCE_DIR) + "/controller/plan/testdata/" + GetParam() + suffix;
  }
  static BottlePlan planned() {
    auto text = read_file(path(".yaml"));
    EXPECT_TRUE(text) << text.status().message();
    BottleFile file = parse_bottle_file(*text);
    for (const auto& d : file.diagnostics)
      if (d.severity == Diagnostic::Severity::kError) ADD_FAILURE() << to_string(d, path(".yaml"));
    if (!file.ok() || file.bottles.size() != 1) return {};
    auto p = plan(file.bottles[0]);
    EXPECT_TRUE(p) << p.status().message();
    return p ? *p : BottlePlan{};
  }
  static void compare(const std::string& suffix, const std::string& got) {
    if (std::getenv("BOTTLE_UPDATE_GOLDEN")) {
      const Status s = write_file(path(suffix), got, 0644);
      ASSERT_TRUE(s) << s.message();
    }
    auto want = read_file(path(suffix));
    ASSERT_TRUE(want) << want.status().message();
    EXPECT_EQ(got, *want) << "BOTTLE_UPDATE_GOLDEN=1 rewrites " << path(suffix);
  }
};

TEST_P(Golden, Plan) {
  const BottlePlan p = planned();
  ASSERT_FALSE(p.name.empty());
  compare(".plan.json", render_plan_json(p));
}

TEST_P(Golden, GuardRules) {
  const BottlePlan p = planned();
  ASSERT_FALSE(p.name.empty());
  compare(".nft", p.guard_files.at("rules.nft"));
}

TEST_P(Golden, EngineReadsTheTableBack) {
  const BottlePlan p = planned();
  ASSERT_FALSE(p.name.empty());
  auto table = policy::parse_route_table(p.policy_files.at("routes.yaml"));
  ASSERT_TRUE(table) << table.status().message();
  EXPECT_EQ(table->routes, p.routes.routes);
  EXPECT_EQ(table->policy_hash, p.policy_hash);
  EXPECT_EQ(table->allow_cidrs, p.routes.allow_cidrs);
}

TEST_P(Golden, NftTakesTheRules) {
  if (geteuid() != 0 || std::system("nft --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "needs root and nft";
  EXPECT_EQ(std::system(("nft -c -f '" + path(".nft") + "'").c_str()), 0);
}

INSTANTIATE_TEST_SUITE_P(Bottles, Golden, testing::ValuesIn(kGolden), [](const auto& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

// --- properties --------------------------------------------------------------------------------------------------------------------

rc::Gen<RouteSpec> gen_route() {
  return rc::gen::apply(
      [](int host, bool wildcard, std::vector<uint16_t> ports, std::vector<std::string> methods, std::vector<std::string> paths,
         bool secret) {
        RouteSpec r;
        r.host = (wildcard ? "*.h" : "h") + std::to_string(host) + ".example";
        r.ports = std::move(ports);
        r.methods = std::move(methods);
        r.paths = std::move(paths);
        if (secret) r.inject = {{"x-key", "", {"s" + std::to_string(host), "key"}}};
        return r;
      },
      rc::gen::inRange(0, 30), rc::gen::arbitrary<bool>(),
      rc::gen::nonEmpty(rc::gen::container<std::vector<uint16_t>>(rc::gen::element<uint16_t>(80, 443, 8443, 22))),
      rc::gen::nonEmpty(rc::gen::container<std::vector<std::string>>(rc::gen::element<std::string>("GET", "POST", "PUT"))),
      rc::gen::nonEmpty(rc::gen::container<std::vector<std::string>>(rc::gen::element<std::string>("/", "/v1/", "/a"))),
      rc::gen::arbitrary<bool>());
}

Bottle random_bottle() {
  Bottle b = base_bottle();
  b.egress.routes = *rc::gen::resize(10, rc::gen::container<std::vector<RouteSpec>>(gen_route()));
  b.egress.mode = *rc::gen::element(policy::Mode::kEnforce, policy::Mode::kLearn);
  b.egress.allow_cidrs =
      *rc::gen::container<std::vector<std::string>>(rc::gen::element<std::string>("10.0.0.0/8", "10.1.0.0/16", "fd00::/8"));
  return b;
}

std::string planned_json(const Bottle& b) {
  auto p = plan(b);
  if (!p) RC_FAIL(p.status().message());
  return render_plan_json(*p);
}

RC_GTEST_PROP(PlanProperty, IsDeterministic, ()) {
  const Bottle b = random_bottle();
  RC_ASSERT(planned_json(b) == planned_json(b));
}

RC_GTEST_PROP(PlanProperty, OrderMeansNothing, ()) {
  const Bottle b = random_bottle();
  Bottle other = b;
  auto& routes = other.egress.routes;
  if (!routes.empty()) std::rotate(routes.begin(), routes.begin() + *rc::gen::inRange<int>(0, static_cast<int>(routes.size())), routes.end());
  if (*rc::gen::arbitrary<bool>()) std::reverse(other.egress.routes.begin(), other.egress.routes.end());
  std::reverse(other.egress.allow_cidrs.begin(), other.egress.allow_cidrs.end());
  for (auto& r : other.egress.routes) {
    std::reverse(r.ports.begin(), r.ports.end());
    std::reverse(r.methods.begin(), r.methods.end());
    std::reverse(r.paths.begin(), r.paths.end());
  }
  RC_ASSERT(planned_json(b) == planned_json(other));
}

RC_GTEST_PROP(PlanProperty, EachHostIsInTheRouteTableOnly, ()) {
  const Bottle b = random_bottle();
  auto p = plan(b);
  RC_ASSERT(p.is_ok());
  for (const auto& spec : b.egress.routes) {
    const std::string quoted = "\"" + spec.host + "\"";
    const auto in_table = std::count_if(p->routes.routes.begin(), p->routes.routes.end(), [&](auto& r) { return r.host == spec.host; });
    RC_ASSERT(in_table > 0);
    RC_ASSERT(count_of(p->policy_files.at("routes.yaml"), quoted) == static_cast<size_t>(in_table));
    RC_ASSERT(count_of(render_plan_json(*p), quoted) == static_cast<size_t>(in_table));  // in the table and nowhere else
    const std::string bare = spec.host.substr(spec.host[0] == '*' ? 2 : 0);
    RC_ASSERT(count_of(p->guard_files.at("rules.nft"), bare) == 0u);
    for (const auto& e : p->agent.env) RC_ASSERT(e.value.find(bare) == std::string::npos);
  }
}

RC_GTEST_PROP(PlanProperty, GuardOpensThePortsOfTheRoutesAndNoOthers, ()) {
  const Bottle b = random_bottle();
  auto p = plan(b);
  RC_ASSERT(p.is_ok());
  const std::string& rules = p->guard_files.at("rules.nft");
  const std::string accept = "meta skuid 10001 tcp dport ";
  if (b.egress.mode == policy::Mode::kLearn || b.egress.routes.empty()) {
    RC_ASSERT(count_of(rules, "meta skuid 10001") == 0u);
    return;
  }
  RC_ASSERT(count_of(rules, accept) == 1u);
  const size_t at = rules.find(accept) + accept.size();
  const std::string ports = " " + rules.substr(at, rules.find(" accept", at) - at) + ",";
  for (uint16_t port : {22, 80, 443, 8443}) {
    const bool wanted = std::any_of(b.egress.routes.begin(), b.egress.routes.end(),
                                    [&](auto& r) { return std::count(r.ports.begin(), r.ports.end(), port) > 0; });
    const std::string text = " " + std::to_string(port);
    RC_ASSERT(wanted == (ports.find(text + ",") != ports.npos || ports.find(text + " ") != ports.npos));
  }
}

RC_GTEST_PROP(PlanProperty, HoldsNoTokenValue, ()) {
  const std::string value = "tok_" + *rc::gen::container<std::string>(24, rc::gen::inRange('a', static_cast<char>('z' + 1)));
  const std::string text =
      "apiVersion: bot-bottle.dev/v1alpha1\nkind: Bottle\nmetadata: { name: t }\nspec:\n  agent: { image: agent }\n"
      "  egress:\n    engine: mitmproxy\n    routes:\n    - host: api.example.com\n"
      "      inject: [{ header: x-api-key, secretKeyRef: { name: api, key: token } }]\n  pipelock: { enabled: false }\n"
      "---\napiVersion: v1\nkind: Secret\nmetadata: { name: api }\nstringData: { token: " + value + " }\n";
  const BottleFile file = parse_bottle_file(text);
  RC_ASSERT(file.ok());
  RC_ASSERT(file.secrets.at({"api", "token"}).expose() == value);
  RC_ASSERT(planned_json(file.bottles.at(0)).find(value) == std::string::npos);
}

RC_GTEST_PROP(SlugProperty, IsSafeShortAndItsOwnSlug, (const std::string& name)) {
  const std::string slug = slug_of(name);
  RC_ASSERT(!slug.empty() && slug.size() <= 40u && slug.front() != '-' && slug.back() != '-');
  RC_ASSERT(slug.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos);
  RC_ASSERT(slug_of(slug) == slug);
}

}  // namespace
}  // namespace bottle
