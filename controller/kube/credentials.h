// Credentials that are written down: in the kubeconfig, or in files that somebody renews (the kubelet, cert-manager, a login tool).
#ifndef CONTROLLER_KUBE_CREDENTIALS_H_
#define CONTROLLER_KUBE_CREDENTIALS_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "controller/kube/config.h"

namespace bottle::kube {

using SteadyNow = std::function<std::chrono::steady_clock::time_point()>;

struct WrittenCredentials {
  SecretString token;
  std::string token_file;              // beats `token`
  std::string username;                // Basic, when there is no token
  SecretString password;
  ClientCertificate certificate;       // what came as data
  std::string cert_file, key_file;     // each used where `certificate` has no such part
  SteadyNow now;                       // empty: the steady clock
};

// Reads every file once: an error now rather than with the first request.
Result<std::shared_ptr<Credentials>> make_credentials(WrittenCredentials from);

// kInvalid when the two do not belong together, or the key wants a passphrase.
Status check_pair(const ClientCertificate& pair);

// Without the white space around it. kInvalid when it is empty or holds a control character: it goes into a header.
Result<SecretString> clean_token(std::string_view text, const std::string& what);

}  // namespace bottle::kube

#endif  // CONTROLLER_KUBE_CREDENTIALS_H_
