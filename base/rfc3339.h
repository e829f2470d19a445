// Points in time as text, always in UTC. Source: RFC 3339, section 5.6; Kubernetes' metav1.Time and MicroTime. Pure; any thread.
#ifndef BASE_RFC3339_H_
#define BASE_RFC3339_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace bottle {

int64_t parse_rfc3339(std::string_view text);           // Unix seconds; 0 when it is none
std::string format_rfc3339(int64_t unix_seconds);       // "2026-11-24T08:25:57Z"
std::string format_rfc3339_micro(int64_t unix_micros);  // with six digits of a fraction

}  // namespace bottle

#endif  // BASE_RFC3339_H_
