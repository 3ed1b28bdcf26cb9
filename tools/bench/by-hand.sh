#!/usr/bin/env bash
# A cluster of three is brought back by hand, as etcd's documentation has it; the bench's counterpart of `lifeboat recover`:
#   by-hand.sh one|all FOLDER ETCD SNAPSHOT INITIAL-CLUSTER ENDPOINTS
# one: each step on a host after the other, as a person does it; all: on all hosts at the same time.
# FOLDER is of tools/bench/hosts.py, and ETCD the folder with etcd's programs.
set -euo pipefail
how=$1 folder=$2 etcd=$3 snapshot=$4 initial_cluster=$5 endpoints=$6

# on_each COMMAND: the command with the host's number as $1.
on_each() {
  local n pids=()
  for n in 1 2 3; do
    if [ "$how" = one ]; then "$1" "$n"; else "$1" "$n" & pids+=($!); fi
  done
  for n in "${pids[@]}"; do wait "$n"; done
}
on() { ssh -F "$folder/ssh/config" "h$1" "$2"; }
peer_url() { tr , '\n' <<<"$initial_cluster" | sed -n "s/^m$1=//p"; }

stop() { on "$1" "$folder/h$1/etcd stop"; }
set_aside() { on "$1" "mv $folder/h$1/data $folder/h$1/data.old"; }
copy() { scp -q -F "$folder/ssh/config" "$snapshot" "h$1:$folder/h$1/snapshot.db"; }
restore() {
  on "$1" "$etcd/etcdutl snapshot restore $folder/h$1/snapshot.db --data-dir $folder/h$1/data --name m$1 \
    --initial-cluster $initial_cluster --initial-cluster-token bench-2 --initial-advertise-peer-urls $(peer_url "$1") \
    && rm $folder/h$1/snapshot.db"
}
start() { on "$1" "$folder/h$1/etcd start"; }

on_each stop
on_each set_aside
on_each copy
on_each restore
on_each start
until "$etcd/etcdctl" --endpoints "$endpoints" endpoint health; do sleep 0.2; done
"$etcd/etcdctl" --endpoints "$endpoints" member list
