#include "controller/plan/plan.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/digest.h"
#include "controller/bottle/parse.h"
#include "controller/plan/internal.h"

namespace bottle {
namespace {

using plan_internal::kTrustDir;

constexpr int64_t kMiB = 1 << 20;

template <class T>
void sort_unique(std::vector<T>& v) {
  std::sort(v.begin(), v.end());
  v.erase(std::unique(v.begin(), v.end()), v.end());
}

Status check(const Bottle& bottle, const PlanOptions& options) {
  if (bottle.name.empty()) return {Code::kInvalid, "the bottle has no name: set metadata.name"};
  if (bottle.agent.image.empty()) return {Code::kInvalid, "the agent has no image: set spec.agent.image"};
  const uint32_t user = bottle.agent.run_as_user;
  if (user == 0 || (user >= 10001 && user <= 10099))
    return {Code::kInvalid, "spec.agent.runAsUser " + std::to_string(user) +
                                " would give the agent the rights of a sidecar: choose another UID than 0 and 10001-10099"};
  const uint16_t port = options.egress_port;
  if (port < 1024 || port == 8888 || (port >= 9090 && port <= 9098))
    return {Code::kInvalid, "egress port " + std::to_string(port) +
                                " is closed to the agent: choose one of 1024-65535 other than 8888 and 9090-9098"};
  if (bottle.egress.engine == Engine::kNative)
    return {Code::kUnsupported, "spec.egress.engine: native is not there yet: use mitmproxy"};
  if (bottle.pipelock_enabled)
    return {Code::kUnsupported, "spec.pipelock.enabled: true is not there yet: set it to false"};
  if (bottle.isolation == Isolation::kGateway)
    return {Code::kUnsupported, "spec.isolation: Gateway is not there yet: use Sidecar"};
  return Status::ok();
}

policy::Route plan_route(const RouteSpec& spec) {
  policy::Route route{spec.host, spec.ports, spec.methods, spec.paths, spec.encoded_slash,
                      spec.inspect.value_or(policy::Inspect::kHeaders), {}};
  for (const auto& i : spec.inject) route.inject.push_back({i.header, token_env_name(i.secret), i.prefix});
  sort_unique(route.ports);
  sort_unique(route.methods);
  sort_unique(route.paths);
  sort_unique(route.inject);
  return route;
}

std::string hosts_text(const std::vector<HostAlias>& aliases) {
  std::string text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
  for (const auto& alias : aliases) {
    text += alias.ip + "\t";
    for (size_t i = 0; i < alias.hostnames.size(); ++i) text += (i ? " " : "") + alias.hostnames[i];
    text += "\n";
  }
  return text;
}

ContainerPlan plan_guard(const PlanOptions& options) {
  ContainerPlan c{};
  c.role = Role::kGuard;
  c.image = options.sidecars_image;
  c.command = {"/usr/local/bin/bottle-guard"};
  c.args = {"hold", "--rules", "/etc/bot-bottle/guard/rules.nft", "--resolv-conf", "/etc/resolv.conf"};
  c.working_dir = "/";
  c.capabilities = {"NET_ADMIN"};
  c.memory_limit_bytes = 64 * kMiB;
  c.pids_limit = 16;
  c.mounts = {{Source::kGuardRules, "", "/etc/bot-bottle/guard"}, {Source::kResolvers, "resolv.conf", "/etc/resolv.conf"}};
  return c;
}

ContainerPlan plan_egress(const PlanOptions& options) {
  ContainerPlan c{};
  c.role = Role::kEgress;
  c.image = options.egress_image;
  c.command = {"mitmdump"};
  c.args = {"--mode", "regular", "--listen-host", "127.0.0.1", "--listen-port", std::to_string(options.egress_port)};
  for (const char* option : {
           "confdir=/opt/bot-bottle/conf",
           "ssl_verify_upstream_trusted_ca=/etc/bot-bottle/upstream/upstream-ca.pem",
           "connection_strategy=lazy",  // nothing is dialled before the add-on has judged the request
           "upstream_cert=false", "rawtcp=false", "http3=false", "onboarding=false", "block_global=false", "flow_detail=0",
           "termlog_verbosity=warn", "tcp_timeout=3600"})
    c.args.insert(c.args.end(), {"--set", option});
  c.args.insert(c.args.end(), {"-s", "/opt/bot-bottle/egress/addon.py"});
  c.env = {{"BOT_BOTTLE_HEALTH_PORT", std::to_string(kEgressHealthPort)}, {"PYTHONUNBUFFERED", "1"}};
  c.working_dir = "/";
  c.uid = c.gid = kEgressUid;
  c.restart_policy = RestartPolicy::kAlways;
  c.memory_limit_bytes = 512 * kMiB;
  c.memory_request_bytes = 96 * kMiB;
  c.pids_limit = 256;
  c.mounts = {{Source::kPolicy, "", "/etc/bot-bottle/policy"},
              {Source::kTokens, "", "/etc/bot-bottle/tokens"},
              {Source::kEgressCa, "", "/etc/bot-bottle/ca"},
              {Source::kUpstreamTrust, "", "/etc/bot-bottle/upstream"},
              {Source::kSidecarHosts, "hosts", "/etc/hosts"},
              {Source::kResolvers, "resolv.conf", "/etc/resolv.conf"},
              {Source::kRun, "", "/run/bot-bottle", false},
              {Source::kTmp, "", "/tmp", false}};
  return c;
}

ContainerPlan plan_agent(const AgentSpec& spec, const PlanOptions& options, std::vector<std::string>& warnings) {
  ContainerPlan c{};
  c.role = Role::kAgent;
  c.image = spec.image;
  c.command = spec.command;
  c.args = spec.args;
  std::map<std::string, std::string> env;
  for (const auto& e : plan_internal::trust_env(options.egress_port)) env[e.name] = e.value;
  for (const auto& e : spec.env) {
    // The guard confines the agent whatever its variables say, so the bottle's own value may win.
    auto [it, added] = env.insert({e.name, e.value});
    if (added || it->second == e.value) continue;
    warnings.push_back("spec.agent.env sets " + e.name + ", which replaces the value that leads the agent through its proxy");
    it->second = e.value;
  }
  for (auto& [name, value] : env) c.env.push_back({name, value});
  c.working_dir = spec.working_dir;
  c.uid = c.gid = spec.run_as_user;
  c.read_only_root = false;  // any image has to work, and most write to their own root
  c.tty = spec.tty;
  c.restart_policy = spec.restart_policy;
  c.memory_limit_bytes = spec.limits.memory_bytes;
  c.memory_request_bytes = spec.requests.memory_bytes;
  c.cpu_limit_millis = spec.limits.cpu_millis;
  c.cpu_request_millis = spec.requests.cpu_millis;
  c.pids_limit = 4096;
  c.mounts = {{Source::kAgentTrust, "", kTrustDir}};
  for (const char* store : {"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem",
                            "/etc/ssl/ca-bundle.pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"})
    c.mounts.push_back({Source::kAgentTrust, "bundle.pem", store});
  c.mounts.push_back({Source::kEmptyResolver, "resolv.conf", "/etc/resolv.conf"});
  c.mounts.push_back({Source::kGate, "gate", "/.bot-bottle/gate"});
  c.mounts.push_back({Source::kWorkspace, "", "/workspace", false});
  return c;
}

// Everything that decides what is allowed. The bottle's name is in audit lines only and stays out.
std::string policy_hash(policy::RouteTable table, const std::string& rules, const ContainerPlan& egress) {
  table.bottle.clear();
  table.policy_hash.clear();
  std::vector<std::string> command = egress.command;
  command.insert(command.end(), egress.args.begin(), egress.args.end());
  const nlohmann::json all = {{"egress", command}, {"guard", rules}, {"table", policy::render_route_table(table)}};
  return "sha256:" + sha256_hex(all.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace

std::string_view role_name(Role role) {
  switch (role) {
    case Role::kGuard: return "guard";
    case Role::kEgress: return "egress";
    case Role::kAgent: return "agent";
  }
  return "unknown";
}

Result<BottlePlan> plan(const Bottle& bottle, const PlanOptions& options) {
  if (Status s = check(bottle, options); !s) return s;
  BottlePlan p{};
  p.name = bottle.name;
  p.slug = slug_of(bottle.name);
  p.routes.bottle = bottle.name;
  p.routes.mode = bottle.egress.mode;
  p.routes.allow_cidrs = bottle.egress.allow_cidrs;
  sort_unique(p.routes.allow_cidrs);
  std::map<std::string, SecretKeyRef> tokens;
  for (const auto& spec : bottle.egress.routes) {
    p.routes.routes.push_back(plan_route(spec));
    for (const auto& inject : spec.inject) {
      const std::string env = token_env_name(inject.secret);
      const auto [it, added] = tokens.insert({env, inject.secret});
      if (!added && it->second != inject.secret)
        return {Code::kInvalid, "two Secret keys would share the token name " + env + ": rename one of them"};
    }
  }
  sort_unique(p.routes.routes);
  for (const auto& [env, secret] : tokens) p.tokens.push_back({env, secret});

  p.guard = plan_guard(options);
  p.egress = plan_egress(options);
  p.agent = plan_agent(bottle.agent, options, p.warnings);
  p.guard_files["rules.nft"] = plan_internal::render_guard_rules(p.routes);
  p.policy_hash = p.routes.policy_hash = policy_hash(p.routes, p.guard_files["rules.nft"], p.egress);
  p.policy_files["routes.yaml"] = policy::render_route_table(p.routes);
  // An engine keeps its last good table when it cannot read a new one: better to fail here than to be ignored there.
  if (auto read = policy::parse_route_table(p.policy_files["routes.yaml"]); !read)
    return read.status().with_context("the planned routes are not a valid table");

  p.trust_files = plan_internal::trust_files(options.egress_port);
  p.hosts_file = hosts_text(bottle.egress.host_aliases);
  p.agent_hosts = {{"127.0.0.1", {"egress", "git-gate", "supervise"}}};
  p.ca_key_type = bottle.key_type == KeyType::kByEngine ? KeyType::kRsa2048 : bottle.key_type;
  p.upstream_ca_pems = bottle.egress.upstream_ca_pems;
  p.workspace = bottle.agent.workspace;
  p.scanned = false;
  if (!p.routes.routes.empty() && p.routes.mode == policy::Mode::kEnforce)
    p.warnings.push_back("no scanner: what goes through the allowed routes is not scanned for leaks or injections (Scanned=False)");
  p.pod_hash = "sha256:" + sha256_hex(plan_internal::render_pod_json(p));
  if (p.pod_hash.empty() || p.policy_hash.empty()) return {Code::kInternal, "the crypto library refuses SHA-256"};
  return p;
}

}  // namespace bottle
