#!/usr/bin/env bash
# Lets a checkout use what another one has built: cargo compares times, and a checkout's files are all new.
#   tools/file-times.sh FOLDER
# Each file gets the time at which it was first seen with this content, and one that has changed since the last
# call gets the present. FOLDER, where cargo builds, keeps what was seen; nobody else may build there meanwhile.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
folder=${1:?usage: tools/file-times.sh FOLDER}
seen=$folder/file-times
mkdir -p "$folder"
[ -e "$seen" ] || : >"$seen"

# Lines of a digest, a time and a name.
git ls-files -z | xargs -0 sha256sum | awk -v now="$(date +%s.%N)" '
  FILENAME == ARGV[1] { time[$1 " " $3] = $2; next }
  { print $1, ($1 " " $2 in time ? time[$1 " " $2] : now), $2 }' "$seen" - >"$seen.new"
# Written before any file is: a call that is cut short is made up for by the next.
mv "$seen.new" "$seen"
while read -r _ time name; do
  touch --no-create --date "@$time" "$name"
done <"$seen"
