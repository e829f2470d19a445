#include "controller/kube/credentials.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <mutex>

#include "base/encoding.h"
#include "base/file.h"
#include "base/log.h"

namespace bottle::kube {
namespace {

// client-go transport/token_source.go: a token lives 1 min for us and is read again 10 s before that; transport/cert_rotation.go: 5 min.
constexpr auto kTokenPeriod = std::chrono::seconds(60) - std::chrono::seconds(10);
constexpr auto kCertificatePeriod = std::chrono::minutes(5);
constexpr size_t kMaxTokenBytes = 1u << 20, kMaxPemBytes = 1u << 20;

Result<SecretString> read_secret(const std::string& path, size_t max) {
  auto text = read_file(path, max);
  if (!text) return text.status();
  return SecretString(std::move(*text));
}

class Written : public Credentials {
 public:
  explicit Written(WrittenCredentials from) : from_(std::move(from)) {
    if (!from_.now) from_.now = [] { return std::chrono::steady_clock::now(); };
  }

  Status first_read() {
    std::lock_guard lock(mutex_);
    if (!from_.token_file.empty()) {
      if (auto s = read_token(); !s) return s;
    } else if (!from_.token.empty()) {
      auto token = clean_token(from_.token.expose(), "the token");
      if (!token) return token.status();
      from_.token = std::move(*token);
    }
    return read_certificate();
  }

  Result<SecretString> token() override {
    std::lock_guard lock(mutex_);
    return token_locked();
  }

  Result<SecretString> authorization() override {
    std::lock_guard lock(mutex_);
    auto token = token_locked();
    if (!token) return token;
    if (!token->empty()) return SecretString("Bearer " + std::string(token->expose()));
    if (from_.username.empty()) return SecretString();
    SecretString pair(from_.username + ":" + std::string(from_.password.expose()));
    return SecretString("Basic " + base64(pair.expose()));
  }

  Result<ClientCertificate> certificate() override {
    std::lock_guard lock(mutex_);
    if (has_certificate_files() && from_.now() - certificate_read_ >= kCertificatePeriod) {
      auto s = read_certificate();
      if (!s) log::warn("cannot read the client certificate again: going on with the old one", {{"reason", s.message()}});
    }
    return ClientCertificate{certificate_.cert_pem, certificate_.key_pem.clone()};
  }

  uint64_t certificate_generation() override {
    std::lock_guard lock(mutex_);
    return generation_;
  }

  void rejected() override {
    std::lock_guard lock(mutex_);
    token_good_ = false;
    certificate_read_ = {};
  }

 private:
  bool has_certificate_files() const { return !from_.cert_file.empty() || !from_.key_file.empty(); }

  Result<SecretString> token_locked() {
    if (!from_.token_file.empty() && (!token_good_ || from_.now() - token_read_ >= kTokenPeriod)) {
      auto s = read_token();
      if (!s) log::warn("cannot read the token again: going on with the old one", {{"reason", s.message()}});
    }
    return from_.token.clone();
  }

  Status read_token() {
    token_read_ = from_.now();
    token_good_ = true;  // also after a failure: the next try is a period away
    auto text = read_secret(from_.token_file, kMaxTokenBytes);
    if (!text) return text.status();
    auto token = clean_token(text->expose(), from_.token_file);
    if (!token) return token.status();
    from_.token = std::move(*token);
    return Status::ok();
  }

  Status read_certificate() {
    certificate_read_ = from_.now();
    ClientCertificate pair{from_.certificate.cert_pem, from_.certificate.key_pem.clone()};
    if (pair.cert_pem.empty() && !from_.cert_file.empty()) {
      auto text = read_file(from_.cert_file, kMaxPemBytes);
      if (!text) return text.status();
      pair.cert_pem = std::move(*text);
    }
    if (pair.key_pem.empty() && !from_.key_file.empty()) {
      auto text = read_secret(from_.key_file, kMaxPemBytes);
      if (!text) return text.status();
      pair.key_pem = std::move(*text);
    }
    if (pair.cert_pem.empty() && pair.key_pem.empty()) return Status::ok();
    // A file may be half of a renewal.
    if (auto s = check_pair(pair); !s) return s;
    bool same = pair.cert_pem == certificate_.cert_pem && pair.key_pem.expose() == certificate_.key_pem.expose();
    if (same) return Status::ok();
    certificate_ = std::move(pair);
    ++generation_;
    return Status::ok();
  }

  std::mutex mutex_;
  WrittenCredentials from_;
  std::chrono::steady_clock::time_point token_read_{}, certificate_read_{};
  bool token_good_ = false;
  ClientCertificate certificate_;
  uint64_t generation_ = 0;
};

}  // namespace

Result<SecretString> Credentials::authorization() {
  auto t = token();
  if (!t || t->empty()) return t;
  return SecretString("Bearer " + std::string(t->expose()));
}

Result<SecretString> clean_token(std::string_view text, const std::string& what) {
  auto space = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!text.empty() && space(text.front())) text.remove_prefix(1);
  while (!text.empty() && space(text.back())) text.remove_suffix(1);
  if (text.empty()) return Status(Code::kInvalid, what + ": the token is empty");
  for (unsigned char c : text)
    if (c < 0x21 || c == 0x7f) return Status(Code::kInvalid, what + ": the token holds a space or a control character");
  return SecretString(std::string(text));
}

Status check_pair(const ClientCertificate& pair) {
  if (pair.cert_pem.empty()) return Status(Code::kInvalid, "a client key without a certificate: set client-certificate too");
  if (pair.key_pem.empty()) return Status(Code::kInvalid, "a client certificate without a key: set client-key too");
  auto reader = [](std::string_view pem) {
    return std::unique_ptr<BIO, decltype(&BIO_free_all)>(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), BIO_free_all);
  };
  // Never the terminal, which is what OpenSSL asks when it is given nothing.
  auto no_passphrase = [](char*, int, int, void*) { return -1; };
  std::unique_ptr<X509, decltype(&X509_free)> cert(PEM_read_bio_X509(reader(pair.cert_pem).get(), nullptr, no_passphrase, nullptr), X509_free);
  if (!cert) return Status(Code::kInvalid, "the client certificate is not a certificate in PEM");
  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(
      PEM_read_bio_PrivateKey(reader(pair.key_pem.expose()).get(), nullptr, no_passphrase, nullptr), EVP_PKEY_free);
  if (!key) return Status(Code::kInvalid, "the client key is not a private key in PEM without a passphrase");
  if (X509_check_private_key(cert.get(), key.get()) != 1) return Status(Code::kInvalid, "the client key is not the key of the client certificate");
  return Status::ok();
}

Result<std::shared_ptr<Credentials>> make_credentials(WrittenCredentials from) {
  auto written = std::make_shared<Written>(std::move(from));
  if (auto s = written->first_read(); !s) return s;
  return std::shared_ptr<Credentials>(std::move(written));
}

}  // namespace bottle::kube
