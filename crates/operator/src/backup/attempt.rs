//! One attempt: begun, ended, and what the object says of it.
//!
//! ```text
//!   begin ─▶ is it there already? ─▶ a turn ─▶ Secrets, store, endpoints ─▶ Running ─▶ succeeded, or failed
//!                                     │ Queued       │ Pending: what is missing is waited for
//! ```

use super::{
    back_off, cluster_name, deletion, in_force, job, live, live::Made, made_by, of, stored, wait,
};
use crate::{
    api::{EtcdBackup, EtcdBackupStatus, Phase, RunAs},
    conditions::{self, Is, seconds},
    context::Context,
    failure::Failure,
    metrics, secrets,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource, ResourceExt, runtime::controller::Action};
use repository::{Manifest, Repository};
use tokio::sync::SemaphorePermit;

/// The condition that says what became of the backup.
const SUCCEEDED: &str = "Succeeded";

/// The condition that says that a name goes to another cluster.
const CLUSTER_CHANGED: &str = "ClusterChanged";

/// How long what is missing in Kubernetes is waited for.
const PATIENCE: SignedDuration = SignedDuration::from_hours(1);

/// The waits between two looks for it: as long as it has been missing, within these.
const LOOKS: [SignedDuration; 2] = [SignedDuration::from_secs(5), SignedDuration::from_mins(2)];

/// One attempt.
pub(super) struct Attempt<'a> {
    pub(super) context: &'a Context,
    pub(super) backup: &'a EtcdBackup,
}

impl Attempt<'_> {
    /// Begins one; `None`: only looks whether one before it was cut after the commit.
    pub(super) async fn begin(&self, attempt: Option<u32>) -> Result<Action, Failure> {
        let Self { context, backup } = *self;
        let mut status = backup.status.clone().unwrap_or_default();
        if status.attempts.unwrap_or(0) > 0
            && let Some(manifest) = self.made_before().await
        {
            return self.succeeded(status, manifest.into()).await;
        }
        let Some(attempt) = attempt else {
            let ended = Failure {
                reason: "Interrupted",
                message: "the operator ended during the last attempt".to_owned(),
                remedy: "see the operator's memory limit and its logs".to_owned(),
                retryable: false,
            };
            return self.failed(status, ended).await;
        };
        if backup.spec_in_force().run_as == RunAs::Job {
            return job::begin(context, backup, status, attempt).await;
        }
        let Some(_permit) = self.turn(&mut status).await? else {
            return Ok(Action::await_change());
        };
        let job = match live::job(context, backup).await {
            Ok(job) => job,
            Err(failure) => return self.missing(status, failure).await,
        };
        self.running(&mut status, attempt, "the backup is being made").await?;
        context.metrics.running.inc();
        let made = live::attempt(context, backup, job).await;
        context.metrics.running.dec();
        match made {
            Ok(made) => self.succeeded(status, made).await,
            Err(failure) if failure.reason == "Stopped" && !*context.interrupt.borrow() => {
                let (namespace, name) = (backup.namespace().unwrap_or_default(), backup.name_any());
                tracing::info!(namespace, backup = name, "removed while its backup was being made");
                Ok(Action::await_change())
            }
            Err(failure) => self.failed(status, failure).await,
        }
    }

    /// A permit, and word of it if that has to be waited for. None if the operator is about to stop.
    async fn turn(
        &self,
        status: &mut EtcdBackupStatus,
    ) -> Result<Option<SemaphorePermit<'_>>, Failure> {
        let context = self.context;
        if let Ok(permit) = context.backups.try_acquire() {
            return Ok(Some(permit));
        }
        let others = context.settings.parallel_backups.max(1);
        let text = format!(
            "waits for its turn: {others} others run, which is as many as the operator makes at once (--parallel-backups)"
        );
        status.phase = Some(Phase::Pending);
        status.observed_generation = self.backup.meta().generation;
        self.set(status, Is::False, "Queued", &text, Timestamp::now());
        self.write(status).await?;
        Ok(context.permit().await)
    }

    /// Says that an attempt has begun. From now on the spec is what it is.
    pub(super) async fn running(
        &self,
        status: &mut EtcdBackupStatus,
        attempt: u32,
        message: &str,
    ) -> Result<(), Failure> {
        let now = Timestamp::now();
        status.phase = Some(Phase::Running);
        status.attempts = Some(attempt);
        status.begun_with.get_or_insert_with(|| self.backup.spec.kept());
        status.started_at = Some(seconds(now));
        status.retry_at = None;
        status.observed_generation = self.backup.meta().generation;
        self.set(status, Is::False, "Running", message, now);
        self.write(status).await
    }

    /// The backup that this object has made, if it is in the store.
    pub(super) async fn found(&self) -> Result<Option<Manifest>, Failure> {
        let namespace = self.backup.namespace().unwrap_or_default();
        let cluster = cluster_name(self.backup)?;
        let store = &self.backup.spec_in_force().store_name;
        let place = secrets::place(self.context, &namespace, store).await?;
        let repository = Repository::open(place.store).await.map_err(|error| of(&error))?;
        made_by(self.backup, &repository, &cluster).await
    }

    /// What an attempt before this one has made, if it was cut after the commit and the store can be asked.
    pub(super) async fn made_before(&self) -> Option<Manifest> {
        self.found().await.ok()?
    }

    pub(super) fn set(
        &self,
        status: &mut EtcdBackupStatus,
        is: Is,
        reason: &str,
        text: &str,
        now: Timestamp,
    ) {
        let generation = self.backup.meta().generation;
        conditions::set(&mut status.conditions, SUCCEEDED, is, reason, text, generation, now);
    }

    /// Writes the status, with where the backup is or will be.
    pub(super) async fn write(&self, status: &mut EtcdBackupStatus) -> Result<(), Failure> {
        let spec = self.backup.spec_in_force();
        status.cluster = Some(spec.cluster.name.clone());
        status.store_name = Some(spec.store_name.clone());
        self.context.write_status(self.backup, status).await
    }

    pub(super) async fn succeeded(
        &self,
        mut status: EtcdBackupStatus,
        made: Made,
    ) -> Result<Action, Failure> {
        let Self { context, backup } = *self;
        let Made { manifest, other } = &made;
        let namespace = backup.namespace().unwrap_or_default();
        let spec = backup.spec_in_force();
        let url = secrets::place(context, &namespace, &spec.store_name).await;
        let url = url.map(|place| place.store.url().to_owned()).unwrap_or_default();
        let (generation, now) = (backup.meta().generation, Timestamp::now());
        live::show(&mut status, manifest, &url);
        status.observed_generation = status.observed_generation.or(generation);
        self.set(&mut status, Is::True, "Stored", "stored and verified", now);
        ended(&mut status, generation, now);
        stored::set(&mut status.conditions, None, generation, now);
        let other = other.as_ref().map(|other| other.text(&spec.cluster.name));
        if let Some(text) = &other {
            let conditions = &mut status.conditions;
            conditions::set(conditions, CLUSTER_CHANGED, true, "OtherId", text, generation, now);
        }
        self.write(&mut status).await?;
        self.count(manifest);
        let size = status.size.as_deref().unwrap_or_default();
        let text = format!("{} of revision {}, {size}", manifest.id, manifest.etcd.revision);
        context.note(backup, "BackupSucceeded", &text).await;
        if let Some(text) = &other {
            context.warn(backup, CLUSTER_CHANGED, text).await;
        }
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

    /// What is missing in Kubernetes may come: it is waited for, and that is no attempt.
    pub(super) async fn missing(
        &self,
        mut status: EtcdBackupStatus,
        failure: Failure,
    ) -> Result<Action, Failure> {
        let failure = in_force(self.backup, failure);
        let now = Timestamp::now();
        let before = conditions::get(&status.conditions, SUCCEEDED).cloned();
        let since = before.as_ref().map_or(now, |before| before.last_transition_time.0);
        let waited = now.duration_since(since);
        if waited >= PATIENCE {
            return self.failed(status, Failure { retryable: false, ..failure }).await;
        }
        if status.phase == Some(Phase::Running) {
            // It was about to begin.
            status.attempts = status.attempts.map(|attempts| attempts.saturating_sub(1));
        }
        let [soon, late] = LOOKS;
        let again = now.saturating_add(waited.clamp(soon, late)).unwrap_or(now);
        let text = failure.text();
        let is_new = before.is_none_or(|before| before.message != text);
        status.phase = Some(Phase::Pending);
        status.retry_at = Some(seconds(again));
        status.observed_generation = self.backup.meta().generation;
        self.set(&mut status, Is::False, failure.reason, &text, now);
        self.write(&mut status).await?;
        if is_new {
            self.count_failure(&failure, "a backup waits for what is missing");
            let text = format!("waits for up to an hour: {text}");
            self.context.warn(self.backup, "BackupWaits", &text).await;
        }
        Ok(wait(now, again))
    }

    pub(super) async fn failed(
        &self,
        mut status: EtcdBackupStatus,
        failure: Failure,
    ) -> Result<Action, Failure> {
        let Self { context, backup } = *self;
        let now = Timestamp::now();
        let (attempts, of) = (status.attempts.unwrap_or(0), backup.spec_in_force().attempts);
        status.observed_generation = backup.meta().generation;
        if failure.reason == "Stopped" && *context.interrupt.borrow() {
            // The operator that comes next begins anew; this one does not count.
            status.phase = Some(Phase::Pending);
            status.attempts = Some(attempts.saturating_sub(1));
            let text = "the operator was stopped during the attempt, which has left nothing; the next operator makes it anew";
            self.set(&mut status, Is::False, "HandedOver", text, now);
            self.write(&mut status).await?;
            return Ok(Action::await_change());
        }
        if deletion::left_nothing(failure.reason) && attempts > 0 {
            status.left_nothing = Some(status.left_nothing.unwrap_or(0) + 1);
        }
        let end = if failure.retryable && attempts < of {
            let again = now.saturating_add(back_off(attempts)).unwrap_or(now);
            status.phase = Some(Phase::Pending);
            status.retry_at = Some(seconds(again));
            format!("attempt {attempts} of {of}; it is tried again at {}", seconds(again).0)
        } else {
            status.phase = Some(Phase::Failed);
            status.retry_at = None;
            status.finished_at = Some(seconds(now));
            given_up(attempts, of)
        };
        let text = format!("{} ({end})", failure.text());
        self.set(&mut status, Is::False, failure.reason, &text, now);
        ended(&mut status, backup.meta().generation, now);
        self.write(&mut status).await?;
        self.count_failure(&failure, "a backup failed");
        context.warn(backup, "BackupFailed", &text).await;
        Ok(match status.retry_at {
            Some(Time(at)) => wait(now, at),
            None => Action::await_change(),
        })
    }

    fn count_failure(&self, failure: &Failure, what: &str) {
        let metrics::Place { namespace, cluster, store } = self.place();
        let name = self.backup.name_any();
        let (reason, error) = (failure.reason, failure.text());
        tracing::warn!(namespace, backup = name, cluster, reason, error, "{what}");
        self.context.doubts.hear(reason, &namespace, &store);
        let failed = metrics::Failed { namespace, cluster, store, reason };
        self.context.metrics.failures.get_or_create(&failed).inc();
    }

    fn place(&self) -> metrics::Place {
        let spec = self.backup.spec_in_force();
        metrics::Place {
            namespace: self.backup.namespace().unwrap_or_default(),
            cluster: spec.cluster.name.clone(),
            store: spec.store_name.clone(),
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

/// Why no further attempt follows.
fn given_up(attempts: u32, of: u32) -> String {
    match attempts {
        0 => "given up before the first attempt; make another EtcdBackup".to_owned(),
        _ if attempts >= of => {
            format!("attempt {attempts} of {of}, given up; make another EtcdBackup")
        }
        _ => format!(
            "attempt {attempts} of {of}, given up, as another would end the same; make another EtcdBackup"
        ),
    }
}

/// Says that it has ended, if it has: something that can be waited for, whichever way it ends.
fn ended(status: &mut EtcdBackupStatus, generation: Option<i64>, now: Timestamp) {
    let (reason, text) = match status.phase {
        Some(Phase::Succeeded) => ("Succeeded", "the backup is made"),
        Some(Phase::Failed) => ("Failed", "the condition Succeeded says why"),
        _ => return,
    };
    conditions::set(&mut status.conditions, "Ended", true, reason, text, generation, now);
}
