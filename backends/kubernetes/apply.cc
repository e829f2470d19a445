// up: the Bottle is applied, and then the controller is listened to until it says that the bottle is Ready, or why not.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>

#include "backends/kubernetes/kubernetes_impl.h"
#include "controller/kube/informer.h"

namespace bottle::kubernetes {
namespace {

using Clock = std::chrono::steady_clock;

// Reasons that do not go away by waiting: the same bottle needs a change of the file, of the namespace or of the image.
bool is_final(const std::string& reason) {
  static const std::set<std::string> kFinal = {
      "InvalidSpec", "NameTaken", "QuotaExceeded", "PodSecurityForbidden", "AdmissionDenied", "ControllerForbidden", "Rejected", "NamespaceTerminating",
      "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError", "GuardFailed", "PolicyRejected", "CrashLoopBackOff",
      "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"};
  return kFinal.count(reason) > 0;
}

// Of what is told while one waits: the conditions that say how far the bottle is.
bool is_progress(const Condition& c) {
  return c.type == "Ready" || c.type == "Isolated" || c.type == "SidecarsReady" || c.type == "AgentRunning" || (c.type == "SecretsFound" && c.status == "False");
}

std::string step_of(std::string type) {
  std::transform(type.begin(), type.end(), type.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return type;
}

// Events about the bottle and its pod (they have the same name), each told once. Who may not list events goes without.
class EventTeller {
 public:
  EventTeller(kube::Client& client, const std::string& ns, const std::string& name) : client_(client) {
    request_.path = kube::collection_path({"", "v1", "events", "Event"}, ns, {{"fieldSelector", "involvedObject.name=" + name}, {"limit", "200"}});
    request_.timeout = std::chrono::seconds(5);
    poll({});  // what is there already is not about this apply
  }
  void poll(const Progress& progress) {
    if (!allowed_) return;
    const kube::Answer a = client_.call(request_);
    if (a.transport && a.code == 403) allowed_ = false;
    if (!a.ok()) return;
    const Json j = Json::parse(a.body, nullptr, false);
    for (const auto& e : at(j, "/items")) {
      if (!e.is_object() || !seen_.insert(text_at(e, "/metadata/uid")).second || !progress) continue;
      progress("event", text_at(e, "/reason") + ": " + text_at(e, "/message"));
    }
  }

 private:
  kube::Client& client_;
  kube::Request request_;
  std::set<std::string> seen_;
  bool allowed_ = true;
};

void drop_empty(Json& object) {
  for (auto it = object.begin(); it != object.end();) {
    // A variable may be empty on purpose; elsewhere empty is what is meant when nothing is said.
    if (it->is_object()) drop_empty(*it);
    if (it->is_array())
      for (auto& item : *it)
        if (item.is_object() && it.key() != "env") drop_empty(item);
    const bool empty = it->is_null() || (it->is_structured() && it->empty()) || (it->is_string() && it->get_ref<const std::string&>().empty());
    it = empty ? object.erase(it) : std::next(it);
  }
}

}  // namespace

Json sparse_bottle(Json bottle) {
  if (!bottle.is_object()) return bottle;
  bottle.erase("status");
  if (bottle.contains("spec") && bottle["spec"].is_object()) drop_empty(bottle["spec"]);
  if (!bottle.contains("spec")) bottle["spec"] = Json::object();
  return bottle;
}

Status KubernetesBackend::apply(const ApplyRequest& request, const Progress& progress) {
  Json bottle = sparse_bottle(Json::parse(request.bottle_json, nullptr, false));
  if (!bottle.is_object()) return {Code::kInternal, "the bottle to apply is no JSON object"};
  Key key = key_of(request.plan.name);
  if (const std::string said = text_at(bottle, "/metadata/namespace"); !said.empty()) {
    if (namespace_given_ && said != namespace_)
      return {Code::kInvalid, "the file puts bottle \"" + key.name + "\" into namespace " + said + ", and -n says " + namespace_ + "; leave one of them out"};
    key.ns = said;
  }
  bottle["metadata"] = {{"name", key.name}, {"namespace", key.ns}};

  auto secrets = plan_secrets(key, request, progress);
  if (!secrets) return secrets.status();
  kube::Request r;
  r.method = "PATCH";
  r.content_type = kube::kApply;
  r.body = bottle.dump(-1, ' ', false, Json::error_handler_t::replace);
  r.path = kube::object_path(kube::kBottles, key.ns, key.name, "", {{"fieldManager", std::string(kCliManager)}, {"force", "false"}, {"fieldValidation", "Strict"}});
  const kube::Answer a = client_->call(r);
  if (a.is("Conflict"))
    return {Code::kConflict, "somebody else has set " + conflict_text(a) +
                                 "; nothing was changed. Change it there, or take these fields over: kubectl apply --server-side --force-conflicts --field-manager=" +
                                 std::string(kCliManager) + " -n " + key.ns + " -f FILE"};
  if (a.transport && a.code == 404 && a.message.find("namespaces") != std::string::npos)
    return {Code::kNotFound, "there is no namespace " + key.ns + "; make it: kubectl create namespace " + key.ns};
  if (a.transport && a.code == 404)
    return {Code::kUnsupported,
            "this cluster does not know Bottles (no resource bottles.bot-bottle.dev); install the controller: kubectl apply -k manifests/, or the Helm chart"};
  if (!a.ok()) {
    std::string fields;
    for (const auto& cause : a.causes) fields += "; " + cause.field + ": " + cause.message;
    const Status s = a.status("apply bottle " + key.text());
    return a.message.find(fields.substr(0, 40)) == std::string::npos ? Status(s.code(), s.message() + fields) : s;
  }
  const Json applied = Json::parse(a.body, nullptr, false);
  const std::string uid = text_at(applied, "/metadata/uid");
  if (uid.empty()) return {Code::kUnavailable, "apply bottle " + key.text() + ": the API server's answer is no Bottle"};
  progress("bottle", key.text() + (a.code == 201 ? " created" : " applied") + " (generation " +
                         std::to_string(int_at(applied, "/metadata/generation")) + ")");
  for (const auto& write : *secrets) {
    if (auto s = write_secret(key, write, request, uid); !s) return s;
    progress("secret", key.ns + "/" + write.name + (write.uid.empty() ? " created" : " written"));
  }
  return wait_ready(key, applied, progress);
}

Status KubernetesBackend::wait_ready(const Key& key, const Json& applied, const Progress& progress) {
  const int64_t generation = int_at(applied, "/metadata/generation");
  const std::string uid = text_at(applied, "/metadata/uid");
  EventTeller events(*client_, key.ns, key.name);

  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::shared_ptr<const kube::BottleObject>> seen;  // and not told yet
  bool gone = false;
  kube::InformerOptions o;
  o.resource = kube::kBottles;
  o.namespaces = {key.ns};
  o.field_selector = "metadata.name=" + key.name;
  auto informer = kube::Informer<kube::BottleObject>::create(*client_, std::move(o), [&](kube::EventKind, const auto& before, const auto& now) {
    const std::lock_guard lock(mutex);
    if (now && now->uid == uid) seen.push_back(now);
    else if (!now && before && before->uid == uid) gone = true;
    changed.notify_all();
  });
  informer->start();

  const auto start = Clock::now();
  auto next_poll = start;
  std::map<std::string, std::string> told;
  Condition ready;
  for (;;) {
    std::vector<std::shared_ptr<const kube::BottleObject>> states;
    {
      std::unique_lock lock(mutex);
      changed.wait_for(lock, std::min<std::chrono::milliseconds>(waits_.poll, std::chrono::milliseconds(200)), [&] { return !seen.empty() || gone; });
      if (gone) return {Code::kNotFound, "bottle " + key.text() + " was deleted by somebody while it was starting"};
      states.swap(seen);
    }
    if (g_cancelled) return {Code::kCancelled, "interrupted"};
    const auto waited = Clock::now() - start;
    if (Clock::now() >= next_poll) {
      events.poll(progress);
      next_poll = Clock::now() + std::chrono::seconds(1);
    }
    for (const auto& now : states) {
      const Json status = Json::parse(now->status_json.empty() ? "{}" : now->status_json, nullptr, false);
      if (int_at(status, "/observedGeneration") >= generation) {
        bool finished = false;
        for (const auto& j : at(status, "/conditions")) {
          const Condition c{text_at(j, "/type"), text_at(j, "/status"), text_at(j, "/reason"), text_at(j, "/message")};
          if (c.type == "Ready") ready = c;
          finished |= c.type == "Finished" && c.status == "True";
          const std::string text = c.status == "True" ? c.reason : c.reason + (c.message.empty() ? "" : ": " + c.message);
          if (!is_progress(c) || told[c.type] == text) continue;
          told[c.type] = text;
          progress(step_of(c.type), text);
        }
        // An agent whose work is done was Ready, however short; a suspended bottle is as it was asked to be.
        if (ready.status == "True" || finished) return Status::ok();
        if (ready.reason == "Suspended" && at(applied, "/spec/suspend") == true) return Status::ok();
        if (is_final(ready.reason)) return {Code::kUnavailable, ready.reason + ": " + ready.message};
      }
    }
    if (ready.reason.empty() && waited > waits_.noticed)
      return {Code::kUnavailable, "no controller has looked at it in " + std::to_string(std::chrono::duration_cast<std::chrono::seconds>(waits_.noticed).count()) +
                                      " s; the Bottle stays, and runs when one does. See whether it is there: kubectl -n " + kSystemNamespace +
                                      " get deploy,pods; `bottle doctor` checks it"};
    if (waited > waits_.ready)
      return {Code::kTimeout, "not Ready after " + std::to_string(std::chrono::duration_cast<std::chrono::seconds>(waits_.ready).count()) + " s: " + ready.reason +
                                  (ready.message.empty() ? "" : ": " + ready.message) + "; the Bottle stays, `bottle get` says how it goes on"};
  }
}

}  // namespace bottle::kubernetes
