// The Secrets that `up` makes of tokens it was given: labelled as ours, and gone with the last bottle that needs them, because each of these
// bottles is an owner. A Secret of somebody else is never written.
#include <openssl/crypto.h>

#include <algorithm>

#include "backends/kubernetes/kubernetes_impl.h"
#include "base/encoding.h"
#include "controller/kube/objects.h"

namespace bottle::kubernetes {

std::vector<std::string> conflict_managers(const kube::Answer& answer) {
  std::vector<std::string> out;
  for (const auto& cause : answer.causes) {  // conflict with "kubectl-edit" using v1
    const size_t from = cause.message.find('"'), to = cause.message.find('"', from + 1);
    if (from != std::string::npos && to != std::string::npos) out.push_back(cause.message.substr(from + 1, to - from - 1));
  }
  return out;
}

std::string conflict_text(const kube::Answer& answer) {
  std::string out;
  for (const auto& cause : answer.causes) out += (out.empty() ? "" : ", ") + cause.field + " (" + cause.message + ")";
  return out.empty() ? answer.message : out;
}

Result<std::vector<KubernetesBackend::SecretWrite>> KubernetesBackend::plan_secrets(const Key& key, const ApplyRequest& request, const Progress& progress) {
  std::vector<SecretWrite> out;
  for (const auto& ref : request.plan.tokens) {
    if (!request.tokens.count(ref.env)) continue;
    auto it = std::find_if(out.begin(), out.end(), [&](const SecretWrite& w) { return w.name == ref.secret.name; });
    if (it == out.end()) it = out.insert(out.end(), {ref.secret.name, "", {}});
    it->keys.push_back(&ref);
  }
  for (auto it = out.begin(); it != out.end();) {
    const std::string what = "Secret " + key.ns + "/" + it->name;
    const kube::Answer a = get(kube::object_path(kube::kSecrets, key.ns, it->name), kube::kMetadataOnly);
    if (a.transport && a.code == 404) {
      ++it;
      continue;
    }
    if (!a.ok()) return a.status("look for " + what);
    const Json j = Json::parse(a.body, nullptr, false);
    const Json& labels = at(j, "/metadata/labels");
    if (labels.is_object() && labels.value(std::string(kube::kManagedBy), "") == kCliManager) {
      it->uid = text_at(j, "/metadata/uid");
      ++it;
      continue;
    }
    std::vector<const TokenRef*> of_file;
    for (const auto* ref : it->keys)
      if (!request.tokens_of_environment.count(ref->env)) of_file.push_back(ref);
    if (!of_file.empty()) {
      std::string managers;
      for (const auto& m : at(j, "/metadata/managedFields"))
        if (m.is_object() && managers.find(text_at(m, "/manager")) == std::string::npos) managers += (managers.empty() ? "" : ", ") + text_at(m, "/manager");
      return Status(Code::kConflict, what + " exists and was not made by `bottle up` (written by " + (managers.empty() ? "somebody else" : managers) +
                                         "), so it was left as it is and nothing was started. To use it, take the Secret out of the file; to replace it: kubectl -n " +
                                         key.ns + " delete secret " + it->name);
    }
    progress("secret", what + " exists and is used; the values in the environment (" + it->keys[0]->env + (it->keys.size() > 1 ? ", …" : "") + ") are not");
    it = out.erase(it);
  }
  return out;
}

Status KubernetesBackend::write_secret(const Key& key, const SecretWrite& write, const ApplyRequest& request, const std::string& bottle_uid) {
  Json metadata = {{"name", write.name},
                   {"namespace", key.ns},
                   {"labels", {{kube::kManagedBy, kCliManager}}},
                   {"ownerReferences", {{{"apiVersion", kube::api_version(kube::kBottles)}, {"kind", "Bottle"}, {"name", key.name}, {"uid", bottle_uid}}}}};
  if (!write.uid.empty()) metadata["uid"] = write.uid;  // not one that somebody made meanwhile
  size_t room = 4096;
  for (const auto* ref : write.keys) room += ref->secret.key.size() + 2 * request.tokens.at(ref->env).size() + 16;
  kube::Request r;
  r.method = "PATCH";
  r.content_type = kube::kApply;
  r.accept = kube::kMetadataOnly;  // the server would send the values back
  r.body.reserve(room + metadata.dump().size());
  r.body += R"({"apiVersion":"v1","kind":"Secret","metadata":)" + metadata.dump() + R"(,"data":{)";
  for (const auto* ref : write.keys) {
    if (ref != write.keys[0]) r.body += ',';
    r.body += '"' + ref->secret.key + "\":\"";
    append_base64(r.body, request.tokens.at(ref->env).expose());
    r.body += '"';
  }
  r.body += "}}";
  // A manager for each bottle: its keys and its ownership stay when another bottle writes the same Secret.
  const auto send = [&](const char* force) {
    r.path = kube::object_path(kube::kSecrets, key.ns, write.name, "", {{"fieldManager", std::string(kCliManager) + "." + key.name}, {"force", force}});
    return client_->call(r);
  };
  kube::Answer a = send("false");
  if (a.is("Conflict")) {
    // A new value of a token that two bottles share is what was asked for; anybody else's field is not ours to take.
    const auto managers = conflict_managers(a);
    if (!managers.empty() && std::all_of(managers.begin(), managers.end(), [](const std::string& m) { return m.rfind(std::string(kCliManager) + ".", 0) == 0; }))
      a = send("true");
  }
  OPENSSL_cleanse(r.body.data(), r.body.size());
  const std::string what = "Secret " + key.ns + "/" + write.name;
  if (a.is("Conflict"))
    return {Code::kConflict, what + ": somebody else has set " + conflict_text(a) + "; it was left as it is. Change it there, or delete the Secret and say `bottle up` again"};
  return a.ok() ? Status::ok() : a.status("write " + what);
}

}  // namespace bottle::kubernetes
