//! A snapshot of a stopped member: its database, and what its write-ahead log has beyond it.
//!
//! ```text
//!   DIR/member/snap/db       ──▶ proved ──┐ entries after consistent_index
//!   DIR/member/wal/*.wal     ─────────────┴──▶ applied offline ──▶ PATH.part, digest ──▶ proved ──▶ PATH
//! ```
//!
//! * All entries that the log has are applied, also those beyond the commit that it tells: etcd writes
//!   the commit down late, so clients may have been told that these are done. What never reached this
//!   member's log, it cannot give.
//! * Nothing in the directory is written to. A running etcd holds a lock on `db`; it is refused, as
//!   its files change under the reader.
//! * The database is walked first, as a snapshot is: what is wrong with it is told as damage, and is
//!   not carried over into a file that looks sound.
//! * Where the log cannot be replayed exactly, this is an error, and [`UseLog::No`] is the way to take
//!   the database without it.

use crate::{
    file::{Snapshot, SnapshotError, Verified},
    finding::Finding,
    part_file::{Existing, PartFile, PartFileError},
    survey::{Depth, survey},
};
use bolt::{BoltError, BuildError, Builder, Db, Mapped, Options};
use etcd_apply::{Applied, ApplyError, UpTo, apply, consistent_index};
use etcd_raftfiles::wal::{End, Segment, SegmentName, Wal, WalError, first_needed};
use etcd_schema::ReadError;
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, File},
    io::{self, Seek, Write},
    path::{Path, PathBuf},
};

/// Where a stopped member's files are, and how much of them to take.
#[derive(Clone, Debug)]
pub struct StoppedMember {
    /// The data directory, which has `member/snap/db`.
    pub data_dir: PathBuf,
    /// The WAL directory, if it is not `member/wal` of the data directory.
    pub wal_dir: Option<PathBuf>,
    /// How much of the log is taken.
    pub log: UseLog,
}

/// How much of a stopped member's log is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UseLog {
    /// All of it.
    #[default]
    Whole,
    /// Up to the commit that it tells. Writes that were acknowledged after that was written down are
    /// lost.
    Committed,
    /// Nothing: the database as it is.
    No,
}

/// Why a stopped member's data could not be saved. Nothing was left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OfflineError {
    /// There is no `member/snap/db`.
    #[error("{} is not the data directory of an etcd member: it has no member/snap/db", path.display())]
    NotADataDir {
        /// The directory.
        path: PathBuf,
    },
    /// The snapshot was to be written among the member's own files, which are never touched.
    #[error("{} lies among the member's own files", path.display())]
    InsideDataDir {
        /// Where it was to be written.
        path: PathBuf,
    },
    /// An etcd, or another tool, has the database open.
    #[error("{} is in use: another process holds its lock", path.display())]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The database is not sound. The findings have been handed out one by one.
    #[error("{} is damaged: {findings} finding{}", path.display(), if *findings == 1 { "" } else { "s" })]
    Damaged {
        /// The database.
        path: PathBuf,
        /// Number of findings.
        findings: u64,
    },
    /// The database is damaged.
    #[error("{} is damaged", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        source: ReadError,
    },
    /// The log is damaged.
    #[error("the write-ahead log in {} is damaged", path.display())]
    Wal {
        /// The WAL directory.
        path: PathBuf,
        /// What is wrong.
        source: WalError,
    },
    /// The log cannot be replayed exactly.
    #[error("the write-ahead log in {} cannot be replayed exactly", path.display())]
    Apply {
        /// The WAL directory.
        path: PathBuf,
        /// Why not.
        source: ApplyError,
    },
    /// The new file could not be built.
    #[error("cannot write {}", path.display())]
    Build {
        /// The new file.
        path: PathBuf,
        /// Why not.
        source: BuildError,
    },
    /// The new file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The new file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file could not be put in place.
    #[error(transparent)]
    PartFile(#[from] PartFileError),
    /// It was to stop.
    #[error("interrupted; nothing was left behind")]
    Interrupted,
    /// What was built is not sound, or could not be read again.
    #[error("what was made of the member's data cannot be proved")]
    Unsound(#[source] SnapshotError),
}

impl OfflineError {
    /// One imperative sentence: what to do next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotADataDir { .. } => "give the directory that etcd has as --data-dir",
            Self::InsideDataDir { .. } => "write the snapshot to another place",
            Self::InUse { .. } => {
                "stop that etcd, or save from it while it runs: give --endpoints instead of its directory"
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run as the user that owns the data directory, or with sudo"
            }
            Self::Io { .. } => "check the path, and the disk that it is on",
            Self::Database { source: ReadError::Bolt(source), .. } => source.remedy(),
            Self::Wal { .. } => {
                "use another member's data, or take the database without the log: --db-only"
            }
            Self::Apply { source, .. } => source.remedy(),
            Self::Build { .. } | Self::Write { .. } => {
                "free space there, or write to another file system"
            }
            Self::PartFile(error) => error.remedy(),
            Self::Interrupted => "run again when you are ready",
            Self::Unsound(source @ SnapshotError::Io { .. }) => source.remedy(),
            Self::Database { .. } | Self::Damaged { .. } | Self::Unsound(_) => {
                "use another member's data, or a backup"
            }
        }
    }

    /// Whether the member's data is damaged, rather than out of reach.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Database { .. } | Self::Wal { .. } => true,
            Self::Unsound(source) => !matches!(source, SnapshotError::Io { .. }),
            _ => false,
        }
    }
}

/// A stopped member's data, saved.
#[derive(Debug)]
pub struct SavedOffline {
    /// The file, proved.
    pub snapshot: Snapshot<Verified>,
    /// What the log has added; `None` if it was left out.
    pub replayed: Option<Replayed>,
}

/// What a member's log has added to its database.
///
/// Of several members of a cluster, the one whose last entry has the greatest term, and among these
/// the greatest index, has every acknowledged write, if a majority of them is compared: that is how
/// raft elects a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Entries that were applied.
    pub entries: usize,
    /// How many of them lay beyond the commit that the log tells.
    pub beyond_commit: usize,
    /// Index of the last entry that is in the snapshot.
    pub index: u64,
    /// Its term, if log or database tell.
    pub term: Option<u64>,
    /// Where the log broke off in the middle of a write, if it did. No client was told that what stood
    /// there was done.
    pub torn: Option<TornTail>,
}

/// The place at which a log breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The last segment.
    pub segment: SegmentName,
    /// The first byte after the last whole record.
    pub offset: u64,
}

impl Replayed {
    fn new(applied: &Applied, end: End) -> Self {
        Self {
            entries: applied.entries,
            beyond_commit: applied.beyond_commit,
            index: applied.consistent_index,
            term: applied.term,
            torn: TornTail::of(end),
        }
    }
}

impl TornTail {
    fn of(end: End) -> Option<Self> {
        end.is_torn().then_some(Self { segment: end.segment, offset: end.offset })
    }
}

/// What a member's directory seems to hold, to be compared with a backup or another member's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// The newest revision, with the log applied; `None` if the log has entries that were only counted.
    pub revision: Option<i64>,
    /// What the log has beyond the database.
    pub replayed: Replayed,
}

/// Looks at what `member` holds, without walking its database: nothing of it is proved.
///
/// An etcd that runs on it is no hindrance; what is found may then be older than what it has. Applying the log takes a pass over all
/// keys, so entries are only counted where the database has more than `apply_bytes_max`.
pub fn glance(member: &StoppedMember, apply_bytes_max: u64) -> Result<Glance, OfflineError> {
    let path = member.database();
    let io_error = |source| OfflineError::Io { path: path.clone(), source };
    let database = Mapped::open(&member.open_database()?).map_err(io_error)?;
    let db = Db::open(&database).map_err(|error| member.damaged(error))?;
    if db.size() > apply_bytes_max {
        let replayed = count(&db, member)?;
        return Ok(Glance { revision: None, replayed });
    }
    let (applied, replayed) = replay(&db, member, UpTo::LastEntry)?;
    Ok(Glance { revision: Some(applied.revision), replayed })
}

impl StoppedMember {
    fn database(&self) -> PathBuf {
        self.data_dir.join("member/snap/db")
    }

    fn log_dir(&self) -> PathBuf {
        self.wal_dir.clone().unwrap_or_else(|| self.data_dir.join("member/wal"))
    }

    fn damaged(&self, source: impl Into<ReadError>) -> OfflineError {
        OfflineError::Database { path: self.database(), source: source.into() }
    }

    fn open_database(&self) -> Result<File, OfflineError> {
        let path = self.database();
        File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => OfflineError::NotADataDir { path: self.data_dir.clone() },
            _ => OfflineError::Io { path, source },
        })
    }
}

/// Saves what `member` holds as `path`, unless it is `interrupted` before.
pub fn save_offline(
    member: &StoppedMember,
    path: &Path,
    existing: Existing,
    on_finding: &mut dyn FnMut(Finding),
    interrupted: &dyn Fn() -> bool,
) -> Result<SavedOffline, OfflineError> {
    if is_inside(path, &member.data_dir.join("member")) {
        return Err(OfflineError::InsideDataDir { path: path.to_owned() });
    }
    let part = PartFile::create(path, existing)?;
    let saved = save_into(member, part.path(), part.file(), on_finding, interrupted)?;
    part.commit()?;
    Ok(SavedOffline { snapshot: saved.snapshot.renamed(path), ..saved })
}

/// Whether `path` would be made in `dir` or below it. Folders that are not there hold nothing.
fn is_inside(path: &Path, dir: &Path) -> bool {
    let folder = std::path::absolute(path).ok().and_then(|path| path.parent()?.canonicalize().ok());
    match (folder, dir.canonicalize()) {
        (Some(folder), Ok(dir)) => folder.starts_with(dir),
        _ => false,
    }
}

/// Saves what `member` holds in a nameless file in `spool_dir`, and copies it to `out` once it is
/// proved.
pub fn save_offline_to_writer(
    member: &StoppedMember,
    mut out: impl Write,
    spool_dir: &Path,
    on_finding: &mut dyn FnMut(Finding),
    interrupted: &dyn Fn() -> bool,
) -> Result<SavedOffline, OfflineError> {
    let write = |source| OfflineError::Write { path: spool_dir.to_owned(), source };
    let mut spool = tempfile::tempfile_in(spool_dir).map_err(write)?;
    let saved = save_into(member, spool_dir, &spool, on_finding, interrupted)?;
    spool.rewind().and_then(|()| io::copy(&mut spool, &mut out)).map_err(write)?;
    Ok(saved)
}

/// Saves what `member` holds in `file`, which is empty; `path` is what errors call it.
pub fn save_offline_to_file(
    member: &StoppedMember,
    path: &Path,
    file: &File,
    on_finding: &mut dyn FnMut(Finding),
    interrupted: &dyn Fn() -> bool,
) -> Result<SavedOffline, OfflineError> {
    save_into(member, path, file, on_finding, interrupted)
}

fn save_into(
    member: &StoppedMember,
    path: &Path,
    file: &File,
    on_finding: &mut dyn FnMut(Finding),
    interrupted: &dyn Fn() -> bool,
) -> Result<SavedOffline, OfflineError> {
    let source = Source::open(member)?;
    let db = Db::open(&source.database).map_err(|error| member.damaged(error))?;
    check_source(&db, &source.path, on_finding)?;
    let replay = |up_to| replay(&db, member, up_to);
    let (applied, replayed) = match member.log {
        UseLog::Whole => replay(UpTo::LastEntry).map(|(applied, told)| (applied, Some(told)))?,
        UseLog::Committed => replay(UpTo::Commit).map(|(applied, told)| (applied, Some(told)))?,
        UseLog::No => (Applied::default(), None),
    };
    build(&db, &applied, member, path, file, interrupted)?;
    let write = |source| OfflineError::Write { path: path.to_owned(), source };
    let built = Snapshot::of_file(path, file).map_err(OfflineError::Unsound)?;
    let digests = built.digests_with_trailer().map_err(OfflineError::Unsound)?;
    (&mut &*file).write_all(&digests.database.0).map_err(write)?;
    let snapshot = Snapshot::of_file(path, file)
        .and_then(|snapshot| snapshot.verify_known(digests, on_finding))
        .map_err(OfflineError::Unsound)?;
    Ok(SavedOffline { snapshot, replayed })
}

/// A member's database, locked against etcd for as long as this lives.
struct Source {
    path: PathBuf,
    database: Mapped,
    _lock: File,
}

impl Source {
    fn open(member: &StoppedMember) -> Result<Self, OfflineError> {
        let path = member.database();
        let io_error = |source| OfflineError::Io { path: path.clone(), source };
        let file = member.open_database()?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(OfflineError::InUse { path }),
            Err(errno) => return Err(io_error(errno.into())),
        }
        let database = Mapped::open(&file).map_err(io_error)?;
        database.prefetch().map_err(io_error)?;
        Ok(Self { path, database, _lock: file })
    }
}

/// Walks every page and record. A member's own file has no digest to compare.
fn check_source(
    db: &Db<'_>,
    path: &Path,
    on_finding: &mut dyn FnMut(Finding),
) -> Result<(), OfflineError> {
    match survey(db, Depth::Records, on_finding).findings {
        0 => Ok(()),
        findings => Err(OfflineError::Damaged { path: path.to_owned(), findings }),
    }
}

/// Applies what the log has beyond the database.
fn replay(
    db: &Db<'_>,
    member: &StoppedMember,
    up_to: UpTo,
) -> Result<(Applied, Replayed), OfflineError> {
    with_log(db, member, |wal, _| {
        let mut options = etcd_apply::Options::default();
        options.up_to = up_to;
        let applied = apply(db, wal, &options)?;
        let replayed = Replayed::new(&applied, wal.end);
        Ok((applied, replayed))
    })
}

/// Counts what the log has beyond the database.
fn count(db: &Db<'_>, member: &StoppedMember) -> Result<Replayed, OfflineError> {
    with_log(db, member, |wal, consistent_index| {
        let beyond = |index| wal.entries.iter().filter(|entry| entry.index > index).count();
        let index = wal.last_index.max(consistent_index);
        Ok(Replayed {
            entries: beyond(consistent_index),
            beyond_commit: beyond(wal.commit().max(consistent_index)),
            index,
            term: wal.term_of(index),
            torn: TornTail::of(wal.end),
        })
    })
}

/// What `read` makes of the log, from the entry that is the last in the database, and of the index of that.
fn with_log<T>(
    db: &Db<'_>,
    member: &StoppedMember,
    read: impl FnOnce(&Wal<'_>, u64) -> Result<T, ApplyError>,
) -> Result<T, OfflineError> {
    let wal_dir = &member.log_dir();
    let apply_error = |error| match error {
        ApplyError::Read(source) => member.damaged(source),
        source => OfflineError::Apply { path: wal_dir.clone(), source },
    };
    let consistent_index = consistent_index(db).map_err(apply_error)?;
    // With the last entry that is in the database: it tells whether they belong together.
    let after = consistent_index.saturating_sub(1);
    let files = map_segments(wal_dir, after)?;
    let segments: Vec<Segment<'_>> =
        files.iter().map(|(name, bytes)| Segment { name: *name, bytes }).collect();
    let wal = Wal::read(&segments, after)
        .map_err(|source| OfflineError::Wal { path: wal_dir.to_owned(), source })?;
    read(&wal, consistent_index).map_err(apply_error)
}

/// Maps the segments that may hold entries after `after`. Other files in the folder, such as the next
/// segment that etcd prepares, are not part of the log.
fn map_segments(wal_dir: &Path, after: u64) -> Result<Vec<(SegmentName, Mapped)>, OfflineError> {
    let io_error = |path: &Path| {
        let path = path.to_owned();
        move |source| OfflineError::Io { path, source }
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(wal_dir).map_err(io_error(wal_dir))? {
        let name = entry.map_err(io_error(wal_dir))?.file_name();
        names.extend(name.to_str().and_then(|name| name.parse::<SegmentName>().ok()));
    }
    names.sort();
    let needed = first_needed(&names, after);
    let map = |name: &SegmentName| {
        let path = wal_dir.join(name.to_string());
        let mapped = File::open(&path).and_then(|file| Mapped::open(&file));
        Ok((*name, mapped.map_err(io_error(&path))?))
    };
    names[needed..].iter().map(map).collect()
}

/// Writes the database with what was applied, leaving room for nothing: no page is free.
fn build(
    db: &Db<'_>,
    applied: &Applied,
    member: &StoppedMember,
    path: &Path,
    file: &File,
    interrupted: &dyn Fn() -> bool,
) -> Result<(), OfflineError> {
    let damaged = |error: BoltError| member.damaged(error);
    let failed = |source| OfflineError::Build { path: path.to_owned(), source };
    let options = Options { page_size: db.page_size(), ..Options::default() };
    let mut builder = Builder::new(file, options).map_err(failed)?;
    for name in applied.buckets(db).map_err(damaged)? {
        builder.begin_bucket(&name).map_err(failed)?;
        for pair in applied.pairs(db, &name).map_err(damaged)? {
            let (key, value) = pair.map_err(damaged)?;
            builder.put(key, value).map_err(failed)?;
            if interrupted() {
                return Err(OfflineError::Interrupted);
            }
        }
        builder.end_bucket().map_err(failed)?;
    }
    let built = builder.finish().map_err(failed)?;
    // The builder wrote the metas last; the digest goes to the end.
    (&mut &*file)
        .seek(io::SeekFrom::Start(built.size))
        .map(|_| ())
        .map_err(|source| OfflineError::Write { path: path.to_owned(), source })
}
