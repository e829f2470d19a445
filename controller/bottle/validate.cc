#include <algorithm>
#include <map>
#include <set>

#include "controller/bottle/parse.h"
#include "controller/bottle/sections.h"
#include "controller/policy/verdict.h"

namespace bottle {
namespace {

using policy::Inspect;

std::string at_route(size_t i) { return "spec.egress.routes[" + std::to_string(i) + "]"; }
std::string at_inject(size_t route, size_t i) { return at_route(route) + ".inject[" + std::to_string(i) + "]"; }

template <class T>
const T* common(const std::vector<T>& a, const std::vector<T>& b) {
  for (const T& value : a) {
    if (std::find(b.begin(), b.end(), value) != b.end()) return &value;
  }
  return nullptr;
}

void check_inject(const Bottle& bottle, size_t index, Report& report) {
  const RouteSpec& route = bottle.egress.routes[index];
  for (size_t i = 0; i < route.inject.size(); ++i) {
    const std::string& header = route.inject[i].header;
    for (size_t j = 0; j < i && !header.empty(); ++j) {
      if (route.inject[j].header != header) continue;
      report.error_at(at_inject(index, i) + ".header",
                      quoted(header) + " is injected already on line " +
                          std::to_string(report.line_of(at_inject(index, j) + ".header")) +
                          ": at most one per header and route");
      break;
    }
  }
  if (!route.inject.empty() && route.ports == std::vector<uint16_t>{80}) {
    report.error_at(at_route(index) + ".inject", "a credential is never sent over plain http: list a TLS port, such as 443");
  }
}

// Equal routes merge (verdict.h), so two of them may not say different things about one header. An exact host beside
// a wildcard, or a longer path beside a shorter one, is no conflict: the more specific route decides. Told once per
// injection, not once per pair.
void check_conflicts(const Bottle& bottle, size_t index, const std::vector<size_t>& earlier, Report& report) {
  const RouteSpec& route = bottle.egress.routes[index];
  for (size_t i = 0; i < route.inject.size(); ++i) {
    const InjectSpec& inject = route.inject[i];
    if (inject.header.empty()) continue;
    for (size_t other : earlier) {
      const RouteSpec& before = bottle.egress.routes[other];
      auto clash = std::find_if(before.inject.begin(), before.inject.end(), [&](const InjectSpec& x) {
        return x.header == inject.header && (x.secret != inject.secret || x.prefix != inject.prefix);
      });
      if (clash == before.inject.end() || !common(route.ports, before.ports)) continue;
      const std::string* method = common(route.methods, before.methods);
      const std::string* path = common(route.paths, before.paths);
      if (!method || !path) continue;
      std::string there = at_inject(other, static_cast<size_t>(clash - before.inject.begin()));
      report.error_at(at_inject(index, i), "conflicts with " + there + " on line " +
                                               std::to_string(report.line_of(there)) + ": " + *method + " " +
                                               quoted(route.host) + " " + quoted(*path) +
                                               " would get two values for header " + quoted(inject.header));
      break;
    }
  }
  // Spliced or decrypted is decided at CONNECT, where only host and port are known.
  for (size_t other : earlier) {
    const RouteSpec& before = bottle.egress.routes[other];
    const uint16_t* port = common(route.ports, before.ports);
    bool spliced = route.inspect == Inspect::kNone;
    if (!port || spliced == (before.inspect == Inspect::kNone)) continue;
    report.error_at(at_route(index) + (route.inspect ? ".inspect" : ""),
                    "conflicts with " + at_route(other) + " on line " + std::to_string(report.line_of(at_route(other))) +
                        ": " + quoted(route.host) + " port " + std::to_string(*port) +
                        " cannot be both inspected and spliced (inspect: none)");
    break;
  }
}

void check_inspect(const Bottle& bottle, size_t index, Report& report) {
  const RouteSpec& route = bottle.egress.routes[index];
  std::string path = at_route(index);
  if (route.inspect == Inspect::kFull && bottle.egress.engine == Engine::kMitmproxy && !bottle.pipelock_enabled) {
    report.error_at(path + ".inspect", "\"full\" needs a scanner, and none is enabled: write inspect: headers");
  }
  if (route.inspect != Inspect::kNone) return;
  const char* fix = " needs decrypted traffic: write inspect: headers, or leave this field out";
  if (!route.inject.empty()) report.error_at(path + ".inject", std::string("inject") + fix);
  if (report.read(path + ".methods")) report.error_at(path + ".methods", std::string("methods") + fix);
  if (route.paths != std::vector<std::string>{"/"}) report.error_at(path + ".paths", std::string("paths") + fix);
}

void check_token_names(const Bottle& bottle, Report& report) {
  std::map<std::string, SecretKeyRef> names;
  for (size_t r = 0; r < bottle.egress.routes.size(); ++r) {
    const RouteSpec& route = bottle.egress.routes[r];
    for (size_t i = 0; i < route.inject.size(); ++i) {
      const SecretKeyRef& ref = route.inject[i].secret;
      if (ref.name.empty() || ref.key.empty()) continue;
      auto [it, is_new] = names.emplace(token_env_name(ref), ref);
      if (is_new || it->second == ref) continue;
      report.error_at(at_inject(r, i) + ".secretKeyRef",
                      quoted(ref.name + "/" + ref.key) + " and " + quoted(it->second.name + "/" + it->second.key) +
                          " would share the token name " + it->first + ": rename one of them");
    }
  }
}

void check_support(const Bottle& bottle, Report& report) {
  if (bottle.egress.engine == Engine::kNative) {
    report.error_at("spec.egress.engine", "native is not supported by this version: write engine: mitmproxy");
  }
  if (bottle.isolation == Isolation::kGateway) {
    report.error_at("spec.isolation", "Gateway is not supported by this version: write isolation: Sidecar");
  }
  if (!bottle.runtime_class_name.empty()) {
    report.error_at("spec.runtimeClassName", "not supported by this version: leave the field out");
  }
  if (bottle.pipelock_enabled) {
    report.error_at("spec.pipelock", "not supported by this version: write pipelock: { enabled: false }");
  }
  if (!bottle.pipelock_set && !bottle.egress.routes.empty()) {
    report.error_at("spec.pipelock",
                    "required with routes: no scanner is in the way of what the agent sends, so say so: write "
                    "pipelock: { enabled: false }");
  }
}

}  // namespace

void validate(const Bottle& bottle, Report& report) {
  check_support(bottle, report);
  policy::RouteTable networks;
  networks.allow_cidrs = bottle.egress.allow_cidrs;
  std::map<std::string, std::vector<size_t>> by_host;
  for (size_t i = 0; i < bottle.egress.routes.size(); ++i) {
    check_inspect(bottle, i, report);
    check_inject(bottle, i, report);
    const std::string& host = bottle.egress.routes[i].host;
    if (host.empty()) continue;
    if (is_address(host) && !policy::address_allowed(networks, host)) {
      report.error_at(at_route(i) + ".host", quoted(host) + " is a private or reserved address, which is refused "
                                                            "unless egress.allowCIDRs names its network");
    }
    std::vector<size_t>& earlier = by_host[host];
    check_conflicts(bottle, i, earlier, report);
    earlier.push_back(i);
  }
  check_token_names(bottle, report);

  const AgentSpec& agent = bottle.agent;
  auto over = [](int64_t request, int64_t limit) { return limit != 0 && request > limit; };
  if (over(agent.requests.memory_bytes, agent.limits.memory_bytes)) {
    report.error_at("spec.agent.resources.requests.memory", "is more than the limit");
  }
  if (over(agent.requests.cpu_millis, agent.limits.cpu_millis)) {
    report.error_at("spec.agent.resources.requests.cpu", "is more than the limit");
  }
}

}  // namespace bottle
