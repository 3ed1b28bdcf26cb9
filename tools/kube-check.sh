#!/usr/bin/env bash
# Runs the CronJobs of deploy/kubernetes for real, on a Kubernetes of one node (tools/kube-lib.sh):
#   tools/kube-check.sh BINARY
#
# 1. The API server takes every manifest, in the form of its version.
# 2. backup-pvc.yaml, with nothing changed but image and schedule, backs up an etcd of three members with TLS into
#    a volume, once when Kubernetes finds it is time and once by hand; both backups are there, and verified.
# 3. control-plane.yaml, with its paths and ports pointing at an etcd on the node, writes to a real S3 on the node.
# Needs root, LIFEBOAT_WEED (tools/install.sh test) and what the header of tools/kube-node.sh says.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/kube-lib.sh

tell_all() {
  kubectl get all -o wide
  kubectl get events -A --sort-by=.lastTimestamp | tail -n 20
  kubectl logs -l app.kubernetes.io/name=lifeboat --all-containers --prefix --tail 40
  kubectl logs -n kube-system -l app.kubernetes.io/name=lifeboat --all-containers --prefix --tail 40
}

begin_kube "$@"
own_namespace check

for manifest in deploy/kubernetes/*.yaml; do
  deploy/kubernetes/render.sh "$manifest" --old --image "$image" | kubectl apply --dry-run=server -f - >/dev/null
done
say 'the API server takes every manifest'

# --- certificates: one for servers and clients alike, as a Secret and as files of a node
certificate "$work/pki" etcd 3
(cd "$work/pki" && cp tls.crt healthcheck-client.crt && cp tls.key healthcheck-client.key && chmod 600 ./*.key)
kubectl create secret generic lifeboat-etcd \
  --from-file="$work/pki/ca.crt" --from-file="$work/pki/tls.crt" --from-file="$work/pki/tls.key" >/dev/null

# jobs_done NAMESPACE NUMBER: so many Jobs have succeeded.
jobs_done() {
  [ "$(kubectl get jobs -n "$1" -o 'jsonpath={.items[?(@.status.succeeded==1)].metadata.name}' | wc -w)" -ge "$2" ]
}

# --- into a volume
mkdir -m 777 "$work/volume"
kubectl apply -f - >/dev/null <<YAML
apiVersion: v1
kind: PersistentVolume
metadata: {name: backups}
spec:
  capacity: {storage: 20Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  local: {path: "$work/volume"}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions:
        - {key: kubernetes.io/hostname, operator: In, values: [node1]}
YAML
begin_etcd etcd 3 localhost/etcd:3.4.23 lifeboat-etcd
until_true 120 'etcd is ready' kubectl rollout status statefulset/etcd --timeout=1s
for n in 1 2 3; do put_in etcd-0 "key$n" "value$n"; done

deploy/kubernetes/render.sh deploy/kubernetes/backup-pvc.yaml --old --image "$image" |
  sed 's|schedule: .*|schedule: "* * * * *"|' | kubectl apply -f - >/dev/null
until_true 150 'the first backup of the schedule is made' jobs_done check 1
kubectl patch cronjob lifeboat -p '{"spec": {"suspend": true}}' >/dev/null
put_in etcd-0 key4 value4
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
kubectl label node node1 --overwrite node-role.kubernetes.io/control-plane= >/dev/null
cat >"$work/static-pod.yaml" <<POD
apiVersion: v1
kind: Pod
metadata: {name: lifeboat-etcd, namespace: kube-system}
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

begin_s3
kubectl create secret generic lifeboat-store -n kube-system \
  --from-literal=AWS_ACCESS_KEY_ID=key --from-literal=AWS_SECRET_ACCESS_KEY=a-secret >/dev/null
deploy/kubernetes/render.sh deploy/kubernetes/control-plane.yaml --old --image "$image" | sed \
  -e "s|LIFEBOAT_REPO: .*|LIFEBOAT_REPO: s3://backups/check?endpoint=http://$host:8333\&region=us-east-1|" \
  -e 's|127.0.0.1:2379|127.0.0.1:12379|' -e "s|path: /etc/kubernetes/pki/etcd|path: $work/pki|" |
  kubectl apply -n kube-system -f - >/dev/null
until_true 120 'the static pod of etcd runs' \
  kubectl wait -n kube-system pod/lifeboat-etcd-node1 --for=condition=Ready --timeout=1s
until_true 60 'and etcd in it serves' kubectl exec -n kube-system lifeboat-etcd-node1 -- env ETCDCTL_API=3 etcdctl \
  --cacert /pki/ca.crt --cert /pki/tls.crt --key /pki/tls.key --endpoints https://127.0.0.1:12379 endpoint health
kubectl create job -n kube-system --from=cronjob/lifeboat once >/dev/null
until_true 150 'a backup from the control plane is in the bucket' jobs_done kube-system 1
s3 "http://$host:8333/backups?list-type=2&prefix=check%2F" | has 'manifest.json'
kubectl delete cronjob,job -n kube-system --all >/dev/null
rm "$node/manifests/lifeboat-etcd.yaml"
say 'all is well'
