# shellcheck shell=bash disable=SC2034
# What the scripts share. Sourced, never run; the caller has set -euo pipefail.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
jobs=${BOTTLE_JOBS:-$(nproc)}
cleanups=()

say() { printf '\n== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# usage_from FILE: the comment block under the first line of a script is its help.
usage_from() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$1"; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; return; fi
  command -v sudo >/dev/null || die "'$1' needs root: run this as root or install sudo"
  sudo "$@"
}

# on_exit COMMAND...: run at exit and at interruption, last added first, each whatever happened to the others.
on_exit() {
  local quoted
  printf -v quoted '%q ' "$@"
  cleanups+=("$quoted")
  trap run_cleanups EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
}
run_cleanups() {
  local code=$? i
  trap - EXIT
  trap '' INT TERM HUP
  for ((i = ${#cleanups[@]} - 1; i >= 0; i--)); do eval "${cleanups[i]}" || true; done
  exit "$code"
}

base_packages=(
  build-essential cmake ninja-build ccache git ca-certificates curl openssl
  libssl-dev libcurl4-openssl-dev nlohmann-json3-dev libyaml-cpp-dev libcpp-httplib-dev libcli11-dev
  libsimdjson-dev libgtest-dev libgmock-dev librapidcheck-dev default-jdk-headless
)
docker_packages=(docker.io nftables debootstrap iproute2 iptables xz-utils python3)
check_packages=(clang libclang-rt-dev shellcheck)
cluster_packages=(containerd runc containernetworking-plugins nftables iptables conntrack iproute2 util-linux procps curl openssl gcc libc6-dev tar)

# need_packages NAME...: installs those that are missing. The list of packages is refreshed only if that fails.
need_packages() {
  local missing=() p
  if ! command -v dpkg-query >/dev/null; then
    say "no dpkg here: making sure of these packages is left to you: $*"
    return
  fi
  for p in "$@"; do
    # A package that provides the program by another name (docker-ce, clang-14) will do.
    case $p in
      docker.io) command -v dockerd >/dev/null && continue ;;
      clang) command -v clang++ >/dev/null && continue ;;
      default-jdk-headless) command -v javac >/dev/null && continue ;;
    esac
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)" = installed ] || missing+=("$p")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing packages: ${missing[*]}"
  local install=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 install --no-install-recommends "${missing[@]}")
  as_root "${install[@]}" >&2 2>/dev/null || {
    as_root apt-get -qq update >&2
    as_root "${install[@]}" >&2
  } || die "could not install: ${missing[*]}"
}

docker_socket=/var/run/docker.sock
# As root, like all that uses the engine here: the tests and the demo make network namespaces anyway.
engine_answers() { as_root curl -fsS -m 5 --unix-socket "$docker_socket" http://d/_ping >/dev/null 2>&1; }

# need_engine: an engine at the usual socket; starts a dockerd if none answers, and stops that one at exit.
need_engine() {
  need_packages "${docker_packages[@]}"
  engine_answers && return 0
  say "no Docker engine answers at $docker_socket: starting dockerd"
  local dir
  dir=$(mktemp -d)
  # shellcheck disable=SC2016  # $0 is the inner shell's
  as_root bash -c 'setsid dockerd --pidfile "$0/pid" >"$0/log" 2>&1 </dev/null &' "$dir"
  on_exit stop_engine "$dir"
  local deadline=$((SECONDS + 60))
  until engine_answers; do
    [ $SECONDS -lt $deadline ] || { tail -n 20 "$dir/log" >&2; die "dockerd does not answer after 60 s (its last lines are above)"; }
    sleep 0.2
  done
}
stop_engine() {
  local pid deadline=$((SECONDS + 30))
  pid=$(cat "$1/pid" 2>/dev/null) || return 0
  as_root kill "$pid" 2>/dev/null || return 0
  while as_root kill -0 "$pid" 2>/dev/null && [ $SECONDS -lt $deadline ]; do sleep 0.2; done
  as_root rm -rf "$1"
}

# build_preset PRESET [TARGET...]
build_preset() {
  local preset=$1 targets=()
  shift
  [ $# -eq 0 ] || targets=(--target "$@")
  (cd "$root" && cmake --preset "$preset" >"$(log_file "configure-$preset")" 2>&1) ||
    { cat "$(log_file "configure-$preset")" >&2; die "cmake --preset $preset failed"; }
  (cd "$root" && cmake --build --preset "$preset" -j "$jobs" "${targets[@]}") >&2
}
log_file() { mkdir -p "$root/build/logs"; echo "$root/build/logs/$1.log"; }

# need_go: a go command that can build what names a newer toolchain in its go.mod. From 1.21 on, go fetches that toolchain by itself (as a
# module, checked against the checksum database) unless it is told not to, as Debian's packages and some images tell it.
need_go() {
  go_fetches_toolchains || install_go
  local own
  own=$(GOTOOLCHAIN=local go env GOVERSION)
  if ! newer_or_same "${own#go}" "$(sed -n 's/^go //p' "$root/tests/support/cluster/kubelite/go.mod")"; then export GOTOOLCHAIN=auto; fi
}
newer_or_same() { [ "$(printf '%s\n' "$1" "$2" | sort -V | tail -n 1)" = "$1" ]; }
go_fetches_toolchains() {
  local v
  v=$(cd / && GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) && newer_or_same "${v#go}" 1.21
}
install_go() {
  # Debian and Ubuntu keep each version in a folder of its own: the newest that apt offers will do, backports included.
  local package
  package=$(newest_go_package)
  if [ -z "$package" ] && command -v apt-get >/dev/null; then
    as_root apt-get -qq update >&2
    package=$(newest_go_package)
  fi
  [ -n "$package" ] || die "no go >= 1.21 here, and apt offers none. Install one (on Debian 12: add the suite bookworm-backports to apt's sources and run this again)"
  need_packages "$package"
  local folder=${package#golang-}
  folder=/usr/lib/go-${folder%-go}/bin
  export PATH=$folder:$PATH
  go_fetches_toolchains || die "$package is installed, and $folder/go still does not answer"
}
newest_go_package() {
  apt-cache search --names-only '^golang-1\.[0-9]+-go$' 2>/dev/null | cut -d' ' -f1 | sort -V |
    awk -F'[.-]' '$3 >= 21 {p = $0} END {print p}'
}
