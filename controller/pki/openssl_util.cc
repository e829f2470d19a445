#include "controller/pki/openssl_util.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <time.h>

#include <cstring>

#include "base/encoding.h"

namespace bottle::pki {

Status openssl_error(Code code, const std::string& what) {
  std::string reason = "unknown error";
  if (const unsigned long e = ERR_peek_last_error()) {
    const char* text = ERR_reason_error_string(e);
    reason = text ? text : "error " + std::to_string(e);
  }
  ERR_clear_error();
  return {code, what + ": " + reason};
}

BioPtr reader(std::string_view bytes) { return BioPtr(BIO_new_mem_buf(bytes.data(), static_cast<int>(bytes.size()))); }

std::string drain(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return size > 0 ? std::string(data, static_cast<size_t>(size)) : std::string();
}

std::string cert_to_pem(X509* cert) {
  BioPtr out(BIO_new(BIO_s_mem()));
  return out && PEM_write_bio_X509(out.get(), cert) == 1 ? drain(out.get()) : std::string();
}

std::string fingerprint(X509* cert) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  if (X509_digest(cert, EVP_sha256(), digest, &size) != 1) return {};
  return "sha256:" + hex({reinterpret_cast<const char*>(digest), size});
}

int64_t unix_seconds(const ASN1_TIME* time) {
  tm parts{};
  return time && ASN1_TIME_to_tm(time, &parts) == 1 ? static_cast<int64_t>(timegm(&parts)) : 0;
}

Result<std::vector<X509Ptr>> read_certificates(std::string_view pem, const std::string& what) {
  if (pem.size() > (64u << 20)) return {Code::kExhausted, what + " is larger than 64 MiB"};
  std::vector<X509Ptr> out;
  BioPtr in = reader(pem);
  if (!in) return openssl_error(Code::kInternal, what);
  for (;;) {
    char *name = nullptr, *header = nullptr;
    unsigned char* der = nullptr;
    long size = 0;
    if (PEM_read_bio(in.get(), &name, &header, &der, &size) != 1) {
      if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
        return openssl_error(Code::kInvalid, what + ": certificate " + std::to_string(out.size() + 1) + " is damaged");
      ERR_clear_error();  // the end
      return out;
    }
    const bool is_cert = std::strcmp(name, PEM_STRING_X509) == 0 || std::strcmp(name, PEM_STRING_X509_OLD) == 0;
    const unsigned char* p = der;
    X509Ptr cert(is_cert ? d2i_X509(nullptr, &p, size) : nullptr);
    const bool whole = cert && p == der + size;
    const std::string kind = name;
    OPENSSL_free(name);
    OPENSSL_free(header);
    OPENSSL_clear_free(der, static_cast<size_t>(size));  // it may be a key that has no business here
    if (!is_cert) return {Code::kInvalid, what + " holds a block that is no certificate: " + kind};
    if (!whole) return openssl_error(Code::kInvalid, what + ": certificate " + std::to_string(out.size() + 1) + " is malformed");
    out.push_back(std::move(cert));
  }
}

}  // namespace bottle::pki
