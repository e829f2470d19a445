// The terminal's side of exec and attach, whatever carries the bytes: raw mode, size, whole writes. One thread.
#ifndef BACKENDS_TERMINAL_H_
#define BACKENDS_TERMINAL_H_

#include <termios.h>

#include <optional>
#include <string_view>

namespace bottle {

inline constexpr int kTickMs = 200;  // how soon a resize or Ctrl-C is seen by a loop that polls

// Raw mode while it lives; the terminal as it was afterwards. A descriptor that is no terminal (or -1) is left alone.
class RawTerminal {
 public:
  explicit RawTerminal(int fd);
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;
  ~RawTerminal();

 private:
  int fd_;
  bool active_ = false;
  termios saved_{};
};

struct TerminalSize {
  int rows = 0, columns = 0;
  bool operator==(const TerminalSize&) const = default;
};
// Nothing when `fd` is no terminal.
std::optional<TerminalSize> terminal_size(int fd);

// All of `data`, waiting where `fd` does not block. False: the other end is gone, or g_cancelled.
bool write_all(int fd, std::string_view data);

}  // namespace bottle

#endif  // BACKENDS_TERMINAL_H_
