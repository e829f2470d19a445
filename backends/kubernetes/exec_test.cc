// exec and attach against a peer that speaks just the handshake and the channels.
#include "backends/kubernetes/exec.h"

#include <arpa/inet.h>
#include <csignal>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "backends/kubernetes/websocket.h"

namespace bottle::kubernetes {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class FixedToken : public kube::Credentials {
 public:
  Result<SecretString> token() override { return SecretString(rejections == 0 ? "old-token" : "new-token"); }
  Result<kube::ClientCertificate> certificate() override { return kube::ClientCertificate(); }
  uint64_t certificate_generation() override { return 0; }
  void rejected() override { ++rejections; }
  int rejections = 0;
};

std::string frame(Opcode opcode, const std::string& payload) {  // as a server sends it: not masked
  std::string s(1, static_cast<char>(0x80 | static_cast<int>(opcode)));
  if (payload.size() < 126) s += static_cast<char>(payload.size());
  else s += static_cast<char>(126), s += static_cast<char>(payload.size() >> 8), s += static_cast<char>(payload.size());
  return s + payload;
}
std::string on(int channel, const std::string& bytes) { return frame(Opcode::kBinary, std::string(1, static_cast<char>(channel)) + bytes); }
std::string succeeded() { return on(3, R"({"kind":"Status","status":"Success"})"); }

// One side of an accepted connection.
class Caller {
 public:
  explicit Caller(int fd) : fd_(fd) {}
  std::string head() {
    std::string all;
    char c;
    while (all.find("\r\n\r\n") == std::string::npos && ::read(fd_, &c, 1) == 1) all += c;
    return all;
  }
  void say(std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) return;
      text.remove_prefix(static_cast<size_t>(n));
    }
  }
  void accept(const std::string& head, const std::string& protocol = "v5.channel.k8s.io") {
    const size_t at = head.find("Sec-WebSocket-Key: ") + 19;
    say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
        websocket_accept(head.substr(at, head.find("\r\n", at) - at)) + "\r\nSec-WebSocket-Protocol: " + protocol + "\r\n\r\n");
  }
  // The next frame's opcode and content, unmasked; 0xff at the end.
  std::pair<int, std::string> next() {
    unsigned char h[2];
    if (!read(h, 2)) return {0xff, ""};
    EXPECT_TRUE(h[1] & 0x80) << "a client's frame has to be masked";
    size_t n = h[1] & 0x7f;
    unsigned char more[8];
    const size_t extended = n == 126 ? 2 : n == 127 ? 8 : 0;
    if (!read(more, extended)) return {0xff, ""};
    if (extended) n = 0;
    for (size_t i = 0; i < extended; ++i) n = n << 8 | more[i];
    unsigned char mask[4];
    if (!read(mask, 4)) return {0xff, ""};
    std::string data(n, '\0');
    if (!read(reinterpret_cast<unsigned char*>(data.data()), n)) return {0xff, ""};
    for (size_t i = 0; i < n; ++i) data[i] = static_cast<char>(data[i] ^ mask[i % 4]);
    return {h[0] & 0x0f, data};
  }
  void until_closed() {
    while (next().first != 0xff) {
    }
  }

 private:
  bool read(unsigned char* to, size_t n) {
    for (size_t done = 0; done < n;) {
      const ssize_t got = ::read(fd_, to + done, n - done);
      if (got <= 0) return false;
      done += static_cast<size_t>(got);
    }
    return true;
  }
  int fd_;
};

// Serves callers, one after the other, until it goes.
class Server {
 public:
  explicit Server(std::function<void(Caller&, int)> serve) {
    listen_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in a{};
    a.sin_family = AF_INET, a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof a;
    EXPECT_EQ(::bind(listen_, reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
    EXPECT_EQ(::getsockname(listen_, reinterpret_cast<sockaddr*>(&a), &size), 0);
    ::listen(listen_, 4);
    config.server = "http://127.0.0.1:" + std::to_string(ntohs(a.sin_port));
    config.credentials = credentials;
    thread_ = std::thread([this, serve] {
      for (int i = 0;; ++i) {
        const int fd = ::accept4(listen_, nullptr, nullptr, SOCK_CLOEXEC);
        if (fd < 0) return;
        Caller caller(fd);
        serve(caller, i);
        ::close(fd);
      }
    });
  }
  ~Server() {
    ::shutdown(listen_, SHUT_RDWR);  // accept returns
    thread_.join();
    ::close(listen_);
  }
  kube::Config config;
  std::shared_ptr<FixedToken> credentials = std::make_shared<FixedToken>();

 private:
  int listen_;
  std::thread thread_;
};

struct Pipe {
  Pipe() { EXPECT_EQ(::pipe2(fd, O_CLOEXEC), 0); }
  ~Pipe() { close_read(), close_write(); }
  void close_read() { close(fd[0]); }
  void close_write() { close(fd[1]); }
  std::string all() {
    close_write();
    std::string s;
    char b[4096];
    for (ssize_t n; (n = ::read(fd[0], b, sizeof b)) > 0;) s.append(b, static_cast<size_t>(n));
    return s;
  }
  int fd[2];

 private:
  static void close(int& f) {
    if (f >= 0) ::close(f);
    f = -1;
  }
};

class ExecTest : public ::testing::Test {
 protected:
  void SetUp() override {
    g_cancelled = false;
    ::signal(SIGPIPE, SIG_IGN);
  }
  void TearDown() override { g_cancelled = false; }
  Result<int> run(const Server& server, bool with_input = false) {
    RemoteIo io;
    io.in = with_input ? in_.fd[0] : -1, io.out = out_.fd[1], io.err = err_.fd[1];
    return run_remote(server.config, "/api/v1/namespaces/dev/pods/hello/exec?command=x", io);
  }
  Pipe in_, out_, err_;
};

TEST_F(ExecTest, StreamsExitCodeAndTheEndOfTheInput) {
  std::string head, input;
  Server server([&](Caller& c, int) {
    head = c.head();
    c.accept(head);
    c.say(on(1, "") + on(2, "") + on(3, "") + on(1, "to out") + frame(Opcode::kPing, "alive?") + on(2, "to err"));
    for (bool pong = false, end = false; !pong || !end;) {
      const auto [opcode, data] = c.next();
      if (opcode == 0xff) return;
      if (opcode == 10) pong = data == "alive?";
      else if (data == std::string("\xff\0", 2)) end = true;
      else if (!data.empty() && data[0] == 0) input += data.substr(1);
    }
    c.say(on(3, R"({"kind":"Status","status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"42"}]}})") +
          frame(Opcode::kClose, close_payload(1000)));
  });
  ASSERT_EQ(::write(in_.fd[1], "some input", 10), 10);
  in_.close_write();
  auto code = run(server, true);
  ASSERT_TRUE(code) << code.status().message();
  EXPECT_EQ(*code, 42);
  EXPECT_EQ(out_.all(), "to out");
  EXPECT_EQ(err_.all(), "to err");
  EXPECT_EQ(input, "some input");
  EXPECT_THAT(head, HasSubstr("GET /api/v1/namespaces/dev/pods/hello/exec?command=x HTTP/1.1\r\n"));
  EXPECT_THAT(head, HasSubstr("Authorization: Bearer old-token\r\n"));
}

TEST_F(ExecTest, OutputFlowsWhileNobodyReadsTheInput) {
  constexpr size_t kMany = 100, kBytes = 60'000;
  Server server([](Caller& c, int) {  // reads nothing: a client that waits until its input is taken would hang here
    c.accept(c.head());
    for (size_t i = 0; i < kMany; ++i) c.say(on(1, std::string(kBytes, 'y')));
    c.say(succeeded() + frame(Opcode::kClose, close_payload(1000)));
    c.until_closed();
  });
  std::thread feed([&] {  // more than all buffers in between hold
    const std::string big(1 << 16, 'x');
    for (int i = 0; i < 256; ++i)
      if (::write(in_.fd[1], big.data(), big.size()) < 0) return;
  });
  size_t got = 0;
  std::thread drain([&] {
    char b[65536];
    for (ssize_t n; (n = ::read(out_.fd[0], b, sizeof b)) > 0;) got += static_cast<size_t>(n);
  });
  auto code = run(server, true);
  EXPECT_TRUE(code) << code.status().message();
  out_.close_write(), in_.close_read();
  feed.join(), drain.join();
  EXPECT_EQ(got, kMany * kBytes);
}

TEST_F(ExecTest, InputThatEndsNeedsAServerThatCanBeTold) {
  Server server([](Caller& c, int) { c.accept(c.head(), "v4.channel.k8s.io"); });
  EXPECT_EQ(run(server, true).status().code(), Code::kUnsupported);
}

TEST_F(ExecTest, WithoutInputAnOlderServerIsGoodEnough) {
  Server server([](Caller& c, int) {
    c.accept(c.head(), "v4.channel.k8s.io");
    c.say(succeeded());
  });
  auto code = run(server);
  ASSERT_TRUE(code) << code.status().message();
  EXPECT_EQ(*code, 0);
}

TEST_F(ExecTest, ARejectedTokenIsRenewedOnce) {
  std::string heads[2];
  Server server([&](Caller& c, int i) {
    (i < 2 ? heads[i] : heads[1]) = c.head();
    c.say("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
  });
  const Status s = run(server).status();
  EXPECT_EQ(s.code(), Code::kPermission);
  EXPECT_THAT(heads[1], HasSubstr("Bearer new-token"));
  EXPECT_THAT(s.message(), Not(HasSubstr("-token")));
  EXPECT_EQ(server.credentials->rejections, 1);
}

TEST_F(ExecTest, ARefusalIsToldInTheServersWords) {
  const std::string body =
      R"({"kind":"Status","status":"Failure","reason":"Forbidden","message":"pods \"hello\" is forbidden: User \"eve\" cannot create resource \"pods/exec\"","code":403})";
  for (const bool chunked : {false, true}) {
    Server server([&](Caller& c, int) {
      c.head();
      if (!chunked) return c.say("HTTP/1.1 403 Forbidden\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
      char size[32];
      std::snprintf(size, sizeof size, "%zx", body.size());
      c.say(std::string("HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n") + size + "\r\n" + body + "\r\n0\r\n\r\n");
      c.until_closed();  // stays open: the end of the body has to be seen
    });
    const Status s = run(server).status();
    EXPECT_EQ(s.code(), Code::kPermission);
    EXPECT_THAT(s.message(), HasSubstr("pods/exec"));
  }
}

TEST_F(ExecTest, WhatIsNoSessionIsAnErrorAndNoExitCode) {
  const std::vector<std::function<void(Caller&)>> peers = {
      [](Caller& c) { c.head(); },                                                          // goes away
      [](Caller& c) { c.head(), c.say("SSH-2.0-OpenSSH\r\n\r\n"); },                         // no HTTP
      [](Caller& c) { c.head(), c.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"); },   // a proxy's page
      [](Caller& c) { c.head(), c.say("HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: eA==\r\n\r\n"); },  // not for our key
      [](Caller& c) { c.accept(c.head(), "chat"); },                                        // not our protocol
      [](Caller& c) { c.accept(c.head()), c.say(on(1, "half")); },                          // ends before the command did
      [](Caller& c) { c.accept(c.head()), c.say("\xff\xff"); },                             // no frames
      [](Caller& c) { c.accept(c.head()), c.say(on(3, "not a status")); },
      [](Caller& c) { c.head(), c.say("HTTP/1.1 101 X\r\n" + std::string(70'000, 'h')); },   // a head without end
  };
  for (size_t i = 0; i < peers.size(); ++i) {
    Server server([&](Caller& c, int) { peers[i](c); });
    auto code = run(server);
    EXPECT_FALSE(code) << i;
    EXPECT_NE(code.status().code(), Code::kCancelled) << i;
  }
}

TEST_F(ExecTest, AnImpersonatedUserCannotAddHeaders) {
  std::string head;
  Status s;
  {
    Server server([&](Caller& c, int) { head = c.head(); });
    server.config.as_user = "eve\r\nAuthorization: Bearer x";
    s = run(server).status();
  }
  EXPECT_EQ(s.code(), Code::kInvalid);
  EXPECT_EQ(head, "");
}

TEST_F(ExecTest, AnInterruptEndsTheSession) {
  Server server([](Caller& c, int) {
    c.accept(c.head());
    c.say(on(1, "running"));
    c.until_closed();
  });
  std::thread interrupt([&] {
    char b[7];
    EXPECT_EQ(::read(out_.fd[0], b, sizeof b), 7);
    g_cancelled = true;
  });
  EXPECT_EQ(run(server).status().code(), Code::kCancelled);
  interrupt.join();
}

TEST_F(ExecTest, AProgramThatCannotRunHasAShellsExitCode) {
  const std::pair<const char*, int> cases[] = {{"executable file not found in $PATH", 127}, {"permission denied", 126}};
  for (const auto& [text, expected] : cases) {
    Server server([text = text](Caller& c, int) {
      c.accept(c.head());
      c.say(on(3, std::string(R"({"status":"Failure","reason":"InternalError","message":"OCI runtime exec failed: exec failed: )") + text + R"("})"));
    });
    auto code = run(server);
    ASSERT_TRUE(code) << code.status().message();
    EXPECT_EQ(*code, expected);
  }
  EXPECT_THAT(err_.all(), HasSubstr("not found in $PATH"));
}

TEST(ExitCode, OfAStatus) {
  EXPECT_EQ(*exit_code_of(R"({"status":"Success"})"), 0);
  for (const char* bad : {"", "[]", "{", R"({"status":"Failure"})", R"({"status":"Failure","reason":"NonZeroExitCode","details":[]})",
                          R"({"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[1,{"reason":"ExitCode","message":"-1"}]}})",
                          R"({"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"99999999999"}]}})"})
    EXPECT_FALSE(exit_code_of(bad)) << bad;
}

TEST(Command, FolderAndVariablesAreSetByEnv) {
  ExecOptions o;
  EXPECT_EQ(command_of(o).status().code(), Code::kInvalid);
  o.argv = {"ls", "-l"};
  EXPECT_EQ(*command_of(o), (std::vector<std::string>{"ls", "-l"}));
  o.working_dir = "/src", o.env = {{"A", "b=c"}};
  EXPECT_EQ(*command_of(o), (std::vector<std::string>{"/usr/bin/env", "-C", "/src", "--", "A=b=c", "ls", "-l"}));
  o.argv = {"A=b"};
  EXPECT_EQ(command_of(o).status().code(), Code::kInvalid);
}

}  // namespace
}  // namespace bottle::kubernetes
