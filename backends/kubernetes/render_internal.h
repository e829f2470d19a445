// What the renderers share. Private to this folder.
#ifndef BACKENDS_KUBERNETES_RENDER_INTERNAL_H_
#define BACKENDS_KUBERNETES_RENDER_INTERNAL_H_

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "backends/kubernetes/render.h"

namespace bottle::kubernetes {

inline constexpr std::string_view kPrefix = "bot-bottle.dev/";

// "bot-bottle.dev/<name>".
std::string annotation(std::string_view name);
std::string json_text(const Json& j);

// An object of this kind with the labels, the owner and no annotations yet.
Json child(const char* api_version, const char* kind, const std::string& name, const Owner& owner);
// The labels by which a bottle's pod is found.
Json selector_labels(std::string_view bottle);
// Writes the content hash of all there is so far. Last.
void seal(Json& object);

// A canonical Kubernetes quantity: "512Mi", "100m", "1". The API server stores the same text.
std::string memory_quantity(int64_t bytes);
std::string cpu_quantity(int64_t millis);

}  // namespace bottle::kubernetes

#endif  // BACKENDS_KUBERNETES_RENDER_INTERNAL_H_
