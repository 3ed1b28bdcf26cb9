#!/usr/bin/env bash
# The tree that the tests' Debian hosts are booted from (crates/testbed/src/hosts.rs), and what boots it:
#   tools/hosts.sh build ETCD-FOLDER     prints the tree's folder in the cache, after making it if it is not there
# Debian bookworm by debootstrap from apt's own mirror, with a running systemd in mind: dbus, sshd, sudo, Debian's etcd
# 3.4 with its unit, and the etcd of ETCD-FOLDER in /opt/etcd-3.5. systemd-nspawn comes from the tree as well, so that
# nothing is installed here. The tree is never written to again: every host lays its own files over it.
# Needs root, debootstrap, and about a minute; 230 MB stay in the cache folder, named by what makes them.
set -euo pipefail
shopt -s inherit_errexit

die() { echo "hosts: $*" >&2; exit 1; }
[ "${1:-}" = build ] && [ $# = 2 ] || die "usage: tools/hosts.sh build ETCD-FOLDER"
etcd=$2
[ "$(id -u)" = 0 ] || die "only root can make a Debian tree"

packages=systemd,systemd-sysv,systemd-container,dbus,openssh-server,sudo,iproute2,curl,openssl,ca-certificates
packages+=,etcd-server,etcd-client
key=$({ cat "$0"; "$etcd/etcd" --version; } | sha256sum | cut -c1-12)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/lifeboat/hosts
tree=$folder/$key
if [ -d "$tree" ]; then echo "$tree"; exit; fi

mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/$') ||
  die "apt knows no Debian mirror"
mkdir -p "$folder"
rm -rf "$folder"/unfinished.* # left by a run that was stopped; tools/install.sh lets one run at a time
work=$(mktemp -d "$folder/unfinished.XXXXXX")
echo "hosts: making a Debian tree, once; this takes a minute" >&2
debootstrap --variant=minbase --include="$packages" bookworm "$work" "$mirror" >"$work.log" 2>&1 ||
  { tail -n 20 "$work.log" >&2; die "debootstrap failed"; }

in_tree() { chroot "$work" "$@" >>"$work.log" 2>&1 || { tail -n 5 "$work.log" >&2; die "in the tree: $*"; }; }
in_tree apt-get clean
rm -rf "$work"/var/lib/apt/lists/* "$work"/usr/share/{doc,man,locale,info}/* "$work"/var/log/*.log

# Every host makes or is given its own identity.
rm -f "$work"/etc/ssh/ssh_host_* "$work"/etc/{hostname,hosts,resolv.conf}
: >"$work/etc/machine-id"

# What a host without a network has no use for, and what would run beside the tests.
in_tree systemctl disable etcd.service
in_tree systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
  e2scrub_reap.service systemd-networkd-wait-online.service systemd-resolved.service systemd-timesyncd.service \
  console-getty.service getty.target systemd-oomd.service
in_tree systemctl set-default multi-user.target
# They make units of partitions, consoles and scripts that are not there, each time that a host boots or reloads.
mkdir -p "$work/etc/systemd/system-generators"
for generator in "$work"/lib/systemd/system-generators/*; do
  ln -s /dev/null "$work/etc/systemd/system-generators/$(basename "$generator")"
done

# Somebody with sudo, beside root.
in_tree useradd --uid 1000 --create-home --home-dir /var/ops --shell /bin/bash ops
echo 'ops ALL=(ALL) NOPASSWD: ALL' >"$work/etc/sudoers.d/ops"
chmod 440 "$work/etc/sudoers.d/ops"
install -d -m 700 "$work"/{root,var/ops}/.ssh
chown 1000:1000 "$work/var/ops/.ssh"
mkdir -p "$work/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=16M\n' >"$work/etc/systemd/journald.conf.d/small.conf"

mkdir -p "$work/opt/etcd-3.5"
cp "$etcd"/etcd* "$work/opt/etcd-3.5/"

chmod 755 "$work"
rm -f "$work.log"
mv "$work" "$tree"
echo "$tree"
