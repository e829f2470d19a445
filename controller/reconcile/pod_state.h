// What a pod is going through, from its status alone. Pure.
#ifndef CONTROLLER_RECONCILE_POD_STATE_H_
#define CONTROLLER_RECONCILE_POD_STATE_H_

#include <cstdint>
#include <string>

#include "controller/bottle/bottle.h"
#include "controller/kube/objects.h"

namespace bottle::reconcile {

struct Spec;

struct PodState {
  enum class Life {
    kNone,
    kTerminating,
    kPending,      // not everything has started
    kRunning,      // guard done, egress ready, agent running
    kLost,         // its node does not report, or does not confirm the deletion
    kDisrupted,    // ended by the cluster, not by the agent: evicted, preempted, node shut down
    kGuardFailed,  // ended because the guard did
    kFinished,
  } life = Life::kNone;

  bool guard_done = false, egress_ready = false, agent_running = false;
  // What stands in the way of Ready; empty when nothing does. `passing`: goes by itself in a normal start.
  std::string reason, message;
  bool passing = false;

  std::string guard_failed;    // why, when it did
  std::string egress_message;  // why it is not ready
  std::string agent_reason, agent_message;
  // Of an agent that has ended for good.
  std::string finish_reason, finish_message;
  int exit_code = 0;
  int64_t finished_at = 0;     // Unix seconds; 0 when nobody says
  int64_t look_again_s = 0;    // something changes by time alone
};

// `spec` may be null (an invalid Bottle): images are not named then. `policy` is the agent's restart policy.
PodState read_pod(const kube::PodObject* pod, const Spec* spec, int64_t now);

}  // namespace bottle::reconcile

#endif  // CONTROLLER_RECONCILE_POD_STATE_H_
