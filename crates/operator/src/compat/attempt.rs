//! One attempt: the file made or found, what is too much deleted, and what the status then says.

use super::{
    decide::{ATTEMPTS, Order, has_changed},
    files, in_field, set,
};
use crate::{
    api::{
        Tls,
        coreos::{CoreosBackup, CoreosBackupStatus},
    },
    backup::wait,
    conditions::{self, Is, seconds},
    context::Context,
    failure::Failure,
    metrics, secrets,
};
use backup::{
    BackupError, Facts, Kind, Options, Source, TargetError, Watcher,
    plain::{FoundError, PlainError, PlainJob, found, plain},
};
use etcd_live::{ConnectOptions, Connector, TlsOptions};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource, ResourceExt, runtime::controller::Action};
use repository::store::{Store, StoreError};
use std::time::Duration;

/// The reason why nothing is written where something is.
const EXISTS: &str = "Exists";

/// One attempt.
pub(super) struct Attempt<'a> {
    pub(super) context: &'a Context,
    pub(super) object: &'a CoreosBackup,
    pub(super) order: Order,
}

impl Attempt<'_> {
    pub(super) async fn begin(&self, attempt: Option<u32>) -> Result<Action, Failure> {
        let Self { context, object, .. } = *self;
        let Some(_permit) = context.permit().await else { return Ok(Action::await_change()) };
        let mut status = object.status.clone().unwrap_or_default();
        if has_changed(object, &status) {
            status.reason.clear();
        }
        let begun = Timestamp::now();
        if let Some(attempt) = attempt {
            status.attempts = Some(attempt);
            status.retry_at = None;
            status.last_execution_date = Some(seconds(begun));
            set(object, &mut status, Is::Unknown, "Running", "the backup is being made", begun);
            context.write_status(object, &status).await?;
        }
        context.metrics.running.inc();
        let made = self.work(&mut status, attempt.is_some(), begun).await;
        context.metrics.running.dec();
        match made {
            Ok((file, facts)) => self.succeeded(status, &file, &facts, begun).await,
            Err(failure) => self.failed(status, failure).await,
        }
    }

    /// Makes the file, or finds it: its name, and what is in it.
    async fn work(
        &self,
        status: &mut CoreosBackupStatus,
        may_make: bool,
        begun: Timestamp,
    ) -> Result<(String, Facts), Failure> {
        let Self { context, object, order } = self;
        let place = &order.place;
        let store = place.open(context, &self.namespace()).await?;
        if order.interval.is_none() {
            let was_begun = status.writing.as_ref() == Some(&place.path);
            if let Some(facts) = self.there(&store, was_begun).await? {
                return Ok((place.file.clone(), facts));
            }
            if !may_make {
                return Err(interrupted());
            }
            status.writing = Some(place.path.clone());
            context.write_status(*object, status).await?;
        }
        let made = self.make(store, begun).await;
        if matches!(&made, Err(failure) if failure.reason == EXISTS) {
            // Another's.
            status.writing = None;
        }
        made
    }

    /// What is at the path already: ours from an attempt before, if that had begun to write there.
    async fn there(&self, store: &Store, was_begun: bool) -> Result<Option<Facts>, Failure> {
        let file = &self.order.place.file;
        match store.size(file).await {
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(of_store(&error)),
            Ok(_) if !was_begun => return Err(self.exists()),
            Ok(_) => {}
        }
        match found(store, file, &self.options()).await {
            Ok(facts) => Ok(Some(facts)),
            Err(FoundError::Fetch(error)) if error.kind() == Kind::Unreachable => Err(Failure {
                reason: "StoreUnreachable",
                ..Failure::settings(etcd_live::one_line(&error), error.remedy())
            }),
            Err(error) => {
                let error = etcd_live::one_line(&error);
                tracing::warn!(error, file, "what is at the path is no sound snapshot");
                Err(self.exists())
            }
        }
    }

    fn exists(&self) -> Failure {
        let place = &self.order.place;
        Failure {
            reason: EXISTS,
            retryable: false,
            ..Failure::settings(
                format!("{}.path: there is an object at {}", place.field, place.path),
                "write another path, or remove that object: backups are never overwritten",
            )
        }
    }

    async fn make(&self, store: Store, begun: Timestamp) -> Result<(String, Facts), Failure> {
        let source = self.source().await?;
        let job = PlainJob { source, store, options: self.options() };
        let (file, is_repeated) = (self.order.place.file.clone(), self.order.interval.is_some());
        let name = move |facts: &Facts| match is_repeated {
            true => files::name(&file, facts.etcd.revision, begun),
            false => file,
        };
        let mut interrupt = self.context.interrupt.clone();
        let interrupted = async move {
            // Whoever could tell being gone means the same.
            let _ = interrupt.wait_for(|interrupted| *interrupted).await;
        };
        let work = async move |interrupted| {
            let mut made = String::new();
            let name = |facts: &Facts| {
                made = name(facts);
                made.clone()
            };
            plain(&job, name, &Watcher::none(), interrupted).await.map(|facts| (made, facts))
        };
        let work = daemon::jobs::apart(interrupted, work);
        let timeout = self.order.timeout.unwrap_or(Duration::MAX);
        let made = tokio::time::timeout(timeout, work).await.map_err(|_| too_late(timeout))?;
        made.ok_or_else(interrupted_work)?.map_err(|error| match &error {
            PlainError::Target(TargetError::Store(StoreError::Exists { .. })) => self.exists(),
            PlainError::Target(error) => daemon::jobs::Failure::from(error).into(),
            PlainError::Backup(error) => daemon::jobs::Failure::from(error).into(),
            _ => Failure::settings(etcd_live::one_line(&error), ""),
        })
    }

    async fn source(&self) -> Result<Source, Failure> {
        let tls = match &self.order.tls_secret {
            None => TlsOptions::default(),
            Some(name) => {
                let tls = Tls {
                    secret_name: name.clone(),
                    server_name: None,
                    insecure_skip_verify: false,
                };
                let read = secrets::tls(self.context, &self.namespace(), &tls).await;
                read.map_err(in_field("spec.clientTLSSecret"))?
            }
        };
        let connector = Connector::new(ConnectOptions { tls, ..ConnectOptions::unattended() });
        let connector = connector
            .map_err(|error| Failure::of_setting("spec.clientTLSSecret", &error, error.remedy()))?;
        Ok(Source::Live { connector, endpoints: self.order.endpoints.clone() })
    }

    fn options(&self) -> Options {
        Options { spool_dir: self.context.settings.spool.clone(), ..Options::default() }
    }

    fn namespace(&self) -> String {
        self.object.namespace().unwrap_or_default()
    }

    async fn succeeded(
        &self,
        mut status: CoreosBackupStatus,
        file: &str,
        facts: &Facts,
        begun: Timestamp,
    ) -> Result<Action, Failure> {
        let Self { context, object, order } = self;
        let path = order.place.path_of(file);
        status.succeeded = true;
        status.reason.clear();
        status.etcd_version.clone_from(&facts.etcd.version);
        status.etcd_revision = Some(facts.etcd.revision);
        status.last_success_date =
            status.last_execution_date.clone().or_else(|| Some(seconds(begun)));
        status.sha256 = Some(facts.content.sha256.clone());
        status.size_bytes = Some(facts.content.bytes);
        status.path = Some(path.clone());
        (status.writing, status.attempts, status.retry_at) = (None, None, None);
        let now = Timestamp::now();
        set(object, &mut status, Is::True, "Stored", "stored and verified", now);
        if let (Some(_), Some(keep)) = (order.interval, order.keep) {
            self.prune(&mut status, file, keep).await;
        }
        context.write_status(*object, &status).await?;
        self.count(facts, now.duration_since(begun).as_secs_f64(), now);
        let text = format!("{path} of revision {}", facts.etcd.revision);
        context.note(*object, "BackupSucceeded", &text).await;
        let differed = &facts.etcd.hash_kv.differed;
        if !differed.is_empty() {
            let text = format!(
                "the data of {} differ from the backup's; find out which member is right",
                differed.join(", ")
            );
            context.warn(*object, "MembersDiffer", &text).await;
        }
        Ok(order.interval.map_or_else(Action::await_change, |interval| {
            wait(now, begun.saturating_add(interval).unwrap_or(Timestamp::MAX))
        }))
    }

    /// Deletes what is more than `maxBackups`. A backup that is made is made, also if that fails.
    async fn prune(&self, status: &mut CoreosBackupStatus, made: &str, keep: usize) {
        let Self { context, object, .. } = *self;
        let pruned = self.delete_surplus(made, keep).await;
        let (is, reason, text) = match &pruned {
            Ok(_) => {
                (true, "Pruned", "files beyond spec.backupPolicy.maxBackups are deleted".into())
            }
            Err(failure) => (false, failure.reason, failure.text()),
        };
        let (generation, now) = (object.meta().generation, Timestamp::now());
        conditions::set(&mut status.conditions, "Pruned", is, reason, &text, generation, now);
        match pruned {
            Ok(0) => {}
            Ok(files) => {
                context.metrics.pruned.get_or_create(&self.place()).inc_by(files);
                context.note(object, "Pruned", &format!("{files} files were deleted")).await;
            }
            Err(_) => context.warn(object, "PruneFailed", &text).await,
        }
    }

    async fn delete_surplus(&self, made: &str, keep: usize) -> Result<u64, Failure> {
        let place = &self.order.place;
        let store = place.open(self.context, &self.namespace()).await?;
        let entries = store.list("").await.map_err(|error| of_store(&error))?;
        let paths: Vec<_> = entries.into_iter().map(|entry| entry.path).collect();
        let mut deleted = 0;
        for path in files::surplus(&place.file, made, &paths, keep) {
            store.delete(&path).await.map_err(|error| of_store(&error))?;
            deleted += 1;
        }
        Ok(deleted)
    }

    async fn failed(
        &self,
        mut status: CoreosBackupStatus,
        failure: Failure,
    ) -> Result<Action, Failure> {
        let Self { context, object, order } = self;
        let now = Timestamp::now();
        let attempts = status.attempts.unwrap_or(1);
        let text = failure.text();
        set(object, &mut status, Is::False, failure.reason, &text, now);
        if failure.reason == "Stopped" && *context.interrupt.borrow() {
            // The operator that comes next begins anew; this one does not count.
            status.attempts = Some(attempts.saturating_sub(1)).filter(|attempts| *attempts > 0);
            status.retry_at = Some(seconds(now));
            context.write_status(*object, &status).await?;
            return Ok(Action::await_change());
        }
        let is_over = order.interval.is_none() && (!failure.retryable || attempts >= ATTEMPTS);
        status.retry_at = match is_over {
            true => None,
            false => now.saturating_add(order.back_off(attempts)).ok().map(seconds),
        };
        // Scripts take a reason for the end of a backup without an interval.
        if is_over || order.interval.is_some() {
            status.succeeded = false;
            status.reason.clone_from(&text);
        }
        context.write_status(*object, &status).await?;
        self.count_failure(&failure, attempts);
        context.warn(*object, "BackupFailed", &format!("attempt {attempts}: {text}")).await;
        Ok(match status.retry_at {
            Some(Time(at)) => wait(now, at),
            None => Action::await_change(),
        })
    }

    fn place(&self) -> metrics::Place {
        metrics::Place {
            namespace: self.namespace(),
            cluster: self.object.name_any(),
            store: self.object.spec.storage_type.clone(),
        }
    }

    fn count(&self, facts: &Facts, took_s: f64, now: Timestamp) {
        let (metrics, place) = (&self.context.metrics, self.place());
        tracing::info!(
            namespace = place.namespace,
            backup = place.cluster,
            file = self.order.place.path,
            revision = facts.etcd.revision,
            bytes = facts.content.bytes,
            took_s,
            "a backup is stored as a plain file"
        );
        metrics.backups.get_or_create(&place).inc();
        #[expect(clippy::cast_precision_loss, reason = "seconds are far below 2^53")]
        metrics.last_success.get_or_create(&place).set(now.as_second() as f64);
        metrics.last_revision.get_or_create(&place).set(facts.etcd.revision);
        let bytes = i64::try_from(facts.content.bytes).unwrap_or(i64::MAX);
        metrics.size.get_or_create(&place).set(bytes);
        metrics.duration.get_or_create(&place).set(took_s);
    }

    fn count_failure(&self, failure: &Failure, attempt: u32) {
        let metrics::Place { namespace, cluster, store } = self.place();
        tracing::warn!(
            namespace,
            backup = cluster,
            attempt,
            reason = failure.reason,
            error = failure.message,
            "a backup failed"
        );
        let failed = metrics::Failed { namespace, cluster, store, reason: failure.reason };
        self.context.metrics.failures.get_or_create(&failed).inc();
    }
}

fn of_store(error: &StoreError) -> Failure {
    daemon::jobs::Failure::from(error).into()
}

fn too_late(timeout: Duration) -> Failure {
    let limit = timeout.as_secs();
    Failure {
        reason: "TimedOut",
        ..Failure::settings(
            format!("it took longer than spec.backupPolicy.timeoutInSecond, {limit} s"),
            "raise that, or leave it out: then it takes as long as it goes on",
        )
    }
}

fn interrupted() -> Failure {
    Failure {
        reason: "Interrupted",
        retryable: false,
        ..Failure::settings(
            "the operator ended during the last attempt",
            "see the operator's memory limit and its logs, then make another EtcdBackup",
        )
    }
}

/// The process ends.
fn interrupted_work() -> Failure {
    daemon::jobs::Failure::from(&BackupError::Interrupted).into()
}
