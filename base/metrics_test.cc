#include "base/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <string>
#include <thread>
#include <vector>

namespace bottle::metrics {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

double value_of(const std::string& text, const std::string& series) {
  size_t at = text.find("\n" + series + " ");
  EXPECT_NE(at, std::string::npos) << series;
  return at == std::string::npos ? -1 : std::stod(text.substr(at + series.size() + 2));
}

TEST(MetricsTest, ExposesWhatPrometheusReads) {
  Registry r;
  r.counter("b_total", "Things done.", {{"result", "success"}}).add();
  r.counter("b_total", "", {{"result", "success"}}).add(2);
  r.counter("b_total", "", {{"result", "error"}});
  r.gauge("a_depth", "How\nmany.").set(2.5);
  EXPECT_THAT(r.expose(), ::testing::StartsWith("# HELP a_depth How\\nmany.\n# TYPE a_depth gauge\na_depth 2.5\n"
                                                "# HELP b_total Things done.\n# TYPE b_total counter\n"
                                                "b_total{result=\"error\"} 0\nb_total{result=\"success\"} 3\n"));
}

TEST(MetricsTest, LabelsCannotLeaveTheirQuotes) {
  Registry r;
  r.counter("x_total", "x", {{"host", "a\"} 1\nevil 2\\"}}).add();
  EXPECT_THAT(r.expose(), HasSubstr("x_total{host=\"a\\\"} 1\\nevil 2\\\\\"} 1\n"));
}

TEST(MetricsTest, HistogramBucketsAreCumulativeAndUpperBoundsInclusive) {
  Registry r;
  auto& h = r.histogram("t_seconds", "t", {0.1, 1}, {{"controller", "bottle"}});
  for (double v : {0.05, 0.1, 0.5, 2.0}) h.observe(v);
  EXPECT_EQ(h.count(), 4u);
  EXPECT_EQ(h.cumulative(0), 2u);
  EXPECT_THAT(r.expose(), HasSubstr("t_seconds_bucket{controller=\"bottle\",le=\"0.1\"} 2\n"
                                    "t_seconds_bucket{controller=\"bottle\",le=\"1\"} 3\n"
                                    "t_seconds_bucket{controller=\"bottle\",le=\"+Inf\"} 4\n"
                                    "t_seconds_sum{controller=\"bottle\"} 2.65\n"
                                    "t_seconds_count{controller=\"bottle\"} 4\n"));
  EXPECT_EQ(&h, &r.histogram("t_seconds", "t", {}, {{"controller", "bottle"}}));
}

TEST(MetricsTest, AnotherTypeUnderATakenNameIsNotExposed) {
  Registry r;
  r.counter("x_total", "x").add();
  r.gauge("x_total", "x").set(77);
  r.histogram("x_total", "x", {1}).observe(77);
  EXPECT_THAT(r.expose(), Not(HasSubstr("77")));
}

TEST(MetricsTest, RefreshesBeforeItExposes) {
  Registry r;
  int calls = 0;
  r.on_expose([&] { r.gauge("seen", "s").set(++calls); });
  (void)r.expose();
  EXPECT_THAT(r.expose(), HasSubstr("\nseen 2\n"));
}

TEST(MetricsTest, SaysHowTheProcessIs) {
  std::string text = Registry().expose();
  EXPECT_GT(value_of(text, "process_resident_memory_bytes"), 1e6);
  EXPECT_GE(value_of(text, "process_open_fds"), 3);
  EXPECT_GT(value_of(text, "process_cpu_seconds_total"), 0);
  EXPECT_NEAR(value_of(text, "process_start_time_seconds"), static_cast<double>(std::time(nullptr)), 60);
}

TEST(MetricsTest, NothingIsLostBetweenThreads) {
  Registry r;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) {
        r.counter("n_total", "n").add();
        r.gauge("g", "g").add(1);
        r.histogram("h", "h", reconcile_buckets()).observe(i * 1e-3);
      }
    });
  }
  for (int i = 0; i < 20; ++i) (void)r.expose();
  for (auto& t : threads) t.join();
  EXPECT_EQ(r.counter("n_total", "n").value(), 4000);
  EXPECT_EQ(r.gauge("g", "g").value(), 4000);
  EXPECT_EQ(r.histogram("h", "h", {}).count(), 4000u);
}

TEST(MetricsTest, BucketsAreThoseOfControllerRuntime) {
  EXPECT_EQ(reconcile_buckets().size(), 40u);
  EXPECT_EQ(queue_buckets().size(), 10u);
  EXPECT_EQ(request_buckets().size(), 12u);
}

}  // namespace
}  // namespace bottle::metrics
