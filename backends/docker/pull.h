// Images: is it here, and if not, get it, with progress.
#ifndef BACKENDS_DOCKER_PULL_H_
#define BACKENDS_DOCKER_PULL_H_

#include <string>

#include "backends/backend.h"
#include "backends/docker/engine_client.h"

namespace bottle::docker {

// The image's inspect answer, after a pull where it was missing and `pull` is set. `role` names the
// step of the progress.
Result<Json> ensure_image(const EngineClient& engine, const std::string& image, bool pull,
                          std::string_view role, const Progress& progress);

// "registry:5000/a/b:tag@sha256:…" -> what fromImage and tag want. A digest goes into `tag`.
struct ImageRef {
  std::string repository, tag;
};
ImageRef split_image(const std::string& image);

}  // namespace bottle::docker

#endif  // BACKENDS_DOCKER_PULL_H_
