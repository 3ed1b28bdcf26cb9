//! `BackupStore`: where backups go.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A place for backups: a bucket, with its credentials and its encryption.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "lifeboat.dev",
    version = "v1alpha1",
    kind = "BackupStore",
    namespaced,
    status = "BackupStoreStatus",
    shortname = "bst",
    category = "lifeboat",
    printcolumn(name = "Url", type_ = "string", json_path = ".spec.url"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Backups", type_ = "integer", json_path = ".status.backups", priority = 1),
    printcolumn(name = "Checked", type_ = "date", json_path = ".status.checkedAt", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct BackupStoreSpec {
    /// `s3://bucket/prefix`, `gcs://…`, `azblob://…`, `oss://…`, without credentials; `file:///…` only below a folder that the
    /// operator was given by `--file-stores`.
    #[schemars(regex(pattern = r"^(s3|gcs|azblob|oss|file)://[^@?#]+$"))]
    pub url: String,
    /// Options of the store: `endpoint`, `region`, `path-style`, `sse` and the like. None that names a file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// Credentials. Default: the operator's own identity (IRSA, workload identity), unless it runs with
    /// `--no-ambient-credentials`; a Job's is that of its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<StoreCredentials>,
    /// CA certificates of the store, PEM. Default: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<SecretKey>,
    /// Encryption. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// Whether backups may be stored unencrypted although the newest one there is encrypted. Without, a list of recipients
    /// that was lost makes no open backup.
    #[serde(default)]
    pub unencrypted: bool,
    /// zstd's level.
    #[serde(default = "compression_level")]
    #[schemars(range(min = 1, max = 19))]
    pub compression_level: i32,
    /// The most bytes per second that go there: `20MiB/s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]+ ?([kKMG]i?)?B?(/s)?$"))]
    pub bandwidth_limit: Option<String>,
    /// Whether each backup of the store is shown as an EtcdBackup, those that others made too, so that a lost cluster's
    /// backups reappear. Removing such an object deletes no backup.
    #[serde(default)]
    pub sync: bool,
}

/// A Secret with the credentials of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreCredentials {
    /// Name of a Secret in the object's namespace, with `access-key-id` and `secret-access-key`, and `session-token` if there
    /// is one; `AWS_ACCESS_KEY_ID` and the like are understood, and `credentials` as in `~/.aws`.
    #[schemars(length(min = 1))]
    pub secret_name: String,
}

/// A key in a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// Name of a Secret in the object's namespace.
    #[schemars(length(min = 1))]
    pub secret_name: String,
    /// The key in it.
    #[schemars(length(min = 1))]
    pub key: String,
}

/// Who can read the backups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Encryption {
    /// Public keys (`age1…`) that backups are encrypted to. Never write a private key here: everybody who may read the object
    /// reads it, and so does who sees the API server refuse it.
    #[schemars(length(min = 1), inner(regex(pattern = r"^age1[a-z0-9]{20,}$")))]
    pub recipients: Vec<String>,
    /// The private keys, for restores alone; backups are made without. One must belong to one of `recipients`: see the
    /// condition `Decryptable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identities: Option<SecretKey>,
}

/// What the operator found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStoreStatus {
    /// `Ready`: reachable and writable. `CreateOnly`: a second creation of one object is refused, so that two writers
    /// can't harm each other. `ObjectLock`: new objects can't be deleted before their time, so that pruning waits for it; told by the
    /// newest object. `Decryptable`: the private key that is named opens what is encrypted now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The generation of the object that this was found for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many backups there were when it was last looked at, which is every ten minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<u64>,
    /// When it was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<Time>,
}

fn compression_level() -> i32 {
    1
}
