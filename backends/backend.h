// The one seam between the brain and what runs containers: apply a plan, observe a bottle, remove it; and what a person does to a
// running one. Implementations: backends/docker, backends/kubernetes. One thread per Backend object.
#ifndef BACKENDS_BACKEND_H_
#define BACKENDS_BACKEND_H_

#include <atomic>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/secret.h"
#include "base/status.h"
#include "controller/plan/plan.h"

namespace bottle {

// Progress for a person. `step` is short and stable ("guard", "egress", "pull agent"), `text` what is happening.
using Progress = std::function<void(std::string_view step, std::string_view text)>;

struct ApplyRequest {
  BottlePlan plan;
  std::string bottle_json;                    // kept for `get` and `explain`
  std::map<std::string, SecretString> tokens; // by TokenRef::env; a missing one closes its route only (503)
  std::set<std::string> tokens_of_environment;  // those of `tokens` that come from the environment, not from the file
  std::vector<std::string> resolvers;         // IP addresses; empty = the backend's own (the host's upstream servers)
  bool pull = true;                           // pull images that are missing
};

struct Condition {
  std::string type;     // Ready, Planned, SecretsFound, Isolated, SidecarsReady, AgentRunning, Finished, Scanned
  std::string status;   // "True", "False", "Unknown"
  std::string reason;   // CamelCase
  std::string message;  // what, why, what to do
};

struct ContainerObservation {
  std::string role, name, id, image;
  std::string state;    // created, running, exited, missing, …
  std::string reason;   // OOMKilled, Error, Completed, …
  int exit_code = 0;
  std::string started_at, finished_at;
  int restarts = 0;
};

struct Observation {
  std::string name, slug;
  std::string namespace_;            // of a cluster; empty on Docker
  std::string bottle_json;
  std::vector<Condition> conditions;
  std::string policy_hash;           // what is ENFORCED, as the engine reports it
  std::string desired_policy_hash;
  std::string ca_fingerprint;
  int64_t ca_not_after = 0;
  std::string created_at;            // RFC 3339
  std::vector<ContainerObservation> containers;
  const Condition* condition(std::string_view type) const {
    for (const auto& c : conditions) if (c.type == type) return &c;
    return nullptr;
  }
};

struct LogOptions {
  bool follow = false;
  int64_t tail = -1;           // lines; -1 = all
  bool timestamps = false;
};

struct ExecOptions {
  std::vector<std::string> argv;
  bool tty = false;
  bool stdin_open = false;
  std::string user;            // empty = the agent's
  std::string working_dir;
  std::vector<EnvVar> env;
};

struct CleanupReport {
  std::vector<std::string> removed;  // "container claude-bottle-agent-x", "network …", "state …"
  std::vector<std::string> left;     // what is in the way but goes by somebody else's hand, with whose: "pod dev/x: the cluster's …"
};

struct Check {                 // one line of `bottle doctor`
  std::string name, status;    // status: ok | warn | fail
  std::string message, fix;
};

class Backend {
 public:
  virtual ~Backend() = default;
  // Makes what runs equal to the plan; on an existing bottle applies the difference (a policy change restarts nothing). Returns when
  // the bottle is Ready with the plan's policy hash enforced, or with the reason why not.
  virtual Status apply(const ApplyRequest& request, const Progress& progress) = 0;
  virtual Result<std::vector<Observation>> list() = 0;
  virtual Result<Observation> observe(const std::string& name) = 0;  // kNotFound
  virtual Status remove(const std::string& name, const Progress& progress) = 0;
  // `sink(is_stderr, bytes)`; returning false stops.
  using Sink = std::function<bool(bool is_stderr, std::string_view bytes)>;
  virtual Status logs(const std::string& name, Role role, const LogOptions& options, const Sink& sink) = 0;
  // Connects this process's stdin/stdout/stderr (raw mode and resize with a TTY); returns the command's exit code.
  virtual Result<int> exec(const std::string& name, const ExecOptions& options) = 0;
  virtual Result<int> attach(const std::string& name) = 0;
  // Guard counters as JSON: {"refused":{"packets":N,"bytes":N},…}
  virtual Result<std::string> guard_counters(const std::string& name) = 0;
  virtual Result<CleanupReport> cleanup(bool dry_run) = 0;
  virtual std::vector<Check> doctor() = 0;
};

// Set by the signal handler of the CLI: long waits return kCancelled soon after.
extern std::atomic<bool> g_cancelled;

}  // namespace bottle

#endif  // BACKENDS_BACKEND_H_
