// What a bottle does: exec, attach, logs, audit, explain.
#include <arpa/inet.h>

#include <ostream>

#include "base/file.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "controller/bottle/parse.h"
#include "controller/plan/plan.h"
#include "controller/policy/verdict.h"

namespace bottle::cli {
namespace {

// Cuts a stream into lines; the last one may lack its end.
class Lines {
 public:
  explicit Lines(std::function<void(std::string_view)> take) : take_(std::move(take)) {}
  void feed(std::string_view bytes) {
    buffer_.append(bytes);
    size_t start = 0;
    for (size_t end; (end = buffer_.find('\n', start)) != std::string::npos; start = end + 1)
      take_(std::string_view(buffer_).substr(start, end - start));
    buffer_.erase(0, start);
    if (buffer_.size() > (1u << 20)) buffer_.clear();  // no audit line is that long
  }
  void finish() {
    if (!buffer_.empty()) take_(buffer_);
    buffer_.clear();
  }

 private:
  std::function<void(std::string_view)> take_;
  std::string buffer_;
};

std::string text_of(const Json& j, const char* key) {
  const auto it = j.find(key);
  if (it == j.end() || it->is_null()) return "";
  return printable(it->is_string() ? it->get<std::string>() : it->dump());
}

std::string audit_text(const Json& j, bool color) {
  const bool allowed = j.value("allowed", false);
  std::string s = text_of(j, "time") + "  " + paint(color, allowed ? Color::kGreen : Color::kRed, allowed ? "allow" : "deny ") + "  ";
  std::string what = j.value("event", "") == "connect" ? "CONNECT" : text_of(j, "method");
  s += what + " " + text_of(j, "host") + ":" + text_of(j, "port") + text_of(j, "path");
  if (const auto status = text_of(j, "status"); !status.empty()) s += "  " + status;
  if (!allowed) s += "  " + text_of(j, "code") + ": " + text_of(j, "reason");
  return s;
}

Status bad_url(const std::string& why) { return {Code::kInvalid, "URL: " + why + "; expected https://host[:port][/path][?query]"}; }

bool is_address(const std::string& host) {
  unsigned char a[16];
  return inet_pton(AF_INET, host.c_str(), a) == 1 || host.find(':') != std::string::npos;
}

// The request that a client would send for `url`. Only the frame is taken apart here; host and path stay as typed: judging
// odd spellings is what the policy is for.
Result<policy::Request> request_of(const std::string& url, const std::string& method) {
  policy::Request r;
  r.method = method;
  std::string rest;
  if (url.rfind("https://", 0) == 0) rest = url.substr(8);
  else if (url.rfind("http://", 0) == 0) rest = url.substr(7), r.tls = false, r.port = 80;
  else if (url.find("://") != std::string::npos) return bad_url("only https and http go through egress");
  else rest = url;  // "api.example.com/v1" means https
  const size_t slash = rest.find_first_of("/?#");
  std::string authority = rest.substr(0, slash);
  r.target = slash == std::string::npos ? "/" : rest.substr(slash);
  r.target = r.target.substr(0, r.target.find('#'));  // a client never sends a fragment
  if (r.target.empty() || r.target[0] != '/') r.target.insert(0, "/");
  if (authority.find('@') != std::string::npos) return bad_url("user information does not belong into it");
  const size_t bracket = authority.rfind(']');
  const size_t colon = authority.find(':', bracket == std::string::npos ? 0 : bracket);
  const std::string host_header = authority;
  if (colon != std::string::npos) {
    const std::string port = authority.substr(colon + 1);
    if (port.empty() || port.size() > 5 || port.find_first_not_of("0123456789") != std::string::npos || std::stoi(port) > 65535 ||
        std::stoi(port) == 0)
      return bad_url("\"" + port + "\" is not a port");
    r.port = static_cast<uint16_t>(std::stoi(port));
    authority.resize(colon);
  }
  if (authority.empty()) return bad_url("it has no host");
  r.connect_host = authority;
  if (r.tls && !is_address(authority)) r.sni = authority;
  r.hosts = {host_header};
  return r;
}

Result<std::string> bottle_text(Context& c, const ExplainOptions& o) {
  if (!o.file.empty()) return read_file(o.file, 1u << 20);
  auto backend = open_backend(c);
  if (!backend) return backend.status();
  auto seen = (*backend)->observe(o.name);
  if (!seen) return seen.status();
  return seen->bottle_json;
}

}  // namespace

int exec(Context& c, const std::string& name, const ExecOptions& o) {
  auto backend = open_backend(c);
  if (!backend) return fail(c, backend.status());
  auto code = (*backend)->exec(name, o);
  return code ? *code : fail(c, code.status());
}

int attach(Context& c, const std::string& name) {
  auto backend = open_backend(c);
  if (!backend) return fail(c, backend.status());
  auto code = (*backend)->attach(name);
  return code ? *code : fail(c, code.status());
}

int logs(Context& c, const std::string& name, const std::string& role, const LogOptions& o) {
  auto backend = open_backend(c);
  if (!backend) return fail(c, backend.status());
  const Role r = role == "egress" ? Role::kEgress : role == "guard" ? Role::kGuard : Role::kAgent;
  const Status status = (*backend)->logs(name, r, o, [&](bool is_stderr, std::string_view bytes) {
    auto& to = is_stderr ? c.err : c.out;
    to << bytes << std::flush;
    return to.good() && !g_cancelled;
  });
  // Ctrl-C is how one leaves `logs -f`.
  if (!status && !(o.follow && status.code() == Code::kCancelled)) return fail(c, status);
  return c.out.good() ? kOk : kFailed;
}

int audit(Context& c, const std::string& name, const LogOptions& o, const std::string& output) {
  auto backend = open_backend(c);
  if (!backend) return fail(c, backend.status());
  // `tail` counts verdicts, not log lines: the last ones are kept here.
  std::vector<std::string> kept;
  const auto show = [&](const std::string& line) { c.out << line << "\n" << std::flush; };
  Lines lines([&](std::string_view line) {
    const Json j = Json::parse(line, nullptr, false);
    if (!j.is_object() || j.value("type", Json()) != "audit") return;
    std::string text = output == "json" ? std::string(line) : audit_text(j, c.color_out);
    if (o.tail < 0 || o.follow) return show(text);
    kept.push_back(std::move(text));
    if (kept.size() > static_cast<size_t>(o.tail)) kept.erase(kept.begin());
  });
  LogOptions all = o;
  if (!o.follow) all.tail = -1;
  const Status status = (*backend)->logs(name, Role::kEgress, all, [&](bool is_stderr, std::string_view bytes) {
    if (!is_stderr) lines.feed(bytes);
    return c.out.good() && !g_cancelled;
  });
  lines.finish();
  for (const auto& line : kept) show(line);
  if (!status) return o.follow && status.code() == Code::kCancelled ? kOk : fail(c, status);
  if (o.follow) return kOk;
  // What never got as far as egress: packets that the guard refused.
  auto counters = (*backend)->guard_counters(name);
  if (!counters && counters.status().code() == Code::kUnsupported) {
    if (output == "json") c.out << Json{{"type", "guard"}, {"bottle", name}, {"counters", nullptr}, {"reason", counters.status().message()}}.dump() << "\n";
    else c.err << "guard  " << counters.status().message() << "\n";
    return kOk;
  }
  if (!counters) {
    warn(c, "the guard's counters could not be read: " + counters.status().message());
    return kOk;
  }
  const Json j = Json::parse(*counters, nullptr, false);
  if (output == "json") {
    c.out << Json{{"type", "guard"}, {"bottle", name}, {"counters", j.is_discarded() ? Json() : j}}.dump() << "\n";
  } else if (j.is_object()) {
    for (const auto& [counter, v] : j.items())
      if (v.is_object() && v.contains("packets")) c.out << "guard  " << counter << ": " << v["packets"] << " packets\n";
  }
  return kOk;
}

int explain(Context& c, const ExplainOptions& o) {
  auto request = request_of(o.url, o.method);
  if (!request) return fail(c, request.status());
  auto text = bottle_text(c, o);
  if (!text) return fail(c, text.status());
  const auto file = parse_bottle_file(*text);
  if (!file.ok() || file.bottles.empty()) {
    for (const auto& d : file.diagnostics) c.err << printable(to_string(d, o.file.empty() ? o.name : o.file)) << "\n";
    return fail(c, Status(o.file.empty() ? Code::kInternal : Code::kInvalid, "there is no valid Bottle to explain"));
  }
  auto planned = plan(file.bottles[0]);
  if (!planned) return fail(c, planned.status());

  const auto v = policy::judge_request(planned->routes, *request);
  if (o.output == "json") {
    c.out << policy::verdict_json(v) << "\n";
    return v.allowed ? kOk : kFailed;
  }
  c.out << paint(c.color_out, v.allowed ? Color::kGreen : Color::kRed, v.allowed ? "allowed" : "refused") << "  "
        << printable(v.method.empty() ? request->method : v.method) << " " << (request->tls ? "https" : "http") << "://"
        << printable(v.host.empty() ? request->connect_host : v.host) << ":" << request->port << printable(v.target.empty() ? request->target : v.target)
        << "\n";
  std::vector<std::vector<std::string>> rows;
  if (!v.allowed) rows.push_back({"  status", std::to_string(v.status) + " " + v.code});
  if (!v.reason.empty()) rows.push_back({"  why", printable(v.reason)});
  if (!v.allowed && !v.hint.empty()) rows.push_back({"  to do", printable(v.hint)});
  if (v.route >= 0 && static_cast<size_t>(v.route) < planned->routes.routes.size()) {
    const auto& r = planned->routes.routes[static_cast<size_t>(v.route)];
    std::string list = r.host;
    for (const auto& m : r.methods) list += " " + m;
    for (const auto& p : r.paths) list += " " + p;
    rows.push_back({"  route", printable(list)});
  }
  for (const auto& i : v.inject) rows.push_back({"  adds", i.header + ": " + i.prefix + "<" + i.token_env + ">"});
  c.out << table(rows);
  return v.allowed ? kOk : kFailed;
}

}  // namespace bottle::cli
