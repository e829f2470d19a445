#include <openssl/objects.h>

#include <set>

#include "controller/pki/openssl_util.h"
#include "controller/pki/pki.h"

namespace bottle::pki {
namespace {

// Java takes a certificate of a PKCS#12 file for a trust anchor only with this attribute (Oracle's trustedKeyUsage).
constexpr char kTrustedKeyUsage[] = "2.16.840.1.113894.746875.1.1";
constexpr char kAnyExtendedKeyUsage[] = "2.5.29.37.0";
constexpr int kIterations = 10'000;  // Java's own default; the password is public anyway

using ObjectPtr = std::unique_ptr<ASN1_OBJECT, Free<ASN1_OBJECT_free>>;
using AttributePtr = std::unique_ptr<X509_ATTRIBUTE, Free<X509_ATTRIBUTE_free>>;
struct FreeBags {
  void operator()(STACK_OF(PKCS12_SAFEBAG) * s) const { sk_PKCS12_SAFEBAG_pop_free(s, PKCS12_SAFEBAG_free); }
};
struct FreeSafes {
  void operator()(STACK_OF(PKCS7) * s) const { sk_PKCS7_pop_free(s, PKCS7_free); }
};

// An attribute {trustedKeyUsage, SET {anyExtendedKeyUsage}}, made from OIDs: OpenSSL 3.0 has no name for the first, later ones do.
bool add_trusted_key_usage(PKCS12_SAFEBAG* bag) {
  ObjectPtr usage(OBJ_txt2obj(kTrustedKeyUsage, 1)), any(OBJ_txt2obj(kAnyExtendedKeyUsage, 1));
  if (!usage || !any) return false;
  // Length -1: `data` is the object itself, not its bytes.
  AttributePtr attribute(X509_ATTRIBUTE_create_by_OBJ(nullptr, usage.get(), V_ASN1_OBJECT, any.get(), -1));
  // The stack exists since the friendly name went in, and belongs to the bag.
  auto* attributes = const_cast<STACK_OF(X509_ATTRIBUTE)*>(PKCS12_SAFEBAG_get0_attrs(bag));
  if (!attribute || !attributes || sk_X509_ATTRIBUTE_push(attributes, attribute.get()) <= 0) return false;
  attribute.release();
  return true;
}

// Java's aliases are case-insensitive and must differ: the common name for people, the fingerprint's start to be unique.
std::string alias(X509* cert) {
  char name[65] = {};
  X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, name, sizeof name);
  std::string out;
  for (const char* p = name; *p; ++p) {
    const char c = *p >= 'A' && *p <= 'Z' ? static_cast<char>(*p + 32) : *p;
    out += (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ? c : '-';
  }
  return out + "-" + fingerprint(cert).substr(7, 16);
}

}  // namespace

Result<std::string> make_bundle(std::string_view roots_pem, std::string_view extra_pem) {
  std::string out;
  std::set<std::string> seen;
  for (auto [pem, what] : {std::pair{roots_pem, "the root certificates"}, std::pair{extra_pem, "the additional certificates"}}) {
    auto certs = read_certificates(pem, what);
    if (!certs) return certs.status();
    if (certs->empty() && pem.find_first_not_of(" \t\r\n") != pem.npos)
      return {Code::kInvalid, std::string(what) + ": the text holds no certificate"};
    for (const X509Ptr& cert : *certs)
      if (seen.insert(fingerprint(cert.get())).second) out += cert_to_pem(cert.get());
  }
  if (out.empty()) return {Code::kInvalid, "the trust bundle would be empty"};
  return out;
}

Result<std::string> make_java_trust_store(std::string_view bundle_pem, std::string_view password) {
  auto certs = read_certificates(bundle_pem, "the trust bundle");
  if (!certs) return certs.status();
  if (certs->empty()) return {Code::kInvalid, "the trust bundle holds no certificate"};
  const std::string pass(password);
  const auto failed = [] { return openssl_error(Code::kInternal, "make the Java trust store"); };

  STACK_OF(PKCS12_SAFEBAG)* raw_bags = nullptr;
  std::set<std::string> seen;
  bool ok = true;
  for (const X509Ptr& cert : *certs) {
    if (!seen.insert(fingerprint(cert.get())).second) continue;
    PKCS12_SAFEBAG* bag = PKCS12_add_cert(&raw_bags, cert.get());
    ok = bag && PKCS12_add_friendlyname_utf8(bag, alias(cert.get()).c_str(), -1) == 1 && add_trusted_key_usage(bag);
    if (!ok) break;
  }
  std::unique_ptr<STACK_OF(PKCS12_SAFEBAG), FreeBags> bags(raw_bags);
  if (!ok) return failed();
  STACK_OF(PKCS7)* raw_safes = nullptr;
  const int added = PKCS12_add_safe(&raw_safes, bags.get(), NID_aes_256_cbc, kIterations, pass.c_str());
  std::unique_ptr<STACK_OF(PKCS7), FreeSafes> safes(raw_safes);
  if (added != 1) return failed();
  std::unique_ptr<PKCS12, Free<PKCS12_free>> store(PKCS12_add_safes(safes.get(), 0));
  if (!store || PKCS12_set_mac(store.get(), pass.c_str(), -1, nullptr, 0, kIterations, EVP_sha256()) != 1) return failed();
  BioPtr out(BIO_new(BIO_s_mem()));
  if (!out || i2d_PKCS12_bio(out.get(), store.get()) != 1) return failed();
  return drain(out.get());
}

}  // namespace bottle::pki
