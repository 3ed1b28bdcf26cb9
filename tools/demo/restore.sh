# shellcheck shell=bash disable=SC2154 # a part of ./demo, which sets what is used here
# The story of ./demo: a backup, a disaster, a restore of all members.

client_url() { echo "https://127.0.0.1:${ports[$1]}"; }
peer_url() { echo "https://127.0.0.1:${ports[$(($1 + 3))]}"; }

# start_members DATA: every member with its data in DATA/<name>
start_members() {
  local i name
  for i in 0 1 2; do
    name=${members[$i]}
    setsid etcd --name "$name" --data-dir "$1/$name" --logger zap \
      --listen-client-urls "$(client_url "$i")" --advertise-client-urls "$(client_url "$i")" \
      --listen-peer-urls "$(peer_url "$i")" --initial-advertise-peer-urls "$(peer_url "$i")" \
      --initial-cluster "$initial_cluster" --initial-cluster-token demo \
      --cert-file server.pem --key-file server-key.pem --trusted-ca-file ca.pem --client-cert-auth \
      --peer-cert-file server.pem --peer-key-file server-key.pem --peer-trusted-ca-file ca.pem \
      --peer-client-cert-auth >>"$name.log" 2>&1 </dev/null &
    echo $! >"$name.pid"
  done
  until_healthy
}

stop_everything() {
  local file pid
  for file in "$folder"/*.pid; do
    [ -e "$file" ] || continue
    pid=$(cat "$file")
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true # until it is gone, and without the shell's word on it
    rm "$file"
  done
}

# --- the story

cd "$folder"
make_certificates 2>openssl.log
find_ports 6
initial_cluster=m1=$(peer_url 0),m2=$(peer_url 1),m3=$(peer_url 2)
export ETCDCTL_API=3
export ETCDCTL_ENDPOINTS=$(client_url 0),$(client_url 1),$(client_url 2)
export ETCDCTL_CACERT=$folder/ca.pem ETCDCTL_CERT=$folder/client.pem ETCDCTL_KEY=$folder/client-key.pem

tell "1. A cluster of three members: $(etcd --version | head -n 1), TLS, client certificates."
tell "   Where it is and how to talk to it stands in etcdctl's own variables, which lifeboat reads too:"
env | grep '^ETCDCTL_' | sort
start_members data
run lifeboat member list -w table

tell "2. Data: 121 keys; 100 of them are overwritten, some are deleted again."
write_data

export LIFEBOAT_REPO=$folder/backups

tell "3. A backup of the live cluster, into a repository: here a folder, as well a bucket. It counts when it is proved."
run lifeboat backup --cluster demo
run lifeboat list -w table
run lifeboat verify
revision=$(lifeboat list -w json | grep -o '"revision":[0-9]*' | cut -d: -f2)
expected=$(lifeboat list -w json | grep -o '"hash_kv":{"hash":[0-9]*' | cut -d: -f3)

tell "4. The disaster: kill -9 to all three members. Their data are set aside, as a careful administrator does."
stop_everything
run mv data data.lost

tell "5. What would be restored, how old it is, and what is lost:"
run lifeboat restore --plan

tell "   All members are restored from it, in one pass. No etcd runs meanwhile. Names and URLs are those of the backup."
tell "   (The revision is raised above what clients have seen, unless one says not to. Here it is left as it was, so
   that the hashes can be compared.)"
run lifeboat restore --all-members data --bump-revision 0

tell "6. The members start from what was restored."
start_members data
run lifeboat member list -w table
run lifeboat endpoint health --cluster
run lifeboat endpoint hashkv --cluster --rev "$revision" -w json
run etcdctl get /greeting

tell "7. The proof: HashKV of revision $revision is $expected in the backup, and in each member:"
hash=$(hash_of_all --rev "$revision")
echo "$hash"
[ "$hash" = "$expected" ] || { echo "They differ." >&2; exit 1; }
tell "The cluster is back, and equal to the backup."
[ "$keep" = yes ] || echo "The same over ssh, on every host at once and with one command: ./demo recover"

if [ "$keep" = yes ]; then
  cat >stop <<STOP
#!/bin/sh
kill -9 $(cat ./*.pid | tr '\n' ' ')
rm -r $folder
STOP
  cat >environment <<ENVIRONMENT
export PATH=$PATH
$(env | grep -E '^(ETCDCTL_|LIFEBOAT_REPO=)' | sed 's/^/export /')
ENVIRONMENT
  trap - EXIT
  tell "It goes on running. To talk to it:  . $folder/environment; lifeboat endpoint status -w table"
  echo "To stop it and remove its folder:  sh $folder/stop"
fi
