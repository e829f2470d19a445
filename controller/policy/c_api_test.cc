#include "controller/policy/c_api.h"

#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

namespace {

using nlohmann::json;

json take(char* text) {
  EXPECT_NE(text, nullptr);
  json out = json::parse(text);
  bottle_policy_free(text);
  return out;
}

class CApi : public testing::Test {
 protected:
  CApi() {
    const std::string text =
        R"({"bottle":"t","policyHash":"sha256:)" + std::string(64, '0') + R"(","routes":[
      {"host":"a.org","ports":[443],"methods":["GET"],"paths":["/v1/"],"inspect":"full","inject":[{"header":"x-key","tokenEnv":"T","prefix":"P "}]}]})";
    table = bottle_policy_load(text.data(), text.size(), nullptr);
  }
  ~CApi() override { bottle_policy_unload(table); }
  json judge(const json& request) { return judge_text(request.dump()); }
  json judge_text(const std::string& text) {
    return take(bottle_policy_judge_request(table, text.data(), text.size()));
  }
  const json good = {{"tls", true},          {"connectHost", "a.org"}, {"port", 443},
                     {"sni", "a.org"},       {"hosts", {"a.org"}},     {"method", "GET"},
                     {"target", "/v1/./x?q"}};
  bottle_policy_table* table = nullptr;
};

TEST_F(CApi, Info) {
  const json info = take(bottle_policy_info(table));
  EXPECT_EQ(info["bottle"], "t");
  EXPECT_EQ(info["mode"], "enforce");
  EXPECT_EQ(info["tokens"], json::array({"T"}));
  EXPECT_EQ(info["routes"], 1);
  EXPECT_EQ(take(bottle_policy_info(nullptr)), json::object());
}

TEST_F(CApi, LoadReportsErrors) {
  char* error = nullptr;
  EXPECT_EQ(bottle_policy_load("{}", 2, &error), nullptr);
  ASSERT_NE(error, nullptr);
  EXPECT_NE(std::strstr(error, "missing"), nullptr);
  bottle_policy_free(error);
  EXPECT_EQ(bottle_policy_load(nullptr, 0, nullptr), nullptr);
  bottle_policy_unload(nullptr);
  bottle_policy_free(nullptr);
}

TEST_F(CApi, Connect) {
  EXPECT_EQ(take(bottle_policy_judge_connect(table, "A.org", 443))["allowed"], true);
  const json no = take(bottle_policy_judge_connect(table, "b.org", 443));
  EXPECT_EQ(no["allowed"], false);
  EXPECT_EQ(json::parse(no["body"].get<std::string>())["error"], "host_not_allowed");
  for (int port : {0, -1, 65536, 443 + 65536})
    EXPECT_EQ(take(bottle_policy_judge_connect(table, "a.org", port))["allowed"], false) << port;
  EXPECT_EQ(take(bottle_policy_judge_connect(table, nullptr, 443))["allowed"], false);
  EXPECT_EQ(take(bottle_policy_judge_connect(table, "\xff", 443))["allowed"], false);
  EXPECT_EQ(take(bottle_policy_judge_connect(nullptr, "a.org", 443))["allowed"], false);
}

TEST_F(CApi, Request) {
  const json v = judge(good);
  EXPECT_EQ(v["allowed"], true) << v;
  EXPECT_EQ(v["status"], 200);
  EXPECT_EQ(v["target"], "/v1/x?q");
  EXPECT_EQ(v["inspect"], "full");
  EXPECT_EQ(v["route"], 0);
  EXPECT_EQ(v["body"], "");
  EXPECT_EQ(v["inject"], json::parse(R"([{"header":"x-key","tokenEnv":"T","prefix":"P "}])"));
  json no_sni = good;
  no_sni["sni"] = nullptr;
  EXPECT_EQ(judge(no_sni)["allowed"], true);
}

TEST_F(CApi, BytesAsLatin1) {
  json r = good;
  r["target"] = "/v1/\u00c3\u00a9";  // the bytes C3 A9
  EXPECT_EQ(judge(r)["target"], "/v1/%C3%A9");
  r["target"] = "/v1/\u00c0\u00ae";  // the bytes C0 AE, an overlong '.'
  EXPECT_EQ(judge(r)["code"], "path_malformed");
  r["target"] = "/v1/\u20ac";
  EXPECT_EQ(judge(r)["target"], "/v1/%E2%82%AC");
  r["target"] = std::string("/v1/\0", 5);
  EXPECT_EQ(judge(r)["code"], "path_malformed");
}

TEST_F(CApi, UnreadableIsRefused) {
  for (const char* key : {"tls", "connectHost", "port", "hosts", "method", "target"}) {
    json r = good;
    r.erase(key);
    EXPECT_EQ(judge(r)["allowed"], false) << key;
    for (const json& wrong : {json(nullptr), json(1.5), json::object(), json::array({1})}) {
      r[key] = wrong;
      EXPECT_EQ(judge(r)["allowed"], false) << key << wrong;
    }
  }
  json r = good;
  r["sni"] = 1;
  EXPECT_EQ(judge(r)["allowed"], false);
  r = good;
  r["port"] = 443 + 65536;
  EXPECT_EQ(judge(r)["allowed"], false);
  for (const char* text : {"", "{", "[]", "null", "{\"target\":\"\xff\"}"})
    EXPECT_EQ(judge_text(text)["code"], "request_malformed");
  EXPECT_EQ(take(bottle_policy_judge_request(nullptr, "{}", 2))["status"], 503);
  EXPECT_EQ(take(bottle_policy_judge_request(table, nullptr, 0))["allowed"], false);
}

TEST_F(CApi, Small) {
  EXPECT_EQ(bottle_policy_address_allowed(table, "8.8.8.8"), 1);
  EXPECT_EQ(bottle_policy_address_allowed(table, "127.0.0.1"), 0);
  EXPECT_EQ(bottle_policy_address_allowed(nullptr, "8.8.8.8"), 0);
  EXPECT_EQ(bottle_policy_address_allowed(table, nullptr), 0);
  EXPECT_EQ(bottle_policy_is_credential_header("authorization"), 1);
  EXPECT_EQ(bottle_policy_is_credential_header("accept"), 0);
  EXPECT_EQ(bottle_policy_is_credential_header(nullptr), 1);
}

TEST_F(CApi, ManyThreads) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([this] {
      for (int n = 0; n < 200; ++n) EXPECT_EQ(judge(good)["allowed"], true);
    });
  for (auto& thread : threads) thread.join();
}

}  // namespace
