// Bottle -> BottlePlan: everything a backend needs to run a bottle, as values. Pure and deterministic: the same Bottle and options
// give byte-identical plans on every backend. No plan holds a token, a key, an address of a resolver or a clock reading.
#ifndef CONTROLLER_PLAN_PLAN_H_
#define CONTROLLER_PLAN_PLAN_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "controller/bottle/bottle.h"

namespace bottle {

enum class Role { kGuard, kEgress, kAgent };
std::string_view role_name(Role role);  // "guard", "egress", "agent"

// UIDs and ports of design "One bottle, one network namespace, one guard".
inline constexpr uint32_t kEgressUid = 10001, kPipelockUid = 10002, kGitGateUid = 10003, kSuperviseUid = 10004;
inline constexpr uint16_t kEgressPort = 9099, kEgressHealthPort = 9091;

// Where a mount's content comes from. A backend maps each to a folder, ConfigMap, Secret or emptyDir.
enum class Source {
  kPolicy,          // policy_files: routes.yaml
  kGuardRules,      // guard_files: rules.nft
  kTokens,          // one file per TokenRef::env, made by the backend from Secrets
  kEgressCa,        // mitmproxy-ca.pem (cert + key), for egress alone
  kUpstreamTrust,   // upstream-ca.pem: public roots + egress.upstreamCAs
  kAgentTrust,      // trust_files + ca.pem, bundle.pem (roots + egress CA), truststore.p12
  kSidecarHosts,    // `hosts`: sidecars' own hosts file
  kResolvers,       // resolv.conf with the resolvers of the backend
  kEmptyResolver,   // `resolv.conf`: an empty file, for the agent
  kRun,             // writable by egress: status.json
  kWorkspace,       // agent's workspace
  kGate,            // `gate`: the static program that runs before the agent's command
  kTmp,             // tmpfs
};

struct Mount {
  Source source;
  std::string file;    // a file of the source; empty = the whole folder
  std::string target;  // absolute path in the container
  bool read_only = true;
};

struct ContainerPlan {
  Role role;
  std::string image;
  std::vector<std::string> command;  // entrypoint; empty = the image's own
  std::vector<std::string> args;     // empty with an empty command = the image's own
  std::vector<EnvVar> env;           // sorted by name
  std::string working_dir;
  uint32_t uid = 0, gid = 0;
  std::vector<std::string> capabilities;  // added after drop ALL: NET_ADMIN for the guard, none for all others
  bool read_only_root = true;
  bool tty = false;
  RestartPolicy restart_policy = RestartPolicy::kNever;
  int64_t memory_limit_bytes = 0, memory_request_bytes = 0;
  int64_t cpu_limit_millis = 0, cpu_request_millis = 0;
  int64_t pids_limit = 0;
  std::vector<Mount> mounts;
};

struct TokenRef {
  std::string env;      // BOT_BOTTLE_TOKEN_…; also the token file's name
  SecretKeyRef secret;
  bool operator==(const TokenRef&) const = default;
};

struct BottlePlan {
  std::string name, slug;
  std::string policy_hash;                          // "sha256:…" of routes, guard rules, mode, mitmproxy arguments
  policy::RouteTable routes;                        // what policy_files["routes.yaml"] says
  std::map<std::string, std::string> policy_files;  // "routes.yaml"
  std::map<std::string, std::string> guard_files;   // "rules.nft": without resolvers, which the guard adds from its resolv.conf
  std::map<std::string, std::string> trust_files;   // "wgetrc", "apt.conf", …: static files beside the bundle
  std::string hosts_file;                           // for sidecars; the agent's hosts are `agent_hosts`
  std::vector<HostAlias> agent_hosts;               // 127.0.0.1: egress, git-gate, supervise
  std::vector<TokenRef> tokens;                     // sorted by env
  KeyType ca_key_type = KeyType::kRsa2048;          // resolved, never kByEngine
  std::vector<std::string> upstream_ca_pems;
  ContainerPlan guard, egress, agent;
  WorkspaceSpec workspace;
  bool scanned = false;                             // false: condition Scanned=False
  std::vector<std::string> warnings;
  // Hash of everything but the policy: a change needs new containers; a change of policy_hash alone is a live update.
  std::string pod_hash;
};

struct PlanOptions {
  uint16_t egress_port = kEgressPort;
  std::string sidecars_image = "bot-bottle/sidecars:latest";
  std::string egress_image = "bot-bottle/mitmproxy:latest";
};

Result<BottlePlan> plan(const Bottle& bottle, const PlanOptions& options = {});

// The whole plan for `bottle render`, as JSON; stable order, no secrets.
std::string render_plan_json(const BottlePlan& plan);

// A bottle's name made safe for container names: [a-z0-9-], at most 40 characters, with a hash where it had to be changed.
std::string slug_of(std::string_view name);

}  // namespace bottle

#endif  // CONTROLLER_PLAN_PLAN_H_
