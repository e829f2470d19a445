// The origin of the end-to-end tests: HTTPS, HTTP and DNS servers that write down all they receive. Runs in the world's namespace
// (world.sh). usage: origin DIR [GIT_DIR]: writes ca.pem, requests.log, dns.log and, when every socket listens, ready into DIR.
#define CPPHTTPLIB_OPENSSL_SUPPORT
#include <httplib.h>
#include <signal.h>

#include <fstream>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>

#include "tests/support/certs.h"
#include "tests/support/dns.h"

namespace {

using nlohmann::json;

std::mutex log_mutex;
std::ofstream request_log, dns_log;

void write_line(std::ofstream& log, const json& line) {
  std::lock_guard lock(log_mutex);
  log << line.dump(-1, ' ', false, json::error_handler_t::replace) << std::endl;  // flushed: a test reads it at once
}

int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

long param(const httplib::Request& req, const char* name, long otherwise) {
  return req.has_param(name) ? std::strtol(req.get_param_value(name).c_str(), nullptr, 10) : otherwise;
}

// Byte i of /bytes is (31 i + i / 256) mod 256: a period of 64 KiB, so that any 256 KiB of it can be sent from one table.
const std::string& pattern() {
  static const std::string table = [] {
    std::string t(65536 + 262144, '\0');
    for (size_t i = 0; i < t.size(); ++i) t[i] = static_cast<char>((i * 31 + (i >> 8)) & 255);
    return t;
  }();
  return table;
}

std::string hex(const unsigned char* data, size_t size) {
  std::string out;
  for (size_t i = 0; i < size; ++i) out += "0123456789abcdef"[data[i] >> 4], out += "0123456789abcdef"[data[i] & 15];
  return out;
}

std::string git_dir;

// git's smart protocol over HTTP: upload-pack only, enough to clone and fetch.
void git(const httplib::Request& req, httplib::Response& res, const std::string& body) {
  const std::string repo = "'" + git_dir + "/app.git'";
  std::string command = "git upload-pack --stateless-rpc ", prefix, type = "application/x-git-upload-pack-result";
  if (req.path.ends_with("/info/refs") && req.get_param_value("service") == "git-upload-pack") {
    command += "--advertise-refs " + repo;
    prefix = "001e# service=git-upload-pack\n0000";
    type = "application/x-git-upload-pack-advertisement";
  } else if (req.path.ends_with("/git-upload-pack")) {
    char name[] = "/tmp/origin-git-XXXXXX";
    const int fd = mkstemp(name);
    if (fd < 0 || write(fd, body.data(), body.size()) != static_cast<ssize_t>(body.size())) return void(res.status = 500);
    close(fd);
    command += repo + " < " + name + "; rm -f " + name;
  } else {
    return void(res.status = 403);
  }
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return void(res.status = 500);
  std::string out = prefix;
  char buffer[65536];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) out.append(buffer, n);
  pclose(pipe);
  res.set_content(out, type);
}

void handle(const std::string& server, const httplib::Request& req, httplib::Response& res, const httplib::ContentReader* reader) {
  std::string body, digest;
  uint64_t size = 0;
  EVP_MD_CTX* sha = EVP_MD_CTX_new();
  EVP_DigestInit_ex(sha, EVP_sha256(), nullptr);
  if (reader != nullptr) {
    (*reader)([&](const char* data, size_t n) {
      size += n;
      EVP_DigestUpdate(sha, data, n);
      if (body.size() < (4u << 20)) body.append(data, n);
      return true;
    });
  }
  unsigned char md[32];
  EVP_DigestFinal_ex(sha, md, nullptr);
  EVP_MD_CTX_free(sha);
  json seen = {{"t", now_ms()},       {"server", server}, {"to", req.local_addr}, {"method", req.method}, {"target", req.target},
               {"version", req.version}, {"size", size}, {"sha256", hex(md, 32)}, {"headers", json::array()}};
  for (const auto& [k, v] : req.headers)
    if (k != "REMOTE_ADDR" && k != "REMOTE_PORT" && k != "LOCAL_ADDR" && k != "LOCAL_PORT") seen["headers"].push_back({k, v});
  if (size <= 4096) seen["body"] = body;
  if (req.path != "/fast") write_line(request_log, seen);

  res.set_header("X-Origin", server);
  const std::string path = req.path.starts_with("/v1/") ? req.path.substr(3) : req.path;
  if (path == "/fast") {
    res.set_content("ok", "text/plain");
  } else if (path == "/sse") {
    const long events = param(req, "n", 5), gap = param(req, "gap", 200);
    res.set_chunked_content_provider("text/event-stream", [events, gap, i = 0L](size_t, httplib::DataSink& sink) mutable {
      if (i > 0) std::this_thread::sleep_for(std::chrono::milliseconds(gap));
      const std::string event = "data: " + std::to_string(i) + " " + std::to_string(now_ms()) + "\n\n";
      if (!sink.write(event.data(), event.size())) return false;
      if (++i >= events) sink.done();
      return true;
    });
  } else if (path == "/bytes") {
    res.set_header("ETag", "\"pattern\"");
    res.set_content_provider(static_cast<size_t>(param(req, "n", 1000)), "application/octet-stream",
                             [](size_t offset, size_t length, httplib::DataSink& sink) {
                               return sink.write(pattern().data() + offset % 65536, std::min<size_t>(length, 262144));
                             });
  } else if (path == "/chunked") {
    res.set_chunked_content_provider("text/plain", [i = 0L, n = param(req, "n", 10)](size_t, httplib::DataSink& sink) mutable {
      const std::string line = "chunk " + std::to_string(i) + "\n";
      if (!sink.write(line.data(), line.size())) return false;
      if (++i >= n) sink.done();
      return true;
    });
  } else if (path == "/status") {
    res.status = static_cast<int>(param(req, "code", 200));
    if (res.status != 204 && res.status != 304) res.set_content("status\n", "text/plain");
  } else if (path == "/redirect") {
    res.set_redirect(req.get_param_value("to"), static_cast<int>(param(req, "code", 302)));
  } else if (path == "/etag") {
    res.set_header("ETag", "\"v1\"");
    if (req.get_header_value("If-None-Match") == "\"v1\"") res.status = 304;
    else res.set_content("version 1\n", "text/plain");
  } else if (path == "/cookie") {
    res.set_header("Set-Cookie", "session=origin-cookie; Path=/; Secure");
    res.set_content("cookie\n", "text/plain");
  } else if (path == "/gzip") {  // httplib compresses when asked to
    res.set_content(std::string(20000, 'z'), "text/plain");
  } else if (path == "/slow") {
    std::this_thread::sleep_for(std::chrono::milliseconds(param(req, "ms", 1000)));
    res.set_content("slow\n", "text/plain");
  } else if (path == "/digest") {
    res.set_content(hex(md, 32) + " " + std::to_string(size) + "\n", "text/plain");
  } else if (path.starts_with("/git/") && !git_dir.empty()) {
    git(req, res, body);
  } else {  // /echo and everything else
    res.set_content(seen.dump(-1, ' ', false, json::error_handler_t::replace) + "\n", "application/json");
  }
}

void routes(httplib::Server& server, const std::string& name) {
  const auto plain = [name](const httplib::Request& req, httplib::Response& res) { handle(name, req, res, nullptr); };
  const auto reading = [name](const httplib::Request& req, httplib::Response& res, const httplib::ContentReader& reader) {
    handle(name, req, res, &reader);
  };
  server.Get(".*", plain).Options(".*", plain);
  server.Post(".*", reading).Put(".*", reading).Patch(".*", reading).Delete(".*", reading);
  // A thread holds a kept-alive connection: with the default, 8, the ninth client waits for one to leave.
  server.new_task_queue = [] { return new httplib::ThreadPool(128); };
  server.set_keep_alive_max_count(1000000);
  server.set_keep_alive_timeout(60);
  server.set_read_timeout(120, 0);
  server.set_write_timeout(120, 0);
  server.set_tcp_nodelay(true);
}

std::vector<std::unique_ptr<httplib::Server>> servers;
std::vector<std::thread> threads;

void listen(std::unique_ptr<httplib::Server> server, const std::string& name, const std::string& address, int port) {
  routes(*server, name);
  if (!server->bind_to_port(address.c_str(), port)) {
    std::cerr << "origin: cannot listen on " << address << ":" << port << "\n";
    exit(1);
  }
  threads.emplace_back([s = server.get()] { s->listen_after_bind(); });
  servers.push_back(std::move(server));
}

void listen_tls(const std::string& name, const std::string& address, int port, const world::Cert& cert, int max_version = 0) {
  auto server = std::make_unique<httplib::SSLServer>([&](SSL_CTX& ctx) {
    if (max_version != 0) {
      SSL_CTX_set_min_proto_version(&ctx, 0);
      SSL_CTX_set_max_proto_version(&ctx, max_version);
      SSL_CTX_set_cipher_list(&ctx, "ALL:@SECLEVEL=0");
    }
    return SSL_CTX_use_certificate(&ctx, cert.x509) == 1 && SSL_CTX_use_PrivateKey(&ctx, cert.key) == 1;
  });
  listen(std::move(server), name, address, port);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: origin DIR [GIT_DIR]\n";
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  const std::string dir = argv[1];
  if (argc > 2) git_dir = argv[2];
  request_log.open(dir + "/requests.log", std::ios::app);
  dns_log.open(dir + "/dns.log", std::ios::app);

  const std::vector<std::string> names = {"DNS:bottle.test", "DNS:*.bottle.test", "DNS:*.wild.bottle.test", "DNS:*.b.c.wild.bottle.test", "DNS:*.ip.bottle.test",
                                          "IP:203.0.113.10", "IP:203.0.113.66"};
  const world::Cert ca = world::make_ca("world CA"), stranger = world::make_ca("strange CA");
  world::write_pem(dir + "/ca.pem", ca);
  listen_tls("tls", "0.0.0.0", 443, world::make_leaf(ca, names));
  listen_tls("tls6", "::", 443, world::make_leaf(ca, names));
  listen_tls("tls8443", "0.0.0.0", 8443, world::make_leaf(ca, names));
  listen_tls("expired", "203.0.113.20", 443, world::make_leaf(ca, names, -86400));
  listen_tls("strange", "203.0.113.21", 443, world::make_leaf(stranger, names));
  listen_tls("wrongname", "203.0.113.22", 443, world::make_leaf(ca, {"DNS:elsewhere.example"}));
  listen_tls("oldtls", "203.0.113.23", 443, world::make_leaf(ca, names), TLS1_1_VERSION);
  for (int port : {80, 8080, 2375}) listen(std::make_unique<httplib::Server>(), "http", "0.0.0.0", port);
  listen(std::make_unique<httplib::Server>(), "http6", "::", 80);

  world::DnsServer dns("203.0.113.53", [](const std::string& name, int type, bool tcp) {
    write_line(dns_log, {{"t", now_ms()}, {"name", name}, {"type", type}, {"tcp", tcp}});
  });
  if (!dns.start()) {
    std::cerr << "origin: cannot listen on 203.0.113.53:53\n";
    return 1;
  }
  std::ofstream(dir + "/ready") << getpid() << "\n";
  for (auto& t : threads) t.join();
}
