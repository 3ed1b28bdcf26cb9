# shellcheck shell=bash
# What the checks on a Kubernetes of one node have in common. They source it, from the project's folder:
#   tools/kube-check.sh, kube-recover.sh, kube-restore.sh, kube-operator.sh, and kube.sh, which runs all of them on one node
#
#   begin_kube BINARY            the node, our image in it, and kubectl for it; what was started is ended with the script
#   own_namespace NAME           a namespace, which kubectl is in from then on
#   begin_s3                     a real S3 on the node, with the bucket `backups`; `s3` asks it, by curl
#   store_secret, store          its credentials as a Secret, and BackupStores in it
#   until_true SECONDS WHAT COMMAND...
# Functions of a script that are called if they are there: tell_all, what a person would ask for when it fails.
#
# Alone, a script has a node of its own, with STATIC_PODS if that is set. KUBE_SHARED, the folder of a script that has begun one
# already, makes it go there. BINARY must need no libraries; else name in IMAGE_TAR an archive with localhost/lifeboat:test.
set -euo pipefail
shopt -s inherit_errexit

image=localhost/lifeboat:test
host=10.200.0.1 # of the node
me=$(basename "$0" .sh)
children=() # processes to end, by pid

say() { printf '%s: [%3ds] %s\n' "$me" "$SECONDS" "$*"; }
fail() { say "$*"; exit 1; }

# until_true SECONDS WHAT COMMAND...: asked every 0.3 s, or as `pause` says. The seconds are those of an idle machine; a busy one
# may take four times as long.
until_true() {
  local deadline=$((SECONDS + 4 * $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || { say "waited too long: $what"; return 1; }
    sleep "${pause:-0.3}"
  done
  say "$what"
}

clean_up() {
  local code=$? pid
  trap - EXIT
  [ "$code" = 0 ] || ! declare -F tell_all >/dev/null || tell_all >&2 || true
  for pid in "${children[@]}"; do
    kill -KILL "$pid" 2>/dev/null || true # S3, asked politely, waits for a network that is gone
  done
  if [ -z "${KUBE_SHARED:-}" ]; then
    tools/kube-node.sh stop || true # and all that runs in the node
    [ -z "${node:-}" ] || rm -f "$node"/manifests/lifeboat-*.yaml # the next node would start these pods
    rm -rf "$work"
  elif [ -n "${namespace:-}" ]; then
    # Its pods are in nobody's way any more, and no script waits for the rest.
    kubectl delete statefulsets,deployments,pods --all --force --grace-period=0 --wait=false >/dev/null 2>&1 || true
    kubectl delete namespace "$namespace" --wait=false >/dev/null 2>&1 || true
  fi
  exit "$code"
}

# later COMMAND...: in the background, ended with the script; its pid is in $later.
later() {
  "$@" &
  later=$!
  children+=("$later")
  disown "$later" # its end is no news
}

# begin_work: the script's folder, which goes with it.
begin_work() {
  work=$(mktemp -d "${KUBE_SHARED:-${TMPDIR:-/tmp}}/$me.XXXXXX")
  chmod 755 "$work" # pods with another user look into it
  trap clean_up EXIT
  trap 'exit 130' INT TERM
}

begin_kube() {
  [ $# = 1 ] || { echo "usage: tools/$me.sh BINARY" >&2; exit 2; }
  binary=$(readlink -f "$1")
  [ -n "${work:-}" ] || begin_work
  if [ -z "${KUBE_SHARED:-}" ]; then
    tools/kube-node.sh start >"$work/start.log" 2>&1 || { cat "$work/start.log" >&2; exit 1; }
    KUBECONFIG=$(sed -n 's/^KUBECONFIG=//p' "$work/start.log")
    say 'the node is ready'
  fi
  node=${KUBECONFIG%/state/kubeconfig}
  export KUBECONFIG
  PATH="$node/root"/usr/bin:$PATH
  [ -n "${KUBE_SHARED:-}" ] || load_our_image
}

load_our_image() {
  local tar=${IMAGE_TAR:-$work/image.tar}
  [ -n "${IMAGE_TAR:-}" ] || tools/image.py "$binary" "$image" "$tar"
  tools/kube-node.sh load-image "$tar" >/dev/null
}

# own_namespace NAME: a kubeconfig of its own says so, as another script may be in another namespace.
own_namespace() {
  namespace=$1
  kubectl create namespace "$namespace" >/dev/null
  sed "s/context: {cluster: t,/context: {namespace: $namespace, cluster: t,/" "$KUBECONFIG" >"$work/kubeconfig"
  KUBECONFIG=$work/kubeconfig
  until_true 30 "namespace $namespace is there" kubectl get serviceaccount default
}

# Processes and pods of the node's network reach it; its keys are `key` and `a-secret`. Each script writes below a prefix of its own.
begin_s3() {
  : "${LIFEBOAT_WEED:?run: env=\$(tools/install.sh test) && eval \"\$env\"}"
  [ -z "${KUBE_SHARED:-}" ] || return 0
  start_s3
  until_true 60 'S3 is ready' takes_objects
}

# Its volumes come a moment after its port. The second time, the bucket is there.
takes_objects() {
  s3 http://$host:8333/backups || s3 -X PUT http://$host:8333/backups
  s3 -T tools/kube-lib.sh http://$host:8333/backups/ready
}

# has PATTERN [WORDS of grep]: whether a pipe has it. It reads all: `grep -q` ends who writes by a signal, which counts as a failure here.
has() { grep "${@:2}" -- "$1" >/dev/null; }

s3() { tools/kube-node.sh netexec curl -sS --fail --aws-sigv4 aws:amz:us-east-1:s3 --user key:a-secret "$@"; }

# store_secret: what it asks for, as the Secret `s3`.
store_secret() {
  kubectl create secret generic s3 --from-literal=access-key-id=key --from-literal=secret-access-key=a-secret >/dev/null
}

# store NAME PREFIX [LINES of the spec]: a BackupStore below that prefix of the bucket.
store() {
  kubectl apply -f - >/dev/null <<YAML
apiVersion: lifeboat.dev/v1alpha1
kind: BackupStore
metadata: {name: $1}
spec:
  url: s3://backups/$2
  options: {endpoint: 'http://$host:8333', region: us-east-1}
  credentials: {secretName: s3}
  ${3:-}
YAML
}

start_s3() {
  mkdir "$work/weed"
  cat >"$work/identities.json" <<JSON
{"identities": [{"name": "admin", "credentials": [{"accessKey": "key", "secretKey": "a-secret"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
JSON
  later weed
}
weed() {
  cd "$work/weed"
  TMPDIR=$work/weed exec nsenter --target "$(cut -d' ' -f1 "$node/state/init.pid")" --net \
    "$LIFEBOAT_WEED" -logtostderr=true server -ip=$host -ip.bind=$host -dir="$work/weed" \
    -master.telemetry=false -master.volumeSizeLimitMB=64 -volume.preStopSeconds=0 -volume.minFreeSpace=0 \
    -filer -filer.localSocket="$work/weed/filer.sock" -s3 -s3.localSocket="$work/weed/s3.sock" \
    -s3.config="$work/identities.json" -s3.iam=false -s3.port.iceberg=0 -s3.port.lance=0 >"$work/weed.log" 2>&1
}

# certificate FOLDER NAME REPLICAS: for the members of begin_etcd NAME and for clients, of an authority of its own.
certificate() {
  local n names=IP:127.0.0.1,DNS:localhost,DNS:$2.$namespace.svc
  for ((n = 0; n < $3; n++)); do names+=,DNS:$2-$n.$2,DNS:$2-$n.$2.$namespace.svc; done
  mkdir -p "$1"
  (
    cd "$1"
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt
    openssl req -newkey rsa:2048 -nodes -subj /CN=root -keyout tls.key -out tls.csr
    openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out tls.crt \
      -extfile <(printf 'extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=%s\n' "$names")
  ) 2>"$1.log" || { cat "$1.log" >&2; return 1; }
}

# begin_etcd NAME REPLICAS IMAGE SECRET: a StatefulSet with TLS, and its headless Service.
begin_etcd() {
  local n members=''
  for ((n = 0; n < $2; n++)); do members+=,$1-$n=http://$1-$n.$1:2380; done
  sed -e "s|@NAME@|$1|g; s|@REPLICAS@|$2|; s|@IMAGE@|$3|; s|@SECRET@|$4|; s|@MEMBERS@|${members#,}|" tools/kube/etcd.yaml |
    kubectl apply -f - >/dev/null
}
# etcdctl_in POD WORDS...: etcd's own tool in a pod of begin_etcd.
etcdctl_in() {
  local pod=$1
  kubectl exec "$pod" -- env ETCDCTL_API=3 etcdctl --cacert /pki/ca.crt --cert /pki/tls.crt --key /pki/tls.key \
    --endpoints "https://$pod.${pod%-*}:2379" --command-timeout 30s "${@:2}"
}
# put_in POD KEY VALUE: again if etcd has no leader for a moment.
put_in() { until_true 60 "$2 is written to $1" etcdctl_in "$1" put "$2" "$3"; }

# install_operator REPLICAS: the kustomize base with nothing added but the image, as deploy/operator/README.md says.
install_operator() {
  mkdir "$work/overlay"
  {
    # shellcheck disable=SC2016 # the marks of Markdown
    sed -n '/^```yaml/,/^```$/{/^```/d;p}' deploy/operator/README.md | sed -e 's|example.com/lifeboat|localhost/lifeboat|; s|"0.1.0"|test|' \
      -e "s|\.\./lifeboat/deploy/operator|$(realpath --relative-to="$work/overlay" deploy/operator)|"
    echo "replicas: [{name: lifeboat-operator, count: $1}]"
  } >"$work/overlay/kustomization.yaml"
  "${LIFEBOAT_KUBECTL:?run: env=\$(tools/install.sh test) && eval \"\$env\"}" apply --server-side -k "$work/overlay" >/dev/null
}
