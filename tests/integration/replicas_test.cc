// Two replicas: one works, the other takes over, and never do both write. Who writes is seen from outside, by the user agent, in which each
// process has an identity of its own.
#include <signal.h>

#include <chrono>

#include "tests/integration/plane.h"

namespace bottle::test {
namespace {

const std::string kLease = "/apis/coordination.k8s.io/v1/namespaces/bot-bottle-system/leases/bottle-controller";

class ReplicasTest : public ::testing::Test {
 protected:
  void SetUp() override {
    plane->remove(kLease);
    auto proxy = ApiProxy::create(plane->kubeconfig());
    ASSERT_TRUE(proxy.is_ok()) << proxy.status().message();
    proxy_ = std::move(proxy).value();
  }
  std::string holder() {
    const Json lease = plane->get(kLease);
    return lease.is_object() ? lease["spec"].value("holderIdentity", "") : "";
  }
  // The one that leads, and the other one with full caches.
  void start_both(std::unique_ptr<Controller>* leader, std::unique_ptr<Controller>* standby) {
    *leader = std::make_unique<Controller>(*proxy_);
    ASSERT_TRUE(wait_until([&] { return !holder().empty(); })) << (*leader)->log();
    *standby = std::make_unique<Controller>(*proxy_);
    ASSERT_TRUE(wait_until([&] { return (*standby)->ready(); })) << (*standby)->log();
  }
  // Who wrote anything but the lease, in order, each time the writer changes.
  std::vector<std::string> writers() {
    std::vector<std::string> out;
    for (const auto& r : proxy_->seen()) {
      if (r.write == 0 || r.about("/leases")) continue;
      if (out.empty() || out.back() != r.user_agent) out.push_back(r.user_agent);
    }
    return out;
  }
  // Seconds until the lease is another's.
  double handed_over(const std::string& from) {
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_TRUE(wait_until([&] {
      const std::string now = holder();
      return !now.empty() && now != from;
    }, 60));
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  Node node_;
  std::unique_ptr<ApiProxy> proxy_;
};

TEST_F(ReplicasTest, ALeaderThatIsToldToStopHandsOverAtOnce) {
  Namespace ns("handover");
  std::unique_ptr<Controller> leader, standby;
  start_both(&leader, &standby);
  ns.create_bottle("a");
  ASSERT_TRUE(wait_until([&] { return ns.is_ready("a"); })) << leader->log();
  const std::string first = holder();
  leader->signal(SIGTERM);
  const double seconds = handed_over(first);
  std::cout << "  SIGTERM to the next holder: " << seconds << " s\n";
  EXPECT_LT(seconds, 2.5) << "two seconds at most, and what the machine adds";
  EXPECT_EQ(leader->wait(10), 0) << leader->log();
  ns.create_bottle("b");
  EXPECT_TRUE(wait_until([&] { return ns.is_ready("b"); })) << standby->log();
  EXPECT_EQ(ns.children_of({"a", "b"}), "");
  EXPECT_EQ(writers().size(), 2u) << ::testing::PrintToString(writers());
}

TEST_F(ReplicasTest, AKilledLeadersLeaseRunsOutFirst) {
  Namespace ns("takeover");
  std::unique_ptr<Controller> leader, standby;
  start_both(&leader, &standby);
  ns.create_bottle("a");
  ASSERT_TRUE(wait_until([&] { return ns.is_ready("a"); })) << leader->log();
  const std::string first = holder();
  leader->kill9();
  ns.create_bottle("b");
  const double seconds = handed_over(first);
  std::cout << "  kill -9 to the next holder: " << seconds << " s\n";
  EXPECT_GT(seconds, 10) << "the lease of 15 s, less the time since it was last renewed";
  EXPECT_LT(seconds, 20);
  EXPECT_TRUE(wait_until([&] { return ns.is_ready("b"); })) << standby->log();
  EXPECT_EQ(ns.children_of({"a", "b"}), "");
  EXPECT_EQ(writers().size(), 2u) << ::testing::PrintToString(writers());
}

TEST_F(ReplicasTest, ALeaderThatWasFrozenPastItsLeaseWritesNothingWhenItWakes) {
  Namespace ns("frozen");
  std::unique_ptr<Controller> leader, standby;
  start_both(&leader, &standby);
  ns.create_bottle("a");
  ASSERT_TRUE(wait_until([&] { return ns.is_ready("a"); })) << leader->log();
  const std::string first = holder();
  leader->signal(SIGSTOP);
  ns.create_bottle("b");  // its event waits in the frozen one's socket
  handed_over(first);
  ASSERT_TRUE(wait_until([&] { return ns.is_ready("b"); })) << standby->log();
  ns.set_hosts("b", {"other.example.com"});
  ASSERT_TRUE(wait_until([&] { return ns.is_ready("b"); })) << standby->log();
  leader->signal(SIGCONT);
  EXPECT_EQ(leader->wait(10), 1) << leader->log();
  EXPECT_NE(leader->log().find("the lease"), std::string::npos);
  EXPECT_EQ(writers().size(), 2u) << ::testing::PrintToString(writers());
  EXPECT_EQ(ns.children_of({"a", "b"}), "");
}

}  // namespace
}  // namespace bottle::test
