#include "controller/reconcile/caches.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "controller/reconcile/queue.h"
#include "controller/reconcile/test_feed.h"

namespace bottle::reconcile {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

// What was queued, in order of arrival.
class Enqueued {
 public:
  void add(const std::string& key, int priority) {
    std::lock_guard<std::mutex> lock(mutex_);
    all_.emplace_back(key, priority);
    changed_.notify_all();
  }
  // What came up to the first entry for `key`, that one included; empty when it does not come.
  std::vector<std::pair<std::string, int>> take_until(const std::string& key) {
    std::unique_lock<std::mutex> lock(mutex_);
    size_t at = 0;
    bool found = changed_.wait_for(lock, std::chrono::seconds(10), [&] {
      for (; at < all_.size(); ++at) {
        if (all_[at].first == key) return true;
      }
      return false;
    });
    if (!found) return {};
    std::vector<std::pair<std::string, int>> out(all_.begin(), all_.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    all_.erase(all_.begin(), all_.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    return out;
  }
  void clear() {
    std::lock_guard<std::mutex> lock(mutex_);
    all_.clear();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::pair<std::string, int>> all_;
};

class CachesTest : public ::testing::Test {
 protected:
  void start(CachesOptions options = {}) {
    client_ = client_of(api_);
    options.backoff_first = milliseconds(5);
    options.backoff_max = milliseconds(20);
    caches_ = Caches::create(*client_, std::move(options), [this](const std::string& key, int priority) { queued_.add(key, priority); });
    caches_->start();
  }
  // All caches filled, with these Bottles; what that queued is forgotten.
  void fill(const std::vector<Json>& bottles) {
    start();
    feed_.open_all(bottles);
    ASSERT_TRUE(caches_->wait_synced(std::chrono::seconds(10)));
    queued_.clear();
  }
  // An event of each kind goes through after the ones before it: the queue then has all of them.
  void bottle_event(const std::string& type, const Json& o) { feed_.send("bottles", type, o); }
  std::vector<std::pair<std::string, int>> after_bottles() {
    bottle_event("ADDED", bottle_object("dev", "mark" + std::to_string(++mark_)));
    return without_mark(queued_.take_until("dev/mark" + std::to_string(mark_)));
  }
  std::vector<std::pair<std::string, int>> after(const std::string& plural, Json o) {
    std::string mark = "mark" + std::to_string(++mark_);
    o["metadata"]["name"] = o["metadata"]["uid"] = mark + "-bottle";  // as a bottle's own NetworkPolicy is called
    feed_.send(plural, "ADDED", owned(o, mark));
    return without_mark(queued_.take_until("dev/" + mark));
  }

  std::vector<std::string> others(const std::string& ns, const std::string& bottle) {
    std::vector<std::string> names;
    for (const auto& p : caches_->snapshot(ns, bottle).other_network_policies) names.push_back(p->name);
    return names;
  }

  kube::FakeApi api_;
  Feed feed_{api_};
  Enqueued queued_;
  std::unique_ptr<kube::Client> client_;
  std::unique_ptr<Caches> caches_;

 private:
  static std::vector<std::pair<std::string, int>> without_mark(std::vector<std::pair<std::string, int>> entries) {
    EXPECT_FALSE(entries.empty()) << "the mark did not come";
    if (!entries.empty()) entries.pop_back();
    return entries;
  }
  int mark_ = 0;
};

TEST_F(CachesTest, WhatWasThereAtTheStartComesBehindWhatUsersDo) {
  start();
  feed_.open("bottles", {bottle_object("dev", "old")});
  EXPECT_THAT(queued_.take_until("dev/old"), ElementsAre(Pair("dev/old", kLowPriority)));
  bottle_event("ADDED", bottle_object("dev", "new"));
  EXPECT_THAT(queued_.take_until("dev/new"), ElementsAre(Pair("dev/new", kUserPriority)));
  EXPECT_THAT(caches_->not_synced(), UnorderedElementsAre("pods", "configmaps", "secrets", "networkpolicies"));
  caches_->resync();
  EXPECT_EQ(queued_.take_until("dev/old").back().second, kLowPriority);
  for (const char* plural : {"pods", "configmaps", "secrets", "networkpolicies"}) feed_.open(plural);
  EXPECT_TRUE(caches_->wait_synced(std::chrono::seconds(10)));
  EXPECT_THAT(caches_->not_synced(), IsEmpty());
}

TEST_F(CachesTest, OnlyTheSpecOrALostStatusWakesABottle) {
  fill({bottle_object("dev", "hello")});
  Json with_status = bottle_object("dev", "hello");
  with_status["status"] = {{"observedGeneration", 1}};
  bottle_event("MODIFIED", with_status);
  EXPECT_THAT(after_bottles(), IsEmpty()) << "our own status";
  bottle_event("MODIFIED", bottle_object("dev", "hello"));
  EXPECT_THAT(after_bottles(), ElementsAre(Pair("dev/hello", kUserPriority))) << "the status is gone";
  bottle_event("MODIFIED", bottle_object("dev", "hello", 2));
  EXPECT_THAT(after_bottles(), ElementsAre(Pair("dev/hello", kUserPriority))) << "another generation";
  Json deleting = bottle_object("dev", "hello", 2);
  deleting["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z";
  bottle_event("MODIFIED", deleting);
  EXPECT_THAT(after_bottles(), ElementsAre(Pair("dev/hello", kUserPriority)));
  bottle_event("DELETED", deleting);
  EXPECT_THAT(after_bottles(), ElementsAre(Pair("dev/hello", kUserPriority)));
  EXPECT_FALSE(caches_->snapshot("dev", "hello").bottle);
}

TEST_F(CachesTest, ChildrenWakeTheirOwner) {
  fill({bottle_object("dev", "hello")});
  Json pod = owned(pod_object("dev", "hello"), "hello");
  feed_.send("pods", "ADDED", pod);
  EXPECT_THAT(queued_.take_until("dev/hello"), ElementsAre(Pair("dev/hello", kUserPriority)));
  feed_.send("configmaps", "ADDED", owned(object("meta.k8s.io/v1", "PartialObjectMetadata", "dev", "hello-policy"), "hello"));
  EXPECT_THAT(queued_.take_until("dev/hello"), ElementsAre(Pair("dev/hello", kUserPriority)));
  feed_.send("secrets", "ADDED", owned(secret_object("dev", "hello-egress-ca"), "hello"));
  EXPECT_THAT(queued_.take_until("dev/hello"), ElementsAre(Pair("dev/hello", kUserPriority)));
  feed_.send("networkpolicies", "ADDED", owned(egress_policy("dev", "hello-bottle"), "hello"));
  EXPECT_THAT(queued_.take_until("dev/hello"), ElementsAre(Pair("dev/hello", kUserPriority)));
  auto snapshot = caches_->snapshot("dev", "hello");
  ASSERT_TRUE(snapshot.bottle && snapshot.pod && snapshot.policy && snapshot.egress_ca && snapshot.network_policy);
  EXPECT_THAT(snapshot.other_network_policies, IsEmpty());
  feed_.send("pods", "DELETED", pod);
  EXPECT_THAT(queued_.take_until("dev/hello"), ElementsAre(Pair("dev/hello", kUserPriority)));
  EXPECT_FALSE(caches_->snapshot("dev", "hello").pod);
}

TEST_F(CachesTest, ANameThatAStrangerGivesBackWakesTheBottleThatWantsIt) {
  fill({bottle_object("dev", "hello")});
  Json stranger = secret_object("dev", "hello-egress-ca");
  feed_.send("secrets", "ADDED", stranger);
  queued_.take_until("dev/hello");
  feed_.send("secrets", "DELETED", stranger);
  EXPECT_THAT(queued_.take_until("dev/hello"), ElementsAre(Pair("dev/hello", kUserPriority)));
  feed_.send("secrets", "ADDED", secret_object("dev", "nobody-egress-ca"));
  EXPECT_THAT(after("secrets", secret_object("dev", "")), IsEmpty());
}

TEST_F(CachesTest, SecretsWakeTheBottlesThatWantThem) {
  fill({bottle_object("dev", "a"), bottle_object("dev", "b"), bottle_object("ci", "a")});
  feed_.send("secrets", "ADDED", secret_object("dev", "token"));
  EXPECT_THAT(after("secrets", secret_object("dev", "")), IsEmpty()) << "nobody has asked for it yet";
  auto found = caches_->secrets("dev", "a", {"token", "missing"});
  ASSERT_EQ(found.size(), 1u);
  EXPECT_TRUE(caches_->secrets("ci", "a", {"token"}).empty()) << "another namespace's";
  caches_->secrets("dev", "b", {"token"});

  Json changed = secret_object("dev", "token");
  feed_.send("secrets", "MODIFIED", changed);
  EXPECT_THAT(after("secrets", secret_object("dev", "")), UnorderedElementsAre(Pair("dev/a", kUserPriority), Pair("dev/b", kUserPriority)));
  EXPECT_NE(caches_->secrets("dev", "a", {"token", "missing"}), found) << "its revision is another";
  caches_->secrets("dev", "b", {});
  feed_.send("secrets", "ADDED", secret_object("dev", "missing"));
  feed_.send("secrets", "DELETED", changed);
  EXPECT_THAT(after("secrets", secret_object("dev", "")), ElementsAre(Pair("dev/a", kUserPriority), Pair("dev/a", kUserPriority)));

  bottle_event("DELETED", bottle_object("dev", "a"));
  queued_.take_until("dev/a");
  EXPECT_FALSE(caches_->snapshot("dev", "a").bottle);
  feed_.send("secrets", "ADDED", secret_object("dev", "token"));
  EXPECT_THAT(after("secrets", secret_object("dev", "")), IsEmpty()) << "a bottle that is gone wants nothing";
}

TEST_F(CachesTest, StrangersNetworkPoliciesWakeTheRunningBottlesOfTheirNamespace) {
  fill({bottle_object("dev", "runs"), bottle_object("dev", "waits"), bottle_object("ci", "runs")});
  feed_.send("pods", "ADDED", owned(pod_object("dev", "runs"), "runs"));
  feed_.send("pods", "ADDED", owned(pod_object("ci", "runs"), "runs"));
  queued_.take_until("ci/runs");
  feed_.send("networkpolicies", "ADDED", egress_policy("dev", "wide"));
  EXPECT_THAT(after("networkpolicies", egress_policy("dev", "")), ElementsAre(Pair("dev/runs", kLowPriority)));
  EXPECT_THAT(others("dev", "runs"), Contains("wide"));
  EXPECT_THAT(caches_->snapshot("ci", "runs").other_network_policies, IsEmpty());
  feed_.send("networkpolicies", "DELETED", egress_policy("dev", "wide"));
  EXPECT_THAT(after("networkpolicies", egress_policy("dev", "")), ElementsAre(Pair("dev/runs", kLowPriority)));
  EXPECT_THAT(others("dev", "runs"), Not(Contains("wide")));
}

TEST_F(CachesTest, APolicyIsNotOursBecauseItSaysSo) {
  fill({bottle_object("dev", "hello")});
  feed_.send("networkpolicies", "ADDED", owned(egress_policy("dev", "hello-bottle"), "hello"));
  feed_.send("networkpolicies", "ADDED", owned(egress_policy("dev", "wide"), "hello"));                // another name
  feed_.send("networkpolicies", "ADDED", owned(egress_policy("dev", "gone-bottle"), "gone", "uid-x"));  // no such bottle
  after("networkpolicies", egress_policy("dev", ""));
  EXPECT_THAT(others("dev", "hello"), AllOf(Contains("wide"), Contains("gone-bottle"), Not(Contains("hello-bottle"))));
}

TEST_F(CachesTest, APolicyThatIsSeenBeforeItsBottleIsNoStranger) {
  fill({});
  feed_.send("networkpolicies", "ADDED", owned(egress_policy("dev", "late-bottle"), "late"));
  queued_.take_until("dev/late");
  bottle_event("ADDED", bottle_object("dev", "late"));
  queued_.take_until("dev/late");
  EXPECT_THAT(caches_->snapshot("dev", "late").other_network_policies, IsEmpty());
}

TEST_F(CachesTest, AsksForSecretsWithoutTheirDataAndForChildrenByLabel) {
  start();
  ASSERT_TRUE(api_.wait_calls("watch=1", 5));
  for (const auto& call : api_.calls("watch=1")) {
    const bool secrets = call.target.find("/secrets?") != std::string::npos, maps = call.target.find("/configmaps?") != std::string::npos;
    EXPECT_EQ(call.header("accept").find("as=PartialObjectMetadata") != std::string::npos, secrets || maps) << call.target;
    EXPECT_EQ(call.target.find("labelSelector=") != std::string::npos, maps || call.target.find("/pods?") != std::string::npos) << call.target;
    EXPECT_EQ(call.target.find("fieldSelector=") != std::string::npos, secrets) << call.target;
  }
}

TEST_F(CachesTest, WatchesTheNamespacesItIsToldTo) {
  CachesOptions options;
  options.namespaces = {"ci", "dev"};
  start(options);
  ASSERT_TRUE(api_.wait_calls("watch=1", 10));
  for (const auto& call : api_.calls("watch=1")) EXPECT_THAT(call.target, ::testing::AnyOf(HasSubstr("/namespaces/ci/"), HasSubstr("/namespaces/dev/")));
}

TEST_F(CachesTest, SaysWhatKeepsACacheEmptyAndHowToMendIt) {
  api_.on("/bottles?", [](const auto&) { return kube::FakeApi::error(404, "NotFound", "the server could not find the requested resource"); });
  api_.on("/secrets?", [](const auto&) { return kube::FakeApi::error(403, "Forbidden", "secrets is forbidden: User \"x\" cannot list resource \"secrets\""); });
  start();
  for (const char* plural : {"pods", "configmaps", "networkpolicies"}) feed_.open(plural);
  EXPECT_FALSE(caches_->wait_synced(milliseconds(50)));
  EXPECT_THAT(caches_->not_synced(), ElementsAre("bottles", "secrets"));
  auto reasons = caches_->diagnose();
  ASSERT_EQ(reasons.size(), 2u);
  EXPECT_THAT(reasons[0].message(), HasSubstr("CustomResourceDefinition bottles.bot-bottle.dev is not installed"));
  EXPECT_THAT(reasons[1].message(), AllOf(HasSubstr("cannot list resource"), HasSubstr("list and watch on secrets in all namespaces"), HasSubstr("--watch-namespace")));
}

}  // namespace
}  // namespace bottle::reconcile
