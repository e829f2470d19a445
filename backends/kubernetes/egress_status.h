// Asks a bottle's egress what it enforces: GET http://<pod>:9091/status?nonce=<32 hex>. The answer's body is the engine's report with the nonce in
// it; its header Bottle-Mac is HMAC-SHA256 (RFC 2104, hex) over nonce + "\n" + body with the bottle's status key, which only egress and the
// controller can read: an agent that squats the port while egress is down cannot forge it, and a replay has another nonce.
#ifndef BACKENDS_KUBERNETES_EGRESS_STATUS_H_
#define BACKENDS_KUBERNETES_EGRESS_STATUS_H_

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "base/secret.h"
#include "base/status.h"

namespace bottle::kubernetes {

struct EgressStatus {
  std::string policy_hash;             // of what is in force
  bool ready = false;
  std::string error;                   // why the last new policy was not taken
  std::vector<std::string> missing_tokens;  // TokenRef::env
};

// 32 random bytes as hex.
Result<SecretString> make_status_key();

// `ip` v4 or v6. Blocks for at most `timeout`. kUnavailable: nobody answers; kTimeout; kPermission: somebody answered who does not have the key.
Result<EgressStatus> ask_egress(const std::string& ip, uint16_t port, const SecretString& key, std::chrono::milliseconds timeout);
// The pure half: checks an answer. `mac_hex` is the header.
Result<EgressStatus> check_egress_answer(std::string_view nonce, std::string_view body, std::string_view mac_hex, const SecretString& key);

}  // namespace bottle::kubernetes

#endif  // BACKENDS_KUBERNETES_EGRESS_STATUS_H_
