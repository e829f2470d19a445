// What the client's loop thread hands to an informer's thread. The loop thread never waits: over the bound the stream is cut, and the informer
// takes it up again from what it has seen.
#ifndef CONTROLLER_KUBE_INFORMER_MAIL_H_
#define CONTROLLER_KUBE_INFORMER_MAIL_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "controller/kube/client.h"

namespace bottle::kube {

struct Mail {
  enum class Kind { kData, kEnd, kPage, kResync } kind;
  size_t source = 0;
  uint64_t attempt = 0;      // of the source: mail of an earlier one is late and says nothing
  std::string bytes;
  Answer answer;
};

// Outlives its informer in the callbacks of requests that are still under way.
class Mailbox {
 public:
  explicit Mailbox(size_t max_bytes) : max_bytes_(max_bytes) {}

  // False: closed, or there is no room for its bytes. What ends something always has room.
  bool put(Mail mail) {
    std::lock_guard lock(mutex_);
    if (closed_) return false;
    if (mail.kind == Mail::Kind::kData && bytes_ + mail.bytes.size() > max_bytes_) return false;
    bytes_ += mail.bytes.size();
    mails_.push_back(std::move(mail));
    changed_.notify_one();
    return true;
  }
  // The next one; nothing when `until` has come or it was closed.
  std::optional<Mail> take(std::chrono::steady_clock::time_point until) {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, until, [this] { return closed_ || !mails_.empty(); });
    if (closed_ || mails_.empty()) return std::nullopt;
    Mail mail = std::move(mails_.front());
    mails_.pop_front();
    bytes_ -= mail.bytes.size();
    return mail;
  }
  void close() {
    std::lock_guard lock(mutex_);
    closed_ = true;
    mails_.clear();
    changed_.notify_all();
  }
  bool closed() const {
    std::lock_guard lock(mutex_);
    return closed_;
  }

 private:
  const size_t max_bytes_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Mail> mails_;
  size_t bytes_ = 0;
  bool closed_ = false;
};

}  // namespace bottle::kube

#endif  // CONTROLLER_KUBE_INFORMER_MAIL_H_
