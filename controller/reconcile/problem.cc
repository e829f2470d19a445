#include "controller/reconcile/problem.h"

#include "controller/reconcile/text.h"

namespace bottle::reconcile {

using Kind = Problem::Kind;

std::string_view Problem::reason() const {
  switch (kind) {
    case Kind::kNone: return "";
    case Kind::kNameTaken: return "NameTaken";
    case Kind::kWaiting: return "WaitingForDeletion";
    case Kind::kQuota: return "QuotaExceeded";
    case Kind::kPodSecurity: return "PodSecurityForbidden";
    case Kind::kAdmission: return "AdmissionDenied";
    case Kind::kForbidden: return "ControllerForbidden";
    case Kind::kInvalid: return "Rejected";
    case Kind::kNamespaceEnding: return "NamespaceTerminating";
    case Kind::kStale:
    case Kind::kTransient: return "ApiUnavailable";
  }
  return "";
}

std::chrono::milliseconds Problem::retry() const {
  using namespace std::chrono_literals;
  switch (kind) {
    case Kind::kQuota:
    case Kind::kPodSecurity:
    case Kind::kAdmission: return 30s;
    case Kind::kNameTaken:
    case Kind::kForbidden:
    case Kind::kInvalid:
    case Kind::kNamespaceEnding: return 60s;
    case Kind::kWaiting: return 1s;
    case Kind::kNone:
    case Kind::kStale:
    case Kind::kTransient: return 0ms;  // by the queue's back-off
  }
  return 0ms;
}

Problem classify(const kube::Answer& a, const std::string& what, const std::string& ns) {
  const auto says = [&a](std::string_view words) { return a.message.find(words) != std::string::npos; };
  const std::string words = plain(a.message, 600);
  bool ending = says("because it is being terminated");
  for (const auto& cause : a.causes) ending |= cause.reason == "NamespaceTerminating";
  Problem p;
  if (!a.transport) {
    p.kind = Kind::kTransient;
  } else if (ending) {
    p.kind = Kind::kNamespaceEnding;
    p.message = "namespace " + ns + " is being deleted";
  } else if (a.code == 403 && says("exceeded quota")) {
    p.kind = Kind::kQuota;
    p.message = what + ": " + words + "; raise the ResourceQuota of namespace " + ns + " or delete what is not needed (kubectl -n " + ns +
                " describe resourcequota)";
  } else if (a.code == 403 && says("violates PodSecurity")) {
    p.kind = Kind::kPodSecurity;
    p.message = "namespace " + ns + " does not admit the pod, because its guard needs the capability NET_ADMIN to close the network: " + words +
                "; allow it with: kubectl label namespace " + ns + " pod-security.kubernetes.io/enforce=privileged --overwrite";
  } else if (a.code >= 400 && a.code < 500 && says("denied") && (says("admission webhook") || says("ValidatingAdmissionPolicy"))) {
    p.kind = Kind::kAdmission;
    p.message = what + ": " + words;
  } else if (a.code == 403 && (says("cannot ") || says("User \""))) {
    p.kind = Kind::kForbidden;
    p.message = what + ": " + words + "; the controller lacks this right: apply its RBAC again (manifests/ or the chart) for namespace " + ns;
  } else if (a.code == 403 && says("error looking up service account")) {
    // A namespace made a moment ago: its "default" comes within a second, and half a minute is long for who applies both at once.
    p.kind = Kind::kStale;
  } else if (a.code == 403) {
    p.kind = Kind::kAdmission;  // LimitRanger, ServiceAccount, Priority, …
    p.message = what + ": " + words;
  } else if (a.code == 400 || a.code == 422) {
    p.kind = Kind::kInvalid;
    p.message = what + ": the API server refuses it: " + words;
  } else if (a.code == 409 || a.code == 404) {
    p.kind = Kind::kStale;
  } else {
    p.kind = Kind::kTransient;
  }
  if (p.kind == Kind::kTransient || p.kind == Kind::kStale) {
    p.status = a.status(what);
    p.message = plain(p.status.message(), 600);
  }
  return p;
}

Problem transient(const Status& status) {
  Problem p;
  p.kind = Problem::Kind::kTransient;
  p.status = status;
  p.message = status.message();
  return p;
}

}  // namespace bottle::reconcile
