#!/usr/bin/env bash
# All checks on a Kubernetes of one node, which is begun once:
#   tools/kube.sh BINARY [PART...]       parts: check operator restore recover
#
# Its kubelet runs etcd and kube-apiserver as static pods, which `operator` kills and `recover` brings back. `check`, which waits more
# than it works, runs beside `restore`. Each is a script of its own, tools/kube-PART.sh, and says what it shows.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/kube-lib.sh
parts=" ${*:2} "
[ $# -gt 1 ] || parts=' check operator restore recover '

STATIC_PODS=1 begin_kube "${@:1:1}"
begin_s3

wanted() { [[ $parts = *" $1 "* ]]; }
run() { ! wanted "$1" || KUBE_SHARED=$work tools/kube-"$1".sh "$binary"; }

run operator
beside=''
if wanted check; then
  KUBE_SHARED=$work tools/kube-check.sh "$binary" &
  beside=$!
fi
failed=0
run restore || failed=1
if [ -n "$beside" ]; then
  [ "$failed" = 0 ] || kill "$beside" 2>/dev/null || true
  wait "$beside" || failed=1
fi
[ "$failed" = 0 ] || fail 'not all is well'
run recover
say 'all is well'
