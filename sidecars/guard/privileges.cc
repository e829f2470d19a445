#include "sidecars/guard/privileges.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/vm_sockets.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace bottle::guard {
namespace {

constexpr uid_t kNobody = 65534;

Status os_error(const std::string& what) { return {Code::kInternal, what + ": " + std::strerror(errno)}; }

}  // namespace

Result<int> drop_privileges() {
  // First, so that the bounding set cannot matter even where it may not be changed: an exec gains nothing any more.
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return os_error("set no_new_privs");
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);  // the read-back below decides
  for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; ++cap)
    if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0 && errno != EPERM) return os_error("drop the bounding set");
  // While SETUID and SETGID may still be there; EPERM is the normal answer in a container with NET_ADMIN alone.
  if (setgroups(0, nullptr) != 0 && errno != EPERM) return os_error("setgroups");
  if (setresgid(kNobody, kNobody, kNobody) != 0 && errno != EPERM) return os_error("setresgid");
  if (setresuid(kNobody, kNobody, kNobody) != 0 && errno != EPERM) return os_error("setresuid");
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2] = {};
  if (syscall(SYS_capset, &header, none) != 0) return os_error("capset");
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return os_error("set not dumpable");

  __user_cap_data_struct now[2] = {};
  if (syscall(SYS_capget, &header, now) != 0) return os_error("capget");
  for (const auto& half : now)
    if (half.effective || half.permitted || half.inheritable) return {Code::kInternal, "capabilities are left after dropping them"};
  for (int cap = 0; cap <= 63; ++cap)
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0) == 1)
      return {Code::kInternal, "an ambient capability is left after dropping them"};
  if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) return {Code::kInternal, "no_new_privs is not set"};
  return static_cast<int>(geteuid());
}

std::string vsock_state() {
  const int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return "blocked";
  sockaddr_vm host{};
  host.svm_family = AF_VSOCK;
  host.svm_cid = VMADDR_CID_HOST;
  host.svm_port = 1;
  const int rc = connect(fd, reinterpret_cast<sockaddr*>(&host), sizeof host);
  const int error = rc == 0 ? 0 : errno;
  close(fd);
  return error == ENODEV || error == EADDRNOTAVAIL || error == ENETUNREACH ? "no-transport" : "open";
}

}  // namespace bottle::guard
