// What must work: the clients agents use, byte for byte and without added delay; and that no file, variable or process of the
// agent's container leads to a credential.
#include <algorithm>
#include <sstream>

#include "tests/e2e/fixture.h"

namespace e2e {
namespace {

struct Works {
  std::string name, command, expect;  // a shell command in the agent; `expect` is in what it prints
};

class Allowed : public ::testing::TestWithParam<Works> {};
TEST_P(Allowed, Works) {
  const Output o = world->exec({"sh", "-c", GetParam().command}, 120);
  EXPECT_EQ(o.code, 0) << o.out.substr(0, 2000) << o.err.substr(0, 2000);
  EXPECT_NE(o.out.find(GetParam().expect), std::string::npos) << "wanted " << GetParam().expect << ", got " << o.out.substr(0, 2000) << o.err.substr(0, 2000);
}

const char kSum[] =
    "python3 -c 'import hashlib,sys\nn=int(sys.argv[1])\nb=bytes((i*31+(i>>8))&255 for i in range(65536))\nh=hashlib.sha256()\n"
    "while n: k=min(n,65536); h.update(b[:k]); n-=k\nprint(h.hexdigest())' ";

INSTANTIATE_TEST_SUITE_P(
    Clients, Allowed,
    ::testing::Values(
        Works{"curl", "curl -fsS https://api.bottle.test/echo", "\"server\":\"tls\""},
        Works{"curl_http2_client", "curl -fsS --http2 https://api.bottle.test/echo", "\"server\":\"tls\""},
        Works{"curl_plain", "curl -fsS http://plain.bottle.test/echo", "\"server\":\"http\""},
        Works{"curl_port", "curl -fsS https://port.bottle.test:8443/echo", "\"server\":\"tls8443\""},
        Works{"wildcard", "curl -fsS https://a.wild.bottle.test/echo", "\"server\":\"tls\""},
        Works{"wildcard_deep", "curl -fsS https://a.b.c.wild.bottle.test/echo", "\"server\":\"tls\""},
        Works{"python_urllib", "python3 -c 'import urllib.request as u; print(u.urlopen(\"https://api.bottle.test/echo\").read().decode())'", "\"server\":\"tls\""},
        Works{"python_post", "python3 -c 'import urllib.request as u; print(u.urlopen(\"https://api.bottle.test/digest\", b\"x\"*1000).read().decode())'", " 1000"},
        Works{"node", "node -e 'const h=require(\"http\"),t=require(\"tls\");h.request({host:\"127.0.0.1\",port:9099,method:\"CONNECT\",path:\"api.bottle.test:443\"})"
                      ".on(\"connect\",(r,s)=>{const c=t.connect({socket:s,servername:\"api.bottle.test\"},()=>c.write(\"GET /echo HTTP/1.1\\r\\nHost: api.bottle.test\\r\\nConnection: close\\r\\n\\r\\n\"));"
                      "c.on(\"data\",d=>process.stdout.write(d))}).end()'", "\"server\":\"tls\""},
        Works{"git_clone", "rm -rf /tmp/app && git clone -q https://git.bottle.test/git/app.git /tmp/app && cat /tmp/app/README", "hello"},
        Works{"git_ls_remote", "git ls-remote https://git.bottle.test/git/app.git", "refs/heads/main"},
        Works{"head", "curl -fsSI 'https://api.bottle.test/bytes?n=77'", "77"},
        Works{"range", "curl -fsS -r 10-19 -o /dev/null -w '%{http_code} %{size_download}' 'https://api.bottle.test/bytes?n=1000'", "206 10"},
        Works{"not_modified", "curl -sS -H 'If-None-Match: \"v1\"' -o /dev/null -w '%{http_code}' https://api.bottle.test/etag", "304"},
        Works{"no_content", "curl -sS -o /dev/null -w '%{http_code}' 'https://api.bottle.test/status?code=204'", "204"},
        Works{"not_found_is_the_origins", "curl -sS -w '%{http_code}' 'https://api.bottle.test/status?code=404'", "status\n404"},
        Works{"error_is_the_origins", "curl -sS -w '%{http_code}' 'https://api.bottle.test/status?code=500'", "status\n500"},
        Works{"redirect", "curl -fsSL 'https://api.bottle.test/redirect?to=/echo'", "\"target\":\"/echo\""},
        Works{"chunked", "curl -fsS 'https://api.bottle.test/chunked?n=50'", "chunk 49"},
        Works{"gzip", "curl -fsS --compressed https://api.bottle.test/gzip | wc -c", "20000"},
        Works{"query_is_kept", "curl -fsS 'https://api.bottle.test/echo?a=b%20c&d=%2F'", "/echo?a=b%20c&d=%2F"},
        Works{"put", "curl -fsS -X PUT -d abc https://api.bottle.test/echo", "\"body\":\"abc\""},
        Works{"chunked_upload", "head -c 300000 /dev/zero | curl -fsS -m 20 -T - -H 'Expect:' https://api.bottle.test/digest", " 300000"},
        Works{"chunked_upload_http1", "head -c 300000 /dev/zero | curl -fsS --http1.1 -T - -H 'Expect:' https://api.bottle.test/digest", " 300000"},
        Works{"expect_100", "head -c 300000 /dev/zero > /tmp/z; curl -fsS -H 'Expect: 100-continue' --data-binary @/tmp/z https://api.bottle.test/digest", " 300000"},
        Works{"keep_alive", "curl -fsS https://api.bottle.test/fast https://api.bottle.test/fast https://api.bottle.test/fast", "okokok"},
        Works{"many_at_once", "for i in $(seq 20); do curl -fsS https://api.bottle.test/fast & done; wait", "okokokokokokokokokokokokokokokokokokokok"},
        Works{"slow_answer", "curl -fsS 'https://api.bottle.test/slow?ms=3000'", "slow"},
        Works{"secret_route", "curl -sS -o /dev/null -w '%{http_code}' https://secret.bottle.test/v1/echo", "200"},
        Works{"download_100_mb", std::string("a=$(curl -fsS 'https://api.bottle.test/bytes?n=104857600' | sha256sum | cut -c1-64); b=$(") + kSum + "104857600); [ $a = $b ] && echo equal", "equal"},
        Works{"upload_20_mb", "head -c 20971520 /dev/urandom > /tmp/u; curl -fsS --data-binary @/tmp/u https://api.bottle.test/digest > /tmp/r; sha256sum < /tmp/u | cut -c1-64 > /tmp/s; grep -qf /tmp/s /tmp/r && echo equal", "equal"}),
    [](const auto& info) { return info.param.name; });

// Events are 200 ms apart at the origin; each must be here before the next is sent.
TEST(Streaming, EventsArriveAsTheyAreSent) {
  const Output o = world->python(
      "import urllib.request as u, time\n"
      "for line in u.urlopen('https://api.bottle.test/sse?n=6'):\n"
      "  f = line.split()\n"
      "  if f: print(int(time.time() * 1000) - int(f[2]))\n");
  std::istringstream in(o.out);
  std::vector<long> delays;
  for (long d; in >> d;) delays.push_back(d);
  ASSERT_EQ(delays.size(), 6u) << o.out << o.err;
  std::sort(delays.begin(), delays.end());
  EXPECT_LT(delays[4], 150) << o.out;
}

TEST(Isolation, TheAgentSeesNoToken) {
  const Output o = world->exec({"sh", "-c",
                                "{ env; cat /proc/*/environ /proc/*/cmdline /proc/self/mountinfo 2>/dev/null | tr '\\0' '\\n'; "
                                "grep -rsa --exclude-dir=proc --exclude-dir=sys -e 'tok-' / 2>/dev/null | cut -c1-200; } | grep -a -e '[t]" + world->token().substr(1) + "'; true"}, 120);  // the class keeps the pattern from matching itself
  EXPECT_EQ(o.out, "") << "the token is in the agent's container";
}

TEST(Isolation, TheAgentSeesNoKey) {
  const Output o = world->exec({"sh", "-c", "grep -rlsa --exclude-dir=proc --exclude-dir=sys -e '-----BEGIN .*PRIVATE KEY' / 2>/dev/null | grep -v -e '\\.py$' -e /usr/ ; true"}, 120);
  EXPECT_EQ(o.out, "") << o.out;
}

TEST(Isolation, TheTokenIsInNoDescriptionOfTheBottle) {
  const std::string all = world->description();
  EXPECT_NE(all.find(world->name()), std::string::npos);
  EXPECT_EQ(all.find(world->token()), std::string::npos);
}

class Look : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};
TEST_P(Look, IsAsPlanned) {
  const auto& [command, expect] = GetParam();
  const Output o = world->exec({"sh", "-c", command});
  EXPECT_EQ(o.out, expect) << command << o.err;
}
INSTANTIATE_TEST_SUITE_P(
    Agent, Look,
    ::testing::Values(std::pair{"id -u", "1000\n"}, std::pair{"grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f2 | sort -u", "0000000000000000\n"},
                      std::pair{"grep NoNewPrivs /proc/self/status | cut -f2", "1\n"}, std::pair{"grep '^Seccomp:' /proc/self/status | cut -f2", "2\n"},
                      std::pair{"ls /var/run/docker.sock /run/docker.sock 2>/dev/null", ""}, std::pair{"cat /etc/resolv.conf", ""},
                      std::pair{"ls /etc/bot-bottle", "trust\n"}, std::pair{"touch /etc/bot-bottle/trust/x 2>/dev/null || echo refused", "refused\n"},
                      std::pair{"echo x > /etc/bot-bottle/trust/ca.pem 2>/dev/null || echo refused", "refused\n"},
                      std::pair{"cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c -e '[m]itm' -e '[b]ottle-guard'", "0\n"},
                      std::pair{"echo 127.0.0.1 x >> /etc/hosts 2>/dev/null || echo refused", "refused\n"},
                      std::pair{"ls /sys/fs/cgroup/*/release_agent /proc/sysrq-trigger >/dev/null; echo h > /proc/sysrq-trigger 2>/dev/null || echo refused", "refused\n"},
                      std::pair{"ls /dev/kmsg /dev/mem /dev/vsock /dev/net/tun 2>/dev/null", ""}));

}  // namespace
}  // namespace e2e

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  ::testing::AddGlobalTestEnvironment(new e2e::World("e2e-allow", "[sleep, infinity]"));
  return RUN_ALL_TESTS();
}
