//! `EtcdRestore`: a cluster brought back.

use super::{Cluster, JobOptions, StoreCredentials};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A backup brought back into a running cluster's place, or into a volume. It begins only when `confirm` is the target's
/// name. The old data are renamed, never deleted. Once it has begun, only `job` and `readySeconds` may be changed: other
/// changes are ignored, and the condition `SpecChanged` says so. Deleting the object stops it, and puts the old data back.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "lifeboat.dev",
    version = "v1alpha1",
    kind = "EtcdRestore",
    namespaced,
    status = "EtcdRestoreStatus",
    shortname = "er",
    category = "lifeboat",
    printcolumn(name = "Target", type_ = "string", json_path = ".status.target"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Backup", type_ = "string", json_path = ".status.backup"),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".status.revision"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Succeeded\")].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct EtcdRestoreSpec {
    /// What is brought back.
    pub source: RestoreSource,
    /// Where to.
    pub target: RestoreTarget,
    /// The name of the StatefulSet or claim that is written to. Nothing happens until it stands here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<String>,
    /// By how much revisions are raised, so that no client sees one come back.
    #[serde(default)]
    pub bump_revision: BumpRevision,
    /// How the pods run that write the volumes. May be corrected at any time: a pod that has not begun is made anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobOptions>,
    /// How many seconds the restored cluster may take until it serves; then the old data are put back. May be changed at any
    /// time.
    #[serde(default = "ready_seconds")]
    #[schemars(range(min = 10))]
    pub ready_seconds: i64,
}

/// What is brought back. Exactly one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("oneOf" = [
    {"required": ["backupName"]}, {"required": ["store"]}, {"required": ["url"]}
]))]
pub struct RestoreSource {
    /// Name of an EtcdBackup in the object's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub backup_name: Option<String>,
    /// A point in a store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StorePoint>,
    /// URL of a plain snapshot in an object store, with the store's options behind a `?`:
    /// `s3://bucket/etcd.db?region=eu-central-1&endpoint=https://minio.example.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^(s3|gcs|azblob|oss)://[^@]+$"))]
    pub url: Option<String>,
    /// Credentials for that URL. Default: the identity of the pods, by `job.serviceAccountName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_credentials: Option<StoreCredentials>,
}

/// A backup in a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorePoint {
    /// Name of a BackupStore in the object's namespace.
    #[schemars(length(min = 1))]
    pub name: String,
    /// The cluster's name in the store.
    #[schemars(length(min = 1))]
    pub cluster: String,
    /// `latest`, `revision:N`, `time:2026-11-22T10:00:00Z` or a backup's name.
    #[serde(default = "latest")]
    #[schemars(length(min = 1))]
    pub at: String,
}

/// Where to. Exactly one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("oneOf" = [
    {"required": ["statefulSet"]}, {"required": ["pvc"]}, {"required": ["files"]}
]))]
pub struct RestoreTarget {
    /// A StatefulSet whose pods run etcd, with a volume each: stopped, written, started, and proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stateful_set: Option<StatefulSetTarget>,
    /// Data directories in a volume that nothing uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pvc: Option<PvcTarget>,
    /// The snapshot itself, as a file in a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesTarget>,
}

/// A StatefulSet whose pods run etcd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatefulSetTarget {
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
    /// How the cluster is reached once it runs again.
    pub cluster: Cluster,
    /// The container that runs etcd. Default: the only one, or the one called `etcd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// etcd's `--data-dir` in that container. Default: what its arguments or variables say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^/"))]
    pub data_dir: Option<String>,
    /// The members' names and URLs, each name as etcd's `--name` in its pod says. Default: those in the backup, if their names
    /// are the pods' names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
    /// How many members there will be. Default: as many as the StatefulSet has replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9))]
    pub replicas: Option<i32>,
    /// Whether an owner that would scale it up again (another operator) may be told to keep still, by scaling that
    /// Deployment to 0 meanwhile: its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend_deployment: Option<String>,
}

/// A member of the restored cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Its name: etcd's `--name`.
    #[schemars(regex(pattern = r"^[^,=/\s]+$"))]
    pub name: String,
    /// Its URLs for peers: etcd's `--initial-advertise-peer-urls`.
    #[schemars(length(min = 1), inner(regex(pattern = r"^https?://[^/@?#]+$")))]
    pub peer_urls: Vec<String>,
}

/// Data directories in a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PvcTarget {
    /// Name of a PersistentVolumeClaim in the object's namespace.
    #[schemars(length(min = 1))]
    pub claim_name: String,
    /// The members to make a data directory for, each in a folder of its name.
    #[schemars(length(min = 1))]
    pub members: Vec<Member>,
}

/// The snapshot as a file in a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilesTarget {
    /// Name of a PersistentVolumeClaim in the object's namespace.
    #[schemars(length(min = 1))]
    pub claim_name: String,
    /// The file in it.
    #[serde(default = "snapshot_path")]
    #[schemars(regex(pattern = r"^([^/.]|\.[^/.])[^/]*(/([^/.]|\.[^/.])[^/]*)*$"))]
    pub path: String,
}

/// By how much revisions are raised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BumpRevision {
    /// By more than clients can have seen; older revisions are marked as compacted.
    #[default]
    Auto,
    /// Not at all.
    None,
}

/// How far a restore has come.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum RestorePhase {
    /// Waits for `confirm`, or for its turn.
    #[default]
    Pending,
    /// Source and target are looked at; nothing is changed.
    Checking,
    /// etcd is stopped.
    Stopping,
    /// The new data are made beside the old.
    Building,
    /// New and old data change places.
    Swapping,
    /// etcd is started.
    Starting,
    /// Membership, health and HashKV are asked.
    Verifying,
    /// A step failed: the old data are put back.
    RollingBack,
    /// The cluster serves the backup's data.
    Succeeded,
    /// Given up, with the old data in place.
    Failed,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EtcdRestoreStatus {
    /// How far it has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RestorePhase>,
    /// `Succeeded`: false until it is, with the reason. `SpecChanged`: a change came too late, and is ignored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The generation of the object that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What is written to, as `statefulset/etcd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The spec as it was when the restore began to change something, as JSON: it goes by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_with: Option<String>,
    /// This restore's name on the volumes: old data are kept under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The backup that is brought back, chosen once it is confirmed, and the one that would be, before; or the object of `source.url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// The backup's revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// The replicas that the StatefulSet had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// The replicas that `suspendDeployment` had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended_replicas: Option<i32>,
    /// The source, as it was understood once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<RestoreSource>,
    /// The revision that the restored cluster begins at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_revision: Option<i64>,
    /// What each member's HashKV must be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_kv: Option<u32>,
    /// The volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeStatus>,
    /// Why the old data are put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<RestoreFailure>,
    /// Since when it is in its phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase_since: Option<Time>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it had ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
}

/// Why a restore failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreFailure {
    /// In which phase.
    pub phase: RestorePhase,
    /// One word.
    pub reason: String,
    /// What happened.
    pub message: String,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStatus {
    /// The claim.
    pub claim: String,
    /// The member whose data are in it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub member: String,
    /// Where its peers will reach it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peer_urls: Vec<String>,
    /// How far it has come.
    pub phase: VolumePhase,
}

/// How far a volume has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VolumePhase {
    /// As it was.
    #[default]
    Untouched,
    /// The new data are being made beside the old.
    Building,
    /// The new data lie beside the old.
    Built,
    /// The new data are in place, the old beside them.
    Swapped,
    /// The old data are in place again.
    RolledBack,
    /// The old data were never touched; what was begun beside them could not be removed.
    Left,
}

fn ready_seconds() -> i64 {
    300
}

fn latest() -> String {
    "latest".to_owned()
}

fn snapshot_path() -> String {
    "snapshot.db".to_owned()
}
