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

struct BackendOptions {
  std::string host;       // of the engine; empty: DOCKER_HOST or the usual sockets
  std::string state_dir;  // empty: ~/.bot-bottle/state
};

struct Context {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  bool color_out = false, color_err = false;
  std::function<Result<std::unique_ptr<Backend>>(const BackendOptions&)> open_backend;
  std::function<std::vector<Check>(const BackendOptions&)> doctor;  // answers without an engine too
  std::function<std::optional<std::string>(const std::string&)> env;
  BackendOptions backend{};  // from --host and --state-dir
};

// `args` without the program's name.
int run(Context& context, const std::vector<std::string>& args);

}  // namespace bottle::cli

#endif  // CLI_CLI_H_
