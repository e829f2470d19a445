#include "tests/e2e/fixture.h"

#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <thread>

namespace e2e {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

const std::string kWorld = std::string(BOTTLE_SOURCE_DIR) + "/tests/support/world.sh";
// Where nothing may ever arrive: sinks, and addresses of the world that no route leads to.
const std::vector<std::string> kForbidden = {"169.254.169.254", "169.254.170.2", "10.99.0.1",  "172.31.99.1",
                                             "192.168.99.1",    "100.64.0.9",    "168.63.129.16", "198.51.100.7",
                                             "198.18.0.9",      "203.0.113.12",  "203.0.113.66",  "2001:db8::1"};

std::string quote(const std::string& s) {
  std::string out = "'";
  for (char c : s) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::vector<nlohmann::json> lines_from(const std::string& path, size_t offset) {
  const std::string text = slurp(path);
  std::vector<nlohmann::json> out;
  std::istringstream in(offset < text.size() ? text.substr(offset) : "");
  for (std::string line; std::getline(in, line);)
    if (auto j = nlohmann::json::parse(line, nullptr, false); !j.is_discarded()) out.push_back(std::move(j));
  return out;
}

std::string random_token() {
  std::random_device random;
  std::string out = "tok-";
  for (int i = 0; i < 40; ++i) out += "abcdefghijklmnopqrstuvwxyz0123456789"[random() % 36];
  return out;
}

}  // namespace

const std::string kBin = getenv("BOTTLE_BIN") != nullptr ? getenv("BOTTLE_BIN") : BOTTLE_BIN_DIR;  // where bottle and the origin are
World* world = nullptr;

bool on_kubernetes() {
  const char* backend = getenv("BOTTLE_E2E_BACKEND");
  return backend != nullptr && std::string(backend) == "kubernetes";
}

std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

Output run(const std::vector<std::string>& argv, int timeout_s) {
  char err_name[] = "/tmp/bottle-e2e-err-XXXXXX";
  const int fd = mkstemp(err_name);
  if (fd >= 0) close(fd);
  std::string command = "timeout -k 5 " + std::to_string(timeout_s);
  for (const auto& a : argv) command += " " + quote(a);
  command += " </dev/null 2>" + std::string(err_name);
  Output o;
  const auto start = Clock::now();
  if (FILE* pipe = popen(command.c_str(), "r")) {
    char buffer[65536];
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) o.out.append(buffer, n);
    const int status = pclose(pipe);
    o.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  o.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  o.err = slurp(err_name);
  unlink(err_name);
  return o;
}

bool wait_until(const std::function<bool()>& done, double seconds) {
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  for (;;) {
    if (done()) return true;
    if (Clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

void World::SetUp() {
  world = this;
  token_ = random_token();
  char dir[] = "/tmp/bottle-e2e-XXXXXX";
  ASSERT_NE(mkdtemp(dir), nullptr);
  dir_ = dir;
  // A repository that the origin serves to git.
  const std::string git = "mkdir -p git && cd git && git init -q -b main work && cd work && echo hello > README && git add . && "
                          "git -c user.name=t -c user.email=t@bottle.test commit -qm first && cd .. && git clone -q --bare work app.git";
  ASSERT_EQ(run({"sh", "-c", "cd " + dir_ + " && " + git}).code, 0);
  const Output up = run({kWorld, "up"});
  ASSERT_EQ(up.code, 0) << up.err;
  run({"sh", "-c", "setsid " + kWorld + " exec " + kBin + "/bottle-test-origin " + dir_ + " " + dir_ + "/git >" + dir_ + "/origin.out 2>&1 &"});
  ASSERT_TRUE(wait_until([&] { return fs::exists(dir_ + "/ready"); }, 20)) << slurp(dir_ + "/origin.out");
  file_ = dir_ + "/bottle.yaml";
  std::ofstream(file_) << bottle_yaml(name_, command_, token_, on_kubernetes() ? dir_ + "/ca.pem" : "");
  chmod(file_.c_str(), 0600);
  on_kubernetes() ? up_on_kubernetes() : up_on_docker();
}

void World::up_on_docker() {
  // The state folder of the tests is their own: nothing of the user's bottles is touched.
  setenv("BOT_BOTTLE_STATE_DIR", (dir_ + "/state").c_str(), 1);
  const Output bottle = run({kBin + "/bottle", "up", "-f", file_, "--resolver", "203.0.113.53", "--upstream-ca", dir_ + "/ca.pem"}, 180);
  ASSERT_EQ(bottle.code, 0) << bottle.out << bottle.err;
}

void World::TearDown() {
  if (getenv("BOTTLE_E2E_KEEP") != nullptr) {
    std::cerr << "kept: world, bottle " << name_ << " and " << dir_ << "\n";
    return;
  }
  if (on_kubernetes()) {
    down_on_kubernetes();
  } else if (!file_.empty()) {
    const Output down = run({kBin + "/bottle", "down", name_}, 120);
    EXPECT_EQ(down.code, 0) << down.out << down.err;
  }
  run({kWorld, "down"});
  std::error_code ignored;
  if (!dir_.empty()) fs::remove_all(dir_, ignored);
}

Mark World::mark() const {
  Mark m;
  std::error_code ec;
  const auto size = [&](const std::string& f) { const auto n = fs::file_size(dir_ + "/" + f, ec); return ec ? 0 : static_cast<size_t>(n); };
  m.requests = size("requests.log");
  m.dns = size("dns.log");
  std::istringstream in(run({kWorld, "dump"}).out);
  m.sinks.assign(kForbidden.size(), 0);
  std::string dst, proto, port;
  for (long n; in >> n >> dst >> proto >> port;)
    for (size_t i = 0; i < kForbidden.size(); ++i)
      if (kForbidden[i] == dst) m.sinks[i] += n;
  return m;
}

std::vector<nlohmann::json> World::requests(const Mark& since) const { return lines_from(dir_ + "/requests.log", since.requests); }
std::vector<nlohmann::json> World::dns(const Mark& since) const { return lines_from(dir_ + "/dns.log", since.dns); }

long World::count(const std::string& destination, const std::string& protocol, const std::string& port) const {
  return strtol(run({kWorld, "count", destination, protocol, port}).out.c_str(), nullptr, 10);
}

std::string World::arrived(const Mark& since) const {
  const Mark now = mark();
  std::string out;
  for (size_t i = 0; i < kForbidden.size(); ++i)
    if (now.sinks[i] != since.sinks[i]) out += kForbidden[i] + ": " + std::to_string(now.sinks[i] - since.sinks[i]) + " packets\n";
  return out;
}

Output World::exec(const std::vector<std::string>& argv, int timeout_s) const {
  std::vector<std::string> all = {kBin + "/bottle"};
  if (on_kubernetes()) all.insert(all.end(), {"--kubeconfig", getenv("BOTTLE_KUBECONFIG_NODE"), "--namespace", name_});
  all.insert(all.end(), {"exec", name_, "--"});
  all.insert(all.end(), argv.begin(), argv.end());
  return run(all, timeout_s);
}

Output World::python(const std::string& script, const std::vector<std::string>& args, int timeout_s) const {
  std::vector<std::string> all = {"python3", "-c", script};
  all.insert(all.end(), args.begin(), args.end());
  return exec(all, timeout_s);
}

Output World::outside(const std::vector<std::string>& argv, int timeout_s) const {
  std::vector<std::string> all = {"docker", "run", "--rm", "--user", "1000", "bot-bottle/agent:latest"};
  if (on_kubernetes()) all = {"exec", "outside", "--"};
  all.insert(all.end(), argv.begin(), argv.end());
  return on_kubernetes() ? kubectl(all, timeout_s) : run(all, timeout_s);
}

std::string World::address() const {
  if (on_kubernetes()) return jsonpath("pod/" + name_, "{.status.podIP}");
  const Output ip = run({"sh", "-c", "docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' " + container("guard")});
  return ip.out.substr(0, ip.out.find('\n'));
}

std::string World::description() const {
  std::string out;
  const auto add = [&](const Output& o) { out += o.out + o.err; };
  if (on_kubernetes()) {
    for (const char* kind : {"pod", "bottle", "configmap", "networkpolicy", "event"}) add(kubectl({"get", kind, "-o", "yaml"}));
    for (const char* c : {"guard", "egress", "agent"}) add(kubectl({"logs", name_, "-c", c}));
    return out + slurp(dir_ + "/controller.log");
  }
  for (const char* role : {"guard", "egress", "agent"}) {
    add(run({"docker", "inspect", container(role)}));
    add(run({"docker", "logs", container(role)}));
  }
  return out;
}

std::string bottle_yaml(const std::string& name, const std::string& command, const std::string& token, const std::string& upstream_ca) {
  const char* image = getenv("BOTTLE_E2E_AGENT");
  // The world's addresses are documentation ranges, which are not public: named, as a user names an intranet.
  std::string y = "apiVersion: bot-bottle.dev/v1alpha1\nkind: Bottle\nmetadata: { name: " + name + " }\nspec:\n  agent:\n    image: " +
                  (image ? image : "bot-bottle/agent:latest") + "\n    command: " + command + "\n  pipelock: { enabled: false }\n  egress:\n    allowCIDRs: [203.0.113.0/24]\n    routes:\n";
  const auto route = [&](const std::string& host, const std::string& rest = "") { y += "    - host: \"" + host + "\"\n" + rest; };
  route("api.bottle.test", "      methods: [GET, HEAD, POST, PUT]\n");
  route("plain.bottle.test", "      ports: [80, 443]\n");
  route("port.bottle.test", "      ports: [8443]\n");
  route("git.bottle.test", "      methods: [GET, POST]\n      paths: [/git/]\n");
  route("secret.bottle.test",
        "      methods: [GET, POST]\n      paths: [/v1/]\n      inject:\n"
        "      - { header: authorization, prefix: \"Bearer \", secretKeyRef: { name: origin, key: token } }\n");
  route("*.wild.bottle.test");
  // Allowed by name, so that nothing but the address or the certificate can refuse them.
  for (const char* h : {"expired", "strange", "wrongname", "oldtls", "private", "meta", "loop", "cgnat", "azure", "bench", "zero", "mixed",
                        "rebind", "six", "mapped", "sixloop", "ula", "nat64", "linklocal", "alias", "*.ip"})
    route(std::string(h) + ".bottle.test", "      ports: [80, 443]\n");
  if (!upstream_ca.empty()) {
    y += "    upstreamCAs:\n    - pem: |\n";
    std::istringstream pem(slurp(upstream_ca));
    for (std::string line; std::getline(pem, line);) y += "        " + line + "\n";
  }
  return y + "---\napiVersion: v1\nkind: Secret\nmetadata: { name: origin }\nstringData: { token: \"" + token + "\" }\n";
}

// argv: HOST PORT ROUNDS…; a round is "send:BYTES" (with \x escapes), "tls:SNI" (empty: none) or "read" (until a whole answer, the end or 5 s).
const char kClient[] = R"PY(
import socket, ssl, sys, time
host, port, rounds = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
s = socket.create_connection((host, port), 8)
s.settimeout(5)
def answer():
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            b = s.recv(65536)
            if not b: return data
            data += b
        head, _, body = data.partition(b"\r\n\r\n")
        length = [int(l.split(b":")[1]) for l in head.lower().split(b"\r\n") if l.startswith(b"content-length:")]
        if head.startswith(b"HTTP/1.1 200") and not length and b"chunked" not in head.lower(): return data
        if length:
            while len(body) < length[0]:
                b = s.recv(65536)
                if not b: break
                body += b
        else:
            while not body.endswith(b"0\r\n\r\n") and b" 204 " not in head[:16] and b" 304 " not in head[:16] and b" 101 " not in head[:16]:
                b = s.recv(65536)
                if not b: break
                body += b
        return head + b"\r\n\r\n" + body
    except OSError as e:
        return data + b"<" + type(e).__name__.encode() + b">"
for r in rounds:
    kind, _, arg = r.partition(":")
    try:
        if kind == "send": s.sendall(arg.encode().decode("unicode_escape").encode("latin-1"))
        elif kind == "tls":
            c = ssl.create_default_context(); c.check_hostname = False
            s = c.wrap_socket(s, server_hostname=arg or None)
        else:
            a = answer(); print(a.decode("latin-1"), flush=True)
            if r is rounds[1] and "CONNECT" in rounds[0] and b" 200 " not in a[:16]: break  # no tunnel
    except OSError as e:
        print("<%s>" % type(e).__name__, flush=True); break
)PY";

}  // namespace e2e
