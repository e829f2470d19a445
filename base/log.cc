#include "base/log.h"

#include <poll.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

namespace bottle::log {
namespace {

// Words of an API server or of an engine may be long and are repeated with every retry: a value ends here.
constexpr size_t kMaxValue = 8192;

std::atomic<Level> g_level{Level::kInfo};

std::vector<std::pair<std::string, std::string>>& scopes() {
  thread_local std::vector<std::pair<std::string, std::string>> fields;
  return fields;
}

std::string_view level_name(Level level) {
  switch (level) {
    case Level::kDebug: return "debug";
    case Level::kInfo: return "info";
    case Level::kWarn: return "warn";
    case Level::kError: return "error";
  }
  return "error";
}

// With quotes; bytes that are no UTF-8 become U+FFFD, so that a line is JSON whatever somebody else's message holds.
std::string json_text(std::string_view text) {
  bool cut = text.size() > kMaxValue;
  if (cut) {
    size_t end = kMaxValue;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
    text = text.substr(0, end);
  }
  std::string value(text);
  if (cut) value += "…";
  return nlohmann::json(std::move(value)).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string timestamp() {
  timeval now{};
  ::gettimeofday(&now, nullptr);
  tm parts{};
  ::gmtime_r(&now.tv_sec, &parts);
  char seconds[40], all[60];
  std::strftime(seconds, sizeof seconds, "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(all, sizeof all, "%s.%03dZ", seconds, static_cast<int>(now.tv_usec / 1000));
  return all;
}

// Under one lock, because write(2) to a pipe is only atomic up to PIPE_BUF. A reader that has stalled for a second loses the line: the
// controller must not stop because nobody takes its log.
void put(std::string_view line) {
  static std::mutex mutex;
  std::lock_guard<std::mutex> lock(mutex);
  while (!line.empty()) {
    ssize_t n = ::write(STDERR_FILENO, line.data(), line.size());
    if (n >= 0) {
      line.remove_prefix(static_cast<size_t>(n));
    } else if (errno == EAGAIN) {
      pollfd wait{STDERR_FILENO, POLLOUT, 0};
      if (::poll(&wait, 1, 1000) <= 0) return;
    } else if (errno != EINTR) {
      return;
    }
  }
}

}  // namespace

Field::Field(std::string_view k, double v) : key(k), is_number(true) {
  char digits[40];
  // JSON has no infinity and no NaN.
  text = std::isfinite(v) ? std::string(digits, std::to_chars(digits, digits + sizeof digits, v).ptr) : "null";
}

void set_level(Level level) { g_level.store(level, std::memory_order_relaxed); }

bool parse_level(std::string_view text, Level* level) {
  for (Level l : {Level::kDebug, Level::kInfo, Level::kWarn, Level::kError}) {
    if (text == level_name(l)) {
      *level = l;
      return true;
    }
  }
  return false;
}

void write(Level level, std::string_view msg, std::initializer_list<Field> fields) {
  if (level < g_level.load(std::memory_order_relaxed)) return;
  std::string line = "{\"ts\":\"" + timestamp() + "\",\"level\":\"";
  line += level_name(level);
  line += "\",\"msg\":" + json_text(msg);
  auto named = [&](std::string_view key) {
    for (const auto& f : fields) {
      if (f.key == key) return true;
    }
    return false;
  };
  // A key comes once: the line's own field wins over a scope's, an inner scope over an outer one.
  const auto& outer = scopes();
  for (size_t i = 0; i < outer.size(); ++i) {
    bool hidden = named(outer[i].first);
    for (size_t j = i + 1; j < outer.size() && !hidden; ++j) hidden = outer[j].first == outer[i].first;
    if (!hidden) line += "," + json_text(outer[i].first) + ":" + json_text(outer[i].second);
  }
  for (const auto& f : fields) line += "," + json_text(f.key) + ":" + (f.is_number ? f.text : json_text(f.text));
  line += "}\n";
  put(line);
}

Scope::Scope(std::string_view key, std::string value) { scopes().emplace_back(std::string(key), std::move(value)); }
Scope::~Scope() { scopes().pop_back(); }

}  // namespace bottle::log
