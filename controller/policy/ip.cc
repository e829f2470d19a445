#include "controller/policy/ip.h"

#include <arpa/inet.h>

#include "controller/policy/number.h"

namespace bottle::policy {

std::optional<Ip> parse_ip(std::string_view text) {
  if (text.empty() || text.size() >= INET6_ADDRSTRLEN) return std::nullopt;
  if (text.find_first_not_of("0123456789abcdefABCDEF.:") != text.npos) return std::nullopt;
  Ip ip;
  ip.v6 = text.find(':') != text.npos;
  // inet_pton, unlike inet_aton, knows no octal, hexadecimal or short forms.
  if (inet_pton(ip.v6 ? AF_INET6 : AF_INET, std::string(text).c_str(), ip.bytes.data()) != 1)
    return std::nullopt;
  return ip;
}

std::string ip_text(const Ip& ip) {
  char buffer[INET6_ADDRSTRLEN];
  return inet_ntop(ip.v6 ? AF_INET6 : AF_INET, ip.bytes.data(), buffer, sizeof(buffer)) ? buffer
                                                                                        : "";
}

std::optional<Cidr> parse_cidr(std::string_view text) {
  const size_t slash = text.find('/');
  auto ip = parse_ip(text.substr(0, slash));
  if (!ip) return std::nullopt;
  const int max = ip->v6 ? 128 : 32;
  if (slash == text.npos) return Cidr{*ip, max};
  auto bits = parse_number(text.substr(slash + 1), max);
  if (!bits) return std::nullopt;
  return Cidr{*ip, static_cast<int>(*bits)};
}

bool cidr_contains(const Cidr& cidr, const Ip& ip) {
  if (cidr.base.v6 != ip.v6) return false;
  for (int i = 0; i < cidr.bits; ++i)
    if (((cidr.base.bytes[i / 8] ^ ip.bytes[i / 8]) >> (7 - i % 8)) & 1) return false;
  return true;
}

}  // namespace bottle::policy
