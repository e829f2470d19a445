#include "controller/kube/exec_plugin.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <mutex>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "controller/kube/credentials.h"

extern char** environ;

namespace bottle::kube {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr size_t kMaxOutput = 1u << 20, kStderrKept = 4096;
constexpr int64_t kLeewaySeconds = 10;
// A plugin that fails is not run again for every request.
constexpr auto kFailurePause = std::chrono::seconds(2);

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }
  int get() const { return fd_; }
  void reset(int fd = -1) {
    if (fd_ >= 0) close(fd_);
    fd_ = fd;
  }

 private:
  int fd_ = -1;
};

// The last line with something on it, fit for a terminal.
std::string last_line(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.remove_suffix(1);
  if (size_t at = text.rfind('\n'); at != std::string_view::npos) text = text.substr(at + 1);
  std::string out(text.substr(0, 300));
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  return out;
}

struct Output {
  SecretString out;
  std::string err;
  bool too_long = false;
};

// Reads what there is. False at the end.
bool drain(int fd, std::string* to, bool* too_long, bool keep_tail) {
  std::array<char, 8192> buffer;
  while (true) {
    ssize_t n = read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN;
    if (n == 0) return false;
    to->append(buffer.data(), static_cast<size_t>(n));
    OPENSSL_cleanse(buffer.data(), static_cast<size_t>(n));
    if (keep_tail && to->size() > kStderrKept) to->erase(0, to->size() - kStderrKept);
    if (!keep_tail && to->size() > kMaxOutput) {
      *too_long = true;
      return false;
    }
  }
}

std::vector<std::string> environment_of(const ExecPlugin& plugin) {
  std::vector<std::string> out;
  auto ours = [&](std::string_view entry) {
    std::string_view name = entry.substr(0, entry.find('='));
    return name == "KUBERNETES_EXEC_INFO" || std::any_of(plugin.env.begin(), plugin.env.end(), [&](const auto& e) { return e.first == name; });
  };
  for (char** e = environ; e && *e; ++e)
    if (!ours(*e)) out.emplace_back(*e);
  for (const auto& [name, value] : plugin.env) out.push_back(name + "=" + value);
  out.push_back("KUBERNETES_EXEC_INFO=" + plugin.info);
  return out;
}

Result<pid_t> spawn(const ExecPlugin& plugin, int out, int err) {
  std::vector<std::string> words = {plugin.command}, env = environment_of(plugin);
  words.insert(words.end(), plugin.args.begin(), plugin.args.end());
  std::vector<char*> argv, envp;
  for (auto& w : words) argv.push_back(w.data());
  for (auto& e : env) envp.push_back(e.data());
  argv.push_back(nullptr);
  envp.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out, 1);
  posix_spawn_file_actions_adddup2(&actions, err, 2);
  posix_spawn_file_actions_addclosefrom_np(&actions, 3);  // not every library opens with close-on-exec
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, reset;
  sigemptyset(&none);
  sigfillset(&reset);
  posix_spawnattr_setsigmask(&attributes, &none);  // our threads block everything
  posix_spawnattr_setsigdefault(&attributes, &reset);
  posix_spawnattr_setpgroup(&attributes, 0);       // so that its children can be ended with it
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  pid_t pid = -1;
  int rc = posix_spawnp(&pid, plugin.command.c_str(), &actions, &attributes, argv.data(), envp.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (rc != 0) return Status(rc == ENOENT ? Code::kNotFound : Code::kUnsupported, std::strerror(rc));
  return pid;
}

// RFC 3339 as Go's time.Time prints it: 2026-11-24T08:40:00Z, fractions dropped, offsets applied.
std::optional<int64_t> unix_time(const std::string& text) {
  std::tm tm{};
  const char* rest = strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &tm);
  if (!rest) return std::nullopt;
  if (*rest == '.')
    for (++rest; *rest >= '0' && *rest <= '9'; ++rest) {
    }
  int64_t offset = 0;
  if (*rest == '+' || *rest == '-') {
    int hours = 0, minutes = 0, used = 0;
    if (std::sscanf(rest + 1, "%2d:%2d%n", &hours, &minutes, &used) != 2 || rest[1 + used] != '\0') return std::nullopt;
    offset = (*rest == '-' ? -1 : 1) * (hours * 3600 + minutes * 60);
  } else if (std::strcmp(rest, "Z") != 0) {
    return std::nullopt;
  }
  return static_cast<int64_t>(timegm(&tm)) - offset;
}

std::string take_string(const Json& status, const char* key) {
  auto it = status.find(key);
  return it != status.end() && it->is_string() ? it->get<std::string>() : "";
}

class Exec : public Credentials {
 public:
  explicit Exec(ExecPlugin plugin) : plugin_(std::move(plugin)) {
    if (!plugin_.unix_now) plugin_.unix_now = [] { return static_cast<int64_t>(std::time(nullptr)); };
  }
  Result<SecretString> token() override {
    std::lock_guard lock(mutex_);
    if (auto s = refresh(); !s) return s;
    return current_->token.clone();
  }
  Result<ClientCertificate> certificate() override {
    std::lock_guard lock(mutex_);
    if (auto s = refresh(); !s) return s;
    return ClientCertificate{current_->certificate.cert_pem, current_->certificate.key_pem.clone()};
  }
  uint64_t certificate_generation() override {
    std::lock_guard lock(mutex_);
    return generation_;
  }
  void rejected() override {
    std::lock_guard lock(mutex_);
    rejected_ = true;
    failure_ = Status::ok();
  }

 private:
  Status refresh() {
    int64_t now = plugin_.unix_now();
    bool good = current_ && (!current_->expires || now < *current_->expires);
    if (good && !rejected_ && now < renew_at_) return Status::ok();
    if (!failure_ && Clock::now() - failed_at_ < kFailurePause) return good ? Status::ok() : failure_;
    auto fresh = obtain();
    if (!fresh) {
      failure_ = fresh.status();
      failed_at_ = Clock::now();
      if (!good) return failure_;
      log::warn("the credential plugin failed: going on with the credential it gave before", {{"command", plugin_.command}, {"reason", failure_.message()}});
      return Status::ok();
    }
    failure_ = Status::ok();
    rejected_ = false;
    if (!current_ || current_->certificate.cert_pem != fresh->certificate.cert_pem) ++generation_;
    current_ = std::move(*fresh);
    renew_at_ = INT64_MAX;
    if (current_->expires) {
      int64_t life = std::max<int64_t>(0, *current_->expires - now);
      renew_at_ = *current_->expires - std::min(kLeewaySeconds, life / 10);
    }
    return Status::ok();
  }

  Result<ExecCredential> obtain() {
    auto out = run_exec_plugin(plugin_);
    if (!out) return out.status();
    auto credential = parse_exec_credential(out->expose(), plugin_.api_version);
    if (!credential) return credential.status().with_context("credential plugin " + plugin_.command);
    return credential;
  }

  std::mutex mutex_;  // held while the plugin runs: the others wait for the same credential
  ExecPlugin plugin_;
  std::optional<ExecCredential> current_;
  int64_t renew_at_ = 0;
  bool rejected_ = false;
  uint64_t generation_ = 0;
  Status failure_;
  Clock::time_point failed_at_{};
};

}  // namespace

Result<ExecCredential> parse_exec_credential(std::string_view text, std::string_view api_version) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || take_string(json, "kind") != "ExecCredential")
    return Status(Code::kInvalid, "what it printed is not an ExecCredential in JSON");
  if (take_string(json, "apiVersion") != api_version)
    return Status(Code::kInvalid, "its answer is of another apiVersion than " + std::string(api_version) + ", which the kubeconfig asks for");
  auto status = json.find("status");
  if (status == json.end() || !status->is_object()) return Status(Code::kInvalid, "its answer has no status");

  ExecCredential out;
  if (SecretString token(take_string(*status, "token")); !token.empty()) {
    auto clean = clean_token(token.expose(), "its answer");
    if (!clean) return clean.status();
    out.token = std::move(*clean);
  }
  out.certificate.cert_pem = take_string(*status, "clientCertificateData");
  out.certificate.key_pem = SecretString(take_string(*status, "clientKeyData"));
  bool has_pair = !out.certificate.cert_pem.empty() || !out.certificate.key_pem.empty();
  if (has_pair)
    if (auto s = check_pair(out.certificate); !s) return s;
  if (out.token.empty() && !has_pair) return Status(Code::kInvalid, "its answer holds neither a token nor a certificate with its key");
  if (auto at = status->find("expirationTimestamp"); at != status->end() && !at->is_null()) {
    out.expires = at->is_string() ? unix_time(at->get<std::string>()) : std::nullopt;
    if (!out.expires) return Status(Code::kInvalid, "its expirationTimestamp is not a time in RFC 3339");
  }
  return out;
}

Result<SecretString> run_exec_plugin(const ExecPlugin& plugin) {
  std::string what = "credential plugin " + plugin.command;
  std::string hint = plugin.install_hint.empty() ? "" : "; " + last_line(plugin.install_hint);
  int out_pipe[2], err_pipe[2];
  if (pipe2(out_pipe, O_CLOEXEC) != 0) return Status(Code::kExhausted, what + ": " + std::strerror(errno));
  Fd out(out_pipe[0]), out_write(out_pipe[1]);
  if (pipe2(err_pipe, O_CLOEXEC) != 0) return Status(Code::kExhausted, what + ": " + std::strerror(errno));
  Fd err(err_pipe[0]), err_write(err_pipe[1]);
  fcntl(out.get(), F_SETFL, O_NONBLOCK);
  fcntl(err.get(), F_SETFL, O_NONBLOCK);

  auto pid = spawn(plugin, out_write.get(), err_write.get());
  if (!pid) return Status(pid.status().code(), what + ": cannot run it: " + pid.status().message() + hint);
  out_write.reset();
  err_write.reset();

  std::string text, errors;
  text.reserve(kMaxOutput + 8192);  // grows in place: no copies of a secret left behind
  bool too_long = false, out_open = true, err_open = true;
  int status = 0;
  bool exited = false;
  auto end = Clock::now() + plugin.limit;
  // Ends when the program has: a daemon that it left behind may keep the pipes open for ever.
  while (!exited && !too_long && Clock::now() < end) {
    std::array<pollfd, 2> fds{{{out_open ? out.get() : -1, POLLIN, 0}, {err_open ? err.get() : -1, POLLIN, 0}}};
    ::poll(fds.data(), fds.size(), 20);
    exited = waitpid(*pid, &status, WNOHANG) == *pid;  // before the last read
    if (out_open) out_open = drain(out.get(), &text, &too_long, false);
    if (err_open) err_open = drain(err.get(), &errors, &too_long, true);
  }
  SecretString stdout_text(std::move(text));
  if (!exited) {
    kill(-*pid, SIGKILL);
    while (waitpid(*pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (too_long) return Status(Code::kInvalid, what + ": it printed more than 1 MiB");
    return Status(Code::kTimeout, what + ": it did not end within " + std::to_string(plugin.limit.count() / 1000) +
                                      " s; does it want a terminal? Log in with it first" + hint);
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    std::string how = WIFEXITED(status) ? "exit code " + std::to_string(WEXITSTATUS(status)) : "signal " + std::to_string(WTERMSIG(status));
    std::string said = last_line(errors);
    return Status(Code::kPermission, what + ": " + how + (said.empty() ? "" : ": " + said) + hint);
  }
  return stdout_text;
}

std::shared_ptr<Credentials> exec_credentials(ExecPlugin plugin) { return std::make_shared<Exec>(std::move(plugin)); }

}  // namespace bottle::kube
