#!/usr/bin/env bash
# What the admission policy refuses, and to whom, on a real API server.
# BOTTLE_KUBECONFIG_CONTROL_PLANE names the cluster, BOTTLE_CLUSTER_BIN the folder with kubectl. Exit code 77: there is none.
# shellcheck disable=SC2317  # functions that trap and expect call
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ -n "${BOTTLE_KUBECONFIG_CONTROL_PLANE:-}" ] || { echo "skipped: BOTTLE_KUBECONFIG_CONTROL_PLANE is not set"; exit 77; }
export KUBECONFIG=$BOTTLE_KUBECONFIG_CONTROL_PLANE PATH=${BOTTLE_CLUSTER_BIN:+$BOTTLE_CLUSTER_BIN:}$PATH
ns=admission-$$
failed=0

cleanup() {
  kubectl delete namespace "$ns" --ignore-not-found --wait=false >/dev/null || true
  kubectl delete clusterrolebinding "$ns" --ignore-not-found >/dev/null || true
}
trap cleanup EXIT

kubectl apply --server-side -k "$root/manifests" >/dev/null
kubectl create namespace "$ns" >/dev/null
# ann edits, adam administers, by the roles that aggregate ours; dev has what a careless role gives; nobody has the verb by accident.
kubectl -n "$ns" create rolebinding ann --clusterrole=edit --user=ann >/dev/null
kubectl -n "$ns" create rolebinding adam --clusterrole=admin --user=adam >/dev/null
kubectl -n "$ns" create role dev --verb='*' --resource=pods,pods/exec,pods/attach,pods/ephemeralcontainers,configmaps,secrets,bottles.bot-bottle.dev >/dev/null
kubectl -n "$ns" create rolebinding dev --role=dev --user=dev >/dev/null
controller=(--as=system:serviceaccount:bot-bottle-system:bottle-controller --as-group=system:serviceaccounts --as-group=system:authenticated)
# The garbage collector's own permissions, and the kubelet's, are the cluster's business: here it is what the policy says.
kubectl create clusterrolebinding "$ns" --clusterrole=cluster-admin --serviceaccount=kube-system:generic-garbage-collector >/dev/null
collector=(--as=system:serviceaccount:kube-system:generic-garbage-collector --as-group=system:serviceaccounts:kube-system)

labels='"labels": {"app.kubernetes.io/managed-by": "bottle-controller", "bot-bottle.dev/bottle": "b"}'
pod() { # pod NAME LABELS
  cat <<EOF
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "$1", $2, "annotations": {"bot-bottle.dev/policy-hash": "1"}},
 "spec": {"initContainers": [{"name": "egress", "image": "x", "restartPolicy": "Always"}], "containers": [{"name": "agent", "image": "x"}]}}
EOF
}
config() { echo '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b-policy", '"$labels"'}, "data": {"routes.yaml": "'"$1"'"}}'; }
as() { local who=$1; shift; kubectl -n "$ns" --as="$who" "$@"; }

# expect allowed|refused WHAT COMMAND...: refused is the policy's own answer, not RBAC's.
expect() {
  local want=$1 what=$2 out got
  shift 2
  out=$("$@" 2>&1) && got=allowed || got=failed
  case $out in
    *'ValidatingAdmissionPolicy'*denied*) got=refused ;;
    # Past admission: there is no node, so nobody answers, or the request was no upgrade.
    *'pgrade request required'* | *'does not have a host assigned'* | *'unable to upgrade'*) got=allowed ;;
  esac
  if [ "$got" = "$want" ]; then
    echo "ok: $what is $want"
  else
    echo "FAILED: $what is $got, not $want: $out"
    failed=1
  fi
}
connect() { local who=$1 sub=$2 container=$3; as "$who" get --raw "/api/v1/namespaces/$ns/pods/b/$sub?command=id&stdout=1${container:+&container=$container}"; }
create_from() { local text=$1; shift; kubectl -n "$ns" create "$@" -f - <<<"$text"; }

# The policy is in force some moments after it was written.
deadline=$((SECONDS + 30))
until [[ $(create_from "$(config x)" --as=dev --dry-run=server 2>&1 || true) == *denied* ]]; do
  [ $SECONDS -lt $deadline ] || { echo "FAILED: no policy in force after 30 s"; exit 1; }
done

expect refused "ann's making of a bottle's pod" create_from "$(pod b "$labels")" --as=ann
expect allowed "the controller's making of it" create_from "$(pod b "$labels")" "${controller[@]}"
expect allowed "the controller's making of a policy" create_from "$(config one)" "${controller[@]}"
expect allowed "ann's making of a pod of her own" create_from "$(pod own '"labels": {"app": "own"}')" --as=ann

expect refused "dev's change of the image" as dev patch pod b -p '{"spec": {"containers": [{"name": "agent", "image": "y"}]}}'
expect refused "ann's change of our annotation" as ann annotate --overwrite pod b bot-bottle.dev/policy-hash=2
expect refused "ann's removal of our annotation" as ann annotate pod b bot-bottle.dev/policy-hash-
expect refused "ann's removal of our label" as ann label pod b app.kubernetes.io/managed-by-
expect refused "ann's change of the bottle's name" as ann label --overwrite pod b bot-bottle.dev/bottle=own
expect refused "ann's taking of a pod into a bottle" as ann label pod own app.kubernetes.io/managed-by=bottle-controller bot-bottle.dev/bottle=b
expect refused "ann's change of the owner" as ann patch pod b -p '{"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "b", "uid": "u"}]}}'
expect allowed "ann's label of her own on it" as ann label pod b team=blue
expect allowed "ann's annotation of her own on it" as ann annotate pod b note=x
expect allowed "ann's change of her own pod" as ann patch pod own -p '{"spec": {"containers": [{"name": "agent", "image": "y"}]}}'
expect refused "ann's change of the policy" as ann patch configmap b-policy -p '{"data": {"routes.yaml": "two"}}'
expect refused "dev's ephemeral container" as dev patch pod b --subresource=ephemeralcontainers -p '{"spec": {"ephemeralContainers": [{"name": "d", "image": "x"}]}}'
expect allowed "the controller's change of the policy" kubectl -n "$ns" "${controller[@]}" patch configmap b-policy -p '{"data": {"routes.yaml": "two"}}'
expect allowed "the controller's annotation" kubectl -n "$ns" "${controller[@]}" patch pod b -p '{"metadata": {"annotations": {"bot-bottle.dev/policy-hash": "2"}}}'
expect allowed "a cluster administrator's ephemeral container" kubectl -n "$ns" patch pod b --subresource=ephemeralcontainers \
  -p '{"spec": {"ephemeralContainers": [{"name": "guard-12345678", "image": "x"}]}}'
expect allowed "adam's change of our annotation" as adam annotate --overwrite pod b bot-bottle.dev/policy-hash=3
# One that exists, or the collector deletes the pod.
uid=$(kubectl -n "$ns" get configmap b-policy -o 'jsonpath={.metadata.uid}')
expect allowed "the collector's change of the owner" kubectl -n "$ns" "${collector[@]}" patch pod b \
  -p '{"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "b-policy", "uid": "'"$uid"'"}]}}'
expect allowed "the kubelet's status" kubectl -n "$ns" patch pod b --subresource=status -p '{"status": {"message": "x"}}'

for container in egress guard guard-12345678 pipelock git-gate supervise; do
  expect refused "ann's exec into $container" connect ann exec "$container"
  expect refused "dev's attach to $container" connect dev attach "$container"
done
for container in agent ''; do expect allowed "ann's exec into ${container:-no container by name}" connect ann exec "$container"; done
expect allowed "ann's attach to agent" connect ann attach agent
expect allowed "adam's exec into egress" connect adam exec egress

# Of one Bottle alone, by name.
kubectl -n "$ns" create role one --verb=update --resource=bottles.bot-bottle.dev/admin --resource-name=b >/dev/null
kubectl -n "$ns" create rolebinding one --role=one --user=dev >/dev/null
expect allowed "dev's exec with the verb for this Bottle" connect dev exec egress
expect refused "dev's exec into another's" as dev get --raw "/api/v1/namespaces/$ns/pods/own/exec?command=id&container=egress"

# A namespace that has such names for other things.
kubectl label namespace "$ns" bot-bottle.dev/admission=ignore >/dev/null
expect allowed "ann's exec where the policy is told to look away" connect ann exec egress

expect allowed "ann's deletion of the pod" as ann delete pod b --wait=false
[ $failed = 0 ] && echo "admission: as it should be"
exit $failed
