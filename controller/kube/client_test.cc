#include "controller/kube/client.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "tests/support/fake_api.h"

namespace bottle::kube {
namespace {

using namespace std::chrono_literals;

std::unique_ptr<Client> client_of(Config config, ClientOptions options = {}) {
  auto client = Client::create(std::move(config), std::move(options));
  EXPECT_TRUE(client.is_ok());
  return std::move(*client);
}

Request get(const std::string& path, std::chrono::milliseconds timeout = 10s) {
  Request r;
  r.path = path;
  r.timeout = timeout;
  return r;
}

Request with(const std::string& method, const std::string& path, const std::string& body, const std::string& type = "") {
  Request r;
  r.method = method;
  r.path = path;
  r.body = body;
  r.content_type = type;
  r.timeout = 10s;
  return r;
}

// What a stream's owner sees, to be waited for.
struct Watcher {
  std::mutex mutex;
  std::condition_variable changed;
  std::string text;
  std::vector<Answer> ends;
  bool wait(const std::function<bool()>& what, std::chrono::milliseconds limit = 10s) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, limit, what);
  }
  std::shared_ptr<Stream> open(Client& client, const std::string& path, std::chrono::milliseconds idle = 0ms, std::chrono::milliseconds head = 10s) {
    return client.stream(
        get(path, head), idle,
        [this](std::string_view bytes) {
          std::lock_guard lock(mutex);
          text += bytes;
          changed.notify_all();
          return true;
        },
        [this](Answer a) {
          std::lock_guard lock(mutex);
          ends.push_back(std::move(a));
          changed.notify_all();
        });
  }
};

TEST(Client, SendsWhatWasAskedAndReusesTheConnection) {
  FakeApi api;
  api.reply("GET /api/v1/pods", 200, R"({"kind":"PodList"})");
  api.on("POST /api/v1/pods", [](const FakeApi::Call& c) { return FakeApi::Reply{.status = 201, .body = c.body}; });
  api.reply("PATCH /api/v1/pods", 200, "{}");
  api.reply("DELETE /api/v1/pods", 200, "{}");
  auto client = client_of(api.config("s3cret"), {.user_agent = "bottle-controller/1"});

  Answer a = client->call(get("/api/v1/pods?labelSelector=a%3Db"));
  EXPECT_TRUE(a.ok()) << a.status("list pods").message();
  EXPECT_EQ(a.body, R"({"kind":"PodList"})");
  EXPECT_EQ(client->call(with("POST", "/api/v1/pods", R"({"a":1})")).code, 201);
  EXPECT_TRUE(client->call(with("PATCH", "/api/v1/pods/x?force=true", "{}", std::string(kApply))).ok());
  EXPECT_TRUE(client->call(with("DELETE", "/api/v1/pods/x", "")).ok());

  auto calls = api.calls();
  ASSERT_EQ(calls.size(), 4u);
  EXPECT_EQ(calls[0].line(), "GET /api/v1/pods?labelSelector=a%3Db");
  EXPECT_EQ(calls[0].header("authorization"), "Bearer s3cret");
  EXPECT_EQ(calls[0].header("user-agent"), "bottle-controller/1");
  EXPECT_EQ(calls[0].header("accept"), "application/json");
  EXPECT_EQ(calls[0].header("accept-encoding"), "gzip");
  EXPECT_EQ(calls[1].header("content-type"), "application/json");
  EXPECT_EQ(calls[1].body, R"({"a":1})");
  EXPECT_EQ(calls[1].header("expect"), "");
  EXPECT_EQ(calls[1].header("accept-encoding"), "");
  EXPECT_EQ(calls[2].header("content-type"), kApply);
  for (const auto& c : calls) EXPECT_EQ(c.connection, calls[0].connection);
}

TEST(Client, AStreamHasAConnectionOfItsOwnAndEndsOnce) {
  FakeApi api({.tls = true});
  api.reply("GET /x", 200, "{}");
  auto client = client_of(api.config("t"));
  ASSERT_TRUE(client->call(get("/x")).ok());
  Watcher w;
  auto stream = w.open(*client, "/api/v1/pods?watch=1");
  auto server = api.wait_stream("watch=1");
  ASSERT_TRUE(server);
  server->line(R"({"type":"ADDED"})");
  EXPECT_TRUE(w.wait([&] { return w.text == "{\"type\":\"ADDED\"}\n"; }));
  ASSERT_TRUE(client->call(get("/x")).ok());
  server->end();
  EXPECT_TRUE(w.wait([&] { return !w.ends.empty(); }));
  EXPECT_EQ(w.ends[0].code, 200);
  auto calls = api.calls();
  EXPECT_NE(calls[0].connection, calls[1].connection);
  EXPECT_EQ(calls[0].connection, calls[2].connection);
  stream.reset();
  client.reset();
  EXPECT_EQ(w.ends.size(), 1u);
}

}  // namespace
}  // namespace bottle::kube
