#!/usr/bin/env bash
# Checks what installs the operator: the kustomize base and its overlay, the one file made of them, the Helm chart.
#   tools/operator-install-check.sh             check
#   tools/operator-install-check.sh --update    and write deploy/operator/lifeboat-operator.yaml and the chart's copies of files anew
# Renders with the real kustomize (kubectl's) and the real Helm; needs `tools/install.sh test`. No API server is asked:
# that is what crates/operator/tests/e2e_install.rs does.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
: "${LIFEBOAT_KUBECTL:?run: env=\$(tools/install.sh test) && eval \"\$env\"}" "${LIFEBOAT_HELM:?}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

rendered() {
  echo '# The operator for all namespaces: kubectl apply --server-side -f lifeboat-operator.yaml'
  echo '# Made of deploy/operator/base by tools/operator-install-check.sh --update. The image stands in two places.'
  "$LIFEBOAT_KUBECTL" kustomize deploy/operator
}

failed=0
# same FILE OF: the file is what is in OF; --update makes it so.
same() {
  [ "${update:-}" != 1 ] || cp "$2" "$1"
  if cmp -s "$1" "$2"; then echo "ok: $1 is up to date"; else echo "FAILED: $1 is not up to date: run $0 --update" >&2; failed=1; fi
}
case ${1:-} in
  '') ;;
  --update) update=1 ;;
  *) echo "usage: $0 [--update]" >&2; exit 2 ;;
esac

rendered >"$work/all.yaml"
"$LIFEBOAT_KUBECTL" kustomize deploy/operator/namespaced >"$work/namespaced.yaml"
"$LIFEBOAT_KUBECTL" kustomize deploy/operator/coreos-compat >"$work/coreos.yaml"
mkdir "$work/overlay" # as somebody's own would be: one namespace, and the component
cat >"$work/overlay/kustomization.yaml" <<END
resources: [$(realpath --relative-to="$work/overlay" deploy/operator/namespaced)]
components: [$(realpath --relative-to="$work/overlay" deploy/operator/components/coreos-compat)]
END
"$LIFEBOAT_KUBECTL" kustomize "$work/overlay" >"$work/namespaced-coreos.yaml"
same deploy/operator/lifeboat-operator.yaml "$work/all.yaml"
for file in crds.yaml role.yaml; do same "charts/lifeboat/files/$file" "deploy/operator/base/$file"; done
PYTHONPATH=$LIFEBOAT_HELM /usr/bin/python3 tools/operator-install.py "$work" || failed=1
exit "$failed"
