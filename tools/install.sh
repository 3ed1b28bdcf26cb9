#!/usr/bin/env bash
# Brings in what `./demo` or `./test` needs and prints where it is, as lines for the shell to evaluate:
#   tools/install.sh demo|test|bench
# Says what it does on stderr, and nothing when nothing is to be done.
#
# Debian packages are installed where a command is missing. Servers are not installed but unpacked into the cache
# folder, each from the Debian suite that has the wanted version, so that no service starts, the machine's own etcd
# is left alone, and several versions stand side by side. Folders in the cache are named by what made them.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."

usage() { echo "usage: tools/install.sh demo|test|bench" >&2; exit 2; }
[ $# = 1 ] || usage
for_what=$1
cache=${XDG_CACHE_HOME:-$HOME/.cache}/lifeboat
mkdir -p "$cache"

say() { echo "install: $*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# patiently COMMAND...: what goes over a network fails now and then, and a mirror is between two states for a while. The
# last try is the one that counts.
patiently() {
  local wait
  for wait in 5 20 60; do
    if "$@"; then return; fi
    say "again in $wait s: $*"
    sleep "$wait"
  done
  "$@"
}

# One install at a time: two that run together would both find the same things missing.
exec 9>"$cache/install.lock"
flock 9
rm -rf "$cache"/*/unfinished.* # left by a run that was stopped

missing=()
# want COMMAND PACKAGE...: the packages are missing when the command is.
want() { have "$1" || missing+=("${@:2}"); }
# want_package PACKAGE: for packages that bring no command.
want_package() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed' || missing+=("$1"); }

install_missing() {
  [ ${#missing[@]} -gt 0 ] || return 0
  have apt-get || die "missing here, and this is no Debian: ${missing[*]}"
  say "installing Debian packages: ${missing[*]}"
  patiently install_packages "${missing[@]}"
}

# Together: what is not there any more is in a list that is old.
install_packages() {
  as_root apt-get update -qq >&2 && as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" >&2
}

# unpacked NAME SUITE PACKAGE...: prints the folder in the cache with the binaries of that suite's packages.
unpacked() {
  local name=$1 suite=$2 key folder work package version
  shift 2
  key=$(sha256sum tools/debian-package.sh | cut -c1-8)
  folder=$cache/$name/$suite-$key
  if [ ! -d "$folder" ]; then
    mkdir -p "$cache/$name"
    work=$(mktemp -d "$cache/$name/unfinished.XXXXXX")
    for package in "$@"; do
      version=$(patiently timeout 600 tools/debian-package.sh "$suite" "$package" "$work")
      say "unpacked $package $version from Debian $suite"
    done
    chmod 755 "$work"
    mv "$work" "$folder"
  fi
  echo "$folder/usr/bin"
}

# etcd SUITE PREFIX PACKAGE...: prints the folder with the binaries of that suite's packages, whose version must
# begin with PREFIX.
etcd() {
  local suite=$1 prefix=$2 folder version
  shift 2
  folder=$(unpacked etcd "$suite" "$@")
  version=$("$folder/etcd" --version | sed -n 's/^etcd Version: //p')
  case $version in
    "$prefix"*) echo "$folder" ;;
    *) die "Debian $suite has etcd $version; the tests are written for $prefix" ;;
  esac
}

# Prints the folder with the servers of tools/wheels.txt. A wheel is a zip file: nothing is installed.
wheels() {
  local key folder work wheel
  key=$(sha256sum tools/wheels.txt | cut -c1-12)
  folder=$cache/wheels/$key
  if [ ! -d "$folder" ]; then
    mkdir -p "$cache/wheels"
    work=$(mktemp -d "$cache/wheels/unfinished.XXXXXX")
    say "fetching $(sed -n 's/ --hash.*//p' tools/wheels.txt | paste -sd' ')"
    # The Python of Debian, for which python3-pip is.
    patiently /usr/bin/python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
      --require-hashes --requirement tools/wheels.txt --dest "$work" >&2
    for wheel in "$work"/*.whl; do
      unzip -q -j "$wheel" '*.data/scripts/*' -d "$work"
      rm "$wheel"
    done
    chmod 755 "$work" "$work"/*
    mv "$work" "$folder"
  fi
  echo "$folder"
}

# Prints the folder with Helm's engine, a library with its Python module: tools/helm.txt says which. Nothing is installed.
helm() {
  local key folder work
  key=$(sha256sum tools/helm.txt | cut -c1-12)
  folder=$cache/helm/$key
  if [ ! -d "$folder" ]; then
    mkdir -p "$cache/helm"
    work=$(mktemp -d "$cache/helm/unfinished.XXXXXX")
    say "fetching $(sed -n 's/ --hash.*//p' tools/helm.txt | paste -sd' ')"
    patiently /usr/bin/python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --upgrade \
      --require-hashes --requirement tools/helm.txt --target "$work" --no-compile --root-user-action ignore >&2
    # Three names of one library, which pip makes files of their own.
    for name in "$work"/helm_python/lib/libhelm_c.so.*; do ln -f "$work/helm_python/lib/libhelm_c.so" "$name"; done
    chmod 755 "$work"
    mv "$work" "$folder"
  fi
  echo "$folder"
}

# Prints the folder with bolt-check, the judge of our files: Debian's bbolt, built with Debian's Go.
bolt_check() {
  local key folder work
  key=$(cat tools/bolt-check/* | sha256sum | cut -c1-12)
  folder=$cache/bolt-check/$key
  if [ ! -d "$folder" ]; then
    say "building bolt-check"
    mkdir -p "$cache/bolt-check"
    work=$(mktemp -d "$cache/bolt-check/unfinished.XXXXXX")
    tools/bolt-check/build.sh "$work" >&2
    mv "$work" "$folder"
  fi
  echo "$folder/bolt-check"
}

# cargo_tool NAME VERSION: builds cargo-NAME into the cache unless there is one already.
cargo_tool() {
  ! have "cargo-$1" || return 0
  say "building cargo-$1 $2, once; this takes some minutes"
  CARGO_TARGET_DIR=$cache/cargo-tools/target patiently cargo install --locked --quiet --root "$cache/cargo-tools" \
    --version "$2" "cargo-$1" >&2
  rm -rf "$cache/cargo-tools/target"
}

want_build() {
  have cargo || die "cargo is missing: install Rust with rustup, then run this again"
  want cc gcc libc6-dev
  want protoc protobuf-compiler
  want_package libprotobuf-dev # the .proto files that etcd's own import
  want curl curl ca-certificates
  want xz xz-utils
  want openssl openssl
}

want_test() {
  want_build
  want c++ g++
  want go golang-go
  want_package golang-github-coreos-bbolt-dev
  want zstd zstd
  want age age
  want git git
  want python3 python3
  want_package python3-pip
  want_package python3-yaml
  want systemd-analyze systemd # the checks of units alone; nothing is started
  want ip iproute2
  want unzip unzip
  want_package debootstrap # in a folder that is not on everybody's path
  want ssh openssh-client
}

# An sshd for tools/loopback.sh. To install it would start a service on this machine.
put_sshd() {
  local bin library
  ! PATH=$PATH:/usr/sbin have sshd || return 0
  bin=$(unpacked sshd bookworm openssh-server libwrap0 libnsl2 libtirpc3)
  library=$(find "${bin%/usr/bin}" -name 'lib*.so.*' -printf '%h\n' | sort -u | paste -sd:)
  put LIFEBOAT_SSHD "${bin%/bin}/sbin/sshd"
  put LIFEBOAT_SSHD_LIBRARIES "$library"
}

# Prints the tree of the tests' Debian hosts. Whoever is not root cannot make or boot it, and is told so by the tests.
hosts() { patiently as_root env XDG_CACHE_HOME="$(dirname "$cache")" tools/hosts.sh build "$1"; }

put() { printf 'export %s=%q\n' "$1" "$2"; }

case $for_what in
  demo)
    want_build
    want ssh openssh-client
    install_missing
    bin=$(etcd bookworm 3.4. etcd-server etcd-client); put LIFEBOAT_ETCD_3_4 "$bin"
    put_sshd
    ;;
  bench)
    want_build
    want python3 python3
    want_package python3-pip
    want unzip unzip
    want zstd zstd
    want ssh openssh-client
    install_missing
    bin=$(etcd trixie 3.5. etcd-server etcd-client); put LIFEBOAT_ETCD_3_5 "$bin"
    put_sshd
    bin=$(wheels); put LIFEBOAT_WEED "$bin/weed"; put LIFEBOAT_RCLONE "$bin/rclone"
    ;;
  test)
    want_test
    install_missing
    bin=$(etcd bookworm 3.4. etcd-server etcd-client); put LIFEBOAT_ETCD_3_4 "$bin"
    bin=$(etcd trixie 3.5. etcd-server etcd-client); put LIFEBOAT_ETCD_3_5 "$bin"
    tree=$(hosts "$bin"); put LIFEBOAT_HOSTS "$tree"
    bin=$(etcd sid 3.5. etcd-server etcd-client); put LIFEBOAT_ETCD_3_5_30 "$bin"
    bin=$(bolt_check); put LIFEBOAT_BOLT_CHECK "$bin"
    [ -n "${KUBEBUILDER_ASSETS:-}" ] || { bin=$(patiently tools/kube-node.sh assets); put LIFEBOAT_KUBE_ASSETS "$bin"; }
    bin=$(wheels); put LIFEBOAT_WEED "$bin/weed"; put LIFEBOAT_RCLONE "$bin/rclone"
    put_sshd
    bin=$(unpacked kubectl trixie kubectl); put LIFEBOAT_KUBECTL "$bin/kubectl"
    bin=$(helm); put LIFEBOAT_HELM "$bin"
    bin=$(unpacked prometheus bookworm prometheus); put LIFEBOAT_PROMTOOL "$bin/promtool"
    # A module for names, and the C library it is made for, which is newer than that of bookworm.
    bin=$(unpacked nss trixie libnss-myhostname libc6 libcap2); put LIFEBOAT_FOREIGN_NSS "${bin%/usr/bin}"
    PATH=$PATH:$cache/cargo-tools/bin
    put PATH "$PATH"
    cargo_tool nextest 0.9.143
    cargo_tool deny 0.20.2
    ;;
  *) usage ;;
esac
