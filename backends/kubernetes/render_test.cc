#include "backends/kubernetes/render.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "base/digest.h"
#include "base/file.h"
#include "controller/bottle/parse.h"

namespace bottle::kubernetes {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

const Owner kOwner = {"dev", "hello", "6c1a0f6e-0d1f-4a39-9d5e-3b7b3f9d8a11", 7};

std::string path(const std::string& file) { return std::string(BOTTLE_SOURCE_DIR) + "/backends/kubernetes/testdata/" + file; }

Bottle read_bottle(const std::string& name) {
  auto text = read_file(path(name + ".yaml"));
  EXPECT_TRUE(text) << text.status().message();
  BottleFile file = parse_bottle_file(*text);
  for (const auto& d : file.diagnostics)
    if (d.severity == Diagnostic::Severity::kError) ADD_FAILURE() << to_string(d, name);
  return file.bottles.size() == 1 ? file.bottles[0] : Bottle{};
}

BottlePlan planned(const Bottle& bottle) {
  auto p = plan(bottle);
  EXPECT_TRUE(p) << p.status().message();
  return p ? *p : BottlePlan{};
}

Owner owner_of(const BottlePlan& p) {
  Owner owner = kOwner;
  owner.name = p.name;
  return owner;
}

pki::CertificateAuthority some_ca() {
  pki::CertificateAuthority ca;
  ca.cert_pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  ca.key_pem = SecretString("-----BEGIN PRIVATE KEY-----\nvery-secret\n-----END PRIVATE KEY-----\n");
  ca.fingerprint = "sha256:0123";
  ca.not_after = 1'800'000'000;
  return ca;
}

Json pod_of(const BottlePlan& p) { return render_pod(p, owner_of(p), {}, {"sha256:0123", "41,42", 0}); }

const Json& container(const Json& pod, const std::string& name) {
  for (const char* list : {"initContainers", "containers"})
    for (const auto& c : pod.at("spec").at(list))
      if (c.at("name") == name) return c;
  static const Json none;
  ADD_FAILURE() << "no container " << name;
  return none;
}

const Json& volume(const Json& pod, const std::string& name) {
  for (const auto& v : pod.at("spec").at("volumes"))
    if (v.at("name") == name) return v;
  static const Json none;
  ADD_FAILURE() << "no volume " << name;
  return none;
}

std::string content_hash(const Json& object) { return object.at("metadata").at("annotations").at("bot-bottle.dev/content-hash"); }

// --- golden files: BOTTLE_UPDATE_GOLDEN=1 rewrites them -------------------------------------------------------------------------------

void compare(const std::string& name, const Json& objects) {
  const std::string got = objects.dump(2) + "\n", file = path(name + ".objects.json");
  if (std::getenv("BOTTLE_UPDATE_GOLDEN")) {
    const Status s = write_file(file, got, 0644);
    ASSERT_TRUE(s) << s.message();
  }
  auto want = read_file(file);
  ASSERT_TRUE(want) << want.status().message();
  EXPECT_EQ(got, *want) << "BOTTLE_UPDATE_GOLDEN=1 rewrites " << file;
}

TEST(Golden, Hello) {
  const BottlePlan p = planned(read_bottle("hello"));
  compare("hello", {render_policy(p, owner_of(p)), render_network_policy(p, owner_of(p)), pod_of(p), render_guard_update(p, {})});
}

TEST(Golden, Everything) {
  const Bottle bottle = read_bottle("everything");
  const BottlePlan p = planned(bottle);
  const RenderOptions options = {"Always", {"regcred", "other"}, 30};
  compare("everything", {render_policy(p, owner_of(p)), render_network_policy(p, owner_of(p)),
                         render_pod(p, owner_of(p), options, {"sha256:0123", "41,42", bottle.active_deadline_seconds}),
                         render_guard_update(p, options, 12)});
}

// --- one case each ---------------------------------------------------------------------------------------------------------------------

TEST(Render, EveryChildIsOwnedLabelledAndNamed) {
  const BottlePlan p = planned(read_bottle("hello"));
  const Json objects = {render_policy(p, kOwner), render_egress_ca(some_ca(), SecretString("k"), kOwner), render_network_policy(p, kOwner),
                        pod_of(p)};
  std::vector<std::string> names;
  for (const auto& o : objects) {
    names.push_back(o.at("kind").get<std::string>() + "/" + o.at("metadata").at("name").get<std::string>());
    EXPECT_EQ(o.at("metadata").at("namespace"), "dev");
    const Json& owner = o.at("metadata").at("ownerReferences").at(0);
    EXPECT_EQ(owner.at("uid"), kOwner.uid);
    EXPECT_EQ(owner.at("controller"), true);
    EXPECT_EQ(owner.at("blockOwnerDeletion"), false);
    EXPECT_EQ(o.at("metadata").at("labels").at("app.kubernetes.io/managed-by"), "bottle-controller");
    EXPECT_EQ(o.at("metadata").at("labels").at("bot-bottle.dev/bottle"), "hello");
    EXPECT_THAT(content_hash(o), HasSubstr("sha256:"));
  }
  EXPECT_THAT(names, ElementsAre("ConfigMap/hello-policy", "Secret/hello-egress-ca", "NetworkPolicy/hello-bottle", "Pod/hello"));
}

TEST(Render, SecretsAreInTheSecretAlone) {
  const BottlePlan p = planned(read_bottle("everything"));
  const auto ca = some_ca();
  const SecretString key("5a5a5a5a");
  const Json secret = render_egress_ca(ca, key, owner_of(p));
  EXPECT_EQ(secret.at("stringData").at("status.key"), "5a5a5a5a");
  EXPECT_THAT(secret.at("stringData").at("mitmproxy-ca.pem").get<std::string>(), HasSubstr("very-secret"));
  EXPECT_THAT(secret.at("stringData").at("ca.pem").get<std::string>(), Not(HasSubstr("PRIVATE")));
  EXPECT_EQ(secret.at("metadata").at("annotations").at("bot-bottle.dev/ca-not-after"), "2027-01-15T08:00:00Z");
  const std::string metadata = secret.at("metadata").dump();
  EXPECT_THAT(metadata, Not(HasSubstr("very-secret")));
  EXPECT_THAT(metadata, Not(HasSubstr("5a5a5a5a")));
  EXPECT_THAT(metadata, Not(HasSubstr(sha256_hex("5a5a5a5a"))));
  for (const Json& o : {render_policy(p, owner_of(p)), pod_of(p), render_network_policy(p, owner_of(p)), render_guard_update(p, {})}) {
    EXPECT_THAT(o.dump(), Not(HasSubstr("PRIVATE KEY")));
    EXPECT_FALSE(o.contains("stringData"));
  }
}

TEST(Render, TheAgentSeesNothingOfTheSecretsOrThePolicy) {
  for (const char* name : {"hello", "everything"}) {
    const Json pod = pod_of(planned(read_bottle(name)));
    std::set<std::string> volumes;
    for (const auto& m : container(pod, "agent").at("volumeMounts")) {
      const std::string v = m.at("name");
      volumes.insert(v);
      EXPECT_FALSE(volume(pod, v).contains("secret")) << v;
      EXPECT_FALSE(volume(pod, v).contains("projected")) << v;
      EXPECT_EQ(m.value("readOnly", false), v != "workspace") << m;
      if (volume(pod, v).contains("configMap")) {
        EXPECT_EQ(m.at("subPath"), "resolv.conf");
      }
    }
    EXPECT_THAT(volumes, ElementsAre("agent-trust", "files", "workspace"));
    // The CA's key is for egress: the guard has the certificate alone.
    for (const auto& m : container(pod, "guard").at("volumeMounts")) {
      EXPECT_NE(m.at("name"), "egress-ca");
    }
    EXPECT_EQ(volume(pod, "egress-ca-cert").at("secret").at("items").dump(), R"([{"key":"ca.pem","path":"ca.pem"}])");
  }
}

TEST(Render, IsHardened) {
  for (const char* name : {"hello", "everything"}) {
    const Json pod = pod_of(planned(read_bottle(name)));
    const Json& spec = pod.at("spec");
    for (const char* field : {"automountServiceAccountToken", "enableServiceLinks", "shareProcessNamespace"})
      EXPECT_EQ(spec.at(field), false) << field;
    for (const char* field : {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName", "nodeName", "hostUsers"})
      EXPECT_FALSE(spec.contains(field)) << field;
    EXPECT_EQ(spec.at("securityContext").at("seccompProfile").at("type"), "RuntimeDefault");
    for (const char* c : {"guard", "egress", "agent"}) {
      const Json& security = container(pod, c).at("securityContext");
      const bool guard = std::string(c) == "guard";
      EXPECT_EQ(security.at("privileged"), false);
      EXPECT_EQ(security.at("allowPrivilegeEscalation"), false);
      EXPECT_EQ(security.at("runAsNonRoot"), !guard);
      EXPECT_EQ(security.at("runAsUser") == 0, guard);
      EXPECT_EQ(security.at("readOnlyRootFilesystem"), std::string(c) != "agent");
      EXPECT_EQ(security.at("capabilities").dump(), guard ? R"({"add":["NET_ADMIN"],"drop":["ALL"]})" : R"({"drop":["ALL"]})");
      if (std::string(c) == "agent") continue;
      for (const char* kind : {"requests", "limits"})
        for (const char* what : {"cpu", "memory"})
          EXPECT_TRUE(container(pod, c).at("resources").at(kind).contains(what)) << c << " " << kind << " " << what;
    }
    for (const auto& v : spec.at("volumes")) EXPECT_FALSE(v.contains("hostPath"));
  }
}

TEST(Render, WhatIsReplacedWhileItRunsIsAWholeFolder) {
  const Json pod = pod_of(planned(read_bottle("hello")));
  for (const auto& m : container(pod, "egress").at("volumeMounts")) {
    const std::string v = m.at("name");
    if (v == "policy" || v == "tokens" || v == "egress-ca") {
      EXPECT_FALSE(m.contains("subPath")) << v;
    }
  }
}

TEST(Render, AMissingSecretIsNoReasonNotToStart) {
  const Json pod = pod_of(planned(read_bottle("everything")));
  const Json& sources = volume(pod, "tokens").at("projected").at("sources");
  ASSERT_EQ(sources.size(), 2u);
  for (const auto& s : sources) EXPECT_EQ(s.at("secret").at("optional"), true);
  EXPECT_EQ(sources.at(0).at("secret").at("items").size(), 2u);

  Bottle none = read_bottle("hello");
  none.egress.routes.clear();
  const Json without = pod_of(planned(none));
  for (const auto& v : without.at("spec").at("volumes")) EXPECT_NE(v.at("name"), "tokens");
  for (const auto& m : container(without, "egress").at("volumeMounts")) EXPECT_NE(m.at("name"), "tokens");
}

TEST(Render, EveryMountHasItsVolumeAndEveryVolumeAMount) {
  for (const char* name : {"hello", "everything"}) {
    const Json pod = pod_of(planned(read_bottle(name)));
    std::set<std::string> defined, used;
    for (const auto& v : pod.at("spec").at("volumes")) defined.insert(v.at("name"));
    for (const char* c : {"guard", "egress", "agent"}) {
      std::set<std::string> targets;
      for (const auto& m : container(pod, c).at("volumeMounts")) {
        used.insert(m.at("name"));
        EXPECT_TRUE(targets.insert(m.at("mountPath")).second) << m;
      }
    }
    EXPECT_EQ(defined, used);
    // A volume of the ConfigMap or the Secret that names no items would show all of it.
    for (const auto& v : pod.at("spec").at("volumes"))
      for (const char* kind : {"configMap", "secret"})
        if (v.contains(kind)) {
          EXPECT_FALSE(v.at(kind).at("items").empty()) << v;
        }
  }
}

TEST(Render, TheContentHashFollowsTheContent) {
  const Bottle bottle = read_bottle("hello");
  const BottlePlan p = planned(bottle);
  EXPECT_EQ(pod_of(p).dump(), pod_of(planned(bottle)).dump());
  Bottle other = bottle;
  other.egress.routes[0].paths = {"/v2/"};
  const BottlePlan q = planned(other);
  EXPECT_NE(content_hash(render_policy(p, kOwner)), content_hash(render_policy(q, kOwner)));
  EXPECT_EQ(content_hash(render_network_policy(p, kOwner)), content_hash(render_network_policy(q, kOwner)));
  EXPECT_EQ(pod_of(p).at("spec"), pod_of(q).at("spec"));  // a live update
  other.egress.routes[0].ports = {8443};
  EXPECT_NE(content_hash(render_network_policy(p, kOwner)), content_hash(render_network_policy(planned(other), kOwner)));

  const auto ca = some_ca();
  auto renewed = some_ca();
  renewed.cert_pem += "\n";
  const std::string was = content_hash(render_egress_ca(ca, SecretString("k"), kOwner));
  EXPECT_EQ(was, content_hash(render_egress_ca(ca, SecretString("k"), kOwner)));
  EXPECT_NE(was, content_hash(render_egress_ca(ca, SecretString("l"), kOwner)));
  EXPECT_NE(was, content_hash(render_egress_ca(renewed, SecretString("k"), kOwner)));
}

TEST(Render, OtherTokenReferencesNeedAnotherPod) {
  Bottle bottle = read_bottle("hello");
  const BottlePlan p = planned(bottle);
  bottle.egress.routes[0].inject[0].secret.key = "other";
  const BottlePlan q = planned(bottle);
  EXPECT_EQ(p.pod_hash, q.pod_hash);
  EXPECT_NE(token_refs_hash(p), token_refs_hash(q));
  EXPECT_NE(pod_of(p).at("spec"), pod_of(q).at("spec"));
}

TEST(Render, TheNetworkPolicyRefusesWhatTheGuardRefuses) {
  const BottlePlan p = planned(read_bottle("hello"));
  const Json to = render_network_policy(p, kOwner).at("spec").at("egress").at(1).at("to");
  std::set<std::string> policy, guard;
  for (const auto& peer : to)
    for (const auto& range : peer.at("ipBlock").at("except")) policy.insert(range);
  const std::string rules = p.guard_files.at("rules.nft");
  const std::regex set(R"(ip6? daddr \{ ([^}]*) \} goto refuse)"), range(R"([0-9a-f.:/]+)");
  for (std::sregex_iterator s(rules.begin(), rules.end(), set), end; s != end; ++s) {
    const std::string list = (*s)[1];
    for (std::sregex_iterator r(list.begin(), list.end(), range); r != end; ++r)
      guard.insert(r->str().find('/') == std::string::npos ? r->str() + "/32" : r->str());
  }
  EXPECT_EQ(guard.erase("::ffff:0:0/96"), 1u);  // no range of IPv6 to the API
  EXPECT_EQ(policy, guard);
}

TEST(Render, WithoutRoutesNothingLeaves) {
  Bottle bottle = read_bottle("hello");
  bottle.egress.mode = policy::Mode::kLearn;
  EXPECT_THAT(render_network_policy(planned(bottle), kOwner).at("spec").at("egress"), IsEmpty());
  bottle.egress.mode = policy::Mode::kEnforce;
  bottle.egress.routes.clear();
  EXPECT_THAT(render_network_policy(planned(bottle), kOwner).at("spec").at("egress"), IsEmpty());
}

TEST(Render, TheGuardUpdateMountsNothingAndHasANameOfItsOwn) {
  const BottlePlan p = planned(read_bottle("hello"));
  const Json c = render_guard_update(p, {}).at("spec").at("ephemeralContainers").at(0);
  EXPECT_FALSE(c.contains("volumeMounts"));
  EXPECT_FALSE(c.contains("resources"));  // the API refuses them here
  EXPECT_EQ(c.at("name"), guard_update_name(p));
  EXPECT_EQ(c.at("env").at(0).at("value"), p.guard_files.at("rules.nft"));
  EXPECT_EQ(c.at("securityContext").at("capabilities").dump(), R"({"add":["NET_ADMIN"],"drop":["ALL"]})");
  EXPECT_EQ(guard_update_name(p, 9), guard_update_name(p) + "-9");
  EXPECT_LE(guard_update_name(p, INT64_MAX).size(), 63u);
}

TEST(Check, NamesTheFieldAndTheFix) {
  const Bottle good = read_bottle("everything");
  EXPECT_TRUE(check(good));
  const auto message = [&](const std::function<void(Bottle&)>& change) {
    Bottle b = good;
    change(b);
    const Status s = check(b);
    EXPECT_EQ(s.code(), Code::kInvalid);
    return s.message();
  };
  for (const char* name : {"", "dev/fix", "Dev", "-a", "a-", "a..b", "a.-b", "a-.b", ".a", "a_b"})
    EXPECT_THAT(message([&](Bottle& b) { b.name = name; }), HasSubstr("metadata.name")) << name;
  EXPECT_THAT(message([](Bottle& b) { b.name = std::string(64, 'a'); }), HasSubstr("63"));
  EXPECT_THAT(message([](Bottle& b) { b.agent.workspace.kind = WorkspaceSpec::Kind::kHostPath; }), HasSubstr("hostPath"));
  EXPECT_THAT(message([](Bottle& b) { b.egress.upstream_ca_files = {"corp.pem"}; }), HasSubstr("upstreamCAs"));
  EXPECT_THAT(message([](Bottle& b) { b.egress.routes[1].inject[0].secret.name = "A_B"; }), HasSubstr("secretKeyRef.name"));
  EXPECT_THAT(message([](Bottle& b) { b.egress.routes[1].inject[0].secret.key = "a/b"; }), HasSubstr("secretKeyRef.key"));
  EXPECT_THAT(message([](Bottle& b) { b.egress.routes[1].inject[0].secret.key = "..a"; }), HasSubstr("secretKeyRef.key"));
}

}  // namespace
}  // namespace bottle::kubernetes
