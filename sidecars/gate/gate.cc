// gate PROGRAM [ARGS…]: starts the agent's program only once the guard's rules are in force.
//
// Static, because it runs in images we know nothing about. It sends a datagram to 127.0.0.11:53, which the rules refuse to every
// process: EPERM is the kernel's own word that they are loaded, and needs no privilege, file or peer. Without them after 10 s the
// program is not started: exit 125. 126/127: the program cannot be executed / does not exist.
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace {

constexpr long kLimitMs = 10'000;
constexpr int kPauseMs = 20;

long now_ms() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1'000'000;
}

// True when the kernel refuses the datagram; otherwise `error` is why that is not known (0: it was sent).
bool refused(int& error) {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    error = errno;  // also EPERM by seccomp: says nothing about the rules, so never taken for a refusal
    return false;
  }
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(53);
  inet_pton(AF_INET, "127.0.0.11", &to.sin_addr);
  const bool sent = sendto(fd, "", 0, MSG_DONTWAIT | MSG_NOSIGNAL, reinterpret_cast<sockaddr*>(&to), sizeof to) >= 0;
  error = sent ? 0 : errno;
  close(fd);
  return error == EPERM;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("gate: no program given\n", stderr);
    return 125;
  }
  const long deadline = now_ms() + kLimitMs;
  for (int error = 0; !refused(error);) {
    if (now_ms() >= deadline) {
      std::fprintf(stderr, "gate: the guard's rules are not in force in this network namespace after 10 s (%s); %s is not started\n",
                   error ? std::strerror(error) : "a datagram to 127.0.0.11:53 was let through", argv[1]);
      return 125;
    }
    poll(nullptr, 0, kPauseMs);
  }
  execvp(argv[1], argv + 1);
  const int error = errno;
  std::fprintf(stderr, "gate: cannot start %s: %s\n", argv[1], std::strerror(error));
  return error == ENOENT ? 127 : 126;
}
