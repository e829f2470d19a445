// A watch as the network gives it: the first bytes say how it is cut into chunks, the rest is the stream. Whatever comes, the lines are the
// same as without chunks, and what the decoder makes of a line has its bounds.
// Run with the seeds: watch_fuzz -max_total_time=60 NEW_CORPUS tests/fuzz/corpus/watch
#include <cstdint>
#include <string>
#include <vector>

#include "controller/kube/json_slice.h"
#include "controller/kube/objects.h"
#include "controller/kube/watch_lines.h"
#include "tests/fuzz/require.h"

using namespace bottle;
using namespace bottle::kube;

namespace {

constexpr size_t kChunkBytes = 8, kLineBound = 64u << 10;

std::vector<std::string> lines_of(std::string_view stream, const std::vector<size_t>& chunks) {
  LineSplitter splitter(kLineBound);
  std::vector<std::string> lines;
  size_t next = 0;
  while (!stream.empty()) {
    const size_t n = chunks.empty() ? stream.size() : std::min(stream.size(), chunks[next++ % chunks.size()]);
    const auto fed = splitter.feed(stream.substr(0, n), [&](std::string_view line) {
      lines.emplace_back(line);
      return true;
    });
    if (fed != LineSplitter::Fed::kAll) break;
    stream.remove_prefix(n);
  }
  return lines;
}

void check(const Status& s) { require(s.is_ok() || s.code() == Code::kInvalid, "an object is good or invalid"); }

void check_meta(const Status& s, const ObjectMeta& m) {
  check(s);
  if (!s) return;
  require(!m.name.empty() && m.name.size() <= 253 && !m.uid.empty() && m.uid.size() <= 253, "names have a bound");
  require(m.annotations.size() <= 64, "annotations have a bound");
  for (const auto& [key, value] : m.annotations) require(value.size() <= 4096, "an annotation has a bound");
}

void decode(Decoder& decoder, std::string_view text) {
  BottleObject bottle;
  Status s = decoder.bottle(text, &bottle);
  check_meta(s, bottle);
  if (s && !bottle.spec_json.empty()) {
    std::string again;
    require(compact_json(bottle.spec_json, &again) && again == bottle.spec_json, "a spec is compact");
  }
  PodObject pod;
  check_meta(decoder.pod(text, &pod), pod);
  require(pod.message.size() <= 1024 && pod.containers.size() <= 3 * 128 && pod.conditions.size() <= 64, "a pod has a bound");
  NetworkPolicyObject policy;
  check_meta(decoder.network_policy(text, &policy), policy);
  require(policy.pod_selector.size() <= 256, "a selector has a bound");
  selects(policy.pod_selector, {{"app", "web"}});
  MetaObject meta;
  check_meta(decoder.meta(text, &meta), meta);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < kChunkBytes) return 0;
  std::vector<size_t> chunks;
  for (size_t i = 0; i < kChunkBytes; ++i) chunks.push_back(size_t{1} + data[i]);
  const std::string_view stream(reinterpret_cast<const char*>(data) + kChunkBytes, size - kChunkBytes);
  const auto lines = lines_of(stream, chunks);
  require(lines == lines_of(stream, {}), "chunks change nothing");

  Decoder decoder;
  for (const std::string& line : lines) {
    Decoder::Event event;
    const Status s = decoder.event(line, &event);
    check(s);
    if (s) {
      require(event.object.data() >= line.data() && event.object.data() + event.object.size() <= line.data() + line.size(), "an object is a slice of its line");
      decode(decoder, event.object);
    } else {
      decode(decoder, line);
    }
    std::string version, next;
    check(decoder.list(line, [&](std::string_view item) {
      decode(decoder, item);
      return Status::ok();
    }, &version, &next));
  }
  return 0;
}
