#!/usr/bin/env bash
# Runs the CronJobs of deploy/kubernetes for real, on a one-node Kubernetes of its own (tools/kube-node.sh):
#   tools/kube-check.sh BINARY
#
# 1. The API server takes every manifest, in the form of its version.
# 2. backup-pvc.yaml, with nothing changed but image and schedule, backs up an etcd of three members with TLS into
#    a volume, once when Kubernetes finds it is time and once by hand; both backups are there, and verified.
# 3. control-plane.yaml, with its paths and ports pointing at an etcd on the node, writes to a real S3 on the node.
# Needs root, LIFEBOAT_WEED (tools/install.sh test) and what the header of tools/kube-node.sh says.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
[ $# = 1 ] || { echo "usage: tools/kube-check.sh BINARY" >&2; exit 2; }
binary=$(readlink -f "$1")
: "${LIFEBOAT_WEED:?run: env=\$(tools/install.sh test) && eval \"\$env\"}"
image=localhost/lifeboat:test

say() { printf 'kube: [%3ds] %s\n' "$SECONDS" "$*"; }
work=$(mktemp -d)
chmod 755 "$work" # pods with another user look into it
weed=''
clean_up() {
  code=$?
  [ "$code" = 0 ] || tell_all
  [ -z "$weed" ] || kill -KILL "$weed" 2>/dev/null || true # asked politely, it waits for a network that is gone
  tools/kube-node.sh stop || true
  # Manifests outlive the cluster; the next one would start this pod.
  [ -z "${node:-}" ] || rm -f "$node/manifests/lifeboat-etcd.yaml"
  rm -rf "$work"
  exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# What a person would ask for when it fails.
tell_all() {
  { kubectl get all -A -o wide; kubectl get events -A --sort-by=.lastTimestamp | tail -n 20
    kubectl logs -n default -l app.kubernetes.io/name=lifeboat --all-containers --prefix --tail 40
    kubectl logs -n kube-system -l app.kubernetes.io/name=lifeboat --all-containers --prefix --tail 40; } >&2 || true
}

tools/kube-node.sh start >"$work/start.log" 2>&1 || { cat "$work/start.log" >&2; exit 1; }
KUBECONFIG=$(sed -n 's/^KUBECONFIG=//p' "$work/start.log")
export KUBECONFIG
node=${KUBECONFIG%/state/kubeconfig}
PATH="$node/root"/usr/bin:$PATH
say 'the node is ready'

tools/image.py "$binary" "$image" "$work/image.tar"
tools/kube-node.sh load-image "$work/image.tar" >/dev/null

for manifest in deploy/kubernetes/*.yaml; do
  deploy/kubernetes/render.sh "$manifest" --old --image "$image" | kubectl apply --dry-run=server -f - >/dev/null
done
say 'the API server takes every manifest'

# --- certificates: one for servers and clients alike, as a Secret and as files of a node
mkdir -p "$work/pki"
(
  cd "$work/pki"
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt
  openssl req -newkey rsa:2048 -nodes -subj /CN=root -keyout tls.key -out tls.csr
  openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out tls.crt -extfile <(
    printf '%s\n' 'extendedKeyUsage=serverAuth,clientAuth' \
      'subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:etcd-0.etcd,DNS:etcd-1.etcd,DNS:etcd-2.etcd'
  )
  cp tls.crt healthcheck-client.crt && cp tls.key healthcheck-client.key && chmod 600 ./*.key
) 2>"$work/openssl.log" || { cat "$work/openssl.log" >&2; exit 1; }
kubectl create secret generic lifeboat-etcd \
  --from-file="$work/pki/ca.crt" --from-file="$work/pki/tls.crt" --from-file="$work/pki/tls.key" >/dev/null

# until_true SECONDS WHAT COMMAND...
until_true() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || { say "waited too long: $what"; return 1; }
    sleep 0.5
  done
  say "$what"
}
# jobs_done NAMESPACE NUMBER: so many Jobs have succeeded.
jobs_done() {
  [ "$(kubectl get jobs -n "$1" -o 'jsonpath={.items[?(@.status.succeeded==1)].metadata.name}' | wc -w)" -ge "$2" ]
}

# --- into a volume
mkdir -m 777 "$work/volume"
sed "s|@FOLDER@|$work/volume|" tools/kube/etcd.yaml | kubectl apply -f - >/dev/null
until_true 120 'etcd is ready' kubectl rollout status statefulset/etcd --timeout=1s
etcdctl() {
  kubectl exec etcd-0 -- env ETCDCTL_API=3 etcdctl --cacert /pki/ca.crt --cert /pki/tls.crt --key /pki/tls.key \
    --endpoints https://etcd-0.etcd:2379 "$@"
}
for n in 1 2 3; do etcdctl put "key$n" "value$n" >/dev/null; done

deploy/kubernetes/render.sh deploy/kubernetes/backup-pvc.yaml --old --image "$image" |
  sed 's|schedule: .*|schedule: "* * * * *"|' | kubectl apply -f - >/dev/null
until_true 150 'the first backup of the schedule is made' jobs_done default 1
kubectl patch cronjob lifeboat -p '{"spec": {"suspend": true}}' >/dev/null
etcdctl put key4 value4 >/dev/null
kubectl create job --from=cronjob/lifeboat again >/dev/null
until_true 150 'a second one is made, by hand' kubectl wait job/again --for=condition=complete --timeout=1s

"$binary" list --repo "$work/volume" -w json >"$work/list.json"
"$binary" verify --repo "$work/volume" --cluster prod --all
python3 - "$work/list.json" <<'PY'
import json, sys
listed = json.load(open(sys.argv[1]))
backups = listed if isinstance(listed, list) else listed["backups"]
assert len(backups) >= 2, backups
PY
say 'both are there and verified'

# --- from a control-plane node into a bucket
kubectl label node node1 node-role.kubernetes.io/control-plane= >/dev/null
cat >"$work/static-pod.yaml" <<POD
apiVersion: v1
kind: Pod
metadata: {name: etcd, namespace: kube-system}
spec:
  hostNetwork: true
  containers:
  - name: etcd
    image: localhost/etcd:3.4.23
    imagePullPolicy: Never
    command: [etcd, --data-dir=/data/etcd, --cert-file=/pki/tls.crt, --key-file=/pki/tls.key, --trusted-ca-file=/pki/ca.crt,
      --client-cert-auth, "--listen-client-urls=https://127.0.0.1:12379", "--advertise-client-urls=https://127.0.0.1:12379",
      "--listen-peer-urls=http://127.0.0.1:12380", "--initial-advertise-peer-urls=http://127.0.0.1:12380",
      "--initial-cluster=default=http://127.0.0.1:12380"]
    volumeMounts: [{name: data, mountPath: /data}, {name: pki, mountPath: /pki}]
  volumes: [{name: data, emptyDir: {}}, {name: pki, hostPath: {path: $work/pki}}]
POD
cp "$work/static-pod.yaml" "$node/manifests/lifeboat-etcd.yaml"

cat >"$work/identities.json" <<JSON
{"identities": [{"name": "admin", "credentials": [{"accessKey": "key", "secretKey": "a-secret"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
JSON
mkdir "$work/weed"
(
  cd "$work/weed"
  TMPDIR=$work/weed exec nsenter --target "$(cut -d' ' -f1 "$node/state/init.pid")" --net \
    "$LIFEBOAT_WEED" -logtostderr=true server -ip=127.0.0.1 -ip.bind=127.0.0.1 -dir="$work/weed" \
    -master.telemetry=false -master.volumeSizeLimitMB=64 -volume.preStopSeconds=0 -volume.minFreeSpace=0 \
    -filer -filer.localSocket="$work/weed/filer.sock" -s3 -s3.localSocket="$work/weed/s3.sock" \
    -s3.config="$work/identities.json" -s3.iam=false -s3.port.iceberg=0 -s3.port.lance=0
) >"$work/weed.log" 2>&1 &
weed=$!
s3() { tools/kube-node.sh netexec curl -sS --fail --aws-sigv4 aws:amz:us-east-1:s3 --user key:a-secret "$@"; }
until_true 60 'S3 is ready' s3 http://127.0.0.1:8333/
s3 -X PUT http://127.0.0.1:8333/backups
kubectl create secret generic lifeboat-store -n kube-system \
  --from-literal=AWS_ACCESS_KEY_ID=key --from-literal=AWS_SECRET_ACCESS_KEY=a-secret >/dev/null
deploy/kubernetes/render.sh deploy/kubernetes/control-plane.yaml --old --image "$image" | sed \
  -e "s|LIFEBOAT_REPO: .*|LIFEBOAT_REPO: s3://backups/etcd?endpoint=http://127.0.0.1:8333\&region=us-east-1|" \
  -e 's|127.0.0.1:2379|127.0.0.1:12379|' -e "s|path: /etc/kubernetes/pki/etcd|path: $work/pki|" |
  kubectl apply -n kube-system -f - >/dev/null
until_true 120 'the static pod of etcd runs' \
  kubectl wait -n kube-system pod/etcd-node1 --for=condition=Ready --timeout=1s
kubectl create job -n kube-system --from=cronjob/lifeboat once >/dev/null
until_true 150 'a backup from the control plane is in the bucket' jobs_done kube-system 1
s3 'http://127.0.0.1:8333/backups?list-type=2' | grep -q 'manifest.json'
say 'all is well'
