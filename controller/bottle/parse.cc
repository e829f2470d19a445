#include "controller/bottle/parse.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <cctype>
#include <limits>
#include <set>

#include "base/encoding.h"
#include "controller/bottle/literal_secret.h"
#include "controller/bottle/sections.h"

namespace bottle {
namespace {

constexpr char kApiVersion[] = "bot-bottle.dev/v1alpha1";
constexpr char kLabelCharacters[] = "abcdefghijklmnopqrstuvwxyz0123456789-";

bool is_label(std::string_view text) {
  return !text.empty() && text.size() <= 63 && text.find_first_not_of(kLabelCharacters) == text.npos &&
         text.front() != '-' && text.back() != '-';
}

struct Metadata {
  std::string name, namespace_, uid;
  int64_t generation = 0;
};

Metadata parse_metadata(const Value& section, bool dots, Report& report) {
  Metadata out;
  Fields fields(section, report);
  if (auto name = read_as(fields.required("name"), dots ? parse_subdomain : parse_label, report)) out.name = *name;
  if (auto name = read_as(fields.get("namespace"), parse_label, report)) out.namespace_ = *name;
  if (auto uid = read_string(fields.get("uid"), report)) out.uid = *uid;
  auto generation = read_int(fields.get("generation"), 0, std::numeric_limits<int64_t>::max(), report);
  if (generation) out.generation = *generation;
  // What an API server adds, so that `kubectl get -o yaml` can be read back.
  fields.ignore({"labels", "annotations", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
                 "finalizers", "generateName", "managedFields", "ownerReferences", "resourceVersion", "selfLink"});
  return out;
}

void parse_pipelock(const Value& section, Bottle* bottle, Report& report) {
  if (!section) return;
  bottle->pipelock_set = bottle->pipelock_enabled = true;
  Fields fields(section, report);
  if (auto enabled = read_bool(fields.get("enabled"), report)) bottle->pipelock_enabled = *enabled;
  for (const char* name : {"dlp", "injection"}) {
    Fields scanner(fields.get(name), report);
    (void)read_enum<bool>(scanner.get("action"), {{"block", true}, {"warn", false}}, report);
  }
}

void parse_supervise(const Value& section, Report& report) {
  Fields fields(section, report);
  Value at = fields.get("enabled");
  if (auto enabled = read_bool(at, report); enabled && *enabled) {
    report.error(at, "not supported by this version: write enabled: false, and list what may be reached as routes");
  }
  (void)read_int(fields.get("timeoutSeconds"), 1, 86400, report);
}

void parse_spec(const Value& section, Bottle* bottle, Report& report) {
  Fields fields(section, report);
  if (Value agent = fields.required("agent")) parse_agent(agent, &bottle->agent, report);
  parse_egress(fields.get("egress"), &bottle->egress, report);
  parse_pipelock(fields.get("pipelock"), bottle, report);
  fields.refuse("git", "not supported by this version: leave it out, and list the git host as a route (https)");
  parse_supervise(fields.get("supervise"), report);
  {
    Fields pki(fields.get("pki"), report);
    if (auto type = read_enum<KeyType>(pki.get("keyType"),
                                       {{"", KeyType::kByEngine},
                                        {"RSA-2048", KeyType::kRsa2048},
                                        {"ECDSA-P256", KeyType::kEcdsaP256}},
                                       report)) {
      bottle->key_type = *type;
    }
  }
  if (auto isolation = read_enum<Isolation>(
          fields.get("isolation"), {{"Sidecar", Isolation::kSidecar}, {"Gateway", Isolation::kGateway}}, report)) {
    bottle->isolation = *isolation;
  }
  if (auto name = read_string(fields.get("runtimeClassName"), report)) bottle->runtime_class_name = *name;
  if (auto suspend = read_bool(fields.get("suspend"), report)) bottle->suspend = *suspend;
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  if (auto seconds = read_int(fields.get("activeDeadlineSeconds"), 1, kMax, report)) {
    bottle->active_deadline_seconds = *seconds;
  }
  if (auto seconds = read_int(fields.get("ttlSecondsAfterFinished"), 0, kMax, report)) {
    bottle->ttl_seconds_after_finished = *seconds;
  }
}

// Anywhere in a bottle, whatever the field: a credential's shape is an error, and the message does not repeat it.
void find_literal_secrets(const YamlNode& node, const std::string& path, Report& report) {
  auto check = [&](int line, int column, const std::string& where, std::string_view text) {
    std::string_view kind = secret_kind(text);
    if (kind.empty()) return;
    report.error(line, column, where,
                 "looks like " + std::string(kind) +
                     ", and a bottle holds no credentials: put it into a Secret and inject it on a route");
  };
  if (node.kind == YamlNode::Kind::kString) check(node.line, node.column, path, node.text);
  for (size_t i = 0; i < node.items.size(); ++i) {
    find_literal_secrets(node.items[i], path + "[" + std::to_string(i) + "]", report);
  }
  for (const auto& entry : node.entries) {
    std::string where = (path.empty() ? "" : path + ".") + path_segment(entry.key);
    check(entry.line, entry.column, where, entry.key);
    find_literal_secrets(entry.value, where, report);
  }
}

void parse_bottle(const Value& root, BottleFile* file, Report& report) {
  Bottle bottle;
  {
    Fields fields(root, report);
    fields.ignore({"kind", "status"});
    Value version = fields.required("apiVersion");
    if (auto text = read_string(version, report); text && *text != kApiVersion) {
      report.error(version, quoted(*text) + " is not known: write " + kApiVersion);
    }
    Metadata metadata = parse_metadata(fields.required("metadata"), false, report);
    bottle.name = metadata.name;
    bottle.namespace_ = metadata.namespace_;
    bottle.uid = metadata.uid;
    bottle.generation = metadata.generation;
    if (Value spec = fields.required("spec")) {
      parse_spec(spec, &bottle, report);
      validate(bottle, report);
      find_literal_secrets(*spec.node, "spec", report);
    }
  }
  for (const Bottle& other : file->bottles) {
    if (bottle.name.empty() || other.name != bottle.name || other.namespace_ != bottle.namespace_) continue;
    report.error_at("metadata.name", "the file has a bottle " + quoted(bottle.name) + " already");
  }
  file->bottles.push_back(std::move(bottle));
}

void parse_secret_values(const Value& section, bool base64, const std::string& name,
                         std::map<SecretKeyRef, SecretString>* out, Report& report) {
  if (!section) return;
  if (section.node->kind != YamlNode::Kind::kMap) {
    report.error(section, "expected a mapping");
    return;
  }
  for (const auto& entry : section.node->entries) {
    Value at{&entry.value, section.path + "." + path_segment(entry.key)};
    Result<std::string> key = parse_secret_key(entry.key);
    if (!key) {
      report.error(entry.line, entry.column, at.path, key.status().message());
      continue;
    }
    // Not read_string: its message shows what it found.
    if (at.node->kind != YamlNode::Kind::kString) {
      if (at.node->kind != YamlNode::Kind::kAlias) report.error(at, "expected a string: put it in quotes");
      continue;
    }
    std::optional<std::string> value = base64 ? decode_base64(at.node->text) : at.node->text;
    if (!value) {
      report.error(at, "not base64: use stringData for plain text");
      continue;
    }
    out->insert_or_assign(SecretKeyRef{name, *key}, SecretString(std::move(*value)));
  }
}

void parse_secret(const Value& root, BottleFile* file, Report& report) {
  Fields fields(root, report);
  fields.ignore({"kind", "immutable", "type"});
  Value version = fields.required("apiVersion");
  if (auto text = read_string(version, report); text && *text != "v1") {
    report.error(version, quoted(*text) + " is not known for a Secret: write v1");
  }
  Metadata metadata = parse_metadata(fields.required("metadata"), true, report);
  auto first = file->secrets.lower_bound({metadata.name, ""});
  if (first != file->secrets.end() && first->first.name == metadata.name) {
    report.error_at("metadata.name", "the file has a secret " + quoted(metadata.name) + " already");
  }
  // In this order: stringData wins, as on a cluster.
  parse_secret_values(fields.get("data"), true, metadata.name, &file->secrets, report);
  parse_secret_values(fields.get("stringData"), false, metadata.name, &file->secrets, report);
}

void parse_document(const YamlNode& node, BottleFile* file) {
  Report report(&file->diagnostics);
  Value root{&node, ""};
  if (node.kind != YamlNode::Kind::kMap) {
    if (node.kind != YamlNode::Kind::kAlias) {
      report.error(root, std::string("expected a mapping with apiVersion: ") + kApiVersion + " and kind: Bottle");
    }
    return;
  }
  for (const auto& entry : node.entries) {
    if (entry.key != "kind") continue;
    if (entry.value.text == "Bottle") return parse_bottle(root, file, report);
    if (entry.value.text == "Secret") return parse_secret(root, file, report);
    std::string_view near = nearest(entry.value.text, {"Bottle", "Secret"});
    report.error({&entry.value, "kind"}, quoted(entry.value.text) + " is not read here: expected Bottle or Secret" +
                                             (near.empty() ? "" : "; did you mean " + quoted(near) + "?"));
    return;
  }
  report.error(node.line, node.column, "kind", "required: Bottle or Secret");
}

void wipe(YamlNode& node) {
  OPENSSL_cleanse(node.text.data(), node.text.size());
  for (YamlNode& item : node.items) wipe(item);
  for (auto& entry : node.entries) wipe(entry.value);
}

}  // namespace

Result<std::string> parse_label(std::string_view text) {
  if (is_label(text)) return std::string(text);
  return Status(Code::kInvalid, quoted(text) + " is not a name: at most 63 of a-z, 0-9 and '-', which is not first or last");
}

Result<std::string> parse_subdomain(std::string_view text) {
  bool good = text.size() <= 253;
  for (size_t from = 0; good && from <= text.size();) {
    size_t dot = std::min(text.find('.', from), text.size());
    good = is_label(text.substr(from, dot - from));
    from = dot + 1;
  }
  if (good) return std::string(text);
  return Status(Code::kInvalid, quoted(text) + " is not a name: a-z, 0-9, '-' and '.', letters or digits first and last");
}

Result<std::string> parse_secret_key(std::string_view text) {
  bool good = !text.empty() && text.size() <= 253 && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '-' || c == '_' || c == '.';
  });
  if (good) return std::string(text);
  return Status(Code::kInvalid, quoted(text) + " is not a Secret's key: letters, digits, '-', '_' and '.'");
}

Result<std::string> parse_absolute_path(std::string_view text) {
  auto fail = [&](const char* why) { return Status(Code::kInvalid, quoted(text) + why); };
  if (text.empty() || text[0] != '/') return fail(" is not an absolute path");
  if (text.size() > 1024) return fail(" is too long");
  if (text.find_first_of(std::string_view("\0\n\r", 3)) != text.npos) return fail(" holds a line break");
  if (text.find(':') != text.npos) return fail(" holds a ':', which mounts cannot take");
  std::string out(text);
  for (std::string_view part : {"//", "/./", "/../"}) {
    std::string folder = out.back() == '/' ? out : out + "/";
    if (folder.find(part) != std::string::npos) return fail(" is not plain: write it without //, . and ..");
  }
  if (out.size() > 1 && out.back() == '/') out.pop_back();
  return out;
}

std::optional<SecretKeyRef> read_secret_ref(const Value& value, Report& report) {
  if (!value) return std::nullopt;
  Fields fields(value, report);
  auto name = read_as(fields.required("name"), parse_subdomain, report);
  auto key = read_as(fields.required("key"), parse_secret_key, report);
  for (const char* literal : {"value", "token"}) fields.refuse(literal, kWriteSecretRef);
  if (!name || !key) return std::nullopt;
  return SecretKeyRef{*name, *key};
}

bool BottleFile::ok() const {
  return std::none_of(diagnostics.begin(), diagnostics.end(),
                      [](const Diagnostic& d) { return d.severity == Diagnostic::Severity::kError; });
}

BottleFile parse_bottle_file(std::string_view text) {
  BottleFile file;
  std::vector<YamlNode> documents = read_yaml(text, &file.diagnostics);
  for (YamlNode& document : documents) {
    parse_document(document, &file);
    wipe(document);
  }
  if (documents.empty() && file.diagnostics.empty()) {
    file.diagnostics.push_back({Diagnostic::Severity::kError, 0, 0, "", "the file is empty: expected kind: Bottle"});
  }
  std::stable_sort(file.diagnostics.begin(), file.diagnostics.end(), [](const Diagnostic& a, const Diagnostic& b) {
    return std::pair(a.line, a.column) < std::pair(b.line, b.column);
  });
  return file;
}

std::string to_string(const Diagnostic& d, std::string_view file_name) {
  std::string out(file_name);
  if (d.line > 0) out += ":" + std::to_string(d.line) + ":" + std::to_string(d.column);
  out += d.severity == Diagnostic::Severity::kError ? ": error: " : ": warning: ";
  if (!d.path.empty()) out += d.path + ": ";
  return out + d.message;
}

std::string token_env_name(const SecretKeyRef& ref) {
  std::string out = "BOT_BOTTLE_TOKEN_" + ref.name + "_" + ref.key;
  for (char& c : out) {
    unsigned char u = static_cast<unsigned char>(c);
    c = std::isalnum(u) ? static_cast<char>(std::toupper(u)) : '_';
  }
  return out;
}

}  // namespace bottle
