#include "backends/docker/container_body.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "seccomp_profile.h"

namespace bottle::docker {
namespace {

constexpr char kGatePath[] = "/.bot-bottle/gate";

const char* engine_restart(RestartPolicy policy) {
  switch (policy) {
    case RestartPolicy::kNever:
      return "no";
    case RestartPolicy::kOnFailure:
      return "on-failure";
    case RestartPolicy::kAlways:
      return "always";
  }
  return "no";
}

bool inside(const std::string& path, const std::string& folder) {
  return path == folder || folder == "/" || path.rfind(folder + "/", 0) == 0;
}

// A folder of the user for the agent. Never one that shows it the state (tokens, the CA's key) or
// the engine's socket.
Result<std::string> host_workspace(const std::string& path, const StateDir& state) {
  char* real = ::realpath(path.c_str(), nullptr);
  if (!real)
    return Status(Code::kInvalid,
                  "spec.agent.workspace.hostPath " + path + ": " + std::strerror(errno));
  std::string folder(real);
  std::free(real);
  struct stat st {};
  if (::stat(folder.c_str(), &st) != 0 || !S_ISDIR(st.st_mode))
    return Status(Code::kInvalid, "spec.agent.workspace.hostPath " + path + " is not a folder");
  if (inside(state.root(), folder) || inside(folder, state.root()))
    return Status(Code::kInvalid, "spec.agent.workspace.hostPath " + path +
                                      " would show the agent the bottles' keys and tokens in " +
                                      state.root() + "; name a folder beside it");
  for (const char* secret : {"/var/run/docker.sock", "/run/docker.sock", "/run/containerd"})
    if (inside(secret, folder))
      return Status(Code::kInvalid, "spec.agent.workspace.hostPath " + path +
                                        " would show the agent the container engine's socket");
  return folder;
}

Status add_mount(const Mount& m, const BottlePlan& plan, const ContainerPlan& c,
                 const StateDir& state, Json& host) {
  if (m.source == Source::kTmp) {
    // Programs of an agent may run from /tmp; those of a sidecar never do.
    host["Tmpfs"][m.target] = c.role == Role::kAgent ? "rw,nosuid,nodev,exec,mode=1777"
                                                     : "rw,nosuid,nodev,noexec,mode=1777,size=64m";
    return Status::ok();
  }
  Json mount = {{"Target", m.target}, {"ReadOnly", m.read_only}, {"Type", "bind"}};
  if (m.source == Source::kWorkspace) {
    switch (plan.workspace.kind) {
      case WorkspaceSpec::Kind::kHostPath: {
        auto folder = host_workspace(plan.workspace.host_path, state);
        if (!folder) return folder.status();
        mount["Source"] = *folder;
        break;
      }
      case WorkspaceSpec::Kind::kPersistentVolumeClaim:
        return Status(Code::kUnsupported,
                      "spec.agent.workspace.persistentVolumeClaim is for clusters; use hostPath or "
                      "emptyDir here");
      case WorkspaceSpec::Kind::kEmptyDir:
        mount["Type"] = "volume";
        mount["Source"] = workspace_volume(plan.slug);
        // Without the image's own files, as on a cluster: copying them would also give the folder
        // its owner in the image.
        mount["VolumeOptions"] = {{"NoCopy", true}};
        break;
    }
  } else {
    mount["Source"] = state.source_dir(plan.slug, m.source) + (m.file.empty() ? "" : "/" + m.file);
  }
  if (mount["Type"] == "bind") mount["BindOptions"] = {{"Propagation", "rprivate"}};
  host["Mounts"].push_back(std::move(mount));
  return Status::ok();
}

Json host_config(const ContainerPlan& c, const std::string& network_mode) {
  Json host = {
      {"NetworkMode", network_mode},
      {"IpcMode", "private"},
      {"CapDrop", {"ALL"}},
      {"CapAdd", c.capabilities},
      {"SecurityOpt", {"no-new-privileges:true"}},
      {"Privileged", false},
      {"ReadonlyRootfs", c.read_only_root},
      {"RestartPolicy", {{"Name", engine_restart(c.restart_policy)}}},
      {"Ulimits", {{{"Name", "core"}, {"Soft", 0}, {"Hard", 0}}}},
      {"LogConfig", {{"Type", "json-file"}, {"Config", {{"max-size", "10m"}, {"max-file", "3"}}}}},
      {"Mounts", Json::array()},
      {"Tmpfs", Json::object()}};
  if (kSeccompProfile[0]) host["SecurityOpt"].push_back(std::string("seccomp=") + kSeccompProfile);
  if (c.pids_limit > 0) host["PidsLimit"] = c.pids_limit;
  if (c.memory_limit_bytes > 0) host["Memory"] = host["MemorySwap"] = c.memory_limit_bytes;
  if (c.memory_request_bytes > 0) host["MemoryReservation"] = c.memory_request_bytes;
  if (c.cpu_limit_millis > 0) host["NanoCpus"] = c.cpu_limit_millis * 1'000'000;
  if (c.cpu_request_millis > 0)
    host["CpuShares"] = std::max<int64_t>(2, c.cpu_request_millis * 1024 / 1000);
  return host;
}

std::vector<std::string> strings_at(const Json& j, const std::string& pointer) {
  std::vector<std::string> out;
  Json::json_pointer p(pointer);
  if (j.contains(p) && j.at(p).is_array())
    for (const auto& v : j.at(p))
      if (v.is_string()) out.push_back(v.get<std::string>());
  return out;
}

}  // namespace

std::string container_name(std::string_view role, const std::string& slug) {
  return "claude-bottle-" + std::string(role) + "-" + slug;
}
std::string network_name(const std::string& slug) { return "claude-bottle-net-" + slug; }
std::string workspace_volume(const std::string& slug) { return "claude-bottle-workspace-" + slug; }

Json labels_of(const BottlePlan& plan, const StateDir& state, std::string_view role) {
  return {{kLabelManaged, "true"},        {kLabelName, plan.name},
          {kLabelSlug, plan.slug},        {kLabelRole, std::string(role)},
          {kLabelPodHash, plan.pod_hash}, {kLabelPolicyHash, plan.policy_hash},
          {kLabelState, state.root()}};
}

Result<std::vector<std::string>> agent_argv(const ContainerPlan& agent, const Json& image) {
  std::vector<std::string> argv =
      agent.command.empty() ? strings_at(image, "/Config/Entrypoint") : agent.command;
  std::vector<std::string> args = agent.args;
  if (agent.command.empty() && args.empty()) args = strings_at(image, "/Config/Cmd");
  argv.insert(argv.end(), args.begin(), args.end());
  if (argv.empty())
    return Status(Code::kInvalid,
                  "image " + agent.image + " has no command of its own: set spec.agent.command");
  return argv;
}

Result<Json> container_body(const BottlePlan& plan, const ContainerPlan& c, const StateDir& state,
                            const std::string& network_mode, const Json& image) {
  Json host = host_config(c, network_mode);
  for (const auto& m : c.mounts)
    if (auto s = add_mount(m, plan, c, state, host); !s) return s;
  Json body = {{"Image", c.image},
               {"User", std::to_string(c.uid) + ":" + std::to_string(c.gid)},
               {"WorkingDir", c.working_dir},
               {"Labels", labels_of(plan, state, role_name(c.role))},
               {"Tty", c.tty},
               {"OpenStdin", c.tty},
               {"Healthcheck", {{"Test", {"NONE"}}}}};
  body["Env"] = Json::array();
  for (const auto& e : c.env) body["Env"].push_back(e.name + "=" + e.value);
  if (c.role == Role::kAgent) {
    auto argv = agent_argv(c, image);
    if (!argv) return argv.status();
    body["Entrypoint"] = {kGatePath};
    body["Cmd"] = *argv;
    host["Init"] = true;  // reaps what an agent leaves behind
  } else {
    if (!c.command.empty()) body["Entrypoint"] = c.command;
    if (!c.args.empty()) body["Cmd"] = c.args;
  }
  if (c.role == Role::kGuard) {  // what the joiners share is the holder's
    body["Hostname"] = plan.slug;
    host["ExtraHosts"] = Json::array();
    for (const auto& alias : plan.agent_hosts)
      for (const auto& name : alias.hostnames) host["ExtraHosts"].push_back(name + ":" + alias.ip);
  }
  body["HostConfig"] = std::move(host);
  return body;
}

Json guard_once_body(const Json& holder, const std::string& verb) {
  Json body, host = holder.value("HostConfig", Json::object());
  const Json config = holder.value("Config", Json::object());
  for (const char* key :
       {"User", "WorkingDir", "Env", "Labels", "Entrypoint", "Cmd", "Healthcheck"})
    if (config.contains(key)) body[key] = config[key];
  body["Image"] = text_at(holder, "/Image");  // by id: the tag may have moved on
  for (const char* key : {"Entrypoint", "Cmd"})
    if (body.contains(key) && body[key].is_array())
      for (auto& word : body[key])
        if (word == "hold") word = verb;
  body["Labels"][kLabelRole] = "guard-" + verb;
  for (const char* key : {"ExtraHosts", "PortBindings", "Links", "Dns", "DnsOptions", "DnsSearch"})
    host.erase(key);
  host["NetworkMode"] = "container:" + text_at(holder, "/Id");
  body["HostConfig"] = std::move(host);
  return body;
}

}  // namespace bottle::docker
