#include "controller/policy/canonical.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace bottle::policy {
namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;
using namespace std::string_literals;

TEST(Host, OneSpelling) {
  const Pairs cases = {
      {"api.example.org", "api.example.org"},
      {"API.Example.ORG", "api.example.org"},
      {"example.org.", "example.org"},
      {"localhost", "localhost"},
      {"a-b.c", "a-b.c"},
      {"r3---sn-x.example.org", "r3---sn-x.example.org"},
      {"1e100.net", "1e100.net"},
      {"3com", "3com"},
      {"xn--bcher-kva.example", "xn--bcher-kva.example"},
      {"XN--BCHER-KVA.example", "xn--bcher-kva.example"},
      {"xn--fiqs8s", "xn--fiqs8s"},
      {"xn--mnchen-3ya.de", "xn--mnchen-3ya.de"},
      {"192.0.2.1", "192.0.2.1"},
      {"127.0.0.1.", "127.0.0.1"},
      {"255.255.255.255", "255.255.255.255"},
      {"::1", "::1"},
      {"[::1]", "::1"},
      {"[2001:DB8:0:0:0:0:0:1]", "2001:db8::1"},
      {"2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"},
      {"::FFFF:10.0.0.1", "::ffff:10.0.0.1"},
      {"::ffff:0a00:0001", "::ffff:10.0.0.1"},
      {std::string(63, 'a') + ".org", std::string(63, 'a') + ".org"},
  };
  for (const auto& [in, want] : cases) {
    auto got = canonical_host(in);
    ASSERT_TRUE(got) << in << ": " << got.status().message();
    EXPECT_EQ(*got, want) << in;
    EXPECT_EQ(*canonical_host(*got), want) << "again: " << in;
  }
}

TEST(Host, Refused) {
  const std::vector<std::string> cases = {
      "",
      ".",
      "..",
      "a..b",
      ".a",
      "a..",
      "-a.org",
      "a-.org",
      "a_b.org",
      "a b",
      " a",
      "a ",
      "a\t",
      "a\n",
      "a\0b"s,
      "a/b",
      "a\\b",
      "a%2eb",
      "a%00",
      "user@host",
      "user:pw@host",
      "host:443",
      "http://host",
      "a?b",
      "a#b",
      "*",
      "*.example.org",
      "a,b",
      std::string(64, 'a') + ".org",
      std::string(254, 'a'),
      "bücher.example",
      "ex\xc0\xaemple",
      "\xef\xbd\x81.org",
      "example\xe3\x80\x82org",
      // IPv4 in the spellings of inet_aton
      "127.1",
      "127.0.1",
      "2130706433",
      "0x7f000001",
      "0x7f.0.0.1",
      "0177.0.0.1",
      "127.0.0.01",
      "0x7f.1",
      "017700000001",
      "0",
      "256.0.0.1",
      "1.2.3",
      "1.2.3.4.5",
      "a.1",
      "a.0x1",
      "a.0x",
      "00.0.0.0",
      "127.0.0.0x1",
      "1.2.3.4..",
      "+1.2.3.4",
      // IPv6
      "[::1",
      "::1]",
      "[]",
      "[:]",
      ":",
      ":::",
      "[::1]:443",
      "[::1%25eth0]",
      "fe80::1%eth0",
      "[127.0.0.1]",
      "[a.org]",
      "::1::",
      "1:2:3:4:5:6:7:8:9",
      "::ffff:127.1",
      "::ffff:0177.0.0.1",
      "12345::",
      "[[::1]]",
      // Punycode that is none, hides ASCII, or decodes to forms that some resolver folds
      "xn--",
      "xn--a",
      "xn--google-",
      "xn--.org",
      "xn--999999999",
      "xn---",
      "xn--a-b.c_",
      "xn--\x80",
  };
  for (const auto& in : cases) {
    auto got = canonical_host(in);
    EXPECT_FALSE(got) << '"' << in << "\" -> " << (got ? *got : "");
    EXPECT_EQ(got.status().code(), Code::kInvalid);
  }
}

TEST(HostPattern, Forms) {
  EXPECT_EQ(*canonical_host_pattern("*.Example.org."), "*.example.org");
  EXPECT_EQ(*canonical_host_pattern("Example.org"), "example.org");
  for (const char* in : {"*", "*.", "*.com", "*.com.", "**.example.org", "*.*.example.org",
                         "a.*.example.org", "a*.example.org", "*a.example.org", "*.10.0.0.1",
                         "*.[::1]", "*.::1", "*example.org", "*..example.org", ""})
    EXPECT_FALSE(canonical_host_pattern(in)) << in;
}

TEST(HostPattern, Matches) {
  EXPECT_TRUE(host_matches("example.org", "example.org"));
  EXPECT_TRUE(host_matches("*.example.org", "a.example.org"));
  EXPECT_TRUE(host_matches("*.example.org", "a.b.example.org"));
  EXPECT_FALSE(host_matches("*.example.org", "example.org"));
  EXPECT_FALSE(host_matches("*.example.org", ".example.org"));
  EXPECT_FALSE(host_matches("*.example.org", "badexample.org"));
  EXPECT_FALSE(host_matches("*.example.org", "a.example.org.evil.net"));
  EXPECT_FALSE(host_matches("example.org", "a.example.org"));
  EXPECT_FALSE(host_matches("example.org", ""));
}

TEST(Cidr, Forms) {
  const Pairs good = {{"10.0.0.0/8", "10.0.0.0/8"}, {"10.1.2.3", "10.1.2.3/32"},
                      {"FD00::/8", "fd00::/8"},     {"fd00::1", "fd00::1/128"},
                      {"0.0.0.0/0", "0.0.0.0/0"},   {"::/0", "::/0"}};
  for (const auto& [in, want] : good) {
    auto got = canonical_cidr(in);
    ASSERT_TRUE(got) << in;
    EXPECT_EQ(*got, want);
  }
  for (const char* in : {"", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/", "10.0.0.0/-1",
                         "10/8", "10.0.0.0/8/8", "fd00::1/8", "::/129", "::ffff:10.0.0.0/104",
                         "host/8", "10.0.0.0/+8", "[fd00::]/8", "010.0.0.0/8", "10.0.0.0/8 "})
    EXPECT_FALSE(canonical_cidr(in)) << in;
}

TEST(Target, OneSpelling) {
  const Pairs cases = {
      {"/", "/"},
      {"/a", "/a"},
      {"/a/", "/a/"},
      {"/a/./b", "/a/b"},
      {"/a/../b", "/b"},
      {"/a/..", "/"},
      {"/a/b/..", "/a/"},
      {"/a/.", "/a/"},
      {"/./", "/"},
      {"/a/%2e/b", "/a/b"},
      {"/a/%2E%2e/b", "/b"},
      {"/a/.%2e/b", "/b"},
      {"/v1/%2e%2e/admin", "/admin"},
      {"/...", "/..."},
      {"/a/..b", "/a/..b"},
      {"/.well-known/x", "/.well-known/x"},
      {"/%7euser", "/~user"},
      {"/%41%62c", "/Abc"},
      {"/a%20b", "/a%20b"},
      {"/%c3%a9", "/%C3%A9"},
      {"/\xc3\xa9", "/%C3%A9"},
      {"/a[1]", "/a%5B1%5D"},
      {"/@scope/x", "/@scope/x"},
      {"/%40scope", "/%40scope"},
      {"/a:b=c,d!$&'()*+", "/a:b=c,d!$&'()*+"},
      {"/C%23", "/C%23"},
      {"/a%3fb", "/a%3Fb"},
      {"/a|b", "/a%7Cb"},
      {"/a?", "/a?"},
      {"/a?x=1&y=%20", "/a?x=1&y=%20"},
      {"/a?x=../..//\\;", "/a?x=../..//\\;"},
      {"/a?b?c", "/a?b?c"},
      {"/?q=[1]", "/?q=[1]"},
      {"/?q=\xc3\xa9", "/?q=%C3%A9"},
      {"/?q=%2F%25%0A%ff", "/?q=%2F%25%0A%ff"},
      {"/\xf0\x9f\x98\x80", "/%F0%9F%98%80"},
      {"/\xef\xbf\xbd", "/%EF%BF%BD"},
      {"/%C2%A0", "/%C2%A0"},
  };
  for (const auto& [in, want] : cases) {
    auto got = canonical_target(in, EncodedSlash::kRefuse);
    ASSERT_TRUE(got) << in << ": " << got.status().message();
    EXPECT_EQ(got->str(), want) << in;
    auto again = canonical_target(got->str(), EncodedSlash::kRefuse);
    ASSERT_TRUE(again) << in;
    EXPECT_EQ(again->str(), want) << "again: " << in;
  }
  EXPECT_FALSE(canonical_target("/a", EncodedSlash::kRefuse)->has_query);
  EXPECT_TRUE(canonical_target("/a?", EncodedSlash::kRefuse)->has_query);
}

TEST(Target, Refused) {
  const std::vector<std::string> cases = {
      "",
      "*",
      "a",
      "http://h/",
      "?a",
      "#",
      "%2F",
      "/#f",
      "/a?b#c",
      "//",
      "//a",
      "/a//b",
      "/a//",
      "/a/..//b",
      "/a/.//b",
      "/%2e//b",
      "/..",
      "/../",
      "/a/../..",
      "/a/../../b",
      "/%2e%2e",
      "/%2e%2e/",
      "/.%2e/x",
      "/a/%2E%2E/%2e%2e/x",
      "/\\",
      "/a\\b",
      "/a%5cb",
      "/a%5Cb",
      "/..\\x",
      "/a/..%5c..%5cx",
      "/a;b",
      "/a;",
      "/a/..;/b",
      "/a;jsessionid=1",
      "/a%3bb",
      "/;/a",
      "/..%3B/",
      "/a\0b"s,
      "/%00",
      "/a%00.png",
      "/a%0d%0aX: y",
      "/a%0a",
      "/\x01",
      "/a\tb",
      "/%09",
      "/a\x7f",
      "/%7f",
      "/a b",
      "/a\r\nb",
      "/%1b",
      "/%",
      "/%2",
      "/%zz",
      "/%u002e",
      "/%2x",
      "/a%",
      "/%%32%65",
      "/%25",
      "/%252e%252e",
      "/%2500",
      "/%25%32%66",
      "/%2f",
      "/a%2Fb",
      "/a/..%2fb",
      "/%2F..",
      // overlong, truncated, surrogate, out of range, lone continuation; raw and encoded
      "/%c0%ae%c0%ae/x",
      "/%C0%AF",
      "/%e0%80%ae",
      "/%e0%80%af",
      "/%f0%80%80%ae",
      "/%f8%80%80%80%ae",
      "/%fc%80%80%80%80%ae",
      "/%c1%9c",
      "/%c0%80",
      "/\xc0\xae\xc0\xae",
      "/\xe0\x80\xaf",
      "/%c3",
      "/%c3/x",
      "/%c3a",
      "/\xc3",
      "/%ed%a0%80",
      "/%f4%90%80%80",
      "/%80",
      "/\xff",
      "/%fe",
      "/%c2%80",
      "/%C2%85",
      "/%c2%9f",
      "/\xc2\x85",
      "/%c3.%a9",
      "/\xc3%28",
      "/?%",
      "/?a=%zz",
      "/?%00",
      "/?a\0"s,
      "/?a b",
      "/?a\r\n",
      "/?\xff",
      "/?\xc3",
      "/?\xc0\xae",
      "/" + std::string(16 * 1024, 'a'),
      "/?" + std::string(16 * 1024, 'a'),
  };
  for (const auto& in : cases) {
    auto got = canonical_target(in, EncodedSlash::kRefuse);
    EXPECT_FALSE(got) << '"' << in << "\" -> " << (got ? got->str() : "");
    EXPECT_EQ(got.status().code(), Code::kInvalid);
  }
}

TEST(Target, EncodedSlashAllowed) {
  EXPECT_EQ(canonical_target("/@scope%2fname", EncodedSlash::kAllow)->str(), "/@scope%2Fname");
  EXPECT_EQ(canonical_target("/p/g%2fp/x", EncodedSlash::kAllow)->str(), "/p/g%2Fp/x");
  EXPECT_EQ(canonical_target("/a%2Fb/../c", EncodedSlash::kAllow)->str(), "/c");
  EXPECT_EQ(canonical_target("/a%2F...", EncodedSlash::kAllow)->str(), "/a%2F...");
  for (const char* in :
       {"/a%2f..%2fb", "/..%2fb", "/a%2f..", "/a%2f.", "/.%2fa", "/%2fa", "/a%2f%2fb", "/a%2f",
        "/%2f", "/a%2f%2e%2e%2fb", "/a/%2e%2e%2fb", "/a%2f/b", "/x%252f..", "/..%2f..%2fetc/../x"})
    EXPECT_FALSE(canonical_target(in, EncodedSlash::kAllow)) << in;
}

TEST(Target, LimitIsOnTheCanonicalFormToo) {
  std::string raw = "/";
  for (int i = 0; i < 3000; ++i) raw += "\xc3\xa9";
  EXPECT_FALSE(canonical_target(raw, EncodedSlash::kRefuse));
  EXPECT_TRUE(canonical_target("/" + std::string(16 * 1024 - 1, 'a'), EncodedSlash::kRefuse));
}

TEST(Target, ErrorsDoNotEchoTheInput) {
  EXPECT_EQ(canonical_target("/?token=hunter2%", EncodedSlash::kRefuse)
                .status()
                .message()
                .find("hunter2"),
            std::string::npos);
}

TEST(PathPrefix, FormsAndMatches) {
  EXPECT_EQ(*canonical_path_prefix("/v1/"), "/v1/");
  EXPECT_EQ(*canonical_path_prefix("/a/../%76%31"), "/v1");
  EXPECT_EQ(*canonical_path_prefix("/g%2fp/"), "/g%2Fp/");
  for (const char* in : {"", "v1", "/v1?x", "/v1?", "/..", "//", "/v1;x", "*"})
    EXPECT_FALSE(canonical_path_prefix(in)) << in;
  EXPECT_TRUE(path_matches("/", "/"));
  EXPECT_TRUE(path_matches("/", "/x"));
  EXPECT_TRUE(path_matches("/v1/", "/v1/"));
  EXPECT_TRUE(path_matches("/v1/", "/v1/x"));
  EXPECT_TRUE(path_matches("/v1", "/v1"));
  EXPECT_TRUE(path_matches("/v1", "/v1/x"));
  EXPECT_FALSE(path_matches("/v1", "/v1x"));
  EXPECT_FALSE(path_matches("/v1", "/v1%2Fx"));
  EXPECT_FALSE(path_matches("/v1/", "/v1"));
  EXPECT_FALSE(path_matches("/v1", "/V1"));
  EXPECT_FALSE(path_matches("", "/"));
}

TEST(Names, MethodAndHeader) {
  EXPECT_EQ(*canonical_method("get"), "GET");
  EXPECT_EQ(*canonical_method("PROPFIND"), "PROPFIND");
  for (const char* in : {"", "CONNECT", "connect", "TRACE", "Trace", "GET ", "G ET", "GET\r\n",
                         "GÉT", "GET/", "G:T"})
    EXPECT_FALSE(canonical_method(in)) << in;
  EXPECT_EQ(*canonical_header_name("X-API-Key"), "x-api-key");
  for (const char* in : {"", "a b", "a:", "a\r\nb", "é", ":path", "a,b"})
    EXPECT_FALSE(canonical_header_name(in)) << in;
}

}  // namespace
}  // namespace bottle::policy
