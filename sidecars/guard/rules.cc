#include "sidecars/guard/rules.h"

#include <arpa/inet.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

namespace bottle::guard {
namespace {

using nlohmann::json;

std::string_view trim(std::string_view s) {
  const auto b = s.find_first_not_of(" \t\r\n");
  if (b == s.npos) return {};
  return s.substr(b, s.find_last_not_of(" \t\r\n") - b + 1);
}

// Lines without comments and surrounding space; empty ones dropped.
std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const auto end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == text.npos ? std::string_view{} : text.substr(end + 1);
    line = trim(line.substr(0, line.find('#')));
    if (!line.empty()) out.emplace_back(line);
  }
  return out;
}

// The lines between the braces of the one table.
Result<std::vector<std::string>> table_body(std::string_view rules) {
  std::vector<std::string> lines = lines_of(rules);
  const std::string open = "table inet " + std::string(kTable) + " {";
  if (lines.empty() || lines.front() != open)
    return {Code::kInvalid, "the guard's rules must begin with `" + open + "`"};
  int depth = 0;
  for (size_t i = 0; i < lines.size(); ++i) {
    for (char c : lines[i]) depth += (c == '{') - (c == '}');
    // Anything after the table's end would be a command on some other table; an include reads files we did not hash.
    if (depth <= 0 && i + 1 != lines.size())
      return {Code::kInvalid, "the guard's rules hold more than the table " + std::string(kTable)};
    if (lines[i].starts_with("include")) return {Code::kInvalid, "the guard's rules must not include files"};
  }
  if (depth != 0 || lines.back() != "}") return {Code::kInvalid, "the guard's rules end before their table does"};
  return std::vector<std::string>(lines.begin() + 1, lines.end() - 1);
}

Result<json> parse_listing(std::string_view text) {
  json j = json::parse(text, nullptr, false);
  if (j.is_discarded() || !j.is_object() || !j.contains("nftables") || !j["nftables"].is_array())
    return {Code::kInternal, "nft printed no JSON listing; is it built with JSON support?"};
  return j["nftables"];
}

// Without what differs between two loads of the same rules: handles, counter values, the table's name and its dormant flag.
json normalised(const json& listing) {
  json out = json::array();
  for (json item : listing) {
    if (!item.is_object() || item.empty() || item.contains("metainfo")) continue;
    const std::string kind = item.begin().key();
    json& o = item.begin().value();
    if (!o.is_object()) continue;
    o.erase("handle");
    if (kind == "table") {
      o.erase("name");
      o.erase("flags");
    }
    o.erase("table");
    if (kind == "counter") {
      o.erase("packets");
      o.erase("bytes");
    }
    out.push_back(std::move(item));
  }
  return out;
}

std::string short_dump(const json& j) {
  std::string s = j.dump();
  return s.size() > 300 ? s.substr(0, 300) + "…" : s;
}

struct Chain {
  std::string base;  // "filter output 0 drop"
  std::vector<std::string> verdicts;
  bool operator==(const Chain&) const = default;
};

std::string verdict_of_text(const std::string& line) {
  std::istringstream words(line);
  std::string word, verdict = "none";
  while (words >> word) {
    if (word == "accept" || word == "drop" || word == "reject") verdict = word;
    if (word == "goto" || word == "jump") {
      verdict = word + " ";
      words >> word;
      verdict += word;
    }
  }
  return verdict;
}

Result<std::map<std::string, Chain>> chains_of_text(std::string_view rules) {
  auto body = table_body(rules);
  if (!body) return body.status();
  std::map<std::string, Chain> out;
  Chain* chain = nullptr;
  for (const std::string& line : *body) {
    if (line.starts_with("chain ") && line.ends_with("{")) {
      chain = &out[std::string(trim(std::string_view(line).substr(6, line.size() - 7)))];
    } else if (line == "}") {
      chain = nullptr;
    } else if (chain && line.starts_with("type ")) {
      std::string text = line;
      std::replace(text.begin(), text.end(), ';', ' ');
      std::istringstream words(text);
      std::string type, hook, prio, policy = "accept", w;
      while (words >> w) {
        if (w == "type") words >> type;
        if (w == "hook") words >> hook;
        if (w == "priority") words >> prio;
        if (w == "policy") words >> policy;
      }
      if (prio == "filter") prio = "0";
      chain->base = type + " " + hook + " " + prio + " " + policy;
    } else if (chain) {
      chain->verdicts.push_back(verdict_of_text(line));
    }
  }
  return out;
}

std::map<std::string, Chain> chains_of_listing(const json& listing) {
  std::map<std::string, Chain> out;
  for (const json& item : listing) {
    if (!item.is_object()) continue;
    if (auto c = item.find("chain"); c != item.end()) {
      Chain& chain = out[c->value("name", "")];
      if (c->contains("hook"))
        chain.base = c->value("type", "") + " " + c->value("hook", "") + " " + std::to_string(c->value("prio", -99999)) + " " +
                     c->value("policy", "accept");
    } else if (auto r = item.find("rule"); r != item.end()) {
      std::string verdict = "none";
      for (const json& e : r->value("expr", json::array())) {
        if (!e.is_object()) continue;
        for (const char* v : {"accept", "drop", "reject"})
          if (e.contains(v)) verdict = v;
        for (const char* v : {"goto", "jump"})
          if (e.contains(v) && e[v].is_object()) verdict = std::string(v) + " " + e[v].value("target", "");
      }
      out[r->value("chain", "")].verdicts.push_back(verdict);
    }
  }
  return out;
}

}  // namespace

std::vector<std::string> parse_resolvers(std::string_view resolv_conf) {
  std::vector<std::string> out;
  for (const std::string& line : lines_of(resolv_conf)) {
    std::istringstream words(line);
    std::string key, address;
    if (!(words >> key >> address) || key != "nameserver") continue;
    in6_addr six{};
    in_addr four{};
    const bool is4 = inet_pton(AF_INET, address.c_str(), &four) == 1;
    if (is4 && (ntohl(four.s_addr) >> 24 == 127 || four.s_addr == 0)) continue;
    if (!is4 && (inet_pton(AF_INET6, address.c_str(), &six) != 1 || IN6_IS_ADDR_LOOPBACK(&six) || IN6_IS_ADDR_UNSPECIFIED(&six)))
      continue;
    char text[INET6_ADDRSTRLEN];  // canonical spelling, so that duplicates are seen as such
    inet_ntop(is4 ? AF_INET : AF_INET6, is4 ? static_cast<void*>(&four) : &six, text, sizeof text);
    if (std::find(out.begin(), out.end(), text) == out.end()) out.emplace_back(text);
  }
  return out;
}

Result<std::string> render_transaction(std::string_view rules, const std::vector<std::string>& resolvers) {
  auto body = table_body(rules);
  if (!body) return body.status();
  std::string four, six, out;
  for (const std::string& r : resolvers) {
    std::string& list = r.find(':') == r.npos ? four : six;
    list += (list.empty() ? "" : ", ") + r;
  }
  for (std::string_view table : {kTable, kReferenceTable}) {
    const std::string name(table);
    // `table` first, because `delete` of a table that is not there is an error.
    out += "table inet " + name + "\ndelete table inet " + name + "\ntable inet " + name + " {\n";
    if (table == kReferenceTable) out += "flags dormant\n";
    for (const std::string& line : *body) out += line + "\n";
    out += "}\n";
    if (!four.empty()) out += "add element inet " + name + " resolvers4 { " + four + " }\n";
    if (!six.empty()) out += "add element inet " + name + " resolvers6 { " + six + " }\n";
  }
  return out;
}

Status compare_tables(std::string_view live_json, std::string_view reference_json) {
  auto live = parse_listing(live_json), reference = parse_listing(reference_json);
  if (!live) return live.status();
  if (!reference) return reference.status();
  for (const json& item : *live)  // a dormant table lists like one in force, and refuses nothing
    if (auto t = item.find("table"); t != item.end() && t->contains("flags"))
      return {Code::kConflict, "the guard's table is not in force: it has flags " + short_dump((*t)["flags"])};
  const json a = normalised(*live), b = normalised(*reference);
  for (size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
    const json in_force = i < a.size() ? a[i] : json(), rendered = i < b.size() ? b[i] : json();
    if (in_force != rendered)
      return {Code::kConflict, "the kernel's rules are not the rendered ones: in force " + short_dump(in_force) + ", rendered " +
                                   short_dump(rendered)};
  }
  if (a.empty()) return {Code::kConflict, "the kernel lists no rules"};
  return {};
}

Status compare_with_text(std::string_view live_json, std::string_view rules) {
  auto live = parse_listing(live_json);
  if (!live) return live.status();
  auto want = chains_of_text(rules);
  if (!want) return want.status();
  const auto got = chains_of_listing(*live);
  for (const auto& [name, chain] : *want) {
    const auto it = got.find(name);
    if (it == got.end()) return {Code::kConflict, "chain " + name + " is not in the kernel"};
    if (it->second.base != chain.base)
      return {Code::kConflict, "chain " + name + " is `" + it->second.base + "`, not `" + chain.base + "`"};
    if (it->second.verdicts != chain.verdicts)
      return {Code::kConflict, "the verdicts of chain " + name + " are not the rendered ones (" +
                                   std::to_string(it->second.verdicts.size()) + " rules in force, " +
                                   std::to_string(chain.verdicts.size()) + " rendered)"};
  }
  if (got.size() != want->size()) return {Code::kConflict, "the kernel holds chains that were not rendered"};
  return {};
}

Result<std::string> counters_json(std::string_view nft_json) {
  auto listing = parse_listing(nft_json);
  if (!listing) return listing.status();
  json out = json::object();
  for (const json& item : *listing)
    if (auto c = item.find("counter"); c != item.end())
      out[c->value("name", "")] = {{"packets", c->value("packets", uint64_t{0})}, {"bytes", c->value("bytes", uint64_t{0})}};
  return out.dump();
}

}  // namespace bottle::guard
