#include "base/encoding.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

namespace bottle {
namespace {

bool unreserved(unsigned char c) {  // not isalnum, which asks the locale
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
}

const unsigned char* raw(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

}  // namespace

std::string hex(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(2 * bytes.size());
  for (unsigned char c : bytes) {
    out += kDigits[c >> 4];
    out += kDigits[c & 15];
  }
  return out;
}

void append_base64(std::string& to, std::string_view bytes) {
  const size_t from = to.size();
  to.resize(from + 4 * ((bytes.size() + 2) / 3) + 1);  // OpenSSL ends it with a zero byte
  const int n = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(to.data() + from), raw(bytes), static_cast<int>(bytes.size()));
  to.resize(from + static_cast<size_t>(n));
}

std::string base64(std::string_view bytes) {
  std::string out;
  append_base64(out, bytes);
  return out;
}

std::optional<std::string> decode_base64(std::string_view text) {
  std::string clean;
  clean.reserve(text.size());
  for (char c : text)
    if (c != '\n' && c != '\r' && c != ' ') clean += c;
  const size_t padding = clean.ends_with("==") ? 2 : clean.ends_with("=") ? 1 : 0;
  const bool shape = clean.size() % 4 == 0 && clean.find('=') >= clean.size() - padding;
  std::string out(clean.size() / 4 * 3 + 1, '\0');
  const int n = shape ? EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()), raw(clean), static_cast<int>(clean.size())) : -1;
  OPENSSL_cleanse(clean.data(), clean.size());
  if (n < 0) {
    OPENSSL_cleanse(out.data(), out.size());
    return std::nullopt;
  }
  out.resize(static_cast<size_t>(n) - padding);  // EVP_DecodeBlock counts the padding as zero bytes
  return out;
}

void append_percent(std::string& to, unsigned char byte) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  to += '%';
  to += kDigits[byte >> 4];
  to += kDigits[byte & 15];
}

std::string percent_encode(std::string_view text) {
  std::string out;
  for (unsigned char c : text) {
    if (unreserved(c)) {
      out += static_cast<char>(c);
    } else {
      append_percent(out, c);
    }
  }
  return out;
}

}  // namespace bottle
