#include "controller/kube/client.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cassert>
#include <condition_variable>
#include <deque>
#include <future>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "base/log.h"
#include "controller/kube/client_internal.h"
#include "controller/kube/client_stream_multi.h"
#include "controller/kube/client_transfer.h"

namespace bottle::kube {
namespace {

// How long what the credentials said is used without asking them again. They have their own periods; this only spares the hop to the
// thread that may block.
constexpr auto kAuthFresh = std::chrono::seconds(1);
// A credential that stays refused is not asked for again with every request.
constexpr auto kRejectPeriod = std::chrono::seconds(10);
constexpr auto kLongestPoll = std::chrono::seconds(60);
constexpr int kDrainPollMs = 10;  // only while connections with an old certificate finish their requests

class ClientImpl : public Client {
 public:
  ClientImpl(Config config, ClientOptions options) : config_(std::move(config)), options_(std::move(options)), source_(config_) {}

  Status start() {
    init_curl_once();
    multi_ = make_multi();
    if (!multi_ || !streams_.init()) return Status(Code::kExhausted, "cannot start the API client: out of memory or descriptors");
    wake_->multi = multi_;
    // Signals belong to main: these threads never see one (also no SIGPIPE from a TLS write).
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    loop_ = std::thread([this] { run(); });
    auth_thread_ = std::thread([this] { run_auth(); });
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
    return Status::ok();
  }

  ~ClientImpl() override {
    if (loop_.joinable()) {
      {
        std::lock_guard lock(mutex_);
        stopping_ = true;
      }
      wake_->kick();
      loop_.join();
      {
        std::lock_guard lock(auth_mutex_);
        auth_stop_ = true;
        auth_wanted_.notify_all();
      }
      auth_thread_.join();
    }
    if (multi_) curl_multi_cleanup(multi_);
  }

  Answer call(const Request& request) override {
    bool on_loop = std::this_thread::get_id() == loop_.get_id();
    assert(!on_loop && "call() blocks: not from a callback");
    if (on_loop) {
      Answer a;
      a.transport = Status(Code::kInternal, "call() from a callback of the client");
      return a;
    }
    std::promise<Answer> promise;
    auto future = promise.get_future();
    send(request, [&](Answer a) { promise.set_value(std::move(a)); });
    return future.get();
  }

  void send(Request request, std::function<void(Answer)> done) override {
    auto t = std::make_unique<Transfer>();
    t->request = std::move(request);
    t->done = std::move(done);
    submit(std::move(t));
  }

  std::shared_ptr<Stream> stream(const Request& request, std::chrono::milliseconds idle, std::function<bool(std::string_view)> on_data,
                                 std::function<void(Answer)> on_end) override {
    auto t = std::make_unique<Transfer>();
    t->request = request;
    t->idle = idle;
    t->gate = std::make_shared<StreamGate>(std::move(on_data), std::move(on_end), wake_);
    auto handle = std::make_shared<StreamHandle>(t->gate);
    submit(std::move(t));
    return handle;
  }

  const Config& config() const override { return config_; }

 private:
  using TransferPtr = std::unique_ptr<Transfer>;

  CURLM* make_multi() {
    CURLM* m = curl_multi_init();
    if (!m) return nullptr;
    curl_multi_setopt(m, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
    curl_multi_setopt(m, CURLMOPT_MAX_HOST_CONNECTIONS, static_cast<long>(options_.max_in_flight));
    curl_multi_setopt(m, CURLMOPT_MAXCONNECTS, static_cast<long>(options_.max_in_flight));
    return m;
  }

  void submit(TransferPtr t) {
    t->deadline = Clock::now() + t->request.timeout;
    {
      std::lock_guard lock(mutex_);
      inbox_.push_back(std::move(t));
    }
    wake_->kick();
  }

  // ---- the loop's thread ----

  void run() {
    while (take_inbox()) {
      auto now = Clock::now();
      while (!delayed_.empty() && delayed_.begin()->first <= now) {
        pending_.push_front(std::move(delayed_.begin()->second));
        delayed_.erase(delayed_.begin());
      }
      start_pending(now);
      int running = 0;
      curl_multi_perform(multi_, &running);
      streams_.perform();
      finished(multi_);
      finished(streams_.multi());
      drain();
      sweep(Clock::now());
      if (!can_start()) poll();
    }
    {
      std::lock_guard lock(wake_->mutex);
      wake_->multi = nullptr;
    }
    cancel_all();
  }

  bool take_inbox() {
    std::vector<TransferPtr> in;
    AuthPtr auth;
    {
      std::lock_guard lock(mutex_);
      if (stopping_) return false;
      in.swap(inbox_);
      auth.swap(new_auth_);
    }
    for (auto& t : in) {
      next_sweep_ = std::min(next_sweep_, t->next_look(Clock::now()));
      pending_.push_back(std::move(t));
    }
    if (auth) take_auth(std::move(auth));
    return true;
  }

  void take_auth(AuthPtr auth) {
    auth_asked_ = false;
    if (!auth->error) {
      for (auto& t : std::exchange(pending_, {})) {
        t->answer.transport = auth->error;
        deliver(std::move(t));
      }
      return;
    }
    // A 401 came in while this was on its way.
    if (auth->epoch == rejected_epoch_ && !rejection_told_) return ask_auth();
    rejection_told_ = true;
    bool swap = pool_ != 0 && pool_ != auth->pool;
    pool_ = auth->pool;
    auth_ = std::move(auth);
    auth_at_ = Clock::now();
    if (swap) swap_pool();
  }

  // Connections made with the old certificate or CA take no new request; requests on them end, streams are ended.
  void swap_pool() {
    log::info("the client certificate or the CA has changed: connecting to the API server anew", {{"server", authority_of(config_.server)}});
    CURLM* fresh = make_multi();
    if (!fresh) return;
    draining_.push_back(multi_);
    {
      std::lock_guard lock(wake_->mutex);
      multi_ = wake_->multi = fresh;
    }
    std::vector<CURL*> open;
    for (auto& [easy, t] : open_) open.push_back(easy);
    for (CURL* easy : open) {
      auto t = take_running(easy);
      t->answer = Answer();
      t->answer.transport = Status(Code::kUnavailable, "the client certificate or the CA has changed: open the stream again");
      deliver(std::move(t));
    }
  }

  bool auth_good(Clock::time_point now) const { return auth_ && now - auth_at_ < kAuthFresh; }

  void ask_auth() {
    if (auth_asked_) return;
    auth_asked_ = true;
    bool tell = rejected_epoch_ != 0 && !rejection_told_;
    rejection_told_ = true;
    std::lock_guard lock(auth_mutex_);
    auth_request_ = tell ? AuthRequest::kRejected : AuthRequest::kAsk;
    auth_wanted_.notify_all();
  }

  bool full() const { return active_.size() >= static_cast<size_t>(options_.max_in_flight); }
  // A stream has a connection of its own and does not count.
  bool startable(const TransferPtr& t) const { return t->gate || !full(); }
  bool can_start() const {
    return auth_good(Clock::now()) && std::any_of(pending_.begin(), pending_.end(), [&](const auto& t) { return startable(t); });
  }

  void start_pending(Clock::time_point now) {
    if (pending_.empty()) return;
    if (!auth_good(now)) return ask_auth();
    std::deque<TransferPtr> later;
    while (!pending_.empty()) {
      auto t = std::move(pending_.front());
      pending_.pop_front();
      if (startable(t))
        start(std::move(t), now);
      else
        later.push_back(std::move(t));
    }
    pending_ = std::move(later);
  }

  void start(TransferPtr t, Clock::time_point now) {
    if (t->gate && t->gate->closed()) return;
    // Nothing better than what the server has refused: the 401 is the answer.
    if (t->rejected_epoch != 0 && t->rejected_epoch == auth_->epoch) return deliver(std::move(t));
    if (auto s = t->prepare(config_, options_, auth_, now); !s) {
      t->answer.transport = s;
      return deliver(std::move(t));
    }
    CURL* easy = t->easy.get();
    t->multi = t->gate ? streams_.multi() : multi_;
    if (curl_multi_add_handle(t->multi, easy) != CURLM_OK) {
      t->answer.transport = Status(Code::kExhausted, "cannot start a request: out of memory");
      return deliver(std::move(t));
    }
    (t->gate ? open_ : active_).emplace(easy, std::move(t));
  }

  void finished(CURLM* multi) {
    int left = 0;
    while (CURLMsg* m = curl_multi_info_read(multi, &left)) {
      if (m->msg != CURLMSG_DONE) continue;
      CURLcode code = m->data.result;
      if (auto t = take_running(m->easy_handle)) complete(std::move(t), code);
    }
  }

  TransferPtr take_running(CURL* easy) {
    for (auto* map : {&active_, &open_}) {
      auto it = map->find(easy);
      if (it == map->end()) continue;
      auto t = std::move(it->second);
      map->erase(it);
      curl_multi_remove_handle(t->multi, easy);
      return t;
    }
    return nullptr;
  }

  void complete(TransferPtr t, CURLcode code) {
    t->finish_attempt(code, config_, options_);
    auto now = Clock::now();
    auto next = t->what_next(code, now);
    if (next == Transfer::Next::kRetryAuth && !reauthenticate(*t->auth, now)) next = Transfer::Next::kDeliver;
    if (next == Transfer::Next::kDeliver) return deliver(std::move(t));
    t->count_retry(config_, options_);
    t->easy.reset();
    if (next == Transfer::Next::kRetryLater) {
      auto wait = std::chrono::duration<double>(t->answer.retry_after_s);
      delayed_.emplace(now + std::chrono::duration_cast<Clock::duration>(wait), std::move(t));
      return;
    }
    if (next == Transfer::Next::kRetryAuth) t->rejected_epoch = t->auth->epoch;
    next_sweep_ = std::min(next_sweep_, t->next_look(now));
    pending_.push_front(std::move(t));
  }

  // The server has refused `used`. False when it was just tried to find something better.
  bool reauthenticate(const Auth& used, Clock::time_point now) {
    if (auth_ && auth_->epoch != used.epoch) return true;  // somebody has already
    if (rejected_epoch_ == used.epoch && rejection_told_ && !auth_asked_ && now - rejected_at_ < kRejectPeriod) return false;
    if (rejected_epoch_ != used.epoch || !auth_asked_) {
      rejected_epoch_ = used.epoch;
      rejected_at_ = now;
      rejection_told_ = false;
    }
    auth_ = nullptr;
    ask_auth();
    return true;
  }

  void deliver(TransferPtr t) {
    t->easy.reset();
    t->answer.source = config_.source;
    if (t->gate) {
      t->gate->end(std::move(t->answer));
    } else {
      t->done(std::move(t->answer));
    }
  }

  void drain() {
    for (auto it = draining_.begin(); it != draining_.end();) {
      CURLM* m = *it;
      int running = 0;
      curl_multi_perform(m, &running);
      finished(m);
      if (std::any_of(active_.begin(), active_.end(), [&](const auto& e) { return e.second->multi == m; })) {
        ++it;
        continue;
      }
      curl_multi_cleanup(m);
      it = draining_.erase(it);
    }
  }

  // Deadlines of requests wherever they are, of a stream's head and of its silence; and streams that were closed. Looks at everything, so
  // only when the earliest deadline has come.
  void sweep(Clock::time_point now) {
    if (now < next_sweep_ && !wake_->stream_closed.exchange(false)) return;
    next_sweep_ = Clock::time_point::max();
    std::vector<CURL*> over;
    for (auto* map : {&active_, &open_}) {
      for (auto& [easy, t] : *map) {
        bool closed = t->gate && t->gate->closed();
        if (closed || t->next_deadline() <= now)
          over.push_back(easy);
        else
          next_sweep_ = std::min(next_sweep_, t->next_look(now));
      }
    }
    std::vector<TransferPtr> late;
    for (CURL* easy : over) late.push_back(take_running(easy));
    for (auto& t : std::exchange(pending_, {})) {
      if (t->deadline <= now) {
        late.push_back(std::move(t));
      } else {
        next_sweep_ = std::min(next_sweep_, t->next_look(now));
        pending_.push_back(std::move(t));
      }
    }
    for (auto& t : late) {
      t->time_out(config_, options_);
      deliver(std::move(t));
    }
  }

  void poll() {
    auto now = Clock::now();
    auto until = std::min({now + kLongestPoll, next_sweep_, streams_.next_timer()});
    if (!delayed_.empty()) until = std::min(until, delayed_.begin()->first);
    auto ms = std::chrono::ceil<std::chrono::milliseconds>(until - now).count();
    int timeout = static_cast<int>(std::clamp<int64_t>(ms, 0, draining_.empty() ? 60'000 : kDrainPollMs));
    curl_waitfd extra{streams_.poll_fd(), CURL_WAIT_POLLIN, 0};
    int ready = 0;
    curl_multi_poll(multi_, &extra, 1, timeout, &ready);
  }

  void cancel_all() {
    auto cancel = [&](TransferPtr t) {
      t->answer = Answer();
      t->answer.transport = Status(Code::kCancelled, "the API client was stopped");
      deliver(std::move(t));
    };
    for (auto* map : {&active_, &open_})
      while (!map->empty()) cancel(take_running(map->begin()->first));
    for (CURLM* m : draining_) curl_multi_cleanup(m);
    // A callback may ask for something once more: that is answered too.
    while (true) {
      for (auto& [at, t] : std::exchange(delayed_, {})) pending_.push_back(std::move(t));
      {
        std::lock_guard lock(mutex_);
        for (auto& t : std::exchange(inbox_, {})) pending_.push_back(std::move(t));
      }
      if (pending_.empty()) break;
      for (auto& t : std::exchange(pending_, {})) cancel(std::move(t));
    }
  }

  // ---- the thread that may block in the credentials ----

  void run_auth() {
    while (true) {
      AuthRequest what;
      {
        std::unique_lock lock(auth_mutex_);
        auth_wanted_.wait(lock, [&] { return auth_stop_ || auth_request_ != AuthRequest::kNone; });
        if (auth_stop_) return;
        what = std::exchange(auth_request_, AuthRequest::kNone);
      }
      if (what == AuthRequest::kRejected) source_.rejected();
      AuthPtr auth = source_.load();
      {
        std::lock_guard lock(mutex_);
        new_auth_ = std::move(auth);
      }
      wake_->kick();
    }
  }

  const Config config_;
  const ClientOptions options_;
  const std::shared_ptr<Wake> wake_ = std::make_shared<Wake>();

  std::mutex mutex_;
  std::vector<TransferPtr> inbox_;
  AuthPtr new_auth_;
  bool stopping_ = false;

  // Of the loop's thread.
  CURLM* multi_ = nullptr;
  StreamMulti streams_;
  std::vector<CURLM*> draining_;
  std::deque<TransferPtr> pending_;
  std::multimap<Clock::time_point, TransferPtr> delayed_;
  std::unordered_map<CURL*, TransferPtr> active_, open_;  // requests, streams
  Clock::time_point next_sweep_ = Clock::time_point::max();
  AuthPtr auth_;
  Clock::time_point auth_at_{}, rejected_at_{};
  uint64_t pool_ = 0, rejected_epoch_ = 0;
  bool auth_asked_ = false, rejection_told_ = false;

  enum class AuthRequest { kNone, kAsk, kRejected };
  std::mutex auth_mutex_;
  std::condition_variable auth_wanted_;
  AuthRequest auth_request_ = AuthRequest::kNone;
  bool auth_stop_ = false;
  AuthSource source_;  // of the auth thread

  std::thread loop_, auth_thread_;
};

}  // namespace

Result<std::unique_ptr<Client>> Client::create(Config config, ClientOptions options) {
  if (!config.credentials) return Status(Code::kInternal, "a client's config has credentials");
  if (options.user_agent.empty()) options.user_agent = "bottle-controller";
  options.max_in_flight = std::max(1, options.max_in_flight);
  auto client = std::make_unique<ClientImpl>(std::move(config), std::move(options));
  if (auto s = client->start(); !s) return s;
  return std::unique_ptr<Client>(std::move(client));
}

}  // namespace bottle::kube
