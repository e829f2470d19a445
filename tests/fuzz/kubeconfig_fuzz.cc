// Kubeconfig takes any bytes; a Config that comes out has an address that is one, and no message shows a credential.
#include <cstdint>
#include <string>
#include <vector>

#include "base/log.h"
#include "controller/kube/kubeconfig.h"
#include "tests/fuzz/require.h"

using namespace bottle;

namespace {

// Names and keys are shown in messages; what stands as a token, a password or a key is not, unless the file says it elsewhere too.
void require_hidden(const YamlNode& node, std::string_view text, const std::string& message) {
  for (const auto& item : node.items) require_hidden(item, text, message);
  for (const auto& e : node.entries) {
    require_hidden(e.value, text, message);
    const std::string& value = e.value.text;
    if (e.key != "token" && e.key != "password" && e.key != "client-key-data") continue;
    size_t at = value.size() < 8 ? text.npos : text.find(value);
    if (at == text.npos || text.find(value, at + 1) != text.npos) continue;
    require(message.find(value) == message.npos, "no secret in a message");
  }
}

void check_message(const Status& status, std::string_view text) {
  std::vector<Diagnostic> ignored;
  for (const auto& document : read_yaml(text, &ignored)) require_hidden(document, text, status.message());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 65536) return 0;
  log::set_level(log::Level::kError);
  std::string_view text(reinterpret_cast<const char*>(data), size);
  kube::Kubeconfig merged;
  // Files that it names are looked for in a folder that does not exist.
  Status s = merged.add(text, "/nonexistent/folder/config");
  if (!s) {
    check_message(s, text);
    return 0;
  }
  (void)merged.add(text, "/nonexistent/other/config");  // the same again changes nothing
  for (const char* context : {"", "c"}) {
    auto config = merged.select(context);
    if (!config) {
      check_message(config.status(), text);
      continue;
    }
    require(config->credentials != nullptr, "there are credentials");
    require(config->server.starts_with("https://") || config->server.starts_with("http://"), "http or https");
    require(config->server.back() != '/' && config->server.find_first_of(" \t\r\n@?#") == std::string::npos, "a plain address");
    auto again = kube::clean_server(config->server);
    require(again && *again == config->server, "an address is clean at once");
    require(!config->namespace_.empty(), "a namespace");
  }
  return 0;
}
