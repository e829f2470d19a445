# shellcheck shell=bash disable=SC2154  # set by who sources this
# The configuration files of one cluster. Sourced; needs $state, $net, $node_ip, $pod_net and $dns. Paths are those inside the node's
# namespaces, where the state folder is /run/cluster.

write_config() {
  local conf=$state/conf
  mkdir -p "$conf/cni"
  # Pods with dnsPolicy Default (and the kubelet's own look-ups) read this one.
  printf 'nameserver %s\n' "$dns" >"$conf/resolv.conf"

  # Percentages of a disk say nothing about a test node; images cannot be pulled again, so they are never collected.
  cat >"$conf/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
address: 0.0.0.0
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: /run/cluster/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: /run/cluster/pki/kubelet-server.crt
tlsPrivateKeyFile: /run/cluster/pki/kubelet-server.key
clusterDomain: cluster.local
clusterDNS: [$dns]
resolvConf: /run/cluster/conf/resolv.conf
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
failSwapOn: false
oomScoreAdj: 0
serializeImagePulls: false
registryPullQPS: 0
eventRecordQPS: 0
kubeAPIQPS: 50
kubeAPIBurst: 100
shutdownGracePeriod: 0s
YAML

  # conntrack's limits belong to the host and cannot be written in another network namespace.
  cat >"$conf/kube-proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
oomScoreAdj: 0
clusterCIDR: $pod_net.0/24
clientConnection: {kubeconfig: /run/cluster/pki/proxy.kubeconfig}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
metricsBindAddress: 127.0.0.1:10249
healthzBindAddress: 127.0.0.1:10256
nftables: {minSyncPeriod: 100ms, syncPeriod: 30s}
YAML

  # Leases are on the node's own /run: none outlives it.
  cat >"$conf/cni/10-pods.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$pod_net.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/run/cni/networks"}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON

  # Version 2 is read by containerd 1.6 and by all later ones. restrict_oom_score_adj: without CAP_SYS_RESOURCE runc cannot lower it.
  cat >"$conf/containerd.toml" <<TOML
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$pause_image"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$cni_bin"
    conf_dir = "/run/cluster/conf/cni"
TOML
}
