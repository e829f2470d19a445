// The corpus of Bottles, judged by a real API server with our CustomResourceDefinition: good and parser-only are taken, bad and laptop are
// not. crd_test.cc has the parser's half.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "controller/kube/client.h"
#include "controller/kube/resource.h"

namespace bottle {
namespace {

const char kCrd[] = BOTTLE_SOURCE_DIR "/crds/bot-bottle.dev_bottles.yaml";
const char kCorpus[] = BOTTLE_SOURCE_DIR "/tests/testdata/bottles/";

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

class CrdCorpus : public testing::Test {
 protected:
  void SetUp() override {
    const char* kubeconfig = std::getenv("BOTTLE_KUBECONFIG_CONTROL_PLANE");
    if (!kubeconfig) GTEST_SKIP() << "BOTTLE_KUBECONFIG_CONTROL_PLANE is not set: scripts/test cluster";
    kube::ConfigOptions options;
    options.kubeconfig = kubeconfig;
    Result<kube::Config> config = kube::load_config(options);
    ASSERT_TRUE(config.is_ok()) << config.status().message();
    kube::ClientOptions client_options;
    client_options.user_agent = "crd-corpus-test";
    auto client = kube::Client::create(std::move(*config), client_options);
    ASSERT_TRUE(client.is_ok()) << client.status().message();
    client_ = std::move(*client);

    kube::Request request;
    request.method = "PATCH";
    request.path = kube::object_path(kube::kCustomResourceDefinitions, "", "bottles.bot-bottle.dev", {},
                                     {{"fieldManager", "crd-corpus-test"}, {"force", "true"}, {"fieldValidation", "Strict"}});
    request.content_type = kube::kApply;
    request.body = read_file(kCrd);
    kube::Answer answer = client_->call(request);
    ASSERT_TRUE(answer.ok()) << answer.message;
    // Served some moments after it was written.
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    request = {};
    request.path = kube::collection_path(kube::kBottles, "default");
    while (!client_->call(request).ok()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "the API server does not serve Bottles";
      std::this_thread::yield();
    }
  }

  // In a dry run. With Strict, as kubectl asks for, unknown and repeated fields are errors; without, they would be dropped.
  kube::Answer create(const std::string& text, const char* validation = "Strict") {
    kube::Request request;
    request.method = "POST";
    request.path = kube::collection_path(kube::kBottles, "default", {{"dryRun", "All"}, {"fieldValidation", validation}});
    request.content_type = text.starts_with('{') ? "application/json" : "application/yaml";
    request.body = text;
    return client_->call(request);
  }

  void judge(const char* folder, bool taken, size_t at_least) {
    size_t files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(std::string(kCorpus) + folder)) {
      ++files;
      kube::Answer answer = create(read_file(entry.path()));
      ASSERT_TRUE(answer.transport.is_ok()) << answer.transport.message();
      EXPECT_EQ(answer.ok(), taken) << entry.path() << ": " << answer.message;
      if (taken) continue;
      EXPECT_TRUE(answer.code == 400 || answer.code == 422) << entry.path() << ": " << answer.code << " " << answer.message;
    }
    EXPECT_GE(files, at_least) << folder;
  }

  std::unique_ptr<kube::Client> client_;
};

TEST_F(CrdCorpus, GoodIsTaken) { judge("good", true, 70); }
TEST_F(CrdCorpus, BadIsRefused) { judge("bad", false, 200); }
// What a schema cannot say; the controller reports it as Planned=False, InvalidSpec.
TEST_F(CrdCorpus, ParserOnlyIsTaken) { judge("parser-only", true, 10); }
TEST_F(CrdCorpus, LaptopIsRefused) { judge("laptop", false, 2); }

TEST_F(CrdCorpus, DefaultsAreFilledIn) {
  kube::Answer answer = create(read_file(std::string(kCorpus) + "good/route-least.yaml"));
  ASSERT_TRUE(answer.ok()) << answer.message;
  auto spec = nlohmann::json::parse(answer.body)["spec"];
  EXPECT_EQ(spec["agent"]["runAsUser"], 1000);
  EXPECT_EQ(spec["agent"]["workingDir"], "/workspace");
  EXPECT_EQ(spec["egress"]["engine"], "mitmproxy");
  EXPECT_EQ(spec["egress"]["routes"][0]["ports"], nlohmann::json::array({443}));
  // Not these: a spliced route has neither.
  EXPECT_FALSE(spec["egress"]["routes"][0].contains("methods"));
  EXPECT_FALSE(spec["egress"]["routes"][0].contains("paths"));
}

// Why the parser reads what was stored, and the controller does not trust that anybody asked for Strict.
TEST_F(CrdCorpus, WithoutStrictUnknownFieldsAreDropped) {
  kube::Answer answer = create(read_file(std::string(kCorpus) + "bad/agent-unknown.yaml"), "Ignore");
  ASSERT_TRUE(answer.ok()) << answer.message;
  EXPECT_FALSE(nlohmann::json::parse(answer.body)["spec"]["agent"].contains("workdir"));
}

}  // namespace
}  // namespace bottle
