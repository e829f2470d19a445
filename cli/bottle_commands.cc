// What runs: up, render, ls, get, down.
#include <arpa/inet.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <istream>
#include <iterator>
#include <ostream>
#include <set>
#include <tuple>

#include "backends/kubernetes/render.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "controller/bottle/parse.h"
#include "controller/plan/plan.h"

namespace bottle::cli {
namespace {

constexpr size_t kMaxFile = 1u << 20;

Result<std::string> read_input(Context& c, const std::string& file) {
  if (file != "-") return read_file(file, kMaxFile);
  std::string text;
  char buffer[4096];
  while (c.in.read(buffer, sizeof buffer) || c.in.gcount() > 0) {
    text.append(buffer, static_cast<size_t>(c.in.gcount()));
    if (text.size() > kMaxFile) return Status(Code::kInvalid, "standard input: more than 1 MiB is not a Bottle file");
  }
  return text;
}

// A file of certificates for upstream trust. A private key in it is a mistake that must not travel into a container.
Result<std::string> read_certificates(const std::string& path) {
  auto text = read_file(path, kMaxFile);
  if (!text) return text.status().with_context("upstream CA");
  if (text->find("PRIVATE KEY-----") != std::string::npos)
    return Status(Code::kInvalid, "upstream CA: " + path + " holds a private key: give a file with the certificate alone");
  if (text->find("-----BEGIN CERTIFICATE-----") == std::string::npos)
    return Status(Code::kInvalid, "upstream CA: " + path + " holds no PEM certificate (-----BEGIN CERTIFICATE-----)");
  return text;
}

std::optional<std::string> first_env(Context& c, std::initializer_list<const char*> names) {
  for (const char* name : names)
    if (auto v = c.env(name); v && !v->empty()) return v;
  return std::nullopt;
}

Result<PlanOptions> plan_options(Context& c) {
  PlanOptions o;
  if (auto v = first_env(c, {"BOT_BOTTLE_EGRESS_IMAGE", "CLAUDE_BOTTLE_EGRESS_IMAGE"})) o.egress_image = *v;
  if (auto v = first_env(c, {"BOT_BOTTLE_SIDECARS_IMAGE", "CLAUDE_BOTTLE_SIDECARS_IMAGE"})) o.sidecars_image = *v;
  if (auto v = first_env(c, {"BOT_BOTTLE_EGRESS_PORT", "CLAUDE_BOTTLE_EGRESS_PORT"})) {
    const bool digits = v->size() <= 5 && std::all_of(v->begin(), v->end(), [](char ch) { return ch >= '0' && ch <= '9'; });
    const int port = digits ? std::stoi(*v) : 0;
    if (port < 1024 || port > 65535)
      return Status(Code::kInvalid, "BOT_BOTTLE_EGRESS_PORT: \"" + *v + "\" is not a port between 1024 and 65535");
    o.egress_port = static_cast<uint16_t>(port);
  }
  return o;
}

struct Loaded {
  BottleFile file;
  std::vector<BottlePlan> plans;  // one for each bottle of the file
};

// Reads, checks and plans the whole file; nothing is started before all of it is good. Prints what is wrong itself.
std::optional<Loaded> load(Context& c, const UpOptions& o, int& code) {
  const auto stop = [&](const Status& s) {
    code = fail(c, s);
    return std::nullopt;
  };
  auto text = read_input(c, o.file);
  if (!text) return stop(text.status().code() == Code::kExhausted ? Status(Code::kInvalid, text.status().message()) : text.status());
  Loaded loaded;
  loaded.file = parse_bottle_file(*text);
  int errors = 0;
  for (const auto& d : loaded.file.diagnostics) {
    c.err << printable(to_string(d, o.file == "-" ? "<stdin>" : o.file)) << "\n";
    errors += d.severity == Diagnostic::Severity::kError;
  }
  if (!loaded.file.ok()) {
    c.err << errors << (errors == 1 ? " error" : " errors") << "; nothing was started\n";
    code = kBadInput;
    return std::nullopt;
  }
  if (loaded.file.bottles.empty()) return stop(Status(Code::kInvalid, o.file + ": there is no document of kind Bottle in it"));
  auto options = plan_options(c);
  if (!options) return stop(options.status());

  const auto folder = std::filesystem::path(o.file).parent_path();
  for (auto& bottle : loaded.file.bottles) {
    std::vector<std::string> files;
    for (const auto& f : bottle.egress.upstream_ca_files) files.push_back((folder / f).string());
    files.insert(files.end(), o.upstream_cas.begin(), o.upstream_cas.end());
    for (const auto& f : files) {
      auto pem = read_certificates(f);
      if (!pem) return stop(pem.status());
      bottle.egress.upstream_ca_pems.push_back(*pem);
    }
    bottle.egress.upstream_ca_files.clear();
    auto planned = plan(bottle, *options);
    if (!planned) return stop(planned.status().with_context("bottle " + bottle.name));
    for (const auto& w : planned->warnings) warn(c, bottle.name + ": " + w);
    loaded.plans.push_back(std::move(*planned));
  }
  return loaded;
}

// On a cluster a Secret that the file lacks may be there already: the bottle's condition SecretsFound says whether it is.
void collect_tokens(Context& c, const BottleFile& file, BackendKind kind, ApplyRequest* request) {
  auto& tokens = request->tokens;
  for (const auto& ref : request->plan.tokens) {
    if (auto it = file.secrets.find(ref.secret); it != file.secrets.end()) {
      tokens.emplace(ref.env, it->second.clone());
      continue;
    }
    auto value = c.env(ref.env);
    if (value && !value->empty()) {
      tokens.emplace(ref.env, SecretString(std::move(*value)));
      request->tokens_of_environment.insert(ref.env);
      continue;
    }
    if (kind == BackendKind::kKubernetes) continue;
    const std::string how = "add a kind: Secret document to the file, or set " + ref.env;
    warn(c, request->plan.name + ": no token for secret \"" + ref.secret.name + "\" key \"" + ref.secret.key + "\"; its routes answer 503 (" + how + ")");
  }
}

// What only an engine on this machine can do.
Status check_for_cluster(const UpOptions& o, const std::vector<Bottle>& bottles) {
  if (!o.resolvers.empty())
    return {Code::kInvalid, "--resolver: on a cluster egress asks the cluster's DNS; for single names use spec.egress.hostAliases"};
  if (!o.upstream_cas.empty())
    return {Code::kInvalid, "--upstream-ca: on a cluster the Bottle says whom egress trusts: put the certificate into spec.egress.upstreamCAs"};
  if (o.no_pull) return {Code::kInvalid, "--no-pull: on a cluster the kubelet pulls, as the controller was told (--image-pull-policy)"};
  for (const auto& b : bottles)
    if (auto s = kubernetes::check(b); !s) return s.with_context("bottle " + b.name);
  return Status::ok();
}

// How a backend knows a bottle of a file.
std::string name_for(const Bottle& b, BackendKind kind) {
  return kind == BackendKind::kKubernetes && !b.namespace_.empty() ? b.namespace_ + "/" + b.name : b.name;
}

// The children that the controller makes of a bottle, in the order it does. The Secret is shown without what is in it: that is made anew for
// each bottle. What is known only when the Bottle exists (its UID) is zeros.
void add_cluster_objects(Json& items, const BottlePlan& plan, const Bottle& bottle, const std::string& ns) {
  const kubernetes::Owner owner{!bottle.namespace_.empty() ? bottle.namespace_ : ns.empty() ? "default" : ns, bottle.name,
                                "00000000-0000-0000-0000-000000000000", 1};
  const auto add = [&](const nlohmann::json& object) { items.push_back(Json::parse(object.dump(-1, ' ', false, Json::error_handler_t::replace))); };
  add(kubernetes::render_policy(plan, owner));
  nlohmann::json secret = kubernetes::render_egress_ca({}, SecretString(), owner);
  for (const char* content : {"data", "stringData"}) secret.erase(content);
  secret["metadata"].erase("annotations");
  add(secret);
  add(kubernetes::render_network_policy(plan, owner));
  kubernetes::PodExtras extras;
  extras.active_deadline_seconds = bottle.active_deadline_seconds;
  add(kubernetes::render_pod(plan, owner, {}, extras));
}

void print_conditions(Context& c, const Observation& o) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& k : o.conditions) rows.push_back({"  " + k.type, k.status, k.reason, printable(k.message)});
  c.out << paint(c.color_out, Color::kBold, o.name) << "\n" << table(rows);
}

int interrupted(Context& c, const std::string& name) {
  c.err << "interrupted; `bottle down " << name << "` or `bottle cleanup` removes what is there\n";
  return kInterrupted;
}

}  // namespace

int up(Context& c, const UpOptions& o) {
  for (const auto& r : o.resolvers) {
    unsigned char address[16];
    if (inet_pton(AF_INET, r.c_str(), address) != 1 && inet_pton(AF_INET6, r.c_str(), address) != 1)
      return fail(c, Status(Code::kInvalid, "--resolver: \"" + r + "\" is not an IP address"));
  }
  int code = kOk;
  auto loaded = load(c, o, code);
  if (!loaded) return code;
  BackendKind kind;
  auto backend = open_backend(c, &kind);
  if (!backend) return fail(c, backend.status());
  if (kind == BackendKind::kKubernetes)
    if (auto s = check_for_cluster(o, loaded->file.bottles); !s) return fail(c, s);
  const auto progress = progress_lines(c);
  for (size_t i = 0; i < loaded->plans.size(); ++i) {
    ApplyRequest request;
    request.plan = loaded->plans[i];
    request.bottle_json = render_bottle_json(loaded->file.bottles[i]);
    collect_tokens(c, loaded->file, kind, &request);
    request.resolvers = o.resolvers;
    request.pull = !o.no_pull;
    const std::string name = name_for(loaded->file.bottles[i], kind);
    const Status status = (*backend)->apply(request, progress);
    if (status.code() == Code::kCancelled || g_cancelled) return interrupted(c, name);
    // What was reached is worth seeing after a failure too.
    auto seen = (*backend)->observe(name);
    if (seen) print_conditions(c, *seen);
    if (!status) code = std::max(code, fail(c, status.with_context("bottle " + name)));
    else if (!seen) code = std::max(code, fail(c, seen.status()));
  }
  return code;
}

int render(Context& c, const UpOptions& o) {
  auto named = named_backend(c);
  if (!named) return fail(c, named.status());
  int code = kOk;
  auto loaded = load(c, o, code);
  if (!loaded) return code;
  if (*named == BackendKind::kKubernetes) {
    if (auto s = check_for_cluster(o, loaded->file.bottles); !s) return fail(c, s);
    Json items = Json::array();
    for (size_t i = 0; i < loaded->plans.size(); ++i) add_cluster_objects(items, loaded->plans[i], loaded->file.bottles[i], c.backend.namespace_);
    c.out << to_output({{"apiVersion", "v1"}, {"kind", "List"}, {"items", items}}, "json");
    return kOk;
  }
  if (loaded->plans.size() == 1) {
    c.out << render_plan_json(loaded->plans[0]);
    return kOk;
  }
  Json all = Json::array();
  for (const auto& p : loaded->plans) all.push_back(Json::parse(render_plan_json(p), nullptr, false));
  c.out << to_output(all, "json");
  return kOk;
}

int ls(Context& c, const std::string& output) {
  auto backend = open_backend(c);
  if (!backend) return fail(c, backend.status());
  auto list = (*backend)->list();
  if (!list) return fail(c, list.status());
  std::sort(list->begin(), list->end(), [](const auto& a, const auto& b) { return std::tie(a.namespace_, a.name) < std::tie(b.namespace_, b.name); });
  const bool all = c.backend.all_namespaces;
  if (output == "name") {
    for (const auto& o : *list) c.out << (all ? o.namespace_ + "/" : "") << o.name << "\n";
    return kOk;
  }
  if (output != "table") {
    Json items = Json::array();
    for (const auto& o : *list) items.push_back(observation_json(o));
    c.out << to_output({{"apiVersion", "v1"}, {"kind", "List"}, {"items", items}}, output);
    return kOk;
  }
  if (list->empty()) {
    c.err << "no bottles; `bottle up -f examples/hello-bottle.yaml` starts one\n";
    return kOk;
  }
  const int64_t now = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  std::vector<std::vector<std::string>> rows = {{"NAME", "READY", "REASON", "AGENT", "IMAGE", "ROUTES", "AGE"}};
  if (all) rows[0].insert(rows[0].begin(), "NAMESPACE");
  for (const auto& o : *list) {
    const auto* ready = o.condition("Ready");
    std::string agent = "-", image = "-", routes = "-";
    for (const auto& k : o.containers)
      if (k.role == "agent") agent = k.state == "exited" ? "exited " + std::to_string(k.exit_code) : k.state, image = k.image;
    const Json j = Json::parse(o.bottle_json, nullptr, false);
    const Json::json_pointer where("/spec/egress/routes");
    if (j.is_object() && j.contains(where)) routes = std::to_string(j.at(where).size());
    rows.push_back({o.name, ready ? ready->status : "Unknown", ready && !ready->reason.empty() ? ready->reason : "-", agent, image, routes,
                    age(o.created_at, now)});
    if (all) rows.back().insert(rows.back().begin(), o.namespace_);
  }
  c.out << table(rows);
  return kOk;
}

int get(Context& c, const std::string& name, const std::string& output) {
  auto backend = open_backend(c);
  if (!backend) return fail(c, backend.status());
  auto seen = (*backend)->observe(name);
  if (!seen) return fail(c, seen.status());
  c.out << to_output(observation_json(*seen), output);
  return kOk;
}

int down(Context& c, const DownOptions& o) {
  std::vector<std::string> names = o.names;
  BackendKind kind;
  auto backend = open_backend(c, &kind);
  if (!backend) return fail(c, backend.status());
  if (!o.file.empty()) {
    auto text = read_input(c, o.file);
    if (!text) return fail(c, text.status());
    // A file with errors still says which bottles it names; taking one down needs no more than that.
    for (const auto& b : parse_bottle_file(*text).bottles)
      if (!b.name.empty()) names.push_back(name_for(b, kind));
  }
  if (o.all) {
    auto list = (*backend)->list();
    if (!list) return fail(c, list.status());
    for (const auto& b : *list) names.push_back(b.name);
  } else if (names.empty()) {
    return fail(c, Status(Code::kInvalid, "down: which bottle? Give a name, -f FILE or --all"));
  }
  int code = kOk;
  std::set<std::string> done;
  const auto progress = progress_lines(c);
  for (const auto& name : names) {
    if (!done.insert(name).second) continue;
    const Status status = (*backend)->remove(name, progress);
    if (status.code() == Code::kCancelled || g_cancelled) return interrupted(c, name);
    if (status) c.out << name << " is down\n";
    else code = std::max(code, fail(c, status));
  }
  return code;
}

}  // namespace bottle::cli
