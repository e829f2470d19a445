// Creating, applying and deleting children. An object is ours by its owner's UID, never by name, label or annotation.
#include <openssl/crypto.h>

#include "controller/reconcile/pass.h"
#include "controller/reconcile/text.h"

namespace bottle::reconcile {
namespace {

constexpr std::chrono::seconds kTrustOwnWrite{10};  // a cache that is later than this is not what we wait for

kube::Query manager() { return {{"fieldManager", std::string(kube::kFieldManager)}}; }

}  // namespace

Pass::Ours Pass::ours(const kube::ObjectMeta& meta) const {
  if (meta.owner_uid == b_.uid) return meta.deleting ? Ours::kGoing : Ours::kYes;
  // Of a former bottle of this name: the garbage collector is about to take it.
  if (!meta.owner_uid.empty() && meta.owner_name == b_.name) return Ours::kGoing;
  return Ours::kNo;
}

Problem Pass::not_ours(const kube::Resource& r, const kube::ObjectMeta& meta) const {
  Problem p;
  const std::string what = std::string(r.kind) + " " + meta.name;
  if (ours(meta) == Ours::kGoing) {
    p.kind = Problem::Kind::kWaiting;
    p.message = what + " is about to be removed; a new one is made then";
  } else {
    p.kind = Problem::Kind::kNameTaken;
    p.message = what + " in namespace " + b_.ns + " is not this bottle's and is left alone: delete or rename it, or give the bottle another name";
  }
  return p;
}

Pass::Meta Pass::latest(const Meta& cached, Written* w) {
  if (!w->meta) return cached;
  const bool caught_up = cached && not_older(cached->resource_version, w->meta->resource_version);
  if (caught_up || monotonic() - w->at > kTrustOwnWrite) {
    *w = {};
    return cached;
  }
  return w->meta;
}

kube::Answer Pass::send(kube::Request request, std::string* body) {
  request.body = std::move(*body);
  kube::Answer a = s_.client.call(request);
  OPENSSL_cleanse(request.body.data(), request.body.size());
  return a;
}

kube::Decoder& Pass::decoder() {
  thread_local kube::Decoder d;
  return d;
}

kube::Answer Pass::post(const kube::Resource& r, const std::string& name, std::string body, std::string_view accept, bool* existed) {
  kube::Request post = request_of("POST", kube::collection_path(r, b_.ns, manager()));
  post.accept = accept;
  kube::Answer a = send(std::move(post), &body);
  *existed = a.is("AlreadyExists");
  if (!*existed) return a;
  kube::Request get = request_of("GET", kube::object_path(r, b_.ns, name));
  get.accept = accept;
  return s_.client.call(get);
}

Problem Pass::create(const kube::Resource& r, const std::string& name, std::string body, Written* out, bool* existed) {
  const std::string what = "create " + std::string(r.kind) + " " + b_.ns + "/" + name;
  // Of what was made, the metadata is enough; and a key does not come back.
  const kube::Answer a = post(r, name, std::move(body), kube::kMetadataOnly, existed);
  if (!a.ok()) return classify(a, what, b_.ns);
  auto meta = std::make_shared<kube::MetaObject>();
  if (Status s = decoder().meta(a.body, meta.get()); !s) return transient(s.with_context(what));
  if (ours(*meta) != Ours::kYes) return not_ours(r, *meta);
  *out = {std::move(meta), monotonic()};
  return {};
}

Problem Pass::ensure(const kube::Resource& r, const std::string& name, const Meta& cached, Written* written, const std::string& content,
                     Json (*render)(const BottlePlan&, const kubernetes::Owner&), bool* rewritten) {
  *rewritten = false;
  Meta existing = latest(cached, written);
  if (existing && ours(*existing) != Ours::kYes) return not_ours(r, *existing);
  if (existing && existing->annotation(kubernetes::kContentHash) == content) return {};
  const Json object = render(planned()->plan, owner_of(b_));
  if (!existing) {
    bool existed = false;
    if (Problem p = create(r, name, object.dump(), written, &existed); !p.none()) return p;
    if (!existed || written->meta->annotation(kubernetes::kContentHash) == content) return {};
    existing = written->meta;
  }
  if (Problem p = apply(r, *existing, object, written); !p.none()) return p;
  *rewritten = true;
  return {};
}

Problem Pass::apply(const kube::Resource& r, const kube::ObjectMeta& existing, Json object, Written* out) {
  // With the UID an object that was deleted meanwhile is not made again by this.
  object["metadata"]["uid"] = existing.uid;
  kube::Query query = manager();
  query.emplace_back("force", "true");
  kube::Request patch = request_of("PATCH", kube::object_path(r, b_.ns, existing.name, {}, query), kube::kApply);
  patch.accept = kube::kMetadataOnly;
  std::string body = object.dump(-1, ' ', false, Json::error_handler_t::replace);
  const std::string what = "update " + std::string(r.kind) + " " + b_.ns + "/" + existing.name;
  const kube::Answer a = send(std::move(patch), &body);
  if (!a.ok()) return classify(a, what, b_.ns);
  auto meta = std::make_shared<kube::MetaObject>();
  if (Status s = decoder().meta(a.body, meta.get()); s) *out = {std::move(meta), monotonic()};
  return {};
}

Problem Pass::remove(const kube::Resource& r, const std::string& name, const std::string& uid) {
  std::string body = Json{{"apiVersion", "v1"}, {"kind", "DeleteOptions"}, {"preconditions", {{"uid", uid}}}}.dump();
  const kube::Answer a = send(request_of("DELETE", kube::object_path(r, b_.ns, name)), &body);
  if (a.ok() || a.is("NotFound")) return {};
  return classify(a, "delete " + std::string(r.kind) + " " + b_.ns + "/" + name, b_.ns);
}

}  // namespace bottle::reconcile
