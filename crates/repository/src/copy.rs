//! Backups copied into another repository.
//!
//! ```text
//!   for each, the oldest first:   take the destination's writer's lease
//!                                 clear what a broken copy left
//!                                 objects, proved on the way through (and read back, if asked)
//!                                 manifest, last
//!                                 give the lease back
//! ```
//!
//! * A copy is a backup of the destination as any other: same name, its own fence, its own pins, the first
//!   generation whatever it was. It answers no slot of the destination's schedule.
//! * What is there already is skipped, so a copy that was cut goes on by being run again.
//! * Stored bytes are copied as they are, and their SHA-256 must be the manifest's. Where the destination wants
//!   other recipients, the content is proved instead, compressed anew and encrypted to them.
//! * One backup that cannot be copied does not keep the others, unless the destination cannot be reached.
//!
//! Clearing what a broken copy left opens a door that was closed to it. If that copy was not dead but slept through
//! its lease, and wakes between two renewals, it may still commit: the same bytes, so that is no harm. Encrypted anew, bytes
//! differ; then its manifest does not fit, and `verify` tells.

use crate::{
    BackupId, ClusterName, Manifest,
    codec::{self, Bandwidth, CodecError, Encoding, Expected, Identities},
    keep::Pin,
    lease::{Clock, Holder, Lease, LeaseError, Run, Terms},
    listing::{Backup, Listing, Unfit, name},
    manifest::{
        Committed, Content, FIRST_GENERATION, Include, MANIFEST_BYTES_MAX, Object, ObjectKind,
        manifest_generation, object_name,
    },
    repository::{Repository, RepositoryError, folder},
    store::{ObjectWriter, Store, StoreError},
};
use futures::stream::StreamExt;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fmt, io, sync::Arc};

/// How the copies are stored.
#[derive(Clone, Debug, Default)]
pub enum Storage {
    /// As the originals are.
    #[default]
    AsIs,
    /// Compressed and encrypted anew.
    Anew {
        /// How.
        encoding: Encoding,
        /// What opens the originals.
        identities: Identities,
    },
}

/// How to copy.
#[derive(Clone)]
pub struct CopyOptions {
    /// How the copies are stored.
    pub storage: Storage,
    /// Whether each object is read back from the destination before its manifest is written.
    pub read_back: bool,
    /// Whether pins are copied too.
    pub pins: bool,
    /// A limit for what is sent.
    pub bandwidth: Option<Bandwidth>,
    /// Who copies.
    pub holder: Holder,
    /// How long the lease holds, and how long to wait for another's.
    pub terms: Terms,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Is told how far it is.
    pub progress: Arc<dyn Fn(CopyProgress) + Send + Sync>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyProgress {
    /// The backup being copied.
    pub id: BackupId,
    /// Which of those chosen, from 1.
    pub number: usize,
    /// How many were chosen.
    pub of: usize,
    /// Bytes of the present object that are done: stored bytes, or content if it is stored anew.
    pub bytes_done: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// What became of one backup.
#[derive(Debug)]
pub enum Outcome {
    /// It is in the destination now.
    Copied {
        /// Bytes stored there.
        bytes: u64,
    },
    /// It was there before.
    Present,
    /// It is not, as it was pruned while it was to be copied: nothing is lost that anyone wants to keep.
    Pruned,
    /// It is not.
    Failed(CopyError),
}

/// What became of all of them.
#[derive(Debug, Default)]
pub struct CopyReport {
    /// Each backup that was tried, the oldest first.
    pub outcomes: Vec<(BackupId, Outcome)>,
    /// Backups that were not tried, because the destination could not be reached any more.
    pub untried: Vec<BackupId>,
    /// Pins that could not be copied, and why.
    pub pins_failed: Vec<(String, RepositoryError)>,
}

/// Why a backup was not copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The original is not there.
    #[error("{cluster} has no backup {id} to copy")]
    NoSuchBackup {
        /// The cluster.
        cluster: ClusterName,
        /// The backup.
        id: BackupId,
    },
    /// The original is known to be no good.
    #[error("{id} cannot be relied on: {unfit}")]
    Original {
        /// The backup.
        id: BackupId,
        /// Why not.
        unfit: Unfit,
    },
    /// The original is not what its manifest says.
    #[error("{path} has SHA-256 {found} and {bytes} bytes, its manifest says {} and {}", expected.sha256, expected.bytes)]
    Differs {
        /// The object.
        path: String,
        /// What it should be.
        expected: Content,
        /// What it is.
        found: String,
        /// How many bytes it has.
        bytes: u64,
    },
    /// The destination has it, but no good one.
    #[error("the destination has {id}, but {unfit}")]
    There {
        /// The backup.
        id: BackupId,
        /// What is wrong with it.
        unfit: Unfit,
    },
    /// The destination has something of that name that cannot be read.
    #[error("the destination has {id}, but its manifest cannot be read")]
    Unreadable {
        /// The backup.
        id: BackupId,
    },
    /// An object could not be decoded or encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The destination's lease could not be had or kept.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Not even a pipe could be had.
    #[error("cannot make a pipe")]
    Pipe(#[source] io::Error),
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A repository could not be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl CopyError {
    /// One imperative sentence; printed after `help:`.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoSuchBackup { .. } => "see `lifeboat list` for the backups that there are",
            Self::Original { .. } => "copy another backup",
            Self::Differs { .. } => "run `lifeboat verify` on the original; copy another backup",
            Self::There { .. } | Self::Unreadable { .. } => {
                "delete that folder in the destination, then copy again"
            }
            Self::Codec(source) => source.remedy().unwrap_or("see the cause, and try again"),
            Self::Lease(source) => source.remedy(),
            Self::Pipe(_) => "raise the limit of open files, then try again",
            Self::Store(source) => source.remedy(),
            Self::Repository(source) => source.remedy(),
        }
    }

    /// Whether a store could not be reached; the reason for exit code 4.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Codec(CodecError::Store(source))
            | Self::Lease(LeaseError::Store { source, .. })
            | Self::Store(source) => source.is_unreachable(),
            Self::Repository(source) => source.is_unreachable(),
            _ => false,
        }
    }
}

impl CopyReport {
    /// Whether all is in the destination that should be.
    pub fn is_complete(&self) -> bool {
        let failed = |(_, outcome): &(_, Outcome)| matches!(outcome, Outcome::Failed(_));
        self.untried.is_empty() && self.pins_failed.is_empty() && !self.outcomes.iter().any(failed)
    }
}

/// Copies the backups of those names from one repository into another.
pub async fn copy(
    from: &Repository,
    to: &Repository,
    cluster: &ClusterName,
    ids: &[BackupId],
    options: &CopyOptions,
) -> Result<CopyReport, RepositoryError> {
    let (mut originals, there) = futures::try_join!(from.backups(cluster), to.backups(cluster))?;
    let unreadable = std::mem::take(&mut originals.unreadable).into_iter();
    let mut unreadable: BTreeMap<_, _> = unreadable.map(|one| (one.id, one.error)).collect();
    let copier = Copier { from: from.store(), to, cluster, originals: &originals, options };
    let started = |id: &BackupId| originals.get(*id).map(|backup| backup.manifest.started);
    let mut ids = ids.to_vec();
    ids.sort_by_key(|id| (started(id), *id));
    ids.dedup();

    let mut report = CopyReport::default();
    let of = ids.len();
    for (done, id) in ids.iter().copied().enumerate() {
        let copied = match unreadable.remove(&id) {
            None => copier.copy(id, &there, done + 1, of).await,
            Some(error) => Err(error.into()),
        };
        let outcome = match copied {
            Ok(outcome) => outcome,
            Err(error) => copier.failed(id, error).await,
        };
        let cut = matches!(&outcome, Outcome::Failed(error) if error.is_unreachable());
        let is_there = matches!(outcome, Outcome::Copied { .. } | Outcome::Present);
        report.outcomes.push((id, outcome));
        if cut {
            report.untried = ids.into_iter().skip(done + 1).collect();
            break;
        }
        if is_there && options.pins {
            copier.copy_pins(id, &mut report).await;
        }
    }
    Ok(report)
}

struct Copier<'a> {
    from: &'a Store,
    to: &'a Repository,
    cluster: &'a ClusterName,
    originals: &'a Listing,
    options: &'a CopyOptions,
}

/// One object to copy.
struct Part<'a> {
    id: BackupId,
    number: usize,
    of: usize,
    from: String,
    to: String,
    expected: &'a Expected,
}

impl Copier<'_> {
    async fn copy(
        &self,
        id: BackupId,
        there: &Listing,
        number: usize,
        of: usize,
    ) -> Result<Outcome, CopyError> {
        let original = self.originals.get(id);
        let original = original
            .ok_or_else(|| CopyError::NoSuchBackup { cluster: self.cluster.clone(), id })?;
        if let Some(found) = there.get(id) {
            return is_good(found).map(|()| Outcome::Present);
        }
        // What was never verified is no worse for being copied.
        if let Some(unfit) = original.unfit().filter(|unfit| *unfit != Unfit::Unverified) {
            return Err(CopyError::Original { id, unfit });
        }
        if let Some(cluster_id) = &original.manifest.etcd.cluster_id {
            let now = self.options.clock.now();
            // That the id changed at some time is known where the backups came from.
            self.to.register(self.cluster, cluster_id, now).await?;
        }
        let CopyOptions { holder, terms, clock, .. } = self.options;
        let lease =
            Lease::acquire(self.to.store(), self.cluster, holder, *terms, clock.clone()).await?;
        let copied = self.copy_under(&lease, original, number, of).await;
        // Should it fail, the next writer waits until the lease ends, no more. A run that failed is closed here.
        let _ = lease.release(None).await;
        copied
    }

    /// What an error means. Pruning deletes the manifest first: without any, there is no original any more.
    async fn failed(&self, id: BackupId, error: CopyError) -> Outcome {
        if error.is_unreachable() || self.originals.get(id).is_none() {
            return Outcome::Failed(error);
        }
        let is_manifest = |path: &str| manifest_generation(name(path)).is_some();
        match self.from.list(&folder(self.cluster, id)).await {
            Ok(left) if !left.iter().any(|entry| is_manifest(&entry.path)) => Outcome::Pruned,
            _ => Outcome::Failed(error),
        }
    }

    async fn copy_under(
        &self,
        lease: &Lease,
        original: &Backup,
        number: usize,
        of: usize,
    ) -> Result<Outcome, CopyError> {
        let id = original.id();
        if !self.clear(id).await? {
            return Ok(Outcome::Present);
        }
        let begun = lease.begin(Run { id, scheduled_for: None }).await?;
        if begun != id {
            return Err(LeaseError::Taken { cluster: self.cluster.clone(), id }.into());
        }
        let mut manifest = lease.keep(self.store_objects(original, number, of)).await??;
        manifest.fence = lease.fence();
        lease.commit(&manifest).await?;
        let include = manifest.include.as_ref().map_or(0, |include| include.object.stored.bytes);
        Ok(Outcome::Copied { bytes: manifest.object.stored.bytes + include })
    }

    /// Removes what a broken copy left; says whether there is no backup.
    async fn clear(&self, id: BackupId) -> Result<bool, CopyError> {
        let store = self.to.store();
        let mut left = store.list(&folder(self.cluster, id)).await?;
        let is_manifest = |path: &str| manifest_generation(name(path)).is_some();
        for entry in left.iter().filter(|entry| is_manifest(&entry.path)) {
            let json = store.read(&entry.path, MANIFEST_BYTES_MAX).await?;
            match Committed::parse(&entry.path, &json) {
                Ok(Committed::Abandoned(_)) => {}
                // Since it was listed.
                Ok(Committed::Backup(_)) => return Ok(false),
                Err(_) => return Err(CopyError::Unreadable { id }),
            }
        }
        left.sort_by_key(|entry| is_manifest(&entry.path));
        for entry in left {
            store.delete(&entry.path).await?;
        }
        Ok(true)
    }

    /// Stores all objects, and says what the manifest will say.
    async fn store_objects(
        &self,
        original: &Backup,
        number: usize,
        of: usize,
    ) -> Result<Manifest, CopyError> {
        let manifest = &original.manifest;
        let folder = folder(self.cluster, manifest.id);
        let (compression, encryption) = match &self.options.storage {
            Storage::AsIs => (manifest.compression.clone(), manifest.encryption.clone()),
            Storage::Anew { encoding, .. } => (encoding.compression(), encoding.encryption()),
        };
        let store = async |kind, object: &Object, expected: &Expected| {
            let name = object_name(kind, FIRST_GENERATION, encryption.is_some());
            let from = format!("{folder}{}", object.name);
            let to = format!("{folder}{name}");
            let part = Part { id: manifest.id, number, of, from, to, expected };
            self.store_object(part).await.map(|stored| Object { name, stored })
        };
        let object = store(ObjectKind::Db, &manifest.object, &Expected::db(manifest)).await?;
        let include = match (&manifest.include, Expected::include(manifest)) {
            (Some(include), Some(expected)) => {
                let object = store(ObjectKind::Include, &include.object, &expected).await?;
                Some(Include { object, ..include.clone() })
            }
            _ => None,
        };
        Ok(Manifest {
            generation: FIRST_GENERATION,
            scheduled_for: None,
            cluster: self.cluster.clone(),
            object,
            include,
            compression,
            encryption,
            ..manifest.clone()
        })
    }

    async fn store_object(&self, part: Part<'_>) -> Result<Content, CopyError> {
        let stored = match &self.options.storage {
            Storage::AsIs => self.copy_bytes(&part).await?,
            Storage::Anew { encoding, identities } => {
                self.store_anew(&part, encoding, identities).await?
            }
        };
        if self.options.read_back {
            codec::prove_stored(self.to.store(), &part.to, &stored).await?;
        }
        Ok(stored)
    }

    async fn copy_bytes(&self, part: &Part<'_>) -> Result<Content, CopyError> {
        let mut writer = self.to.store().writer(&part.to).await?;
        match self.send_bytes(part, &mut *writer).await {
            Ok(()) => {
                writer.finish().await?;
                Ok(part.expected.stored.clone())
            }
            Err(error) => {
                // The first error is the one to tell, and what stays behind is listed nowhere.
                let _ = writer.abort().await;
                Err(error)
            }
        }
    }

    /// Sends what is stored, and proves that it is what the manifest says, before the object is completed.
    async fn send_bytes(
        &self,
        part: &Part<'_>,
        writer: &mut dyn ObjectWriter,
    ) -> Result<(), CopyError> {
        let expected = &part.expected.stored;
        let mut pieces = self.from.reader(&part.from).await?;
        let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            hash.update(&piece);
            bytes += piece.len() as u64;
            if let Some(bandwidth) = &self.options.bandwidth {
                bandwidth.take(piece.len()).await;
            }
            writer.write(piece).await?;
            self.tell(part, bytes, expected.bytes);
        }
        let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if (&found, bytes) != (&expected.sha256, expected.bytes) {
            let (path, expected) = (part.from.clone(), expected.clone());
            return Err(CopyError::Differs { path, expected, found, bytes });
        }
        Ok(())
    }

    /// Decodes the original into a pipe, at whose other end it is encoded anew.
    async fn store_anew(
        &self,
        part: &Part<'_>,
        encoding: &Encoding,
        identities: &Identities,
    ) -> Result<Content, CopyError> {
        let (reader, writer) = io::pipe().map_err(CopyError::Pipe)?;
        let tell = {
            let (progress, expected) = (self.options.progress.clone(), part.expected);
            let Part { id, number, of, .. } = *part;
            let bytes = expected.content.bytes;
            move |bytes_done| progress(CopyProgress { id, number, of, bytes_done, bytes })
        };
        let download = async {
            let (from, expected) = (&part.from, part.expected);
            let decoded =
                codec::download(self.from, from, expected, identities, writer, |_| {}).await;
            // Closes the pipe, so that the other end sees the end.
            decoded.map(|decoded| decoded.ends)
        };
        let bandwidth = self.options.bandwidth.clone().or_else(|| encoding.bandwidth.clone());
        let encoding = Encoding { bandwidth, ..encoding.clone() };
        let upload = codec::upload(self.to.store(), &part.to, reader, &encoding, tell);
        match futures::join!(download, upload) {
            (Ok(_), Ok(uploaded)) => Ok(uploaded.finish().await?.stored),
            (Ok(_), Err(error)) => Err(error.into()),
            (Err(error), Ok(uploaded)) => {
                let _ = uploaded.abort().await;
                Err(error.into())
            }
            // The reason is at the end that was not hung up on.
            (Err(CodecError::Write { .. }), Err(error)) | (Err(error), Err(_)) => Err(error.into()),
        }
    }

    fn tell(&self, part: &Part<'_>, bytes_done: u64, bytes: u64) {
        let Part { id, number, of, .. } = *part;
        (self.options.progress)(CopyProgress { id, number, of, bytes_done, bytes });
    }

    async fn copy_pins(&self, id: BackupId, report: &mut CopyReport) {
        for (name, pin) in self.originals.pins.pins.iter().filter(|(_, pin)| pin.id == id) {
            let pin = Pin::new(id, pin.note.clone(), pin.by.clone(), pin.at);
            if let Err(error) = self.to.pin(self.cluster, name, &pin).await {
                report.pins_failed.push((name.to_string(), error));
            }
        }
    }
}

/// Whether what is there already will do.
fn is_good(found: &Backup) -> Result<(), CopyError> {
    match found.unfit() {
        None | Some(Unfit::Unverified) => Ok(()),
        Some(unfit) => Err(CopyError::There { id: found.id(), unfit }),
    }
}

impl fmt::Debug for CopyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyOptions")
            .field("storage", &self.storage)
            .field("read_back", &self.read_back)
            .field("pins", &self.pins)
            .finish_non_exhaustive()
    }
}
