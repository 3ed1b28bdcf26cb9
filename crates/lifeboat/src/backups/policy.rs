//! The flags of a retention policy.

use jiff::tz::TimeZone;
use repository::retention::{Policy, Size, Within};

/// What a policy's flags are listed under.
const HEADING: &str = "Policy";

/// How many backups of each cluster are kept, and for how long
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PolicyArgs {
    /// Keep the newest N
    #[arg(long, help_heading = HEADING, value_name = "N")]
    keep_last: Option<u32>,

    /// Keep the newest of each of the newest N hours that have one
    #[arg(long, help_heading = HEADING, value_name = "N")]
    keep_hourly: Option<u32>,

    /// Keep the newest of each of the newest N days that have one
    #[arg(long, help_heading = HEADING, value_name = "N")]
    keep_daily: Option<u32>,

    /// Keep the newest of each of the newest N weeks that have one; weeks begin on Monday
    #[arg(long, help_heading = HEADING, value_name = "N")]
    keep_weekly: Option<u32>,

    /// Keep the newest of each of the newest N months that have one
    #[arg(long, help_heading = HEADING, value_name = "N")]
    keep_monthly: Option<u32>,

    /// Keep the newest of each of the newest N years that have one
    #[arg(long, help_heading = HEADING, value_name = "N")]
    keep_yearly: Option<u32>,

    /// Keep all that are no older than this, counted back from the newest: 15d, 36h, 1y
    #[arg(long, help_heading = HEADING, value_name = "SPAN")]
    keep_within: Option<Within>,

    /// Remove the oldest until the rest fits: 50GiB
    #[arg(long, help_heading = HEADING, value_name = "SIZE")]
    max_total_size: Option<Size>,

    /// Never go below so many verified backups [default: 1]
    #[arg(long, help_heading = HEADING, value_name = "N")]
    min_backups: Option<u32>,

    /// Time zone whose hours, days, weeks, months and years are meant, such as Europe/Berlin [default: UTC]
    #[arg(long, help_heading = HEADING, value_name = "ZONE", value_parser = parse_zone)]
    time_zone: Option<TimeZone>,
}

fn parse_zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|error| error.to_string())
}

impl PolicyArgs {
    /// The policy that the flags make, or `base` if there is none of them.
    pub(crate) fn over(self, base: Option<Policy>) -> Policy {
        let default = Policy::default();
        let named = Policy {
            keep_last: self.keep_last.unwrap_or(0),
            keep_hourly: self.keep_hourly.unwrap_or(0),
            keep_daily: self.keep_daily.unwrap_or(0),
            keep_weekly: self.keep_weekly.unwrap_or(0),
            keep_monthly: self.keep_monthly.unwrap_or(0),
            keep_yearly: self.keep_yearly.unwrap_or(0),
            keep_within: self.keep_within,
            max_total_size: self.max_total_size,
            min_backups: self.min_backups.unwrap_or(default.min_backups),
            time_zone: self.time_zone.unwrap_or(default.time_zone),
        };
        match base {
            Some(base) if named == Policy::default() => base,
            _ => named,
        }
    }
}
