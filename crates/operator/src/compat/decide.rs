//! What to do about an object, and when. Nothing here reaches anything.
//!
//! | object | is tried | ends |
//! | --- | --- | --- |
//! | without an interval | at once, then [`ATTEMPTS`] times | with `succeeded` or a `Reason`; a spec that is changed after a `Reason` begins anew |
//! | with an interval | that long after the last began, also if the CoreOS operator made that | never |

use super::{invalid, place::Place};
use crate::{
    api::coreos::{CoreosBackup, CoreosBackupSpec, CoreosBackupStatus},
    failure::Failure,
};
use etcd_live::Endpoint;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource, ResourceExt};
use std::time::Duration;

/// How often a backup without an interval is tried.
pub(super) const ATTEMPTS: u32 = 3;

/// What the CoreOS operator holds objects with an interval by. Once it is gone, nobody else lets them go.
pub(super) const THEIR_FINALIZER: &str = "backup-operator-periodic";

/// What to do about an object now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing, until it changes.
    Rest,
    /// Nothing, until then.
    Wait(Timestamp),
    /// Let it go: nobody else does.
    LetGo,
    /// Say what is wrong with it.
    Refuse(Failure),
    /// Make the backup; this would be the attempt of that number. `None`: only look whether it is there already.
    Begin(Order, Option<u32>),
}

/// A backup to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// The members.
    pub endpoints: Vec<Endpoint>,
    /// Name of the Secret with certificates.
    pub tls_secret: Option<String>,
    /// Where to.
    pub place: Place,
    /// How long between two; none: there is one.
    pub interval: Option<SignedDuration>,
    /// How many files are kept; none: all.
    pub keep: Option<usize>,
    /// How long it may take.
    pub timeout: Option<Duration>,
}

impl Order {
    /// What the spec says, or what is wrong with it.
    pub(super) fn of(spec: &CoreosBackupSpec) -> Result<Self, Failure> {
        let policy = spec.backup_policy.clone().unwrap_or_default();
        let amount = |field: &str, value: i64| {
            u64::try_from(value).map_err(|_| {
                let field = format!("spec.backupPolicy.{field}");
                invalid(format!("{field} is {value}"), "write 0 or more")
            })
        };
        let interval = amount("backupIntervalInSecond", policy.backup_interval_in_second)?;
        let timeout = amount("timeoutInSecond", policy.timeout_in_second)?;
        let keep = amount("maxBackups", policy.max_backups)?;
        if spec.etcd_endpoints.is_empty() {
            return Err(invalid(
                "spec.etcdEndpoints is empty",
                "write the URLs of the members, as https://etcd-client.prod.svc:2379",
            ));
        }
        let endpoints = spec.etcd_endpoints.iter().map(|url| {
            url.parse().map_err(|error: etcd_live::EndpointError| Failure {
                reason: "Invalid",
                retryable: false,
                ..Failure::of_setting("spec.etcdEndpoints", &error, error.remedy())
            })
        });
        Ok(Self {
            endpoints: endpoints.collect::<Result<_, _>>()?,
            tls_secret: spec.client_tls_secret.clone().filter(|name| !name.is_empty()),
            place: Place::of(spec)?,
            interval: (interval > 0)
                .then(|| SignedDuration::from_secs(i64::try_from(interval).unwrap_or(i64::MAX))),
            keep: (keep > 0).then(|| usize::try_from(keep).unwrap_or(usize::MAX)),
            timeout: (timeout > 0).then(|| Duration::from_secs(timeout)),
        })
    }

    /// How long to wait after so many attempts.
    pub(super) fn back_off(&self, attempts: u32) -> SignedDuration {
        let wait = crate::backup::back_off(attempts);
        self.interval.map_or(wait, |interval| wait.min(interval))
    }
}

/// What to do about an object.
pub(super) fn decide(object: &CoreosBackup, now: Timestamp) -> Step {
    if object.meta().deletion_timestamp.is_some() {
        let is_held = object.finalizers().iter().any(|finalizer| finalizer == THEIR_FINALIZER);
        return if is_held { Step::LetGo } else { Step::Rest };
    }
    let mut status = object.status.clone().unwrap_or_default();
    if has_changed(object, &status) {
        // What failed before was another order.
        status.reason.clear();
        (status.attempts, status.retry_at) = (None, None);
    }
    let policy = object.spec.backup_policy.clone().unwrap_or_default();
    let is_one = policy.backup_interval_in_second == 0;
    if is_one && (status.succeeded || !status.reason.is_empty()) {
        return Step::Rest;
    }
    let order = match Order::of(&object.spec) {
        Ok(order) => order,
        Err(failure) => return Step::Refuse(failure),
    };
    if let Some(Time(at)) = status.retry_at
        && at > now
    {
        return Step::Wait(at);
    }
    match order.interval {
        None => once(order, &status),
        Some(interval) => again(order, interval, &status, now),
    }
}

/// Whether the spec is another than that which the status is about.
pub(super) fn has_changed(object: &CoreosBackup, status: &CoreosBackupStatus) -> bool {
    status.observed_generation.is_some() && status.observed_generation != object.meta().generation
}

fn once(order: Order, status: &CoreosBackupStatus) -> Step {
    match status.attempts.unwrap_or(0) {
        // The operator ended during the last attempt.
        ATTEMPTS.. => Step::Begin(order, None),
        attempts => Step::Begin(order, Some(attempts + 1)),
    }
}

fn again(
    order: Order,
    interval: SignedDuration,
    status: &CoreosBackupStatus,
    now: Timestamp,
) -> Step {
    let attempts = status.attempts.unwrap_or(0);
    let last = status.last_execution_date.as_ref().or(status.last_success_date.as_ref());
    let due = last.map(|last| last.0.saturating_add(interval).unwrap_or(Timestamp::MAX));
    match due {
        Some(due) if attempts == 0 && due > now => Step::Wait(due),
        _ => Step::Begin(order, Some(attempts.saturating_add(1))),
    }
}
