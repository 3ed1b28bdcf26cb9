//! etcd as a static pod: a manifest in kubelet's folder, as kubeadm writes it.
//!
//! ```yaml
//! spec:
//!   containers:
//!   - name: etcd
//!     command: [etcd, --data-dir=/var/lib/etcd, …]      paths as the container has them
//!     image: registry/etcd:3.5.15-0                     the version
//!     volumeMounts: [{mountPath: /var/lib/etcd, name: etcd-data}]
//!   volumes:
//!   - {name: etcd-data, hostPath: {path: /srv/etcd}}    where they are on the host
//! ```

use super::setting::Variable;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Why a manifest is not read.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct PodError(Box<serde_saphyr::Error>);

/// The container of a manifest in which etcd runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pod {
    /// The pod's namespace.
    pub(crate) namespace: String,
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// Its variables, as far as the manifest has their values.
    pub(crate) variables: Vec<Variable>,
    /// Name and tag of the image.
    pub(crate) image: String,
    /// Paths in the container, and on the host.
    mounts: Vec<(PathBuf, PathBuf)>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Manifest {
    metadata: Metadata,
    spec: PodSpec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    namespace: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodSpec {
    containers: Vec<Container>,
    volumes: Option<Vec<Volume>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    name: String,
    image: Option<String>,
    command: Option<Vec<String>>,
    args: Option<Vec<String>>,
    env: Option<Vec<Env>>,
    volume_mounts: Option<Vec<Mount>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Env {
    name: String,
    value: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Mount {
    name: String,
    mount_path: PathBuf,
    sub_path: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Volume {
    name: String,
    host_path: Option<HostPath>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct HostPath {
    path: PathBuf,
}

impl Pod {
    /// The container of etcd in a manifest at `path`; none if it has none.
    pub(crate) fn parse(path: &str, text: &str) -> Result<Option<Self>, PodError> {
        let manifest: Manifest =
            serde_saphyr::from_str(text).map_err(|error| PodError(Box::new(error)))?;
        let volumes = manifest.spec.volumes.unwrap_or_default();
        let mut containers = manifest.spec.containers.into_iter();
        let etcd = containers.find(|c| c.name == "etcd" || c.runs_etcd());
        let namespace = manifest.metadata.namespace.unwrap_or_default();
        Ok(etcd.map(|container| Self { namespace, ..container.pod(path, &volumes) }))
    }

    /// Where a path of the container is on the host; none if it is in no volume of the host.
    pub(crate) fn on_host(&self, path: &Path) -> Option<PathBuf> {
        let inside = self.mounts.iter().filter_map(|(mount, host)| {
            let rest = path.strip_prefix(mount).ok()?;
            let host = if rest.as_os_str().is_empty() { host.clone() } else { host.join(rest) };
            Some((mount.as_os_str().len(), host))
        });
        inside.max_by_key(|(length, _)| *length).map(|(_, host)| host)
    }

    /// The version of etcd by the image's tag: `3.5.15-0` is 3.5.15.
    pub(crate) fn version(&self) -> Option<&str> {
        let (_, tag) = self.image.split('@').next()?.rsplit_once(':')?;
        let tag = tag.strip_prefix('v').unwrap_or(tag);
        let version = tag.split('-').next()?;
        let parts: Vec<_> = version.split('.').collect();
        let numbers = parts.iter().all(|part| part.parse::<u32>().is_ok());
        (parts.len() == 3 && numbers).then_some(version)
    }
}

impl Container {
    fn runs_etcd(&self) -> bool {
        let first = self.command.as_ref().and_then(|command| command.first());
        first.is_some_and(|program| program == "etcd" || program.ends_with("/etcd"))
    }

    fn pod(self, path: &str, volumes: &[Volume]) -> Pod {
        let host = |mount: &Mount| {
            let volume = volumes.iter().find(|volume| volume.name == mount.name)?;
            let host = &volume.host_path.as_ref()?.path;
            let host = mount.sub_path.as_ref().map_or_else(|| host.clone(), |sub| host.join(sub));
            Some((mount.mount_path.clone(), host))
        };
        let variable =
            |env: Env| Some(Variable { name: env.name, value: env.value?, from: path.to_owned() });
        let words = [self.command, self.args].into_iter().flatten().flatten();
        Pod {
            namespace: String::new(),
            command: words.collect(),
            variables: self.env.into_iter().flatten().filter_map(variable).collect(),
            image: self.image.unwrap_or_default(),
            mounts: self.volume_mounts.iter().flatten().filter_map(host).collect(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As kubeadm 1.20 makes it: HTTP probes, data where etcd's flags say.
    pub(in crate::discover) const KUBEADM_1_20: &str = r#"apiVersion: v1
kind: Pod
metadata:
  annotations:
    kubeadm.kubernetes.io/etcd.advertise-client-urls: https://10.0.0.1:2379
  creationTimestamp: null
  labels:
    component: etcd
    tier: control-plane
  name: etcd
  namespace: kube-system
spec:
  containers:
  - command:
    - etcd
    - --advertise-client-urls=https://10.0.0.1:2379
    - --cert-file=/etc/kubernetes/pki/etcd/server.crt
    - --client-cert-auth=true
    - --data-dir=/var/lib/etcd
    - --initial-advertise-peer-urls=https://10.0.0.1:2380
    - --initial-cluster=cp1=https://10.0.0.1:2380
    - --key-file=/etc/kubernetes/pki/etcd/server.key
    - --listen-client-urls=https://127.0.0.1:2379,https://10.0.0.1:2379
    - --listen-metrics-urls=http://127.0.0.1:2381
    - --listen-peer-urls=https://10.0.0.1:2380
    - --name=cp1
    - --peer-cert-file=/etc/kubernetes/pki/etcd/peer.crt
    - --peer-client-cert-auth=true
    - --peer-key-file=/etc/kubernetes/pki/etcd/peer.key
    - --peer-trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt
    - --snapshot-count=10000
    - --trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt
    image: k8s.gcr.io/etcd:3.4.13-0
    imagePullPolicy: IfNotPresent
    livenessProbe:
      failureThreshold: 8
      httpGet: {host: 127.0.0.1, path: /health, port: 2381, scheme: HTTP}
    name: etcd
    resources:
      requests: {cpu: 100m, ephemeral-storage: 100Mi, memory: 100Mi}
    volumeMounts:
    - mountPath: /var/lib/etcd
      name: etcd-data
    - mountPath: /etc/kubernetes/pki/etcd
      name: etcd-certs
  hostNetwork: true
  priorityClassName: system-node-critical
  volumes:
  - hostPath:
      path: /etc/kubernetes/pki/etcd
      type: DirectoryOrCreate
    name: etcd-certs
  - hostPath:
      path: /var/lib/etcd
      type: DirectoryOrCreate
    name: etcd-data
status: {}
"#;

    /// As kubeadm 1.30 makes it, with a data directory of its own choice and settings by an administrator.
    const KUBEADM_1_30: &str = r#"apiVersion: v1
kind: Pod
metadata:
  name: etcd
  namespace: kube-system
spec:
  containers:
  - command:
    - etcd
    - --data-dir=/var/lib/etcd/data
    - --experimental-initial-corrupt-check=true
    - --experimental-watch-progress-notify-interval=5s
    - "--name=cp2"
    args: ['--wal-dir', /wal]
    env:
    - name: ETCD_HEARTBEAT_INTERVAL
      value: "200"
    - name: NODE
      valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
    image: registry.k8s.io/etcd:3.5.12-0@sha256:0123
    name: etcd
    startupProbe: {httpGet: {port: probe-port}}
    volumeMounts:
    - {mountPath: /var/lib/etcd, name: etcd-data}
    - {mountPath: /wal, name: fast, subPath: etcd-wal}
    - {mountPath: /tmp, name: scratch}
  securityContext: {seccompProfile: {type: RuntimeDefault}}
  volumes:
  - {hostPath: {path: /srv/etcd, type: DirectoryOrCreate}, name: etcd-data}
  - {hostPath: {path: /mnt/nvme}, name: fast}
  - {emptyDir: {}, name: scratch}
"#;

    #[test]
    fn kubeadms_manifest_tells_command_image_and_folders() {
        let pod = Pod::parse("/m", KUBEADM_1_20).unwrap().unwrap();
        assert_eq!(pod.command[0], "etcd");
        assert!(pod.command.contains(&"--name=cp1".to_owned()));
        assert_eq!(pod.version(), Some("3.4.13"));
        assert_eq!(pod.on_host(Path::new("/var/lib/etcd")), Some("/var/lib/etcd".into()));
        assert_eq!(pod.namespace, "kube-system");
    }

    #[test]
    fn paths_of_the_container_are_found_on_the_host() {
        let pod = Pod::parse("/m", KUBEADM_1_30).unwrap().unwrap();
        let on_host = |path| pod.on_host(Path::new(path)).map(|p| p.display().to_string());
        assert_eq!(on_host("/var/lib/etcd/data").as_deref(), Some("/srv/etcd/data"));
        assert_eq!(on_host("/wal").as_deref(), Some("/mnt/nvme/etcd-wal"));
        assert_eq!(on_host("/tmp/x"), None);
        assert_eq!(on_host("/var/lib/etcdx"), None);
        assert_eq!(pod.version(), Some("3.5.12"));
        assert_eq!(pod.command.last().unwrap(), "/wal");
        assert_eq!(pod.variables.len(), 1, "a variable without a value is not known");
    }

    #[test]
    fn a_manifest_without_etcd_has_none_and_a_broken_one_is_an_error() {
        let apiserver = "spec: {containers: [{name: kube-apiserver, command: [kube-apiserver]}]}";
        assert_eq!(Pod::parse("/m", apiserver).unwrap(), None);
        assert!(Pod::parse("/m", "spec: [").is_err());
    }

    #[test]
    fn an_image_without_a_plain_tag_tells_no_version() {
        for image in ["etcd", "etcd:latest", "host:5000/etcd", "etcd@sha256:00", "etcd:3.5"] {
            let pod = Pod { image: image.to_owned(), ..Pod::default() };
            assert_eq!(pod.version(), None, "{image}");
        }
    }
}
