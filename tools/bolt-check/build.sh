#!/bin/sh
# Builds bolt-check with Debian's Go and Debian's bbolt, and prints the path of the binary.
#
# usage: build.sh OUTDIR
#
# Needs the packages golang-go and golang-github-coreos-bbolt-dev. Nothing is downloaded: the sources are
# those that the second package keeps under /usr/share/gocode.
set -eu

[ $# -eq 1 ] || { echo "usage: $0 OUTDIR" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")"
gopath=/usr/share/gocode
if [ ! -d "$gopath/src/go.etcd.io/bbolt" ]; then
    echo "error: bbolt's sources are missing" >&2
    echo "help: apt-get install golang-go golang-github-coreos-bbolt-dev" >&2
    exit 1
fi
GO111MODULE=off GOPATH=$gopath GOFLAGS= GOTOOLCHAIN=local go build -o "$out/bolt-check" main.go
echo "$out/bolt-check"
