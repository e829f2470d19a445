// `bottle doctor`: what a bottle needs of this machine, and what to do where it is not there.
#include <sys/stat.h>
#include <unistd.h>

#include "backends/docker/docker_impl.h"
#include "backends/docker/hijack.h"
#include "base/file.h"
#include "seccomp_profile.h"

namespace bottle {
namespace docker {
namespace {

// Small, but with everything that a bottle's rules need of a kernel: inet, a set, the owner of a
// socket, conntrack, reject.
constexpr char kProbeRules[] = R"(table inet bottle_guard {
  set resolvers4 { type ipv4_addr; }
  set resolvers6 { type ipv6_addr; }
  counter refused { }
  chain outbound {
    type filter hook output priority 0; policy drop;
    oifname != "lo" meta skuid != { 10001 } counter name refused reject with icmpx type admin-prohibited
    ct state established,related accept
  }
}
)";

Check state_check(const StateDir& state) {
  struct stat st {};
  if (::stat(state.root().c_str(), &st) != 0 || ::access(state.root().c_str(), W_OK) != 0)
    return {"state folder", "fail", state.root() + " cannot be written",
            "make it yours (chown), or choose another with --state-dir"};
  if (st.st_mode & 077)
    return {"state folder", "warn", state.root() + " is open to others",
            "chmod 700 " + state.root()};
  return {"state folder", "ok", state.root(), ""};
}

}  // namespace

std::vector<Check> DockerBackend::doctor() {
  std::vector<Check> out;
  out.push_back(
      {"engine", "ok",
       engine_.address().shown + ", " + engine_.server() + ", API " + engine_.prefix().substr(2),
       ""});
  out.push_back(state_check(state_));
  const PlanOptions defaults;
  bool sidecars = false;
  for (const std::string& image : {defaults.sidecars_image, defaults.egress_image}) {
    auto found = engine_.call("GET", "/images/" + image + "/json");
    if (found)
      out.push_back({"image " + image, "ok", text_at(*found, "/Id").substr(0, 19), ""});
    else
      out.push_back(
          {"image " + image, "fail", found.status().message(), "build it: images/build.sh"});
    if (image == defaults.sidecars_image) sidecars = found.is_ok();
  }
  auto resolvers = host_resolvers();
  std::string list;
  for (const auto& r : resolvers) list += (list.empty() ? "" : ", ") + r;
  if (resolvers.empty())
    out.push_back({"name servers", "warn",
                   "all name servers of this host are on loopback, out of a container's reach",
                   "run systemd-resolved, put an upstream server into /etc/resolv.conf, or list "
                   "addresses in spec.egress.hostAliases"});
  else
    out.push_back({"name servers", "ok", list, ""});
  out.push_back(kSeccompProfile[0]
                    ? Check{"seccomp profile", "ok", "ours", ""}
                    : Check{"seccomp profile", "warn", "the engine's own: AF_VSOCK stays open",
                            "build with backends/docker/seccomp.json"});
  if (auto info = engine_.call("GET", "/info"); info) {
    bool tini = !text_at(*info, "/InitBinary").empty() && text_at(*info, "/InitCommit/ID") != "N/A";
    if (!tini)
      out.push_back({"init", "warn", "the engine names no docker-init",
                     "install it (apt-get install tini or docker-init)"});
    std::string security =
        info->contains("SecurityOptions") ? dump((*info)["SecurityOptions"]) : "";
    if (security.find("seccomp") == std::string::npos)
      out.push_back({"seccomp", "fail", "the engine has no seccomp",
                     "use a kernel with CONFIG_SECCOMP_FILTER and an engine built for it"});
  }
  if (!sidecars) {
    out.push_back({"kernel nftables", "warn", "not tried: the sidecars image is missing",
                   "build it: images/build.sh"});
    return out;
  }
  // The real thing, in a network namespace of its own with nothing in it.
  std::string folder = state_.root() + "/.doctor", slug = "doctor";
  auto probe = [&]() -> Status {
    if (auto s = make_dirs(folder, 0755); !s) return s;
    if (auto s = write_file(folder + "/rules.nft", kProbeRules, 0644); !s) return s;
    if (auto s = write_file(folder + "/resolv.conf", "nameserver 192.0.2.53\n", 0644); !s) return s;
    BottlePlan plan{};
    plan.name = plan.slug = slug;
    Json bind = Json::array();
    for (const auto& [from, to] : {std::pair{"rules.nft", "/etc/bot-bottle/guard/rules.nft"},
                                   std::pair{"resolv.conf", "/etc/resolv.conf"}})
      bind.push_back(
          {{"Type", "bind"}, {"Source", folder + "/" + from}, {"Target", to}, {"ReadOnly", true}});
    Json body = {{"Image", defaults.sidecars_image},
                 {"User", "0:0"},
                 {"Labels", labels_of(plan, state_, "doctor")},
                 {"Entrypoint", {"/usr/local/bin/bottle-guard"}},
                 {"Cmd",
                  {"apply", "--rules", "/etc/bot-bottle/guard/rules.nft", "--resolv-conf",
                   "/etc/resolv.conf"}},
                 {"HostConfig",
                  {{"NetworkMode", "none"},
                   {"CapDrop", {"ALL"}},
                   {"CapAdd", {"NET_ADMIN"}},
                   {"ReadonlyRootfs", true},
                   {"SecurityOpt", {"no-new-privileges:true"}},
                   {"Mounts", bind}}}};
    auto id = create(container_name("doctor", std::to_string(::getpid())), body, slug);
    if (!id) return id.status();
    Status s = start(*id, "probe");
    if (s) {
      auto waited = engine_.call("POST", "/containers/" + *id + "/wait", nullptr, 20'000);
      if (!waited)
        s = waited.status();
      else if (int_at(*waited, "/StatusCode") != 0)
        s = Status(Code::kUnsupported, last_lines(*id, 3));
    }
    (void)remove_container(*id, slug);
    return s;
  };
  Status s = probe();
  (void)remove_tree(folder);
  out.push_back(
      s ? Check{"kernel nftables", "ok", "the guard's rules load and read back", ""}
        : Check{"kernel nftables", "fail", s.message(),
                "load the modules: modprobe nf_tables nft_ct nft_reject_inet nf_conntrack"});
  return out;
}

}  // namespace docker

Result<std::unique_ptr<Backend>> open_docker_backend(const DockerOptions& options) {
  auto state = docker::StateDir::open(options.state_dir);
  if (!state) return state.status();
  auto address = docker::find_engine(options.host);
  if (!address) return address.status();
  auto engine = docker::EngineClient::connect(std::move(*address));
  if (!engine) return engine.status();
  return std::unique_ptr<Backend>(
      std::make_unique<docker::DockerBackend>(std::move(*engine), std::move(*state)));
}

std::vector<Check> docker_doctor(const DockerOptions& options) {
  auto backend = open_docker_backend(options);
  if (backend) return (*backend)->doctor();
  std::string message = backend.status().message();
  auto cut = message.rfind("; ");
  return {{"engine", "fail", message.substr(0, cut),
           cut == std::string::npos ? "" : message.substr(cut + 2)}};
}

}  // namespace bottle
