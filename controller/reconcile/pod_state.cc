#include "controller/reconcile/pod_state.h"

#include <algorithm>

#include "controller/reconcile/bottle_spec.h"
#include "controller/reconcile/text.h"

namespace bottle::reconcile {
namespace {

using kube::ContainerState;
using kube::PodObject;
using Life = PodState::Life;

// A kubelet that is alive removes a pod within seconds after its grace period, which deletionTimestamp already has in it.
constexpr int64_t kUnconfirmed = 30;

bool any_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

void stop(PodState* s, std::string_view reason, std::string message, bool passing = false) {
  if (!s->reason.empty()) return;  // the first cause is the one to tell
  s->reason = reason;
  s->message = std::move(message);
  s->passing = passing;
}

bool running(const ContainerState* c) { return c && c->state == ContainerState::State::kRunning; }
bool terminated(const ContainerState* c) { return c && c->state == ContainerState::State::kTerminated; }
bool waiting(const ContainerState* c) { return c && c->state == ContainerState::State::kWaiting; }

bool node_lost(const PodObject& pod) {
  if (pod.phase == "Unknown" || pod.reason == "NodeLost") return true;
  const auto* ready = pod.condition("Ready");
  if (!ready) return false;
  if (ready->status == "Unknown") return true;
  // The kubelet sets both; the node controller, for a node that is silent, Ready alone. Our pods have no readiness gates.
  const auto* containers = pod.condition("ContainersReady");
  return ready->status == "False" && containers && containers->status == "True";
}

// Ended by the cluster: the agent's work was cut short, so the bottle is not finished.
bool disrupted(const PodObject& pod) {
  const auto* target = pod.condition("DisruptionTarget");
  return (target && target->status == "True") ||
         any_of(pod.reason, {"Evicted", "Preempting", "Preempted", "NodeShutdown", "Shutdown", "Terminated", "NodeLost", "NodeAffinity",
                             "UnexpectedAdmissionError", "OutOfcpu", "OutOfmemory", "OutOfpods"});
}

// "Back-off pulling image "x": ErrImagePull: the cause" and "the cause" take turns: one text for both, or each turn would be news.
std::string pull_cause(std::string_view message) {
  constexpr std::string_view kCause = "ErrImagePull: ";
  if (const size_t at = message.find(kCause); at != message.npos) return plain(message.substr(at + kCause.size()), 300);
  return message.starts_with("Back-off pulling") ? "" : plain(message, 300);
}

std::string last_words(const ContainerState& c) {
  if (c.last_reason.empty()) return "";
  return "; the last run ended with " + c.last_reason + " (exit code " + std::to_string(c.last_exit_code) + ")";
}

// A container that waits for something that does not come by itself.
void look_at_waiting(PodState* s, const PodObject& pod, const ContainerState& c, const Spec* spec) {
  const std::string image = spec && !spec->image_of(c.name).empty() ? "image " + spec->image_of(c.name) + " of " + c.name : "the image of " + c.name;
  if (any_of(c.reason, {"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError", "SignatureValidationFailed"})) {
    const std::string cause = pull_cause(c.message);
    stop(s, "ImagePullBackOff",
         image + " cannot be pulled" + (cause.empty() ? "" : ": " + cause) +
             "; check its name and that node " + pod.node + " may pull it (registry reachable, imagePullSecrets)");
  } else if (c.reason == "ErrImageNeverPull") {
    stop(s, c.reason, image + " is not on node " + pod.node + ", and the pull policy is Never: load it there, or let it be pulled");
  } else if (c.reason == "InvalidImageName") {
    stop(s, c.reason, image + " is no image name: correct it in the Bottle" + (c.name == "agent" ? " (spec.agent.image)" : "'s controller options"));
  } else if (any_of(c.reason, {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PostStartHookError"})) {
    stop(s, c.reason, "container " + c.name + " cannot be made: " + plain(c.message, 400));
  } else if (c.reason == "CrashLoopBackOff") {
    stop(s, c.last_reason == "OOMKilled" ? "OOMKilled" : "CrashLoopBackOff",
         "container " + c.name + " ends again and again (" + std::to_string(c.restarts) + " restarts)" + last_words(c) + "; see kubectl -n " + pod.ns +
             " logs " + pod.name + " -c " + c.name + " --previous" +
             (c.last_reason == "OOMKilled" && c.name == "agent" ? "; raise spec.agent.resources.limits.memory" : ""));
  }
}

void look_at_guard(PodState* s, const PodObject& pod) {
  const ContainerState* guard = pod.container("guard");
  s->guard_done = terminated(guard) && guard->exit_code == 0;
  if (s->guard_done || !guard) return;
  const bool failed = (terminated(guard) && guard->exit_code != 0) || (waiting(guard) && !guard->last_reason.empty());
  if (!failed) return;
  const int code = terminated(guard) ? guard->exit_code : guard->last_exit_code;
  const std::string words = plain(guard->message, 500);
  s->guard_failed = "the guard could not close the network (exit code " + std::to_string(code) + ")" + (words.empty() ? "" : ": " + words) +
                    "; the agent was not started; see kubectl -n " + pod.ns + " logs " + pod.name + " -c guard";
  stop(s, "GuardFailed", s->guard_failed);
}

void look_at_egress(PodState* s, const PodObject& pod) {
  const ContainerState* egress = pod.container("egress");
  s->egress_ready = running(egress) && egress->ready;
  if (s->egress_ready) return;
  if (!egress || (waiting(egress) && egress->reason == "PodInitializing")) {
    s->egress_message = "egress has not started";
  } else if (running(egress)) {
    s->egress_message = "egress runs and is not ready" + last_words(*egress);
  } else {
    const std::string why = terminated(egress) ? egress->reason : egress->last_reason;
    s->egress_message = "egress is " + std::string(terminated(egress) ? "terminated" : "waiting") + (why.empty() ? "" : " (" + why + ")");
  }
  // Before the first start this is how every pod begins; after that a container that was killed is worth its own words.
  const bool killed = egress && (egress->last_reason == "OOMKilled" || (terminated(egress) && egress->reason == "OOMKilled"));
  if (s->guard_done && killed)
    stop(s, "OOMKilled", "egress ran out of memory and is started again; requests fail until it is back");
  else if (s->guard_done)
    stop(s, "EgressNotReady", s->egress_message, true);
}

// The agent has ended and nobody starts it again.
bool agent_finished(const PodObject& pod, const ContainerState* agent, const Spec* spec) {
  if (pod.phase == "Succeeded" || pod.phase == "Failed") return true;
  if (!terminated(agent) || !spec) return false;
  return spec->restart_policy == RestartPolicy::kNever || (spec->restart_policy == RestartPolicy::kOnFailure && agent->exit_code == 0);
}

void finish(PodState* s, const PodObject& pod, const ContainerState* agent) {
  s->life = Life::kFinished;
  if (terminated(agent)) {
    s->exit_code = agent->exit_code;
    s->finished_at = agent->finished_at;
    s->finish_reason = agent->reason.empty() ? (agent->exit_code == 0 ? "Completed" : "Error") : agent->reason;
  } else {
    s->exit_code = pod.phase == "Succeeded" ? 0 : 255;
    s->finish_reason = pod.phase == "Succeeded" ? "Completed" : "Error";
  }
  if (pod.reason == "DeadlineExceeded") s->finish_reason = pod.reason;
  s->finish_message = "the agent ended with exit code " + std::to_string(s->exit_code);
  if (s->finish_reason == "OOMKilled") s->finish_message += ": it ran out of memory (spec.agent.resources.limits.memory)";
  if (s->finish_reason == "DeadlineExceeded") s->finish_message = "the agent ran into spec.activeDeadlineSeconds and was stopped";
  if (any_of(s->finish_reason, {"StartError", "ContainerCannotRun"}))
    s->finish_message += ": its command could not be started (spec.agent.command): " + plain(agent->message, 300);
  s->agent_reason = s->finish_reason;
  s->agent_message = s->finish_message;
  s->reason = "Finished";
  s->message = s->finish_message;
  s->passing = false;
}

void look_at_agent(PodState* s, const ContainerState* agent) {
  s->agent_running = running(agent);
  if (s->agent_running) return;
  if (terminated(agent)) {
    s->agent_reason = agent->reason.empty() ? "Error" : agent->reason;
    s->agent_message = "the agent ended with exit code " + std::to_string(agent->exit_code) + " and is started again";
    stop(s, "AgentNotRunning", s->agent_message, true);
    return;
  }
  s->agent_reason = agent && !agent->reason.empty() && agent->reason != "PodInitializing" ? agent->reason : "NotStarted";
  if (s->agent_reason == "ErrImagePull") s->agent_reason = "ImagePullBackOff";  // they take turns
  s->agent_message = "the agent has not started";
  stop(s, "Starting", s->agent_message, true);
}

}  // namespace

PodState read_pod(const PodObject* pod, const Spec* spec, int64_t now) {
  PodState s;
  if (!pod) {
    s.agent_reason = "NotCreated";
    s.agent_message = "there is no pod";
    s.egress_message = "there is no pod";
    return s;
  }
  const ContainerState* agent = pod->container("agent");
  look_at_guard(&s, *pod);
  if (pod->deleting != 0) {
    s = PodState();
    s.agent_reason = "Terminating";
    s.agent_message = s.egress_message = "the pod is being deleted";
    if (node_lost(*pod) || now > pod->deleting + kUnconfirmed) {
      s.life = Life::kLost;
      stop(&s, "NodeLost",
           "pod " + pod->name + " is to go, and node " + pod->node + " does not confirm it: no second pod is made while the first may run; if the node is "
               "gone for good: kubectl delete node " + pod->node + "; if only the pod is stuck: kubectl -n " + pod->ns + " delete pod " + pod->name +
               " --force --grace-period=0");
    } else {
      s.life = Life::kTerminating;
      s.look_again_s = pod->deleting + kUnconfirmed + 1 - now;
      stop(&s, "Terminating", "the pod is being deleted", true);
    }
    return s;
  }
  if (agent_finished(*pod, agent, spec)) {
    if (pod->phase == "Failed" && disrupted(*pod)) {
      s = PodState();
      s.life = Life::kDisrupted;
      s.agent_reason = pod->reason.empty() ? "Disrupted" : pod->reason;
      s.agent_message = s.egress_message = "the pod was ended by the cluster: " + (pod->reason.empty() ? "disrupted" : pod->reason) +
                                           (pod->message.empty() ? "" : ": " + plain(pod->message, 300));
      stop(&s, s.agent_reason, s.agent_message, true);
      return s;
    }
    if (pod->phase == "Failed" && !s.guard_failed.empty() && !terminated(agent) && pod->reason != "DeadlineExceeded") {
      s.life = Life::kGuardFailed;
      s.egress_message = "egress has not started";
      s.agent_reason = "NotStarted";
      s.agent_message = "the guard failed, so the agent was not started";
      return s;
    }
    finish(&s, *pod, agent);
    s.egress_message = "the bottle is finished";
    return s;
  }
  s.life = Life::kPending;
  if (node_lost(*pod)) {
    s.life = Life::kLost;
    stop(&s, "NodeLost",
         "node " + pod->node + " does not report: whether the agent runs is not known; if it is gone for good: kubectl delete node " + pod->node);
  }
  if (const auto* scheduled = pod->condition("PodScheduled"); scheduled && scheduled->status == "False") {
    const bool gated = scheduled->reason == "SchedulingGated";
    stop(&s, scheduled->reason.empty() ? "Unschedulable" : scheduled->reason,
         (gated ? "a scheduling gate holds the pod back: " : "no node takes the pod: ") + plain(scheduled->message, 500));
  }
  for (const auto& c : pod->containers)
    if (c.kind != ContainerState::Kind::kEphemeral && waiting(&c)) look_at_waiting(&s, *pod, c, spec);
  if (pod->node.empty()) stop(&s, "Pending", "the pod waits for a node", true);
  if (!s.guard_done) stop(&s, "Starting", "the guard closes the network", true);
  look_at_egress(&s, *pod);
  look_at_agent(&s, agent);
  if (pod->ip.empty()) stop(&s, "Starting", "the pod has no address yet", true);
  if (s.life == Life::kPending && s.guard_done && s.egress_ready && s.agent_running) s.life = Life::kRunning;
  return s;
}

}  // namespace bottle::reconcile
