// The trust files of a bottle on a cluster, where no one but the guard has the public roots and the bottle's CA in one place before the
// agent starts. Public certificates alone: the CA's key never comes here. One thread.
#ifndef SIDECARS_GUARD_TRUST_H_
#define SIDECARS_GUARD_TRUST_H_

#include <string>

#include "base/status.h"

namespace bottle::guard {

struct TrustPaths {
  std::string ca = "/etc/bot-bottle/ca/ca.pem";                // the egress CA's certificate
  std::string roots = "/etc/ssl/certs/ca-certificates.crt";    // the image's own public roots
  std::string trust_in;      // static files for the agent, copied; empty = none
  std::string upstream_in;   // additional roots for upstream TLS, any file names; empty = none
  std::string trust_out = "/run/bot-bottle/trust";
  std::string upstream_out = "/run/bot-bottle/upstream";
};

// Writes trust_out/{ca.pem, bundle.pem, truststore.p12, what is in trust_in} and upstream_out/upstream-ca.pem, each whole or not at all,
// readable by everyone. Both folders exist.
Status write_trust(const TrustPaths& paths);

}  // namespace bottle::guard

#endif  // SIDECARS_GUARD_TRUST_H_
