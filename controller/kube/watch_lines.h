// The frames of a watch: one JSON object a line, in whatever chunks the network gives. Complete lines alone come out, and a line has a bound
// (client-go rest/watch/decoder.go; a server's object has at most 1.5 MB). Not for several threads.
#ifndef CONTROLLER_KUBE_WATCH_LINES_H_
#define CONTROLLER_KUBE_WATCH_LINES_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace bottle::kube {

inline constexpr size_t kMaxLine = 8u << 20;

class LineSplitter {
 public:
  explicit LineSplitter(size_t max_line = kMaxLine) : max_line_(max_line) {}

  enum class Fed { kAll, kStopped, kTooLong };
  // Calls each(line) -> bool for every line that `chunk` completes, without its '\n'; false stops. Empty lines are passed over. After
  // kStopped and kTooLong the rest is forgotten: the stream is to be cut.
  template <class F>
  Fed feed(std::string_view chunk, F each) {
    while (!chunk.empty()) {
      const size_t end = chunk.find('\n');
      const std::string_view part = chunk.substr(0, end);
      if (begun_.size() + part.size() > max_line_) {
        reset();
        return Fed::kTooLong;
      }
      if (end == std::string_view::npos) {
        begun_.append(part);
        return Fed::kAll;
      }
      chunk.remove_prefix(end + 1);
      std::string_view line = part;
      if (!begun_.empty()) line = begun_.append(part);
      if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
      const bool go_on = line.empty() || each(line);
      if (begun_.capacity() > kKeep) begun_ = std::string(); else begun_.clear();
      if (!go_on) {
        reset();
        return Fed::kStopped;
      }
    }
    return Fed::kAll;
  }
  void reset() { begun_ = std::string(); }

 private:
  static constexpr size_t kKeep = 1u << 20;
  size_t max_line_;
  std::string begun_;
};

}  // namespace bottle::kube

#endif  // CONTROLLER_KUBE_WATCH_LINES_H_
