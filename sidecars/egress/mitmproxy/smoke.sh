#!/usr/bin/env bash
# usage: smoke.sh [TEST]...
#
# Runs the smoke tests of the add-on in this folder inside the built image bot-bottle/mitmproxy, without a network.
#
# example: smoke.sh smoke_test.Smoke.test_head
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
run() {
  docker run --rm --network none --user 0 --volume "$here:/opt/bot-bottle/egress:ro" --workdir /opt/bot-bottle/egress \
    --entrypoint /opt/mitmproxy/bin/python "${BOT_BOTTLE_EGRESS_IMAGE:-bot-bottle/mitmproxy:latest}" -W ignore -m unittest "$@"
}
if [ $# -gt 0 ]; then
  run "$@"
else
  run -v smoke_test
  run -v smoke_h2_test
fi
