#include "controller/kube/config.h"

namespace bottle::kube {

Result<SecretString> Credentials::authorization() {
  auto t = token();
  if (!t || t->empty()) return t;
  return SecretString("Bearer " + std::string(t->expose()));
}

}  // namespace bottle::kube
