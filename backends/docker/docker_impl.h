// The Backend's object. Its parts: apply.cc (make and update), start.cc (containers and their
// readiness), observe.cc, interact.cc (logs, exec, attach, counters), cleanup.cc (remove, orphans),
// doctor.cc.
#ifndef BACKENDS_DOCKER_DOCKER_IMPL_H_
#define BACKENDS_DOCKER_DOCKER_IMPL_H_

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "backends/docker/container_body.h"
#include "backends/docker/docker_backend.h"
#include "backends/docker/engine_client.h"
#include "backends/docker/state.h"

namespace bottle::docker {

class DockerBackend final : public Backend {
 public:
  DockerBackend(EngineClient engine, StateDir state)
      : engine_(std::move(engine)), state_(std::move(state)) {}

  Status apply(const ApplyRequest& request, const Progress& progress) override;
  Result<std::vector<Observation>> list() override;
  Result<Observation> observe(const std::string& name) override;
  Status remove(const std::string& name, const Progress& progress) override;
  Status logs(const std::string& name, Role role, const LogOptions& options,
              const Sink& sink) override;
  Result<int> exec(const std::string& name, const ExecOptions& options) override;
  Result<int> attach(const std::string& name) override;
  Result<std::string> guard_counters(const std::string& name) override;
  Result<CleanupReport> cleanup(bool dry_run) override;
  std::vector<Check> doctor() override;

 private:
  // apply.cc
  Status remake(const ApplyRequest& request, BottleState& state, const Progress& progress);
  Status update_live(const ApplyRequest& request, BottleState& state, const Progress& progress);
  bool can_update_live(const BottlePlan& plan, const BottleState& old,
                       const std::string& ca_fingerprint) const;
  Status with_files_container(const BottlePlan& plan, const Json& mounts,
                              const std::function<Status(const std::string&)>& work);
  Result<SharedFiles> shared_files(const BottlePlan& plan, const std::string& image_id,
                                   const Progress& progress);
  Result<bool> ensure_workspace(const BottlePlan& plan);
  Status own_workspace(const BottlePlan& plan);
  Result<std::string> ensure_network(const BottlePlan& plan, const BottleState& state);

  // start.cc
  Result<std::string> create(const std::string& name, const Json& body, const std::string& slug);
  Status start(const std::string& id, std::string_view role) const;
  Status wait_guard(const std::string& id) const;
  struct EgressWait {
    std::chrono::milliseconds limit;
    // It was started just now: its end or a restart is the end of the wait. One that has long been
    // running may be on its way back from a crash.
    bool fresh;
    int64_t after_generation;  // a table loaded later than this one; -1: any
  };
  Status wait_egress(const BottlePlan& plan, const BottleState& state,
                     const EgressWait& wait) const;
  int64_t egress_generation(const std::string& slug) const;  // -1: unknown
  // Until the agent's command has taken the place of the gate.
  Status wait_agent(const std::string& id) const;
  // Runs the guard's program once beside the holder; its output.
  Result<std::string> run_guard_once(const BottleState& state, const std::string& verb);
  std::string last_lines(const std::string& id, int lines) const;

  // cleanup.cc
  bool ours(const Json& labels, const std::string& slug) const;
  // The bottle's containers by label, whatever their state: the engine's list entries.
  Result<std::vector<Json>> containers_of(const std::string& slug) const;
  Status remove_container(const std::string& id, const std::string& slug) const;
  Status remove_containers(const std::string& slug, const Progress& progress) const;
  Status remove_network(const std::string& slug) const;
  void stop_all(const BottleState& state) const;

  // observe.cc
  Observation observe_state(const BottleState& state) const;
  Result<BottleState> state_of(const std::string& name) const;  // kNotFound, with what to do
  Result<Json> running(const std::string& name, Role role) const;

  EngineClient engine_;
  StateDir state_;
};

}  // namespace bottle::docker

#endif  // BACKENDS_DOCKER_DOCKER_IMPL_H_
