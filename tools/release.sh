#!/usr/bin/env bash
# Builds the released binary, which needs nothing of the machine it runs on, and says where it is:
#   tools/release.sh [FOLDER]     [default: dist]
# FOLDER gets lifeboat-VERSION-linux-ARCH and its digest beside it, as `sha256sum --check` reads it.
#
# The C library is linked in (docs/static-binary.md says what that means). With --target, its flags are for the
# product alone and not for build scripts and macros, which cannot be static.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
folder=${1:-dist}

say() { echo "release: $*" >&2; }
die() { say "$*"; exit 1; }

target=$(rustc -vV | sed -n 's/^host: //p')
case $target in
  x86_64-unknown-linux-gnu) arch=amd64 ;;
  aarch64-unknown-linux-gnu) arch=arm64 ;;
  *) die "built on Linux with the gnu target only, and this is $target" ;;
esac
version=$(sed -n '/^\[workspace\.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
objects=${CARGO_TARGET_DIR:-target}/static
mkdir -p "$objects"
cc -O2 -fPIE -Wall -Werror -c tools/static-names.c -o "$work/names.o"
# Under a name that tells its content, so that cargo links again when it changes and only then.
names=$(realpath "$objects")/names-$(sha256sum "$work/names.o" | cut -c1-12).o
mv "$work/names.o" "$names"

# The object goes to the last link alone: as one of RUSTFLAGS it would have every dependency built again.
RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" \
  cargo rustc --locked --release --quiet --package lifeboat --bin lifeboat --target "$target" -- \
  -C link-arg="$names"

built=${CARGO_TARGET_DIR:-target}/$target/release/lifeboat
# An interpreter is the dynamic linker: a static binary has none.
elf=$(readelf --program-headers --dynamic --wide "$built")
[[ $elf != *INTERP* ]] || die "$built asks for a dynamic linker"
[[ $elf != *NEEDED* ]] || die "$built asks for shared libraries"
said=$("$built" version 2>/dev/null || "$built" --version)
[[ $said = *"$version"* ]] || die "$built says it is $said, not $version"

mkdir -p "$folder"
name=lifeboat-$version-linux-$arch
install -m 755 "$built" "$folder/$name"
(cd "$folder" && sha256sum "$name" >"$name.sha256")
say "$name, $(stat -c %s "$folder/$name") bytes"
echo "$folder/$name"
