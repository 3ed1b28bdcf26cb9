#!/usr/bin/env bash
# Hosts to play with, on this machine alone: sshds on 127.0.0.1, each with a port of its own. For ./demo recover and ./bench,
# which shall run anywhere; the tests have real hosts (tools/hosts.sh). Does not need root: then one logs in as oneself.
#   tools/loopback.sh start FOLDER PORT...       makes hosts h1, h2, … : `ssh -F FOLDER/ssh/config h1`
#   tools/loopback.sh stop FOLDER                ends their sshds and whatever runs in their sessions
#   tools/loopback.sh service FILE COMMAND...    makes FILE a script that knows start, stop and running, as those of
#                                                /etc/init.d; it writes FILE.log and FILE.pid
# A session there has a home of its own: what a person's .bashrc does takes time at each, and is no host's.
# LIFEBOAT_SSHD: the sshd, if it is not the machine's own; LIFEBOAT_SSHD_LIBRARIES: where what it needs is.
set -euo pipefail
shopt -s inherit_errexit

usage() { sed -n 's/^#   tools/tools/p' "$0" >&2; exit 2; }

# The folder that sshd wants to exist when root runs it.
empty=/run/sshd

start() {
  local folder=$1 number=0 port
  shift
  mkdir -p "$folder/ssh" "$folder/home"
  ssh-keygen -q -t ed25519 -N '' -C loopback -f "$folder/ssh/host"
  ssh-keygen -q -t ed25519 -N '' -C loopback -f "$folder/ssh/key"
  if [ "$(id -u)" = 0 ] && mkdir "$empty" 2>/dev/null; then touch "$folder/ssh/made-$(basename "$empty")"; fi
  cat >"$folder/ssh/config" <<CONFIG
Host *
  HostName 127.0.0.1
  User $(id -un)
  IdentityFile "$folder/ssh/key"
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile "$folder/ssh/known_hosts"
  GlobalKnownHostsFile /dev/null
CONFIG
  for port; do
    number=$((number + 1))
    echo "[127.0.0.1]:$port $(cut -d' ' -f1,2 "$folder/ssh/host.pub")" >>"$folder/ssh/known_hosts"
    printf 'Host h%s\n  Port %s\n' "$number" "$port" >>"$folder/ssh/config"
    listen "$folder/ssh/h$number" "$folder" "$port"
  done
}

# listen NAME FOLDER PORT: an sshd, of which NAME.pid and NAME.log tell.
listen() {
  # Without PAM, sshd turns root away on machines where root has no password.
  local pam=no sshd
  [ "$(id -u)" != 0 ] || [ ! -e /etc/pam.d/sshd ] || pam=yes
  sshd=${LIFEBOAT_SSHD:-$(PATH=$PATH:/usr/sbin command -v sshd)}
  cat >"$1.sshd" <<CONFIG
ListenAddress 127.0.0.1:$3
HostKey $2/ssh/host
AuthorizedKeysFile $2/ssh/key.pub
PidFile none
StrictModes no
UsePAM $pam
PermitRootLogin yes
PasswordAuthentication no
PrintMotd no
SetEnv LIFEBOAT_LOOPBACK=$2 HOME=$2/home
MaxStartups 100
Subsystem sftp internal-sftp
CONFIG
  LD_LIBRARY_PATH=${LIFEBOAT_SSHD_LIBRARIES:-} setsid "$sshd" -D -f "$1.sshd" -E "$1.log" </dev/null >>"$1.log" 2>&1 &
  echo $! >"$1.pid"
  until (exec 3<>"/dev/tcp/127.0.0.1/$3") 2>/dev/null; do
    kill -0 "$!" 2>/dev/null || { echo "no sshd at port $3:" >&2; cat "$1.log" >&2; return 1; }
    sleep 0.1
  done
}

# Commands outlive the session that began them, so they are known by a variable that every session sets.
of_sessions() {
  local environment
  for environment in /proc/[0-9]*/environ; do
    if grep -qzxF "LIFEBOAT_LOOPBACK=$1" "$environment" 2>/dev/null; then basename "$(dirname "$environment")"; fi
  done
}

stop() {
  local file pid pids
  for file in "$1"/ssh/*.pid; do
    [ -e "$file" ] || continue
    pid=$(cat "$file")
    # shellcheck disable=SC2046 # its children, the sessions, are words
    kill -9 "$pid" $(cat "/proc/$pid/task/$pid/children" 2>/dev/null) 2>/dev/null || true
    rm "$file"
  done
  while pids=$(of_sessions "$1") && [ -n "$pids" ]; do
    # shellcheck disable=SC2086 # words
    kill -9 $pids 2>/dev/null || true
    sleep 0.05
  done
  if [ -e "$1/ssh/made-$(basename "$empty")" ]; then rmdir "$empty" || true; fi
}

service() {
  local file=$1
  shift
  {
    printf '#!/bin/sh\ncd %q || exit\n' "$(pwd)"
    # shellcheck disable=SC2016 # for the script, not for this one
    echo 'running() { [ -e "/proc/$(cat "$0.pid" 2>/dev/null)/exe" ]; } # a dead process that waits for its parent has none'
    echo 'case $1 in'
    printf 'start)\n  running || { setsid'
    printf ' %q' "$@"
    printf ' </dev/null >>"$0.log" 2>&1 & echo $! >"$0.pid"; } ;;\n'
    printf 'stop)\n  running || exit 0\n  kill "$(cat "$0.pid")"\n  while running; do sleep 0.1; done ;;\n'
    printf 'running)\n  running ;;\n'
    echo 'esac'
  } >"$file"
  chmod +x "$file"
}

[ $# -ge 2 ] || usage
case $1 in
  start | stop | service) "$@" ;;
  *) usage ;;
esac
