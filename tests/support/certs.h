// Certificates of the test world, made in the process: nothing secret is kept on disk and nothing expires in the repository.
#ifndef TESTS_SUPPORT_CERTS_H_
#define TESTS_SUPPORT_CERTS_H_

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <string>
#include <vector>

namespace world {

struct Cert {  // owned by the process until it ends
  X509* x509 = nullptr;
  EVP_PKEY* key = nullptr;
};

inline void add_extension(X509* x, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX ctx;
  X509V3_set_ctx_nodb(&ctx);
  X509V3_set_ctx(&ctx, issuer, x, nullptr, nullptr, 0);
  X509_EXTENSION* e = X509V3_EXT_conf_nid(nullptr, &ctx, nid, value.c_str());
  X509_add_ext(x, e, -1);
  X509_EXTENSION_free(e);
}

inline Cert make(const std::string& name, const Cert* issuer, const std::vector<std::string>& names, long lifetime_s) {
  Cert c{X509_new(), EVP_EC_gen("P-256")};
  X509_set_version(c.x509, 2);
  static long serial = 1000;
  ASN1_INTEGER_set(X509_get_serialNumber(c.x509), ++serial);
  X509_gmtime_adj(X509_getm_notBefore(c.x509), -2 * 86400);
  X509_gmtime_adj(X509_getm_notAfter(c.x509), lifetime_s);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(c.x509), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509* by = issuer ? issuer->x509 : c.x509;
  X509_set_issuer_name(c.x509, X509_get_subject_name(by));
  X509_set_pubkey(c.x509, c.key);
  add_extension(c.x509, by, NID_subject_key_identifier, "hash");
  add_extension(c.x509, by, NID_authority_key_identifier, "keyid");
  add_extension(c.x509, by, NID_basic_constraints, issuer ? "critical,CA:FALSE" : "critical,CA:TRUE");
  add_extension(c.x509, by, NID_key_usage, issuer ? "critical,digitalSignature" : "critical,keyCertSign,cRLSign");
  std::string san;
  for (const auto& n : names) san += (san.empty() ? "" : ",") + n;
  if (!san.empty()) {
    add_extension(c.x509, by, NID_subject_alt_name, san);
    add_extension(c.x509, by, NID_ext_key_usage, "serverAuth");
  }
  X509_sign(c.x509, issuer ? issuer->key : c.key, EVP_sha256());
  return c;
}

inline Cert make_ca(const std::string& name) { return make(name, nullptr, {}, 30 * 86400); }
inline Cert make_leaf(const Cert& ca, const std::vector<std::string>& names, long lifetime_s = 7 * 86400) {
  return make("origin", &ca, names, lifetime_s);
}

inline void write_pem(const std::string& path, const Cert& c) {
  if (FILE* f = fopen(path.c_str(), "w")) {
    PEM_write_X509(f, c.x509);
    fclose(f);
  }
}

}  // namespace world

#endif  // TESTS_SUPPORT_CERTS_H_
