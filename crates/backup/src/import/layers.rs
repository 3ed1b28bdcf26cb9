//! What a snapshot is wrapped in, told by its first bytes, never by its name.
//!
//! ```text
//!   50 4b 03 04    zip, with one entry       1f 8b          gzip
//!   28 b5 2f fd    zstd                      78 .. % 31     zlib
//!   00 .1          LZW (see `lzw`)           1f 9d          Unix compress: refused
//!   age-encryption.org/v1                    age: taken off before these
//!
//!   0  page header  16  ed0cdaed …           a database: meta page 0, or 1 at the size of a page
//! ```
//!
//! * Names of entries become no paths.
//! * Memory does not grow with the input; output stops at the room that there is, whatever an archive
//!   says of itself.

use super::lzw::{self, LzwReader};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use std::{
    fmt,
    fs::File,
    io::{self, BufReader, Cursor, Read, Seek, Write},
};

/// What each file of age's begins with.
const AGE_MAGIC: &[u8] = b"age-encryption.org/v1\n";

/// Layers one in the other, at most: a gzip of a gzip is an accident, more is an attack.
const LAYERS_MAX: usize = 3;

/// Bytes that are looked at: the second meta page of the largest pages lies within.
const HEAD_BYTES: usize = (64 << 10) + 4096;

/// The most that decompression of zstd may ask for: `zstd -19` needs 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 26;

/// Entries that are looked at: a snapshot is one.
const ZIP_ENTRIES_MAX: usize = 1000;

/// One wrapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layer {
    /// A zip archive with one entry.
    Zip,
    /// gzip.
    Gzip,
    /// zlib.
    Zlib,
    /// LZW of Go's.
    Lzw,
    /// zstd.
    Zstd,
    /// age.
    Age,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zip => "zip",
            Self::Gzip => "gzip",
            Self::Zlib => "zlib",
            Self::Lzw => "LZW",
            Self::Zstd => "zstd",
            Self::Age => "age",
        })
    }
}

/// Why a snapshot cannot be unwrapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The input could not be read.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// The output could not be written.
    #[error("cannot write what was unpacked")]
    Write(#[source] io::Error),
    /// What it is wrapped in is damaged, or cut short.
    #[error("the {layer} data are damaged or cut short")]
    Damaged {
        /// The layer that failed.
        layer: Layer,
        /// Why.
        source: io::Error,
    },
    /// The zip archive is damaged, or of a kind that is not known.
    #[error("the zip archive cannot be read")]
    Zip(#[source] zip::result::ZipError),
    /// Not the one entry that a snapshot is.
    #[error("the zip archive has {files} files, but a snapshot is one: {}", names.join(", "))]
    Entries {
        /// How many.
        files: usize,
        /// The first of them.
        names: Vec<String>,
    },
    /// Nothing of what is known here.
    #[error("it is no snapshot, nor one wrapped in zip, gzip, zlib, LZW, zstd or age")]
    Unknown,
    /// Made by Unix `compress`.
    #[error("it is compressed by Unix `compress`")]
    UnixCompress,
    /// Encrypted.
    #[error("it is encrypted by age within another wrapping")]
    EncryptedWithin,
    /// More comes out than there is room for.
    #[error("more than {max} bytes come out of it, which is all the room there is")]
    TooLarge {
        /// The room.
        max: u64,
    },
}

impl LayerError {
    /// One imperative sentence: what to do next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Read(_) => "check the file and the disk that it is on",
            Self::Write(_) | Self::TooLarge { .. } => {
                "free space there, or name a folder on another file system: --spool-dir"
            }
            Self::Damaged { .. } | Self::Zip(_) => {
                "copy it again from its source, or take another backup"
            }
            Self::Entries { .. } => "unpack it, and give the snapshot that is in it",
            Self::Unknown => "check that this is the backup, and that it was copied whole",
            Self::UnixCompress => "decompress it by `uncompress`, and give the result",
            Self::EncryptedWithin => "unpack it, decrypt it by `age -d`, and give the result",
        }
    }

    /// Whether the bytes of the backup are at fault.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Zip(_) | Self::Unknown)
    }
}

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Database,
    Wrapped(Layer),
    UnixCompress,
    Unknown,
}

fn kind_of(head: &[u8]) -> Kind {
    if is_database(head) {
        return Kind::Database;
    }
    match head {
        [b'P', b'K', 3, 4, ..] => Kind::Wrapped(Layer::Zip),
        [0x1f, 0x8b, ..] => Kind::Wrapped(Layer::Gzip),
        [0x1f, 0x9d, ..] => Kind::UnixCompress,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Kind::Wrapped(Layer::Zstd),
        [0x78, flags, ..] if (0x7800 | u16::from(*flags)).is_multiple_of(31) => {
            Kind::Wrapped(Layer::Zlib)
        }
        _ if head.starts_with(AGE_MAGIC) => Kind::Wrapped(Layer::Age),
        _ if lzw::may_be(head) => Kind::Wrapped(Layer::Lzw),
        _ => Kind::Unknown,
    }
}

/// Whether the file is encrypted by age. Reads on from its beginning afterwards.
pub(super) fn is_age(file: &mut File) -> io::Result<bool> {
    let kind = kind_of(&head_of(file)?);
    file.rewind()?;
    Ok(kind == Kind::Wrapped(Layer::Age))
}

/// Whether the file is something else than a database, or what is left of one.
pub(super) fn is_wrapped(mut file: &File) -> io::Result<bool> {
    let kind = kind_of(&head_of(&mut file)?);
    file.rewind()?;
    Ok(matches!(kind, Kind::Wrapped(_) | Kind::UnixCompress))
}

/// Whether one of the meta pages is there. Whether it is right is for others to find out.
fn is_database(head: &[u8]) -> bool {
    const MAGIC: [u8; 4] = 0xED0C_DAED_u32.to_le_bytes();
    const MAGIC_OFFSET: usize = 16;
    let pages = std::iter::once(0).chain((9..=16).map(|log| 1 << log));
    let mut offsets = pages.map(|page: usize| page + MAGIC_OFFSET);
    offsets.any(|offset| head.get(offset..offset + MAGIC.len()) == Some(&MAGIC[..]))
}

/// Writes the snapshot in `input` to `output`, `bytes_max` at most. Returns what it was wrapped in, the
/// outermost first.
pub(super) fn unwrap(
    mut input: File,
    output: &mut dyn Write,
    bytes_max: u64,
) -> Result<Vec<Layer>, LayerError> {
    let head = head_of(&mut input).map_err(LayerError::Read)?;
    if kind_of(&head) != Kind::Wrapped(Layer::Zip) {
        let whole = Cursor::new(head).chain(input);
        return Unwrapping { output, bytes_max, layers: Vec::new() }.stream(Box::new(whole));
    }
    input.rewind().map_err(LayerError::Read)?;
    let mut archive = zip::ZipArchive::new(BufReader::new(input)).map_err(LayerError::Zip)?;
    let place = only_file(&mut archive)?;
    let entry = archive.by_index(place).map_err(LayerError::Zip)?;
    Unwrapping { output, bytes_max, layers: vec![Layer::Zip] }.stream(Box::new(entry))
}

/// Where in the archive its only file is.
fn only_file(archive: &mut zip::ZipArchive<BufReader<File>>) -> Result<usize, LayerError> {
    let mut files = Vec::new();
    for place in 0..archive.len().min(ZIP_ENTRIES_MAX) {
        let entry = archive.by_index_raw(place).map_err(LayerError::Zip)?;
        if entry.is_file() {
            let name = entry.name().map_err(LayerError::Zip)?;
            // Cut and escaped: it is printed.
            files.push((
                place,
                name.chars().take(100).collect::<String>().escape_debug().to_string(),
            ));
        }
    }
    match files.as_slice() {
        [(place, _)] => Ok(*place),
        _ => {
            let names = files.iter().take(5).map(|(_, name)| name.clone()).collect();
            Err(LayerError::Entries { files: files.len(), names })
        }
    }
}

fn head_of(input: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    input.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

struct Unwrapping<'o> {
    output: &'o mut dyn Write,
    bytes_max: u64,
    layers: Vec<Layer>,
}

impl Unwrapping<'_> {
    fn stream(mut self, mut input: Box<dyn Read + '_>) -> Result<Vec<Layer>, LayerError> {
        loop {
            let head = head_of(&mut input).map_err(|error| self.read_failed(error))?;
            let kind = kind_of(&head);
            let whole: Box<dyn Read> = Box::new(Cursor::new(head).chain(input));
            input = match kind {
                Kind::Database => return self.copy(whole),
                Kind::UnixCompress => return Err(LayerError::UnixCompress),
                Kind::Wrapped(Layer::Age) => return Err(LayerError::EncryptedWithin),
                Kind::Wrapped(Layer::Zip) | Kind::Unknown => return Err(LayerError::Unknown),
                Kind::Wrapped(_) if self.layers.len() == LAYERS_MAX => {
                    return Err(LayerError::Unknown);
                }
                Kind::Wrapped(layer) => {
                    self.layers.push(layer);
                    unwrapped(layer, whole).map_err(|error| self.read_failed(error))?
                }
            };
        }
    }

    fn copy(self, mut input: Box<dyn Read + '_>) -> Result<Vec<Layer>, LayerError> {
        let mut piece = vec![0; 256 << 10];
        let mut written = 0;
        loop {
            let read = match input.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.read_failed(error)),
            };
            written += read as u64;
            if written > self.bytes_max {
                return Err(LayerError::TooLarge { max: self.bytes_max });
            }
            self.output.write_all(&piece[..read]).map_err(LayerError::Write)?;
        }
        self.output.flush().map_err(LayerError::Write)?;
        Ok(self.layers)
    }

    /// Whether the data or the disk is at fault cannot be told apart in every decoder; the file itself
    /// was read without error up to here, so data it is.
    fn read_failed(&self, source: io::Error) -> LayerError {
        match self.layers.last() {
            None => LayerError::Read(source),
            // What only looked like LZW, and is none.
            Some(Layer::Lzw) if source.kind() == io::ErrorKind::InvalidData => LayerError::Unknown,
            Some(&layer) => LayerError::Damaged { layer, source },
        }
    }
}

fn unwrapped<'r>(layer: Layer, input: Box<dyn Read + 'r>) -> io::Result<Box<dyn Read + 'r>> {
    Ok(match layer {
        Layer::Gzip => Box::new(MultiGzDecoder::new(BufReader::new(input))),
        Layer::Zlib => Box::new(ZlibDecoder::new(input)),
        Layer::Lzw => Box::new(LzwReader::new(BufReader::new(input))),
        Layer::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        Layer::Zip | Layer::Age => unreachable!("these are opened from their files"),
    })
}
