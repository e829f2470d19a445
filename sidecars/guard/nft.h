// Runs nft and knows, from what the kernel answers, whether the guard's rules are in force. One thread.
#ifndef SIDECARS_GUARD_NFT_H_
#define SIDECARS_GUARD_NFT_H_

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace bottle::guard {

struct NftOutput {
  int exit_code = -1;
  std::string out, err;
};

// Runs /usr/sbin/nft with `args` and `input` on its stdin; kTimeout after 20 s.
Result<NftOutput> run_nft(const std::vector<std::string>& args, std::string_view input = {});

// Loads the rules and the reference in one transaction. A refusal names the kernel module or capability that is missing.
Status load(std::string_view rules, const std::vector<std::string>& resolvers);

// Reads the live table back and compares it with the reference and with the text. The reference must still be loaded.
Status verify(std::string_view rules);

Status drop_reference();

// load + verify + probe + drop_reference: what `apply` and `hold` do. When anything fails the live table stays loaded: a table
// that is not quite right refuses more than none.
Status load_and_verify(std::string_view rules, const std::vector<std::string>& resolvers);

// Sends one datagram to the engine's resolver address (127.0.0.11:53), which the rules refuse to everyone: OK when it is refused,
// and where there is no such route.
Status probe_in_force();

}  // namespace bottle::guard

#endif  // SIDECARS_GUARD_NFT_H_
