#include "controller/bottle/yaml_reader.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <array>
#include <map>
#include <sstream>

#include "controller/bottle/literal_secret.h"

namespace bottle {
namespace {

using Kind = YamlNode::Kind;

// Leaves yaml-cpp's parser from inside an event; caught in read_yaml, which has the diagnostic already.
struct Stop {};

bool digits(std::string_view s, std::string_view allowed = "0123456789_") {
  return !s.empty() && s.find_first_not_of(allowed) == std::string_view::npos;
}

// YAML 1.1 and 1.2 together: whatever either takes for a number is not a string here.
Kind plain_kind(std::string_view s) {
  static constexpr std::array kNulls = {"", "~", "null", "Null", "NULL"};
  static constexpr std::array kBools = {"true", "True", "TRUE", "false", "False", "FALSE", "yes", "Yes", "YES",
                                        "no",   "No",   "NO",   "on",    "On",    "ON",    "off", "Off", "OFF",
                                        "y",    "Y",    "n",    "N"};
  if (std::find(kNulls.begin(), kNulls.end(), s) != kNulls.end()) return Kind::kNull;
  if (std::find(kBools.begin(), kBools.end(), s) != kBools.end()) return Kind::kBool;
  if (s == ".nan" || s == ".NaN" || s == ".NAN") return Kind::kFloat;
  if (s[0] == '+' || s[0] == '-') s.remove_prefix(1);
  if (s == ".inf" || s == ".Inf" || s == ".INF") return Kind::kFloat;
  if (s.empty() || s[0] == '_') return Kind::kString;
  if (s.starts_with("0x") && digits(s.substr(2), "0123456789abcdefABCDEF_")) return Kind::kInt;
  if ((s.starts_with("0o") || s.starts_with("0b")) && digits(s.substr(2))) return Kind::kInt;
  if (digits(s)) return Kind::kInt;
  std::string_view mantissa = s.substr(0, s.find_first_of("eE"));
  if (mantissa.size() != s.size()) {
    std::string_view exponent = s.substr(mantissa.size() + 1);
    if (!exponent.empty() && (exponent[0] == '+' || exponent[0] == '-')) exponent.remove_prefix(1);
    if (!digits(exponent)) return Kind::kString;
  }
  size_t dot = mantissa.find('.');
  std::string_view whole = mantissa.substr(0, dot);
  std::string_view fraction = dot == std::string_view::npos ? "" : mantissa.substr(dot + 1);
  bool number = (whole.empty() || digits(whole)) && (fraction.empty() || digits(fraction)) &&
                !(whole.empty() && fraction.empty());
  return number ? Kind::kFloat : Kind::kString;
}

// Builds the tree from parser events.
class Builder : public YAML::EventHandler {
 public:
  Builder(size_t* nodes, std::vector<Diagnostic>* diagnostics) : nodes_(nodes), diagnostics_(diagnostics) {}

  YamlNode take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override { add(mark, Kind::kNull, ""); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    error(mark, "aliases are not supported: write the value out here");
    add(mark, Kind::kAlias, "");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t, const std::string& value) override {
    if (value.find('\0') != std::string::npos) error(mark, "the text holds a NUL byte");
    bool plain = tag == "?";
    if (!plain && tag != "!" && !tag.empty() && tag != "tag:yaml.org,2002:str") {
      error(mark, "YAML tags are not supported: leave the tag out");
    }
    add(mark, plain ? plain_kind(value) : Kind::kString, value);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, Kind::kList);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t, YAML::EmitterStyle::value) override {
    open(mark, tag, Kind::kMap);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Frame {
    YamlNode node;
    std::string path;
    std::map<std::string, int> keys;  // to the line of the first
    bool has_key = false;             // a key was read, its value comes next
    bool drop = false;                // the value belongs to a duplicate key
    YamlNode::Entry entry;
  };

  std::string child_path() const {
    if (stack_.empty()) return "";
    const Frame& top = stack_.back();
    if (top.node.kind == Kind::kList) return top.path + "[" + std::to_string(top.node.items.size()) + "]";
    if (!top.has_key) return top.path;
    return (top.path.empty() ? "" : top.path + ".") + path_segment(top.entry.key);
  }

  void error(const YAML::Mark& mark, std::string message) {
    diagnostics_->push_back(
        {Diagnostic::Severity::kError, mark.line + 1, mark.column + 1, child_path(), std::move(message)});
  }

  void count(const YAML::Mark& mark) {
    if (++*nodes_ <= kMaxNodes) return;
    error(mark, "the file has more than " + std::to_string(kMaxNodes) + " values: split it");
    throw Stop();
  }

  bool wants_key() const {
    return !stack_.empty() && stack_.back().node.kind == Kind::kMap && !stack_.back().has_key;
  }

  void add(const YAML::Mark& mark, Kind kind, const std::string& text) {
    count(mark);
    if (wants_key()) {
      if (kind == Kind::kNull || kind == Kind::kAlias) {
        error(mark, "a key must be text");
        throw Stop();
      }
      Frame& top = stack_.back();
      top.entry = {text, mark.line + 1, mark.column + 1, {}};
      top.has_key = true;
      auto [it, is_new] = top.keys.emplace(text, mark.line + 1);
      top.drop = !is_new;
      if (!is_new) error(mark, "duplicate key, first set on line " + std::to_string(it->second));
      return;
    }
    YamlNode node;
    node.kind = kind;
    node.line = mark.line + 1;
    node.column = mark.column + 1;
    node.text = text;
    put(std::move(node));
  }

  void open(const YAML::Mark& mark, const std::string& tag, Kind kind) {
    count(mark);
    if (wants_key()) {
      error(mark, "a key must be text, not a list or a mapping");
      throw Stop();
    }
    if (stack_.size() >= kMaxDepth) {
      error(mark, "nested deeper than " + std::to_string(kMaxDepth) + " levels");
      throw Stop();
    }
    if (!tag.empty() && tag != "?" && tag != "!") error(mark, "YAML tags are not supported: leave the tag out");
    Frame frame;
    frame.path = child_path();
    frame.node.kind = kind;
    frame.node.line = mark.line + 1;
    frame.node.column = mark.column + 1;
    stack_.push_back(std::move(frame));
  }

  void close() {
    YamlNode node = std::move(stack_.back().node);
    stack_.pop_back();
    put(std::move(node));
  }

  void put(YamlNode node) {
    if (stack_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& top = stack_.back();
    if (top.node.kind == Kind::kList) {
      top.node.items.push_back(std::move(node));
      return;
    }
    top.has_key = false;
    if (top.drop) return;
    top.entry.value = std::move(node);
    top.node.entries.push_back(std::move(top.entry));
  }

  size_t* nodes_;
  std::vector<Diagnostic>* diagnostics_;
  YamlNode root_;
  std::vector<Frame> stack_;
};

// Length of the UTF-8 sequence at `i`, or 0 when malformed (RFC 3629: no overlong forms, no surrogates).
size_t utf8_length(std::string_view s, size_t i) {
  auto byte = [&](size_t k) { return k < s.size() ? static_cast<unsigned char>(s[k]) : 0u; };
  auto tail = [&](size_t k) { return (byte(k) & 0xC0) == 0x80; };
  unsigned b = byte(i);
  if (b < 0x80) return 1;
  if (b >= 0xC2 && b <= 0xDF) return tail(i + 1) ? 2 : 0;
  if (b >= 0xE0 && b <= 0xEF) {
    if (b == 0xE0 && byte(i + 1) < 0xA0) return 0;
    if (b == 0xED && byte(i + 1) > 0x9F) return 0;
    return tail(i + 1) && tail(i + 2) ? 3 : 0;
  }
  if (b >= 0xF0 && b <= 0xF4) {
    if (b == 0xF0 && byte(i + 1) < 0x90) return 0;
    if (b == 0xF4 && byte(i + 1) > 0x8F) return 0;
    return tail(i + 1) && tail(i + 2) && tail(i + 3) ? 4 : 0;
  }
  return 0;
}

// yaml-cpp guesses UTF-16 and UTF-32 from NULs and takes 0x04 for the end of its input: neither gets that far.
bool check_characters(std::string_view text, std::vector<Diagnostic>* diagnostics) {
  int line = 1, column = 1;
  for (size_t i = 0; i < text.size();) {
    unsigned char c = static_cast<unsigned char>(text[i]);
    size_t n = utf8_length(text, i);
    if (n == 0 || (c < 0x20 && c != '\n' && c != '\r' && c != '\t')) {
      diagnostics->push_back({Diagnostic::Severity::kError, line, column, "",
                              n == 0 ? "the file is not UTF-8" : "the file holds a control character"});
      return false;
    }
    column = c == '\n' ? 1 : column + 1;
    if (c == '\n') ++line;
    i += n;
  }
  return true;
}

}  // namespace

std::string path_segment(std::string_view key) {
  if (looks_like_secret(key)) return "<hidden>";
  std::string out;
  size_t end = std::min<size_t>(key.size(), 64);
  while (end < key.size() && end > 0 && (static_cast<unsigned char>(key[end]) & 0xC0) == 0x80) --end;
  for (char c : key.substr(0, end)) out += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
  return end < key.size() ? out + "…" : out;
}

std::vector<YamlNode> read_yaml(std::string_view text, std::vector<Diagnostic>* diagnostics) {
  std::vector<YamlNode> documents;
  auto fail = [&](int line, int column, std::string message) {
    diagnostics->push_back({Diagnostic::Severity::kError, line, column, "", std::move(message)});
  };
  if (text.size() > kMaxFileBytes) {
    fail(0, 0, "the file is larger than 1 MiB");
    return documents;
  }
  if (!check_characters(text, diagnostics)) return documents;

  size_t nodes = 0, seen = 0;
  try {
    std::istringstream in{std::string(text)};
    YAML::Parser parser(in);
    while (true) {
      Builder builder(&nodes, diagnostics);
      if (!parser.HandleNextDocument(builder)) break;
      YamlNode root = builder.take();
      if (++seen > kMaxDocuments) {
        fail(root.line, root.column, "the file has more than 16 documents: split it");
        break;
      }
      if (root.kind != Kind::kNull) documents.push_back(std::move(root));
    }
  } catch (const Stop&) {
  } catch (const YAML::Exception& e) {
    fail(e.mark.line + 1, e.mark.column + 1, "not valid YAML: " + e.msg +
                                                    (e.msg.find("anchor") == std::string::npos
                                                         ? ""
                                                         : " (text that begins with '*' needs quotes)"));
  } catch (const std::exception&) {
    fail(0, 0, "not valid YAML");
  }
  return documents;
}

}  // namespace bottle
