// Canonical hosts, ports, CIDRs and paths: the one spelling used for verdict, DNS, dial and injection.
// Pure; any thread. Errors are Code::kInvalid with a message fit for a person.
#ifndef CONTROLLER_POLICY_CANONICAL_H_
#define CONTROLLER_POLICY_CANONICAL_H_

#include <string>
#include <string_view>

#include "base/status.h"

namespace bottle::policy {

// RFC 1123 host name or IP address: lower case, no trailing dot, A-labels only, IPv4 in strict dotted quad,
// IPv6 as RFC 5952 without brackets (brackets are accepted on input). Legacy IPv4 spellings (octal, hex, one
// number), zone ids, user info and ports are refused.
Result<std::string> canonical_host(std::string_view text);

// As canonical_host, and "*.example.org": any depth below, not the apex; a bare "*" and "*.com" are refused.
Result<std::string> canonical_host_pattern(std::string_view text);

// True if a canonical host falls under a canonical pattern.
bool host_matches(std::string_view pattern, std::string_view host);

// "10.0.0.0/8" or "fd00::/8"; a bare address becomes /32 or /128. Host bits must be zero.
Result<std::string> canonical_cidr(std::string_view text);

enum class EncodedSlash { kRefuse, kAllow };

struct CanonicalTarget {
  std::string path;   // begins with '/', dot segments resolved, unreserved characters decoded, hex upper case
  std::string query;  // without '?', as sent (validated; raw UTF-8 escaped); empty and absent are told apart
  bool has_query = false;
  std::string str() const { return has_query ? path + "?" + query : path; }
};

// The origin-form request target (RFC 9112 §3.2.1) in its canonical form; this is what is judged AND what is sent
// upstream. Refused: NUL and controls (also encoded), '\' (also encoded), "//", ';' parameters, malformed or
// overlong UTF-8 (also encoded), bad percent escapes, encoded '%', '..' above the root, fragments, > 16 KiB,
// %2F unless kAllow (and then beside a dot or empty segment: some servers decode before they resolve).
Result<CanonicalTarget> canonical_target(std::string_view target, EncodedSlash encoded_slash);

// A path prefix of a route: canonical path, no query. "/v1/" covers what is below; "/v1" covers "/v1" and "/v1/…"
// but not "/v1x".
Result<std::string> canonical_path_prefix(std::string_view text);
bool path_matches(std::string_view prefix, std::string_view canonical_path);

// RFC 9110 token in upper case; CONNECT and TRACE are refused.
Result<std::string> canonical_method(std::string_view text);

// RFC 9110 field name in lower case.
Result<std::string> canonical_header_name(std::string_view text);

}  // namespace bottle::policy

#endif  // CONTROLLER_POLICY_CANONICAL_H_
