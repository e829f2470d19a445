// The manager with real caches, queue and lease against a fake API server. The reconciler is the test's own: Reconciler::create below is what
// this program links.
#include "controller/reconcile/manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "controller/reconcile/test_feed.h"

namespace bottle::reconcile {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// What the reconciler does, and what it was asked.
struct Script {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::string> passes;
  bool flushed = false;
  size_t calls_at_flush = 0;
  std::function<Outcome(const std::string& key, int nth)> act = [](const std::string&, int) { return Outcome{}; };

  bool wait_passes(size_t n, milliseconds limit = seconds(10)) {
    std::unique_lock<std::mutex> lock(mutex);
    return changed.wait_for(lock, limit, [&] { return passes.size() >= n; });
  }
};
Script* g_script = nullptr;

class Scripted : public Reconciler {
 public:
  Outcome reconcile(const std::string& ns, const std::string& name) override {
    const std::string key = ns + "/" + name;
    int nth;
    {
      std::lock_guard<std::mutex> lock(g_script->mutex);
      nth = static_cast<int>(std::count(g_script->passes.begin(), g_script->passes.end(), key)) + 1;
      g_script->passes.push_back(key);
      g_script->changed.notify_all();
    }
    return g_script->act(key, nth);
  }
  void flush(milliseconds) override {
    std::lock_guard<std::mutex> lock(g_script->mutex);
    g_script->flushed = true;
  }
};

Surroundings surroundings() { return {[] { return int64_t{0}; }, [] { return std::chrono::steady_clock::now(); }, {}}; }

class ManagerTest : public ::testing::Test {
 protected:
  void SetUp() override { g_script = &script_; }
  void TearDown() override {
    if (manager_) {
      manager_->stop();
      if (runner_.joinable()) runner_.join();
    }
    manager_.reset();
  }
  void start(ManagerOptions options) {
    client_ = client_of(api_);
    options.metrics = &registry_;
    auto manager = Manager::create(*client_, std::move(options), surroundings());
    ASSERT_TRUE(manager.is_ok()) << manager.status().message();
    manager_ = std::move(manager).value();
    runner_ = std::thread([this] { ended_ = manager_->run(); });
  }
  void start_alone() {
    ManagerOptions options;
    options.leader_elect = false;
    options.workers = 4;
    start(options);
  }
  Status stop() {
    manager_->stop();
    runner_.join();
    return ended_;
  }
  double metric(const std::string& series) {
    std::string text = registry_.expose();
    size_t at = text.find("\n" + series + " ");
    return at == std::string::npos ? -1 : std::stod(text.substr(at + series.size() + 2));
  }

  // A server that keeps one Lease, with the server's rule that a stale resourceVersion is a conflict.
  void serve_lease() {
    api_.on("GET /apis/coordination", [this](const auto&) {
      std::lock_guard<std::mutex> lock(lease_mutex_);
      return lease_.is_null() ? kube::FakeApi::error(404, "NotFound", "leases \"bottle-controller\" not found") : kube::FakeApi::Reply{200, lease_.dump()};
    });
    auto write = [this](const kube::FakeApi::Call& call) {
      std::lock_guard<std::mutex> lock(lease_mutex_);
      Json wanted = Json::parse(call.body);
      if (!lease_.is_null() && wanted["metadata"].value("resourceVersion", "") != lease_["metadata"]["resourceVersion"]) {
        return kube::FakeApi::error(409, "Conflict", "the object has been modified");
      }
      wanted["metadata"]["resourceVersion"] = std::to_string(++lease_version_);
      lease_ = wanted;
      return kube::FakeApi::Reply{200, lease_.dump()};
    };
    api_.on("POST /apis/coordination", write);
    api_.on("PUT /apis/coordination", write);
  }
  std::string holder() {
    std::lock_guard<std::mutex> lock(lease_mutex_);
    return lease_.is_null() ? "" : lease_["spec"].value("holderIdentity", "");
  }
  static ManagerOptions electing() {
    ManagerOptions options;
    options.identity = "me";
    options.lease_duration = milliseconds(1500);
    options.lease_renew_deadline = milliseconds(1000);
    options.lease_retry_period = milliseconds(50);
    return options;
  }

  // Before the server whose threads use them.
  std::mutex lease_mutex_;
  Json lease_;
  int lease_version_ = 0;
  Script script_;
  metrics::Registry registry_;
  kube::FakeApi api_;
  Feed feed_{api_};
  std::unique_ptr<kube::Client> client_;
  std::unique_ptr<Manager> manager_;
  std::thread runner_;
  Status ended_;
};

TEST_F(ManagerTest, NothingIsReconciledBeforeEveryCacheIsFull) {
  start_alone();
  feed_.open("bottles", {bottle_object("dev", "hello")});
  for (const char* plural : {"pods", "configmaps", "secrets"}) feed_.open(plural);
  EXPECT_FALSE(script_.wait_passes(1, milliseconds(200)));
  EXPECT_FALSE(manager_->ready());
  EXPECT_THAT(manager_->waiting_for(), ElementsAre("the cache of networkpolicies"));
  feed_.open("networkpolicies");
  ASSERT_TRUE(script_.wait_passes(1));
  EXPECT_TRUE(manager_->ready());
  EXPECT_TRUE(manager_->leading());
  EXPECT_TRUE(stop().is_ok());
  EXPECT_TRUE(script_.flushed);
  EXPECT_FALSE(manager_->leading());
}

TEST_F(ManagerTest, StopsWhileTheCachesAreStillEmpty) {
  start_alone();
  ASSERT_TRUE(api_.wait_calls("watch=1", 5));
  EXPECT_TRUE(stop().is_ok());
  EXPECT_FALSE(script_.flushed);
}

TEST_F(ManagerTest, FailuresAreTriedAgainAndThrownOnesCounted) {
  script_.act = [](const std::string&, int nth) -> Outcome {
    if (nth == 1) return {Status(Code::kUnavailable, "create pod dev/hello: the server is busy"), false, milliseconds(0)};
    if (nth == 2) throw std::runtime_error("near 's3cret'");
    return {};
  };
  ::testing::internal::CaptureStderr();
  start_alone();
  feed_.open_all({bottle_object("dev", "hello")});
  ASSERT_TRUE(script_.wait_passes(3));
  EXPECT_TRUE(stop().is_ok());
  std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, AllOf(HasSubstr("the server is busy"), HasSubstr("\"bottle\":\"dev/hello\""), HasSubstr("\"reconcileID\":\"")));
  EXPECT_THAT(log, AllOf(HasSubstr("std::runtime_error"), Not(HasSubstr("s3cret"))));
  EXPECT_EQ(metric("controller_runtime_reconcile_total{controller=\"bottle\",result=\"error\"}"), 2);
  EXPECT_EQ(metric("controller_runtime_reconcile_total{controller=\"bottle\",result=\"success\"}"), 1);
  EXPECT_EQ(metric("controller_runtime_reconcile_errors_total{controller=\"bottle\"}"), 2);
  EXPECT_EQ(metric("controller_runtime_reconcile_panics_total{controller=\"bottle\"}"), 1);
  EXPECT_EQ(metric("controller_runtime_reconcile_time_seconds_count{controller=\"bottle\"}"), 3);
  EXPECT_EQ(metric("controller_runtime_active_workers{controller=\"bottle\"}"), 0);
  EXPECT_EQ(metric("controller_runtime_max_concurrent_reconciles{controller=\"bottle\"}"), 4);
}

TEST_F(ManagerTest, ATerminalFailureWaitsForAChange) {
  script_.act = [](const std::string&, int nth) -> Outcome {
    return nth == 1 ? Outcome{Status(Code::kInvalid, "spec.agent.image is wrong"), true, milliseconds(0)} : Outcome{};
  };
  start_alone();
  feed_.open_all({bottle_object("dev", "bad")});
  ASSERT_TRUE(script_.wait_passes(1));
  EXPECT_FALSE(script_.wait_passes(2, milliseconds(200)));
  feed_.send("bottles", "MODIFIED", bottle_object("dev", "bad", 2));
  EXPECT_TRUE(script_.wait_passes(2));
  EXPECT_TRUE(stop().is_ok());
  EXPECT_EQ(metric("controller_runtime_terminal_reconcile_errors_total{controller=\"bottle\"}"), 1);
}

TEST_F(ManagerTest, ComesBackWhenItIsAskedTo) {
  script_.act = [](const std::string&, int nth) -> Outcome { return {Status::ok(), false, milliseconds(nth < 3 ? 5 : 0)}; };
  start_alone();
  feed_.open_all({bottle_object("dev", "hello")});
  ASSERT_TRUE(script_.wait_passes(3));
  EXPECT_TRUE(stop().is_ok());
  EXPECT_EQ(metric("controller_runtime_reconcile_total{controller=\"bottle\",result=\"requeue_after\"}"), 2);
}

TEST_F(ManagerTest, LeadsFirstAndReleasesTheLeaseAfterTheLastPass) {
  serve_lease();
  std::atomic<bool> held_during_pass{false}, let_go{false};
  script_.act = [&](const std::string&, int) -> Outcome {
    while (!let_go) std::this_thread::yield();
    held_during_pass = holder() == "me";
    return {};
  };
  start(electing());
  feed_.open_all({bottle_object("dev", "hello")});
  ASSERT_TRUE(script_.wait_passes(1));
  EXPECT_EQ(holder(), "me");
  manager_->stop();
  std::this_thread::yield();
  let_go = true;
  runner_.join();
  EXPECT_TRUE(ended_.is_ok());
  EXPECT_TRUE(held_during_pass);
  EXPECT_TRUE(script_.flushed);
  EXPECT_EQ(holder(), "");
}

TEST_F(ManagerTest, StandsByWithFullCachesWhileAnotherLeads) {
  serve_lease();
  {
    std::lock_guard<std::mutex> lock(lease_mutex_);
    lease_ = {{"metadata", {{"name", "bottle-controller"}, {"namespace", "bot-bottle-system"}, {"resourceVersion", "0"}}},
              {"spec", {{"holderIdentity", "other"}, {"leaseDurationSeconds", 3600}, {"renewTime", "2026-01-01T00:00:00.000000Z"}}}};
  }
  start(electing());
  feed_.open_all({bottle_object("dev", "hello")});
  ASSERT_TRUE(api_.wait_calls("GET /apis/coordination", 3));
  EXPECT_TRUE(manager_->ready());
  EXPECT_FALSE(manager_->leading());
  EXPECT_TRUE(script_.passes.empty());
  EXPECT_TRUE(stop().is_ok());
  EXPECT_EQ(holder(), "other");
}

TEST_F(ManagerTest, ALostLeaseEndsTheRunAtOnce) {
  serve_lease();
  start(electing());
  feed_.open_all();
  ASSERT_TRUE(api_.wait_calls("PUT /apis/coordination", 2));
  {
    std::lock_guard<std::mutex> lock(lease_mutex_);
    lease_["spec"]["holderIdentity"] = "other";
    lease_["metadata"]["resourceVersion"] = std::to_string(++lease_version_);
  }
  runner_.join();
  EXPECT_EQ(ended_.code(), Code::kConflict);
  EXPECT_THAT(ended_.message(), HasSubstr("lease bot-bottle-system/bottle-controller is lost"));
  EXPECT_FALSE(manager_->leading());
  EXPECT_FALSE(script_.flushed);
  EXPECT_EQ(holder(), "other");
}

TEST_F(ManagerTest, APassThatDoesNotEndKeepsTheLease) {
  serve_lease();
  std::atomic<bool> let_go{false};
  script_.act = [&](const std::string&, int) -> Outcome {
    while (!let_go) std::this_thread::yield();
    return {};
  };
  ManagerOptions options = electing();
  options.graceful_timeout = milliseconds(50);
  start(options);
  feed_.open_all({bottle_object("dev", "hello")});
  ASSERT_TRUE(script_.wait_passes(1));
  EXPECT_EQ(stop().code(), Code::kTimeout);
  EXPECT_EQ(holder(), "me");
  let_go = true;
  manager_.reset();  // the pass looks at `let_go`
}

TEST_F(ManagerTest, SaysInTheLogWhatKeepsItFromStarting) {
  api_.on("/bottles?", [](const auto&) { return kube::FakeApi::error(404, "NotFound", "the server could not find the requested resource"); });
  ::testing::internal::CaptureStderr();
  ManagerOptions options;
  options.leader_elect = false;
  options.cache_sync_timeout = milliseconds(100);
  start(options);
  for (const char* plural : {"pods", "configmaps", "secrets", "networkpolicies"}) feed_.open(plural);
  ASSERT_TRUE(api_.wait_calls("GET /apis/bot-bottle.dev/v1alpha1/bottles?limit=1", 2)) << "it keeps on trying";
  EXPECT_TRUE(stop().is_ok());
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("CustomResourceDefinition bottles.bot-bottle.dev is not installed"));
}

TEST(ManagerOptionsTest, RefusesWhatCannotWork) {
  kube::FakeApi api;
  auto client = client_of(api);
  ManagerOptions options;
  options.identity = "me";
  options.workers = 0;
  EXPECT_EQ(Manager::create(*client, options, surroundings()).status().code(), Code::kInvalid);
  options.workers = 1;
  options.identity = "";
  EXPECT_EQ(Manager::create(*client, options, surroundings()).status().code(), Code::kInvalid);
}

}  // namespace

std::unique_ptr<Reconciler> Reconciler::create(kube::Client&, View&, ReconcilerOptions, Surroundings) { return std::make_unique<Scripted>(); }
// Only named as a default argument, which no test uses.
Surroundings real_surroundings() { return {}; }

}  // namespace bottle::reconcile
