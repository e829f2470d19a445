// What the files of the client share. Private to this folder.
#ifndef CONTROLLER_KUBE_CLIENT_INTERNAL_H_
#define CONTROLLER_KUBE_CLIENT_INTERNAL_H_

#include <curl/curl.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "controller/kube/client.h"

namespace bottle::kube {

using Clock = std::chrono::steady_clock;

// Who we are and whom we trust, at one moment. Two of the same `epoch` are the same; connections of different `pool` are not shared.
struct Auth {
  Status error;              // not OK: nothing else is set
  uint64_t epoch = 0;
  uint64_t pool = 0;
  std::string ca_pem;
  ClientCertificate certificate;
  SecretString authorization;  // "Bearer …"; empty without one
};
using AuthPtr = std::shared_ptr<const Auth>;

// Asks the credentials and reads the CA again. May block; one thread at a time.
class AuthSource {
 public:
  explicit AuthSource(const Config& config) : config_(config) {}
  AuthPtr load();
  // The server said 401 to what load() gave last.
  void rejected() { config_.credentials->rejected(); }

 private:
  void refresh_ca();
  const Config& config_;
  std::string ca_pem_;
  Clock::time_point ca_read_{};
  uint64_t certificate_generation_ = 0;
  AuthPtr last_;
};

// configure_easy() with what is known already.
Result<EasyKeepPtr> configure_easy_with(CURL* easy, const Config& config, AuthPtr auth, const std::string& path,
                                        const std::vector<std::string>& headers);

// A failed transfer in our words. `what_curl_said` is libcurl's error buffer.
Status transport_error(CURLcode code, const std::string& what_curl_said, const Config& config);

// "api.example:6443" of a server's URL: what metrics call host.
std::string authority_of(const std::string& server);

void init_curl_once();

}  // namespace bottle::kube

#endif  // CONTROLLER_KUBE_CLIENT_INTERNAL_H_
