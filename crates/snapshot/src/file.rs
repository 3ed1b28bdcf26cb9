//! A snapshot file, as far as it has been proved.
//!
//! ```text
//!   0                               pgid * pageSize      +32
//!   | bbolt pages ...               | SHA-256 of them    |     made by `snapshot save`
//!   | bbolt pages ...               | unused pages ...   |     copied from a data directory
//! ```
//!
//! ```text
//!   Snapshot<Fetched>  ──walk──▶  Snapshot<Walked>  ──prove──▶  Snapshot<Verified>
//!   bytes                         every page and record         and the digest
//! ```
//!
//! The digest is computed by another thread from the moment the walk begins, as it takes longer than
//! the walk. What was walked can be worked on meanwhile, as long as nothing is put in place before it
//! is proved.

use crate::{
    digest::{DigestHasher, Digests, Sha256Digest, split_digest},
    finding::Finding,
    status::Status,
    survey::{Depth, Survey, survey},
};
use bolt::{Db, Mapped};
use etcd_schema::{HashKv, HashKvError, ReadError, bucket, count_live_keys, hash_kv, records};
use rustix::fs::{FlockOperation, OFlags, flock};
use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread::JoinHandle,
};

/// Nothing in the file can be believed yet.
#[derive(Debug)]
pub struct Fetched {
    /// Digests that were computed as the file was written.
    known: Option<Digests>,
}

/// Every page was walked and every record held against etcd's rules. The digest is on its way.
#[derive(Debug)]
pub struct Walked {
    survey: Survey,
    digests: Computation,
}

/// The digest matched too.
#[derive(Debug)]
pub struct Verified {
    survey: Survey,
    digests: Digests,
}

/// Digests on their way.
#[derive(Debug)]
enum Computation {
    Known(Digests),
    Running(JoinHandle<io::Result<Digests>>),
}

impl Computation {
    fn finish(self, path: &Path) -> Result<Digests, SnapshotError> {
        let computed = match self {
            Self::Known(digests) => Ok(digests),
            Self::Running(thread) => thread.join().expect("the digest thread does not panic"),
        };
        computed.map_err(|source| SnapshotError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })
    }
}

/// A state in which it is known what the database holds.
pub trait Surveyed {
    /// What it holds.
    fn survey(&self) -> &Survey;
}

impl Surveyed for Walked {
    fn survey(&self) -> &Survey {
        &self.survey
    }
}

impl Surveyed for Verified {
    fn survey(&self) -> &Survey {
        &self.survey
    }
}

/// A snapshot file. `S` says what is known of it.
#[derive(Debug)]
pub struct Snapshot<S> {
    path: PathBuf,
    file: File,
    mapped: Mapped,
    /// Whether the file is there for this snapshot alone, and gone with it.
    temporary: bool,
    state: S,
}

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The file cannot be read at all.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted, such as `open`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It was read, and found wrong. The findings have been handed out one by one.
    #[error("{} is not a sound snapshot: {findings} finding{}", path.display(), if *findings == 1 { "" } else { "s" })]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Number of findings.
        findings: u64,
    },
    /// An etcd, or another tool, writes to it.
    #[error("{} is in use: another process holds its lock", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is not a bbolt file, not a whole one, or of a format that is not known here.
    #[error("{} cannot be read as a database", path.display())]
    NotBolt {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: bolt::BoltError,
    },
    /// Its only fault is that it has no digest.
    #[error("{} has no digest at its end", path.display())]
    NoDigest {
        /// The file.
        path: PathBuf,
    },
    /// Records could not be read.
    #[error("cannot read the records of {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ReadError,
    },
    /// HashKV has no answer.
    #[error("HashKV of {}", path.display())]
    HashKv {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: HashKvError,
    },
}

impl SnapshotError {
    /// One imperative sentence: what to do next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => "check the path",
                io::ErrorKind::PermissionDenied => "run as a user that may read it, or with sudo",
                _ => "check that this is a file, and the disk that it is on",
            },
            Self::InUse { .. } => {
                "stop the etcd that runs on it, or save from it while it runs: snapshot save"
            }
            Self::NotBolt { source, .. } => source.remedy(),
            Self::NoDigest { .. } => {
                "if it was copied from the data directory of a stopped member, give \
                 --skip-hash-check; if not, it is cut: use another snapshot"
            }
            Self::Damaged { .. } | Self::Read { .. } => {
                "do not restore from this file: use another snapshot, or copy it again from its source"
            }
            Self::HashKv { .. } => "ask for a revision between the compact and the newest one",
        }
    }
}

/// What [`Snapshot::verify`] expects of the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestRule {
    /// There must be one, and it must match.
    Required,
    /// It is not looked at: a file copied from a data directory has none.
    Skip,
}

impl Snapshot<Fetched> {
    /// Opens a file without reading it.
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        let error = |action, source| SnapshotError::Io { action, path: path.to_owned(), source };
        // Without waiting: a pipe would block until somebody writes to it.
        let mut options = File::options();
        options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        let file = options.open(path).map_err(|e| error("open", e))?;
        // An etcd holds a lock on its database, which changes under the reader.
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(SnapshotError::InUse { path: path.to_owned() })
            }
            // Some network file systems have no locks.
            _ => Self::of_file(path, &file),
        }
    }

    /// The same for a file that is open, and may have no name any more; `path` is what errors call it.
    pub fn of_file(path: &Path, file: &File) -> Result<Self, SnapshotError> {
        let error = |action, source| SnapshotError::Io { action, path: path.to_owned(), source };
        let kind = file.metadata().map_err(|e| error("open", e))?.file_type();
        if !kind.is_file() {
            let why = if kind.is_dir() { "it is a folder" } else { "it is not a regular file" };
            return Err(error("open", io::Error::other(why)));
        }
        let mapped = Mapped::open(file).map_err(|e| error("map", e))?;
        let file = file.try_clone().map_err(|e| error("open", e))?;
        let state = Fetched { known: None };
        Ok(Self { path: path.to_owned(), file, mapped, temporary: false, state })
    }

    /// The same for a temporary file, which has no name.
    pub fn of_temporary(path: &Path, file: &File) -> Result<Self, SnapshotError> {
        Ok(Self { temporary: true, ..Self::of_file(path, file)? })
    }

    /// Proves a file whose digest was computed, and found right, as it was written. Whoever reads the
    /// file must find that digest at its end.
    pub(crate) fn verify_known(
        self,
        digests: Digests,
        on_finding: &mut dyn FnMut(Finding),
    ) -> Result<Snapshot<Verified>, SnapshotError> {
        let digest = digests.database;
        if let Some(finding) = DigestRule::Required.finding(self.stored_digest(), digest) {
            on_finding(finding);
            return Err(SnapshotError::Damaged { path: self.path, findings: 1 });
        }
        let survey = self.survey(Depth::Records, on_finding)?;
        Ok(self.into_state(Verified { survey, digests }))
    }

    /// The same file, with digests that whoever wrote it has computed over just these bytes: they are
    /// compared as others are, and not computed again.
    pub fn with_digests(self, digests: Digests) -> Self {
        self.into_state(Fetched { known: Some(digests) })
    }

    fn into_state<S>(self, state: S) -> Snapshot<S> {
        let Self { path, file, mapped, temporary, .. } = self;
        Snapshot { path, file, mapped, temporary, state }
    }

    /// What `snapshot status` prints, after a walk of the whole tree. Findings go to `on_finding`.
    pub fn status(
        &self,
        on_finding: &mut dyn FnMut(Finding),
    ) -> Result<(Status, Survey), SnapshotError> {
        self.prefetch()?;
        let survey = self.survey(Depth::Tree, on_finding)?;
        let size = self.db(on_finding)?.size();
        Ok((Status::new(&survey, size), survey))
    }

    /// Walks every page and record, and begins to compute the digest. Findings go to `on_finding`.
    pub fn walk(
        self,
        on_finding: &mut dyn FnMut(Finding),
    ) -> Result<Snapshot<Walked>, SnapshotError> {
        self.prefetch()?;
        let digests = self.begin_digests();
        let survey = self.survey(Depth::Records, on_finding)?;
        Ok(self.into_state(Walked { survey, digests }))
    }

    /// Proves the file: digest, tree and records. Findings go to `on_finding`; a file whose tree is
    /// damaged has its digest compared all the same, so that all that is wrong is told.
    pub fn verify(
        self,
        rule: DigestRule,
        on_finding: &mut dyn FnMut(Finding),
    ) -> Result<Snapshot<Verified>, SnapshotError> {
        self.prefetch()?;
        let digests = self.begin_digests();
        match self.survey(Depth::Records, on_finding) {
            Ok(survey) => self.into_state(Walked { survey, digests }).prove(rule, on_finding),
            Err(SnapshotError::Damaged { path, findings }) => {
                let computed = digests.finish(&path)?.database;
                let finding = rule.finding(self.stored_digest(), computed);
                let findings = findings + u64::from(finding.is_some());
                finding.into_iter().for_each(on_finding);
                Err(SnapshotError::Damaged { path, findings })
            }
            Err(error) => Err(error),
        }
    }

    fn begin_digests(&self) -> Computation {
        if let Some(known) = self.state.known {
            return Computation::Known(known);
        }
        let (file, database, end) =
            (self.file.try_clone(), self.database().len(), self.mapped.len());
        Computation::Running(std::thread::spawn(move || digests_of(&file?, database, end)))
    }

    fn survey(
        &self,
        depth: Depth,
        on_finding: &mut dyn FnMut(Finding),
    ) -> Result<Survey, SnapshotError> {
        let survey = survey(&self.db(on_finding)?, depth, on_finding);
        match survey.findings {
            0 => Ok(survey),
            findings => Err(SnapshotError::Damaged { path: self.path.clone(), findings }),
        }
    }

    fn db(&self, on_finding: &mut dyn FnMut(Finding)) -> Result<Db<'_>, SnapshotError> {
        Db::open(self.database()).map_err(|error| {
            on_finding(Finding::NotBolt(error.clone()));
            SnapshotError::NotBolt { path: self.path.clone(), source: error }
        })
    }

    /// Reads a cold file in the order of the file; the walk would read it in the order of the tree.
    fn prefetch(&self) -> Result<(), SnapshotError> {
        self.mapped.prefetch().map_err(|e| self.io_error("read", e)).map(|_| ())
    }
}

/// The digests of the first `database` bytes, and of all to `end`.
fn digests_of(file: &File, database: usize, end: usize) -> io::Result<Digests> {
    let mut hasher = DigestHasher::default();
    hash_range(&mut hasher, file, 0, database)?;
    let of_database = hasher.clone().finish();
    hash_range(&mut hasher, file, database, end)?;
    Ok(Digests { database: of_database, file: hasher.finish() })
}

/// Reads in large pieces: it shares no page of the map with the walk.
fn hash_range(hasher: &mut DigestHasher, file: &File, from: usize, end: usize) -> io::Result<()> {
    const PIECE_BYTES: usize = 1 << 20;
    let mut piece = vec![0; PIECE_BYTES.min(end - from)];
    let mut offset = from;
    while offset < end {
        let piece = &mut piece[..PIECE_BYTES.min(end - offset)];
        file.read_exact_at(piece, offset as u64)?;
        hasher.update(piece);
        offset += piece.len();
    }
    Ok(())
}

impl DigestRule {
    fn finding(self, stored: Option<Sha256Digest>, computed: Sha256Digest) -> Option<Finding> {
        match (self, stored) {
            (Self::Required, None) => Some(Finding::DigestMissing),
            (Self::Required, Some(stored)) if stored != computed => {
                Some(Finding::DigestWrong { stored, computed })
            }
            _ => None,
        }
    }
}

impl Snapshot<Walked> {
    /// Waits for the digest and compares it.
    pub fn prove(
        self,
        rule: DigestRule,
        on_finding: &mut dyn FnMut(Finding),
    ) -> Result<Snapshot<Verified>, SnapshotError> {
        let stored = self.stored_digest();
        let Self { path, file, mapped, temporary, state: Walked { survey, digests } } = self;
        let digests = digests.finish(&path)?;
        match rule.finding(stored, digests.database) {
            None => {
                let state = Verified { survey, digests };
                Ok(Snapshot { path, file, mapped, temporary, state })
            }
            Some(finding) => {
                let missing = finding == Finding::DigestMissing;
                on_finding(finding);
                Err(match missing {
                    true => SnapshotError::NoDigest { path },
                    false => SnapshotError::Damaged { path, findings: 1 },
                })
            }
        }
    }
}

impl Snapshot<Verified> {
    /// SHA-256 of the database.
    pub fn digest(&self) -> Sha256Digest {
        self.state.digests.database
    }

    /// SHA-256 of the database, and of the whole file.
    pub fn digests(&self) -> Digests {
        self.state.digests
    }

    /// HashKV at `revision`, or at the newest when `None`.
    pub fn hash_kv(&self, revision: Option<i64>) -> Result<HashKv, SnapshotError> {
        let db = self.db();
        let error = |source| SnapshotError::HashKv { path: self.path.clone(), source };
        let read = |e: bolt::BoltError| error(HashKvError::Read(ReadError::Bolt(e)));
        let key = db.bucket(bucket::KEY).map_err(read)?.expect("a verified file has bucket key");
        let compact_revision = self.survey().meta.compact_revision();
        hash_kv(|| records(&key), compact_revision, revision).map_err(error)
    }
}

impl<S: Surveyed> Snapshot<S> {
    /// What the database holds.
    pub fn survey(&self) -> &Survey {
        self.state.survey()
    }

    /// The database.
    pub fn db(&self) -> Db<'_> {
        Db::open(self.database()).expect("it was opened when it was walked, and is mapped still")
    }
}

impl<S> Snapshot<S> {
    /// The same file, which has another name now.
    pub(crate) fn renamed(mut self, path: &Path) -> Self {
        self.path = path.to_owned();
        self
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of user keys that exist: `totalKey` of etcd 3.6.
    pub fn live_keys(&self) -> Result<u64, SnapshotError> {
        let count = || {
            let key = Db::open(self.database())?.bucket(bucket::KEY)?;
            key.map_or(Ok(0), |key| count_live_keys(|| records(&key)))
        };
        let read = |source| SnapshotError::Read { path: self.path.clone(), source };
        count().map_err(read)
    }

    /// The digests of the database as they are once its digest follows it; reads all of it.
    pub fn digests_with_trailer(&self) -> Result<Digests, SnapshotError> {
        let mut hasher = DigestHasher::default();
        hash_range(&mut hasher, &self.file, 0, self.database().len())
            .map_err(|e| self.io_error("read", e))?;
        Ok(Digests::with_trailer(hasher))
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.mapped.len() as u64
    }

    /// Bytes of the database, which are those of the file without its digest.
    pub fn database_bytes(&self) -> u64 {
        self.database().len() as u64
    }

    /// Whether the file is there for this snapshot alone: when it is not needed as such, it can become something else.
    pub fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// A handle to the file, which shares its position with others.
    pub fn try_clone_file(&self) -> Result<File, SnapshotError> {
        self.file.try_clone().map_err(|e| self.io_error("open", e))
    }

    /// The digest at the end of the file, if it has one.
    pub fn stored_digest(&self) -> Option<Sha256Digest> {
        split_digest(&self.mapped).1
    }

    /// The file without its digest.
    fn database(&self) -> &[u8] {
        split_digest(&self.mapped).0
    }

    fn io_error(&self, action: &'static str, source: io::Error) -> SnapshotError {
        SnapshotError::Io { action, path: self.path.clone(), source }
    }
}
