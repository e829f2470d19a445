#include "sidecars/guard/rules.h"

#include <gmock/gmock.h>

namespace bottle::guard {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kRules[] = R"(# rendered
table inet bottle_guard {
  set resolvers4 { type ipv4_addr; }
  set resolvers6 { type ipv6_addr; }
  counter refused { }
  chain outbound {
    type filter hook output priority 0; policy drop;
    ct state established accept  # a comment
    oifname "lo" accept
    counter name refused reject with icmpx type admin-prohibited
  }
}
)";

TEST(Resolvers, OnlyAddressesThatLeaveTheNamespace) {
  EXPECT_THAT(parse_resolvers("# x\nsearch a b\nnameserver 127.0.0.11\nnameserver 9.9.9.9 # y\nnameserver 9.9.9.9\n"
                              "nameserver 2620:FE::fe\nnameserver ::1\nnameserver fe80::1%eth0\nnameserver 0.0.0.0\nnameserver evil;}\n"
                              "nameserver\n nameserver 1.1.1.1"),
              ElementsAre("9.9.9.9", "2620:fe::fe", "1.1.1.1"));
}

TEST(Transaction, ReplacesTheTableAndTheDormantReference) {
  auto t = render_transaction(kRules, {"9.9.9.9", "2620:fe::fe", "1.1.1.1"});
  ASSERT_TRUE(t) << t.status().message();
  EXPECT_TRUE(t->starts_with("table inet bottle_guard\ndelete table inet bottle_guard\ntable inet bottle_guard {\nset "));
  EXPECT_THAT(*t, HasSubstr("add element inet bottle_guard resolvers4 { 9.9.9.9, 1.1.1.1 }\n"));
  EXPECT_THAT(*t, HasSubstr("add element inet bottle_guard_reference resolvers6 { 2620:fe::fe }\n"));
  EXPECT_THAT(*t, HasSubstr("table inet bottle_guard_reference {\nflags dormant\n"));
  EXPECT_THAT(*render_transaction(kRules, {}), Not(HasSubstr("add element")));
}

TEST(Transaction, RefusesWhatIsNotOneTable) {
  const std::string rules = kRules;
  for (const std::string& bad : {std::string(), std::string("flush ruleset\n") + rules, rules + "flush ruleset\n", rules.substr(0, rules.size() - 2),
                                 "table inet other {\n}\n" + rules, std::string("table inet bottle_guard {\ninclude \"/x\"\n}\n"),
                                 std::string("table inet bottle_guard {\n}\n}\n"),
                                 std::string("table inet bottle_guard {\n} ; flush ruleset\n")})
    EXPECT_EQ(render_transaction(bad, {}).status().code(), Code::kInvalid) << bad;
}

std::string listing(const std::string& table, const std::string& verdict = "accept", int handle = 1, const std::string& policy = "drop") {
  const std::string t = "\"family\":\"inet\",\"table\":\"" + table + "\",\"handle\":" + std::to_string(handle);
  return R"({"nftables":[{"metainfo":{"version":"1"}},{"table":{"family":"inet","name":")" + table + R"(","handle":)" + std::to_string(handle) +
         (table == kReferenceTable ? R"(,"flags":["dormant"])" : "") + R"(}},{"counter":{)" + t +
         R"(,"name":"refused","packets":)" + std::to_string(handle) + R"(,"bytes":5}},{"chain":{)" + t +
         R"(,"name":"outbound","type":"filter","hook":"output","prio":0,"policy":")" + policy + R"("}},{"rule":{)" + t +
         R"(,"chain":"outbound","expr":[{"match":{}},{"accept":null}]}},{"rule":{)" + t + R"(,"chain":"outbound","expr":[{")" + verdict +
         R"(":null}]}},{"rule":{)" + t + R"(,"chain":"outbound","expr":[{"counter":"refused"},{"reject":{"type":"icmpx"}}]}}]})";
}

TEST(Compare, HandlesCountersAndNamesDoNotMatter) {
  EXPECT_TRUE(compare_tables(listing("bottle_guard"), listing("bottle_guard_reference", "accept", 7)));
  EXPECT_TRUE(compare_with_text(listing("bottle_guard"), kRules));
  EXPECT_EQ(*counters_json(listing("bottle_guard", "accept", 3)), R"({"refused":{"bytes":5,"packets":3}})");
}

TEST(Compare, EveryDifferenceDoes) {
  const std::string want = listing("bottle_guard_reference");
  EXPECT_EQ(compare_tables(listing("bottle_guard", "drop"), want).code(), Code::kConflict);
  EXPECT_EQ(compare_tables(listing("bottle_guard", "accept", 1, "accept"), want).code(), Code::kConflict);
  EXPECT_EQ(compare_tables(R"({"nftables":[]})", want).code(), Code::kConflict);
  EXPECT_EQ(compare_tables(R"({"nftables":[]})", R"({"nftables":[]})").code(), Code::kConflict);
  EXPECT_THAT(compare_tables(want, want).message(), HasSubstr("not in force")) << "a dormant table refuses nothing";
  EXPECT_EQ(compare_tables("", want).code(), Code::kInternal);
  EXPECT_EQ(compare_tables("[]", want).code(), Code::kInternal);
  EXPECT_THAT(compare_with_text(listing("bottle_guard", "drop"), kRules).message(), HasSubstr("verdicts of chain outbound"));
  EXPECT_THAT(compare_with_text(listing("bottle_guard", "accept", 1, "accept"), kRules).message(), HasSubstr("filter output 0 accept"));
  std::string jumps = kRules, jumped = listing("bottle_guard");
  jumps.replace(jumps.find("oifname \"lo\" accept"), 19, "goto refuse");
  EXPECT_FALSE(compare_with_text(jumped, jumps));
  jumped.replace(jumped.rfind(R"("accept":null)"), 13, R"("goto":{"target":"refuse"})");
  EXPECT_TRUE(compare_with_text(jumped, jumps)) << compare_with_text(jumped, jumps).message();
  jumped.replace(jumped.find("\"refuse\""), 8, "\"other\"");
  EXPECT_FALSE(compare_with_text(jumped, jumps));
  EXPECT_THAT(compare_with_text(R"({"nftables":[]})", kRules).message(), HasSubstr("not in the kernel"));
}

}  // namespace
}  // namespace bottle::guard
