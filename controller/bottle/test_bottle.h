// Tiny bottle files for the parser's tests.
#ifndef CONTROLLER_BOTTLE_TEST_BOTTLE_H_
#define CONTROLLER_BOTTLE_TEST_BOTTLE_H_

#include <string>

#include "controller/bottle/parse.h"

namespace bottle {

// The text as the spec's content, from line 5 on.
inline std::string in_spec(const std::string& text) {
  std::string out = "apiVersion: bot-bottle.dev/v1alpha1\nkind: Bottle\nmetadata: { name: t }\nspec:\n";
  bool line_start = true;
  for (char c : text) {
    if (line_start && c != '\n') out += "  ";
    line_start = c == '\n';
    out += c;
  }
  return out;
}

// The text as the only route, on line 9.
inline std::string in_route(const std::string& text) {
  return in_spec("agent: { image: a }\npipelock: { enabled: false }\negress:\n  routes:\n  - " + text);
}

inline std::string repeat(const std::string& text, size_t n) {
  std::string out;
  for (size_t i = 0; i < n; ++i) out += text;
  return out;
}

// "6:3: spec.agent: message" a line.
inline std::string diagnostics_of(const std::string& text) {
  std::string out;
  for (const Diagnostic& d : parse_bottle_file(text).diagnostics) {
    out += std::to_string(d.line) + ":" + std::to_string(d.column) + ": ";
    if (d.severity == Diagnostic::Severity::kWarning) out += "warning: ";
    out += (d.path.empty() ? "" : d.path + ": ") + d.message + "\n";
  }
  return out;
}

struct ErrorCase {
  const char* name;
  std::string text;
  std::string expected;
};

}  // namespace bottle

#endif  // CONTROLLER_BOTTLE_TEST_BOTTLE_H_
