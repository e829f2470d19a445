// YAML (and so JSON) text to a bounded tree with positions. Aliases are refused, not expanded: a bottle file has no
// use for them, and they are how a small file becomes a large one. Pure; any thread.
#ifndef CONTROLLER_BOTTLE_YAML_READER_H_
#define CONTROLLER_BOTTLE_YAML_READER_H_

#include <string>
#include <string_view>
#include <vector>

#include "controller/bottle/parse.h"

namespace bottle {

inline constexpr size_t kMaxFileBytes = 1 << 20;
inline constexpr size_t kMaxDocuments = 16;
inline constexpr size_t kMaxDepth = 32;
inline constexpr size_t kMaxNodes = 20000;

struct YamlNode {
  // kBool also holds yes, no, on and off: a cluster's reader (YAML 1.1) takes them for booleans, so ours must not
  // take them for strings. kAlias was reported already; readers pass over it.
  enum class Kind { kNull, kBool, kInt, kFloat, kString, kList, kMap, kAlias };
  struct Entry;

  Kind kind = Kind::kNull;
  int line = 0, column = 0;    // 1-based
  std::string text;            // of a scalar
  std::vector<YamlNode> items;
  std::vector<Entry> entries;  // keys are unique: later duplicates were reported and dropped
};

struct YamlNode::Entry {
  std::string key;
  int line = 0, column = 0;    // of the key
  YamlNode value;
};

// Documents in file order, empty ones left out. Errors are appended to `diagnostics`; what was read before a syntax
// error is still returned, so that its errors can be told too.
std::vector<YamlNode> read_yaml(std::string_view text, std::vector<Diagnostic>* diagnostics);

// A key as part of a diagnostic's path: shortened, and hidden when it looks like a credential.
std::string path_segment(std::string_view key);

}  // namespace bottle

#endif  // CONTROLLER_BOTTLE_YAML_READER_H_
