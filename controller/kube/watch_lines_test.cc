#include "controller/kube/watch_lines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <vector>

#include "controller/kube/watch_backoff.h"

namespace bottle::kube {
namespace {

using ::testing::ElementsAre;

struct Lines {
  std::vector<std::string> seen;
  LineSplitter::Fed feed(LineSplitter& splitter, std::string_view chunk) {
    return splitter.feed(chunk, [&](std::string_view line) {
      seen.emplace_back(line);
      return line != "stop";
    });
  }
};

TEST(LineSplitterTest, GivesWholeLinesAlone) {
  LineSplitter splitter;
  Lines lines;
  EXPECT_EQ(lines.feed(splitter, "one\ntw"), LineSplitter::Fed::kAll);
  EXPECT_THAT(lines.seen, ElementsAre("one"));
  lines.feed(splitter, "o");
  lines.feed(splitter, "\n\n\r\nthree\r\nfour");
  EXPECT_THAT(lines.seen, ElementsAre("one", "two", "three"));
}

TEST(LineSplitterTest, StopsWhereItIsTold) {
  LineSplitter splitter;
  Lines lines;
  EXPECT_EQ(lines.feed(splitter, "a\nstop\nb\nc"), LineSplitter::Fed::kStopped);
  EXPECT_EQ(lines.feed(splitter, "d\n"), LineSplitter::Fed::kAll);
  EXPECT_THAT(lines.seen, ElementsAre("a", "stop", "d"));
}

TEST(LineSplitterTest, ALineHasABoundHoweverItComes) {
  for (size_t chunk : {1u, 3u, 64u}) {
    LineSplitter splitter(10);
    Lines lines;
    const std::string fits = std::string(10, 'x') + "\n", over = std::string(11, 'y') + "\n";
    auto feed = [&](std::string_view text) {
      for (; !text.empty(); text.remove_prefix(std::min(chunk, text.size()))) {
        if (auto fed = lines.feed(splitter, text.substr(0, chunk)); fed != LineSplitter::Fed::kAll) return fed;
      }
      return LineSplitter::Fed::kAll;
    };
    EXPECT_EQ(feed(fits), LineSplitter::Fed::kAll) << chunk;
    EXPECT_EQ(feed(over), LineSplitter::Fed::kTooLong) << chunk;
    EXPECT_THAT(lines.seen, ElementsAre(std::string(10, 'x'))) << chunk;
  }
}

TEST(LineSplitterTest, AnyChunkingGivesTheSameLines) {
  EXPECT_TRUE(rc::check([] {
    const auto want = *rc::gen::container<std::vector<std::string>>(rc::gen::nonEmpty(rc::gen::container<std::string>(rc::gen::inRange<char>(' ', '~'))));
    std::string text;
    for (const auto& line : want) text += line + "\n";
    LineSplitter splitter;
    Lines lines;
    for (std::string_view rest = text; !rest.empty();) {
      const size_t n = *rc::gen::inRange<size_t>(1, rest.size() + 1);
      splitter.feed(rest.substr(0, n), [&](std::string_view line) {
        lines.seen.emplace_back(line);
        return true;
      });
      rest.remove_prefix(n);
    }
    RC_ASSERT(lines.seen == want);
  }));
}

TEST(WatchBackoffTest, DoublesWithJitterUpToTheEndAndStartsAgainAfterAQuietTime) {
  using std::chrono::milliseconds;
  std::mt19937 random(1);
  WatchBackoff backoff(milliseconds(800), milliseconds(30'000));
  WatchBackoff::Clock::time_point now{std::chrono::hours(1)};
  milliseconds base{800};
  for (int i = 0; i < 10; ++i) {
    const auto wait = backoff.next(random, now);
    EXPECT_GE(wait, base) << i;
    EXPECT_LE(wait, 2 * base) << i;
    base = std::min(base * 2, milliseconds(30'000));
    now += wait;
  }
  EXPECT_LE(backoff.next(random, now + std::chrono::seconds(121)), milliseconds(1600));
}

}  // namespace
}  // namespace bottle::kube
