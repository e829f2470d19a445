#include "controller/kube/client.h"

#include <curl/curl.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <future>
#include <mutex>
#include <thread>
#include <tuple>

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

// Credentials that a test changes while the client runs.
class Changing : public Credentials {
 public:
  explicit Changing(std::string token) : token_(std::move(token)) {}
  Result<SecretString> token() override {
    std::lock_guard lock(mutex_);
    return SecretString(token_);
  }
  Result<ClientCertificate> certificate() override { return ClientCertificate{}; }
  uint64_t certificate_generation() override { return generation; }
  void rejected() override {
    std::lock_guard lock(mutex_);
    ++rejections;
    if (!next_.empty()) token_ = next_;
  }
  void after_rejection(std::string token) {
    std::lock_guard lock(mutex_);
    next_ = std::move(token);
  }
  std::atomic<uint64_t> generation{1};
  std::atomic<int> rejections{0};

 private:
  std::mutex mutex_;
  std::string token_, next_;
};

TEST(Client, WaitsAsLongAsTheServerAsks) {
  FakeApi api;
  api.reply("/x", 201, "{}");
  api.fault("POST /x", {.status = 429, .reason = "TooManyRequests", .retry_after = "0", .times = 3});
  metrics::Registry registry;
  auto client = client_of(api.config("t"), {.metrics = &registry});
  EXPECT_EQ(client->call(with("POST", "/x", "{}")).code, 201);
  EXPECT_EQ(api.calls().size(), 4u);
  std::string text = registry.expose(), host = "127.0.0.1:" + std::to_string(api.port());
  EXPECT_NE(text.find("rest_client_requests_total{code=\"429\",method=\"POST\",host=\"" + host + "\"} 3"), text.npos) << text;
  EXPECT_NE(text.find("rest_client_request_retries_total{code=\"429\",verb=\"POST\",host=\"" + host + "\"} 3"), text.npos) << text;
  EXPECT_NE(text.find("rest_client_request_duration_seconds_count{verb=\"POST\",host=\"" + host + "\"} 4"), text.npos) << text;
}

TEST(Client, DoesNotWaitPastItsTimeoutNorForEver) {
  FakeApi api;
  api.reply("/", 200, "{}");
  api.fault("GET /long", {.status = 503, .reason = "ServiceUnavailable", .message = "busy", .retry_after = "30"});
  api.fault("GET /always", {.status = 429, .reason = "TooManyRequests", .retry_after = "0", .times = 100});
  api.fault("GET /plain", {.status = 500, .reason = "InternalError", .message = "boom"});
  auto client = client_of(api.config());
  Answer a = client->call(get("/long", 5s));
  EXPECT_EQ(a.code, 503);
  EXPECT_EQ(a.retry_after_s, 30);
  EXPECT_EQ(a.status("get").code(), Code::kUnavailable);
  EXPECT_EQ(client->call(get("/always")).code, 429);
  EXPECT_EQ(api.calls("/always").size(), 11u);
  EXPECT_EQ(client->call(get("/plain")).status("read x").message(), "read x: boom");
  EXPECT_EQ(api.calls("/plain").size(), 1u);
}

TEST(Client, TriesABrokenConnectionAgainWhereThatIsSafe) {
  for (auto [method, type, again] : {std::tuple{"GET", "", true}, {"PUT", "", true}, {"DELETE", "", true}, {"PATCH", kApply.data(), true},
                                     {"POST", "", false}, {"PATCH", kMergePatch.data(), false}}) {
    FakeApi api;
    api.reply("/x", 200, "{}");
    api.fault("/x", {.drop = true});
    auto client = client_of(api.config());
    Answer a = client->call(with(method, "/x", std::string(method) == "GET" ? "" : "{}", type));
    EXPECT_EQ(a.ok(), again) << method << " " << type << ": " << a.transport.message();
    EXPECT_EQ(api.calls().size(), again ? 2u : 1u) << method;
    if (!again) {
      EXPECT_EQ(a.status("x").code(), Code::kUnavailable);
    }
  }
}

TEST(Client, AHalfBodyIsNoAnswer) {
  FakeApi api;
  api.reply("/x", 200, R"({"items":[1,2,3]})");
  api.fault("/x", {.cut = true});
  auto client = client_of(api.config());
  EXPECT_EQ(client->call(get("/x")).body, R"({"items":[1,2,3]})");
  api.fault("/x", {.cut = true, .times = 2});
  Answer a = client->call(get("/x"));
  EXPECT_FALSE(a.transport.is_ok());
  EXPECT_EQ(a.code, 0);
  EXPECT_TRUE(a.body.empty());
}

TEST(Client, FetchesCredentialsAnewOnceAfterA401) {
  FakeApi api;
  auto only = [](const char* token) {
    return [=](const FakeApi::Call& c) {
      return c.header("authorization") == std::string("Bearer ") + token ? FakeApi::Reply{} : FakeApi::error(401, "Unauthorized", "Unauthorized");
    };
  };
  api.on("/x", only("new"));
  auto credentials = std::make_shared<Changing>("old");
  credentials->after_rejection("new");
  Config config = api.config();
  config.credentials = credentials;
  auto client = client_of(config);
  std::mutex mutex;
  std::condition_variable changed;
  int ok = 0, done = 0;
  for (int i = 0; i < 20; ++i)
    client->send(get("/x"), [&](Answer a) {
      std::lock_guard lock(mutex);
      ok += a.ok();
      ++done;
      changed.notify_all();
    });
  std::unique_lock lock(mutex);
  EXPECT_TRUE(changed.wait_for(lock, 10s, [&] { return done == 20; }));
  EXPECT_EQ(ok, 20);
  EXPECT_EQ(credentials->rejections, 1);
  lock.unlock();

  // A stream too; and when there is nothing better, the 401 says what to do.
  api.on("watch=1", only("newer"));
  credentials->after_rejection("newer");
  Watcher w;
  auto stream = w.open(*client, "/x?watch=1");
  EXPECT_TRUE(w.wait([&] { return !w.ends.empty(); }));
  EXPECT_EQ(w.ends[0].code, 200);
  api.on("/x", only("nobody has this"));
  Answer a = client->call(get("/x"));
  EXPECT_EQ(a.code, 401);
  EXPECT_EQ(a.status("list pods").code(), Code::kPermission);
  EXPECT_NE(a.status("list pods").message().find("check the user of fake API server"), std::string::npos);
  size_t before = api.calls().size();
  EXPECT_EQ(client->call(get("/x")).code, 401);
  EXPECT_EQ(api.calls().size(), before + 1) << "credentials that stay refused are not fetched for each request";
}

TEST(Client, KeepsToItsLimits) {
  FakeApi api;
  std::mutex mutex;
  std::condition_variable changed;
  int now = 0, most = 0, done = 0;
  bool open = false;
  api.on("/x", [&](const FakeApi::Call&) {
    std::unique_lock lock(mutex);
    most = std::max(most, ++now);
    changed.notify_all();
    changed.wait_for(lock, 10s, [&] { return open; });
    --now;
    return FakeApi::Reply{};
  });
  auto client = client_of(api.config(), {.max_in_flight = 4});
  for (int i = 0; i < 50; ++i)
    client->send(get("/x"), [&](Answer a) {
      std::lock_guard lock(mutex);
      EXPECT_TRUE(a.ok());
      ++done;
      changed.notify_all();
    });
  std::unique_lock lock(mutex);
  EXPECT_TRUE(changed.wait_for(lock, 10s, [&] { return now == 4; }));
  open = true;
  changed.notify_all();
  EXPECT_TRUE(changed.wait_for(lock, 10s, [&] { return done == 50; }));
  EXPECT_EQ(most, 4);
  lock.unlock();

  api.reply("/big", 200, std::string(5000, 'x'));
  Request r = get("/big");
  r.max_response_bytes = 4096;
  EXPECT_EQ(client->call(r).status("read").code(), Code::kExhausted);
  EXPECT_EQ(api.calls("/big").size(), 1u);
}

TEST(Client, TimesOutAlsoInItsQueue) {
  FakeApi api;
  api.reply("/", 200, "{}");
  api.fault("/slow", {.delay = 60s, .times = 10});
  auto client = client_of(api.config(), {.max_in_flight = 1});
  std::promise<Answer> slow;
  client->send(get("/slow", 60s), [&](Answer a) { slow.set_value(std::move(a)); });
  ASSERT_TRUE(api.wait_calls("/slow", 1));
  Answer a = client->call(get("/x", 50ms));
  EXPECT_EQ(a.transport.code(), Code::kTimeout);
  EXPECT_TRUE(api.calls("/x").empty());
  client.reset();
  EXPECT_EQ(slow.get_future().get().transport.code(), Code::kCancelled);

  auto other = client_of(api.config());
  a = other->call(get("/slow", 50ms));
  EXPECT_EQ(a.transport.code(), Code::kTimeout);
  EXPECT_NE(a.status("read").message().find("no answer within 50 ms"), std::string::npos);
}

TEST(Client, FollowsNoRedirect) {
  FakeApi api;
  api.on("/x", [](const FakeApi::Call&) { return FakeApi::Reply{.status = 302, .body = "", .headers = {{"Location", "/y"}}}; });
  auto client = client_of(api.config("s3cret"));
  Answer a = client->call(get("/x"));
  EXPECT_FALSE(a.ok());
  EXPECT_NE(a.status("read").message().find("redirects are not followed"), std::string::npos);
  EXPECT_EQ(api.calls().size(), 1u);
}

TEST(Client, UnpacksGzip) {
  FakeApi api;
  static const char packed[] = "\x1f" "\x8b" "\x08" "\x00" "\x00" "\x00" "\x00" "\x00" "\x02" "\x03" "\xab" "\x56" "\xca" "\xce" "\xcc" "\x4b" "\x51" "\xb2" "\x52" "\x0a" "\xc8" "\x4f" "\xf1" "\xc9" "\x2c" "\x2e" "\x51" "\xaa" "\x05" "\x00" "\x70" "\x51" "\x2a" "\x49" "\x12" "\x00" "\x00" "\x00";
  api.on("/x", [](const FakeApi::Call&) {
    return FakeApi::Reply{.body = std::string(packed, sizeof packed - 1), .headers = {{"Content-Encoding", "gzip"}}};
  });
  EXPECT_EQ(client_of(api.config())->call(get("/x")).body, R"({"kind":"PodList"})");
  Config config = api.config();
  config.disable_compression = true;
  client_of(config)->call(get("/x"));
  EXPECT_EQ(api.calls()[0].header("accept-encoding"), "gzip");
  EXPECT_EQ(api.calls()[1].header("accept-encoding"), "");
}

TEST(Client, TrustsTheConfiguredAuthorityAlone) {
  FakeApi api({.tls = true, .client_certificates = true}), other({.tls = true});
  api.reply("/x", 200, "{}");
  EXPECT_TRUE(client_of(api.config())->call(get("/x")).ok());

  Config config = api.config();
  config.ca_pem = other.ca_pem();
  Status s = client_of(config)->call(get("/x")).status("read");
  EXPECT_EQ(s.code(), Code::kPermission);
  EXPECT_NE(s.message().find("check certificate-authority"), std::string::npos) << s.message();
  config.insecure_skip_tls_verify = true;
  EXPECT_TRUE(client_of(config)->call(get("/x")).ok());

  config = api.config();
  config.credentials = other.config().credentials;  // no certificate
  EXPECT_FALSE(client_of(config)->call(get("/x")).ok());

  config = api.config();
  config.tls_server_name = "api.example";
  EXPECT_TRUE(client_of(config)->call(get("/x")).ok());
  EXPECT_EQ(api.calls().back().header("host"), "127.0.0.1:" + std::to_string(api.port()));
  config.tls_server_name = "other.example";
  EXPECT_FALSE(client_of(config)->call(get("/x")).ok());
}

TEST(Client, SaysWhoWeAreAndNothingElseDoes) {
  FakeApi api;
  api.reply("/", 200, "{}");
  Config config = api.config("s3cret");
  config.as_user = "jane";
  config.as_uid = "7";
  config.as_groups = {"devs"};
  config.as_extra = {{"acme.org/Team", "a"}};
  client_of(config)->call(get("/x"));
  auto call = api.calls()[0];
  EXPECT_EQ(call.header("impersonate-user"), "jane");
  EXPECT_EQ(call.header("impersonate-uid"), "7");
  EXPECT_EQ(call.header("impersonate-group"), "devs");
  EXPECT_EQ(call.header("impersonate-extra-acme.org%2fteam"), "a");

  config.credentials = std::make_shared<Changing>("s3cret\r\nX-Injected: 1");
  Status s = client_of(config)->call(get("/x")).status("read");
  EXPECT_EQ(s.code(), Code::kInvalid);
  EXPECT_EQ(s.message().find("s3cret"), std::string::npos);
  EXPECT_EQ(api.calls().size(), 1u);

  std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> easy(curl_easy_init(), curl_easy_cleanup);
  auto keep = configure_easy(easy.get(), api.config("s3cret"), "/x");
  ASSERT_TRUE(keep.is_ok());
  EXPECT_EQ(auth_headers(**keep), std::vector<std::string>{"Authorization: Bearer s3cret"});
}

TEST(Client, GoesThroughTheProxy) {
  FakeApi proxy;
  proxy.reply("", 200, R"({"by":"proxy"})");
  Config config = proxy.config();
  config.server = "http://api.example";
  config.proxy_url = proxy.url();
  EXPECT_EQ(client_of(config)->call(get("/x")).body, R"({"by":"proxy"})");
  EXPECT_EQ(proxy.calls()[0].header("host"), "api.example");
}

TEST(Client, TellsWhatDoesNotAnswer) {
  FakeApi api;
  Config config = api.config();
  api.pause();
  Status s = client_of(config)->call(get("/x")).status("list pods");
  EXPECT_EQ(s.code(), Code::kUnavailable);
  EXPECT_NE(s.message().find("is the cluster running"), std::string::npos) << s.message();
  EXPECT_NE(s.message().find("fake API server"), std::string::npos);
  api.resume();
  api.reply("/x", 200, "{}");
  EXPECT_TRUE(client_of(config)->call(get("/x")).ok());
}

TEST(Client, ConnectsAnewWhenTheCertificateHasChanged) {
  FakeApi api;
  api.reply("/x", 200, "{}");
  auto credentials = std::make_shared<Changing>("t");
  Config config = api.config();
  config.credentials = credentials;
  auto client = client_of(config);
  Watcher w;
  auto stream = w.open(*client, "/pods?watch=1");
  ASSERT_TRUE(api.wait_stream("watch=1"));
  ASSERT_TRUE(client->call(get("/x")).ok());
  int old = api.calls("/x")[0].connection;
  ++credentials->generation;
  auto end = std::chrono::steady_clock::now() + 10s;  // it is looked at once a second
  while (api.calls("/x").back().connection == old && std::chrono::steady_clock::now() < end) ASSERT_TRUE(client->call(get("/x")).ok());
  EXPECT_NE(api.calls("/x").back().connection, old);
  EXPECT_TRUE(w.wait([&] { return !w.ends.empty(); }));
  EXPECT_EQ(w.ends[0].transport.code(), Code::kUnavailable);
}

TEST(ClientStream, TellsHowItEnded) {
  FakeApi api;
  auto client = client_of(api.config());
  api.fault("/gone", {.status = 410, .reason = "Expired", .message = "too old resource version"});
  Watcher gone;
  auto s1 = gone.open(*client, "/gone?watch=1");
  EXPECT_TRUE(gone.wait([&] { return !gone.ends.empty(); }));
  EXPECT_EQ(gone.ends[0].code, 410);
  EXPECT_TRUE(gone.ends[0].is("Expired"));
  EXPECT_EQ(gone.text, "");

  Watcher cut;
  auto s2 = cut.open(*client, "/cut?watch=1");
  auto server = api.wait_stream("/cut");
  ASSERT_TRUE(server);
  server->line("{}");
  EXPECT_TRUE(cut.wait([&] { return !cut.text.empty(); }));
  server->cut();
  EXPECT_TRUE(cut.wait([&] { return !cut.ends.empty(); }));
  EXPECT_EQ(cut.ends[0].transport.code(), Code::kUnavailable);

  Watcher silent;
  auto s3 = silent.open(*client, "/silent?watch=1", 100ms);
  ASSERT_TRUE(api.wait_stream("/silent"));
  EXPECT_TRUE(silent.wait([&] { return !silent.ends.empty(); }));
  EXPECT_EQ(silent.ends[0].transport.code(), Code::kTimeout);

  api.fault("/head", {.delay = 60s});
  Watcher head;
  auto s4 = head.open(*client, "/head?watch=1", 0ms, 100ms);
  EXPECT_TRUE(head.wait([&] { return !head.ends.empty(); }));
  EXPECT_EQ(head.ends[0].transport.code(), Code::kTimeout);

  Watcher left;
  auto s5 = left.open(*client, "/left?watch=1");
  ASSERT_TRUE(api.wait_stream("/left"));
  client.reset();
  EXPECT_TRUE(left.wait([&] { return !left.ends.empty(); }));
  EXPECT_EQ(left.ends[0].transport.code(), Code::kCancelled);
}

TEST(ClientStream, IsSilentOnceItIsClosed) {
  FakeApi api;
  auto client = client_of(api.config());
  std::atomic<int> calls = 0;
  auto count = [&](std::string_view) { return ++calls, true; };
  auto ended = [&](Answer) { ++calls; };
  auto stream = client->stream(get("/a?watch=1"), 0ms, count, ended);
  auto server = api.wait_stream("/a");
  ASSERT_TRUE(server);
  for (int i = 0; i < 200; ++i) server->line("{}");
  stream->close();
  int seen = calls;
  for (int i = 0; i < 20; ++i) server->line("{}");
  auto until = std::chrono::steady_clock::now() + 10s;
  while (!server->closed() && std::chrono::steady_clock::now() < until) std::this_thread::yield();
  EXPECT_TRUE(server->closed());
  EXPECT_EQ(calls, seen);

  // From its own callback, by letting go of it.
  std::promise<void> closed;
  std::shared_ptr<Stream> own;
  std::promise<void> stored;
  own = client->stream(get("/b?watch=1"), 0ms,
                       [&](std::string_view) {
                         stored.get_future().wait();
                         own.reset();
                         closed.set_value();
                         return true;
                       },
                       ended);
  stored.set_value();
  auto second = api.wait_stream("/b");
  ASSERT_TRUE(second);
  second->line("{}");
  EXPECT_EQ(closed.get_future().wait_for(10s), std::future_status::ready);

  // By returning false: that is an end, and told as one.
  Answer last;
  std::promise<void> end;
  auto third = client->stream(get("/c?watch=1"), 0ms, [](std::string_view) { return false; },
                              [&](Answer a) {
                                last = std::move(a);
                                end.set_value();
                              });
  auto s = api.wait_stream("/c");
  ASSERT_TRUE(s);
  s->line("{}");
  EXPECT_EQ(end.get_future().wait_for(10s), std::future_status::ready);
  EXPECT_EQ(last.code, 200);
  EXPECT_EQ(calls, seen);
}

TEST(ClientStream, OutlivesItsClientQuietly) {
  FakeApi api;
  auto client = client_of(api.config());
  Watcher w;
  auto stream = w.open(*client, "/a?watch=1");
  client.reset();
  stream->close();
  stream.reset();
  EXPECT_EQ(w.ends.size(), 1u);
}

TEST(Status, DecodesWhatDecides) {
  Answer a;
  a.code = 422;
  a.body = R"({"kind":"Status","reason":"Invalid","message":"Pod \"x\" is invalid",
    "details":{"causes":[{"field":"spec.containers","reason":"FieldValueRequired","message":"Required value"}],"retryAfterSeconds":3}})";
  decode_status(&a);
  EXPECT_TRUE(a.is("Invalid"));
  ASSERT_EQ(a.causes.size(), 1u);
  EXPECT_EQ(a.causes[0].field, "spec.containers");
  EXPECT_EQ(a.retry_after_s, 3);
  EXPECT_EQ(a.status("create pod dev/x").code(), Code::kInvalid);
  EXPECT_EQ(a.status("create pod dev/x").message(), "create pod dev/x: Pod \"x\" is invalid");

  for (auto body : {"", "<html>", "[]", "{}", R"({"kind":"Status","details":[],"message":7})", R"({"kind":"Status","details":{"causes":[1,null]}})"}) {
    Answer b;
    b.code = 409;
    b.body = body;
    decode_status(&b);
    EXPECT_TRUE(b.is("Conflict")) << body;
    EXPECT_EQ(b.status("x").code(), Code::kConflict);
  }
  Answer control;
  control.code = 403;
  control.body = R"({"kind":"Status","message":"a\u001b[31m\nb"})";
  decode_status(&control);
  EXPECT_EQ(control.message, "a [31m b");
  Answer rbac;
  rbac.code = 403;
  rbac.message = R"(pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "dev")";
  EXPECT_NE(rbac.status("list pods").message().find("Role or ClusterRole"), std::string::npos);
  Answer quota;
  quota.code = 403;
  quota.message = "pods \"x\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1";
  EXPECT_EQ(quota.status("create").code(), Code::kExhausted);
}

}  // namespace
}  // namespace bottle::kube
