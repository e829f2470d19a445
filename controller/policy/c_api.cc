#pragma GCC visibility push(default)
#include "controller/policy/c_api.h"
#pragma GCC visibility pop

#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "controller/policy/verdict.h"

using bottle::policy::Inspect;
using bottle::policy::RouteTable;
using bottle::policy::Verdict;
using nlohmann::json;
using nlohmann::ordered_json;

struct bottle_policy_table {
  RouteTable table;
};

namespace {

// The caller cannot judge without an answer, so no memory is the end of the process: an engine that
// is gone lets nothing through.
char* copy(const std::string& text) {
  auto* out = static_cast<char*>(std::malloc(text.size() + 1));
  if (out == nullptr) std::abort();
  std::memcpy(out, text.c_str(), text.size() + 1);
  return out;
}

std::string answer(const RouteTable* table, const Verdict& verdict) {
  auto out = ordered_json::parse(bottle::policy::verdict_json(verdict));
  const bool decided = table != nullptr && verdict.route >= 0 &&
                       static_cast<size_t>(verdict.route) < table->routes.size();
  const Inspect inspect = decided ? table->routes[verdict.route].inspect : Inspect::kHeaders;
  out["inspect"] = inspect == Inspect::kFull   ? "full"
                   : inspect == Inspect::kNone ? "none"
                                               : "headers";
  out["body"] = verdict.allowed ? "" : bottle::policy::refusal_body(verdict);
  return out.dump(-1, ' ', true);
}

std::string refusal(int status, const char* code, const char* reason) {
  Verdict v;
  v.status = status;
  v.code = code;
  v.reason = reason;
  v.hint = "Nothing was sent; this is a defect of the egress engine, please report it.";
  return answer(nullptr, v);
}

// Nothing may unwind into C.
template <class F>
char* guarded(F f) {
  try {
    return copy(f());
  } catch (...) {
    try {
      return copy(refusal(503, "internal", "The policy could not be evaluated."));
    } catch (...) {
      std::abort();
    }
  }
}

// Bytes arrive as latin-1 code points. Text with a code point above 255 cannot be that and is kept
// as UTF-8.
std::string bytes_of(const std::string& utf8) {
  std::string out;
  for (size_t i = 0; i < utf8.size(); ++i) {
    const auto c = static_cast<unsigned char>(utf8[i]);
    if (c < 0x80) {
      out += utf8[i];
    } else if ((c == 0xC2 || c == 0xC3) && i + 1 < utf8.size()) {
      out += static_cast<char>((c & 3) << 6 | (static_cast<unsigned char>(utf8[++i]) & 0x3F));
    } else {
      return utf8;
    }
  }
  return out;
}

bool read_request(const json& in, bottle::policy::Request& out) {
  if (!in.is_object()) return false;
  for (const char* key : {"tls", "connectHost", "port", "hosts", "method", "target"})
    if (!in.contains(key)) return false;
  if (!in["tls"].is_boolean() || !in["port"].is_number_integer() || !in["hosts"].is_array())
    return false;
  for (const char* key : {"connectHost", "method", "target"})
    if (!in[key].is_string()) return false;
  const auto port = in["port"].get<int64_t>();
  if (port < 1 || port > 65535) return false;
  out.tls = in["tls"].get<bool>();
  out.port = static_cast<uint16_t>(port);
  out.connect_host = bytes_of(in["connectHost"].get<std::string>());
  out.method = bytes_of(in["method"].get<std::string>());
  out.target = bytes_of(in["target"].get<std::string>());
  for (const json& host : in["hosts"]) {
    if (!host.is_string()) return false;
    out.hosts.push_back(bytes_of(host.get<std::string>()));
  }
  if (in.contains("sni") && !in["sni"].is_null()) {
    if (!in["sni"].is_string()) return false;
    out.sni = bytes_of(in["sni"].get<std::string>());
  }
  return true;
}

}  // namespace

bottle_policy_table* bottle_policy_load(const char* text, size_t size, char** error) {
  try {
    auto table = bottle::policy::parse_route_table(text == nullptr ? std::string_view()
                                                                   : std::string_view(text, size));
    if (table) return new bottle_policy_table{std::move(table).value()};
    if (error != nullptr) *error = copy(table.status().message());
  } catch (...) {
    if (error != nullptr) *error = copy("route table: out of memory");
  }
  return nullptr;
}

void bottle_policy_unload(bottle_policy_table* table) { delete table; }
void bottle_policy_free(char* text) { std::free(text); }

char* bottle_policy_info(const bottle_policy_table* table) {
  return guarded([&]() -> std::string {
    if (table == nullptr) return "{}";
    std::set<std::string> tokens;
    for (const auto& route : table->table.routes)
      for (const auto& injection : route.inject) tokens.insert(injection.token_env);
    const ordered_json out{
        {"policyHash", table->table.policy_hash},
        {"bottle", table->table.bottle},
        {"mode", table->table.mode == bottle::policy::Mode::kLearn ? "learn" : "enforce"},
        {"tokens", tokens},
        {"routes", table->table.routes.size()}};
    return out.dump(-1, ' ', true, ordered_json::error_handler_t::replace);
  });
}

char* bottle_policy_judge_connect(const bottle_policy_table* table, const char* host, int port) {
  return guarded([&]() -> std::string {
    if (table == nullptr) return refusal(503, "internal", "No policy is loaded.");
    if (host == nullptr || port < 1 || port > 65535)
      return refusal(400, "host_malformed", "The host or port of CONNECT is malformed.");
    return answer(&table->table,
                  bottle::policy::judge_connect(table->table, host, static_cast<uint16_t>(port)));
  });
}

char* bottle_policy_judge_request(const bottle_policy_table* table, const char* text, size_t size) {
  return guarded([&]() -> std::string {
    if (table == nullptr) return refusal(503, "internal", "No policy is loaded.");
    bottle::policy::Request request;
    if (text == nullptr || !read_request(json::parse(text, text + size, nullptr, false), request))
      return refusal(400, "request_malformed", "The request could not be read.");
    return answer(&table->table, bottle::policy::judge_request(table->table, request));
  });
}

int bottle_policy_address_allowed(const bottle_policy_table* table, const char* address) {
  try {
    return table != nullptr && address != nullptr &&
           bottle::policy::address_allowed(table->table, address);
  } catch (...) {
    return 0;
  }
}

int bottle_policy_is_credential_header(const char* name) {
  try {
    return name == nullptr || bottle::policy::is_credential_header(name);
  } catch (...) {
    return 1;
  }
}
