//! The real work: crates `backup` and `repository`, as the settings say.

use super::{Failure, FailureReason, Jobs, Made, Newest, Order, Outcome, Pruned, Survey, Verified};
use crate::{
    chain,
    config::{self, Config},
    place::{self, Place},
    serve::JobsError,
};
use backup::{
    BackupError, Event, Kind, TargetError, Watcher,
    check::{Checking, Chosen, Verdict, Which},
    verify::VerifyError,
};
use futures::{
    FutureExt,
    future::{BoxFuture, select},
};
use repository::{
    ClusterName, Manifest, Repository, RepositoryError,
    lease::{self, Clock, Holder, LeaseError, Terms},
    listing::Backup,
    prune::{PruneError, PruneOptions, PrunePlan},
    store::{StoreError, WhileWaiting},
};
use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    ops::Deref,
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How long to wait for another daemon's backup of the same cluster, before that counts as a failed attempt.
const PATIENCE: Duration = Duration::from_secs(90);

/// The work, as the settings say.
pub struct Live {
    clusters: BTreeMap<ClusterName, config::Cluster>,
    places: BTreeMap<String, Opened>,
    spool: PathBuf,
    holder: Holder,
    clock: Arc<dyn Clock>,
    interrupt: watch::Sender<bool>,
}

/// A repository, and whether its store was found to refuse a second creation.
struct Opened {
    place: Place,
    probed: tokio::sync::OnceCell<bool>,
}

impl Deref for Opened {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

/// Says in the log that a store is waited for.
fn waiting_for(repository: &str) -> WhileWaiting {
    let repository = repository.to_owned();
    WhileWaiting::tell(move |waiting| tracing::warn!(repository, "{waiting}"))
}

impl Live {
    /// Reads the keys and credentials that the settings name. Reaches nothing yet.
    pub fn new(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, JobsError> {
        let mut places = BTreeMap::new();
        for repository in &config.repositories {
            let place = Place::open(repository, waiting_for(&repository.name))?;
            let probed = tokio::sync::OnceCell::new();
            places.insert(repository.name.clone(), Opened { place, probed });
        }
        Ok(Self {
            clusters: config.clusters.iter().map(|c| (c.name.clone(), c.clone())).collect(),
            places,
            spool: place::spool(Some(config)),
            holder: Holder::this_process(),
            clock,
            interrupt: watch::channel(false).0,
        })
    }

    fn cluster(&self, cluster: &ClusterName) -> Result<&config::Cluster, Failure> {
        self.clusters.get(cluster).ok_or_else(|| unknown(cluster.as_str()))
    }

    fn place(&self, repository: &str) -> Result<&Opened, Failure> {
        self.places.get(repository).ok_or_else(|| unknown(repository))
    }

    async fn survey(&self, cluster: &ClusterName, name: &str) -> Result<Survey, Failure> {
        let place = self.place(name)?;
        let create_only = place.is_create_only(name).await?;
        let repository = match Repository::open(place.store.clone()).await {
            Ok(repository) => repository,
            // The first backup will make it one.
            Err(RepositoryError::NotARepository { .. }) => {
                return Ok(Survey { create_only, ..Survey::default() });
            }
            Err(error) => return Err(of_repository(&error)),
        };
        let claim = lease::current(&place.store, cluster).await.map_err(|e| of_lease(&e))?;
        let listing = repository.backups(cluster).await.map_err(|e| of_repository(&e))?;
        let newest = listing.backups.iter().max_by_key(|backup| backup.manifest.finished);
        Ok(Survey {
            last_scheduled: claim.and_then(|claim| claim.last_scheduled),
            newest: newest.map(newest_of),
            backups: listing.backups.len() as u64,
            stored_bytes: listing.stored_bytes(),
            create_only,
        })
    }

    async fn backup(
        &self,
        order: Order<'_>,
    ) -> Result<Vec<(String, Result<Outcome, Failure>)>, Failure> {
        let begun = Instant::now();
        let job = self.job(order)?;
        let watcher = warns_of_other_clusters(order.cluster, order.repositories);
        let report = self.run(job, watcher).await.map_err(|error| of_backup(&error))?;
        let result = |result: Result<Manifest, TargetError>| match result {
            Ok(manifest) => Ok(Outcome::Made(made(&manifest, begun.elapsed()))),
            Err(TargetError::Lease(LeaseError::Done { .. })) => Ok(Outcome::AlreadyDone),
            Err(error) => Err(of_target(&error)),
        };
        Ok(report.results.into_iter().map(|target| (target.name, result(target.result))).collect())
    }

    async fn run(&self, job: backup::Job, watcher: Watcher) -> Result<backup::Report, BackupError> {
        let mut all = self.interrupt.subscribe();
        let interrupted = async move {
            let _ = all.wait_for(|interrupted| *interrupted).await;
        };
        on_a_thread(job, watcher, interrupted).await
    }

    fn job(&self, order: Order<'_>) -> Result<backup::Job, Failure> {
        let cluster = self.cluster(order.cluster)?;
        let target = |name: &String| {
            let place = self.place(name)?;
            let (store, encoding) = (place.store.clone(), place.encoding.clone());
            let may_expose = place.may_expose;
            Ok(backup::Target { name: name.clone(), store, encoding, may_expose })
        };
        Ok(backup::Job {
            cluster: order.cluster.clone(),
            source: place::source(cluster)
                .map_err(|error| failure(FailureReason::Settings, &*error))?,
            targets: order.repositories.iter().map(target).collect::<Result<_, Failure>>()?,
            options: backup::Options {
                scheduled_for: order.scheduled_for,
                holder: self.holder.clone(),
                terms: Terms { patience: PATIENCE, ..Terms::default() },
                clock: self.clock.clone(),
                ..place::options(cluster, self.spool.clone())
            },
        })
    }

    async fn verify(
        &self,
        cluster: &ClusterName,
        name: &str,
        of: u32,
    ) -> Result<Verified, Failure> {
        let place = self.place(name)?;
        let of = NonZeroU32::new(of).unwrap_or(NonZeroU32::MIN);
        let failed = |error: RepositoryError| of_repository(&error);
        let repository = match Repository::open(place.store.clone()).await {
            Ok(repository) => repository,
            // The first backup will make it one; until then nothing is there to be wrong.
            Err(RepositoryError::NotARepository { .. }) => return Ok(Verified::default()),
            Err(error) => return Err(failed(error)),
        };
        let begun = self.clock.now();
        let listing = repository.backups(cluster).await.map_err(failed)?;
        let checking = Checking {
            repository: &repository,
            cluster,
            identities: &place.identities,
            spool_dir: &self.spool,
            quick: false,
            record: true,
        };
        let Chosen { share, backups } =
            Which::Share(of).of(&repository, &listing).await.map_err(failed)?;
        let mut unknown = None;
        let tell = |backup: &Backup, verdict: Verdict| match verdict {
            Verdict::Sound | Verdict::Gone => {}
            Verdict::Damaged(findings) => {
                tracing::error!(%cluster, backup = %backup.id(), ?findings, "a backup is damaged");
            }
            Verdict::Unknown(error) => unknown = Some(of_verify(&error)),
        };
        let checked = checking.run(&backups, share, begun, |_| Watcher::none(), tell).await;
        // Even where it cannot be noted, what was found is told.
        for error in &checked.unrecorded {
            tracing::warn!(%cluster, repository = name, error = chain(error), "a check cannot be noted");
        }
        match unknown {
            Some(failure) if checked.damaged.is_empty() => Err(failure),
            _ => Ok(Verified { sound: checked.sound.len() as u64, damaged: checked.damaged }),
        }
    }

    async fn prune(&self, cluster: &ClusterName, name: &str) -> Result<Pruned, Failure> {
        let place = self.place(name)?;
        let policy = self.cluster(cluster)?.retention.as_ref().unwrap_or(&place.retention);
        let opened = Repository::open(place.store.clone()).await;
        let repository = opened.map_err(|error| of_repository(&error))?;
        let failed = |error: PruneError| Failure::from(&error);
        let options = PruneOptions::default();
        let plan = PrunePlan::new(&repository, cluster, policy, self.clock.now(), options).await;
        let done = plan.map_err(failed)?.execute(&repository, |_| {}).await.map_err(failed)?;
        if let Some(error) = done.failed.first() {
            return Err(of_repository(error));
        }
        Ok(Pruned {
            removed: done.removed.len() as u64,
            freed_bytes: done.bytes_freed,
            locked: done.locked.len() as u64,
        })
    }
}

impl Jobs for Live {
    fn survey<'a>(
        &'a self,
        cluster: &'a ClusterName,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Survey, Failure>> {
        self.survey(cluster, repository).boxed()
    }

    fn backup<'a>(
        &'a self,
        order: Order<'a>,
    ) -> BoxFuture<'a, Vec<(String, Result<Outcome, Failure>)>> {
        async move {
            self.backup(order).await.unwrap_or_else(|failure| {
                let failed = |name: &String| (name.clone(), Err(failure.clone()));
                order.repositories.iter().map(failed).collect()
            })
        }
        .boxed()
    }

    fn verify<'a>(
        &'a self,
        cluster: &'a ClusterName,
        repository: &'a str,
        of: u32,
    ) -> BoxFuture<'a, Result<Verified, Failure>> {
        self.verify(cluster, repository, of).boxed()
    }

    fn prune<'a>(
        &'a self,
        cluster: &'a ClusterName,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Pruned, Failure>> {
        self.prune(cluster, repository).boxed()
    }

    fn interrupt(&self) {
        self.interrupt.send_replace(true);
    }
}

/// Says in the log that a name goes to another cluster.
fn warns_of_other_clusters(cluster: &ClusterName, repositories: &[String]) -> Watcher {
    let (cluster, repositories) = (cluster.clone(), repositories.to_vec());
    Watcher::new(move |event| {
        if let Event::OtherCluster { repository, first, found } = event {
            let repository = repositories.get(repository).map_or("", String::as_str);
            tracing::warn!(
                %cluster,
                repository,
                first,
                found,
                "backups of that name were of another cluster: was it restored, or do two clusters have one name?"
            );
        }
    })
}

/// Runs a backup on a thread of its own.
///
/// Dropped, it cleans up as if it was interrupted.
pub async fn on_a_thread(
    job: backup::Job,
    watcher: Watcher,
    interrupted: impl Future<Output = ()> + Send + 'static,
) -> Result<backup::Report, BackupError> {
    let work = async move |interrupted| backup::run(&job, &watcher, interrupted).await;
    apart(interrupted, work).await.unwrap_or(Err(BackupError::Interrupted))
}

/// Does work on a thread of its own: proving a snapshot is work for a processor, and must not hold up anything else.
/// None if the runtime ends before.
///
/// Dropped, the work is told as if it was interrupted.
pub async fn apart<T: Send + 'static>(
    interrupted: impl Future<Output = ()> + Send + 'static,
    work: impl AsyncFnOnce(BoxFuture<'static, ()>) -> T + Send + 'static,
) -> Option<T> {
    // Dropped with this future: then the thread cleans up.
    let (alive, mut dropped) = watch::channel(());
    let interrupted = async move {
        let _ = select(pin!(interrupted), pin!(dropped.changed())).await;
    };
    let runtime = tokio::runtime::Handle::current();
    let work = move || runtime.block_on(work(interrupted.boxed()));
    let done = match tokio::task::spawn_blocking(work).await {
        Ok(done) => Some(done),
        Err(stopped) => match stopped.try_into_panic() {
            Ok(fault) => std::panic::resume_unwind(fault),
            Err(_) => None,
        },
    };
    drop(alive);
    done
}

impl Opened {
    async fn is_create_only(&self, name: &str) -> Result<bool, Failure> {
        let probe = || async {
            let create_only = self.store.probe().await.map_err(|error| of_store(&error))?;
            if !create_only {
                tracing::warn!(
                    repository = name,
                    "this store cannot refuse to overwrite: do not let two daemons back up one cluster into it"
                );
            }
            Ok(create_only)
        };
        self.probed.get_or_try_init(probe).await.copied()
    }
}

fn made(manifest: &Manifest, took: Duration) -> Made {
    Made {
        id: manifest.id,
        revision: manifest.etcd.revision,
        finished: manifest.finished,
        bytes: manifest.db.bytes,
        stored_bytes: stored(manifest),
        took,
        differing_members: manifest.etcd.hash_kv.differed.clone(),
    }
}

fn newest_of(backup: &Backup) -> Newest {
    let manifest = &backup.manifest;
    Newest {
        id: manifest.id,
        revision: manifest.etcd.revision,
        finished: manifest.finished,
        bytes: manifest.db.bytes,
        stored_bytes: stored(manifest),
    }
}

fn stored(manifest: &Manifest) -> u64 {
    let include = manifest.include.as_ref().map_or(0, |include| include.object.stored.bytes);
    manifest.object.stored.bytes + include
}

fn unknown(name: &str) -> Failure {
    Failure {
        reason: FailureReason::Settings,
        error: format!("the settings do not name {name:?}"),
        remedy: "check the settings".to_owned(),
        retryable: false,
    }
}

fn failure(reason: FailureReason, error: &dyn std::error::Error) -> Failure {
    // Certificates and passwords may be renewed meanwhile; only what this process has refused stays refused.
    Failure { reason, error: chain(error), remedy: String::new(), retryable: true }
}

fn of_store(error: &StoreError) -> Failure {
    let reason = match error {
        StoreError::Unreachable { .. } => FailureReason::StoreUnreachable,
        StoreError::Denied { .. } => FailureReason::StoreDenied,
        StoreError::NoSpace { .. } => FailureReason::StoreFull,
        _ => FailureReason::Store,
    };
    Failure { remedy: error.remedy().to_owned(), ..failure(reason, error) }
}

fn of_lease(error: &LeaseError) -> Failure {
    match error {
        LeaseError::Store { source, .. } => of_store(source),
        _ => Failure { remedy: error.remedy().to_owned(), ..failure(FailureReason::Lease, error) },
    }
}

fn of_repository(error: &RepositoryError) -> Failure {
    match error {
        RepositoryError::Store(error) => of_store(error),
        RepositoryError::Lease(error) => of_lease(error),
        _ => Failure { remedy: error.remedy().to_owned(), ..failure(FailureReason::Store, error) },
    }
}

fn of_target(error: &TargetError) -> Failure {
    let reason = match (error.store(), error) {
        (Some(store), _) => of_store(store).reason,
        (None, TargetError::Lease(_)) => FailureReason::Lease,
        (None, TargetError::NotAsProved { .. }) => FailureReason::Verification,
        (None, TargetError::Reopen(_)) => FailureReason::Spool,
        (None, TargetError::Exposed { .. }) => FailureReason::Settings,
        (None, _) => FailureReason::Store,
    };
    let retryable = error.kind() != Kind::Refused;
    Failure { remedy: error.remedy().to_owned(), retryable, ..failure(reason, error) }
}

fn of_verify(error: &VerifyError) -> Failure {
    let reason = match error.kind() {
        Kind::Unreachable => FailureReason::StoreUnreachable,
        _ => FailureReason::Verification,
    };
    Failure { remedy: error.remedy().to_owned(), ..failure(reason, error) }
}

fn of_backup(error: &BackupError) -> Failure {
    let reason = match (error, error.kind()) {
        (BackupError::MembersDiffer { .. }, _) => FailureReason::HashMismatch,
        (BackupError::Spool(_), _) => FailureReason::Spool,
        (BackupError::Include(_), _) => FailureReason::Settings,
        (BackupError::Interrupted, _) => FailureReason::Stopped,
        (_, Kind::Damage) => FailureReason::Verification,
        _ => FailureReason::Cluster,
    };
    let retryable = error.kind() != Kind::Refused;
    Failure { remedy: error.remedy().to_owned(), retryable, ..failure(reason, error) }
}

impl From<&StoreError> for Failure {
    fn from(error: &StoreError) -> Self {
        of_store(error)
    }
}

impl From<&LeaseError> for Failure {
    fn from(error: &LeaseError) -> Self {
        of_lease(error)
    }
}

impl From<&RepositoryError> for Failure {
    fn from(error: &RepositoryError) -> Self {
        of_repository(error)
    }
}

impl From<&TargetError> for Failure {
    fn from(error: &TargetError) -> Self {
        of_target(error)
    }
}

impl From<&BackupError> for Failure {
    fn from(error: &BackupError) -> Self {
        of_backup(error)
    }
}

impl From<&PruneError> for Failure {
    fn from(error: &PruneError) -> Self {
        let unreachable = error.is_unreachable();
        let reason =
            if unreachable { FailureReason::StoreUnreachable } else { FailureReason::Store };
        Self { remedy: error.remedy().to_owned(), ..failure(reason, error) }
    }
}
