#include "backends/docker/pull.h"

#include <map>

#include "base/encoding.h"

namespace bottle::docker {
namespace {

std::string megabytes(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f MB", static_cast<double>(bytes) / 1e6);
  return text;
}

// Adds up the layers of a pull; says something when a tenth of what is known has been done.
class PullStream {
 public:
  PullStream(std::string image, std::string step, const Progress& progress)
      : image_(std::move(image)), step_(std::move(step)), progress_(progress) {}

  bool feed(std::string_view data) {
    buffer_.append(data);
    for (size_t end; (end = buffer_.find('\n')) != std::string::npos; buffer_.erase(0, end + 1))
      line(buffer_.substr(0, end));
    return buffer_.size() < (1u << 20);
  }
  // An error comes inside a stream that began with 200.
  std::string error() {
    if (!buffer_.empty()) line(std::exchange(buffer_, ""));
    return error_;
  }

 private:
  void line(const std::string& text) {
    Json j = Json::parse(text, nullptr, false);
    if (!j.is_object()) return;
    if (j.contains("error"))
      error_ = text_at(j, "/errorDetail/message").empty() ? text_at(j, "/error")
                                                          : text_at(j, "/errorDetail/message");
    std::string layer = text_at(j, "/id");
    int64_t total = int_at(j, "/progressDetail/total");
    if (layer.empty() || total <= 0 || text_at(j, "/status") != "Downloading") return;
    layers_[layer] = {int_at(j, "/progressDetail/current"), total};
    int64_t done = 0, all = 0;
    for (const auto& [id, l] : layers_) done += l.first, all += l.second;
    if (int tenth = static_cast<int>(done * 10 / all); tenth != said_ && progress_) {
      said_ = tenth;
      progress_(step_, image_ + ": " + megabytes(done) + " of " + megabytes(all));
    }
  }
  std::string image_, step_, buffer_, error_;
  const Progress& progress_;
  std::map<std::string, std::pair<int64_t, int64_t>> layers_;
  int said_ = -1;
};

std::string missing_help(const std::string& image) {
  if (image.rfind("bot-bottle/", 0) == 0 || image.find("/bot-bottle/") != std::string::npos)
    return "build it with images/build.sh, or name another";
  return "check the name, pull or build it first (docker pull " + image + ")";
}

}  // namespace

ImageRef split_image(const std::string& image) {
  if (auto at = image.find('@'); at != std::string::npos) {
    std::string name = image.substr(0, at);
    if (auto colon = name.rfind(':');
        colon != std::string::npos && name.find('/', colon) == std::string::npos)
      name.resize(colon);
    return {name, image.substr(at + 1)};
  }
  auto colon = image.rfind(':');
  if (colon == std::string::npos || image.find('/', colon) != std::string::npos)
    return {image, "latest"};
  return {image.substr(0, colon), image.substr(colon + 1)};
}

Result<Json> ensure_image(const EngineClient& engine, const std::string& image, bool pull,
                          std::string_view role, const Progress& progress) {
  std::string path = "/images/" + image + "/json";
  auto found = engine.call("GET", path);
  if (found || found.status().code() != Code::kNotFound) return found;
  if (!pull)
    return Status(Code::kNotFound,
                  "image " + image + " is not on the engine; " + missing_help(image));
  std::string step = "pull " + std::string(role);
  if (progress) progress(step, image);
  ImageRef ref = split_image(image);
  PullStream stream(image, step, progress);
  Status s = engine.stream(
      "POST",
      "/images/create?fromImage=" + percent_encode(ref.repository) + "&tag=" + percent_encode(ref.tag),
      [&](std::string_view data) { return stream.feed(data); });
  if (s.code() == Code::kCancelled) return s;
  std::string error = s ? stream.error() : s.message();
  if (!error.empty()) {
    Status decoded = engine_error(404, dump(Json{{"message", error}}), "pull of image " + image);
    return Status(s ? decoded.code() : s.code(),
                  "image " + image + " is not on the engine and cannot be pulled: " + error +
                      (decoded.code() == Code::kExhausted ? "; free space on the engine's disk"
                                                          : "; " + missing_help(image)));
  }
  return engine.call("GET", path);
}

}  // namespace bottle::docker
