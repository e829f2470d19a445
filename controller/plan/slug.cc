#include <algorithm>

#include "base/digest.h"
#include "controller/plan/plan.h"

namespace bottle {

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
  return slug + "-" + sha256_hex(name).substr(0, kHash);
}

}  // namespace bottle
