// Hijacked connections against a peer that speaks just that.
#include "backends/docker/hijack.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <thread>

#include "base/file.h"

namespace bottle::docker {
namespace {

// Accepts two connections: the ping, and the one that is handed over to `serve`.
class Peer {
 public:
  template <class F>
  explicit Peer(F serve) {
    char name[] = "/tmp/bottle-hijack-XXXXXX";
    dir_ = ::mkdtemp(name);
    path_ = dir_ + "/s";
    listen_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    path_.copy(a.sun_path, sizeof a.sun_path - 1);
    EXPECT_EQ(::bind(listen_, reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
    ::listen(listen_, 4);
    thread_ = std::thread([this, serve] {
      int ping = ::accept(listen_, nullptr, nullptr);
      head(ping);
      say(ping,
          "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\nConnection: "
          "close\r\n\r\nOK");
      ::close(ping);
      int c = ::accept(listen_, nullptr, nullptr);
      head(c);
      serve(c);
      ::close(c);
    });
  }
  ~Peer() {
    thread_.join();
    ::close(listen_);
    (void)remove_tree(dir_);
  }
  static void say(int fd, std::string_view text) {
    while (!text.empty()) {
      ssize_t n = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) return;
      text.remove_prefix(static_cast<size_t>(n));
    }
  }
  static std::string head(int fd) {
    std::string all;
    char c;
    while (all.find("\r\n\r\n") == std::string::npos && ::read(fd, &c, 1) == 1) all += c;
    return all;
  }
  std::string path() const { return path_; }

 private:
  std::string dir_, path_;
  int listen_;
  std::thread thread_;
};

std::string frame(char stream, const std::string& text) {
  std::string h("\0\0\0\0\0\0\0\0", 8);
  h[0] = stream, h[6] = static_cast<char>(text.size() >> 8), h[7] = static_cast<char>(text.size());
  return h + text;
}

std::string read_all(int fd) {
  std::string all;
  char b[4096];
  for (ssize_t n; (n = ::read(fd, b, sizeof b)) > 0;) all.append(b, static_cast<size_t>(n));
  return all;
}

struct Pipe {
  Pipe() { EXPECT_EQ(::pipe2(fd, O_CLOEXEC), 0); }
  ~Pipe() { ::close(fd[0]), close_write(); }
  void close_write() {
    if (fd[1] >= 0) ::close(fd[1]);
    fd[1] = -1;
  }
  int fd[2];
};

constexpr char kUpgrade[] = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

Status run(const Peer& peer, const Json& body, const HijackIo& io) {
  auto engine = EngineClient::connect(*find_engine(peer.path()));
  if (!engine) return engine.status();
  return hijack(*engine, "/exec/x/start", body, io);
}

TEST(Hijack, EchoesInputAndKeepsStreamsApart) {
  Peer peer([](int c) {
    Peer::say(c, std::string(kUpgrade) + frame(2, "first"));  // in the same packet as the head
    std::string in = read_all(c);
    Peer::say(c, frame(1, in));
  });
  Pipe in, out, err;
  ASSERT_EQ(::write(in.fd[1], "hello", 5), 5);
  in.close_write();
  HijackIo io;
  io.in = in.fd[0], io.out = out.fd[1], io.err = err.fd[1];
  ASSERT_TRUE(run(peer, nullptr, io));
  out.close_write(), err.close_write();
  EXPECT_EQ(read_all(out.fd[0]), "hello");
  EXPECT_EQ(read_all(err.fd[0]), "first");
}

TEST(Hijack, OutputFlowsWhileNobodyReadsTheInput) {
  const std::string big(3 << 20, 'x');
  Peer peer([&](int c) {  // writes everything before it reads anything: a client that blocks on its
                          // input would hang here
    Peer::say(c, kUpgrade);
    for (int i = 0; i < 100; ++i) Peer::say(c, frame(1, std::string(60000, 'y')));
    read_all(c);
  });
  Pipe in, out;
  std::thread feed([&] {
    size_t at = 0;
    for (ssize_t n;
         at < big.size() && (n = ::write(in.fd[1], big.data() + at, big.size() - at)) > 0;)
      at += static_cast<size_t>(n);
    in.close_write();
  });
  std::string got;
  std::thread drain([&] { got = read_all(out.fd[0]); });
  HijackIo io;
  io.in = in.fd[0], io.out = out.fd[1], io.err = out.fd[1];
  EXPECT_TRUE(run(peer, nullptr, io));
  out.close_write();
  feed.join(), drain.join();
  EXPECT_EQ(got.size(), 6'000'000u);
}

TEST(Hijack, RawWithATty) {
  Peer peer([](int c) { Peer::say(c, std::string(kUpgrade) + "\1 raw \0 bytes"); });
  Pipe out;
  HijackIo io;
  io.out = io.err = out.fd[1], io.tty = true;
  ASSERT_TRUE(run(peer, nullptr, io));
  out.close_write();
  EXPECT_EQ(read_all(out.fd[0]), "\1 raw ");
}

TEST(Hijack, AnErrorInsteadOfAStream) {
  Peer peer([](int c) {
    Peer::say(c,
              "HTTP/1.1 409 Conflict\r\nContent-Length: 35\r\n\r\n{\"message\":\"container is not "
              "running\"}");
  });
  HijackIo io;
  Status s = run(peer, Json{{"Tty", false}}, io);
  EXPECT_EQ(s.code(), Code::kConflict);
  EXPECT_NE(s.message().find("not running"), std::string::npos);
}

TEST(Hijack, APeerThatGoesAway) {
  Peer peer([](int) {});
  HijackIo io;
  EXPECT_EQ(run(peer, nullptr, io).code(), Code::kUnavailable);
}

}  // namespace
}  // namespace bottle::docker
