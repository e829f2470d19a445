// What a person does to a running bottle: logs, exec, attach.
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "backends/kubernetes/exec.h"
#include "backends/kubernetes/kubernetes_impl.h"

namespace bottle::kubernetes {
namespace {

const Json* agent_in(const Json& list) {
  for (const auto& c : list)
    if (c.is_object() && text_at(c, "/name") == role_name(Role::kAgent)) return &c;
  return nullptr;
}

// A log on its way from the client's loop thread to the one that writes it. The loop thread waits when the writer is that far behind: this
// process has nothing else on it, and so a slow reader slows the server down instead of filling our memory.
class Pipe {
 public:
  bool put(std::string_view bytes) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return buffer_.size() < kMax || stopped_; });
    if (stopped_) return false;
    buffer_.append(bytes);
    changed_.notify_all();
    return true;
  }
  void end(kube::Answer answer) {
    const std::lock_guard lock(mutex_);
    answer_ = std::move(answer);
    ended_ = true;
    changed_.notify_all();
  }
  void stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }
  // What has come; empty after `tick` without anything. Sets `ended` once all has been taken.
  std::string take(std::chrono::milliseconds tick, bool* ended) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, tick, [&] { return !buffer_.empty() || ended_; });
    *ended = ended_ && buffer_.empty();
    std::string out;
    out.swap(buffer_);
    changed_.notify_all();
    return out;
  }
  const kube::Answer& answer() const { return answer_; }  // after the end

 private:
  static constexpr size_t kMax = 1u << 20;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string buffer_;
  kube::Answer answer_;
  bool ended_ = false, stopped_ = false;
};

}  // namespace

Status KubernetesBackend::logs(const std::string& name, Role role, const LogOptions& options, const Sink& sink) {
  const Key key = key_of(name);
  auto pod = pod_of(key);
  if (!pod) return pod.status();
  kube::Query query = {{"container", std::string(role_name(role))}};
  if (options.follow) query.emplace_back("follow", "true");
  if (options.timestamps) query.emplace_back("timestamps", "true");
  if (options.tail >= 0) query.emplace_back("tailLines", std::to_string(options.tail));
  kube::Request r;
  r.path = kube::object_path(kube::kPods, key.ns, key.name, "log", query);
  r.accept = "*/*";
  Pipe pipe;
  auto stream = client_->stream(r, std::chrono::milliseconds(0), [&](std::string_view bytes) { return pipe.put(bytes); }, [&](kube::Answer a) { pipe.end(std::move(a)); });
  Status status;
  for (bool ended = false; !ended;) {
    const std::string bytes = pipe.take(std::chrono::milliseconds(200), &ended);
    if (g_cancelled) {
      status = {Code::kCancelled, "interrupted"};
      break;
    }
    // The kubelet puts both of a container's streams into one.
    if (!bytes.empty() && !sink(false, bytes)) {
      if (g_cancelled) status = {Code::kCancelled, "interrupted"};
      break;
    }
    if (ended && !pipe.answer().ok()) status = pipe.answer().status("log of the " + std::string(role_name(role)) + " of bottle " + key.text());
  }
  pipe.stop();
  stream->close();
  return status;
}

Result<Json> KubernetesBackend::running_agent(const Key& key) {
  auto pod = pod_of(key);
  if (!pod) return pod.status();
  const Json* status = agent_in(at(*pod, "/status/containerStatuses"));
  if (!text_at(*pod, "/metadata/deletionTimestamp").empty()) return Status(Code::kUnavailable, "the pod of bottle " + key.text() + " is being deleted");
  if (status && at(*status, "/state/running").is_object()) return pod;
  std::string state = "not started";
  if (status && at(*status, "/state/terminated").is_object())
    state = "finished (exit code " + std::to_string(int_at(*status, "/state/terminated/exitCode")) + ")";
  else if (status && !text_at(*status, "/state/waiting/reason").empty())
    state = "waiting (" + text_at(*status, "/state/waiting/reason") + ")";
  return Status(Code::kUnavailable, "the agent of bottle " + key.text() + " does not run: " + state + "; bottle get " + key.name + " -n " + key.ns + " says why");
}

Result<int> KubernetesBackend::exec(const std::string& name, const ExecOptions& options) {
  if (!options.user.empty())
    return Status(Code::kUnsupported, "Kubernetes runs a command as the container's user and has no way to choose another: leave --user out (spec.agent.runAsUser is the agent's)");
  auto command = command_of(options);
  if (!command) return command.status();
  const Key key = key_of(name);
  auto pod = running_agent(key);
  if (!pod) return pod.status();
  kube::Query query = {{"container", "agent"}, {"stdout", "true"}};
  if (options.stdin_open) query.emplace_back("stdin", "true");
  // With a terminal there is one stream, and the server refuses to be asked for two.
  query.emplace_back(options.tty ? "tty" : "stderr", "true");
  for (const auto& word : *command) query.emplace_back("command", word);
  RemoteIo io;
  io.in = options.stdin_open ? STDIN_FILENO : -1;
  io.tty = options.tty;
  auto code = run_remote(client_->config(), kube::object_path(kube::kPods, key.ns, key.name, "exec", query), io);
  return code ? code : Result<int>(code.status().with_context("exec in bottle " + key.text()));
}

Result<int> KubernetesBackend::attach(const std::string& name) {
  const Key key = key_of(name);
  auto pod = running_agent(key);
  if (!pod) return pod.status();
  const Json* spec = agent_in(at(*pod, "/spec/containers"));
  const bool tty = spec && at(*spec, "/tty") == true, in = spec && at(*spec, "/stdin") == true;
  kube::Query query = {{"container", "agent"}, {"stdout", "true"}};
  if (in) query.emplace_back("stdin", "true");
  query.emplace_back(tty ? "tty" : "stderr", "true");
  RemoteIo io;
  io.in = in ? STDIN_FILENO : -1;
  io.tty = tty;
  auto attached = run_remote(client_->config(), kube::object_path(kube::kPods, key.ns, key.name, "attach", query), io);
  if (!attached) return attached.status().with_context("attach to bottle " + key.text());
  // The stream says nothing of how the agent ended, and the kubelet says it a moment later.
  for (const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5); std::chrono::steady_clock::now() < deadline && !g_cancelled;) {
    auto now = get_json(kube::object_path(kube::kPods, key.ns, key.name), "get pod " + key.text());
    if (!now) break;
    const Json* status = agent_in(at(*now, "/status/containerStatuses"));
    if (status && at(*status, "/state/terminated").is_object()) return static_cast<int>(int_at(*status, "/state/terminated/exitCode"));
    std::this_thread::sleep_for(waits_.poll);
  }
  return attached;
}

}  // namespace bottle::kubernetes
