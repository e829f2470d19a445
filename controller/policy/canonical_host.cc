// The host half of canonical.h.
#include <algorithm>
#include <vector>

#include "controller/policy/canonical.h"
#include "controller/policy/ip.h"

namespace bottle::policy {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_lower(char c) { return c >= 'a' && c <= 'z'; }

Result<std::string> bad_host(std::string why) {
  return {Code::kInvalid, "host: " + std::move(why)};
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

// RFC 3492 §6.2. A label that is no Punycode, or that hides plain ASCII or a full-width form of it,
// has a second spelling somewhere, and two spellings are what a policy must not have.
bool valid_punycode(std::string_view text) {
  uint32_t n = 128, i = 0, bias = 72;
  const size_t dash = text.rfind('-');
  size_t length = dash == text.npos ? 0 : dash;
  size_t in = dash == text.npos ? 0 : dash + 1;
  if (dash == 0 || in >= text.size()) return false;
  for (bool first = true; in < text.size(); first = false) {
    const uint32_t old = i;
    for (uint32_t w = 1, k = 36;; k += 36) {
      if (in >= text.size()) return false;
      const char c = text[in++];
      const uint32_t digit = is_lower(c) ? c - 'a' : is_digit(c) ? c - '0' + 26 : 36;
      if (digit >= 36 || digit > (UINT32_MAX - i) / w) return false;
      i += digit * w;
      const uint32_t t = k <= bias ? 1 : k >= bias + 26 ? 26 : k - bias;
      if (digit < t) break;
      if (w > UINT32_MAX / (36 - t)) return false;
      w *= 36 - t;
    }
    ++length;
    uint32_t delta = first ? (i - old) / 700 : (i - old) / 2;
    delta += delta / static_cast<uint32_t>(length);
    uint32_t k = 0;
    for (; delta > 455; k += 36) delta /= 35;
    bias = k + 36 * delta / (delta + 38);
    if (i / length > UINT32_MAX - n) return false;
    n += static_cast<uint32_t>(i / length);
    i = static_cast<uint32_t>(i % length) + 1;
    if (n > 0x10FFFF || (n >= 0xD800 && n <= 0xDFFF)) return false;
    if (n < 0xA1 || n == 0x3002 || (n >= 0xFF00 && n <= 0xFFEF) || (n >= 0x2000 && n <= 0x206F))
      return false;
  }
  return true;
}

// What a browser or inet_aton would take for an IPv4 address: the last label is a number.
bool ends_in_number(std::string_view label) {
  if (std::all_of(label.begin(), label.end(), is_digit)) return true;
  return label.size() >= 2 && label[0] == '0' && label[1] == 'x' &&
         label.find_first_not_of("0123456789abcdef", 2) == label.npos;
}

const char* label_error(std::string_view label) {
  if (label.empty()) return "empty label (two dots, or a dot at an end)";
  if (label.size() > 63) return "a label is longer than 63 characters";
  if (label.front() == '-' || label.back() == '-') return "a label begins or ends with '-'";
  for (char c : label)
    if (!is_lower(c) && !is_digit(c) && c != '-')
      return "a character other than letters, digits, '-' and '.'";
  if (label.substr(0, 4) == "xn--" && !valid_punycode(label.substr(4)))
    return "a label is not valid Punycode (xn--)";
  return nullptr;
}

}  // namespace

Result<std::string> canonical_host(std::string_view text) {
  if (text.empty()) return bad_host("empty");
  if (text.size() > 255) return bad_host("longer than 253 characters");
  const bool bracketed = text.front() == '[';
  if (bracketed) {
    if (text.size() < 4 || text.back() != ']') return bad_host("'[' without ']' at the end");
    text = text.substr(1, text.size() - 2);
  }
  if (bracketed || text.find(':') != text.npos) {
    auto ip = parse_ip(text);
    if (!ip || !ip->v6)
      return bad_host("not an IPv6 address (no port, zone id or user info belongs here)");
    return ip_text(*ip);
  }
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80)
      return bad_host("characters outside ASCII; write the name with its A-labels (xn--…)");
    if (byte <= 0x20 || byte == 0x7f) return bad_host("a space or control character");
  }
  std::string host = lower(text);
  if (host.back() == '.') host.pop_back();
  if (host.empty() || host.size() > 253) return bad_host("empty, or longer than 253 characters");
  for (size_t begin = 0;;) {
    const size_t dot = host.find('.', begin);
    const std::string_view label =
        std::string_view(host).substr(begin, dot == host.npos ? host.npos : dot - begin);
    if (const char* why = label_error(label)) return bad_host(why);
    if (dot == host.npos) {
      if (!ends_in_number(label)) return host;
      break;
    }
    begin = dot + 1;
  }
  if (!parse_ip(host))
    return bad_host("an IPv4 address is four decimal numbers of 0 to 255 without leading zeros");
  return host;
}

Result<std::string> canonical_host_pattern(std::string_view text) {
  if (text.find('*') == text.npos) return canonical_host(text);
  if (text.substr(0, 2) != "*." || text.find('*', 1) != text.npos)
    return bad_host("'*' stands only at the beginning, as in *.example.org");
  auto suffix = canonical_host(text.substr(2));
  if (!suffix) return suffix;
  if (parse_ip(*suffix)) return bad_host("'*.' before an IP address means nothing");
  if (suffix->find('.') == suffix->npos)
    return bad_host("'*.' needs at least two labels after it, as in *.example.org");
  if (suffix->size() > 251) return bad_host("longer than 253 characters");
  return "*." + *suffix;
}

bool host_matches(std::string_view pattern, std::string_view host) {
  if (pattern.substr(0, 2) != "*.") return pattern == host;
  const std::string_view suffix = pattern.substr(1);
  return host.size() > suffix.size() && host.substr(host.size() - suffix.size()) == suffix;
}

Result<std::string> canonical_cidr(std::string_view text) {
  auto cidr = parse_cidr(text);
  if (!cidr) return {Code::kInvalid, "CIDR: not an address range such as 10.0.0.0/8 or fd00::/8"};
  const int max = cidr->base.v6 ? 128 : 32;
  for (int i = cidr->bits; i < max; ++i)
    if (cidr->base.bytes[i / 8] >> (7 - i % 8) & 1)
      return {Code::kInvalid,
              "CIDR: bits are set behind the prefix length; write the first address of the range"};
  if (cidr->base.v6 && cidr_contains(*parse_cidr("::ffff:0:0/96"), cidr->base))
    return {Code::kInvalid, "CIDR: an IPv4 range in IPv6 clothes; write it as IPv4"};
  return ip_text(cidr->base) + "/" + std::to_string(cidr->bits);
}

}  // namespace bottle::policy
