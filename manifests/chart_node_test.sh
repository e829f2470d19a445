#!/usr/bin/env bash
# The chart, installed by helm on a real node: the image starts, its permissions are enough for a bottle's life, and not for more.
# BOTTLE_KUBECONFIG_NODE names the cluster, whose node has the images; BOTTLE_CLUSTER_BIN the folder with kubectl and helm. Exit code 77:
# there is none.
# shellcheck disable=SC2317  # functions that trap and check call
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ -n "${BOTTLE_KUBECONFIG_NODE:-}" ] || { echo "skipped: BOTTLE_KUBECONFIG_NODE is not set"; exit 77; }
export KUBECONFIG=$BOTTLE_KUBECONFIG_NODE PATH=${BOTTLE_CLUSTER_BIN:+$BOTTLE_CLUSTER_BIN:}$PATH
# A namespace for its Bottles alone: other tests have a controller of their own for the rest.
release=chart-$$ system=chart-$$-system ns=chart-$$
controller=$release-bottle-controller

cleanup() {
  local code=$?
  if [ $code != 0 ]; then
    kubectl -n "$system" get pods -o wide || true
    kubectl -n "$system" logs "deployment/$controller" --tail=40 || true
    kubectl -n "$ns" get bottles,pods,events || true
  fi
  helm uninstall -n "$system" "$release" --ignore-not-found >/dev/null 2>&1 || true
  kubectl delete namespace "$ns" "$system" --ignore-not-found --wait=false >/dev/null || true
}
trap cleanup EXIT
b() { kubectl -n "$ns" "$@"; }
fail() { echo "FAILED: $*"; exit 1; }
# until_true WHAT COMMAND...
until_true() {
  local what=$1 deadline=$((SECONDS + 60))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || fail "$what: not within 60 s"
    sleep 0.2
  done
  echo "ok: $what"
}

kubectl apply --server-side --force-conflicts -f "$root/crds/bot-bottle.dev_bottles.yaml" >/dev/null
kubectl create namespace "$ns" >/dev/null
kubectl create namespace "$system" >/dev/null
kubectl label namespace "$system" pod-security.kubernetes.io/enforce=restricted >/dev/null
helm install -n "$system" "$release" "$root/charts/bot-bottle" --set crds.enabled=false --set replicas=2 --set "watchNamespaces={$ns}" --wait --timeout 90s >/dev/null
echo "ok: two replicas run, under the restricted level"

b apply -f - >/dev/null <<'EOF'
apiVersion: bot-bottle.dev/v1alpha1
kind: Bottle
metadata: { name: chart }
spec:
  agent: { image: bot-bottle/agent:latest, command: [sleep, infinity] }
  pipelock: { enabled: false }
  egress: { routes: [{ host: a.test, inject: [{ header: x-token, secretKeyRef: { name: api, key: token } }] }] }
EOF
b wait --for=condition=Ready bottle/chart --timeout=90s >/dev/null
echo "ok: the bottle is Ready"
[ "$(b get secret,configmap -l app.kubernetes.io/managed-by=bottle-controller -o name | wc -l)" = 2 ] || fail "its ConfigMap and Secret"
until_true "its events are there" bash -c "[ -n \"\$(kubectl -n $ns get events.events.k8s.io -o name)\" ]"

# Every write that the life of a bottle has, with the chart's permissions alone and the admission policy in force.
enforced() { [ "$(b get bottle chart -o 'jsonpath={.status.policyHash}')" != "$1" ]; }
before=$(b get bottle chart -o 'jsonpath={.status.policyHash}')
b patch bottle chart --type=json -p '[{"op": "add", "path": "/spec/egress/routes/-", "value": {"host": "b.test"}}]' >/dev/null
until_true "a changed route is enforced" enforced "$before"
b patch bottle chart --type=merge -p '{"spec": {"egress": {"allowCIDRs": ["10.9.0.0/16"]}}}' >/dev/null
guarded() { [ "$(b get pod chart -o 'jsonpath={.status.ephemeralContainerStatuses[0].state.terminated.exitCode}')" = 0 ]; }
until_true "changed rules of the guard are in force" guarded
b create secret generic api --from-literal=token=t0ken >/dev/null
until_true "a Secret that appears is found" b wait --for=condition=SecretsFound bottle/chart --timeout=1s
b delete pod chart --wait=false >/dev/null
until_true "a deleted pod comes back" bash -c "kubectl -n $ns get pod chart -o 'jsonpath={.metadata.deletionTimestamp}{.status.phase}' | grep -qx Running"
b wait --for=condition=Ready bottle/chart --timeout=60s >/dev/null

b create rolebinding ann --clusterrole=edit --user=ann >/dev/null
out=$(b exec --as=ann chart -c egress -- id 2>&1) && fail "somebody who may edit is in egress"
[[ $out == *"is a sidecar of a bottle"* ]] || fail "exec into egress: $out"
b exec --as=ann chart -c agent -- true || fail "exec into the agent"
echo "ok: exec leads into the agent, and not into egress"

account=(--as="system:serviceaccount:$system:$controller")
for what in 'get secrets -n kube-system' 'create pods -n default' 'update bottles' 'create clusterroles' 'create pods --subresource=exec'; do
  # shellcheck disable=SC2086  # words
  [ "$(b auth can-i "${account[@]}" $what 2>/dev/null)" = no ] || fail "the controller can $what"
done
echo "ok: the controller can do nothing elsewhere, and cannot enter pods"

leader=$(kubectl -n "$system" get lease "$controller" -o 'jsonpath={.spec.holderIdentity}')
kubectl -n "$system" delete pod "${leader%%_*}" --wait=false >/dev/null
moved() { local now; now=$(kubectl -n "$system" get lease "$controller" -o 'jsonpath={.spec.holderIdentity}'); [ -n "$now" ] && [ "$now" != "$leader" ]; }
until_true "the other replica takes over" moved
b apply -f - >/dev/null <<'EOF'
apiVersion: bot-bottle.dev/v1alpha1
kind: Bottle
metadata: { name: short }
spec:
  agent: { image: bot-bottle/agent:latest, command: ["true"] }
  ttlSecondsAfterFinished: 1
EOF
b wait --for=delete bottle/short --timeout=60s >/dev/null
echo "ok: a finished bottle is deleted after its time"
refused=$(kubectl -n "$system" logs -l app.kubernetes.io/component=controller --tail=-1 | grep -ci 'forbidden' || true)
[ "$refused" = 0 ] || fail "the API server refused the controller $refused times"

b delete bottle chart >/dev/null
gone() { [ -z "$(b get pod,secret,configmap,networkpolicy -l app.kubernetes.io/managed-by=bottle-controller -o name)" ]; }
until_true "nothing is left of a deleted bottle" gone
helm uninstall -n "$system" "$release" >/dev/null
kubectl get crd bottles.bot-bottle.dev -o name >/dev/null || fail "the CRD is gone"
echo "chart on a node: as it should be"
