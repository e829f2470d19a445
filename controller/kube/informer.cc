#include "controller/kube/informer.h"

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

#include "base/log.h"
#include "controller/kube/informer_mail.h"
#include "controller/kube/informer_store.h"
#include "controller/kube/watch_backoff.h"
#include "controller/kube/watch_lines.h"

namespace bottle::kube {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

// client-go tools/cache/reflector.go, tools/pager.
constexpr int kWatchMinSeconds = 300, kWatchMaxSeconds = 600;
constexpr seconds kWatchMargin{5};           // a server that forgot the timeout
constexpr seconds kExpiredAgain{5};          // a whole state that expires sooner than this is not asked for again at once
constexpr seconds kShortWatch{1};            // shorter and without an event: a defect, not an end
constexpr int kPageSize = 500;
constexpr seconds kPageTimeout{60};
constexpr seconds kInitialSilence{60};       // a server that knows no WatchList never says that the initial events are over
constexpr int kServerErrors = 5;             // in-stream 500s in a row before everything is asked for again
constexpr size_t kMailBytes = 16u << 20;     // decoding is faster than any API server; this is for a handler that hangs

Status decode(Decoder& d, std::string_view json, BottleObject* out) { return d.bottle(json, out); }
Status decode(Decoder& d, std::string_view json, MetaObject* out) { return d.meta(json, out); }
Status decode(Decoder& d, std::string_view json, PodObject* out) { return d.pod(json, out); }
Status decode(Decoder& d, std::string_view json, NetworkPolicyObject* out) { return d.network_policy(json, out); }

// What the metrics read, also when the informer is gone.
struct Stats {
  explicit Stats(size_t sources) : last_event(sources) {}
  std::vector<std::atomic<int64_t>> last_event;  // of each source, steady milliseconds; 0 = none yet
  std::atomic<size_t> objects{0};
};
int64_t steady_ms() { return std::chrono::duration_cast<milliseconds>(Clock::now().time_since_epoch()).count(); }

template <class T>
class InformerImpl final : public Informer<T> {
 public:
  using Object = typename Informer<T>::Object;
  using Handler = typename Informer<T>::Handler;
  using Store = InformerStore<T>;

  InformerImpl(Client& client, InformerOptions options, Handler handler)
      : client_(client), options_(std::move(options)), handler_(std::move(handler)), random_(std::random_device{}()) {
    auto namespaces = options_.namespaces;
    std::sort(namespaces.begin(), namespaces.end());
    namespaces.erase(std::unique(namespaces.begin(), namespaces.end()), namespaces.end());
    if (namespaces.empty()) namespaces.emplace_back();
    for (auto& ns : namespaces) sources_.emplace_back(sources_.size(), std::move(ns), WatchBackoff(options_.backoff_first, options_.backoff_max));
    stats_ = std::make_shared<Stats>(sources_.size());
    if (options_.metrics) make_metrics();
  }
  ~InformerImpl() override { stop(); }

  void start() override {
    if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  }
  void stop() override {
    mailbox_->close();
    if (thread_.joinable() && thread_.get_id() != std::this_thread::get_id()) thread_.join();
  }
  bool synced() const override {
    std::lock_guard lock(mutex_);
    return synced_;
  }
  bool wait_synced(milliseconds limit) override {
    std::unique_lock lock(mutex_);
    return synced_changed_.wait_for(lock, limit, [this] { return synced_; });
  }
  Object get(std::string_view ns, std::string_view name) const override {
    std::lock_guard lock(mutex_);
    return store_.get(ns, name);
  }
  std::vector<Object> by_owner(std::string_view owner_uid) const override {
    std::lock_guard lock(mutex_);
    return store_.by_owner(owner_uid);
  }
  std::vector<Object> in_namespace(std::string_view ns) const override {
    std::lock_guard lock(mutex_);
    return store_.in_namespace(ns);
  }
  std::vector<Object> all() const override {
    std::lock_guard lock(mutex_);
    return store_.all();
  }
  size_t size() const override {
    std::lock_guard lock(mutex_);
    return store_.size();
  }
  void resync() override { mailbox_->put({Mail::Kind::kResync, 0, 0, {}, {}}); }

 private:
  // One namespace, or the cluster: a state machine that is moved by mail and by time, on the informer's thread alone.
  struct Source {
    Source(size_t i, std::string n, WatchBackoff b) : index(i), ns(std::move(n)), backoff(std::move(b)) {}
    size_t index;
    std::string ns;
    WatchBackoff backoff;
    std::string rv;              // last seen, of an object or a bookmark
    bool whole = true;           // everything is to be asked for, or is being
    bool initial = true;         // nothing was delivered yet
    bool list_only = false;      // the server has said that it has no WatchList
    bool list_next = false;      // try LIST this once
    int expired_pages = 0, server_errors = 0;
    uint64_t attempt = 0;
    bool active = false;         // a request is under way
    Clock::time_point at{};      // when active: its deadline; else when to begin
    Clock::time_point end{};     // of a watch: the deadline of all of it
    Clock::time_point began{};
    Clock::time_point filled{};  // when the last whole state came
    bool any_event = false, any_object = false;  // came since `began`; a bookmark is an event
    std::shared_ptr<Stream> stream;
    LineSplitter lines;
    typename Store::Set staging;
    std::string page;            // `continue`
  };

  void run() {
    while (!mailbox_->closed()) {
      auto next = Clock::time_point::max();
      for (Source& s : sources_) {
        if (s.at <= Clock::now()) s.active ? overdue(s) : begin(s);
        next = std::min(next, s.at);
      }
      if (auto mail = mailbox_->take(next)) receive(std::move(*mail));
    }
    for (Source& s : sources_) abandon(s);
  }

  void receive(Mail mail) {
    if (mail.kind == Mail::Kind::kResync) {
      for (const Object& o : all()) handler_(EventKind::kResync, o, o);
      return;
    }
    Source& s = sources_[mail.source];
    if (mail.attempt != s.attempt) return;
    switch (mail.kind) {
      case Mail::Kind::kData: data(s, mail.bytes); break;
      case Mail::Kind::kEnd: ended(s, mail.answer); break;
      case Mail::Kind::kPage: page(s, mail.answer); break;
      case Mail::Kind::kResync: break;
    }
  }

  // ---- asking

  Request request(const Source& s, Query query, bool list) const {
    if (!options_.label_selector.empty()) query.emplace_back("labelSelector", options_.label_selector);
    if (!options_.field_selector.empty()) query.emplace_back("fieldSelector", options_.field_selector);
    Request r;
    r.path = collection_path(options_.resource, s.ns, query);
    if (options_.metadata_only) r.accept = list ? kMetadataListOnly : kMetadataOnly;
    return r;
  }

  void begin(Source& s) {
    ++s.attempt;
    s.active = true;
    s.any_event = s.any_object = false;
    s.began = Clock::now();
    s.lines.reset();
    if (s.whole && (s.list_only || s.list_next)) return ask_page(s);

    const int limit = std::uniform_int_distribution<int>(kWatchMinSeconds, kWatchMaxSeconds)(random_);
    Query query{{"watch", "1"}, {"allowWatchBookmarks", "true"}, {"resourceVersion", s.rv}, {"timeoutSeconds", std::to_string(limit)}};
    if (s.whole) {
      s.staging.clear();
      query.emplace_back("sendInitialEvents", "true");
      query.emplace_back("resourceVersionMatch", "NotOlderThan");
    }
    s.end = s.began + seconds(limit) + kWatchMargin;
    s.at = s.whole ? std::min(s.end, s.began + kInitialSilence) : s.end;
    s.stream = client_.stream(
        request(s, std::move(query), false), milliseconds(0),
        [box = mailbox_, i = s.index, n = s.attempt](std::string_view bytes) {
          return box->put({Mail::Kind::kData, i, n, std::string(bytes), {}});
        },
        [box = mailbox_, i = s.index, n = s.attempt](Answer answer) { box->put({Mail::Kind::kEnd, i, n, {}, std::move(answer)}); });
  }

  void ask_page(Source& s) {
    if (s.page.empty()) s.staging.clear();
    Query query{{"limit", std::to_string(kPageSize)}};
    if (!s.page.empty()) query.emplace_back("continue", s.page);
    // An empty resourceVersion is the most recent state: never older than what we have seen.
    if (s.page.empty()) query.emplace_back("resourceVersion", "");
    Request r = request(s, std::move(query), true);
    r.timeout = kPageTimeout;
    s.at = Clock::now() + 2 * kPageTimeout;
    client_.send(std::move(r), [box = mailbox_, i = s.index, n = s.attempt](Answer answer) {
      box->put({Mail::Kind::kPage, i, n, {}, std::move(answer)});
    });
  }

  // What is under way counts no more.
  void abandon(Source& s) {
    ++s.attempt;
    s.active = false;
    if (s.stream) s.stream->close();
    s.stream.reset();
    s.lines.reset();
    s.page.clear();
  }
  void again(Source& s) {
    abandon(s);
    s.at = Clock::now();
  }
  void again_later(Source& s, double at_least_s = 0) {
    abandon(s);
    const milliseconds told(static_cast<int64_t>(std::clamp(at_least_s, 0.0, 300.0) * 1000));
    s.at = Clock::now() + std::max(s.backoff.next(random_), told);
  }
  void everything_again(Source& s) {
    s.whole = true;
    s.staging.clear();
  }

  // ---- what comes back

  void overdue(Source& s) {
    const bool initial_silence = s.whole && s.stream && Clock::now() < s.end;
    if (initial_silence) s.list_next = true;
    if (s.whole) again_later(s); else again(s);
  }

  void data(Source& s, std::string_view bytes) {
    if (s.whole) s.at = std::min(s.end, Clock::now() + kInitialSilence);
    const auto fed = s.lines.feed(bytes, [&](std::string_view line) { return event(s, line); });
    if (fed == LineSplitter::Fed::kTooLong) {
      warn(s, "a line of a watch is longer than 8 MiB");
      everything_again(s);
      again_later(s);
    }
  }

  void ended(Source& s, const Answer& a) {
    s.stream.reset();
    const bool was_short = Clock::now() - s.began < kShortWatch;
    if (a.ok()) {
      if (was_short && !s.any_object) warn(s, "a watch ended at once");
      return s.whole || (was_short && !s.any_object) ? again_later(s) : again(s);
    }
    if (!a.transport.is_ok()) {
      // Cut after it has worked, by the network or by us because the mailbox was full: worth one try at once. Otherwise the server is not
      // there, and everybody else waits for it too.
      if (s.any_event && !was_short && !s.whole) return again(s);
      warn(s, a.transport.message());
      return again_later(s);
    }
    if (a.code == 410) return expired(s);
    if (a.code == 429) return again_later(s, a.retry_after_s);
    warn(s, a.message.empty() ? a.reason : a.message, a.code);
    if (a.code >= 500) {
      // Some servers cannot do the one and can do the other.
      if (s.whole) s.list_next = !s.list_next;
      return again_later(s, a.retry_after_s);
    }
    if (s.whole && (a.code == 400 || a.code == 405 || a.code == 422)) {
      s.list_only = true;
      return again(s);
    }
    everything_again(s);
    again_later(s, a.retry_after_s);
  }

  // The resourceVersion is too old (etcd was compacted), or of another life of the cluster.
  // After an outage this is the first thing that a restarted server says, at once, and the back-off of the outage would only make us later.
  void expired(Source& s) {
    const bool pause = s.whole || Clock::now() - s.filled < kExpiredAgain;
    s.rv.clear();
    everything_again(s);
    if (pause) again_later(s); else again(s);
  }

  void page(Source& s, const Answer& a) {
    if (a.transport.is_ok() && a.code == 410) {
      // The continue token is too old. From the first page, never give up; only the second time in a row with a pause.
      s.rv.clear();
      s.staging.clear();
      if (s.expired_pages++ == 0) return again(s);
      return again_later(s);
    }
    if (!a.ok()) {
      warn(s, a.transport.is_ok() ? a.message : a.transport.message(), a.code);
      s.list_next = false;
      s.staging.clear();
      return again_later(s, a.retry_after_s);
    }
    std::string version, next;
    const Status read = decoder_.list(a.body, [&](std::string_view item) {
      stage(s, item);
      return Status::ok();
    }, &version, &next);
    if (!read) {
      warn(s, read.message());
      s.staging.clear();
      return again_later(s);
    }
    touch(s);
    s.page = std::move(next);
    if (!s.page.empty()) return ask_page(s);
    s.rv = std::move(version);
    replace(s);
    again(s);  // now the watch
  }

  bool event(Source& s, std::string_view line) {
    Decoder::Event e;
    if (auto status = decoder_.event(line, &e); !status) {
      warn(s, status.message());
      everything_again(s);
      again_later(s);
      return false;
    }
    using Type = Decoder::Event::Type;
    if (e.type == Type::kError) return error(s, e);
    s.any_event = true;
    s.server_errors = 0;
    touch(s);
    if (e.type == Type::kBookmark) {
      if (!e.resource_version.empty()) s.rv = e.resource_version;
      if (s.whole && e.initial_events_end) {
        replace(s);
        s.at = s.end;
      }
      return true;
    }
    s.any_object = true;
    if (s.whole) {
      e.type == Type::kDeleted ? unstage(s, e.object) : stage(s, e.object);
      return true;
    }
    Object now = read(s, e.object);
    if (!now) return true;
    e.type == Type::kDeleted ? remove(now) : put(now);
    return true;
  }

  bool error(Source& s, const Decoder::Event& e) {
    if (e.code == 410 || e.reason == "Expired" || e.reason == "Gone") {
      expired(s);
    } else if (e.code == 429) {
      again_later(s);
    } else {
      warn(s, e.message.empty() ? e.reason : e.message, e.code);
      const bool resume = e.code == 500 && ++s.server_errors < kServerErrors;
      if (s.whole) s.list_next = true;
      if (!resume) {
        s.server_errors = 0;
        everything_again(s);
      }
      again_later(s);
    }
    return false;
  }

  // ---- the cache

  // Null when the object cannot be read: then the state before it stays, for to take a bottle for deleted because one field of it is odd
  // would be worse than to act on the last good one.
  Object read(Source& s, std::string_view json) {
    auto now = std::make_shared<T>();
    Status status = decode(decoder_, json, now.get());
    if (status && !s.ns.empty() && now->ns != s.ns) status = Status(Code::kInvalid, "an object of a namespace that was not asked for");
    if (status) {
      if (!s.whole) s.rv = now->resource_version;
      return now;
    }
    MetaObject meta;
    if (decoder_.meta(json, &meta).is_ok()) {
      if (!s.whole) s.rv = meta.resource_version;
      warn(s, status.message() + " (" + meta.ns + "/" + meta.name + "); its last good state stays");
      if (s.whole) return get(meta.ns, meta.name);
    } else {
      warn(s, status.message());
    }
    return nullptr;
  }

  void stage(Source& s, std::string_view json) {
    if (Object o = read(s, json)) {
      if (Object same = get(o->ns, o->name); same && same->uid == o->uid && same->resource_version == o->resource_version) o = std::move(same);
      s.staging.erase(o);
      s.staging.insert(std::move(o));
    }
  }
  void unstage(Source& s, std::string_view json) {
    if (Object o = read(s, json)) s.staging.erase(o);
  }

  void deliver(EventKind added, const std::vector<typename Store::Change>& changes) {
    for (const auto& [old, now] : changes) handler_(!now ? EventKind::kDeleted : old ? EventKind::kModified : added, old, now);
  }
  void put(const Object& now) {
    std::vector<typename Store::Change> changes;
    {
      std::lock_guard lock(mutex_);
      store_.put(now, &changes);
      stats_->objects = store_.size();
    }
    deliver(EventKind::kAdded, changes);
  }
  void remove(const Object& last) {
    {
      std::lock_guard lock(mutex_);
      if (!store_.remove(last->ns, last->name)) return;
      stats_->objects = store_.size();
    }
    handler_(EventKind::kDeleted, last, nullptr);
  }

  // What was collected becomes the state of the source, in one step.
  void replace(Source& s) {
    std::vector<typename Store::Change> changes;
    {
      std::lock_guard lock(mutex_);
      store_.replace(s.ns, s.staging, &changes);
      stats_->objects = store_.size();
    }
    s.staging.clear();
    deliver(s.initial ? EventKind::kInitial : EventKind::kAdded, changes);
    changes = {};
    s.whole = s.list_next = s.initial = false;
    s.expired_pages = 0;
    s.filled = Clock::now();
    ::malloc_trim(0);  // the pages or frames of a whole state are much larger than what we keep of it
    std::lock_guard lock(mutex_);
    synced_ = std::none_of(sources_.begin(), sources_.end(), [](const Source& one) { return one.initial; });
    if (synced_) synced_changed_.notify_all();
  }

  // ---- being seen

  void touch(const Source& s) { stats_->last_event[s.index] = steady_ms(); }
  void warn(const Source& s, std::string_view why, int code = 0) const {
    log::warn("following the API server goes wrong",
              {{"kind", options_.resource.kind}, {"namespace", s.ns}, {"why", why.substr(0, 512)}, {"code", code}});
  }
  void make_metrics() {
    const metrics::Labels labels{{"kind", std::string(options_.resource.kind)}};
    auto* objects = &options_.metrics->gauge("bottle_cache_objects", "Objects in the cache", labels);
    auto* age = &options_.metrics->gauge("bottle_cache_last_event_age_seconds",
                                         "Seconds since the API server last sent something, bookmarks (about one a minute) included", labels);
    options_.metrics->on_expose([weak = std::weak_ptr<Stats>(stats_), objects, age] {
      auto stats = weak.lock();
      if (!stats) return;
      objects->set(static_cast<double>(stats->objects));
      int64_t oldest = steady_ms();
      for (const auto& t : stats->last_event) oldest = std::min<int64_t>(oldest, t);
      age->set(oldest == 0 ? 0 : static_cast<double>(steady_ms() - oldest) / 1000);
    });
  }

  Client& client_;
  const InformerOptions options_;
  const Handler handler_;
  std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>(kMailBytes);
  std::shared_ptr<Stats> stats_;
  std::thread thread_;

  // Of the informer's thread.
  std::vector<Source> sources_;
  Decoder decoder_;
  std::mt19937 random_;

  mutable std::mutex mutex_;
  std::condition_variable synced_changed_;
  Store store_;
  bool synced_ = false;
};

}  // namespace

template <class T>
std::unique_ptr<Informer<T>> Informer<T>::create(Client& client, InformerOptions options, Handler handler) {
  return std::make_unique<InformerImpl<T>>(client, std::move(options), std::move(handler));
}

template class Informer<BottleObject>;
template class Informer<MetaObject>;
template class Informer<PodObject>;
template class Informer<NetworkPolicyObject>;

}  // namespace bottle::kube
