# shellcheck shell=bash disable=SC2154,SC2034  # shared with who sources this
# Up and down. Sourced by scripts/cluster, which sets $id, $shape, $wanted_net and $dns; needs the other files of this folder.
states=${BOTTLE_CLUSTER_STATE:-/var/lib/bot-bottle-cluster}
cni_bin=${CNI_BIN:-/usr/lib/cni}
started=''

# place_of ID: names that follow from the cluster's own.
place_of() { state=$states/$id cgroup=bottle-$id link=bc-$id node=$id; }
addresses() {
  net=$(cat "$state/net")
  node_ip=$net.0.2 host_ip=$net.0.1 pod_net=$net.1 service_net=$net.2
}

# A process is ours only while the one with that number began when it was recorded, in this boot: numbers are used again.
birth_of() {
  local stat
  { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
  # shellcheck disable=SC2086  # the fields after the name, which may hold spaces
  set -- ${stat##*) }
  [ "$1" != Z ] || return 1
  echo "${20} $(cat /proc/sys/kernel/random/boot_id)"
}
# alive: sets $outer (the process that `up` started) and $init (the first one inside, empty if not there yet).
alive() {
  local birth
  outer='' init=''
  read -r outer birth 2>/dev/null <"$state/run/process" || return 1
  [ "$(birth_of "$outer" || true)" = "$birth" ] || return 1
  init=$(ps -o pid= --ppid "$outer" | tr -d ' ') || true
}
inside_of_its_own() { alive && [ -n "$init" ] && [ "$(readlink "/proc/$init/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }
need_alive() { if ! alive || [ -z "$init" ]; then die "cluster '$id' is not up: scripts/cluster up --id $id"; fi; }
inside() { nsenter -t "$init" -m -p -n -i -u -- "$@"; }

check_machine() {
  [ "$(uname -s)" = Linux ] || die "the test cluster needs Linux"
  unshare --cgroup --mount --pid --net --ipc --uts --fork true 2>/dev/null ||
    die "this machine lets root make no namespaces (a container without --privileged?): run on a machine or a virtual machine"
  [ "$shape" = node ] || return 0
  mkdir -p "$state/overlay"/{a,b,c,d}
  unshare --mount mount -t overlay overlay -o "lowerdir=$state/overlay/a,upperdir=$state/overlay/b,workdir=$state/overlay/c" "$state/overlay/d" 2>/dev/null ||
    die "no overlay mounts on $states: set BOTTLE_CLUSTER_STATE to a folder on ext4, xfs or btrfs"
  rm -rf "$state/overlay"
  [ -x "$cni_bin/bridge" ] || die "no CNI plugins in $cni_bin: set CNI_BIN to their folder"
}

# choose_net: the first two bytes of the cluster's addresses. One that no route of this machine and no other cluster uses.
choose_net() {
  [ ! -e "$state/net" ] || {
    [ -z "$wanted_net" ] || [ "$wanted_net" = "$(cat "$state/net")" ] ||
      die "cluster '$id' has the net $(cat "$state/net"): scripts/cluster down --id $id --purge, then choose another"
    return 0
  }
  local n candidate='' nets=(10.{220..250})
  [ -z "$wanted_net" ] || nets=("$wanted_net")
  exec 7<"$states"
  flock 7
  for n in "${nets[@]}"; do
    candidate=$n
    if ip -4 route show table all root "$n.0.0/16" | grep -q . || grep -qxF "$n" "$states"/*/net 2>/dev/null; then candidate=''; fi
    [ -z "$candidate" ] || break
  done
  [ -n "$candidate" ] || die "no free net: ${wanted_net:-10.220 to 10.250} is in use (ip route, $states/*/net)"
  echo "$candidate" >"$state/net"
  exec 7>&-
}

# The folders that are this cluster's cgroup: one with version 2, one for each hierarchy with version 1.
cgroup_roots() {
  if awk '$3 == "cgroup" {found = 1} END {exit !found}' /proc/mounts; then
    awk '$3 == "cgroup" {print $2}' /proc/mounts | grep '^/sys/fs/cgroup/'
  else
    echo /sys/fs/cgroup
  fi
}
make_cgroups() {
  local root
  while read -r root; do
    if [ -e "$root/cgroup.subtree_control" ]; then
      sed -e 's/^/+/' -e 's/ / +/g' "$root/cgroup.controllers" >"$root/cgroup.subtree_control" || die "this machine gives out no cgroup controllers ($root)"
    fi
    mkdir -p "$root/$cgroup" || die "no cgroup can be made in $root: the node needs one of its own"
    # A new cpuset is empty, and nothing may enter it before it is not.
    if [ -e "$root/$cgroup/cpuset.mems" ] && [ ! -e "$root/cgroup.subtree_control" ]; then
      cat "$root/cpuset.cpus" >"$root/$cgroup/cpuset.cpus"
      cat "$root/cpuset.mems" >"$root/$cgroup/cpuset.mems"
    fi
  done < <(cgroup_roots)
}
remove_cgroups() {
  local root deadline=$((SECONDS + 10))
  while read -r root; do
    while [ -d "$root/$cgroup" ]; do
      find "$root/$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null && break
      [ $SECONDS -lt $deadline ] || { say "left: $root/$cgroup"; break; }
      sleep 0.05
    done
  done < <(cgroup_roots)
}

bring_up() {
  mkdir -p "$states"
  chmod 711 "$states"
  if [ -e "$state/shape" ] && [ "$(cat "$state/shape")" != "$shape" ]; then
    die "cluster '$id' is a $(cat "$state/shape"): choose another --id, or scripts/cluster down --id $id --purge"
  fi
  if alive; then
    say "cluster '$id' is up already"
    return
  fi
  [ -e "$state/shape" ] || started=new
  started=${started:-again}
  on_exit undo_unless_complete
  mkdir -p "$state"/{run,log/pods,log/containers,etcd,kubelet,containerd,bin,conf}
  chmod 711 "$state"
  clean_up_rest                          # of a run that was killed
  check_machine
  choose_net
  addresses
  echo "$shape" >"$state/shape"
  make_pki
  write_config
  # Copies: an edit, a new build or an emptied cache does not reach into a cluster that runs.
  ln -fL "$bin/kubelite" "$state/bin/" 2>/dev/null || cp -L "$bin/kubelite" "$state/bin/"
  local name
  for name in "${kubelite_links[@]}"; do ln -sfn kubelite "$state/bin/$name"; done
  install -m 755 "$here/node.sh" "$state/bin/node.sh"
  rm -f "$state/run"/*

  local spaces=(--mount --pid --net --ipc --uts)
  if [ "$shape" = node ]; then
    make_cgroups
    spaces+=(--cgroup)
  fi
  (
    exec 9>&-
    self=$BASHPID
    echo "$self $(birth_of "$self")" >"$state/run/process"
    if [ "$shape" = node ]; then
      while read -r root; do echo "$self" >"$root/$cgroup/cgroup.procs"; done < <(cgroup_roots)
    fi
    exec setsid unshare "${spaces[@]}" --fork --mount-proc --kill-child=KILL \
      bash "$state/bin/node.sh" "$state" "$shape" "$node" "$node_ip" "$service_net"
  ) </dev/null >"$state/log/init.log" 2>&1 &
  wait_up "namespaces" 20 inside_of_its_own
  link_up
  touch "$state/run/linked"
  wait_up "the API server" 120 api /readyz
  wait_up "the default service account" 60 api /api/v1/namespaces/default/serviceaccounts/default
  if [ "$shape" = node ]; then
    import_pause
    wait_up "the node" 60 node_ready
  fi
  started=''
}
undo_unless_complete() { if [ -n "$started" ]; then take_down; if [ "$started" = new ]; then purge; fi; fi; }

# wait_up TEXT SECONDS COMMAND...
wait_up() {
  local text=$1 deadline=$((SECONDS + $2))
  shift 2
  until "$@"; do
    if [ -e "$state/run/process" ] && ! alive && [ -e "$state/run/linked" ]; then tail -n 20 "$state/log/init.log" >&2; die "the cluster ended (its last lines are above)"; fi
    [ $SECONDS -lt $deadline ] || { tail -n 20 "$state"/log/*.log >&2; die "$text did not come up (the last lines of all logs are above)"; }
    sleep 0.1
  done
}
api() { curl -sf -m 5 --cacert "$state/pki/ca.crt" --cert "$state/pki/admin.crt" --key "$state/pki/admin.key" "https://$node_ip:6443$1" 2>/dev/null >"${2:-/dev/null}"; }
node_ready() { api "/api/v1/nodes/$node" "$state/run/node.json" && tr -d ' \n' <"$state/run/node.json" | grep -q '"type":"Ready","status":"True"'; }

link_up() {
  ip link add "$link" type veth peer name eth0 netns "$init"
  ip addr add "$host_ip/30" dev "$link"
  ip link set "$link" up
  nsenter -t "$init" -n sh -ec "ip link set lo up; ip addr add $node_ip/30 dev eth0; ip link set eth0 up; ip route add default via $host_ip"
  [ "$shape" != node ] || ip route replace "$pod_net.0/24" via "$node_ip" dev "$link"
  ip route replace "$service_net.0/24" via "$node_ip" dev "$link"
}

containerd_socket() { echo "/proc/$init/root/run/containerd/containerd.sock"; }
import() { ctr --address "$(containerd_socket)" --namespace k8s.io images import - >/dev/null; }
containerd_answers() { ctr --address "$(containerd_socket)" version >/dev/null 2>&1; }
import_pause() {
  [ ! -e "$state/images/pause" ] || return 0
  local work
  work=$(mktemp -d)
  pause_archive "$work/pause.tar"
  wait_up "containerd" 30 containerd_answers
  import <"$work/pause.tar" || die "the pause image could not be loaded"
  rm -rf "$work"
  mkdir -p "$state/images"
  touch "$state/images/pause"
}

# load_images IMAGE...: from the Docker engine of this machine; one that the node has already is left out.
load_images() {
  local image wanted=() query='' sum
  for image in "$@"; do
    sum=$(curl -sf --unix-socket "$docker_socket" "http://d/images/$image/json" | sha256sum) || die "no image $image on the engine at $docker_socket: scripts/images"
    [ "$(cat "$state/images/${image//\//_}" 2>/dev/null)" != "$sum" ] || continue
    wanted+=("$image")
    query+="&names=$image"
  done
  [ ${#wanted[@]} -gt 0 ] || return 0
  say "loading ${wanted[*]}"
  curl -sf --unix-socket "$docker_socket" "http://d/images/get?${query#&}" | import || die "containerd did not take ${wanted[*]}"
  for image in "${wanted[@]}"; do
    curl -sf --unix-socket "$docker_socket" "http://d/images/$image/json" | sha256sum >"$state/images/${image//\//_}"
  done
}

take_down() {
  if alive; then
    # The first process of the namespace takes all others with it; the outer one ends when it is gone.
    kill -KILL "${init:-$outer}" 2>/dev/null || true
    local deadline=$((SECONDS + 20))
    while alive; do
      [ $SECONDS -lt $deadline ] || { say "process $outer of cluster '$id' does not end"; return 1; }
      sleep 0.05
    done
  fi
  clean_up_rest
}
clean_up_rest() {
  rm -f "$state/run/process"
  ip link del "$link" 2>/dev/null || true
  remove_cgroups
}
purge() { rm -rf --one-file-system "$state"; rmdir "$states" 2>/dev/null || true; }
