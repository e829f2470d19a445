// The process that holds a pod's namespaces: it waits for its end, and for the ends of orphans if the pod shares its processes.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all, 0);
  for (;;) {
    int number = 0;
    sigwait(&all, &number);
    if (number == SIGTERM || number == SIGINT) return 0;
    if (number == SIGCHLD)
      while (waitpid(-1, 0, WNOHANG) > 0) {}
  }
}
