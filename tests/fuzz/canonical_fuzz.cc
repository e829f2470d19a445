// What must hold for every host and path that the policy accepts, whatever was sent.
// Run with the seeds: canonical_fuzz -max_total_time=60 NEW_CORPUS tests/fuzz/corpus/canonical
#include <cstdint>
#include <string>

#include "controller/policy/verdict.h"
#include "tests/fuzz/require.h"

using namespace bottle::policy;

namespace {

bool has(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

// What a server does that decodes everything before it looks.
std::string decoded(const std::string& path) {
  std::string out;
  for (size_t i = 0; i < path.size(); ++i) {
    if (path[i] != '%') {
      out += path[i];
      continue;
    }
    require(i + 2 < path.size(), "escapes are whole");
    out += static_cast<char>(std::stoi(path.substr(i + 1, 2), nullptr, 16));
    i += 2;
  }
  return out;
}

void check_path(const std::string& path) {
  require(!path.empty() && path[0] == '/', "begins with '/'");
  const std::string slashed = path + "/";
  for (const char* part : {"/../", "/./", ";", "\\", "#", "?", "%25", "%00", "%5C", "%3B", "//"}) {
    if (std::string_view(part) == "//")
      require(!has(path, part), part);
    else
      require(!has(path.back() == '/' ? path : slashed, part), part);
  }
  for (unsigned char c : path) require(c > 0x20 && c < 0x7f, "visible ASCII");
  const std::string raw = decoded(path);
  for (const char* part : {"/../", "//", "\\"})
    require(!has(raw + (raw.back() == '/' ? "" : "/"), part), "also decoded");
  require(!has(raw, std::string_view("\0", 1)), "no NUL");
}

void check_target(std::string_view input, EncodedSlash slash) {
  auto first = canonical_target(input, slash);
  if (!first) return;
  check_path(first->path);
  if (slash == EncodedSlash::kRefuse) require(!has(first->path, "%2F"), "no encoded slash");
  auto second = canonical_target(first->str(), slash);
  require(second && second->str() == first->str(), "a target is canonical at once");
  auto prefix = canonical_path_prefix(first->path);
  require(prefix && *prefix == first->path && path_matches(*prefix, first->path),
          "a canonical path is its own prefix");
}

void check_host(std::string_view input) {
  if (auto host = canonical_host(input)) {
    auto again = canonical_host(*host);
    require(again && *again == *host, "a host is canonical at once");
    require(!host->empty() && host->back() != '.' && host->size() <= 253, "no dot at the end");
    require(host->find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789.-:") == host->npos,
            "host characters");
  }
  if (auto pattern = canonical_host_pattern(input)) {
    auto again = canonical_host_pattern(*pattern);
    require(again && *again == *pattern, "a pattern is canonical at once");
  }
  if (auto cidr = canonical_cidr(input)) {
    auto again = canonical_cidr(*cidr);
    require(again && *again == *cidr, "a CIDR is canonical at once");
  }
}

// A request with the fuzzed target never leaves the two folders that the table lists.
void check_verdict(const std::string& input) {
  static const RouteTable table = [] {
    RouteTable t;
    Route r;
    r.host = "a.example";
    r.ports = {443};
    r.methods = {"GET"};
    r.paths = {"/v1/"};
    t.routes = {r};
    r.paths = {"/pkg/"};
    r.encoded_slash = EncodedSlash::kAllow;
    t.routes.push_back(r);
    return t;
  }();
  Request request;
  request.connect_host = "a.example";
  request.hosts = {"a.example"};
  request.method = "GET";
  request.target = input;
  const Verdict v = judge_request(table, request);
  require(v.allowed == (v.code == "allowed"), "code");
  if (v.allowed) {
    const std::string path = v.target.substr(0, v.target.find('?'));
    check_path(path);
    require(path.rfind("/v1/", 0) == 0 || path.rfind("/pkg/", 0) == 0,
            "stays in the folders of the routes");
    require(!has(path, "%2F") || path.rfind("/pkg/", 0) == 0, "encoded slash only where allowed");
  }
  request.target = "/v1/";
  request.hosts = {input};
  if (judge_request(table, request).allowed)
    require(has(*canonical_host(input.substr(0, input.find(':'))), "a.example"),
            "Host names the server");
  is_credential_header(input);
  address_allowed(table, input);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string input(reinterpret_cast<const char*>(data), size);
  check_target(input, EncodedSlash::kRefuse);
  check_target(input, EncodedSlash::kAllow);
  check_host(input);
  check_verdict(input);
  return 0;
}
