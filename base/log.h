// The one logger: JSON lines on stderr, one object a line: {"ts":RFC 3339 with milliseconds,"level":…,"msg":…,fields…}. Any thread; a line
// is written whole. Never give it a body, a token or a key: there is no way to redact what was already written.
#ifndef BASE_LOG_H_
#define BASE_LOG_H_

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include "base/status.h"

namespace bottle::log {

enum class Level { kDebug, kInfo, kWarn, kError };

struct Field {
  std::string_view key;
  std::string text;
  bool is_number = false;  // `text` is written without quotes
  Field(std::string_view k, std::string_view v) : key(k), text(v) {}
  Field(std::string_view k, const std::string& v) : key(k), text(v) {}
  Field(std::string_view k, const char* v) : key(k), text(v) {}
  Field(std::string_view k, int64_t v) : key(k), text(std::to_string(v)), is_number(true) {}
  Field(std::string_view k, int v) : Field(k, static_cast<int64_t>(v)) {}
  Field(std::string_view k, size_t v) : key(k), text(std::to_string(v)), is_number(true) {}
  Field(std::string_view k, double v);
};

void set_level(Level level);  // default kInfo
bool parse_level(std::string_view text, Level* level);  // debug, info, warn, error

void write(Level level, std::string_view msg, std::initializer_list<Field> fields = {});
inline void debug(std::string_view msg, std::initializer_list<Field> f = {}) { write(Level::kDebug, msg, f); }
inline void info(std::string_view msg, std::initializer_list<Field> f = {}) { write(Level::kInfo, msg, f); }
inline void warn(std::string_view msg, std::initializer_list<Field> f = {}) { write(Level::kWarn, msg, f); }
inline void error(std::string_view msg, std::initializer_list<Field> f = {}) { write(Level::kError, msg, f); }

// While it lives, every line of this thread carries the field: {"reconcileID":…}, {"bottle":"dev/hello"}.
class Scope {
 public:
  Scope(std::string_view key, std::string value);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
};

}  // namespace bottle::log

#endif  // BASE_LOG_H_
