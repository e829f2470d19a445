#!/bin/bash
# The agent image of the end-to-end tests: a plain Debian with the clients agents use. Nothing of ours is in it, so the
# tests show that any image is confined. Built without a registry; kept between runs under a name with its content key.
set -euo pipefail
tag=bot-bottle/e2e-agent
packages=ca-certificates,curl,python3,git,nodejs,iproute2
mirror=${BOTTLE_DEBIAN_MIRROR:-http://deb.debian.org/debian}
suite=${BOTTLE_DEBIAN_SUITE:-bookworm}
case "${1:-}" in -h|--help) echo "usage: agent-image.sh   (prints the image; BOTTLE_DEBIAN_MIRROR, BOTTLE_DEBIAN_SUITE)"; exit 0;; esac
key=$(sha256sum "$0" | cut -c1-12)
image=$tag:$key
if ! docker image inspect "$image" >/dev/null 2>&1; then
  root=$(mktemp -d)
  trap 'rm -rf --one-file-system "$root"' EXIT
  debootstrap --variant=minbase --include="$packages" "$suite" "$root/rootfs" "$mirror" >&2
  chroot "$root/rootfs" sh -c 'useradd -m -u 1000 agent && rm -rf /var/cache/apt/* /var/lib/apt/lists/*' >&2
  tar -C "$root/rootfs" -c . | docker import -c 'CMD ["sleep","infinity"]' -c 'ENV PATH=/usr/local/bin:/usr/bin:/bin' - "$image" >&2
fi
docker tag "$image" "$tag:latest"
echo "$image"
