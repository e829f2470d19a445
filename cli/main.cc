// bottle: the process around cli::run. Called kubectl-bottle it is a plugin of kubectl (kubectl bottle …), called kubectl_complete-bottle it
// completes that plugin's words.
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <unistd.h>

#include "backends/docker/docker_backend.h"
#include "backends/kubernetes/kubernetes_backend.h"
#include "cli/cli.h"

namespace {

// The first Ctrl-C asks for an orderly stop; a second one does not wait for it.
void on_signal(int) {
  if (bottle::g_cancelled.exchange(true)) _exit(bottle::cli::kInterrupted);
}

bool use_color(int fd) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  return isatty(fd) && !(no_color && *no_color) && term && std::strcmp(term, "dumb") != 0;
}

}  // namespace

int main(int argc, char** argv) {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  std::ios::sync_with_stdio(false);

  using bottle::cli::BackendOptions;
  const auto docker = [](const BackendOptions& o) { return bottle::DockerOptions{o.host, o.state_dir}; };
  const auto cluster = [](const BackendOptions& o) { return bottle::KubernetesOptions{o.kubeconfig, o.context, o.namespace_, o.all_namespaces}; };
  const std::string path = argc > 0 ? argv[0] : "bottle";
  bottle::cli::Context context{
      std::cin, std::cout, std::cerr, use_color(1), use_color(2),
      {[=](const BackendOptions& o) { return bottle::open_docker_backend(docker(o)); }, [=](const BackendOptions& o) { return bottle::docker_doctor(docker(o)); }},
      {[=](const BackendOptions& o) { return bottle::open_kubernetes_backend(cluster(o)); },
       [=](const BackendOptions& o) { return bottle::kubernetes_doctor(cluster(o)); }},
      [=](const BackendOptions& o) { return bottle::kubernetes_target(cluster(o)); },
      [](const std::string& name) -> std::optional<std::string> {
        const char* value = std::getenv(name.c_str());
        return value ? std::optional<std::string>(value) : std::nullopt;
      },
      path.substr(path.rfind('/') + 1)};
  int code = bottle::cli::run(context, std::vector<std::string>(argv + 1, argv + argc));
  std::cout.flush();
  if (!std::cout.good() && code == 0) code = bottle::cli::kFailed;  // a full disk behind `bottle get > file` is a failure
  return code;
}
