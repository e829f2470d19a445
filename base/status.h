// Status and Result<T>: how every function of the project reports failure. Values, never exceptions;
// exceptions of libraries are caught where the library is called.
//
// A message says what was being done, to what, and what to do about it. It never holds a secret.
#ifndef BASE_STATUS_H_
#define BASE_STATUS_H_

#include <cassert>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace bottle {

enum class Code {
  kOk,
  kInvalid,      // the input is wrong; the same call fails again
  kNotFound,     // what was named does not exist
  kConflict,     // a name is taken by something that is not ours, or changed meanwhile
  kPermission,   // the caller may not do this
  kUnavailable,  // a service does not answer; may go away by itself
  kExhausted,    // out of ports, networks, disk, memory or a limit of ours
  kTimeout,      // a deadline passed
  kCancelled,    // the user interrupted
  kUnsupported,  // this version, engine or kernel cannot do it
  kInternal,     // a defect of ours
};

// "invalid", "not-found", ...: stable, for JSON output.
std::string_view code_name(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {
    assert(code != Code::kOk);
  }
  static Status ok() { return {}; }

  bool is_ok() const { return code_ == Code::kOk; }
  explicit operator bool() const { return is_ok(); }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

  // The same failure, told from one level further up: "<what>: <message>". OK stays OK.
  Status with_context(std::string_view what) const {
    if (is_ok()) return *this;
    return Status(code_, std::string(what) + ": " + message_);
  }

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

// Either a T or a Status that is not OK.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : v_(std::move(value)) {}                    // NOLINT: implicit on purpose
  Result(Status status) : v_(std::move(status)) {              // NOLINT: implicit on purpose
    assert(!std::get<Status>(v_).is_ok());
  }
  Result(Code code, std::string message) : v_(Status(code, std::move(message))) {}

  bool is_ok() const { return std::holds_alternative<T>(v_); }
  explicit operator bool() const { return is_ok(); }
  // Precondition: is_ok().
  T& value() & { return std::get<T>(v_); }
  const T& value() const& { return std::get<T>(v_); }
  T&& value() && { return std::get<T>(std::move(v_)); }
  T* operator->() { return &std::get<T>(v_); }
  const T* operator->() const { return &std::get<T>(v_); }
  T& operator*() & { return std::get<T>(v_); }
  const T& operator*() const& { return std::get<T>(v_); }
  T&& operator*() && { return std::get<T>(std::move(v_)); }
  Status status() const { return is_ok() ? Status::ok() : std::get<Status>(v_); }

 private:
  std::variant<T, Status> v_;
};

}  // namespace bottle

#endif  // BASE_STATUS_H_
