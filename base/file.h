// Files: whole reads with a limit, and writes that are seen whole or not at all.
#ifndef BASE_FILE_H_
#define BASE_FILE_H_

#include <sys/types.h>

#include <string>
#include <string_view>

#include "base/status.h"

namespace bottle {

// Reads all of `path`. kExhausted when it is larger than `max_bytes`.
Result<std::string> read_file(const std::string& path, size_t max_bytes = 16u << 20);

// Writes by a temporary file of `mode` in the same folder and rename(2), so that a reader sees the old or the
// new content and a crash leaves the old. The mode is exact (no umask). `durable`: fsync first.
Status write_file(const std::string& path, std::string_view content, mode_t mode, bool durable = false);

// mkdir -p; every folder it makes gets `mode`, exactly, and the last one gets it even if it existed.
Status make_dirs(const std::string& path, mode_t mode);

// rm -rf that never follows a symbolic link. A path that does not exist is fine.
Status remove_tree(const std::string& path);

}  // namespace bottle

#endif  // BASE_FILE_H_
