// One request on its way, through all its attempts, and the gate that a stream's callbacks pass. Private to this folder.
#ifndef CONTROLLER_KUBE_CLIENT_TRANSFER_H_
#define CONTROLLER_KUBE_CLIENT_TRANSFER_H_

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "controller/kube/client_internal.h"

namespace bottle::kube {

// Wakes the loop; outlives it, because streams may be let go of after their client.
struct Wake {
  std::mutex mutex;
  CURLM* multi = nullptr;                  // null before the loop runs and after it ended
  std::atomic<bool> stream_closed{false};  // somebody closed one: the loop looks for it
  void kick() {
    std::lock_guard lock(mutex);
    if (multi) curl_multi_wakeup(multi);
  }
};

// Between the loop and the owner of a stream: no callback starts after close() has returned, and none runs then, unless it is the caller.
class StreamGate {
 public:
  StreamGate(std::function<bool(std::string_view)> on_data, std::function<void(Answer)> on_end, std::shared_ptr<Wake> wake)
      : on_data_(std::move(on_data)), on_end_(std::move(on_end)), wake_(std::move(wake)) {}
  bool data(std::string_view bytes);  // false: wants no more
  void end(Answer answer);
  void close();
  bool closed() const { return closed_; }

 private:
  void forget(std::unique_lock<std::recursive_mutex> lock);
  std::recursive_mutex mutex_;  // held while a callback runs, which may close its own stream
  std::function<bool(std::string_view)> on_data_;
  std::function<void(Answer)> on_end_;
  std::atomic<bool> closed_{false};
  bool running_ = false;
  const std::shared_ptr<Wake> wake_;
};

class StreamHandle : public Stream {
 public:
  explicit StreamHandle(std::shared_ptr<StreamGate> gate) : gate_(std::move(gate)) {}
  ~StreamHandle() override { gate_->close(); }
  void close() override { gate_->close(); }

 private:
  std::shared_ptr<StreamGate> gate_;
};

struct EasyDelete {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};

struct Transfer {
  enum class Next { kDeliver, kRetryFresh, kRetryLater, kRetryAuth };

  Request request;
  std::function<void(Answer)> done;   // of a request
  std::shared_ptr<StreamGate> gate;   // of a stream
  std::chrono::milliseconds idle{0};
  Clock::time_point deadline;         // of the whole request, or of a stream's head
  CURLM* multi = nullptr;             // where `easy` is running
  AuthPtr auth;
  uint64_t rejected_epoch = 0;        // credentials that the server has answered 401 to
  Answer answer;

  // The order counts: the handle goes before what it points to.
  EasyKeepPtr keep;
  std::unique_ptr<CURL, EasyDelete> easy;

  // Makes the handle for the next attempt.
  Status prepare(const Config& config, const ClientOptions& options, AuthPtr current, Clock::time_point now);
  // Reads the outcome of an attempt into `answer`, and counts it.
  void finish_attempt(CURLcode code, const Config& config, const ClientOptions& options);
  Next what_next(CURLcode code, Clock::time_point now);
  void count_retry(const Config& config, const ClientOptions& options);
  Clock::time_point next_deadline() const;
  Clock::time_point next_look(Clock::time_point now) const;  // when to ask for next_deadline() again, at the latest
  void time_out(const Config& config, const ClientOptions& options);

 private:
  static size_t on_header(char* data, size_t size, size_t n, void* self);
  static size_t on_body(char* data, size_t size, size_t n, void* self);
  bool repeatable() const;
  void count(const Config& config, const ClientOptions& options);

  Clock::time_point started_{}, last_byte_{};
  bool head_seen_ = false, too_large_ = false, stopped_ = false, fresh_ = false;
  int busy_retries_ = 0, transport_retries_ = 0;
  bool has_retry_after_ = false;
  std::string flow_schema_;
  char error_[CURL_ERROR_SIZE] = {};
};

}  // namespace bottle::kube

#endif  // CONTROLLER_KUBE_CLIENT_TRANSFER_H_
