#include "controller/ops/endpoints.h"

#include <utility>

namespace bottle::ops {

HttpServer::Handler probes(std::function<std::vector<std::string>()> waiting_for) {
  return [waiting_for = std::move(waiting_for)](std::string_view path) -> Page {
    if (path == "/healthz") return {200, "ok\n"};
    if (path != "/readyz") return {404, "here are /healthz and /readyz\n"};
    auto missing = waiting_for();
    if (missing.empty()) return {200, "ok\n"};
    std::string text = "not ready, waiting for:\n";
    for (const auto& m : missing) text += "  " + m + "\n";
    return {503, std::move(text)};
  };
}

HttpServer::Handler metrics(const metrics::Registry& registry) {
  return [&registry](std::string_view path) -> Page {
    if (path != "/metrics") return {404, "here is /metrics\n"};
    return {200, registry.expose(), "text/plain; version=0.0.4; charset=utf-8"};
  };
}

}  // namespace bottle::ops
