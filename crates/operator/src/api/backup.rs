//! `EtcdBackup`: one backup.

use super::{Cluster, JobOptions, Phase};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One verified backup of one cluster. What is changed in its spec once it has begun is ignored, and told.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "lifeboat.dev",
    version = "v1alpha1",
    kind = "EtcdBackup",
    namespaced,
    status = "EtcdBackupStatus",
    shortname = "eb",
    category = "lifeboat",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".status.cluster"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Succeeded\")].reason"
    ),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".status.revision"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(
        name = "Stored",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Stored\")].status"
    ),
    printcolumn(name = "Store", type_ = "string", json_path = ".status.storeName"),
    printcolumn(name = "Uri", type_ = "string", json_path = ".status.uri", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct EtcdBackupSpec {
    /// The cluster.
    pub cluster: Cluster,
    /// Name of a BackupStore in the object's namespace.
    #[schemars(length(min = 1))]
    pub store_name: String,
    /// Whether the operator makes it, or a pod of its own, near the cluster.
    #[serde(default)]
    pub run_as: RunAs,
    /// How that pod runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobOptions>,
    /// What to do when members disagree on HashKV.
    #[serde(default)]
    pub hash_mismatch: HashMismatch,
    /// How often it is tried before it has failed.
    #[serde(default = "attempts")]
    #[schemars(range(min = 1, max = 20))]
    pub attempts: u32,
    /// Whether the backup in the store stays when the object is removed, or goes with it.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// The object is removed so many seconds after it has ended; by `deletionPolicy`, the backup may outlive it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i64>,
}

impl EtcdBackup {
    /// The spec that counts: that with which it was begun, if it was.
    pub fn spec_in_force(&self) -> &EtcdBackupSpec {
        let begun_with = self.status.as_ref().and_then(|status| status.begun_with.as_ref());
        begun_with.unwrap_or(&self.spec)
    }
}

impl EtcdBackupSpec {
    /// As it is kept in a status. Kubernetes 1.20 takes no empty text in a list there; in a toleration it means the same as none.
    pub(crate) fn kept(&self) -> Self {
        let mut kept = self.clone();
        for toleration in kept.job.iter_mut().flat_map(|job| &mut job.tolerations) {
            let fields = [
                &mut toleration.effect,
                &mut toleration.key,
                &mut toleration.operator,
                &mut toleration.value,
            ];
            for field in fields {
                field.take_if(|text| text.is_empty());
            }
        }
        kept
    }
}

/// Where a backup is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunAs {
    /// In the operator.
    #[default]
    Operator,
    /// In a Job.
    Job,
}

/// What to do when members disagree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HashMismatch {
    /// Say so.
    #[default]
    Warn,
    /// Make no backup.
    Fail,
}

/// What becomes of a backup whose object is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It stays.
    #[default]
    Retain,
    /// It is deleted first.
    Delete,
}

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EtcdBackupStatus {
    /// How far it has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// `Succeeded`: false until it is, with the reason. `Ended`: true when it has succeeded or failed. `Stored`: whether its backup
    /// is in the store still. `ClusterChanged`: backups of that name were of another cluster before. `SpecChanged`: a change of
    /// the spec is ignored. `Deleted`: why an object that is to go with its backup is still there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The generation of the object that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The cluster's name in the store: where the backup is, whatever the spec says now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The BackupStore: where the backup is, whatever the spec says now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_name: Option<String>,
    /// The spec as it was when the first attempt began. All goes by it, the deletion too; what was changed since is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_with: Option<EtcdBackupSpec>,
    /// How often it was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// How many of these attempts are sure to have left nothing in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_nothing: Option<u32>,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Time>,
    /// The backup's name in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// Where the snapshot lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// The newest revision in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// Bytes of the snapshot, as a person reads them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Bytes of the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Bytes in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
    /// SHA-256 of the snapshot, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The version of etcd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_version: Option<String>,
    /// What was proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// When the backup began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it had ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
}

/// What was proved of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// HashKV at its revision, computed from the snapshot.
    pub hash_kv: u32,
    /// Members that said the same.
    pub agreed: Vec<String>,
    /// Members that said something else: their data differ.
    pub differed: Vec<String>,
    /// Members that could not be asked.
    pub unasked: Vec<String>,
}

fn attempts() -> u32 {
    3
}
