#include "base/rfc3339.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

namespace bottle {
namespace {

// Exactly `n` digits at `at`; -1 when they are none.
int digits(std::string_view text, size_t at, size_t n) {
  if (text.size() < at + n) return -1;
  int value = 0;
  for (size_t i = at; i < at + n; ++i) {
    if (text[i] < '0' || text[i] > '9') return -1;
    value = value * 10 + (text[i] - '0');
  }
  return value;
}

struct Civil {
  int year, month, day, hour, minute, second;
};
Civil civil(int64_t unix_seconds) {
  int64_t days = unix_seconds / 86'400, rest = unix_seconds % 86'400;
  if (rest < 0) {
    rest += 86'400;
    --days;
  }
  const std::chrono::year_month_day ymd{std::chrono::sys_days(std::chrono::days(days))};
  return {int(ymd.year()), static_cast<int>(unsigned(ymd.month())), static_cast<int>(unsigned(ymd.day())),
          static_cast<int>(rest / 3600), static_cast<int>(rest / 60 % 60), static_cast<int>(rest % 60)};
}

}  // namespace

// RFC 3339 section 5.6; a fraction is dropped, a leap second is the second after.
int64_t parse_rfc3339(std::string_view text) {
  const int year = digits(text, 0, 4), month = digits(text, 5, 2), day = digits(text, 8, 2);
  const int hour = digits(text, 11, 2), minute = digits(text, 14, 2), second = digits(text, 17, 2);
  if (std::min({year, month, day, hour, minute, second}) < 0) return 0;
  if (text[4] != '-' || text[7] != '-' || (text[10] != 'T' && text[10] != 't') || text[13] != ':' || text[16] != ':') return 0;
  const std::chrono::year_month_day ymd{std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
                                        std::chrono::day(static_cast<unsigned>(day))};
  if (!ymd.ok() || hour > 23 || minute > 59 || second > 60) return 0;
  size_t at = 19;
  if (at < text.size() && text[at] == '.') {
    const size_t first = ++at;
    while (at < text.size() && text[at] >= '0' && text[at] <= '9') ++at;
    if (at == first) return 0;
  }
  int64_t offset = 0;
  const std::string_view zone = text.substr(at);
  if (zone != "Z" && zone != "z") {
    const int h = digits(zone, 1, 2), m = digits(zone, 4, 2);
    if (zone.size() != 6 || (zone[0] != '+' && zone[0] != '-') || zone[3] != ':' || h < 0 || h > 23 || m < 0 || m > 59) return 0;
    offset = (h * 60 + m) * (zone[0] == '-' ? -60 : 60);
  }
  const int64_t days = std::chrono::sys_days(ymd).time_since_epoch().count();
  return days * 86'400 + hour * 3600 + minute * 60 + second - offset;
}

std::string format_rfc3339(int64_t unix_seconds) {
  const Civil t = civil(unix_seconds);
  char text[64];
  std::snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02dZ", t.year, t.month, t.day, t.hour, t.minute, t.second);
  return text;
}

// Six digits, always: the API server refuses a MicroTime with fewer.
std::string format_rfc3339_micro(int64_t unix_micros) {
  int64_t seconds = unix_micros / 1'000'000, micros = unix_micros % 1'000'000;
  if (micros < 0) {
    micros += 1'000'000;
    --seconds;
  }
  const Civil t = civil(seconds);
  char text[64];
  std::snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", t.year, t.month, t.day, t.hour, t.minute, t.second, static_cast<int>(micros));
  return text;
}

}  // namespace bottle
