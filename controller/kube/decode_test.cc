#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <string>

#include "base/rfc3339.h"
#include "controller/kube/json_slice.h"
#include "controller/kube/objects.h"

namespace bottle::kube {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class DecodeTest : public ::testing::Test {
 protected:
  Decoder decoder_;
};

constexpr char kBottle[] = R"({
  "apiVersion": "bot-bottle.dev/v1alpha1", "kind": "Bottle",
  "metadata": {"name": "hello", "namespace": "dev", "uid": "u-1", "resourceVersion": "42", "generation": 3,
    "creationTimestamp": "2026-11-24T08:00:00Z", "deletionTimestamp": null,
    "annotations": {"bot-bottle.dev/note": "a \"b\"\u00e9", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
    "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {"f:agent": {}}}}]},
  "spec": {"agent": {"command": ["sh", "-c", "a  b"]},  "egress": [ 1, 2 ]},
  "status": { "observedGeneration": 3 }
})";

TEST_F(DecodeTest, ProjectsABottleAndKeepsItsSpecAndStatusAsCompactText) {
  BottleObject b;
  auto s = decoder_.bottle(kBottle, &b);
  ASSERT_TRUE(s.is_ok()) << s.message();
  EXPECT_EQ(b.name, "hello");
  EXPECT_EQ(b.ns, "dev");
  EXPECT_EQ(b.uid, "u-1");
  EXPECT_EQ(b.resource_version, "42");
  EXPECT_EQ(b.generation, 3);
  EXPECT_EQ(b.created, 1795507200);
  EXPECT_EQ(b.deleting, 0);
  EXPECT_THAT(b.annotations, ElementsAre(std::pair<const std::string, std::string>("note", "a \"b\"é")));
  EXPECT_EQ(b.annotation("note"), "a \"b\"é");
  EXPECT_EQ(b.annotation("none"), "");
  EXPECT_EQ(b.spec_json, R"({"agent":{"command":["sh","-c","a  b"]},"egress":[1,2]})");
  EXPECT_EQ(b.status_json, R"({"observedGeneration":3})");
}

TEST_F(DecodeTest, ABottleWithoutStatusHasNone) {
  BottleObject b;
  ASSERT_TRUE(decoder_.bottle(R"({"metadata":{"name":"a","uid":"u","deletionTimestamp":"2026-11-24T08:00:01Z"},"spec":{}})", &b).is_ok());
  EXPECT_EQ(b.status_json, "");
  EXPECT_EQ(b.spec_json, "{}");
  EXPECT_EQ(b.deleting, 1795507201);
}

std::string owned(const std::string& refs) {
  return R"({"metadata":{"name":"a","namespace":"dev","uid":"u","ownerReferences":[)" + refs + "]}}";
}

TEST_F(DecodeTest, TheOwnerIsTheBottleThatControlsIt) {
  MetaObject m;
  const std::string ours = R"({"apiVersion":"bot-bottle.dev/v1alpha1","kind":"Bottle","name":"hello","uid":"u-1","controller":true})";
  ASSERT_TRUE(decoder_.meta(owned(ours), &m).is_ok());
  EXPECT_EQ(m.owner_name, "hello");
  EXPECT_EQ(m.owner_uid, "u-1");
  EXPECT_FALSE(m.owned_by_other);

  ASSERT_TRUE(decoder_.meta(owned(R"({"apiVersion":"bot-bottle.dev/v1alpha1","kind":"Bottle","name":"hello","uid":"u-1"})"), &m).is_ok());
  EXPECT_EQ(m.owner_uid, "") << "an owner that does not control";
  for (const char* other : {R"({"apiVersion":"apps/v1","kind":"ReplicaSet","name":"r","uid":"u-2","controller":true})",
                            R"({"apiVersion":"evil.dev/v1","kind":"Bottle","name":"r","uid":"u-2","controller":true})",
                            R"({"apiVersion":"bot-bottle.dev.evil.dev/v1","kind":"Bottle","name":"r","uid":"u-2","controller":true})"}) {
    ASSERT_TRUE(decoder_.meta(owned(other), &m).is_ok());
    EXPECT_EQ(m.owner_uid, "") << other;
    EXPECT_TRUE(m.owned_by_other) << other;
  }
}

constexpr char kPod[] = R"({"metadata":{"name":"hello","namespace":"dev","uid":"u-p","resourceVersion":"7"},
  "spec":{"nodeName":"node-1","containers":[{"name":"agent"}],"ephemeralContainers":[{"name":"guard-01234567"}]},
  "status":{"phase":"Running","podIP":"10.1.2.3","startTime":"2026-11-24T08:00:00Z",
    "conditions":[{"type":"Ready","status":"False","reason":"ContainersNotReady","message":"containers with unready status: [agent]"}],
    "initContainerStatuses":[
      {"name":"guard","ready":true,"started":false,"restartCount":0,"state":{"terminated":{"exitCode":0,"reason":"Completed","startedAt":"2026-11-24T08:00:01Z","finishedAt":"2026-11-24T08:00:02Z"}},"lastState":{}},
      {"name":"egress","ready":true,"started":true,"restartCount":1,"state":{"running":{"startedAt":"2026-11-24T08:00:03Z"}},
       "lastState":{"terminated":{"exitCode":137,"reason":"OOMKilled"}}}],
    "containerStatuses":[{"name":"agent","ready":false,"restartCount":0,"state":{"waiting":{"reason":"ImagePullBackOff","message":"Back-off pulling image"}}}],
    "ephemeralContainerStatuses":[{"name":"guard-01234567","state":{"terminated":{"exitCode":3,"reason":"Error"}}}]}})";

TEST_F(DecodeTest, ProjectsAPod) {
  PodObject p;
  auto s = decoder_.pod(kPod, &p);
  ASSERT_TRUE(s.is_ok()) << s.message();
  EXPECT_EQ(p.phase, "Running");
  EXPECT_EQ(p.node, "node-1");
  EXPECT_EQ(p.ip, "10.1.2.3");
  EXPECT_EQ(p.start_time, 1795507200);
  EXPECT_THAT(p.ephemeral, ElementsAre("guard-01234567"));
  ASSERT_NE(p.condition("Ready"), nullptr);
  EXPECT_EQ(p.condition("Ready")->reason, "ContainersNotReady");
  EXPECT_EQ(p.condition("None"), nullptr);
  ASSERT_EQ(p.containers.size(), 4u);

  const ContainerState* guard = p.container("guard");
  EXPECT_EQ(guard->kind, ContainerState::Kind::kInit);
  EXPECT_EQ(guard->state, ContainerState::State::kTerminated);
  EXPECT_EQ(guard->finished_at - guard->started_at, 1);
  const ContainerState* egress = p.container("egress");
  EXPECT_EQ(egress->state, ContainerState::State::kRunning);
  EXPECT_TRUE(egress->ready && egress->started);
  EXPECT_EQ(egress->restarts, 1);
  EXPECT_EQ(egress->last_reason, "OOMKilled");
  EXPECT_EQ(egress->last_exit_code, 137);
  const ContainerState* agent = p.container("agent");
  EXPECT_EQ(agent->kind, ContainerState::Kind::kMain);
  EXPECT_EQ(agent->state, ContainerState::State::kWaiting);
  EXPECT_EQ(agent->reason, "ImagePullBackOff");
  EXPECT_EQ(p.container("guard-01234567")->exit_code, 3);
  EXPECT_EQ(p.container("guard-01234567")->kind, ContainerState::Kind::kEphemeral);
}

NetworkPolicyObject policy(const std::string& spec, const std::string& labels = "{}") {
  NetworkPolicyObject n;
  Decoder decoder;
  auto s = decoder.network_policy(R"({"metadata":{"name":"n","uid":"u","labels":)" + labels + R"(},"spec":)" + spec + "}", &n);
  EXPECT_TRUE(s.is_ok()) << s.message();
  return n;
}

TEST_F(DecodeTest, ANetworkPolicySaysWhetherItTouchesAndOpensEgress) {
  EXPECT_TRUE(policy("{}", R"({"app.kubernetes.io/managed-by":"bottle-controller"})").managed);
  EXPECT_FALSE(policy("{}", R"({"app.kubernetes.io/managed-by":"Helm"})").managed);
  struct { const char* spec; bool affects, allows; } cases[] = {
      {R"({"podSelector":{},"policyTypes":["Ingress"]})", false, false},
      {R"({"podSelector":{},"policyTypes":["Ingress","Egress"]})", true, false},
      {R"({"podSelector":{},"policyTypes":["Egress"],"egress":[{}]})", true, true},
      {R"({"podSelector":{},"egress":[{"to":[{"ipBlock":{"cidr":"0.0.0.0/0"}}]}]})", true, true},
      {R"({"podSelector":{},"egress":[]})", true, false},
      {R"({"podSelector":{}})", false, false},
      {R"({"podSelector":{},"policyTypes":["Ingress"],"egress":[{}]})", false, true},
  };
  for (const auto& c : cases) {
    const auto n = policy(c.spec);
    EXPECT_EQ(n.affects_egress, c.affects) << c.spec;
    EXPECT_EQ(n.allows_egress, c.allows) << c.spec;
  }
}

TEST_F(DecodeTest, SelectorsSelectAsKubernetesDoes) {
  const std::map<std::string, std::string, std::less<>> labels{{"app", "web"}, {"tier", ""}};
  struct { const char* selector; bool want; } cases[] = {
      {"{}", true},
      {R"({"matchLabels":{"app":"web"}})", true},
      {R"({"matchLabels":{"app":"web","tier":"x"}})", false},
      {R"({"matchLabels":{"none":""}})", false},
      {R"({"matchLabels":{"tier":""}})", true},
      {R"({"matchExpressions":[{"key":"app","operator":"In","values":["api","web"]}]})", true},
      {R"({"matchExpressions":[{"key":"app","operator":"NotIn","values":["web"]}]})", false},
      {R"({"matchExpressions":[{"key":"none","operator":"NotIn","values":["web"]}]})", true},
      {R"({"matchExpressions":[{"key":"tier","operator":"Exists"}]})", true},
      {R"({"matchExpressions":[{"key":"none","operator":"Exists"}]})", false},
      {R"({"matchExpressions":[{"key":"none","operator":"DoesNotExist"}]})", true},
      {R"({"matchExpressions":[{"key":"app","operator":"DoesNotExist"}]})", false},
      {R"({"matchExpressions":[{"key":"app","operator":"Invented"}]})", true},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(selects(policy(std::string(R"({"podSelector":)") + c.selector + "}").pod_selector, labels), c.want) << c.selector;
  }
}

TEST_F(DecodeTest, AnEventGivesItsObjectAsASliceOfTheLine) {
  const std::string line = R"({"type":"MODIFIED","object":{"kind":"Pod","metadata":{"name":"a } \" ]","uid":"u"}}})";
  Decoder::Event e;
  ASSERT_TRUE(decoder_.event(line, &e).is_ok());
  EXPECT_EQ(e.type, Decoder::Event::Type::kModified);
  EXPECT_GE(e.object.data(), line.data());
  EXPECT_LE(e.object.data() + e.object.size(), line.data() + line.size());
  MetaObject m;
  ASSERT_TRUE(decoder_.meta(e.object, &m).is_ok());
  EXPECT_EQ(m.name, "a } \" ]");
  ASSERT_TRUE(decoder_.event(R"( {"object": {"metadata":{}} , "type": "ADDED"} )", &e).is_ok());
  EXPECT_EQ(e.type, Decoder::Event::Type::kAdded);
  ASSERT_TRUE(decoder_.event(R"({"type":"DELETED","object":{}})", &e).is_ok());
  EXPECT_EQ(e.type, Decoder::Event::Type::kDeleted);
}

TEST_F(DecodeTest, ReadsBookmarksAndErrors) {
  Decoder::Event e;
  ASSERT_TRUE(decoder_.event(R"({"type":"BOOKMARK","object":{"kind":"Pod","metadata":{"resourceVersion":"12746","creationTimestamp":null,
    "annotations":{"k8s.io/initial-events-end":"true"}},"spec":{"containers":null}}})", &e).is_ok());
  EXPECT_EQ(e.type, Decoder::Event::Type::kBookmark);
  EXPECT_EQ(e.resource_version, "12746");
  EXPECT_TRUE(e.initial_events_end);
  ASSERT_TRUE(decoder_.event(R"({"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"false"}}}})", &e).is_ok());
  EXPECT_FALSE(e.initial_events_end);
  ASSERT_TRUE(decoder_.event(R"j({"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old resource version: 1 (2)"}})j", &e).is_ok());
  EXPECT_EQ(e.type, Decoder::Event::Type::kError);
  EXPECT_EQ(e.code, 410);
  EXPECT_EQ(e.reason, "Expired");
  EXPECT_THAT(e.message, HasSubstr("too old"));
}

TEST_F(DecodeTest, AListGivesEachItemAndWhereToGoOn) {
  std::vector<std::string> names;
  std::string version, next;
  auto each = [&](std::string_view item) {
    MetaObject m;
    Decoder inner;
    auto s = inner.meta(item, &m);
    names.push_back(m.name);
    return s;
  };
  ASSERT_TRUE(decoder_.list(R"({"kind":"PodList","metadata":{"resourceVersion":"10","continue":"abc","remainingItemCount":1},
    "items":[{"metadata":{"name":"a","uid":"u"}}, {"metadata":{"name":"b","uid":"v"}}]})", each, &version, &next).is_ok());
  EXPECT_THAT(names, ElementsAre("a", "b"));
  EXPECT_EQ(version, "10");
  EXPECT_EQ(next, "abc");
  ASSERT_TRUE(decoder_.list(R"({"metadata":{"resourceVersion":"11"},"items":null})", each, &version, &next).is_ok());
  EXPECT_EQ(version, "11");
  EXPECT_THAT(next, IsEmpty());
  EXPECT_EQ(decoder_.list(R"({"metadata":{"resourceVersion":"1"},"items":[{"metadata":{}}]})", each, &version, &next).code(), Code::kInvalid);
  EXPECT_EQ(decoder_.list(R"({"kind":"Status","code":500})", each, &version, &next).code(), Code::kInvalid);
  EXPECT_EQ(decoder_.list(R"({"metadata":{},"items":[{"a":1})", each, &version, &next).code(), Code::kInvalid);
}

TEST_F(DecodeTest, BoundsWhatOthersWrite) {
  PodObject p;
  const std::string e_acute = "é";
  std::string words(1023, 'm');
  ASSERT_TRUE(decoder_.pod(R"({"metadata":{"name":"a","uid":"u"},"status":{"message":")" + words + e_acute + R"(tail"}})", &p).is_ok());
  EXPECT_EQ(p.message, words) << "cut between characters";
  const std::string long_name(300, 'n');
  EXPECT_EQ(decoder_.pod(R"({"metadata":{"name":")" + long_name + R"(","uid":"u"}})", &p).code(), Code::kInvalid);
  MetaObject m;
  ASSERT_TRUE(decoder_.meta(R"({"metadata":{"name":"a","uid":"u","annotations":{"bot-bottle.dev/x":")" + std::string(5000, 'x') + R"("}}})", &m).is_ok());
  EXPECT_THAT(m.annotations, IsEmpty());
  std::string many;
  for (int i = 0; i < 1000; ++i) many += (i ? ",\"bot-bottle.dev/" : "\"bot-bottle.dev/") + std::to_string(i) + "\":\"v\"";
  ASSERT_TRUE(decoder_.meta(R"({"metadata":{"name":"a","uid":"u","annotations":{)" + many + "}}}", &m).is_ok());
  EXPECT_EQ(m.annotations.size(), 64u);
}

TEST_F(DecodeTest, RefusesWhatIsNoSuchObject) {
  BottleObject b;
  PodObject p;
  NetworkPolicyObject n;
  Decoder::Event e;
  const std::string deep(200'000, '[');
  for (const std::string& text : {std::string(), std::string("null"), std::string("[]"), std::string("\"x\""), std::string("{"), std::string("{}"),
                                  std::string(R"({"metadata":1})"), std::string(R"({"metadata":{"name":1}})"), std::string(R"({"metadata":{"name":"a"}})"),
                                  std::string(R"({"metadata":{"name":"a","uid":"u"}} x)"), std::string(R"({"metadata":{"name":"a","uid":"u"})"),
                                  std::string("{\"metadata\":{\"name\":\"\xff\",\"uid\":\"u\"}}"), std::string("\0{}", 3), deep, "{\"spec\":" + deep,
                                  std::string(9u << 20, ' ')}) {
    const std::string shown = text.substr(0, 60);
    EXPECT_EQ(decoder_.bottle(text, &b).code(), Code::kInvalid) << shown;
    EXPECT_EQ(decoder_.pod(text, &p).code(), Code::kInvalid) << shown;
    EXPECT_EQ(decoder_.network_policy(text, &n).code(), Code::kInvalid) << shown;
    EXPECT_EQ(decoder_.event(text, &e).code(), Code::kInvalid) << shown;
  }
  const std::string nested = R"({"metadata":{"name":"a","uid":"u"},"spec":)" + std::string(101, '[') + std::string(101, ']') + "}";
  EXPECT_EQ(decoder_.bottle(nested, &b).code(), Code::kInvalid);
  EXPECT_EQ(decoder_.bottle(R"({"metadata":{"name":"a","uid":"u"},"spec":{"a":[}})", &b).code(), Code::kInvalid);
  EXPECT_EQ(decoder_.event(R"({"type":"INVENTED","object":{}})", &e).code(), Code::kInvalid);
  EXPECT_EQ(decoder_.event(R"({"type":"ADDED","object":[]})", &e).code(), Code::kInvalid);
}

// Nothing that is cut or garbled may do more than give kInvalid; the sanitizers look on.
TEST_F(DecodeTest, SurvivesEveryCutAndAnyChangedByte) {
  const bool held = rc::check([&] {
    std::string text = *rc::gen::element<std::string>(kBottle, kPod);
    text.resize(*rc::gen::inRange<size_t>(0, text.size() + 1));
    for (int i = *rc::gen::inRange(0, 4); i > 0 && !text.empty(); --i) text[*rc::gen::inRange<size_t>(0, text.size())] = *rc::gen::arbitrary<char>();
    BottleObject b;
    PodObject p;
    NetworkPolicyObject n;
    MetaObject m;
    Decoder::Event e;
    for (const Status& s : {decoder_.bottle(text, &b), decoder_.pod(text, &p), decoder_.network_policy(text, &n), decoder_.meta(text, &m), decoder_.event(text, &e)}) {
      RC_ASSERT(s.is_ok() || s.code() == Code::kInvalid);
    }
  });
  EXPECT_TRUE(held);
  MetaObject m;
  EXPECT_TRUE(decoder_.meta(kPod, &m).is_ok()) << "a decoder goes on after a bad object";
}

TEST(JsonSliceTest, CompactKeepsStringsAndRefusesBrokenNesting) {
  std::string out;
  ASSERT_TRUE(compact_json("{ \"a\" : [ 1 ,\n\t\"x y\\\" z\" ] }", &out));
  EXPECT_EQ(out, R"({"a":[1,"x y\" z"]})");
  EXPECT_FALSE(compact_json("{", &out));
  EXPECT_FALSE(compact_json("}", &out));
  EXPECT_FALSE(compact_json("\"open", &out));
  EXPECT_FALSE(compact_json("\"open\\\"", &out));
}

TEST(TimeTest, ReadsAndWritesRfc3339) {
  EXPECT_EQ(parse_rfc3339("1970-01-01T00:00:00Z"), 0);
  EXPECT_EQ(parse_rfc3339("2026-11-24T08:00:00Z"), 1795507200);
  EXPECT_EQ(parse_rfc3339("2026-11-24T08:00:00.123456Z"), 1795507200);
  EXPECT_EQ(parse_rfc3339("2026-11-24T09:30:00+01:30"), 1795507200);
  EXPECT_EQ(parse_rfc3339("2024-02-29T00:00:00Z"), 1709164800);
  for (const char* bad : {"", "now", "2026-11-24", "2026-11-24T08:00:00", "2026-02-30T08:00:00Z", "2026-11-24T24:00:00Z", "2026-11-24T08:00:00.Z",
                          "2026-11-24 08:00:00Z", "2026-11-24T08:00:00Zx", "2026-11-24T08:00:00+1:30", "-026-11-24T08:00:00Z"}) {
    EXPECT_EQ(parse_rfc3339(bad), 0) << bad;
  }
  EXPECT_EQ(format_rfc3339(1795507200), "2026-11-24T08:00:00Z");
  EXPECT_EQ(format_rfc3339(-1), "1969-12-31T23:59:59Z");
  EXPECT_EQ(format_rfc3339_micro(1795507200'000042), "2026-11-24T08:00:00.000042Z");
  EXPECT_EQ(format_rfc3339_micro(-1), "1969-12-31T23:59:59.999999Z");
  EXPECT_TRUE(rc::check([] {
    const int64_t t = *rc::gen::inRange<int64_t>(-60'000'000'000, 250'000'000'000);
    RC_ASSERT(parse_rfc3339(format_rfc3339(t)) == t);
  }));
}

}  // namespace
}  // namespace bottle::kube
