#include "base/metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "base/file.h"

namespace bottle::metrics {
namespace {

std::string number(double v) {
  if (std::isnan(v)) return "NaN";
  if (std::isinf(v)) return v > 0 ? "+Inf" : "-Inf";
  char digits[40];
  return std::string(digits, std::to_chars(digits, digits + sizeof digits, v).ptr);
}

std::string escaped(std::string_view text, bool in_label) {
  std::string out;
  for (char c : text) {
    if (c == '\\') out += "\\\\";
    else if (c == '\n') out += "\\n";
    else if (c == '"' && in_label) out += "\\\"";
    else out += c;
  }
  return out;
}

// "a=\"1\",b=\"2\"" without braces: also the key of the series.
std::string label_text(const Labels& labels) {
  std::string out;
  for (const auto& [key, value] : labels) {
    if (!out.empty()) out += ',';
    out += key + "=\"" + escaped(value, true) + '"';
  }
  return out;
}

std::string braced(const std::string& labels) { return labels.empty() ? std::string() : '{' + labels + '}'; }

// What prometheus clients of every language report about their process (client_golang, collectors/process_collector).
struct Process {
  double cpu = 0, resident = 0, virtual_bytes = 0, fds = 0, max_fds = 0, started = 0;
};

Process read_process() {
  Process p;
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; };
  p.cpu = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  if (auto stat = read_file("/proc/self/stat", 8192); stat.is_ok()) {
    // The second field is the program's name in parentheses and may hold anything: count from the last ')'. Then 3 is the state,
    // 22 starttime in ticks since boot, 23 vsize in bytes, 24 rss in pages: proc(5).
    size_t at = stat->rfind(')');
    unsigned long long start = 0, vsize = 0;
    long long rss = 0;
    if (at != std::string::npos &&
        std::sscanf(stat->c_str() + at + 1, " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu %llu %lld", &start,
                    &vsize, &rss) == 3) {
      timespec real{}, boot{};
      ::clock_gettime(CLOCK_REALTIME, &real);
      ::clock_gettime(CLOCK_BOOTTIME, &boot);
      p.started = static_cast<double>(real.tv_sec - boot.tv_sec) + static_cast<double>(start) / static_cast<double>(::sysconf(_SC_CLK_TCK));
      p.virtual_bytes = static_cast<double>(vsize);
      p.resident = static_cast<double>(rss) * static_cast<double>(::sysconf(_SC_PAGESIZE));
    }
  }
  if (DIR* dir = ::opendir("/proc/self/fd")) {
    while (const dirent* e = ::readdir(dir)) p.fds += e->d_name[0] != '.';
    ::closedir(dir);
    p.fds -= 1;  // the one that reads the folder
  }
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) p.max_fds = static_cast<double>(limit.rlim_cur);
  return p;
}

}  // namespace

Histogram::Histogram(std::vector<double> upper_bounds) : bounds_(std::move(upper_bounds)), buckets_(bounds_.size() + 1) {}

void Histogram::observe(double v) {
  size_t i = static_cast<size_t>(std::lower_bound(bounds_.begin(), bounds_.end(), v) - bounds_.begin());
  buckets_[i].fetch_add(1, std::memory_order_relaxed);
  for (double old = sum_.load(std::memory_order_relaxed); !sum_.compare_exchange_weak(old, old + v, std::memory_order_relaxed);) {
  }
}

uint64_t Histogram::count() const { return cumulative(bounds_.size()); }
double Histogram::sum() const { return sum_.load(std::memory_order_relaxed); }

uint64_t Histogram::cumulative(size_t i) const {
  uint64_t n = 0;
  for (size_t b = 0; b <= i && b < buckets_.size(); ++b) n += buckets_[b].load(std::memory_order_relaxed);
  return n;
}

struct Registry::Impl {
  enum class Type { kCounter, kGauge, kHistogram };
  struct Series {
    Counter counter;
    Gauge gauge;
    std::unique_ptr<Histogram> histogram;
  };
  struct Family {
    Type type;
    std::string help;
    std::map<std::string, std::unique_ptr<Series>> series;  // by label text
  };
  mutable std::mutex mutex;
  std::map<std::string, Family, std::less<>> families;
  std::vector<std::unique_ptr<Series>> strays;
  std::vector<std::function<void()>> refresh;

  // A name that was made as another type gives a series that is not exposed: a wrong graph is worse than none, an abort worse than both.
  Series& series(Type type, std::string_view name, std::string_view help, const Labels& labels) {
    auto it = families.find(name);
    if (it == families.end()) it = families.emplace(std::string(name), Family{type, std::string(help), {}}).first;
    if (it->second.type != type) return *strays.emplace_back(std::make_unique<Series>());
    auto& slot = it->second.series[label_text(labels)];
    if (!slot) slot = std::make_unique<Series>();
    return *slot;
  }
};

Registry::Registry() : impl_(std::make_unique<Impl>()) {}
Registry::~Registry() = default;

Counter& Registry::counter(std::string_view name, std::string_view help, const Labels& labels) {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  return impl_->series(Impl::Type::kCounter, name, help, labels).counter;
}

Gauge& Registry::gauge(std::string_view name, std::string_view help, const Labels& labels) {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  return impl_->series(Impl::Type::kGauge, name, help, labels).gauge;
}

Histogram& Registry::histogram(std::string_view name, std::string_view help, const std::vector<double>& bounds, const Labels& labels) {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  auto& series = impl_->series(Impl::Type::kHistogram, name, help, labels);
  if (!series.histogram) series.histogram = std::make_unique<Histogram>(bounds);
  return *series.histogram;
}

void Registry::on_expose(std::function<void()> refresh) {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  impl_->refresh.push_back(std::move(refresh));
}

std::string Registry::expose() const {
  std::vector<std::function<void()>> refresh;
  {
    std::lock_guard<std::mutex> lock(impl_->mutex);
    refresh = impl_->refresh;
  }
  for (const auto& f : refresh) f();  // without the lock: they set gauges

  std::map<std::string, std::string> blocks;  // by family, so that process_* sort in
  auto head = [](std::string_view name, std::string_view help, std::string_view type) {
    std::string n(name);
    return "# HELP " + n + ' ' + escaped(help, false) + "\n# TYPE " + n + ' ' + std::string(type) + '\n';
  };
  {
    std::lock_guard<std::mutex> lock(impl_->mutex);
    for (const auto& [name, family] : impl_->families) {
      using Type = Impl::Type;
      std::string text = head(name, family.help,
                              family.type == Type::kCounter ? "counter" : family.type == Type::kGauge ? "gauge" : "histogram");
      for (const auto& [labels, series] : family.series) {
        if (family.type != Type::kHistogram) {
          text += name + braced(labels) + ' ' + number(family.type == Type::kCounter ? series->counter.value() : series->gauge.value()) + '\n';
          continue;
        }
        const Histogram& h = *series->histogram;
        const std::string comma = labels.empty() ? "" : labels + ",";
        // Read once: _count must be the +Inf bucket also while others observe.
        uint64_t n = 0;
        for (size_t i = 0; i <= h.bounds().size(); ++i) {
          n = std::max(n, h.cumulative(i));
          std::string le = i < h.bounds().size() ? number(h.bounds()[i]) : "+Inf";
          text += name + "_bucket{" + comma + "le=\"" + le + "\"} " + std::to_string(n) + '\n';
        }
        text += name + "_sum" + braced(labels) + ' ' + number(h.sum()) + '\n';
        text += name + "_count" + braced(labels) + ' ' + std::to_string(n) + '\n';
      }
      blocks[name] = std::move(text);
    }
  }
  const Process p = read_process();
  auto process = [&](const char* name, const char* help, const char* type, double v) {
    blocks[name] = head(name, help, type) + name + ' ' + number(v) + '\n';
  };
  process("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", "counter", p.cpu);
  process("process_resident_memory_bytes", "Resident memory size in bytes.", "gauge", p.resident);
  process("process_virtual_memory_bytes", "Virtual memory size in bytes.", "gauge", p.virtual_bytes);
  process("process_open_fds", "Number of open file descriptors.", "gauge", p.fds);
  process("process_max_fds", "Maximum number of open file descriptors.", "gauge", p.max_fds);
  process("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", "gauge", p.started);
  std::string out;
  for (const auto& [name, text] : blocks) out += text;
  return out;
}

const std::vector<double>& reconcile_buckets() {
  static const std::vector<double> buckets{0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6,
                                           0.7,   0.8,  0.9,   1,    1.25, 1.5, 1.75, 2,   2.5, 3,    3.5, 4,    4.5, 5,
                                           6,     7,    8,     9,    10,   15,  20,  25,   30,  40,   50,  60};
  return buckets;
}

const std::vector<double>& queue_buckets() {
  static const std::vector<double> buckets{1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10};
  return buckets;
}

const std::vector<double>& request_buckets() {
  static const std::vector<double> buckets{0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60};
  return buckets;
}

}  // namespace bottle::metrics
