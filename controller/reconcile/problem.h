// What can go wrong with a write, told apart by what a person has to do about it.
#ifndef CONTROLLER_RECONCILE_PROBLEM_H_
#define CONTROLLER_RECONCILE_PROBLEM_H_

#include <chrono>
#include <string>

#include "base/status.h"
#include "controller/kube/client.h"

namespace bottle::reconcile {

struct Problem {
  enum class Kind {
    kNone,
    kNameTaken,        // an object of somebody else has our name
    kWaiting,          // an object of a former bottle of this name is still going
    kQuota,
    kPodSecurity,
    kAdmission,        // a webhook, policy or limit says no
    kForbidden,        // our own RBAC
    kInvalid,          // the API server does not take what we rendered
    kNamespaceEnding,
    kStale,            // what we knew is out of date: look again
    kTransient,        // may go away by itself
  } kind = Kind::kNone;
  std::string message;
  Status status;       // of kStale and kTransient: what the queue counts as a failure

  bool none() const { return kind == Kind::kNone; }
  std::string_view reason() const;             // of the condition
  // What waits for a person is looked at again now and then: nothing tells us that a quota was raised.
  std::chrono::milliseconds retry() const;
};

// Of an answer that is not ok(). `what`: "create pod dev/hello".
Problem classify(const kube::Answer& answer, const std::string& what, const std::string& ns);
// Something of our own that failed, or an answer that cannot be read: tried again.
Problem transient(const Status& status);

}  // namespace bottle::reconcile

#endif  // CONTROLLER_RECONCILE_PROBLEM_H_
