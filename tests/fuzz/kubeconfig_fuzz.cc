// Kubeconfig takes any bytes; a Config that comes out has an address that is one, and no message shows a credential.
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/log.h"
#include "controller/kube/kubeconfig.h"

using namespace bottle;

namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "violated: %s\n", what);
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 65536) return 0;
  static const bool quiet = [] {
    log::set_level(log::Level::kError);
    return chdir("/") == 0;
  }();
  (void)quiet;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  kube::Kubeconfig merged;
  // Files that it names are looked for in a folder that does not exist.
  Status s = merged.add(text, "/nonexistent/folder/config");
  if (!s) {
    require(s.message().find("fuzz-s3cret") == std::string::npos, "no secret in a message");
    return 0;
  }
  (void)merged.add(text, "/nonexistent/other/config");  // the same again changes nothing
  for (const char* context : {"", "c"}) {
    auto config = merged.select(context);
    if (!config) {
      require(config.status().message().find("fuzz-s3cret") == std::string::npos, "no secret in a message");
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
