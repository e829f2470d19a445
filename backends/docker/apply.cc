// From a plan to a running bottle, in the only order that is never open: guard verified, egress
// enforcing, agent.
#include <ctime>
#include <functional>
#include <thread>

#include "backends/docker/archive.h"
#include "backends/docker/docker_impl.h"
#include "backends/docker/pull.h"
#include "base/encoding.h"
#include "base/file.h"
#include "base/rfc3339.h"

namespace bottle::docker {
namespace {

constexpr std::chrono::milliseconds kEgressStart{30'000}, kPolicyUpdate{5'000};

std::string join(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  return dump(Json{a, b});
}

std::string guard_rules_of(const BottlePlan& plan) { return dump(Json(plan.guard_files)); }

std::vector<std::string> missing_tokens(const ApplyRequest& r) {
  std::vector<std::string> out;
  for (const auto& ref : r.plan.tokens) {
    auto it = r.tokens.find(ref.env);
    if (it == r.tokens.end() || it->second.empty()) out.push_back(ref.env);
  }
  return out;
}

void say(const Progress& progress, std::string_view step, std::string_view text) {
  if (progress) progress(step, text);
}

const char* reason_of(const Status& s) {
  switch (s.code()) {
    case Code::kCancelled:
      return "Interrupted";
    case Code::kNotFound:
      return "ImageMissing";
    case Code::kConflict:
      return "NameTaken";
    case Code::kExhausted:
      return "Exhausted";
    case Code::kTimeout:
      return "Timeout";
    case Code::kUnsupported:
      return "Unsupported";
    default:
      return "Failed";
  }
}

}  // namespace

Status DockerBackend::apply(const ApplyRequest& request, const Progress& progress) {
  const BottlePlan& plan = request.plan;
  auto lock = state_.lock(plan.slug);
  if (!lock) return lock.status();

  BottleState state;
  if (auto old = state_.load(plan.slug); old) {
    state = std::move(*old);
    if (state.name != plan.name)
      return Status(Code::kConflict, "bottle '" + state.name + "' already uses the short name " +
                                         plan.slug + "; choose another metadata.name");
  } else {
    state.name = plan.name, state.slug = plan.slug, state.created_at = format_rfc3339(std::time(nullptr));
  }
  auto ca = state_.ca(plan, std::time(nullptr));
  if (!ca) return ca.status().with_context("the bottle's certificate authority");

  const bool live = can_update_live(plan, state, ca->fingerprint);
  state.resolvers = request.resolvers.empty() ? host_resolvers() : request.resolvers;
  if (state.resolvers.empty())
    say(progress, "resolvers",
        "no name server of this host can be reached from a container: egress resolves only "
        "spec.egress.hostAliases");
  state.missing_tokens = missing_tokens(request);
  state.ca_fingerprint = ca->fingerprint, state.ca_not_after = ca->not_after;
  state.scanned = plan.scanned;
  state.restart_policy = plan.agent.restart_policy == RestartPolicy::kNever    ? "Never"
                         : plan.agent.restart_policy == RestartPolicy::kAlways ? "Always"
                                                                               : "OnFailure";
  state.policy_hash = plan.policy_hash;
  if (auto s = state_.write_about(plan, request.bottle_json); !s) return s;

  Status done = live ? update_live(request, state, progress) : remake(request, state, progress);
  state.ready = done.is_ok();
  state.ever_ready = state.ever_ready || state.ready;
  state.reason = done ? "" : reason_of(done);
  state.message = done.message();
  if (auto s = state_.save(state); !s && done) return s;
  return done;
}

bool DockerBackend::can_update_live(const BottlePlan& plan, const BottleState& old,
                                    const std::string& ca_fingerprint) const {
  if (old.guard_id.empty() || old.egress_id.empty() || old.agent_id.empty() ||
      old.pod_hash != plan.pod_hash ||
      old.egress_argv != join(plan.egress.command, plan.egress.args) ||
      old.ca_fingerprint != ca_fingerprint)
    return false;
  for (Role role : {Role::kGuard, Role::kEgress, Role::kAgent}) {
    auto now = engine_.call("GET", "/containers/" + old.id(role) + "/json");
    if (!now || !bool_at(*now, "/State/Running") || bool_at(*now, "/State/Restarting") ||
        bool_at(*now, "/State/Paused") ||
        !ours(now->value("Config", Json::object()).value("Labels", Json::object()), plan.slug))
      return false;
    if (role == Role::kGuard
            ? text_at(*now, "/State/StartedAt") != old.guard_started_at
            : text_at(*now, "/HostConfig/NetworkMode") != "container:" + old.guard_id)
      return false;
  }
  return true;
}

Status DockerBackend::update_live(const ApplyRequest& request, BottleState& state,
                                  const Progress& progress) {
  const BottlePlan& plan = request.plan;
  auto old = state_.load(plan.slug);
  const bool guard_changes =
      !old || old->guard_rules != guard_rules_of(plan) || old->resolvers != state.resolvers;
  say(progress, "policy", "updating the running bottle");
  const int64_t generation = egress_generation(plan.slug);
  auto changed = state_.write_policy(plan, request.tokens, state.resolvers);
  if (!changed) return changed.status();
  if (guard_changes) {
    say(progress, "guard", "loading the changed rules");
    state.guard_rules.clear();  // until they are loaded, the next `up` has to try again
    if (auto applied = run_guard_once(state, "apply"); !applied) return applied.status();
    state.guard_rules = guard_rules_of(plan);
  }
  say(progress, "egress", "waiting until the policy is enforced");
  return wait_egress(plan, state, {kPolicyUpdate, false, *changed ? generation : -1});
}

// Work on files of the sidecars' image, or of a volume, needs a container, but not one that is ever
// started.
Status DockerBackend::with_files_container(const BottlePlan& plan, const Json& mounts,
                                           const std::function<Status(const std::string&)>& work) {
  Json body = {{"Image", plan.guard.image},
               {"Labels", labels_of(plan, state_, "files")},
               {"Cmd", {"true"}},
               {"HostConfig", {{"NetworkMode", "none"}, {"Mounts", mounts}}}};
  auto id = create(container_name("files", plan.slug), body, plan.slug);
  if (!id) return id.status();
  Status s = work(*id);
  (void)remove_container(*id, plan.slug);
  return s;
}

Result<SharedFiles> DockerBackend::shared_files(const BottlePlan& plan, const std::string& image_id,
                                                const Progress& progress) {
  SharedFiles files;
  struct Wanted {
    const char *path, *name;
    std::string* to;
  };
  const Wanted wanted[] = {{"/usr/local/bin/gate", "gate", &files.gate},
                           {"/etc/ssl/certs/ca-certificates.crt", "roots.pem", &files.roots_pem}};
  // Kept by the image's id, which is a hash of its content.
  const std::string all = state_.root() + "/.cache",
                    folder = all + "/" + image_id.substr(image_id.find(':') + 1);
  bool kept = true;
  for (const auto& w : wanted) {
    auto file = read_file(folder + "/" + w.name);
    kept = kept && file && !file->empty();
    if (kept) *w.to = std::move(*file);
  }
  if (kept) return files;
  say(progress, "files", "taking the gate and the public roots from " + plan.guard.image);
  Status s = with_files_container(plan, Json::array(), [&](const std::string& id) -> Status {
    for (const auto& w : wanted) {
      auto tar =
          engine_.bytes("GET", "/containers/" + id + "/archive?path=" + percent_encode(w.path), "", "");
      if (!tar)
        return tar.status().with_context("image " + plan.guard.image + " lacks " + w.path +
                                         " (build it with images/build.sh)");
      auto file = untar_one(*tar);
      if (!file) return file.status().with_context("image " + plan.guard.image + ", " + w.path);
      *w.to = std::move(*file);
    }
    return Status::ok();
  });
  if (!s) return s;
  (void)remove_tree(all);  // of images before
  if (make_dirs(folder, 0700))
    for (const auto& w : wanted) (void)write_file(folder + "/" + w.name, *w.to, 0600);
  return files;
}

// True when the volume is new.
Result<bool> DockerBackend::ensure_workspace(const BottlePlan& plan) {
  if (plan.workspace.kind != WorkspaceSpec::Kind::kEmptyDir) return false;
  const std::string name = workspace_volume(plan.slug);
  auto found = engine_.call("GET", "/volumes/" + name);
  if (!found && found.status().code() != Code::kNotFound) return found.status();
  if (!found) {
    auto made =
        engine_.call("POST", "/volumes/create",
                     Json{{"Name", name}, {"Labels", labels_of(plan, state_, "workspace")}});
    if (!made) return made.status().with_context("workspace volume");
    return true;
  }
  if (!ours(found->value("Labels", Json::object()), plan.slug))
    return Status(Code::kConflict,
                  "the volume name " + name +
                      " is taken by something that is not ours; remove it (docker volume rm) "
                      "or give the bottle another name");
  return false;
}

Status DockerBackend::own_workspace(const BottlePlan& plan) {
  Json mount = {{"Type", "volume"},
                {"Source", workspace_volume(plan.slug)},
                {"Target", "/workspace"},
                {"VolumeOptions", {{"NoCopy", true}}}};
  return with_files_container(plan, Json::array({mount}), [&](const std::string& id) {
    return engine_
        .bytes("PUT", "/containers/" + id + "/archive?path=%2F",
               tar_folder("workspace/", 0755, plan.agent.uid, plan.agent.gid), "application/x-tar")
        .status()
        .with_context("owner of the workspace");
  });
}

Result<std::string> DockerBackend::ensure_network(const BottlePlan& plan,
                                                  const BottleState& state) {
  std::string name = network_name(plan.slug);
  auto found = engine_.call("GET", "/networks/" + name);
  if (found) {
    if (!ours(found->value("Labels", Json::object()), plan.slug))
      return Status(Code::kConflict,
                    "the network name " + name +
                        " is taken by something that is not ours; remove it (docker network rm " +
                        name + ") or give the bottle another name");
    std::string id = text_at(*found, "/Id");
    if (id == state.network_id) return id;
    if (auto s = remove_network(plan.slug); !s) return s;
  } else if (found.status().code() != Code::kNotFound) {
    return found.status();
  }
  auto made = engine_.call("POST", "/networks/create",
                           Json{{"Name", name},
                                {"CheckDuplicate", true},
                                {"Driver", "bridge"},
                                {"Labels", labels_of(plan, state_, "network")}});
  if (!made) return made.status().with_context("network " + name);
  return text_at(*made, "/Id");
}

Status DockerBackend::remake(const ApplyRequest& request, BottleState& state,
                             const Progress& progress) {
  const BottlePlan& plan = request.plan;
  // Everything that can fail without touching what runs comes first: images, the agent's command,
  // files of the image.
  Json agent_image, guard_image;
  for (const ContainerPlan* c : {&plan.guard, &plan.egress, &plan.agent}) {
    auto image = ensure_image(engine_, c->image, request.pull, role_name(c->role), progress);
    if (!image) return image.status();
    if (c->role == Role::kAgent)
      agent_image = std::move(*image);
    else if (c->role == Role::kGuard)
      guard_image = std::move(*image);
  }
  auto agent_body = container_body(plan, plan.agent, state_, "", agent_image);
  if (!agent_body) return agent_body.status();
  auto shared = shared_files(plan, text_at(guard_image, "/Id"), progress);
  if (!shared) return shared.status();
  auto new_workspace = ensure_workspace(plan);
  if (!new_workspace) return new_workspace.status();
  const std::string owner = std::to_string(plan.agent.uid) + ":" + std::to_string(plan.agent.gid);
  const bool give_workspace = plan.workspace.kind == WorkspaceSpec::Kind::kEmptyDir &&
                              (*new_workspace || state.workspace_owner != owner);
  auto ca = state_.ca(plan, std::time(nullptr));
  if (!ca) return ca.status();

  if (auto s = remove_containers(plan.slug, state.guard_id.empty() ? Progress() : progress); !s)
    return s;
  state.guard_id = state.egress_id = state.agent_id = "";
  if (auto s = state_.write_all(plan, *ca, *shared, request.tokens, state.resolvers); !s) return s;
  auto network = ensure_network(plan, state);
  if (!network) return network.status();
  state.network_id = *network;
  state.pod_hash = plan.pod_hash, state.guard_rules = guard_rules_of(plan);
  state.egress_argv = join(plan.egress.command, plan.egress.args);

  auto up = [&]() -> Status {
    say(progress, "guard", "closing the bottle's network");
    auto guard_body = container_body(plan, plan.guard, state_, network_name(plan.slug), Json());
    if (!guard_body) return guard_body.status();
    auto guard = create(container_name("guard", plan.slug), *guard_body, plan.slug);
    if (!guard) return guard.status();
    state.guard_id = *guard;
    const std::string joined = "container:" + *guard;

    auto egress_body = container_body(plan, plan.egress, state_, joined, Json());
    if (!egress_body) return egress_body.status();
    (*agent_body)["HostConfig"]["NetworkMode"] = joined;
    // Made side by side while the guard works, started one after the other.
    Result<std::string> egress(Code::kInternal, "egress was not created"),
        agent(Code::kInternal, "agent was not created");
    Status guarded, owned;
    {
      std::jthread own([&] {
        if (give_workspace) owned = own_workspace(plan);
      });
      std::jthread make_egress(
          [&] { egress = create(container_name("egress", plan.slug), *egress_body, plan.slug); });
      std::jthread make_agent(
          [&] { agent = create(container_name("agent", plan.slug), *agent_body, plan.slug); });
      guarded = start(*guard, "guard");
      if (guarded) guarded = wait_guard(*guard);
    }
    if (egress) state.egress_id = *egress;
    if (agent) state.agent_id = *agent;
    if (!guarded) return guarded;
    if (!owned) return owned;
    state.workspace_owner = owner;
    if (!egress) return egress.status();
    if (!agent) return agent.status();
    auto held = engine_.call("GET", "/containers/" + *guard + "/json");
    if (!held) return held.status();
    if (!bool_at(*held, "/State/Running"))
      return Status(Code::kUnavailable, "the guard ended after its report");
    state.guard_started_at = text_at(*held, "/State/StartedAt");
    if (auto s = state_.save(state); !s) return s;

    say(progress, "egress", "starting the proxy");
    if (auto s = start(*egress, "egress"); !s) return s;
    if (auto s = wait_egress(plan, state, {kEgressStart, true, -1}); !s) return s;

    say(progress, "agent", "starting");
    if (g_cancelled) return Status(Code::kCancelled, "interrupted before the agent started");
    if (auto s = start(*agent, "agent"); !s) return s;
    return wait_agent(*agent);
  };
  Status done = up();
  if (!done) stop_all(state);
  return done;
}

}  // namespace bottle::docker
