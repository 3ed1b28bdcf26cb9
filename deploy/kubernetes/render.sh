#!/usr/bin/env bash
# Prints one of the manifests here for a given cluster:
#   render.sh FILE [--image IMAGE] [--old]
# --old writes batch/v1beta1 for Kubernetes before 1.21; the fields are the same. Everything else is edited by hand:
# endpoints, schedule and bucket are in the ConfigMap at the top of each file.
set -euo pipefail
usage() { echo "usage: render.sh FILE [--image IMAGE] [--old]" >&2; exit 2; }
file=${1:-} image='' version=batch/v1
[ -f "$file" ] || usage
shift
while [ $# -gt 0 ]; do
  case $1 in
    --old) version=batch/v1beta1 ;;
    --image) [ $# -ge 2 ] || usage; image=$2; shift ;;
    *) usage ;;
  esac
  shift
done
# Only CronJobs have batch/ here.
sed -e "s|^apiVersion: batch/v1\$|apiVersion: $version|" \
  ${image:+-e "s|^\( *image:\) .*|\1 $image|"} "$file"
