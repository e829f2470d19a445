#include "controller/policy/route.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

namespace bottle::policy {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kMaxBytes = 8u << 20;
constexpr size_t kMaxRoutes = 4096;
constexpr size_t kMaxItems = 1024;

// Framing and routing belong to the engine: a token there would change where the request goes or
// where it ends.
bool frames_the_message(std::string_view header) {
  static constexpr std::string_view kNames[] = {
      "host", "content-length", "transfer-encoding", "connection",
      "te",   "trailer",        "upgrade",           "keep-alive"};
  return header.substr(0, 6) == "proxy-" ||
         std::find(std::begin(kNames), std::end(kNames), header) != std::end(kNames);
}

Status invalid(const std::string& where, std::string_view what) {
  return Status(Code::kInvalid, "route table: " + where + ": " + std::string(what));
}

Status check_keys(const json& object, const std::string& where,
                  std::initializer_list<std::string_view> required,
                  std::initializer_list<std::string_view> optional) {
  if (!object.is_object()) return invalid(where, "not an object");
  for (std::string_view key : required)
    if (!object.contains(std::string(key)))
      return invalid(where + "." + std::string(key), "missing");
  for (const auto& [key, value] : object.items()) {
    const auto is_key = [&k = key](std::string_view known) { return known == k; };
    if (std::none_of(required.begin(), required.end(), is_key) &&
        std::none_of(optional.begin(), optional.end(), is_key))
      return invalid(where, "unknown key \"" + key.substr(0, 64) + "\"");
  }
  return Status::ok();
}

Status read_text(const json& object, const char* key, const std::string& where, std::string& out) {
  if (!object.contains(key)) return Status::ok();
  if (!object[key].is_string()) return invalid(where + "." + key, "not a string");
  out = object[key].get<std::string>();
  return Status::ok();
}

// A set of strings, each of which must already be what `canonical` makes of it.
template <class Canonical>
Status read_set(const json& object, const char* key, const std::string& where, bool may_be_empty,
                Canonical canonical, std::vector<std::string>& out) {
  if (!object.contains(key)) return Status::ok();
  const std::string at = where + "." + key;
  if (!object[key].is_array() || object[key].size() > kMaxItems)
    return invalid(at, "not a list of at most 1024 items");
  for (const json& item : object[key]) {
    if (!item.is_string()) return invalid(at, "an item is not a string");
    auto text = item.get<std::string>();
    Result<std::string> wanted = canonical(text);
    if (!wanted) return invalid(at, wanted.status().message());
    if (*wanted != text) return invalid(at, "not in canonical form, which is \"" + *wanted + "\"");
    out.push_back(std::move(text));
  }
  if (out.empty() && !may_be_empty) return invalid(at, "empty");
  std::sort(out.begin(), out.end());
  if (std::adjacent_find(out.begin(), out.end()) != out.end())
    return invalid(at, "an item stands twice");
  return Status::ok();
}

template <class Enum>
Status read_enum(const json& object, const char* key, const std::string& where,
                 std::initializer_list<std::pair<std::string_view, Enum>> values, Enum& out) {
  std::string text;
  if (Status s = read_text(object, key, where, text); !s || !object.contains(key)) return s;
  for (const auto& [name, value] : values)
    if (name == text) return out = value, Status::ok();
  return invalid(where + "." + key, "not one of its values");
}

bool is_env_name(std::string_view text) {
  if (text.empty() || text.size() > 128 || text[0] < 'A' || text[0] > 'Z') return false;
  return text.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == text.npos;
}

Status read_inject(const json& list, const std::string& where, std::vector<Injection>& out) {
  if (!list.is_array() || list.size() > 64) return invalid(where, "not a list of at most 64 items");
  std::set<std::string> headers;
  for (const json& item : list) {
    Injection injection;
    if (Status s = check_keys(item, where, {"header", "tokenEnv"}, {"prefix"}); !s) return s;
    if (Status s = read_text(item, "header", where, injection.header); !s) return s;
    if (Status s = read_text(item, "tokenEnv", where, injection.token_env); !s) return s;
    if (Status s = read_text(item, "prefix", where, injection.prefix); !s) return s;
    auto name = canonical_header_name(injection.header);
    if (!name || *name != injection.header)
      return invalid(where + ".header", "not a lower-case header name");
    if (frames_the_message(*name))
      return invalid(where + ".header", *name + " cannot be injected: it belongs to the engine");
    if (!is_env_name(injection.token_env))
      return invalid(where + ".tokenEnv", "not a name of the form [A-Z][A-Z0-9_]*");
    if (injection.prefix.size() > 256 ||
        std::any_of(injection.prefix.begin(), injection.prefix.end(),
                    [](unsigned char c) { return c < 0x20 || c > 0x7e; }))
      return invalid(where + ".prefix", "longer than 256 characters, or not printable ASCII");
    if (!headers.insert(injection.header).second)
      return invalid(where, "header " + injection.header + " stands twice");
    out.push_back(std::move(injection));
  }
  std::sort(out.begin(), out.end());
  return Status::ok();
}

Status read_route(const json& object, const std::string& where, Route& route) {
  if (Status s = check_keys(object, where, {"host", "ports", "methods", "paths"},
                            {"encodedSlash", "inspect", "inject"});
      !s)
    return s;
  if (Status s = read_text(object, "host", where, route.host); !s) return s;
  auto host = canonical_host_pattern(route.host);
  if (!host) return invalid(where, host.status().message());
  if (*host != route.host)
    return invalid(where + ".host", "not in canonical form, which is \"" + *host + "\"");
  if (!object["ports"].is_array() || object["ports"].empty() || object["ports"].size() > kMaxItems)
    return invalid(where + ".ports", "not a list of 1 to 1024 items");
  for (const json& port : object["ports"]) {
    if (!port.is_number_unsigned() || port.get<uint64_t>() < 1 || port.get<uint64_t>() > 65535)
      return invalid(where + ".ports", "not a number of 1 to 65535");
    route.ports.push_back(static_cast<uint16_t>(port.get<uint64_t>()));
  }
  std::sort(route.ports.begin(), route.ports.end());
  if (std::adjacent_find(route.ports.begin(), route.ports.end()) != route.ports.end())
    return invalid(where + ".ports", "an item stands twice");
  if (Status s = read_set(object, "methods", where, false, canonical_method, route.methods); !s)
    return s;
  if (Status s = read_set(object, "paths", where, false, canonical_path_prefix, route.paths); !s)
    return s;
  if (Status s = read_enum(object, "encodedSlash", where,
                           {{"refuse", EncodedSlash::kRefuse}, {"allow", EncodedSlash::kAllow}},
                           route.encoded_slash);
      !s)
    return s;
  if (Status s = read_enum(
          object, "inspect", where,
          {{"full", Inspect::kFull}, {"headers", Inspect::kHeaders}, {"none", Inspect::kNone}},
          route.inspect);
      !s)
    return s;
  if (object.contains("inject"))
    return read_inject(object["inject"], where + ".inject", route.inject);
  return Status::ok();
}

template <class T>
bool overlap(const std::vector<T>& a, const std::vector<T>& b) {
  return std::any_of(a.begin(), a.end(),
                     [&](const T& item) { return std::binary_search(b.begin(), b.end(), item); });
}

// Two routes that are equally specific for some request must agree on what a header is set to.
Status check_conflicts(const std::vector<Route>& routes) {
  for (size_t i = 0; i < routes.size(); ++i) {
    for (size_t j = i + 1; j < routes.size() && routes[j].host == routes[i].host; ++j) {
      const Route &a = routes[i], &b = routes[j];
      if (a == b) return invalid("routes", "a route for " + a.host + " stands twice");
      for (const Injection& x : a.inject)
        for (const Injection& y : b.inject)
          if (x.header == y.header && x != y && overlap(a.ports, b.ports) &&
              overlap(a.methods, b.methods) && overlap(a.paths, b.paths))
            return invalid("routes",
                           "two routes for " + a.host + " inject different values as " + x.header);
    }
  }
  return Status::ok();
}

// nlohmann::json keeps the last of two equal keys without a word; here that would be two readings
// of one policy.
class Keys {
 public:
  bool operator()(int depth, json::parse_event_t event, json& value) {
    if (depth > 8) too_deep_ = true;
    if (event == json::parse_event_t::object_start) open_.emplace_back();
    if (event == json::parse_event_t::object_end && !open_.empty()) open_.pop_back();
    if (event == json::parse_event_t::key && !open_.empty() &&
        !open_.back().insert(value.get<std::string>()).second)
      duplicate_ = true;
    return !too_deep_;
  }
  const char* error() const {
    return too_deep_    ? "nested too deeply"
           : duplicate_ ? "a key stands twice in one object"
                        : nullptr;
  }

 private:
  std::vector<std::set<std::string>> open_;
  bool duplicate_ = false, too_deep_ = false;
};

const char* inspect_name(Inspect inspect) {
  return inspect == Inspect::kFull ? "full" : inspect == Inspect::kNone ? "none" : "headers";
}

Result<RouteTable> parse(std::string_view text) {
  if (text.size() > kMaxBytes) return invalid("file", "larger than 8 MiB");
  Keys keys;
  const json root = json::parse(text, std::ref(keys), false);
  if (const char* why = keys.error()) return invalid("file", why);
  if (root.is_discarded()) return invalid("file", "not JSON");
  RouteTable table;
  if (Status s =
          check_keys(root, "file", {"bottle", "policyHash", "routes"}, {"mode", "allowCIDRs"});
      !s)
    return s;
  if (Status s = read_text(root, "bottle", "file", table.bottle); !s) return s;
  if (Status s = read_text(root, "policyHash", "file", table.policy_hash); !s) return s;
  if (table.bottle.size() > 253) return invalid("file.bottle", "longer than 253 characters");
  if (table.policy_hash.rfind("sha256:", 0) != 0 || table.policy_hash.size() != 7 + 64 ||
      table.policy_hash.find_first_not_of("0123456789abcdef", 7) != std::string::npos)
    return invalid("file.policyHash", "not of the form sha256:<64 hexadecimal digits>");
  if (Status s = read_enum(root, "mode", "file",
                           {{"enforce", Mode::kEnforce}, {"learn", Mode::kLearn}}, table.mode);
      !s)
    return s;
  if (Status s = read_set(root, "allowCIDRs", "file", true, canonical_cidr, table.allow_cidrs); !s)
    return s;
  if (!root["routes"].is_array() || root["routes"].size() > kMaxRoutes)
    return invalid("routes", "not a list of at most 4096 items");
  for (size_t i = 0; i < root["routes"].size(); ++i) {
    Route route;
    if (Status s = read_route(root["routes"][i], "routes[" + std::to_string(i) + "]", route); !s)
      return s;
    table.routes.push_back(std::move(route));
  }
  std::sort(table.routes.begin(), table.routes.end());
  if (Status s = check_conflicts(table.routes); !s) return s;
  return table;
}

}  // namespace

Result<RouteTable> parse_route_table(std::string_view text) {
  try {
    return parse(text);
  } catch (const std::exception& e) {
    return Status(Code::kInternal, std::string("route table: ") + e.what());
  }
}

std::string render_route_table(const RouteTable& table) {
  ordered_json root;
  root["bottle"] = table.bottle;
  root["policyHash"] = table.policy_hash;
  root["mode"] = table.mode == Mode::kLearn ? "learn" : "enforce";
  root["allowCIDRs"] = table.allow_cidrs;
  root["routes"] = ordered_json::array();
  for (const Route& route : table.routes) {
    ordered_json item;
    item["host"] = route.host;
    item["ports"] = route.ports;
    item["methods"] = route.methods;
    item["paths"] = route.paths;
    item["encodedSlash"] = route.encoded_slash == EncodedSlash::kAllow ? "allow" : "refuse";
    item["inspect"] = inspect_name(route.inspect);
    item["inject"] = ordered_json::array();
    for (const Injection& injection : route.inject)
      item["inject"].push_back(ordered_json{{"header", injection.header},
                                            {"tokenEnv", injection.token_env},
                                            {"prefix", injection.prefix}});
    root["routes"].push_back(std::move(item));
  }
  return root.dump(2, ' ', true, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace bottle::policy
