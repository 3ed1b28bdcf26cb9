//! How objects are stored: compressed, then encrypted, by threads, while they travel.
//!
//! ```text
//!   content ──▶ zstd in frames of 4 MiB ──▶ age, if there are recipients ──▶ stored
//!      └ SHA-256, bytes                                      SHA-256, bytes ┘
//! ```
//!
//! What is stored is what the stock commands make and read: `age -d -i FILE db.zst.age | zstd -d`.
//!
//! * Nothing is held whole: a few blocks for each core, and a few pieces on their way to the store.
//! * [`download`] has proved every byte when it returns [`Ok`]: frames by their checksums, encrypted pieces
//!   by their tags, and both ends by the digests that are [`Expected`]. Its output is written before that,
//!   so on an error it is not to be believed.
//! * A future that is dropped leaves no object, and ends its threads as soon as they touch either end.
//!   What they *read* from must give an error, or bytes, once nobody wants them any more.
//! * A panic of a thread becomes a panic of the caller.
//!
//! The level is [`LEVEL_DEFAULT`]. On databases of Kubernetes objects and of our benchmarks level 1 took half
//! the time of level 3, and made *less* of them: identifiers that never repeat are where a deeper search
//! finds short matches that cost more than they save.

mod bandwidth;
pub(crate) mod bridge;
mod frames;
mod ordered;
mod reseal;
mod seal;

pub use bandwidth::{Bandwidth, BandwidthError};
pub use frames::{FRAME_BYTES, FrameError};
pub use ordered::workers;
pub(crate) use reseal::{Resealing, prove_stored, reseal};
pub use seal::{Identities, Recipients, SealError, SecretString};

use crate::manifest::{self, Content, Manifest, ObjectKind};
use crate::store::{ObjectWriter, Store, StoreError};
use bridge::Job;
use frames::PassError;
use seal::{Opener, Sealer};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io::{self, Read, Write};

/// The level of compression unless another is asked for.
pub const LEVEL_DEFAULT: i32 = 1;

/// How an object is to be stored.
#[derive(Clone, Debug)]
pub struct Encoding {
    /// zstd's level.
    pub level: i32,
    /// Who can read it; everyone if there are none.
    pub recipients: Recipients,
    /// A limit for what is sent, shared with all who hold a clone of it.
    pub bandwidth: Option<Bandwidth>,
}

impl Default for Encoding {
    fn default() -> Self {
        Self { level: LEVEL_DEFAULT, recipients: Recipients::none(), bandwidth: None }
    }
}

impl Encoding {
    /// The name of an object that is stored so, in the first generation of a backup.
    pub fn object_name(&self, kind: ObjectKind) -> String {
        manifest::object_name(kind, manifest::FIRST_GENERATION, !self.recipients.is_empty())
    }

    /// What the manifest says of the compression.
    pub fn compression(&self) -> manifest::Compression {
        manifest::Compression {
            format: "zstd".to_owned(),
            level: self.level,
            frame_bytes: FRAME_BYTES as u64,
        }
    }

    /// What the manifest says of the encryption.
    pub fn encryption(&self) -> Option<manifest::Encryption> {
        let recipients = self.recipients.keys();
        (!recipients.is_empty())
            .then(|| manifest::Encryption { format: "age".to_owned(), recipients })
    }
}

/// What an object must turn out to be, and for whom it is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// What it holds.
    pub content: Content,
    /// How it is stored.
    pub stored: Content,
    /// The keys that it is encrypted to.
    pub recipients: Vec<String>,
}

impl Expected {
    /// What a manifest says of the snapshot.
    pub fn db(manifest: &Manifest) -> Self {
        Self::new(manifest, &manifest.db, &manifest.object.stored)
    }

    /// What a manifest says of the files beside it, if there are any.
    pub fn include(manifest: &Manifest) -> Option<Self> {
        let include = manifest.include.as_ref()?;
        Some(Self::new(manifest, &include.tar, &include.object.stored))
    }

    fn new(manifest: &Manifest, content: &Content, stored: &Content) -> Self {
        let recipients = manifest.encryption.as_ref().map(|e| e.recipients.clone());
        Self {
            content: content.clone(),
            stored: stored.clone(),
            recipients: recipients.unwrap_or_default(),
        }
    }
}

/// Which end of the codec something is said of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// What was backed up.
    Content,
    /// What lies in the store.
    Stored,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Content => "content",
            Self::Stored => "stored bytes",
        })
    }
}

/// Why an object could not be stored or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is to be stored cannot be read, or the stored bytes of [`decode`].
    #[error("cannot read {object}")]
    Read {
        /// The object.
        object: String,
        /// Why not.
        source: io::Error,
    },
    /// What was read cannot be written, or the stored bytes of [`encode`].
    #[error("cannot write {object}")]
    Write {
        /// The object.
        object: String,
        /// Why not.
        source: io::Error,
    },
    /// zstd refuses to compress.
    #[error("cannot compress {object}: {reason}")]
    Compress {
        /// The object.
        object: String,
        /// What zstd says.
        reason: &'static str,
    },
    /// It is not what zstd wrote.
    #[error("cannot decompress {object}")]
    Frame {
        /// The object.
        object: String,
        /// Where and why not.
        source: FrameError,
    },
    /// It cannot be encrypted, or is not what age wrote.
    #[error("cannot encrypt or decrypt {object}")]
    Seal {
        /// The object.
        object: String,
        /// Why not.
        source: SealError,
    },
    /// None of the identities opens it.
    #[error("cannot decrypt {object}: it is encrypted to {recipients}", recipients = .recipients.join(", "))]
    NotForUs {
        /// The object.
        object: String,
        /// The keys of those who can read it.
        recipients: Vec<String>,
    },
    /// It is not what it should be.
    #[error(
        "the {end} of {object} should be {expected_bytes} bytes with SHA-256 {expected_hash}, but are {found_bytes} with {found_hash}",
        expected_bytes = .expected.bytes,
        expected_hash = .expected.sha256,
        found_bytes = .found.bytes,
        found_hash = .found.sha256,
    )]
    Mismatch {
        /// The object.
        object: String,
        /// What of it.
        end: End,
        /// What it should be.
        expected: Content,
        /// What it is.
        found: Content,
    },
    /// It has another size than it should have.
    #[error("the {end} of {object} should be {expected} bytes, but are {found}{}", if *.is_at_least { " or more" } else { "" })]
    Size {
        /// The object.
        object: String,
        /// What of it.
        end: End,
        /// How many there should be.
        expected: u64,
        /// How many there are.
        found: u64,
        /// Reading stopped there: there may be more.
        is_at_least: bool,
    },
    /// The machine gives no thread.
    #[error("cannot begin a thread")]
    Thread(#[source] io::Error),
}

impl CodecError {
    /// Whether the object itself is wrong, rather than the way to it.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Frame { .. } | Self::Mismatch { .. } | Self::Size { .. } => true,
            Self::Seal { source, .. } => source.is_damage(),
            Self::Store(StoreError::NotFound { .. }) => true,
            _ => false,
        }
    }

    /// One imperative sentence; none where the store says it.
    pub fn remedy(&self) -> Option<&'static str> {
        Some(match self {
            Self::Store(_) => return None,
            Self::Read { .. } | Self::Write { .. } => "see the cause, and try again",
            Self::Compress { .. } => "give a level between 1 and 19",
            Self::Frame { source: FrameError::Window { .. }, .. } => {
                "decompress it with zstd -d --long=31 first; no backup of ours needs that"
            }
            Self::Frame { source: FrameError::Dictionary { .. }, .. } => {
                "decompress it with zstd -d -D DICTIONARY first; no backup of ours needs that"
            }
            Self::Frame { .. } | Self::Mismatch { .. } | Self::Size { .. } => {
                "use another backup, or another copy of this one; it is damaged"
            }
            Self::Seal { source, .. } => source.remedy(),
            Self::NotForUs { .. } => {
                "give the identity of one of these recipients with --identity FILE"
            }
            Self::Thread(_) => "raise the limit of threads, or stop other work on this machine",
        })
    }

    fn of(object: &str, error: PassError) -> Self {
        let object = object.to_owned();
        match error {
            PassError::Frame(source) => Self::Frame { object, source },
            PassError::Read(error) => Self::sealed(&object, seal::read_failed(error)),
            PassError::Write(source) => Self::Write { object, source },
            PassError::Compress(reason) => Self::Compress { object, reason },
            PassError::Thread(source) => Self::Thread(source),
            PassError::Stopped => {
                let source = io::Error::other("the output was closed");
                Self::Write { object, source }
            }
        }
    }

    fn sealed(object: &str, error: SealError) -> Self {
        let object = object.to_owned();
        match error {
            SealError::Read(source) => Self::Read { object, source },
            SealError::Write(source) => Self::Write { object, source },
            source => Self::Seal { object, source },
        }
    }
}

/// An object at both its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    /// What it holds.
    pub content: Content,
    /// How it is stored.
    pub stored: Content,
}

/// An object that is stored but for its completion. Dropped, it leaves nothing.
#[must_use = "the object is not there before it is finished"]
pub struct Uploaded {
    /// What was read.
    pub content: Content,
    /// What was stored.
    pub stored: Content,
    writer: Box<dyn ObjectWriter>,
}

impl Uploaded {
    /// Completes the object.
    pub async fn finish(self) -> Result<Ends, StoreError> {
        self.writer.finish().await?;
        Ok(Ends { content: self.content, stored: self.stored })
    }

    /// Gives it up, and removes what was stored of it.
    pub async fn abort(self) -> Result<(), StoreError> {
        self.writer.abort().await
    }
}

impl fmt::Debug for Uploaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uploaded")
            .field("content", &self.content)
            .field("stored", &self.stored)
            .finish_non_exhaustive()
    }
}

/// What was read, and where it went.
#[derive(Debug)]
pub struct Downloaded<W> {
    /// The output, all of it written but not flushed.
    pub output: W,
    /// What it is, as expected.
    pub ends: Ends,
}

/// Stores all that `input` gives, but for the completion of the object, so that the caller can wait for its
/// own verdict on the content. `progress` is called with the bytes of content done.
///
/// # Errors
///
/// Nothing is left in the store. An `input` that waits when the store fails is waited for by its thread, not
/// by the caller.
pub async fn upload(
    store: &Store,
    path: &str,
    input: impl Read + Send + 'static,
    encoding: &Encoding,
    progress: impl Fn(u64) + Send + 'static,
) -> Result<Uploaded, CodecError> {
    let mut writer = store.writer(path).await?;
    let encoded = send(&mut *writer, path, input, encoding, progress).await;
    match encoded {
        Ok(Ends { content, stored }) => Ok(Uploaded { content, stored, writer }),
        Err(error) => {
            // The first error is the one to tell, and what stays behind is listed nowhere.
            let _ = writer.abort().await;
            Err(error)
        }
    }
}

async fn send(
    writer: &mut dyn ObjectWriter,
    path: &str,
    input: impl Read + Send + 'static,
    encoding: &Encoding,
    progress: impl Fn(u64) + Send + 'static,
) -> Result<Ends, CodecError> {
    let (mut outlet, drain) = bridge::outlet();
    let (object, encoding) = (path.to_owned(), encoding.clone());
    let bandwidth = encoding.bandwidth.clone();
    let job = Job::spawn(move || {
        let ends = encode(&object, input, &mut outlet, &encoding, &progress)?;
        outlet.finish().map_err(|source| CodecError::Write { object, source })?;
        Ok(ends)
    });
    let job = job.map_err(CodecError::Thread)?;
    drain.drain(writer, bandwidth.as_ref()).await?;
    job.join().await
}

/// Reads an object into `output`, and proves that it is what it should be. It is decrypted if its name ends
/// with `.age`. `progress` is called with the bytes of content done.
///
/// # Errors
///
/// Any difference is an error. What was written to `output` until then is not to be used.
pub async fn download<W: Write + Send + 'static>(
    store: &Store,
    path: &str,
    expected: &Expected,
    identities: &Identities,
    mut output: W,
    progress: impl Fn(u64) + Send + 'static,
) -> Result<Downloaded<W>, CodecError> {
    let stream = store.reader(path).await?;
    let (feeder, inlet) = bridge::inlet();
    let job = {
        let (object, expected) = (path.to_owned(), expected.clone());
        let identities = path.ends_with(".age").then(|| identities.clone());
        Job::spawn(move || {
            let decoding = Decoding {
                object: &object,
                identities: identities.as_ref(),
                expected: Some(&expected),
                workers: workers(),
            };
            let ends = decode(inlet, &mut output, &decoding, &progress)?;
            Ok(Downloaded { output, ends })
        })
        .map_err(CodecError::Thread)?
    };
    let fed = feeder.feed(stream).await?;
    match (job.join().await, fed) {
        // Whatever was made of half an object: that it is half is the reason.
        (Err::<_, CodecError>(error), Some(found))
            if error.is_damage() && found < expected.stored.bytes =>
        {
            Err(CodecError::Size {
                object: path.to_owned(),
                end: End::Stored,
                expected: expected.stored.bytes,
                found,
                is_at_least: false,
            })
        }
        (result, _) => result,
    }
}

/// Compresses and encrypts all of `input` into `output`, whose name is `object` in errors.
pub fn encode(
    object: &str,
    input: impl Read + Send,
    output: impl Write,
    encoding: &Encoding,
    progress: &dyn Fn(u64),
) -> Result<Ends, CodecError> {
    let mut content = Measured::new(input);
    let stored = Measured::new(output);
    let mut sealer = Sealer::new(&encoding.recipients, stored)
        .map_err(|error| CodecError::sealed(object, error))?;
    frames::compress(&mut content, &mut sealer, encoding.level, workers(), progress).map_err(
        |error| match error {
            // The input is anyone's: its errors mean nothing to us.
            PassError::Read(source) => CodecError::Read { object: object.to_owned(), source },
            error => CodecError::of(object, error),
        },
    )?;
    let stored = sealer.finish().map_err(|error| CodecError::sealed(object, error))?;
    Ok(Ends { content: content.measure(), stored: stored.measure() })
}

/// How [`decode`] is to read.
#[derive(Clone, Debug)]
pub struct Decoding<'a> {
    /// The name in errors.
    pub object: &'a str,
    /// With what to decrypt; nothing for what is not encrypted.
    pub identities: Option<&'a Identities>,
    /// What it must turn out to be, if that is known.
    pub expected: Option<&'a Expected>,
    /// Threads to decompress with; with 1, all is done by the caller.
    pub workers: usize,
}

/// Decrypts and decompresses all of `input`, as [`download`] does.
pub fn decode(
    input: impl Read + Send,
    output: impl Write,
    decoding: &Decoding<'_>,
    progress: &dyn Fn(u64),
) -> Result<Ends, CodecError> {
    let object = decoding.object;
    let limit = |end: fn(&Expected) -> &Content| decoding.expected.map(|e| end(e).bytes);
    let mut stored = Measured::new(input).at_most(limit(|e| &e.stored));
    let mut content = Measured::new(output).at_most(limit(|e| &e.content));
    let passed = pass(&mut stored, &mut content, decoding, progress);
    for (end, exceeded) in [(End::Stored, stored.exceeded()), (End::Content, content.exceeded())] {
        if let Some((expected, found)) = exceeded {
            let object = object.to_owned();
            return Err(CodecError::Size { object, end, expected, found, is_at_least: true });
        }
    }
    passed?;
    let ends = Ends { content: content.measure(), stored: stored.measure() };
    if let Some(expected) = decoding.expected {
        compare(object, End::Stored, &expected.stored, &ends.stored)?;
        compare(object, End::Content, &expected.content, &ends.content)?;
    }
    Ok(ends)
}

fn pass(
    stored: &mut (impl Read + Send),
    content: &mut impl Write,
    decoding: &Decoding<'_>,
    progress: &dyn Fn(u64),
) -> Result<(), CodecError> {
    let mut opener = match decoding.identities {
        None => Opener::plain(stored),
        Some(identities) => Opener::sealed(identities, stored)
            .map_err(|error| not_opened(decoding.object, decoding.expected, identities, error))?,
    };
    frames::decompress(&mut opener, content, decoding.workers, progress)
        .map_err(|error| CodecError::of(decoding.object, error))
}

/// Why an object cannot be opened. Where one of our keys is among those that it was encrypted to, its own head is at
/// fault: a single wrong bit there makes every key the wrong one.
fn not_opened(
    object: &str,
    expected: Option<&Expected>,
    identities: &Identities,
    error: SealError,
) -> CodecError {
    let expected = expected.map(|expected| &expected.recipients);
    let Some(recipients) = expected.filter(|recipients| !recipients.is_empty()) else {
        return CodecError::sealed(object, error);
    };
    let object = object.to_owned();
    let is_ours = identities.recipients().keys().iter().any(|key| recipients.contains(key));
    match error {
        SealError::Read(_) | SealError::Write(_) => CodecError::sealed(&object, error),
        error if is_ours && !error.is_damage() => CodecError::sealed(&object, SealError::Header),
        SealError::NotForUs | SealError::NoIdentity => {
            CodecError::NotForUs { object, recipients: recipients.clone() }
        }
        error => CodecError::sealed(&object, error),
    }
}

/// Whether one end of an object is what it should be.
pub(crate) fn compare(
    object: &str,
    end: End,
    expected: &Content,
    found: &Content,
) -> Result<(), CodecError> {
    if expected.bytes == found.bytes && expected.sha256.eq_ignore_ascii_case(&found.sha256) {
        return Ok(());
    }
    let object = object.to_owned();
    Err(CodecError::Mismatch { object, end, expected: expected.clone(), found: found.clone() })
}

/// Counts and digests what goes through.
pub(crate) struct Measured<T> {
    inner: T,
    sha256: Sha256,
    bytes: u64,
    bytes_max: Option<u64>,
}

impl<T> Measured<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, sha256: Sha256::new(), bytes: 0, bytes_max: None }
    }

    /// Refuses what goes beyond.
    fn at_most(self, bytes_max: Option<u64>) -> Self {
        Self { bytes_max, ..self }
    }

    /// What went through.
    pub(crate) fn measure(self) -> Content {
        let digest = self.sha256.finalize();
        let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Content { bytes: self.bytes, sha256 }
    }

    /// How many there should have been at most, and were, if that is what stopped it.
    fn exceeded(&self) -> Option<(u64, u64)> {
        self.bytes_max.filter(|max| self.bytes > *max).map(|max| (max, self.bytes))
    }

    fn take_note(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
        // Told by `exceeded`, whatever becomes of this error on its way.
        if self.exceeded().is_some() { Err(io::Error::other("more than expected")) } else { Ok(()) }
    }
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        self.take_note(buffer.get(..bytes).unwrap_or_default())?;
        Ok(bytes)
    }
}

impl<W: Write> Write for Measured<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let bytes = self.inner.write(buffer)?;
        self.take_note(buffer.get(..bytes).unwrap_or_default())?;
        Ok(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
