#include "controller/reconcile/test_world.h"


#include <sstream>

#include "base/digest.h"
#include "base/encoding.h"
#include "base/rfc3339.h"
#include "controller/kube/objects.h"

namespace bottle::reconcile {
namespace {

template <class T>
std::shared_ptr<const T> decode(const std::map<std::string, Json>& objects, const std::string& key, Status (kube::Decoder::*how)(std::string_view, T*)) {
  auto it = objects.find(key);
  if (it == objects.end()) return nullptr;
  thread_local kube::Decoder decoder;
  auto out = std::make_shared<T>();
  if (Status s = (decoder.*how)(it->second.dump(), out.get()); !s) abort();
  return out;
}

bool labelled(const Json& object) {
  return object["metadata"].contains("labels") && object["metadata"]["labels"].value(std::string(kube::kManagedBy), "") == "bottle-controller";
}

}  // namespace

const char kHello[] = R"({"agent":{"image":"agent:1","command":["sleep","infinity"]},
  "egress":{"routes":[{"host":"api.github.com","inject":[{"header":"authorization","prefix":"Bearer ","secretKeyRef":{"name":"github","key":"token"}}]}]},
  "pipelock":{"enabled":false},"pki":{"keyType":"ECDSA-P256"}})";

World::World() { start(); }

kube::Answer World::refuse(int code, const std::string& reason, const std::string& message) {
  kube::Answer a;
  a.code = code;
  a.reason = reason;
  a.message = message;
  return a;
}

Json& World::touch(const std::string& key, Json object) {
  object["metadata"]["resourceVersion"] = std::to_string(++version_);
  return objects_[key] = std::move(object);
}

kube::Answer World::call(const kube::Request& request) {
  std::lock_guard lock(mutex_);
  // /api/v1/namespaces/dev/pods/hello?x, /apis/group/version/namespaces/dev/bottles/hello/status
  std::vector<std::string> parts;
  std::istringstream path(request.path.substr(0, request.path.find('?')));
  for (std::string part; std::getline(path, part, '/');) parts.push_back(part);
  const size_t at = parts[1] == "api" ? 3 : 4;
  if (parts.size() < at + 3 || parts[at] != "namespaces") return refuse(404, "NotFound", "no such path " + request.path);
  const std::string ns = parts[at + 1], plural = parts[at + 2];
  std::string name = parts.size() > at + 3 ? parts[at + 3] : "", sub = parts.size() > at + 4 ? parts[at + 4] : "";
  if (request.method == "POST") name = Json::parse(request.body)["metadata"]["name"];
  if (fault)
    if (auto a = fault(request)) return *a;
  kube::Answer a = serve(request, ns, plural, name, sub);
  if (request.method != "GET" && plural != "events") {
    if (a.ok()) log_.push_back(request.method + " " + plural + "/" + name + (sub.empty() ? "" : "/" + sub));
    if (a.ok() && kill_after > 0 && --kill_after == 0) throw Killed();
  }
  return a;
}

kube::Answer World::serve(const kube::Request& request, const std::string& ns, const std::string& plural, const std::string& name, const std::string& sub) {
  const std::string key = ns + "/" + plural + "/" + name;
  auto it = objects_.find(key);
  kube::Answer ok;
  ok.code = 200;
  if (request.method == "POST") {
    if (it != objects_.end()) return refuse(409, "AlreadyExists", plural + " \"" + name + "\" already exists");
    Json o = Json::parse(request.body);
    o["metadata"]["uid"] = "uid-" + std::to_string(++uid_);
    o["metadata"]["creationTimestamp"] = format_rfc3339(now_);
    const Json open = o.value("stringData", Json::object());
    for (const auto& [k, v] : open.items()) o["data"][k] = base64(v.get_ref<const std::string&>());
    o.erase("stringData");
    if (plural == "pods") o["status"] = {{"phase", "Pending"}};
    ok.code = 201;
    ok.body = touch(key, o).dump();
    return ok;
  }
  if (it == objects_.end()) return refuse(404, "NotFound", plural + " \"" + name + "\" not found");
  if (request.method == "GET") {
    ok.body = it->second.dump();
    return ok;
  }
  const std::string uid = it->second["metadata"]["uid"];
  Json body = Json::parse(request.body);
  if (request.method == "DELETE") {
    if (body["preconditions"]["uid"] != uid) return refuse(409, "Conflict", "the UID in the precondition does not match");
    if (plural == "pods" && graceful) {
      Json o = it->second;
      o["metadata"]["deletionTimestamp"] = format_rfc3339(now_ + 5);
      touch(key, o);
    } else {
      objects_.erase(it);
    }
    return ok;
  }
  if (body["metadata"].contains("uid") && body["metadata"]["uid"] != uid) return refuse(409, "Conflict", "uid mismatch");
  Json o = it->second;
  if (sub == "status") {
    o["status"] = body["status"];
  } else if (sub == "ephemeralcontainers") {
    for (const auto& c : body["spec"]["ephemeralContainers"]) o["spec"]["ephemeralContainers"].push_back(c);
  } else {
    const Json open = body.value("stringData", Json::object());
    for (const auto& [k, v] : open.items()) o["data"][k] = base64(v.get_ref<const std::string&>());
    body.erase("stringData");
    o.merge_patch(body);
  }
  ok.body = touch(key, o).dump();
  return ok;
}

Snapshot World::snapshot(const std::string& ns, const std::string& name) {
  std::lock_guard lock(mutex_);
  const auto& all = frozen_cache ? frozen_ : objects_;
  Snapshot s;
  s.bottle = decode(all, ns + "/bottles/" + name, &kube::Decoder::bottle);
  auto mine = [&](const std::string& key) { return all.count(key) && labelled(all.at(key)); };
  if (mine(ns + "/configmaps/" + name + "-policy")) s.policy = decode(all, ns + "/configmaps/" + name + "-policy", &kube::Decoder::meta);
  if (mine(ns + "/secrets/" + name + "-egress-ca")) s.egress_ca = decode(all, ns + "/secrets/" + name + "-egress-ca", &kube::Decoder::meta);
  if (mine(ns + "/pods/" + name)) s.pod = decode(all, ns + "/pods/" + name, &kube::Decoder::pod);
  for (const auto& [key, object] : all)
    if (key.starts_with(ns + "/networkpolicies/")) {
      auto np = decode(all, key, &kube::Decoder::network_policy);
      if (labelled(object) && np->name == name + "-bottle")
        s.network_policy = np;
      else if (!labelled(object))
        s.other_network_policies.push_back(np);
    }
  return s;
}

std::map<std::string, std::string> World::secrets(const std::string& ns, const std::string&, const std::vector<std::string>& names) {
  std::lock_guard lock(mutex_);
  std::map<std::string, std::string> out;
  for (const auto& name : names)
    if (auto it = objects_.find(ns + "/secrets/" + name); it != objects_.end()) out[name] = it->second["metadata"]["resourceVersion"];
  return out;
}

void World::apply_bottle(const std::string& spec, const std::string& name) {
  std::lock_guard lock(mutex_);
  const std::string key = "dev/bottles/" + name;
  Json o = objects_.count(key) ? objects_[key] : Json{{"apiVersion", "bot-bottle.dev/v1alpha1"}, {"kind", "Bottle"}};
  if (!o.contains("metadata"))
    o["metadata"] = {{"name", name}, {"namespace", "dev"}, {"uid", "uid-" + std::to_string(++uid_)}, {"generation", 0},
                     {"creationTimestamp", format_rfc3339(now_)}};
  o["spec"] = Json::parse(spec);
  o["metadata"]["generation"] = o["metadata"]["generation"].get<int64_t>() + 1;
  touch(key, o);
}

void World::put(const std::string& key, Json object) {
  std::lock_guard lock(mutex_);
  const std::string name = key.substr(key.rfind('/') + 1);
  object["metadata"]["name"] = name;
  object["metadata"]["namespace"] = key.substr(0, key.find('/'));
  if (!object["metadata"].contains("uid")) object["metadata"]["uid"] = "uid-" + std::to_string(++uid_);
  object["metadata"]["creationTimestamp"] = format_rfc3339(now_);
  touch(key, object);
}

void World::erase(const std::string& key) {
  std::lock_guard lock(mutex_);
  objects_.erase(key);
}

std::optional<Json> World::get(const std::string& key) {
  std::lock_guard lock(mutex_);
  auto it = objects_.find(key);
  return it == objects_.end() ? std::nullopt : std::optional<Json>(it->second);
}

void World::secret(const std::string& name, const std::string& key) { put("dev/secrets/" + name, {{"data", {{key, "c2VjcmV0"}}}}); }

void World::pod_status(Json status, const std::string& name) {
  std::lock_guard lock(mutex_);
  Json o = objects_.at("dev/pods/" + name);
  o["status"] = std::move(status);
  o["spec"]["nodeName"] = "node-1";
  touch("dev/pods/" + name, o);
}

void World::run_pod(const std::string& name) {
  const std::string at = format_rfc3339(now_);
  pod_status({{"phase", "Running"},
              {"podIP", "10.1.2.3"},
              {"initContainerStatuses",
               Json::array({{{"name", "guard"}, {"ready", true}, {"restartCount", 0},
                             {"state", {{"terminated", {{"exitCode", 0}, {"reason", "Completed"}, {"startedAt", at}, {"finishedAt", at}}}}}},
                            {{"name", "egress"}, {"ready", true}, {"started", true}, {"restartCount", 0}, {"state", {{"running", {{"startedAt", at}}}}}}})},
              {"containerStatuses",
               Json::array({{{"name", "agent"}, {"ready", true}, {"started", true}, {"restartCount", 0}, {"state", {{"running", {{"startedAt", at}}}}}}})}},
             name);
}

void World::guard_update_ends(int exit_code) {
  std::lock_guard lock(mutex_);
  Json o = objects_.at("dev/pods/hello");
  const std::string name = o["spec"]["ephemeralContainers"].back()["name"];
  o["status"]["ephemeralContainerStatuses"].push_back(
      {{"name", name}, {"ready", false}, {"restartCount", 0},
       {"state", {{"terminated", {{"exitCode", exit_code}, {"reason", exit_code ? "Error" : "Completed"}, {"finishedAt", format_rfc3339(now_)}}}}}});
  touch("dev/pods/hello", o);
}

void World::start(std::function<void(ReconcilerOptions*)> change) {
  if (reconciler_) reconciler_->flush(std::chrono::seconds(10));  // events that were not sent end with their process
  reconciler_.reset();
  ReconcilerOptions options;
  options.identity = "test-1";
  options.rsa_keys_ahead = 0;
  options.metrics = &registry;
  if (change) change(&options);
  Surroundings s;
  s.now = [this] { std::lock_guard lock(mutex_); return now_; };
  s.monotonic = [this] { std::lock_guard lock(mutex_); return std::chrono::steady_clock::time_point(std::chrono::milliseconds(mono_ms_)); };
  s.ask_egress = [this](const std::string& ip, const SecretString& key) -> Result<kubernetes::EgressStatus> {
    std::lock_guard lock(mutex_);
    ++asked;
    if (!egress_up) return {Code::kUnavailable, "connection to " + ip + " refused"};
    bool known = false;
    kubernetes::EgressStatus status;
    for (const auto& [k, o] : objects_) {
      if (k.ends_with("-egress-ca") && o.contains("data") && o["data"].value("status.key", "") == base64(std::string(key.expose()))) {
        known = true;
        const std::string bottle = k.substr(12, k.size() - 12 - 10);
        const Json& cm = objects_.at("dev/configmaps/" + bottle + "-policy");
        status.policy_hash = enforced.empty() ? cm["metadata"]["annotations"]["bot-bottle.dev/policy-hash"].get<std::string>() : enforced;
      }
    }
    if (!known) return {Code::kPermission, "wrong key"};
    status.ready = true;
    status.error = egress_error;
    status.missing_tokens = missing_tokens;
    return status;
  };
  reconciler_ = Reconciler::create(*this, *this, options, s);
}

Outcome World::pass(const std::string& name) { return reconciler_->reconcile("dev", name); }
void World::advance(int64_t seconds) { advance_ms(seconds * 1000); }
void World::advance_ms(int64_t ms) {
  std::lock_guard lock(mutex_);
  mono_ms_ += ms;
  now_ += ms / 1000;
}

std::string World::condition(const std::string& type, const std::string& name) {
  auto b = get("dev/bottles/" + name);
  if (!b || !b->contains("status")) return "";
  for (const auto& c : (*b)["status"]["conditions"])
    if (c["type"] == type) return c["status"].get<std::string>() + "/" + c["reason"].get<std::string>();
  return "";
}

std::string World::message(const std::string& type, const std::string& name) {
  auto b = get("dev/bottles/" + name);
  if (!b || !b->contains("status")) return "";
  for (const auto& c : (*b)["status"]["conditions"])
    if (c["type"] == type) return c["message"];
  return "";
}

std::vector<std::string> World::events(const std::string& name) {
  reconciler_->flush(std::chrono::seconds(10));
  std::lock_guard lock(mutex_);
  std::map<std::string, std::string> by_time;
  for (const auto& [key, o] : objects_)
    if (key.starts_with("dev/events/") && o["regarding"]["name"] == name) by_time[o["eventTime"].get<std::string>() + key] = o["reason"];
  std::vector<std::string> out;
  for (const auto& [t, reason] : by_time) out.push_back(reason);
  return out;
}

std::string World::notes() {
  reconciler_->flush(std::chrono::seconds(10));
  std::lock_guard lock(mutex_);
  std::string out;
  for (const auto& [key, o] : objects_)
    if (key.starts_with("dev/events/")) out += o["reason"].get<std::string>() + ": " + o["note"].get<std::string>() + "\n";
  return out;
}

int World::writes(const std::string& plural) {
  std::lock_guard lock(mutex_);
  return static_cast<int>(std::count_if(log_.begin(), log_.end(), [&](const auto& l) { return l.find(" " + plural) != l.npos; }));
}
void World::clear_writes() { std::lock_guard lock(mutex_); log_.clear(); }
std::vector<std::string> World::log() { std::lock_guard lock(mutex_); return log_; }
void World::freeze() { std::lock_guard lock(mutex_); frozen_ = objects_; frozen_cache = true; }

}  // namespace bottle::reconcile
