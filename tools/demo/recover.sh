# shellcheck shell=bash disable=SC2154 # a part of ./demo, which sets what is used here
# The story of ./demo recover: three hosts lose their cluster, and it is brought back by docs/runbook.md. What the page marks
# as `<!-- demo: NAME -->` is run as it stands there, and all of it: the page is tested by this.

page=$project/docs/runbook.md

client_url() { echo "https://127.0.0.1:${ports[$(($1 + 2))]}"; }
peer_url() { echo "https://127.0.0.1:${ports[$(($1 + 5))]}"; }

# Each host has a folder: etcd's data, and the script that starts and stops it there.
make_hosts() {
  local n name initial_cluster
  "$project/tools/loopback.sh" start "$folder" "${ports[@]:0:3}"
  initial_cluster=m1=$(peer_url 1),m2=$(peer_url 2),m3=$(peer_url 3)
  for n in 1 2 3; do
    name=m$n
    mkdir "h$n"
    "$project/tools/loopback.sh" service "$folder/h$n/etcd" "$(command -v etcd)" \
      --name "$name" --data-dir "$folder/h$n/data" --logger zap \
      --listen-client-urls "$(client_url "$n")" --advertise-client-urls "$(client_url "$n")" \
      --listen-peer-urls "$(peer_url "$n")" --initial-advertise-peer-urls "$(peer_url "$n")" \
      --initial-cluster "$initial_cluster" --initial-cluster-token prod \
      --cert-file server.pem --key-file server-key.pem --trusted-ca-file ca.pem --client-cert-auth \
      --peer-cert-file server.pem --peer-key-file server-key.pem --peer-trusted-ca-file ca.pem --peer-client-cert-auth
    "h$n/etcd" start
  done
  until_healthy
}

kill_members() {
  local file
  for file in "$folder"/h?/etcd.pid; do
    [ -e "$file" ] || continue
    kill -9 "$(cat "$file")" 2>/dev/null || true
    while "${file%.pid}" running; do sleep 0.1; done
  done
}

stop_everything() {
  "$project/tools/loopback.sh" stop "$folder" # first, so that no session starts a member again
  kill_members
}

describe() {
  local n
  cat <<YAML
cluster: prod
ssh: {config: $folder/ssh/config, sudo: false}   # who starts this demo owns everything
etcd:
  version: '3.4'
  owner: $(id -un):$(id -gn)
  certificates: {ca: $folder/ca.pem, cert: $folder/client.pem, key: $folder/client-key.pem}
hosts:
YAML
  for n in 1 2 3; do
    cat <<YAML
- host: h$n
  member: {name: m$n, peer-urls: ['$(peer_url "$n")'], client-urls: ['$(client_url "$n")']}
  ssh: {state-dir: $folder/h$n/lifeboat}
  etcd:
    data-dir: $folder/h$n/data
    service: {command: {start: $folder/h$n/etcd start, stop: $folder/h$n/etcd stop, running: $folder/h$n/etcd running}}
YAML
  done
}

# --- the page

# marked NAME: the command at that mark: what is in `…` on its line, or else the block that follows.
marked() {
  awk -v mark="<!-- demo: $1 -->" '
    at && /^```/ { if (inside) exit; inside = 1; next }
    inside { print }
    index($0, mark) { if (split($0, part, "`") > 2) { print part[2]; exit } at = 1 }
  ' "$page" | grep . || { echo "docs/runbook.md has no command marked as $1" >&2; return 1; }
}

# runbook NAME [FLAG...]: shows and runs it.
runbook() {
  local line text
  text=$(marked "$1")
  shown+=" $1"
  shift
  while read -r line; do
    printf '\n$ %s\n' "$line${*:+ $*}"
    eval "$line ${*@Q}" || return
  done <<<"$text" 3<&-
}

# --- the story

cd "$folder"
make_certificates 2>openssl.log
find_ports 9
export ETCDCTL_API=3
export ETCDCTL_ENDPOINTS=$(client_url 1),$(client_url 2),$(client_url 3)
export ETCDCTL_CACERT=$folder/ca.pem ETCDCTL_CERT=$folder/client.pem ETCDCTL_KEY=$folder/client-key.pem
export LIFEBOAT_STATE_DIR=$folder/operator
shown=''

tell "1. Three hosts, h1 to h3: sshds on 127.0.0.1, with keys of their own. On each, a member: $(etcd --version | head -n 1), TLS."
make_hosts
run ssh -F ssh/config h1 hostname
run lifeboat member list -w table

tell "2. Data: 121 keys. A backup. And something that is written too late for it."
write_data
etcdctl get '' --prefix >keys.backed-up
REPO=$folder/backups
BACKUP=$REPO
run lifeboat backup --repo "$REPO" --cluster prod
run etcdctl put /greeting "hello from after the backup"

tell "3. The disaster: kill -9 to all three. Two data directories are deleted, the third database is overwritten."
kill_members
run rm -r h1/data h2/data
run dd if=/dev/zero of=h3/data/member/snap/db bs=4096 count=8 conv=notrunc status=none

tell "4. Three in the morning. docs/runbook.md is opened, and from here on its commands are run. Is it dead?"
! runbook dead || { echo "It lives." >&2; exit 1; }

tell "5. The cluster's file, written on an earlier day. (--discover finds systemd units and static pods; here are neither.)"
describe >prod.yaml
run cat prod.yaml

tell "6. Is a data directory left that holds more than the backup? Its database is what was overwritten:"
runbook left >left.txt 2>&1
sed -n '/^What there is/,/^Before/p' left.txt | sed '$d'

tell "7. What would be done. The plan has every command on every host; this is its beginning:"
runbook plan >plan.txt 2>&1
head -n 45 plan.txt
echo "   … and $(($(wc -l <plan.txt) - 45)) lines more."

tell "8. It is done. (--yes, as nobody is here to type the cluster's name.)"
runbook run --yes
runbook status

tell "9. The proof: members, keys, and the same HashKV in each of them."
runbook members
etcdctl get '' --prefix >keys
run cmp keys.backed-up keys
run etcdctl get /greeting
run lifeboat endpoint hashkv --cluster
hash_of_all >/dev/null
runbook commit

tell "10. A cluster that works is not stopped by mistake:"
run etcdctl put /greeting "hello from the cluster that came back"
! run lifeboat recover run prod.yaml --backup "$BACKUP" --yes || { echo "It should have refused." >&2; exit 1; }

tell "   Who insists goes back to the backup, and can still think better of it, until the commit:"
run lifeboat recover run prod.yaml --backup "$BACKUP" --yes --even-though-healthy 2>regret.log
run etcdctl get /greeting
runbook rollback --yes
until_healthy
run etcdctl get /greeting
[ "$(etcdctl get /greeting --print-value-only)" = "hello from the cluster that came back" ]

# Whatever the page has marked was run.
for name in $(sed -n 's/.*<!-- demo: \([a-z]*\) -->.*/\1/p' "$page"); do
  [[ " $shown " = *" $name "* ]] || { echo "docs/runbook.md marks $name, which this demo does not run" >&2; exit 1; }
done
tell "The cluster is back, with one command; and a command that was wrong was taken back."
