#include "controller/bottle/quantity.h"

#include <cctype>
#include <charconv>
#include <cstdint>
#include <limits>

namespace bottle {
namespace {

// GCC and clang extension; 15 digits times 2^60 times 1000 fits.
__extension__ typedef __int128 Wide;

constexpr struct {
  std::string_view suffix;
  int64_t unit;
} kSuffixes[] = {
    {"", 1},
    {"k", 1000},
    {"M", 1000'000},
    {"G", 1000'000'000},
    {"T", 1000'000'000'000},
    {"P", 1000'000'000'000'000},
    {"E", 1000'000'000'000'000'000},
    {"Ki", int64_t{1} << 10},
    {"Mi", int64_t{1} << 20},
    {"Gi", int64_t{1} << 30},
    {"Ti", int64_t{1} << 40},
    {"Pi", int64_t{1} << 50},
    {"Ei", int64_t{1} << 60},
};

}  // namespace

Result<int64_t> parse_quantity(std::string_view text, int64_t scale) {
  const Status bad(Code::kInvalid, "not a quantity, such as 512Mi, 10Gi, 500m or 2");
  Wide value = 0, divisor = 1;
  size_t i = 0, digits = 0;
  bool dot = false;
  for (; i < text.size(); ++i) {
    if (text[i] == '.' && !dot) {
      dot = true;
    } else if (std::isdigit(static_cast<unsigned char>(text[i]))) {
      if (++digits > 15) return bad;
      value = value * 10 + (text[i] - '0');
      if (dot) divisor *= 10;
    } else {
      break;
    }
  }
  if (digits == 0) return bad;
  std::string_view suffix = text.substr(i);
  int64_t unit = 0;
  if (suffix == "m") {
    unit = 1;
    divisor *= 1000;
  } else if (suffix.size() > 1 && (suffix[0] == 'e' || suffix[0] == 'E') && suffix != "Ei") {
    int exponent = 0;
    std::string_view number = suffix.substr(1);
    auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), exponent);
    if (error != std::errc() || end != number.data() + number.size() || exponent < 0 || exponent > 18) return bad;
    for (unit = 1; exponent > 0; --exponent) unit *= 10;
  } else {
    for (const auto& entry : kSuffixes) {
      if (suffix == entry.suffix) unit = entry.unit;
    }
  }
  if (unit == 0) return bad;
  value = (value * unit * scale + divisor - 1) / divisor;
  if (value <= 0) return Status(Code::kInvalid, "must be more than zero");
  if (value > std::numeric_limits<int64_t>::max()) return Status(Code::kInvalid, "is too large");
  return static_cast<int64_t>(value);
}

}  // namespace bottle
