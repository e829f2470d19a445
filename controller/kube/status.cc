// What an API server's refusal means, as a Status with the fix in it.
#include <nlohmann/json.hpp>

#include "controller/kube/client.h"

namespace bottle::kube {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxMessage = 4096, kMaxCauses = 64, kMaxStatusBytes = 1u << 20;

// metav1.StatusReason of an answer that says none itself (apimachinery api/errors, NewGenericServerResponse).
const char* reason_of(int code) {
  switch (code) {
    case 400: return "BadRequest";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "NotFound";
    case 405: return "MethodNotAllowed";
    case 406: return "NotAcceptable";
    case 409: return "Conflict";
    case 410: return "Gone";
    case 413: return "RequestEntityTooLarge";
    case 415: return "UnsupportedMediaType";
    case 422: return "Invalid";
    case 429: return "TooManyRequests";
    case 500: return "InternalError";
    case 503: return "ServiceUnavailable";
    case 504: return "Timeout";
    default: return "Unknown";
  }
}

// The server's words go to a terminal and to conditions: no control characters, and not without end.
std::string clean(std::string text) {
  if (text.size() > kMaxMessage) {
    size_t end = kMaxMessage;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    text.resize(end);
    text += "…";
  }
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  return text;
}

std::string string_at(const Json& json, const char* key) {
  auto it = json.find(key);
  return it != json.end() && it->is_string() ? clean(it->get<std::string>()) : "";
}

}  // namespace

void decode_status(Answer* answer) {
  if (answer->code < 400) return;
  answer->reason = reason_of(answer->code);
  if (answer->body.empty() || answer->body.size() > kMaxStatusBytes) return;
  // Deep nesting is harmless as long as nothing is dumped, copied or compared: those recurse.
  const Json json = Json::parse(answer->body, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || string_at(json, "kind") != "Status") return;
  if (auto reason = string_at(json, "reason"); !reason.empty()) answer->reason = reason;
  answer->message = string_at(json, "message");
  auto details = json.find("details");
  if (details == json.end() || !details->is_object()) return;
  auto retry = details->find("retryAfterSeconds");
  if (retry != details->end() && retry->is_number() && answer->retry_after_s <= 0)
    answer->retry_after_s = std::max(0.0, retry->get<double>());
  auto causes = details->find("causes");
  if (causes == details->end() || !causes->is_array()) return;
  for (const Json& c : *causes) {
    if (!c.is_object()) continue;
    if (answer->causes.size() == kMaxCauses) break;
    answer->causes.push_back({string_at(c, "field"), string_at(c, "reason"), string_at(c, "message")});
  }
}

Status Answer::status(std::string_view what) const {
  if (!transport.is_ok()) return transport.with_context(what);
  if (ok()) return Status::ok();
  std::string said = message.empty() ? "the API server answered HTTP " + std::to_string(code) + (reason.empty() ? "" : " (" + reason + ")") : message;
  auto status = [&](Code c, std::string_view fix = {}) {
    return Status(c, std::string(what) + ": " + said + (fix.empty() ? "" : "; ") + std::string(fix));
  };
  switch (code) {
    case 400:
    case 405:
    case 406:
    case 413:
    case 415:
    case 422:
      return status(Code::kInvalid);
    case 401:
      return status(Code::kPermission,
                    "the credentials have expired or the cluster does not know them: log in again, or check the user of " +
                        (source.empty() ? "the kubeconfig" : source));
    case 403:
      // Authorization says which verb and resource (User "x" cannot get resource "y"); admission says why itself.
      if (said.find(" cannot ") != std::string::npos)
        return status(Code::kPermission, "a Role or ClusterRole with that verb and resource must be bound to this user");
      // A namespace that is full is a limit, not a missing permission.
      if (said.find("exceeded quota") != std::string::npos)
        return status(Code::kExhausted, "free some of the namespace's quota or have it raised");
      return status(Code::kPermission);
    case 404:
      return status(Code::kNotFound);
    case 409:
      return status(Code::kConflict);
    case 410:
      return status(Code::kConflict);
    case 429:
      return status(Code::kUnavailable, "the API server is busy and asks to come back later");
    default:
      if (code >= 300 && code < 400)
        return status(Code::kUnavailable, "redirects are not followed: does the server's address name an API server?");
      return status(Code::kUnavailable);
  }
}

}  // namespace bottle::kube
