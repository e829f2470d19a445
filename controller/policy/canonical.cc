// The target half of canonical.h, and the small names. Hosts: canonical_host.cc.
#include "controller/policy/canonical.h"

#include <optional>
#include <vector>

namespace bottle::policy {
namespace {

constexpr size_t kMaxTarget = 16 * 1024;

bool is_alnum(unsigned char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}
bool is_unreserved(unsigned char c) {
  return is_alnum(c) || c == '-' || c == '.' || c == '_' || c == '~';
}
// pchar of RFC 3986 without '%' and without ';', which starts the parameters that servers strip
// before matching.
bool is_plain(unsigned char c) {
  return is_unreserved(c) || std::string_view("!$&'()*+,=:@").find(c) != std::string_view::npos;
}
bool is_token(unsigned char c) {
  return is_alnum(c) || std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

int hex_value(unsigned char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

void append_escape(std::string& out, unsigned char c) {
  constexpr char kHex[] = "0123456789ABCDEF";
  out += '%';
  out += kHex[c >> 4];
  out += kHex[c & 15];
}

Status bad(const char* why) {
  return Status(Code::kInvalid, std::string("request target: ") + why);
}

// The byte that begins at text[i], which is a '%'; nothing if the escape is not one.
std::optional<unsigned char> escape_at(std::string_view text, size_t i) {
  if (i + 2 >= text.size()) return std::nullopt;
  const int high = hex_value(text[i + 1]), low = hex_value(text[i + 2]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<unsigned char>(high * 16 + low);
}

// Checks a stream of bytes for well-formed UTF-8 (RFC 3629: no overlong forms, surrogates or more
// than U+10FFFF) and for the C1 controls.
class Utf8Check {
 public:
  bool feed(unsigned char c) {
    if (left_ == 0) {
      if (c < 0x80) return true;
      low_ = 0x80, high_ = 0xBF;
      if (c >= 0xC2 && c <= 0xDF)
        left_ = 1, low_ = c == 0xC2 ? 0xA0 : 0x80;
      else if (c >= 0xE0 && c <= 0xEF)
        left_ = 2, low_ = c == 0xE0 ? 0xA0 : 0x80, high_ = c == 0xED ? 0x9F : 0xBF;
      else if (c >= 0xF0 && c <= 0xF4)
        left_ = 3, low_ = c == 0xF0 ? 0x90 : 0x80, high_ = c == 0xF4 ? 0x8F : 0xBF;
      else
        return false;
      return true;
    }
    if (c < low_ || c > high_) return false;
    low_ = 0x80, high_ = 0xBF;
    --left_;
    return true;
  }
  bool complete() const { return left_ == 0; }

 private:
  int left_ = 0;
  unsigned char low_ = 0x80, high_ = 0xBF;
};

// Characters only: decodes what is unreserved, encodes what has to be, refuses what two servers
// read in two ways.
Status spell_path(std::string_view raw, EncodedSlash encoded_slash, std::string& out) {
  Utf8Check utf8;
  for (size_t i = 0; i < raw.size(); ++i) {
    unsigned char c = raw[i];
    const bool escaped = c == '%';
    if (escaped) {
      auto byte = escape_at(raw, i);
      if (!byte) return bad("'%' without two hexadecimal digits in the path");
      c = *byte;
      i += 2;
    }
    if (!utf8.feed(c)) return bad("malformed or overlong UTF-8, or a C1 control, in the path");
    if (c == 0) return bad("a NUL in the path");
    if (c < 0x20 || c == 0x7f) return bad("a control character in the path");
    if (c == ' ' && !escaped) return bad("a space in the path");
    if (c == '\\') return bad("a backslash in the path");
    if (c == ';') return bad("';' parameters in the path");
    if (c == '%') return bad("an encoded '%' (double encoding) in the path");
    if (c == '/' && escaped) {
      if (encoded_slash == EncodedSlash::kRefuse)
        return bad(
            "an encoded slash (%2F) in the path; the route can allow it with encodedSlash: allow");
      append_escape(out, c);
    } else if (is_unreserved(c) || c == '/' || (is_plain(c) && !escaped)) {
      out += static_cast<char>(c);
    } else {
      append_escape(out, c);
    }
  }
  if (!utf8.complete()) return bad("malformed UTF-8 in the path");
  return Status::ok();
}

// Some servers decode %2F before they resolve dots, so what would then be a dot segment or "//" is
// refused, not guessed.
Status check_encoded_slashes(std::string_view segment) {
  if (segment.find("%2F") == segment.npos) return Status::ok();
  for (size_t begin = 0;;) {
    const size_t end = segment.find("%2F", begin);
    const std::string_view part = segment.substr(begin, end == segment.npos ? end : end - begin);
    if (part.empty() || part == "." || part == "..")
      return bad("a dot segment or an empty segment beside an encoded slash in the path");
    if (end == segment.npos) return Status::ok();
    begin = end + 3;
  }
}

// RFC 3986 §5.2.4, but ".." above the root is refused.
Status resolve(std::string_view spelled, std::string& out) {
  std::vector<std::string_view> kept;
  bool folder = false;  // does the result end in '/'?
  for (size_t begin = 1; begin <= spelled.size();) {
    size_t end = spelled.find('/', begin);
    const bool last = end == spelled.npos;
    if (last) end = spelled.size();
    const std::string_view segment = spelled.substr(begin, end - begin);
    if (segment.empty() && !last) return bad("an empty segment (\"//\") in the path");
    if (Status s = check_encoded_slashes(segment); !s) return s;
    folder = segment.empty() || segment == "." || segment == "..";
    if (segment == "..") {
      if (kept.empty()) return bad("\"..\" above the root");
      kept.pop_back();
    } else if (!folder) {
      kept.push_back(segment);
    }
    begin = end + 1;
  }
  for (std::string_view segment : kept) (out += '/') += segment;
  if (folder || kept.empty()) out += '/';
  return Status::ok();
}

Status spell_query(std::string_view raw, std::string& out) {
  Utf8Check utf8;
  for (size_t i = 0; i < raw.size(); ++i) {
    const unsigned char c = raw[i];
    if (c == '%') {
      auto byte = escape_at(raw, i);
      if (!byte) return bad("'%' without two hexadecimal digits in the query");
      if (*byte == 0) return bad("a NUL in the query");
    }
    if (c <= 0x20 || c == 0x7f) return bad("a space or control character in the query");
    if (!utf8.feed(c)) return bad("malformed UTF-8 in the query");
    if (c < 0x80)
      out += static_cast<char>(c);
    else
      append_escape(out, c);
  }
  if (!utf8.complete()) return bad("malformed UTF-8 in the query");
  return Status::ok();
}

}  // namespace

Result<CanonicalTarget> canonical_target(std::string_view target, EncodedSlash encoded_slash) {
  if (target.empty() || target[0] != '/') return bad("does not begin with '/'");
  if (target.size() > kMaxTarget) return bad("longer than 16 KiB");
  if (target.find('#') != target.npos) return bad("a fragment ('#')");
  const size_t mark = target.find('?');
  CanonicalTarget out;
  std::string spelled;
  if (Status s = spell_path(target.substr(0, mark), encoded_slash, spelled); !s) return s;
  if (Status s = resolve(spelled, out.path); !s) return s;
  if (mark != target.npos) {
    out.has_query = true;
    if (Status s = spell_query(target.substr(mark + 1), out.query); !s) return s;
  }
  if (out.path.size() + out.query.size() + out.has_query > kMaxTarget)
    return bad("longer than 16 KiB once encoded");
  return out;
}

Result<std::string> canonical_path_prefix(std::string_view text) {
  auto target = canonical_target(text, EncodedSlash::kAllow);
  if (!target)
    return Status(Code::kInvalid,
                  "path: " + target.status().message().substr(sizeof("request target: ") - 1));
  if (target->has_query) return {Code::kInvalid, "path: a query ('?') cannot be part of a path"};
  return std::move(target->path);
}

bool path_matches(std::string_view prefix, std::string_view path) {
  if (prefix.empty() || path.substr(0, prefix.size()) != prefix) return false;
  return prefix.back() == '/' || path.size() == prefix.size() || path[prefix.size()] == '/';
}

Result<std::string> canonical_method(std::string_view text) {
  if (text.empty() || text.size() > 32)
    return {Code::kInvalid, "method: empty or longer than 32 characters"};
  std::string out;
  for (unsigned char c : text) {
    if (!is_token(c)) return {Code::kInvalid, "method: a character that no HTTP method has"};
    out += static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  }
  if (out == "CONNECT" || out == "TRACE")
    return {Code::kInvalid, "method: " + out + " is never allowed"};
  return out;
}

Result<std::string> canonical_header_name(std::string_view text) {
  if (text.empty() || text.size() > 128)
    return {Code::kInvalid, "header: empty or longer than 128 characters"};
  std::string out;
  for (unsigned char c : text) {
    if (!is_token(c)) return {Code::kInvalid, "header: a character that no HTTP field name has"};
    out += static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  }
  return out;
}

}  // namespace bottle::policy
