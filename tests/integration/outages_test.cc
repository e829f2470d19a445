// The API server goes away, forgets, refuses, cuts: the controller comes back by itself, does not miss what happened meanwhile, and does not
// ask for everything again and again.
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "tests/integration/plane.h"

namespace bottle::test {
namespace {

using std::chrono::seconds;

constexpr int kCaches = 5;

class OutagesTest : public ::testing::Test {
 protected:
  void start(const std::string& ns) {
    ns_ = std::make_unique<Namespace>(ns);
    auto proxy = ApiProxy::create(plane->kubeconfig());
    ASSERT_TRUE(proxy.is_ok()) << proxy.status().message();
    proxy_ = std::move(proxy).value();
    controller_ = std::make_unique<Controller>(*proxy_, std::vector<std::string>{"--leader-elect=false", "--watch-namespace", ns});
    ns_->create_bottle("before");
    ASSERT_TRUE(wait_until([&] { return ns_->is_ready("before"); })) << controller_->log();
    proxy_->forget();
  }
  // How often all of a kind was asked for since the last forget(), the server having answered.
  int whole_states() {
    int n = 0;
    for (const auto& r : proxy_->seen()) n += r.method == "GET" && r.code == 200 && (r.about("sendInitialEvents") || r.about("?limit=500"));
    return n;
  }
  int watches() {
    int n = 0;
    for (const auto& r : proxy_->seen()) n += r.watch && r.code == 200;
    return n;
  }
  // The server is ready again, whoever asks.
  static bool answers() {
    return wait_until([] {
      kube::Request r;
      r.path = "/readyz";
      r.timeout = seconds(5);
      return plane->client().call(r).ok();
    }, 90);
  }
  // Everything works again: what is there stays, what is new comes, what is gone goes.
  void expect_alive() {
    const auto at = std::chrono::steady_clock::now();
    ns_->create_bottle("after");
    EXPECT_TRUE(wait_until([&] { return ns_->is_ready("after"); }, 60)) << controller_->log();
    std::cout << "  a new bottle is ready after " << std::chrono::duration<double>(std::chrono::steady_clock::now() - at).count() << " s\n";
    ns_->set_hosts("before", {"changed.example.com"});
    EXPECT_TRUE(wait_until([&] { return ns_->is_ready("before"); })) << controller_->log();
    EXPECT_EQ(ns_->children_of({"before", "after"}), "");
    EXPECT_TRUE(controller_->ready());
  }
  void TearDown() override {
    if (proxy_) {
      proxy_->before({});
      proxy_->after({});
    }
  }

  Node node_;
  std::unique_ptr<Namespace> ns_;
  std::unique_ptr<ApiProxy> proxy_;
  std::unique_ptr<Controller> controller_;
};

TEST_F(OutagesTest, TheApiServerIsAwayForTenSeconds) {
  ASSERT_NO_FATAL_FAILURE(start("away"));
  plane->cluster({"stop", "kube-apiserver"});
  std::this_thread::sleep_for(seconds(10));  // the outage itself
  const size_t tries = proxy_->seen().size();
  EXPECT_LT(tries, 150u) << "it hammers on the door";
  EXPECT_EQ(controller_->wait(0), -1) << "it ends over an outage";
  plane->cluster({"start", "kube-apiserver"});
  ASSERT_TRUE(answers());
  const auto back = std::chrono::steady_clock::now();
  ASSERT_TRUE(wait_until([&] { return watches() >= kCaches; }, 90)) << controller_->log();
  const double late = std::chrono::duration<double>(std::chrono::steady_clock::now() - back).count();
  expect_alive();
  EXPECT_LE(whole_states(), 2 * kCaches);
  std::cout << "  requests in 10 s without a server: " << tries << "; whole states after it: " << whole_states()
            << "; all watches were back after " << late << " s\n";
}

TEST_F(OutagesTest, HistoryIsGoneWhileItWatched) {
  ASSERT_NO_FATAL_FAILURE(start("gone"));
  // It cannot watch, and meanwhile: one bottle changes, one comes and goes, etcd forgets, and so does the server.
  proxy_->before([](const ApiProxy::Request& r) { return r.watch ? std::optional<ApiProxy::Reply>(ApiProxy::Reply{}) : std::nullopt; });
  proxy_->drop_watches();
  ns_->set_hosts("before", {"meanwhile.example.com"});
  ns_->create_bottle("never-seen");
  plane->remove(ns_->path("bottles", "never-seen"));
  plane->remove(ns_->path("configmaps", "before-policy"));  // a deletion that only the new state can tell of
  plane->cluster({"compact"});
  plane->cluster({"kill", "kube-apiserver"});
  ASSERT_TRUE(answers());
  proxy_->forget();
  proxy_->before({});
  ASSERT_TRUE(wait_until([&] { return ns_->is_ready("before") && ns_->children_of({"before"}).empty(); }, 60)) << ns_->children_of({"before"}) << controller_->log();
  expect_alive();
  int gone = 0;
  for (const auto& r : proxy_->seen()) gone += r.code == 410;
  EXPECT_GE(whole_states(), 1) << "nothing was lost: the test does not test";
  EXPECT_LE(whole_states(), 2 * kCaches);
  std::cout << "  whole states after history was lost: " << whole_states() << ", answers 410: " << gone << "\n";
}

TEST_F(OutagesTest, AStormOf429) {
  ASSERT_NO_FATAL_FAILURE(start("storm"));
  std::atomic<bool> storm{true};
  std::atomic<int> refused{0};
  proxy_->before([&](const ApiProxy::Request&) -> std::optional<ApiProxy::Reply> {
    if (!storm) return std::nullopt;
    ++refused;
    return ApiProxy::Reply{429, R"({"kind":"Status","apiVersion":"v1","status":"Failure","reason":"TooManyRequests","message":"too many requests","code":429})",
                           "Retry-After: 1\r\n"};
  });
  proxy_->drop_watches();
  ns_->create_bottle("in-the-storm");
  std::this_thread::sleep_for(seconds(6));  // the storm itself
  const int requests = refused;
  storm = false;
  EXPECT_LT(requests, 100) << "Retry-After is not kept";
  EXPECT_TRUE(wait_until([&] { return ns_->is_ready("in-the-storm"); }, 60)) << controller_->log();
  plane->remove(ns_->path("bottles", "in-the-storm"));
  EXPECT_TRUE(wait_until([&] { return ns_->children_of({"before"}).empty(); }, 90));
  expect_alive();
  EXPECT_EQ(whole_states(), 0) << "a watch that was refused is resumed";
  std::cout << "  requests in a storm of 6 s: " << requests << "\n";
}

TEST_F(OutagesTest, EveryKindOfRequestIs401Once) {
  ASSERT_NO_FATAL_FAILURE(start("rejected"));
  std::mutex mutex;
  std::set<std::string> rejected;
  proxy_->before([&](const ApiProxy::Request& r) -> std::optional<ApiProxy::Reply> {
    std::lock_guard<std::mutex> lock(mutex);
    const std::string kind = r.method + " " + r.target.substr(0, r.target.find('?'));
    if (!rejected.insert(kind).second) return std::nullopt;
    return ApiProxy::Reply{401, R"({"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Unauthorized","message":"Unauthorized","code":401})", ""};
  });
  proxy_->drop_watches();
  expect_alive();
  EXPECT_GT(rejected.size(), 7u);
}

TEST_F(OutagesTest, WatchesAreCutInTheMiddleOfALine) {
  ASSERT_NO_FATAL_FAILURE(start("cut"));
  proxy_->cut_watch_data(4);
  for (int i = 0; i < 20 && proxy_->cuts_left() > 0; ++i) {
    ns_->set_hosts("before", {"h" + std::to_string(i) + ".example.com"});
    EXPECT_TRUE(wait_until([&] { return ns_->is_ready("before"); })) << controller_->log();
  }
  EXPECT_EQ(proxy_->cuts_left(), 0);
  EXPECT_TRUE(wait_until([&] { return watches() >= 4; }));
  expect_alive();
  EXPECT_EQ(whole_states(), 0) << "a watch that was cut goes on where it was";
}

TEST_F(OutagesTest, ItStandsStillWhenNothingHappens) {
  ASSERT_NO_FATAL_FAILURE(start("still"));
  const double passes = controller_->metric("controller_runtime_reconcile_time_seconds_count{controller=\"bottle\"}");
  std::this_thread::sleep_for(seconds(4));  // longer than the delay with which passing states are written
  EXPECT_LE(controller_->metric("controller_runtime_reconcile_time_seconds_count{controller=\"bottle\"}") - passes, 2);
  for (const auto& r : proxy_->seen()) EXPECT_TRUE(r.write == 0 || r.about("/events")) << r.method << " " << r.target;
}

}  // namespace
}  // namespace bottle::test
