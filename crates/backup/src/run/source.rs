//! Where the snapshot comes from, and how it gets into the spool.
//!
//! | source | before leases are taken | after |
//! | --- | --- | --- |
//! | live | members are chosen: a revision is needed for the name | the stream, then the proof |
//! | file | it is proved, and read in place | nothing |
//! | data directory | it is saved into the spool, and proved | nothing |

use super::Options;
use crate::{
    error::BackupError,
    event::{self, Event, Watcher},
    facts::{self, Facts, Told},
    hashkv::{self, HashKvPolicy},
    import, room,
    spool::{Spool, SpoolError},
};
use etcd_live::{Candidate, Connector, Endpoint};
use jiff::Timestamp;
use repository::{codec::Identities, manifest};
use snapshot::{
    DigestRule, Fetched, Finding, SaveEvent, Saved, Snapshot, StoppedMember, Verified,
    save_offline_to_file, save_to_file,
};
use std::{
    fmt,
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// What is backed up.
pub enum Source {
    /// A running cluster.
    Live {
        /// How to connect.
        connector: Connector,
        /// Where to.
        endpoints: Vec<Endpoint>,
    },
    /// A snapshot file, also of another tool's making; or a folder with one, by its name.
    File {
        /// Its path.
        path: PathBuf,
        /// Whether it must end with its digest. If not, it gets one where it is stored.
        digest: DigestRule,
        /// What to decrypt it with, if it is encrypted.
        identities: Identities,
    },
    /// The data directory of a member that does not run.
    DataDir(StoppedMember),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Live { endpoints, .. } => f.debug_tuple("Live").field(endpoints).finish(),
            Self::File { path, .. } => f.debug_tuple("File").field(path).finish(),
            Self::DataDir(member) => f.debug_tuple("DataDir").field(member).finish(),
        }
    }
}

/// A source of which the revision is known.
pub(super) enum Prepared {
    Live(LiveSource),
    Proved {
        spool: Spool,
        facts: Box<Facts>,
        /// The time of the data, where it is not of now.
        dated: Option<Timestamp>,
    },
}

/// Members that can deliver.
pub(super) struct LiveSource {
    candidates: Vec<Candidate>,
    /// What all of them have reached.
    at_least: u64,
}

/// What is left to do when the leases are taken.
pub(super) enum Filling {
    Live(LiveSource),
    Done(Box<Facts>),
}

pub(super) async fn prepare(
    source: &Source,
    options: &Options,
    watcher: &Watcher,
) -> Result<Prepared, BackupError> {
    match source {
        Source::Live { connector, endpoints } => {
            Ok(Prepared::Live(choose(connector, endpoints, watcher).await?))
        }
        Source::File { path, digest, identities } => {
            let (path, digest, identities) = (path.clone(), *digest, identities.clone());
            let prove = move |work: &Work| prove_file(&path, digest, &identities, work);
            blocking(options, watcher, prove).await
        }
        Source::DataDir(member) => {
            let member = member.clone();
            blocking(options, watcher, move |work| save_data_dir(&member, work)).await
        }
    }
}

async fn choose(
    connector: &Connector,
    endpoints: &[Endpoint],
    watcher: &Watcher,
) -> Result<LiveSource, BackupError> {
    let choice = etcd_live::choose(connector, endpoints).await?;
    for passed in choice.passed_over {
        let why = passed.reason.to_string();
        watcher.tell(Event::PassedOver { endpoint: passed.endpoint, why });
    }
    if let Some(first) = choice.candidates.first() {
        let endpoint = first.connection.endpoint().clone();
        watcher.tell(Event::Chosen { endpoint, why: first.why.to_string() });
    }
    let at_least = at_least(choice.candidates.iter().map(|c| (c.is_sound(), revision_of(c))));
    let mut candidates = choice.candidates;
    candidates.retain(|candidate| revision_of(candidate) >= at_least);
    Ok(LiveSource { candidates, at_least })
}

fn revision_of(candidate: &Candidate) -> u64 {
    u64::try_from(candidate.status.header.revision).unwrap_or(0)
}

/// What every sound member has reached, so that the name holds for whichever of them delivers; one that
/// lags behind must not pull it down, as names sort by revision.
fn at_least(members: impl Iterator<Item = (bool, u64)> + Clone) -> u64 {
    let sound = members.clone().filter(|(sound, _)| *sound).map(|(_, revision)| revision).min();
    sound.or(members.map(|(_, revision)| revision).min()).unwrap_or(0)
}

/// What work on a thread of its own needs.
struct Work {
    options: Options,
    watcher: Watcher,
    stopped: Arc<AtomicBool>,
}

/// Does what computes and waits for disks, on a thread of its own. When the future is dropped, it is told.
async fn blocking(
    options: &Options,
    watcher: &Watcher,
    work: impl FnOnce(&Work) -> Result<Prepared, BackupError> + Send + 'static,
) -> Result<Prepared, BackupError> {
    struct Stop(Arc<AtomicBool>);
    impl Drop for Stop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = Stop(Arc::default());
    let stopped = Arc::clone(&stop.0);
    let context = Work { options: options.clone(), watcher: watcher.clone(), stopped };
    let done = tokio::task::spawn_blocking(move || work(&context));
    done.await.expect("the work does not panic")
}

impl Work {
    fn on_finding(&self) -> impl FnMut(Finding) {
        let watcher = self.watcher.clone();
        move |finding| watcher.tell(Event::Found(finding))
    }

    fn gather(
        &self,
        snapshot: &Snapshot<Verified>,
        source: manifest::Source,
        file_digest: snapshot::Sha256Digest,
    ) -> Result<Box<Facts>, BackupError> {
        let content = facts::content_of(snapshot, file_digest);
        let now = self.options.clock.now();
        Ok(Box::new(facts::gather(snapshot, source, content, now)?.0))
    }
}

/// Proves a file, which is then read in place: it is not copied, but what is uploaded must have the digest
/// of what was proved.
fn prove_file(
    path: &Path,
    rule: DigestRule,
    identities: &Identities,
    work: &Work,
) -> Result<Prepared, BackupError> {
    let (path, left) = import::find(path)?;
    left.into_iter().for_each(|left| work.watcher.tell(Event::LeftOut(left)));
    if import::is_wrapped(&path)? {
        return unwrap_file(&path, rule, identities, work);
    }
    let snapshot = Snapshot::open(&path)?;
    prove(&path, snapshot, rule, work)
}

fn prove(
    path: &Path,
    snapshot: Snapshot<Fetched>,
    rule: DigestRule,
    work: &Work,
) -> Result<Prepared, BackupError> {
    work.watcher.tell(Event::Verifying);
    let snapshot = snapshot.verify(rule, &mut work.on_finding())?;
    let source = manifest::Source::File { path: path.display().to_string() };
    place_in_spool(path, &snapshot, source, work)
}

fn place_in_spool(
    path: &Path,
    snapshot: &Snapshot<Verified>,
    source: manifest::Source,
    work: &Work,
) -> Result<Prepared, BackupError> {
    const SECTOR_BYTES: u64 = 512;
    let bytes = snapshot.database_bytes();
    if !bytes.is_multiple_of(SECTOR_BYTES) {
        return Err(BackupError::Size { path: path.to_owned(), bytes });
    }
    let digests = match snapshot.stored_digest() {
        Some(stored) if stored == snapshot.digest() => snapshot.digests(),
        _ => snapshot.digests_with_trailer()?,
    };
    let facts = work.gather(snapshot, source, digests.file)?;
    let file = snapshot.try_clone_file()?;
    let spool = Spool::of_database(path, file, bytes, digests.database.0);
    Ok(Prepared::Proved { spool, facts, dated: changed(path, work.options.clock.now()) })
}

/// When a file was written, which is the time of what is in it: a policy and a restore go by that. Not after `now`.
fn changed(path: &Path, now: Timestamp) -> Option<Timestamp> {
    let modified = path.metadata().and_then(|found| found.modified()).ok()?;
    Timestamp::try_from(modified).ok().map(|changed| changed.min(now))
}

/// Takes a snapshot out of what another tool has wrapped it in.
fn unwrap_file(
    path: &Path,
    rule: DigestRule,
    identities: &Identities,
    work: &Work,
) -> Result<Prepared, BackupError> {
    let dir = &work.options.spool_dir;
    let unwrapped = room::temporary(dir, 0)?;
    let room = room::free_in(&unwrapped)
        .map_err(|source| SpoolError::Create { dir: dir.clone(), source })?;
    let io_error = |source| import::ImportError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io_error)?;
    let place = path.display().to_string();
    import::unwrap(&place, file, &mut &unwrapped, room, identities)?;
    prove(path, Snapshot::of_file(path, &unwrapped)?, rule, work)
}

fn save_data_dir(member: &StoppedMember, work: &Work) -> Result<Prepared, BackupError> {
    let spool = Spool::create(&work.options.spool_dir)?;
    let stopped = || work.stopped.load(Ordering::Relaxed);
    let findings = &mut work.on_finding();
    let saved = save_offline_to_file(member, spool.dir(), spool.file(), findings, &stopped)?;
    if let Some(replayed) = saved.replayed {
        work.watcher.tell(Event::Replayed(replayed));
    }
    let source = manifest::Source::DataDir { path: member.data_dir.display().to_string() };
    let facts = work.gather(&saved.snapshot, source, saved.snapshot.digests().file)?;
    spool.filled(saved.snapshot.file_bytes());
    Ok(Prepared::Proved { spool, facts, dated: None })
}

impl Prepared {
    /// The revision that the snapshot has at least.
    pub(super) fn at_least(&self) -> u64 {
        match self {
            Self::Live(live) => live.at_least,
            Self::Proved { facts, .. } => u64::try_from(facts.etcd.revision).unwrap_or(0),
        }
    }

    /// The time of the data, if it is not of now.
    pub(super) fn dated(&self) -> Option<Timestamp> {
        match self {
            Self::Live(_) => None,
            Self::Proved { dated, .. } => *dated,
        }
    }

    /// A place for the snapshot, and what is left to do to fill it.
    pub(super) fn into_spool(self, options: &Options) -> Result<(Spool, Filling), BackupError> {
        Ok(match self {
            Self::Live(live) => (Spool::create(&options.spool_dir)?, Filling::Live(live)),
            Self::Proved { spool, facts, .. } => (spool, Filling::Done(facts)),
        })
    }
}

impl Filling {
    /// Brings all of it into the spool, and proves it.
    pub(super) async fn fill(
        self,
        spool: &Spool,
        source: &Source,
        options: &Options,
        watcher: &Watcher,
    ) -> Result<Facts, BackupError> {
        match (self, source) {
            (Self::Done(facts), _) => Ok(*facts),
            (Self::Live(live), Source::Live { connector, endpoints }) => {
                live.fill(spool, connector, endpoints, options, watcher).await
            }
            (Self::Live(_), _) => unreachable!("only a live source is prepared as one"),
        }
    }
}

impl LiveSource {
    async fn fill(
        self,
        spool: &Spool,
        connector: &Connector,
        endpoints: &[Endpoint],
        options: &Options,
        watcher: &Watcher,
    ) -> Result<Facts, BackupError> {
        let on_event = |event: SaveEvent<'_>| tell(watcher, &event);
        let (dir, file, progress) = (spool.dir(), spool.file(), spool.progress());
        let saved = save_to_file(&self.candidates, dir, file, progress, &on_event).await?;
        let Saved { endpoint, snapshot } = saved;
        let candidate = self.candidate(&endpoint);
        let told = self.told_by(candidate).await;
        let source = source_of(candidate, &told);
        let found = snapshot.survey().revision();
        if u64::try_from(found).is_ok_and(|found| found < self.at_least) {
            return Err(BackupError::WentBack { promised: self.at_least, found });
        }
        let content = facts::content_of(&snapshot, snapshot.digests().file);
        let now = options.clock.now();
        let gathered =
            tokio::task::spawn_blocking(move || facts::gather(&snapshot, source, content, now));
        // The members compute theirs meanwhile.
        let answers = async {
            match options.hash_kv {
                HashKvPolicy::Skip => None,
                _ => Some(hashkv::ask_members(connector, endpoints, &told.members, found).await),
            }
        };
        let (gathered, answers) = futures::join!(gathered, answers);
        let (mut facts, own) = gathered.expect("reading records does not panic")?;
        if let Some(answers) = answers {
            facts.etcd.hash_kv = hashkv::compare(&told.members, &answers, &own);
            judge(&mut facts, options.hash_kv, own.hash_revision, watcher)?;
        }
        told.add_to(&mut facts.etcd);
        Ok(facts)
    }

    fn candidate(&self, endpoint: &Endpoint) -> &Candidate {
        let mut candidates = self.candidates.iter();
        let found = candidates.find(|candidate| candidate.connection.endpoint() == endpoint);
        found.expect("a snapshot comes from one of the candidates")
    }

    /// A member list that cannot be had now is in the snapshot too.
    async fn told_by(&self, candidate: &Candidate) -> Told {
        let members = candidate.connection.members().await;
        Told {
            version: candidate.status.version.clone(),
            cluster_id: candidate.status.header.cluster_id,
            members: members.map(|members| members.members).unwrap_or_default(),
        }
    }
}

fn source_of(candidate: &Candidate, told: &Told) -> manifest::Source {
    let id = candidate.status.header.member_id;
    let member = told.members.iter().find(|member| member.id == id);
    manifest::Source::Live {
        endpoint: candidate.connection.endpoint().to_string(),
        member_id: format!("{id:x}"),
        member_name: member.map(|member| member.name.clone()).unwrap_or_default(),
    }
}

fn judge(
    facts: &mut Facts,
    policy: HashKvPolicy,
    revision: i64,
    watcher: &Watcher,
) -> Result<(), BackupError> {
    let manifest::HashKv { agreed, differed, unasked, .. } = facts.etcd.hash_kv.clone();
    facts.verification.hash_kv = differed.is_empty() && !agreed.is_empty();
    watcher.tell(Event::HashKv { revision, agreed, differed: differed.clone(), unasked });
    if policy == HashKvPolicy::Fail && !differed.is_empty() {
        return Err(BackupError::MembersDiffer { revision, differed });
    }
    Ok(())
}

fn tell(watcher: &Watcher, event: &SaveEvent<'_>) {
    match event {
        SaveEvent::Fetching { endpoint, total } => {
            watcher.tell(Event::Fetching { endpoint: (*endpoint).clone(), total: *total });
        }
        SaveEvent::Received(bytes) => watcher.tell(Event::Received(*bytes)),
        SaveEvent::FailedOver { error, next } => watcher.tell(event::failed_over(error, next)),
        SaveEvent::Verifying => watcher.tell(Event::Verifying),
        SaveEvent::Found(finding) => watcher.tell(Event::Found((*finding).clone())),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_holds_for_every_sound_member_and_no_laggard_pulls_it_down() {
        let at_least = |members: &[(bool, u64)]| at_least(members.iter().copied());
        assert_eq!(at_least(&[(true, 12), (true, 10), (false, 3)]), 10);
        assert_eq!(at_least(&[(false, 12), (false, 3)]), 3);
    }
}
