// Credentials written out where only a reference belongs, told by their well-known shapes. Pure; any thread.
#ifndef CONTROLLER_BOTTLE_LITERAL_SECRET_H_
#define CONTROLLER_BOTTLE_LITERAL_SECRET_H_

#include <string_view>

namespace bottle {

// What the text seems to contain ("a GitHub token"), or empty. Errs on the side of a finding.
std::string_view secret_kind(std::string_view text);
inline bool looks_like_secret(std::string_view text) { return !secret_kind(text).empty(); }

}  // namespace bottle

#endif  // CONTROLLER_BOTTLE_LITERAL_SECRET_H_
