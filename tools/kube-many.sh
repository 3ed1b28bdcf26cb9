#!/usr/bin/env bash
# What many schedules cost the operator and the API server, measured on a Kubernetes of one node (tools/kube-lib.sh):
#   SCHEDULES=200 tools/kube-many.sh BINARY
#
# One operator, installed from the kustomize base, follows that many EtcdBackupSchedules that are all due at the same minute, without
# jitter, each of a cluster of its own whose endpoint is one small etcd with TLS; all write into one S3. Said are the memory of the
# operator's process, and its calls by the API server's own audit log: while nothing is due, and from that minute to
# the end of the last backup. Not a part of ./test, as it only measures. docs/kubernetes.md has what it said.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/kube-lib.sh
schedules=${SCHEDULES:-200}

tell_all() {
  kubectl get etcdbackups | tail -n 40
  kubectl get pods -A
  kubectl logs -n lifeboat -l app.kubernetes.io/component=operator --tail 60
}

# The audit log has one line for each call of the operator; a watch has one when it begins and one when it ends.
begin_work
cat >"$work/policy.yaml" <<YAML
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, users: ["system:serviceaccount:lifeboat:lifeboat-operator"]}
- {level: None}
YAML
APISERVER_EXTRA="--audit-policy-file=$work/policy.yaml --audit-log-path=$work/audit.log" begin_kube "$@"
own_namespace many
begin_s3
install_operator 1
certificate "$work/pki" etcd 1
kubectl create secret generic tls --from-file="$work"/pki/ca.crt --from-file="$work"/pki/tls.crt --from-file="$work"/pki/tls.key >/dev/null
store_secret
begin_etcd etcd 1 localhost/etcd:3.4.23 tls
until_true 60 'etcd is ready' kubectl rollout status statefulset/etcd --timeout=1s
until_true 60 'the operator is ready' kubectl rollout status -n lifeboat deployment/lifeboat-operator --timeout=1s

# memory WHEN: of the operator's process, in MiB.
memory() {
  # shellcheck disable=SC2016 # for the shell in the node
  tools/kube-node.sh exec sh -c 'cat /proc/$(pgrep -x lifeboat)/status' |
    awk -v when="$1" '/^(VmRSS|RssAnon|VmHWM):/ {printf "%s %s%d MiB", n++ ? "," : when ":", $1, $2 / 1024} END {print ""}'
}
# calls FROM TO WHEN: by verb and resource, between two instants.
calls() {
  python3 - "$work/audit.log" "$@" <<'PY'
import collections, datetime, json, sys
log, begin, end, when = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
counts = collections.Counter()
for line in open(log):
    event = json.loads(line)
    at = datetime.datetime.fromisoformat(event["requestReceivedTimestamp"].replace("Z", "+00:00")).timestamp()
    if event["stage"] != "ResponseStarted" and begin <= at < end:
        of = event.get("objectRef", {})
        counts[event["verb"], "/".join(filter(None, (of.get("resource"), of.get("subresource")))) or event["requestURI"]] += 1
total, seconds = sum(counts.values()), end - begin
print(f"{when}: {total} calls in {seconds:.0f} s, {60 * total / seconds:.0f} a minute")
for (verb, what), count in counts.most_common():
    print(f"  {count:5d} {verb} {what}")
PY
}
now() { date +%s.%N; }
memory 'without an object'

# The beginning of the third minute from now.
due=$(($(date +%s) / 60 * 60 + 180))
minute=$(date -u -d "@$due" +%-M)

{
  for ((n = 0; n < schedules; n++)); do
    cat <<YAML
---
apiVersion: lifeboat.dev/v1alpha1
kind: EtcdBackupSchedule
metadata: {name: cluster-$n}
spec:
  schedule: "$minute * * * *"
  retention: {keepLast: 24, keepDaily: 7}
  template:
    spec:
      storeName: s3
      cluster: {name: cluster-$n, endpoints: ["https://etcd-0.etcd.many.svc:2379"], tls: {secretName: tls}}
YAML
  done
} >"$work/schedules.yaml"
created=$(now)
store s3 many
kubectl apply -f "$work/schedules.yaml" >/dev/null
followed() { [ "$(kubectl get etcdbackupschedules -o 'jsonpath={.items[*].status.nextScheduleTime}' | wc -w)" = "$schedules" ]; }
until_true 120 "$schedules schedules are followed" followed
followed=$(now)
is_due() { [ "$(date +%s)" -ge "$due" ]; }
until_true 300 'they are due' is_due
memory 'while nothing was due'
done_all() { [ "$(kubectl get etcdbackupschedules -o 'jsonpath={.items[*].status.lastSuccessTime}' | wc -w)" = "$schedules" ]; }
pause=5 until_true 900 'each has its backup' done_all # rarely, as that costs the API server too
ended=$(now)
memory 'after that'
kubectl get pods -n lifeboat -o 'jsonpath=operator started again: {.items[*].status.containerStatuses[*].restartCount} times{"\n"}'
kubectl logs -n lifeboat -l app.kubernetes.io/component=operator --previous --tail 5 2>/dev/null || true
calls "$created" "$followed" 'while they were made'
calls "$followed" "$due" 'while nothing was due'
calls "$due" "$ended" "while $schedules backups were made"
kubectl get --raw "/api/v1/namespaces/lifeboat/services/lifeboat-operator:8080/proxy/metrics" | grep -E 'reconciliation.*_total|failures_total' || true
