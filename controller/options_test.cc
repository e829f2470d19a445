#include "controller/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>

#include "base/file.h"

namespace bottle {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class OptionsTest : public ::testing::Test {
 protected:
  void SetUp() override { ::unsetenv("POD_NAMESPACE"); }
  void TearDown() override {
    for (const auto& name : set_) ::unsetenv(name.c_str());
  }
  void env(const std::string& name, const std::string& value) {
    ::setenv(name.c_str(), value.c_str(), 1);
    set_.push_back(name);
  }
  ControllerOptions good(std::vector<std::string> arguments) {
    auto p = parse_options(std::move(arguments), out_, err_, dir_);
    EXPECT_FALSE(p.exit_code) << err_.str();
    return p.options;
  }
  std::optional<int> code(std::vector<std::string> arguments) { return parse_options(std::move(arguments), out_, err_, dir_).exit_code; }

  std::ostringstream out_, err_;
  std::string dir_ = "/nonexistent";

 private:
  std::vector<std::string> set_;
};

TEST_F(OptionsTest, DefaultsAreThoseOfAnInstall) {
  auto o = good({});
  EXPECT_TRUE(o.namespaces.empty());
  EXPECT_TRUE(o.leader_elect);
  EXPECT_EQ(o.workers, 16);
  EXPECT_EQ(o.lease_namespace, "bot-bottle-system");
  EXPECT_EQ(o.plan.sidecars_image, "bot-bottle/sidecars:latest");
  EXPECT_EQ(o.metrics_address, ":8080");
  EXPECT_EQ(o.probe_address, ":8081");
}

TEST_F(OptionsTest, NamespacesComeOneByOneOrWithCommas) {
  EXPECT_THAT(good({"--watch-namespace", "dev", "--watch-namespace=ci,dev"}).namespaces, ElementsAre("ci", "dev"));
  env("BOT_BOTTLE_WATCH_NAMESPACE", "dev, ci,");
  EXPECT_THAT(good({}).namespaces, ElementsAre("ci", "dev"));
  EXPECT_THAT(good({"--watch-namespace=only"}).namespaces, ElementsAre("only"));
}

TEST_F(OptionsTest, TheEnvironmentStandsInForEveryKindOfFlag) {
  env("BOT_BOTTLE_WORKERS", "3");
  env("BOT_BOTTLE_LEADER_ELECT", "false");
  env("BOT_BOTTLE_HTTP1", "true");
  env("BOT_BOTTLE_EGRESS_IMAGE", "registry/egress:1");
  env("BOT_BOTTLE_LOG_LEVEL", "debug");
  auto o = good({"--workers", "5"});
  EXPECT_EQ(o.workers, 5) << "the flag wins";
  EXPECT_FALSE(o.leader_elect);
  EXPECT_TRUE(o.http1);
  EXPECT_EQ(o.plan.egress_image, "registry/egress:1");
  EXPECT_EQ(o.log_level, log::Level::kDebug);
  EXPECT_TRUE(good({"--leader-elect=true"}).leader_elect);
}

TEST_F(OptionsTest, TheLeaseIsWhereThePodIs) {
  char name[] = "/tmp/bottle-options-XXXXXX";
  dir_ = ::mkdtemp(name);
  ASSERT_TRUE(write_file(dir_ + "/namespace", "from-file\n", 0600).is_ok());
  EXPECT_EQ(good({}).lease_namespace, "from-file");
  env("POD_NAMESPACE", "from-env");
  EXPECT_EQ(good({}).lease_namespace, "from-env");
  EXPECT_EQ(good({"--lease-namespace", "from-flag"}).lease_namespace, "from-flag");
  EXPECT_TRUE(remove_tree(dir_).is_ok());
}

TEST_F(OptionsTest, BadFlagsAreToldAndEndWithTwo) {
  EXPECT_EQ(code({"--wrokers", "3"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("wrokers"));
  EXPECT_EQ(code({"--workers", "0"}), kExitUsage);
  EXPECT_EQ(code({"--workers", "many"}), kExitUsage);
  EXPECT_EQ(code({"--log-level", "loud"}), kExitUsage);
  EXPECT_EQ(code({"--image-pull-policy", "never"}), kExitUsage);
  EXPECT_EQ(code({"--watch-namespace", "Dev"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("\"Dev\" is no name of a namespace"));
  EXPECT_EQ(code({"--lease-name", ""}), kExitUsage);
  EXPECT_EQ(code({"stray"}), kExitUsage);
}

TEST_F(OptionsTest, HelpHasAnExampleAndVersionAVersion) {
  EXPECT_EQ(code({"--help"}), kExitOk);
  EXPECT_THAT(out_.str(), HasSubstr("example: bottle-controller "));
  EXPECT_THAT(out_.str(), HasSubstr("BOT_BOTTLE_WATCH_NAMESPACE"));
  EXPECT_EQ(code({"--version"}), kExitOk);
  EXPECT_THAT(out_.str(), HasSubstr("bottle-controller " BOTTLE_VERSION));
}

}  // namespace
}  // namespace bottle
