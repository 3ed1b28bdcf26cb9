//! `EtcdBackup` of `etcd.database.coreos.com/v1beta2`: what the archived CoreOS etcd-operator took, with the names that it had.
//!
//! Its own definition had no schema, so objects of it may hold anything. What is required here is what it could not do without;
//! all else the operator looks at itself ([`compat`](crate::compat)), so that an old object can be told in its status what is
//! wrong with it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The API group.
pub const GROUP: &str = "etcd.database.coreos.com";
/// Its version.
pub const VERSION: &str = "v1beta2";

/// One backup of one cluster, or one in every interval, as a plain snapshot file in a bucket. For who comes from the CoreOS
/// etcd-operator; served with `lifeboat operator --coreos-compat` alone.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "etcd.database.coreos.com",
    version = "v1beta2",
    kind = "EtcdBackup",
    root = "CoreosBackup",
    namespaced,
    status = "CoreosBackupStatus",
    category = "lifeboat",
    printcolumn(name = "Storage", type_ = "string", json_path = ".spec.storageType"),
    printcolumn(name = "Succeeded", type_ = "boolean", json_path = ".status.succeeded"),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".status.etcdRevision"),
    printcolumn(name = "Last success", type_ = "date", json_path = ".status.lastSuccessDate"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.Reason"),
    printcolumn(name = "Path", type_ = "string", json_path = ".status.path", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct CoreosBackupSpec {
    /// URLs of members of one cluster. The best of them is asked, then the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub etcd_endpoints: Vec<String>,
    /// `S3`, `ABS`, `GCS` or `OSS`: which of the fields `s3`, `abs`, `gcs` and `oss` says where.
    pub storage_type: String,
    /// How often, how many, how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_policy: Option<BackupPolicy>,
    /// Name of a Secret with `etcd-client-ca.crt`, `etcd-client.crt` and `etcd-client.key`.
    #[serde(default, rename = "clientTLSSecret", skip_serializing_if = "Option::is_none")]
    pub client_tls_secret: Option<String>,
    /// A bucket of S3, or of what speaks its protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Source>,
    /// A container of Azure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abs: Option<AbsSource>,
    /// A bucket of Google.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcs: Option<GcsSource>,
    /// A bucket of Alibaba.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oss: Option<OssSource>,
}

/// How often, how many, how long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupPolicy {
    /// How many seconds a backup may take. 0: as long as it goes on.
    #[serde(default)]
    pub timeout_in_second: i64,
    /// How many seconds lie between two backups. 0: there is one.
    #[serde(default)]
    pub backup_interval_in_second: i64,
    /// How many files of an interval's backups are kept, those of the CoreOS operator counted. 0: all.
    #[serde(default)]
    pub max_backups: i64,
}

/// A bucket of S3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Source {
    /// `BUCKET/PATH/FILE`. With an interval, `_vREVISION_DATE` is added.
    pub path: String,
    /// Name of a Secret with `credentials` and `config` as in `~/.aws`, of which the profile `default` is taken. Without, the
    /// identity that the pod has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_secret: Option<String>,
    /// Where requests go. Default: AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Whether the bucket stands in the URL's path instead of its host.
    #[serde(default)]
    pub force_path_style: bool,
}

/// A container of Azure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AbsSource {
    /// `CONTAINER/PATH/FILE`. With an interval, `_vREVISION_DATE` is added.
    pub path: String,
    /// Name of a Secret with `storage-account` and `storage-key`, and `cloud` if it is not the public one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abs_secret: Option<String>,
}

/// A bucket of Google.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GcsSource {
    /// `BUCKET/PATH/FILE`. With an interval, `_vREVISION_DATE` is added.
    pub path: String,
    /// Name of a Secret with `credentials.json`. Without, the identity that the pod has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcp_secret: Option<String>,
}

/// A bucket of Alibaba.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OssSource {
    /// `BUCKET/PATH/FILE`. With an interval, `_vREVISION_DATE` is added.
    pub path: String,
    /// Name of a Secret with `accessKeyID` and `accessKeySecret`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oss_secret: Option<String>,
    /// Where requests go. Default: `https://oss-cn-hangzhou.aliyuncs.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// What came of it. Up to `lastExecutionDate` as the CoreOS operator had it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CoreosBackupStatus {
    /// Whether the last backup was made.
    #[serde(default)]
    pub succeeded: bool,
    /// Why the last backup was not made, and what to do. Empty while one is tried again.
    // Always written: left out, the text that the other operator has written would stay.
    #[serde(default, rename = "Reason", deserialize_with = "or_empty")]
    pub reason: String,
    /// The version of etcd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_version: Option<String>,
    /// The newest revision in the last snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_revision: Option<i64>,
    /// When the last backup began that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_date: Option<Time>,
    /// When the last backup began, made or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_execution_date: Option<Time>,
    /// Where the last snapshot lies, as in the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// SHA-256 of that snapshot, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Bytes of that snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Where a snapshot is being written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writing: Option<String>,
    /// How often it was tried since the last backup was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Time>,
    /// The generation of the object that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Succeeded`: whether the last backup was made. `Pruned`: whether all but `maxBackups` files are deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Kubernetes 1.20 stores null where an empty text is applied.
fn or_empty<'de, D: serde::Deserializer<'de>>(text: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(text)?.unwrap_or_default())
}
