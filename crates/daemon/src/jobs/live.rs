//! The real work: crates `backup` and `repository`, as the settings say.

use super::{Failure, FailureReason, Jobs, Made, Newest, Order, Outcome, Pruned, Survey, Verified};
use crate::{
    chain,
    config::{self, Config, HashMismatch, Secret},
    serve::JobsError,
};
use backup::{BackupError, HashKvPolicy, Kind, TargetError, Watcher};
use etcd_live::{ConnectOptions, Connector, Credentials, Endpoint, Identity, TlsOptions};
use futures::{
    FutureExt,
    future::{BoxFuture, select},
};
use repository::{
    ClusterName, Manifest, Repository, RepositoryError,
    checks::{Check, Damage, Share},
    codec::{Encoding, Identities, Recipients, SecretString},
    lease::{self, Clock, Holder, LeaseError, Terms},
    listing::{Backup, State},
    prune::{PruneOptions, PrunePlan},
    store::{self, Store, StoreError, StoreOptions},
};
use std::{
    collections::BTreeMap,
    num::NonZeroU32,
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
    places: BTreeMap<String, Place>,
    spool: PathBuf,
    holder: Holder,
    clock: Arc<dyn Clock>,
    interrupt: watch::Sender<bool>,
}

/// A repository, ready to use.
struct Place {
    store: Store,
    encoding: Encoding,
    identities: Identities,
    retention: repository::retention::Policy,
    probed: tokio::sync::OnceCell<bool>,
}

impl Live {
    /// Reads the keys and credentials that the settings name. Reaches nothing yet.
    pub fn new(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, JobsError> {
        let mut places = BTreeMap::new();
        for repository in &config.repositories {
            places.insert(repository.name.clone(), Place::new(repository)?);
        }
        Ok(Self {
            clusters: config.clusters.iter().map(|c| (c.name.clone(), c.clone())).collect(),
            places,
            spool: config.spool.clone().unwrap_or_else(std::env::temp_dir),
            holder: Holder::this_process(),
            clock,
            interrupt: watch::channel(false).0,
        })
    }

    fn cluster(&self, cluster: &ClusterName) -> Result<&config::Cluster, Failure> {
        self.clusters.get(cluster).ok_or_else(|| unknown(cluster.as_str()))
    }

    fn place(&self, repository: &str) -> Result<&Place, Failure> {
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
        let report = self.run(job).await.map_err(|error| of_backup(&error))?;
        let result = |result: Result<Manifest, TargetError>| match result {
            Ok(manifest) => Ok(Outcome::Made(made(&manifest, begun.elapsed()))),
            Err(TargetError::Lease(LeaseError::Done { .. })) => Ok(Outcome::AlreadyDone),
            Err(error) => Err(of_target(&error)),
        };
        Ok(report.results.into_iter().map(|target| (target.name, result(target.result))).collect())
    }

    /// Runs it on a thread of its own: proving a snapshot is work for a processor, and must not hold up anything else.
    async fn run(&self, job: backup::Job) -> Result<backup::Report, BackupError> {
        let mut all = self.interrupt.subscribe();
        // Dropped with this future: then the thread cleans up, as if it was interrupted.
        let (alive, mut dropped) = watch::channel(());
        let interrupted = async move {
            let all = all.wait_for(|interrupted| *interrupted);
            let _ = select(pin!(all), pin!(dropped.changed())).await;
        };
        let runtime = tokio::runtime::Handle::current();
        let work = move || runtime.block_on(backup::run(&job, &Watcher::none(), interrupted));
        let report = match tokio::task::spawn_blocking(work).await {
            Ok(report) => report,
            Err(stopped) => match stopped.try_into_panic() {
                Ok(fault) => std::panic::resume_unwind(fault),
                Err(_) => Err(BackupError::Interrupted),
            },
        };
        drop(alive);
        report
    }

    fn job(&self, order: Order<'_>) -> Result<backup::Job, Failure> {
        let cluster = self.cluster(order.cluster)?;
        let target = |name: &String| {
            let place = self.place(name)?;
            let (store, encoding) = (place.store.clone(), place.encoding.clone());
            Ok(backup::Target { name: name.clone(), store, encoding })
        };
        let hash_kv = match cluster.hash_mismatch {
            HashMismatch::Warn => HashKvPolicy::Warn,
            HashMismatch::Fail => HashKvPolicy::Fail,
        };
        Ok(backup::Job {
            cluster: order.cluster.clone(),
            source: source(cluster)?,
            targets: order.repositories.iter().map(target).collect::<Result<_, Failure>>()?,
            options: backup::Options {
                scheduled_for: order.scheduled_for,
                spool_dir: self.spool.clone(),
                hash_kv,
                include: cluster.include.clone(),
                include_plain: cluster.include_unencrypted,
                holder: self.holder.clone(),
                terms: Terms { patience: PATIENCE, ..Terms::default() },
                clock: self.clock.clone(),
                ..backup::Options::default()
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
        let repository = Repository::open(place.store.clone()).await.map_err(failed)?;
        let begun = self.clock.now();
        let share = Share::due(of, &repository.checks(cluster).await.map_err(failed)?);
        let listing = repository.backups(cluster).await.map_err(failed)?;
        let (mut sound, mut damaged) = (Vec::new(), Vec::new());
        let mut unknown = None;
        for backup in listing.backups.iter().filter(|backup| share.covers(backup.id())) {
            match self.problems(place, backup).await {
                Ok(problems) if problems.is_empty() => sound.push(backup.id()),
                Ok(problems) => {
                    let damage = Damage::new(self.clock.now(), problems);
                    // Even where it cannot be noted, it is told.
                    if let Err(error) = repository.mark_damaged(cluster, backup.id(), &damage).await
                    {
                        tracing::warn!(%cluster, backup = %backup.id(), error = chain(&error), "damage cannot be noted");
                    }
                    damaged.push(backup.id());
                }
                Err(failure) => unknown = Some(failure),
            }
        }
        let found = Verified { sound: sound.len() as u64, damaged: damaged.clone() };
        if unknown.is_none() || !sound.is_empty() || !damaged.is_empty() {
            // A share of which something could not be read is not done: it must come again.
            let share = unknown.is_none().then_some(share);
            let check = Check::new(begun, share, sound, damaged);
            repository.record_check(cluster, &check).await.map_err(failed)?;
        }
        match unknown {
            Some(failure) if found.damaged.is_empty() => Err(failure),
            _ => Ok(found),
        }
    }

    /// What is wrong with a backup, each in a line.
    async fn problems(&self, place: &Place, backup: &Backup) -> Result<Vec<String>, Failure> {
        if backup.state != State::Whole {
            return Ok(vec![backup.state.to_string()]);
        }
        let (store, manifest) = (&place.store, &backup.manifest);
        let found = backup::verify::verify(
            store,
            manifest,
            &place.identities,
            &self.spool,
            &Watcher::none(),
        )
        .await;
        let found = found.map_err(|error| {
            let reason = match error.kind() {
                Kind::Unreachable => FailureReason::StoreUnreachable,
                _ => FailureReason::Verification,
            };
            Failure { remedy: error.remedy().to_owned(), ..failure(reason, &error) }
        })?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    async fn prune(&self, cluster: &ClusterName, name: &str) -> Result<Pruned, Failure> {
        let place = self.place(name)?;
        let policy = self.cluster(cluster)?.retention.as_ref().unwrap_or(&place.retention);
        let opened = Repository::open(place.store.clone()).await;
        let repository = opened.map_err(|error| of_repository(&error))?;
        let failed = |error: repository::prune::PruneError| {
            let unreachable = error.is_unreachable();
            let reason =
                if unreachable { FailureReason::StoreUnreachable } else { FailureReason::Store };
            Failure { remedy: error.remedy().to_owned(), ..failure(reason, &error) }
        };
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

impl Place {
    fn new(repository: &config::Repository) -> Result<Self, JobsError> {
        let mut recipients = Recipients::none();
        for key in &repository.recipients {
            recipients.add(key)?;
        }
        let mut identities = Identities::none();
        for file in &repository.identities {
            identities.add_file(file, |_| passphrase(repository))?;
        }
        let bandwidth =
            repository.bandwidth_limit.as_ref().map(|limit| limit.parse()).transpose()?;
        let level = repository.compression_level;
        let credentials = credentials(repository)?;
        let options = StoreOptions { settings: repository.options.clone(), credentials };
        Ok(Self {
            store: Store::open(&repository.url, &options)?,
            encoding: Encoding { level, recipients, bandwidth },
            identities,
            retention: repository.retention.clone(),
            probed: tokio::sync::OnceCell::new(),
        })
    }

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

fn passphrase(repository: &config::Repository) -> std::io::Result<SecretString> {
    let Some(file) = &repository.passphrase_file else {
        let missing = "the identity has a passphrase, and passphrase-file is not set";
        return Err(std::io::Error::new(std::io::ErrorKind::NotFound, missing));
    };
    Ok(SecretString::from(Secret::read(file)?.reveal().to_owned()))
}

fn credentials(repository: &config::Repository) -> Result<Option<store::Credentials>, JobsError> {
    let secret =
        |name: &str| repository.credential_files.get(name).map(|f| Secret::read(f)).transpose();
    let (id, key) = (secret("access-key-id")?, secret("secret-access-key")?);
    let token = secret("session-token")?;
    let Some((id, key)) = id.zip(key) else { return Ok(None) };
    let hidden = |secret: &Secret| store::Secret::new(secret.reveal());
    Ok(Some(store::Credentials {
        access_key_id: id.reveal().to_owned(),
        secret_access_key: hidden(&key),
        session_token: token.as_ref().map(hidden),
    }))
}

/// How to reach a cluster. Passwords and certificates are read anew for each backup, as they are renewed.
fn source(cluster: &config::Cluster) -> Result<backup::Source, Failure> {
    let settings = |error: &dyn std::error::Error| failure(FailureReason::Settings, error);
    let credentials = match (&cluster.user, &cluster.password_file) {
        (Some(user), Some(file)) => {
            let password = Secret::read(file).map_err(|error| settings(&error))?;
            Some(Credentials { user: user.clone(), password: password.reveal().to_owned() })
        }
        _ => None,
    };
    let tls = &cluster.tls;
    let identity = tls.cert.clone().zip(tls.key.clone());
    let options = ConnectOptions {
        tls: TlsOptions {
            ca: tls.ca.clone(),
            identity: identity.map(|(cert, key)| Identity { cert, key }),
            skip_verify: tls.insecure_skip_verify,
            server_name: tls.server_name.clone(),
        },
        credentials,
        ..ConnectOptions::default()
    };
    let endpoint = |text: &String| text.parse::<Endpoint>().map_err(|error| settings(&error));
    let endpoints = cluster.endpoints.iter().map(endpoint).collect::<Result<_, Failure>>()?;
    let connector = Connector::new(options).map_err(|error| settings(&error))?;
    Ok(backup::Source::Live { connector, endpoints })
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
        (None, _) => FailureReason::Store,
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
