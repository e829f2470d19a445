// The route table: what an egress engine enforces. It is written by the planner as routes.yaml (JSON, which is
// YAML) and read by every engine and by `bottle explain`.
#ifndef CONTROLLER_POLICY_ROUTE_H_
#define CONTROLLER_POLICY_ROUTE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "controller/policy/canonical.h"

namespace bottle::policy {

enum class Inspect { kFull, kHeaders, kNone };
enum class Mode { kEnforce, kLearn };

// Adds `header: <prefix><token>`; the token is the content of the token file named `token_env`.
struct Injection {
  std::string header;     // lower case
  std::string token_env;  // [A-Z][A-Z0-9_]*
  std::string prefix;     // "Bearer ", or empty
  auto operator<=>(const Injection&) const = default;
};

// All members canonical (canonical.h), sets sorted and without duplicates.
struct Route {
  std::string host;  // exact or "*.suffix"
  std::vector<uint16_t> ports;
  std::vector<std::string> methods;
  std::vector<std::string> paths;
  EncodedSlash encoded_slash = EncodedSlash::kRefuse;
  Inspect inspect = Inspect::kHeaders;
  std::vector<Injection> inject;
  auto operator<=>(const Route&) const = default;
};

struct RouteTable {
  std::string bottle;                    // name, for audit lines only
  std::string policy_hash;               // "sha256:<hex>"; reported back as enforced
  Mode mode = Mode::kEnforce;
  std::vector<std::string> allow_cidrs;  // private ranges that an allowed name may resolve to
  std::vector<Route> routes;             // sorted: the order means nothing
};

// Strict: unknown keys, wrong types, non-canonical values and duplicates are errors.
Result<RouteTable> parse_route_table(std::string_view json);
// Deterministic, human-readable JSON with a final newline.
std::string render_route_table(const RouteTable& table);

}  // namespace bottle::policy

#endif  // CONTROLLER_POLICY_ROUTE_H_
