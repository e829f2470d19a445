#include "backends/docker/state.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <set>
#include <sstream>

#include "backends/docker/engine_client.h"
#include "base/file.h"

namespace bottle::docker {
namespace {

constexpr mode_t kPrivateDir = 0700, kPrivateFile = 0600, kSharedDir = 0755, kSharedFile = 0644;

const char* folder_of(Source source) {
  switch (source) {
    case Source::kPolicy:
      return "policy";
    case Source::kGuardRules:
      return "guard";
    case Source::kTokens:
      return "tokens";
    case Source::kEgressCa:
      return "egress-ca";
    case Source::kUpstreamTrust:
      return "upstream";
    case Source::kAgentTrust:
      return "trust";
    case Source::kSidecarHosts:
      return "hosts";
    case Source::kResolvers:
      return "resolvers";
    case Source::kEmptyResolver:
      return "no-resolver";
    case Source::kRun:
      return "run";
    case Source::kGate:
      return "gate";
    case Source::kWorkspace:
    case Source::kTmp:
      break;
  }
  return "none";
}

// A file that is mounted by itself pins its inode: it has to be changed in place to be seen inside.
Status write_in_place(const std::string& path, std::string_view content) {
  int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0)
    return errno == ENOENT
               ? write_file(path, content, kSharedFile)
               : Status(Code::kInternal, "cannot write " + path + ": " + std::strerror(errno));
  bool ok = ::ftruncate(fd, 0) == 0;
  while (ok && !content.empty()) {
    ssize_t n = ::write(fd, content.data(), content.size());
    ok = n > 0 || (n < 0 && errno == EINTR);
    if (n > 0) content.remove_prefix(static_cast<size_t>(n));
  }
  int error = errno;
  ::close(fd);
  if (ok) return Status::ok();
  return Status(error == ENOSPC ? Code::kExhausted : Code::kInternal,
                "cannot write " + path + ": " + std::strerror(error));
}

std::vector<std::string> entries(const std::string& path) {
  std::vector<std::string> names;
  if (DIR* d = ::opendir(path.c_str())) {
    while (dirent* e = ::readdir(d))
      if (e->d_name[0] != '.') names.emplace_back(e->d_name);
    ::closedir(d);
  }
  std::sort(names.begin(), names.end());
  return names;
}

Json to_json(const BottleState& s) {
  return {{"name", s.name},
          {"slug", s.slug},
          {"createdAt", s.created_at},
          {"networkId", s.network_id},
          {"guardId", s.guard_id},
          {"egressId", s.egress_id},
          {"agentId", s.agent_id},
          {"guardStartedAt", s.guard_started_at},
          {"podHash", s.pod_hash},
          {"policyHash", s.policy_hash},
          {"egressArgv", s.egress_argv},
          {"guardRules", s.guard_rules},
          {"caFingerprint", s.ca_fingerprint},
          {"caNotAfter", s.ca_not_after},
          {"missingTokens", s.missing_tokens},
          {"resolvers", s.resolvers},
          {"restartPolicy", s.restart_policy},
          {"workspaceOwner", s.workspace_owner},
          {"ready", s.ready},
          {"everReady", s.ever_ready},
          {"scanned", s.scanned},
          {"reason", s.reason},
          {"message", s.message}};
}

std::vector<std::string> texts_at(const Json& j, const std::string& key) {
  std::vector<std::string> out;
  if (j.contains(key) && j[key].is_array())
    for (const auto& v : j[key])
      if (v.is_string()) out.push_back(v.get<std::string>());
  return out;
}

BottleState from_json(const Json& j) {
  BottleState s;
  auto t = [&](const char* key) { return text_at(j, std::string("/") + key); };
  s.name = t("name"), s.slug = t("slug"), s.created_at = t("createdAt"),
  s.network_id = t("networkId");
  s.guard_id = t("guardId"), s.egress_id = t("egressId"), s.agent_id = t("agentId"),
  s.guard_started_at = t("guardStartedAt");
  s.pod_hash = t("podHash"), s.policy_hash = t("policyHash"), s.egress_argv = t("egressArgv"),
  s.guard_rules = t("guardRules");
  s.ca_fingerprint = t("caFingerprint"), s.ca_not_after = int_at(j, "/caNotAfter"),
  s.restart_policy = t("restartPolicy");
  s.workspace_owner = t("workspaceOwner");
  s.missing_tokens = texts_at(j, "missingTokens"), s.resolvers = texts_at(j, "resolvers");
  s.ready = bool_at(j, "/ready"), s.ever_ready = bool_at(j, "/everReady"),
  s.scanned = bool_at(j, "/scanned"), s.reason = t("reason"), s.message = t("message");
  return s;
}

std::string resolv_conf(const std::vector<std::string>& resolvers) {
  std::string text;
  for (const auto& r : resolvers) text += "nameserver " + r + "\n";
  return text + "options timeout:2 attempts:2\n";
}

}  // namespace

StateDir::Lock::~Lock() {
  if (fd_ >= 0) ::close(fd_);
}

Result<StateDir> StateDir::open(const std::string& root) {
  std::string path = root;
  if (path.empty()) {
    const char* home = std::getenv("HOME");
    if (!home || !*home)
      return Status(Code::kInvalid,
                    "HOME is not set: say where the state is kept with --state-dir");
    path = std::string(home) + "/.bot-bottle/state";
  }
  if (auto s = make_dirs(path, kPrivateDir); !s) return s.with_context("state folder");
  // The engine wants absolute paths without symbolic links in them, and labels compare them.
  char* real = ::realpath(path.c_str(), nullptr);
  if (!real) return Status(Code::kInternal, "state folder " + path + ": " + std::strerror(errno));
  StateDir dir{std::string(real)};
  std::free(real);
  return dir;
}

std::string StateDir::source_dir(const std::string& slug, Source source) const {
  return dir(slug) + "/" + folder_of(source);
}

Result<StateDir::Lock> StateDir::lock(const std::string& slug) const {
  if (auto s = make_dirs(root_ + "/.locks", kPrivateDir); !s) return s;
  std::string path = root_ + "/.locks/" + slug;
  int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, kPrivateFile);
  if (fd < 0) return Status(Code::kInternal, "cannot open " + path + ": " + std::strerror(errno));
  Lock lock(fd);
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0)
    return Status(Code::kConflict, "another command is changing bottle " + slug +
                                       " right now; try again when it is done");
  return lock;
}

std::vector<std::string> StateDir::slugs() const {
  std::vector<std::string> out;
  for (const auto& name : entries(root_)) {
    struct stat st {};
    if (::lstat(dir(name).c_str(), &st) == 0 && S_ISDIR(st.st_mode)) out.push_back(name);
  }
  return out;
}

Result<BottleState> StateDir::load(const std::string& slug) const {
  auto text = read_file(dir(slug) + "/state.json");
  if (!text) return text.status();
  Json j = Json::parse(*text, nullptr, false);
  if (!j.is_object())
    return Status(Code::kInvalid,
                  dir(slug) + "/state.json is damaged; take the bottle down and up again");
  return from_json(j);
}

Status StateDir::save(const BottleState& state) const {
  if (auto s = make_dirs(dir(state.slug), kPrivateDir); !s) return s;
  return write_file(dir(state.slug) + "/state.json", dump(to_json(state)) + "\n", kPrivateFile,
                    true);
}

Result<std::string> StateDir::bottle_json(const std::string& slug) const {
  return read_file(dir(slug) + "/bottle.json");
}

Result<pki::CertificateAuthority> StateDir::ca(const BottlePlan& plan, int64_t now) const {
  std::string folder = dir(plan.slug) + "/ca",
              kind = plan.ca_key_type == KeyType::kEcdsaP256 ? "ecdsa-p256" : "rsa-2048";
  auto cert = read_file(folder + "/ca.pem"), key = read_file(folder + "/ca.key"),
       was = read_file(folder + "/type");
  if (cert && key && was && *was == kind) {
    SecretString secret(std::move(*key));
    auto ca = pki::load_ca(*cert, secret.expose());
    if (ca && !pki::needs_renewal(*ca, now)) return ca;
  }
  auto ca = pki::make_egress_ca(plan.ca_key_type, now);
  if (!ca) return ca;
  for (const auto& path : {dir(plan.slug), folder})
    if (auto s = make_dirs(path, kPrivateDir); !s) return s;
  // The key first: a certificate without its key would not load, a key without its certificate is
  // made anew.
  if (auto s = write_file(folder + "/ca.key", ca->key_pem.expose(), kPrivateFile, true); !s)
    return s;
  if (auto s = write_file(folder + "/ca.pem", ca->cert_pem, kPrivateFile, true); !s) return s;
  if (auto s = write_file(folder + "/type", kind, kPrivateFile); !s) return s;
  return ca;
}

Status StateDir::write_all(const BottlePlan& plan, const pki::CertificateAuthority& ca,
                           const SharedFiles& shared,
                           const std::map<std::string, SecretString>& tokens,
                           const std::vector<std::string>& resolvers) const {
  const std::string& slug = plan.slug;
  if (auto s = make_dirs(dir(slug), kPrivateDir); !s) return s;
  for (Source source : {Source::kPolicy, Source::kGuardRules, Source::kTokens, Source::kEgressCa,
                        Source::kUpstreamTrust, Source::kAgentTrust, Source::kSidecarHosts,
                        Source::kResolvers, Source::kEmptyResolver, Source::kGate})
    if (auto s = make_dirs(source_dir(slug, source), kSharedDir); !s) return s;
  // Egress writes its status here as a UID of its own; nobody else can come in through the 0700
  // folder above. A status of the container before would be taken for the new one's.
  if (auto s = remove_tree(source_dir(slug, Source::kRun)); !s) return s;
  if (auto s = make_dirs(source_dir(slug, Source::kRun), 0777); !s) return s;

  std::string extra;
  for (const auto& pem : plan.upstream_ca_pems) extra += pem + "\n";
  auto upstream = pki::make_bundle(shared.roots_pem, extra);
  if (!upstream)
    return upstream.status().with_context("trust for upstream TLS (egress.upstreamCAs)");
  auto bundle = pki::make_bundle(shared.roots_pem, ca.cert_pem);
  if (!bundle) return bundle.status().with_context("trust for the agent");
  auto java = pki::make_java_trust_store(*bundle);
  if (!java) return java.status().with_context("trust store for Java");
  SecretString ca_pem = pki::mitmproxy_pem(ca);

  struct File {
    Source source;
    std::string name;
    std::string_view content;
    mode_t mode = kSharedFile;
  };
  std::vector<File> files = {{Source::kEgressCa, "mitmproxy-ca.pem", ca_pem.expose()},
                             {Source::kUpstreamTrust, "upstream-ca.pem", *upstream},
                             {Source::kAgentTrust, "ca.pem", ca.cert_pem},
                             {Source::kAgentTrust, "bundle.pem", *bundle},
                             {Source::kAgentTrust, "truststore.p12", *java},
                             {Source::kSidecarHosts, "hosts", plan.hosts_file},
                             {Source::kEmptyResolver, "resolv.conf", ""},
                             {Source::kGate, "gate", shared.gate, 0755}};
  for (const auto& [name, content] : plan.trust_files)
    files.push_back({Source::kAgentTrust, name, content});
  for (const auto& f : files)
    if (auto s = write_file(source_dir(slug, f.source) + "/" + f.name, f.content, f.mode); !s)
      return s;
  return write_policy(plan, tokens, resolvers).status();
}

Result<bool> StateDir::write_policy(const BottlePlan& plan,
                                    const std::map<std::string, SecretString>& tokens,
                                    const std::vector<std::string>& resolvers) const {
  const std::string& slug = plan.slug;
  bool changed = false;
  auto put = [&](const std::string& path, std::string_view content, bool always) -> Status {
    auto now = read_file(path);
    const bool same = now && *now == content;
    if (now) OPENSSL_cleanse(now->data(), now->size());
    changed = changed || !same;
    return same && !always ? Status::ok() : write_file(path, content, kSharedFile);
  };
  std::set<std::string> wanted;
  const std::string folder = source_dir(slug, Source::kTokens);
  for (const auto& ref : plan.tokens) {
    auto it = tokens.find(ref.env);
    if (it == tokens.end() || it->second.empty()) continue;
    wanted.insert(ref.env);
    if (auto s = put(folder + "/" + ref.env, it->second.expose(), false); !s) return s;
  }
  for (const auto& name : entries(folder))
    if (!wanted.count(name)) changed = ::unlink((folder + "/" + name).c_str()) == 0 || changed;
  for (const auto& [name, content] : plan.guard_files)
    if (auto s =
            write_file(source_dir(slug, Source::kGuardRules) + "/" + name, content, kSharedFile);
        !s)
      return s;
  // Last, and written anew when only a token changed: egress counts the tables it loads, and the
  // count says that it has seen all this.
  for (const auto& [name, content] : plan.policy_files)
    if (auto s = put(source_dir(slug, Source::kPolicy) + "/" + name, content, changed); !s)
      return s;
  if (auto s = write_in_place(source_dir(slug, Source::kResolvers) + "/resolv.conf",
                              resolv_conf(resolvers));
      !s)
    return s;
  return changed;
}

Status StateDir::write_about(const BottlePlan& plan, const std::string& bottle_json) const {
  if (auto s = make_dirs(dir(plan.slug), kPrivateDir); !s) return s;
  if (auto s = write_file(dir(plan.slug) + "/plan.json", render_plan_json(plan), kPrivateFile); !s)
    return s;
  return write_file(dir(plan.slug) + "/bottle.json", bottle_json, kPrivateFile);
}

Status StateDir::remove(const std::string& slug) const {
  return slug.empty() ? Status::ok() : remove_tree(dir(slug));
}

std::vector<std::string> reachable_resolvers(std::string_view resolv_conf) {
  std::vector<std::string> out;
  std::istringstream lines{std::string(resolv_conf)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string key, address;
    words >> key >> address;
    if (key != "nameserver") continue;
    in_addr v4{};
    in6_addr v6{};
    bool usable = false;
    if (inet_pton(AF_INET, address.c_str(), &v4) == 1)
      usable = (ntohl(v4.s_addr) >> 24) != 127 && v4.s_addr != 0;
    else if (inet_pton(AF_INET6, address.c_str(), &v6) ==
             1)  // link-local ones ("%eth0") do not parse, and mean nothing inside
      usable = !IN6_IS_ADDR_LOOPBACK(&v6) && !IN6_IS_ADDR_LINKLOCAL(&v6);
    if (usable && std::find(out.begin(), out.end(), address) == out.end() && out.size() < 3)
      out.push_back(address);
  }
  return out;
}

std::vector<std::string> host_resolvers() {
  for (const char* path : {"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}) {
    auto text = read_file(path);
    if (!text) continue;
    if (auto found = reachable_resolvers(*text); !found.empty()) return found;
  }
  return {};
}

}  // namespace bottle::docker
