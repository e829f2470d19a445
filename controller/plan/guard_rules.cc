// The guard's nftables text. Every rule has its reason beside it in the text, because a person reads `bottle render`.
#include <set>

#include "controller/plan/internal.h"

namespace bottle::plan_internal {
namespace {

// One value bare, several as an anonymous set: nft lists a set of one as a bare value, and the guard compares what it reads back.
std::string one_or_set(const std::set<uint16_t>& values) {
  std::string text;
  for (uint16_t v : values) text += (text.empty() ? "" : ", ") + std::to_string(v);
  return values.size() == 1 ? text : "{ " + text + " }";
}

}  // namespace

std::string render_guard_rules(const policy::RouteTable& table) {
  const std::string uid = std::to_string(kEgressUid);
  std::set<uint16_t> ports;
  // Learn mode allows nothing, so nothing has to leave either: not even a look-up.
  if (table.mode == policy::Mode::kEnforce)
    for (const auto& route : table.routes) ports.insert(route.ports.begin(), route.ports.end());

  std::string t;
  const auto line = [&t](const std::string& text) { t += "    " + text + "\n"; };
  t += "table inet bottle_guard {\n"
       "  set resolvers4 { type ipv4_addr; }\n"
       "  set resolvers6 { type ipv6_addr; }\n"
       "  counter refused { }\n"
       "  counter refused_loopback { }\n"
       "  counter refused_inbound { }\n"
       "  chain refuse {\n";
  line("# A reset, because a TCP client over IPv6 takes an ICMP error for a passing one and waits.");
  line("meta l4proto tcp counter name refused reject with tcp reset");
  line("counter name refused reject with icmpx type admin-prohibited");
  t += "  }\n"
       "  chain outbound {\n"
       "    type filter hook output priority 0; policy drop;\n";
  line("# A packet that has an owner must have the right one, whatever its state: a live flow can be hijacked by port reuse.");
  line("oifname != \"lo\" meta skuid != " + uid + " goto refuse");
  line("# The engine's DNS answers from outside this namespace.");
  line("oifname \"lo\" ip daddr 127.0.0.11 counter name refused_loopback reject with icmpx type admin-prohibited");
  line("# Scanner, health and metrics ports are for sidecars.");
  line("oifname \"lo\" meta skuid != " + uid +
       " tcp dport { 8888, 9090-9098 } counter name refused_loopback reject with tcp reset");
  line("# What has lost its owner (data and FIN of a closed socket) rides on its flow.");
  line("ct state established,related accept");
  line("ct state invalid drop");
  line("oifname \"lo\" accept");
  line("# Neighbour discovery comes from the kernel and has no owner. Multicast reports are not needed and not worth a count.");
  line("icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept");
  line("icmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report } drop");
  if (!ports.empty()) {
    line("# Look-ups: the guard fills the sets from its resolv.conf.");
    line("meta skuid " + uid + " ip daddr @resolvers4 meta l4proto { tcp, udp } th dport 53 accept");
    line("meta skuid " + uid + " ip6 daddr @resolvers6 meta l4proto { tcp, udp } th dport 53 accept");
    if (!table.allow_cidrs.empty()) line("# egress.allowCIDRs: before the ranges that are refused otherwise.");
    for (const auto& cidr : table.allow_cidrs) {
      const bool v6 = cidr.find(':') != std::string::npos;
      line("meta skuid " + uid + (v6 ? " ip6" : " ip") + " daddr " + cidr + " tcp dport " + one_or_set(ports) + " accept");
    }
  }
  line("# Private, link-local, metadata, shared, multicast and reserved ranges, and IPv4 dressed as IPv6: SSRF stops here too.");
  line("ip daddr { 0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 168.63.129.16, 169.254.0.0/16, 172.16.0.0/12, "
       "192.0.0.0/24, 192.168.0.0/16, 198.18.0.0/15, 224.0.0.0/3 } goto refuse");
  line("ip6 daddr { ::/96, ::ffff:0:0/96, 64:ff9b::/96, 64:ff9b:1::/48, 2001::/32, 2002::/16, fc00::/7, fe80::/10, "
       "fec0::/10, ff00::/8 } goto refuse");
  if (!ports.empty()) {
    line("# The ports of the routes; which host, method and path is the proxy's to judge.");
    line("meta skuid " + uid + " tcp dport " + one_or_set(ports) + " accept");
  }
  line("goto refuse");
  t += "  }\n"
       "  chain inbound {\n"
       "    type filter hook input priority 0; policy drop;\n";
  line("iifname \"lo\" accept");
  line("ct state established,related accept");
  line("icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept");
  line("# Only the port a sidecar listens on: a reply of anyone else on it has the wrong owner above.");
  line("tcp dport " + std::to_string(kEgressHealthPort) + " accept");
  line("counter name refused_inbound");
  t += "  }\n"
       "  chain forwarded {\n"
       "    type filter hook forward priority 0; policy drop;\n"
       "  }\n"
       "}\n";
  return t;
}

}  // namespace bottle::plan_internal
