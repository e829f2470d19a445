// Tries, one line each, what backends/docker/seccomp.json must refuse or let through: "<name> ok" or "<name> <errno>".
// Static, for a container that holds nothing else.
#include <linux/io_uring.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <thread>

namespace {

void tell(const char* name, long result) {
  if (result >= 0)
    std::printf("%s ok\n", name);
  else
    std::printf("%s %d\n", name, errno);
  std::fflush(stdout);
}

// A call the filter may end the process for.
template <class F>
void tell_in_child(const char* name, F call) {
  const pid_t pid = fork();
  if (pid == 0) _exit(call() >= 0 ? 0 : 1);
  int status = 0;
  waitpid(pid, &status, 0);
  std::printf("%s %s\n", name, WIFSIGNALED(status) ? "killed" : WEXITSTATUS(status) == 0 ? "ok" : "refused");
  std::fflush(stdout);
}

}  // namespace

int main() {
  tell("inet", socket(AF_INET, SOCK_STREAM, 0));
  tell("inet6", socket(AF_INET6, SOCK_DGRAM, 0));
  tell("unix", socket(AF_UNIX, SOCK_STREAM, 0));
  tell("netlink", socket(AF_NETLINK, SOCK_RAW, 0));
  int pair[2];
  tell("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  std::thread([] { tell("thread", 0); }).join();
  tell("vsock", socket(AF_VSOCK, SOCK_STREAM, 0));
  // The kernel takes the low half of the argument; a filter that says "not 40" compares all of it.
  tell("vsock-high-bits", syscall(SYS_socket, (1L << 32) + AF_VSOCK, SOCK_STREAM, 0));
  tell("alg", socket(AF_ALG, SOCK_SEQPACKET, 0));
  io_uring_params params{};
  tell("io_uring", syscall(SYS_io_uring_setup, 4, &params));
  tell("unshare", unshare(CLONE_NEWUSER));
  tell("clone-newuser", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
  tell("clone3", syscall(SYS_clone3, nullptr, 0));
  tell("mount", syscall(SYS_mount, "none", "/", "tmpfs", 0, nullptr));
  tell("bpf", syscall(SYS_bpf, 0, nullptr, 0));
  tell("keyctl", syscall(SYS_keyctl, 0, 0, 0));
  tell("userfaultfd", syscall(SYS_userfaultfd, 0));
  tell("perf_event_open", syscall(SYS_perf_event_open, nullptr, 0, 0, 0, 0));
  tell("setns", syscall(SYS_setns, 0, 0));
#ifdef __x86_64__
  // The 32-bit entry: socketcall takes the family through a pointer no filter follows.
  void* low = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  tell_in_child("i386-socketcall-vsock", [low] {
    auto* args = static_cast<unsigned*>(low);
    args[0] = AF_VSOCK;
    args[1] = SOCK_STREAM;
    args[2] = 0;
    long result = 102;
    asm volatile("int $0x80" : "+a"(result) : "b"(1L), "c"(low) : "memory", "r8", "r9", "r10", "r11");
    return result;
  });
#endif
}
