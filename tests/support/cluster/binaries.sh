# shellcheck shell=bash disable=SC2154  # set by who sources this
# The programs of the cluster, built from pinned modules. Sourced; needs $here and scripts/lib.sh.
helm_version=v3.22.0
kubernetes_version=v1.36.3
kubelite_links=(etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl)

# build_binaries: sets $bin to a folder with kubelite, a link for each program, and helm. What was built before from the same text by the
# same compiler is used again.
build_binaries() {
  need_packages ca-certificates
  need_go
  local compiler key cache=${XDG_CACHE_HOME:-$HOME/.cache}/bot-bottle
  compiler=$(cd "$here/kubelite" && go env GOVERSION GOARCH) || die "go could not get the toolchain that $here/kubelite/go.mod names"
  key=$({ cat "$here"/kubelite/{go.mod,go.sum,main.go} && echo "$compiler $kubernetes_version"; } | sha256sum | cut -c1-16)
  bin=$cache/kubelite-$key
  mkdir -p "$bin"
  # Two builds at once would do the work twice.
  exec 8>"$bin/.lock"
  flock 8
  local version="k8s.io/component-base/version.gitVersion=$kubernetes_version -X k8s.io/client-go/pkg/version.gitVersion=$kubernetes_version"
  if [ ! -x "$bin/kubelite" ]; then
    with_progress "building Kubernetes $kubernetes_version and etcd (6 to 10 minutes the first time)" \
      go -C "$here/kubelite" build -v -trimpath -mod=readonly -ldflags "-s -w -X $version" -o "$bin/.new/" .
    mv "$bin/.new/kubelite" "$bin/kubelite"
  fi
  if [ ! -x "$bin/helm-$helm_version" ]; then
    with_progress "building helm $helm_version (4 minutes the first time)" \
      env GOBIN="$bin/.new" go install -v -trimpath -ldflags "-s -w" "helm.sh/helm/v3/cmd/helm@$helm_version"
    mv "$bin/.new/helm" "$bin/helm-$helm_version"
  fi
  local name
  for name in "${kubelite_links[@]}"; do ln -sfn kubelite "$bin/$name"; done
  ln -sfn "helm-$helm_version" "$bin/helm"
  rmdir "$bin/.new" 2>/dev/null || true
  exec 8>&-
}

# with_progress TEXT COMMAND...: a build that talks once for each package; people get a line every 20 s instead.
with_progress() {
  local text=$1 log pid start=$SECONDS next
  shift
  log=$(log_file cluster-build)
  say "$text"
  "$@" >"$log" 2>&1 8>&- &
  pid=$!
  on_exit kill "$pid"
  next=$((SECONDS + 20))
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.5
    [ $SECONDS -ge $next ] || continue
    next=$((SECONDS + 20))
    echo "   $((SECONDS - start)) s, $(wc -l <"$log") packages, last $(tail -n 1 "$log" | cut -c1-100)" >&2
  done
  unset 'cleanups[-1]'
  wait "$pid" || { tail -n 30 "$log" >&2; die "the build failed (its last lines are above, all in $log)"; }
  echo "   done in $((SECONDS - start)) s" >&2
}
