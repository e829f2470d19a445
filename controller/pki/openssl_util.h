// Owning pointers for OpenSSL's types and its error queue as a Status. Private to this folder.
#ifndef CONTROLLER_PKI_OPENSSL_UTIL_H_
#define CONTROLLER_PKI_OPENSSL_UTIL_H_

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pkcs12.h>
#include <openssl/x509.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace bottle::pki {

template <auto free_fn>
struct Free {
  template <class T>
  void operator()(T* p) const {
    free_fn(p);
  }
};
using BioPtr = std::unique_ptr<BIO, Free<BIO_free_all>>;
using X509Ptr = std::unique_ptr<X509, Free<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;

// What OpenSSL says about the last failure of this thread; empties its queue. The queue names functions and reasons, never data.
Status openssl_error(Code code, const std::string& what);

BioPtr reader(std::string_view bytes);
std::string drain(BIO* bio);
std::string cert_to_pem(X509* cert);
// "sha256:<hex>" of the DER certificate; empty on failure.
std::string fingerprint(X509* cert);
// Unix seconds; 0 when the time cannot be read.
int64_t unix_seconds(const ASN1_TIME* time);

// Every certificate of a PEM text, in order; text between blocks is dropped. kInvalid for a block that is no certificate.
Result<std::vector<X509Ptr>> read_certificates(std::string_view pem, const std::string& what);

}  // namespace bottle::pki

#endif  // CONTROLLER_PKI_OPENSSL_UTIL_H_
