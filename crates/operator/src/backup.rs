//! The controller of `EtcdBackup`: one backup, made once.
//!
//! ```text
//!   Pending ──▶ Running ──▶ Succeeded        the object stays as it is until its ttl, if it has one
//!      ▲          │   └───▶ Failed           nothing is tried any more
//!      └─back-off─┘
//! ```
//!
//! * What is missing in Kubernetes, a Secret or a store, is waited for, and that is no attempt.
//! * An object is at most in one run: one operator leads, and in it one task per object works.
//! * The spec with which it was begun is kept in the status, and counts from then on, for its deletion too.
//! * Before anything is done, the object is read anew: what a cache says may be older than what was just written.
//! * `Running` is written before the run begins. An operator that finds it without running it knows that another ended
//!   meanwhile: first it looks whether that run's backup is in the store, by the object's uid in the manifest.
//! * An object that is removed takes its run along: the stream is stopped, the Job ended.
//! * The store's own lease keeps two writers apart, whatever Kubernetes believes.

mod attempt;
mod deletion;
pub mod job;
pub mod live;
pub(crate) mod stored;

pub(crate) use deletion::locked_until;

use crate::{
    api::{DeletionPolicy, EtcdBackup, EtcdBackupStatus, Phase, RunAs},
    conditions::{self, Is},
    context::Context,
    failure::Failure,
    run::Scope,
};
use attempt::Attempt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Preconditions},
    runtime::{Controller, controller::Action, watcher},
};
use repository::{ClusterName, Manifest, Repository, RepositoryError};
use std::{sync::Arc, time::Duration};

/// Holds an object until its backup is deleted.
pub const FINALIZER: &str = "lifeboat.dev/backup";

/// Marks an object that shows a backup which it did not make.
pub const SYNCED: &str = "lifeboat.dev/synced";

/// Says that an object's backup stays, whatever its deletionPolicy says.
pub const RETAIN: &str = "lifeboat.dev/retain";

/// The condition that says that a change is ignored.
const SPEC_CHANGED: &str = "SpecChanged";

/// Its reason where the store keeps the backup.
pub(crate) const LOCKED: &str = "Locked";

/// The wait after the first attempt that failed; twice as long after each further one.
const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(10);

/// The longest wait.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(10);

/// What to do about an object now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until it changes.
    Rest,
    /// Nothing, until then.
    Wait(Timestamp),
    /// Make the backup; this would be the attempt of that number. `None`: only look whether it is there already.
    Begin(Option<u32>),
    /// See how far the Job of that attempt is.
    Look(u32),
    /// Take hold of the object, or let it go.
    Hold(bool),
    /// Delete its backup, then let it go.
    DeleteBackup,
    /// Its time is over.
    RemoveObject,
    /// Say that its changes are ignored, or that they were taken back.
    TellChanged,
}

/// Whether it shows a backup that it did not make.
pub fn is_synced(backup: &EtcdBackup) -> bool {
    backup.labels().contains_key(SYNCED)
}

/// What to do about an object.
pub fn decide(backup: &EtcdBackup, now: Timestamp) -> Step {
    let held = backup.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    let spec = backup.spec_in_force();
    let owns = spec.deletion_policy == DeletionPolicy::Delete
        && !is_synced(backup)
        && !backup.annotations().contains_key(RETAIN);
    if backup.meta().deletion_timestamp.is_some() {
        return match held {
            true if owns => {
                deletion::kept_until(backup, now).map_or(Step::DeleteBackup, Step::Wait)
            }
            true => Step::Hold(false),
            false => Step::Rest,
        };
    }
    if held != owns {
        return Step::Hold(owns);
    }
    if is_synced(backup) {
        return Step::Rest;
    }
    if is_change_untold(backup) {
        return Step::TellChanged;
    }
    let status = backup.status.clone().unwrap_or_default();
    let attempts = status.attempts.unwrap_or(0);
    let is_corrected =
        status.begun_with.is_none() && status.observed_generation != backup.meta().generation;
    match status.phase.unwrap_or_default() {
        Phase::Pending => match status.retry_at {
            Some(Time(at)) if at > now && !is_corrected => Step::Wait(at),
            _ => Step::Begin(Some(attempts + 1)),
        },
        Phase::Running if spec.run_as == RunAs::Job && attempts > 0 => Step::Look(attempts),
        // Nobody runs it: whoever did has ended. An attempt that ended an operator counts.
        Phase::Running if attempts >= spec.attempts => Step::Begin(None),
        Phase::Running => Step::Begin(Some(attempts + 1)),
        Phase::Succeeded | Phase::Failed => ended(backup, &status, now),
    }
}

/// Whether the spec is another one than that with which the backup was begun.
fn is_changed(backup: &EtcdBackup) -> bool {
    let begun_with = backup.status.as_ref().and_then(|status| status.begun_with.as_ref());
    begun_with.is_some_and(|begun_with| *begun_with != backup.spec.kept())
}

/// Whether what the object says of that is out of date.
fn is_change_untold(backup: &EtcdBackup) -> bool {
    let conditions = backup.status.as_ref().map(|status| &status.conditions[..]);
    let told = conditions::get(conditions.unwrap_or_default(), SPEC_CHANGED);
    let told = told.filter(|told| told.status == Is::True.name());
    match is_changed(backup) {
        true => told.is_none_or(|told| told.observed_generation != backup.meta().generation),
        false => told.is_some(),
    }
}

fn ended(backup: &EtcdBackup, status: &EtcdBackupStatus, now: Timestamp) -> Step {
    let Some(ttl) = backup.spec_in_force().ttl_seconds_after_finished else { return Step::Rest };
    let Some(Time(finished)) = status.finished_at else { return Step::Rest };
    let over = finished.saturating_add(SignedDuration::from_secs(ttl)).unwrap_or(Timestamp::MAX);
    if over <= now { Step::RemoveObject } else { Step::Wait(over) }
}

/// How long to wait after so many attempts.
pub(crate) fn back_off(attempts: u32) -> SignedDuration {
    let doubled = FIRST_WAIT.checked_mul(1 << attempts.saturating_sub(1).min(16));
    doubled.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT)
}

/// Follows all objects of the kind.
pub async fn run(
    context: Arc<Context>,
    scope: Scope,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let api: Api<EtcdBackup> = scope.api(&context.client);
    let jobs: Api<k8s_openapi::api::batch::v1::Job> = scope.api(&context.client);
    let ours = watcher::Config::default().labels(&format!("{}=backup", job::LABEL));
    let controller = Controller::new(api, watcher::Config::default().page_size(500))
        .owns(jobs, ours.page_size(500))
        .graceful_shutdown_on(stop);
    crate::run::drive(controller, context, "EtcdBackup", reconcile).await;
}

async fn reconcile(cached: Arc<EtcdBackup>, context: Arc<Context>) -> Result<Action, Failure> {
    let now = Timestamp::now();
    match decide(&cached, now) {
        Step::Rest => return Ok(Action::await_change()),
        Step::Wait(until) => return Ok(wait(now, until)),
        _ => {}
    }
    // A cache may be older than what this operator has just written.
    let api = context.beside::<EtcdBackup, _>(&*cached);
    let Some(backup) = api.get_opt(&cached.name_any()).await? else {
        return Ok(Action::await_change());
    };
    if backup.uid() != cached.uid() {
        return Ok(Action::await_change());
    }
    match decide(&backup, now) {
        Step::Rest => Ok(Action::await_change()),
        Step::Wait(until) => Ok(wait(now, until)),
        Step::Hold(held) => hold(&api, &backup, held).await,
        Step::Begin(attempt) => Attempt { context: &context, backup: &backup }.begin(attempt).await,
        Step::Look(attempt) => {
            let status = backup.status.clone().unwrap_or_default();
            job::look(&context, &backup, status, attempt).await
        }
        Step::DeleteBackup => deletion::delete(&context, &api, &backup).await,
        Step::RemoveObject => remove_object(&api, &backup).await,
        Step::TellChanged => tell_changed(&context, &backup, now).await,
    }
}

/// Comes back at that instant.
pub(crate) fn wait(now: Timestamp, until: Timestamp) -> Action {
    let wait = until.duration_since(now).max(SignedDuration::ZERO);
    // Not a moment early: seconds are compared.
    Action::requeue(Duration::try_from(wait).unwrap_or_default() + Duration::from_millis(50))
}

async fn hold(api: &Api<EtcdBackup>, backup: &EtcdBackup, held: bool) -> Result<Action, Failure> {
    crate::context::hold(api, backup, FINALIZER, held).await?;
    Ok(Action::await_change())
}

pub(crate) async fn remove_object(
    api: &Api<EtcdBackup>,
    backup: &EtcdBackup,
) -> Result<Action, Failure> {
    let only = Preconditions { uid: backup.uid(), resource_version: None };
    let params = DeleteParams { preconditions: Some(only), ..DeleteParams::background() };
    match api.delete(&backup.name_any(), &params).await {
        Ok(_) => Ok(Action::await_change()),
        Err(error) if crate::context::is_gone(&error) => Ok(Action::await_change()),
        Err(error) => Err(error.into()),
    }
}

async fn tell_changed(
    context: &Context,
    backup: &EtcdBackup,
    now: Timestamp,
) -> Result<Action, Failure> {
    let text = changed(backup);
    let (is, reason, text) = match &text {
        Some(text) => (Is::True, "Ignored", text.as_str()),
        None => (Is::False, "TakenBack", "the spec is again as it was when the backup began"),
    };
    let mut status = backup.status.clone().unwrap_or_default();
    let generation = backup.meta().generation;
    conditions::set(&mut status.conditions, SPEC_CHANGED, is, reason, text, generation, now);
    context.write_status(backup, &status).await?;
    if is == Is::True {
        context.warn(backup, SPEC_CHANGED, text).await;
    }
    Ok(Action::await_change())
}

/// What is told of a change that is ignored.
fn changed(backup: &EtcdBackup) -> Option<String> {
    if !is_changed(backup) {
        return None;
    }
    let mut text = "the spec was changed after the backup had begun, and the change is ignored: what counts stands in status.begunWith; make another EtcdBackup".to_owned();
    if backup.spec_in_force().deletion_policy == DeletionPolicy::Delete
        && backup.spec.deletion_policy == DeletionPolicy::Retain
    {
        text += &format!("; {}", deletion::let_go(backup));
    }
    Some(text)
}

/// A failure with what helps: from the begin on, another name in the spec does not.
fn in_force(backup: &EtcdBackup, failure: Failure) -> Failure {
    let has_begun = backup.status.as_ref().is_some_and(|status| status.begun_with.is_some());
    match has_begun && failure.reason == "StoreMissing" {
        true => Failure {
            remedy: "create it again: the backup has begun with it, and another storeName does not count any more".to_owned(),
            ..failure
        },
        false => failure,
    }
}

fn of(error: &RepositoryError) -> Failure {
    daemon::jobs::Failure::from(error).into()
}

/// The cluster's name, if it can be one.
pub(crate) fn cluster_name(backup: &EtcdBackup) -> Result<ClusterName, Failure> {
    let name = &backup.spec_in_force().cluster.name;
    name.parse().map_err(|error| {
        Failure::of_setting("spec.cluster.name", &error, "use letters, digits, `-`, `_` and `.`")
    })
}

/// What the manifest says of who made it.
fn tool(backup: &EtcdBackup) -> String {
    let uid = backup.uid().unwrap_or_default();
    format!("lifeboat {} (EtcdBackup {uid})", env!("CARGO_PKG_VERSION"))
}

/// The backup that this object has made, if it has.
async fn made_by(
    backup: &EtcdBackup,
    repository: &Repository,
    cluster: &ClusterName,
) -> Result<Option<Manifest>, Failure> {
    let uid = format!("(EtcdBackup {})", backup.uid().unwrap_or_default());
    let listing = repository.backups(cluster).await.map_err(|error| of(&error))?;
    let found = listing.backups.into_iter().map(|backup| backup.manifest);
    Ok(found.into_iter().find(|manifest| manifest.tool.ends_with(&uid)))
}

#[cfg(test)]
mod tests;
