#!/usr/bin/env bash
# Runs a command that builds, and lets a new checkout use what an older one has built: cargo compares times, and the
# files of a checkout are all new.
#   tools/file-times.sh FOLDER COMMAND...
# FOLDER is where cargo builds. Each file gets the time at which it was first seen with its content, and one that has
# changed since the last call gets the present. Nobody else may build in FOLDER meanwhile.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
folder=${1:?usage: tools/file-times.sh FOLDER COMMAND...}
seen=$folder/file-times built=$folder/file-times.built
mkdir -p "$folder"

# What was built without us, from whatever files, is newer than all that was seen, and would be taken for ours. So
# nothing counts as seen if anything is newer than the end of our last command, or if that was cut short.
if [ ! -e "$built" ] || [ -n "$(find "$folder" -name invoked.timestamp -newer "$built" -print -quit)" ]; then
  : >"$seen"
fi
rm -f "$built"

# Lines of a digest, a time and a name.
git ls-files -z | xargs -0 sha256sum | awk -v now="$(date +%s.%N)" '
  FILENAME == ARGV[1] { time[$1 " " $3] = $2; next }
  { print $1, ($1 " " $2 in time ? time[$1 " " $2] : now), $2 }' "$seen" - >"$seen.new"
mv "$seen.new" "$seen"
while read -r _ time name; do
  touch --no-create --date "@$time" "$name"
done <"$seen"

code=0
"${@:2}" || code=$?
touch "$built"
exit "$code"
