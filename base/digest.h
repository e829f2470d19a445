// Digests as text.
#ifndef BASE_DIGEST_H_
#define BASE_DIGEST_H_

#include <string>
#include <string_view>

namespace bottle {

// SHA-256 (FIPS 180-4) as 64 lower-case hex digits; empty only when the library has no SHA-256.
std::string sha256_hex(std::string_view bytes);

}  // namespace bottle

#endif  // BASE_DIGEST_H_
