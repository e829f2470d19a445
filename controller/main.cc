// bottle-controller: the process around reconcile::Manager: flags, signals, probes, metrics.
#include <malloc.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <thread>

#include "base/log.h"
#include "base/metrics.h"
#include "controller/kube/client.h"
#include "controller/kube/config.h"
#include "controller/ops/endpoints.h"
#include "controller/ops/http_server.h"
#include "controller/options.h"
#include "controller/reconcile/manager.h"

namespace {

using namespace bottle;

// CA keys and tokens of the API server are in this memory: no core file, and no other process of our user may look at it.
void harden() {
  ::prctl(PR_SET_DUMPABLE, 0);
  rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  // glibc makes up to 8 arenas a core, each of which keeps what its busiest moment needed; our threads mostly wait.
  ::mallopt(M_ARENA_MAX, 2);
}

// SIGTERM and SIGINT are blocked in every thread (before there are any) and taken by the one of StopOnSignal: a handler could do next to nothing.
sigset_t block_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  return set;
}

// The first signal stops the manager, the second one does not wait for that.
class StopOnSignal {
 public:
  StopOnSignal(const sigset_t& set, reconcile::Manager& manager) : thread_([this, set, &manager] {
    for (bool first = true;; first = false) {
      int signal = 0;
      if (sigwait(&set, &signal) != 0 || over_) return;
      if (!first) ::_exit(kExitFailed);
      log::info("told to stop", {{"signal", signal == SIGTERM ? "SIGTERM" : "SIGINT"}});
      manager.stop();
    }
  }) {}
  ~StopOnSignal() {
    over_ = true;
    ::pthread_kill(thread_.native_handle(), SIGTERM);
    thread_.join();
  }

 private:
  std::atomic<bool> over_{false};
  std::thread thread_;
};

// hostname_random, as client-go has it: a pod that is restarted in place is somebody else.
std::string make_identity() {
  char host[256] = "bottle-controller";
  ::gethostname(host, sizeof host - 1);
  unsigned long long random[2] = {};
  if (::getrandom(random, sizeof random, 0) != static_cast<ssize_t>(sizeof random)) random[0] = static_cast<unsigned long long>(::getpid());
  char text[40];
  std::snprintf(text, sizeof text, "_%016llx%016llx", random[0], random[1]);
  return std::string(host) + text;
}

std::string user_agent(const std::string& identity) {
  utsname machine{};
  ::uname(&machine);
  return std::string(kube::kFieldManager) + "/" BOTTLE_VERSION " (linux/" + machine.machine + ") " + identity;
}

int failed(std::string_view doing, const Status& status) {
  log::error(doing, {{"error", status.message()}, {"code", code_name(status.code())}});
  return kExitFailed;
}

std::string list_of(const std::vector<std::string>& namespaces) {
  std::string out;
  for (const auto& ns : namespaces) out += (out.empty() ? "" : ",") + ns;
  return out.empty() ? "all" : out;
}

int serve(const ControllerOptions& o, const sigset_t& signals) {
  const std::string identity = make_identity();
  auto config = kube::load_config({o.kubeconfig, o.context, {}});
  if (!config.is_ok()) return failed("there is no way to the API server", config.status());
  log::info("starting", {{"version", BOTTLE_VERSION}, {"namespaces", list_of(o.namespaces)}, {"server", config->server},
                         {"config", config->source}, {"identity", identity}});

  metrics::Registry registry;
  registry.gauge("bottle_build_info", "The version that runs.", {{"version", BOTTLE_VERSION}}).set(1);
  kube::ClientOptions client_options;
  client_options.max_in_flight = o.kube_api_in_flight;
  client_options.http1 = o.http1;
  client_options.user_agent = user_agent(identity);
  client_options.metrics = &registry;
  auto client = kube::Client::create(std::move(config).value(), std::move(client_options));
  if (!client.is_ok()) return failed("the API client cannot be made", client.status());

  reconcile::ManagerOptions m;
  m.namespaces = o.namespaces;
  m.workers = o.workers;
  m.leader_elect = o.leader_elect;
  m.lease_namespace = o.lease_namespace;
  m.lease_name = o.lease_name;
  m.identity = identity;
  m.metrics = &registry;
  m.reconciler.plan = o.plan;
  m.reconciler.render.image_pull_policy = o.image_pull_policy;
  m.reconciler.render.image_pull_secrets = o.image_pull_secrets;
  m.reconciler.identity = identity;
  m.reconciler.metrics = &registry;
  auto manager = reconcile::Manager::create(**client, std::move(m));
  if (!manager.is_ok()) return failed("the controller cannot be made", manager.status());
  StopOnSignal stop_on_signal(signals, **manager);

  std::unique_ptr<ops::HttpServer> probes, metrics_server;
  const auto open = [](const std::string& address, ops::HttpServer::Handler handler, std::unique_ptr<ops::HttpServer>* to) {
    if (address.empty() || address == "0") return Status::ok();
    ops::ServerOptions options;
    options.address = address;
    auto server = ops::HttpServer::create(std::move(options), std::move(handler));
    if (server.is_ok()) *to = std::move(server).value();
    return server.status();
  };
  // Of their own each: whoever keeps /metrics busy does not keep the kubelet from its probe.
  if (auto s = open(o.probe_address, ops::probes([&] { return (*manager)->waiting_for(); }), &probes); !s.is_ok()) return failed("no probes", s);
  if (auto s = open(o.metrics_address, ops::metrics(registry), &metrics_server); !s.is_ok()) return failed("no metrics", s);

  Status ended = (*manager)->run();
  if (!ended.is_ok()) {
    // Passes may be in the middle of a write, and another replica may have begun: nothing is waited for.
    failed("ended", ended);
    ::_exit(kExitFailed);
  }
  log::info("stopped");
  return kExitOk;
}

}  // namespace

int main(int argc, char** argv) {
  harden();
  auto parsed = parse_options(std::vector<std::string>(argv + 1, argv + argc), std::cout, std::cerr);
  if (parsed.exit_code) return *parsed.exit_code;
  log::set_level(parsed.options.log_level);
  return serve(parsed.options, block_signals());
}
