#!/usr/bin/env bash
# Builds the images of bot-bottle from one Debian 13 base. Run it as often as you like: every image carries the hash of all
# that went into it, and one that is up to date is left alone.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
suite=trixie
mirror=${BOT_BOTTLE_DEBIAN_MIRROR:-http://deb.debian.org/debian}
security=${BOT_BOTTLE_DEBIAN_SECURITY:-http://deb.debian.org/debian-security}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/bot-bottle
label=dev.bot-bottle.content
bin=$root/build/bin
only=
fresh=

usage() {
  cat <<EOF
Usage: scripts/images [--bin DIR] [--only NAME[,NAME]] [--fresh]

Builds bot-bottle/mitmproxy, bot-bottle/sidecars, bot-bottle/agent and bot-bottle/controller on the local engine.

  --bin DIR    folder with bottle-guard, gate and bottle-controller; libbottle-policy.so there or in ../lib (default: build/bin)
  --only NAME  only these of: mitmproxy, sidecars, agent, controller
  --fresh      make the base image again, for newer Debian packages
  --help       this text

The base is debian:$suite-slim if a registry gives it, else made with debootstrap (needs root, once).
Environment: BOT_BOTTLE_DEBIAN_MIRROR, BOT_BOTTLE_DEBIAN_SECURITY, BOT_BOTTLE_NO_PULL=1 (never ask a registry), XDG_CACHE_HOME.

Example: scripts/images --only agent
EOF
}

say() { printf 'images: %s\n' "$*" >&2; }
die() {
  say "error: $*"
  exit 1
}

while [ $# -gt 0 ]; do
  case $1 in
    --bin) bin=${2:?--bin needs a folder}; shift 2 ;;
    --only) only=${2:?--only needs a name}; shift 2 ;;
    --fresh) fresh=1; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; die "unknown argument: $1" ;;
  esac
done
case ",$only," in *[!a-z,]*) die "--only: no such image: $only" ;; esac
for name in ${only//,/ }; do
  case $name in mitmproxy | sidecars | agent | controller) ;; *) die "--only: no such image: $name" ;; esac
done

command -v docker >/dev/null || die "the docker command is missing: apt-get install docker.io (or docker-cli)"
docker version >/dev/null 2>&1 || die "no engine answers: is it running, and may you use its socket?"
mkdir -p "$cache"
exec 9>"$cache/images.lock"
flock 9  # two builds at once would make the same base twice

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

hash_of() { sha256sum | cut -c1-16; }
# Names and contents of a folder, wherever it lies.
hash_tree() { (cd "$1" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) | hash_of; }
content_of() { docker image inspect --format "{{index .Config.Labels \"$label\"}}" "$1" 2>/dev/null || true; }

# Log of a step, shown only when it fails.
run_step() {
  local what=$1 start=$SECONDS
  shift
  say "$what ..."
  if ! "$@" >"$work/log" 2>&1; then
    tail -n 40 "$work/log" >&2
    die "$what failed"
  fi
  say "$what: $((SECONDS - start)) s"
}

debootstrap_base() {
  local tar=$cache/base-$base_key.tar
  if [ ! -s "$tar" ]; then
    command -v debootstrap >/dev/null || die "no registry answers and debootstrap is missing: apt-get install debootstrap"
    [ "$(id -u)" = 0 ] || die "no registry answers; making the base with debootstrap needs root: run this once with sudo"
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -r "$keyring" ] || die "missing $keyring: apt-get install debian-archive-keyring"
    run_step "debootstrap $suite" debootstrap --variant=minbase --keyring="$keyring" "$suite" "$work/root" "$mirror"
    rm -rf -- "$work/root"/var/cache/apt/archives/*.deb "$work/root"/var/lib/apt/lists/* "$work/root"/var/log/*.log
    : >"$work/root/etc/resolv.conf"  # debootstrap copies the host's
    : >"$work/root/etc/hostname"
    tar -C "$work/root" --one-file-system --numeric-owner -cf "$tar.part" . && mv "$tar.part" "$tar"
  fi
  run_step "import of the base" docker import --change "LABEL $label=$base_key" --change 'CMD ["/bin/bash"]' "$tar" "bot-bottle/base:$suite"
}

make_base() {
  base_key=$(printf '%s\n' 1 "$suite" "$mirror" "$(dpkg --print-architecture 2>/dev/null || uname -m)" | hash_of)
  if [ -n "$fresh" ]; then
    rm -f -- "$cache/base-$base_key.tar"
  elif [ "$(content_of "bot-bottle/base:$suite")" = "$base_key" ]; then
    say "base: up to date"
    return
  fi
  local pulled=debian:$suite-slim
  if [ -z "${BOT_BOTTLE_NO_PULL:-}" ] && timeout 60 docker pull -q "$pulled" >/dev/null 2>&1; then
    printf 'FROM %s\nLABEL %s=%s\n' "$pulled" "$label" "$base_key" >"$work/Dockerfile.base"
    run_step "base from $pulled" docker build -q -t "bot-bottle/base:$suite" - <"$work/Dockerfile.base"
  else
    debootstrap_base
  fi
}

# The wheels that requirements.txt pins, downloaded for the image's Python whatever Python the host has.
wheels() {
  local dir
  dir=$cache/wheels-$(hash_of <"$here/mitmproxy/requirements.txt")
  if [ ! -d "$dir" ]; then
    python3 -m pip --version >/dev/null 2>&1 || die "pip is missing: apt-get install python3-pip"
    rm -rf -- "$dir.part"
    run_step "download of mitmproxy" python3 -m pip download -q --require-hashes --no-deps --python-version 3.13 \
      --only-binary=:all: --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 --platform any \
      -r "$here/mitmproxy/requirements.txt" -d "$dir.part"
    mv "$dir.part" "$dir"
  fi
  cp -r "$dir" "$1"
}

need_binary() {
  local file
  for file in "$bin/$1" "$bin/../lib/$1"; do
    if [ -f "$file" ]; then
      install -m "$3" "$file" "$2/$1"
      return
    fi
  done
  die "$bin/$1 is missing: build it first (scripts/build), or say where with --bin"
}

build() {
  local name=$1 context=$work/$1 image=bot-bottle/$1 key
  mkdir -p "$context"
  cp "$here/$name/Dockerfile" "$context/"
  printf '%s\n' "deb $mirror $suite main" "deb $mirror $suite-updates main" "deb $security $suite-security main" >"$context/sources.list"
  cp "$here/install-packages" "$context/"
  case $name in
    mitmproxy)
      wheels "$context/wheels"
      cp "$here/mitmproxy/requirements.txt" "$here/mitmproxy/dhparam.pem" "$context/"
      mkdir -p "$context/egress" "$context/lib"
      find "$root/sidecars/egress/mitmproxy" -name '*.py' ! -name 'smoke_*' -exec install -m 0644 -t "$context/egress" {} +
      need_binary libbottle-policy.so "$context/lib" 0644
      ;;
    sidecars)
      mkdir -p "$context/bin"
      need_binary bottle-guard "$context/bin" 0755
      need_binary gate "$context/bin" 0755
      ;;
    controller)
      mkdir -p "$context/bin" "$context/lib"
      need_binary bottle-controller "$context/bin" 0755
      # Its libraries but those of glibc, which is the base's and not older than what a supported host builds against.
      ldd "$context/bin/bottle-controller" | awk '$2 == "=>" && $1 !~ /^lib(c|m|dl|rt|pthread|resolv|nsl)\.so/ { print $3 }' |
        xargs -r install -m 0644 -t "$context/lib"
      ;;
  esac
  key=$(printf '%s\n' "$(docker image inspect --format '{{.Id}}' "bot-bottle/base:$suite")" "$(hash_tree "$context")" | hash_of)
  if [ "$(content_of "$image:latest")" = "$key" ]; then
    say "$name: up to date"
    return
  fi
  # The host's network: the names that apt needs may resolve only there.
  DOCKER_BUILDKIT=0 run_step "$name" docker build --network host --build-arg "BASE=bot-bottle/base:$suite" \
    --label "$label=$key" -t "$image:latest" -t "$image:$key" "$context"
}

make_base
# A laptop has no use for the controller, and need not have built it.
if [ -z "$only" ] && [ ! -f "$bin/bottle-controller" ]; then
  say "controller: left out, $bin has no bottle-controller"
  only=mitmproxy,sidecars,agent
fi
for name in mitmproxy sidecars agent controller; do
  if [ -z "$only" ] || [[ ,$only, == *,$name,* ]]; then build "$name"; fi
done
docker image ls --filter "label=$label" --filter 'reference=bot-bottle/*:latest' --format '{{.Repository}}:{{.Tag}}  {{.Size}}' >&2
