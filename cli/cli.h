// The command `bottle`, as a function: main.cc gives it the process, tests give it streams and a backend of their own.
#ifndef CLI_CLI_H_
#define CLI_CLI_H_

#include <functional>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "base/status.h"

namespace bottle::cli {

// Exit codes. `exec` alone returns the code of the command it ran.
inline constexpr int kOk = 0, kFailed = 1, kBadInput = 2, kNotFoundExit = 3, kInterrupted = 130;

enum class BackendKind { kDocker, kKubernetes };

struct BackendOptions {
  std::string choice;     // "docker", "kubernetes" or "auto"
  // Docker
  std::string host;       // of the engine; empty: DOCKER_HOST or the usual sockets
  std::string state_dir;  // empty: ~/.bot-bottle/state
  // Kubernetes
  std::string kubeconfig, context, namespace_;
  bool all_namespaces = false;
};

// What a backend is to the commands.
struct BackendEntry {
  std::function<Result<std::unique_ptr<Backend>>(const BackendOptions&)> open;
  std::function<std::vector<Check>(const BackendOptions&)> doctor;  // answers without an engine or a cluster too
};

struct Context {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  bool color_out = false, color_err = false;
  BackendEntry docker, kubernetes;
  // Where a bottle would go on Kubernetes ("https://…, namespace dev"); not OK without a kubeconfig.
  std::function<Result<std::string>(const BackendOptions&)> kubernetes_target;
  std::function<std::optional<std::string>(const std::string&)> env;
  std::string program = "bottle";  // "kubectl-bottle": a plugin of kubectl
  BackendOptions backend{};        // from the options
};

// Which backend the options and the environment name; nothing when they leave it open, kInvalid when they say two things. Asks nobody.
Result<std::optional<BackendKind>> named_backend(const Context& c);
// Opens the backend that is named, else Docker, else (no engine is there and none was named, but a kubeconfig is) Kubernetes, and says so.
Result<std::unique_ptr<Backend>> open_backend(Context& c, BackendKind* kind = nullptr);

// `args` without the program's name.
int run(Context& context, const std::vector<std::string>& args);

}  // namespace bottle::cli

#endif  // CLI_CLI_H_
