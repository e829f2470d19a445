// BottlePlan -> the objects of a bottle on Kubernetes, as JSON. Pure and deterministic: the same plan gives the same bytes, whoever asks.
// Source: Kubernetes API reference 1.36 (core/v1 Pod, networking.k8s.io/v1 NetworkPolicy).
#ifndef BACKENDS_KUBERNETES_RENDER_H_
#define BACKENDS_KUBERNETES_RENDER_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/secret.h"
#include "base/status.h"
#include "controller/bottle/bottle.h"
#include "controller/pki/pki.h"
#include "controller/plan/plan.h"

namespace bottle::kubernetes {

using Json = nlohmann::json;

// Deterministic names of the children. The pod is called like its bottle.
std::string policy_name(std::string_view bottle);          // "<bottle>-policy"
std::string egress_ca_name(std::string_view bottle);       // "<bottle>-egress-ca"
std::string network_policy_name(std::string_view bottle);  // "<bottle>-bottle"

// The Bottle that owns what is rendered: becomes the controller ownerReference (blockOwnerDeletion false, so that deletion never waits).
struct Owner {
  std::string ns, name, uid;
  int64_t generation = 0;
};

struct RenderOptions {
  std::string image_pull_policy = "IfNotPresent";
  std::vector<std::string> image_pull_secrets;
  int64_t termination_grace_seconds = 5;
};

// Annotations on children (prefix bot-bottle.dev/). None of them is trusted further than "do we have to write again".
inline constexpr std::string_view kContentHash = "content-hash";      // every child: of what was rendered
inline constexpr std::string_view kPodHash = "pod-hash";              // pod: BottlePlan::pod_hash
// pod: token_refs_hash(). A pod's volumes are fixed, so other token references need a new pod, and BottlePlan::pod_hash does not know them.
inline constexpr std::string_view kTokenRefs = "token-refs";
inline constexpr std::string_view kPolicyHash = "policy-hash";        // pod: what it should enforce; bumped to make the kubelet refresh
inline constexpr std::string_view kGuardHash = "guard-hash";          // pod: sha256 of the rules its guard loaded at creation
inline constexpr std::string_view kBottleGeneration = "generation";   // pod: of the Bottle it was made for
inline constexpr std::string_view kTokensRevision = "tokens-revision";  // pod: of the Secrets' resourceVersions
inline constexpr std::string_view kCaFingerprint = "ca-fingerprint";  // Secret and pod
inline constexpr std::string_view kCaNotAfter = "ca-not-after";       // Secret: RFC 3339

// Labels every child has: managed-by, bot-bottle.dev/bottle = name. The pod also has app.kubernetes.io/name, component.
// What a plan cannot be on a cluster (hostPath workspace, certificate files of a laptop) is kInvalid with the field and the fix.
Status check(const Bottle& bottle);

Json render_policy(const BottlePlan& plan, const Owner& owner);                                   // ConfigMap
Json render_egress_ca(const pki::CertificateAuthority& ca, const SecretString& status_key, const Owner& owner);  // Secret; wipe the dump after use
Json render_network_policy(const BottlePlan& plan, const Owner& owner);                           // second layer, where the CNI enforces it
struct PodExtras {                     // what is no part of the plan
  std::string ca_fingerprint, tokens_revision;
  int64_t active_deadline_seconds = 0;
};
Json render_pod(const BottlePlan& plan, const Owner& owner, const RenderOptions& options, const PodExtras& extras);

std::string token_refs_hash(const BottlePlan& plan);  // of which Secrets and keys are mounted under which name, not of their values
std::string guard_hash(const BottlePlan& plan);       // the value of kGuardHash

// Strategic patch for pods/<name>/ephemeralcontainers: one more container that loads changed guard rules into the running pod's namespace
// (bottle-guard apply with the rules in its environment: no volume to wait for). Its name holds the rules' hash, and `serial` if that is
// not 0 (say the Bottle's generation): an ephemeral container runs once and stays in the pod, so rules that come back, or another try, need
// another name.
std::string guard_update_name(const BottlePlan& plan, int64_t serial = 0);
Json render_guard_update(const BottlePlan& plan, const RenderOptions& options, int64_t serial = 0);

// The container names in a pod: "guard" (init), "egress" (native sidecar), "agent".
}  // namespace bottle::kubernetes

#endif  // BACKENDS_KUBERNETES_RENDER_H_
