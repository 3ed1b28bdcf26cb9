# Tells how etcd runs on this host. Reads only. Nothing secret is printed: see redact.
#
# `more`, set before this text, names further files and directories to look at.
#
# What it prints: lines "@KIND NAME", each followed by lines of text behind a bar. The last line is "@end".
LC_ALL=C PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH

# Passwords in URLs; values of whatever is called a password or a secret; the same of pairs in manifests.
redact() {
  sed -E \
    -e 's#://[^/@[:space:]"]*@#://(redacted)@#g' \
    -e 's/^([[:space:]]*[A-Za-z0-9_]*([Pp][Aa][Ss][Ss][Ww]|[Ss][Ee][Cc][Rr][Ee][Tt])[A-Za-z0-9_]*=).*/\1(redacted)/' \
    -e "s/([\"'])([A-Za-z0-9_-]*([Pp][Aa][Ss][Ss][Ww]|[Ss][Ee][Cc][Rr][Ee][Tt])[A-Za-z0-9_-]*=)[^\"']*/\\1\\2(redacted)/g" \
    -e "s/(([Pp][Aa][Ss][Ss][Ww]|[Ss][Ee][Cc][Rr][Ee][Tt])[A-Za-z0-9_-]*[\"']?[=:][[:space:]]*)(\"[^\"]*\"|'[^']*'|[^[:space:]\"']+)/\\1(redacted)/g" \
    -e '/name:.*([Pp][Aa][Ss][Ss][Ww]|[Ss][Ee][Cc][Rr][Ee][Tt])/{n;s/(value:).*/\1 (redacted)/;}'
}
body() { redact | sed 's/^/|/'; echo; }
section() { printf '\n@%s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }

# Everything that was read, to find paths in.
pool=
show() { # KIND NAME TEXT
  section "$1" "$2"
  printf '%s\n' "$3" | body
  pool="$pool
$3"
}
shown=' '
file() { # PATH: shown once
  case "$shown" in *" $1 "*) return ;; esac
  [ -f "$1" ] && [ -r "$1" ] || return 0
  shown="$shown$1 "
  show file "$1" "$(head -c 262144 "$1" | tr -d '\0')"
}
# Of a file of variables, only etcd's own and those that commands are made of.
env_file() { # PATH NAMES
  case "$shown" in *" $1 "*) return ;; esac
  [ -f "$1" ] && [ -r "$1" ] || return 0
  shown="$shown$1 "
  show file "$1" "$(head -c 262144 "$1" | tr -d '\0' | awk -v names=" $2 " '
    on { if (keep) print; on = /\\$/; next }
    /^[ \t]*[A-Za-z_][A-Za-z0-9_]*[ \t]*=/ {
      name = $0; sub(/^[ \t]*/, "", name); sub(/[ \t]*=.*/, "", name)
      keep = (name ~ /^ETCD/ || index(names, " " name " ")) && toupper(name) !~ /PASSW|SECRET/
      if (keep) print
      on = /\\$/
    }')"
}

main() {
section system
{
  echo "hostname=$(hostname 2>/dev/null || cat /proc/sys/kernel/hostname)"
  echo "machine=$(uname -m)"
  echo "user=$(id -un)"
  echo "time=$(date +%s)"
  echo "selinux=$(getenforce 2>/dev/null || echo none)"
  have systemctl && [ -d /run/systemd/system ] && echo 'systemd=yes'
  for tool in openssl tar sha256sum curl ss; do have "$tool" && echo "tool=$tool"; done
  [ -d /var/lib/rancher/k3s/server/db/etcd ] && echo 'platform=k3s'
  [ -d /var/lib/rancher/rke2/server/db/etcd ] && echo 'platform=rke2'
  [ -e /etc/kubernetes/manifests/etcd-pod.yaml ] && [ -d /etc/kubernetes/static-pod-resources ] && echo 'platform=openshift'
  [ -d /var/snap/microk8s ] && echo 'platform=microk8s'
} | body

# Units of etcd, and the files of variables that they name.
units=
if [ -d /run/systemd/system ] && have systemctl; then
  units=$({
    systemctl list-unit-files --no-legend --no-pager 'etcd*.service'
    systemctl list-units --all --plain --no-legend --no-pager 'etcd*.service'
  } 2>/dev/null | awk '$1 !~ /@\.service$/ && $2 != "not-found" && $2 != "alias" {print $1}' | sort -u)
  unit_text() { systemctl cat --no-pager "$1" 2>/dev/null; }
else
  units=$(for d in /etc /run /usr/local/lib /usr/lib /lib; do ls "$d/systemd/system" 2>/dev/null; done |
    grep '^etcd.*\.service$' | grep -v '@\.service$' | sort -u | while read -r unit; do
    # A link is another name, or masks it.
    for d in /etc /run /usr/local/lib /usr/lib /lib; do
      [ -e "$d/systemd/system/$unit" ] && { [ -L "$d/systemd/system/$unit" ] || echo "$unit"; break; }
    done
  done)
  unit_text() {
    for d in /etc /run /usr/local/lib /usr/lib /lib; do
      [ -f "$d/systemd/system/$1" ] && { echo "# $d/systemd/system/$1"; cat "$d/systemd/system/$1"; break; }
    done
    for d in /lib /usr/lib /usr/local/lib /run /etc; do
      for f in "$d/systemd/system/$1.d"/*.conf; do [ -f "$f" ] && { echo; echo "# $f"; cat "$f"; }; done
    done
  }
fi
for unit in $units; do
  text=$(unit_text "$unit")
  show unit "$unit" "$text"
  if [ -d /run/systemd/system ]; then
    section state "$unit"
    systemctl show -p LoadState,ActiveState,UnitFileState,MainPID "$unit" 2>/dev/null | body
  fi
  stem=${unit%.service} prefix=${stem%%@*} instance=${stem#*@}
  names=$(printf '%s\n' "$text" | grep -oE '\$\{?[A-Za-z_][A-Za-z0-9_]*' | tr -d '${' | sort -u | tr '\n' ' ')
  for path in $(printf '%s\n' "$text" | sed -n 's/^[[:space:]]*EnvironmentFile=[[:space:]]*-\{0,1\}//p' |
    sed -e "s/%[pP]/$prefix/g" -e "s/%N/$stem/g" -e "s/%n/$unit/g" -e "s/%[iI]/$instance/g" -e 's#%E#/etc#g'); do
    env_file "$path" "$names"
  done
done
env_file /etc/default/etcd ''

# Static pods.
pods=$(sed -n 's/^staticPodPath:[[:space:]]*//p' /var/lib/kubelet/config.yaml 2>/dev/null | tr -d "\"'" | head -n 1)
for dir in "$pods" /etc/kubernetes/manifests; do
  [ -d "$dir" ] || continue
  for path in "$dir"/*.yaml "$dir"/*.yml "$dir"/*.json; do
    case "$path" in
      */etcd*) file "$path" ;;
      *) [ -f "$path" ] && case "$shown" in *" $path "*) ;; *)
        shown="$shown$path "
        section manifest "$path"
        grep -oE -e '--(secure-port|etcd-servers)=[^ "]+' "$path" | body ;;
      esac ;;
    esac
  done
done

# Kubernetes' own units.
if [ -d /run/systemd/system ]; then
  for unit in kube-apiserver kube-scheduler kube-controller-manager kubelet k3s rke2-server; do
    section state "$unit.service"
    systemctl show -p LoadState,ActiveState,UnitFileState,MainPID "$unit.service" 2>/dev/null | body
  done
  section manifest kube-apiserver.service
  systemctl cat --no-pager kube-apiserver.service 2>/dev/null | grep -oE -e '--(secure-port|etcd-servers)[= ][^ "\\]+' | body
fi

is_etcd() { # PROC
  comm=
  { read -r comm <"$1/comm"; } 2>/dev/null
  [ "$comm" = etcd ]
}
# What runs: arguments one a line, and etcd's variables.
for proc in /proc/[0-9]*; do
  is_etcd "$proc" || continue
  pid=${proc#/proc/}
  show process "$pid" "$(tr '\n\0' ' \n' <"$proc/cmdline" 2>/dev/null)"
  show environ "$pid" "$(tr '\n\0' ' \n' <"$proc/environ" 2>/dev/null | grep '^ETCD_')"
  section about "$pid"
  {
    echo "exe=$(readlink "$proc/exe")"
    echo "cwd=$(readlink "$proc/cwd")"
    echo "user=$(stat -c %U "$proc")"
    sed 's/^/cgroup=/' "$proc/cgroup" 2>/dev/null
  } | body
done

# etcd's own config files.
for path in $(printf '%s\n' "$pool" | grep -oE '(config-file|CONFIG_FILE)["'\'']?[= ]+["'\'']?/[^ "'\'',;\\]+' | sed 's#^[^/]*##' | sort -u) $more; do
  file "$path"
done

# Directories that may be etcd's.
for dir in $({
  printf '%s\n' "$pool" | grep -oE '(data-dir|wal-dir|DATA_DIR|WAL_DIR)["'\'']?[=: ]+["'\'']?/[^ "'\'',;\\]+' | sed 's#^[^/]*##'
  printf '%s\n' "$pool" | sed -n 's/^[^#]*path:[[:space:]]*\(\/[^ ,}]*\).*/\1/p' | tr -d "\"'"
  printf '%s\n' /var/lib/etcd /var/lib/etcd/default $more
} | sort -u); do
  [ -d "$dir" ] || continue
  case "$dir" in /|/etc/*) continue ;; esac
  section dir "$dir"
  {
    echo "owner=$(stat -c %U:%G "$dir")"
    echo "mode=$(stat -c %a "$dir")"
    [ -d "$dir/member" ] && echo "member=yes" && echo "used-kib=$(du -sk "$dir" 2>/dev/null | cut -f1)"
    [ -d "$dir/member/wal" ] && echo 'wal=yes'
    [ -f "$dir/member/snap/db" ] && echo "db-time=$(stat -c %Y "$dir/member/snap/db")"
    echo "free-kib=$(df -Pk "$dir" | awk 'NR == 2 {print $4}')"
  } | body
done

# Certificates beside etcd's own, and what they are for: one of them may be a client's. Keys are not opened.
have openssl && for dir in $(printf '%s\n' "$pool" | grep -oE '(cert-file|CERT_FILE)["'\'']?[=: ]+["'\'']?/[^ "'\'',;\\]+' |
  sed -e 's#^[^/]*##' -e 's#/[^/]*$##' | sort -u); do
  for path in "$dir"/*.crt "$dir"/*.pem; do
    case "$path" in *key*) continue ;; esac
    [ -f "$path" ] || continue
    text=$(openssl x509 -in "$path" -noout -text -nameopt RFC2253 2>/dev/null) || continue
    case "$text" in *CA:TRUE*) continue ;; esac
    section cert "$path"
    {
      printf '%s\n' "$text" | sed -n 's/^ *Issuer: */issuer=/p'
      printf '%s\n' "$text" | grep -A1 'Extended Key Usage' | grep -q 'Client Authentication' && echo 'use=client'
      printf '%s\n' "$text" | grep -A1 'Extended Key Usage' | grep -q 'Server Authentication' && echo 'use=server'
      for key in "${path%.*}.key" "${path%.*}-key.pem" "${path%.*}.key.pem"; do [ -f "$key" ] && echo "key=$key"; done
    } | body
  done
done

# Versions of what runs or would run; wrappers are not run.
for path in $({
  command -v etcd
  for proc in /proc/[0-9]*; do is_etcd "$proc" && readlink "$proc/exe"; done
  printf '%s\n' "$pool" | grep -E '^[[:space:]]*ExecStart=' | grep -oE '/[^ "'\'']*/etcd' 
} 2>/dev/null | sort -u); do
  [ -x "$path" ] && head -c 4 "$path" 2>/dev/null | grep -q ELF || continue
  section version "$path"
  if have timeout; then timeout 5 "$path" --version 2>/dev/null; else "$path" --version 2>/dev/null; fi </dev/null | head -n 4 | body
done
section end
}
main </dev/null
