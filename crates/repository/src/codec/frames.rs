//! zstd in independent frames, compressed and decompressed on several cores.
//!
//! ```text
//!   | frame of 4 MiB | frame of 4 MiB | … | frame of the rest |
//!
//!   frame   magic  descriptor  [window]  [dictionary]  [content size]  block …  [checksum]
//!             4        1         0–1         0–4           0–8          3 + n       4
//!   block   3 bytes, little-endian: bit 0 = last; bits 1–2 = raw, RLE, compressed; bits 3–23 = n
//!   skip    magic 184D2A5?, 4 bytes of length, as many bytes that mean nothing
//! ```
//!
//! Our frames carry their content size and a checksum. `zstd -d` reads them as it reads any file, and so
//! do we read any file of `zstd`'s: a frame that is too large to be held, or that does not tell its size,
//! is decoded piece by piece on one core.
//!
//! * Any input is safe: no panic, and no more memory than [`FRAME_CONTENT_BYTES_MAX`] for each frame under
//!   way. A frame that needs a larger window is refused.
//! * Blocks are not decoded to find where a frame ends: their lengths lead from one to the next.
//! * Nothing at all is no zstd file: even an empty content has a frame.
//!
//! Each frame starts anew, which costs little at 4 MiB: the window of level 3 is 2 MiB.

use super::ordered::{self, Feed, Stopped};
use std::io::{self, BufReader, Read, Write};
use zstd::zstd_safe::{
    self, CCtx, CParameter, DCtx, DParameter, ErrorCode, InBuffer, OutBuffer, ResetDirective,
};

/// Content of each frame that we write, but for the last.
pub const FRAME_BYTES: usize = 4 << 20;

/// The largest content that is decompressed as a whole, and the largest window otherwise: `zstd` up to level
/// 19 needs no larger one.
const FRAME_CONTENT_BYTES_MAX: u64 = 1 << FRAME_CONTENT_LOG_MAX;
const FRAME_CONTENT_LOG_MAX: u32 = 23;
const _: () = assert!(FRAME_BYTES as u64 <= FRAME_CONTENT_BYTES_MAX);

/// No block is longer, nor decodes to more.
const BLOCK_BYTES_MAX: usize = 128 << 10;

const MAGIC: u32 = 0xFD2F_B528;
const SKIPPABLE: std::ops::RangeInclusive<u32> = 0x184D_2A50..=0x184D_2A5F;

/// Why bytes are not zstd frames. Offsets count compressed bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Something else begins where a frame should.
    #[error("no zstd frame begins at offset {offset}")]
    NotZstd {
        /// Where.
        offset: u64,
    },
    /// It ends in the middle.
    #[error("the zstd frame at offset {offset} is cut short at offset {end}")]
    CutShort {
        /// Where the frame begins.
        offset: u64,
        /// Where the input ends.
        end: u64,
    },
    /// Lengths or flags that no frame has.
    #[error("the zstd frame at offset {offset} is malformed: {what}")]
    Malformed {
        /// Where the frame begins.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// It needs more memory than we give.
    #[error("the zstd frame at offset {offset} needs a window of {bytes} bytes, more than {max}", max = FRAME_CONTENT_BYTES_MAX)]
    Window {
        /// Where the frame begins.
        offset: u64,
        /// What it needs.
        bytes: u64,
    },
    /// It needs a dictionary.
    #[error("the zstd frame at offset {offset} needs a dictionary")]
    Dictionary {
        /// Where the frame begins.
        offset: u64,
    },
    /// Its content or its checksum is wrong.
    #[error("the zstd frame at offset {offset} is damaged: {reason}")]
    Damaged {
        /// Where the frame begins.
        offset: u64,
        /// What zstd says.
        reason: &'static str,
    },
}

/// What stops a pass over data: the data, or one of its ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum PassError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("cannot read")]
    Read(#[source] io::Error),
    #[error("cannot write")]
    Write(#[source] io::Error),
    #[error("cannot compress: {0}")]
    Compress(&'static str),
    #[error("cannot begin a thread")]
    Thread(#[from] io::Error),
    /// Only ever replaced by what the other side says.
    #[error("stopped")]
    Stopped,
}

impl From<Stopped> for PassError {
    fn from(Stopped: Stopped) -> Self {
        Self::Stopped
    }
}

/// Compresses all of `input`. `progress` is called with the bytes of content that were written so far.
pub(super) fn compress(
    input: &mut (impl Read + Send),
    output: &mut impl Write,
    level: i32,
    workers: usize,
    progress: &dyn Fn(u64),
) -> Result<(), PassError> {
    struct Compressed {
        frame: Result<Vec<u8>, ErrorCode>,
        content_bytes: u64,
    }
    let produce = |feed: &mut dyn Feed<Vec<u8>, Compressed>| {
        let mut first = true;
        loop {
            let block = read_block(input).map_err(PassError::Read)?;
            let last = block.len() < FRAME_BYTES;
            if first || !block.is_empty() {
                feed.push(block)?;
            }
            if last {
                return Ok(());
            }
            first = false;
        }
    };
    let worker = || {
        let mut context = compressor(level);
        move |block: Vec<u8>| Compressed {
            frame: match &mut context {
                Ok(context) => compress_block(context, &block),
                Err(code) => Err(*code),
            },
            content_bytes: block.len() as u64,
        }
    };
    let mut done = 0;
    ordered::map(workers, produce, worker, |compressed| {
        let frame = compressed
            .frame
            .map_err(|code| PassError::Compress(zstd_safe::get_error_name(code)))?;
        output.write_all(&frame).map_err(PassError::Write)?;
        done += compressed.content_bytes;
        progress(done);
        Ok(())
    })
}

/// [`FRAME_BYTES`], or what is left.
fn read_block(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut block = Vec::with_capacity(FRAME_BYTES);
    input.take(FRAME_BYTES as u64).read_to_end(&mut block)?;
    Ok(block)
}

fn compressor(level: i32) -> Result<CCtx<'static>, ErrorCode> {
    let mut context = CCtx::create();
    context.set_parameter(CParameter::CompressionLevel(level))?;
    context.set_parameter(CParameter::ChecksumFlag(true))?;
    context.set_parameter(CParameter::ContentSizeFlag(true))?;
    Ok(context)
}

fn compress_block(context: &mut CCtx<'_>, block: &[u8]) -> Result<Vec<u8>, ErrorCode> {
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(block.len()));
    context.compress2(&mut frame, block)?;
    // Some may wait for a slow store: they need not hold what they could have grown to.
    frame.shrink_to_fit();
    Ok(frame)
}

/// Decompresses all of `input`. `progress` is called with the bytes of content that were written so far.
pub(super) fn decompress(
    input: &mut (impl Read + Send),
    output: &mut impl Write,
    workers: usize,
    progress: &dyn Fn(u64),
) -> Result<(), PassError> {
    let produce = |feed: &mut dyn Feed<Whole, Unit>| Splitter::new(input).split(feed);
    let worker = || {
        let mut context = DCtx::create();
        move |whole: Whole| Unit::Content(decompress_whole(&mut context, &whole))
    };
    let mut stream = Stream::new();
    let mut done = 0;
    ordered::map(workers, produce, worker, |unit| {
        let mut write = |bytes: &[u8]| {
            output.write_all(bytes).map_err(PassError::Write)?;
            done += bytes.len() as u64;
            progress(done);
            Ok(())
        };
        match unit {
            Unit::Content(content) => write(&content?),
            Unit::Part(part) => stream.decode(&part, write),
        }
    })
}

/// A frame that can be decompressed at once.
struct Whole {
    offset: u64,
    frame: Vec<u8>,
    content_bytes: usize,
}

/// What comes of a frame, in its order.
enum Unit {
    Content(Result<Vec<u8>, FrameError>),
    Part(Part),
}

/// A piece of a frame that is decoded as it comes.
struct Part {
    /// Where the frame begins.
    offset: u64,
    bytes: Vec<u8>,
    is_last: bool,
}

fn decompress_whole(context: &mut DCtx<'_>, whole: &Whole) -> Result<Vec<u8>, FrameError> {
    let offset = whole.offset;
    let mut content = Vec::with_capacity(whole.content_bytes);
    let bytes = context.decompress(&mut content, &whole.frame).map_err(damaged(offset))?;
    if bytes == whole.content_bytes {
        Ok(content)
    } else {
        Err(FrameError::Damaged { offset, reason: "its content has not the size that it tells" })
    }
}

fn damaged(offset: u64) -> impl Fn(ErrorCode) -> FrameError {
    move |code| FrameError::Damaged { offset, reason: zstd_safe::get_error_name(code) }
}

/// Decodes frames piece by piece.
struct Stream {
    context: Option<DCtx<'static>>,
    buffer: Vec<u8>,
}

impl Stream {
    fn new() -> Self {
        Self { context: None, buffer: Vec::new() }
    }

    fn decode(
        &mut self,
        part: &Part,
        mut write: impl FnMut(&[u8]) -> Result<(), PassError>,
    ) -> Result<(), PassError> {
        let damaged = damaged(part.offset);
        let context = match &mut self.context {
            Some(context) => context,
            None => {
                let mut context = DCtx::create();
                let window = DParameter::WindowLogMax(FRAME_CONTENT_LOG_MAX);
                context.set_parameter(window).map_err(&damaged)?;
                self.buffer.reserve_exact(BLOCK_BYTES_MAX);
                self.context.insert(context)
            }
        };
        let mut input = InBuffer::around(&part.bytes);
        loop {
            self.buffer.clear();
            let mut output = OutBuffer::around(&mut self.buffer);
            let hint = context.decompress_stream(&mut output, &mut input).map_err(&damaged)?;
            let is_full = output.pos() == output.capacity();
            write(&self.buffer)?;
            if hint == 0 && part.is_last && input.pos() == part.bytes.len() {
                return context
                    .reset(ResetDirective::SessionOnly)
                    .map(drop)
                    .map_err(|code| damaged(code).into());
            }
            if hint == 0 || (input.pos() == part.bytes.len() && !is_full) {
                // The splitter and zstd disagree about the end of the frame, or more is to come.
                return if hint == 0 || part.is_last {
                    let reason = "it does not end where its blocks do";
                    Err(FrameError::Damaged { offset: part.offset, reason }.into())
                } else {
                    Ok(())
                };
            }
        }
    }
}

/// Finds where frames begin and end.
struct Splitter<R> {
    input: BufReader<R>,
    /// Bytes read so far.
    offset: u64,
    /// Where the frame that is being read begins.
    begin: u64,
}

/// What the head of a frame tells.
struct Head {
    content_bytes: Option<u64>,
    has_checksum: bool,
}

impl<R: Read> Splitter<R> {
    fn new(input: R) -> Self {
        Self { input: BufReader::with_capacity(BLOCK_BYTES_MAX, input), offset: 0, begin: 0 }
    }

    fn split(mut self, feed: &mut dyn Feed<Whole, Unit>) -> Result<(), PassError> {
        loop {
            self.begin = self.offset;
            let mut frame = Vec::new();
            self.take(4, &mut frame)?;
            match *frame.as_slice() {
                [] if self.begin > 0 => return Ok(()),
                [a, b, c, d] => {
                    let magic = u32::from_le_bytes([a, b, c, d]);
                    if magic == MAGIC {
                        self.frame(frame, feed)?;
                    } else if SKIPPABLE.contains(&magic) {
                        self.skip()?;
                    } else {
                        return Err(FrameError::NotZstd { offset: self.begin }.into());
                    }
                }
                _ => return Err(self.cut_short().into()),
            }
        }
    }

    fn skip(&mut self) -> Result<(), PassError> {
        let mut length = Vec::new();
        self.expect(4, &mut length)?;
        let length = little_endian(&length);
        let skipped = io::copy(&mut (&mut self.input).take(length), &mut io::sink());
        let skipped = skipped.map_err(PassError::Read)?;
        self.offset += skipped;
        if skipped == length { Ok(()) } else { Err(self.cut_short().into()) }
    }

    /// Reads a frame whose magic is in `frame`, and hands it on.
    fn frame(
        &mut self,
        mut frame: Vec<u8>,
        feed: &mut dyn Feed<Whole, Unit>,
    ) -> Result<(), PassError> {
        let head = self.head(&mut frame)?;
        let whole = head
            .content_bytes
            .filter(|bytes| *bytes <= FRAME_CONTENT_BYTES_MAX)
            .and_then(|bytes| usize::try_from(bytes).ok());
        loop {
            let is_last = self.block(&mut frame)?;
            if is_last && head.has_checksum {
                self.expect(4, &mut frame)?;
            }
            match whole {
                Some(content_bytes) if is_last => {
                    let frame = std::mem::take(&mut frame);
                    feed.push(Whole { offset: self.begin, frame, content_bytes })?;
                }
                // Twice its content is more than any encoder makes of it, however often it is flushed.
                Some(content_bytes) if frame.len() > 2 * content_bytes + BLOCK_BYTES_MAX => {
                    return Err(self.malformed("its blocks are larger than its content").into());
                }
                None if is_last || frame.len() >= BLOCK_BYTES_MAX => {
                    let bytes = std::mem::take(&mut frame);
                    feed.pass(Unit::Part(Part { offset: self.begin, bytes, is_last }))?;
                }
                Some(_) | None => {}
            }
            if is_last {
                return Ok(());
            }
        }
    }

    fn head(&mut self, frame: &mut Vec<u8>) -> Result<Head, PassError> {
        let descriptor = self.field(1, frame)?.first().copied().unwrap_or_default();
        let is_single_segment = descriptor & 0x20 != 0;
        if descriptor & 0x08 != 0 {
            return Err(self.malformed("a reserved bit is set").into());
        }
        let mut window = 0;
        if !is_single_segment {
            let byte = self.field(1, frame)?.first().copied().unwrap_or_default();
            let base = 1_u64 << (10 + (byte >> 3));
            window = base + base / 8 * u64::from(byte & 7);
        }
        let dictionary = self.field([0, 1, 2, 4][usize::from(descriptor & 3)], frame)?;
        if dictionary.iter().any(|byte| *byte != 0) {
            return Err(FrameError::Dictionary { offset: self.begin }.into());
        }
        let content_bytes = match (descriptor >> 6, is_single_segment) {
            (0, false) => None,
            (0, true) => Some(little_endian(self.field(1, frame)?)),
            // This form begins where the one before ends.
            (1, _) => Some(little_endian(self.field(2, frame)?) + 256),
            (2, _) => Some(little_endian(self.field(4, frame)?)),
            (_, _) => Some(little_endian(self.field(8, frame)?)),
        };
        // A single segment is its own window.
        let window = if is_single_segment { content_bytes.unwrap_or_default() } else { window };
        let is_held = content_bytes.is_some_and(|bytes| bytes <= FRAME_CONTENT_BYTES_MAX);
        if window > FRAME_CONTENT_BYTES_MAX && !is_held {
            return Err(FrameError::Window { offset: self.begin, bytes: window }.into());
        }
        Ok(Head { content_bytes, has_checksum: descriptor & 0x04 != 0 })
    }

    /// Adds a block to the frame; whether it is the last.
    fn block(&mut self, frame: &mut Vec<u8>) -> Result<bool, PassError> {
        let head = little_endian(self.field(3, frame)?);
        let length = usize::try_from(head >> 3).unwrap_or(usize::MAX);
        if length > BLOCK_BYTES_MAX {
            return Err(self.malformed("a block is longer than any may be").into());
        }
        let stored = match head >> 1 & 3 {
            0 | 2 => length,
            1 => 1,
            _ => return Err(self.malformed("a block is of a reserved type").into()),
        };
        self.expect(stored, frame)?;
        Ok(head & 1 == 1)
    }

    /// Adds as many bytes to the frame, and returns just them.
    fn field<'a>(&mut self, bytes: usize, frame: &'a mut Vec<u8>) -> Result<&'a [u8], PassError> {
        let start = frame.len();
        self.expect(bytes, frame)?;
        Ok(frame.get(start..).unwrap_or_default())
    }

    fn expect(&mut self, bytes: usize, frame: &mut Vec<u8>) -> Result<(), PassError> {
        if self.take(bytes, frame)? == bytes { Ok(()) } else { Err(self.cut_short().into()) }
    }

    /// Adds as many bytes to the frame, or what is left.
    fn take(&mut self, bytes: usize, frame: &mut Vec<u8>) -> Result<usize, PassError> {
        let taken = (&mut self.input).take(bytes as u64).read_to_end(frame);
        let taken = taken.map_err(PassError::Read)?;
        self.offset += taken as u64;
        Ok(taken)
    }

    fn cut_short(&self) -> FrameError {
        FrameError::CutShort { offset: self.begin, end: self.offset }
    }

    fn malformed(&self, what: &'static str) -> FrameError {
        FrameError::Malformed { offset: self.begin, what }
    }
}

/// Up to eight bytes.
fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests;
