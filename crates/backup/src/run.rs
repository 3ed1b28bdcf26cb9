//! One backup of one cluster, into one repository or several.
//!
//! ```text
//!   choose members ─▶ leases, names ─▶ stream ──▶ spool ─▶ walk, HashKV ──▶ proved
//!                                                  │                          │
//!                                   each repository:  compress, encrypt, upload ─▶ complete ─▶ manifest
//! ```
//!
//! * No object is completed before the snapshot is proved, and no manifest created before all objects are
//!   complete: what is listed as a backup is whole and sound.
//! * Repositories do not wait for each other, and one that fails does not take the others with it.
//! * An upload that fails begins again from the spool; etcd is not asked twice for that.
//! * When it is interrupted, objects under way are given up in the stores, and the names that were taken
//!   are closed. When the future is dropped instead, or the process dies, what is left is what `prune`
//!   collects, and the next run takes the lease over.

mod deliver;
mod newest;
pub mod plain;
mod source;

pub use source::Source;

use crate::{
    error::{BackupError, Kind, TargetError},
    event::{Event, Watcher, why},
    facts::Facts,
    hashkv::HashKvPolicy,
    include::{self, IncludeError},
    spool::SpoolError,
};
use deliver::{Delivery, Packed};
use futures::future::{FusedFuture, FutureExt, join_all, select};
use jiff::Timestamp;
use repository::{
    BackupId, ClusterName, Manifest, Repository,
    codec::Encoding,
    lease::{Clock, Holder, Lease, Run, SystemClock, Terms},
    store::Store,
};
use source::Prepared;
use std::{
    io::Seek,
    path::PathBuf,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// How long what is under way may take to clean up when it is interrupted.
const CLEANUP: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Debug)]
pub struct Job {
    /// The cluster's name in the repositories.
    pub cluster: ClusterName,
    /// What is backed up.
    pub source: Source,
    /// Where to.
    pub targets: Vec<Target>,
    /// How.
    pub options: Options,
}

/// A repository to write to.
#[derive(Clone, Debug)]
pub struct Target {
    /// What messages call it.
    pub name: String,
    /// Where it is.
    pub store: Store,
    /// How objects are stored there.
    pub encoding: Encoding,
    /// Whether it may be stored open although the newest backup there is encrypted.
    pub may_expose: bool,
}

/// How a backup is made.
#[derive(Clone)]
pub struct Options {
    /// The slot of the schedule that it answers. If that is done already, nothing is.
    pub scheduled_for: Option<Timestamp>,
    /// Whether, should it fail, nobody shall try that slot again.
    pub last_try: bool,
    /// Where temporary files are made; they have no name.
    pub spool_dir: PathBuf,
    /// What to do where members differ.
    pub hash_kv: HashKvPolicy,
    /// Files to keep beside the snapshot.
    pub include: Vec<PathBuf>,
    /// Whether those may be stored unencrypted.
    pub include_plain: bool,
    /// Who writes.
    pub holder: Holder,
    /// How long the right to write holds, and how long to wait for it.
    pub terms: Terms,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// How often an upload is begun, at most.
    pub uploads_max: u32,
    /// How long to wait after the first upload that failed; twice as long after each further one.
    pub back_off: Duration,
    /// The tool and its version, for the manifest.
    pub tool: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            scheduled_for: None,
            last_try: false,
            spool_dir: std::env::temp_dir(),
            hash_kv: HashKvPolicy::default(),
            include: Vec::new(),
            include_plain: false,
            holder: Holder::this_process(),
            terms: Terms::default(),
            clock: Arc::new(SystemClock::default()),
            uploads_max: 4,
            back_off: Duration::from_secs(2),
            tool: concat!("lifeboat ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("scheduled_for", &self.scheduled_for)
            .field("spool_dir", &self.spool_dir)
            .field("hash_kv", &self.hash_kv)
            .field("include", &self.include)
            .finish_non_exhaustive()
    }
}

/// What became of it.
#[derive(Debug)]
pub struct Report {
    /// The snapshot; none if no repository could be written to, and so none was taken.
    pub facts: Option<Facts>,
    /// One for each target, in their order.
    pub results: Vec<TargetReport>,
}

/// What became of it in one repository.
#[derive(Debug)]
pub struct TargetReport {
    /// The target's name.
    pub name: String,
    /// Where it is, without secrets.
    pub url: String,
    /// The backup, or why there is none.
    pub result: Result<Manifest, TargetError>,
}

impl Report {
    /// Whether every repository has a backup, and no member's data differ; else the kind of the worst
    /// failure.
    pub fn failure(&self) -> Option<Kind> {
        let kinds = self.results.iter().filter_map(|target| target.result.as_ref().err());
        let worst = kinds.map(TargetError::kind);
        worst.max_by_key(|kind| match kind {
            Kind::Unreachable => 0,
            Kind::Refused => 1,
            Kind::Failed => 2,
            Kind::Damage => 3,
        })
    }
}

/// The right to write into one repository, and the name there.
struct Writer<'j> {
    index: usize,
    target: &'j Target,
    repository: Repository,
    lease: Lease,
    id: BackupId,
}

/// Makes one backup. When `interrupted` is ready, it stops and cleans up.
///
/// # Errors
///
/// None of the repositories has got a backup. Failures of single repositories are in the [`Report`].
pub async fn run(
    job: &Job,
    watcher: &Watcher,
    interrupted: impl Future<Output = ()>,
) -> Result<Report, BackupError> {
    let interrupted = pin!(interrupted.fuse());
    Running { job, watcher }.run(interrupted).await
}

struct Running<'j> {
    job: &'j Job,
    watcher: &'j Watcher,
}

impl<'j> Running<'j> {
    async fn run(
        &self,
        mut interrupted: impl FusedFuture<Output = ()> + Unpin,
    ) -> Result<Report, BackupError> {
        let started = self.job.options.clock.now();
        let prepared = unless(&mut interrupted, self.prepare()).await??;
        let (packed, prepared) = prepared;
        let started = prepared.dated().unwrap_or(started);
        let id = BackupId::new(prepared.at_least(), started);
        let begun = unless(&mut interrupted, self.begin(id)).await?;
        let (mut writers, mut results) = (Vec::new(), Vec::new());
        for writer in begun {
            match writer {
                Ok(writer) => {
                    results.push(None);
                    writers.push(writer);
                }
                Err(error) => results.push(Some(Err(error))),
            }
        }
        if writers.is_empty() {
            return Ok(self.report(None, results));
        }
        let outcome =
            self.write(prepared, packed.as_ref(), started, &writers, &mut interrupted).await;
        let (facts, mut delivered) = match outcome {
            Ok((facts, delivered)) => (facts, delivered),
            Err(error) => {
                self.release(&writers, &mut std::iter::repeat(true)).await;
                return Err(error);
            }
        };
        self.release(&writers, &mut delivered.iter().map(Result::is_err)).await;
        for writer in writers.iter().rev() {
            results[writer.index] = delivered.pop();
        }
        Ok(self.report(facts, results))
    }

    /// Everything that needs no repository.
    async fn prepare(&self) -> Result<(Option<Packed>, Prepared), BackupError> {
        let packed = self.pack().await?;
        let prepared = source::prepare(&self.job.source, &self.job.options, self.watcher).await?;
        Ok((packed, prepared))
    }

    /// Puts the files to include into a tar.
    async fn pack(&self) -> Result<Option<Packed>, BackupError> {
        let Options { include: paths, include_plain, spool_dir, .. } = &self.job.options;
        if paths.is_empty() {
            return Ok(None);
        }
        let plain = self.job.targets.iter().find(|target| target.encoding.recipients.is_empty());
        if let Some(target) = plain.filter(|_| !include_plain) {
            return Err(IncludeError::Plain { repository: target.name.clone() }.into());
        }
        let file = tempfile::tempfile_in(spool_dir);
        let mut file =
            file.map_err(|source| SpoolError::Create { dir: spool_dir.clone(), source })?;
        let packing = paths.clone();
        let packed = tokio::task::spawn_blocking(move || {
            include::pack(&packing, std::io::BufWriter::new(&file))?;
            file.rewind().map_err(IncludeError::Write)?;
            Ok::<_, IncludeError>(file)
        });
        let file = packed.await.expect("packing does not panic")?;
        let paths = paths.iter().map(|path| path.display().to_string()).collect();
        Ok(Some(Packed { file, paths }))
    }

    /// Takes the right to write, and a name, in every repository.
    async fn begin(&self, id: BackupId) -> Vec<Result<Writer<'j>, TargetError>> {
        let begin = |(index, target)| self.begin_one(index, target, id);
        join_all(self.job.targets.iter().enumerate().map(begin)).await
    }

    async fn begin_one(
        &self,
        index: usize,
        target: &'j Target,
        id: BackupId,
    ) -> Result<Writer<'j>, TargetError> {
        let Options { holder, terms, clock, scheduled_for, .. } = &self.job.options;
        let begun = async {
            let repository = Repository::open_or_create(target.store.clone(), clock.now()).await?;
            self.refuse_to_expose(target).await?;
            let lease =
                Lease::acquire(&target.store, &self.job.cluster, holder, *terms, Arc::clone(clock))
                    .await?;
            match lease.begin(Run { id, scheduled_for: *scheduled_for }).await {
                Ok(id) => Ok(Writer { index, target, repository, lease, id }),
                Err(error) => {
                    // Others need not wait until it expires; the first error is the one to tell.
                    let _ = lease.release(None).await;
                    Err(error.into())
                }
            }
        };
        begun.await.map_err(|error: TargetError| self.failed(index, error))
    }

    async fn refuse_to_expose(&self, target: &Target) -> Result<(), TargetError> {
        let cluster = &self.job.cluster;
        let is_open = target.encoding.recipients.is_empty() && !target.may_expose;
        if is_open && newest::is_encrypted(&target.store, cluster).await? {
            return Err(TargetError::Exposed { cluster: cluster.clone() });
        }
        Ok(())
    }

    fn failed(&self, repository: usize, error: TargetError) -> TargetError {
        self.watcher.tell(Event::RepositoryFailed { repository, why: why(&error) });
        error
    }

    /// Fills the spool, and delivers it meanwhile.
    async fn write(
        &self,
        prepared: Prepared,
        packed: Option<&Packed>,
        started: Timestamp,
        writers: &[Writer<'j>],
        mut interrupted: &mut (impl FusedFuture<Output = ()> + Unpin),
    ) -> Result<(Option<Facts>, Vec<Result<Manifest, TargetError>>), BackupError> {
        let options = &self.job.options;
        let (spool, filling) = prepared.into_spool(options)?;
        let facts = OnceLock::new();
        let deliveries = writers.iter().map(|writer| {
            let delivery = Delivery {
                job: self.job,
                watcher: self.watcher,
                writer,
                reader: spool.reader(),
                facts: &facts,
                packed,
                started,
            };
            delivery.run()
        });
        let mut delivering = pin!(join_all(deliveries).fuse());
        let filled = {
            let mut filling =
                pin!(filling.fill(&spool, &self.job.source, options, self.watcher).fuse());
            futures::select_biased! {
                () = interrupted => Err(BackupError::Interrupted),
                // Every repository has failed: there is nothing to fetch for.
                results = delivering => return Ok((None, results)),
                filled = filling => filled,
            }
        };
        let error = match filled {
            Ok(filled) => {
                facts.set(filled).expect("facts are set once");
                spool.proved();
                futures::select_biased! {
                    () = interrupted => BackupError::Interrupted,
                    results = delivering => return Ok((facts.get().cloned(), results)),
                }
            }
            Err(error) => error,
        };
        spool.give_up();
        let too_long = options.clock.sleep(CLEANUP);
        let _ = select(delivering, too_long).await;
        Err(error)
    }

    /// Gives the leases back. What cannot be given back now ends by itself.
    async fn release(&self, writers: &[Writer<'j>], failed: &mut dyn Iterator<Item = bool>) {
        let Options { scheduled_for, last_try, .. } = self.job.options;
        let releases = writers.iter().zip(failed).map(async |(writer, failed)| {
            let given_up = scheduled_for.filter(|_| failed && last_try);
            let _ = writer.lease.release(given_up).await;
        });
        join_all(releases).await;
    }

    fn report(
        &self,
        facts: Option<Facts>,
        results: Vec<Option<Result<Manifest, TargetError>>>,
    ) -> Report {
        let targets = self.job.targets.iter().zip(results);
        let results = targets.map(|(target, result)| TargetReport {
            name: target.name.clone(),
            url: target.store.url().to_owned(),
            result: result.expect("every target has failed to begin, or was delivered to"),
        });
        Report { facts, results: results.collect() }
    }
}

/// Does the work, unless it is interrupted before.
async fn unless<T>(
    mut interrupted: &mut (impl FusedFuture<Output = ()> + Unpin),
    work: impl Future<Output = T>,
) -> Result<T, BackupError> {
    let mut work = pin!(work.fuse());
    futures::select_biased! {
        () = interrupted => Err(BackupError::Interrupted),
        done = work => Ok(done),
    }
}

#[cfg(test)]
mod tests;
