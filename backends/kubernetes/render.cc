#include "backends/kubernetes/render.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>

#include "backends/kubernetes/render_internal.h"
#include "backends/kubernetes/volumes.h"
#include "base/digest.h"
#include "base/rfc3339.h"

namespace bottle::kubernetes {
namespace {

constexpr char kManager[] = "bottle-controller";

bool lower_or_digit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

// DNS-1123 subdomain: what names of Secrets and pods are made of.
bool is_object_name(std::string_view name, size_t max) {
  if (name.empty() || name.size() > max) return false;
  char before = '.';
  for (char c : name) {
    if (!lower_or_digit(c) && (c != '-' || before == '.') && (c != '.' || before == '.' || before == '-')) return false;
    before = c;
  }
  return lower_or_digit(before);
}

bool is_secret_key(std::string_view key) {
  return !key.empty() && key.size() <= 253 && key != "." && key.substr(0, 2) != ".." && std::all_of(key.begin(), key.end(), [](char c) {
    return lower_or_digit(c) || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' || c == '.';
  });
}

// A name for the status key that does not give it away: the key is 32 random bytes and is not guessed from a MAC.
std::string mark_of(const SecretString& key) {
  static constexpr unsigned char kWhat[] = "bot-bottle content hash";
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  const std::string_view bytes = key.expose();
  if (!HMAC(EVP_sha256(), bytes.data(), static_cast<int>(bytes.size()), kWhat, sizeof kWhat - 1, mac, &size)) return {};
  return sha256_hex({reinterpret_cast<const char*>(mac), size});
}

}  // namespace

std::string policy_name(std::string_view bottle) { return std::string(bottle) + "-policy"; }
std::string egress_ca_name(std::string_view bottle) { return std::string(bottle) + "-egress-ca"; }
std::string network_policy_name(std::string_view bottle) { return std::string(bottle) + "-bottle"; }

std::string annotation(std::string_view name) { return std::string(kPrefix) + std::string(name); }

std::string json_text(const Json& j) { return j.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json selector_labels(std::string_view bottle) {
  return {{"app.kubernetes.io/managed-by", kManager}, {annotation("bottle"), std::string(bottle)}};
}

Json child(const char* api_version, const char* kind, const std::string& name, const Owner& owner) {
  return {{"apiVersion", api_version},
          {"kind", kind},
          {"metadata",
           {{"name", name},
            {"namespace", owner.ns},
            {"labels", selector_labels(owner.name)},
            {"annotations", Json::object()},
            {"ownerReferences", Json::array({{{"apiVersion", "bot-bottle.dev/v1alpha1"},
                                              {"kind", "Bottle"},
                                              {"name", owner.name},
                                              {"uid", owner.uid},
                                              {"controller", true},
                                              {"blockOwnerDeletion", false}}})}}}};
}

void seal(Json& object) {
  const std::string hash = "sha256:" + sha256_hex(json_text(object));
  object["metadata"]["annotations"][annotation(kContentHash)] = hash;
}

std::string memory_quantity(int64_t bytes) {
  static constexpr const char* kUnits[] = {"", "Ki", "Mi", "Gi", "Ti"};
  size_t unit = 0;
  while (bytes != 0 && bytes % 1024 == 0 && unit + 1 < std::size(kUnits)) bytes /= 1024, ++unit;
  return std::to_string(bytes) + kUnits[unit];
}

std::string cpu_quantity(int64_t millis) {
  return millis % 1000 == 0 ? std::to_string(millis / 1000) : std::to_string(millis) + "m";
}

Status check(const Bottle& bottle) {
  // 63: the name is also a label's value, by which the pod is found.
  if (!is_object_name(bottle.name, 63) || bottle.name.find('.') != bottle.name.npos)
    return {Code::kInvalid, "metadata.name: a bottle on a cluster has a name of at most 63 of a-z, 0-9 and '-', which is not first or "
                            "last: rename it"};
  if (bottle.agent.workspace.kind == WorkspaceSpec::Kind::kHostPath)
    return {Code::kInvalid, "spec.agent.workspace.hostPath is for one machine: use persistentVolumeClaim or emptyDir on a cluster"};
  if (!bottle.egress.upstream_ca_files.empty())
    return {Code::kInvalid, "spec.egress.upstreamCAs: file names a file of one machine: put the certificate itself under pem"};
  for (const auto& route : bottle.egress.routes)
    for (const auto& inject : route.inject) {
      const std::string at = "spec.egress.routes (" + route.host + ") inject.secretKeyRef";
      if (!is_object_name(inject.secret.name, 253)) return {Code::kInvalid, at + ".name is no name of a Secret: correct it"};
      if (!is_secret_key(inject.secret.key))
        return {Code::kInvalid, at + ".key is no key of a Secret: use letters, digits, '-', '_' and '.'"};
    }
  return Status::ok();
}

Json render_policy(const BottlePlan& plan, const Owner& owner) {
  Json object = child("v1", "ConfigMap", policy_name(plan.name), owner);
  object["metadata"]["annotations"][annotation(kPolicyHash)] = plan.policy_hash;
  object["data"] = policy_data(plan);
  seal(object);
  return object;
}

Json render_egress_ca(const pki::CertificateAuthority& ca, const SecretString& status_key, const Owner& owner) {
  Json object = child("v1", "Secret", egress_ca_name(owner.name), owner);
  object["type"] = "Opaque";
  Json& annotations = object["metadata"]["annotations"];
  annotations[annotation(kCaFingerprint)] = ca.fingerprint;
  annotations[annotation(kCaNotAfter)] = format_rfc3339(ca.not_after);
  // The hash is of what anybody may see: the certificate, which has one key, and the status key's mark.
  Json open = object;
  open["data"] = {{"ca.pem", ca.cert_pem}, {"status.key", mark_of(status_key)}};
  seal(open);
  annotations[annotation(kContentHash)] = open["metadata"]["annotations"][annotation(kContentHash)];
  object["stringData"] = {{"ca.pem", ca.cert_pem},
                          {"mitmproxy-ca.pem", std::string(pki::mitmproxy_pem(ca).expose())},
                          {"status.key", std::string(status_key.expose())}};
  return object;
}

}  // namespace bottle::kubernetes
