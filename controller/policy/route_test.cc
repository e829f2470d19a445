#include "controller/policy/route.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bottle::policy {
namespace {

using testing::HasSubstr;

const std::string kHash = "sha256:" + std::string(64, 'a');

std::string file(const std::string& routes, const std::string& more = "") {
  return R"({"bottle":"t","policyHash":")" + kHash + R"(",)" + more + R"("routes":[)" + routes +
         "]}";
}
std::string route(const std::string& more) {
  return R"({"host":"a.org","ports":[443],"methods":["GET"],"paths":["/"])" + more + "}";
}

TEST(RouteTable, RoundTrip) {
  RouteTable table;
  table.bottle = "hello";
  table.policy_hash = kHash;
  table.mode = Mode::kLearn;
  table.allow_cidrs = {"10.0.0.0/8", "fd00::/8"};
  table.routes = {
      {"*.example.org", {443}, {"GET", "HEAD"}, {"/"}, EncodedSlash::kAllow, Inspect::kNone, {}},
      {"api.example.org",
       {80, 443},
       {"POST"},
       {"/v1/"},
       EncodedSlash::kRefuse,
       Inspect::kFull,
       {{"authorization", "TOKEN_A", "Bearer "}, {"x-api-key", "TOKEN_B", ""}}}};
  const std::string text = render_route_table(table);
  EXPECT_EQ(text.back(), '\n');
  auto back = parse_route_table(text);
  ASSERT_TRUE(back) << back.status().message();
  EXPECT_EQ(render_route_table(*back), text);
  EXPECT_EQ(back->routes, table.routes);
  EXPECT_EQ(back->mode, Mode::kLearn);
  EXPECT_EQ(back->allow_cidrs, table.allow_cidrs);
}

TEST(RouteTable, OrderMeansNothing) {
  const std::string
      a = route(""),
      b = R"({"host":"b.org","ports":[443,80],"methods":["POST","GET"],"paths":["/b","/a"]})";
  auto ab = parse_route_table(file(a + "," + b)), ba = parse_route_table(file(b + "," + a));
  ASSERT_TRUE(ab);
  ASSERT_TRUE(ba);
  EXPECT_EQ(render_route_table(*ab), render_route_table(*ba));
  EXPECT_EQ(ab->routes[1].paths, (std::vector<std::string>{"/a", "/b"}));
}

TEST(RouteTable, Defaults) {
  auto table = parse_route_table(file(route("")));
  ASSERT_TRUE(table);
  EXPECT_EQ(table->mode, Mode::kEnforce);
  EXPECT_EQ(table->routes[0].inspect, Inspect::kHeaders);
  EXPECT_EQ(table->routes[0].encoded_slash, EncodedSlash::kRefuse);
  EXPECT_TRUE(parse_route_table(file("")));
}

TEST(RouteTable, Refused) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "not JSON"},
      {"{", "not JSON"},
      {"[]", "not an object"},
      {"null", "not an object"},
      {"{}", "missing"},
      {file("") + "x", "not JSON"},
      {std::string("{\"bottle\":\"\xff\"}"), "not JSON"},
      {file("", R"("x":1,)"), "unknown key"},
      {file("", R"("mode":"off",)"), "mode"},
      {file("", R"("mode":1,)"), "mode"},
      {file("", R"("bottle":"u",)"), "twice"},
      {file("", R"("allowCIDRs":["10.0.0.1/8"],)"), "CIDR"},
      {file("", R"("allowCIDRs":["10.0.0.1"],)"), "canonical"},
      {file("", R"("allowCIDRs":"10.0.0.0/8",)"), "list"},
      {R"({"bottle":"t","policyHash":"sha256:xx","routes":[]})", "policyHash"},
      {R"({"bottle":1,"policyHash":"","routes":[]})", "bottle"},
      {R"({"bottle":"t","policyHash":")" + kHash + R"(","routes":{}})", "routes"},
      {file("1"), "not an object"},
      {file(route(R"(,"hots":1)")), "unknown key"},
      {file(route(R"(,"host":"b.org")")), "twice"},
      {file(route("") + "," + route("")), "twice"},
      {file(R"({"host":"a.org","ports":[443],"methods":["GET"]})"), "paths"},
      {file(R"({"host":"A.org","ports":[443],"methods":["GET"],"paths":["/"]})"), "canonical"},
      {file(R"({"host":"*.org","ports":[443],"methods":["GET"],"paths":["/"]})"), "two labels"},
      {file(R"({"host":"a.org","ports":[0],"methods":["GET"],"paths":["/"]})"), "ports"},
      {file(R"({"host":"a.org","ports":[65536],"methods":["GET"],"paths":["/"]})"), "ports"},
      {file(R"({"host":"a.org","ports":["443"],"methods":["GET"],"paths":["/"]})"), "ports"},
      {file(R"({"host":"a.org","ports":[443.0],"methods":["GET"],"paths":["/"]})"), "ports"},
      {file(R"({"host":"a.org","ports":[],"methods":["GET"],"paths":["/"]})"), "ports"},
      {file(R"({"host":"a.org","ports":[443,443],"methods":["GET"],"paths":["/"]})"), "twice"},
      {file(R"({"host":"a.org","ports":[443],"methods":["get"],"paths":["/"]})"), "canonical"},
      {file(R"({"host":"a.org","ports":[443],"methods":["CONNECT"],"paths":["/"]})"), "never"},
      {file(R"({"host":"a.org","ports":[443],"methods":[],"paths":["/"]})"), "empty"},
      {file(R"({"host":"a.org","ports":[443],"methods":["GET"],"paths":["/a/../b"]})"),
       "canonical"},
      {file(R"({"host":"a.org","ports":[443],"methods":["GET"],"paths":["/","/"]})"), "twice"},
      {file(route(R"(,"inspect":"all")")), "inspect"},
      {file(route(R"(,"encodedSlash":true)")), "encodedSlash"},
      {file(route(R"(,"inject":[{"header":"X-Key","tokenEnv":"T"}])")), "lower-case"},
      {file(route(R"(,"inject":[{"header":"host","tokenEnv":"T"}])")), "engine"},
      {file(route(R"(,"inject":[{"header":"x","tokenEnv":"t"}])")), "tokenEnv"},
      {file(route(R"(,"inject":[{"header":"x","tokenEnv":"../T"}])")), "tokenEnv"},
      {file(route(R"(,"inject":[{"header":"x","tokenEnv":"T","prefix":"a\r\nb"}])")), "prefix"},
      {file(route(R"(,"inject":[{"header":"x","tokenEnv":"T","token":"hunter2"}])")),
       "unknown key"},
      {file(route(R"(,"inject":[{"header":"x","tokenEnv":"T"},{"header":"x","tokenEnv":"U"}])")),
       "twice"},
      {file(route(R"(,"inject":[{"header":"x","tokenEnv":"T"}])") + "," +
            route(R"(,"inject":[{"header":"x","tokenEnv":"U"}])")),
       "different values"},
      {std::string(100000, '['), ""},
  };
  for (const auto& [text, why] : cases) {
    auto table = parse_route_table(text);
    ASSERT_FALSE(table) << text.substr(0, 300);
    EXPECT_EQ(table.status().code(), Code::kInvalid);
    EXPECT_THAT(table.status().message(), HasSubstr(why));
    EXPECT_THAT(table.status().message(), testing::Not(HasSubstr("hunter2")));
  }
}

}  // namespace
}  // namespace bottle::policy
