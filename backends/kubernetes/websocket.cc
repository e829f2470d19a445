#include "backends/kubernetes/websocket.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>

#include "base/encoding.h"

namespace bottle::kubernetes {
namespace {

bool random_bytes(char* to, int n) { return RAND_bytes(reinterpret_cast<unsigned char*>(to), n) == 1; }

Status broken(const std::string& how) { return {Code::kUnavailable, "the server's WebSocket stream is broken: " + how}; }

bool is_control(Opcode opcode) { return static_cast<uint8_t>(opcode) >= 8; }

}  // namespace

Result<std::string> websocket_key() {
  char nonce[16];
  if (!random_bytes(nonce, sizeof nonce)) return Status(Code::kInternal, "no random numbers for the WebSocket handshake");
  return base64({nonce, sizeof nonce});
}

std::string websocket_accept(std::string_view key) {
  const std::string text = std::string(key) + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";  // section 1.3
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int n = 0;
  if (EVP_Digest(text.data(), text.size(), digest, &n, EVP_sha1(), nullptr) != 1) return "";
  return base64({reinterpret_cast<const char*>(digest), n});
}

Result<std::string> websocket_frame(Opcode opcode, std::string_view payload) {
  char mask[4];
  if (!random_bytes(mask, sizeof mask)) return Status(Code::kInternal, "no random numbers for a WebSocket frame");
  std::string out;
  out.reserve(payload.size() + 14);
  out += static_cast<char>(0x80 | static_cast<uint8_t>(opcode));
  const auto length = [&](int bytes) {
    for (int i = bytes - 1; i >= 0; --i) out += static_cast<char>(static_cast<uint64_t>(payload.size()) >> (8 * i));
  };
  if (payload.size() < 126) {
    out += static_cast<char>(0x80 | payload.size());
  } else if (payload.size() <= 0xffff) {
    out += static_cast<char>(0x80 | 126), length(2);
  } else {
    out += static_cast<char>(0x80 | 127), length(8);
  }
  out.append(mask, sizeof mask);
  for (size_t i = 0; i < payload.size(); ++i) out += static_cast<char>(payload[i] ^ mask[i % 4]);
  return out;
}

std::string close_payload(uint16_t code) { return {static_cast<char>(code >> 8), static_cast<char>(code & 0xff)}; }

Status WebSocketReader::feed(std::string_view bytes, const Take& take) {
  buffer_.append(bytes);
  std::string_view rest = buffer_;
  bool go_on = true;
  Status status;
  while (go_on && status && rest.size() >= 2) {
    const auto byte = [&](size_t i) { return static_cast<unsigned char>(rest[i]); };
    const bool final = byte(0) & 0x80;
    const auto opcode = static_cast<Opcode>(byte(0) & 0x0f);
    if (byte(0) & 0x70) return broken("reserved bits without an extension");
    if (byte(1) & 0x80) return broken("a server's frame is masked");
    uint64_t size = byte(1) & 0x7f;
    size_t head = 2;
    if (const int extended = size == 126 ? 2 : size == 127 ? 8 : 0; extended > 0) {
      head += static_cast<size_t>(extended);
      if (rest.size() < head) break;
      size = 0;
      for (size_t i = 2; i < head; ++i) size = size << 8 | byte(i);
    }
    if (is_control(opcode) && (size > 125 || !final)) return broken("a control frame is fragmented or too long");
    if (size > max_message_ || message_.size() + size > max_message_) return broken("a message is larger than " + std::to_string(max_message_) + " bytes");
    if (rest.size() - head < size) break;
    status = frame(final, opcode, rest.substr(head, static_cast<size_t>(size)), take, &go_on);
    rest.remove_prefix(head + static_cast<size_t>(size));
  }
  buffer_.erase(0, buffer_.size() - rest.size());
  return status;
}

Status WebSocketReader::frame(bool final, Opcode opcode, std::string_view payload, const Take& take, bool* go_on) {
  switch (opcode) {
    case Opcode::kClose:
    case Opcode::kPing:
    case Opcode::kPong: *go_on = take(opcode, payload); return Status::ok();
    case Opcode::kContinuation:
      if (!fragmented_) return broken("a continuation of nothing");
      message_.append(payload);
      if (!final) return Status::ok();
      fragmented_ = false;
      *go_on = take(message_opcode_, message_);
      message_.clear();
      return Status::ok();
    case Opcode::kText:
    case Opcode::kBinary:
      if (fragmented_) return broken("a message begins inside another");
      if (final) {
        *go_on = take(opcode, payload);
        return Status::ok();
      }
      fragmented_ = true, message_opcode_ = opcode;
      message_.assign(payload);
      return Status::ok();
  }
  return broken("an unknown kind of frame");
}

}  // namespace bottle::kubernetes
