// What a credential plugin prints may be anything: a credential that comes out is one that can be sent.
#include <cstdint>
#include <string_view>

#include "controller/kube/client.h"
#include "controller/kube/credentials.h"
#include "controller/kube/exec_plugin.h"
#include "tests/fuzz/require.h"

using namespace bottle;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  for (auto version : {kube::kExecV1, kube::kExecV1Beta1}) {
    auto credential = kube::parse_exec_credential(text, version);
    if (!credential) {
      require(credential.status().message().find("fuzz-s3cret") == std::string::npos, "no secret in a message");
      continue;
    }
    require(!credential->token.empty() || !credential->certificate.empty(), "something to send");
    for (unsigned char c : credential->token.expose()) require(c > 0x20 && c != 0x7f, "fit for a header");
    if (!credential->certificate.empty()) require(kube::check_pair(credential->certificate).is_ok(), "a pair");
  }
  // The other JSON that comes from outside: a refusal of the API server.
  kube::Answer answer;
  answer.code = 422;
  answer.body = std::string(text);
  kube::decode_status(&answer);
  require(!answer.reason.empty(), "a reason");
  const Status refusal = answer.status("fuzz");
  for (unsigned char c : refusal.message()) require(c >= 0x20 && c != 0x7f, "fit for a terminal");
  return 0;
}
