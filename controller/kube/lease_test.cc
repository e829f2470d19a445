#include "controller/kube/lease.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/support/fake_api.h"

namespace bottle::kube {
namespace {

using namespace std::chrono_literals;
using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;
using ::testing::MatchesRegex;

constexpr auto kLimit = 20s;

// One Lease, kept as an API server keeps it: with a resourceVersion that an update has to name.
class LeaseServer {
 public:
  explicit LeaseServer(FakeApi& api) {
    api.on("/leases", [this](const FakeApi::Call& c) { return answer(c); });
  }
  Json lease() {
    std::lock_guard lock(mutex_);
    return lease_;
  }
  std::string holder() { return lease().value("/spec/holderIdentity"_json_pointer, std::string()); }
  void set(const std::string& field, Json value) {
    std::lock_guard lock(mutex_);
    lease_["spec"][field] = std::move(value);
    bump();
  }
  void put(Json spec) {
    std::lock_guard lock(mutex_);
    lease_ = {{"metadata", {{"name", "l"}, {"namespace", "sys"}, {"labels", {{"kept", "yes"}}}}}, {"spec", std::move(spec)}};
    bump();
  }
  void remove() {
    std::lock_guard lock(mutex_);
    lease_ = nullptr;
  }
  bool wait(const std::function<bool(const Json& spec)>& what, std::chrono::milliseconds limit = kLimit) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, limit, [&] { return lease_.is_object() && what(lease_["spec"]); });
  }

 private:
  void bump() {
    lease_["metadata"]["resourceVersion"] = std::to_string(++version_);
    changed_.notify_all();
  }
  FakeApi::Reply answer(const FakeApi::Call& c) {
    std::lock_guard lock(mutex_);
    if (c.method == "POST") {
      if (lease_.is_object()) return FakeApi::error(409, "AlreadyExists", "exists");
      lease_ = Json::parse(c.body);
      bump();
      return {.status = 201, .body = lease_.dump()};
    }
    if (!lease_.is_object()) return FakeApi::error(404, "NotFound", "none");
    if (c.method == "PUT") {
      Json wanted = Json::parse(c.body);
      if (wanted["metadata"].value("resourceVersion", "") != lease_["metadata"]["resourceVersion"]) return FakeApi::error(409, "Conflict", "changed");
      lease_ = std::move(wanted);
      bump();
    }
    return {.body = lease_.dump()};
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  Json lease_;
  int version_ = 0;
};

// One replica: its own client, its own elector.
struct Replica {
  Replica(FakeApi& api, const std::string& identity, std::chrono::milliseconds duration = 1000ms, metrics::Registry* registry = nullptr) {
    auto made = Client::create(api.config(), {});
    EXPECT_TRUE(made.is_ok());
    client = std::move(*made);
    LeaseOptions options{"sys", "l", identity, duration, duration * 2 / 3, duration / 10, registry};
    elector = LeaderElector::create(
        *client, options, [this] { count(&started); }, [this] { count(&lost); });
  }
  void count(int* what) {
    std::lock_guard lock(mutex);
    ++*what;
    changed.notify_all();
  }
  bool wait(const int& what, int n = 1) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, kLimit, [&] { return what == n; });
  }
  std::mutex mutex;
  std::condition_variable changed;
  int started = 0, lost = 0;
  std::unique_ptr<Client> client;
  std::unique_ptr<LeaderElector> elector;
};

class LeaseTest : public ::testing::Test {
 protected:
  FakeApi api_;
  LeaseServer server_{api_};
};

TEST_F(LeaseTest, TheFirstOneMakesTheLeaseAndRenewsItWithoutLooking) {
  metrics::Registry registry;
  Replica a(api_, "host_a", 1000ms, &registry);
  a.elector->start();
  ASSERT_TRUE(a.wait(a.started));
  EXPECT_TRUE(a.elector->leading());
  EXPECT_EQ(registry.gauge("leader_election_master_status", "", {{"name", "l"}}).value(), 1);
  const Json spec = server_.lease()["spec"];
  EXPECT_EQ(spec["holderIdentity"], "host_a");
  EXPECT_EQ(spec["leaseDurationSeconds"], 1);
  EXPECT_EQ(spec["leaseTransitions"], 0);
  EXPECT_THAT(spec["renewTime"].get<std::string>(), MatchesRegex("....-..-..T..:..:..\\.......Z"));
  ASSERT_TRUE(server_.wait([&](const Json& now) { return now["renewTime"] > spec["renewTime"]; }));
  EXPECT_EQ(server_.lease()["spec"]["acquireTime"], spec["acquireTime"]);
  EXPECT_EQ(api_.calls("GET").size(), 1u);
}

TEST_F(LeaseTest, StoppingHandsOverAtOnce) {
  Replica a(api_, "a", 10s), b(api_, "b", 10s);
  a.elector->start();
  ASSERT_TRUE(a.wait(a.started));
  b.elector->start();
  ASSERT_TRUE(api_.wait_calls("GET", 2));
  const auto before = Clock::now();
  a.elector->stop_and_release();
  EXPECT_FALSE(a.elector->leading());
  EXPECT_EQ(a.lost, 0) << "who stops has not lost it";
  ASSERT_TRUE(b.wait(b.started));
  EXPECT_LT(Clock::now() - before, 7s) << "the lease has 10 s";
  EXPECT_EQ(server_.lease()["spec"]["leaseTransitions"], 1);
}

TEST_F(LeaseTest, TheReleasedRecordIsEmptyAndShort) {
  Replica a(api_, "a", 10s);
  a.elector->start();
  ASSERT_TRUE(a.wait(a.started));
  a.elector.reset();
  EXPECT_EQ(server_.holder(), "");
  EXPECT_EQ(server_.lease()["spec"]["leaseDurationSeconds"], 1);
}

TEST_F(LeaseTest, AHolderThatIsSilentIsWaitedOutByOurOwnClock) {
  // Its times are of a clock that is a year behind; what counts is when we saw the record change.
  server_.put({{"holderIdentity", "dead"}, {"leaseDurationSeconds", 1}, {"renewTime", "2025-01-01T00:00:00.000000Z"},
               {"acquireTime", "2025-01-01T00:00:00.000000Z"}, {"leaseTransitions", 4}});
  const auto before = Clock::now();
  Replica a(api_, "a");
  a.elector->start();
  ASSERT_TRUE(a.wait(a.started));
  EXPECT_GE(Clock::now() - before, 1s);
  const Json lease = server_.lease();
  EXPECT_EQ(lease["spec"]["leaseTransitions"], 5);
  EXPECT_EQ(lease["metadata"]["labels"]["kept"], "yes");
}

TEST_F(LeaseTest, AHolderThatRenewsIsLeftAloneHoweverWrongItsClock) {
  server_.put({{"holderIdentity", "other"}, {"leaseDurationSeconds", 1}, {"renewTime", "1990-01-01T00:00:00.000000Z"}});
  Replica a(api_, "a");
  a.elector->start();
  for (int i = 0; i < 6; ++i) {  // 6 renewals, each seen before the next
    const size_t seen = api_.calls("GET").size();
    server_.set("renewTime", "1990-01-01T00:00:0" + std::to_string(i) + ".000000Z");
    ASSERT_TRUE(api_.wait_calls("GET", seen + 3));
    EXPECT_FALSE(a.elector->leading());
  }
  ASSERT_TRUE(a.wait(a.started)) << "silent at last";
}

TEST_F(LeaseTest, AServerThatIsAwayTooLongCostsTheLease) {
  Replica a(api_, "a");
  a.elector->start();
  ASSERT_TRUE(a.wait(a.started));
  const auto before = Clock::now();
  api_.pause();
  ASSERT_TRUE(a.wait(a.lost));
  EXPECT_FALSE(a.elector->leading());
  EXPECT_LT(Clock::now() - before, 5s);
  a.elector->stop_and_release();
  EXPECT_EQ(a.lost, 1);
  EXPECT_EQ(a.started, 1);
}

TEST_F(LeaseTest, AServerThatHangsCostsTheLeaseInTimeToo) {
  Replica a(api_, "a");
  a.elector->start();
  ASSERT_TRUE(a.wait(a.started));
  api_.fault("PUT", {.delay = 20s, .times = 100});
  const auto before = Clock::now();
  ASSERT_TRUE(a.wait(a.lost));
  EXPECT_LT(Clock::now() - before, 5s);
}

TEST_F(LeaseTest, AShortAbsenceCostsNothing) {
  Replica a(api_, "a", 6s);
  a.elector->start();
  ASSERT_TRUE(a.wait(a.started));
  api_.pause();
  api_.resume();
  api_.fault("PUT", {.status = 503, .reason = "ServiceUnavailable"});
  api_.fault("PUT", {.drop = true});
  const auto renewed = server_.lease()["spec"]["renewTime"];
  ASSERT_TRUE(server_.wait([&](const Json& spec) { return spec["renewTime"] > renewed; }));
  EXPECT_TRUE(a.elector->leading());
  EXPECT_EQ(a.lost, 0);
}

TEST_F(LeaseTest, SomebodyElseInTheRecordMeansItIsLost) {
  Replica a(api_, "a", 10s);
  a.elector->start();
  ASSERT_TRUE(a.wait(a.started));
  server_.set("holderIdentity", "thief");
  ASSERT_TRUE(a.wait(a.lost));
  a.elector.reset();
  EXPECT_EQ(server_.holder(), "thief") << "what is not ours is not released";
}

TEST_F(LeaseTest, ALeaseThatWasDeletedIsMadeAgain) {
  Replica a(api_, "a", 6s);
  a.elector->start();
  ASSERT_TRUE(a.wait(a.started));
  server_.remove();
  ASSERT_TRUE(server_.wait([](const Json& spec) { return spec["holderIdentity"] == "a"; }));
  EXPECT_TRUE(a.elector->leading());
  EXPECT_EQ(a.lost, 0);
}

TEST_F(LeaseTest, AWriteFromOutsideThatLeavesUsTheHolderCostsNothing) {
  Replica a(api_, "a", 6s);
  a.elector->start();
  ASSERT_TRUE(a.wait(a.started));
  server_.set("renewTime", "1990-01-01T00:00:00.000000Z");  // another resourceVersion: our next update conflicts
  ASSERT_TRUE(server_.wait([](const Json& spec) { return spec["renewTime"] != "1990-01-01T00:00:00.000000Z"; }));
  EXPECT_TRUE(a.elector->leading());
  EXPECT_EQ(a.lost, 0);
}

TEST_F(LeaseTest, TwoNeverLeadAtOnce) {
  constexpr int kReplicas = 4;
  std::vector<std::unique_ptr<Replica>> replicas;
  for (int i = 0; i < kReplicas; ++i) replicas.push_back(std::make_unique<Replica>(api_, std::string(1, static_cast<char>('a' + i)), 600ms));
  std::atomic<bool> over = false;
  std::atomic<int> looks = 0;
  std::thread watcher([&] {
    while (!over) {
      int leaders = 0;
      for (const auto& r : replicas) leaders += r->elector->leading();
      // One may have stopped and another begun between two looks, so only the same two twice would be proof; the order of looks makes it rare
      // enough that the second look decides.
      if (leaders > 1) {
        int again = 0;
        for (const auto& r : replicas) again += r->elector->leading();
        EXPECT_LE(std::min(leaders, again), 1);
      }
      ++looks;
      std::this_thread::yield();
    }
  });
  for (auto& r : replicas) r->elector->start();
  for (int turn = 0; turn < kReplicas; ++turn) {
    Replica* leader = nullptr;
    const auto limit = Clock::now() + kLimit;
    while (!leader && Clock::now() < limit) {
      for (auto& r : replicas) if (r->elector->leading()) leader = r.get();
      std::this_thread::yield();
    }
    ASSERT_NE(leader, nullptr) << turn;
    if (turn % 2 == 0) {
      leader->elector->stop_and_release();
    } else {
      api_.fault("PUT", {.status = 503, .times = 60});
      leader->wait(leader->lost);
    }
  }
  over = true;
  watcher.join();
  EXPECT_GT(looks, 100);
}

TEST_F(LeaseTest, StopsWhileItWaitsOrWasNeverStarted) {
  { Replica never(api_, "never"); }
  server_.put({{"holderIdentity", "other"}, {"leaseDurationSeconds", 3600}});
  Replica a(api_, "a");
  a.elector->start();
  ASSERT_TRUE(api_.wait_calls("GET", 1));
  a.elector->stop_and_release();
  EXPECT_EQ(server_.holder(), "other");
  EXPECT_EQ(a.started + a.lost, 0);
}

}  // namespace
}  // namespace bottle::kube
