#include "controller/kube/client_transfer.h"

#include <strings.h>

#include <algorithm>
#include <charconv>

#include "base/log.h"

namespace bottle::kube {
namespace {

constexpr int kMaxBusyRetries = 10;               // client-go rest/request.go
constexpr double kMaxRetryAfterSeconds = 3600;
constexpr size_t kMaxErrorBody = 1u << 20;        // of a stream that was refused
constexpr std::chrono::milliseconds kConnectTimeout{10'000};

// Nothing came back, or not all of it, on a connection that was there: worth one more try on a new one (client-go: GOAWAY, EOF, reset).
bool broken_connection(CURLcode code) {
  switch (code) {
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_WEIRD_SERVER_REPLY:
      return true;
    default:
      return false;
  }
}

std::string path_only(const std::string& path) { return path.substr(0, path.find('?')); }

}  // namespace

bool StreamGate::data(std::string_view bytes) {
  std::unique_lock lock(mutex_);
  if (closed_) return false;
  running_ = true;
  bool more = on_data_(bytes);
  running_ = false;
  if (!closed_) return more;
  forget(std::move(lock));  // it closed itself
  return false;
}

void StreamGate::end(Answer answer) {
  std::unique_lock lock(mutex_);
  if (closed_.exchange(true)) return;
  running_ = true;
  on_end_(std::move(answer));
  running_ = false;
  forget(std::move(lock));
}

void StreamGate::close() {
  std::unique_lock lock(mutex_);
  if (closed_.exchange(true)) return;
  if (!running_) forget(std::move(lock));
  wake_->stream_closed = true;
  wake_->kick();
}

// What callbacks hold goes outside of the lock, for it may hold this stream's owner.
void StreamGate::forget(std::unique_lock<std::recursive_mutex> lock) {
  auto data = std::move(on_data_);
  auto end = std::move(on_end_);
  on_data_ = nullptr;
  on_end_ = nullptr;
  lock.unlock();
}

Status Transfer::prepare(const Config& config, const ClientOptions& options, AuthPtr current, Clock::time_point now) {
  auth = std::move(current);
  answer = Answer();
  head_seen_ = too_large_ = stopped_ = has_retry_after_ = false;
  flow_schema_.clear();
  error_[0] = '\0';
  started_ = last_byte_ = now;
  easy.reset(curl_easy_init());
  CURL* e = easy.get();
  if (!e) return Status(Code::kExhausted, "cannot start a request: out of memory");

  std::vector<std::string> headers = {"Accept: " + request.accept, "Expect:"};
  bool has_body = !request.body.empty();
  if (has_body) headers.push_back("Content-Type: " + (request.content_type.empty() ? "application/json" : request.content_type));
  auto configured = configure_easy_with(e, config, auth, request.path, headers);
  if (!configured) return configured.status();
  keep = std::move(*configured);

  curl_easy_setopt(e, CURLOPT_USERAGENT, options.user_agent.c_str());
  curl_easy_setopt(e, CURLOPT_ERRORBUFFER, error_);
  curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(e, CURLOPT_HEADERDATA, this);
  curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(e, CURLOPT_WRITEDATA, this);
  auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - now);
  curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(std::clamp(left, std::chrono::milliseconds(1), kConnectTimeout).count()));

  if (request.method == "HEAD") {
    curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
  } else if (request.method != "GET" || has_body) {
    if (has_body || request.method == "POST" || request.method == "PUT" || request.method == "PATCH") {
      curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
      curl_easy_setopt(e, CURLOPT_POSTFIELDS, request.body.data());
    }
    curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, request.method.c_str());
  }

  if (gate) {
    // One slow reader must not hold up the others, and ending a watch must not cost a shared connection.
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
    curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(e, CURLOPT_FORBID_REUSE, 1L);
  } else {
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, static_cast<long>(options.http1 ? CURL_HTTP_VERSION_1_1 : CURL_HTTP_VERSION_2TLS));
    // Wait for the first connection to tell whether it multiplexes; without TLS (no ALPN) that is known only from its first answer.
    if (config.server.starts_with("https://") && !options.http1) curl_easy_setopt(e, CURLOPT_PIPEWAIT, 1L);
    if (fresh_) curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, 1L);
    // The server compresses from 128 KiB on: lists.
    if (request.method == "GET" && !config.disable_compression) curl_easy_setopt(e, CURLOPT_ACCEPT_ENCODING, "gzip");
  }
  return Status::ok();
}

size_t Transfer::on_header(char* data, size_t size, size_t n, void* self) {
  auto* t = static_cast<Transfer*>(self);
  std::string_view line(data, size * n);
  t->last_byte_ = Clock::now();
  auto value_of = [&](std::string_view name) -> std::string_view {
    if (line.size() <= name.size() || line[name.size()] != ':' || strncasecmp(line.data(), name.data(), name.size()) != 0) return {};
    std::string_view v = line.substr(name.size() + 1);
    while (!v.empty() && (v.front() == ' ' || v.front() == '\t')) v.remove_prefix(1);
    while (!v.empty() && (v.back() == '\r' || v.back() == '\n' || v.back() == ' ')) v.remove_suffix(1);
    return v;
  };
  if (auto v = value_of("retry-after"); !v.empty()) {
    long seconds = -1;  // the API server sends seconds; a date would be from something in between, and is not waited for
    auto [end, error] = std::from_chars(v.data(), v.data() + v.size(), seconds);
    if (error == std::errc() && end == v.data() + v.size() && seconds >= 0) {
      t->has_retry_after_ = true;
      t->answer.retry_after_s = std::min(static_cast<double>(seconds), kMaxRetryAfterSeconds);
    }
  } else if (auto uid = value_of("x-kubernetes-pf-flowschema-uid"); !uid.empty()) {
    t->flow_schema_ = uid.substr(0, 64);
  } else if (line == "\r\n" || line == "\n") {
    long code = 0;
    curl_easy_getinfo(t->easy.get(), CURLINFO_RESPONSE_CODE, &code);
    if (code >= 200) t->head_seen_ = true;
  }
  return size * n;
}

size_t Transfer::on_body(char* data, size_t size, size_t n, void* self) {
  auto* t = static_cast<Transfer*>(self);
  size_t bytes = size * n;
  t->last_byte_ = Clock::now();
  long code = 0;
  curl_easy_getinfo(t->easy.get(), CURLINFO_RESPONSE_CODE, &code);
  if (t->gate && code >= 200 && code < 300) {
    if (t->gate->data({data, bytes})) return bytes;
    t->stopped_ = true;
    return bytes + 1;  // anything but `bytes` ends the transfer
  }
  if (t->answer.body.size() + bytes > (t->gate ? kMaxErrorBody : t->request.max_response_bytes)) {
    t->too_large_ = true;
    return bytes + 1;
  }
  t->answer.body.append(data, bytes);
  return bytes;
}

void Transfer::finish_attempt(CURLcode code, const Config& config, const ClientOptions& options) {
  long http = 0;
  curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &http);
  if (code == CURLE_OK || stopped_) {
    answer.code = static_cast<int>(http);
    decode_status(&answer);
  } else {
    answer.body.clear();
    if (too_large_)
      answer.transport = Status(Code::kExhausted, "the API server's answer is larger than " +
                                                      std::to_string(request.max_response_bytes >> 10) + " KiB");
    else
      answer.transport = transport_error(code, error_, config);
  }
  count(config, options);
}

bool Transfer::repeatable() const {
  return request.method == "GET" || request.method == "HEAD" || request.method == "PUT" || request.method == "DELETE" ||
         (request.method == "PATCH" && request.content_type == kApply);
}

Transfer::Next Transfer::what_next(CURLcode code, Clock::time_point now) {
  if (stopped_ || too_large_ || now >= deadline) return Next::kDeliver;
  if (code != CURLE_OK) {
    if (gate || !repeatable() || transport_retries_ > 0 || !broken_connection(code)) return Next::kDeliver;
    ++transport_retries_;
    fresh_ = true;
    return Next::kRetryFresh;
  }
  if (answer.code == 401 && rejected_epoch == 0 && (!auth->authorization.empty() || !auth->certificate.empty())) return Next::kRetryAuth;
  if (gate || !has_retry_after_ || (answer.code != 429 && answer.code < 500)) return Next::kDeliver;
  auto wait = std::chrono::duration<double>(answer.retry_after_s);
  if (busy_retries_ >= kMaxBusyRetries || now + wait >= deadline) return Next::kDeliver;
  ++busy_retries_;
  log::debug("the API server asks to come back later", {{"method", request.method}, {"path", path_only(request.path)}, {"code", answer.code},
                                                        {"retryAfterSeconds", answer.retry_after_s}, {"flowSchema", flow_schema_}});
  return Next::kRetryLater;
}

void Transfer::count(const Config& config, const ClientOptions& options) {
  if (!options.metrics) return;
  std::string code = answer.transport.is_ok() ? std::to_string(answer.code) : "<error>", host = authority_of(config.server);
  options.metrics
      ->counter("rest_client_requests_total", "Number of HTTP requests, partitioned by status code, method, and host.",
                {{"code", code}, {"method", request.method}, {"host", host}})
      .add();
  if (gate) return;
  options.metrics
      ->histogram("rest_client_request_duration_seconds", "Request latency in seconds. Broken down by verb, and host.",
                  metrics::request_buckets(), {{"verb", request.method}, {"host", host}})
      .observe(std::chrono::duration<double>(Clock::now() - started_).count());
}

void Transfer::count_retry(const Config& config, const ClientOptions& options) {
  if (!options.metrics) return;
  std::string code = answer.transport.is_ok() ? std::to_string(answer.code) : "<error>";
  options.metrics
      ->counter("rest_client_request_retries_total", "Number of request retries, partitioned by status code, verb, and host.",
                {{"code", code}, {"verb", request.method}, {"host", authority_of(config.server)}})
      .add();
}

Clock::time_point Transfer::next_deadline() const {
  if (!gate || !head_seen_) return deadline;
  return idle.count() > 0 ? last_byte_ + idle : Clock::time_point::max();
}

Clock::time_point Transfer::next_look(Clock::time_point now) const {
  // The head of a stream may come at any time, and its silence counts from then.
  if (gate && !head_seen_ && idle.count() > 0) return std::min(deadline, now + idle);
  return next_deadline();
}

void Transfer::time_out(const Config& config, const ClientOptions& options) {
  if (rejected_epoch != 0 && !easy && answer.code == 401) return;  // waiting for better credentials: the 401 says more
  bool silent = gate && head_seen_;
  auto ms = silent ? idle : request.timeout;
  answer = Answer();
  answer.transport = Status(Code::kTimeout, authority_of(config.server) + " (" + config.source + "): " +
                                                (silent ? "nothing was heard for " : "no answer within ") + std::to_string(ms.count()) + " ms");
  if (easy) count(config, options);
}

}  // namespace bottle::kube
