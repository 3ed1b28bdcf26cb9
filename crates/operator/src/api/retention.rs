//! Which backups are kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which backups of the cluster are kept in the store. A rule that is 0 or absent keeps none; without any rule, all
/// are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// The newest N.
    #[serde(default)]
    pub keep_last: u32,
    /// The newest of each of the newest N hours that have one.
    #[serde(default)]
    pub keep_hourly: u32,
    /// The newest of each of the newest N days that have one.
    #[serde(default)]
    pub keep_daily: u32,
    /// The newest of each of the newest N ISO weeks that have one.
    #[serde(default)]
    pub keep_weekly: u32,
    /// The newest of each of the newest N months that have one.
    #[serde(default)]
    pub keep_monthly: u32,
    /// The newest of each of the newest N years that have one.
    #[serde(default)]
    pub keep_yearly: u32,
    /// All that are no older than this, counted back from the newest: `36h`, `15d`, `4w`, `6mo`, `1y`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(
        pattern = r"^([0-9]+ ?(h(ours?|rs?)?|d(ays?)?|w(eeks?|ks?)?|mo(nths?|s)?|y(ears?|rs?)?) ?)+$"
    ))]
    pub keep_within: Option<String>,
    /// The most bytes that all backups of the cluster may have in the store together: `50GiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]+ ?([kKmMgGtT]i?)?B?$"))]
    pub max_total_size: Option<String>,
    /// So many verified backups are never gone below.
    #[serde(default = "min_backups")]
    #[schemars(range(min = 1))]
    pub min_backups: u32,
}

fn min_backups() -> u32 {
    1
}
