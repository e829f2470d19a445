#include "base/log.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace bottle::log {
namespace {

using Json = nlohmann::json;

std::vector<Json> lines_of(const std::function<void()>& act) {
  ::testing::internal::CaptureStderr();
  act();
  std::istringstream in(::testing::internal::GetCapturedStderr());
  std::vector<Json> out;
  for (std::string line; std::getline(in, line);) out.push_back(Json::parse(line));
  return out;
}

TEST(LogTest, WritesOneJsonObjectALine) {
  auto lines = lines_of([] { info("watch started", {{"resource", "pods"}, {"objects", 12}, {"seconds", 0.25}}); });
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["level"], "info");
  EXPECT_EQ(lines[0]["msg"], "watch started");
  EXPECT_EQ(lines[0]["resource"], "pods");
  EXPECT_EQ(lines[0]["objects"], 12);
  EXPECT_EQ(lines[0]["seconds"], 0.25);
  EXPECT_TRUE(std::regex_match(lines[0]["ts"].get<std::string>(), std::regex(R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)")));
}

TEST(LogTest, HostileTextStaysInsideItsString) {
  auto lines = lines_of([] {
    warn(std::string("a\"}\n{\"level\":\"info\0", 18), {{"bytes", std::string("\xff\xc0 \x1b[31m")}, {"nan", std::nan("")}});
  });
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["level"], "warn");
  EXPECT_NE(lines[0]["bytes"].get<std::string>().find("\xef\xbf\xbd"), std::string::npos);
  EXPECT_TRUE(lines[0]["nan"].is_null());
}

TEST(LogTest, ALongValueIsCutBetweenCharacters) {
  std::string text = "x";
  for (int i = 0; i < 10'000; ++i) text += "ü";
  auto lines = lines_of([&] { info("m", {{"text", text}}); });
  auto written = lines[0]["text"].get<std::string>();
  EXPECT_LT(written.size(), 8300u);
  EXPECT_EQ(written.find("\xef\xbf\xbd"), std::string::npos) << "a character was cut in two";
  EXPECT_EQ(written.substr(written.size() - 3), "…");
}

TEST(LogTest, LevelsBelowTheChosenOneAreSilent) {
  EXPECT_TRUE(lines_of([] { debug("no"); }).empty());
  Level level = Level::kInfo;
  ASSERT_TRUE(parse_level("error", &level));
  set_level(level);
  EXPECT_EQ(lines_of([] { info("no"), warn("no"), error("yes"); }).size(), 1u);
  set_level(Level::kInfo);
  EXPECT_FALSE(parse_level("loud", &level));
  EXPECT_EQ(level, Level::kError);
}

TEST(LogTest, AScopeMarksTheLinesOfItsThreadAlone) {
  auto lines = lines_of([] {
    Scope bottle("bottle", "dev/hello");
    {
      Scope id("reconcileID", "1");
      info("in", {{"n", 1}});
      std::thread([] { info("elsewhere"); }).join();
      Scope again("reconcileID", "2");
      info("inner", {{"bottle", "own"}});
    }
    info("out");
  });
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0]["reconcileID"], "1");
  EXPECT_EQ(lines[0]["bottle"], "dev/hello");
  EXPECT_FALSE(lines[1].contains("bottle"));
  EXPECT_EQ(lines[2]["reconcileID"], "2");
  EXPECT_EQ(lines[2]["bottle"], "own");
  EXPECT_FALSE(lines[3].contains("reconcileID"));
}

TEST(LogTest, ThreadsDoNotMixTheirLines) {
  std::string filler(6000, 'x');  // more than PIPE_BUF
  auto lines = lines_of([&] {
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 20; ++i) info(filler);
      });
    }
    for (auto& t : threads) t.join();
  });
  EXPECT_EQ(lines.size(), 160u);  // each of them parsed
}

}  // namespace
}  // namespace bottle::log
