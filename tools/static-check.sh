#!/usr/bin/env bash
# Proves that a released binary needs nothing of the machine it runs on, name resolution included:
#   tools/static-check.sh BINARY
#
# The binary runs in a root of its own that holds the binary and the files named below, in a network of its own where
# an etcd and a name server listen on 127.0.0.1. Needs root, LIFEBOAT_ETCD_3_5 and
# LIFEBOAT_FOREIGN_NSS (tools/install.sh test).
# docs/static-binary.md says for users what is proved here.
set -euo pipefail
shopt -s inherit_errexit
self=$(readlink -f "$0")

if [ "${1:-}" != --inside ]; then
  [ $# = 1 ] || { echo "usage: tools/static-check.sh BINARY" >&2; exit 2; }
  binary=$(readlink -f "$1")
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  # What runs in a pid namespace ends with its first process.
  unshare --net --mount --pid --fork --kill-child --mount-proc "$self" --inside "$binary" "$work"
  exit
fi

binary=$2 work=$3 root=$work/root
ip link set lo up
mkdir -p "$root"
cp "$binary" "$root/lifeboat"

# A name server that knows one name, and says of every other that there is none.
cat >"$work/dns.py" <<'PY'
import socket, struct
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
print("ready", flush=True)
while True:
    query, client = server.recvfrom(4096)
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    question, kind = query[12:at + 5], struct.unpack(">H", query[at + 1:at + 3])[0]
    known = labels == ["by-dns", "example"]
    answers = [b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + bytes([127, 0, 0, 1])] if known and kind == 1 else []
    flags = 0x8580 | (0 if known else 3)
    head = query[:2] + struct.pack(">HHHHH", flags, 1, len(answers), 0, 0)
    server.sendto(head + question + b"".join(answers), client)
PY
python3 "$work/dns.py" >"$work/dns.log" 2>&1 &
"${LIFEBOAT_ETCD_3_5:?run: env=\$(tools/install.sh test) && eval \"\$env\"}/etcd" --data-dir "$work/etcd" >"$work/etcd.log" 2>&1 &
for _ in $(seq 1200); do
  grep -q ready "$work/dns.log" && [ "$(curl -s 127.0.0.1:2379/health)" != '' ] && break
  sleep 0.1
done

export LIFEBOAT_DIAL_TIMEOUT=20s LIFEBOAT_COMMAND_TIMEOUT=20s # on a machine that is busy
failed=0
# expect CODE NAME WHAT: how asking the etcd under that name ends.
expect() {
  local code=0
  timeout 60 chroot "$root" /lifeboat endpoint health --endpoints "http://$2:2379" >"$work/out" 2>&1 || code=$?
  if [ "$code" = 4 ] && ! grep -q 'cannot look up the host' "$work/out"; then code='4, without the reason'; fi
  if [ "$code" = "$1" ]; then
    echo "ok: $3"
  else
    echo "FAILED: $3: ended with $code, not $1"; sed 's/^/    /' "$work/out"; failed=1
  fi
}

# 4: the cluster could not be reached.
expect 0 127.0.0.1 'an address needs no file at all'
expect 4 etcd.example 'without any file, an unknown name is an error'
expect 0 by-dns.example 'without any file, a name server on 127.0.0.1 is asked'

mkdir "$root/etc"
echo '127.0.0.1 localhost etcd-1.example etcd-1' >"$root/etc/hosts"
echo 'nameserver 127.0.0.1' >"$root/etc/resolv.conf"
expect 0 localhost 'localhost, by /etc/hosts'
expect 0 etcd-1.example 'a name of /etc/hosts'
expect 0 etcd-1 'its alias'
expect 0 by-dns.example 'a name that only the name server knows'
expect 4 unknown.example 'a name that nobody knows is an error'

echo 'hosts: mymachines mdns4_minimal [NOTFOUND=return] resolve [!UNAVAIL=return] files myhostname sss dns' >"$root/etc/nsswitch.conf"
expect 0 etcd-1.example 'modules of nsswitch.conf that are not there are passed over: /etc/hosts'
expect 0 by-dns.example 'modules of nsswitch.conf that are not there are passed over: DNS'
expect 4 unknown.example 'with them too, an unknown name is an error'

# Modules that are there, but of another glibc: loading one ends the process (tools/static-names.c).
cp -r "${LIFEBOAT_FOREIGN_NSS:?}/usr" "$root/usr"
ln -s usr/lib "$root/lib"
ln -s usr/lib64 "$root/lib64"
ls "$root"/usr/lib/*/libnss_myhostname.so.2 >/dev/null
echo 'hosts: myhostname files dns' >"$root/etc/nsswitch.conf"
expect 0 etcd-1.example 'modules of another glibc are not loaded: /etc/hosts'
expect 0 by-dns.example 'modules of another glibc are not loaded: DNS'
expect 4 unknown.example 'modules of another glibc are not loaded: an unknown name'

echo 'nameserver 127.0.0.9' >"$root/etc/resolv.conf"
expect 4 unknown.example 'a name server that does not answer is an error'
expect 0 etcd-1 '/etc/hosts works without a name server'

exit "$failed"
