// Bottles on a local container engine: one bridge network, one namespace held by the guard, egress
// and agent inside it.
#ifndef BACKENDS_DOCKER_DOCKER_BACKEND_H_
#define BACKENDS_DOCKER_DOCKER_BACKEND_H_

#include <memory>
#include <string>

#include "backends/backend.h"

namespace bottle {

struct DockerOptions {
  std::string host;       // "unix:///path", "/path" or "tcp://host:port"; empty: $DOCKER_HOST, the
                          // current context, the usual sockets
  std::string state_dir;  // empty: ~/.bot-bottle/state. Bottles of another folder are not ours:
                          // never changed, never removed
};

// Fails when no engine answers (kUnavailable), its socket is closed to us (kPermission) or it is
// too old (kUnsupported).
Result<std::unique_ptr<Backend>> open_docker_backend(const DockerOptions& options);

// What `bottle doctor` says, engine or no engine.
std::vector<Check> docker_doctor(const DockerOptions& options);

}  // namespace bottle

#endif  // BACKENDS_DOCKER_DOCKER_BACKEND_H_
