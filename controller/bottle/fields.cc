#include "controller/bottle/fields.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "controller/bottle/literal_secret.h"

namespace bottle {
namespace {

using Kind = YamlNode::Kind;

std::string describe(const YamlNode& node) {
  switch (node.kind) {
    case Kind::kNull: return "nothing";
    case Kind::kBool: return "the boolean " + node.text;
    case Kind::kInt:
    case Kind::kFloat: return "the number " + path_segment(node.text);
    case Kind::kString: return "the string " + quoted(node.text);
    case Kind::kList: return "a list";
    case Kind::kMap: return "a mapping";
    case Kind::kAlias: return "an alias";
  }
  return "something else";
}

void report_type(const Value& value, const std::string& wanted, Report& report) {
  if (value.node->kind == Kind::kAlias) return;  // reported by the reader
  report.error(value, "expected " + wanted + ", found " + describe(*value.node));
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

// Optimal string alignment: a swap of neighbours counts once, as typing does it.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

std::string join(const std::vector<std::string_view>& words) {
  std::string out;
  for (std::string_view word : words) out += (out.empty() ? "" : ", ") + std::string(word.empty() ? "\"\"" : word);
  return out;
}

}  // namespace

void Report::error(int line, int column, std::string path, std::string message) {
  out_->push_back({Diagnostic::Severity::kError, line, column, std::move(path), std::move(message)});
}

void Report::error(const Value& at, std::string message) {
  error(at.node->line, at.node->column, at.path, std::move(message));
}

void Report::warn(const Value& at, std::string message) {
  out_->push_back({Diagnostic::Severity::kWarning, at.node->line, at.node->column, at.path, std::move(message)});
}

std::pair<int, int> Report::place(std::string path) const {
  while (!path.empty()) {
    if (auto it = seen_.find(path); it != seen_.end()) return it->second;
    size_t cut = path.find_last_of(".[");
    path.resize(cut == std::string::npos ? 0 : cut);
  }
  auto it = seen_.find("");
  return it == seen_.end() ? std::pair(0, 0) : it->second;
}

void Report::error_at(const std::string& path, std::string message) {
  auto [line, column] = place(path);
  error(line, column, path, std::move(message));
}

int Report::line_of(const std::string& path) const { return place(path).first; }

Fields::Fields(const Value& map, Report& report) : map_(map), report_(report) {
  if (!map_) return;
  if (map_.node->kind != Kind::kMap) {
    report_type(map_, "a mapping", report_);
    return;
  }
  valid_ = true;
  report_.remember(map_);
}

const YamlNode::Entry* Fields::find(std::string_view name) const {
  if (!valid_) return nullptr;
  for (const auto& entry : map_.node->entries) {
    if (entry.key == name) return &entry;
  }
  return nullptr;
}

Value Fields::get(std::string_view name) {
  known_.push_back(name);
  const YamlNode::Entry* entry = find(name);
  if (entry == nullptr || entry->value.kind == Kind::kNull) return {};
  Value value{&entry->value, (map_.path.empty() ? "" : map_.path + ".") + std::string(name)};
  report_.remember(value);
  return value;
}

Value Fields::required(std::string_view name) {
  Value value = get(name);
  if (!value && valid_) missing_.push_back(name);
  return value;
}

bool Fields::has(std::string_view name) { return find(name) != nullptr; }

void Fields::ignore(std::initializer_list<std::string_view> names) { known_.insert(known_.end(), names); }

void Fields::refuse(std::string_view name, const std::string& message) {
  const YamlNode::Entry* entry = find(name);
  if (entry == nullptr) return;
  known_.push_back(name);
  report_.error(entry->line, entry->column, (map_.path.empty() ? "" : map_.path + ".") + std::string(name), message);
}

Fields::~Fields() {
  if (!valid_) return;
  for (const auto& entry : map_.node->entries) {
    if (std::find(known_.begin(), known_.end(), entry.key) != known_.end()) continue;
    std::string_view near = nearest(entry.key, known_);
    missing_.erase(std::remove(missing_.begin(), missing_.end(), near), missing_.end());
    std::string message = "unknown field";
    if (!near.empty()) {
      message += ", did you mean " + quoted(near) + "?";
    } else if (known_.size() <= 12) {
      message += " (known here: " + join(known_) + ")";
    }
    report_.error(entry.line, entry.column, (map_.path.empty() ? "" : map_.path + ".") + path_segment(entry.key),
                  message);
  }
  for (std::string_view name : missing_) {
    const YamlNode::Entry* entry = find(name);
    report_.error(entry ? entry->line : map_.node->line, entry ? entry->column : map_.node->column,
                  (map_.path.empty() ? "" : map_.path + ".") + std::string(name), "required");
  }
}

std::optional<std::string> read_string(const Value& value, Report& report) {
  if (!value) return std::nullopt;
  const YamlNode& node = *value.node;
  if (node.kind == Kind::kString) return node.text;
  if (node.kind == Kind::kBool || node.kind == Kind::kInt || node.kind == Kind::kFloat) {
    report.error(value, "expected a string, found " + describe(node) + ": put it in quotes");
  } else {
    report_type(value, "a string", report);
  }
  return std::nullopt;
}

std::optional<bool> read_bool(const Value& value, Report& report) {
  if (!value) return std::nullopt;
  if (value.node->kind == Kind::kBool) {
    std::string text = lower(value.node->text);
    if (text == "true") return true;
    if (text == "false") return false;
  }
  report_type(value, "true or false", report);
  return std::nullopt;
}

std::optional<int64_t> read_int(const Value& value, int64_t low, int64_t high, Report& report) {
  if (!value) return std::nullopt;
  std::string range = "a whole number from " + std::to_string(low) + " to " + std::to_string(high);
  std::string_view text = value.node->text;
  int64_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  // A leading zero is octal to one YAML reader and decimal to the next.
  bool leading_zero = text.size() > 1 && text[0] == '0';
  if (value.node->kind == Kind::kInt && error == std::errc() && end == text.data() + text.size() && !leading_zero &&
      number >= low && number <= high) {
    return number;
  }
  if (value.node->kind == Kind::kString && error == std::errc() && end == text.data() + text.size()) {
    range += " without quotes";
  }
  report_type(value, range, report);
  return std::nullopt;
}

std::vector<Value> read_list(const Value& value, Report& report, bool may_be_empty, size_t most) {
  std::vector<Value> out;
  if (!value) return out;
  if (value.node->kind != Kind::kList) {
    report_type(value, "a list", report);
    return out;
  }
  if (value.node->items.size() > most) {
    report.error(value, "more than " + std::to_string(most) + " values");
    return out;
  }
  for (const YamlNode& item : value.node->items) {
    out.push_back({&item, value.path + "[" + std::to_string(out.size()) + "]"});
    report.remember(out.back());
  }
  if (out.empty() && !may_be_empty) report.error(value, "is empty: list at least one, or leave the field out");
  return out;
}

std::vector<std::string> read_strings(const Value& value, Report& report, size_t most) {
  std::vector<std::string> out;
  for (const Value& item : read_list(value, report, true, most)) {
    if (auto text = read_string(item, report)) out.push_back(std::move(*text));
  }
  return out;
}

std::string quoted(std::string_view text) {
  if (looks_like_secret(text)) return "(hidden: it looks like a credential)";
  return "\"" + path_segment(text) + "\"";
}

std::string_view nearest(std::string_view word, const std::vector<std::string_view>& candidates) {
  if (word.size() > 64) return {};
  std::string_view best;
  size_t best_distance = std::max<size_t>(1, word.size() / 3) + 1;
  for (std::string_view candidate : candidates) {
    size_t distance = edit_distance(lower(word), lower(candidate));
    if (distance < best_distance && distance < candidate.size()) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

void report_choice(const Value& value, std::string_view text, const std::vector<std::string_view>& names,
                   Report& report) {
  std::string message = quoted(text) + " is not one of " + join(names);
  if (std::string_view near = nearest(text, names); !near.empty()) message += "; did you mean " + quoted(near) + "?";
  report.error(value, message);
}

void report_invalid(const Value& value, std::string_view text, const Status& status, Report& report) {
  std::string_view message = status.message();
  // The canonical functions name what they read; the path says so already.
  for (std::string_view name : {"host: ", "path: ", "method: ", "header: ", "CIDR: "}) {
    if (message.starts_with(name)) message.remove_prefix(name.size());
  }
  report.error(value, looks_like_secret(text) ? "not valid (hidden: it looks like a credential)" : std::string(message));
}

}  // namespace bottle
