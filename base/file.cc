#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace bottle {
namespace {

Status errno_status(const std::string& doing, const std::string& path, int err) {
  Code code = Code::kInternal;
  switch (err) {
    case ENOENT:
    case ENOTDIR: code = Code::kNotFound; break;
    case EACCES:
    case EPERM:
    case EROFS: code = Code::kPermission; break;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE: code = Code::kExhausted; break;
    default: break;
  }
  return Status(code, doing + " " + path + ": " + std::strerror(err));
}

// Closes on scope exit; close errors after a failed write add nothing.
struct Fd {
  int fd;
  ~Fd() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

Result<std::string> read_file(const std::string& path, size_t max_bytes) {
  Fd f{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (f.fd < 0) return errno_status("read", path, errno);
  std::string out;
  char buf[16384];
  for (;;) {
    ssize_t n = ::read(f.fd, buf, sizeof buf);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_status("read", path, errno);
    if (n == 0) return out;
    if (out.size() + static_cast<size_t>(n) > max_bytes) {
      return Status(Code::kExhausted,
                    "read " + path + ": larger than " + std::to_string(max_bytes) + " bytes");
    }
    out.append(buf, static_cast<size_t>(n));
  }
}

Status write_file(const std::string& path, std::string_view content, mode_t mode, bool durable) {
  std::string temp = path + ".XXXXXX";
  Fd f{::mkostemp(temp.data(), O_CLOEXEC)};
  if (f.fd < 0) return errno_status("write", path, errno);
  auto fail = [&](int err) {
    ::unlink(temp.c_str());
    return errno_status("write", path, err);
  };
  if (::fchmod(f.fd, mode) != 0) return fail(errno);
  size_t done = 0;
  while (done < content.size()) {
    ssize_t n = ::write(f.fd, content.data() + done, content.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(errno);
    done += static_cast<size_t>(n);
  }
  if (durable && ::fsync(f.fd) != 0) return fail(errno);
  if (::rename(temp.c_str(), path.c_str()) != 0) return fail(errno);
  return Status::ok();
}

Status make_dirs(const std::string& path, mode_t mode) {
  for (size_t at = 1; at != std::string::npos;) {
    at = path.find('/', at);
    std::string part = path.substr(0, at);
    if (at != std::string::npos) ++at;
    if (part.empty()) continue;
    if (::mkdir(part.c_str(), 0700) == 0) {
      if (::chmod(part.c_str(), mode) != 0) return errno_status("create folder", part, errno);
    } else if (errno != EEXIST) {
      return errno_status("create folder", part, errno);
    }
  }
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return errno_status("create folder", path, errno);
  if (!S_ISDIR(st.st_mode)) return Status(Code::kConflict, "create folder " + path + ": a file is in the way");
  if ((st.st_mode & 07777) != mode && ::chmod(path.c_str(), mode) != 0) {
    return errno_status("create folder", path, errno);
  }
  return Status::ok();
}

Status remove_tree(const std::string& path) {
  std::error_code ec;
  std::filesystem::remove_all(path, ec);
  if (ec) return errno_status("remove", path, ec.value());
  return Status::ok();
}

}  // namespace bottle
