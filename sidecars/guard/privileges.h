// Giving up what the guard no longer needs. One thread, once.
#ifndef SIDECARS_GUARD_PRIVILEGES_H_
#define SIDECARS_GUARD_PRIVILEGES_H_

#include <string>

#include "base/status.h"

namespace bottle::guard {

// No new privileges, not dumpable, no capability in any set, and UID/GID 65534 where the container may change them (it has NET_ADMIN
// only, so as a rule it may not: then UID 0 without any capability stays). The result is read back from the kernel. Returns the UID.
Result<int> drop_privileges();

// Whether AF_VSOCK, which netfilter does not see, leads out: "blocked" (no such socket), "no-transport" or "open".
std::string vsock_state();

}  // namespace bottle::guard

#endif  // SIDECARS_GUARD_PRIVILEGES_H_
