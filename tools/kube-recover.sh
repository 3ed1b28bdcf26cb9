#!/usr/bin/env bash
# `lifeboat recover` with static pods, on a Kubernetes of one node (tools/kube-lib.sh) whose kubelet runs etcd and
# kube-apiserver from its folder of manifests:
#   tools/kube-recover.sh BINARY
#
# Objects are made, a backup is taken, more objects are made; etcd's database is overwritten, so that kubelet starts etcd in
# vain. One command brings the cluster back over ssh, and the API server answers with the objects of the backup.
# kubelet, containerd, the pods and sshd are real; there is one member, as there is one node.
# Needs root, ssh, sshd and what the header of tools/kube-node.sh says.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/kube-lib.sh

tell_all() { tail -n 20 "$work"/*.log; inside find /var/lib/etcd /var/lib/lifeboat; inside ps ax; }

# In the node: its processes, files and network. And in its network alone, with this machine's files.
inside() { tools/kube-node.sh exec "$@"; }
lifeboat() { tools/kube-node.sh netexec "$binary" "$@"; }

STATIC_PODS=1 begin_kube "$@"
own_namespace recover
inside "$PWD/tools/loopback.sh" start "$work" 10022

kubectl create configmap before --from-literal=greeting='hello from before' >/dev/null
lifeboat backup --repo "$work/backups" --cluster kube --endpoints http://127.0.0.1:2379 2>"$work/backup.log"
kubectl create configmap after --from-literal=greeting='too late' >/dev/null

inside dd if=/dev/zero of=/var/lib/etcd/member/snap/db bs=4096 count=8 conv=notrunc status=none
inside pkill -9 -x etcd # of the node's processes, which are its own
! kubectl get configmap before --request-timeout=10s >/dev/null 2>&1 || fail 'the cluster lives'
say 'the database is overwritten, the API server is lost'

cat >"$work/kube.yaml" <<YAML
cluster: kube
ssh: {config: $work/ssh/config}
etcd: {service: {static-pod: $node/manifests/etcd.yaml}}
clients:
- {static-pod: $node/manifests/kube-apiserver.yaml, ready: 'https://127.0.0.1:$(cat "$node/state/port")/readyz'}
hosts:
- {host: h1, member: {name: t, peer-urls: ['http://127.0.0.1:2380'], client-urls: ['http://127.0.0.1:2379']}}
YAML
lifeboat recover run "$work/kube.yaml" --backup "$work/backups" --yes --state-dir "$work/runs"
say 'one command later'

[ "$(kubectl get configmap before -o 'jsonpath={.data.greeting}')" = 'hello from before' ]
! kubectl get configmap after >/dev/null 2>&1 || fail 'the later object is there: that is not the backup'
kubectl create configmap new --from-literal=greeting='hello from after' >/dev/null
kubectl run pod --image=localhost/busybox:1.35 --image-pull-policy=Never --restart=Never -- true >/dev/null
# The scheduler and the controllers find their way back by themselves.
has_ended() { [ "$(kubectl get pod pod -o 'jsonpath={.status.phase}')" = Succeeded ]; }
until_true 120 'the API server has the objects of the backup, and a new pod has run to its end' has_ended
inside sh -c 'ls -d /var/lib/etcd/member.lifeboat-*' >/dev/null
lifeboat recover commit kube --state-dir "$work/runs"
say 'all is well: the old data are where they were set aside'
