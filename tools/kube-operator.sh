#!/usr/bin/env bash
# The operator as pods, on a Kubernetes of one node (tools/kube-lib.sh):
#   tools/kube-operator.sh BINARY
#
# It is installed from the kustomize base, by the overlay that deploy/operator/README.md shows, with two replicas.
# 1. Backups of a real etcd 3.4 and a real etcd 3.5 with TLS into a real S3, by StatefulSet and Service, in the operator and in pods of
#    their own, encrypted and not; `lifeboat verify` proves what is in the bucket.
# 2. Deletion policies, a schedule that fires, is run by hand, is pruned, and does not overlap.
# 3. The leader is killed while a backup runs, and another takes over; the API server is killed. Backups go on.
# 4. Its ServiceAccount can do nothing else.
# 5. It is removed as README.md says: clusters, backups, kinds and objects stay. The chart, installed by Helm's own engine with rights
#    in one namespace alone, goes on where it stopped; is upgraded, and removed. Without kinds, the backups are still there.
# Needs root, LIFEBOAT_WEED, LIFEBOAT_ETCD_3_5, LIFEBOAT_KUBECTL, LIFEBOAT_HELM, age-keygen (tools/install.sh test) and what the
# header of tools/kube-node.sh says. Not shown: that the NetworkPolicy holds, as this node's network knows none.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/kube-lib.sh
: "${LIFEBOAT_ETCD_3_5:?}" "${LIFEBOAT_HELM:?}"

tell_all() {
  kubectl get all -A -o wide
  kubectl get lifeboat -A
  "$LIFEBOAT_KUBECTL" get etcdbackups,etcdbackupschedules,backupstores -o yaml
  kubectl get events -A --sort-by=.lastTimestamp | tail -n 40
  kubectl logs -n lifeboat -l app.kubernetes.io/component=operator --prefix --tail 60
  kubectl logs -l app.kubernetes.io/component=operator --prefix --tail 60
  kubectl logs -l lifeboat.dev/job=backup --prefix --tail 20
}

STATIC_PODS=1 begin_kube "$@"
own_namespace prod
begin_s3

# --- install, and clusters
install_operator 2
images() {
  tools/kube-node.sh image localhost/etcd:3.5 "$work/etcd.tar" "$LIFEBOAT_ETCD_3_5"/etcd{,ctl} -- etcd
  tools/kube-node.sh image localhost/kubectl:test "$work/kubectl.tar" "$node/root"/usr/bin/kubectl
  tools/kube-node.sh load-image "$work"/{etcd,kubectl}.tar >/dev/null
}
images &
images=$!
# secrets NAME REPLICAS: certificates, under the names that people have today and under those of the old etcd-operator.
secrets() {
  local pki=$work/pki-$1
  certificate "$pki" "$1" "$2"
  kubectl create secret generic "$1-tls" --from-file="$pki/ca.crt" --from-file="$pki/tls.crt" --from-file="$pki/tls.key"
  kubectl create secret generic "$1-old" --from-file=etcd-client-ca.crt="$pki/ca.crt" \
    --from-file=etcd-client.crt="$pki/tls.crt" --from-file=etcd-client.key="$pki/tls.key"
}
secrets etcd34 3 >/dev/null
secrets etcd35 1 >/dev/null
begin_etcd etcd34 3 localhost/etcd:3.4.23 etcd34-tls
wait "$images"
begin_etcd etcd35 1 localhost/etcd:3.5 etcd35-tls
kubectl create service clusterip one --tcp=2379 --dry-run=client -o yaml | sed 's/app: one/app: etcd35/' | kubectl apply -f - >/dev/null

age-keygen -o "$work/identity.txt" 2>/dev/null
store_secret
kubectl create secret generic identity --from-file="$work/identity.txt" >/dev/null
store open operator/open
store slow operator/slow 'bandwidthLimit: 8KiB/s'
store sealed operator/sealed "encryption: {recipients: [$(age-keygen -y "$work/identity.txt")], identities: {secretName: identity, key: identity.txt}}"

operators() { kubectl get pods "$@" -l app.kubernetes.io/component=operator -o 'jsonpath={.items[*].metadata.name}'; }
leader() { kubectl get lease -n lifeboat lifeboat-operator -o 'jsonpath={.spec.holderIdentity}'; }
# says POD METRIC VALUE
says() { kubectl get --raw "/api/v1/namespaces/lifeboat/pods/$1:8080/proxy/metrics" | has "$2 $3" -x; }
# one_leads: of all that run, the one whose name the Lease has.
one_leads() {
  local pod name
  name=$(leader)
  for pod in $(operators -n lifeboat); do says "$pod" lifeboat_operator_leader "$([ "$pod" = "$name" ] && echo 1 || echo 0)" || return 1; done
}
until_true 120 'the operator is ready' kubectl rollout status -n lifeboat deployment/lifeboat-operator --timeout=1s
until_true 20 'of two operators one leads' one_leads
[ "$(operators -n lifeboat | wc -w)" = 2 ]
for name in etcd34 etcd35; do until_true 120 "$name is ready" kubectl rollout status "statefulset/$name" --timeout=1s; done
ready() { [ "$(kubectl get "$1" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')" = True ]; }
for name in open slow sealed; do until_true 30 "store $name is ready" ready "backupstore/$name"; done

# --- 1. backups
# backup NAME STORE CLUSTER [LINES of the spec]: CLUSTER is called what the object is, where it has @.
backup() {
  kubectl apply -f - >/dev/null <<YAML
apiVersion: lifeboat.dev/v1alpha1
kind: EtcdBackup
metadata: {name: $1}
spec:
  storeName: $2
  cluster: {${3//@/$1}}
  ${4:-}
YAML
}
# of KIND/NAME PATH: what its status says there.
of() { kubectl get "$1" -o "jsonpath={.status.$2}"; }
# is KIND/NAME PHASE
is() { [ "$(of "$1" phase)" = "$2" ]; }
# succeeds NAME [SECONDS]
succeeds() { until_true "${2:-60}" "EtcdBackup $1 is made" is "etcdbackup/$1" Succeeded; }
# made_of NAME VERSION MEMBERS: it is of that etcd, and so many members agreed.
made_of() {
  [ "$(of "etcdbackup/$1" etcdVersion)" = "$2" ] || fail "$1 is of etcd $(of "etcdbackup/$1" etcdVersion)"
  [ "$(of "etcdbackup/$1" 'verification.agreed[*]' | wc -w)" = "$3" ] || fail "$1: $(of "etcdbackup/$1" verification)"
}
# stored [PREFIX]: how many backups are in the bucket.
stored() {
  local prefix=operator/${1:-}
  s3 "http://$host:8333/backups?list-type=2&max-keys=1000&prefix=${prefix//\//%2F}" | { grep -o '/manifest.json<' || true; } | wc -l
}
# stores PREFIX NUMBER
stores() { [ "$(stored "$1")" = "$2" ]; }
# verified STORE CLUSTER [WORDS]: all its backups, by one who knows nothing of Kubernetes.
verified() {
  tools/kube-node.sh netexec env AWS_ACCESS_KEY_ID=key AWS_SECRET_ACCESS_KEY=a-secret "$binary" verify --all --cluster "$2" \
    --repo "s3://backups/operator/$1?endpoint=http://$host:8333&region=us-east-1" "${@:3}" >"$work/verify.log" 2>&1
}

put_in etcd34-0 greeting 'of 3.4'
# shellcheck disable=SC2016 # for the shell in the pod
# 1.2 MB that nothing compresses: two minutes for the store that is slow.
noise() {
  kubectl exec etcd35-0 -- sh -ec 'for n in 1 2; do head -c 600000 /dev/urandom | etcdctl --command-timeout 30s \
    --cacert /pki/ca.crt --cert /pki/tls.crt --key /pki/tls.key --endpoints https://etcd35-0.etcd35:2379 put noise$n; done'
}
until_true 60 'etcd 3.5 has something to back up' noise

set34='name: @, statefulSet: {name: etcd34, scheme: https}, tls: {secretName: etcd34-tls}'
set35='name: @, statefulSet: {name: etcd35, scheme: https}, tls: {secretName: etcd35-tls}'
# schedule NAME STORE [LINES of the spec]: of etcd 3.5, each minute.
schedule() {
  kubectl apply -f - >/dev/null <<YAML
apiVersion: lifeboat.dev/v1alpha1
kind: EtcdBackupSchedule
metadata: {name: $1}
spec:
  schedule: "* * * * *"
  ${3:-}
  template:
    spec:
      storeName: $2
      cluster: {${set35//@/$1}}
YAML
}
# of_schedule NAME PHASE [PATTERN]: the names of its backups.
of_schedule() {
  kubectl get etcdbackups -l "lifeboat.dev/schedule=$1" \
    -o "jsonpath={range .items[?(@.status.phase=='$2')]}{.metadata.name}{'\n'}{end}" | grep -- "${3:-.}"
}
run_now() { kubectl annotate --overwrite etcdbackupschedule "$1" "lifeboat.dev/run-now=$2" >/dev/null; }
# has_run NAME VALUE: what was asked for is answered, and done.
has_run() { [ "$(of "etcdbackupschedule/$1" lastRunNow)" = "$2" ] && [ -z "$(of "etcdbackupschedule/$1" active)" ]; }
# told NAME REASON: an event of that object.
told() { kubectl get events -o "jsonpath={range .items[?(@.involvedObject.name=='$1')]}{.reason}{'\n'}{end}" | has "$2" -x; }

schedule slow slow
run_now slow once
until_true 20 'a backup that was asked for runs, and takes its time' of_schedule slow Running -now-
slow=$(of_schedule slow Running -now-)
backup set34 open "$set34"
backup headless34 sealed 'name: @, service: {name: etcd34, scheme: https}, tls: {secretName: etcd34-old}'
backup service35 open 'name: @, service: {name: one, scheme: https}, tls: {secretName: etcd35-old, serverName: etcd35.prod.svc}'
backup job34 open "$set34" 'runAs: Job'
backup job35 sealed 'name: @, endpoints: ["https://etcd35-0.etcd35.prod.svc:2379"], tls: {secretName: etcd35-old}' 'runAs: Job'
for name in set34 headless34 job34; do succeeds $name && made_of $name 3.4.23 3; done
version35=$("$LIFEBOAT_ETCD_3_5/etcd" --version | sed -n 's/^etcd Version: //p')
for name in service35 job35; do succeeds $name && made_of $name "$version35" 1; done
[ "$(kubectl get jobs -l lifeboat.dev/job=backup -o 'jsonpath={.items[*].status.succeeded}')" = '1 1' ] || fail 'no Jobs made them'
! kubectl get pods -l lifeboat.dev/job=backup -o yaml | has kubernetes.io/serviceaccount || fail 'pods of Jobs have a token'
for name in set34 service35 job34; do verified open $name || fail "$name: $(cat "$work/verify.log")"; done
for name in headless34 job35; do
  ! verified sealed $name || fail "$name is not encrypted"
  verified sealed $name --identity "$work/identity.txt" || fail "$name: $(cat "$work/verify.log")"
done
say 'what is in the bucket is proved by lifeboat verify, with the private key where it is encrypted'

# --- 2. schedules
schedule often open 'retention: {keepLast: 1}'
for time in first second; do
  run_now often $time
  until_true 30 "a schedule is run by hand for the $time time" has_run often $time
done
until_true 20 'retention has removed the older one from the store' stores open/often/ 1
until_true 20 'and says so' told often Pruned

# --- 3. killed
kubectl patch backupstore slow --type=merge -p '{"spec": {"bandwidthLimit": null}}' >/dev/null
old=$(leader)
kubectl delete pod -n lifeboat "$old" --grace-period=0 --force >/dev/null 2>&1
say "the leader $old is killed, while it makes a backup"
another_leads() { [ "$(leader)" != "$old" ] && one_leads; }
until_true 60 'another leads' another_leads
backup second-leader open "$set34"
succeeds second-leader
until_true 60 'there are two operators again' kubectl rollout status -n lifeboat deployment/lifeboat-operator --timeout=1s

# started: of each operator its name, and how often its container was started again.
started() {
  kubectl get pods -n lifeboat -l app.kubernetes.io/component=operator \
    -o 'jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].restartCount}{"\n"}{end}'
}
before=$(started)
in_node() { tools/kube-node.sh exec "$@"; }
killed=$(in_node pgrep -x kube-apiserver)
outage=$SECONDS
in_node pkill -KILL -x kube-apiserver # of the node's processes, which are its own
say 'the API server is killed'
is_back() { ! in_node pgrep -x kube-apiserver | has "$killed" -x && kubectl get --raw /readyz; }
until_true 120 'another is there' is_back
outage=$((SECONDS - outage))
backup after-outage open "$set35"
succeeds after-outage
# A leader that cannot renew its Lease for 10 s ends, and its container is started again. It renews every 4 s.
if [ "$outage" -lt 4 ]; then [ "$(started)" = "$before" ] || fail "operators were started again: $(started), before: $before"; fi
[ "$(started | cut -d' ' -f1)" = "$(echo "$before" | cut -d' ' -f1)" ] || fail "other operators: $(started), before: $before"
say "the same operators go on; they were started again so often: $(started | cut -d' ' -f2 | paste -sd' ')"

# --- 4. what is deleted, and what it may do
backup doomed open "$set34" 'deletionPolicy: Delete'
succeeds doomed
stores open/doomed/ 1
kubectl delete etcdbackup doomed set34 >/dev/null
stores open/doomed/ 0 || fail 'the backup outlives its object'
stores open/set34/ 1 || fail 'a backup is gone with its object, whose policy is Retain'
say 'deleting an object deletes the backup with policy Delete, and no other'

kubectl apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: rights, namespace: lifeboat}
spec:
  serviceAccountName: lifeboat-operator
  automountServiceAccountToken: true
  terminationGracePeriodSeconds: 1
  containers: [{name: kubectl, image: "localhost/kubectl:test", imagePullPolicy: Never, command: [sleep, "100000"]}]
YAML
until_true 30 'a pod has the ServiceAccount of the operator' kubectl wait -n lifeboat pod/rights --for=condition=Ready --timeout=1s
kubectl exec -i -n lifeboat rights -- sh -s <<'SH'
allowed() { kubectl "$@" >/dev/null || { echo "refused: $*"; exit 1; }; }
refused() {
  if said=$(kubectl "$@" 2>&1); then echo "allowed: $*"; exit 1; fi
  case $said in *Forbidden* | *forbidden*) ;; *) echo "$* failed otherwise: $said"; exit 1 ;; esac
}
allowed get secret s3 -n prod
allowed get etcdbackups -A
refused get secrets -n prod
refused create secret generic x -n prod
refused delete secret s3 -n prod
refused delete statefulset etcd34 -n prod
refused delete pod etcd34-0 -n prod
refused exec etcd34-0 -n prod -- true
refused create serviceaccount x -n prod
refused get configmaps -n kube-system
refused get nodes
refused get namespaces
refused delete backupstore open -n prod
refused delete etcdbackupschedule often -n prod
refused delete crd etcdbackups.lifeboat.dev
refused create clusterrolebinding x --clusterrole=cluster-admin --serviceaccount=lifeboat:lifeboat-operator
refused get lease kube-scheduler -n kube-system
SH
kubectl delete pod -n lifeboat rights --wait=false >/dev/null
say 'its ServiceAccount can do nothing else'

until_true 90 'a schedule fires by itself' of_schedule often Succeeded 'often-2.*-.*00$'
until_true 20 'a run that is due while one is under way is skipped' told slow Skipped

succeeds "$slow" 150
[ "$(of "etcdbackup/$slow" attempts)" -ge 2 ] || fail 'it was the first attempt'
verified slow slow || fail "$slow: $(cat "$work/verify.log")"
say 'the backup that the killed leader had begun was made by the next one'

# --- 5. removed
for name in held stuck; do backup $name open "$set35" 'deletionPolicy: Delete'; done
for name in held stuck; do succeeds $name; done
for name in often slow; do kubectl patch etcdbackupschedule $name --type=merge -p '{"spec": {"suspend": true}}' >/dev/null; done
# at_rest: nothing runs, and retention has ended its work.
at_rest() {
  ! kubectl get etcdbackups -o 'jsonpath={.items[*].status.phase}' | has 'Pending\|Running' &&
    [ "$(of_schedule often Succeeded | wc -l)" = 1 ] && stores open/often/ 1
}
until_true 60 'nothing runs' at_rest
# What must stay: objects, backups, etcd's pods.
remaining() {
  kubectl get lifeboat -o name | sort # by kind they come in any order
  kubectl get pods -l 'app in (etcd34, etcd35)' -o 'jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[0].ready}{"\n"}{end}'
  kubectl get crd -o name | grep 'lifeboat.dev$'
  echo "$(stored) backups"
}
remains() { [ "$(remaining)" = "$1" ]; }
no_operators() { [ -z "$(operators -A)" ]; }
# removed COMMAND...: it removes the operator, and nothing else.
removed() {
  local before
  before=$(remaining)
  "$@" >"$work/removed.log" 2>&1 || fail "$(cat "$work/removed.log")"
  until_true 60 'no operator is left' no_operators
  # A pod of etcd may be not ready for a moment; what is gone does not come back.
  until_true 30 'nothing else is gone' remains "$before" || { diff <(echo "$before") <(remaining); return 1; }
  say "clusters, objects, kinds and $(stored) backups are still there"
}
# What deploy/operator/README.md tells people.
as_told() { sed -n '/^## Remove/,$p' deploy/operator/README.md | grep '^kubectl delete' | bash -euo pipefail; }
removed as_told
# gone KIND NAME: at once, with nobody to help.
gone() { kubectl delete "$1" "$2" --timeout=60s >/dev/null; }
before=$(stored)
gone etcdbackup job34
gone etcdbackupschedule slow
gone backupstore slow
kubectl delete etcdbackup held stuck --wait=false >/dev/null
# What docs/kubernetes.md tells those who have no operator any more.
grep '^kubectl .*"finalizers": null' docs/kubernetes.md | sed 's/ first / stuck /' | bash -euo pipefail >/dev/null
is_gone() { ! kubectl get "$@" 2>/dev/null; }
is_gone etcdbackup stuck || fail 'it is still there'
! is_gone etcdbackup held || fail 'nothing holds the object whose policy is Delete'
[ "$(stored)" = "$before" ]
say 'without an operator, objects can be deleted; those whose policy is Delete wait for one, or are let go by hand'

rolled_out() { kubectl rollout status "$(kubectl get deployment -l app.kubernetes.io/component=operator -o name)" --timeout=1s; }
helm() { PYTHONPATH=$LIFEBOAT_HELM /usr/bin/python3 tools/helm.py "$KUBECONFIG" prod "$@" >"$work/helm.log" || fail "$(cat "$work/helm.log")"; }
values='"namespaced": true, "crds": {"install": false}, "image": {"repository": "localhost/lifeboat", "tag": "test"}'
kubectl create namespace other >/dev/null
kubectl apply -f - >/dev/null <<YAML
apiVersion: lifeboat.dev/v1alpha1
kind: EtcdBackup
metadata: {name: foreign, namespace: other}
spec: {storeName: open, cluster: {name: x, endpoints: ["http://127.0.0.1:1"]}}
YAML
helm install team "{$values}"
until_true 60 'the chart, installed by Helm, runs in one namespace' rolled_out
until_true 30 'the object whose policy is Delete has waited for it' is_gone etcdbackup held
stores open/held/ 0
backup by-chart open "$set35"
succeeds by-chart
helm upgrade team "{$values, \"replicas\": 2, \"logLevel\": \"debug\"}"
until_true 60 'it is upgraded' rolled_out
[ "$(operators | wc -w)" -ge 2 ]
backup by-upgraded sealed "$set34"
succeeds by-upgraded
[ -z "$(kubectl get etcdbackup -n other foreign -o 'jsonpath={.status}')" ] || fail 'it follows another namespace'
removed helm uninstall team
before=$(stored)
kubectl delete crd -l app.kubernetes.io/part-of=lifeboat --timeout=240s >/dev/null
[ "$(stored)" = "$before" ]
kubectl delete namespace other lifeboat --wait=false >/dev/null
say 'all is well: without kinds, the backups are still there'
