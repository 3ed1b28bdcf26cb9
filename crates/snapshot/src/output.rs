//! A database on its way to the disk: the `db` of every member at once, or the file that a backup is unpacked to.
//!
//! ```text
//!   builder, codec ──▶ blocks of 1 MiB ──┬──▶ thread: O_DIRECT ──▶ m1/member/snap/db
//!                                        ├──▶ thread: O_DIRECT ──▶ m2/member/snap/db
//!                                        └──▶ …
//!   tail and metas, by ordinary writes, when all blocks are there
//! ```
//!
//! * What is built once is not read again to be copied, and does not pass through the page cache: on
//!   two cores, copying gigabytes there costs more time than the disk needs to take them. Nor are there
//!   gigabytes that the kernel writes out later, while the next file waits for the same disk.
//! * Memory is [`BLOCKS_MAX`] blocks, however many members there are. A slow disk holds the builder up.
//! * A file system that knows no O_DIRECT gets ordinary writes. So does a temporary file that is not large: it may be
//!   gone before the kernel has written any of it.
//! * Nothing is synced here; whoever puts the files in place does that.

use rustix::fs::{Advice, OFlags, fadvise};
use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

/// Large enough that a disk writes at full speed.
const BLOCK_BYTES: usize = 1 << 20;
/// Blocks being filled or on their way to a disk.
const BLOCKS_MAX: usize = 8;
/// What O_DIRECT wants of addresses, offsets and lengths, on any disk in use.
const ALIGN_BYTES: usize = 4096;
const _: () = assert!(BLOCK_BYTES.is_multiple_of(ALIGN_BYTES));

/// A temporary file of less does not pass the page cache by.
const TEMPORARY_BYTES_MIN: u64 = 256 << 20;

/// One member's file and the thread that writes it.
struct Lane {
    file: Arc<File>,
    queue: Option<SyncSender<(u64, Arc<Block>)>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// Several files that get the same bytes, as one that can be written and sought.
pub struct Output {
    files: Vec<Arc<File>>,
    state: State,
    offset: u64,
}

enum State {
    /// Pages come in their order.
    Streaming(Stream),
    /// All pages are there; what is written now is small.
    Finishing,
    /// A write failed, so that the files are worthless. (A buffered writer writes again when it is
    /// dropped.)
    Failed,
}

/// Blocks on their way to every file.
struct Stream {
    lanes: Vec<Lane>,
    /// The block being filled, then those that are on their way or free again, newest first.
    blocks: Vec<Arc<Block>>,
    /// Bytes in the block being filled.
    filled: usize,
}

impl Output {
    /// Creates the files, which must not exist. The first is kept at hand for reading back.
    pub fn create<'p>(paths: impl Iterator<Item = &'p Path>) -> io::Result<Self> {
        let lanes = paths.enumerate().map(|(number, path)| Lane::create(path, number == 0));
        Ok(Self::of_lanes(lanes.collect::<io::Result<_>>()?))
    }

    /// Fills a temporary file that is open, empty, and to be read back; it will have about `bytes`.
    pub fn of_temporary(file: File, bytes: u64) -> Self {
        let is_large = bytes >= TEMPORARY_BYTES_MIN;
        let direct = is_large.then(|| open_direct(&open_path(&file))).flatten();
        Self::of_lanes(vec![Lane::start(Arc::new(file), direct, true)])
    }

    /// Waits until all bytes are in the files.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()
    }

    fn of_lanes(lanes: Vec<Lane>) -> Self {
        let files = lanes.iter().map(|lane| Arc::clone(&lane.file)).collect();
        let stream = Stream { lanes, blocks: vec![Arc::new(Block::new())], filled: 0 };
        Self { files, state: State::Streaming(stream), offset: 0 }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = match &mut self.state {
            State::Streaming(stream) => stream.write(bytes, self.offset)?,
            State::Finishing => {
                self.files.iter().try_for_each(|file| file.write_all_at(bytes, self.offset))?;
                bytes.len()
            }
            State::Failed => return Err(io::Error::other("a write before this one failed")),
        };
        self.offset += taken as u64;
        Ok(taken)
    }

    /// Waits until every block is written, and writes what is left of the last one.
    fn drain(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Streaming(stream) => {
                let (rest, filled) = stream.finish()?;
                let (rest, at) = (&rest.bytes()[..filled], self.offset - filled as u64);
                self.files.iter().try_for_each(|file| file.write_all_at(rest, at))?;
                self.state = State::Finishing;
            }
            drained => self.state = drained,
        }
        Ok(())
    }
}

impl Stream {
    /// Takes what fits into the block being filled. `offset` is where `bytes` go.
    fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK_BYTES - self.filled);
        let block =
            Arc::get_mut(&mut self.blocks[0]).expect("the block being filled is ours alone");
        block.bytes_mut()[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
        self.filled += taken;
        if self.filled == BLOCK_BYTES {
            let at = offset + taken as u64 - BLOCK_BYTES as u64;
            self.lanes.iter_mut().try_for_each(|lane| lane.send(at, &self.blocks[0]))?;
            self.filled = 0;
            self.next_block();
        }
        Ok(taken)
    }

    /// Puts a block that nobody writes any more in front. The oldest is the first to be free.
    fn next_block(&mut self) {
        if self.blocks.len() < BLOCKS_MAX {
            self.blocks.insert(0, Arc::new(Block::new()));
            return;
        }
        self.blocks.rotate_right(1);
        if Arc::get_mut(&mut self.blocks[0]).is_none() {
            // The queues hold fewer blocks than there are, so this is one that a lane writes right
            // now: a fresh one takes its place.
            self.blocks[0] = Arc::new(Block::new());
        }
    }

    /// Waits for every lane. Returns the block that was being filled, and how far it was.
    fn finish(mut self) -> io::Result<(Arc<Block>, usize)> {
        self.lanes.iter_mut().try_for_each(Lane::finish)?;
        Ok((self.blocks.swap_remove(0), self.filled))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write(bytes).inspect_err(|_| self.state = State::Failed)
    }

    /// Waits until all bytes are in the files. What comes after that should be little.
    fn flush(&mut self) -> io::Result<()> {
        self.drain()?;
        // What has failed before is no success now.
        self.try_write(&[]).map(drop)
    }
}

impl Seek for Output {
    /// The builder seeks when all pages are there; what it writes then is small.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let offset = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(by) => self.offset.checked_add_signed(by),
            SeekFrom::End(_) => None,
        };
        let offset = offset.ok_or(io::ErrorKind::InvalidInput)?;
        if offset != self.offset && self.offset > 0 {
            self.drain()?;
        }
        self.offset = offset;
        Ok(offset)
    }
}

/// A thread that outlived its output would go on writing to files that are being removed.
impl Drop for Lane {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

impl Lane {
    fn create(path: &Path, read_back: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self::start(Arc::new(file), open_direct(path), read_back))
    }

    fn start(file: Arc<File>, direct: Option<File>, read_back: bool) -> Self {
        // With the block that is being filled and the one being written, fewer than BLOCKS_MAX.
        let (queue, blocks) = sync_channel::<(u64, Arc<Block>)>(BLOCKS_MAX - 3);
        let mut writer = LaneWriter { file: Arc::clone(&file), direct, read_back };
        let thread = std::thread::spawn(move || {
            blocks.iter().try_for_each(|(at, block)| writer.write(at, block.bytes()))
        });
        Self { file, queue: Some(queue), thread: Some(thread) }
    }

    fn send(&mut self, at: u64, block: &Arc<Block>) -> io::Result<()> {
        let sent =
            self.queue.as_ref().is_some_and(|queue| queue.send((at, Arc::clone(block))).is_ok());
        // A thread that is gone has failed, and says why.
        if sent { Ok(()) } else { self.finish().and(Err(io::ErrorKind::BrokenPipe.into())) }
    }

    /// Closes the queue and waits for the thread.
    fn finish(&mut self) -> io::Result<()> {
        self.queue = None;
        match self.thread.take() {
            Some(thread) => thread.join().expect("a writer thread does not panic"),
            None => Ok(()),
        }
    }
}

/// Opens a file for writes that pass the page cache by, if its file system has such.
fn open_direct(path: &Path) -> Option<File> {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path).ok()
}

/// What leads to an open file, also to one without a name.
fn open_path(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

struct LaneWriter {
    file: Arc<File>,
    /// `None` once the file system has refused O_DIRECT.
    direct: Option<File>,
    read_back: bool,
}

impl LaneWriter {
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if let Some(direct) = &self.direct {
            match direct.write_all_at(bytes, at) {
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) =>
                {
                    self.direct = None;
                }
                written => return written.map(|()| self.read_ahead(at, bytes.len())),
            }
        }
        self.file.write_all_at(bytes, at)
    }

    /// Asks for what was just written to be read into the page cache, for the walk that will read it
    /// back from the disk.
    fn read_ahead(&self, at: u64, len: usize) {
        if self.read_back {
            // Only advice: without it the walk reads by itself.
            let _ =
                fadvise(&self.file, at, std::num::NonZeroU64::new(len as u64), Advice::WillNeed);
        }
    }
}

/// Bytes at an address that O_DIRECT can take.
struct Block {
    /// A block and the room to align it in.
    room: Vec<u8>,
    start: usize,
}

impl Block {
    fn new() -> Self {
        let room = vec![0; BLOCK_BYTES + ALIGN_BYTES];
        let start = room.as_ptr().align_offset(ALIGN_BYTES);
        assert!(start < ALIGN_BYTES, "a vector of bytes can be aligned, not {start}");
        Self { room, start }
    }

    fn bytes(&self) -> &[u8] {
        &self.room[self.start..self.start + BLOCK_BYTES]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.start..self.start + BLOCK_BYTES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    /// Writes `len` bytes in odd pieces to two files, then the head again, as the builder does.
    fn write(dir: &Path, len: usize) -> (Vec<PathBuf>, Vec<u8>) {
        let paths = vec![dir.join("a"), dir.join("b")];
        let mut expected: Vec<u8> = (0..251).cycle().take(len).collect();
        let mut output = Output::create(paths.iter().map(PathBuf::as_path)).unwrap();
        for piece in expected.chunks(77_777) {
            output.write_all(piece).unwrap();
        }
        output.seek(SeekFrom::Start(0)).unwrap();
        output.write_all(b"head").unwrap();
        output.seek(SeekFrom::Start(len as u64)).unwrap();
        expected[..4].copy_from_slice(b"head");
        (paths, expected)
    }

    #[test]
    fn every_file_gets_all_bytes_whatever_their_number() {
        for len in [100, BLOCK_BYTES, BLOCK_BYTES + 512, 40 * BLOCK_BYTES + 4096] {
            let dir = tempfile::tempdir().unwrap();
            let (paths, expected) = write(dir.path(), len);
            for path in paths {
                assert!(std::fs::read(path).unwrap() == expected, "{len} bytes");
            }
        }
    }

    #[test]
    fn a_temporary_file_gets_all_bytes_past_the_page_cache_or_through_it() {
        for bytes in [0, TEMPORARY_BYTES_MIN] {
            let file = tempfile::tempfile().unwrap();
            let expected: Vec<u8> = (0..251).cycle().take(20 * BLOCK_BYTES + 32).collect();
            let mut output = Output::of_temporary(file.try_clone().unwrap(), bytes);
            expected.chunks(77_777).for_each(|piece| output.write_all(piece).unwrap());
            output.finish().unwrap();
            let mut found = vec![0; expected.len()];
            file.read_exact_at(&mut found, 0).unwrap();
            assert!(found == expected && file.metadata().unwrap().len() == found.len() as u64);
        }
    }

    #[test]
    fn a_file_system_without_direct_writes_gets_ordinary_ones() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let (paths, expected) = write(dir.path(), 3 * BLOCK_BYTES + 1);
        assert!(std::fs::read(&paths[1]).unwrap() == expected);
    }

    /// A disk that is full for the second file only: /dev/full takes no byte.
    #[test]
    fn a_write_that_fails_is_told_and_every_later_one_fails_too() {
        let dir = tempfile::tempdir().unwrap();
        let mut output = Output::create(std::iter::once(dir.path().join("a").as_path())).unwrap();
        let full = Arc::new(OpenOptions::new().write(true).open("/dev/full").unwrap());
        if let State::Streaming(stream) = &mut output.state {
            stream.lanes.push(Lane::start(full, None, false));
        }
        let block = vec![0; BLOCK_BYTES];
        let failed = (0..100).find_map(|_| output.write_all(&block).err()).unwrap();
        assert_eq!(failed.kind(), io::ErrorKind::StorageFull);
        assert!(output.write_all(b"more").is_err());
        assert!(output.seek(SeekFrom::Start(0)).is_ok(), "nothing is left to drain");
        assert!(output.write_all(b"head").is_err());
        assert!(output.finish().is_err());
    }

    #[test]
    fn a_file_that_exists_is_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), b"old").unwrap();
        let path = dir.path().join("a");
        let created = Output::create(std::iter::once(path.as_path()));
        assert_eq!(created.map(|_| ()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
