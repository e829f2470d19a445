// What the guard loads and how it knows that the kernel holds exactly that. Pure: no I/O. Any thread.
// Source: nft(8), libnftables-json(5); docs/design.md, "The guard".
#ifndef SIDECARS_GUARD_RULES_H_
#define SIDECARS_GUARD_RULES_H_

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace bottle::guard {

inline constexpr std::string_view kTable = "bottle_guard";
// The same rules once more, dormant (no hook is registered), so that nft prints both from the kernel in its own spelling:
// nft 1.0.6 and 1.1 sort sets, merge ranges and name priorities differently, and a text comparison would break with each version.
inline constexpr std::string_view kReferenceTable = "bottle_guard_reference";

// Addresses of `nameserver` lines, in order, no duplicates. Loopback and scoped (fe80::1%eth0) ones are left out: an accept rule
// for them would say nothing.
std::vector<std::string> parse_resolvers(std::string_view resolv_conf);

// The input of `nft -f -`: one transaction that replaces our table and the reference and no other. kInvalid when `rules` is anything
// but one `table inet bottle_guard { … }`.
Result<std::string> render_transaction(std::string_view rules, const std::vector<std::string>& resolvers);

// Compares two outputs of `nft -j list table`: the live table and the reference. OK, or what differs.
Status compare_tables(std::string_view live_json, std::string_view reference_json);

// Compares the live table with the text of the rules directly, without nft in between: the chains with hook, priority and policy,
// the number of rules of each, and the verdict of every rule.
Status compare_with_text(std::string_view live_json, std::string_view rules);

// {"refused":{"packets":1,"bytes":60}} from `nft -j list counters table inet bottle_guard`.
Result<std::string> counters_json(std::string_view nft_json);

}  // namespace bottle::guard

#endif  // SIDECARS_GUARD_RULES_H_
