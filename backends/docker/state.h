// What the backend keeps on the host: <root>/<slug>/, 0700, with the files that are mounted into
// the containers and the ids of what was created. The folder's mode keeps other users out; the
// files inside are readable for the containers' UIDs.
#ifndef BACKENDS_DOCKER_STATE_H_
#define BACKENDS_DOCKER_STATE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/secret.h"
#include "base/status.h"
#include "controller/pki/pki.h"
#include "controller/plan/plan.h"

namespace bottle::docker {

struct BottleState {
  std::string name, slug, created_at;
  std::string network_id, guard_id, egress_id, agent_id;
  std::string guard_started_at;  // a guard that was started again holds another namespace: its
                                 // joiners must be made anew
  std::string pod_hash, policy_hash, egress_argv, guard_rules;
  std::string ca_fingerprint;
  int64_t ca_not_after = 0;
  std::vector<std::string> missing_tokens, resolvers;
  std::string restart_policy;   // of the agent
  std::string workspace_owner;  // "uid:gid" that the workspace's volume was given to
  bool ready = false, ever_ready = false, scanned = false;
  std::string reason, message;  // why it is not ready
  const std::string& id(Role role) const {
    return role == Role::kGuard ? guard_id : role == Role::kEgress ? egress_id : agent_id;
  }
};

struct SharedFiles {  // taken out of the sidecars' image
  std::string gate, roots_pem;
};

class StateDir {
 public:
  // Empty `root`: ~/.bot-bottle/state. Makes it, 0700.
  static Result<StateDir> open(const std::string& root);

  const std::string& root() const { return root_; }
  std::string dir(const std::string& slug) const { return root_ + "/" + slug; }
  // The folder a Source is mounted from. Not for kTmp; kWorkspace is the engine's volume or a path
  // of the user.
  std::string source_dir(const std::string& slug, Source source) const;

  // One process at a time changes a bottle. kConflict when another holds it. Released by the
  // destructor.
  class Lock {
   public:
    explicit Lock(int fd) : fd_(fd) {}
    Lock(Lock&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
    Lock& operator=(Lock&&) = delete;
    ~Lock();

   private:
    int fd_;
  };
  Result<Lock> lock(const std::string& slug) const;

  std::vector<std::string> slugs() const;
  Result<BottleState> load(const std::string& slug) const;  // kNotFound
  Status save(const BottleState& state) const;
  Result<std::string> bottle_json(const std::string& slug) const;

  // The bottle's CA; a new one when there is none, it is of another kind or is due for renewal.
  Result<pki::CertificateAuthority> ca(const BottlePlan& plan, int64_t now) const;
  // Everything that is mounted.
  Status write_all(const BottlePlan& plan, const pki::CertificateAuthority& ca,
                   const SharedFiles& shared, const std::map<std::string, SecretString>& tokens,
                   const std::vector<std::string>& resolvers) const;
  // What a live update changes: tokens (before the routes that name them), routes, guard rules,
  // resolvers. True when egress has something new to load.
  Result<bool> write_policy(const BottlePlan& plan,
                            const std::map<std::string, SecretString>& tokens,
                            const std::vector<std::string>& resolvers) const;
  Status write_about(const BottlePlan& plan, const std::string& bottle_json) const;

  Status remove(const std::string& slug) const;

 private:
  explicit StateDir(std::string root) : root_(std::move(root)) {}
  std::string root_;
};

// Name servers of `resolv_conf` (text) that a container can reach: no loopback ones, at most three.
std::vector<std::string> reachable_resolvers(std::string_view resolv_conf);
// The host's upstream servers: of /etc/resolv.conf, or of systemd-resolved where that is a stub.
std::vector<std::string> host_resolvers();

}  // namespace bottle::docker

#endif  // BACKENDS_DOCKER_STATE_H_
