// Per-bottle certificate authorities and trust stores, in process with OpenSSL 3 (EVP). Any thread.
// Source: RFC 5280; what mitmproxy and strict clients (Python >= 3.13, X509_V_FLAG_X509_STRICT) need: docs/design.md.
#ifndef CONTROLLER_PKI_PKI_H_
#define CONTROLLER_PKI_PKI_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/secret.h"
#include "base/status.h"
#include "controller/bottle/bottle.h"

typedef struct evp_pkey_st EVP_PKEY;

namespace bottle::pki {

struct CertificateAuthority {
  std::string cert_pem;
  SecretString key_pem;     // PKCS#8, unencrypted
  std::string fingerprint;  // "sha256:<hex>" of the DER certificate
  int64_t not_after = 0;    // Unix seconds
};

// O=claude-bottle, CN=claude-bottle egress CA; 365 days from `now` (Unix seconds), back-dated by one hour for skewed clocks;
// basicConstraints critical CA:TRUE, keyUsage critical keyCertSign+cRLSign, subjectKeyIdentifier = SHA-1 of the public key.
// `type` is kRsa2048 or kEcdsaP256.
Result<CertificateAuthority> make_egress_ca(KeyType type, int64_t now);

// The two halves of it, for who makes keys ahead: an RSA key costs 0.1-0.2 s of CPU, the certificate 2 ms.
struct PrivateKeyDelete {
  void operator()(EVP_PKEY* key) const;
};
using PrivateKey = std::unique_ptr<EVP_PKEY, PrivateKeyDelete>;
Result<PrivateKey> make_key(KeyType type);
Result<CertificateAuthority> make_egress_ca(PrivateKey key, int64_t now);

// Certificate and key in one PEM, as mitmproxy's confdir/mitmproxy-ca.pem wants it.
SecretString mitmproxy_pem(const CertificateAuthority& ca);

// Reads a CA back (for `up` on an existing bottle). Fails when key and certificate do not belong together.
Result<CertificateAuthority> load_ca(std::string_view cert_pem, std::string_view key_pem);

// True once two thirds of the lifetime have passed.
bool needs_renewal(const CertificateAuthority& ca, int64_t now);

// PEM bundle: `roots` (PEM, as of ca-certificates; comments dropped, each certificate checked) + `extra` certificates; no duplicates.
Result<std::string> make_bundle(std::string_view roots_pem, std::string_view extra_pem);

// PKCS#12 trust store that `keytool -list` shows as trustedCertEntry and Java reads; password "changeit" (it protects nothing:
// the store holds public certificates). Deterministic order.
Result<std::string> make_java_trust_store(std::string_view bundle_pem, std::string_view password = "changeit");

}  // namespace bottle::pki

#endif  // CONTROLLER_PKI_PKI_H_
