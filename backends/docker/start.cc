// Containers one at a time: create, start, wait until one does its work.
#include <algorithm>
#include <thread>

#include "backends/docker/docker_impl.h"
#include "backends/docker/hijack.h"
#include "base/encoding.h"
#include "base/file.h"

namespace bottle::docker {
namespace {

using Clock = std::chrono::steady_clock;
constexpr long kGuardLimitMs = 20'000;
constexpr char kGatePath[] = "/.bot-bottle/gate";

// The guard's one JSON line about itself, among what else may be there.
struct GuardSaid {
  bool verified = false;
  std::string failure;
};
GuardSaid read_guard_line(const std::string& line) {
  Json j = Json::parse(line, nullptr, false);
  std::string said = j.is_object() ? text_at(j, "/guard") : "";
  if (said == "verified") return {true, ""};
  if (said == "failed")
    return {false, text_at(j, "/reason").empty() ? "no reason given" : text_at(j, "/reason")};
  return {};
}

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  return text;
}

}  // namespace

Result<std::string> DockerBackend::create(const std::string& name, const Json& body,
                                          const std::string& slug) {
  std::string path = "/containers/create?name=" + percent_encode(name);
  for (int attempt = 0;; ++attempt) {
    auto made = engine_.call("POST", path, body);
    if (made) return text_at(*made, "/Id");
    if (made.status().code() != Code::kConflict || attempt > 0)
      return made.status().with_context("create " + name);
    // Left over from a command that was interrupted? Only our labels say so, and then only this
    // very id goes.
    auto taken = engine_.call("GET", "/containers/" + name + "/json");
    if (!taken) return made.status().with_context("create " + name);
    if (!ours(taken->value("Config", Json::object()).value("Labels", Json::object()), slug))
      return Status(Code::kConflict, "the container name " + name +
                                         " is taken by something that is not ours (id " +
                                         text_at(*taken, "/Id").substr(0, 12) + ", image " +
                                         text_at(*taken, "/Config/Image") +
                                         "); remove or rename it, or give the bottle another name");
    if (auto s = remove_container(text_at(*taken, "/Id"), slug); !s) return s;
  }
}

Status DockerBackend::start(const std::string& id, std::string_view role) const {
  auto started = engine_.call("POST", "/containers/" + id + "/start");
  return started ? Status::ok() : started.status().with_context("start " + std::string(role));
}

std::string DockerBackend::last_lines(const std::string& id, int lines) const {
  std::string text;
  FrameDemux demux(true);
  auto sink = [&](bool, std::string_view bytes) {
    text.append(bytes);
    return text.size() < 8192;
  };
  (void)engine_.stream(
      "GET", "/containers/" + id + "/logs?stdout=1&stderr=1&tail=" + std::to_string(lines),
      [&](std::string_view data) { return demux.feed(data, sink); }, 5'000);
  return trimmed(text);
}

Status DockerBackend::wait_guard(const std::string& id) const {
  std::string line, other;
  GuardSaid said;
  FrameDemux demux(true);
  auto sink = [&](bool, std::string_view bytes) {
    for (char c : bytes) {
      if (c != '\n') {
        if (line.size() < 65536) line += c;
        continue;
      }
      said = read_guard_line(line);
      if (said.verified || !said.failure.empty()) return false;
      other = line;
      line.clear();
    }
    return true;
  };
  Status s = engine_.stream(
      "GET", "/containers/" + id + "/logs?follow=1&stdout=1&stderr=1",
      [&](std::string_view data) { return demux.feed(data, sink); }, kGuardLimitMs);
  if (said.verified) return Status::ok();
  if (!said.failure.empty())
    return Status(Code::kUnsupported, "the guard could not close the bottle's network: " +
                                          said.failure + "; see bottle doctor");
  if (s.code() == Code::kTimeout)
    return Status(Code::kTimeout, "the guard did not report in 20 s; the bottle stays down");
  if (!s) return s;
  auto now = engine_.call("GET", "/containers/" + id + "/json");
  return Status(Code::kInternal, "the guard ended without a report (exit code " +
                                     std::to_string(now ? int_at(*now, "/State/ExitCode") : -1) +
                                     ")" + (other.empty() ? "" : ": " + other));
}

int64_t DockerBackend::egress_generation(const std::string& slug) const {
  auto text = read_file(state_.source_dir(slug, Source::kRun) + "/status.json", 1u << 20);
  Json j = text ? Json::parse(*text, nullptr, false) : Json();
  return j.is_object() && j.contains("generation") ? int_at(j, "/generation") : -1;
}

Status DockerBackend::wait_egress(const BottlePlan& plan, const BottleState& state,
                                  const EgressWait& wait) const {
  const std::string path = state_.source_dir(plan.slug, Source::kRun) + "/status.json";
  const std::string& id = state.egress_id;
  const auto& missing = state.missing_tokens;
  const auto deadline = Clock::now() + wait.limit;
  auto next_look = Clock::now() + std::chrono::milliseconds(250);
  std::string last = "no status yet";
  for (;;) {
    if (g_cancelled) return Status(Code::kCancelled, "interrupted while waiting for egress");
    if (auto text = read_file(path, 1u << 20); text) {
      Json j = Json::parse(*text, nullptr, false);
      std::string error = text_at(j, "/error"), hash = text_at(j, "/policyHash");
      bool tokens_seen = true;
      for (const auto& ref : plan.tokens) {
        bool absent = std::find(missing.begin(), missing.end(), ref.env) != missing.end();
        std::string said = text_at(j, "/tokens/" + ref.env);
        if (!said.empty() && said != (absent ? "missing" : "present")) tokens_seen = false;
      }
      const bool new_enough =
          wait.after_generation < 0 || int_at(j, "/generation") > wait.after_generation;
      if (bool_at(j, "/ready") && hash == plan.policy_hash && error.empty() && tokens_seen &&
          new_enough)
        return Status::ok();
      last = !error.empty()             ? error
             : hash != plan.policy_hash ? "it enforces " + (hash.empty() ? "nothing" : hash)
             : bool_at(j, "/ready")     ? "it has not loaded the change"
                                        : "it is not ready";
    }
    if (wait.fresh && Clock::now() >= next_look) {
      next_look = Clock::now() + std::chrono::milliseconds(250);
      auto now = engine_.call("GET", "/containers/" + id + "/json");
      if (!now) return now.status().with_context("egress");
      if (!bool_at(*now, "/State/Running") || int_at(*now, "/RestartCount") > 0)
        return Status(Code::kUnavailable,
                      "egress ended (exit code " + std::to_string(int_at(*now, "/State/ExitCode")) +
                          (bool_at(*now, "/State/OOMKilled") ? ", out of memory" : "") +
                          "): " + last_lines(id, 10));
    }
    if (Clock::now() > deadline) {
      std::string lines = last_lines(id, 5);
      return Status(Code::kTimeout, "egress does not enforce the policy after " +
                                        std::to_string(wait.limit.count() / 1000) + " s: " + last +
                                        (lines.empty() ? "" : "; its log: " + lines));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

Status DockerBackend::wait_agent(const std::string& id) const {
  const auto deadline =
      Clock::now() + std::chrono::seconds(12);  // the gate itself gives up after 10
  while (Clock::now() < deadline && !g_cancelled) {
    auto now = engine_.call("GET", "/containers/" + id + "/json");
    if (!now) return now.status().with_context("agent");
    int64_t code = int_at(*now, "/State/ExitCode");
    if (!bool_at(*now, "/State/Running") && !bool_at(*now, "/State/Restarting")) {
      if (code < 125 || code > 127) return Status::ok();  // it ran, and is done
      return Status(Code::kInvalid, "the agent's command did not run (exit code " +
                                        std::to_string(code) + "): " + last_lines(id, 5));
    }
    auto top = engine_.call("GET", "/containers/" + id + "/top");
    if (!top || !top->is_object() || !top->contains("Processes"))
      return Status::ok();  // no ps where the engine is: not to be seen
    bool gate = false, other = false;
    for (const auto& p : (*top)["Processes"]) {
      std::string command =
          p.is_array() && !p.empty() && p.back().is_string() ? p.back().get<std::string>() : "";
      if (command.rfind(kGatePath, 0) == 0)
        gate = true;
      else if (command.find(kGatePath) == std::string::npos)
        other = true;
    }
    if (!gate && other) return Status::ok();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return g_cancelled ? Status(Code::kCancelled, "interrupted")
                     : Status(Code::kTimeout,
                              "the agent does not come through the gate: " + last_lines(id, 5));
}

Result<std::string> DockerBackend::run_guard_once(const BottleState& state,
                                                  const std::string& verb) {
  auto holder = engine_.call("GET", "/containers/" + state.guard_id + "/json");
  if (!holder) return holder.status().with_context("guard");
  auto id = create(container_name("guard-" + verb, state.slug), guard_once_body(*holder, verb),
                   state.slug);
  if (!id) return id.status();
  auto run = [&]() -> Result<std::string> {
    if (auto s = start(*id, "guard " + verb); !s) return s;
    std::string out;
    FrameDemux demux(true);
    auto sink = [&](bool is_stderr, std::string_view bytes) {
      if (!is_stderr) out.append(bytes);
      return out.size() < (1u << 20);
    };
    Status s = engine_.stream(
        "GET", "/containers/" + *id + "/logs?follow=1&stdout=1&stderr=1",
        [&](std::string_view data) { return demux.feed(data, sink); }, kGuardLimitMs);
    if (!s) return s.with_context("guard " + verb);
    auto waited = engine_.call("POST", "/containers/" + *id + "/wait", nullptr, kGuardLimitMs);
    if (!waited) return waited.status().with_context("guard " + verb);
    if (int64_t code = int_at(*waited, "/StatusCode"); code != 0) {
      std::string why = read_guard_line(trimmed(out)).failure;
      return Status(Code::kUnavailable,
                    "guard " + verb + " failed" +
                        (why.empty() ? " with exit code " + std::to_string(code) : ": " + why));
    }
    return trimmed(out);
  };
  auto result = run();
  (void)remove_container(*id, state.slug);
  return result;
}

}  // namespace bottle::docker
