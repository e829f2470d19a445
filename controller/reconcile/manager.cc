#include "controller/reconcile/manager.h"

#include <cxxabi.h>
#include <pthread.h>
#include <sys/random.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <typeinfo>
#include <utility>

#include "base/log.h"
#include "controller/kube/lease.h"
#include "controller/reconcile/caches.h"
#include "controller/reconcile/queue.h"

namespace bottle::reconcile {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// A pass renders JSON and waits for the network: measured under 64 KiB. The default of 8 MiB a worker is address space
// that a limit on it (ulimit -v, some container runtimes) counts. Sanitizers need many times as much.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t kWorkerStack = 8u << 20;
#else
constexpr size_t kWorkerStack = 512u << 10;
#endif

constexpr milliseconds kFlushLimit{5'000};
constexpr milliseconds kFirstReport{3'000};  // of caches that do not fill: a healthy server needs less for 10,000 bottles

uint64_t random_seed() {
  uint64_t seed = 0;
  if (::getrandom(&seed, sizeof seed, 0) != static_cast<ssize_t>(sizeof seed)) seed = static_cast<uint64_t>(Clock::now().time_since_epoch().count());
  return seed;
}

// Names a pass in the log; unique, not secret. SplitMix64 over a counter: a bijection, so no two of a process are the same.
std::string reconcile_id() {
  static const uint64_t seed = random_seed();
  static std::atomic<uint64_t> count{0};
  uint64_t z = seed + 0x9e3779b97f4a7c15u * ++count;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(z ^ (z >> 31)));
  return text;
}

std::string type_name(const std::exception& e) {
  int failed = 0;
  char* name = abi::__cxa_demangle(typeid(e).name(), nullptr, nullptr, &failed);
  std::string out = failed == 0 ? name : typeid(e).name();
  std::free(name);
  return out;
}

// controller_runtime_*: controller-runtime pkg/internal/controller/metrics.
struct ReconcileMetrics {
  metrics::Counter *success, *error, *requeue_after, *errors, *terminal, *panics;
  metrics::Histogram* seconds;
  metrics::Gauge *active, *maximum;

  explicit ReconcileMetrics(metrics::Registry& r) {
    auto with = [](const char* result) { return metrics::Labels{{"controller", "bottle"}, {"result", result}}; };
    const metrics::Labels controller{{"controller", "bottle"}};
    const char* total = "controller_runtime_reconcile_total";
    const char* help = "Total number of reconciliations per controller";
    success = &r.counter(total, help, with("success"));
    error = &r.counter(total, help, with("error"));
    requeue_after = &r.counter(total, help, with("requeue_after"));
    r.counter(total, help, with("requeue"));  // dashboards sum over it; we always say when
    errors = &r.counter("controller_runtime_reconcile_errors_total", "Total number of reconciliation errors per controller", controller);
    terminal = &r.counter("controller_runtime_terminal_reconcile_errors_total", "Total number of terminal reconciliation errors per controller", controller);
    panics = &r.counter("controller_runtime_reconcile_panics_total", "Total number of reconciliation panics per controller", controller);
    seconds = &r.histogram("controller_runtime_reconcile_time_seconds", "Length of time per reconciliation per controller", metrics::reconcile_buckets(), controller);
    active = &r.gauge("controller_runtime_active_workers", "Number of currently used workers per controller", controller);
    maximum = &r.gauge("controller_runtime_max_concurrent_reconciles", "Maximum number of concurrent reconciles per controller", controller);
  }
};

CachesOptions caches_options(const ManagerOptions& m) {
  CachesOptions o;
  o.namespaces = m.namespaces;
  o.metrics = m.metrics;
  return o;
}

class RealManager : public Manager {
 public:
  RealManager(kube::Client& client, ManagerOptions options, Surroundings surroundings)
      : client_(client),
        options_(std::move(options)),
        metrics_(options_.metrics ? *options_.metrics : own_registry_),
        queue_(Queue::create("bottle", options_.metrics)),
        caches_(Caches::create(client, caches_options(options_),
                               [this](const std::string& key, int priority) { queue_->add(key, priority); })),
        reconciler_(Reconciler::create(client, *caches_, options_.reconciler, std::move(surroundings))) {
    metrics_.maximum->set(options_.workers);
  }

  // Only after a lost lease or a stop that took too long is there anything left to end here.
  ~RealManager() override {
    queue_->shut_down();
    join_workers();
    elector_.reset();
    caches_->stop();
  }

  Status run() override {
    caches_->start();
    if (!wait_for_caches()) return leave(Status::ok());
    log::info("caches are filled");
    if (options_.leader_elect) {
      elector_ = kube::LeaderElector::create(
          client_, {options_.lease_namespace, options_.lease_name, options_.identity, options_.lease_duration, options_.lease_renew_deadline,
                    options_.lease_retry_period, options_.metrics},
          [this] { change(&started_); }, [this] { change(&lost_); });
      elector_->start();
    } else {
      change(&started_);
    }
    return leave(serve());
  }

  void stop() override { change(&stopping_); }
  bool ready() const override { return caches_->not_synced().empty(); }
  std::vector<std::string> waiting_for() const override {
    auto out = caches_->not_synced();
    for (auto& plural : out) plural.insert(0, "the cache of ");
    return out;
  }
  bool leading() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    return started_ && !lost_ && !left_;
  }

 private:
  void change(bool* flag) {
    std::lock_guard<std::mutex> lock(mutex_);
    *flag = true;
    changed_.notify_all();
  }
  bool stopping() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return stopping_;
  }

  // False: stopped meanwhile.
  bool wait_for_caches() {
    auto report = Clock::now() + std::min<milliseconds>(options_.cache_sync_timeout, kFirstReport);
    while (!caches_->wait_synced(milliseconds(100))) {
      if (stopping()) return false;
      if (Clock::now() < report) continue;
      auto reasons = caches_->diagnose();
      for (const auto& r : reasons) log::error("a cache cannot be filled", {{"error", r.message()}});
      if (reasons.empty()) {
        for (const auto& plural : caches_->not_synced()) log::warn("a cache is still being filled", {{"resource", plural}});
      }
      report = Clock::now() + options_.cache_sync_timeout;
    }
    return !stopping();
  }

  // Until we have to go: OK when stopped.
  Status serve() {
    auto next_resync = Clock::now() + jittered_resync();
    bool working = false;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      if (lost_) return Status(Code::kConflict, "the lease " + options_.lease_namespace + '/' + options_.lease_name + " is lost: somebody else may lead now");
      if (stopping_) return Status::ok();
      if (started_ && !working) {
        working = true;
        lock.unlock();
        log::info("reconciling", {{"workers", options_.workers}});
        Status started = start_workers();
        lock.lock();
        if (!started.is_ok()) return started;
        continue;
      }
      if (Clock::now() >= next_resync) {
        next_resync = Clock::now() + jittered_resync();
        lock.unlock();
        caches_->resync();
        lock.lock();
        continue;
      }
      changed_.wait_until(lock, next_resync);
    }
  }

  // In the order that leaves nothing behind and never two writers: no new pass, passes done, events sent, then the lease.
  Status leave(Status why) {
    queue_->shut_down();
    // Whoever holds our lease now may be writing already: no graceful phase (controller-runtime, pkg/manager).
    if (!why.is_ok()) return why;
    log::info("stopping");
    if (!workers_done(options_.graceful_timeout)) {
      // The lease stays: it must not pass on while a pass of ours is still writing.
      return Status(Code::kTimeout, "a reconcile did not end within " + std::to_string(options_.graceful_timeout.count() / 1000) + " s of the stop");
    }
    join_workers();
    if (started()) reconciler_->flush(kFlushLimit);
    if (lost()) return Status(Code::kConflict, "the lease was lost while stopping");
    if (elector_) elector_->stop_and_release();
    caches_->stop();
    change(&left_);
    return Status::ok();
  }

  bool started() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return started_;
  }
  bool lost() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return lost_;
  }

  Status start_workers() {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, kWorkerStack);
    int failed = 0;
    for (int i = 0; i < options_.workers && failed == 0; ++i) {
      pthread_t thread;
      {
        std::lock_guard<std::mutex> lock(mutex_);
        ++running_;
      }
      failed = pthread_create(&thread, &attributes, [](void* self) -> void* {
        static_cast<RealManager*>(self)->work();
        return nullptr;
      }, this);
      if (failed == 0) threads_.push_back(thread);
    }
    pthread_attr_destroy(&attributes);
    if (failed == 0) return Status::ok();
    {
      std::lock_guard<std::mutex> lock(mutex_);
      --running_;
    }
    return Status(Code::kExhausted, "start " + std::to_string(options_.workers) + " workers: no more threads (use fewer --workers or raise the limit of processes)");
  }

  // Also ends when the lease is lost meanwhile.
  bool workers_done(milliseconds limit) {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, limit, [&] { return running_ == 0 || lost_; });
  }
  void join_workers() {
    for (pthread_t t : threads_) pthread_join(t, nullptr);
    threads_.clear();
  }

  void work() {
    while (auto item = queue_->get()) {
      // A process that was frozen past its lease wakes up here with events at hand, before the elector has noticed: the clock has.
      if (elector_ && !elector_->leading()) break;
      pass(*item);
      queue_->done(item->key);
    }
    std::lock_guard<std::mutex> lock(mutex_);
    --running_;
    changed_.notify_all();
  }

  void pass(const QueueItem& item) {
    log::Scope id("reconcileID", reconcile_id()), bottle("bottle", item.key);
    const size_t slash = item.key.find('/');
    metrics_.active->add(1);
    const auto begin = Clock::now();
    Outcome outcome;
    // What is thrown is a defect. Its text is not logged: a parser's quotes what it read, which may be a secret.
    try {
      outcome = reconciler_->reconcile(item.key.substr(0, slash), item.key.substr(slash + 1));
    } catch (const std::exception& e) {
      metrics_.panics->add();
      outcome.status = Status(Code::kInternal, "the reconciler threw " + type_name(e));
    }
    metrics_.seconds->observe(std::chrono::duration<double>(Clock::now() - begin).count());
    metrics_.active->add(-1);
    settle(item, outcome);
  }

  // As controller-runtime does (pkg/internal/controller/controller.go).
  void settle(const QueueItem& item, const Outcome& outcome) {
    if (!outcome.status.is_ok()) {
      metrics_.errors->add();
      metrics_.error->add();
      if (outcome.terminal) {
        metrics_.terminal->add();
        queue_->forget(item.key);
        log::warn("the bottle needs a change", {{"error", outcome.status.message()}, {"code", code_name(outcome.status.code())}});
        if (outcome.requeue_after > milliseconds(0)) queue_->add_after(item.key, outcome.requeue_after, item.priority);
      } else {
        queue_->add_rate_limited(item.key, item.priority);
        log::error("reconcile failed", {{"error", outcome.status.message()}, {"code", code_name(outcome.status.code())}, {"failures", queue_->failures(item.key)}});
      }
      return;
    }
    queue_->forget(item.key);
    if (outcome.requeue_after > milliseconds(0)) {
      metrics_.requeue_after->add();
      queue_->add_after(item.key, outcome.requeue_after, item.priority);
    } else {
      metrics_.success->add();
    }
  }

  // +-10 %, so that replicas and informers do not all do it at once.
  Clock::duration jittered_resync() const {
    const double factor = 0.9 + 0.2 * static_cast<double>(random_seed() >> 11) / static_cast<double>(1ull << 53);
    return std::chrono::duration_cast<Clock::duration>(options_.resync * factor);
  }

  kube::Client& client_;
  const ManagerOptions options_;
  metrics::Registry own_registry_;  // counts for nobody
  const ReconcileMetrics metrics_;
  std::unique_ptr<Queue> queue_;
  std::unique_ptr<Caches> caches_;
  std::unique_ptr<Reconciler> reconciler_;
  std::unique_ptr<kube::LeaderElector> elector_;
  std::vector<pthread_t> threads_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool started_ = false, lost_ = false, stopping_ = false, left_ = false;
  int running_ = 0;
};

}  // namespace

Result<std::unique_ptr<Manager>> Manager::create(kube::Client& client, ManagerOptions options, Surroundings surroundings) {
  if (options.workers < 1 || options.workers > 1000) return Status(Code::kInvalid, "the number of workers must be 1 to 1000");
  if (options.leader_elect && (options.lease_namespace.empty() || options.lease_name.empty() || options.identity.empty())) {
    return Status(Code::kInvalid, "leader election needs a namespace, a name and an identity");
  }
  std::sort(options.namespaces.begin(), options.namespaces.end());
  options.namespaces.erase(std::unique(options.namespaces.begin(), options.namespaces.end()), options.namespaces.end());
  return std::unique_ptr<Manager>(std::make_unique<RealManager>(client, std::move(options), std::move(surroundings)));
}

}  // namespace bottle::reconcile
