#include "controller/reconcile/text.h"

#include <nlohmann/json.hpp>

#include "controller/kube/objects.h"

namespace bottle::reconcile {

std::string annotation_of(const nlohmann::json& object, std::string_view name) {
  const nlohmann::json::json_pointer at("/metadata/annotations");
  if (!object.contains(at)) return "";
  const auto& all = object.at(at);
  auto it = all.find(std::string(kube::kAnnotationPrefix) + std::string(name));
  return it != all.end() && it->is_string() ? it->get<std::string>() : "";
}

void annotate(nlohmann::json& object, std::string_view name, std::string_view value) {
  object["metadata"]["annotations"][std::string(kube::kAnnotationPrefix) + std::string(name)] = std::string(value);
}

std::string plain(std::string_view text, size_t limit) {
  std::string out;
  for (char c : text.substr(0, limit)) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
  if (text.size() > limit) {
    // Back to the start of a character that was cut in two.
    while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0xc0) == 0x80) out.pop_back();
    if (!out.empty() && static_cast<unsigned char>(out.back()) >= 0xc0) out.pop_back();
  }
  // What is no UTF-8 would make the API server refuse the whole object.
  return nlohmann::json::parse(nlohmann::json(out).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)).get<std::string>();
}

std::string joined(const std::vector<std::string>& words, std::string_view separator) {
  std::string out;
  for (const auto& w : words) {
    if (!out.empty()) out += separator;
    out += w;
  }
  return out;
}

std::string duration_text(int64_t s) {
  if (s < 120) return std::to_string(s) + " s";
  if (s < 7200) return std::to_string(s / 60) + " min";
  if (s < 172'800) return std::to_string(s / 3600) + " h";
  return std::to_string(s / 86'400) + " d";
}

bool not_older(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return a.size() > b.size();
  return a >= b;
}

}  // namespace bottle::reconcile
