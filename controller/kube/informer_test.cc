#include "controller/kube/informer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>

#include "tests/support/fake_api.h"

namespace bottle::kube {
namespace {

using namespace std::chrono_literals;
using Json = nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

constexpr auto kLimit = 20s;

Json object(const std::string& name, int rv, const std::string& ns = "dev", const std::string& owner = "") {
  Json o = {{"apiVersion", "v1"}, {"kind", "ConfigMap"}, {"metadata", {{"name", name}, {"namespace", ns}, {"uid", "uid-" + ns + "-" + name}, {"resourceVersion", std::to_string(rv)}}}};
  if (!owner.empty()) {
    o["metadata"]["ownerReferences"] = {{{"apiVersion", "bot-bottle.dev/v1alpha1"}, {"kind", "Bottle"}, {"name", owner}, {"uid", "uid-" + owner}, {"controller", true}}};
  }
  return o;
}
std::string event(const char* type, const Json& o) { return Json{{"type", type}, {"object", o}}.dump() + "\n"; }
std::string bookmark(int rv, bool end = false) {
  Json o = {{"kind", "ConfigMap"}, {"metadata", {{"resourceVersion", std::to_string(rv)}, {"creationTimestamp", nullptr}}}};
  if (end) o["metadata"]["annotations"] = {{"k8s.io/initial-events-end", "true"}};
  return event("BOOKMARK", o);
}
std::string failure(int code, const std::string& reason) { return event("ERROR", {{"kind", "Status"}, {"code", code}, {"reason", reason}, {"message", "told so"}}); }
std::string list(const std::vector<Json>& items, int rv, const std::string& next = "") {
  return Json{{"kind", "ConfigMapList"}, {"metadata", {{"resourceVersion", std::to_string(rv)}, {"continue", next}}}, {"items", items}}.dump();
}

class InformerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto client = Client::create(api_.config("token"), {});
    ASSERT_TRUE(client.is_ok());
    client_ = std::move(*client);
    options_.resource = kConfigMaps;
    options_.metadata_only = true;
    options_.backoff_first = 5ms;
    options_.backoff_max = 20ms;
  }
  void TearDown() override { informer_.reset(); }

  void start() {
    informer_ = Informer<MetaObject>::create(*client_, options_, [this](EventKind kind, const auto& old, const auto& now) {
      static constexpr const char* kNames[] = {"initial", "added", "modified", "deleted", "resync"};
      std::string text = std::string(kNames[static_cast<int>(kind)]) + " " + (now ? now->name + "@" + now->resource_version : old->name + "@" + old->resource_version);
      EXPECT_EQ(now == nullptr, kind == EventKind::kDeleted);
      EXPECT_EQ(old == nullptr, kind == EventKind::kAdded || kind == EventKind::kInitial);
      std::lock_guard lock(mutex_);
      events_.push_back(std::move(text));
      changed_.notify_all();
    });
    informer_->start();
  }
  // Started, with a watch that has given a and b and goes on.
  std::shared_ptr<FakeApi::Stream> following() {
    start();
    auto stream = api_.wait_stream("sendInitialEvents=true");
    EXPECT_TRUE(stream);
    stream->send(event("ADDED", object("a", 3)) + event("ADDED", object("b", 5)) + bookmark(7, true));
    EXPECT_TRUE(informer_->wait_synced(kLimit));
    EXPECT_TRUE(seen({"initial a@3", "initial b@5"}));
    return stream;
  }
  // The next events are exactly these.
  bool seen(const std::vector<std::string>& want) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kLimit, [&] { return events_.size() >= want.size(); });
    EXPECT_EQ(events_, want);
    const bool same = events_ == want;
    events_.clear();
    return same;
  }
  std::vector<std::string> names() {
    std::vector<std::string> out;
    for (const auto& o : informer_->all()) out.push_back(o->name + "@" + o->resource_version);
    return out;
  }
  // The next watch that resumes; null when none comes.
  std::shared_ptr<FakeApi::Stream> resumed(const std::string& rv) { return api_.wait_stream("resourceVersion=" + rv + "&timeoutSeconds=", kLimit); }
  size_t whole_states() const { return api_.calls("sendInitialEvents").size() + api_.calls("limit=").size(); }

  FakeApi api_;
  std::unique_ptr<Client> client_;
  InformerOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> events_;
  std::unique_ptr<Informer<MetaObject>> informer_;
};

TEST_F(InformerTest, AsksForAWatchListOfMetadataByLabelAndFollowsTheSameStream) {
  options_.label_selector = "app.kubernetes.io/managed-by=bottle-controller";
  options_.field_selector = "metadata.name!=x";
  start();
  auto stream = api_.wait_stream("/api/v1/configmaps?");
  ASSERT_TRUE(stream);
  const auto call = stream->call();
  for (const char* part : {"watch=1", "sendInitialEvents=true", "resourceVersionMatch=NotOlderThan", "allowWatchBookmarks=true", "timeoutSeconds=",
                           "labelSelector=app.kubernetes.io%2Fmanaged-by%3Dbottle-controller", "fieldSelector=metadata.name%21%3Dx"}) {
    EXPECT_THAT(call.target, HasSubstr(part));
  }
  EXPECT_EQ(call.header("accept"), kMetadataOnly);
  const int timeout = std::stoi(call.target.substr(call.target.find("timeoutSeconds=") + 15));
  EXPECT_GE(timeout, 300);
  EXPECT_LE(timeout, 600);

  stream->send(event("ADDED", object("a", 3)));
  EXPECT_FALSE(informer_->wait_synced(50ms)) << "half a state is none";
  EXPECT_EQ(informer_->size(), 0u);
  stream->send(event("ADDED", object("b", 5)) + event("MODIFIED", object("a", 6)) + event("ADDED", object("c", 6)) + event("DELETED", object("c", 7)) + bookmark(7, true));
  ASSERT_TRUE(informer_->wait_synced(kLimit));
  EXPECT_TRUE(seen({"initial a@6", "initial b@5"}));

  stream->send(event("ADDED", object("d", 8)) + event("MODIFIED", object("a", 9)) + event("DELETED", object("b", 10)));
  EXPECT_TRUE(seen({"added d@8", "modified a@9", "deleted b@10"}));
  EXPECT_THAT(names(), ElementsAre("a@9", "d@8"));
  EXPECT_EQ(api_.calls().size(), 1u);
}

TEST_F(InformerTest, FindsByNameOwnerAndNamespace) {
  start();
  auto stream = api_.wait_stream("watch=1");
  stream->send(event("ADDED", object("a", 1, "dev", "hello")) + event("ADDED", object("b", 2, "dev", "hello")) + event("ADDED", object("a", 3, "prod", "other")) +
               event("ADDED", object("z", 4, "dev")) + bookmark(5, true));
  ASSERT_TRUE(informer_->wait_synced(kLimit));
  EXPECT_EQ(informer_->get("prod", "a")->resource_version, "3");
  EXPECT_EQ(informer_->get("dev", "none"), nullptr);
  EXPECT_EQ(informer_->by_owner("uid-hello").size(), 2u);
  EXPECT_EQ(informer_->by_owner("uid-other").size(), 1u);
  EXPECT_THAT(informer_->by_owner(""), IsEmpty());
  EXPECT_EQ(informer_->in_namespace("dev").size(), 3u);
  EXPECT_THAT(informer_->in_namespace("de"), IsEmpty());

  stream->send(event("MODIFIED", object("a", 6, "dev", "other")) + event("DELETED", object("b", 7, "dev", "hello")));
  seen({"initial a@1", "initial b@2", "initial z@4", "initial a@3", "modified a@6", "deleted b@7"});
  EXPECT_THAT(informer_->by_owner("uid-hello"), IsEmpty());
  EXPECT_EQ(informer_->by_owner("uid-other").size(), 2u);
}

TEST_F(InformerTest, WithoutWatchListItPagesAndThenWatches) {
  api_.fault("sendInitialEvents", {.status = 422, .reason = "Invalid", .message = "sendInitialEvents is forbidden"});
  api_.on("limit=500", [](const FakeApi::Call& c) {
    const bool second = c.target.find("continue=next") != std::string::npos;
    return FakeApi::Reply{.body = second ? list({object("b", 5)}, 7) : list({object("a", 3)}, 7, "next")};
  });
  start();
  ASSERT_TRUE(informer_->wait_synced(kLimit));
  EXPECT_TRUE(seen({"initial a@3", "initial b@5"}));
  auto stream = resumed("7");
  ASSERT_TRUE(stream);
  EXPECT_EQ(api_.calls("limit=500").front().header("accept"), kMetadataListOnly);
  stream->send(failure(410, "Expired"));
  ASSERT_TRUE(resumed("7"));
  EXPECT_EQ(api_.calls("sendInitialEvents").size(), 1u) << "what the server does not have is not asked for again";
  EXPECT_EQ(api_.calls("limit=500").size(), 4u);
}

TEST_F(InformerTest, APageThatExpiredMeansAllPagesAgain) {
  api_.fault("sendInitialEvents", {.status = 400, .reason = "BadRequest"});
  api_.fault("continue=next", {.status = 410, .reason = "Expired", .message = "The provided continue parameter is too old", .times = 3});
  api_.on("limit=500", [](const FakeApi::Call& c) {
    const bool second = c.target.find("continue=next") != std::string::npos;
    return FakeApi::Reply{.body = second ? list({object("b", 5)}, 7) : list({object("a", 3)}, 7, "next")};
  });
  start();
  ASSERT_TRUE(informer_->wait_synced(kLimit));
  EXPECT_TRUE(seen({"initial a@3", "initial b@5"}));
  EXPECT_EQ(api_.calls("continue=next").size(), 4u);
  for (const auto& c : api_.calls("limit=500")) {
    if (c.target.find("continue") != std::string::npos) continue;
    EXPECT_THAT(c.target + "&", HasSubstr("resourceVersion=&"));
  }
}

TEST_F(InformerTest, AServerErrorOnTheWatchListIsWorthOneList) {
  api_.fault("sendInitialEvents", {.status = 500, .reason = "InternalError"});
  api_.reply("limit=500", 200, list({object("a", 3)}, 4));
  start();
  ASSERT_TRUE(informer_->wait_synced(kLimit));
  auto stream = resumed("4");
  ASSERT_TRUE(stream);
  stream->send(event("ADDED", object("x", 5)) + failure(410, "Expired"));
  EXPECT_TRUE(api_.wait_calls("sendInitialEvents", 2)) << "next time it gets another chance";
}

TEST_F(InformerTest, ResumesFromTheLastObjectWhenTheServerEndsTheWatch) {
  auto stream = following();
  stream->send(event("ADDED", object("c", 9)));
  seen({"added c@9"});
  stream->end();
  auto next = resumed("9");
  ASSERT_TRUE(next);
  EXPECT_THAT(next->call().target, Not(HasSubstr("sendInitialEvents")));
  next->send(event("DELETED", object("a", 11)));
  EXPECT_TRUE(seen({"deleted a@11"}));
  EXPECT_EQ(whole_states(), 1u);
}

TEST_F(InformerTest, ResumesFromABookmark) {
  auto stream = following();
  stream->send(bookmark(50));
  stream->end();
  EXPECT_TRUE(resumed("50"));
  EXPECT_EQ(whole_states(), 1u);
}

TEST_F(InformerTest, ResumesAfterACutInTheMiddleOfALine) {
  auto stream = following();
  stream->send(event("ADDED", object("c", 9)) + R"({"type":"ADDED","obj)");
  EXPECT_TRUE(seen({"added c@9"}));
  stream->cut();
  auto next = resumed("9");
  ASSERT_TRUE(next);
  next->send(event("ADDED", object("d", 10)));
  EXPECT_TRUE(seen({"added d@10"}));
  EXPECT_EQ(whole_states(), 1u);
}

TEST_F(InformerTest, AServerThatIsAwayIsWaitedForWithoutAskingForEverything) {
  auto stream = following();
  stream.reset();
  api_.pause();
  api_.resume();
  auto next = resumed("7");
  ASSERT_TRUE(next);
  next->send(event("ADDED", object("c", 9)));
  EXPECT_TRUE(seen({"added c@9"}));
  EXPECT_EQ(whole_states(), 1u);
}

TEST_F(InformerTest, TooManyRequestsIsWaitedOutWithoutAskingForEverything) {
  auto stream = following();
  api_.fault("watch=1", {.status = 429, .reason = "TooManyRequests", .times = 3});
  stream->send(failure(429, "TooManyRequests"));
  auto next = resumed("7");
  ASSERT_TRUE(next);
  EXPECT_EQ(api_.calls("watch=1").size(), 5u);
  EXPECT_EQ(whole_states(), 1u);
}

TEST_F(InformerTest, AnInternalErrorInTheStreamIsRetriedAndInTheEndAsksForEverything) {
  auto stream = following();
  for (int i = 0; i < 4; ++i) {
    stream->send(failure(500, "InternalError"));
    stream = resumed("7");
    ASSERT_TRUE(stream) << i;
  }
  EXPECT_EQ(whole_states(), 1u);
  stream->send(failure(500, "InternalError"));
  EXPECT_TRUE(api_.wait_calls("sendInitialEvents", 2));
}

TEST_F(InformerTest, AnExpiredVersionMeansANewStateAndDeletesWhatVanishedMeanwhile) {
  for (bool in_stream : {true, false}) {
    auto stream = following();
    if (in_stream) {
      stream->send(failure(410, "Expired"));
    } else {
      api_.fault("resourceVersion=8&", {.status = 410, .reason = "Gone"});
      stream->send(bookmark(8));
      stream->end();
    }
    auto next = api_.wait_stream("sendInitialEvents=true", kLimit);
    ASSERT_TRUE(next);
    EXPECT_THAT(next->call().target, HasSubstr("resourceVersion=&")) << "the old version is of no use any more";
    Json again = object("c", 21);
    next->send(event("ADDED", object("b", 20)) + event("ADDED", again));
    EXPECT_THAT(names(), ElementsAre("a@3", "b@5")) << "the old state stays until the new one is whole";
    next->send(bookmark(30, true));
    EXPECT_TRUE(seen({"deleted a@3", "modified b@20", "added c@21"}));
    EXPECT_THAT(names(), ElementsAre("b@20", "c@21"));
    next->send(event("ADDED", object("d", 31)));
    EXPECT_TRUE(seen({"added d@31"}));
    TearDown();
  }
}

TEST_F(InformerTest, ANameWithAnotherUidIsAnotherObject) {
  auto stream = following();
  Json reborn = object("a", 9);
  reborn["metadata"]["uid"] = "another";
  stream->send(event("MODIFIED", reborn));
  EXPECT_TRUE(seen({"deleted a@3", "added a@9"}));
  EXPECT_EQ(informer_->get("dev", "a")->uid, "another");
}

TEST_F(InformerTest, AnotherErrorInTheStreamAsksForEverything) {
  auto stream = following();
  stream->send(failure(403, "Forbidden"));
  auto next = api_.wait_stream("sendInitialEvents=true", kLimit);
  ASSERT_TRUE(next);
  EXPECT_THAT(next->call().target, HasSubstr("resourceVersion=7&")) << "never back in time";
  next->send(event("ADDED", object("a", 3)) + event("ADDED", object("b", 5)) + bookmark(40, true) + event("ADDED", object("c", 41)));
  EXPECT_TRUE(seen({"added c@41"})) << "and what is the same as before is no event";
}

TEST_F(InformerTest, AWatchThatEndsAtOnceIsNotAskedForInAHurry) {
  options_.backoff_first = 400ms;
  options_.backoff_max = 400ms;
  auto stream = following();
  api_.reply("resourceVersion=7&", 200, "");
  const auto before = std::chrono::steady_clock::now();
  stream->send(bookmark(7));
  stream->end();
  ASSERT_TRUE(api_.wait_calls("watch=1", 4));
  EXPECT_GE(std::chrono::steady_clock::now() - before, 800ms);
  EXPECT_EQ(whole_states(), 1u);
}

TEST_F(InformerTest, ALineThatIsTooLongOrNoEventCutsTheStreamAndAsksForEverything) {
  auto stream = following();
  stream->send(std::string(1000, 'x') + "\n");
  auto next = api_.wait_stream("sendInitialEvents=true", kLimit);
  ASSERT_TRUE(next);
  next->send(event("ADDED", object("a", 3)) + bookmark(8, true));
  EXPECT_TRUE(seen({"deleted b@5"}));
  next->send("{\"type\":\"ADDED\",\"object\":\"" + std::string(9u << 20, 'y'));
  auto third = api_.wait_stream("sendInitialEvents=true", kLimit);
  ASSERT_TRUE(third);
  EXPECT_THAT(names(), ElementsAre("a@3"));
}

TEST_F(InformerTest, AnObjectThatCannotBeReadKeepsItsLastGoodState) {
  auto stream = following();
  Json odd = object("a", 9);
  odd["metadata"]["annotations"] = {{"bot-bottle.dev/content-hash", 5}};
  stream->send(event("MODIFIED", odd) + event("MODIFIED", object("b", 10)));
  EXPECT_TRUE(seen({"modified b@10"}));
  EXPECT_THAT(names(), ElementsAre("a@3", "b@10"));
}

TEST_F(InformerTest, SeveralNamespacesHaveAWatchEachAndOneCache) {
  options_.namespaces = {"dev", "prod", "dev"};
  start();
  auto dev = api_.wait_stream("/namespaces/dev/configmaps"), prod = api_.wait_stream("/namespaces/prod/configmaps");
  ASSERT_TRUE(dev && prod);
  dev->send(event("ADDED", object("a", 1, "dev")) + bookmark(5, true));
  EXPECT_TRUE(seen({"initial a@1"}));
  EXPECT_FALSE(informer_->synced());
  prod->send(event("ADDED", object("p", 2, "prod")) + bookmark(6, true));
  ASSERT_TRUE(informer_->wait_synced(kLimit));
  EXPECT_TRUE(seen({"initial p@2"}));

  prod->send(failure(410, "Expired"));
  auto again = api_.wait_stream("/namespaces/prod/configmaps");
  ASSERT_TRUE(again);
  again->send(bookmark(9, true));
  EXPECT_TRUE(seen({"deleted p@2"})) << "and nothing of the other namespace";
  dev->send(event("ADDED", object("b", 8, "dev")));
  EXPECT_TRUE(seen({"added b@8"}));
  dev->send(event("ADDED", object("stray", 9, "prod")) + event("ADDED", object("c", 10, "dev")));
  EXPECT_TRUE(seen({"added c@10"}));
  EXPECT_EQ(api_.calls().size(), 3u);
}

TEST_F(InformerTest, ResyncDeliversEverythingAgainInOrderWithEvents) {
  auto stream = following();
  informer_->resync();
  EXPECT_TRUE(seen({"resync a@3", "resync b@5"}));
}

TEST_F(InformerTest, RefusedAtFirstItStartsWhenItMay) {
  api_.fault("configmaps", {.status = 403, .reason = "Forbidden", .message = "may not list", .times = 3});
  following();
  EXPECT_EQ(api_.calls().size(), 4u);
}

TEST_F(InformerTest, StopsWhileAskingWatchingOrHandling) {
  start();
  informer_.reset();
  auto stream = following();
  informer_.reset();
  stream->send(event("ADDED", object("c", 9)));
  EXPECT_TRUE(seen({}));
  api_.pause();
  start();
  informer_.reset();
}

// The loop thread must go on while a handler hangs; what did not fit comes when the stream is resumed.
TEST_F(InformerTest, AHandlerThatHangsCostsAStreamAndNoEvent) {
  std::mutex gate;
  gate.lock();
  bool first = true;
  int added = 0;
  informer_ = Informer<MetaObject>::create(*client_, options_, [&](EventKind, const auto&, const auto&) {
    if (first) {
      std::lock_guard wait(gate);
      first = false;
    }
    std::lock_guard lock(mutex_);
    ++added;
    changed_.notify_all();
  });
  informer_->start();
  auto stream = api_.wait_stream("sendInitialEvents");
  ASSERT_TRUE(stream);
  stream->send(bookmark(1, true));
  ASSERT_TRUE(informer_->wait_synced(kLimit));
  Json big = object("x", 2);
  big["metadata"]["annotations"] = {{"other/filler", std::string(1u << 20, 'f')}};
  for (int i = 0; i < 24 && !stream->closed(); ++i) {
    big["metadata"]["name"] = "x" + std::to_string(i);
    big["metadata"]["resourceVersion"] = std::to_string(i + 2);
    stream->send(event("ADDED", big));
  }
  const auto limit = std::chrono::steady_clock::now() + kLimit;
  while (!stream->closed() && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
  EXPECT_TRUE(stream->closed()) << "the mailbox is full: the stream is cut";
  Request ping;
  ping.path = "/version";
  EXPECT_EQ(client_->call(ping).code, 404) << "and the loop thread is free";
  gate.unlock();
  std::shared_ptr<FakeApi::Stream> next;
  ASSERT_TRUE(next = api_.wait_stream("timeoutSeconds", kLimit));
  const std::string target = next->call().target;
  const int from = std::stoi(target.substr(target.find("resourceVersion=") + 16));
  EXPECT_GE(from, 2);
  EXPECT_LT(from, 25);
  for (int i = from - 1; i < 24; ++i) next->send(event("ADDED", object("x" + std::to_string(i), i + 2)));
  std::unique_lock lock(mutex_);
  EXPECT_TRUE(changed_.wait_for(lock, kLimit, [&] { return added == 24; })) << added;
}

TEST_F(InformerTest, SaysHowManyObjectsAndHowOld) {
  metrics::Registry registry;
  options_.metrics = &registry;
  following();
  EXPECT_THAT(registry.expose(), HasSubstr("bottle_cache_objects{kind=\"ConfigMap\"} 2"));
  EXPECT_LT(registry.gauge("bottle_cache_last_event_age_seconds", "", {{"kind", "ConfigMap"}}).value(), 20);
  informer_.reset();
  registry.expose();
}

TEST(InformerKindsTest, KeepsBottlesPodsAndNetworkPolicies) {
  FakeApi api;
  auto client = Client::create(api.config(), {});
  ASSERT_TRUE(client.is_ok());
  auto run = [&]<class Object>(const Resource& resource, const Json& o, void (*check)(const Object&)) {
    InformerOptions options;
    options.resource = resource;
    auto informer = Informer<Object>::create(**client, options, [](EventKind, const auto&, const auto&) {});
    informer->start();
    auto stream = api.wait_stream(std::string(resource.plural));
    ASSERT_TRUE(stream);
    EXPECT_EQ(stream->call().header("accept"), "application/json");
    stream->send(event("ADDED", o) + bookmark(9, true));
    ASSERT_TRUE(informer->wait_synced(kLimit));
    ASSERT_EQ(informer->size(), 1u);
    check(*informer->get("dev", "a"));
  };
  Json bottle = object("a", 1), pod = object("a", 1), policy = object("a", 1);
  bottle["spec"] = {{"agent", {{"image", "x"}}}};
  pod["status"] = {{"phase", "Running"}};
  policy["spec"] = {{"podSelector", Json::object()}, {"policyTypes", {"Egress"}}};
  run(kBottles, bottle, +[](const BottleObject& b) { EXPECT_EQ(b.spec_json, R"({"agent":{"image":"x"}})"); });
  run(kPods, pod, +[](const PodObject& p) { EXPECT_EQ(p.phase, "Running"); });
  run(kNetworkPolicies, policy, +[](const NetworkPolicyObject& n) { EXPECT_TRUE(n.affects_egress); });
}

}  // namespace
}  // namespace bottle::kube
