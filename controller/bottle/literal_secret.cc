#include "controller/bottle/literal_secret.h"

#include <cctype>

namespace bottle {
namespace {

struct Shape {
  std::string_view prefix;
  size_t min_tail;         // token characters that follow
  std::string_view kind;
};

// Prefixes as the issuers document them. The tails are shorter than real ones: a shortened token is still one.
constexpr Shape kShapes[] = {
    {"ghp_", 8, "a GitHub token"},
    {"gho_", 8, "a GitHub token"},
    {"ghu_", 8, "a GitHub token"},
    {"ghs_", 8, "a GitHub token"},
    {"ghr_", 8, "a GitHub token"},
    {"github_pat_", 8, "a GitHub token"},
    {"glpat-", 8, "a GitLab token"},
    {"sk-ant-", 4, "an Anthropic key"},
    {"sk-", 12, "an API key"},
    {"sk_live_", 8, "a Stripe key"},
    {"rk_live_", 8, "a Stripe key"},
    {"AKIA", 16, "an AWS access key"},
    {"ASIA", 16, "an AWS access key"},
    {"AIza", 30, "a Google API key"},
    {"ya29.", 16, "a Google token"},
    {"xoxa-", 8, "a Slack token"},
    {"xoxb-", 8, "a Slack token"},
    {"xoxp-", 8, "a Slack token"},
    {"xoxr-", 8, "a Slack token"},
    {"xoxs-", 8, "a Slack token"},
    {"xapp-", 8, "a Slack token"},
    {"hf_", 20, "a Hugging Face token"},
    {"npm_", 30, "an npm token"},
    {"pypi-AgEI", 16, "a PyPI token"},
    {"dckr_pat_", 8, "a Docker token"},
    {"AGE-SECRET-KEY-", 8, "an age key"},
};

bool token_char(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-'; }

size_t tail_length(std::string_view text, size_t from) {
  size_t n = 0;
  while (from + n < text.size() && token_char(text[from + n])) ++n;
  return n;
}

bool word_start(std::string_view text, size_t at) { return at == 0 || !token_char(text[at - 1]); }

}  // namespace

std::string_view secret_kind(std::string_view text) {
  for (const Shape& shape : kShapes) {
    for (size_t at = text.find(shape.prefix); at != text.npos; at = text.find(shape.prefix, at + 1)) {
      if (word_start(text, at) && tail_length(text, at + shape.prefix.size()) >= shape.min_tail) return shape.kind;
    }
  }
  if (size_t at = text.find("-----BEGIN "); at != text.npos && text.find("PRIVATE KEY", at) != text.npos) {
    return "a private key";
  }
  // RFC 7519: both parts are base64url of '{"'.
  for (size_t at = text.find("eyJ"); at != text.npos; at = text.find("eyJ", at + 1)) {
    if (!word_start(text, at)) continue;
    size_t n = tail_length(text, at);
    if (n >= 12 && text.substr(at + n).starts_with(".eyJ")) return "a JSON Web Token";
    at += n;
  }
  for (std::string_view scheme : {"Bearer ", "bearer "}) {
    for (size_t at = text.find(scheme); at != text.npos; at = text.find(scheme, at + 1)) {
      if (word_start(text, at) && tail_length(text, at + scheme.size()) >= 20) return "a bearer token";
    }
  }
  return {};
}

}  // namespace bottle
