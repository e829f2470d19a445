# shellcheck shell=bash disable=SC2154  # set by who sources this
# The pause image, made without an engine and without a registry. Sourced; needs $work (a scratch folder).
pause_image=bot-bottle.test/pause:1

# pause_archive FILE: writes the image as `docker save` would.
pause_archive() {
  local layer config
  mkdir -p "$work/pause" "$work/image"
  cc -O2 -static -s -o "$work/pause/pause" "$here/pause.c"
  tar -C "$work/pause" --owner=0 --group=0 --mtime=@0 --sort=name -cf "$work/image/layer.tar" pause
  layer=$(sha256sum <"$work/image/layer.tar" | cut -d' ' -f1)
  printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":["/pause"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{}]}' \
    "$(dpkg --print-architecture 2>/dev/null || echo amd64)" "$layer" >"$work/image/config.json"
  config=$(sha256sum <"$work/image/config.json" | cut -d' ' -f1)
  mv "$work/image/config.json" "$work/image/$config.json"
  printf '[{"Config":"%s.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$config" "$pause_image" >"$work/image/manifest.json"
  tar -C "$work/image" --owner=0 --group=0 --mtime=@0 --sort=name -cf "$1" .
}
