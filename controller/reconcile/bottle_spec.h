// A Bottle object -> what a pass has to know of its plan. The whole plan is made again only when something has to be written, so that a pass on
// a pod's event costs microseconds and ten thousand bottles cost megabytes.
#ifndef CONTROLLER_RECONCILE_BOTTLE_SPEC_H_
#define CONTROLLER_RECONCILE_BOTTLE_SPEC_H_

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "backends/kubernetes/render.h"
#include "controller/bottle/bottle.h"
#include "controller/kube/objects.h"
#include "controller/plan/plan.h"

namespace bottle::reconcile {

struct Token {
  TokenRef ref;
  std::string routes;            // the hosts it is injected for: "api.github.com, uploads.github.com"
};

struct Spec {
  Status status;                 // not OK: what is wrong with the Bottle, for a person; nothing below holds then
  std::string policy_hash, pod_hash, guard_hash, token_refs;
  std::string policy_content, network_policy_content;  // content hashes of the rendered objects
  std::string guard_update;      // name of the container that would load these rules into a running pod
  std::map<std::string, std::string, std::less<>> pod_labels;
  std::vector<Token> tokens;
  KeyType key_type = KeyType::kRsa2048;
  RestartPolicy restart_policy = RestartPolicy::kNever;
  bool suspend = false, scanned = false;
  int64_t active_deadline_seconds = 0, ttl_seconds = -1;
  std::string guard_image, egress_image, agent_image;
  std::vector<std::string> warnings;

  const std::string& image_of(std::string_view container) const {
    return container == "guard" ? guard_image : container == "egress" ? egress_image : agent_image;
  }
};

struct Planned {
  Bottle bottle;
  BottlePlan plan;
};

kubernetes::Owner owner_of(const kube::BottleObject& bottle);
// Parse, validate, plan. The failure names every field that is wrong.
Result<Planned> plan_bottle(const kube::BottleObject& bottle, const PlanOptions& options);
Spec summarize(const Planned& planned, const kubernetes::Owner& owner, const kubernetes::RenderOptions& render);

// The most recently used ones, by UID and generation. Any thread.
class SpecCache {
 public:
  explicit SpecCache(size_t capacity) : capacity_(capacity) {}
  std::shared_ptr<const Spec> get(const std::string& uid, int64_t generation);
  void put(const std::string& uid, int64_t generation, std::shared_ptr<const Spec> spec);

 private:
  struct Entry {
    std::string uid;
    int64_t generation;
    std::shared_ptr<const Spec> spec;
  };
  const size_t capacity_;
  std::mutex mutex_;
  std::list<Entry> order_;       // most recent first
  std::unordered_map<std::string, std::list<Entry>::iterator> by_uid_;
};

}  // namespace bottle::reconcile

#endif  // CONTROLLER_RECONCILE_BOTTLE_SPEC_H_
