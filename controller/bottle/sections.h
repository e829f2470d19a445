// The parts of parse_bottle_file: one function per section of the resource, and the rules that look across them.
#ifndef CONTROLLER_BOTTLE_SECTIONS_H_
#define CONTROLLER_BOTTLE_SECTIONS_H_

#include "controller/bottle/bottle.h"
#include "controller/bottle/fields.h"

namespace bottle {

void parse_agent(const Value& section, AgentSpec* agent, Report& report);
void parse_egress(const Value& section, EgressSpec* egress, Report& report);

// Rules over several fields. List indexes of the Bottle are those of the file.
void validate(const Bottle& bottle, Report& report);

// Kubernetes object names.
Result<std::string> parse_label(std::string_view text);      // RFC 1123 label, at most 63 characters
Result<std::string> parse_subdomain(std::string_view text);  // labels joined by dots, at most 253 characters
Result<std::string> parse_secret_key(std::string_view text);

// Of a canonical host: is it an IP address.
bool is_address(std::string_view host);

std::optional<SecretKeyRef> read_secret_ref(const Value& value, Report& report);

// Absolute, without empty, "." and ".." parts and without a slash at the end.
Result<std::string> parse_absolute_path(std::string_view text);

inline constexpr char kWriteSecretRef[] =
    "a token is never written into a bottle: put it into a Secret and write secretKeyRef: { name: …, key: … }";

}  // namespace bottle

#endif  // CONTROLLER_BOTTLE_SECTIONS_H_
