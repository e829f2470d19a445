// What a person does to a running bottle: logs, exec, attach, the guard's counters.
#include <unistd.h>

#include "backends/docker/docker_impl.h"
#include "backends/docker/hijack.h"

namespace bottle::docker {
namespace {

// exec never becomes a sidecar's UID: the guard lets those out. Names are refused, because the
// agent's own /etc/passwd would say what they mean.
Status check_user(const std::string& user) {
  std::string uid = user.substr(0, user.find(':'));
  for (const std::string& part :
       {uid, user.size() > uid.size() ? user.substr(uid.size() + 1) : std::string("0")})
    if (part.empty() || part.size() > 9 ||
        part.find_first_not_of("0123456789") != std::string::npos)
      return Status(Code::kInvalid, "user '" + user + "': give a number, uid or uid:gid");
  long id = std::stol(uid);
  if (id >= 10001 && id <= 10099)
    return Status(Code::kPermission, "UID " + uid + " belongs to the sidecars (10001-10099)");
  return Status::ok();
}

}  // namespace

Result<Json> DockerBackend::running(const std::string& name, Role role) const {
  auto state = state_of(name);
  if (!state) return state.status();
  const std::string who(role_name(role));
  if (state->id(role).empty())
    return Status(Code::kNotFound,
                  "bottle '" + name + "' has no " + who + "; bottle get " + name + " says why");
  auto now = engine_.call("GET", "/containers/" + state->id(role) + "/json");
  if (!now) return now.status().with_context(who + " of bottle '" + name + "'");
  if (!ours(now->value("Config", Json::object()).value("Labels", Json::object()), state->slug))
    return Status(Code::kConflict, "the " + who + " of bottle '" + name + "' is not ours any more");
  return now;
}

Status DockerBackend::logs(const std::string& name, Role role, const LogOptions& options,
                           const Sink& sink) {
  auto now = running(name, role);
  if (!now) return now.status();
  FrameDemux demux(!bool_at(*now, "/Config/Tty"));
  std::string path = "/containers/" + text_at(*now, "/Id") +
                     "/logs?stdout=1&stderr=1&follow=" + (options.follow ? "1" : "0") +
                     "&timestamps=" + (options.timestamps ? "1" : "0") +
                     "&tail=" + (options.tail < 0 ? "all" : std::to_string(options.tail));
  Status s =
      engine_.stream("GET", path, [&](std::string_view data) { return demux.feed(data, sink); });
  if (demux.broken()) return Status(Code::kUnavailable, "the log stream of the engine broke");
  return s;
}

Result<int> DockerBackend::exec(const std::string& name, const ExecOptions& options) {
  if (options.argv.empty()) return Status(Code::kInvalid, "exec needs a command");
  if (!options.user.empty())
    if (auto s = check_user(options.user); !s) return s;
  auto now = running(name, Role::kAgent);
  if (!now) return now.status();
  if (!bool_at(*now, "/State/Running"))
    return Status(Code::kUnavailable, "the agent of bottle '" + name + "' is " +
                                          text_at(*now, "/State/Status") +
                                          "; bottle up starts it again");
  Json body = {{"AttachStdin", options.stdin_open},
               {"AttachStdout", true},
               {"AttachStderr", true},
               {"Tty", options.tty},
               {"Privileged", false},
               {"Cmd", options.argv}};
  // The agent's UID as it is in the plan, said again: an engine takes the container's by default,
  // we do not rely on it.
  body["User"] = options.user.empty() ? text_at(*now, "/Config/User") : options.user;
  if (!options.working_dir.empty()) body["WorkingDir"] = options.working_dir;
  for (const auto& e : options.env) body["Env"].push_back(e.name + "=" + e.value);
  auto made = engine_.call("POST", "/containers/" + text_at(*now, "/Id") + "/exec", body);
  if (!made) return made.status().with_context("exec");
  const std::string id = text_at(*made, "/Id");

  HijackIo io;
  io.in = options.stdin_open ? STDIN_FILENO : -1, io.out = STDOUT_FILENO, io.err = STDERR_FILENO,
  io.tty = options.tty;
  io.resize = [&](int rows, int columns) {
    (void)engine_.call("POST", "/exec/" + id + "/resize?h=" + std::to_string(rows) +
                                   "&w=" + std::to_string(columns));
  };
  if (auto s = hijack(engine_, "/exec/" + id + "/start",
                      Json{{"Detach", false}, {"Tty", options.tty}}, io);
      !s)
    return s.with_context("exec");
  // The stream ends a moment before the engine has noted the exit code.
  for (int i = 0; i < 200; ++i) {
    auto ended = engine_.call("GET", "/exec/" + id + "/json");
    if (!ended) return ended.status().with_context("exec");
    if (!bool_at(*ended, "/Running")) return static_cast<int>(int_at(*ended, "/ExitCode"));
    ::usleep(10'000);
  }
  return Status(Code::kTimeout, "exec: the command closed its output but runs on");
}

Result<int> DockerBackend::attach(const std::string& name) {
  auto now = running(name, Role::kAgent);
  if (!now) return now.status();
  if (!bool_at(*now, "/State/Running"))
    return Status(Code::kUnavailable,
                  "the agent of bottle '" + name + "' is " + text_at(*now, "/State/Status"));
  const std::string id = text_at(*now, "/Id");
  HijackIo io;
  io.tty = bool_at(*now, "/Config/Tty");
  io.in = bool_at(*now, "/Config/OpenStdin") ? STDIN_FILENO : -1;
  io.resize = [&](int rows, int columns) {
    (void)engine_.call("POST", "/containers/" + id + "/resize?h=" + std::to_string(rows) +
                                   "&w=" + std::to_string(columns));
  };
  std::string path =
      "/containers/" + id + "/attach?stream=1&stdout=1&stderr=1&stdin=" + (io.in >= 0 ? "1" : "0");
  if (auto s = hijack(engine_, path, nullptr, io); !s) return s.with_context("attach");
  auto ended = engine_.call("GET", "/containers/" + id + "/json");
  if (!ended) return ended.status().with_context("attach");
  return bool_at(*ended, "/State/Running") ? 0
                                           : static_cast<int>(int_at(*ended, "/State/ExitCode"));
}

Result<std::string> DockerBackend::guard_counters(const std::string& name) {
  auto now = running(name, Role::kGuard);
  if (!now) return now.status();
  if (!bool_at(*now, "/State/Running"))
    return Status(Code::kUnavailable, "the guard of bottle '" + name + "' does not run");
  auto state = state_of(name);
  if (!state) return state.status();
  auto lock = state_.lock(state->slug);
  if (!lock) return lock.status();
  return run_guard_once(*state, "counters");
}

}  // namespace bottle::docker
