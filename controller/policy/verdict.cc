#include "controller/policy/verdict.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "controller/policy/number.h"

namespace bottle::policy {
namespace {

using nlohmann::ordered_json;

Verdict& refuse(Verdict& v, int status, const char* code, std::string reason, std::string hint) {
  v.allowed = false;
  v.status = status;
  v.code = code;
  v.reason = std::move(reason);
  v.hint = std::move(hint);
  v.inject.clear();
  return v;
}

constexpr char kAddRoute[] = "Add it to spec.egress.routes of the bottle if the agent needs it.";

struct Authority {
  std::string host;
  std::optional<uint16_t> port;
};

// "host" or "host:port" of a Host header or :authority. User info has no place there.
Result<Authority> parse_authority(std::string_view text) {
  Authority out;
  const size_t bracket = text.rfind(']');
  const size_t colon = text.find(':', bracket == text.npos ? 0 : bracket);
  // An IPv6 address without brackets is no authority (RFC 3986 §3.2.2).
  if (text.find(':') != text.npos && text[0] != '[' && text.find(':') != text.rfind(':'))
    return {Code::kInvalid, "host: an IPv6 address needs brackets here"};
  if (colon != text.npos) {
    const auto port = parse_number(text.substr(colon + 1), 65535);
    if (!port || *port == 0)
      return {Code::kInvalid, "host: the port is not a number of 1 to 65535"};
    out.port = static_cast<uint16_t>(*port);
  }
  auto host = canonical_host(text.substr(0, colon));
  if (!host) return host.status();
  out.host = *host;
  return out;
}

bool lists(const std::vector<uint16_t>& ports, uint16_t port) {
  return std::find(ports.begin(), ports.end(), port) != ports.end();
}
bool lists(const std::vector<std::string>& set, const std::string& item) {
  return std::find(set.begin(), set.end(), item) != set.end();
}

// Greater is more specific: exact host, longer suffix, longer path prefix.
using Rank = std::tuple<bool, size_t, size_t>;
Rank rank(const Route& route, size_t path_length) {
  return {route.host.substr(0, 2) != "*.", route.host.size(), path_length};
}

std::string where(const std::string& host, uint16_t port) {
  return (host.find(':') == host.npos ? host : "[" + host + "]") + ":" + std::to_string(port);
}

// Fills host and port, and the refusal unless some route lists them. Indices of those routes go to
// `found`.
bool find_routes(const RouteTable& table, Verdict& v, std::vector<size_t>& found) {
  bool host_known = false;
  for (size_t i = 0; i < table.routes.size(); ++i) {
    if (!host_matches(table.routes[i].host, v.host)) continue;
    host_known = true;
    if (lists(table.routes[i].ports, v.port)) found.push_back(i);
  }
  if (!found.empty()) return true;
  if (host_known)
    refuse(v, 403, "port_not_allowed",
           "No route for " + v.host + " lists port " + std::to_string(v.port) + ".",
           "Add the port to the route's ports if the agent needs it.");
  else
    refuse(v, 403, "host_not_allowed", "No route lists the host " + v.host + ".", kAddRoute);
  return false;
}

Verdict& refuse_learn(Verdict& v) {
  return refuse(v, 403, "learn_mode",
                "The bottle is in learn mode: the request was recorded and nothing was sent.",
                "Turn the recorded requests into routes and set spec.egress.mode to enforce.");
}

// CONNECT host, SNI, Host and :authority name one server, or an allowed name would be a cover for
// another.
bool check_identity(const Request& request, Verdict& v) {
  constexpr char kHint[] = "Send the request with one and the same host in CONNECT, SNI and Host.";
  if (request.sni) {
    auto sni = canonical_host(*request.sni);
    if (!sni)
      return refuse(v, 400, "host_malformed",
                    "The TLS server name is malformed (" + sni.status().message() + ").", kHint),
             false;
    if (!request.tls || *sni != v.host)
      return refuse(v, 421, "host_mismatch",
                    "The TLS server name is not the host of the connection, " + v.host + ".",
                    kHint),
             false;
  }
  if (request.hosts.empty())
    return refuse(v, 400, "host_malformed", "The request has no Host header.", kHint), false;
  for (const std::string& text : request.hosts) {
    auto authority = parse_authority(text);
    if (!authority)
      return refuse(v, 400, "host_malformed",
                    "The Host header is malformed (" + authority.status().message() + ").", kHint),
             false;
    if (authority->host != v.host || authority->port.value_or(v.port) != v.port)
      return refuse(v, 421, "host_mismatch",
                    "The Host header does not name the server of the connection, " +
                        where(v.host, v.port) + ".",
                    kHint),
             false;
  }
  return true;
}

bool check_method(const Request& request, Verdict& v) {
  auto method = canonical_method(request.method);
  if (method) return v.method = *method, true;
  std::string upper = canonical_header_name(request.method) ? request.method : "";
  for (char& c : upper)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  if (upper == "TRACE" || upper == "CONNECT") {
    v.method = upper;
    return refuse(v, 403, "method_not_allowed", upper + " is never allowed.",
                  "Use another method."),
           false;
  }
  return refuse(v, 400, "method_malformed",
                "The method is malformed (" + method.status().message() + ").",
                "Send a standard HTTP method."),
         false;
}

void decide(const RouteTable& table, const Request& request, const std::vector<size_t>& found,
            Verdict& v) {
  constexpr char kPathHint[] =
      "Send the path in plain form: no encoded dots, slashes, backslashes or parameters.";
  const auto loose = canonical_target(request.target, EncodedSlash::kAllow);
  if (!loose) {
    refuse(v, 400, "path_malformed",
           "The path cannot be judged (" + loose.status().message() + ").", kPathHint);
    return;
  }
  const auto strict = canonical_target(request.target, EncodedSlash::kRefuse);
  v.target = loose->str();
  bool path_known = false, slash_refused = false;
  std::optional<Rank> best;
  std::set<Injection> inject;
  for (size_t i : found) {
    const Route& route = table.routes[i];
    size_t length = 0;
    for (const std::string& path : route.paths)
      if (path.size() > length && path_matches(path, loose->path)) length = path.size();
    if (length == 0) continue;
    if (!strict && route.encoded_slash == EncodedSlash::kRefuse) {
      slash_refused = true;
      continue;
    }
    path_known = true;
    if (!lists(route.methods, v.method)) continue;
    const Rank here = rank(route, length);
    if (best && here < *best) continue;
    if (!best || here > *best) {
      inject.clear();
      v.route = -1;
    }
    best = here;
    inject.insert(route.inject.begin(), route.inject.end());
    // Of equal routes the one that inspects most decides.
    if (v.route < 0 || route.inspect < table.routes[v.route].inspect) v.route = static_cast<int>(i);
  }
  if (!best && path_known) {
    refuse(v, 403, "method_not_allowed",
           "No route for this path of " + v.host + " lists the method " + v.method + ".",
           "Add the method to the route's methods if the agent needs it.");
  } else if (!best && slash_refused) {
    refuse(v, 400, "path_malformed",
           "The path cannot be judged (" + strict.status().message() + ").",
           "Set encodedSlash: allow on the route if the server needs encoded slashes.");
  } else if (!best) {
    refuse(v, 403, "path_not_allowed", "No route for " + v.host + " covers this path.",
           "Add the path to the route's paths if the agent needs it.");
  } else {
    v.allowed = true;
    v.status = 200;
    v.code = "allowed";
    v.reason = "Allowed by the route for " + table.routes[v.route].host + ".";
    if (!request.tls) return;
    // Equal routes agree on a header (parse_route_table); a table made by hand gets one value each
    // all the same.
    for (const Injection& injection : inject)
      if (v.inject.empty() || v.inject.back().header != injection.header)
        v.inject.push_back(injection);
  }
}

ordered_json inject_json(const std::vector<Injection>& inject) {
  auto out = ordered_json::array();
  for (const Injection& i : inject)
    out.push_back(
        ordered_json{{"header", i.header}, {"tokenEnv", i.token_env}, {"prefix", i.prefix}});
  return out;
}

std::string one_line(const ordered_json& value) {
  return value.dump(-1, ' ', true, ordered_json::error_handler_t::replace);
}

}  // namespace

Verdict judge_connect(const RouteTable& table, std::string_view host, uint16_t port) {
  Verdict v;
  v.port = port;
  v.method = "CONNECT";
  auto canonical = canonical_host(host);
  if (!canonical)
    return refuse(v, 400, "host_malformed",
                  "The host of CONNECT is malformed (" + canonical.status().message() + ").",
                  "Name the host in plain form.");
  v.host = *canonical;
  if (table.mode == Mode::kLearn) return refuse_learn(v);
  std::vector<size_t> found;
  if (!find_routes(table, v, found)) return v;
  for (size_t i : found) {
    const Route& route = table.routes[i];
    if (v.route >= 0) {
      const Rank best = rank(table.routes[v.route], 0), here = rank(route, 0);
      if (here < best || (here == best && route.inspect >= table.routes[v.route].inspect)) continue;
    }
    v.route = static_cast<int>(i);
  }
  v.allowed = true;
  v.status = 200;
  v.code = "allowed";
  v.reason = "A route lists " + where(v.host, port) + "; each request is judged by itself.";
  return v;
}

Verdict judge_request(const RouteTable& table, const Request& request) {
  Verdict v;
  v.port = request.port;
  auto host = canonical_host(request.connect_host);
  if (!host)
    return refuse(v, 400, "host_malformed",
                  "The host is malformed (" + host.status().message() + ").",
                  "Name the host in plain form.");
  v.host = *host;
  if (!check_identity(request, v) || !check_method(request, v)) return v;
  if (table.mode == Mode::kLearn) {
    const auto target = canonical_target(request.target, EncodedSlash::kAllow);
    if (target) v.target = target->str();
    return refuse_learn(v);
  }
  std::vector<size_t> found;
  if (!find_routes(table, v, found)) return v;
  if (!request.tls && request.port == 443)
    return refuse(v, 403, "tls_required", "Port 443 takes TLS only.", "Use https.");
  decide(table, request, found, v);
  return v;
}

std::string refusal_body(const Verdict& v) {
  return one_line(
      ordered_json{{"error", v.code}, {"host", v.host}, {"reason", v.reason}, {"hint", v.hint}});
}

std::string verdict_json(const Verdict& v) {
  ordered_json out{{"allowed", v.allowed}, {"status", v.status}, {"code", v.code},
                   {"reason", v.reason},   {"hint", v.hint},     {"host", v.host},
                   {"port", v.port},       {"method", v.method}, {"target", v.target},
                   {"route", v.route}};
  out["inject"] = inject_json(v.inject);
  return one_line(out);
}

bool is_credential_header(std::string_view name) {
  // CGI-like servers read '_' and '-' alike.
  std::string n;
  for (char c : name)
    n += c == '_' ? '-' : c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  static constexpr std::string_view kExact[] = {"auth", "token", "dpop", "x-honeycomb-team"};
  static constexpr std::string_view kContains[] = {
      "authorization", "authentication", "api-key", "apikey", "secret",      "password", "passwd",
      "passphrase",    "credential",     "jwt",     "bearer", "client-cert", "x-auth-",  "cookie"};
  static constexpr std::string_view kEnds[] = {
      "-token",        "-auth",           "access-key",     "accesskey",    "access-key-id",
      "auth-key",      "authkey",         "private-key",    "account-key",  "subscription-key",
      "functions-key", "application-key", "app-key",        "admin-key",    "master-key",
      "service-key",   "license-key",     "encryption-key", "-accesstoken", "-authtoken",
      "-sessiontoken", "-signature"};
  const std::string_view view = n;
  const auto ends = [&](std::string_view end) {
    return view.size() >= end.size() && view.substr(view.size() - end.size()) == end;
  };
  const auto contains = [&](std::string_view part) { return view.find(part) != view.npos; };
  return std::any_of(std::begin(kExact), std::end(kExact),
                     [&](std::string_view e) { return e == view; }) ||
         std::any_of(std::begin(kContains), std::end(kContains), contains) ||
         std::any_of(std::begin(kEnds), std::end(kEnds), ends);
}

}  // namespace bottle::policy
