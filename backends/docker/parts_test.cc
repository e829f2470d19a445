// The parts that need no engine: framing, archives, image names, bodies, state files, errors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "backends/docker/archive.h"
#include "backends/docker/container_body.h"
#include "backends/docker/hijack.h"
#include "backends/docker/pull.h"
#include "backends/docker/state.h"
#include "base/file.h"

namespace bottle::docker {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct TempDir {
  TempDir() {
    char name[] = "/tmp/bottle-docker-test-XXXXXX";
    path = ::mkdtemp(name);
  }
  ~TempDir() { (void)remove_tree(path); }
  std::string path;
};

std::string frame(char stream, const std::string& text) {
  std::string head("\0\0\0\0\0\0\0\0", 8);
  head[0] = stream;
  head[7] = static_cast<char>(text.size());
  return head + text;
}

TEST(FrameDemux, PutsFramesTogetherHoweverTheyAreCut) {
  const std::string all = frame(1, "out one") + frame(2, "err") + frame(1, "") + frame(1, "two");
  for (size_t step = 1; step <= all.size(); ++step) {
    std::string out, err;
    FrameDemux demux(true);
    for (size_t at = 0; at < all.size(); at += step)
      ASSERT_TRUE(
          demux.feed(std::string_view(all).substr(at, step), [&](bool e, std::string_view b) {
            (e ? err : out).append(b);
            return true;
          }));
    EXPECT_EQ(out, "out onetwo") << step;
    EXPECT_EQ(err, "err");
  }
}

TEST(FrameDemux, NoticesWhatIsNoFrame) {
  FrameDemux demux(true);
  EXPECT_FALSE(demux.feed("plain text, no frame", [](bool, std::string_view) { return true; }));
  EXPECT_TRUE(demux.broken());
}

TEST(Archive, TakesTheFileOut) {
  std::string tar = tar_folder("f", 0644, 0, 0).substr(0, 512);
  tar[156] = '0';
  tar.replace(124, 12, std::string("00000000005\0", 12));
  EXPECT_EQ(*untar_one(tar + "hello" + std::string(507 + 1024, '\0')), "hello");
  EXPECT_EQ(untar_one(tar + "hel").status().code(), Code::kInvalid);
  EXPECT_EQ(untar_one("").status().code(), Code::kNotFound);
  EXPECT_EQ(untar_one(tar_folder("only/", 0755, 1000, 1000)).status().code(), Code::kNotFound);
}

TEST(SplitImage, KnowsPortsTagsAndDigests) {
  auto is = [](const std::string& image) {
    auto r = split_image(image);
    return r.repository + " " + r.tag;
  };
  EXPECT_EQ(is("debian"), "debian latest");
  EXPECT_EQ(is("a/b:1"), "a/b 1");
  EXPECT_EQ(is("localhost:5000/a"), "localhost:5000/a latest");
  EXPECT_EQ(is("localhost:5000/a:x"), "localhost:5000/a x");
  EXPECT_EQ(is("a/b:1@sha256:ab"), "a/b sha256:ab");
}

TEST(EngineError, SaysWhatToDo) {
  auto e = [](long status, const std::string& m) {
    return engine_error(status, dump(Json{{"message", m}}), "x");
  };
  EXPECT_EQ(
      e(500, "could not find an available, non-overlapping IPv4 address pool among the defaults")
          .code(),
      Code::kExhausted);
  EXPECT_THAT(e(500, "all predefined address pools have been fully subnetted").message(),
              HasSubstr("network prune"));
  EXPECT_EQ(e(500, "write /x: no space left on device").code(), Code::kExhausted);
  EXPECT_THAT(e(500, "write /x: no space left on device").message(), HasSubstr("disk is full"));
  EXPECT_EQ(e(500, "Bind for 0.0.0.0:80 failed: port is already allocated").code(),
            Code::kExhausted);
  EXPECT_EQ(e(409, "in use").code(), Code::kConflict);
  EXPECT_EQ(e(404, "No such container").code(), Code::kNotFound);
  EXPECT_EQ(engine_error(500, "<html>", "x").code(), Code::kUnavailable);
}

TEST(FindEngine, ReadsItsForms) {
  EXPECT_EQ(find_engine("unix:///a/b.sock")->socket, "/a/b.sock");
  EXPECT_EQ(find_engine("/a/b.sock")->socket, "/a/b.sock");
  EXPECT_EQ(find_engine("tcp://127.0.0.1:2375")->url, "http://127.0.0.1:2375");
  EXPECT_EQ(find_engine("ssh://host").status().code(), Code::kUnsupported);
}

TEST(Resolvers, LeavesOutWhatAContainerCannotReach) {
  EXPECT_THAT(reachable_resolvers(
                  "# c\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver ::1\nnameserver "
                  "fe80::1%eth0\n"
                  "nameserver 2001:db8::1\nsearch x\nnameserver 10.0.0.1\nnameserver bad\n"),
              ElementsAre("10.0.0.1", "2001:db8::1"));
  EXPECT_TRUE(reachable_resolvers("nameserver 127.0.0.1\n").empty());
}

BottlePlan small_plan() {
  BottlePlan p{};
  p.name = p.slug = "one";
  p.pod_hash = "sha256:pod", p.policy_hash = "sha256:policy";
  p.agent_hosts = {{"127.0.0.1", {"egress", "git-gate"}}};
  p.guard.role = Role::kGuard, p.guard.image = "sidecars",
  p.guard.command = {"/usr/local/bin/bottle-guard"};
  p.guard.args = {"hold"}, p.guard.capabilities = {"NET_ADMIN"};
  p.agent.role = Role::kAgent, p.agent.image = "agent", p.agent.uid = 1000, p.agent.gid = 1000,
  p.agent.pids_limit = 7;
  p.agent.memory_limit_bytes = 1 << 20, p.agent.cpu_limit_millis = 1500,
  p.agent.read_only_root = false;
  p.agent.mounts = {{Source::kWorkspace, "", "/workspace", false},
                    {Source::kAgentTrust, "bundle.pem", "/etc/ssl/cert.pem", true},
                    {Source::kTmp, "", "/tmp", false}};
  return p;
}

TEST(ContainerBody, IsHardened) {
  TempDir dir;
  auto state = StateDir::open(dir.path);
  BottlePlan p = small_plan();
  Json image = {{"Config", {{"Entrypoint", {"/e"}}, {"Cmd", {"c"}}}}};
  auto body = container_body(p, p.agent, *state, "container:abc", image);
  ASSERT_TRUE(body);
  const Json& host = (*body)["HostConfig"];
  EXPECT_EQ((*body)["User"], "1000:1000");
  EXPECT_EQ((*body)["Entrypoint"], Json({"/.bot-bottle/gate"}));
  EXPECT_EQ((*body)["Cmd"], Json({"/e", "c"}));
  EXPECT_EQ(host["NetworkMode"], "container:abc");
  EXPECT_EQ(host["CapDrop"], Json({"ALL"}));
  EXPECT_TRUE(host["CapAdd"].empty());
  EXPECT_EQ(host["Privileged"], false);
  EXPECT_THAT(host["SecurityOpt"].get<std::vector<std::string>>(),
              Contains("no-new-privileges:true"));
  EXPECT_THAT(host["SecurityOpt"].get<std::vector<std::string>>(),
              Contains(HasSubstr("seccomp={")));
  EXPECT_EQ(host["PidsLimit"], 7);
  EXPECT_EQ(host["Memory"], 1 << 20);
  EXPECT_EQ(host["NanoCpus"], 1'500'000'000);
  EXPECT_EQ(host["Ulimits"][0]["Hard"], 0);
  EXPECT_EQ(host["Mounts"][1]["ReadOnly"], true);
  EXPECT_FALSE(host.contains("ExtraHosts"));
  EXPECT_FALSE(body->contains("Hostname"));
  EXPECT_EQ((*body)["Labels"][kLabelState], state->root());
  auto guard = container_body(p, p.guard, *state, "net", Json());
  EXPECT_EQ((*guard)["HostConfig"]["ExtraHosts"], Json({"egress:127.0.0.1", "git-gate:127.0.0.1"}));
  EXPECT_EQ((*guard)["HostConfig"]["CapAdd"], Json({"NET_ADMIN"}));
}

TEST(ContainerBody, CommandAndArgsAsOnACluster) {
  Json image = {{"Config", {{"Entrypoint", {"/e"}}, {"Cmd", {"c"}}}}};
  ContainerPlan c{};
  c.command = {"x"};
  EXPECT_THAT(*agent_argv(c, image), ElementsAre("x"));
  c.args = {"y"};
  EXPECT_THAT(*agent_argv(c, image), ElementsAre("x", "y"));
  c.command.clear();
  EXPECT_THAT(*agent_argv(c, image), ElementsAre("/e", "y"));
  c.args.clear();
  EXPECT_EQ(agent_argv(c, Json{{"Config", Json::object()}}).status().code(), Code::kInvalid);
}

TEST(ContainerBody, NeverMountsTheKeysAsAWorkspace) {
  TempDir dir;
  auto state = StateDir::open(dir.path + "/state");
  BottlePlan p = small_plan();
  p.workspace.kind = WorkspaceSpec::Kind::kHostPath;
  Json image = {{"Config", {{"Cmd", {"c"}}}}};
  for (const std::string& bad :
       {dir.path, dir.path + "/state", std::string("/"), dir.path + "/none"}) {
    p.workspace.host_path = bad;
    EXPECT_EQ(container_body(p, p.agent, *state, "n", image).status().code(), Code::kInvalid)
        << bad;
  }
  ASSERT_TRUE(make_dirs(dir.path + "/work", 0755));
  ASSERT_EQ(::symlink((dir.path + "/state").c_str(), (dir.path + "/link").c_str()), 0);
  p.workspace.host_path = dir.path + "/link";
  EXPECT_FALSE(container_body(p, p.agent, *state, "n", image));
  p.workspace.host_path = dir.path + "/work";
  EXPECT_TRUE(container_body(p, p.agent, *state, "n", image));
}

TEST(ContainerBody, GuardOnceKeepsTheHoldersHardening) {
  Json holder = {
      {"Id", "h1"},
      {"Image", "sha256:i"},
      {"Config",
       {{"Cmd", {"hold", "--rules"}}, {"Labels", {{kLabelRole, "guard"}}}, {"Hostname", "x"}}},
      {"HostConfig", {{"NetworkMode", "net"}, {"CapDrop", {"ALL"}}, {"ExtraHosts", {"a:b"}}}}};
  Json body = guard_once_body(holder, "apply");
  EXPECT_EQ(body["Cmd"], Json({"apply", "--rules"}));
  EXPECT_EQ(body["HostConfig"]["NetworkMode"], "container:h1");
  EXPECT_EQ(body["HostConfig"]["CapDrop"], Json({"ALL"}));
  EXPECT_FALSE(body["HostConfig"].contains("ExtraHosts"));
  EXPECT_FALSE(body.contains("Hostname"));
  EXPECT_EQ(body["Labels"][kLabelRole], "guard-apply");
}

mode_t mode_of(const std::string& path) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 ? st.st_mode & 07777 : 0;
}

TEST(State, KeepsTheBareKeyApartAndTheFolderClosed) {
  TempDir dir;
  auto state = StateDir::open(dir.path + "/s");
  BottlePlan p = small_plan();
  p.ca_key_type = KeyType::kEcdsaP256;
  p.tokens = {{"TOK", {"a", "b"}}, {"GONE", {"a", "c"}}};
  p.policy_files["routes.yaml"] = "r";
  auto ca = state->ca(p, ::time(nullptr));
  ASSERT_TRUE(ca) << ca.status().message();
  EXPECT_EQ(state->ca(p, ::time(nullptr))->fingerprint, ca->fingerprint) << "the CA is kept";
  std::map<std::string, SecretString> tokens;
  tokens["TOK"] = SecretString("t0ken");
  SharedFiles shared{"gate", ca->cert_pem};
  ASSERT_TRUE(state->write_all(p, *ca, shared, tokens, {"10.0.0.1"}));
  std::string d = state->dir("one");
  EXPECT_EQ(mode_of(d), 0700u);
  EXPECT_EQ(mode_of(d + "/ca"), 0700u);
  EXPECT_EQ(mode_of(d + "/ca/ca.key"), 0600u);
  EXPECT_EQ(mode_of(d + "/run"), 0777u);
  EXPECT_EQ(mode_of(d + "/tokens"), 0755u);
  EXPECT_EQ(mode_of(d + "/tokens/TOK"), 0644u);
  EXPECT_EQ(mode_of(d + "/gate/gate"), 0755u);
  EXPECT_NE(mode_of(d + "/tokens/GONE"), 0644u);
  EXPECT_EQ(*read_file(d + "/resolvers/resolv.conf"),
            "nameserver 10.0.0.1\noptions timeout:2 attempts:2\n");
  EXPECT_THAT(*read_file(d + "/trust/bundle.pem"), HasSubstr("BEGIN CERTIFICATE"));
  EXPECT_EQ(read_file(d + "/trust/ca.pem")->find("PRIVATE"), std::string::npos);
  struct stat before {
  }, after{};
  ASSERT_EQ(::stat((d + "/resolvers/resolv.conf").c_str(), &before), 0);
  EXPECT_FALSE(*state->write_policy(p, tokens, {"10.0.0.1"})) << "nothing is new";
  tokens.clear();
  auto changed = state->write_policy(p, tokens, {"10.0.0.2"});
  ASSERT_TRUE(changed);
  EXPECT_TRUE(*changed);
  ASSERT_EQ(::stat((d + "/resolvers/resolv.conf").c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino) << "a mounted file pins its inode";
  EXPECT_EQ(mode_of(d + "/tokens/TOK"), 0u) << "a token that is not given any more is gone";
}

TEST(State, OneChangesItAtATime) {
  TempDir dir;
  auto state = StateDir::open(dir.path);
  {
    auto first = state->lock("x");
    ASSERT_TRUE(first);
    EXPECT_EQ(state->lock("x").status().code(), Code::kConflict);
    EXPECT_TRUE(state->lock("y"));
  }
  EXPECT_TRUE(state->lock("x"));
}

TEST(State, ComesBackAsItWas) {
  TempDir dir;
  auto state = StateDir::open(dir.path);
  BottleState s;
  s.name = "N", s.slug = "n", s.guard_id = "g", s.ready = true, s.missing_tokens = {"A"},
  s.ca_not_after = 5;
  ASSERT_TRUE(state->save(s));
  auto back = state->load("n");
  ASSERT_TRUE(back);
  EXPECT_EQ(back->name, "N");
  EXPECT_EQ(back->guard_id, "g");
  EXPECT_TRUE(back->ready);
  EXPECT_THAT(back->missing_tokens, ElementsAre("A"));
  EXPECT_EQ(back->ca_not_after, 5);
  EXPECT_EQ(state->load("none").status().code(), Code::kNotFound);
  ASSERT_TRUE(write_file(dir.path + "/n/state.json", "{broken", 0600));
  EXPECT_EQ(state->load("n").status().code(), Code::kInvalid);
}

}  // namespace
}  // namespace bottle::docker
