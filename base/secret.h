// SecretString: a credential in memory. It does not print, does not compare in variable time by accident,
// and its bytes are overwritten when it goes away. Not copyable: copies are where secrets leak from.
#ifndef BASE_SECRET_H_
#define BASE_SECRET_H_

#include <openssl/crypto.h>

#include <string>
#include <string_view>
#include <utility>

namespace bottle {

class SecretString {
 public:
  SecretString() = default;
  explicit SecretString(std::string bytes) : bytes_(std::move(bytes)) {}
  SecretString(const SecretString&) = delete;
  SecretString& operator=(const SecretString&) = delete;
  SecretString(SecretString&& other) noexcept { swap(other); }
  SecretString& operator=(SecretString&& other) noexcept {
    wipe();
    swap(other);
    return *this;
  }
  ~SecretString() { wipe(); }

  bool empty() const { return bytes_.empty(); }
  size_t size() const { return bytes_.size(); }
  // For the one place that writes it where it belongs. The view dies with the object.
  std::string_view expose() const { return bytes_; }
  SecretString clone() const { return SecretString(bytes_); }

 private:
  // Short strings live inside the object, so a move copies them: swap and wipe the other side instead.
  void swap(SecretString& other) noexcept {
    bytes_.swap(other.bytes_);
    other.wipe();
  }
  void wipe() noexcept {
    if (!bytes_.empty()) OPENSSL_cleanse(bytes_.data(), bytes_.size());
    bytes_.clear();
  }
  std::string bytes_;
};

}  // namespace bottle

#endif  // BASE_SECRET_H_
