// Bottle: one resource of kind Bottle, bottles.bot-bottle.dev/v1alpha1, with its defaults filled in. Plain values.
#ifndef CONTROLLER_BOTTLE_BOTTLE_H_
#define CONTROLLER_BOTTLE_BOTTLE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "controller/policy/route.h"

namespace bottle {

struct SecretKeyRef {
  std::string name;
  std::string key;
  auto operator<=>(const SecretKeyRef&) const = default;
};

struct EnvVar {
  std::string name;
  std::string value;
};

struct InjectSpec {
  std::string header;  // as canonical_header_name
  std::string prefix;  // put before the token: "Bearer "
  SecretKeyRef secret;
};

struct RouteSpec {
  std::string host;  // canonical pattern
  std::vector<uint16_t> ports = {443};
  std::vector<std::string> methods = {"GET", "HEAD"};
  std::vector<std::string> paths = {"/"};
  policy::EncodedSlash encoded_slash = policy::EncodedSlash::kRefuse;
  std::optional<policy::Inspect> inspect;  // unset: by engine
  std::vector<InjectSpec> inject;
};

struct HostAlias {  // as in a Kubernetes PodSpec, for the sidecars only
  std::string ip;
  std::vector<std::string> hostnames;
};

enum class Engine { kMitmproxy, kNative };
enum class RestartPolicy { kNever, kOnFailure, kAlways };
enum class KeyType { kByEngine, kRsa2048, kEcdsaP256 };
enum class Isolation { kSidecar, kGateway };

struct Resources {            // Kubernetes quantities, already in units; 0 = unset
  int64_t memory_bytes = 0;
  int64_t cpu_millis = 0;
};

struct WorkspaceSpec {
  enum class Kind { kEmptyDir, kPersistentVolumeClaim, kHostPath } kind = Kind::kEmptyDir;
  int64_t size_limit_bytes = 0;
  std::string claim_name;
  std::string host_path;      // absolute; Docker only
};

struct AgentSpec {
  std::string image;
  std::vector<std::string> command;
  std::vector<std::string> args;
  std::vector<EnvVar> env;
  std::string working_dir = "/workspace";
  uint32_t run_as_user = 1000;
  bool tty = false;
  Resources requests, limits;
  RestartPolicy restart_policy = RestartPolicy::kNever;
  WorkspaceSpec workspace;
};

struct EgressSpec {
  Engine engine = Engine::kMitmproxy;
  policy::Mode mode = policy::Mode::kEnforce;
  std::vector<RouteSpec> routes;
  std::vector<std::string> allow_cidrs;
  std::vector<HostAlias> host_aliases;
  std::vector<std::string> upstream_ca_pems;   // upstreamCAs: [{pem: …}]: extra roots for upstream TLS
  std::vector<std::string> upstream_ca_files;  // upstreamCAs: [{file: …}]: read by the CLI, Docker only
};

struct Bottle {
  std::string name;
  std::string namespace_;
  std::string uid;          // empty off-cluster
  int64_t generation = 0;
  AgentSpec agent;
  EgressSpec egress;
  bool pipelock_enabled = false;
  bool pipelock_set = false;
  KeyType key_type = KeyType::kByEngine;
  Isolation isolation = Isolation::kSidecar;
  std::string runtime_class_name;
  bool suspend = false;
  int64_t active_deadline_seconds = 0;       // 0 = none
  int64_t ttl_seconds_after_finished = -1;   // -1 = never
};

}  // namespace bottle

#endif  // CONTROLLER_BOTTLE_BOTTLE_H_
