// The egress CA: one Secret for each bottle, made once, renewed at two thirds of its lifetime. Only the pod's egress ever reads the key.
#include <openssl/crypto.h>

#include "base/encoding.h"
#include "base/rfc3339.h"
#include "controller/reconcile/pass.h"
#include "controller/reconcile/text.h"

namespace bottle::reconcile {
namespace {

constexpr int64_t kLifetime = 365 * 86'400;  // of controller/pki
// Not part of what is rendered from a CA, which does not say what it was asked for.
constexpr std::string_view kKeyType = "ca-key-type";

std::string_view key_type_name(KeyType t) { return t == KeyType::kEcdsaP256 ? "ECDSA-P256" : "RSA-2048"; }

// Two thirds between its making and its end. A renewed Secret keeps its creationTimestamp, so the lifetime bounds it.
int64_t renew_at(const kube::ObjectMeta& secret, int64_t not_after) {
  const int64_t from = std::max(secret.created, not_after - kLifetime);
  return not_after - (not_after - from) / 3;
}

void wipe(nlohmann::json& value) {
  if (value.is_string()) {
    auto& text = value.get_ref<std::string&>();
    OPENSSL_cleanse(text.data(), text.size());
  } else if (value.is_structured()) {
    for (auto& v : value) wipe(v);
  }
}

}  // namespace

Problem Pass::ensure_egress_ca() {
  Meta existing = latest(snap_.egress_ca, &m_.egress_ca);
  if (existing && ours(*existing) != Ours::kYes) return not_ours(kube::kSecrets, *existing);
  const auto note = [this](std::string_view fingerprint, std::string_view not_after) {
    f_.ca_fingerprint = fingerprint;
    f_.ca_not_after = not_after;
    ca_not_after_ = parse_rfc3339(not_after);
  };
  const auto usable = [&](const kube::ObjectMeta& secret, bool* renewal) {
    *renewal = false;
    if (secret.annotation(kubernetes::kCaFingerprint).empty() || secret.annotation(kKeyType) != key_type_name(spec_->key_type)) return false;
    const int64_t not_after = parse_rfc3339(secret.annotation(kubernetes::kCaNotAfter));
    const int64_t due = renew_at(secret, not_after);
    if (now() >= due) {
      *renewal = true;
      return false;
    }
    note(secret.annotation(kubernetes::kCaFingerprint), secret.annotation(kubernetes::kCaNotAfter));
    requeue(std::chrono::seconds(std::min<int64_t>(due - now(), 86'400)));
    return true;
  };
  bool renewal = false;
  if (existing && usable(*existing, &renewal)) return {};

  auto key = s_.keys.take(spec_->key_type);
  if (!key) return transient(key.status());
  auto ca = pki::make_egress_ca(std::move(*key), now());
  if (!ca) return transient(ca.status());
  auto status_key = kubernetes::make_status_key();
  if (!status_key) return transient(status_key.status());
  Json object = kubernetes::render_egress_ca(*ca, *status_key, owner_of(b_));
  annotate(object, kKeyType, key_type_name(spec_->key_type));
  Problem p;
  bool existed = false;
  if (!existing) {
    p = create(kube::kSecrets, kubernetes::egress_ca_name(b_.name), object.dump(), &m_.egress_ca, &existed);
    if (p.none() && existed) {
      // Made by a pass that ended before it could tell, or by a cache that is behind: it is taken as it is, when it is good.
      existing = m_.egress_ca.meta;
      if (usable(*existing, &renewal)) {
        wipe(object);
        return {};
      }
    }
  }
  if (p.none() && existing) p = apply(kube::kSecrets, *existing, object, &m_.egress_ca);
  wipe(object);
  if (!p.none()) return p;
  s_.status_keys.put(b_.uid, std::move(*status_key));
  note(ca->fingerprint, format_rfc3339(ca->not_after));
  requeue(std::chrono::hours(24));
  if (renewal && pod_) {
    f_.ca_renewing = true;
    say(Events::Type::kNormal, "CARenewal", "RenewCA", "the egress CA has passed two thirds of its lifetime: a new one is in force, and the pod is replaced");
  }
  return {};
}

Result<SecretString> Pass::status_key() {
  if (SecretString known = s_.status_keys.get(b_.uid); !known.empty()) return known;
  kube::Answer a = s_.client.call(request_of("GET", kube::object_path(kube::kSecrets, b_.ns, kubernetes::egress_ca_name(b_.name))));
  if (!a.ok()) return a.status("read the status key of bottle " + b_.ns + "/" + b_.name);
  Json secret = Json::parse(a.body, nullptr, false);
  OPENSSL_cleanse(a.body.data(), a.body.size());
  SecretString key;
  const Json::json_pointer at("/data/status.key");
  if (secret.is_object() && secret.contains(at) && secret[at].is_string()) key = SecretString(decode_base64(secret[at].get_ref<const std::string&>()).value_or(""));
  if (secret.is_object()) wipe(secret);
  if (key.empty())
    return {Code::kInvalid, "Secret " + kubernetes::egress_ca_name(b_.name) + " has no status.key: delete it, and a new one is made"};
  s_.status_keys.put(b_.uid, key.clone());
  return key;
}

}  // namespace bottle::reconcile
