// Decimal numbers in the one spelling that everybody reads alike. Internal to controller/policy.
#ifndef CONTROLLER_POLICY_NUMBER_H_
#define CONTROLLER_POLICY_NUMBER_H_

#include <cstdint>
#include <optional>
#include <string_view>

namespace bottle::policy {

// Digits only, no leading zero, at most `max`.
inline std::optional<uint32_t> parse_number(std::string_view text, uint32_t max) {
  if (text.empty() || text.size() > 9 || (text[0] == '0' && text.size() > 1)) return std::nullopt;
  uint32_t n = 0;
  for (char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    n = n * 10 + static_cast<uint32_t>(c - '0');
  }
  if (n > max) return std::nullopt;
  return n;
}

}  // namespace bottle::policy

#endif  // CONTROLLER_POLICY_NUMBER_H_
