// Streams of a container's input and output: the framing of logs and attach, and the connections
// the engine hands over
// ("hijacks") for attach and exec.
#ifndef BACKENDS_DOCKER_HIJACK_H_
#define BACKENDS_DOCKER_HIJACK_H_

#include <functional>
#include <string>
#include <string_view>

#include "backends/docker/engine_client.h"

namespace bottle::docker {

// Takes apart the stream of a container without a TTY: 8-byte header (1 stdout, 2 stderr; 3 zero;
// big-endian length), then bytes.
class FrameDemux {
 public:
  using Sink = std::function<bool(bool is_stderr, std::string_view bytes)>;
  explicit FrameDemux(bool framed) : framed_(framed) {}
  // Passes on what is there. False: the sink stopped, or the stream is not what it should be
  // (`broken`).
  bool feed(std::string_view data, const Sink& sink);
  bool broken() const { return broken_; }

 private:
  bool framed_, broken_ = false, is_stderr_ = false;
  std::string header_;
  size_t left_ = 0;  // of the current frame
};

struct HijackIo {
  int in = -1, out = 1, err = 2;  // in = -1: no input
  bool tty = false;  // raw stream; with `in` a terminal: raw mode, and `resize` follows its size
  std::function<void(int rows, int columns)> resize;
};

// POSTs `body` to `path` (without version), asks for the upgrade and connects the stream with `io`
// until the engine ends it. kCancelled on g_cancelled.
Status hijack(const EngineClient& engine, const std::string& path, const Json& body,
              const HijackIo& io);

}  // namespace bottle::docker

#endif  // BACKENDS_DOCKER_HIJACK_H_
