// Events (events.k8s.io/v1) on Bottles, sent by a thread of their own: a reconcile never waits for one, and when the API server is slow the
// newest are dropped. Repeats become a series. Any thread may record. Source: client-go tools/events/event_broadcaster.go.
#ifndef CONTROLLER_RECONCILE_EVENTS_H_
#define CONTROLLER_RECONCILE_EVENTS_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>

#include "base/metrics.h"
#include "controller/kube/client.h"
#include "controller/kube/objects.h"

namespace bottle::reconcile {

class Events {
 public:
  enum class Type { kNormal, kWarning };
  Events(kube::Client& client, std::string identity, std::function<int64_t()> now, metrics::Registry* metrics);
  ~Events();  // drops what was not sent: flush() first

  // `action`: what we did or tried, in CamelCase ("CreatePod"). `note` never holds a secret.
  void record(const kube::ObjectMeta& bottle, Type type, std::string_view reason, std::string_view action, std::string_view note);
  // Waits until everything recorded so far is sent or given up; at most `limit`.
  bool flush(std::chrono::milliseconds limit);
  uint64_t dropped() const;

 private:
  struct Item {
    std::string ns, bottle, uid, reason, action, note;
    Type type;
    int64_t at_us;
  };
  struct Sent {
    std::string name;
    int64_t last_us = 0;
    int count = 1;
  };
  void run();
  void send(const Item& item);
  bool deliver(const kube::Request& request, int* code);
  void forget_old(int64_t now_us);

  kube::Client& client_;
  const std::string identity_;
  const std::function<int64_t()> now_;
  metrics::Counter* dropped_metric_ = nullptr;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> queue_;
  bool busy_ = false, stop_ = false;
  uint64_t dropped_ = 0;
  std::unordered_map<std::string, Sent> sent_;  // of the thread alone
  uint64_t serial_ = 0;
  std::thread thread_;
};

}  // namespace bottle::reconcile

#endif  // CONTROLLER_RECONCILE_EVENTS_H_
