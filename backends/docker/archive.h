// Just enough of tar (POSIX ustar) for the engine's archive endpoint: take one file out, put one
// folder in.
#ifndef BACKENDS_DOCKER_ARCHIVE_H_
#define BACKENDS_DOCKER_ARCHIVE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace bottle::docker {

// The content of the first regular file of the archive. kNotFound when there is none, kInvalid when
// it is cut short.
Result<std::string> untar_one(std::string_view tar);

// An archive of one empty folder with this owner and mode.
std::string tar_folder(std::string_view name, uint32_t mode, uint32_t uid, uint32_t gid);

}  // namespace bottle::docker

#endif  // BACKENDS_DOCKER_ARCHIVE_H_
