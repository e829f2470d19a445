// The verdict: may this request leave, in which form, with which credentials. The same code decides in the engines
// and in `bottle explain`. Pure; any thread.
#ifndef CONTROLLER_POLICY_VERDICT_H_
#define CONTROLLER_POLICY_VERDICT_H_

#include <optional>
#include <string>
#include <vector>

#include "controller/policy/route.h"

namespace bottle::policy {

struct Request {
  bool tls = true;               // https; credentials are injected on TLS only
  std::string connect_host;      // host of CONNECT or of the absolute-form URI, as received
  uint16_t port = 443;
  std::optional<std::string> sni;     // of the ClientHello, if there was one
  std::vector<std::string> hosts;     // every Host header and :authority as received; must agree with connect_host
  std::string method;
  std::string target;            // origin-form as received
};

struct Verdict {
  bool allowed = false;
  int status = 403;              // HTTP status of a refusal: 400 malformed, 403 policy, 421 wrong host (RFC 9110 §15.5.20)
  std::string code;              // "allowed", "host_not_allowed", "port_not_allowed", "method_not_allowed",
                                 // "path_not_allowed", "path_malformed", "host_mismatch", "host_malformed",
                                 // "method_malformed", "tls_required" (plain http to 443), "learn_mode"; the C
                                 // interface adds "request_malformed" (400) and "internal" (503)
  std::string reason;            // one sentence: what and why
  std::string hint;              // one sentence: what to do
  std::string host;              // canonical, or empty when malformed
  uint16_t port = 0;
  std::string method;
  std::string target;            // canonical: what goes upstream
  int route = -1;                // index into RouteTable::routes of the deciding route
  std::vector<Injection> inject; // empty unless allowed and TLS
};

// The first question, at CONNECT: before DNS, before any dial.
// In learn mode the answer is a refusal too ("learn_mode"): an engine that wants to see the paths may finish the
// handshake with the agent on that code, but nothing is dialled.
Verdict judge_connect(const RouteTable& table, std::string_view host, uint16_t port);
// The second, at the request headers. When several routes allow a request the most specific one decides (exact host
// over wildcard, longer suffix, then longer path prefix; equal ones merge), so order means nothing.
Verdict judge_request(const RouteTable& table, const Request& request);

// One line of JSON. The refusal body for the agent is {"error":code,"host":…,"reason":…,"hint":…}.
std::string verdict_json(const Verdict& verdict);
std::string refusal_body(const Verdict& verdict);

// Is this address (canonical text) public, or inside allow_cidrs? Refused otherwise: private, loopback, link-local,
// CGNAT, multicast, reserved, metadata, 168.63.129.16, 4-in-6, NAT64, 6to4, Teredo. A metadata address has to be named
// alone (/32, /128) to be allowed; 4-in-6 never is.
bool address_allowed(const RouteTable& table, std::string_view address);

// Credential-bearing request headers (lower case), removed from what the agent sends on every route:
// the usual names and patterns (authorization, cookie, x-api-key, *-token, *-secret, …).
bool is_credential_header(std::string_view lower_case_name);

}  // namespace bottle::policy

#endif  // CONTROLLER_POLICY_VERDICT_H_
