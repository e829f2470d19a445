#!/bin/bash
# usage: node.sh STATE node|control-plane NODE_NAME NODE_IP SERVICE_NET
# The first process of a cluster's namespaces: private mounts, then the programs, each started again when it ends. When this process is
# killed, the kernel kills all others of its process namespace, and mounts and network go with the last of them. Never run by hand.
set -euo pipefail
[ $$ = 1 ] || { echo "node.sh is for a process namespace of its own" >&2; exit 2; }
state=$1 shape=$2 node=$3 node_ip=$4 service_net=$5

hostname "$node"
mount --make-rprivate /
mount --make-rshared /
# Copies of an engine's mounts would keep its containers from being removed.
awk '$2 ~ "^(/var)?/(lib|run)/(docker|containerd)/" {print $2}' /proc/mounts | sort -r | while read -r m; do umount -l "$m" 2>/dev/null || true; done

mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/cluster /run/netns /run/lock /run/sysctl /run/cni
mount --bind "$state" /run/cluster
# kubelet and containerd write to fixed places; here they are the cluster's own, and the machine's are not touched.
mount -t tmpfs -o mode=755 tmpfs /var/lib
mkdir /var/lib/kubelet /var/lib/containerd
mount --bind /run/cluster/kubelet /var/lib/kubelet
mount --bind /run/cluster/containerd /var/lib/containerd
mount --bind /run/cluster/log /var/log

# sysfs shows the network namespace it was mounted in; the cgroup mounts below are rooted at the cluster's own cgroup.
own_cgroups() {
  local hierarchies dir options name
  hierarchies=$(awk '$3 == "cgroup" {print $2, $4}' /proc/mounts)
  mount -t sysfs sysfs /sys
  if [ -z "$hierarchies" ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    # A cgroup with controllers for its children may hold no process itself.
    mkdir -p /sys/fs/cgroup/init
    local pid
    while read -r pid; do echo "$pid" >/sys/fs/cgroup/init/cgroup.procs 2>/dev/null || true; done </sys/fs/cgroup/cgroup.procs
    sed -e 's/^/+/' -e 's/ / +/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
    return
  fi
  mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
  while read -r dir options; do
    options=$(tr , '\n' <<<"$options" | grep -vxE 'rw|ro|relatime|noatime|nosuid|nodev|noexec|clone_children|xattr|release_agent=.*' | paste -sd ,)
    case $options in name=*) options=none,$options ;; esac
    dir=/sys/fs/cgroup/$(basename "$dir")
    mkdir -p "$dir"
    mount -t cgroup -o "$options" cgroup "$dir"
    for name in ${options//,/ }; do [ -e "/sys/fs/cgroup/$name" ] || [[ $name == none || $name == name=* ]] || ln -s "$dir" "/sys/fs/cgroup/$name"; done
  done <<<"$hierarchies"
}

# The kubelet insists on four settings that are the whole machine's: it is shown files that have its values already.
mask_sysctls() {
  local setting file
  for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1; do
    file=/run/sysctl/$(basename "${setting%=*}")
    echo "${setting#*=}" >"$file"
    mount --bind "$file" "/proc/sys/${setting%=*}"
  done
}

if [ "$shape" = node ]; then
  own_cgroups
  mask_sysctls
fi

# `up` makes the link; if it was killed before that, nobody will.
for ((i = 0; i < 600; i++)); do
  [ ! -e /run/cluster/run/linked ] || break
  [ $i -lt 599 ] || { echo "no network after 60 s" >&2; exit 1; }
  sleep 0.1
done
echo 1 >/proc/sys/net/ipv4/ip_forward
sysctl -qw net.bridge.bridge-nf-call-iptables=1 2>/dev/null || true

export PATH=/run/cluster/bin:$PATH
pki=/run/cluster/pki conf=/run/cluster/conf

# start NAME ARGUMENT...: NAME.pid is what `scripts/cluster kill` reads; while NAME.stopped exists it stays down.
start() {
  local name=$1
  (
    while :; do
      if [ -e "/run/cluster/run/$name.stopped" ]; then
        sleep 0.1
        continue
      fi
      setsid "$@" &
      echo $! >"/run/cluster/run/$name.pid"
      wait $! || true
      echo "$(date -u +%T) $name ended"
      sleep 0.2
    done
  ) </dev/null >>"/var/log/$name.log" 2>&1 &
}
answers() { curl -sf --cacert $pki/ca.crt "https://127.0.0.1:6443$1" >/dev/null; }

rm -f /run/cluster/run/*.stopped
start etcd --name cluster --data-dir /run/cluster/etcd --unsafe-no-fsync --log-level warn \
  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster cluster=http://127.0.0.1:2380
start kube-apiserver --etcd-servers http://127.0.0.1:2379 --bind-address 0.0.0.0 --secure-port 6443 --advertise-address "$node_ip" \
  --tls-cert-file $pki/apiserver.crt --tls-private-key-file $pki/apiserver.key --client-ca-file $pki/ca.crt \
  --service-account-issuer https://kubernetes.default.svc.cluster.local --service-account-key-file $pki/tokens.pub \
  --service-account-signing-key-file $pki/tokens.key --service-cluster-ip-range "$service_net.0/24" \
  --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged=true --profiling=false \
  --kubelet-client-certificate $pki/apiserver-to-kubelet.crt --kubelet-client-key $pki/apiserver-to-kubelet.key \
  --kubelet-certificate-authority $pki/ca.crt --kubelet-preferred-address-types InternalIP \
  --requestheader-client-ca-file $pki/ca.crt --requestheader-allowed-names front-proxy-client --requestheader-username-headers X-Remote-User \
  --requestheader-group-headers X-Remote-Group --requestheader-extra-headers-prefix X-Remote-Extra- \
  --proxy-client-cert-file $pki/front-proxy.crt --proxy-client-key-file $pki/front-proxy.key
if [ "$shape" = node ]; then
  start containerd --config $conf/containerd.toml
  until [ -S /run/containerd/containerd.sock ]; do sleep 0.05; done
  start kubelet --config $conf/kubelet.yaml --kubeconfig $pki/kubelet.kubeconfig --hostname-override "$node" --node-ip "$node_ip" --v 2
fi
until answers /version; do sleep 0.1; done
common=(--leader-elect=false --bind-address 127.0.0.1 --profiling=false --kube-api-qps 300 --kube-api-burst 600)
if [ "$shape" = node ]; then
  start kube-scheduler --kubeconfig $pki/scheduler.kubeconfig --authentication-kubeconfig $pki/scheduler.kubeconfig \
    --authorization-kubeconfig $pki/scheduler.kubeconfig "${common[@]}"
  start kube-proxy --config $conf/kube-proxy.yaml --hostname-override "$node"
fi
# The controller manager gives up when the first roles are not there yet.
until answers /readyz; do sleep 0.1; done
start kube-controller-manager --kubeconfig $pki/controllers.kubeconfig --authentication-kubeconfig $pki/controllers.kubeconfig \
  --authorization-kubeconfig $pki/controllers.kubeconfig --use-service-account-credentials --root-ca-file $pki/ca.crt \
  --service-account-private-key-file $pki/tokens.key --cluster-signing-cert-file $pki/ca.crt --cluster-signing-key-file $pki/ca.key \
  --allocate-node-cidrs=false "${common[@]}"

# From here on this process only takes the exit codes of orphans.
trap 'exit 0' TERM
while :; do wait -n 2>/dev/null || sleep 0.5; done
