// Which addresses a listed name may turn out to be. Part of verdict.h.
#include <algorithm>

#include "controller/policy/ip.h"
#include "controller/policy/verdict.h"

namespace bottle::policy {
namespace {

// IANA special-purpose registries (RFC 6890 and later), multicast, reserved.
constexpr std::string_view kNotPublic4[] = {
    "0.0.0.0/8",      "10.0.0.0/8",     "100.64.0.0/10",   "127.0.0.0/8",     "169.254.0.0/16",
    "172.16.0.0/12",  "192.0.0.0/24",   "192.0.2.0/24",    "192.31.196.0/24", "192.52.193.0/24",
    "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15",   "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/4",    "240.0.0.0/4"};
// Only 2000::/3 is global unicast; these parts of it are not, or carry an IPv4 address (Teredo,
// 6to4).
constexpr std::string_view kNotPublic6[] = {"2001::/23", "2001:db8::/32", "2002::/16",
                                            "2620:4f:8000::/48", "3fff::/20"};
// Credential services of clouds. A broad allowCIDRs does not open them: they have to be named
// alone.
constexpr std::string_view kMetadata[] = {"169.254.169.254", "169.254.170.2",   "169.254.170.23",
                                          "168.63.129.16",   "100.100.100.200", "192.0.0.192",
                                          "fd00:ec2::254",   "fd00:ec2::23",    "fd20:ce::254"};

bool in(std::string_view cidr, const Ip& ip) {
  const auto parsed = parse_cidr(cidr);
  return parsed && cidr_contains(*parsed, ip);
}

template <class List>
bool in_any(const List& list, const Ip& ip) {
  return std::any_of(std::begin(list), std::end(list),
                     [&](std::string_view cidr) { return in(cidr, ip); });
}

bool is_public(const Ip& ip) {
  return ip.v6 ? in("2000::/3", ip) && !in_any(kNotPublic6, ip) : !in_any(kNotPublic4, ip);
}

bool allowed(const RouteTable& table, const Ip& ip) {
  if (in_any(kMetadata, ip)) {
    const std::string alone = ip_text(ip) + (ip.v6 ? "/128" : "/32");
    return std::find(table.allow_cidrs.begin(), table.allow_cidrs.end(), alone) !=
           table.allow_cidrs.end();
  }
  return is_public(ip) || in_any(table.allow_cidrs, ip);
}

}  // namespace

bool address_allowed(const RouteTable& table, std::string_view address) {
  const auto ip = parse_ip(address);
  if (!ip || ip_text(*ip) != address) return false;
  // The kernel dials these as IPv4, past any rule for IPv6.
  if (ip->v6 && in("::/96", *ip)) return in_any(table.allow_cidrs, *ip) && address == "::1";
  if (ip->v6 && in("::ffff:0:0/96", *ip)) return false;
  // NAT64 (RFC 6052): the range has to be allowed and so has the address inside.
  if (ip->v6 && in("64:ff9b::/96", *ip)) {
    Ip inner;
    std::copy(ip->bytes.begin() + 12, ip->bytes.end(), inner.bytes.begin());
    return in_any(table.allow_cidrs, *ip) && allowed(table, inner);
  }
  return allowed(table, *ip);
}

}  // namespace bottle::policy
