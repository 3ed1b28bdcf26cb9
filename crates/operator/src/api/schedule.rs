//! `EtcdBackupSchedule`: backups that recur.

use super::{EtcdBackupSpec, Retention};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Backups that recur, and which of them are kept. Runs of one schedule never overlap: one that is due while the last
/// still runs is skipped. The annotation `lifeboat.dev/run-now`, whenever its value changes, makes one at once.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "lifeboat.dev",
    version = "v1alpha1",
    kind = "EtcdBackupSchedule",
    namespaced,
    status = "EtcdBackupScheduleStatus",
    shortname = "ebs",
    category = "lifeboat",
    printcolumn(
        name = "Cluster",
        type_ = "string",
        json_path = ".spec.template.spec.cluster.name"
    ),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
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
    printcolumn(name = "Last success", type_ = "date", json_path = ".status.lastSuccessTime"),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".status.lastSuccessRevision"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextScheduleTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct EtcdBackupScheduleSpec {
    /// Five fields: minute, hour, day, month, weekday; or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
    #[schemars(regex(
        pattern = r"^(@(hourly|daily|weekly|monthly|yearly|annually)|[^ @][^ ]*( +[^ ]+){4})$"
    ))]
    pub schedule: String,
    /// The zone whose clock is meant, as `Europe/Berlin`.
    #[serde(default = "utc")]
    #[schemars(length(min = 1))]
    pub time_zone: String,
    /// Whether no new backups are made.
    #[serde(default)]
    pub suspend: bool,
    /// How many seconds late a backup may begin; a run missed by more is skipped. Default: the newest missed one is
    /// always made up for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub starting_deadline_seconds: Option<i64>,
    /// The longest delay of a start, in seconds. Each schedule has its own, always the same, so that hundreds do not begin
    /// at once.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86400))]
    pub jitter_seconds: i64,
    /// Which backups of the cluster are kept in the store. Default: all. It goes for all backups of that cluster there, those of
    /// other schedules, and those made by hand, too: of two schedules with different policies the stricter wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// The backups to make.
    pub template: BackupTemplate,
    /// How many EtcdBackups that succeeded are kept as objects. Backups in the store are `retention`'s.
    #[serde(default = "history")]
    #[schemars(range(min = 0, max = 1000))]
    pub successful_history_limit: u32,
    /// How many EtcdBackups that failed are kept as objects.
    #[serde(default = "history")]
    #[schemars(range(min = 0, max = 1000))]
    pub failed_history_limit: u32,
}

/// What each backup is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupTemplate {
    /// Labels of each EtcdBackup.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of each EtcdBackup.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The spec of each EtcdBackup.
    pub spec: EtcdBackupSpec,
}

/// What the schedule has done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EtcdBackupScheduleStatus {
    /// `Ready`: whether the schedule can be followed, and its last backup was made. `Retained`: whether retention has cleared the store after the last backup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The generation of the object that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The EtcdBackup that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    /// The instant of the schedule that was last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// The instant of the schedule that comes next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Time>,
    /// When a backup last succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_time: Option<Time>,
    /// The revision of the backup that last succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_revision: Option<i64>,
    /// The name in the store of the backup that last succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_backup: Option<String>,
    /// When a backup last failed, after all its attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure_time: Option<Time>,
    /// The value of `lifeboat.dev/run-now` that was last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_now: Option<String>,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn history() -> u32 {
    10
}
