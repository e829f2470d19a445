#include "controller/kube/json_slice.h"

#include <algorithm>
#include <array>

namespace bottle::kube {
namespace {

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

// The length of the string that starts at text[0] == '"', with both quotes; 0 when it has no end.
size_t string_length(std::string_view text) {
  for (size_t i = 1; i < text.size(); ++i) {
    if (text[i] == '"') return i + 1;
    if (text[i] == '\\') ++i;
  }
  return 0;
}

}  // namespace

void JsonSlice::space() {
  size_t n = 0;
  while (n < rest_.size() && is_space(rest_[n])) ++n;
  rest_.remove_prefix(n);
}

bool JsonSlice::at_end() {
  space();
  return rest_.empty();
}

bool JsonSlice::enter(char open) {
  space();
  if (peek() != open) return fail();
  rest_.remove_prefix(1);
  first_ = true;
  return true;
}

// Past a comma to the next part, or past `close`: false.
bool JsonSlice::next_part(char close) {
  if (failed_) return false;
  space();
  if (peek() == close) {
    rest_.remove_prefix(1);
    return false;
  }
  if (!first_) {
    if (peek() != ',') return fail();
    rest_.remove_prefix(1);
    space();
  }
  first_ = false;
  return true;
}

bool JsonSlice::string(std::string_view* out) {
  if (peek() != '"') return fail();
  const size_t n = string_length(rest_);
  if (n == 0) return fail();
  *out = rest_.substr(0, n);
  rest_.remove_prefix(n);
  return true;
}

bool JsonSlice::value(std::string_view* out) {
  if (peek() == '"') return string(out);
  std::array<char, kMaxDepth> closers;
  size_t depth = 0, i = 0;
  for (; i < rest_.size(); ++i) {
    const char c = rest_[i];
    if (c == '"') {
      const size_t n = string_length(rest_.substr(i));
      if (n == 0) return fail();
      i += n - 1;
    } else if (c == '{' || c == '[') {
      if (depth == closers.size()) return fail();
      closers[depth++] = c == '{' ? '}' : ']';
    } else if (c == '}' || c == ']') {
      if (depth == 0) break;  // closes what we are in: the value was a number or a word
      if (closers[--depth] != c) return fail();
      if (depth == 0) {
        ++i;
        break;
      }
    } else if (depth == 0 && (c == ',' || is_space(c))) {
      break;
    }
  }
  if (i == 0 || depth != 0) return fail();
  *out = rest_.substr(0, i);
  rest_.remove_prefix(i);
  return true;
}

bool JsonSlice::next_field(std::string_view* key, std::string_view* out) {
  if (!next_part('}')) return false;
  if (!string(key)) return false;
  *key = key->substr(1, key->size() - 2);
  space();
  if (peek() != ':') return fail();
  rest_.remove_prefix(1);
  space();
  return value(out);
}

bool JsonSlice::next_element(std::string_view* out) { return next_part(']') && value(out); }

bool compact_json(std::string_view value, std::string* out) {
  out->clear();
  std::string text;
  text.reserve(value.size());
  size_t depth = 0;
  for (size_t i = 0; i < value.size(); ++i) {
    const char c = value[i];
    if (is_space(c)) continue;
    if (c == '"') {
      const size_t n = string_length(value.substr(i));
      if (n == 0) return false;
      text.append(value.substr(i, n));
      i += n - 1;
      continue;
    }
    if (c == '{' || c == '[') {
      if (++depth > kMaxDepth) return false;
    } else if (c == '}' || c == ']') {
      if (depth-- == 0) return false;
    }
    text += c;
  }
  if (depth != 0) return false;
  text.shrink_to_fit();
  *out = std::move(text);
  return true;
}

}  // namespace bottle::kube
