#include "controller/kube/resource.h"

#include "base/encoding.h"

namespace bottle::kube {
namespace {

// A segment of dots would be folded away on its way to the server; encoded dots are folded too. No object has such a name, so the
// answer is a 404 for a name that is told as it was asked for.
void segment(std::string_view text, std::string* out) {
  *out += '/';
  if (text == "." || text == "..") {
    *out += text == "." ? "%252E" : "%252E%252E";
    return;
  }
  *out += percent_encode(text);
}

void query_of(const Query& query, std::string* out) {
  char sep = '?';
  for (const auto& [key, value] : query) {
    *out += sep;
    *out += percent_encode(key);
    *out += '=';
    *out += percent_encode(value);
    sep = '&';
  }
}

std::string base_path(const Resource& r, std::string_view ns) {
  std::string out;
  if (r.group.empty()) {
    out = "/api";
  } else {
    out = "/apis";
    segment(r.group, &out);
  }
  segment(r.version, &out);
  if (!ns.empty()) {
    out += "/namespaces";
    segment(ns, &out);
  }
  segment(r.plural, &out);
  return out;
}

}  // namespace

std::string collection_path(const Resource& resource, std::string_view ns, const Query& query) {
  std::string out = base_path(resource, ns);
  query_of(query, &out);
  return out;
}

std::string object_path(const Resource& resource, std::string_view ns, std::string_view name, std::string_view subresource, const Query& query) {
  std::string out = base_path(resource, ns);
  segment(name, &out);
  if (!subresource.empty()) segment(subresource, &out);
  query_of(query, &out);
  return out;
}

std::string api_version(const Resource& resource) {
  std::string out(resource.group);
  if (!out.empty()) out += '/';
  return out.append(resource.version);
}

}  // namespace bottle::kube
