# shellcheck shell=bash disable=SC2154  # set by who sources this
# The certificates and kubeconfigs of one cluster. Sourced; needs $state, $node, $node_ip and $service_net.

# make_pki: one authority, a leaf for each program, the key of service account tokens. Nothing is made again when it is there.
make_pki() {
  [ ! -e "$state/pki/complete" ] || return 0
  local kube=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local
  mkdir -p "$state/pki"
  (
    cd "$state/pki"
    umask 077
    openssl_key ca
    openssl req -x509 -new -key ca.key -subj /CN=test-cluster -days 3650 -out ca.crt
    leaf apiserver /CN=kube-apiserver serverAuth "$kube,DNS:localhost,IP:127.0.0.1,IP:$node_ip,IP:$service_net.1"
    leaf kubelet-server "/O=system:nodes/CN=system:node:$node" serverAuth "DNS:$node,IP:$node_ip,IP:127.0.0.1"
    leaf apiserver-to-kubelet /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
    leaf front-proxy /CN=front-proxy-client clientAuth
    leaf admin /O=system:masters/CN=admin clientAuth
    leaf controllers /CN=system:kube-controller-manager clientAuth
    leaf scheduler /CN=system:kube-scheduler clientAuth
    leaf proxy /CN=system:kube-proxy clientAuth
    leaf kubelet "/O=system:nodes/CN=system:node:$node" clientAuth
    openssl_key tokens
    openssl ec -in tokens.key -pubout -out tokens.pub
    local name
    for name in admin controllers scheduler proxy kubelet; do kubeconfig "$name" >"$name.kubeconfig"; done
    touch complete
  ) 2>"$state/log/pki.log" || { cat "$state/log/pki.log" >&2; die "making the cluster's certificates failed"; }
  # What people use lies outside of the private folder, and belongs to whoever called sudo.
  install -m 600 ${SUDO_UID:+-o "$SUDO_UID" -g "$SUDO_GID"} "$state/pki/admin.kubeconfig" "$state/kubeconfig"
}

openssl_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }

# leaf NAME SUBJECT USAGE [NAMES]
leaf() {
  openssl_key "$1"
  printf 'keyUsage=critical,digitalSignature\nextendedKeyUsage=%s\n%s\n' "$3" "${4:+subjectAltName=$4}" >"$1.ext"
  openssl req -new -key "$1.key" -subj "$2" |
    openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -extfile "$1.ext" -out "$1.crt"
  rm "$1.ext"
}

kubeconfig() {
  cat <<YAML
apiVersion: v1
kind: Config
clusters: [{name: $id, cluster: {server: "https://$node_ip:6443", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$1.crt"), client-key-data: $(base64 -w0 "$1.key")}}]
contexts: [{name: $id, context: {cluster: $id, user: $1}}]
current-context: $id
YAML
}
