#!/usr/bin/env bash
# EtcdRestore for real, on a Kubernetes of one node (tools/kube-lib.sh):
#   tools/kube-restore.sh BINARY
#
# The operator runs as a pod, with the rights of deploy/operator/base and no other. An etcd of three members, with a volume each, is
# backed up to a real S3; then it loses two databases.
# 1. Without spec.confirm nothing happens. With it, what owns the cluster is suspended, all data of the backup are back, the old data
#    are kept, and nothing that was written later is there, although the operator is killed in every phase.
# 2. A cluster that does not come up is taken back: the data from before serve again. The operator is killed in these phases too.
# 3. A backup that is damaged in the store changes nothing.
# 4. The data directories, and the snapshot itself, are written into a volume that nothing uses.
# Needs root, LIFEBOAT_WEED (tools/install.sh test) and what the header of tools/kube-node.sh says.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/kube-lib.sh
killer=''

tell_all() {
  stop_killing
  kubectl get all -o wide
  kubectl get etcdrestores,etcdbackups,backupstores -o yaml
  kubectl get events --sort-by=.lastTimestamp | tail -n 40
  kubectl logs -l app.kubernetes.io/component=operator --tail 60
  kubectl logs -l lifeboat.dev/job=restore --prefix --tail 20
  find "$work/volumes" -maxdepth 3
}

begin_kube "$@"
own_namespace restore
begin_s3

# --- the operator
kubectl apply --server-side -f deploy/operator/base/crds.yaml >/dev/null
for part in service-account role deployment; do
  # It is killed often, so the next one does not wait for its Lease.
  sed -e "s|lifeboat:latest|$image|" -e 's|--all-namespaces|--no-leader-election|' "deploy/operator/base/$part.yaml" |
    kubectl apply -f - >/dev/null
done
kubectl create rolebinding lifeboat-operator --clusterrole=lifeboat-operator --serviceaccount=restore:lifeboat-operator >/dev/null

# --- etcd
for n in 0 1 2; do mkdir -p "$work/volumes/$n"; chmod 777 "$work/volumes/$n"; done
sed "s|@FOLDER@|$work/volumes|" tools/kube/etcd-volumes.yaml | kubectl apply -f - >/dev/null
until_true 120 'etcd is ready' kubectl rollout status statefulset/etcd --timeout=1s
until_true 120 'the operator is ready' kubectl rollout status deployment/lifeboat-operator --timeout=1s
etcdctl() { kubectl exec etcd-0 -- env ETCDCTL_API=3 etcdctl --endpoints http://etcd-0.etcd:2379 --command-timeout 30s "$@"; }
# written WORDS: again if etcd has no leader for a moment.
written() { until_true 60 "$*" etcdctl "$@"; }
# shellcheck disable=SC2016 # for the shell in the pod
kubectl exec etcd-0 -- sh -c 'export ETCDCTL_API=3; for n in $(seq 200); do until etcdctl put key$n value$n; do sleep 1; done; done' >/dev/null

store_secret
store s3 restore
kubectl apply -f - >/dev/null <<YAML
apiVersion: lifeboat.dev/v1alpha1
kind: EtcdBackup
metadata: {name: good}
spec:
  storeName: s3
  cluster: {name: prod, statefulSet: {name: etcd}}
YAML
# is KIND/NAME PHASE
is() { [ "$(kubectl get "$1" -o 'jsonpath={.status.phase}')" = "$2" ]; }
until_true 120 'a backup is made' is etcdbackup/good Succeeded
written put later 'than the backup'
written del key7

# begin_killing NAME: the operator, whenever that restore has come to a new phase.
begin_killing() {
  : >"$work/killed"
  kubectl get etcdrestore "$1" -w -o 'jsonpath={.status.phase}{"\n"}' > >(kill_in_each_phase) &
  killer=$!
}
kill_in_each_phase() {
  local phase last=''
  while read -r phase; do
    [ "$phase" != "$last" ] || continue
    last=$phase
    echo "$phase" >>"$work/killed"
    kubectl delete pod -l app.kubernetes.io/component=operator --grace-period=0 --force >/dev/null 2>&1
  done
}
stop_killing() {
  [ -z "$killer" ] || kill "$killer" 2>/dev/null || true
  killer=''
}
# restore NAME [LINES of the target]: without confirm.
restore() {
  kubectl apply -f - >/dev/null <<YAML
apiVersion: lifeboat.dev/v1alpha1
kind: EtcdRestore
metadata: {name: $1}
spec:
  source: {backupName: good}
  readySeconds: ${3:-180}
  target:
    statefulSet:
      name: etcd
      cluster: {name: prod, statefulSet: {name: etcd}}
      ${2:-}
YAML
}
confirm() { kubectl patch etcdrestore "$1" --type=merge -p "{\"spec\": {\"confirm\": \"${2:-etcd}\"}}" >/dev/null; }
reason() { kubectl get etcdrestore "$1" -o 'jsonpath={.status.conditions[?(@.type=="Succeeded")].reason}'; }
# reason_is NAME REASON
reason_is() { [ "$(reason "$1")" = "$2" ]; }
# ended NAME: it has come to an end.
ended() { is "etcdrestore/$1" Succeeded || is "etcdrestore/$1" Failed; }
# with_old RUN SUFFIX: each volume has that folder.
with_old() { for n in 0 1 2; do [ -d "$work/volumes/$n/etcd/member.lifeboat-$1$2" ] || return 1; done; }
run_of() { kubectl get etcdrestore "$1" -o 'jsonpath={.status.run}'; }
# All 200 keys of the backup are there.
has_all() { [ "$(etcdctl get key --prefix --print-value-only | grep -c '^value')" = 200 ]; }

# --- 1. brought back, while its owner keeps still
kubectl create deployment owner --image=localhost/busybox:1.35 -- sleep 100000 >/dev/null
until_true 60 'its owner runs' kubectl rollout status deployment/owner --timeout=1s
restore back 'suspendDeployment: owner'
until_true 60 'it waits to be confirmed' reason_is back NotConfirmed
kubectl rollout status statefulset/etcd --timeout=1s >/dev/null
for n in 1 2; do dd if=/dev/zero of="$work/volumes/$n/etcd/member/snap/db" bs=4096 count=8 conv=notrunc status=none; done
kubectl delete pod etcd-1 etcd-2 --grace-period=0 --force >/dev/null 2>&1
say 'two databases are overwritten'
begin_killing back
until_true 60 'each phase is waited for' grep -qx Pending "$work/killed"
confirm back
until_true 400 'the restore has ended' ended back
is etcdrestore/back Succeeded || fail "it failed: $(reason back)"
for phase in Checking Stopping Building Swapping Starting Verifying; do
  until_true 10 "the operator is killed while $phase" grep -qx "$phase" "$work/killed"
done
stop_killing
say 'the operator was killed in every phase'
until_true 60 'etcd is ready' kubectl rollout status statefulset/etcd --timeout=1s
until_true 60 'its owner runs again' kubectl rollout status deployment/owner --timeout=1s
kubectl get events -o 'jsonpath={.items[?(@.involvedObject.name=="owner")].message}' | has 'Scaled down replica set owner-[^ ]* to 0'
until_true 30 'all keys are there' has_all
late=$(etcdctl get later)
[ -z "$late" ] || fail 'what was written later is there: that is not the backup'
with_old "$(run_of back)" '' || fail 'the old data are gone'
three_members() { [ "$(etcdctl member list | wc -l)" = 3 ]; }
until_true 30 'there are three members' three_members
say 'all data of the backup are back, and the old ones are kept'

# --- 2. taken back
is_since() { [ "$(etcdctl get since --print-value-only)" = 'the restore' ]; }
written put since 'the restore'
restore wrong 'members: [{name: etcd-0, peerUrls: ["http://a.invalid:2380"]}, {name: etcd-1, peerUrls: ["http://b.invalid:2380"]},
        {name: etcd-2, peerUrls: ["http://c.invalid:2380"]}]' 10
begin_killing wrong
until_true 60 'each phase is waited for' grep -qx Pending "$work/killed"
confirm wrong
until_true 400 'a restore to members that cannot meet has ended' ended wrong
until_true 10 'the operator is killed while RollingBack' grep -qx RollingBack "$work/killed"
stop_killing
{ is etcdrestore/wrong Failed && reason_is wrong NotVerified; } || fail "it ended otherwise: $(reason wrong)"
until_true 120 'etcd is ready' kubectl rollout status statefulset/etcd --timeout=1s
until_true 30 'its data are there' is_since
with_old "$(run_of wrong)" .failed
say 'the data from before serve again, and what failed is kept'

# --- 3. a damaged backup
object=$(kubectl get etcdbackup good -o 'jsonpath={.status.uri}' | sed 's|^s3://||')
size=$(s3 -I "http://$host:8333/$object" | tr -d '\r' | sed -n 's/^[Cc]ontent-[Ll]ength: //p')
head -c "$size" /dev/urandom >"$work/garbage"
s3 -T "$work/garbage" "http://$host:8333/$object"
restore damaged
confirm damaged
until_true 300 'a restore of a damaged backup has ended' ended damaged
reason_is damaged BuildFailed || fail "it ended otherwise: $(reason damaged)"
until_true 120 'etcd is ready' kubectl rollout status statefulset/etcd --timeout=1s
until_true 30 'its data are there' is_since
[ "$(find "$work/volumes" -name "member.lifeboat-$(run_of damaged)*" | wc -l)" = 0 ]
say 'it changed nothing'

# --- 4. into a volume
kubectl apply -f - >/dev/null <<YAML
apiVersion: lifeboat.dev/v1alpha1
kind: EtcdBackup
metadata: {name: again}
spec:
  storeName: s3
  cluster: {name: prod, statefulSet: {name: etcd}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: spare}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  claimRef: {namespace: restore, name: spare}
  hostPath: {path: '$work/spare'}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: spare}
spec: {accessModes: [ReadWriteOnce], storageClassName: "", resources: {requests: {storage: 1Gi}}}
YAML
mkdir -m 777 "$work/spare"
chmod 777 "$work/spare"
until_true 120 'another backup is made' is etcdbackup/again Succeeded
for target in 'pvc: {claimName: spare, members: [{name: m1, peerUrls: ["http://127.0.0.1:2380"]}]}' \
  'files: {claimName: spare, path: snapshots/etcd.db}'; do
  kubectl apply -f - >/dev/null <<YAML
apiVersion: lifeboat.dev/v1alpha1
kind: EtcdRestore
metadata: {name: ${target%%:*}}
spec: {source: {store: {name: s3, cluster: prod}}, confirm: spare, target: {$target}}
YAML
  until_true 120 "the volume has its ${target%%:*}" is "etcdrestore/${target%%:*}" Succeeded
done
[ -s "$work/spare/m1/member/snap/db" ]
"$binary" snapshot status "$work/spare/snapshots/etcd.db"
say 'all is well'
