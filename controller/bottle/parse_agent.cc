#include <algorithm>
#include <array>
#include <cctype>
#include <limits>
#include <map>

#include "controller/bottle/quantity.h"
#include "controller/bottle/sections.h"

namespace bottle {
namespace {

constexpr size_t kMaxStrings = 256;  // command, args and env, each

constexpr char kNameStart[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";

// Variables that lead the agent through its proxy and make it trust the bottle's CA (facts: one or more per runtime),
// and those that switch the check off. A bottle that sets one breaks itself in ways that are hard to see.
constexpr std::array kReserved = {
    "SSL_CERT_FILE",      "SSL_CERT_DIR",        "CURL_CA_BUNDLE",      "REQUESTS_CA_BUNDLE",
    "PIP_CERT",           "NODE_EXTRA_CA_CERTS", "NODE_USE_ENV_PROXY",  "NODE_TLS_REJECT_UNAUTHORIZED",
    "NPM_CONFIG_CAFILE",  "NPM_CONFIG_CA",       "NPM_CONFIG_STRICT_SSL", "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",     "GIT_SSL_NO_VERIFY",   "GIT_CONFIG_COUNT",    "GIT_CONFIG_PARAMETERS",
    "WGETRC",             "APT_CONFIG",          "JAVA_TOOL_OPTIONS",   "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",      "DENO_CERT",           "BUNDLE_SSL_CA_CERT",  "UV_NATIVE_TLS",
    "BUN_CA",             "NIX_SSL_CERT_FILE",   "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HEX_CACERTS_PATH",   "PERL_LWP_SSL_CA_FILE", "YARN_HTTPS_CA_FILE_PATH",
};

bool is_reserved(std::string_view name) {
  std::string upper(name);
  for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  if (upper.ends_with("_PROXY") || upper.starts_with("BOT_BOTTLE_")) return true;
  if (upper.starts_with("GIT_CONFIG_KEY_") || upper.starts_with("GIT_CONFIG_VALUE_")) return true;
  return std::find(kReserved.begin(), kReserved.end(), upper) != kReserved.end();
}

Result<std::string> parse_env_name(std::string_view text) {
  std::string allowed = std::string(kNameStart) + "0123456789.-";
  if (text.empty() || text.size() > 256 || std::string_view(kNameStart).find(text[0]) == std::string_view::npos ||
      text.find_first_not_of(allowed) != text.npos) {
    return Status(Code::kInvalid, quoted(text) + " is not a variable name: letters, digits and '_', no digit first");
  }
  return std::string(text);
}

Result<std::string> parse_image(std::string_view text) {
  std::string allowed = std::string(kNameStart) + "0123456789.-/:@";
  if (text.empty() || text.size() > 512 || !std::isalnum(static_cast<unsigned char>(text[0])) ||
      text.find_first_not_of(allowed) != text.npos) {
    return Status(Code::kInvalid, quoted(text) + " is not an image, such as registry.example.com/team/agent:1.2");
  }
  return std::string(text);
}

void parse_env(const Value& section, AgentSpec* agent, Report& report) {
  std::map<std::string, int> lines;
  for (const Value& item : read_list(section, report, true, kMaxStrings)) {
    Fields fields(item, report);
    EnvVar variable;
    Value at = fields.required("name");
    if (auto name = read_as(at, parse_env_name, report)) {
      if (is_reserved(*name)) {
        report.error(at, quoted(*name) + " is set by the bottle itself (proxy and trust): leave it out");
      }
      auto [first, is_new] = lines.emplace(*name, at.node->line);
      if (!is_new) report.error(at, quoted(*name) + " is set already on line " + std::to_string(first->second));
      variable.name = std::move(*name);
    }
    fields.refuse("valueFrom", "a bottle cannot hand the agent a secret: inject it on a route instead");
    if (auto text = read_string(fields.get("value"), report)) variable.value = std::move(*text);
    agent->env.push_back(std::move(variable));
  }
}

void parse_resource_set(const Value& section, Resources* resources, Report& report) {
  Fields fields(section, report);
  auto quantity = [&](const Value& value, int64_t scale, int64_t* out) {
    if (!value) return;
    // A whole number or a string, as the schema says: a fraction that is not in quotes is a float to whoever reads it next.
    bool number = value.node->kind == YamlNode::Kind::kInt;
    std::optional<std::string> text = number ? value.node->text : read_string(value, report);
    if (!text) return;
    Result<int64_t> result = parse_quantity(*text, scale);
    if (result) {
      *out = *result;
    } else {
      report.error(value, quoted(*text) + ": " + result.status().message());
    }
  };
  quantity(fields.get("memory"), 1, &resources->memory_bytes);
  quantity(fields.get("cpu"), 1000, &resources->cpu_millis);
}

void parse_host_path(const Value& section, WorkspaceSpec* workspace, Report& report) {
  Fields fields(section, report);
  Value at = fields.required("path");
  auto path = read_as(at, parse_absolute_path, report);
  if (!path) return;
  // Folders whose content is a way out of the bottle: the engine's socket, devices, the host's own configuration.
  static constexpr std::array kRoots = {"/boot", "/dev", "/etc", "/proc", "/run", "/sys", "/var/run", "/var/lib/docker"};
  bool refused = *path == "/" || *path == "/var" || *path == "/var/lib";
  for (std::string root : kRoots) refused = refused || *path == root || path->starts_with(root + "/");
  if (refused) report.error(at, quoted(*path) + " would hand the agent the host: give it a folder of its own");
  workspace->host_path = std::move(*path);
}

void parse_workspace(const Value& section, WorkspaceSpec* workspace, Report& report) {
  if (!section) return;
  Fields fields(section, report);
  fields.refuse("clone", "not supported by this version: clone inside the agent, over a route to the git host");
  int kinds = 0;
  if (Value value = fields.get("emptyDir")) {
    ++kinds;
    Fields empty_dir(value, report);
    Value at = empty_dir.get("sizeLimit");
    if (at && at.node->kind == YamlNode::Kind::kInt) {
      auto size = read_int(at, 1, std::numeric_limits<int64_t>::max(), report);
      if (size) workspace->size_limit_bytes = *size;
    } else if (auto size = read_as(at, [](std::string_view s) { return parse_quantity(s, 1); }, report)) {
      workspace->size_limit_bytes = *size;
    }
  }
  if (Value value = fields.get("persistentVolumeClaim")) {
    ++kinds;
    workspace->kind = WorkspaceSpec::Kind::kPersistentVolumeClaim;
    Fields claim(value, report);
    if (auto name = read_as(claim.required("claimName"), parse_subdomain, report)) workspace->claim_name = *name;
  }
  if (Value value = fields.get("hostPath")) {
    ++kinds;
    workspace->kind = WorkspaceSpec::Kind::kHostPath;
    parse_host_path(value, workspace, report);
  }
  if (kinds > 1) report.error(section, "choose one of emptyDir, persistentVolumeClaim and hostPath");
}

}  // namespace

void parse_agent(const Value& section, AgentSpec* agent, Report& report) {
  Fields fields(section, report);
  if (auto image = read_as(fields.required("image"), parse_image, report)) agent->image = *image;
  agent->command = read_strings(fields.get("command"), report, kMaxStrings);
  agent->args = read_strings(fields.get("args"), report, kMaxStrings);
  parse_env(fields.get("env"), agent, report);
  if (auto path = read_as(fields.get("workingDir"), parse_absolute_path, report)) agent->working_dir = *path;

  Value user = fields.get("runAsUser");
  if (auto uid = read_int(user, 0, std::numeric_limits<int32_t>::max(), report)) {
    if (*uid == 0) report.error(user, "the agent may not run as root: choose another UID, such as 1000");
    if (*uid >= 10001 && *uid <= 10099) {
      report.error(user, "UIDs 10001-10099 are reserved for sidecars: choose another, such as 1000");
    }
    agent->run_as_user = static_cast<uint32_t>(*uid);
  }
  if (auto tty = read_bool(fields.get("tty"), report)) agent->tty = *tty;
  if (auto policy = read_enum<RestartPolicy>(fields.get("restartPolicy"),
                                             {{"Never", RestartPolicy::kNever},
                                              {"OnFailure", RestartPolicy::kOnFailure},
                                              {"Always", RestartPolicy::kAlways}},
                                             report)) {
    agent->restart_policy = *policy;
  }
  if (Value value = fields.get("resources")) {
    Fields resources(value, report);
    parse_resource_set(resources.get("requests"), &agent->requests, report);
    parse_resource_set(resources.get("limits"), &agent->limits, report);
  }
  parse_workspace(fields.get("workspace"), &agent->workspace, report);
}

}  // namespace bottle
