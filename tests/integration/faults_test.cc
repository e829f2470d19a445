// kill -9 of the controller at every write of a launch and of a policy change: before the write reaches the server, and after it has but before
// the controller knows. The next controller always ends with one pod, made once, and nothing left over.
#include <atomic>
#include <functional>
#include <mutex>

#include "tests/integration/plane.h"

namespace bottle::test {
namespace {

enum class When { kBefore, kAfter };

class FaultsTest : public ::testing::TestWithParam<When> {
 protected:
  void SetUp() override {
    auto proxy = ApiProxy::create(plane->kubeconfig());
    ASSERT_TRUE(proxy.is_ok()) << proxy.status().message();
    proxy_ = std::move(proxy).value();
  }

  // Kills `victim` at its n-th write from now on.
  void arm(Controller* victim, int n) {
    proxy_->forget();
    killed_ = false;
    pods_made_ = 0;
    auto strike = [this, victim, n](const ApiProxy::Request& r) -> std::optional<ApiProxy::Reply> {
      std::lock_guard<std::mutex> lock(mutex_);
      // What was on its way beside the fatal one is lost with the process.
      if (killed_) return r.user_agent == victim_agent_ ? std::optional<ApiProxy::Reply>(ApiProxy::Reply{}) : std::nullopt;
      if (r.write != n) return std::nullopt;
      victim_agent_ = r.user_agent;
      fatal_ = r.method + " " + r.target;
      victim->kill9();
      killed_ = true;
      return ApiProxy::Reply{};
    };
    if (GetParam() == When::kBefore) proxy_->before(strike);
    proxy_->after([this, strike](const ApiProxy::Request& r, int code) -> std::optional<ApiProxy::Reply> {
      if (code == 201 && r.method == "POST" && r.about("/pods?")) ++pods_made_;
      return GetParam() == When::kAfter ? strike(r) : std::nullopt;
    });
  }
  void disarm() {
    proxy_->before({});
    proxy_->after([this](const ApiProxy::Request& r, int code) -> std::optional<ApiProxy::Reply> {
      if (code == 201 && r.method == "POST" && r.about("/pods?")) ++pods_made_;
      return std::nullopt;
    });
  }

  // For n = 1, 2, … a bottle of its own: `prepare`, then kill -9 at the n-th write of what `act` sets off; the next controller has to make the
  // bottle Ready with nothing left over, and `check` has to hold. Ends at the n that is never reached; writes_ is how many there were.
  void at_every_write(Namespace& ns, const std::function<void(const std::string&, Controller&)>& prepare, const std::function<void(const std::string&)>& act,
                      const std::function<void(const std::string&)>& check) {
    int n = 1;
    for (bool more = true; more; ++n) {
      ASSERT_LT(n, 30) << "it has no end";
      const std::string bottle = "b" + std::to_string(n);
      auto victim = std::make_unique<Controller>(*proxy_, std::vector<std::string>{"--leader-elect=false"});
      prepare(bottle, *victim);
      if (HasFatalFailure()) return;
      arm(victim.get(), n);
      act(bottle);
      ASSERT_TRUE(wait_until([&] { return killed_ || ns.is_ready(bottle); })) << "write " << n << "\n" << victim->log();
      more = killed_;
      // The last write may be the one that makes it ready: then the kill came and went with it.
      if (!more) more = wait_until([&] { return killed_.load(); }, 1);
      SCOPED_TRACE("write " + std::to_string(n) + (more ? ": " + fatal_ : ": none"));
      victim->kill9();
      disarm();
      Controller successor(*proxy_, {"--leader-elect=false"});
      EXPECT_TRUE(wait_until([&] { return ns.is_ready(bottle); })) << successor.log();
      EXPECT_EQ(ns.children_of({bottle}), "");
      check(bottle);
      plane->remove(ns.path("bottles", bottle));
      EXPECT_TRUE(ns.collected());
      if (more) std::cout << "  killed at write " << n << ": " << fatal_ << "\n";
    }
    writes_ = n - 2;
  }

  int writes_ = 0;
  Node node_;
  std::unique_ptr<ApiProxy> proxy_;
  std::mutex mutex_;
  std::atomic<bool> killed_{false};
  std::atomic<int> pods_made_{0};
  std::string victim_agent_, fatal_;
};

TEST_P(FaultsTest, ALaunchConvergesToOnePodWhereverTheControllerDies) {
  Namespace ns(GetParam() == When::kBefore ? "launch-before" : "launch-after");
  at_every_write(
      ns, [](const std::string&, Controller&) {}, [&](const std::string& bottle) { ns.create_bottle(bottle); },
      [&](const std::string&) { EXPECT_EQ(pods_made_, 1); });
  RecordProperty("writes", writes_);
  EXPECT_GE(writes_, 5) << "policy, CA, network policy, pod, status";
}

TEST_P(FaultsTest, APolicyChangeArrivesWhereverTheControllerDies) {
  Namespace ns(GetParam() == When::kBefore ? "change-before" : "change-after");
  Json before;
  at_every_write(
      ns,
      [&](const std::string& bottle, Controller& victim) {
        ns.create_bottle(bottle);
        ASSERT_TRUE(wait_until([&] { return ns.is_ready(bottle); })) << victim.log();
        before = plane->get(ns.path("pods", bottle));
      },
      [&](const std::string& bottle) { ns.set_hosts(bottle, {"api.example.com", "more.example.com"}); },
      [&](const std::string& bottle) {
        const Json after = plane->get(ns.path("pods", bottle)), policy = plane->get(ns.path("configmaps", bottle + "-policy"));
        EXPECT_EQ(after["metadata"]["uid"], before["metadata"]["uid"]) << "a policy is changed in the pod that runs";
        EXPECT_NE(policy["data"].dump().find("more.example.com"), std::string::npos);
        EXPECT_NE(after["metadata"]["annotations"]["bot-bottle.dev/policy-hash"], before["metadata"]["annotations"]["bot-bottle.dev/policy-hash"]);
        EXPECT_EQ(plane->get(ns.path("bottles", bottle))["status"]["policyHash"], after["metadata"]["annotations"]["bot-bottle.dev/policy-hash"]);
      });
  EXPECT_GE(writes_, 3) << "policy, annotation, status";
}

INSTANTIATE_TEST_SUITE_P(When, FaultsTest, ::testing::Values(When::kBefore, When::kAfter),
                         [](const auto& p) { return p.param == When::kBefore ? "BeforeTheWrite" : "AfterTheWrite"; });

}  // namespace
}  // namespace bottle::test
