#!/usr/bin/env bash
# Checks what deploy/ holds with the tools that will read it: systemd-analyze, promtool, and the rules of this house.
# Kubernetes' own opinion is asked by tools/kube-check.sh, which has a real API server.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/../deploy"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

failed=0
ok() { echo "ok: $*"; }
bad() { echo "FAILED: $*" >&2; failed=1; }
# says_nothing WHAT COMMAND...: good if it ends with 0 and complains of nothing.
says_nothing() {
  local what=$1 said
  shift
  if said=$("$@" 2>&1) && [ -z "$said" ]; then ok "$what"; else bad "$what"; printf '%s\n' "$said" >&2; fi
}

# --- systemd: units are looked at where they would be, beside those of the machine
root=$work/root
mkdir -p "$root"/{bin,usr/local/bin,etc/systemd/system,usr/lib/systemd}
for program in usr/local/bin/lifeboat bin/kill; do
  printf '#!/bin/sh\n' >"$root/$program" && chmod +x "$root/$program"
done
cp -r /usr/lib/systemd/system "$root/usr/lib/systemd/"
cp systemd/*.service systemd/*.timer "$root/etc/systemd/system/"
for unit in systemd/*.service systemd/*.timer; do
  unit=$(basename "$unit")
  says_nothing "systemd takes $unit" systemd-analyze verify --man=no --root="$root" "$unit"
done
for unit in systemd/*.service; do
  unit=$(basename "$unit")
  # In tenths of 10: what may stay open is the network and the folders of the service.
  if systemd-analyze security --no-pager --offline=true --root="$root" --threshold=15 "$unit" >"$work/security"; then
    ok "$(tail -n1 "$work/security")"
  else
    bad "$unit is less confined than it was"; tail -n1 "$work/security" >&2
  fi
done

# --- Prometheus
promtool=${LIFEBOAT_PROMTOOL:?run: env=\$(tools/install.sh test) && eval \"\$env\"}
for check in 'check rules prometheus/lifeboat.rules.yaml' 'test rules prometheus/lifeboat.rules.test.yaml'; do
  # shellcheck disable=SC2086 # words of a command
  if "$promtool" $check >"$work/promtool" 2>&1; then ok "promtool $check"; else bad "promtool $check"; cat "$work/promtool" >&2; fi
done

# --- what only a person or a script can see
/usr/bin/python3 ../tools/deploy-rules.py || failed=1
exit "$failed"
