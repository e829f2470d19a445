#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include "controller/pki/openssl_util.h"
#include "controller/pki/pki.h"

namespace bottle::pki {
namespace {

constexpr int64_t kDay = 86'400;
constexpr int64_t kLifetime = 365 * kDay;
constexpr int64_t kBackdate = 3'600;

using ExtensionPtr = std::unique_ptr<X509_EXTENSION, Free<X509_EXTENSION_free>>;

bool add_extension(X509* cert, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, cert, cert, nullptr, nullptr, 0);
  ExtensionPtr e(X509V3_EXT_conf_nid(nullptr, &context, nid, value));
  return e && X509_add_ext(cert, e.get(), -1) == 1;
}

bool set_random_serial(X509* cert) {
  unsigned char bytes[16];  // RFC 5280: positive, at most 20 octets; 126 random bits keep two CAs of one name apart
  if (RAND_bytes(bytes, sizeof bytes) != 1) return false;
  bytes[0] = static_cast<unsigned char>((bytes[0] & 0x3f) | 0x40);
  std::unique_ptr<BIGNUM, Free<BN_free>> number(BN_bin2bn(bytes, sizeof bytes, nullptr));
  return number && BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(cert)) != nullptr;
}

bool set_name(X509* cert) {
  X509_NAME* name = X509_get_subject_name(cert);
  auto add = [&](const char* field, const char* value) {
    return X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(value), -1, -1, 0) == 1;
  };
  return add("O", "claude-bottle") && add("CN", "claude-bottle egress CA") && X509_set_issuer_name(cert, name) == 1;
}

// PKCS#8 through memory that OpenSSL overwrites when it frees it.
SecretString key_to_pem(EVP_PKEY* key) {
  BioPtr out(BIO_new(BIO_s_secmem()));
  if (!out || PEM_write_bio_PKCS8PrivateKey(out.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1) return SecretString();
  return SecretString(drain(out.get()));
}

Result<CertificateAuthority> describe(X509* cert, EVP_PKEY* key) {
  CertificateAuthority ca;
  ca.cert_pem = cert_to_pem(cert);
  ca.key_pem = key_to_pem(key);
  ca.fingerprint = fingerprint(cert);
  ca.not_after = unix_seconds(X509_get0_notAfter(cert));
  if (ca.cert_pem.empty() || ca.key_pem.empty() || ca.fingerprint.empty() || ca.not_after == 0)
    return openssl_error(Code::kInternal, "encode the egress CA");
  return ca;
}

}  // namespace

void PrivateKeyDelete::operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }

Result<PrivateKey> make_key(KeyType type) {
  PrivateKey key;
  if (type == KeyType::kRsa2048) {
    key.reset(EVP_RSA_gen(2048));
  } else if (type == KeyType::kEcdsaP256) {
    key.reset(EVP_EC_gen("P-256"));
  } else {
    return {Code::kInvalid, "make the egress CA: the key type must be chosen (RSA-2048 or ECDSA P-256)"};
  }
  if (!key) return openssl_error(Code::kInternal, "make the egress CA's key");
  return key;
}

Result<CertificateAuthority> make_egress_ca(KeyType type, int64_t now) {
  auto key = make_key(type);
  if (!key) return key.status();
  return make_egress_ca(std::move(*key), now);
}

Result<CertificateAuthority> make_egress_ca(PrivateKey key, int64_t now) {
  if (!key) return {Code::kInvalid, "make the egress CA: no key"};
  X509Ptr cert(X509_new());
  if (!cert || X509_set_version(cert.get(), X509_VERSION_3) != 1 || !set_random_serial(cert.get()) || !set_name(cert.get()) ||
      !ASN1_TIME_set(X509_getm_notBefore(cert.get()), static_cast<time_t>(now - kBackdate)) ||
      !ASN1_TIME_set(X509_getm_notAfter(cert.get()), static_cast<time_t>(now + kLifetime)) ||
      X509_set_pubkey(cert.get(), key.get()) != 1 || !add_extension(cert.get(), NID_basic_constraints, "critical,CA:TRUE") ||
      !add_extension(cert.get(), NID_key_usage, "critical,keyCertSign,cRLSign") ||
      !add_extension(cert.get(), NID_subject_key_identifier, "hash") || X509_sign(cert.get(), key.get(), EVP_sha256()) == 0)
    return openssl_error(Code::kInternal, "make the egress CA's certificate");
  return describe(cert.get(), key.get());
}

SecretString mitmproxy_pem(const CertificateAuthority& ca) {
  std::string both;
  both.reserve(ca.key_pem.size() + ca.cert_pem.size());  // no growth: a grown string leaves the key behind in freed memory
  both.append(ca.key_pem.expose()).append(ca.cert_pem);
  return SecretString(std::move(both));
}

Result<CertificateAuthority> load_ca(std::string_view cert_pem, std::string_view key_pem) {
  auto certs = read_certificates(cert_pem, "the CA's certificate");
  if (!certs) return certs.status();
  if (certs->size() != 1) return {Code::kInvalid, "the CA's certificate file must hold exactly one certificate"};
  X509* cert = certs->front().get();
  BioPtr in = reader(key_pem);
  // An encrypted key would make OpenSSL ask on the terminal; the empty password makes it fail instead.
  KeyPtr key(in ? PEM_read_bio_PrivateKey(in.get(), nullptr, nullptr, const_cast<char*>("")) : nullptr);
  if (!key) return openssl_error(Code::kInvalid, "read the CA's private key");
  if (X509_check_private_key(cert, key.get()) != 1)
    return openssl_error(Code::kInvalid, "the CA's certificate and private key do not belong together");
  if (X509_check_ca(cert) != 1) return {Code::kInvalid, "the CA's certificate is not one of a certificate authority"};
  return describe(cert, key.get());
}

bool needs_renewal(const CertificateAuthority& ca, int64_t now) {
  auto certs = read_certificates(ca.cert_pem, "the CA's certificate");
  if (!certs || certs->size() != 1) return true;
  const int64_t from = unix_seconds(X509_get0_notBefore(certs->front().get())), to = unix_seconds(X509_get0_notAfter(certs->front().get()));
  return now >= from + (to - from) / 3 * 2;
}

}  // namespace bottle::pki
