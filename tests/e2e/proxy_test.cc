// What the agent can do through the proxy: only what the routes say arrives at the origin, in the form they say, and no spelling
// of an address, a name or a request changes that. Judged by the origin's log.
#include "tests/e2e/fixture.h"

namespace e2e {
namespace {

using nlohmann::json;

struct Case {
  std::string name;
  std::vector<std::string> rounds;
  bool may_arrive = false;  // the request may go through, if what arrives is clean
};

std::string lower(std::string s) {
  for (char& c : s) c = static_cast<char>(tolower(static_cast<unsigned char>(c)));
  return s;
}

std::vector<std::string> header(const json& request, const std::string& name) {
  std::vector<std::string> out;
  for (const auto& h : request["headers"])
    if (lower(h[0]) == name) out.push_back(h[1]);
  return out;
}

// What is wrong with a request that arrived; empty when a route allows it and nothing of the agent's is in it that must not be.
std::string unclean(const json& r) {
  const std::string target = r["target"], method = r["method"], server = r["server"];
  const auto hosts = header(r, "host");
  if (hosts.size() != 1) return "not one Host";
  std::string host = lower(hosts[0]);
  if (const auto colon = host.rfind(':'); colon != host.npos) host.resize(colon);
  const bool known = host == "api.bottle.test" || host == "plain.bottle.test" || host == "port.bottle.test" || host == "git.bottle.test" ||
                     host == "secret.bottle.test" || host.ends_with(".wild.bottle.test");
  if (!known) return "host " + host;
  if (server == "expired" || server == "strange" || server == "wrongname" || server == "oldtls") return "untrusted origin " + server;
  if (host == "secret.bottle.test" && (!target.starts_with("/v1/") || target.find("admin") != target.npos)) return "target " + target;
  if (host == "api.bottle.test" && method != "GET" && method != "HEAD" && method != "POST" && method != "PUT") return "method " + method;
  if (r.dump().find("AGENT-SECRET") != std::string::npos) return "the agent's credential";
  if (r.dump().find("smuggled") != std::string::npos) return "smuggled request";
  if (r.dump().find(world->token()) != std::string::npos && (host != "secret.bottle.test" || server != "tls")) return "token at " + host;
  for (const char* h : {"proxy-authorization", "proxy-connection", "x-http-method-override", "x-forwarded-for", "via", "forwarded"})
    if (!header(r, h).empty()) return std::string("header ") + h;
  return "";
}

void judge(const Case& c) {
  const Mark before = world->mark();
  std::vector<std::string> args = {"127.0.0.1", "9099"};
  args.insert(args.end(), c.rounds.begin(), c.rounds.end());
  const Output o = world->python(kClient, args, 40);
  EXPECT_EQ(world->arrived(before), "") << o.out;
  const auto requests = world->requests(before);
  for (const auto& r : requests) EXPECT_EQ(unclean(r), "") << r << "\n" << o.out;
  if (!c.may_arrive) {
    EXPECT_TRUE(requests.empty()) << requests.front() << "\n" << o.out;
    // A refusal is an answer, or the end of the connection; never the origin's.
    EXPECT_EQ(o.out.find("X-Origin"), std::string::npos) << o.out;
  }
  EXPECT_EQ(o.out.find(world->token()), std::string::npos) << "the agent saw the token: " << o.out;
  EXPECT_EQ(o.err, "") << o.err;
}

std::string safe(std::string n) {
  for (char& c : n)
    if (!isalnum(static_cast<unsigned char>(c))) c = '_';
  return n;
}

class Proxy : public ::testing::TestWithParam<Case> {};
TEST_P(Proxy, NothingButTheRoutes) { judge(GetParam()); }
const auto kName = [](const auto& info) { return safe(info.param.name) + "_" + std::to_string(info.index); };

// --- addresses: every spelling, as a tunnel and as a plain request
std::vector<Case> addresses() {
  std::vector<Case> out;
  for (const char* a :
       {"169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "169.16689662", "0xa9.254.0xa9.0376",
        "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[::a9fe:a9fe]", "[64:ff9b::169.254.169.254]", "[2002:a9fe:a9fe::]", "[fd00:ec2::254]",
        "[fe80::1%25eth0]", "169.254.169.254.", "169\\xe3\\x80\\x82254.169.254", "%31%36%39.254.169.254", "169.254.169.254%00.api.bottle.test",
        "api.bottle.test@169.254.169.254", "169.254.169.254#api.bottle.test", "169.254.169.254/api.bottle.test", "127.0.0.1", "127.1", "0", "0.0.0.0",
        "0x7f.1", "2130706433", "localhost", "localhost.", "LOCALHOST", "[::1]", "[::]", "127.0.0.11", "10.99.0.1", "168.63.129.16", "100.64.0.9",
        "198.18.0.9", "203.0.113.66", "203.0.113.12", "metadata.google.internal", "metadata", "egress", "kubernetes.default.svc", "private.bottle.test",
        "meta.bottle.test", "loop.bottle.test", "cgnat.bottle.test", "azure.bottle.test", "bench.bottle.test", "zero.bottle.test", "mixed.bottle.test",
        "mapped.bottle.test", "sixloop.bottle.test", "ula.bottle.test", "nat64.bottle.test", "linklocal.bottle.test", "six.bottle.test",
        "alias.bottle.test", "10-99-0-1.ip.bottle.test", "169-254-169-254.ip.bottle.test", "127-0-0-1.ip.bottle.test", "192-168-99-1.ip.bottle.test",
        "172-31-99-1.ip.bottle.test"}) {
    const std::string host = a;
    out.push_back({"tunnel " + host, {"send:CONNECT " + host + ":443 HTTP/1.1\\r\\nHost: " + host + ":443\\r\\n\\r\\n", "read", "tls:api.bottle.test",
                                      "send:GET /latest/meta-data/ HTTP/1.1\\r\\nHost: " + host + "\\r\\n\\r\\n", "read"}});
    out.push_back({"plain " + host, {"send:GET http://" + host + "/latest/meta-data/ HTTP/1.1\\r\\nHost: " + host + "\\r\\nMetadata: true\\r\\n\\r\\n", "read"}});
  }
  for (const char* p : {"9091", "9099", "2375", "53", "22", "0", "65536", "+443", "0443", "4_43", " 443", "443/", "-1", ""})
    out.push_back({std::string("port ") + p + std::to_string(out.size()),
                   {std::string("send:CONNECT 169.254.169.254:") + p + " HTTP/1.1\\r\\n\\r\\n", "read", "send:GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n", "read"}});
  return out;
}
INSTANTIATE_TEST_SUITE_P(Addresses, Proxy, ::testing::ValuesIn(addresses()), kName);

// --- tunnels: identity of the host
std::vector<std::string> inside(const std::string& host, const std::string& sni, const std::string& request, const std::string& port = "443") {
  return {"send:CONNECT " + host + ":" + port + " HTTP/1.1\\r\\nHost: " + host + ":" + port + "\\r\\n\\r\\n", "read", "tls:" + sni, "send:" + request, "read"};
}
std::string get(const std::string& host, const std::string& path, const std::string& more = "") {
  return "GET " + path + " HTTP/1.1\\r\\nHost: " + host + "\\r\\n" + more + "\\r\\n";
}
const std::string kApi = "api.bottle.test", kSecret = "secret.bottle.test", kPlain = "plain.bottle.test";

std::vector<Case> tunnels() {
  return {
      {"front by Host", inside(kApi, kApi, get("denied.bottle.test", "/"))},
      {"front by Host to another route", inside(kApi, kApi, get(kSecret, "/v1/echo"))},
      {"front by SNI", inside(kApi, "denied.bottle.test", get(kApi, "/"))},
      {"front by SNI to another route", inside(kApi, kSecret, get(kApi, "/"))},
      {"front by both", inside(kApi, "denied.bottle.test", get("denied.bottle.test", "/"))},
      {"no SNI", inside(kApi, "", get(kApi, "/")), true},
      {"two Hosts", inside(kApi, kApi, "GET / HTTP/1.1\\r\\nHost: api.bottle.test\\r\\nHost: denied.bottle.test\\r\\n\\r\\n")},
      {"two Hosts the other way", inside(kApi, kApi, "GET / HTTP/1.1\\r\\nHost: denied.bottle.test\\r\\nHost: api.bottle.test\\r\\n\\r\\n")},
      {"no Host", inside(kApi, kApi, "GET / HTTP/1.1\\r\\n\\r\\n")},
      {"empty Host", inside(kApi, kApi, get("", "/"))},
      {"Host with userinfo", inside(kApi, kApi, get("api.bottle.test@denied.bottle.test", "/"))},
      {"Host with another port", inside(kApi, kApi, get("api.bottle.test:8443", "/"))},
      {"absolute form of another host", inside(kApi, kApi, "GET https://denied.bottle.test/ HTTP/1.1\\r\\nHost: api.bottle.test\\r\\n\\r\\n")},
      {"absolute form of another route", inside(kApi, kApi, "GET https://secret.bottle.test/v1/echo HTTP/1.1\\r\\nHost: api.bottle.test\\r\\n\\r\\n")},
      {"X-Forwarded-Host", inside(kApi, kApi, get(kApi, "/", "X-Forwarded-Host: denied.bottle.test\\r\\n")), true},
      {"CONNECT in a tunnel", inside(kApi, kApi, "CONNECT denied.bottle.test:443 HTTP/1.1\\r\\nHost: denied.bottle.test:443\\r\\n\\r\\n")},
      {"plain bytes in a tunnel", {"send:CONNECT api.bottle.test:443 HTTP/1.1\\r\\n\\r\\n", "read", "send:smuggled bytes\\r\\n\\r\\n", "read"}},
      {"plain http in a tunnel", {"send:CONNECT api.bottle.test:443 HTTP/1.1\\r\\n\\r\\n", "read", "send:" + get(kApi, "/smuggled"), "read"}},
      {"SSH in a tunnel", {"send:CONNECT api.bottle.test:443 HTTP/1.1\\r\\n\\r\\n", "read", "send:SSH-2.0-smuggled\\r\\n", "read"}},
      {"CONNECT with credentials in the authority", {"send:CONNECT a:b@api.bottle.test:443 HTTP/1.1\\r\\n\\r\\n", "read", "tls:api.bottle.test", "send:" + get(kApi, "/"), "read"}},
      {"CONNECT without a port", {"send:CONNECT api.bottle.test HTTP/1.1\\r\\n\\r\\n", "read", "send:smuggled\\r\\n\\r\\n", "read"}},
      {"CONNECT with a path", {"send:CONNECT api.bottle.test:443/x HTTP/1.1\\r\\n\\r\\n", "read", "send:smuggled\\r\\n\\r\\n", "read"}},
      {"subdomain", inside("x.api.bottle.test", "x.api.bottle.test", get("x.api.bottle.test", "/"))},
      {"suffix", inside("evilapi.bottle.test", "evilapi.bottle.test", get("evilapi.bottle.test", "/"))},
      {"prefix", inside("api.bottle.test.denied.bottle.test", "denied.bottle.test", get("denied.bottle.test", "/"))},
      {"apex of a wildcard", inside("wild.bottle.test", "wild.bottle.test", get("wild.bottle.test", "/"))},
      {"name with a space", inside("api.bottle.test denied.bottle.test", kApi, get(kApi, "/smuggled"))},
      {"upper case is the same host", inside("API.Bottle.TEST", kApi, get("API.Bottle.TEST", "/")), true},
      {"port not in the route", inside(kApi, kApi, get(kApi, "/"), "8443")},
      {"port of another route", inside("port.bottle.test", "port.bottle.test", get("port.bottle.test", "/"), "443")},
      {"expired origin", inside("expired.bottle.test", "expired.bottle.test", get("expired.bottle.test", "/"))},
      {"origin of a strange CA", inside("strange.bottle.test", "strange.bottle.test", get("strange.bottle.test", "/"))},
      {"origin of another name", inside("wrongname.bottle.test", "wrongname.bottle.test", get("wrongname.bottle.test", "/"))},
      {"origin with TLS 1.1", inside("oldtls.bottle.test", "oldtls.bottle.test", get("oldtls.bottle.test", "/"))},
      {"rebinding name", inside("rebind.bottle.test", "rebind.bottle.test", get(kApi, "/"))},
  };
}
INSTANTIATE_TEST_SUITE_P(Tunnels, Proxy, ::testing::ValuesIn(tunnels()), kName);

// --- requests: method, path, framing, headers
std::vector<Case> requests() {
  std::vector<Case> out = {
      {"plain http where only https is allowed", {"send:GET http://api.bottle.test/ HTTP/1.1\\r\\nHost: api.bottle.test\\r\\n\\r\\n", "read"}},
      {"plain http with the Host of another", {"send:GET http://plain.bottle.test/ HTTP/1.1\\r\\nHost: denied.bottle.test\\r\\n\\r\\n", "read"}},
      {"plain http on port 443", {"send:GET http://api.bottle.test:443/ HTTP/1.1\\r\\nHost: api.bottle.test:443\\r\\n\\r\\n", "read"}},
      {"https absolute form to the proxy", {"send:GET https://denied.bottle.test/ HTTP/1.1\\r\\nHost: denied.bottle.test\\r\\n\\r\\n", "read"}},
      {"other scheme", {"send:GET ftp://plain.bottle.test/ HTTP/1.1\\r\\nHost: plain.bottle.test\\r\\n\\r\\n", "read"}},
      {"file scheme", {"send:GET file:///etc/passwd HTTP/1.1\\r\\nHost: plain.bottle.test\\r\\n\\r\\n", "read"}},
      {"origin form to the proxy", {"send:GET / HTTP/1.1\\r\\nHost: denied.bottle.test\\r\\n\\r\\n", "read"}},
      {"origin form to the proxy itself", {"send:GET / HTTP/1.1\\r\\nHost: 127.0.0.1:9099\\r\\n\\r\\n", "read"}},
      {"websocket", inside(kApi, kApi, get(kApi, "/", "Upgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\\r\\nSec-WebSocket-Version: 13\\r\\n")), true},
      {"upgrade to h2c", inside(kApi, kApi, get(kApi, "/", "Upgrade: h2c\\r\\nConnection: Upgrade, HTTP2-Settings\\r\\nHTTP2-Settings: AAMAAABk\\r\\n")), true},
      {"HTTP 0.9", inside(kApi, kApi, "GET /smuggled\\r\\n\\r\\n")},
      {"pipelined refused request", inside(kSecret, kSecret, get(kSecret, "/v1/echo") + get(kSecret, "/admin")), true},
      {"length and chunked", inside(kApi, kApi, "POST /echo HTTP/1.1\\r\\nHost: api.bottle.test\\r\\nContent-Length: 5\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\nGET /smuggled HTTP/1.1\\r\\nHost: denied.bottle.test\\r\\n\\r\\n")},
      {"two lengths", inside(kApi, kApi, "POST /echo HTTP/1.1\\r\\nHost: api.bottle.test\\r\\nContent-Length: 0\\r\\nContent-Length: 50\\r\\n\\r\\nGET /smuggled HTTP/1.1\\r\\nHost: denied.bottle.test\\r\\n\\r\\n")},
      {"length with a sign", inside(kApi, kApi, "POST /echo HTTP/1.1\\r\\nHost: api.bottle.test\\r\\nContent-Length: +4\\r\\n\\r\\nsmuggled")},
      {"chunked twice", inside(kApi, kApi, "POST /echo HTTP/1.1\\r\\nHost: api.bottle.test\\r\\nTransfer-Encoding: chunked, chunked\\r\\n\\r\\n0\\r\\n\\r\\nGET /smuggled HTTP/1.1\\r\\n\\r\\n")},
      {"chunked misspelt", inside(kApi, kApi, "POST /echo HTTP/1.1\\r\\nHost: api.bottle.test\\r\\nTransfer-Encoding: xchunked\\r\\nContent-Length: 3\\r\\n\\r\\n0\\r\\n\\r\\nsmuggled")},
      {"space before the colon", inside(kApi, kApi, "GET / HTTP/1.1\\r\\nHost: api.bottle.test\\r\\nAuthorization : Bearer AGENT-SECRET\\r\\n\\r\\n"), true},
      {"folded header", inside(kApi, kApi, "GET / HTTP/1.1\\r\\nHost: api.bottle.test\\r\\nX-A: b\\r\\n Authorization: AGENT-SECRET\\r\\n\\r\\n")},
      {"bare line feed", inside(kApi, kApi, "GET / HTTP/1.1\\r\\nHost: api.bottle.test\\r\\nX-A: b\\nAuthorization: Bearer AGENT-SECRET\\r\\n\\r\\n"), true},
      {"method override", inside(kApi, kApi, get(kApi, "/", "X-HTTP-Method-Override: DELETE\\r\\n")), true},
      {"refused body waits for 100", inside(kSecret, kSecret, "POST /admin HTTP/1.1\\r\\nHost: secret.bottle.test\\r\\nExpect: 100-continue\\r\\nContent-Length: 4\\r\\n\\r\\n")},
      {"target star", inside(kApi, kApi, "OPTIONS * HTTP/1.1\\r\\nHost: api.bottle.test\\r\\n\\r\\n")},
      {"null in the path", inside(kSecret, kSecret, get(kSecret, "/v1/%00/admin"))},
      {"space in the path", inside(kSecret, kSecret, "GET /admin /v1/ HTTP/1.1\\r\\nHost: secret.bottle.test\\r\\n\\r\\n")},
  };
  for (const char* m : {"DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "BREW", "get", "Get", "GET/", "POST\\x00"})
    out.push_back({std::string("method ") + m, inside(kApi, kApi, std::string(m) + " /echo HTTP/1.1\\r\\nHost: api.bottle.test\\r\\nContent-Length: 0\\r\\n\\r\\n"),
                   lower(m) == "get" && std::string(m).size() == 3});  // a known method is sent in its canonical form
  for (const char* p : {"/", "/v1", "/v2/", "/admin", "/v1/../admin", "/v1/%2e%2e/admin", "/v1/.%2E/admin", "/v1/..%2fadmin", "/v1/%252e%252e/admin", "/v1/..;/admin",
                        "/v1/;/../admin", "//v1/../admin", "/v1\\\\..\\\\admin", "/v1/%5c..%5cadmin", "/v1/..%c0%afadmin", "/v1/%c0%ae%c0%ae/admin", "/V1/admin",
                        "/./admin", "//admin", "/%61dmin", "/admin?/v1/", "/admin#/v1/", "/v1/x/../../admin", "/v1/%2e%2e%2fadmin", "v1/admin"})
    out.push_back({std::string("path ") + p + " " + std::to_string(out.size()), inside(kSecret, kSecret, get(kSecret, p)), std::string(p).find("252e") != std::string::npos});
  for (const char* h : {"Authorization: Bearer AGENT-SECRET", "authorization: Basic AGENT-SECRET", "Cookie: session=AGENT-SECRET", "X-Api-Key: AGENT-SECRET",
                        "Proxy-Authorization: Basic AGENT-SECRET", "X-Auth-Token: AGENT-SECRET", "Private-Token: AGENT-SECRET", "X-Amz-Security-Token: AGENT-SECRET",
                        "X-Goog-Api-Key: AGENT-SECRET", "Api-Key: AGENT-SECRET", "X-Vault-Token: AGENT-SECRET", "X-Client-Secret: AGENT-SECRET",
                        "AUTHORIZATION: Bearer AGENT-SECRET", "Cookie2: AGENT-SECRET"}) {
    out.push_back({std::string("own credential ") + h, inside(kApi, kApi, get(kApi, "/echo", std::string(h) + "\\r\\n")), true});
    out.push_back({std::string("own credential beside the token ") + h, inside(kSecret, kSecret, get(kSecret, "/v1/echo", std::string(h) + "\\r\\n")), true});
    out.push_back({std::string("own credential in clear ") + h, {std::string("send:GET http://plain.bottle.test/ HTTP/1.1\\r\\nHost: plain.bottle.test\\r\\n") + h + "\\r\\n\\r\\n", "read"}, true});
  }
  return out;
}
INSTANTIATE_TEST_SUITE_P(Requests, Proxy, ::testing::ValuesIn(requests()), kName);

TEST(Refusal, SaysWhatAndWhy) {
  const Output o = world->exec({"curl", "-sS", "-m", "10", "-X", "DELETE", "https://api.bottle.test/echo"});
  const auto j = json::parse(o.out, nullptr, false);
  ASSERT_FALSE(j.is_discarded()) << o.out << o.err;
  for (const char* key : {"error", "host", "reason", "hint"}) EXPECT_TRUE(j.contains(key)) << key << ": " << o.out;
}

// A body that came over HTTP/2 without a length must reach an HTTP/1 origin framed: else the origin takes it for the next request,
// which nobody judged.
class Body : public ::testing::TestWithParam<const char*> {};
TEST_P(Body, OverHttp2IsNotTheNextRequest) {
  const Mark before = world->mark();
  const Output o = world->exec({"sh", "-c", std::string("printf 'GET /smuggled HTTP/1.1\\r\\nHost: denied.bottle.test\\r\\nX-A: b\\r\\n\\r\\n' | "
                                                        "curl -sS -m 8 --http2 -X ") + GetParam() + " -T - https://api.bottle.test/echo; "
                                                        "curl -sS -m 8 https://api.bottle.test/fast"});
  const std::string method = GetParam();
  for (const auto& r : world->requests(before)) {
    const bool framed = !header(r, "transfer-encoding").empty() || !header(r, "content-length").empty();
    EXPECT_TRUE(framed || r["target"] != "/echo") << "no framing: " << r;
    // This origin does not read the body of a GET at all: there the framing is what counts.
    EXPECT_TRUE(method == "GET" || method == "HEAD" || r["target"] != "/smuggled") << r;
  }
}
INSTANTIATE_TEST_SUITE_P(Methods, Body, ::testing::Values("GET", "POST", "PUT", "HEAD"), [](const auto& info) { return std::string(info.param); });

TEST(Token, IsAddedAtItsRouteAlone) {
  const Mark before = world->mark();
  world->exec({"curl", "-sS", "-m", "10", "https://secret.bottle.test/v1/echo"});
  const auto seen = world->requests(before);
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(header(seen[0], "authorization"), std::vector<std::string>{"Bearer " + world->token()});
}

TEST(Token, IsNotAddedForAnotherHostPortOrPath) {
  const Mark before = world->mark();
  for (const char* url : {"https://api.bottle.test/v1/echo", "http://plain.bottle.test/v1/echo", "https://a.wild.bottle.test/v1/echo", "https://port.bottle.test:8443/v1/echo",
                          "http://secret.bottle.test/v1/echo", "https://secret.bottle.test/v2/echo", "https://secret.bottle.test:8443/v1/echo"})
    world->exec({"curl", "-sS", "-m", "10", url});
  const auto seen = world->requests(before);
  EXPECT_EQ(seen.size(), 4u);
  for (const auto& r : seen) EXPECT_EQ(r.dump().find(world->token()), std::string::npos) << r;
}

TEST(Token, DoesNotFollowARedirect) {
  const Mark before = world->mark();
  world->exec({"curl", "-sSL", "-m", "10", "https://secret.bottle.test/v1/redirect?to=https://api.bottle.test/echo", "https://secret.bottle.test/v1/x"});
  const auto seen = world->requests(before);
  EXPECT_EQ(seen.size(), 3u);
  for (const auto& r : seen) {
    const bool at_home = header(r, "host") == std::vector<std::string>{"secret.bottle.test"};
    EXPECT_EQ(r.dump().find(world->token()) != std::string::npos, at_home) << r;
  }
}

}  // namespace
}  // namespace e2e

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  ::testing::AddGlobalTestEnvironment(new e2e::World("e2e-proxy", "[sleep, infinity]"));
  return RUN_ALL_TESTS();
}
