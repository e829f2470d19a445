#include "controller/policy/verdict.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace bottle::policy {
namespace {

Route route(std::string host, std::vector<std::string> paths = {"/"},
            std::vector<Injection> inject = {}) {
  Route r;
  r.host = std::move(host);
  r.ports = {443};
  r.methods = {"GET", "HEAD"};
  r.paths = std::move(paths);
  r.inject = std::move(inject);
  return r;
}

RouteTable table(std::vector<Route> routes) {
  RouteTable t;
  t.bottle = "t";
  t.routes = std::move(routes);
  std::sort(t.routes.begin(), t.routes.end());
  return t;
}

Request get(const std::string& host, const std::string& target) {
  Request r;
  r.connect_host = host;
  r.sni = host;
  r.hosts = {host};
  r.method = "GET";
  r.target = target;
  return r;
}

TEST(Connect, HostAndPort) {
  auto t = table({route("a.org"), route("*.b.org"), route("192.0.2.7")});
  EXPECT_TRUE(judge_connect(t, "A.ORG.", 443).allowed);
  EXPECT_EQ(judge_connect(t, "A.ORG.", 443).host, "a.org");
  EXPECT_TRUE(judge_connect(t, "x.y.b.org", 443).allowed);
  EXPECT_TRUE(judge_connect(t, "192.0.2.7", 443).allowed);
  EXPECT_EQ(judge_connect(t, "b.org", 443).code, "host_not_allowed");
  EXPECT_EQ(judge_connect(t, "a.org", 22).code, "port_not_allowed");
  EXPECT_EQ(judge_connect(t, "evil.net", 443).code, "host_not_allowed");
  EXPECT_EQ(judge_connect(t, "a.org.evil.net", 443).code, "host_not_allowed");
  EXPECT_EQ(judge_connect(t, "169.254.169.254", 443).code, "host_not_allowed");
  for (const char* host :
       {"", "a.org:443", "a.org@evil.net", "0xc0.0.2.7", "3221225991", "192.0.2.07",
        "a.org%00.evil.net", "a.org\\.evil.net", "a_org", "ａ.org"}) {
    auto v = judge_connect(t, host, 443);
    EXPECT_EQ(v.code, "host_malformed") << host;
    EXPECT_EQ(v.status, 400);
    EXPECT_EQ(v.host, "");
  }
  EXPECT_FALSE(judge_connect(table({}), "a.org", 443).allowed);
}

TEST(Request, AllowedInCanonicalForm) {
  auto t = table({route("a.org", {"/v1/"}, {{"x-api-key", "T", ""}})});
  auto r = get("A.org", "/x/../v1/%7ea?q=1");
  r.method = "get";
  auto v = judge_request(t, r);
  EXPECT_TRUE(v.allowed) << v.reason;
  EXPECT_EQ(v.code, "allowed");
  EXPECT_EQ(v.host, "a.org");
  EXPECT_EQ(v.method, "GET");
  EXPECT_EQ(v.target, "/v1/~a?q=1");
  EXPECT_EQ(v.route, 0);
  ASSERT_EQ(v.inject.size(), 1u);
}

TEST(Request, Paths) {
  auto t = table({route("a.org", {"/v1/", "/exact"})});
  const std::tuple<const char*, const char*> cases[] = {
      {"/v1/x", "allowed"},
      {"/exact", "allowed"},
      {"/exact/x", "allowed"},
      {"/exact?x", "allowed"},
      {"/exactly", "path_not_allowed"},
      {"/v1", "path_not_allowed"},
      {"/V1/x", "path_not_allowed"},
      {"/v1/../admin", "path_not_allowed"},
      {"/v1/%2e%2e/admin", "path_not_allowed"},
      {"/v1/.%2E/admin", "path_not_allowed"},
      {"/admin?/v1/", "path_not_allowed"},
      {"/", "path_not_allowed"},
      {"/v1/..;/admin", "path_malformed"},
      {"/v1/..%2fadmin", "path_malformed"},
      {"/v1/x%2fy", "path_malformed"},
      {"/v1/%c0%ae%c0%ae/admin", "path_malformed"},
      {"/v1/%252e%252e/admin", "path_malformed"},
      {"/v1//x", "path_malformed"},
      {"//v1/x", "path_malformed"},
      {"/v1\\x", "path_malformed"},
      {"/v1/%5c..%5cadmin", "path_malformed"},
      {"/v1/%00", "path_malformed"},
      {"/v1/a;b=c", "path_malformed"},
      {"/../v1/", "path_malformed"},
      {"*", "path_malformed"},
      {"http://a.org/v1/x", "path_malformed"},
      {"", "path_malformed"},
      {"/v1/x#f", "path_malformed"}};
  for (const auto& [target, code] : cases) {
    auto v = judge_request(t, get("a.org", target));
    EXPECT_EQ(v.code, code) << target;
    EXPECT_EQ(v.allowed, v.code == "allowed");
    EXPECT_EQ(v.status, v.code == "allowed"          ? 200
                        : v.code == "path_malformed" ? 400
                                                     : 403)
        << target;
  }
}

TEST(Request, EncodedSlashPerRoute) {
  auto open = route("a.org", {"/pkg/"});
  open.encoded_slash = EncodedSlash::kAllow;
  auto t = table({open, route("a.org", {"/v1/"})});
  EXPECT_EQ(judge_request(t, get("a.org", "/pkg/@s%2fn")).target, "/pkg/@s%2Fn");
  EXPECT_TRUE(judge_request(t, get("a.org", "/pkg/@s%2fn")).allowed);
  EXPECT_EQ(judge_request(t, get("a.org", "/v1/@s%2fn")).code, "path_malformed");
  EXPECT_EQ(judge_request(t, get("a.org", "/x/@s%2fn")).code, "path_not_allowed");
  EXPECT_EQ(judge_request(t, get("a.org", "/pkg/..%2fv1")).code, "path_malformed");
  EXPECT_EQ(judge_request(t, get("a.org", "/pkg%2f..%2fadmin")).code, "path_malformed");
}

TEST(Request, Identity) {
  auto t = table({route("a.org"), route("b.org")});
  auto v = [&](std::optional<std::string> sni, std::vector<std::string> hosts) {
    auto r = get("a.org", "/");
    r.sni = std::move(sni);
    r.hosts = std::move(hosts);
    auto verdict = judge_request(t, r);
    return verdict.code + " " + std::to_string(verdict.status);
  };
  EXPECT_EQ(v("a.org", {"a.org"}), "allowed 200");
  EXPECT_EQ(v("A.org", {"A.ORG:443", "a.org."}), "allowed 200");
  EXPECT_EQ(v(std::nullopt, {"a.org"}), "allowed 200");
  EXPECT_EQ(v("b.org", {"a.org"}), "host_mismatch 421");
  EXPECT_EQ(v("a.org", {"b.org"}), "host_mismatch 421");
  EXPECT_EQ(v("a.org", {"a.org", "b.org"}), "host_mismatch 421");
  EXPECT_EQ(v("a.org", {"b.org", "a.org"}), "host_mismatch 421");
  EXPECT_EQ(v("a.org", {"a.org:80"}), "host_mismatch 421");
  for (const char* host :
       {"", "a.org:", "a.org:0443", "a.org:99999", "a.org:x", "x@a.org", "a.org, b.org",
        "a.org b.org", "a.org/", "::1", "[::1", "a.org:443:443", " a.org"})
    EXPECT_EQ(v("a.org", {host}), "host_malformed 400") << host;
  EXPECT_EQ(v("", {"a.org"}), "host_malformed 400");
  EXPECT_EQ(v("a.org", {}), "host_malformed 400");
}

TEST(Request, IPv6Literal) {
  auto t = table({route("2001:db8::1")});
  auto r = get("[2001:DB8::1]", "/");
  r.sni.reset();
  r.hosts = {"[2001:db8:0::1]:443"};
  EXPECT_EQ(judge_request(t, r).code, "allowed");
  r.hosts = {"[2001:db8::1]"};
  EXPECT_EQ(judge_request(t, r).code, "allowed");
  r.hosts = {"[2001:db8::2]"};
  EXPECT_EQ(judge_request(t, r).code, "host_mismatch");
}

TEST(Request, Methods) {
  auto t = table({route("a.org", {"/v1/"})});
  auto v = [&](const char* method, const char* target) {
    auto r = get("a.org", target);
    r.method = method;
    return judge_request(t, r).code;
  };
  EXPECT_EQ(v("HEAD", "/v1/"), "allowed");
  EXPECT_EQ(v("POST", "/v1/"), "method_not_allowed");
  EXPECT_EQ(v("POST", "/"), "path_not_allowed");
  EXPECT_EQ(v("TRACE", "/v1/"), "method_not_allowed");
  EXPECT_EQ(v("connect", "/v1/"), "method_not_allowed");
  for (const char* method : {"", "G T", "GET\r\nX: y", "GET ", "\xff"})
    EXPECT_EQ(v(method, "/v1/"), "method_malformed") << method;
}

TEST(Request, PlainHttp) {
  auto r80 = route("a.org", {"/"}, {{"authorization", "T", "Bearer "}});
  r80.ports = {80, 443};
  auto t = table({r80});
  auto r = get("a.org", "/");
  r.tls = false;
  r.sni.reset();
  r.port = 80;
  EXPECT_TRUE(judge_request(t, r).allowed);
  EXPECT_TRUE(judge_request(t, r).inject.empty()) << "no credential on plain http";
  r.port = 443;
  EXPECT_EQ(judge_request(t, r).code, "tls_required");
  r.port = 8080;
  EXPECT_EQ(judge_request(t, r).code, "port_not_allowed");
}

TEST(Request, TheMostSpecificDecides) {
  auto inject = [](const char* env) { return std::vector<Injection>{{"x-key", env, ""}}; };
  auto t = table(
      {route("*.b.org", {"/"}, inject("WIDE")), route("*.a.b.org", {"/"}, inject("LONGER")),
       route("x.a.b.org", {"/"}, inject("EXACT")), route("x.a.b.org", {"/v1/"}, inject("PATH")),
       route("*.a.b.org", {"/v1/very/long"}, inject("NOT"))});
  auto env = [&](const char* host, const char* target) {
    auto v = judge_request(t, get(host, target));
    return v.inject.size() == 1 ? v.inject[0].token_env : v.code;
  };
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(env("q.b.org", "/"), "WIDE");
    EXPECT_EQ(env("q.a.b.org", "/"), "LONGER");
    EXPECT_EQ(env("x.a.b.org", "/"), "EXACT");
    EXPECT_EQ(env("x.a.b.org", "/v1/x"), "PATH");
    EXPECT_EQ(env("x.a.b.org", "/v1/very/long"), "PATH") << "the host comes before the path";
    std::reverse(t.routes.begin(), t.routes.end());
  }
}

TEST(Request, ANarrowRouteThatDoesNotAllowDoesNotForbid) {
  auto post = route("a.org", {"/v1/"}, {{"x-key", "T", ""}});
  post.methods = {"POST"};
  auto v = judge_request(table({route("a.org"), post}), get("a.org", "/v1/"));
  EXPECT_TRUE(v.allowed);
  EXPECT_TRUE(v.inject.empty());
}

TEST(Request, EqualRoutesMerge) {
  auto a = route("a.org", {"/"}, {{"x-a", "A", ""}}), b = route("a.org", {"/"}, {{"x-b", "B", ""}});
  b.inspect = Inspect::kFull;
  for (auto routes : {std::vector<Route>{a, b}, std::vector<Route>{b, a}}) {
    RouteTable t;
    t.routes = routes;
    auto v = judge_request(t, get("a.org", "/"));
    ASSERT_EQ(v.inject.size(), 2u);
    EXPECT_EQ(v.inject[0].header, "x-a");
    EXPECT_EQ(t.routes[v.route].inspect, Inspect::kFull);
  }
}

TEST(Request, LearnAllowsNothing) {
  auto t = table({route("a.org")});
  t.mode = Mode::kLearn;
  EXPECT_EQ(judge_connect(t, "a.org", 443).code, "learn_mode");
  EXPECT_FALSE(judge_connect(t, "a.org", 443).allowed);
  auto v = judge_request(t, get("a.org", "/x/../y"));
  EXPECT_EQ(v.code, "learn_mode");
  EXPECT_FALSE(v.allowed);
  EXPECT_EQ(v.target, "/y");
}

TEST(Json, Lines) {
  auto v = judge_request(table({route("a.org", {"/v1/"})}), get("a.org", "/?token=hunter2"));
  for (const std::string& line : {verdict_json(v), refusal_body(v)}) {
    EXPECT_EQ(line.find('\n'), std::string::npos);
    EXPECT_FALSE(nlohmann::json::parse(line, nullptr, false).is_discarded());
  }
  EXPECT_EQ(refusal_body(v).find("hunter2"), std::string::npos);
  EXPECT_EQ(nlohmann::json::parse(refusal_body(v))["error"], "path_not_allowed");
}

TEST(Address, PublicOnly) {
  const RouteTable t;
  for (const char* ip :
       {"8.8.8.8", "1.1.1.1", "93.184.216.34", "172.15.255.255", "172.32.0.1", "100.63.255.255",
        "100.128.0.1", "168.63.129.15", "223.255.255.255", "2606:4700::1111", "2a00:1450::1"})
    EXPECT_TRUE(address_allowed(t, ip)) << ip;
  for (const char* ip : {"0.0.0.0",
                         "0.1.2.3",
                         "10.0.0.1",
                         "10.255.255.255",
                         "100.64.0.1",
                         "100.100.100.200",
                         "127.0.0.1",
                         "127.255.0.1",
                         "169.254.169.254",
                         "169.254.170.2",
                         "172.16.0.1",
                         "172.31.255.255",
                         "192.0.0.192",
                         "192.0.2.1",
                         "192.88.99.1",
                         "192.168.0.1",
                         "198.18.0.1",
                         "198.19.255.255",
                         "198.51.100.1",
                         "203.0.113.1",
                         "224.0.0.1",
                         "239.255.255.250",
                         "240.0.0.1",
                         "255.255.255.255",
                         "168.63.129.16",
                         "::",
                         "::1",
                         "::7f00:1",
                         "::127.0.0.1",
                         "::ffff:8.8.8.8",
                         "::ffff:127.0.0.1",
                         "::ffff:169.254.169.254",
                         "64:ff9b::808:808",
                         "64:ff9b::7f00:1",
                         "64:ff9b:1::1",
                         "100::1",
                         "2001::1",
                         "2001:0:4136:e378:8000:63bf:3fff:fdd2",
                         "2001:10::1",
                         "2001:20::1",
                         "2001:db8::1",
                         "2002:7f00:1::",
                         "2002:808:808::1",
                         "3fff::1",
                         "fc00::1",
                         "fd00:ec2::254",
                         "fe80::1",
                         "fec0::1",
                         "ff02::1",
                         "5f00::1",
                         "4000::1",
                         "",
                         "localhost",
                         "8.8.8.8 ",
                         "8.8.8.08",
                         "[2606:4700::1111]",
                         "2606:4700:0::1111",
                         "2606:4700::1111%eth0",
                         "134744072",
                         "0x8.8.8.8"})
    EXPECT_FALSE(address_allowed(t, ip)) << ip;
}

TEST(Address, AllowCidrs) {
  RouteTable t;
  t.allow_cidrs = {"0.0.0.0/0", "10.0.0.0/8", "169.254.0.0/16", "fd00::/8", "64:ff9b::/96", "::/0"};
  EXPECT_TRUE(address_allowed(t, "10.1.2.3"));
  EXPECT_TRUE(address_allowed(t, "fd00::1"));
  EXPECT_TRUE(address_allowed(t, "64:ff9b::a01:203"));
  EXPECT_FALSE(address_allowed(t, "169.254.169.254")) << "metadata has to be named alone";
  EXPECT_FALSE(address_allowed(t, "fd00:ec2::254"));
  EXPECT_FALSE(address_allowed(t, "64:ff9b::a9fe:a9fe"));
  EXPECT_FALSE(address_allowed(t, "::ffff:10.1.2.3")) << "4-in-6 never";
  t.allow_cidrs = {"169.254.169.254/32", "64:ff9b::/96"};
  EXPECT_TRUE(address_allowed(t, "169.254.169.254"));
  EXPECT_FALSE(address_allowed(t, "64:ff9b::a00:1")) << "NAT64 of a private address";
  EXPECT_FALSE(address_allowed(t, "10.0.0.1"));
}

TEST(CredentialHeader, Names) {
  for (const char* name : {"authorization",
                           "proxy-authorization",
                           "cookie",
                           "cookie2",
                           "x-api-key",
                           "api-key",
                           "apikey",
                           "x-apikey",
                           "x-goog-api-key",
                           "x-auth-token",
                           "x-auth-key",
                           "x-auth-email",
                           "private-token",
                           "job-token",
                           "x-amz-security-token",
                           "x-vault-token",
                           "x-github-token",
                           "x-csrf-token",
                           "x-client-secret",
                           "x-access-key",
                           "x-secret-key",
                           "ocp-apim-subscription-key",
                           "x-functions-key",
                           "dd-application-key",
                           "x-rapidapi-key",
                           "x-shopify-access-token",
                           "x-ms-authorization-auxiliary",
                           "x-forwarded-client-cert",
                           "x-jwt-assertion",
                           "dpop",
                           "token",
                           "auth",
                           "x-password",
                           "x_api_key",
                           "Authorization",
                           "x-registry-auth",
                           "x-amz-credential",
                           "x-parse-session-token",
                           "x-bearer"})
    EXPECT_TRUE(is_credential_header(name)) << name;
  for (const char* name : {"accept",
                           "host",
                           "content-type",
                           "content-length",
                           "user-agent",
                           "sec-websocket-key",
                           "idempotency-key",
                           "x-idempotency-key",
                           "anthropic-version",
                           "anthropic-beta",
                           "if-none-match",
                           "range",
                           "mcp-session-id",
                           "traceparent",
                           "x-request-id",
                           "origin",
                           "referer",
                           "x-stainless-lang",
                           "grpc-timeout",
                           "te",
                           "sec-fetch-site",
                           "cache-control",
                           "accept-encoding",
                           "git-protocol",
                           "author",
                           "x-author-id"})
    EXPECT_FALSE(is_credential_header(name)) << name;
}

}  // namespace
}  // namespace bottle::policy
