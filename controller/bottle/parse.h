// Bottle files: YAML or JSON, one or several documents (Bottle, and v1 Secret for the laptop). Pure; any thread.
#ifndef CONTROLLER_BOTTLE_PARSE_H_
#define CONTROLLER_BOTTLE_PARSE_H_

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/secret.h"
#include "controller/bottle/bottle.h"

namespace bottle {

struct Diagnostic {
  enum class Severity { kError, kWarning } severity = Severity::kError;
  int line = 0;        // 1-based; 0 = the whole file
  int column = 0;
  std::string path;    // "spec.egress.routes[1].hots"
  std::string message; // 'unknown field, did you mean "host"?'; never holds a secret value
};

struct BottleFile {
  std::vector<Bottle> bottles;
  std::map<SecretKeyRef, SecretString> secrets;  // from kind: Secret documents (data and stringData)
  std::vector<Diagnostic> diagnostics;           // every error of the file at once, in file order
  bool ok() const;                               // no errors; only then are `bottles` to be used
};

// Bounds: 1 MiB, 16 documents, depth 32, 20,000 nodes counted after alias expansion (aliases are refused).
BottleFile parse_bottle_file(std::string_view text);

// "hello.yaml:7:5: error: spec.egress.routes[1].hots: unknown field, did you mean \"host\"?"
std::string to_string(const Diagnostic& d, std::string_view file_name);

// The normalised resource with every default filled in, as JSON (for `get -o json`, state files and the parser's own tests):
// parsing it again gives the same Bottle.
std::string render_bottle_json(const Bottle& bottle);

// The environment variable, and the token file, that hold a Secret's key: BOT_BOTTLE_TOKEN_<NAME>_<KEY>, letters in upper case,
// anything else '_'. Two refs of one bottle that would share a name are a validation error.
std::string token_env_name(const SecretKeyRef& ref);

}  // namespace bottle

#endif  // CONTROLLER_BOTTLE_PARSE_H_
