//! The controller of `EtcdBackup`: one backup, made once.
//!
//! ```text
//!   Pending ──▶ Running ──▶ Succeeded        the object stays as it is until its ttl, if it has one
//!      ▲          │   └───▶ Failed           nothing is tried any more
//!      └─back-off─┘
//! ```
//!
//! * An object is at most in one run: one operator leads, and in it one task per object works.
//! * Before anything is done, the object is read anew: what a cache says may be older than what was just written.
//! * `Running` is written before the run begins. An operator that finds it without running it knows that another ended
//!   meanwhile: first it looks whether that run's backup is in the store, by the object's uid in the manifest.
//! * An object that is removed takes its run along: the stream is stopped, the Job ended.
//! * The store's own lease keeps two writers apart, whatever Kubernetes believes.

pub mod job;
pub mod live;

use crate::{
    api::{DeletionPolicy, EtcdBackup, EtcdBackupStatus, Phase, RunAs},
    conditions::{self, Is, seconds},
    context::Context,
    failure::Failure,
    metrics,
    run::Scope,
    secrets,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    runtime::{Controller, controller::Action, watcher},
};
use repository::{BackupId, ClusterName, Manifest, Repository, RepositoryError, store::StoreError};
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// Holds an object until its backup is deleted.
pub const FINALIZER: &str = "lifeboat.dev/backup";

/// Marks an object that shows a backup which it did not make.
pub const SYNCED: &str = "lifeboat.dev/synced";

/// Says that an object's backup stays, whatever its deletionPolicy says.
pub const RETAIN: &str = "lifeboat.dev/retain";

/// The condition that says why an object that is to go is still there.
const DELETED: &str = "Deleted";

/// Its reason where the store keeps the backup.
pub(crate) const LOCKED: &str = "Locked";

/// The wait after the first attempt that failed; twice as long after each further one.
const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(10);

/// The longest wait.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(10);

/// A lock that has no end, or a far one, may be lifted before: so it is looked at again.
const LOCK_LOOK: SignedDuration = SignedDuration::from_hours(24);

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
    /// Say that its changes are ignored.
    TellChanged,
}

/// Whether it shows a backup that it did not make.
pub fn is_synced(backup: &EtcdBackup) -> bool {
    backup.labels().contains_key(SYNCED)
}

/// What to do about an object.
pub fn decide(backup: &EtcdBackup, now: Timestamp) -> Step {
    let held = backup.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    let owns = backup.spec.deletion_policy == DeletionPolicy::Delete
        && !is_synced(backup)
        && !backup.annotations().contains_key(RETAIN);
    if backup.meta().deletion_timestamp.is_some() {
        return match held {
            true if owns => kept_until(backup, now).map_or(Step::DeleteBackup, Step::Wait),
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
    let status = backup.status.clone().unwrap_or_default();
    let attempts = status.attempts.unwrap_or(0);
    match status.phase.unwrap_or_default() {
        Phase::Pending => match status.retry_at {
            Some(Time(at)) if at > now => Step::Wait(at),
            _ => Step::Begin(Some(attempts + 1)),
        },
        Phase::Running if backup.spec.run_as == RunAs::Job && attempts > 0 => Step::Look(attempts),
        // Nobody runs it: whoever did has ended. An attempt that ended an operator counts.
        Phase::Running if attempts >= backup.spec.attempts => Step::Begin(None),
        Phase::Running => Step::Begin(Some(attempts + 1)),
        Phase::Succeeded | Phase::Failed => ended(backup, &status, now),
    }
}

/// Until when the store keeps the backup of an object that is to go, if that is known and to come.
fn kept_until(backup: &EtcdBackup, now: Timestamp) -> Option<Timestamp> {
    let status = backup.status.as_ref()?;
    let Time(until) = status.retry_at.clone()?;
    let told = conditions::get(&status.conditions, DELETED)?;
    (told.reason == LOCKED && until > now).then_some(until)
}

fn ended(backup: &EtcdBackup, status: &EtcdBackupStatus, now: Timestamp) -> Step {
    if backup.meta().generation != status.observed_generation {
        let told = conditions::get(&status.conditions, "SpecChanged");
        if told.and_then(|told| told.observed_generation) != backup.meta().generation {
            return Step::TellChanged;
        }
    }
    let Some(ttl) = backup.spec.ttl_seconds_after_finished else { return Step::Rest };
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
        Step::DeleteBackup => delete(&context, &api, &backup).await,
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
    let mut finalizers = backup.finalizers().to_vec();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if held {
        finalizers.push(FINALIZER.to_owned());
    }
    let patch = json!({ "metadata": {
        "finalizers": finalizers,
        "resourceVersion": backup.resource_version(),
    } });
    match api.patch(&backup.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(Action::await_change()),
        Err(error) if crate::context::is_gone(&error) => Ok(Action::await_change()),
        // Somebody has changed it meanwhile: of that we hear.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Action::await_change()),
        Err(error) => Err(error.into()),
    }
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
    const MESSAGE: &str = "the spec was changed after the backup had ended, and the change is ignored; make another EtcdBackup";
    let mut status = backup.status.clone().unwrap_or_default();
    let generation = backup.meta().generation;
    conditions::set(
        &mut status.conditions,
        "SpecChanged",
        true,
        "Ignored",
        MESSAGE,
        generation,
        now,
    );
    context.write_status(backup, &status).await?;
    context.warn(backup, "SpecChanged", MESSAGE).await;
    Ok(Action::await_change())
}

/// Deletes the backup that the object has made; that backup, and no other.
async fn delete(
    context: &Context,
    api: &Api<EtcdBackup>,
    backup: &EtcdBackup,
) -> Result<Action, Failure> {
    let attempts = backup.status.as_ref().and_then(|status| status.attempts).unwrap_or(0);
    if backup.spec.run_as == RunAs::Job
        && attempts > 0
        && !job::end(context, backup, attempts).await?
    {
        // Of its end we hear.
        return Ok(Action::await_change());
    }
    let (now, why) = match delete_backup(context, backup).await {
        Ok(None) => return hold(api, backup, false).await,
        Ok(Some(kept)) => (Timestamp::now(), kept),
        Err(failure) => {
            let text = format!("{}; {}", failure.text(), let_go(backup));
            not_deleted(context, backup, failure.reason, &text, None).await?;
            return Err(failure);
        }
    };
    let look = now.saturating_add(LOCK_LOOK).unwrap_or(Timestamp::MAX);
    let again = why.until.map_or(look, |until| until.min(look));
    let when = why.until.map_or_else(String::new, |until| format!(" until {until}"));
    let text = format!(
        "the store keeps the backup{when}, and the object stays with it; {}",
        let_go(backup)
    );
    not_deleted(context, backup, LOCKED, &text, Some(again)).await?;
    Ok(wait(now, again))
}

/// How an object goes without its backup.
fn let_go(backup: &EtcdBackup) -> String {
    let name = backup.name_any();
    format!(
        "to let the object go now and keep the backup: kubectl annotate etcdbackup {name} {RETAIN}=true"
    )
}

/// Says why an object that is to go is still there; as an event only when it is new.
async fn not_deleted(
    context: &Context,
    backup: &EtcdBackup,
    reason: &'static str,
    text: &str,
    again: Option<Timestamp>,
) -> Result<(), Failure> {
    let mut status = backup.status.clone().unwrap_or_default();
    let told = conditions::get(&status.conditions, DELETED);
    let is_new = told.is_none_or(|told| told.reason != reason);
    let (generation, now) = (backup.meta().generation, Timestamp::now());
    conditions::set(&mut status.conditions, DELETED, false, reason, text, generation, now);
    status.retry_at = again.map(seconds);
    context.write_status(backup, &status).await?;
    if is_new {
        context.warn(backup, "DeletionFailed", text).await;
    }
    Ok(())
}

/// A backup that the store does not let go.
struct Kept {
    /// When it will, if it tells.
    until: Option<Timestamp>,
}

async fn delete_backup(context: &Context, backup: &EtcdBackup) -> Result<Option<Kept>, Failure> {
    let status = backup.status.clone().unwrap_or_default();
    let namespace = backup.namespace().unwrap_or_default();
    let (cluster, id) = match (&status.backup, status.attempts) {
        (Some(id), _) => (cluster_name(backup)?, Some(backup_id(id)?)),
        // It may have been made all the same, if the operator ended right then.
        (None, Some(1..)) => (cluster_name(backup)?, None),
        (None, _) => return Ok(None),
    };
    let place = secrets::place(context, &namespace, &backup.spec.store_name).await?;
    let repository = match Repository::open(place.store.clone()).await {
        Ok(repository) => repository,
        Err(RepositoryError::NotARepository { .. }) => return Ok(None),
        Err(error) => return Err(of(&error)),
    };
    let id = match id {
        Some(id) => id,
        None => match made_by(backup, &repository, &cluster).await? {
            Some(manifest) => manifest.id,
            None => return Ok(None),
        },
    };
    let report = repository.remove(&cluster, id, Timestamp::now()).await;
    let report = report.map_err(|error| Failure::from(daemon::jobs::Failure::from(&error)))?;
    if let Some(error) = report.failed.first() {
        return Err(of(error));
    }
    if !report.locked.is_empty() {
        return Ok(Some(Kept { until: locked_until(&report.locked) }));
    }
    context
        .note(backup, "BackupDeleted", &format!("{cluster}/{id} was deleted from the store"))
        .await;
    Ok(None)
}

/// When a store lets the first of some objects go, if it tells.
pub(crate) fn locked_until(locked: &[StoreError]) -> Option<Timestamp> {
    let until = locked.iter().filter_map(|error| match error {
        StoreError::Locked { until, .. } => until.as_ref()?.parse().ok(),
        _ => None,
    });
    until.min()
}

fn of(error: &RepositoryError) -> Failure {
    daemon::jobs::Failure::from(error).into()
}

/// The cluster's name, if it can be one.
pub(crate) fn cluster_name(backup: &EtcdBackup) -> Result<ClusterName, Failure> {
    let name = &backup.spec.cluster.name;
    name.parse().map_err(|error| {
        Failure::of_setting("spec.cluster.name", &error, "use letters, digits, `-`, `_` and `.`")
    })
}

fn backup_id(id: &str) -> Result<BackupId, Failure> {
    id.parse().map_err(|error| {
        Failure::of_setting("status.backup", &error, "see `lifeboat list` for the backup's name")
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

/// One attempt.
struct Attempt<'a> {
    context: &'a Context,
    backup: &'a EtcdBackup,
}

impl Attempt<'_> {
    /// Says that an attempt has begun.
    async fn running(
        &self,
        status: &mut EtcdBackupStatus,
        attempt: u32,
        message: &str,
    ) -> Result<(), Failure> {
        let now = Timestamp::now();
        status.phase = Some(Phase::Running);
        status.attempts = Some(attempt);
        status.started_at = Some(seconds(now));
        status.retry_at = None;
        status.observed_generation = self.backup.meta().generation;
        self.set(status, Is::False, "Running", message, now);
        self.context.write_status(self.backup, status).await
    }

    async fn begin(&self, attempt: Option<u32>) -> Result<Action, Failure> {
        let Self { context, backup } = *self;
        let mut status = backup.status.clone().unwrap_or_default();
        if status.attempts.unwrap_or(0) > 0
            && backup.spec.run_as == RunAs::Operator
            && let Some(manifest) = self.made_before().await
        {
            return self.succeeded(status, &manifest).await;
        }
        let Some(attempt) = attempt else {
            let ended = Failure {
                reason: "Interrupted",
                message: "the operator ended during the last attempt".to_owned(),
                remedy:
                    "see the operator's memory limit and its logs, then make another EtcdBackup"
                        .to_owned(),
                retryable: false,
            };
            return self.failed(status, ended).await;
        };
        if backup.spec.run_as == RunAs::Job {
            return job::begin(context, backup, status, attempt).await;
        }
        let Some(_permit) = context.permit().await else { return Ok(Action::await_change()) };
        self.running(&mut status, attempt, "the backup is being made").await?;
        context.metrics.running.inc();
        let made = live::attempt(context, backup).await;
        context.metrics.running.dec();
        match made {
            Ok(manifest) => self.succeeded(status, &manifest).await,
            Err(failure) if failure.reason == "Stopped" && !*context.interrupt.borrow() => {
                let (namespace, name) = (backup.namespace().unwrap_or_default(), backup.name_any());
                tracing::info!(namespace, backup = name, "removed while its backup was being made");
                Ok(Action::await_change())
            }
            Err(failure) => self.failed(status, failure).await,
        }
    }

    /// What an attempt before this one has made, if it was cut after the commit.
    async fn made_before(&self) -> Option<Manifest> {
        let namespace = self.backup.namespace().unwrap_or_default();
        let cluster = cluster_name(self.backup).ok()?;
        let store = &self.backup.spec.store_name;
        let place = secrets::place(self.context, &namespace, store).await.ok()?;
        let repository = Repository::open(place.store).await.ok()?;
        made_by(self.backup, &repository, &cluster).await.ok()?
    }

    fn set(&self, status: &mut EtcdBackupStatus, is: Is, reason: &str, text: &str, now: Timestamp) {
        let generation = self.backup.meta().generation;
        conditions::set(&mut status.conditions, "Succeeded", is, reason, text, generation, now);
    }

    async fn succeeded(
        &self,
        mut status: EtcdBackupStatus,
        manifest: &Manifest,
    ) -> Result<Action, Failure> {
        let Self { context, backup } = *self;
        let namespace = backup.namespace().unwrap_or_default();
        let url = secrets::place(context, &namespace, &backup.spec.store_name).await;
        let url = url.map(|place| place.store.url().to_owned()).unwrap_or_default();
        live::show(&mut status, manifest, &url);
        status.observed_generation = status.observed_generation.or(backup.meta().generation);
        self.set(&mut status, Is::True, "Stored", "stored and verified", Timestamp::now());
        context.write_status(backup, &status).await?;
        self.count(manifest);
        let size = status.size.as_deref().unwrap_or_default();
        let text = format!("{} of revision {}, {size}", manifest.id, manifest.etcd.revision);
        context.note(backup, "BackupSucceeded", &text).await;
        let differed = &manifest.etcd.hash_kv.differed;
        if !differed.is_empty() {
            let text = format!(
                "the data of {} differ from the backup's; find out which member is right",
                differed.join(", ")
            );
            context.warn(backup, "MembersDiffer", &text).await;
        }
        Ok(Action::await_change())
    }

    async fn failed(
        &self,
        mut status: EtcdBackupStatus,
        failure: Failure,
    ) -> Result<Action, Failure> {
        let Self { context, backup } = *self;
        let now = Timestamp::now();
        let attempts = status.attempts.unwrap_or(1);
        let stopped = failure.reason == "Stopped" && *context.interrupt.borrow();
        let text = failure.text();
        self.set(&mut status, Is::False, failure.reason, &text, now);
        status.observed_generation = backup.meta().generation;
        if stopped {
            // The operator that comes next begins anew; this one does not count.
            status.phase = Some(Phase::Pending);
            status.attempts = Some(attempts.saturating_sub(1));
        } else if failure.retryable && attempts < backup.spec.attempts {
            status.phase = Some(Phase::Pending);
            status.retry_at = now.saturating_add(back_off(attempts)).ok().map(seconds);
        } else {
            status.phase = Some(Phase::Failed);
            status.finished_at = Some(seconds(now));
        }
        context.write_status(backup, &status).await?;
        if stopped {
            return Ok(Action::await_change());
        }
        let place = self.place();
        let failed = metrics::Failed {
            namespace: place.namespace,
            cluster: place.cluster,
            store: place.store,
            reason: failure.reason,
        };
        context.metrics.failures.get_or_create(&failed).inc();
        tracing::warn!(
            namespace = failed.namespace,
            backup = backup.name_any(),
            cluster = failed.cluster,
            attempt = attempts,
            reason = failure.reason,
            error = failure.message,
            "a backup failed"
        );
        let text = format!("attempt {attempts} of {}: {text}", backup.spec.attempts);
        context.warn(backup, "BackupFailed", &text).await;
        Ok(match status.retry_at {
            Some(Time(at)) if status.phase == Some(Phase::Pending) => wait(now, at),
            _ => Action::await_change(),
        })
    }

    fn place(&self) -> metrics::Place {
        metrics::Place {
            namespace: self.backup.namespace().unwrap_or_default(),
            cluster: self.backup.spec.cluster.name.clone(),
            store: self.backup.spec.store_name.clone(),
        }
    }

    fn count(&self, manifest: &Manifest) {
        let (metrics, place) = (&self.context.metrics, self.place());
        let took = manifest.finished.duration_since(manifest.started);
        tracing::info!(
            namespace = place.namespace,
            backup = self.backup.name_any(),
            cluster = place.cluster,
            id = %manifest.id,
            revision = manifest.etcd.revision,
            bytes = manifest.db.bytes,
            took_ms = i64::try_from(took.as_millis()).unwrap_or(i64::MAX),
            "a backup is stored"
        );
        metrics.backups.get_or_create(&place).inc();
        #[expect(clippy::cast_precision_loss, reason = "seconds are far below 2^53")]
        let finished = manifest.finished.as_second() as f64;
        metrics.last_success.get_or_create(&place).set(finished);
        metrics.last_revision.get_or_create(&place).set(manifest.etcd.revision);
        metrics
            .size
            .get_or_create(&place)
            .set(i64::try_from(manifest.db.bytes).unwrap_or(i64::MAX));
        metrics.duration.get_or_create(&place).set(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests;
