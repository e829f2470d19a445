#!/usr/bin/env bash
# The ways to install: chart, kustomization and install.yaml, each linted, rendered and taken by a real API server (in a dry run).
# BOTTLE_KUBECONFIG_CONTROL_PLANE names the cluster, BOTTLE_CLUSTER_BIN the folder with kubectl and helm. Exit code 77: there is none.
# shellcheck disable=SC2317  # functions that trap and check call
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ -n "${BOTTLE_KUBECONFIG_CONTROL_PLANE:-}" ] || { echo "skipped: BOTTLE_KUBECONFIG_CONTROL_PLANE is not set"; exit 77; }
export KUBECONFIG=$BOTTLE_KUBECONFIG_CONTROL_PLANE PATH=${BOTTLE_CLUSTER_BIN:+$BOTTLE_CLUSTER_BIN:}$PATH
chart=$root/charts/bot-bottle
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
failed=0

check() { # check WHAT COMMAND...
  local what=$1
  shift
  if "$@" >"$work/out" 2>&1; then
    echo "ok: $what"
  else
    echo "FAILED: $what"
    cat "$work/out"
    failed=1
  fi
}
not() { ! "$@"; }
says() { local words=$1; shift; local out; out=$("$@" 2>&1) || true; [[ $out == *"$words"* ]] || { echo "$out"; false; }; }

# A dry run cannot see what another dry run made: namespaces, and kinds of other projects, have to be there.
kubectl apply --server-side -f "$root/manifests/namespace.yaml" >/dev/null
kubectl apply --server-side -f "$root/crds/bot-bottle.dev_bottles.yaml" >/dev/null
kubectl wait --for=condition=Established crd/bottles.bot-bottle.dev --timeout=30s >/dev/null
taken() { kubectl apply --server-side --force-conflicts --dry-run=server --validate=strict -f "$1"; }
# kinds FILE: "Kind name" of each object, sorted.
kinds() { kubectl create --dry-run=client --validate=false -o 'jsonpath={.kind} {.metadata.name}{"\n"}' -f "$1" | LC_ALL=C sort; }

check "manifests are made from the chart as it is" "$root/scripts/manifests" --check
check "install.yaml is taken" taken "$root/manifests/install.yaml"
kubectl kustomize "$root/manifests" >"$work/kustomize.yaml"
check "the kustomization is taken" taken "$work/kustomize.yaml"
kinds "$root/manifests/install.yaml" >"$work/install.kinds"
kinds "$work/kustomize.yaml" >"$work/kustomize.kinds"
check "both have the same objects" diff "$work/install.kinds" "$work/kustomize.kinds"

render() { helm template bot-bottle "$chart" -n bot-bottle-system --kube-version 1.36.0 "$@"; }
check "the chart is free of faults" helm lint --strict "$chart"
for values in "" "$chart"/testdata/*.yaml; do
  name=$(basename "${values:-default}" .yaml)
  render ${values:+-f "$values"} >"$work/$name.yaml"
  check "values $name: free of faults" helm lint --strict "$chart" ${values:+-f "$values"}
  # The kinds of the Prometheus Operator are not of this cluster.
  awk 'BEGIN { RS = "\n---\n" } !/apiVersion: monitoring.coreos.com/ { print "---\n" $0 }' "$work/$name.yaml" >"$work/$name-own.yaml"
  check "values $name: every object is taken" taken "$work/$name-own.yaml"
done
{ kinds "$work/default.yaml"; echo "Namespace bot-bottle-system"; } | LC_ALL=C sort >"$work/default.kinds"
check "chart and manifests have the same objects" diff "$work/default.kinds" "$work/install.kinds"
check "the CRD is kept on uninstall" grep -q 'helm.sh/resource-policy: keep' "$work/default.yaml"
check "two replicas have a disruption budget" grep -q 'kind: PodDisruptionBudget' "$work/full.yaml"
check "one replica has none" not grep -q 'kind: PodDisruptionBudget' "$work/default.yaml"
check "namespaces instead of the cluster: no ClusterRoleBinding" not grep -q 'kind: ClusterRoleBinding' "$work/namespaced.yaml"
check "namespaces instead of the cluster: a Role in each" test "$(grep -c '^  namespace: \(default\|kube-public\)$' "$work/namespaced.yaml")" = 4
check "four kinds of monitoring" test "$(grep -cE '^kind: (ServiceMonitor|PodMonitor|PrometheusRule)$|bot-bottle.json' "$work/full.yaml")" = 4
check "everything off leaves the Deployment" test "$(kinds "$work/bare.yaml")" = "Deployment bottle-controller"
for wrong in replica=2 image.tags=x metrics.serviceMonitor.enable=true logLevel=loud 'watchNamespaces={A}' replicas=two; do
  check "a typo is refused: $wrong" not render --set "$wrong"
done
check "the typo is named" says "additional properties 'replica' not allowed" render --set replica=2

# The controller's pod is within the level that its namespace enforces, which a Deployment is only warned about.
check "the pod is within the restricted level" not says "would violate PodSecurity" taken "$work/full-own.yaml"
check "examples are taken" kubectl create -n bot-bottle-system --dry-run=server --validate=strict -f "$root/examples"

[ $failed = 0 ] && echo "install: as it should be"
exit $failed
