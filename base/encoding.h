// Bytes as text and back: hex, base64 (RFC 4648, section 4) and percent-encoding (RFC 3986, section 2). Pure; any thread.
#ifndef BASE_ENCODING_H_
#define BASE_ENCODING_H_

#include <optional>
#include <string>
#include <string_view>

namespace bottle {

std::string hex(std::string_view bytes);  // lower case

std::string base64(std::string_view bytes);
// Appends; when `to` has the room, no copy of it is left behind that would have to be wiped.
void append_base64(std::string& to, std::string_view bytes);
// Blanks and line ends are skipped; anything else that is not base64, or padding where none belongs, is nothing. No copy of the text is left behind.
std::optional<std::string> decode_base64(std::string_view text);

// "%2F": what is not unreserved (RFC 3986, section 2.3), whatever the locale says.
std::string percent_encode(std::string_view text);
void append_percent(std::string& to, unsigned char byte);  // one byte as "%2F"

}  // namespace bottle

#endif  // BASE_ENCODING_H_
