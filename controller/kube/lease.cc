#include "controller/kube/lease.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "base/log.h"
#include "base/rfc3339.h"
#include "controller/kube/objects.h"
#include "controller/kube/resource.h"

namespace bottle::kube {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// client-go waits up to 2.2 periods between two looks at another's lease. A released one is to be taken within one period; a look is one GET.
constexpr double kAcquireJitter = 0.5;
constexpr milliseconds kMinTimeout{1'000};          // controller-runtime: max(1 s, renew deadline / 2)
constexpr milliseconds kReleaseTimeout{2'000};
constexpr size_t kMaxLease = 1u << 20;

std::string micro_now() {
  return format_rfc3339_micro(
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch()).count());
}

template <class T>
T field(const Json& object, const char* key, T otherwise) {
  if (!object.is_object()) return otherwise;
  auto it = object.find(key);
  if (it == object.end()) return otherwise;
  if constexpr (std::is_same_v<T, std::string>) {
    return it->is_string() ? it->template get<std::string>() : otherwise;
  } else {
    return it->is_number_integer() ? it->template get<T>() : otherwise;
  }
}

class Elector final : public LeaderElector {
 public:
  Elector(Client& client, LeaseOptions options, std::function<void()> on_started, std::function<void()> on_lost)
      : client_(client), options_(std::move(options)), on_started_(std::move(on_started)), on_lost_(std::move(on_lost)), random_(std::random_device{}()) {
    if (options_.metrics) {
      status_ = &options_.metrics->gauge("leader_election_master_status",
                                         "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master",
                                         {{"name", options_.name}});
    }
  }
  ~Elector() override { stop_and_release(); }

  void start() override {
    if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  }
  // The clock is asked too: a process that was frozen past its lease must not act in the moment before its thread notices.
  bool leading() const override { return leading_ && Clock::now().time_since_epoch().count() < valid_until_; }

  void stop_and_release() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
      changed_.notify_all();
    }
    if (thread_.joinable() && thread_.get_id() != std::this_thread::get_id()) thread_.join();
  }

 private:
  void run() {
    while (!try_once(Clock::now() + timeout())) {
      const double jitter = std::uniform_real_distribution<double>(0, kAcquireJitter)(random_);
      if (!pause(milliseconds(static_cast<int64_t>(static_cast<double>(options_.retry_period.count()) * (1 - jitter))))) return;
    }
    lead(true);
    log::info("leading", {{"lease", options_.ns + "/" + options_.name}, {"identity", options_.identity}});
    on_started_();
    while (pause(options_.retry_period)) {
      const auto deadline = renewed_at_ + options_.renew_deadline;
      while (!try_once(std::min(deadline, Clock::now() + timeout()))) {
        if (taken_ || Clock::now() >= deadline) return lose();
        const auto left = std::chrono::duration_cast<milliseconds>(deadline - Clock::now()) + milliseconds(1);
        if (!pause(std::min(options_.retry_period, left))) return release();
        if (Clock::now() >= deadline) return lose();
      }
    }
    release();
  }

  // False when we are to stop.
  bool pause(milliseconds time) {
    std::unique_lock lock(mutex_);
    return !changed_.wait_for(lock, time, [this] { return stopping_; });
  }
  milliseconds timeout() const { return std::max(kMinTimeout, options_.renew_deadline / 2); }

  void lead(bool yes) {
    leading_ = yes;
    if (status_) status_->set(yes ? 1 : 0);
  }
  void lose() {
    lead(false);
    log::error("the lease is lost", {{"lease", options_.ns + "/" + options_.name}, {"why", taken_ ? "another one holds it" : "it could not be renewed in time"}});
    on_lost_();
  }

  // ---- the record

  Answer send(std::string method, const Json* body, Clock::time_point deadline) {
    Request r;
    const bool create = method == "POST";
    r.path = create ? collection_path(kLeases, options_.ns) : object_path(kLeases, options_.ns, options_.name);
    r.method = std::move(method);
    if (body) r.body = body->dump(-1, ' ', false, Json::error_handler_t::replace);
    r.max_response_bytes = kMaxLease;
    r.timeout = std::max(std::chrono::duration_cast<milliseconds>(deadline - Clock::now()), milliseconds(1));
    return client_.call(r);
  }

  std::string holder() const { return field<std::string>(spec_, "holderIdentity", ""); }

  // A record counts as alive for its duration from when we saw it change; what it says of time is another machine's clock.
  void observe(const Json& lease) {
    lease_ = lease;
    if (auto m = lease_.find("metadata"); m != lease_.end() && m->is_object()) m->erase("managedFields");
    Json spec = lease.value("spec", Json::object());
    if (seen_ && spec == spec_) return;
    spec_ = std::move(spec);
    seen_ = true;
    observed_at_ = Clock::now();
  }
  bool observe(const Answer& answer) {
    Json lease = Json::parse(answer.body, nullptr, false);
    if (!lease.is_object() || !lease.value("metadata", Json::object()).is_object()) return false;
    observe(lease);
    return true;
  }

  Json wanted(const std::string& identity, milliseconds duration) const {
    const bool ours = seen_ && holder() == options_.identity;
    Json spec = spec_.is_object() ? spec_ : Json::object();
    spec["holderIdentity"] = identity;
    spec["leaseDurationSeconds"] = std::max<int64_t>(1, (duration.count() + 999) / 1000);
    spec["renewTime"] = micro_now();
    if (!ours || !spec.contains("acquireTime")) spec["acquireTime"] = spec["renewTime"];
    const int64_t transitions = field<int64_t>(spec_, "leaseTransitions", 0);
    spec["leaseTransitions"] = std::clamp<int64_t>(transitions + (seen_ && !ours ? 1 : 0), 0, INT32_MAX);  // the field is an int32
    Json lease = seen_ ? lease_ : Json{{"apiVersion", "coordination.k8s.io/v1"}, {"kind", "Lease"}, {"metadata", {{"name", options_.name}, {"namespace", options_.ns}}}};
    lease["spec"] = std::move(spec);
    return lease;
  }

  // Writes what we want over what we saw: the resourceVersion in it lets one of several win. Our time counts from before the request.
  bool write(const char* method, Clock::time_point deadline, int* code) {
    const auto before = Clock::now();
    const Json body = wanted(options_.identity, options_.duration);
    const Answer a = send(method, &body, deadline);
    *code = a.transport.is_ok() ? a.code : 0;
    if (!a.ok()) {
      if (*code != 409 && *code != 404) complain(a, method);
      return false;
    }
    if (!observe(a)) return false;
    renewed_at_ = before;
    valid_until_ = (before + options_.duration).time_since_epoch().count();
    return true;
  }

  // Takes or renews the lease.
  bool try_once(Clock::time_point deadline) {
    int code = 0;
    taken_ = false;
    if (leading_) {
      // Nobody else should have written: no need to look first.
      if (write("PUT", deadline, &code)) return true;
      if (code != 409 && code != 404) return false;
    }
    const Answer a = send("GET", nullptr, deadline);
    if (a.transport.is_ok() && a.code == 404) {
      seen_ = false;
      spec_ = lease_ = Json();
      return write("POST", deadline, &code);
    }
    if (!a.ok()) {
      complain(a, "GET");
      return false;
    }
    if (!observe(a)) return false;
    const std::string who = holder();
    if (!who.empty() && who != options_.identity) {
      if (leading_) {
        taken_ = true;
        return false;
      }
      const auto alive = std::chrono::seconds(std::clamp<int64_t>(field<int64_t>(spec_, "leaseDurationSeconds", 1), 1, 3600));
      if (Clock::now() < observed_at_ + alive) return false;
    }
    return write("PUT", deadline, &code);
  }

  void release() {
    lead(false);  // from here on somebody else may lead
    const auto deadline = Clock::now() + kReleaseTimeout;
    Json body = wanted("", milliseconds(1'000));
    Answer a = send("PUT", &body, deadline);
    if (a.transport.is_ok() && a.code == 409) {
      // A renewal whose answer we never saw may have been written: then it is still ours to give up.
      const Answer now = send("GET", nullptr, deadline);
      if (!now.ok() || !observe(now) || holder() != options_.identity) return;
      body = wanted("", milliseconds(1'000));
      a = send("PUT", &body, deadline);
    }
    if (!a.ok()) complain(a, "release");
  }

  void complain(const Answer& a, const char* what) const {
    log::warn("the lease cannot be had", {{"lease", options_.ns + "/" + options_.name}, {"why", a.status(what).message()}});
  }

  Client& client_;
  const LeaseOptions options_;
  const std::function<void()> on_started_, on_lost_;
  metrics::Gauge* status_ = nullptr;
  std::thread thread_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::atomic<bool> leading_{false};
  std::atomic<int64_t> valid_until_{0};  // of the steady clock

  // Of the elector's thread.
  std::mt19937 random_;
  Json lease_, spec_;
  bool seen_ = false, taken_ = false;
  Clock::time_point observed_at_{}, renewed_at_{};
};

}  // namespace

std::unique_ptr<LeaderElector> LeaderElector::create(Client& client, LeaseOptions options, std::function<void()> on_started, std::function<void()> on_lost) {
  return std::make_unique<Elector>(client, std::move(options), std::move(on_started), std::move(on_lost));
}

}  // namespace bottle::kube
