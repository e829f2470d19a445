// exec and attach: a program's streams over a WebSocket to the API server, which passes them on to the kubelet.
// Source: k8s.io/apimachinery remotecommand (v4 and v5.channel.k8s.io), KEP-4006; client-go tools/remotecommand.
#ifndef BACKENDS_KUBERNETES_EXEC_H_
#define BACKENDS_KUBERNETES_EXEC_H_

#include <string>
#include <string_view>
#include <vector>

#include "backends/backend.h"
#include "base/status.h"
#include "controller/kube/config.h"

namespace bottle::kubernetes {

struct RemoteIo {
  int in = -1, out = 1, err = 2;  // in = -1: no input
  bool tty = false;               // with `in` a terminal: raw mode; the size of the terminal at `out` is followed
};

// GETs `path` (pods/…/exec or attach, with its query) as a WebSocket and connects it with `io` until the program has ended; gives its exit
// code. A program that the image does not have is 127, one that may not be run 126, both with the reason on `io.err`. kCancelled on
// g_cancelled; kUnsupported when input has an end and the server has no way to tell it (older than Kubernetes 1.30).
Result<int> run_remote(const kube::Config& config, const std::string& path, const RemoteIo& io);

// The end of a session, from the error channel's metav1.Status: an exit code, or why there is none.
Result<int> exit_code_of(std::string_view status_json);

// The command that runs `argv` in a folder and with variables, which exec itself cannot: by env(1) of the image (coreutils 8.28 or newer for
// the folder). kInvalid when env could not tell the program from a variable.
Result<std::vector<std::string>> command_of(const ExecOptions& options);

}  // namespace bottle::kubernetes

#endif  // BACKENDS_KUBERNETES_EXEC_H_
