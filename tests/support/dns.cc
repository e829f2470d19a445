#include "tests/support/dns.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>
#include <vector>

namespace world {
namespace {

constexpr int kA = 1, kCname = 5, kAaaa = 28;
const std::string kZone = ".bottle.test";

struct Record {
  int type;
  std::string value;
};

const std::map<std::string, std::vector<Record>> kTable = {
    {"api", {{kA, "203.0.113.10"}}},          {"git", {{kA, "203.0.113.10"}}},      {"plain", {{kA, "203.0.113.10"}}},
    {"port", {{kA, "203.0.113.10"}}},         {"secret", {{kA, "203.0.113.10"}}},   {"other", {{kA, "203.0.113.11"}}},
    {"denied", {{kA, "203.0.113.12"}}},       {"trap", {{kA, "203.0.113.66"}}},     {"expired", {{kA, "203.0.113.20"}}},
    {"strange", {{kA, "203.0.113.21"}}},      {"wrongname", {{kA, "203.0.113.22"}}}, {"oldtls", {{kA, "203.0.113.23"}}},
    {"private", {{kA, "10.99.0.1"}}},         {"meta", {{kA, "169.254.169.254"}}},  {"loop", {{kA, "127.0.0.1"}}},
    {"cgnat", {{kA, "100.64.0.9"}}},          {"azure", {{kA, "168.63.129.16"}}},   {"bench", {{kA, "198.18.0.9"}}},
    {"zero", {{kA, "0.0.0.0"}}},              {"mixed", {{kA, "203.0.113.10"}, {kA, "10.99.0.1"}}},
    {"six", {{kAaaa, "2001:db8::1"}}},        {"dual", {{kA, "203.0.113.10"}, {kAaaa, "2001:db8::1"}}},
    {"mapped", {{kAaaa, "::ffff:10.99.0.1"}}}, {"sixloop", {{kAaaa, "::1"}}},       {"ula", {{kAaaa, "fd00:ec2::254"}}},
    {"nat64", {{kAaaa, "64:ff9b::a9fe:a9fe"}}}, {"linklocal", {{kAaaa, "fe80::1"}}},
    {"alias", {{kCname, "private.bottle.test"}, {kA, "10.99.0.1"}}},
};

std::atomic<unsigned> rebind_turn{0};

// Names of any depth under "wild" have one address; A-B-C-D.ip is that address; "rebind" alternates public and private.
bool lookup(const std::string& name, std::vector<Record>& out) {
  if (!name.ends_with(kZone)) return false;
  const std::string label = name.substr(0, name.size() - kZone.size());
  if (label.ends_with(".ip")) {
    std::string ip = label.substr(0, label.size() - 3);
    std::replace(ip.begin(), ip.end(), '-', '.');
    in_addr a;
    if (inet_pton(AF_INET, ip.c_str(), &a) != 1) return false;
    out = {{kA, ip}};
    return true;
  }
  if (label.ends_with(".wild")) return out = {{kA, "203.0.113.11"}}, true;
  if (label == "rebind") return out = {{kA, rebind_turn++ % 2 == 0 ? "203.0.113.10" : "10.99.0.1"}}, true;
  const auto it = kTable.find(label);
  if (it == kTable.end()) return false;
  out = it->second;
  return true;
}

std::string be16(unsigned v) { return {static_cast<char>(v >> 8), static_cast<char>(v)}; }

std::string wire_name(const std::string& name) {
  std::string out;
  for (size_t at = 0; at < name.size();) {
    const size_t dot = std::min(name.find('.', at), name.size());
    out += static_cast<char>(dot - at);
    out += name.substr(at, dot - at);
    at = dot + 1;
  }
  return out + '\0';
}

}  // namespace

std::string DnsServer::answer(const std::string& query, bool tcp) {
  if (query.size() < 17) return "";
  std::string name;
  size_t at = 12;
  while (at < query.size() && query[at] != 0) {
    const size_t n = static_cast<unsigned char>(query[at]);
    if (n > 63 || at + n + 1 >= query.size()) return "";
    if (!name.empty()) name += '.';
    name += query.substr(at + 1, n);
    at += n + 1;
  }
  if (at + 5 > query.size()) return "";
  const int type = static_cast<unsigned char>(query[at + 1]) << 8 | static_cast<unsigned char>(query[at + 2]);
  const std::string question = query.substr(12, at + 5 - 12);
  for (char& c : name) c = static_cast<char>(tolower(static_cast<unsigned char>(c)));
  report_(name, type, tcp);

  std::vector<Record> records;
  const bool known = lookup(name, records);
  std::string body;
  unsigned count = 0;
  std::string owner = "\xc0\x0c";
  for (const auto& r : records) {
    std::string data;
    if (r.type == kCname) {
      data = wire_name(r.value);
    } else if (r.type != type) {
      continue;
    } else {
      char raw[16];
      inet_pton(type == kA ? AF_INET : AF_INET6, r.value.c_str(), raw);
      data.assign(raw, type == kA ? 4 : 16);
    }
    body += owner + be16(static_cast<unsigned>(r.type)) + be16(1) + be16(0) + be16(0) + be16(static_cast<unsigned>(data.size())) + data;
    if (r.type == kCname) owner = data;
    ++count;
  }
  return query.substr(0, 2) + be16(known ? 0x8580 : 0x8583) + be16(1) + be16(count) + be16(0) + be16(0) + question + body;
}

bool DnsServer::start() {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(53);
  inet_pton(AF_INET, address_.c_str(), &to.sin_addr);
  const int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(udp, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0 || bind(tcp, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0 ||
      listen(tcp, 64) != 0)
    return false;
  std::thread([this, udp] {
    char buffer[4096];
    for (;;) {
      sockaddr_storage from{};
      socklen_t size = sizeof from;
      const ssize_t n = recvfrom(udp, buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&from), &size);
      if (n <= 0) continue;
      const std::string reply = answer(std::string(buffer, static_cast<size_t>(n)), false);
      if (!reply.empty()) sendto(udp, reply.data(), reply.size(), 0, reinterpret_cast<sockaddr*>(&from), size);
    }
  }).detach();
  std::thread([this, tcp] {
    for (;;) {
      const int c = accept(tcp, nullptr, nullptr);
      if (c < 0) continue;
      timeval limit{5, 0};
      setsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
      unsigned char head[2];
      if (recv(c, head, 2, MSG_WAITALL) == 2) {
        std::string query(static_cast<size_t>(head[0] << 8 | head[1]), '\0');
        if (recv(c, query.data(), query.size(), MSG_WAITALL) == static_cast<ssize_t>(query.size())) {
          const std::string reply = answer(query, true), framed = be16(static_cast<unsigned>(reply.size())) + reply;
          send(c, framed.data(), framed.size(), MSG_NOSIGNAL);
        }
      }
      close(c);
    }
  }).detach();
  return true;
}

}  // namespace world
