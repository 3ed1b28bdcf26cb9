//! A snapshot of a live cluster, saved and proved.
//!
//! ```text
//!   etcd ──gRPC──▶ task ──bounded queue──▶ writer thread: PATH.part, SHA-256
//!                                              │ all there, digest equal
//!                                              ▼
//!                          walk of tree and records ‖ fsync  ──▶  rename to PATH, or copy to stdout
//! ```
//!
//! * What arrives is written at once and never held whole; the stream is not kept waiting for more
//!   than a slow disk, as an open snapshot makes the member's own file grow.
//! * If a stream breaks, or what it brought is not sound, the next member is asked, from the
//!   beginning.
//! * Only what was proved gets its final name, or goes to a reader. Anything else is removed.
//! * The future may be dropped at any instant; what is left of the work ends by itself.

use crate::{
    digest::{DIGEST_BYTES, DigestHasher, Digests, SECTOR_BYTES, Sha256Digest},
    file::{Snapshot, SnapshotError, Verified},
    finding::Finding,
    part_file::{Existing, PartFile, PartFileError},
};
use etcd_live::{Candidate, Endpoint, LiveError, SnapshotPart, SnapshotStream};
use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Blobs between the stream and the disk.
const QUEUE_BLOBS: usize = 256;

/// Bytes of those blobs: etcd's have 32 KiB each, but a server may send larger ones.
const QUEUE_BYTES: u32 = 8 << 20;

/// Findings between the walk and those who watch.
const QUEUE_FINDINGS: usize = 64;

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
    /// A member did not deliver, or nothing sound; the next one is asked.
    FailedOver {
        /// Why.
        error: &'a SaveError,
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
    /// What was saved and proved did not reach its reader.
    #[error("cannot pass the snapshot on to stdout")]
    Output(#[source] io::Error),
    /// The file system has no room for it.
    #[error("{}: {}", path.display(), etcd_schema::shortage(*needed, *available))]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        available: u64,
    },
    /// No database has that many bytes.
    #[error("{endpoint} offers {total} bytes, which is no whole number of pages")]
    Size {
        /// The member.
        endpoint: Endpoint,
        /// Bytes of the database, as the member says.
        total: u64,
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
            Self::Output(_) => "check that what reads the snapshot takes all of it",
            Self::Size { .. } => "check that the endpoint is an etcd",
            Self::Digest { .. } => {
                "try again; if it comes again, check the network and that member"
            }
            Self::Unsound { .. } => {
                "take the snapshot from another member, and compare members by `endpoint hashkv`"
            }
        }
    }

    /// Whether the bytes that a member sent are at fault.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Size { .. } | Self::Digest { .. } | Self::Unsound { .. })
    }

    /// Whether another member may do better.
    fn may_fail_over(&self) -> bool {
        match self {
            Self::Live(error) => !error.is_denied(),
            error => error.is_damage(),
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

/// Saves a sound snapshot of the first of `candidates` that can deliver one, as `path`.
pub async fn save(
    candidates: &[Candidate],
    path: &Path,
    existing: Existing,
    on_event: &(dyn Fn(SaveEvent<'_>) + Sync),
) -> Result<Saved, SaveError> {
    let part = PartFile::create(path, existing)?;
    let Saved { endpoint, snapshot } =
        save_into(candidates, part.path(), part.file(), on_event).await?;
    part.commit()?;
    Ok(Saved { endpoint, snapshot: snapshot.renamed(path) })
}

/// Saves one in a nameless file in `spool_dir`, and copies it to `out` once it is proved: a slow
/// reader keeps no member waiting.
pub async fn save_to_writer(
    candidates: &[Candidate],
    out: impl Write + Send + 'static,
    spool_dir: &Path,
    on_event: &(dyn Fn(SaveEvent<'_>) + Sync),
) -> Result<Saved, SaveError> {
    let write = |source| SaveError::Write { path: spool_dir.to_owned(), source };
    let spool = tempfile::tempfile_in(spool_dir).map_err(write)?;
    let saved = save_into(candidates, spool_dir, &spool, on_event).await?;
    pass_on(spool, out).await?;
    Ok(saved)
}

/// Copies all of `spool`, on a thread of its own: the reader may be slow, or never read on.
async fn pass_on(mut spool: File, mut out: impl Write + Send + 'static) -> Result<(), SaveError> {
    let copy = move || {
        spool.rewind()?;
        io::copy(&mut spool, &mut out)?;
        out.flush()
    };
    let copied = tokio::task::spawn_blocking(copy).await.expect("the copy does not panic");
    copied.map_err(SaveError::Output)
}

/// What is told of a file while it is filled, on the thread that writes to it.
///
/// Whoever reads along reads what was [`written`](Self::written), and begins again when it
/// [`begins`](Self::begins) again. None of it is proved before the save returns.
pub trait Progress: Send + Sync {
    /// The file is empty again, and will have so many bytes, the digest included. What was read of it
    /// before is worthless.
    fn begins(&self, total: u64);
    /// So many bytes are in the file.
    fn written(&self, bytes: u64);
}

/// Saves one in `file`, which others may read meanwhile as `progress` tells them; `path` is what
/// errors call it.
pub async fn save_to_file(
    candidates: &[Candidate],
    path: &Path,
    file: &File,
    progress: Arc<dyn Progress>,
    on_event: &(dyn Fn(SaveEvent<'_>) + Sync),
) -> Result<Saved, SaveError> {
    save_watched(candidates, path, file, Some(progress), on_event).await
}

async fn save_into(
    candidates: &[Candidate],
    path: &Path,
    file: &File,
    on_event: &(dyn Fn(SaveEvent<'_>) + Sync),
) -> Result<Saved, SaveError> {
    save_watched(candidates, path, file, None, on_event).await
}

async fn save_watched(
    candidates: &[Candidate],
    path: &Path,
    file: &File,
    progress: Option<Arc<dyn Progress>>,
    on_event: &(dyn Fn(SaveEvent<'_>) + Sync),
) -> Result<Saved, SaveError> {
    let attempt = async |candidate: &Candidate| {
        let write = |source| SaveError::Write { path: path.to_owned(), source };
        empty(file).map_err(write)?;
        let stream = candidate.connection.snapshot().await?;
        check_size(stream.endpoint(), stream.total())?;
        check_space(path, file, stream.total())?;
        if let Some(progress) = &progress {
            progress.begins(stream.total().saturating_add(DIGEST_BYTES as u64));
        }
        let out = Watched::new(file.try_clone().map_err(write)?, progress.clone());
        let fetched = fetch(stream, out, path, on_event).await?;
        // What only serves as a spool need not outlive the machine.
        let durable = progress.is_none();
        prove(fetched, path, file.try_clone().map_err(write)?, durable, on_event).await
    };
    let on_failure = |error: &SaveError, next: &Candidate| {
        on_event(SaveEvent::FailedOver { error, next: next.connection.endpoint() });
    };
    first_success(candidates, attempt, on_failure).await
}

/// Tries one candidate after the other, as long as the next may do better.
async fn first_success<C, T>(
    candidates: &[C],
    attempt: impl AsyncFn(&C) -> Result<T, SaveError>,
    on_failure: impl Fn(&SaveError, &C),
) -> Result<T, SaveError> {
    let mut remaining = candidates.iter().peekable();
    while let Some(candidate) = remaining.next() {
        match (attempt(candidate).await, remaining.peek()) {
            (Err(error), Some(next)) if error.may_fail_over() => on_failure(&error, next),
            (result, _) => return result,
        }
    }
    Err(LiveError::NoEndpoints.into())
}

/// Throws away what an attempt before has left.
fn empty(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0)).map(|_| ())
}

/// A database has whole pages. With another size, nobody could find the digest after it again.
fn check_size(endpoint: &Endpoint, total: u64) -> Result<(), SaveError> {
    if total.is_multiple_of(SECTOR_BYTES as u64) {
        return Ok(());
    }
    Err(SaveError::Size { endpoint: endpoint.clone(), total })
}

/// A file that says how much is in it.
struct Watched {
    file: File,
    written: u64,
    progress: Option<Arc<dyn Progress>>,
}

impl Watched {
    fn new(file: File, progress: Option<Arc<dyn Progress>>) -> Self {
        Self { file, written: 0, progress }
    }
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.written += written as u64;
        if let Some(progress) = &self.progress {
            progress.written(self.written);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A database that arrived whole, with the digest that was sent.
struct FetchedFrom {
    endpoint: Endpoint,
    digests: Digests,
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
    if announced != computed.database {
        return Err(SaveError::Digest { endpoint, computed: computed.database, announced });
    }
    Ok(FetchedFrom { endpoint, digests: computed })
}

/// A piece of the snapshot and its share of the queue's bytes.
type Queued = (SnapshotPart, OwnedSemaphorePermit);

/// Moves blobs from the stream to the queue. Returns the digest that was sent.
async fn receive(
    stream: &mut SnapshotStream,
    queue: mpsc::Sender<Queued>,
    on_event: &(dyn Fn(SaveEvent<'_>) + Sync),
) -> Result<Sha256Digest, LiveError> {
    let room = Arc::new(Semaphore::new(QUEUE_BYTES as usize));
    let mut announced = Sha256Digest([0; DIGEST_BYTES]);
    while let Some(part) = stream.next().await? {
        if let SnapshotPart::Digest(digest) = part {
            announced = Sha256Digest(digest);
        }
        let share = Arc::clone(&room).acquire_many_owned(share_of(&part)).await;
        let share = share.expect("nobody closes the semaphore");
        if queue.send((part, share)).await.is_err() {
            break;
        }
        on_event(SaveEvent::Received(stream.received()));
    }
    Ok(announced)
}

/// How many of the queue's bytes a piece takes. One that is larger than the queue waits until the
/// queue is empty.
fn share_of(part: &SnapshotPart) -> u32 {
    let bytes = match part {
        SnapshotPart::Data(blob) => blob.len(),
        SnapshotPart::Digest(digest) => digest.len(),
    };
    u32::try_from(bytes).unwrap_or(QUEUE_BYTES).min(QUEUE_BYTES)
}

/// Writes what comes through the queue. Returns the digest of the database, and of the file if what
/// follows the database is its digest.
fn write_all(mut queue: mpsc::Receiver<Queued>, mut out: impl Write) -> io::Result<Digests> {
    let mut hasher = DigestHasher::default();
    while let Some((part, _share)) = queue.blocking_recv() {
        match part {
            SnapshotPart::Data(blob) => {
                hasher.update(&blob);
                out.write_all(&blob)?;
            }
            SnapshotPart::Digest(digest) => out.write_all(&digest)?,
        }
    }
    out.flush()?;
    Ok(Digests::with_trailer(hasher))
}

/// Proves what was written, on a thread of its own.
async fn prove(
    fetched: FetchedFrom,
    path: &Path,
    file: File,
    durable: bool,
    on_event: &(dyn Fn(SaveEvent<'_>) + Sync),
) -> Result<Saved, SaveError> {
    on_event(SaveEvent::Verifying);
    let (queue, mut findings) = mpsc::channel(QUEUE_FINDINGS);
    let path = path.to_owned();
    let proving = tokio::task::spawn_blocking(move || {
        // Nobody listens any more when the save was given up.
        let on_finding = &mut |finding| drop(queue.blocking_send(finding));
        walk_and_sync(fetched, &path, &file, durable, on_finding)
    });
    while let Some(finding) = findings.recv().await {
        on_event(SaveEvent::Found(&finding));
    }
    proving.await.expect("the walk does not panic")
}

/// Walks what was written, while the disk makes it durable, if it shall be.
fn walk_and_sync(
    fetched: FetchedFrom,
    path: &Path,
    file: &File,
    durable: bool,
    on_finding: &mut dyn FnMut(Finding),
) -> Result<Saved, SaveError> {
    let FetchedFrom { endpoint, digests } = fetched;
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| if durable { file.sync_all() } else { Ok(()) });
        let proved = Snapshot::of_file(path, file)
            .and_then(|snapshot| snapshot.verify_known(digests, on_finding));
        sync.join()
            .expect("the fsync thread does not panic")
            .map_err(|source| SaveError::Write { path: path.to_owned(), source })?;
        match proved {
            Ok(snapshot) => Ok(Saved { endpoint, snapshot }),
            Err(source) => Err(SaveError::Unsound { endpoint, source }),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        "m1:2379".parse().unwrap()
    }

    fn wrong_digest() -> SaveError {
        let (computed, announced) = (Sha256Digest([1; 32]), Sha256Digest([2; 32]));
        SaveError::Digest { endpoint: endpoint(), computed, announced }
    }

    fn unsound() -> SaveError {
        let source = SnapshotError::Damaged { path: "x".into(), findings: 1 };
        SaveError::Unsound { endpoint: endpoint(), source }
    }

    fn no_room() -> SaveError {
        SaveError::NoSpace { path: "x".into(), needed: 2, available: 1 }
    }

    /// Tries candidates that fail as told, or succeed; counts how often the next one is asked.
    fn outcome(candidates: &[Option<fn() -> SaveError>]) -> (Result<(), SaveError>, usize) {
        let failures = std::cell::Cell::new(0);
        let attempt = async |fail: &Option<fn() -> SaveError>| fail.map_or(Ok(()), |f| Err(f()));
        let count = |_: &SaveError, _: &_| failures.set(failures.get() + 1);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let result = runtime.block_on(first_success(candidates, attempt, count));
        (result, failures.get())
    }

    #[test]
    fn after_a_member_that_sends_damage_the_next_one_is_asked() {
        let (result, failures) = outcome(&[Some(wrong_digest), Some(unsound), None]);
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(failures, 2);
    }

    #[test]
    fn damage_is_the_verdict_only_when_the_last_member_sends_it_too() {
        let (result, _) = outcome(&[Some(unsound), Some(wrong_digest)]);
        assert!(matches!(result, Err(SaveError::Digest { .. })), "{result:?}");
        let (result, failures) = outcome(&[Some(no_room), None]);
        assert!(matches!(result, Err(SaveError::NoSpace { .. })), "a full disk is nobody's fault");
        assert_eq!(failures, 0);
    }

    #[test]
    fn a_reader_that_went_away_is_told_as_such() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut spool = tempfile::tempfile().unwrap();
        spool.write_all(b"a snapshot").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let result = runtime.block_on(pass_on(spool, writer));
        assert!(
            matches!(&result, Err(SaveError::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe),
            "{result:?}"
        );
    }

    #[test]
    fn a_size_that_would_hide_the_digest_is_refused() {
        assert!(check_size(&endpoint(), 8192).is_ok());
        assert!(matches!(check_size(&endpoint(), 8191), Err(SaveError::Size { .. })));
    }

    #[test]
    fn a_blob_takes_its_bytes_of_the_queue_and_never_more_than_all() {
        assert_eq!(share_of(&SnapshotPart::Data(vec![0; 32 << 10])), 32 << 10);
        assert_eq!(share_of(&SnapshotPart::Data(vec![0; 9 << 20])), QUEUE_BYTES);
    }
}
