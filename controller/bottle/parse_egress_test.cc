// What is wrong with a route or the rest of egress, and what the user is told.
#include <gtest/gtest.h>

#include "controller/bottle/test_bottle.h"

namespace bottle {
namespace {

const ErrorCase kCases[] = {
    {"HostMissing", in_route(R"({ ports: [443] }
)"),
     R"(9:7: spec.egress.routes[0].host: required
)"},
    {"HostMisspelt", in_route(R"({ hots: a.test }
)"),
     R"(9:9: spec.egress.routes[0].hots: unknown field, did you mean "host"?
)"},
    {"HostIsUrl", in_route(R"({ host: "https://a.test/" }
)"),
     R"(9:15: spec.egress.routes[0].host: a URL: write the host only, "a.test"
)"},
    {"HostWildcardUnquoted", in_route(R"({ host: *.a.test }
)"),
     R"(9:15: not valid YAML: the referenced anchor is not defined (text that begins with '*' needs quotes)
)"},
    {"HostAndPort", in_route(R"({ host: "a.test:8443" }
)"),
     R"(9:15: spec.egress.routes[0].host: a host and a port: write host: "a.test" and the port in ports
)"},
    {"HostWildcardAll", in_route(R"({ host: "*" }
)"),
     R"(9:15: spec.egress.routes[0].host: '*' stands only at the beginning, as in *.example.org
)"},
    {"HostWildcardTop", in_route(R"({ host: "*.com" }
)"),
     R"(9:15: spec.egress.routes[0].host: '*.' needs at least two labels after it, as in *.example.org
)"},
    {"HostLegacyIpv4", in_route(R"({ host: "0x7f.1" }
)"),
     R"(9:15: spec.egress.routes[0].host: an IPv4 address is four decimal numbers of 0 to 255 without leading zeros
)"},
    {"HostOwn", in_route(R"({ host: git-gate }
)"),
     R"(9:15: spec.egress.routes[0].host: "git-gate" is inside the bottle: it needs no route
)"},
    {"HostLoopback", in_route(R"({ host: 127.0.0.1 }
)"),
     R"(9:15: spec.egress.routes[0].host: "127.0.0.1" is inside the bottle: it needs no route
)"},
    {"HostPrivateAddress", in_route(R"({ host: 10.0.0.7 }
)"),
     R"(9:15: spec.egress.routes[0].host: "10.0.0.7" is a private or reserved address, which is refused unless egress.allowCIDRs names its network
)"},
    {"HostAddressThatIsAllowed", in_spec(R"(agent: { image: a }
pipelock: { enabled: false }
egress: { allowCIDRs: [10.0.0.0/24], routes: [{ host: 10.0.0.7 }, { host: 203.0.114.1 }] }
)"),
     ""},
    {"PortZero", in_route(R"({ host: a.test, ports: [0] }
)"),
     R"(9:31: spec.egress.routes[0].ports[0]: expected a whole number from 1 to 65535, found the number 0
)"},
    {"PortLarge", in_route(R"({ host: a.test, ports: [443, 65536] }
)"),
     R"(9:36: spec.egress.routes[0].ports[1]: expected a whole number from 1 to 65535, found the number 65536
)"},
    {"PortString", in_route(R"({ host: a.test, ports: ["443"] }
)"),
     R"(9:31: spec.egress.routes[0].ports[0]: expected a whole number from 1 to 65535 without quotes, found the string "443"
)"},
    {"PortsEmpty", in_route(R"({ host: a.test, ports: [] }
)"),
     R"(9:30: spec.egress.routes[0].ports: is empty: list at least one, or leave the field out
)"},
    {"PortTwice", in_route(R"({ host: a.test, ports: [443, 443] }
)"),
     R"(9:36: warning: spec.egress.routes[0].ports[1]: listed twice
)"},
    {"MethodBad", in_route(R"({ host: a.test, methods: ["GE T"] }
)"),
     R"(9:33: spec.egress.routes[0].methods[0]: a character that no HTTP method has
)"},
    {"MethodStar", in_route(R"({ host: a.test, methods: ["*"] }
)"),
     R"(9:33: spec.egress.routes[0].methods[0]: "*" is not a method: list the methods, such as [GET, HEAD, POST]
)"},
    {"MethodConnect", in_route(R"({ host: a.test, methods: [CONNECT] }
)"),
     R"(9:33: spec.egress.routes[0].methods[0]: CONNECT is never allowed
)"},
    {"PathRelative", in_route(R"({ host: a.test, paths: [v1/] }
)"),
     R"(9:31: spec.egress.routes[0].paths[0]: does not begin with '/'
)"},
    {"PathQuery", in_route(R"({ host: a.test, paths: ["/v1?x=1"] }
)"),
     R"(9:31: spec.egress.routes[0].paths[0]: a query ('?') cannot be part of a path
)"},
    {"PathAboveRoot", in_route(R"({ host: a.test, paths: [/../x] }
)"),
     R"(9:31: spec.egress.routes[0].paths[0]: ".." above the root
)"},
    {"EncodedSlashUnknown", in_route(R"({ host: a.test, encodedSlash: allowed }
)"),
     R"(9:37: spec.egress.routes[0].encodedSlash: "allowed" is not one of refuse, allow; did you mean "allow"?
)"},
    {"InspectFull", in_route(R"({ host: a.test, inspect: full }
)"),
     R"(9:32: spec.egress.routes[0].inspect: "full" needs a scanner, and none is enabled: write inspect: headers
)"},
    {"InspectNoneInject", in_route(R"({ host: a.test, inspect: none, methods: [GET], paths: [/x], inject: [{ header: x-a, secretKeyRef: { name: s, key: k } }] }
)"),
     R"(9:47: spec.egress.routes[0].methods: methods needs decrypted traffic: write inspect: headers, or leave this field out
9:61: spec.egress.routes[0].paths: paths needs decrypted traffic: write inspect: headers, or leave this field out
9:75: spec.egress.routes[0].inject: inject needs decrypted traffic: write inspect: headers, or leave this field out
)"},
    {"InjectValue", in_route(R"({ host: a.test, inject: [{ header: x-a, value: hunter2 }] }
)"),
     R"(9:47: spec.egress.routes[0].inject[0].value: a token is never written into a bottle: put it into a Secret and write secretKeyRef: { name: …, key: … }
)"},
    {"InjectToken", in_route(R"({ host: a.test, inject: [{ header: x-a, token: ghp_0123456789abcdefghij }] }
)"),
     R"(9:47: spec.egress.routes[0].inject[0].token: a token is never written into a bottle: put it into a Secret and write secretKeyRef: { name: …, key: … }
9:54: spec.egress.routes[0].inject[0].token: looks like a GitHub token, and a bottle holds no credentials: put it into a Secret and inject it on a route
)"},
    {"RouteToken", in_route(R"({ host: a.test, token: hunter2 }
)"),
     R"(9:23: spec.egress.routes[0].token: a token is never written into a bottle: put it into a Secret and write secretKeyRef: { name: …, key: … }
)"},
    {"InjectNoSecret", in_route(R"({ host: a.test, inject: [{ header: x-a }] }
)"),
     R"(9:32: spec.egress.routes[0].inject[0].secretKeyRef: required
)"},
    {"InjectSecretKeyMissing", in_route(R"({ host: a.test, inject: [{ header: x-a, secretKeyRef: { name: s } }] }
)"),
     R"(9:61: spec.egress.routes[0].inject[0].secretKeyRef.key: required
)"},
    {"InjectSecretNameBad", in_route(R"({ host: a.test, inject: [{ header: x-a, secretKeyRef: { name: S, key: "a b" } }] }
)"),
     R"(9:69: spec.egress.routes[0].inject[0].secretKeyRef.name: "S" is not a name: a-z, 0-9, '-' and '.', letters or digits first and last
9:77: spec.egress.routes[0].inject[0].secretKeyRef.key: "a b" is not a Secret's key: letters, digits, '-', '_' and '.'
)"},
    {"InjectPrefixNewline", in_route(R"({ host: a.test, inject: [{ header: x-a, prefix: "a\nb", secretKeyRef: { name: s, key: k } }] }
)"),
     R"(9:55: spec.egress.routes[0].inject[0].prefix: a prefix is at most 64 printable ASCII characters, such as "Bearer "
)"},
    {"InjectPrefixToken", in_route(R"({ host: a.test, inject: [{ header: x-a, prefix: ghp_0123456789abcdefghij, secretKeyRef: { name: s, key: k } }] }
)"),
     R"(9:55: spec.egress.routes[0].inject[0].prefix: looks like a GitHub token, and a bottle holds no credentials: put it into a Secret and inject it on a route
)"},
    {"InjectHostHeader", in_route(R"({ host: a.test, inject: [{ header: Host, secretKeyRef: { name: s, key: k } }] }
)"),
     R"(9:42: spec.egress.routes[0].inject[0].header: "Host" may not be injected: it frames the message
)"},
    {"InjectProxyHeader", in_route(R"({ host: a.test, inject: [{ header: Proxy-Authorization, secretKeyRef: { name: s, key: k } }] }
)"),
     R"(9:42: spec.egress.routes[0].inject[0].header: "Proxy-Authorization" may not be injected: it frames the message
)"},
    {"InjectHeaderBad", in_route(R"({ host: a.test, inject: [{ header: "x a", secretKeyRef: { name: s, key: k } }] }
)"),
     R"(9:42: spec.egress.routes[0].inject[0].header: a character that no HTTP field name has
)"},
    {"InjectHeaderTwice", in_route(R"({ host: a.test, inject: [{ header: X-A, secretKeyRef: { name: s, key: k } }, { header: x-a, secretKeyRef: { name: s, key: l } }] }
)"),
     R"(9:94: spec.egress.routes[0].inject[1].header: "x-a" is injected already on line 9: at most one per header and route
)"},
    {"InjectPlainHttp", in_route(R"({ host: a.test, ports: [80], inject: [{ header: x-a, secretKeyRef: { name: s, key: k } }] }
)"),
     R"(9:44: spec.egress.routes[0].inject: a credential is never sent over plain http: list a TLS port, such as 443
)"},
    {"TokenNamesCollide", in_route(R"({ host: a.test, inject: [{ header: x-a, secretKeyRef: { name: s-a, key: k } }, { header: x-b, secretKeyRef: { name: s, key: a.k } }] }
)"),
     R"(9:115: spec.egress.routes[0].inject[1].secretKeyRef: "s/a.k" and "s-a/k" would share the token name BOT_BOTTLE_TOKEN_S_A_K: rename one of them
)"},
    {"Conflict", in_spec(R"(agent: { image: a }
pipelock: { enabled: false }
egress:
  routes:
  - host: a.test
    paths: [/v1/]
    inject: [{ header: x-a, secretKeyRef: { name: s, key: one } }]
  - host: A.test
    paths: [/v1/, /v2/]
    inject: [{ header: x-a, secretKeyRef: { name: s, key: two } }]
  - host: a.test
    inspect: none
)"),
     R"(14:16: spec.egress.routes[1].inject[0]: conflicts with spec.egress.routes[0].inject[0] on line 11: GET "a.test" "/v1/" would get two values for header "x-a"
16:16: spec.egress.routes[2].inspect: conflicts with spec.egress.routes[0] on line 9: "a.test" port 443 cannot be both inspected and spliced (inspect: none)
)"},
    {"NoConflictBySpecificity", in_spec(R"(agent: { image: a }
pipelock: { enabled: false }
egress:
  routes:
  - host: "*.a.test"
    inject: [{ header: x-a, secretKeyRef: { name: s, key: one } }]
  - host: b.a.test
    inject: [{ header: x-a, secretKeyRef: { name: s, key: two } }]
  - host: b.a.test
    paths: [/v1/]
    inject: [{ header: x-a, secretKeyRef: { name: s, key: three } }]
)"),
     ""},
    {"CidrHostBits", in_spec(R"(agent: { image: a }
egress: { allowCIDRs: [10.0.0.1/8] }
)"),
     R"(6:26: spec.egress.allowCIDRs[0]: bits are set behind the prefix length; write the first address of the range
)"},
    {"CidrTooWide", in_spec(R"(agent: { image: a }
egress: { allowCIDRs: [0.0.0.0/0] }
)"),
     R"(6:26: spec.egress.allowCIDRs[0]: "0.0.0.0/0" is too wide: name the network that is meant, such as 10.1.0.0/16
)"},
    {"CidrLoopback", in_spec(R"(agent: { image: a }
egress: { allowCIDRs: [127.0.0.0/8, "::1"] }
)"),
     R"(6:26: spec.egress.allowCIDRs[0]: "127.0.0.0/8" is inside the bottle or an embedded IPv4 range: it cannot be allowed
6:39: spec.egress.allowCIDRs[1]: "::1" is inside the bottle or an embedded IPv4 range: it cannot be allowed
)"},
    {"AliasNotIp", in_spec(R"(agent: { image: a }
egress: { hostAliases: [{ ip: a.test, hostnames: [10.0.0.1] }] }
)"),
     R"(6:33: spec.egress.hostAliases[0].ip: "a.test" is not an IP address
6:53: spec.egress.hostAliases[0].hostnames[0]: "10.0.0.1" is an address, not a host name
)"},
    {"AliasSpeltAsInAUrl", in_spec(R"(agent: { image: a }
egress: { hostAliases: [{ ip: "[::1]", hostnames: [a] }, { ip: "10.0.0.1.", hostnames: [a] }, { ip: "::ffff:10.0.0.1", hostnames: [a] }] }
)"),
     R"(6:33: spec.egress.hostAliases[0].ip: "[::1]" is not an IP address
6:66: spec.egress.hostAliases[1].ip: "10.0.0.1." is not an IP address
6:103: spec.egress.hostAliases[2].ip: "::ffff:10.0.0.1" is not an IP address
)"},
    {"AliasNoNames", in_spec(R"(agent: { image: a }
egress: { hostAliases: [{ ip: 10.0.0.1, hostnames: [] }, { ip: 10.0.0.2 }] }
)"),
     R"(6:54: spec.egress.hostAliases[0].hostnames: is empty: list at least one, or leave the field out
6:60: spec.egress.hostAliases[1].hostnames: required
)"},
    {"CaBoth", in_spec(R"(agent: { image: a }
egress: { upstreamCAs: [{ pem: x, file: y }, { pem: x }, { file: "" }, {}] }
)"),
     R"(6:27: spec.egress.upstreamCAs[0]: write either pem: (the certificate) or file: (its path)
6:55: spec.egress.upstreamCAs[1].pem: holds no certificate: expected PEM, -----BEGIN CERTIFICATE-----
6:68: spec.egress.upstreamCAs[2].file: is empty: write the path of a PEM file
6:74: spec.egress.upstreamCAs[3]: write either pem: (the certificate) or file: (its path)
)"},
    {"CaPrivateKey", in_spec(R"(agent: { image: a }
egress:
  upstreamCAs:
  - pem: "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nMIIhunter2"
)"),
     R"(8:12: spec.egress.upstreamCAs[0].pem: looks like a private key, and a bottle holds no credentials: put it into a Secret and inject it on a route
)"},
};

class EgressErrors : public testing::TestWithParam<ErrorCase> {};

TEST_P(EgressErrors, TellsTheUser) { EXPECT_EQ(diagnostics_of(GetParam().text), GetParam().expected); }

INSTANTIATE_TEST_SUITE_P(Parse, EgressErrors, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace bottle
