//! What a schedule's retention keeps in the store.

use crate::{
    api::{EtcdBackupSchedule, Retention},
    backup::locked_until,
    context::Context,
    failure::Failure,
    metrics, secrets,
};
use jiff::{Timestamp, tz::TimeZone};
use kube::ResourceExt;
use repository::{
    ClusterName, Repository,
    prune::{PruneOptions, PrunePlan},
    retention::Policy,
};

/// The policy as the repository has it; days and hours are those of `zone`.
pub(super) fn policy(retention: &Retention, zone: &str) -> Result<Policy, Failure> {
    let wrong = |field: &'static str, remedy: &'static str| {
        move |error: repository::retention::AmountError| Failure {
            reason: "Invalid",
            ..Failure::of_setting(&format!("spec.retention.{field}"), &error, remedy)
        }
    };
    let within = retention.keep_within.as_ref().map(|text| text.parse()).transpose();
    let size = retention.max_total_size.as_ref().map(|text| text.parse()).transpose();
    Ok(Policy {
        keep_last: retention.keep_last,
        keep_hourly: retention.keep_hourly,
        keep_daily: retention.keep_daily,
        keep_weekly: retention.keep_weekly,
        keep_monthly: retention.keep_monthly,
        keep_yearly: retention.keep_yearly,
        keep_within: within.map_err(wrong("keepWithin", ""))?,
        max_total_size: size.map_err(wrong("maxTotalSize", ""))?,
        min_backups: retention.min_backups,
        time_zone: TimeZone::get(zone).unwrap_or(TimeZone::UTC),
    })
}

/// What retention has done.
pub(super) struct Pruned {
    /// Names of backups that are gone.
    pub(super) removed: Vec<String>,
    /// How many backups of the cluster are left.
    pub(super) left: usize,
    /// What should have gone too.
    pub(super) kept: Option<Kept>,
    /// Whether the policy says nothing, and so keeps everything.
    pub(super) keeps_all: bool,
}

/// Objects that the store does not let go.
pub(super) struct Kept {
    /// How many.
    pub(super) objects: usize,
    /// When it lets the first of them go, if it tells.
    pub(super) until: Option<Timestamp>,
}

/// Deletes what the policy does not keep.
pub(super) async fn apply(
    context: &Context,
    schedule: &EtcdBackupSchedule,
    retention: &Retention,
    now: Timestamp,
) -> Result<Pruned, Failure> {
    let policy = policy(retention, &schedule.spec.time_zone)?;
    let spec = &schedule.spec.template.spec;
    let namespace = schedule.namespace().unwrap_or_default();
    let cluster: ClusterName = spec.cluster.name.parse().map_err(|error| {
        Failure::of_setting("spec.template.spec.cluster.name", &error, "write another name")
    })?;
    let failed = |error| Failure::from(daemon::jobs::Failure::from(&error));
    let place = secrets::place(context, &namespace, &spec.store_name).await?;
    let opened = Repository::open(place.store).await;
    let repository = opened.map_err(|error| Failure::from(daemon::jobs::Failure::from(&error)))?;
    let plan = PrunePlan::new(&repository, &cluster, &policy, now, PruneOptions::default()).await;
    let plan = plan.map_err(failed)?;
    let backups: Vec<_> = plan.backups.iter().map(|backup| backup.decision.id).collect();
    let report = plan.execute(&repository, |_| {}).await.map_err(failed)?;
    let left = backups.iter().filter(|id| !report.removed.contains(id)).count();
    let removed: Vec<_> = report.removed.iter().map(ToString::to_string).collect();
    let place =
        metrics::Place { namespace, cluster: cluster.to_string(), store: spec.store_name.clone() };
    context.metrics.pruned.get_or_create(&place).inc_by(removed.len() as u64);
    if let Some(error) = report.failed.first() {
        return Err(daemon::jobs::Failure::from(error).into());
    }
    let kept = (!report.locked.is_empty())
        .then(|| Kept { objects: report.locked.len(), until: locked_until(&report.locked) });
    let keeps_all = !policy.has_rule() && policy.max_total_size.is_none();
    Ok(Pruned { removed, left, kept, keeps_all })
}
