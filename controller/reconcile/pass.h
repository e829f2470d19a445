// One pass over one bottle. Its steps are split by noun over policy.cc, pki.cc, network_policy.cc, pod.cc, tokens.cc, enforcement.cc, cleanup.cc;
// reconciler.cc puts them in order. Each step is idempotent and may be the last one before a crash.
#ifndef CONTROLLER_RECONCILE_PASS_H_
#define CONTROLLER_RECONCILE_PASS_H_

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "controller/kube/client.h"
#include "controller/kube/resource.h"
#include "controller/reconcile/bottle_spec.h"
#include "controller/reconcile/events.h"
#include "controller/reconcile/findings.h"
#include "controller/reconcile/key_pool.h"
#include "controller/reconcile/memory.h"
#include "controller/reconcile/problem.h"
#include "controller/reconcile/reconciler.h"
#include "controller/reconcile/request.h"

namespace bottle::reconcile {

// Of the reconciler, shared by all passes.
struct Shared {
  Shared(kube::Client& client, View& view, ReconcilerOptions options, Surroundings surroundings);
  kube::Client& client;
  View& view;
  const ReconcilerOptions options;
  const Surroundings world;
  Meters meters;
  SpecCache specs;
  Memories memories;
  StatusKeys status_keys;
  KeyPool keys;
  Events events;
};

class Pass {
 public:
  Pass(Shared& shared, Snapshot snapshot, std::shared_ptr<Memory> memory, bool fresh);
  Outcome run();

 private:
  using Json = nlohmann::json;
  using Meta = std::shared_ptr<const kube::ObjectMeta>;
  enum class Ours { kYes, kGoing, kNo };

  // reconciler.cc
  void load_spec();
  void converge();
  bool settle(const Problem& p);         // remembers it; true: go on
  void requeue(std::chrono::milliseconds after);
  void look_at_network_policies();
  const Planned* planned();              // the whole plan; null only when the spec is invalid
  int64_t now() const { return s_.world.now(); }
  Moment monotonic() const { return s_.world.monotonic(); }
  double since(Moment from) const { return std::chrono::duration<double>(monotonic() - from).count(); }
  void say(Events::Type type, std::string_view reason, std::string_view action, const std::string& note);

  // writes.cc
  Ours ours(const kube::ObjectMeta& meta) const;
  Problem not_ours(const kube::Resource& resource, const kube::ObjectMeta& meta) const;
  Meta latest(const Meta& cached, Written* written);
  // POST; of an object that is there already, its metadata. On success `*out` is ours.
  Problem create(const kube::Resource& resource, const std::string& name, std::string body, Written* out, bool* existed);
  // The child with the content that is wanted: made, or written again when its hash differs; then `*rewritten` is set.
  Problem ensure(const kube::Resource& resource, const std::string& name, const Meta& cached, Written* written, const std::string& content,
                 Json (*render)(const BottlePlan&, const kubernetes::Owner&), bool* rewritten);
  Problem apply(const kube::Resource& resource, const kube::ObjectMeta& existing, Json object, Written* out);
  Problem remove(const kube::Resource& resource, const std::string& name, const std::string& uid);
  kube::Answer send(kube::Request request, std::string* body);  // `body` is wiped
  // Creates; what has the name already is read back instead. `accept`: in which form the answer comes.
  kube::Answer post(const kube::Resource& resource, const std::string& name, std::string body, std::string_view accept, bool* existed);
  static kube::Decoder& decoder();  // this thread's
  Status take_pod(std::string_view json);  // what a write gave back is the pod from now on

  Problem ensure_policy();               // policy.cc
  void push_policy();
  void update_guard();
  Problem ensure_egress_ca();            // pki.cc
  Result<SecretString> status_key();
  Problem ensure_network_policy();       // network_policy.cc
  void look_at_tokens();                 // tokens.cc
  void report_missing_keys();
  void find_pod();                       // pod.cc
  std::string replace_reason();
  Problem ensure_pod();
  Problem create_pod();
  Problem delete_pod(const std::string& why, std::string_view event);
  Problem patch_pod();                   // sends annotations_
  void ask_egress();                     // enforcement.cc
  void write_status();                   // status_write.cc
  void announce(const Told& told, const Json& old);
  bool suspend();                        // cleanup.cc
  bool finished_before() const;
  void expire();

  Shared& s_;
  Snapshot snap_;
  std::shared_ptr<Memory> memory_;
  Memory& m_;
  const bool fresh_;
  const kube::BottleObject& b_;
  const std::string key_;
  std::shared_ptr<const Spec> spec_;
  std::optional<Planned> planned_;
  Json old_status_;
  std::shared_ptr<const kube::PodObject> pod_;
  Findings f_;
  Outcome out_;
  std::string tokens_revision_;
  std::map<std::string, std::string> secrets_;
  std::map<std::string, std::string> annotations_;  // to be set on the running pod, by one patch
  int64_t ca_not_after_ = 0;
  bool wrote_status_ = false;
};

}  // namespace bottle::reconcile

#endif  // CONTROLLER_RECONCILE_PASS_H_
