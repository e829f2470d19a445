#include "backends/kubernetes/exec.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>

#include "backends/kubernetes/connection.h"
#include "backends/kubernetes/websocket.h"
#include "backends/terminal.h"

namespace bottle::kubernetes {
namespace {

constexpr char kV5[] = "v5.channel.k8s.io", kV4[] = "v4.channel.k8s.io";
constexpr size_t kChunk = 32u << 10, kMaxStatus = 64u << 10;
// Something has to cross an idle session now and then, or a load balancer in between forgets it (client-go pings every 5 s).
constexpr auto kPing = std::chrono::seconds(10);

enum Channel : char { kStdin = 0, kStdout = 1, kStderr = 2, kError = 3, kResize = 4 };
constexpr char kCloseChannel = static_cast<char>(255);  // v5: the next byte names the channel that ends

using Clock = std::chrono::steady_clock;

class Session {
 public:
  Session(Connection& connection, const RemoteIo& io) : connection_(connection), io_(io), in_open_(io.in >= 0) {}

  Result<int> run() {
    RawTerminal raw(io_.tty ? io_.in : -1);
    if (auto s = take(connection_.take_first()); !s) return s;
    for (Clock::time_point pinged = Clock::now(); !over_;) {
      if (g_cancelled) {
        (void)queue(Opcode::kClose, close_payload(1001));
        (void)connection_.send(unsent_);
        return Status(Code::kCancelled, "interrupted");
      }
      if (io_.tty)
        if (auto now = terminal_size(io_.out); now && *now != size_) {
          size_ = *now;
          const nlohmann::json j = {{"Width", size_.columns}, {"Height", size_.rows}};
          if (auto s = queue(Opcode::kBinary, std::string(1, kResize) + j.dump()); !s) return s;
        }
      if (const auto now = Clock::now(); now - pinged > kPing) {
        pinged = now;
        if (unsent_.empty())
          if (auto s = queue(Opcode::kPing, ""); !s) return s;
      }
      if (auto s = step(); !s) return s;
    }
    if (!status_.empty()) return exit_code_of(status_);
    return Status(Code::kUnavailable, "the connection to the API server ended before the command did; the command may still run");
  }

 private:
  Status queue(Opcode opcode, std::string_view payload) {
    auto frame = websocket_frame(opcode, payload);
    if (!frame) return frame.status();
    unsent_ += *frame;
    return Status::ok();
  }

  // Waits for one thing to happen, and does it. No input is read before the last was sent, so that output never waits for it.
  Status step() {
    pollfd p[2] = {{connection_.fd(), static_cast<short>(POLLIN | (unsent_.empty() ? 0 : POLLOUT)), 0}, {in_open_ && unsent_.empty() ? io_.in : -1, POLLIN, 0}};
    if (::poll(p, 2, kTickMs) < 0 && errno != EINTR) return {Code::kInternal, "poll failed"};
    if (p[1].revents != 0)
      if (auto s = read_input(); !s) return s;
    if (!unsent_.empty()) {
      const ssize_t n = connection_.send(unsent_);
      if (n < 0) {  // the program does not read any more; its output may still come
        in_open_ = false;
        unsent_.clear();
      } else {
        unsent_.erase(0, static_cast<size_t>(n));
      }
    }
    // TLS may hold bytes that poll does not see: read until there are none.
    char buffer[kChunk];
    while (!over_) {
      const ssize_t n = connection_.receive(buffer, sizeof buffer);
      if (n == 0) break;
      if (n < 0) over_ = true;
      else if (auto s = take({buffer, static_cast<size_t>(n)}); !s) return s;
    }
    return Status::ok();
  }

  Status read_input() {
    char buffer[kChunk];
    buffer[0] = kStdin;
    const ssize_t n = ::read(io_.in, buffer + 1, sizeof buffer - 1);
    if (n > 0) return queue(Opcode::kBinary, {buffer, static_cast<size_t>(n) + 1});
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return Status::ok();
    in_open_ = false;
    if (connection_.protocol() != kV5) return Status::ok();  // a terminal that went away; for anything else run_remote refused
    return queue(Opcode::kBinary, std::string{kCloseChannel, kStdin});
  }

  Status take(std::string_view bytes) {
    Status failed;
    Status s = reader_.feed(bytes, [&](Opcode opcode, std::string_view payload) {
      switch (opcode) {
        case Opcode::kPing: failed = queue(Opcode::kPong, payload); return failed.is_ok();
        case Opcode::kPong: return true;
        case Opcode::kClose:
          (void)queue(Opcode::kClose, payload.substr(0, 2));
          (void)connection_.send(unsent_);
          over_ = true;
          return false;
        default: failed = channel(payload); return failed.is_ok();
      }
    });
    return s ? failed : s;
  }

  Status channel(std::string_view payload) {
    if (payload.size() < 2) return Status::ok();  // each channel begins with an empty message
    const char which = payload[0];
    payload.remove_prefix(1);
    if (which == kStdout || which == kStderr) {
      if (!write_all(which == kStdout ? io_.out : io_.err, payload))
        return g_cancelled ? Status(Code::kCancelled, "interrupted")
                           : Status(Code::kUnavailable, "nobody reads the command's output any more; the command may still run");
    } else if (which == kError) {
      if (status_.size() + payload.size() > kMaxStatus) return {Code::kUnavailable, "the API server's report on the command is too long"};
      status_ += payload;
    }
    return Status::ok();
  }

  Connection& connection_;
  const RemoteIo& io_;
  WebSocketReader reader_;
  std::string unsent_, status_;
  TerminalSize size_;
  bool in_open_, over_ = false;
};

}  // namespace

Result<int> run_remote(const kube::Config& config, const std::string& path, const RemoteIo& io) {
  auto connection = Connection::open(config, path, {kV5, kV4});
  if (!connection) return connection.status();
  if (io.in >= 0 && !isatty(io.in)) {
    if ((*connection)->protocol() != kV5)
      return Status(Code::kUnsupported,
                    "this API server has no way to tell a command that its input has ended (v5.channel.k8s.io, Kubernetes 1.30 or newer); leave -i out");
    (*connection)->wait_for_slow_reader();
  }
  auto code = Session(**connection, io).run();
  if (code) return code;
  // What the runtime says of a program that cannot be run gets a shell's exit code, as Docker gives it.
  const std::string why = code.status().message();
  const bool missing = why.find("executable file not found") != std::string::npos || why.find("no such file or directory") != std::string::npos;
  const bool forbidden = why.find("permission denied") != std::string::npos;
  if (why.find("exec failed") == std::string::npos || (!missing && !forbidden)) return code;
  (void)write_all(io.err, why + "\n");
  return missing ? 127 : 126;
}

Result<int> exit_code_of(std::string_view status_json) {
  const auto j = nlohmann::json::parse(status_json, nullptr, false);
  const auto text = [](const nlohmann::json& from, const char* key) {
    const auto it = from.find(key);
    return it != from.end() && it->is_string() ? it->get<std::string>() : std::string();
  };
  if (!j.is_object()) return Status(Code::kUnavailable, "the API server's report on the command is not a Status");
  if (text(j, "status") == "Success") return 0;
  if (text(j, "reason") == "NonZeroExitCode" && j.contains("details") && j["details"].is_object() && j["details"].contains("causes") &&
      j["details"]["causes"].is_array()) {
    for (const auto& cause : j["details"]["causes"]) {
      if (!cause.is_object() || text(cause, "reason") != "ExitCode") continue;
      const std::string digits = text(cause, "message");
      if (!digits.empty() && digits.size() <= 3 && digits.find_first_not_of("0123456789") == std::string::npos) return std::stoi(digits);
    }
  }
  const std::string message = text(j, "message");
  return Status(Code::kUnavailable, message.empty() ? "the command failed, and the API server does not say how" : message);
}

Result<std::vector<std::string>> command_of(const ExecOptions& options) {
  if (options.argv.empty()) return Status(Code::kInvalid, "exec needs a command");
  if (options.working_dir.empty() && options.env.empty()) return options.argv;
  if (options.argv[0].find('=') != std::string::npos)
    return Status(Code::kInvalid, "the command \"" + options.argv[0] + "\" has a '=' in it, and env(1), which sets -w and -e on Kubernetes, would take it for a variable");
  std::vector<std::string> out = {"/usr/bin/env"};
  if (!options.working_dir.empty()) out.insert(out.end(), {"-C", options.working_dir});
  out.emplace_back("--");
  for (const auto& e : options.env) out.push_back(e.name + "=" + e.value);
  out.insert(out.end(), options.argv.begin(), options.argv.end());
  return out;
}

}  // namespace bottle::kubernetes
