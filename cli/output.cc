#include "cli/output.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <iomanip>
#include <memory>
#include <ostream>
#include <sstream>

#include "base/rfc3339.h"

namespace bottle::cli {

int exit_code(const Status& status) {
  switch (status.code()) {
    case Code::kOk: return kOk;
    case Code::kInvalid: return kBadInput;
    case Code::kNotFound: return kNotFoundExit;
    case Code::kCancelled: return kInterrupted;
    default: return kFailed;
  }
}

int fail(Context& c, const Status& status) {
  c.err << paint(c.color_err, Color::kRed, "error:") << " " << printable(status.message()) << "\n";
  return exit_code(status);
}

void warn(Context& c, std::string_view text) {
  c.err << paint(c.color_err, Color::kYellow, "warning:") << " " << printable(text) << "\n";
}

std::string paint(bool enabled, Color color, std::string_view text) {
  if (!enabled) return std::string(text);
  const char* code = "";
  switch (color) {
    case Color::kRed: code = "31"; break;
    case Color::kGreen: code = "32"; break;
    case Color::kYellow: code = "33"; break;
    case Color::kDim: code = "2"; break;
    case Color::kBold: code = "1"; break;
  }
  return "\x1b[" + std::string(code) + "m" + std::string(text) + "\x1b[0m";
}

std::string printable(std::string_view text) {
  std::string s;
  for (unsigned char ch : text) {
    if ((ch < 0x20 && ch != '\n' && ch != '\t') || ch == 0x7f) {
      char buffer[8];
      std::snprintf(buffer, sizeof buffer, "\\x%02x", ch);
      s += buffer;
    } else {
      s += static_cast<char>(ch);
    }
  }
  return s;
}

std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> width;
  for (const auto& row : rows) {
    width.resize(std::max(width.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) width[i] = std::max(width[i], row[i].size());
  }
  std::string s;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      s += row[i];
      if (i + 1 < row.size()) s.append(width[i] - row[i].size() + 2, ' ');
    }
    s += '\n';
  }
  return s;
}

namespace {

// Safe to leave bare: starts like a word, holds nothing that YAML gives a meaning, and is no YAML 1.1 boolean or null.
bool bare(const std::string& s) {
  if (s.empty() || s.size() > 200 || !std::isalpha(static_cast<unsigned char>(s[0]))) return false;
  for (unsigned char ch : s)
    if (!std::isalnum(ch) && std::string_view("._-/").find(static_cast<char>(ch)) == std::string_view::npos) return false;
  std::string low;
  for (unsigned char ch : s) low += static_cast<char>(std::tolower(ch));
  static const char* const kWords[] = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"};
  return std::none_of(std::begin(kWords), std::end(kWords), [&](const char* w) { return low == w; });
}

std::string scalar(const Json& v) {
  if (v.is_string() && bare(v.get_ref<const std::string&>())) return v.get<std::string>();
  return v.dump(-1, ' ', false, Json::error_handler_t::replace);  // JSON scalars are YAML scalars
}

bool inline_value(const Json& v) { return !v.is_structured() || v.empty(); }

void emit(const Json& v, size_t indent, std::string& s) {
  const std::string pad(indent, ' ');
  if (inline_value(v)) {
    s += pad + scalar(v) + "\n";
  } else if (v.is_object()) {
    for (const auto& [key, item] : v.items()) {
      s += pad + scalar(Json(key)) + ":";
      if (inline_value(item)) {
        s += " " + scalar(item) + "\n";
      } else {
        s += "\n";
        emit(item, indent + (item.is_array() ? 0 : 2), s);
      }
    }
  } else {
    for (const auto& item : v) {
      std::string block;
      emit(item, indent + 2, block);
      block[indent] = '-';
      s += block;
    }
  }
}

}  // namespace

std::string to_yaml(const Json& value) {
  std::string s;
  emit(value, 0, s);
  return s;
}

std::string to_output(const Json& value, const std::string& format) {
  if (format == "yaml") return to_yaml(value);
  return value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string age(const std::string& since, int64_t now) {
  std::tm tm{};
  std::istringstream in(since);
  in >> std::get_time(&tm, "%Y-%m-%dT%H:%M:%S");
  if (in.fail()) return "-";
  const int64_t s = std::max<int64_t>(0, now - timegm(&tm));
  if (s < 120) return std::to_string(s) + "s";
  if (s < 7200) return std::to_string(s / 60) + "m";
  if (s < 172800) return std::to_string(s / 3600) + "h";
  return std::to_string(s / 86400) + "d";
}

Progress progress_lines(Context& c) {
  const auto start = std::chrono::steady_clock::now();
  auto last = std::make_shared<std::string>();
  return [&c, start, last](std::string_view step, std::string_view text) {
    const std::string line = std::string(step) + "\n" + std::string(text);
    if (line == *last) return;
    *last = line;
    const double t = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    char stamp[32];
    std::snprintf(stamp, sizeof stamp, "%6.1fs  ", t);
    std::string name(step);
    name.resize(std::max<size_t>(name.size(), 8), ' ');
    c.err << paint(c.color_err, Color::kDim, stamp) << printable(name) << "  " << printable(text) << std::endl;
  };
}

Json observation_json(const Observation& o) {
  Json j = Json::parse(o.bottle_json, nullptr, false);
  if (!j.is_object()) j = Json{{"apiVersion", "bot-bottle.dev/v1alpha1"}, {"kind", "Bottle"}, {"metadata", {{"name", o.name}}}};
  if (!o.created_at.empty()) j["metadata"]["creationTimestamp"] = o.created_at;
  Json status = Json::object();
  status["conditions"] = Json::array();
  for (const auto& k : o.conditions)
    status["conditions"].push_back({{"type", k.type}, {"status", k.status}, {"reason", k.reason}, {"message", k.message}});
  status["policyHash"] = o.policy_hash;
  status["desiredPolicyHash"] = o.desired_policy_hash;
  if (!o.ca_fingerprint.empty()) {
    status["ca"]["fingerprint"] = o.ca_fingerprint;
    status["ca"]["notAfter"] = format_rfc3339(o.ca_not_after);
  }
  status["containers"] = Json::array();
  for (const auto& k : o.containers) {
    Json e = {{"role", k.role}, {"name", k.name}, {"id", k.id}, {"image", k.image}, {"state", k.state}};
    if (!k.reason.empty()) e["reason"] = k.reason;
    if (k.state == "exited") e["exitCode"] = k.exit_code;
    if (!k.started_at.empty()) e["startedAt"] = k.started_at;
    if (k.state == "exited" && !k.finished_at.empty()) e["finishedAt"] = k.finished_at;
    e["restarts"] = k.restarts;
    status["containers"].push_back(e);
  }
  j["status"] = status;
  return j;
}

}  // namespace bottle::cli
