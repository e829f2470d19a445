#include "tests/support/fake_api.h"

#include <dirent.h>
#include <httplib.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <condition_variable>
#include <list>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/support/certs.h"

#if defined(__SANITIZE_THREAD__)
// The distribution's library is not instrumented: ThreadSanitizer does not see the guards of its statics, and takes their first use for a race.
// Its threads run handlers of tests and nothing of the product.
extern "C" const char* __tsan_default_suppressions() { return "race:libcpp-httplib.so\n"; }
#endif

namespace bottle::kube {
namespace {

using Clock = std::chrono::steady_clock;

class FixedCredentials : public Credentials {
 public:
  FixedCredentials(std::string token, ClientCertificate certificate) : token_(std::move(token)), certificate_(std::move(certificate)) {}
  Result<SecretString> token() override { return SecretString(token_); }
  Result<ClientCertificate> certificate() override { return ClientCertificate{certificate_.cert_pem, certificate_.key_pem.clone()}; }
  uint64_t certificate_generation() override { return 0; }
  void rejected() override {}

 private:
  std::string token_;
  ClientCertificate certificate_;
};

std::string pem(X509* x509) {
  BIO* bio = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(bio, x509);
  char* data = nullptr;
  long n = BIO_get_mem_data(bio, &data);
  std::string out(data, static_cast<size_t>(n));
  BIO_free(bio);
  return out;
}

std::string pem(EVP_PKEY* key) {
  BIO* bio = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr);
  char* data = nullptr;
  long n = BIO_get_mem_data(bio, &data);
  std::string out(data, static_cast<size_t>(n));
  BIO_free(bio);
  return out;
}

// Port of this end of a socket, or of the other.
int port_of(int fd, bool peer) {
  sockaddr_storage a{};
  socklen_t n = sizeof a;
  if ((peer ? getpeername : getsockname)(fd, reinterpret_cast<sockaddr*>(&a), &n) != 0) return -1;
  if (a.ss_family != AF_INET) return -1;
  return ntohs(reinterpret_cast<sockaddr_in*>(&a)->sin_port);
}

// The library does not tell a connection's descriptor. `client` 0: all of them.
void close_connections(int server, int client) {
  DIR* dir = opendir("/proc/self/fd");
  if (!dir) return;
  while (dirent* e = readdir(dir)) {
    int fd = std::atoi(e->d_name);
    if (fd > 2 && port_of(fd, false) == server && port_of(fd, true) > 0 && (client == 0 || port_of(fd, true) == client))
      shutdown(fd, SHUT_RDWR);
  }
  closedir(dir);
}

bool stays_open(const FakeApi::Call& call) {
  if (call.method != "GET") return false;
  for (const char* flag : {"watch=1", "watch=true", "follow=1", "follow=true"})
    if (call.target.find(flag) != std::string::npos) return true;
  return false;
}

class OpenStream : public FakeApi::Stream {
 public:
  OpenStream(FakeApi::Call call, int server, std::string first) : call_(std::move(call)), server_(server), pending_(std::move(first)) {}
  const FakeApi::Call& call() const override { return call_; }
  void send(const std::string& bytes) override {
    std::lock_guard lock(mutex_);
    pending_ += bytes;
    changed_.notify_all();
  }
  void end() override {
    std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }
  void cut() override {
    {
      std::lock_guard lock(mutex_);
      cut_ = true;
      changed_.notify_all();
    }
    close_connections(server_, call_.connection);
  }
  bool closed() const override {
    std::lock_guard lock(mutex_);
    return closed_;
  }

  // On the connection's thread, again and again; false ends the connection.
  bool provide(httplib::DataSink& sink) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(20), [&] { return !pending_.empty() || ended_ || cut_; });
    if (cut_) return false;
    std::string bytes;
    bytes.swap(pending_);
    bool ended = ended_;
    lock.unlock();
    if (!bytes.empty()) return sink.write(bytes.data(), bytes.size());
    if (ended) {
      sink.done();
      return true;
    }
    return sink.is_writable();
  }
  void gone() {
    std::lock_guard lock(mutex_);
    closed_ = true;
  }

 private:
  const FakeApi::Call call_;
  const int server_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::string pending_;
  bool ended_ = false, cut_ = false, closed_ = false;
};

}  // namespace

struct FakeApi::Impl {
  Options options;
  int port = 0;
  world::Cert ca, leaf, client;
  std::unique_ptr<httplib::Server> server;
  std::thread thread;

  mutable std::mutex mutex;
  mutable std::condition_variable changed;
  bool stopping = false;
  std::vector<std::pair<std::string, Handler>> handlers;
  std::vector<std::pair<std::string, Fault>> faults;
  std::vector<Call> calls;
  std::list<std::shared_ptr<OpenStream>> streams;  // not taken yet

  ~Impl() {
    for (const world::Cert& c : {ca, leaf, client}) {
      X509_free(c.x509);
      EVP_PKEY_free(c.key);
    }
  }

  void start() {
    if (options.tls) {
      X509_STORE* roots = nullptr;
      if (options.client_certificates) {
        roots = X509_STORE_new();
        X509_STORE_add_cert(roots, ca.x509);
      }
      server = std::make_unique<httplib::SSLServer>(leaf.x509, leaf.key, roots);
    } else {
      server = std::make_unique<httplib::Server>();
    }
    server->new_task_queue = [] { return new httplib::ThreadPool(48); };  // an open stream keeps one
    server->set_tcp_nodelay(true);
    server->set_keep_alive_max_count(1'000'000);
    server->set_keep_alive_timeout(60);
    auto handler = [this](const httplib::Request& q, httplib::Response& r) { handle(q, r); };
    server->Get(".*", handler).Post(".*", handler).Put(".*", handler).Patch(".*", handler).Delete(".*", handler);
    if (port == 0)
      port = server->bind_to_any_port("127.0.0.1");
    else
      server->bind_to_port("127.0.0.1", port);
    {
      std::lock_guard lock(mutex);
      stopping = false;
    }
    thread = std::thread([this] { server->listen_after_bind(); });
    while (!server->is_running()) std::this_thread::yield();
  }

  void stop() {
    if (!thread.joinable()) return;
    {
      std::lock_guard lock(mutex);
      stopping = true;
      changed.notify_all();
    }
    server->stop();
    // A connection that was accepted a moment ago may not have been seen by the first look.
    std::atomic<bool> joined = false;
    std::thread closer([&] {
      while (!joined) {
        close_connections(port, 0);
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
    });
    thread.join();
    joined = true;
    closer.join();
    server.reset();
  }

  void handle(const httplib::Request& q, httplib::Response& r) {
    Call call{q.method, q.target, {}, q.body, q.remote_port};
    for (const auto& [name, value] : q.headers) {
      std::string lower = name;
      std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
      call.headers.emplace(lower, value);
    }
    std::unique_lock lock(mutex);
    calls.push_back(call);
    changed.notify_all();
    Fault fault{.times = 0};
    for (auto& [what, f] : faults) {
      if (f.times <= 0 || call.line().find(what) == std::string::npos) continue;
      --f.times;
      fault = f;
      fault.times = 1;
      break;
    }
    if (fault.delay.count() > 0) changed.wait_for(lock, fault.delay, [&] { return stopping; });
    if (stopping || fault.drop) {
      lock.unlock();
      close_connections(port, call.connection);
      return;
    }
    Handler handler;
    for (const auto& [what, h] : handlers)
      if (call.line().find(what) != std::string::npos) handler = h;
    lock.unlock();

    Reply reply;
    if (fault.status != 0) {
      reply = error(fault.status, fault.reason, fault.message);
      if (!fault.retry_after.empty()) reply.headers.emplace_back("Retry-After", fault.retry_after);
    } else if (handler) {
      reply = handler(call);
    } else if (stays_open(call)) {
      reply = {.body = "", .stream = true};
    } else {
      reply = error(404, "NotFound", "the server could not find the requested resource");
    }
    answer(call, reply, fault.cut, r);
  }

  void answer(const Call& call, const Reply& reply, bool cut, httplib::Response& r) {
    r.status = reply.status;
    for (const auto& [name, value] : reply.headers) r.set_header(name, value);
    if (reply.stream) {
      auto stream = std::make_shared<OpenStream>(call, port, reply.body);
      {
        std::lock_guard lock(mutex);
        streams.push_back(stream);
        changed.notify_all();
      }
      r.set_chunked_content_provider(
          reply.content_type, [stream](size_t, httplib::DataSink& sink) { return stream->provide(sink); },
          [stream](bool) { stream->gone(); });
    } else if (cut) {
      std::string body = reply.body;
      int client = call.connection, server_port = port;
      r.set_content_provider(body.size() + 1, reply.content_type, [body, client, server_port](size_t, size_t, httplib::DataSink& sink) {
        sink.write(body.data(), body.size() / 2 + 1);
        close_connections(server_port, client);
        return false;
      });
    } else {
      r.set_content(reply.body, reply.content_type);
    }
  }
};

FakeApi::FakeApi() : FakeApi(Options{}) {}
FakeApi::FakeApi(Options options) : impl_(std::make_unique<Impl>()) {
  impl_->options = options;
  impl_->port = options.port;
  if (options.tls) {
    impl_->ca = world::make_ca("fake-api");
    impl_->leaf = world::make_leaf(impl_->ca, {"IP:127.0.0.1", "DNS:localhost", "DNS:api.example"});
    impl_->client = world::make("tester", &impl_->ca, {}, 86400);
  }
  impl_->start();
}
FakeApi::~FakeApi() { impl_->stop(); }

std::string FakeApi::Call::header(const std::string& name) const {
  auto it = headers.find(name);
  return it == headers.end() ? "" : it->second;
}

std::string FakeApi::url() const { return (impl_->options.tls ? "https://127.0.0.1:" : "http://127.0.0.1:") + std::to_string(impl_->port); }
int FakeApi::port() const { return impl_->port; }
std::string FakeApi::ca_pem() const { return impl_->ca.x509 ? pem(impl_->ca.x509) : ""; }
ClientCertificate FakeApi::client_certificate() const {
  if (!impl_->client.x509) return {};
  return {pem(impl_->client.x509), SecretString(pem(impl_->client.key))};
}
Config FakeApi::config(const std::string& token) const {
  Config c;
  c.server = url();
  c.ca_pem = ca_pem();
  c.source = "fake API server";
  c.credentials = std::make_shared<FixedCredentials>(token, impl_->options.client_certificates ? client_certificate() : ClientCertificate{});
  return c;
}

void FakeApi::on(const std::string& what, Handler handler) {
  std::lock_guard lock(impl_->mutex);
  impl_->handlers.emplace_back(what, std::move(handler));
}
void FakeApi::reply(const std::string& what, int status, const std::string& body) {
  on(what, [=](const Call&) { return Reply{.status = status, .body = body}; });
}
void FakeApi::fault(const std::string& what, Fault fault) {
  std::lock_guard lock(impl_->mutex);
  impl_->faults.emplace_back(what, std::move(fault));
}
FakeApi::Reply FakeApi::error(int status, const std::string& reason, const std::string& message) {
  nlohmann::json body = {{"kind", "Status"}, {"apiVersion", "v1"}, {"metadata", nlohmann::json::object()}, {"status", "Failure"},
                         {"message", message}, {"reason", reason}, {"code", status}};
  return {.status = status, .body = body.dump()};
}

std::vector<FakeApi::Call> FakeApi::calls(const std::string& what) const {
  std::lock_guard lock(impl_->mutex);
  std::vector<Call> out;
  for (const auto& c : impl_->calls)
    if (c.line().find(what) != std::string::npos) out.push_back(c);
  return out;
}

bool FakeApi::wait_calls(const std::string& what, size_t n, std::chrono::milliseconds limit) const {
  std::unique_lock lock(impl_->mutex);
  return impl_->changed.wait_until(lock, Clock::now() + limit, [&] {
    return static_cast<size_t>(std::count_if(impl_->calls.begin(), impl_->calls.end(),
                                             [&](const Call& c) { return c.line().find(what) != std::string::npos; })) >= n;
  });
}

std::shared_ptr<FakeApi::Stream> FakeApi::wait_stream(const std::string& what, std::chrono::milliseconds limit) {
  std::unique_lock lock(impl_->mutex);
  std::shared_ptr<OpenStream> found;
  impl_->changed.wait_until(lock, Clock::now() + limit, [&] {
    for (auto it = impl_->streams.begin(); it != impl_->streams.end(); ++it) {
      if ((*it)->call().line().find(what) == std::string::npos) continue;
      found = *it;
      impl_->streams.erase(it);
      return true;
    }
    return false;
  });
  return found;
}

void FakeApi::drop_connections() { close_connections(impl_->port, 0); }
void FakeApi::pause() { impl_->stop(); }
void FakeApi::resume() { impl_->start(); }

}  // namespace bottle::kube
