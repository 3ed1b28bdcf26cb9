#!/usr/bin/env bash
# A REAL one-node Kubernetes 1.20.2 (etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy,
# containerd + runc, bridge CNI) from Debian bookworm's packages only, for ./test kube.
# The Kubernetes programs are built from Debian's source package with Debian's Go; the rest are Debian's own binaries.
# Needs root, cgroup v1 (or hybrid), overlayfs, apt's Debian mirror, curl, dpkg, openssl, python3, iproute2, util-linux. Installs nothing on the host.
#   kube-node.sh build                        fetch and build what is missing
#   kube-node.sh assets                       the same; prints a folder with kube-apiserver, etcd and kubectl alone, as KUBEBUILDER_ASSETS is
#   kube-node.sh start                        build if needed, start a FRESH cluster, wait until the node is Ready; prints KUBECONFIG=...
#   kube-node.sh stop                         end it like a power cut (one kill by pid: everything lives in one pid namespace), remove its cgroups
#   kube-node.sh reboot                       stop, then start the SAME cluster again with all its state, as a machine's restart would
#   kube-node.sh image REF OUT.tar FILE... [-- CMD ARG...]
#                                             make an image: busybox + FILEs in /usr/local/bin with the shared libraries they need
#   kube-node.sh load-image TAR...            import docker/OCI archives into the running node (use imagePullPolicy: Never or IfNotPresent)
#   kube-node.sh exec CMD...                  run CMD inside the node's namespaces (pod and service addresses and cluster DNS work there)
#   kube-node.sh netexec CMD...               the same, but only the node's network namespace (the host's files and processes)
#   env: KNODE   work folder (default in the cache folder)    KAPI  a folder with bin/kube-apiserver that is reused if there
#        PORT    API port on 127.0.0.1, the same on the host and in the node (default a free one)
#        STATIC_PODS=1  for start: etcd and kube-apiserver are static pods that kubelet runs, as kubeadm has it, and no processes beside it
#        KEEP_GOCACHE=1, APISERVER_EXTRA, KCM_EXTRA, KUBELET_EXTRA, SNAPSHOTTER (overlayfs | native), NODE_NAME
# The whole node runs in its own mount, network, pid, uts, ipc and cgroup namespaces. Its network has no uplink, so a pod can never
# reach anything outside this machine; the API server alone is relayed to 127.0.0.1:PORT on the host.
# Always there after start: images localhost/pause:1, localhost/busybox:1.35, localhost/etcd:3.4.23 (etcd, etcdctl, busybox).
# Static pods: put manifests in $KNODE/manifests. Logs: $KNODE/log. Cluster DNS is a 60-line stand-in for CoreDNS (A, AAAA, SRV).
# A tar put in $KNODE/images is imported at every start. Not there: kube-state metrics, a default StorageClass (make PVs by hand), NetworkPolicy,
# load balancers. No CAP_SYS_RESOURCE is needed (kubelet's "failed to apply oom score" is harmless). busybox-static's `wget -T` crashes: leave -T out.
# To serve an admission webhook from a process of the host, run it with netexec: the API server can't reach the host's own network.
# Measured on 2 cores: build 6 min from nothing (167 MB fetched, 3.1 GB of disk at the peak, 816 MB kept); start 10-14 s (19 s from a cold disk); stop 1.5 s; reboot 8-10 s.
# A 3-replica etcd StatefulSet: 15-20 s from apply to ready, 9-13 s down to 0, 4-9 s back up. Kubelet differs from 1.20.2 in two waiting times (see build).
# RSS: 0.9 GB with 10 pods (kube-apiserver 355 MB, controller-manager 102, kubelet 95, containerd 59, etcd 55, scheduler 47, kube-proxy 38, shim 14 a pod).
# Versions: Kubernetes 1.20.2, Go 1.19.8, containerd 1.6.20, runc 1.1.5, CNI plugins 1.1.1, iptables 1.8.9, etcd 3.4.23, busybox 1.35 (CronJob is batch/v1beta1).
set -euo pipefail
SELF=$(readlink -f "$0")
# A script that builds something else builds it elsewhere.
KNODE=${KNODE:-${XDG_CACHE_HOME:-$HOME/.cache}/lifeboat/kube-node/$(sed -n '/^DEBS=/,/^# -* inside/p' "$SELF" | sha256sum | cut -c1-12)}
KAPI=${KAPI:-${XDG_CACHE_HOME:-$HOME/.cache}/lifeboat/kube-api}
NODE_NAME=${NODE_NAME:-node1}; NODE_IP=10.200.0.1; SVC_CIDR=10.96.0.0/16; SVC_API=10.96.0.1; POD_CIDR=10.244.0.0/16; NODE_POD_CIDR=10.244.0.0/24
mkdir -p "$KNODE"/{dl,bin,state,log,images,manifests}; KNODE=$(cd "$KNODE" && pwd -P); export KNODE KAPI NODE_NAME
S=$KNODE/state; R=$KNODE/root
LIBS=$R/usr/lib/x86_64-linux-gnu
say(){ printf '[%4ds] %s\n' "$SECONDS" "$*"; }
die(){ echo "kube-node: $*" >&2; exit 1; }
nodepath(){ export PATH="$KNODE/bin:$R/usr/sbin:$R/usr/bin:$PATH" LD_LIBRARY_PATH="$LIBS" XTABLES_LIBDIR="$LIBS/xtables"; }

# ---------- pids: "PID START-TIME", so that a reused pid is never killed ----------
pstart(){ sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
pidsave(){ echo "$2 $(pstart "$2")" > "$S/$1.pid"; }
pidlive(){ local p t; [ -f "$S/$1.pid" ] && read -r p t < "$S/$1.pid" && [ -n "$t" ] && [ "$(pstart "$p")" = "$t" ] && echo "$p"; }
stop(){
  local n p i d
  for n in relay init; do
    p=$(pidlive $n) || { rm -f "$S/$n.pid"; continue; }
    kill -KILL "$p" 2>/dev/null || true               # init is pid 1 of the node's pid namespace: the kernel ends everything in it
    for i in $(seq 200); do pidlive $n >/dev/null || break; sleep .05; done; rm -f "$S/$n.pid"
  done
  [ -f "$S/cgroups" ] && while read -r d; do [ -d "$d" ] || continue
    for i in $(seq 100); do find "$d" -depth -type d -exec rmdir {} + 2>/dev/null || true; [ -d "$d" ] || break; sleep .05; done
    [ -d "$d" ] && echo "kube-node: cgroup $d is still busy" >&2
  done < "$S/cgroups"; rm -f "$S/cgroups"; }

# ---------- download: pinned by sha256 ----------
get(){ # pool path, sha256 -> dl/<basename>
  local f; f="$KNODE/dl/$(basename "$1")"
  [ -f "$f" ] && echo "$2  $f" | sha256sum -c --status && return
  [ -n "${POOL:-}" ] || { POOL=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | awk '/\/debian\/$/ && !n++'); POOL=${POOL:?apt knows no Debian mirror}pool/main; }
  if [ -f "$KAPI/dl/$(basename "$1")" ]; then cp "$KAPI/dl/$(basename "$1")" "$f"
  elif ! curl -fsS --retry 5 -o "$f" "$POOL/$1"; then
    case $1 in *.deb) # a point release has replaced it: take apt's candidate, checked by apt, and say so
      local p; p=$(basename "$1"); p=${p%%_*}; echo "kube-node: $(basename "$1") is gone from the mirror, taking apt's $p" >&2
      (cd "$KNODE/dl" && apt-get -q update >/dev/null && apt-get -o APT::Sandbox::User=root download "$p" >/dev/null && mv -f "$(ls -t "${p}"_*.deb | head -1)" "$f"); return;; esac
    return 1; fi
  echo "$2  $f" | sha256sum -c --quiet; }

DEBS='
c/containerd/containerd_1.6.20~ds1-1+deb12u3_amd64.deb 8669d264eeb0fcdb4a0b1ba436ab88ec5dafde4a66e1278ec279d830db4c2216
r/runc/runc_1.1.5+ds1-1+deb12u1_amd64.deb a00351f8c0318de0b424ecf5cd0fdb69880a89f3511cae4f6fff7de3e57881c5
libs/libseccomp/libseccomp2_2.5.4-1+deb12u1_amd64.deb 108fe67957ca7cf9ba51d801118a1b37d404bea7b6e365025cd00779e9eca38d
g/golang-github-containernetworking-plugins/containernetworking-plugins_1.1.1+ds1-3+b5_amd64.deb 4cac8143474d1249b19f7b0e80b8d0daaa6dfdaa8bd514bc468d38d4a108099f
i/iptables/iptables_1.8.9-2_amd64.deb 2928d3ca6ca8a3dc3f423f6752822b1f3614a5ba609ff7806bcba4449ffe90e1
i/iptables/libip4tc2_1.8.9-2_amd64.deb f2c48b367f9ec13f9aa577e7ccf81b371ce5d5fe22dddf9d7aa99f1e0bb7cfc4
i/iptables/libip6tc2_1.8.9-2_amd64.deb be88db3dfa2fe3345ea343207f7c75345602686121e579023d021c348b9b4f4d
i/iptables/libxtables12_1.8.9-2_amd64.deb cb841d66950a43af4a398625313d2f3da9065299c9738538de6c2c3495857040
libn/libnftnl/libnftnl11_1.2.4-2_amd64.deb 9e619e1470a1915264e906020f3bfc046fd8458043b1342686d997b5078213af
libm/libmnl/libmnl0_1.0.4-3_amd64.deb 4581f42e3373cb72f9ea4e88163b17873afca614a6c6f54637e95aa75983ea7c
libn/libnetfilter-conntrack/libnetfilter-conntrack3_1.0.9-3_amd64.deb 65f1539238f60fcc85d115acd640474f45c77bfddcf402eb7d75965a783c2bc8
libn/libnfnetlink/libnfnetlink0_1.0.2-2_amd64.deb ae5cbba417ea48f34c1f72c27e8146a81f20614c1296bca2cd7234c8215fddcc
c/conntrack-tools/conntrack_1.4.7-1+b2_amd64.deb 9827d60b60c1b5673e97f34db48d9db79e9f9ef807ee998320f6dafc80711e82
b/busybox/busybox-static_1.35.0-4+deb12u1+b1_amd64.deb 3d3fdbe91d4660c873e14b092c213fe81c1da6362daa236eb25d0171eb108744
c/catatonit/catatonit_0.1.7-1+b2_amd64.deb 3ee3137f8499a0b9a77172f57acf73f6da5bd1efd477fb307bb96399b338fc64
k/kubernetes/kubernetes-client_1.20.5+really1.20.2-1.1+deb12u1_amd64.deb 087c42dc26c847740043cdaa8b16db666be5591a1da957f822922aa1b677494e
e/etcd/etcd-server_3.4.23-4+b4_amd64.deb 3a9445d4560ad6de1c375756b2a17d97713df44cbd20a658c871fe108af7ef5d
e/etcd/etcd-client_3.4.23-4+b4_amd64.deb db3a484d5d924b50bf71f459ee544ecd7b11c25dc2f6becc0c50352d67299cc8
'
SRC='
k/kubernetes/kubernetes_1.20.5+really1.20.2.orig.tar.gz b83c0780efb182d928dc63d46488a847f161f04e40a94b96bf5247dd671ecdfc
g/golang-1.19/golang-1.19-go_1.19.8-2_amd64.deb 545123039b6c79e75cf2d86528781a825424cf33ce9d3f4513d772d7144cd531
g/golang-1.19/golang-1.19-src_1.19.8-2_all.deb 2dfa82fe4f08f4e0193c532e561af4c91871f5235608f04f2bb8d57bb288df5a
g/golang-github-modern-go-reflect2/golang-github-modern-go-reflect2-dev_1.0.2-2_all.deb af150a5172cf4c19bb321a53e67103e7fb18d07c1baa1e816a235155265d3948
'

# ---------- images ----------
image(){ # REF OUT.tar FILE... [-- CMD...]: a docker archive with one layer (no registry, no docker)
  local ref=$1 out=$2 t f l; shift 2; t=$(mktemp -d); mkdir -p "$t"/{bin,etc,tmp,root,usr/local/bin,lib64,lib}; chmod 1777 "$t/tmp"
  echo 'root:x:0:0:root:/root:/bin/sh' > "$t/etc/passwd"; echo 'root:x:0:' > "$t/etc/group"
  cp "$R/usr/bin/busybox" "$t/bin/busybox"; for f in $("$t/bin/busybox" --list); do [ "$f" = busybox ] || ln -s busybox "$t/bin/$f"; done
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    install -m 755 "$1" "$t/usr/local/bin/"
    for l in $(ldd "$1" 2>/dev/null | grep -oE '/[^ ]+\.so[^ ]*' || true); do mkdir -p "$t$(dirname "$l")"; cp -Ln "$l" "$t$l"; done
    shift; done
  [ "${1:-}" = -- ] && shift
  python3 - "$ref" "$out" "$t" "$@" <<'PY'
import sys,tarfile,hashlib,json,io,os
ref,out,root,*cmd=sys.argv[1:]
def norm(i): i.uid=i.gid=0; i.uname=i.gname=''; i.mtime=0; return i
b=io.BytesIO()
with tarfile.open(fileobj=b,mode='w',format=tarfile.PAX_FORMAT) as t:
    for n in sorted(os.listdir(root)): t.add(os.path.join(root,n),n,filter=norm)
layer=b.getvalue(); d=hashlib.sha256(layer).hexdigest()
cfg=json.dumps({"architecture":"amd64","os":"linux","config":{"Env":["PATH=/usr/local/bin:/bin"],"Cmd":cmd or ["/bin/sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:"+d]},"history":[{"created_by":"kube-node.sh"}]}).encode()
c=hashlib.sha256(cfg).hexdigest()
man=json.dumps([{"Config":c+".json","RepoTags":[ref],"Layers":[d+"/layer.tar"]}]).encode()
with tarfile.open(out,'w') as t:
    for n,data in ((c+".json",cfg),(d+"/layer.tar",layer),("manifest.json",man)):
        i=tarfile.TarInfo(n); i.size=len(data); t.addfile(i,io.BytesIO(data))
PY
  rm -rf "$t"; }

# ---------- build ----------
build(){
  local b miss="" u h d
  for b in kube-apiserver kube-controller-manager; do [ -x "$KNODE/bin/$b" ] || [ ! -x "$KAPI/bin/$b" ] || cp "$KAPI/bin/$b" "$KNODE/bin/"; done
  for b in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy; do [ -x "$KNODE/bin/$b" ] || miss+=" ./cmd/$b"; done
  if [ ! -f "$R/.done" ]; then
    while read -r u h; do [ -z "$u" ] || get "$u" "$h"; done <<<"$DEBS"
    rm -rf "$R"; mkdir -p "$R"/usr/{bin,sbin,lib}; for d in bin sbin lib; do ln -s usr/$d "$R/$d"; done
    while read -r u h; do [ -z "$u" ] || { dpkg-deb --fsys-tarfile "$KNODE/dl/$(basename "$u")" | tar x -C "$R" --keep-directory-symlink --exclude=./usr/share --exclude=./etc --exclude=./usr/lib/systemd --exclude=./lib/systemd; }; done <<<"$DEBS"
    for b in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do ln -sf xtables-nft-multi "$R/usr/sbin/$b"; done
    touch "$R/.done"; say "Debian packages unpacked: $(du -sh "$R" | cut -f1)"
  fi
  if [ -n "$miss" ]; then ( # in a subshell: its own PATH and folder
    while read -r u h; do [ -z "$u" ] || get "$u" "$h"; done <<<"$SRC"
    cd "$KNODE"; rm -rf gopath go; mkdir -p gopath/src/k8s.io/kubernetes go
    tar xzf "dl/kubernetes_1.20.5+really1.20.2.orig.tar.gz" -C gopath/src/k8s.io/kubernetes --strip-components=1
    for d in dl/golang-1.19-*.deb; do dpkg -x "$d" go; done
    export GOROOT=$KNODE/go/usr/lib/go-1.19 GOPATH=$KNODE/gopath GOCACHE=$KNODE/gocache
    export PATH=$GOROOT/bin:$PATH GO111MODULE=off CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=
    cd gopath/src/k8s.io/kubernetes
    # The vendored reflect2 1.0.1 corrupts memory under Go >= 1.18: use Debian's 1.0.2
    dpkg -x "$KNODE"/dl/golang-github-modern-go-reflect2-dev_*.deb "$KNODE/reflect2"
    r=vendor/github.com/modern-go/reflect2
    rm -f $r/*.go $r/*.s; cp "$KNODE"/reflect2/usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} $r/; rm -rf "$KNODE/reflect2"
    # kubelet 1.20.2 leaves a deleted pod in the API for up to a minute when it misses the moment to remove the pod's sandbox
    # (later releases don't wait for that). Two waiting times are shortened, nothing else: container GC 60 s, status sync 10 s.
    sed -i 's/^\tContainerGCPeriod = time.Minute$/\tContainerGCPeriod = 2 * time.Second/' pkg/kubelet/kubelet.go; grep -q 'GCPeriod = 2 \*' pkg/kubelet/kubelet.go
    sed -i 's/^const syncPeriod = 10 \* time.Second$/const syncPeriod = 2 * time.Second/' pkg/kubelet/status/status_manager.go; grep -q 'syncPeriod = 2 \*' pkg/kubelet/status/status_manager.go
    say "sources unpacked; $(go version)"
    if [[ $miss == *kube-apiserver* ]]; then # the one generated file that the tarball lacks
      go build -o "$KNODE/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
      in=$( { grep -rl '+k8s:openapi-gen=' --include='*.go' staging/src/k8s.io | sed 's,^staging/src/,vendor/,'
              grep -rl '+k8s:openapi-gen=' --include='*.go' pkg; } \
        | grep -vE '_test\.go$|code-generator/|sample-apiserver/|kube-openapi/' \
        | xargs -n1 dirname | LC_ALL=C sort -u | sed 's,^,k8s.io/kubernetes/,' | paste -sd,)
      "$KNODE/openapi-gen" --logtostderr -i "$in" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
        -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$KNODE/violations.txt"
      cmp "$KNODE/violations.txt" api/api-rules/violation_exceptions.list; rm -f "$KNODE"/{openapi-gen,violations.txt}; say "openapi generated"
    fi
    LD="-s -w"
    for p in component-base/version client-go/pkg/version; do p=k8s.io/kubernetes/vendor/k8s.io/$p
      LD+=" -X $p.gitVersion=v1.20.2 -X $p.gitMajor=1 -X $p.gitMinor=20 -X $p.gitTreeState=archive -X $p.gitCommit=faecb196815e248d3ecfb03c680a4507229c2a56 -X $p.buildDate=2021-01-13T13:20:00Z"; done
    mkdir -p "$KNODE/bin.new"; go build -trimpath -ldflags "$LD" -o "$KNODE/bin.new/" $miss
    say "disk at the peak: $(du -sh "$KNODE" | cut -f1)"
    cd "$KNODE"; mv bin.new/* bin/; rmdir bin.new; rm -rf gopath go; [ "${KEEP_GOCACHE:-0}" = 1 ] || rm -rf gocache
    say "built: $(cd bin && ls -s --block-size=M kube* | paste -sd' ')" ); fi
  if [ ! -f "$KNODE/images/.done" ]; then
    image localhost/pause:1 "$KNODE/images/pause.tar" "$R/usr/bin/catatonit" -- /usr/local/bin/catatonit -P
    image localhost/busybox:1.35 "$KNODE/images/busybox.tar"
    image localhost/etcd:3.4.23 "$KNODE/images/etcd.tar" "$R/usr/bin/etcd" "$R/usr/bin/etcdctl" -- etcd
    touch "$KNODE/images/.done"; say "images: $(cd "$KNODE/images" && ls -s --block-size=M ./*.tar | paste -sd' ')"
  fi; }

# ---------- inside the namespaces: pid 1 of the node ----------
apiserver_command(){ # runs kube-apiserver, or what is in FIRST with its words
  local P=$S/pki
  ${FIRST:-} kube-apiserver --etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 --secure-port="$PORT" --insecure-port=0 --advertise-address=$NODE_IP \
    --service-cluster-ip-range=$SVC_CIDR --allow-privileged=true --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --token-auth-file=$P/tokens.csv \
    --tls-cert-file=$P/srv.crt --tls-private-key-file=$P/srv.key --client-ca-file=$P/ca.crt --kubelet-preferred-address-types=InternalIP --kubelet-client-certificate=$P/kubelet-client.crt --kubelet-client-key=$P/kubelet-client.key \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file=$P/sa.key --service-account-signing-key-file=$P/sa.key \
    --requestheader-client-ca-file=$P/fpca.crt --requestheader-allowed-names=front-proxy-client --requestheader-username-headers=X-Remote-User \
    --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- --proxy-client-cert-file=$P/fp.crt --proxy-client-key-file=$P/fp.key \
    --v=1 ${APISERVER_EXTRA:-}; }
static_pod(){ # NAME IMAGE FOLDER:NAME... -- COMMAND...: its manifest; the folders are mounted where they are
  local name=$1 image=$2 f; shift 2
  printf 'apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: kube-system, labels: {component: %s, tier: control-plane}}\nspec:\n  hostNetwork: true\n  priorityClassName: system-node-critical\n' "$name" "$name"
  printf '  volumes:\n'; for f; do [ "$f" = -- ] && break; printf '  - {name: "%s", hostPath: {path: "%s", type: DirectoryOrCreate}}\n' "${f#*:}" "${f%:*}"; done
  printf '  containers:\n  - name: %s\n    image: %s\n    imagePullPolicy: Never\n    volumeMounts:\n' "$name" "$image"
  while [ "$1" != -- ]; do printf '    - {name: "%s", mountPath: "%s"}\n' "${1#*:}" "${1%:*}"; shift; done; shift
  printf '    command:\n'; for f; do printf '    - "%s"\n' "$f"; done; }
static_pods(){ # manifests of etcd and kube-apiserver, as kubeadm has them but for TLS between the two
  static_pod etcd localhost/etcd:3.4.23 /var/lib/etcd:data -- etcd --name=t --data-dir=/var/lib/etcd --log-outputs=stderr --listen-client-urls=http://127.0.0.1:2379 \
    --advertise-client-urls=http://127.0.0.1:2379 --listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380 --initial-cluster=t=http://127.0.0.1:2380 >"$KNODE/manifests/etcd.yaml"
  local words; mapfile -t words < <(FIRST='printf %s\n' apiserver_command)
  static_pod kube-apiserver localhost/kube-apiserver:1.20.2 "$S/pki:pki" -- "${words[@]}" >"$KNODE/manifests/kube-apiserver.yaml"
  [ -f "$KNODE/apiserver.tar" ] || { image localhost/kube-apiserver:1.20.2 "$KNODE/apiserver.new" "$KNODE/bin/kube-apiserver" && mv "$KNODE/apiserver.new" "$KNODE/apiserver.tar"; }
  touch "$S/static-pods"; }
init(){
  umask 022; cd /; hostname "$NODE_NAME"
  mount --make-rshared /
  mount -t tmpfs -o mode=755 tmpfs /run; mkdir -p /run/lock /run/netns /run/containerd
  mount -t sysfs sysfs /sys; mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
  local id c path o d v f
  while IFS=: read -r id c path; do [ -n "$c" ] || continue
    d=/sys/fs/cgroup/${c#name=}; mkdir -p "$d"; case $c in name=*) o=none,$c;; *) o=$c;; esac
    mount -t cgroup -o "$o" cgroup "$d"; done < /proc/self/cgroup
  mkdir -p "$S"/{varlib/u,varlib/w,kubelet,containerd,varlog,etcd,fake}
  mount -t overlay overlay -o "lowerdir=/var/lib,upperdir=$S/varlib/u,workdir=$S/varlib/w" /var/lib
  for d in kubelet containerd etcd; do mkdir -p /var/lib/$d; mount --bind "$S/$d" /var/lib/$d; done
  mount --bind "$S/varlog" /var/log
  # kubelet insists on these machine-wide sysctls. Show it the values it wants instead of changing the host's.
  for f in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    v=${f#*=}; f=${f%=*}; [ "$(cat /proc/sys/$f)" = "$v" ] || { echo "$v" > "$S/fake/${f//\//.}"; mount --bind "$S/fake/${f//\//.}" /proc/sys/$f; }; done
  ip link set lo up; ip link add node0 type bridge; ip addr add $NODE_IP/24 dev node0; ip link set node0 up; ip route add $SVC_CIDR dev node0 src $NODE_IP
  echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables
  printf 'nameserver %s\nsearch svc.cluster.local cluster.local\noptions ndots:5\n' $NODE_IP > "$S/fake/resolv.conf"; mount --bind "$S/fake/resolv.conf" "$(readlink -f /etc/resolv.conf)"
  nodepath; local L=$KNODE/log K=$S/kc P=$S/pki
  containerd --config "$S/containerd.toml" >"$L/containerd.log" 2>&1 &
  local api='' imp
  if [ ! -f "$S/static-pods" ]; then
    etcd --name t --data-dir /var/lib/etcd --log-outputs stderr --unsafe-no-fsync --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
      --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster t=http://127.0.0.1:2380 >"$L/etcd.log" 2>&1 &
    FIRST=exec apiserver_command >"$L/apiserver.log" 2>&1 &
    api=$!
  fi
  # cAdvisor looks for a docker for 5 s: kubelet starts before the API server is there, so that nobody waits for it
  for v in $(seq 1200); do [ -S /run/containerd/containerd.sock ] && ctr version >/dev/null 2>&1 && break; sleep .1; done
  if [ -f "$S/static-pods" ]; then for f in "$KNODE"/images/{pause,etcd}.tar "$KNODE/apiserver.tar"; do ctr -n k8s.io images import "$f"; done; fi
  AWS_EC2_METADATA_DISABLED=true kubelet --config=$S/kubelet.yaml --kubeconfig=$K/kubelet --container-runtime=remote --container-runtime-endpoint=unix:///run/containerd/containerd.sock \
    --hostname-override="$NODE_NAME" --node-ip=$NODE_IP --cert-dir=/var/lib/kubelet/pki --pod-infra-container-image=localhost/pause:1 \
    ${KUBELET_EXTRA:-} >"$L/kubelet.log" 2>&1 &
  { for f in "$KNODE"/images/*.tar; do ctr -n k8s.io images import "$f"; done; echo "images imported"; } & imp=$!
  for v in $(seq 2400); do [ "$(curl -s --cacert $P/ca.crt "https://127.0.0.1:$PORT/readyz" -H "Authorization: Bearer $(cut -d, -f1 "$P/tokens.csv" | head -1)" || true)" = ok ] && break
    [ -z "$api" ] || kill -0 $api 2>/dev/null || { tail -20 "$L/apiserver.log"; exit 1; }; sleep .1; done
  echo "apiserver ready"; touch "$S/api-ready"
  kube-controller-manager --kubeconfig=$K/kcm --authentication-kubeconfig=$K/kcm --authorization-kubeconfig=$K/kcm --bind-address=127.0.0.1 --port=0 --leader-elect=false \
    --flex-volume-plugin-dir=/var/lib/kubelet/volumeplugins --use-service-account-credentials=true --service-account-private-key-file=$P/sa.key --root-ca-file=$P/ca.crt --cert-dir=/run/kcm \
    --cluster-signing-cert-file=$P/ca.crt --cluster-signing-key-file=$P/ca.key --controllers='*,-nodeipam,-route,-service,-cloud-node-lifecycle' --controller-start-interval=0s --kube-api-qps=200 --kube-api-burst=400 ${KCM_EXTRA:-} >"$L/kcm.log" 2>&1 &
  kube-scheduler --kubeconfig=$K/scheduler --authentication-kubeconfig=$K/scheduler --authorization-kubeconfig=$K/scheduler --bind-address=127.0.0.1 --port=0 --leader-elect=false \
    --cert-dir=/run/scheduler >"$L/scheduler.log" 2>&1 &
  kube-proxy --kubeconfig=$K/proxy --proxy-mode=iptables --hostname-override="$NODE_NAME" --cluster-cidr=$POD_CIDR --oom-score-adj=0 \
    --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0s --conntrack-tcp-timeout-close-wait=0s >"$L/proxy.log" 2>&1 &
  python3 "$S/dns.py" "$K/dns" "$NODE_IP" >"$L/dns.log" 2>&1 &
  wait $imp; echo started; exec catatonit -P; }

# ---------- start: certificates, tokens and settings are fresh each time ----------
start(){
  build; stop; SECONDS=0
  rm -rf "$S" "$KNODE"/log; mkdir -p "$S"/{pki,kc} "$KNODE"/log; cd "$S/pki"
  # Not one that Linux gives to somebody else until it is bound, nor one of the testbed's.
  free_port(){ python3 -c 'import random,socket
while True:
    s=socket.socket(); port=random.randrange(15000,20000)
    try: s.bind(("127.0.0.1",port)); break
    except OSError: pass
print(port)'; }
  export PORT=${PORT:-$(free_port)}
  ca(){ openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=$2" -keyout "$1.key" -out "$1.crt"; }
  crt(){ openssl req -newkey rsa:2048 -nodes -subj "$3" -keyout "$2.key" -out "$2.csr"
         openssl x509 -req -in "$2.csr" -CA "$1.crt" -CAkey "$1.key" -CAcreateserial -days 30 -out "$2.crt" -extfile <(printf '%b' "$4"); }
  { ca ca test-ca; ca fpca front-proxy-ca; openssl genrsa -out sa.key 2048
    crt ca srv /CN=kube-apiserver "subjectAltName=IP:127.0.0.1,IP:$NODE_IP,IP:$SVC_API,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local\nextendedKeyUsage=serverAuth"
    crt ca kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client extendedKeyUsage=clientAuth
    crt fpca fp /CN=front-proxy-client extendedKeyUsage=clientAuth; } >"$KNODE/log/openssl.log" 2>&1
  mkkc(){ cat > "$2" <<K
apiVersion: v1
kind: Config
clusters: [{name: t, cluster: {server: "https://127.0.0.1:$PORT", certificate-authority-data: "$(base64 -w0 <"$S/pki/ca.crt")"}}]
users: [{name: u, user: {token: "$1"}}]
contexts: [{name: t, context: {cluster: t, user: u}}]
current-context: t
K
}
  ( umask 077; user(){ local t; t=$(openssl rand -hex 16); echo "$t,$2,$2,\"${3:-}\"" >> tokens.csv; mkkc "$t" "$1"; }
    user "$S/kubeconfig" admin system:masters; user "$S/kc/kcm" system:kube-controller-manager; user "$S/kc/scheduler" system:kube-scheduler
    user "$S/kc/proxy" system:kube-proxy; user "$S/kc/kubelet" "system:node:$NODE_NAME" system:nodes; user "$S/kc/dns" cluster-dns system:masters )
  cat > "$S/containerd.toml" <<K
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "/run/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true               # this machine has no CAP_SYS_RESOURCE: oom_score_adj can't go down
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$R/usr/lib/cni"
    conf_dir = "$S/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "${SNAPSHOTTER:-overlayfs}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "$R/usr/sbin/runc"
        SystemdCgroup = false
K
  mkdir -p "$S/cni"; cat > "$S/cni/10-node.conflist" <<K
{"cniVersion":"0.4.0","name":"node","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"hairpinMode":true,"ipMasq":false,
  "ipam":{"type":"host-local","dataDir":"/run/cni-ipam","ranges":[[{"subnet":"$NODE_POD_CIDR"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
K
  cat > "$S/kubelet.yaml" <<K
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: $KNODE/manifests
fileCheckFrequency: 1s
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "$S/pki/ca.crt"}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
failSwapOn: false
volumePluginDir: /var/lib/kubelet/volumeplugins
oomScoreAdj: 0
maxOpenFiles: $(ulimit -Hn)
clusterDomain: cluster.local
clusterDNS: ["$NODE_IP"]
resolvConf: ""
nodeStatusUpdateFrequency: 1s
evictionHard: {memory.available: "100Mi", nodefs.available: "1%", imagefs.available: "1%"}
imageGCHighThresholdPercent: 100
serializeImagePulls: false
K
  cat > "$S/dns.py" <<'PY'
# Stand-in for CoreDNS: asks the API server at every query. A/AAAA/SRV for services, headless services and their pods' host names.
import sys,socket,struct,json,re,ssl,threading,http.client,base64
kc=open(sys.argv[1]).read(); g=lambda k: re.search(k+r': "([^"]+)"',kc).group(1)
host,port=g('server')[8:].split(':'); tok=g('token'); ctx=ssl.create_default_context(cadata=base64.b64decode(g('certificate-authority-data')).decode()); ctx.verify_flags&=~getattr(ssl,'VERIFY_X509_STRICT',0)
loc=threading.local()
def api(p):
    for n in (0,1):
        try:
            c=getattr(loc,'c',None)
            if c is None: c=loc.c=http.client.HTTPSConnection(host,int(port),context=ctx,timeout=5)
            c.request('GET',p,headers={'Authorization':'Bearer '+tok}); r=c.getresponse(); b=r.read()
            if r.status==404: return None
            if r.status!=200: raise OSError(r.status)
            return json.loads(b)
        except Exception:
            loc.c=None
            if n: raise
Z='cluster.local'
def look(name,q):  # -> (exists, [A addresses], [(port, target)])
    l=name.lower().rstrip('.')
    if not l.endswith('.'+Z): return False,[],[]
    p=l[:-len(Z)-1].split('.')
    if p[-1]=='pod' and len(p)==3: return True,[p[0].replace('-','.')],[]
    if p[-1]!='svc' or len(p)<3: return (l in ('svc.'+Z,)),[],[]
    ns,svc,rest=p[-2],p[-3],p[:-3]
    s=api(f'/api/v1/namespaces/{ns}/services/{svc}')
    if not s: return False,[],[]
    port=proto=None
    if len(rest)==2 and rest[0][:1]=='_' and rest[1][:1]=='_': port,proto,rest=rest[0][1:],rest[1][1:],[]
    ip=s['spec'].get('clusterIP','None'); base=f'{svc}.{ns}.svc.{Z}'
    if ip!='None' and not rest:
        return True,[ip],[(x['port'],base) for x in s['spec'].get('ports',[]) if port is None or (x.get('name')==port and x.get('protocol','TCP').lower()==proto)]
    e=api(f'/api/v1/namespaces/{ns}/endpoints/{svc}') or {}; a=[]; v=[]
    for sub in e.get('subsets') or []:
        for x in sub.get('addresses') or []:
            h=x.get('hostname') or x['ip'].replace('.','-')
            if rest and (len(rest)!=1 or rest[0]!=h): continue
            a.append(x['ip'])
            v+=[(y['port'],f'{h}.{base}') for y in sub.get('ports') or [] if port is None or (y.get('name')==port and y.get('protocol','TCP').lower()==proto)]
    return (bool(a) or not rest),a,v
enc=lambda n: b''.join(bytes([len(x)])+x.encode() for x in n.rstrip('.').split('.'))+b'\0'
def answer(d):
    qid,fl,qd=struct.unpack('>HHH',d[:6]); i=12; lab=[]
    while d[i]: lab.append(d[i+1:i+1+d[i]].decode()); i+=1+d[i]
    i+=1; t,_=struct.unpack('>HH',d[i:i+4]); qs=d[12:i+4]; rr=[]; rc=0
    try:
        ok,a,v=look('.'.join(lab),t)
        if not ok: rc=3
        elif t==1: rr=[(1,socket.inet_aton(x)) for x in a]
        elif t==33: rr=[(33,struct.pack('>HHH',0,100,p)+enc(n)) for p,n in v]
    except Exception as e: print(lab,e,flush=True); rc=2
    return struct.pack('>HHHHHH',qid,0x8480|(fl&0x100)|rc,1,len(rr),0,0)+qs+b''.join(b'\xc0\x0c'+struct.pack('>HHIH',k,1,1,len(x))+x for k,x in rr)
u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); u.bind((sys.argv[2],53))
from concurrent.futures import ThreadPoolExecutor
ex=ThreadPoolExecutor(8)
def one(d,c):
    try: u.sendto(answer(d),c)
    except Exception as e: print(e,flush=True)
while True:
    d,c=u.recvfrom(4096); ex.submit(one,d,c)
PY
  cat > "$S/relay.py" <<'PY'
# Listens on the host's 127.0.0.1:PORT and connects to 127.0.0.1:PORT inside the network namespace of process PID.
import sys,os,socket,ctypes,asyncio
port,pid=int(sys.argv[1]),sys.argv[2]
s=socket.socket(); s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1); s.bind(('127.0.0.1',port)); s.listen(128)
fd=os.open(f'/proc/{pid}/ns/net',os.O_RDONLY)
if ctypes.CDLL(None,use_errno=True).setns(fd,0x40000000): raise OSError(ctypes.get_errno(),'setns')
os.close(fd)
async def pump(r,w):
    try:
        while b:=await r.read(65536): w.write(b); await w.drain()
        w.write_eof()
    except OSError: w.close()
async def conn(r,w):
    try: r2,w2=await asyncio.open_connection('127.0.0.1',port)
    except OSError: w.close(); return
    await asyncio.gather(pump(r,w2),pump(r2,w)); w.close(); w2.close()
async def main():
    async with await asyncio.start_server(conn,sock=s) as x: await x.serve_forever()
asyncio.run(main())
PY
  echo "$PORT" > "$S/port"
  rm -f "$KNODE"/manifests/{etcd,kube-apiserver}.yaml; [ -z "${STATIC_PODS:-}" ] || static_pods
  boot; }

reboot(){ # the same cluster after a power cut: all its state is kept
  [ -f "$S/port" ] || die "nothing to reboot"; stop; SECONDS=0; rm -f "$S/api-ready"; PORT=$(cat "$S/port"); export PORT; boot; }

boot(){
  local id c path mp root d f n
  # our own cgroup, a child of the one we are in, in every v1 hierarchy
  local t0; t0=$(date +%s); n=kube-node-$$; : > "$S/cgroups"
  while IFS=: read -r id c path; do [ -n "$c" ] || continue
    read -r root mp < <(awk -v c=",$c," '{for(i=7;$i!="-";i++); if($(i+1)=="cgroup" && index(","$(i+3)",",c)){print $4,$5; exit}}' /proc/self/mountinfo) || continue
    [ "$root" = / ] && root=; d=$mp${path#"$root"}; d=${d%/}/$n; mkdir "$d"; echo "$d" >> "$S/cgroups"
    for f in cpuset.cpus cpuset.mems; do [ ! -e "$d/$f" ] || cat "${d%/*}/$f" > "$d/$f"; done
  done < /proc/self/cgroup
  grep -q /memory "$S/cgroups" || die "no cgroup v1 memory hierarchy here"
  cd "$KNODE"
  ( while read -r d; do echo "$BASHPID" > "$d/cgroup.procs"; done < "$S/cgroups"
    exec setsid unshare --cgroup --mount --propagation private --net --pid --uts --ipc --fork --mount-proc bash "$SELF" __init ) </dev/null >"$KNODE/log/init.log" 2>&1 &
  local up=$! p=""
  for f in $(seq 100); do p=$(cat "/proc/$up/task/$up/children" 2>/dev/null || true); p=${p%% *}; [ -n "$p" ] && break; sleep .02; done
  [ -n "$p" ] || { cat "$KNODE/log/init.log"; die "could not make the namespaces"; }
  pidsave init "$p"
  setsid python3 "$S/relay.py" "$PORT" "$p" </dev/null >"$KNODE/log/relay.log" 2>&1 & pidsave relay $!
  export KUBECONFIG=$S/kubeconfig
  while true; do
    pidlive init >/dev/null || { tail -20 "$KNODE/log/init.log"; stop; die "the node ended"; }
    [ -f "$S/api-ready" ] && [ -z "${sawapi:-}" ] && { local sawapi=1; say "API server ready"; }
    if [ -n "${sawapi:-}" ]; then # Ready, and said so after this start (a reboot finds the old state)
      read -r c d < <("$R/usr/bin/kubectl" get node "$NODE_NAME" -o 'jsonpath={range .status.conditions[?(@.type=="Ready")]}{.status} {.lastHeartbeatTime}{"\n"}{end}' 2>/dev/null) || c=""
      [ "$c" = True ] && [ "$(date -d "$d" +%s)" -gt "$t0" ] && "$R/usr/bin/kubectl" -n default get sa default >/dev/null 2>&1 && break; fi
    sleep .1; [ "$SECONDS" -lt 400 ] || { tail -5 "$KNODE"/log/*.log; die "node not Ready in 400 s"; }
  done
  say "node $NODE_NAME is Ready; kubectl 1.20.2: $R/usr/bin/kubectl"
  echo "KUBECONFIG=$S/kubeconfig"; }

initpid(){ pidlive init || die "the node is not running"; }
cmd=${1:-start}; shift || true
case $cmd in
  build) build;;
  assets) build >&2; mkdir -p "$KNODE/assets"; for f in "$KNODE/bin/kube-apiserver" "$R/usr/bin/etcd" "$R/usr/bin/kubectl"; do ln -sf "$f" "$KNODE/assets/"; done; echo "$KNODE/assets";;
  start) start;;
  reboot) reboot;;
  stop) stop;;
  image) [ $# -ge 2 ] || die "image REF OUT.tar FILE... [-- CMD...]"; [ -f "$R/.done" ] || build; image "$@";;
  load-image) p=$(initpid); nodepath; for f in "$@"; do nsenter -t "$p" -n -m -p -u -i -C ctr -n k8s.io images import - < "$f"; done;;
  exec) p=$(initpid); nodepath; export KUBECONFIG=$S/kubeconfig; exec nsenter -t "$p" -n -m -p -u -i -C --wdns="$PWD" "$@";;
  netexec) p=$(initpid); export KUBECONFIG=$S/kubeconfig; exec nsenter -t "$p" -n "$@";;
  __init) init;;
  *) die "unknown command $cmd";;
esac
