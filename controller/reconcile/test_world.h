// A tiny cluster for tests of the reconciler: objects as JSON behind a kube::Client, a View that reads them, a kubelet and an egress that do as
// they are told, and a clock that moves when it is told. Not an API server: it knows just what a bottle needs.
#ifndef CONTROLLER_RECONCILE_TEST_WORLD_H_
#define CONTROLLER_RECONCILE_TEST_WORLD_H_

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "controller/kube/client.h"
#include "controller/reconcile/reconciler.h"

namespace bottle::reconcile {

using Json = nlohmann::json;

// What a write leaves behind when the process is killed right after it: thrown to the test.
struct Killed {};

class World : public kube::Client, public View {
 public:
  World();
  // kube::Client
  kube::Answer call(const kube::Request& request) override;
  void send(kube::Request request, std::function<void(kube::Answer)> done) override { done(call(request)); }
  std::shared_ptr<kube::Stream> stream(const kube::Request&, std::chrono::milliseconds, std::function<bool(std::string_view)>,
                                       std::function<void(kube::Answer)>) override { return nullptr; }
  const kube::Config& config() const override { return config_; }
  // View
  Snapshot snapshot(const std::string& ns, const std::string& name) override;
  std::map<std::string, std::string> secrets(const std::string& ns, const std::string& bottle, const std::vector<std::string>& names) override;

  // A person.
  void apply_bottle(const std::string& spec_json, const std::string& name = "hello");
  void put(const std::string& key, Json object);          // key: "dev/pods/hello"
  void erase(const std::string& key);
  std::optional<Json> get(const std::string& key);
  void secret(const std::string& name, const std::string& key);  // also changes it

  // A kubelet.
  void pod_status(Json status, const std::string& name = "hello");
  void run_pod(const std::string& name = "hello");         // guard done, egress ready, agent running
  void guard_update_ends(int exit_code);                   // of the last ephemeral container

  // The reconciler.
  void start(std::function<void(ReconcilerOptions*)> change = {});  // a new process
  Outcome pass(const std::string& name = "hello");
  void advance(int64_t seconds);
  void advance_ms(int64_t ms);
  std::string condition(const std::string& type, const std::string& name = "hello");  // "True/Enforced"; "" when not there
  std::string message(const std::string& type, const std::string& name = "hello");
  std::vector<std::string> events(const std::string& name = "hello");  // reasons, in order
  std::string notes();
  int writes(const std::string& plural = "");              // since the last clear; without events
  void clear_writes();
  std::vector<std::string> log();                          // "POST dev/pods/hello"

  // Orders.
  std::function<std::optional<kube::Answer>(const kube::Request&)> fault;
  int kill_after = -1;                                     // writes until Killed
  bool graceful = false;                                   // pods stay, Terminating, until erase()
  bool frozen_cache = false;                               // the View shows what was at the time it was set by freeze()
  void freeze();
  std::string enforced;                                    // by egress; empty: what the ConfigMap says
  bool egress_up = true;
  std::vector<std::string> missing_tokens;
  std::string egress_error;
  int asked = 0;
  metrics::Registry registry;

  static kube::Answer refuse(int code, const std::string& reason, const std::string& message);

 private:
  kube::Answer serve(const kube::Request& request, const std::string& ns, const std::string& plural, const std::string& name, const std::string& sub);
  Json& touch(const std::string& key, Json object);
  kube::Config config_;
  std::recursive_mutex mutex_;
  std::map<std::string, Json> objects_, frozen_;
  int64_t version_ = 100, uid_ = 0, now_ = 1'800'000'000, mono_ms_ = 1'000'000;
  std::vector<std::string> log_;
  std::unique_ptr<Reconciler> reconciler_;
};

extern const char kHello[];       // a spec with one route and one token, ECDSA (RSA keys cost time)

}  // namespace bottle::reconcile

#endif  // CONTROLLER_RECONCILE_TEST_WORLD_H_
