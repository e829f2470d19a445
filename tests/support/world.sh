#!/bin/bash
# The internet of the end-to-end tests: one network namespace, joined to the host by a veth pair, that answers for documentation
# addresses (203.0.113.0/24) and swallows what must never arrive anywhere (metadata, private and other addresses). Everything
# that reaches it is counted by destination, protocol and port, so a test asks what arrived and not what a client believes.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: world.sh up|down|env|reset|count [DST [PROTO [PORT]]]|dump|exec CMD...
  up      make the namespace, its routes and counters; refuses when a real route of this host would be shadowed
  down    remove exactly what `up` made
  env     print shell variables that describe the world
  count   packets that arrived, narrowed by destination, protocol name or number, and port
  dump    every counter, one "PACKETS DST PROTO PORT" a line
  exec    run a command in the namespace
The world is called $BOTTLE_WORLD (default: e2e); several cannot be up at once, they share the addresses.
TEXT
}

id=${BOTTLE_WORLD:-e2e}
[[ $id =~ ^[a-z0-9]{1,8}$ ]] || { echo "world: BOTTLE_WORLD must be 1-8 of [a-z0-9]" >&2; exit 2; }
ns=bb-inet-$id veth=bbw-$id table=7351
state=/run/bot-bottle-world-$id
# Sinks: where nothing may ever arrive. Only forwarded packets are sent there (see `rules`), the host's own are not touched.
sinks=(169.254.169.254 169.254.170.2 10.99.0.1 172.31.99.1 192.168.99.1 100.64.0.9 168.63.129.16 198.51.100.7 198.18.0.9)
hosts=(10 11 12 20 21 22 23 53 66)
net6=2001:db8::/64

log() { echo "world: $*" >&2; }
inside() { ip netns exec "$ns" "$@"; }

rules() {  # rules add|del: what the host itself sends (iif lo) keeps to the main table; forwarded packets go to the world
  local s
  for s in "${sinks[@]}"; do
    ip rule "$1" pref 7350 iif lo to "$s" lookup main 2>/dev/null || [ "$1" = del ]
    ip rule "$1" pref 7351 to "$s" lookup $table 2>/dev/null || [ "$1" = del ]
  done
}

refuse_shadowing() {
  local s hit
  [ ! -e "/run/netns/$ns" ] || { log "$ns is up already (world.sh down)"; exit 1; }
  # Any route but the default one that covers or is covered by our addresses is somebody's, and so is an address.
  for s in 203.0.113.0/24 "${sinks[@]}"; do
    hit=$( { ip -4 route show table all match "$s"; ip -4 route show table all root "$s"; } | grep -vE '^(default|0\.0\.0\.0/0) ' | head -1 || true)
    [ -z "$hit" ] || { log "refused: $s would shadow a route of this host: $hit"; exit 1; }
  done
  hit=$(ip -6 route show table all root $net6 2>/dev/null | grep -v '^default ' | head -1 || true)
  [ -z "$hit" ] || { log "refused: $net6 would shadow a route of this host: $hit"; exit 1; }
  hit=$(ip rule show | grep -E '^735[01]:' | head -1 || true)
  [ -z "$hit" ] || { log "refused: rule in use: $hit"; exit 1; }
}

counters() {
  inside nft -f - <<'NFT'
table inet world {
  set seen4 { type ipv4_addr . inet_proto . inet_service; flags dynamic; counter; size 65535; }
  set seen6 { type ipv6_addr . inet_proto . inet_service; flags dynamic; counter; size 65535; }
  set other4 { type ipv4_addr . inet_proto; flags dynamic; counter; size 65535; }
  set other6 { type ipv6_addr . inet_proto; flags dynamic; counter; size 65535; }
  chain arrive {
    type filter hook prerouting priority -300; policy accept;
    iifname != "inet0" accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld-listener-report, mld2-listener-report } accept
    meta nfproto ipv4 meta l4proto { tcp, udp } update @seen4 { ip daddr . meta l4proto . th dport } accept
    meta nfproto ipv6 meta l4proto { tcp, udp } update @seen6 { ip6 daddr . meta l4proto . th dport } accept
    meta nfproto ipv4 update @other4 { ip daddr . meta l4proto }
    meta nfproto ipv6 update @other6 { ip6 daddr . meta l4proto }
  }
}
NFT
}

up() {
  refuse_shadowing
  mkdir -p "$state"
  cat /proc/sys/net/ipv4/ip_forward > "$state/ip_forward"
  trap 'log "up failed, undoing"; down' ERR
  ip netns add "$ns"
  ip link add "$veth" type veth peer name inet0 netns "$ns"
  ip addr add 203.0.113.1/24 dev "$veth"
  ip -6 addr add 2001:db8::ffff/64 dev "$veth" nodad
  # Loose: answers of a sink come in by the veth while the host's own route to that address is another.
  sysctl -qw "net.ipv4.conf.$veth.rp_filter=2"
  ip link set "$veth" up
  inside ip link set lo up
  inside ip link set inet0 up
  local h s
  for h in "${hosts[@]}"; do inside ip addr add "203.0.113.$h/24" dev inet0; done
  for s in "${sinks[@]}"; do inside ip addr add "$s/32" dev lo; done
  inside ip -6 addr add 2001:db8::1/64 dev inet0 nodad
  inside ip -6 route add local $net6 dev lo
  inside ip route add default via 203.0.113.1
  counters
  ip route add default via 203.0.113.10 dev "$veth" table $table
  rules add
  sysctl -qw net.ipv4.ip_forward=1
  # A bottle's bridge is forwarded by the engine's own rules. Where FORWARD drops by default and knows no such rule, ours stands in
  # DOCKER-USER, for traffic to and from the world only.
  if iptables -nL DOCKER-USER >/dev/null 2>&1; then
    iptables -I DOCKER-USER -o "$veth" -j ACCEPT
    iptables -I DOCKER-USER -i "$veth" -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
  fi
  trap - ERR
  log "$ns is up"
}

down() {
  set +e
  iptables -D DOCKER-USER -o "$veth" -j ACCEPT 2>/dev/null
  iptables -D DOCKER-USER -i "$veth" -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT 2>/dev/null
  if [ -d "$state" ]; then
    rules del
    ip route flush table $table 2>/dev/null
    [ "$(cat "$state/ip_forward" 2>/dev/null)" != 0 ] || sysctl -qw net.ipv4.ip_forward=0
  fi
  # Programs in the namespace would keep it alive: end those, by their number.
  if [ -e "/run/netns/$ns" ]; then
    local pid
    for pid in $(ip netns pids "$ns"); do kill "$pid" 2>/dev/null; done
    ip link del "$veth" 2>/dev/null
    ip netns del "$ns"
  fi
  rm -rf "$state"
  return 0
}

dump() {
  inside nft -j list table inet world | python3 -c '
import json, sys
for item in json.load(sys.stdin)["nftables"]:
    for e in item.get("set", {}).get("elem", []):
        key = e["elem"]["val"]["concat"]
        print(e["elem"]["counter"]["packets"], key[0], key[1], key[2] if len(key) > 2 else "-")'
}

count() {
  dump | awk -v d="${1:-}" -v p="${2:-}" -v o="${3:-}" '(d==""||$2==d)&&(p==""||$3==p)&&(o==""||$4==o){n+=$1} END{print n+0}'
}

case "${1:-}" in
  up) up ;;
  down) down ;;
  env) printf 'WORLD_NETNS=%s\nWORLD_DNS=203.0.113.53\nWORLD_ORIGIN=203.0.113.10\nWORLD_SINKS="%s"\nWORLD_V6=2001:db8::1\n' "$ns" "${sinks[*]}" ;;
  reset) inside nft delete table inet world; counters ;;
  count) shift; count "$@" ;;
  dump) dump ;;
  exec) shift; inside "$@" ;;
  -h|--help) usage ;;
  *) usage >&2; exit 2 ;;
esac
