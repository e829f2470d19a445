// IP addresses and ranges as bytes. Internal to controller/policy.
#ifndef CONTROLLER_POLICY_IP_H_
#define CONTROLLER_POLICY_IP_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace bottle::policy {

struct Ip {
  bool v6 = false;
  std::array<uint8_t, 16> bytes{};  // IPv4: the first four
};

struct Cidr {
  Ip base;
  int bits = 0;
};

// Strict: dotted quad without leading zeros, or RFC 4291 text without zone id or brackets.
std::optional<Ip> parse_ip(std::string_view text);
std::string ip_text(const Ip& ip);  // IPv6 as RFC 5952

// As parse_ip with "/bits"; host bits are not judged.
std::optional<Cidr> parse_cidr(std::string_view text);
bool cidr_contains(const Cidr& cidr, const Ip& ip);

}  // namespace bottle::policy

#endif  // CONTROLLER_POLICY_IP_H_
