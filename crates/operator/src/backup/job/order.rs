//! The Job of an attempt, and the order that its pod gets.

use super::LABEL;
use crate::{
    api::{BackupStoreSpec, Cluster, EtcdBackup, HashMismatch, JobOptions, Tls},
    backup::{cluster_name, tool},
    cluster,
    context::Context,
    failure::Failure,
    secrets,
    security::Security,
    volume::StoreAccess,
};
use k8s_openapi::api::batch::v1::Job;
use kube::{Resource, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// No backup takes longer; a pod that never starts must end some time.
const DEADLINE_SECONDS: i64 = 6 * 3600;

/// How long an ended Job is kept for who wants to see its logs.
const KEPT_SECONDS: i64 = 3600;

/// What a pod is to do. Without secrets: they are mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// The cluster's name in the store.
    pub cluster: String,
    /// Its members.
    pub endpoints: Vec<String>,
    /// How TLS is spoken to them.
    pub tls: Option<Tls>,
    /// The folder of that Secret.
    pub tls_folder: Option<PathBuf>,
    /// The folder of the Secret with the user.
    pub user_folder: Option<PathBuf>,
    /// What messages call the store.
    pub store_name: String,
    /// How it is entered.
    pub store: StoreAccess,
    /// Who can read the backup.
    pub recipients: Vec<String>,
    /// Whether it may be open although the newest is encrypted.
    pub unencrypted: bool,
    /// zstd's level.
    pub compression_level: i32,
    /// The most bytes per second.
    pub bandwidth_limit: Option<String>,
    /// What to do where members differ.
    pub hash_mismatch: HashMismatch,
    /// What the manifest says of its maker.
    pub tool: String,
}

/// The Job's name.
pub(super) fn name(backup: &EtcdBackup, attempt: u32) -> String {
    let whole = backup.name_any();
    let mut readable = whole.replace('.', "-");
    readable.truncate(40);
    let hash = crate::schedule::fnv(&backup.uid().unwrap_or(whole)) & 0xffff_ffff;
    format!("{}-{hash:08x}-{attempt}", readable.trim_end_matches('-'))
}

/// What an attempt's pod is to do.
pub(super) async fn order(context: &Context, backup: &EtcdBackup) -> Result<Ordered, Failure> {
    let namespace = backup.namespace().unwrap_or_default();
    let spec = backup.spec_in_force();
    let store = secrets::store(context, &namespace, &spec.store_name).await?.spec;
    let Cluster { tls, auth_secret_name, .. } = &spec.cluster;
    let encryption = store.encryption.as_ref();
    Ok(Order {
        cluster: cluster_name(backup)?.to_string(),
        endpoints: cluster::urls(context, &namespace, &spec.cluster).await?,
        tls: tls.clone(),
        tls_folder: tls.as_ref().map(|_| folder("tls")),
        user_folder: auth_secret_name.as_ref().map(|_| folder("user")),
        store_name: spec.store_name.clone(),
        store: StoreAccess {
            url: store.url.clone(),
            options: store.options.clone(),
            credentials: store.credentials.as_ref().map(|_| folder("credentials")),
            ca: store.ca.as_ref().map(|ca| folder("ca").join(&ca.key)),
            identities: None,
        },
        recipients: encryption.map(|found| found.recipients.clone()).unwrap_or_default(),
        unencrypted: store.unencrypted,
        compression_level: store.compression_level,
        bandwidth_limit: store.bandwidth_limit.clone(),
        hash_mismatch: spec.hash_mismatch,
        tool: tool(backup),
    }
    .with_secrets(&store, backup))
}

/// Where a Secret is mounted.
fn folder(what: &str) -> PathBuf {
    Path::new("/etc/lifeboat").join(what)
}

/// The Job.
pub(super) fn job(
    context: &Context,
    backup: &EtcdBackup,
    order: &Ordered,
    name: &str,
) -> Result<Job, Failure> {
    let broken = |error: serde_json::Error| Failure::of_setting("the Job", &error, "");
    let defaults = JobOptions::default();
    let options = backup.spec_in_force().job.as_ref().unwrap_or(&defaults);
    let image = options.image.as_ref().or(context.settings.image.as_ref()).ok_or_else(|| {
        Failure::settings(
            "no image is known for Jobs",
            "set spec.job.image, or the operator's --image or LIFEBOAT_IMAGE",
        )
    })?;
    let volumes = order
        .secrets
        .iter()
        .map(|(what, secret)| json!({ "name": what, "secret": { "secretName": secret } }));
    let mounts = order
        .secrets
        .iter()
        .map(|(what, _)| json!({ "name": what, "mountPath": folder(what), "readOnly": true }));
    let tmp = [json!({ "name": "tmp", "emptyDir": {} })];
    let tmp_mount = [json!({ "name": "tmp", "mountPath": "/tmp" })];
    let labels = json!({ "app.kubernetes.io/name": "lifeboat", LABEL: "backup" });
    let security = Security::of_backup(options);
    let container = json!({
        "name": "lifeboat",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["backup-job", serde_json::to_string(&order.order).map_err(broken)?],
        "volumeMounts": mounts.chain(tmp_mount).collect::<Vec<Value>>(),
        "resources": options.resources,
        "securityContext": security.container,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    let owner = backup.controller_owner_ref(&());
    serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "namespace": backup.namespace(),
            "labels": labels,
            "ownerReferences": owner.into_iter().collect::<Vec<_>>(),
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": { "metadata": { "labels": labels }, "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "serviceAccountName": options.service_account_name,
                "securityContext": security.pod,
                "nodeSelector": options.node_selector,
                "tolerations": options.tolerations,
                "containers": [container],
                "volumes": volumes.chain(tmp).collect::<Vec<Value>>(),
            } },
        },
    }))
    .map_err(broken)
}

/// An order, and the Secrets that are mounted for it.
pub(super) struct Ordered {
    order: Order,
    /// Each with the name that it is mounted by.
    pub(super) secrets: Vec<(&'static str, String)>,
}

impl Order {
    fn with_secrets(self, store: &BackupStoreSpec, backup: &EtcdBackup) -> Ordered {
        let cluster = &backup.spec_in_force().cluster;
        let secrets = [
            ("tls", cluster.tls.as_ref().map(|tls| tls.secret_name.clone())),
            ("user", cluster.auth_secret_name.clone()),
            ("credentials", store.credentials.as_ref().map(|from| from.secret_name.clone())),
            ("ca", store.ca.as_ref().map(|from| from.secret_name.clone())),
        ];
        let secrets = secrets.into_iter().filter_map(|(what, secret)| Some((what, secret?)));
        Ordered { order: self, secrets: secrets.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_has_a_job_of_its_own_whose_name_fits_a_label() {
        let spec = json!({
            "cluster": { "name": "prod", "endpoints": ["http://e:2379"] }, "storeName": "s",
        });
        let mut backup = EtcdBackup::new("", serde_json::from_value(spec).unwrap());
        backup.metadata.name = Some("nightly.".repeat(20));
        backup.metadata.uid = Some("u1".to_owned());
        let first = name(&backup, 1);
        assert!(first.len() <= 63 && !first.contains('.'), "{first}");
        assert_ne!(first, name(&backup, 2));
        backup.metadata.uid = Some("u2".to_owned());
        assert_ne!(first, name(&backup, 1), "an object of the same name is another one");
    }
}
