#include "controller/reconcile/events.h"

#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/rfc3339.h"
#include "controller/kube/resource.h"
#include "controller/reconcile/request.h"
#include "controller/reconcile/text.h"

namespace bottle::reconcile {
namespace {

using Json = nlohmann::json;

constexpr size_t kQueueLimit = 1000;                  // client-go: drop on full
constexpr int64_t kSeriesUs = 6 * 60 * 1'000'000LL;   // client-go: a series is over after 6 min of silence
constexpr size_t kRemembered = 4096;
constexpr size_t kNoteLimit = 1000;                   // the API's is 1 kB
constexpr int kTries = 4;                             // with back-off: 0.2 s, 0.4 s, 0.8 s

}  // namespace

Events::Events(kube::Client& client, std::string identity, std::function<int64_t()> now, metrics::Registry* metrics)
    : client_(client), identity_(identity.empty() ? "bottle-controller" : identity.substr(0, 128)), now_(std::move(now)) {
  if (metrics) dropped_metric_ = &metrics->counter("bottle_events_dropped_total", "Events that were not sent because the queue was full or the API server refused");
  thread_ = std::thread([this] { run(); });
}

Events::~Events() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Events::record(const kube::ObjectMeta& bottle, Type type, std::string_view reason, std::string_view action, std::string_view note) {
  Item item{bottle.ns, bottle.name, bottle.uid, std::string(reason), std::string(action), plain(note, kNoteLimit), type, 0};
  {
    std::lock_guard lock(mutex_);
    if (queue_.size() >= kQueueLimit) {
      ++dropped_;
      if (dropped_metric_) dropped_metric_->add();
      return;
    }
    // Microseconds from the order of recording: the clock gives seconds, and `kubectl events` sorts by time.
    item.at_us = now_() * 1'000'000 + static_cast<int64_t>(serial_++ % 1'000'000);
    queue_.push_back(std::move(item));
  }
  changed_.notify_all();
}

bool Events::flush(std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, limit, [this] { return queue_.empty() && !busy_; });
}

uint64_t Events::dropped() const {
  std::lock_guard lock(mutex_);
  return dropped_;
}

void Events::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    if (stop_) return;
    const Item item = std::move(queue_.front());
    queue_.pop_front();
    busy_ = true;
    lock.unlock();
    send(item);
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

bool Events::deliver(const kube::Request& request, int* code) {
  for (int i = 0; i < kTries; ++i) {
    const kube::Answer a = client_.call(request);
    *code = a.transport ? a.code : 0;
    if (a.ok() || a.is("AlreadyExists")) return true;
    if (a.transport && a.code < 500 && a.code != 429) return false;
    std::unique_lock lock(mutex_);
    if (changed_.wait_for(lock, std::chrono::milliseconds(200 << i), [this] { return stop_; })) return false;
  }
  return false;
}

void Events::send(const Item& e) {
  const std::string key = e.uid + "/" + (e.type == Type::kWarning ? "W/" : "N/") + e.reason + "/" + e.action + "/" + e.note;
  int code = 0;
  auto it = sent_.find(key);
  if (it != sent_.end() && e.at_us - it->second.last_us < kSeriesUs) {
    Sent& s = it->second;
    s.last_us = e.at_us;
    ++s.count;
    const Json patch = {{"series", {{"count", s.count}, {"lastObservedTime", format_rfc3339_micro(e.at_us)}}}};
    kube::Request request = request_of("PATCH", kube::object_path(kube::kEvents, e.ns, s.name), kube::kMergePatch);
    request.body = patch.dump();
    request.timeout = std::chrono::seconds(5);
    if (deliver(request, &code)) return;
    if (code != 404) return;  // 404: it has expired, a new one tells it
  }
  char name[300];
  snprintf(name, sizeof name, "%.200s.%llx", e.bottle.c_str(), static_cast<unsigned long long>(e.at_us));
  const Json event = {{"apiVersion", "events.k8s.io/v1"},
                      {"kind", "Event"},
                      {"metadata", {{"name", name}, {"namespace", e.ns}}},
                      {"eventTime", format_rfc3339_micro(e.at_us)},
                      {"reportingController", "bot-bottle.dev/bottle-controller"},
                      {"reportingInstance", identity_},
                      {"type", e.type == Type::kWarning ? "Warning" : "Normal"},
                      {"reason", e.reason},
                      {"action", e.action},
                      {"note", e.note},
                      {"regarding",
                       {{"apiVersion", kube::api_version(kube::kBottles)}, {"kind", "Bottle"}, {"namespace", e.ns}, {"name", e.bottle}, {"uid", e.uid}}}};
  kube::Request request = request_of("POST", kube::collection_path(kube::kEvents, e.ns));
  request.body = event.dump(-1, ' ', false, Json::error_handler_t::replace);
  request.timeout = std::chrono::seconds(5);
  if (deliver(request, &code)) {
    forget_old(e.at_us);
    sent_[key] = {name, e.at_us, 1};
  } else {
    log::debug("event not sent", {{"bottle", e.ns + "/" + e.bottle}, {"reason", e.reason}, {"code", code}});
    std::lock_guard lock(mutex_);
    ++dropped_;
    if (dropped_metric_) dropped_metric_->add();
  }
}

void Events::forget_old(int64_t now_us) {
  if (sent_.size() < kRemembered) return;
  std::erase_if(sent_, [&](const auto& s) { return now_us - s.second.last_us >= kSeriesUs; });
  if (sent_.size() >= kRemembered) sent_.clear();  // a burst: repeats become events of their own
}

}  // namespace bottle::reconcile
