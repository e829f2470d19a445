// The load of scripts/bench egress: one client program, pointed at the origin directly or by a proxy, so that both paths are measured
// the same way. usage: load URL_HOST CA_FILE [PROXY_HOST PROXY_PORT]; prints one JSON object.
#define CPPHTTPLIB_OPENSSL_SUPPORT
#include <httplib.h>

#include <algorithm>
#include <atomic>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>

namespace {

using Clock = std::chrono::steady_clock;
double ms_since(Clock::time_point t) { return std::chrono::duration<double, std::milli>(Clock::now() - t).count(); }

struct Target {
  std::string host, ca, proxy;
  int proxy_port = 0;
  std::unique_ptr<httplib::SSLClient> client(bool keep_alive) const {
    auto c = std::make_unique<httplib::SSLClient>(host, 443);
    c->set_ca_cert_path(ca.c_str());
    if (!proxy.empty()) c->set_proxy(proxy.c_str(), proxy_port);
    c->set_keep_alive(keep_alive);
    c->set_tcp_nodelay(true);
    c->set_read_timeout(60);
    return c;
  }
};

nlohmann::json requests(const Target& target, int clients, double seconds, bool keep_alive) {
  std::vector<std::vector<double>> times(static_cast<size_t>(clients));
  std::atomic<int> errors{0};
  const auto start = Clock::now(), end = start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  std::vector<std::thread> threads;
  for (auto& mine : times)
    threads.emplace_back([&] {
      auto c = target.client(keep_alive);
      while (Clock::now() < end) {
        const auto t = Clock::now();
        if (!keep_alive) c = target.client(false);
        const auto r = c->Get("/fast");
        if (r && r->status == 200) mine.push_back(ms_since(t));
        else if (++errors > 1000) return;
      }
    });
  for (auto& t : threads) t.join();
  const double took = ms_since(start) / 1000;
  std::vector<double> all;
  for (auto& t : times) all.insert(all.end(), t.begin(), t.end());
  std::sort(all.begin(), all.end());
  const auto at = [&](double p) { return all.empty() ? -1 : all[std::min(all.size() - 1, static_cast<size_t>(p * static_cast<double>(all.size())))]; };
  return {{"per_s", static_cast<double>(all.size()) / took}, {"p50_ms", at(0.5)}, {"p99_ms", at(0.99)}, {"errors", errors.load()}};
}

double mb_per_s(const Target& target) {
  auto c = target.client(true);
  c->Get("/fast");
  size_t got = 0;
  const auto t = Clock::now();
  c->Get("/bytes?n=104857600", [&](const char*, size_t n) { return got += n, true; });
  return got == 104857600 ? 104.8576 / (ms_since(t) / 1000) : -1;
}

double first_event_ms(const Target& target) {
  auto c = target.client(true);
  c->Get("/fast");
  double first = -1;
  const auto t = Clock::now();
  c->Get("/sse?n=2&gap=300", [&](const char*, size_t) { return first < 0 ? (first = ms_since(t), true) : true; });
  return first;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: load HOST CA_FILE [PROXY_HOST PROXY_PORT]\n";
    return 2;
  }
  Target target{argv[1], argv[2], argc > 4 ? argv[3] : "", argc > 4 ? atoi(argv[4]) : 0};
  requests(target, 2, 0.5, true);  // warm: certificates are made on first use
  nlohmann::json out;
  out["c1"] = requests(target, 1, 3, true);
  out["c50"] = requests(target, 50, 5, true);
  out["new_tls"] = requests(target, 4, 4, false);
  std::vector<double> rates, events;
  for (int i = 0; i < 3; ++i) rates.push_back(mb_per_s(target)), events.push_back(first_event_ms(target));
  std::sort(rates.begin(), rates.end());
  std::sort(events.begin(), events.end());
  out["mb_per_s"] = rates[1];
  out["sse_first_ms"] = events[1];
  std::cout << out.dump() << "\n";
}
