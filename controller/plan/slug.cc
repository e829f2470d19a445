#include <openssl/evp.h>

#include <memory>

#include "controller/plan/internal.h"

namespace bottle {

std::string plan_internal::sha256_hex(std::string_view bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha256(), nullptr) != 1) return {};
  static const char* hex = "0123456789abcdef";
  std::string out = "sha256:";
  for (unsigned int i = 0; i < size; ++i) {
    out += hex[digest[i] >> 4];
    out += hex[digest[i] & 15];
  }
  return out;
}

std::string slug_of(std::string_view name) {
  constexpr size_t kMax = 40, kHash = 8;
  std::string slug;
  for (char c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    const bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    if (plain) {
      slug += c;
    } else if (!slug.empty() && slug.back() != '-') {
      slug += '-';
    }
  }
  while (!slug.empty() && slug.back() == '-') slug.pop_back();
  if (slug == name && !slug.empty() && slug.size() <= kMax) return slug;
  // Two names that differ must not meet in one slug, so what was lost comes back as a hash.
  if (slug.empty()) slug = "bottle";
  slug.resize(std::min(slug.size(), kMax - kHash - 1));
  while (slug.back() == '-') slug.pop_back();
  return slug + "-" + plan_internal::sha256_hex(name).substr(7, kHash);
}

}  // namespace bottle
