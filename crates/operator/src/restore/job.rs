//! The Jobs of a restore: one for each volume and step.
//!
//! A Job's pod runs where the StatefulSet's pod would (node selector, affinity, tolerations), as the user that etcd runs as, with
//! the volume mounted where etcd has it. It has no rights in Kubernetes, and one Secret at most: the store's. The first, the probe,
//! has all of that but the volume.

use super::{decide::Step, layout::Layout, members};
use crate::{
    api::{BackupStoreSpec, BumpRevision, EtcdRestore, EtcdRestoreStatus, JobOptions},
    security::Security,
    volume::{Contents, Order, StoreAccess, Target, of_object},
};
use k8s_openapi::api::{batch::v1::Job, core::v1::VolumeMount};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Says which run a Job is of.
pub(super) const RUN: &str = "lifeboat.dev/run";
/// Says what it does.
pub(super) const STEP: &str = "lifeboat.dev/step";
/// Says to which volume.
pub(super) const VOLUME: &str = "lifeboat.dev/volume";
/// Says from which `spec.job` it was made, and a probe also from which source and target.
pub(super) const MADE_FROM: &str = "lifeboat.dev/made-from";

/// The container's name.
const CONTAINER: &str = "lifeboat";
/// Revisions that `bumpRevision: Auto` adds, as `lifeboat restore` does.
const BUMP_AUTO: u64 = 1_000_000_000;
/// Where a claim is mounted that is no member's.
const VOLUME_PATH: &str = "/volume";
/// Names in Kubernetes have 63 bytes; what we add needs 33.
const NAME_BYTES_MAX: usize = 30;

/// What a Job is made from, as far as it may be changed.
pub(super) fn made_from(restore: &EtcdRestore, step: Step, image: &str) -> String {
    let spec = &restore.spec;
    let probed = (step == Step::Probe).then(|| json!([spec.source, spec.target]));
    format!("{:016x}", crate::schedule::fnv(&json!([image, spec.job, probed]).to_string()))
}

/// What is needed to write a Job.
pub(super) struct Writer<'a> {
    /// The restore.
    pub(super) restore: &'a EtcdRestore,
    /// How far it has come.
    pub(super) status: &'a EtcdRestoreStatus,
    /// The StatefulSet, if that is the target.
    pub(super) layout: Option<&'a Layout<'a>>,
    /// The store, if the source lies in one.
    pub(super) store: Option<&'a BackupStoreSpec>,
    /// The image.
    pub(super) image: &'a str,
}

/// A Job's name.
pub(super) fn name(restore: &EtcdRestore, run: &str, step: Step, index: usize) -> String {
    let mut name = restore.name_any();
    name.truncate(NAME_BYTES_MAX);
    let name = name.trim_end_matches(['-', '.']);
    format!("{name}-{run}-{}-{index}", step.name()).replace('.', "-")
}

impl Writer<'_> {
    /// The Job.
    ///
    /// # Errors
    /// What keeps it from being written.
    pub(super) fn job(&self, step: Step, index: usize) -> Result<Job, String> {
        let run = self.status.run.clone().unwrap_or_default();
        let volume = self.status.volumes.get(index).ok_or("there is no such volume")?;
        let mount = self.mount(index);
        let mut secrets = Secrets::default();
        let fetches = matches!(step, Step::Probe | Step::Build);
        let order = Order {
            run: run.clone(),
            target: self.target(index, &mount),
            store: fetches.then(|| self.access(&mut secrets)).transpose()?,
            contents: fetches.then(|| self.contents()).transpose()?,
        };
        let order = serde_json::to_string(&order).map_err(|error| error.to_string())?;
        let defaults = JobOptions::default();
        let options = self.restore.spec.job.as_ref().unwrap_or(&defaults);
        let labels = json!({
            "app.kubernetes.io/name": "lifeboat",
            "lifeboat.dev/job": "restore",
            RUN: run,
            STEP: step.name(),
            VOLUME: index.to_string(),
        });
        let mut volumes = vec![json!({ "name": "lifeboat-tmp", "emptyDir": {} })];
        let mut mounts = vec![json!({ "name": "lifeboat-tmp", "mountPath": "/tmp" })];
        if step != Step::Probe {
            let claim = json!({ "claimName": volume.claim });
            volumes.insert(0, json!({ "name": mount.name, "persistentVolumeClaim": claim }));
            mounts.insert(0, json!(mount));
        }
        volumes.extend(secrets.volumes);
        mounts.extend(secrets.mounts);
        let security = self.security(options);
        let container = json!({
            "name": CONTAINER,
            "image": options.image.as_deref().unwrap_or(self.image),
            "imagePullPolicy": "IfNotPresent",
            "args": ["volume", step.name(), order],
            "volumeMounts": mounts,
            "resources": options.resources,
            "securityContext": security.container,
            "terminationMessagePolicy": "FallbackToLogsOnError",
        });
        let mut pod = self.pod(options, container, volumes);
        pod["securityContext"] = json!(security.pod);
        let owner = self.restore.controller_owner_ref(&()).ok_or("the object has no uid")?;
        serde_json::from_value(json!({
            "metadata": {
                "name": name(self.restore, &run, step, index),
                "namespace": self.restore.namespace(),
                "labels": labels,
                "annotations": { MADE_FROM: made_from(self.restore, step, self.image) },
                "ownerReferences": [owner],
            },
            "spec": {
                "backoffLimit": if step == Step::Probe { 1 } else { 2 },
                "template": { "metadata": { "labels": labels }, "spec": pod },
            },
        }))
        .map_err(|error| error.to_string())
    }

    fn pod(&self, options: &JobOptions, container: Value, volumes: Vec<Value>) -> Value {
        let template = self.layout.map(|layout| layout.pod);
        let mut selector = template.and_then(|pod| pod.node_selector.clone()).unwrap_or_default();
        selector.extend(options.node_selector.clone());
        let mut tolerations = template.and_then(|pod| pod.tolerations.clone()).unwrap_or_default();
        tolerations.extend(options.tolerations.clone());
        // Affinity to nodes alone: what it says of pods is meant for etcd's.
        let affinity = template.and_then(|pod| pod.affinity.as_ref()?.node_affinity.clone());
        json!({
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "serviceAccountName": options.service_account_name,
            "containers": [container],
            "volumes": volumes,
            "nodeSelector": selector,
            "tolerations": tolerations,
            "affinity": affinity.map(|affinity| json!({ "nodeAffinity": affinity })),
            "imagePullSecrets": template.and_then(|pod| pod.image_pull_secrets.clone()),
            "priorityClassName": template.and_then(|pod| pod.priority_class_name.clone()),
        })
    }

    /// As etcd runs; where nothing says as whom, as root, since the data may be anybody's and the new must be the same user's.
    fn security(&self, options: &JobOptions) -> Security {
        let etcd = self.layout.map(|layout| Security {
            pod: layout.pod.security_context.clone().unwrap_or_default(),
            container: layout.container.security_context.clone().unwrap_or_default(),
        });
        Security::of_restore(options, etcd.unwrap_or_default())
    }

    fn mount(&self, index: usize) -> VolumeMount {
        let ordinal = i32::try_from(index).unwrap_or(i32::MAX);
        self.layout.map_or_else(
            || VolumeMount {
                name: "volume".to_owned(),
                mount_path: VOLUME_PATH.to_owned(),
                ..VolumeMount::default()
            },
            |layout| layout.mount(ordinal),
        )
    }

    fn target(&self, index: usize, mount: &VolumeMount) -> Target {
        let ordinal = i32::try_from(index).unwrap_or(i32::MAX);
        match (self.layout, &self.restore.spec.target.files) {
            (Some(layout), _) => Target::Member {
                data_dir: layout.data_dir(ordinal).into(),
                name: self.status.volumes[index].member.clone(),
            },
            (None, Some(files)) => {
                Target::File { path: PathBuf::from(&mount.mount_path).join(&files.path) }
            }
            (None, None) => Target::Members { folder: mount.mount_path.clone().into() },
        }
    }

    fn access(&self, secrets: &mut Secrets) -> Result<StoreAccess, String> {
        let source = self.status.source.clone().unwrap_or_default();
        if let Some(url) = &source.url {
            let (url, _) = of_object(url).ok_or_else(|| format!("{url} names no object"))?;
            let credentials = source.url_credentials.as_ref();
            let credentials =
                credentials.map(|from| secrets.mount("credentials", &from.secret_name));
            return Ok(StoreAccess { url, credentials, ..StoreAccess::default() });
        }
        let store = self.store.ok_or("the BackupStore is gone")?;
        let key = |secrets: &mut Secrets, name, from: &crate::api::SecretKey| {
            secrets.mount(name, &from.secret_name).join(&from.key)
        };
        let identities = store.encryption.as_ref().and_then(|found| found.identities.as_ref());
        let from = store.credentials.as_ref();
        Ok(StoreAccess {
            url: store.url.clone(),
            options: store.options.clone(),
            credentials: from.map(|from| secrets.mount("credentials", &from.secret_name)),
            ca: store.ca.as_ref().map(|from| key(secrets, "ca", from)),
            identities: identities.map(|from| key(secrets, "identities", from)),
        })
    }

    fn contents(&self) -> Result<Contents, String> {
        let source = self.status.source.clone().unwrap_or_default();
        let parse = |text: &str, what: &str| format!("{what} {text:?} is not one of ours");
        let backup = match &source.store {
            Some(point) => {
                let cluster =
                    point.cluster.parse().map_err(|_| parse(&point.cluster, "cluster"))?;
                Some((cluster, point.at.parse().map_err(|_| parse(&point.at, "backup"))?))
            }
            None => None,
        };
        Ok(Contents {
            backup,
            object: source.url.as_deref().and_then(of_object).map(|(_, path)| path),
            initial_cluster: initial_cluster(self.restore, self.status),
            token: token(self.restore),
            target_version: None,
            bump: match self.restore.spec.bump_revision {
                BumpRevision::Auto => BUMP_AUTO,
                BumpRevision::None => 0,
            },
        })
    }
}

/// One for each restore: members of two clusters with the same URLs and token would be one to etcd.
pub(super) fn token(restore: &EtcdRestore) -> String {
    format!("lifeboat-{}", restore.uid().unwrap_or_default())
}

/// All members, as `--initial-cluster` has them.
pub(super) fn initial_cluster(restore: &EtcdRestore, status: &EtcdRestoreStatus) -> String {
    match &restore.spec.target.pvc {
        Some(pvc) => {
            members::initial_cluster(pvc.members.iter().map(|m| (&*m.name, &*m.peer_urls)))
        }
        None => {
            members::initial_cluster(status.volumes.iter().map(|v| (&*v.member, &*v.peer_urls)))
        }
    }
}

/// Secrets of a pod, each in a folder.
#[derive(Default)]
struct Secrets {
    volumes: Vec<Value>,
    mounts: Vec<Value>,
}

impl Secrets {
    fn mount(&mut self, what: &str, secret: &str) -> PathBuf {
        let name = format!("lifeboat-{what}");
        let path = format!("/etc/lifeboat/{what}");
        self.volumes.push(json!({ "name": name, "secret": { "secretName": secret } }));
        self.mounts.push(json!({ "name": name, "mountPath": path, "readOnly": true }));
        path.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::samples;

    fn written(step: Step) -> Value {
        let (restore, set) = (samples::building(), samples::set());
        let target = samples::target();
        let layout = Layout::read(&set, &target, 3).unwrap();
        let store = samples::store();
        let status = restore.status.as_ref().unwrap();
        let writer = Writer {
            restore: &restore,
            status,
            layout: Some(&layout),
            store: Some(&store),
            image: "lifeboat:1",
        };
        serde_json::to_value(writer.job(step, 1).unwrap()).unwrap()
    }

    #[test]
    fn a_pod_has_the_volume_where_etcd_has_it_and_runs_as_etcd_does() {
        let job = written(Step::Build);
        assert_eq!(job["metadata"]["name"], "back-0123456789-build-1");
        assert_eq!(job["metadata"]["ownerReferences"][0]["kind"], "EtcdRestore");
        let pod = &job["spec"]["template"]["spec"];
        assert_eq!(pod["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-etcd-1");
        assert_eq!(pod["containers"][0]["volumeMounts"][0]["mountPath"], "/data");
        assert_eq!(pod["nodeSelector"]["disk"], "fast");
        assert_eq!(pod["securityContext"]["fsGroup"], 1001);
        assert_eq!(pod["containers"][0]["securityContext"]["runAsUser"], 1001);
        assert_eq!(pod["automountServiceAccountToken"], false);
        let order: Order =
            serde_json::from_str(pod["containers"][0]["args"][2].as_str().unwrap()).unwrap();
        let contents = order.contents.unwrap();
        assert_eq!(
            contents.initial_cluster,
            "etcd-0=http://etcd-0.etcd:2380,etcd-1=http://etcd-1.etcd:2380,etcd-2=http://etcd-2.etcd:2380"
        );
        assert_eq!((contents.bump, contents.backup.is_some()), (1_000_000_000, true));
        let Target::Member { data_dir, name } = order.target else { panic!("no member") };
        assert_eq!((data_dir.to_str(), name.as_str()), (Some("/data/etcd"), "etcd-1"));
    }

    #[test]
    fn a_probe_has_everything_that_a_build_has_but_the_volume() {
        let (probe, build) = (written(Step::Probe), written(Step::Build));
        assert!(!probe.to_string().contains("persistentVolumeClaim"), "{probe}");
        let parts = |job: &Value| {
            let pod = &job["spec"]["template"]["spec"];
            let container = &pod["containers"][0];
            let own = ["image", "securityContext", "resources"].map(|part| container[part].clone());
            (own, pod["nodeSelector"].clone(), pod["securityContext"].clone())
        };
        assert_eq!(parts(&probe), parts(&build));
        let order = |job: &Value| -> Order {
            let args = &job["spec"]["template"]["spec"]["containers"][0]["args"];
            serde_json::from_str(args[2].as_str().unwrap()).unwrap()
        };
        assert_eq!(order(&probe), order(&build));
    }

    #[test]
    fn another_spec_job_makes_another_job() {
        let restore = samples::building();
        let mut other = restore.clone();
        let image = Some("there/lifeboat:1".to_owned());
        other.spec.job = Some(JobOptions { image, ..JobOptions::default() });
        for step in [Step::Probe, Step::Build, Step::Undo] {
            assert_ne!(made_from(&restore, step, "a"), made_from(&other, step, "a"));
            assert_ne!(made_from(&restore, step, "a"), made_from(&restore, step, "b"));
        }
        other = restore.clone();
        other.spec.source.url = Some("s3://elsewhere/x".to_owned());
        assert_ne!(made_from(&restore, Step::Probe, "a"), made_from(&other, Step::Probe, "a"));
        assert_eq!(made_from(&restore, Step::Build, "a"), made_from(&other, Step::Build, "a"));
    }

    #[test]
    fn only_the_pods_that_fetch_have_secrets() {
        let secrets = |job: &Value| job.to_string().matches("secretName").count();
        assert_eq!(secrets(&written(Step::Build)), 1);
        assert_eq!(secrets(&written(Step::Probe)), 1);
        assert_eq!(secrets(&written(Step::Swap)), 0);
        assert!(!written(Step::Undo).to_string().contains("s3://"));
    }
}
