#include "backends/terminal.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>

#include "backends/backend.h"

namespace bottle {

RawTerminal::RawTerminal(int fd) : fd_(fd) {
  if (fd < 0 || !isatty(fd) || tcgetattr(fd, &saved_) != 0) return;
  termios raw = saved_;
  cfmakeraw(&raw);
  active_ = tcsetattr(fd, TCSANOW, &raw) == 0;
}

RawTerminal::~RawTerminal() {
  if (active_) tcsetattr(fd_, TCSADRAIN, &saved_);
}

std::optional<TerminalSize> terminal_size(int fd) {
  winsize now{};
  if (!isatty(fd) || ioctl(fd, TIOCGWINSZ, &now) != 0) return std::nullopt;
  return TerminalSize{now.ws_row, now.ws_col};
}

bool write_all(int fd, std::string_view data) {
  while (!data.empty()) {
    ssize_t n = ::write(fd, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      pollfd p{fd, POLLOUT, 0};
      ::poll(&p, 1, kTickMs);
      if (g_cancelled) return false;
      continue;
    }
    if (n <= 0) return false;
    data.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

}  // namespace bottle
