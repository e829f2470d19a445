// The guard in real network namespaces: this process moves to one of its own, a child holds the peer's; a veth pair joins them.
// Needs root and nftables; skips itself otherwise.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <functional>

#include "base/file.h"
#include "controller/pki/pki.h"
#include "sidecars/guard/nft.h"
#include "sidecars/guard/rules.h"

namespace bottle::guard {
namespace {

using testing::HasSubstr;

constexpr uid_t kEgress = 10001, kAgent = 1000;
constexpr char kPeer[] = "203.0.113.2";

constexpr char kRules[] = R"(table inet bottle_guard {
  set resolvers4 { type ipv4_addr; }
  set resolvers6 { type ipv6_addr; }
  counter refused { }
  chain refuse {
    meta l4proto tcp counter name refused reject with tcp reset
    counter name refused reject with icmpx type admin-prohibited
  }
  chain outbound {
    type filter hook output priority 0; policy drop;
    oifname != "lo" meta skuid != { 10001, 10002, 10003, 10004 } goto refuse
    oifname "lo" ip daddr 127.0.0.11 reject with icmpx type admin-prohibited
    oifname "lo" meta skuid != { 10001, 10002, 10003, 10004 } tcp dport { 8888, 9090-9098 } reject with tcp reset
    ct state established,related accept
    ct state invalid drop
    oifname "lo" accept
    meta skuid 10001 ip daddr @resolvers4 meta l4proto { tcp, udp } th dport 53 accept
    meta skuid 10001 ip6 daddr @resolvers6 meta l4proto { tcp, udp } th dport 53 accept
    ip daddr { 0.0.0.0/8, 10.0.0.0/8, 127.0.0.0/8, 168.63.129.16, 169.254.0.0/16, 192.168.0.0/16, 224.0.0.0/3 } counter name refused reject with icmpx type admin-prohibited
    ip6 daddr { ::/128, ::1/128, ::ffff:0:0/96, 64:ff9b::/96, fc00::/7, fe80::/10, ff00::/8 } counter name refused reject with icmpx type admin-prohibited
    meta skuid 10001 tcp dport { 443, 80 } accept
    goto refuse
  }
  chain inbound {
    type filter hook input priority 0; policy drop;
    iifname "lo" accept
    ct state established,related accept
    tcp dport { 9090-9098 } accept
    counter name refused
  }
}
)";

int run(const std::string& command) { return system(command.c_str()); }  // NOLINT: fixed strings of this test

// Runs `body` in a child, as `uid` when not 0; its value is the child's exit status.
int in_child(uid_t uid, const std::function<int()>& body) {
  const pid_t pid = fork();
  if (pid == 0) {
    if (uid != 0 && (setgroups(0, nullptr) != 0 || setresgid(uid, uid, uid) != 0 || setresuid(uid, uid, uid) != 0)) _exit(99);
    _exit(body());
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

sockaddr_in address(const char* ip, int port) {
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET, ip, &a.sin_addr);
  return a;
}

int bound(int type, const char* ip, int port) {
  const int fd = socket(AF_INET, type, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const timeval limit{5, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  const sockaddr_in a = address(ip, port);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&a), sizeof a) != 0) return -1;
  return fd;
}

// errno of one datagram from `from_port` (0: any) to ip:port; 0 when it was sent.
int send_udp(const char* ip, int port, int from_port = 0, bool await_reply = false) {
  const int fd = bound(SOCK_DGRAM, "0.0.0.0", from_port);
  if (fd < 0) return 98;
  const sockaddr_in to = address(ip, port);
  if (sendto(fd, "q", 1, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to) < 0) return errno;
  char c;
  if (await_reply && recv(fd, &c, 1, 0) != 1) return 97;
  return 0;
}

int connect_tcp(const char* ip, int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const sockaddr_in to = address(ip, port);
  return connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0 ? 0 : errno;
}

class Netns : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (geteuid() != 0 || access("/usr/sbin/nft", X_OK) != 0 || unshare(CLONE_NEWNET) != 0) return;
    int ready[2], stop[2];
    if (pipe2(ready, O_CLOEXEC) != 0 || pipe2(stop, O_CLOEXEC) != 0) return;
    peer_ = fork();
    if (peer_ == 0) {
      close(stop[1]);
      if (unshare(CLONE_NEWNET) != 0) _exit(1);
      if (write(ready[1], "r", 1) != 1) _exit(1);
      char c;
      (void)!read(stop[0], &c, 1);  // until the test program ends
      _exit(0);
    }
    close(ready[1]);
    char c;
    if (read(ready[0], &c, 1) != 1) return;
    const std::string p = std::to_string(peer_);
    up_ = run("ip link set lo up && ip link add bg0 type veth peer name bg1 netns " + p + " && ip addr add 203.0.113.1/24 dev bg0 && " +
              "ip link set bg0 up && nsenter -t " + p + " -n sh -c 'ip link set lo up && ip addr add 203.0.113.2/24 dev bg1 && " +
              "ip link set bg1 up'") == 0;
  }
  static void TearDownTestSuite() {
    if (peer_ <= 0) return;
    kill(peer_, SIGKILL);
    waitpid(peer_, nullptr, 0);
  }
  void SetUp() override {
    if (!up_) GTEST_SKIP() << "needs root, nft and ip";
  }

  // A listening socket in the peer's namespace, made by a thread-less hop there and back.
  static int peer_socket(int type, int port) {
    const int mine = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    const int theirs = open(("/proc/" + std::to_string(peer_) + "/ns/net").c_str(), O_RDONLY | O_CLOEXEC);
    if (setns(theirs, CLONE_NEWNET) != 0) return -1;
    const int fd = bound(type, "0.0.0.0", port);
    if (type == SOCK_STREAM) listen(fd, 8);
    setns(mine, CLONE_NEWNET);
    close(mine);
    close(theirs);
    return fd;
  }
  static Status load_all() { return load_and_verify(kRules, parse_resolvers(std::string("nameserver ") + kPeer + "\n")); }

  static inline pid_t peer_ = -1;
  static inline bool up_ = false;
};

TEST_F(Netns, LoadsTwiceReadsBackAndLeavesOtherTablesAlone) {
  ASSERT_EQ(run("nft add table ip keepme"), 0);
  for (int i = 0; i < 2; ++i) {
    Status s = load_all();
    ASSERT_TRUE(s) << s.message();
  }
  auto tables = run_nft({"list", "tables"});
  ASSERT_TRUE(tables);
  EXPECT_THAT(tables->out, HasSubstr("table ip keepme"));
  EXPECT_THAT(tables->out, Not(HasSubstr("reference")));
  EXPECT_THAT(run_nft({"list", "set", "inet", "bottle_guard", "resolvers4"})->out, HasSubstr(kPeer));
}

TEST_F(Netns, ReadBackCatchesEveryTampering) {
  for (const char* change : {
           "insert rule inet bottle_guard outbound meta skuid 1000 accept",
           "add rule inet bottle_guard inbound accept",
           "insert rule inet bottle_guard refuse accept",
           "add chain inet bottle_guard outbound { policy accept; }",
           "add element inet bottle_guard resolvers4 { 198.51.100.7 }",
           "flush chain inet bottle_guard outbound",
           "add chain inet bottle_guard early { type filter hook output priority -10; policy accept; }",
           "add table inet bottle_guard { flags dormant; }",
           "delete table inet bottle_guard",
       }) {
    ASSERT_TRUE(load(kRules, {kPeer}));
    ASSERT_TRUE(verify(kRules)) << verify(kRules).message();
    auto r = run_nft({"-f", "-"}, change);
    ASSERT_TRUE(r && r->exit_code == 0) << change << ": " << r->err;
    EXPECT_FALSE(verify(kRules)) << change;
  }
  EXPECT_TRUE(drop_reference());
}

TEST_F(Netns, TheProbeSeesWhetherTheRulesAreInForce) {
  (void)run_nft({"-f", "-"}, "table inet bottle_guard\ndelete table inet bottle_guard\n");
  EXPECT_EQ(probe_in_force().code(), Code::kConflict);
  ASSERT_TRUE(load_all());
  EXPECT_TRUE(probe_in_force()) << probe_in_force().message();
  EXPECT_EQ(in_child(kAgent, [] { return probe_in_force().is_ok() ? 0 : 1; }), 0);
}

TEST_F(Netns, BadRulesAndMissingParts) {
  std::string bad = kRules;
  bad.replace(bad.find("admin-prohibited"), 16, "no-such-reason");
  EXPECT_THAT(load(bad, {}).message(), HasSubstr("nft refuses the guard's rules"));
  EXPECT_EQ(in_child(kAgent, [] { return load(kRules, {}).code() == Code::kPermission ? 0 : 1; }), 0);
}

TEST_F(Netns, OnlyTheSidecarLeavesAndARefusalIsImmediate) {
  ASSERT_TRUE(load_all());
  const int tcp = peer_socket(SOCK_STREAM, 443), udp = peer_socket(SOCK_DGRAM, 53);
  ASSERT_GE(tcp, 0);
  ASSERT_GE(udp, 0);
  EXPECT_EQ(in_child(kEgress, [] { return connect_tcp(kPeer, 443); }), 0);
  EXPECT_EQ(in_child(kEgress, [] { return send_udp(kPeer, 53); }), 0);
  for (uid_t uid : {kAgent, uid_t{0}}) {
    // An ICMP refusal of a TCP dial costs a retransmission (1 s) where the dial still owns its socket; a reset does not.
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_THAT(in_child(uid, [] { return connect_tcp(kPeer, 443); }), testing::AnyOf(ECONNREFUSED, EPERM, EHOSTUNREACH, EACCES));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(700));
    EXPECT_EQ(in_child(uid, [] { return send_udp(kPeer, 53); }), EPERM);
  }
  EXPECT_EQ(in_child(kEgress, [] { return send_udp(kPeer, 5353); }), EPERM);
  auto r = run_nft({"-j", "list", "counters", "table", "inet", "bottle_guard"});
  ASSERT_TRUE(r);
  EXPECT_THAT(*counters_json(r->out), Not(HasSubstr("\"packets\":0")));
  close(tcp);
  close(udp);
}

// Trap 1: "established" alone would carry the agent's datagrams once it binds the port a sidecar has just used.
TEST_F(Netns, AReusedPortDoesNotRideOnTheSidecarsFlow) {
  ASSERT_TRUE(load_all());
  const int udp = peer_socket(SOCK_DGRAM, 53);
  ASSERT_GE(udp, 0);
  const pid_t answer = fork();
  if (answer == 0) {
    char c;
    sockaddr_in from{};
    socklen_t size = sizeof from;
    if (recvfrom(udp, &c, 1, 0, reinterpret_cast<sockaddr*>(&from), &size) == 1)
      (void)!sendto(udp, "a", 1, 0, reinterpret_cast<sockaddr*>(&from), size);
    _exit(0);
  }
  EXPECT_EQ(in_child(kEgress, [] { return send_udp(kPeer, 53, 40053, true); }), 0);
  waitpid(answer, nullptr, 0);
  EXPECT_EQ(in_child(kAgent, [] { return send_udp(kPeer, 53, 40053); }), EPERM);
  char c;
  EXPECT_LT(recv(udp, &c, 1, MSG_DONTWAIT), 0) << "the agent's datagram arrived";
  close(udp);
}

// Trap 2: once the socket is closed its queued data has no owner; per-packet owner rules alone would lose it.
TEST_F(Netns, DataOfAClosedSocketArrives) {
  ASSERT_TRUE(load_all());
  const int listener = peer_socket(SOCK_STREAM, 443);
  ASSERT_GE(listener, 0);
  constexpr size_t kBytes = 1'500'000;
  EXPECT_EQ(in_child(0, [] {
              // skuid is the file-system UID at socket(2); the large buffer needs privileges.
              if (seteuid(kEgress) != 0) return 96;
              const int fd = socket(AF_INET, SOCK_STREAM, 0);
              if (seteuid(0) != 0) return 96;
              const int buffer = 4 << 20;
              setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer);  // so that all of it is queued at close
              const sockaddr_in to = address(kPeer, 443);
              if (connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) return errno;
              const std::string data(kBytes, 'x');
              return send(fd, data.data(), data.size(), MSG_DONTWAIT) == static_cast<ssize_t>(kBytes) ? 0 : 95;
            }),
            0);
  const int fd = accept(listener, nullptr, nullptr);
  ASSERT_GE(fd, 0);
  size_t got = 0;
  char buffer[65536];
  for (;;) {
    pollfd p{fd, POLLIN, 0};
    ASSERT_EQ(poll(&p, 1, 10'000), 1) << "stuck after " << got << " bytes";
    const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    ASSERT_GE(n, 0);
    if (n == 0) break;
    got += static_cast<size_t>(n);
  }
  EXPECT_EQ(got, kBytes);
  close(fd);
  close(listener);
}

TEST_F(Netns, TheGateWaitsForTheRules) {
  (void)run_nft({"-f", "-"}, "table inet bottle_guard\ndelete table inet bottle_guard\n");
  int out[2];
  ASSERT_EQ(pipe2(out, O_CLOEXEC), 0);
  const pid_t gate = fork();
  if (gate == 0) {
    dup2(out[1], 1);
    execl(GATE_BINARY, "bottle-gate", "echo", "started", nullptr);
    _exit(1);
  }
  close(out[1]);
  pollfd p{out[0], POLLIN, 0};
  EXPECT_EQ(poll(&p, 1, 300), 0) << "started without rules";
  ASSERT_TRUE(load_all());
  char text[64] = {};
  EXPECT_EQ(poll(&p, 1, 5000), 1);
  EXPECT_EQ(read(out[0], text, sizeof text - 1), 8);
  EXPECT_STREQ(text, "started\n");
  int status = 0;
  waitpid(gate, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(run(std::string(GATE_BINARY) + " /no/such 2>/dev/null") >> 8, 127);
}

TEST_F(Netns, HoldPrintsOneLineDropsEverythingAndStopsOnSigterm) {
  char dir[] = "/tmp/guard-test-XXXXXX";
  ASSERT_NE(mkdtemp(dir), nullptr);
  const std::string d = dir;
  FILE* f = fopen((d + "/rules.nft").c_str(), "w");
  fputs(kRules, f);
  fclose(f);
  f = fopen((d + "/resolv.conf").c_str(), "w");
  fputs("nameserver 203.0.113.2\n", f);
  fclose(f);
  // With every capability, and as in a bottle with NET_ADMIN alone, where neither the UID nor the bounding set may be changed:
  // then no_new_privs is what keeps an exec from taking the bounding set's capability.
  for (const bool alone : {false, true}) {
    int out[2];
    ASSERT_EQ(pipe2(out, O_CLOEXEC), 0);
    const pid_t hold = fork();
    if (hold == 0) {
      dup2(out[1], 1);
      const std::string rules = d + "/rules.nft", resolv = d + "/resolv.conf";
      if (alone)
        execlp("setpriv", "setpriv", "--bounding-set", "-all,+net_admin", GUARD_BINARY, "hold", "--rules", rules.c_str(),
               "--resolv-conf", resolv.c_str(), nullptr);
      execl(GUARD_BINARY, "bottle-guard", "hold", "--rules", rules.c_str(), "--resolv-conf", resolv.c_str(), nullptr);
      _exit(1);
    }
    close(out[1]);
    char text[1024] = {};
    ASSERT_GT(read(out[0], text, sizeof text - 1), 0);
    close(out[0]);
    EXPECT_THAT(text, HasSubstr(R"("guard":"verified")"));
    EXPECT_THAT(text, HasSubstr(R"("rulesSha256":"sha256:)"));
    EXPECT_THAT(text, HasSubstr(alone ? R"("uid":0)" : R"("uid":65534)"));
    char status_text[4096] = {};
    const int fd = open(("/proc/" + std::to_string(hold) + "/status").c_str(), O_RDONLY | O_CLOEXEC);
    EXPECT_GT(read(fd, status_text, sizeof status_text - 1), 0);
    close(fd);
    for (const char* line : {"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000",
                             "CapAmb:\t0000000000000000", "NoNewPrivs:\t1"})
      EXPECT_THAT(status_text, HasSubstr(line));
    EXPECT_THAT(status_text, HasSubstr(alone ? "CapBnd:\t0000000000001000" : "CapBnd:\t0000000000000000"));
    kill(hold, SIGTERM);
    int status = 1;
    waitpid(hold, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_THAT(run(std::string(GUARD_BINARY) + " apply --rules /no/such > " + d + "/out") >> 8, 1);
  EXPECT_EQ(run("grep -q '\"guard\":\"failed\"' " + d + "/out; rc=$?; rm -r " + d + "; exit $rc"), 0);
}

// As the first container of a pod: NET_ADMIN alone, UID 0 without the right to read what is not its own.
TEST_F(Netns, InitWritesTheTrustFilesWithoutPrivilege) {
  char dir[] = "/tmp/guard-test-XXXXXX";
  ASSERT_NE(mkdtemp(dir), nullptr);
  const std::string d = dir;
  auto ca = pki::make_egress_ca(KeyType::kEcdsaP256, 1'800'000'000);
  ASSERT_TRUE(ca);
  for (const char* sub : {"/trust", "/upstream"}) ASSERT_TRUE(make_dirs(d + sub, 0777));
  for (const auto& [file, text] : {std::pair{"/rules.nft", std::string(kRules)}, {"/resolv.conf", "nameserver 203.0.113.2\n"},
                                   {"/ca.pem", ca->cert_pem}, {"/roots.pem", ca->cert_pem}})
    ASSERT_TRUE(write_file(d + file, text, 0644));
  const std::string init = "setpriv --bounding-set -all,+net_admin " GUARD_BINARY " init --rules " + d + "/rules.nft --resolv-conf " + d +
                           "/resolv.conf --ca " + d + "/ca.pem --roots " + d + "/roots.pem --trust-out " + d + "/trust --upstream-out " + d;
  EXPECT_EQ(run(init + "/upstream > " + d + "/out"), 0);
  EXPECT_THAT(*read_file(d + "/out"), HasSubstr(R"("guard":"verified")"));
  EXPECT_EQ(*read_file(d + "/upstream/upstream-ca.pem"), ca->cert_pem);
  EXPECT_TRUE(probe_in_force());
  // Folders of another user: the rules are loaded, and the guard says that it could not finish.
  ASSERT_TRUE(make_dirs(d + "/foreign", 0755));
  ASSERT_EQ(chown((d + "/foreign").c_str(), kAgent, kAgent), 0);
  EXPECT_EQ(run(init + "/foreign > " + d + "/out") >> 8, 1);
  EXPECT_THAT(*read_file(d + "/out"), HasSubstr(R"("guard":"failed")"));
  ASSERT_TRUE(remove_tree(d));
}

TEST_F(Netns, ApplyTakesTheRulesFromItsEnvironment) {
  std::string rules = kRules;
  rules.replace(rules.find("{ 443, 80 }"), 11, "8443");
  ASSERT_EQ(setenv("BOTTLE_GUARD_RULES", rules.c_str(), 1), 0);
  EXPECT_EQ(run(GUARD_BINARY " apply --rules /no/such --resolv-conf /dev/null > /dev/null"), 0);
  EXPECT_TRUE(probe_in_force());
  EXPECT_EQ(run("nft list chain inet bottle_guard outbound | grep -q 'dport 8443 accept'"), 0);
  EXPECT_EQ(setenv("BOTTLE_GUARD_RULES", "", 1), 0);  // set and empty: not "use the file"
  EXPECT_EQ(run(GUARD_BINARY " apply --resolv-conf /dev/null > /dev/null") >> 8, 1);
  unsetenv("BOTTLE_GUARD_RULES");
}

}  // namespace
}  // namespace bottle::guard
