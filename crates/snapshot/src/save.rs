//! A snapshot of a live cluster, saved and proved.
//!
//! ```text
//!   etcd ──gRPC──▶ task ──bounded queue──▶ writer thread: PATH.part, SHA-256
//!                                              │ all there, digest equal
//!                                              ▼
//!                          walk of tree and records ‖ fsync  ──▶  rename to PATH
//! ```
//!
//! * What arrives is written at once and never held whole; the stream is not kept waiting for more
//!   than a slow disk, as an open snapshot makes the member's own file grow.
//! * If a stream breaks, the next member is asked, from the beginning.
//! * Only what was proved gets its final name. Anything else is removed.

use crate::{
    digest::{DIGEST_BYTES, DigestHasher, Sha256Digest},
    file::{Snapshot, SnapshotError, Verified},
    finding::Finding,
    part_file::{Existing, PartFile, PartFileError},
};
use etcd_live::{Candidate, Endpoint, LiveError, SnapshotPart, SnapshotStream};
use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};
use tokio::sync::mpsc;

/// Blobs between the stream and the disk: 8 MiB of 32 KiB each.
const QUEUE_BLOBS: usize = 256;

/// What happens while a snapshot is saved, for those who watch.
#[derive(Debug)]
#[non_exhaustive]
pub enum SaveEvent<'a> {
    /// A stream began.
    Fetching {
        /// From where.
        endpoint: &'a Endpoint,
        /// Bytes of the database.
        total: u64,
    },
    /// That many bytes have arrived.
    Received(u64),
    /// A stream broke; the next member is asked.
    FailedOver {
        /// Why.
        error: &'a LiveError,
        /// The member asked next.
        next: &'a Endpoint,
    },
    /// All has arrived; it is being proved.
    Verifying,
    /// Something was found wrong.
    Found(&'a Finding),
}

/// Why no snapshot was saved. Nothing was left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The cluster did not deliver.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// The file could not be put in place.
    #[error(transparent)]
    PartFile(#[from] PartFileError),
    /// What arrived could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file system has no room for it.
    #[error("{} has {available} bytes free, but the snapshot needs {needed}", path.display())]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        available: u64,
    },
    /// The bytes are not those that the member read.
    #[error("the digest of what {endpoint} sent is {computed}, but it says {announced}")]
    Digest {
        /// The member.
        endpoint: Endpoint,
        /// Digest of what arrived.
        computed: Sha256Digest,
        /// Digest that the member sent.
        announced: Sha256Digest,
    },
    /// What arrived is not sound: the member's own database is damaged.
    #[error("the database that {endpoint} sent is not sound")]
    Unsound {
        /// The member.
        endpoint: Endpoint,
        /// What is wrong.
        source: SnapshotError,
    },
}

impl SaveError {
    /// One imperative sentence: what to do next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Live(error) => error.remedy(),
            Self::PartFile(error) => error.remedy(),
            Self::Write { .. } | Self::NoSpace { .. } => {
                "free space there, or write to another file system"
            }
            Self::Digest { .. } => {
                "try again; if it comes again, check the network and that member"
            }
            Self::Unsound { .. } => {
                "take the snapshot from another member, and compare members by `endpoint hashkv`"
            }
        }
    }
}

/// A snapshot that was saved.
#[derive(Debug)]
pub struct Saved {
    /// The member it came from.
    pub endpoint: Endpoint,
    /// The file, proved.
    pub snapshot: Snapshot<Verified>,
}

/// Saves a snapshot of the first of `candidates` that can deliver one, as `path`.
pub async fn save(
    candidates: &[Candidate],
    path: &Path,
    existing: Existing,
    on_event: &(dyn Fn(SaveEvent<'_>) + Sync),
) -> Result<Saved, SaveError> {
    let part = PartFile::create(path, existing)?;
    let fetched = fetch_from_any(candidates, part.path(), part.file(), on_event).await?;
    let snapshot = prove(&fetched, part.path(), part.file(), on_event)?;
    part.commit()?;
    Ok(Saved { endpoint: fetched.endpoint, snapshot: snapshot.renamed(path) })
}

/// Passes a snapshot of the first candidate on to `out` as it arrives, and proves it afterwards, by a
/// nameless copy in `spool_dir`. On an error, what `out` got is worthless.
pub async fn save_to_writer(
    candidates: &[Candidate],
    out: impl Write + Send + 'static,
    spool_dir: &Path,
    on_event: &(dyn Fn(SaveEvent<'_>) + Sync),
) -> Result<Saved, SaveError> {
    let write = |source| SaveError::Write { path: spool_dir.to_owned(), source };
    let candidate = candidates.first().ok_or(LiveError::NoEndpoints)?;
    let spool = tempfile::tempfile_in(spool_dir).map_err(write)?;
    let tee = Tee { spool: spool.try_clone().map_err(write)?, out };
    let stream = candidate.connection.snapshot().await?;
    check_space(spool_dir, &spool, stream.total())?;
    let fetched = fetch(stream, tee, spool_dir, on_event).await?;
    let snapshot = prove(&fetched, spool_dir, &spool, on_event)?;
    Ok(Saved { endpoint: fetched.endpoint, snapshot })
}

struct Tee<W> {
    spool: File,
    out: W,
}

impl<W: Write> Write for Tee<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all(bytes)?;
        self.spool.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A database that arrived whole, with the digest that was sent.
struct FetchedFrom {
    endpoint: Endpoint,
    digest: Sha256Digest,
}

async fn fetch_from_any(
    candidates: &[Candidate],
    path: &Path,
    mut file: &File,
    on_event: &(dyn Fn(SaveEvent<'_>) + Sync),
) -> Result<FetchedFrom, SaveError> {
    let write = |source| SaveError::Write { path: path.to_owned(), source };
    let mut remaining = candidates.iter().peekable();
    while let Some(candidate) = remaining.next() {
        let attempt = async {
            let stream = candidate.connection.snapshot().await?;
            check_space(path, file, stream.total())?;
            fetch(stream, file.try_clone().map_err(write)?, path, on_event).await
        };
        match (attempt.await, remaining.peek()) {
            (Err(SaveError::Live(error)), Some(next)) if !error.is_denied() => {
                let next = next.connection.endpoint();
                on_event(SaveEvent::FailedOver { error: &error, next });
                file.set_len(0).map_err(write)?;
                file.seek(SeekFrom::Start(0)).map_err(write)?;
            }
            (result, _) => return result,
        }
    }
    Err(LiveError::NoEndpoints.into())
}

fn check_space(path: &Path, file: &File, total: u64) -> Result<(), SaveError> {
    let needed = total.saturating_add(DIGEST_BYTES as u64);
    let stat = rustix::fs::fstatvfs(file)
        .map_err(|e| SaveError::Write { path: path.to_owned(), source: e.into() })?;
    let available = stat.f_bavail.saturating_mul(stat.f_frsize);
    if available < needed {
        return Err(SaveError::NoSpace { path: path.to_owned(), needed, available });
    }
    Ok(())
}

/// Reads a stream to its end and writes it, digest included.
async fn fetch(
    mut stream: SnapshotStream,
    out: impl Write + Send + 'static,
    path: &Path,
    on_event: &(dyn Fn(SaveEvent<'_>) + Sync),
) -> Result<FetchedFrom, SaveError> {
    let endpoint = stream.endpoint().clone();
    on_event(SaveEvent::Fetching { endpoint: &endpoint, total: stream.total() });
    let (queue, blobs) = mpsc::channel(QUEUE_BLOBS);
    let writer = tokio::task::spawn_blocking(move || write_all(blobs, out));
    let received = receive(&mut stream, queue, on_event).await;
    let written = writer.await.expect("the writer does not panic");
    // A writer that failed closes the queue, which ends the stream too: its error is the cause.
    let computed = written.map_err(|source| SaveError::Write { path: path.to_owned(), source })?;
    let announced = received?;
    if announced != computed {
        return Err(SaveError::Digest { endpoint, computed, announced });
    }
    Ok(FetchedFrom { endpoint, digest: computed })
}

/// Moves blobs from the stream to the queue. Returns the digest that was sent.
async fn receive(
    stream: &mut SnapshotStream,
    queue: mpsc::Sender<SnapshotPart>,
    on_event: &(dyn Fn(SaveEvent<'_>) + Sync),
) -> Result<Sha256Digest, LiveError> {
    let mut announced = Sha256Digest([0; DIGEST_BYTES]);
    while let Some(part) = stream.next().await? {
        if let SnapshotPart::Digest(digest) = part {
            announced = Sha256Digest(digest);
        }
        if queue.send(part).await.is_err() {
            break;
        }
        on_event(SaveEvent::Received(stream.received()));
    }
    Ok(announced)
}

/// Writes what comes through the queue. Returns the digest of the database.
fn write_all(
    mut blobs: mpsc::Receiver<SnapshotPart>,
    mut out: impl Write,
) -> io::Result<Sha256Digest> {
    let mut hasher = DigestHasher::default();
    while let Some(part) = blobs.blocking_recv() {
        match part {
            SnapshotPart::Data(blob) => {
                hasher.update(&blob);
                out.write_all(&blob)?;
            }
            SnapshotPart::Digest(digest) => out.write_all(&digest)?,
        }
    }
    out.flush()?;
    Ok(hasher.finish())
}

/// Walks what was written, while the disk makes it durable.
fn prove(
    fetched: &FetchedFrom,
    path: &Path,
    file: &File,
    on_event: &(dyn Fn(SaveEvent<'_>) + Sync),
) -> Result<Snapshot<Verified>, SaveError> {
    on_event(SaveEvent::Verifying);
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| file.sync_all());
        let mut on_finding = |finding: Finding| on_event(SaveEvent::Found(&finding));
        let proved = Snapshot::of_file(path, file)
            .and_then(|snapshot| snapshot.verify_known(fetched.digest, &mut on_finding))
            .map_err(|source| SaveError::Unsound { endpoint: fetched.endpoint.clone(), source });
        sync.join()
            .expect("the fsync thread does not panic")
            .map_err(|source| SaveError::Write { path: path.to_owned(), source })?;
        proved
    })
}
