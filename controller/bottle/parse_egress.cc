#include <algorithm>
#include <array>
#include <cctype>
#include <set>

#include "controller/bottle/sections.h"

namespace bottle {
namespace {

using policy::EncodedSlash;
using policy::Inspect;

constexpr size_t kMaxRoutes = 500;   // of a bottle
constexpr size_t kMaxPerRoute = 64;  // ports, methods, paths, injections
constexpr size_t kMaxNetworks = 64;  // allowCIDRs, hostAliases, hostnames of each
constexpr size_t kMaxCas = 16;       // upstreamCAs

// As given, and each value once.
template <class T, class F>
void read_set(const Value& section, std::vector<T>* out, F read, Report& report) {
  if (!section) return;
  std::vector<Value> items = read_list(section, report, false);
  if (items.size() > kMaxPerRoute) {
    report.error(section, "more than " + std::to_string(kMaxPerRoute) + " values: split the route");
    return;
  }
  std::vector<T> values;
  for (const Value& item : items) {
    std::optional<T> value = read(item);
    if (!value) continue;
    if (std::find(values.begin(), values.end(), *value) != values.end()) {
      report.warn(item, "listed twice");
    } else {
      values.push_back(std::move(*value));
    }
  }
  if (!values.empty()) *out = std::move(values);
}

Result<std::string> parse_method(std::string_view text) {
  if (text == "*") return Status(Code::kInvalid, "\"*\" is not a method: list the methods, such as [GET, HEAD, POST]");
  return policy::canonical_method(text);
}

// Headers that say where a message goes or where it ends. A credential there would change the request, not sign it.
bool frames_the_message(std::string_view header) {
  static constexpr std::array kNames = {"host",    "content-length", "transfer-encoding", "connection", "te",
                                        "trailer", "upgrade",        "keep-alive"};
  return header.starts_with("proxy-") || std::find(kNames.begin(), kNames.end(), header) != kNames.end();
}

Result<std::string> parse_inject_header(std::string_view text) {
  Result<std::string> header = policy::canonical_header_name(text);
  if (header && frames_the_message(*header)) {
    return Status(Code::kInvalid, quoted(text) + " may not be injected: it frames the message");
  }
  return header;
}

Result<std::string> parse_prefix(std::string_view text) {
  bool printable = std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
  if (!printable || text.size() > 64) {
    return Status(Code::kInvalid, "a prefix is at most 64 printable ASCII characters, such as \"Bearer \"");
  }
  return std::string(text);
}

InjectSpec parse_inject(const Value& section, Report& report) {
  Fields fields(section, report);
  InjectSpec inject;
  if (auto header = read_as(fields.required("header"), parse_inject_header, report)) inject.header = *header;
  if (auto prefix = read_as(fields.get("prefix"), parse_prefix, report)) inject.prefix = *prefix;
  bool literal = false;
  for (const char* name : {"value", "token", "secret", "valueFrom"}) {
    literal = literal || fields.has(name);
    fields.refuse(name, kWriteSecretRef);
  }
  // One error for one mistake: who wrote a literal is told about secretKeyRef already.
  Value ref = literal ? fields.get("secretKeyRef") : fields.required("secretKeyRef");
  if (auto secret = read_secret_ref(ref, report)) inject.secret = *secret;
  return inject;
}

Result<std::string> parse_route_host(std::string_view text) {
  if (size_t scheme = text.find("://"); scheme != text.npos) {
    std::string_view host = text.substr(scheme + 3);
    host = host.substr(host.find('@') == host.npos ? 0 : host.find('@') + 1);
    return Status(Code::kInvalid, "a URL: write the host only, " + quoted(host.substr(0, host.find_first_of(":/?#"))));
  }
  size_t colon = text.find(':');
  if (colon != text.npos && colon == text.rfind(':')) {
    return Status(Code::kInvalid, "a host and a port: write host: " + quoted(text.substr(0, colon)) + " and the port in ports");
  }
  Result<std::string> host = policy::canonical_host_pattern(text);
  if (!host) return host;
  for (std::string_view own : {"egress", "git-gate", "supervise", "localhost", "::1"}) {
    if (*host == own) return Status(Code::kInvalid, quoted(text) + " is inside the bottle: it needs no route");
  }
  if (host->ends_with(".localhost") || host->starts_with("127.")) {
    return Status(Code::kInvalid, quoted(text) + " is inside the bottle: it needs no route");
  }
  return host;
}

RouteSpec parse_route(const Value& section, Report& report) {
  RouteSpec route;
  Fields fields(section, report);
  if (auto host = read_as(fields.required("host"), parse_route_host, report)) route.host = *host;
  for (const char* name : {"value", "token"}) fields.refuse(name, kWriteSecretRef);
  read_set(fields.get("ports"), &route.ports, [&](const Value& item) -> std::optional<uint16_t> {
    auto port = read_int(item, 1, 65535, report);
    return port ? std::optional(static_cast<uint16_t>(*port)) : std::nullopt;
  }, report);
  read_set(fields.get("methods"), &route.methods,
           [&](const Value& item) { return read_as(item, parse_method, report); }, report);
  read_set(fields.get("paths"), &route.paths,
           [&](const Value& item) { return read_as(item, policy::canonical_path_prefix, report); }, report);
  if (auto slash = read_enum<EncodedSlash>(fields.get("encodedSlash"),
                                           {{"refuse", EncodedSlash::kRefuse}, {"allow", EncodedSlash::kAllow}},
                                           report)) {
    route.encoded_slash = *slash;
  }
  route.inspect = read_enum<Inspect>(
      fields.get("inspect"), {{"full", Inspect::kFull}, {"headers", Inspect::kHeaders}, {"none", Inspect::kNone}},
      report);
  Value inject = fields.get("inject");
  std::vector<Value> injects = read_list(inject, report);
  if (injects.size() > kMaxPerRoute) {
    report.error(inject, "more than " + std::to_string(kMaxPerRoute) + " injections");
    injects.clear();
  }
  for (const Value& item : injects) route.inject.push_back(parse_inject(item, report));
  return route;
}

// Ranges that name the bottle itself, or so much that the rule "never private addresses" would be gone.
Result<std::string> parse_allow_cidr(std::string_view text) {
  Result<std::string> cidr = policy::canonical_cidr(text);
  if (!cidr) return cidr;
  bool v6 = cidr->find(':') != std::string::npos;
  int bits = std::atoi(cidr->c_str() + cidr->find('/') + 1);
  if (bits < (v6 ? 7 : 8)) {
    return Status(Code::kInvalid, quoted(text) + " is too wide: name the network that is meant, such as 10.1.0.0/16");
  }
  if (cidr->starts_with(v6 ? "::" : "127.")) {
    return Status(Code::kInvalid, quoted(text) + " is inside the bottle or an embedded IPv4 range: it cannot be allowed");
  }
  return cidr;
}

// One spelling, the one that /etc/hosts has: not the brackets, dots and IPv4 in IPv6 that a host may have in a URL.
Result<std::string> parse_address(std::string_view text) {
  Result<std::string> ip = policy::canonical_host(text);
  if (!ip) return ip;
  if (!is_address(*ip) || text.front() == '[' || text.back() == '.' || ip->starts_with("::ffff:")) {
    return Status(Code::kInvalid, quoted(text) + " is not an IP address");
  }
  return ip;
}

HostAlias parse_host_alias(const Value& section, Report& report) {
  HostAlias alias;
  Fields fields(section, report);
  if (auto ip = read_as(fields.required("ip"), parse_address, report)) alias.ip = *ip;
  Value names = fields.required("hostnames");
  for (const Value& item : read_list(names, report, false, kMaxNetworks)) {
    auto host = read_as(item, policy::canonical_host, report);
    if (!host) continue;
    if (is_address(*host)) report.error(item, quoted(*host) + " is an address, not a host name");
    alias.hostnames.push_back(*host);
  }
  return alias;
}

void parse_upstream_ca(const Value& section, EgressSpec* egress, Report& report) {
  Fields fields(section, report);
  Value pem = fields.get("pem"), file = fields.get("file");
  if (section.node->kind == YamlNode::Kind::kMap && !pem == !file) {
    report.error(section, "write either pem: (the certificate) or file: (its path)");
    return;
  }
  if (auto text = read_string(pem, report)) {
    if (text->find("-----BEGIN CERTIFICATE-----") == std::string::npos) {
      report.error(pem, "holds no certificate: expected PEM, -----BEGIN CERTIFICATE-----");
    }
    egress->upstream_ca_pems.push_back(std::move(*text));
  }
  if (auto text = read_string(file, report)) {
    if (text->empty()) report.error(file, "is empty: write the path of a PEM file");
    egress->upstream_ca_files.push_back(std::move(*text));
  }
}

}  // namespace

bool is_address(std::string_view host) {
  return host.find(':') != host.npos || host.find_first_not_of("0123456789.") == host.npos;
}

void parse_egress(const Value& section, EgressSpec* egress, Report& report) {
  if (!section) return;
  Fields fields(section, report);
  if (auto engine = read_enum<Engine>(fields.get("engine"),
                                      {{"mitmproxy", Engine::kMitmproxy}, {"native", Engine::kNative}}, report)) {
    egress->engine = *engine;
  }
  if (auto mode = read_enum<policy::Mode>(
          fields.get("mode"), {{"enforce", policy::Mode::kEnforce}, {"learn", policy::Mode::kLearn}}, report)) {
    egress->mode = *mode;
  }
  Value routes = fields.get("routes");
  std::vector<Value> items = read_list(routes, report);
  if (items.size() > kMaxRoutes) {
    report.error(routes, "more than " + std::to_string(kMaxRoutes) + " routes");
    items.clear();
  }
  for (const Value& item : items) egress->routes.push_back(parse_route(item, report));
  for (const Value& item : read_list(fields.get("allowCIDRs"), report, true, kMaxNetworks)) {
    if (auto cidr = read_as(item, parse_allow_cidr, report)) egress->allow_cidrs.push_back(*cidr);
  }
  for (const Value& item : read_list(fields.get("hostAliases"), report, true, kMaxNetworks)) {
    egress->host_aliases.push_back(parse_host_alias(item, report));
  }
  for (const Value& item : read_list(fields.get("upstreamCAs"), report, true, kMaxCas)) parse_upstream_ca(item, egress, report);
}

}  // namespace bottle
