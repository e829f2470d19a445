#include "backends/kubernetes/websocket.h"

#include <gtest/gtest.h>

#include <vector>

namespace bottle::kubernetes {
namespace {

// A server's frame: not masked.
std::string server_frame(Opcode opcode, const std::string& payload, bool final = true) {
  std::string s(1, static_cast<char>((final ? 0x80 : 0) | static_cast<int>(opcode)));
  if (payload.size() < 126) {
    s += static_cast<char>(payload.size());
  } else if (payload.size() < 65536) {
    s += static_cast<char>(126), s += static_cast<char>(payload.size() >> 8), s += static_cast<char>(payload.size());
  } else {
    s += static_cast<char>(127);
    for (int i = 7; i >= 0; --i) s += static_cast<char>(static_cast<uint64_t>(payload.size()) >> (8 * i));
  }
  return s + payload;
}

struct Seen {
  std::vector<std::pair<Opcode, std::string>> messages;
  WebSocketReader::Take take() {
    return [this](Opcode o, std::string_view p) { return messages.emplace_back(o, std::string(p)), true; };
  }
};

TEST(WebSocket, AcceptOfTheRfcsExample) {  // section 1.3
  EXPECT_EQ(websocket_accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
  auto a = websocket_key(), b = websocket_key();
  ASSERT_TRUE(a && b);
  EXPECT_EQ(a->size(), 24u);
  EXPECT_NE(*a, *b);
}

TEST(WebSocket, FramesOfEveryLengthAreMaskedAndWhole) {
  for (size_t n : {0u, 1u, 125u, 126u, 65535u, 65536u, 200000u}) {
    std::string payload(n, 'x');
    auto f = websocket_frame(Opcode::kBinary, payload);
    ASSERT_TRUE(f);
    ASSERT_TRUE((*f)[1] & 0x80) << n;
    const size_t head = n < 126 ? 2 : n < 65536 ? 4 : 10;
    ASSERT_EQ(f->size(), head + 4 + n);
    for (size_t i = 0; i < n; ++i) ASSERT_EQ((*f)[head + 4 + i] ^ (*f)[head + i % 4], 'x');
  }
}

TEST(WebSocket, AnyChunkingGivesTheSameMessages) {
  const std::string big(70000, 'b');
  const std::string stream = server_frame(Opcode::kBinary, "\1one") + server_frame(Opcode::kBinary, "\1tw", false) + server_frame(Opcode::kPing, "hi") +
                             server_frame(Opcode::kContinuation, "o") + server_frame(Opcode::kBinary, big) + server_frame(Opcode::kClose, close_payload(1000));
  for (size_t chunk : {1u, 2u, 3u, 7u, 1000u, 100000u}) {
    WebSocketReader reader;
    Seen seen;
    for (size_t i = 0; i < stream.size(); i += chunk) ASSERT_TRUE(reader.feed(std::string_view(stream).substr(i, chunk), seen.take()));
    ASSERT_EQ(seen.messages.size(), 5u) << chunk;
    EXPECT_EQ(seen.messages[0].second, "\1one");
    EXPECT_EQ(seen.messages[1], std::make_pair(Opcode::kPing, std::string("hi")));
    EXPECT_EQ(seen.messages[2], std::make_pair(Opcode::kBinary, std::string("\1two")));
    EXPECT_EQ(seen.messages[3].second, big);
    EXPECT_EQ(seen.messages[4].first, Opcode::kClose);
  }
}

TEST(WebSocket, WhatAServerMayNotDoIsAnError) {
  const std::pair<const char*, std::string> cases[] = {
      {"masked", std::string("\x82\x80\0\0\0\0", 6)},
      {"reserved bits", std::string("\xc2\0", 2)},
      {"unknown opcode", std::string("\x83\0", 2)},
      {"fragmented ping", std::string("\x09\0", 2)},
      {"long ping", server_frame(Opcode::kPing, std::string(126, 'p'))},
      {"continuation of nothing", server_frame(Opcode::kContinuation, "x")},
      {"message in a message", server_frame(Opcode::kBinary, "a", false) + server_frame(Opcode::kBinary, "b")},
      {"over the cap", server_frame(Opcode::kBinary, std::string(1001, 'x'))},
      {"over the cap in pieces", server_frame(Opcode::kBinary, std::string(900, 'x'), false) + server_frame(Opcode::kContinuation, std::string(200, 'x'))},
      {"length of 2^63", std::string("\x82\x7f\x80\0\0\0\0\0\0\0", 10)},
  };
  for (const auto& [name, bytes] : cases) {
    WebSocketReader reader(1000);
    Seen seen;
    EXPECT_EQ(reader.feed(bytes, seen.take()).code(), Code::kUnavailable) << name;
  }
}

TEST(WebSocket, StopsWhereTheReaderWantsTo) {
  WebSocketReader reader;
  int n = 0;
  ASSERT_TRUE(reader.feed(server_frame(Opcode::kBinary, "a") + server_frame(Opcode::kBinary, "b"), [&](Opcode, std::string_view) { return ++n, false; }));
  EXPECT_EQ(n, 1);
}

}  // namespace
}  // namespace bottle::kubernetes
