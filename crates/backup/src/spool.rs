//! A file that is filled by one and read by several at the same time.
//!
//! ```text
//!   etcd ──▶ nameless file ──▶ Tail ──▶ repository a
//!             0 … written       └─────▶ repository b        each at its own pace
//! ```
//!
//! * etcd is never held up by a slow store, nor one store by another; and an upload that failed begins
//!   again from here, without etcd.
//! * Where a member did not deliver, the file is emptied and filled by another: an *attempt*. A [`Tail`]
//!   belongs to one attempt. It never comes to its end if that attempt did not, so half of one snapshot
//!   and half of another are never taken for one.
//! * Nobody waits for ever: when the [`Spool`] is dropped, every tail fails.
//! * The file has no name, so nothing is left of it, however the process ends.

use snapshot::DIGEST_BYTES;
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
};
use tokio::sync::watch;

/// How much must come until tails that wait are woken: etcd sends 32 KiB at a time, and to wake a thread for each of
/// these costs more than to read them.
const WAKE_BYTES: u64 = 1 << 20;

/// What follows the file in the stream, as a file of another owner is not written to.
type Trailer = Option<[u8; DIGEST_BYTES]>;

/// Why there is no place for a temporary file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// It cannot be made.
    #[error("cannot make a temporary file in {}", dir.display())]
    Create {
        /// Where.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It would not fit.
    #[error("{}: {}", dir.display(), etcd_schema::shortage(*needed, *available))]
    NoSpace {
        /// Where.
        dir: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        available: u64,
    },
}

impl SpoolError {
    /// One imperative sentence: what to do next.
    pub fn remedy(&self) -> &'static str {
        "free space there, or name another folder that can be written to: --spool-dir"
    }
}

/// The side that fills. Dropped, it ends every tail.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    shared: Arc<Shared>,
}

/// The side that reads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SpoolReader {
    shared: Arc<Shared>,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it is there and proved.
    Proved,
    /// Another attempt has taken its place.
    Restarted,
    /// There will be nothing.
    GivenUp,
}

#[derive(Debug)]
struct Shared {
    file: File,
    trailer: Trailer,
    state: Mutex<State>,
    grown: Condvar,
    /// The state without the bytes, for those who wait in async code.
    turns: watch::Sender<(u64, Phase)>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// Counts from 1; 0 before the first has begun.
    attempt: u64,
    /// Bytes of the stream, the digest included.
    total: u64,
    /// Bytes of it that can be read.
    written: u64,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Filling,
    Proved,
    GivenUp,
}

impl Spool {
    /// An empty one in `dir`.
    pub fn create(dir: &Path) -> Result<Self, SpoolError> {
        let file = tempfile::tempfile_in(dir);
        let file = file.map_err(|source| SpoolError::Create { dir: dir.to_owned(), source })?;
        let state = State { attempt: 0, total: 0, written: 0, phase: Phase::Filling };
        Ok(Self::new(dir, file, None, state))
    }

    /// One that is complete: the first `bytes` of a file, and a digest after them. It must be proved
    /// before anything is made of it.
    pub fn of_database(path: &Path, file: File, bytes: u64, digest: [u8; DIGEST_BYTES]) -> Self {
        let total = bytes + DIGEST_BYTES as u64;
        let state = State { attempt: 1, total, written: total, phase: Phase::Filling };
        Self::new(path, file, Some(digest), state)
    }

    fn new(dir: &Path, file: File, trailer: Trailer, state: State) -> Self {
        let turns = watch::Sender::new((state.attempt, state.phase));
        let (state, grown) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { file, trailer, state, grown, turns });
        Self { dir: dir.to_owned(), shared }
    }

    /// The file, to be filled.
    pub fn file(&self) -> &File {
        &self.shared.file
    }

    /// Where it is, for messages.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whom to tell of what was written.
    pub fn progress(&self) -> Arc<dyn snapshot::Progress> {
        Arc::clone(&self.shared) as Arc<dyn snapshot::Progress>
    }

    /// The side that reads.
    pub fn reader(&self) -> SpoolReader {
        SpoolReader { shared: Arc::clone(&self.shared) }
    }

    /// All of the file that is there is the stream, which ends with its digest.
    pub fn filled(&self, bytes: u64) {
        snapshot::Progress::begins(&*self.shared, bytes);
        snapshot::Progress::written(&*self.shared, bytes);
    }

    /// What was written was found right.
    pub fn proved(&self) {
        self.shared.turn(|state| state.phase = Phase::Proved);
    }

    /// There will be nothing more: every tail fails.
    pub fn give_up(&self) {
        self.shared.turn(|state| state.phase = Phase::GivenUp);
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    fn turn(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        self.turns.send_replace((state.attempt, state.phase));
        self.grown.notify_all();
    }
}

impl snapshot::Progress for Shared {
    fn begins(&self, total: u64) {
        self.turn(|state| {
            *state = State { attempt: state.attempt + 1, total, written: 0, phase: state.phase };
        });
    }

    fn written(&self, bytes: u64) {
        let mut state = self.state();
        let before = std::mem::replace(&mut state.written, bytes);
        let is_due = before / WAKE_BYTES != bytes / WAKE_BYTES || bytes >= state.total;
        drop(state);
        if is_due {
            self.grown.notify_all();
        }
    }
}

impl SpoolReader {
    /// Waits until an attempt has begun, and reads it from its beginning; `None` if there will be none.
    pub async fn tail(&self) -> Option<Tail> {
        let mut turns = self.shared.turns.subscribe();
        let begun = turns.wait_for(|(attempt, phase)| *attempt > 0 || *phase == Phase::GivenUp);
        let (attempt, phase) = *begun.await.expect("the sender lives as long as this reader");
        let shared = Arc::clone(&self.shared);
        (phase != Phase::GivenUp).then_some(Tail { shared, attempt, offset: 0 })
    }

    /// Waits until it is known what became of an attempt.
    pub async fn verdict(&self, attempt: u64) -> Verdict {
        let mut turns = self.shared.turns.subscribe();
        let known = |(now, phase): &(u64, Phase)| *now != attempt || *phase != Phase::Filling;
        let turn = *turns.wait_for(known).await.expect("the sender lives as long as this reader");
        match turn {
            (_, Phase::GivenUp) => Verdict::GivenUp,
            (now, _) if now != attempt => Verdict::Restarted,
            _ => Verdict::Proved,
        }
    }

    /// What became of an attempt so far; `None` while nothing has.
    pub fn verdict_so_far(&self, attempt: u64) -> Option<Verdict> {
        match *self.shared.state() {
            State { phase: Phase::GivenUp, .. } => Some(Verdict::GivenUp),
            State { attempt: now, .. } if now != attempt => Some(Verdict::Restarted),
            State { phase: Phase::Proved, .. } => Some(Verdict::Proved),
            _ => None,
        }
    }
}

/// Reads one attempt, waiting for what is not there yet. Made to be read on a thread of its own.
#[derive(Debug)]
pub struct Tail {
    shared: Arc<Shared>,
    attempt: u64,
    offset: u64,
}

/// Why a tail came to no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TailError {
    /// Another attempt has taken the place of this one.
    #[error("the snapshot is fetched again from its beginning")]
    Restarted,
    /// There will be nothing more.
    #[error("the snapshot was given up")]
    GivenUp,
}

impl Tail {
    /// The attempt that it reads.
    pub fn attempt(&self) -> u64 {
        self.attempt
    }

    /// Waits until something can be read: how many bytes, and how many there will be in all.
    fn available(&self) -> Result<(u64, State), TailError> {
        let waiting = |state: &mut State| {
            state.attempt == self.attempt
                && state.phase != Phase::GivenUp
                && state.written <= self.offset
                && self.offset < state.total
        };
        let state = self.shared.grown.wait_while(self.shared.state(), waiting);
        let state = *state.expect("no holder of the lock panics");
        self.check(&state)?;
        Ok((state.written.saturating_sub(self.offset), state))
    }

    fn check(&self, state: &State) -> Result<(), TailError> {
        match state {
            State { phase: Phase::GivenUp, .. } => Err(TailError::GivenUp),
            State { attempt, .. } if *attempt != self.attempt => Err(TailError::Restarted),
            _ => Ok(()),
        }
    }

    fn read_available(&self, buffer: &mut [u8], state: &State) -> io::Result<usize> {
        let Some(trailer) = &self.shared.trailer else {
            return self.shared.file.read_at(buffer, self.offset);
        };
        let bytes = state.total - DIGEST_BYTES as u64;
        if self.offset < bytes {
            let room = clamp(bytes - self.offset, buffer.len());
            return self.shared.file.read_at(&mut buffer[..room], self.offset);
        }
        let place = clamp(self.offset - bytes, DIGEST_BYTES);
        (&trailer[place..]).read(buffer)
    }

    /// The file has less than was said: it was emptied for another attempt, which is about to be told,
    /// or by somebody else.
    fn vanished(&self) -> io::Error {
        if self.shared.trailer.is_some() {
            let why = "the file became shorter while it was read";
            return io::Error::new(io::ErrorKind::UnexpectedEof, why);
        }
        let waiting =
            |state: &mut State| state.attempt == self.attempt && state.phase == Phase::Filling;
        let state = self.shared.grown.wait_while(self.shared.state(), waiting);
        let state = *state.expect("no holder of the lock panics");
        let why = self.check(&state).err().unwrap_or(TailError::GivenUp);
        io::Error::other(why)
    }
}

impl Read for Tail {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (available, state) = self.available().map_err(io::Error::other)?;
        let room = clamp(available, buffer.len());
        if room == 0 {
            return Ok(0);
        }
        let read = self.read_available(&mut buffer[..room], &state)?;
        if read == 0 {
            return Err(self.vanished());
        }
        // What was read may be of the next attempt by now.
        self.check(&self.shared.state()).map_err(io::Error::other)?;
        self.offset += read as u64;
        Ok(read)
    }
}

fn clamp(bytes: u64, max: usize) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn spool() -> Spool {
        Spool::create(&std::env::temp_dir()).unwrap()
    }

    fn write(spool: &Spool, bytes: &[u8]) {
        let mut file = spool.file();
        file.write_all(bytes).unwrap();
    }

    fn tail(spool: &Spool) -> Tail {
        let shared = Arc::clone(&spool.shared);
        let attempt = shared.state().attempt;
        Tail { shared, attempt, offset: 0 }
    }

    fn why(result: io::Result<usize>) -> TailError {
        let error = result.unwrap_err();
        *error.get_ref().and_then(|e| e.downcast_ref()).expect("a tail's own error")
    }

    #[test]
    fn a_tail_gives_all_bytes_while_they_arrive_and_then_ends() {
        let spool = spool();
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        spool.progress().begins(content.len() as u64);
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let mut tail = tail(&spool);
                std::thread::spawn(move || {
                    let mut read = Vec::new();
                    tail.read_to_end(&mut read).map(|_| read)
                })
            })
            .collect();
        let mut written = 0;
        for piece in content.chunks(7_777) {
            write(&spool, piece);
            written += piece.len();
            spool.progress().written(written as u64);
        }
        for reader in readers {
            assert_eq!(reader.join().unwrap().unwrap(), content);
        }
    }

    #[test]
    fn a_tail_of_an_attempt_that_failed_never_comes_to_its_end() {
        let spool = spool();
        spool.progress().begins(4);
        write(&spool, b"ab");
        spool.progress().written(2);
        let mut old = tail(&spool);
        let mut two = [0; 2];
        old.read_exact(&mut two).unwrap();
        let waiting = std::thread::spawn(move || old.read(&mut [0; 8]));
        let mut whole = tail(&spool);

        spool.file().set_len(0).unwrap();
        spool.progress().begins(4);
        assert_eq!(why(waiting.join().unwrap()), TailError::Restarted);
        assert_eq!(why(whole.read(&mut [0; 8])), TailError::Restarted);
        assert_eq!(spool.reader().verdict_so_far(1), Some(Verdict::Restarted));
        assert_eq!(spool.reader().verdict_so_far(2), None);
    }

    #[test]
    fn a_file_that_was_emptied_is_not_an_end() {
        let spool = spool();
        spool.progress().begins(4);
        write(&spool, b"abcd");
        spool.progress().written(4);
        let mut tail = tail(&spool);
        // Emptied, and not yet told.
        spool.file().set_len(0).unwrap();
        let reader = std::thread::spawn(move || tail.read(&mut [0; 8]));
        spool.progress().begins(4);
        assert_eq!(why(reader.join().unwrap()), TailError::Restarted);
    }

    #[test]
    fn a_tail_ends_in_error_when_the_spool_is_dropped() {
        let spool = spool();
        spool.progress().begins(4);
        let mut tail = tail(&spool);
        let reader = std::thread::spawn(move || tail.read(&mut [0; 8]));
        drop(spool);
        assert_eq!(why(reader.join().unwrap()), TailError::GivenUp);
    }

    #[test]
    fn a_digest_is_read_after_a_file_that_has_none() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"databaseUNUSED").unwrap();
        let spool = Spool::of_database(Path::new("db"), file, 8, [7; DIGEST_BYTES]);
        let whole = [&b"database"[..], &[7; DIGEST_BYTES]].concat();
        let mut read = Vec::new();
        tail(&spool).read_to_end(&mut read).unwrap();
        assert_eq!(read, whole);
        let mut tail = tail(&spool);
        for piece in whole.chunks(3) {
            let mut read = vec![0; piece.len()];
            tail.read_exact(&mut read).unwrap();
            assert_eq!(read, piece);
        }
    }

    #[test]
    fn a_file_of_another_owner_that_shrinks_is_told() {
        let file = tempfile::tempfile().unwrap();
        let spool = Spool::of_database(Path::new("db"), file, 8, [7; DIGEST_BYTES]);
        let error = tail(&spool).read(&mut [0; 4]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn the_verdict_is_waited_for() {
        let spool = spool();
        spool.progress().begins(4);
        let reader = spool.reader();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (verdict, ()) = tokio::join!(reader.verdict(1), async { spool.proved() });
            assert_eq!(verdict, Verdict::Proved);
            assert_eq!(reader.tail().await.map(|tail| tail.attempt()), Some(1));
        });
    }
}
