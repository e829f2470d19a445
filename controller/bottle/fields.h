// Typed reading of a YamlNode tree. Every function reports what is wrong and goes on, so that one run tells every
// error of a file.
#ifndef CONTROLLER_BOTTLE_FIELDS_H_
#define CONTROLLER_BOTTLE_FIELDS_H_

#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "controller/bottle/yaml_reader.h"

namespace bottle {

// A node and the path that leads to it. Empty: the field is absent (or null, which Kubernetes takes for absent).
struct Value {
  const YamlNode* node = nullptr;
  std::string path;
  explicit operator bool() const { return node != nullptr; }
};

class Report {
 public:
  explicit Report(std::vector<Diagnostic>* out) : out_(out) {}

  void error(const Value& at, std::string message);
  void error(int line, int column, std::string path, std::string message);
  // For rules that look at a Bottle and not at the tree: the position is where `path` was read, or its nearest parent.
  void error_at(const std::string& path, std::string message);
  void warn(const Value& at, std::string message);

  void remember(const Value& at) { seen_[at.path] = {at.node->line, at.node->column}; }
  bool read(const std::string& path) const { return seen_.count(path) != 0; }
  int line_of(const std::string& path) const;

 private:
  std::pair<int, int> place(std::string path) const;
  std::vector<Diagnostic>* out_;
  std::map<std::string, std::pair<int, int>> seen_;
};

// The fields of one mapping. When it goes out of scope, fields that nobody asked for are reported as unknown, and
// required ones as missing unless an unknown one is a misspelling of them: one mistake is told once.
class Fields {
 public:
  Fields(const Value& map, Report& report);
  ~Fields();
  Fields(const Fields&) = delete;
  Fields& operator=(const Fields&) = delete;

  Value get(std::string_view name);
  Value required(std::string_view name);
  bool has(std::string_view name);         // present, also as null
  void ignore(std::initializer_list<std::string_view> names);
  // Reports `message` if the field is there.
  void refuse(std::string_view name, const std::string& message);

 private:
  const YamlNode::Entry* find(std::string_view name) const;
  Value map_;
  Report& report_;
  bool valid_ = false;
  std::vector<std::string_view> known_;
  std::vector<std::string_view> missing_;
};

// All: nothing for an absent Value; nothing and a report for a wrong one.
std::optional<std::string> read_string(const Value& value, Report& report);
std::optional<bool> read_bool(const Value& value, Report& report);
std::optional<int64_t> read_int(const Value& value, int64_t low, int64_t high, Report& report);
// More than `most` values are an error, and none of them is read.
std::vector<Value> read_list(const Value& value, Report& report, bool may_be_empty = true, size_t most = SIZE_MAX);
std::vector<std::string> read_strings(const Value& value, Report& report, size_t most = SIZE_MAX);

template <class E>
std::optional<E> read_enum(const Value& value, std::initializer_list<std::pair<std::string_view, E>> choices,
                           Report& report);

// The text of a string field through a canonical_… or parse_… function; its error becomes the report.
template <class F>
auto read_as(const Value& value, F canonical, Report& report)
    -> std::optional<std::decay_t<decltype(*canonical(std::string_view()))>>;

// A value in a message: quoted, shortened, and hidden when it looks like a credential.
std::string quoted(std::string_view text);
// The nearest candidate by edit distance, or empty when none is near.
std::string_view nearest(std::string_view word, const std::vector<std::string_view>& candidates);

void report_choice(const Value& value, std::string_view text, const std::vector<std::string_view>& names,
                   Report& report);
void report_invalid(const Value& value, std::string_view text, const Status& status, Report& report);

template <class E>
std::optional<E> read_enum(const Value& value, std::initializer_list<std::pair<std::string_view, E>> choices,
                           Report& report) {
  auto text = read_string(value, report);
  if (!text) return std::nullopt;
  std::vector<std::string_view> names;
  for (const auto& [name, choice] : choices) {
    if (name == *text) return choice;
    names.push_back(name);
  }
  report_choice(value, *text, names, report);
  return std::nullopt;
}

template <class F>
auto read_as(const Value& value, F canonical, Report& report)
    -> std::optional<std::decay_t<decltype(*canonical(std::string_view()))>> {
  auto text = read_string(value, report);
  if (!text) return std::nullopt;
  auto result = canonical(std::string_view(*text));
  if (result.is_ok()) return std::move(*result);
  report_invalid(value, *text, result.status(), report);
  return std::nullopt;
}

}  // namespace bottle

#endif  // CONTROLLER_BOTTLE_FIELDS_H_
