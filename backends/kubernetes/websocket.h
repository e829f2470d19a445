// The client's half of a WebSocket, as bytes: frames out, messages in. No I/O; one thread.
// Source: RFC 6455, sections 4.1 (handshake), 5 (framing), 7.4 (close codes).
#ifndef BACKENDS_KUBERNETES_WEBSOCKET_H_
#define BACKENDS_KUBERNETES_WEBSOCKET_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace bottle::kubernetes {

enum class Opcode : uint8_t { kContinuation = 0, kText = 1, kBinary = 2, kClose = 8, kPing = 9, kPong = 10 };

// 16 random bytes in base64, and what a server has to answer to it (Sec-WebSocket-Accept, section 4.2.2).
Result<std::string> websocket_key();
std::string websocket_accept(std::string_view key);

// One final frame, masked as a client's has to be (5.3). kInternal when there is no randomness for the mask.
Result<std::string> websocket_frame(Opcode opcode, std::string_view payload);
std::string close_payload(uint16_t code);

// What a server sent, put together again: fragments joined, control frames passed on in between. What a server may not do (mask, reserved
// bits, a fragmented or long control frame, a continuation of nothing, a message over the cap) is an error, and the connection is to be closed.
class WebSocketReader {
 public:
  explicit WebSocketReader(size_t max_message = 16u << 20) : max_message_(max_message) {}
  // Returning false stops: the rest of `bytes` stays unread.
  using Take = std::function<bool(Opcode opcode, std::string_view payload)>;
  Status feed(std::string_view bytes, const Take& take);

 private:
  Status frame(bool final, Opcode opcode, std::string_view payload, const Take& take, bool* go_on);
  size_t max_message_;
  std::string buffer_;        // of a frame that is not all here
  std::string message_;       // of fragments
  bool fragmented_ = false;
  Opcode message_opcode_ = Opcode::kBinary;
};

}  // namespace bottle::kubernetes

#endif  // BACKENDS_KUBERNETES_WEBSOCKET_H_
