#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "controller/ops/endpoints.h"
#include "controller/ops/http_server.h"

namespace bottle::ops {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class Client {
 public:
  explicit Client(uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    timeval limit{20, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  }
  ~Client() { ::close(fd_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  bool send(std::string_view text) { return ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size()); }
  // Until the server closes; what came so far when it resets.
  std::string read_all() {
    std::string out;
    char buffer[4096];
    for (ssize_t n; (n = ::recv(fd_, buffer, sizeof buffer, 0)) > 0;) out.append(buffer, static_cast<size_t>(n));
    return out;
  }

 private:
  int fd_;
};

std::string ask(uint16_t port, std::string_view request) {
  Client client(port);
  client.send(request);
  return client.read_all();
}
std::string get(uint16_t port, const std::string& path) { return ask(port, "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n"); }

std::unique_ptr<HttpServer> serve(HttpServer::Handler handler, ServerOptions options = {}) {
  if (options.address.empty()) options.address = "127.0.0.1:0";
  auto server = HttpServer::create(std::move(options), std::move(handler));
  EXPECT_TRUE(server.is_ok()) << server.status().message();
  return std::move(server).value();
}

TEST(ProbesTest, ReadyNamesWhatIsMissingUntilNothingIs) {
  std::atomic<bool> synced{false};
  auto server = serve(probes([&] { return synced ? std::vector<std::string>{} : std::vector<std::string>{"the cache of bottles", "the cache of pods"}; }));
  EXPECT_THAT(get(server->port(), "/healthz"), StartsWith("HTTP/1.1 200 OK\r\n"));
  auto text = get(server->port(), "/readyz?verbose");
  EXPECT_THAT(text, StartsWith("HTTP/1.1 503 Service Unavailable\r\n"));
  EXPECT_THAT(text, EndsWith("the cache of bottles\n  the cache of pods\n"));
  synced = true;
  EXPECT_THAT(get(server->port(), "/readyz"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(get(server->port(), "/metrics"), StartsWith("HTTP/1.1 404"));
}

TEST(MetricsEndpointTest, HeadHasTheLengthWithoutTheBody) {
  metrics::Registry registry;
  registry.counter("x_total", "x").add();
  auto server = serve(metrics(registry));
  auto text = get(server->port(), "/metrics");
  EXPECT_THAT(text, HasSubstr("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
  EXPECT_THAT(text, HasSubstr("\nx_total 1\n"));
  auto head = ask(server->port(), "HEAD /metrics HTTP/1.1\r\n\r\n");
  EXPECT_THAT(head, EndsWith("\r\n\r\n"));
  EXPECT_THAT(head, Not(HasSubstr("Content-Length: 0")));
}

TEST(HttpServerTest, RefusesWhatIsNotASmallGet) {
  auto server = serve([](std::string_view path) { return Page{200, std::string(path)}; });
  EXPECT_THAT(ask(server->port(), "POST /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n"), AllOf(StartsWith("HTTP/1.1 405"), HasSubstr("Allow: GET, HEAD")));
  EXPECT_THAT(ask(server->port(), "GET http://x/ HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(ask(server->port(), "GET /a b HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(ask(server->port(), "GET\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(ask(server->port(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(ask(server->port(), "GET / HTTP/3\r\n\r\n"), StartsWith("HTTP/1.1 505"));
  EXPECT_THAT(ask(server->port(), "GET /" + std::string(5000, 'a')), StartsWith("HTTP/1.1 431"));
  std::string headers = "GET / HTTP/1.1\r\n";
  for (int i = 0; i < 500; ++i) headers += "X: 1234567890\r\n";
  EXPECT_THAT(ask(server->port(), headers + "\r\n"), StartsWith("HTTP/1.1 431"));
  EXPECT_THAT(get(server->port(), "/fine"), EndsWith("\r\n\r\n/fine"));
}

TEST(HttpServerTest, AnswersARequestThatComesInPieces) {
  auto server = serve([](std::string_view) { return Page{200, "whole"}; });
  Client client(server->port());
  for (char c : std::string("GET / HTTP/1.1\r\nHost: x\r\n\r\n")) ASSERT_TRUE(client.send(std::string(1, c)));
  EXPECT_THAT(client.read_all(), EndsWith("whole"));
}

TEST(HttpServerTest, IdleAndHalfSentConnectionsDoNotDelayAProbe) {
  auto server = serve([](std::string_view) { return Page{200, "ok"}; });
  std::vector<std::unique_ptr<Client>> idle;
  for (int i = 0; i < 200; ++i) {  // three times as many as there are slots
    idle.push_back(std::make_unique<Client>(server->port()));
    idle.back()->send(i % 2 ? "GET / HT" : "");
  }
  auto before = std::chrono::steady_clock::now();
  EXPECT_THAT(get(server->port(), "/healthz"), EndsWith("ok"));
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(2));
}

TEST(HttpServerTest, AReaderThatDoesNotReadHoldsNobodyUp) {
  const std::string large(32u << 20, 'x');  // more than any socket buffer
  auto server = serve([&](std::string_view path) { return Page{200, path == "/large" ? large : "ok"}; });
  std::vector<std::unique_ptr<Client>> slow;
  for (int i = 0; i < 3; ++i) {
    slow.push_back(std::make_unique<Client>(server->port()));
    slow.back()->send("GET /large HTTP/1.1\r\n\r\n");
  }
  EXPECT_THAT(get(server->port(), "/"), EndsWith("ok"));
  slow.clear();
  EXPECT_EQ(get(server->port(), "/large").size(), large.size() + get(server->port(), "/").size() - 2 + 7);
}

TEST(HttpServerTest, ClosesWhatTakesTooLong) {
  ServerOptions options;
  options.timeout = std::chrono::milliseconds(50);
  const std::string large(32u << 20, 'x');
  auto server = serve([&](std::string_view) { return Page{200, large}; }, options);
  Client silent(server->port());
  EXPECT_EQ(silent.read_all(), "");  // returns because the server closes
}

TEST(HttpServerTest, SaysWhatIsWrongWithAnAddress) {
  auto handler = [](std::string_view) { return Page{}; };
  for (const char* bad : {"", "8080", "localhost:8080", ":http", ":70000", "::1:8080", "1.2.3:80a"}) {
    ServerOptions options;
    options.address = bad;
    EXPECT_EQ(HttpServer::create(options, handler).status().code(), Code::kInvalid) << bad;
  }
  auto first = serve(handler);
  ServerOptions same;
  same.address = "127.0.0.1:" + std::to_string(first->port());
  EXPECT_EQ(HttpServer::create(same, handler).status().code(), Code::kConflict);
}

TEST(HttpServerTest, WithoutAHostItAnswersOnIpv4Too) {
  ServerOptions options;
  options.address = ":0";
  auto server = serve([](std::string_view) { return Page{200, "ok"}; }, options);
  EXPECT_THAT(get(server->port(), "/"), EndsWith("ok"));
}

TEST(HttpServerTest, ManyThreadsAskAtOnce) {
  metrics::Registry registry;
  auto server = serve(metrics(registry));
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        registry.counter("x_total", "x", {{"thread", std::to_string(t)}}).add();
        good += get(server->port(), "/metrics").rfind("HTTP/1.1 200", 0) == 0;
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(good, 160);
}

}  // namespace
}  // namespace bottle::ops
