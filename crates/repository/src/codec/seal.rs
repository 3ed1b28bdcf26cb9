//! Encryption to public keys, in the format of the `age` command.
//!
//! ```text
//!   age-encryption.org/v1
//!   -> X25519 …              the file's key, wrapped for one recipient; one such stanza for each
//!   --- MAC of all above, under the file's key
//!   nonce, then pieces of 64 KiB, each with its own tag; the last is marked as such
//! ```
//!
//! Whoever writes backups needs only [`Recipients`], so a stolen writer can read none. [`Identities`] are
//! the secret keys. A passphrase protects a file of identities, never a backup itself.
//!
//! * A changed bit, a missing end and bytes behind the end are all found.
//! * No error and no `Debug` shows a secret.
//! * Memory is bounded: by [`HEADER_BYTES_MAX`], and by [`WORK_FACTOR_MAX`] for passphrases.

use age::armor::ArmoredReader;
use age::secrecy::{ExposeSecret, SecretSlice};
use age::stream::{StreamReader, StreamWriter};
use age::{DecryptError, Decryptor, EncryptError, Encryptor, scrypt, x25519};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::{fmt, str::FromStr};

pub use age::secrecy::SecretString;

/// The first line of an encrypted file.
const MAGIC: &[u8] = b"age-encryption.org/v1\n";

/// How the last line of a header begins.
const HEADER_END: &[u8] = b"---";

/// A header holds one stanza of about 100 bytes for each recipient.
const HEADER_BYTES_MAX: u64 = 1 << 20;

/// Files of keys have a line for each.
const KEY_FILE_BYTES_MAX: u64 = 1 << 20;

/// Logarithm of the work that a passphrase may cost: four times what `age` itself asks for.
const WORK_FACTOR_MAX: u8 = 20;

/// Why something cannot be encrypted or decrypted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// A recipient is no public key.
    #[error("{place} is no age recipient: one begins with age1")]
    Recipient {
        /// The text if it looks public, or the file and line.
        place: String,
    },
    /// A secret key was given as a recipient.
    #[error("{place} is a secret key, but recipients are public")]
    SecretRecipient {
        /// Where, but not what.
        place: String,
    },
    /// An identity is no secret key.
    #[error("{place} is no age identity: one begins with AGE-SECRET-KEY-1")]
    Identity {
        /// Where, but not what.
        place: String,
    },
    /// A file of keys holds none.
    #[error("{path} holds no key", path = .path.display())]
    NoKeys {
        /// The file.
        path: PathBuf,
    },
    /// A file of keys is larger than any.
    #[error("{path} is too large for a file of keys", path = .path.display())]
    KeyFileSize {
        /// The file.
        path: PathBuf,
    },
    /// A file of keys cannot be read.
    #[error("cannot read {path}", path = .path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The passphrase could not be had.
    #[error("there is no passphrase for {path}", path = .path.display())]
    NoPassphrase {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The passphrase does not open the file.
    #[error("the passphrase does not open {path}", path = .path.display())]
    Passphrase {
        /// The file.
        path: PathBuf,
    },
    /// Opening the file would cost too much time and memory.
    #[error(
        "the passphrase of {path} costs 2^{work_factor} steps to try, more than 2^{WORK_FACTOR_MAX}",
        path = .path.display()
    )]
    Work {
        /// The file.
        path: PathBuf,
        /// What it asks for.
        work_factor: u8,
    },
    /// A file of identities is encrypted, but not by a passphrase.
    #[error("{path} is encrypted, but not by a passphrase", path = .path.display())]
    NotByPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// It does not begin as an encrypted file does.
    #[error("it is not an age file")]
    NotAge,
    /// Its header is wrong.
    #[error("the age header is damaged")]
    Header,
    /// None of the identities opens it.
    #[error("it is encrypted to other keys")]
    NotForUs,
    /// There is no identity to open it with.
    #[error("it is encrypted, and no identity was given")]
    NoIdentity,
    /// Its end is missing.
    #[error("the age file is cut short")]
    CutShort,
    /// Its bytes are not those that were encrypted.
    #[error("the age file is damaged: a piece of it does not match its tag")]
    Damaged,
    /// The input failed.
    #[error("cannot read")]
    Read(#[source] io::Error),
    /// The output failed.
    #[error("cannot write")]
    Write(#[source] io::Error),
}

impl SealError {
    /// One imperative sentence.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Recipient { .. } => {
                "give the public key that age-keygen printed, or the output of age-keygen -y FILE"
            }
            Self::SecretRecipient { .. } => {
                "give its public key, which age-keygen -y prints, and consider whether the secret key was exposed"
            }
            Self::Identity { .. } | Self::NoKeys { .. } | Self::KeyFileSize { .. } => {
                "give a file that age-keygen wrote"
            }
            Self::KeyFile { .. } => "check the path and the permissions of the file",
            Self::NoPassphrase { .. } => {
                "run on a terminal, or give it by --passphrase-file or LIFEBOAT_PASSPHRASE"
            }
            Self::Passphrase { .. } => "give the right passphrase",
            Self::Work { .. } | Self::NotByPassphrase { .. } => {
                "decrypt the identities with the age command, and encrypt them again with age -p"
            }
            Self::NotForUs | Self::NoIdentity => {
                "give the identity of one of the recipients with --identity FILE"
            }
            Self::NotAge | Self::Header | Self::CutShort | Self::Damaged => {
                "use another backup, or another copy of this one; it is damaged"
            }
            Self::Read(_) | Self::Write(_) => "see the cause, and try again",
        }
    }

    /// Whether the bytes themselves are wrong.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::NotAge | Self::Header | Self::CutShort | Self::Damaged)
    }
}

/// Public keys to encrypt to; none means that nothing is encrypted.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Recipients {
    keys: Vec<x25519::Recipient>,
}

impl Recipients {
    /// No encryption.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Adds a public key, `age1…`. One that is there already is not added again.
    pub fn add(&mut self, key: &str) -> Result<(), SealError> {
        let key = key.trim();
        // What does not look public may be a secret in the wrong place.
        let place =
            || if key.starts_with("age1") { format!("{key:?}") } else { "a key".to_owned() };
        self.insert(parse_recipient(key, &place)?);
        Ok(())
    }

    /// Adds all public keys of a file: one a line, but for comments after `#`.
    pub fn add_file(&mut self, path: &Path) -> Result<(), SealError> {
        let file = read_key_file(path)?;
        let recipients = parse_lines(path, file.expose_secret(), parse_recipient)?;
        recipients.into_iter().for_each(|recipient| self.insert(recipient));
        Ok(())
    }

    /// The keys as text, in the order in which they were added.
    pub fn keys(&self) -> Vec<String> {
        self.keys.iter().map(ToString::to_string).collect()
    }

    fn insert(&mut self, recipient: x25519::Recipient) {
        if !self.keys.contains(&recipient) {
            self.keys.push(recipient);
        }
    }
}

impl FromStr for Recipients {
    type Err = SealError;

    /// A single public key.
    fn from_str(key: &str) -> Result<Self, SealError> {
        let mut recipients = Self::none();
        recipients.add(key)?;
        Ok(recipients)
    }
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys()).finish()
    }
}

/// Secret keys to decrypt with.
#[derive(Clone, Default)]
pub struct Identities {
    keys: Vec<x25519::Identity>,
}

impl Identities {
    /// None: only what is not encrypted can be read.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Adds a secret key, `AGE-SECRET-KEY-1…`. `place` says in errors where it comes from.
    pub fn add(&mut self, key: &str, place: &str) -> Result<(), SealError> {
        self.keys.push(parse_identity(key.trim(), &|| place.to_owned())?);
        Ok(())
    }

    /// Adds all secret keys of a file, as `age-keygen` writes it. `passphrase` is asked only if `age -p` has
    /// encrypted the file.
    pub fn add_file(
        &mut self,
        path: &Path,
        passphrase: impl FnOnce(&Path) -> io::Result<SecretString>,
    ) -> Result<(), SealError> {
        let mut file = read_key_file(path)?;
        if is_encrypted(file.expose_secret()) {
            file = open_key_file(path, file.expose_secret(), passphrase)?;
        }
        self.keys.extend(parse_lines(path, file.expose_secret(), parse_identity)?);
        Ok(())
    }

    /// The public keys that belong to them.
    pub fn recipients(&self) -> Recipients {
        let mut recipients = Recipients::none();
        self.keys.iter().for_each(|identity| recipients.insert(identity.to_public()));
        recipients
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identities").field("public", &self.recipients()).finish_non_exhaustive()
    }
}

fn parse_recipient(key: &str, place: &dyn Fn() -> String) -> Result<x25519::Recipient, SealError> {
    if key.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
        return Err(SealError::SecretRecipient { place: place() });
    }
    key.parse().map_err(|_| SealError::Recipient { place: place() })
}

fn parse_identity(key: &str, place: &dyn Fn() -> String) -> Result<x25519::Identity, SealError> {
    key.parse().map_err(|_| SealError::Identity { place: place() })
}

/// Each line that is neither empty nor a comment.
fn parse_lines<T>(
    path: &Path,
    file: &[u8],
    parse: impl Fn(&str, &dyn Fn() -> String) -> Result<T, SealError>,
) -> Result<Vec<T>, SealError> {
    let mut keys = Vec::new();
    for (n, line) in file.split(|byte| *byte == b'\n').enumerate() {
        // What is no text is no key either, and is told as such.
        let line = str::from_utf8(line).unwrap_or("\u{fffd}").trim();
        if !line.is_empty() && !line.starts_with('#') {
            keys.push(parse(line, &|| format!("line {} of {}", n + 1, path.display()))?);
        }
    }
    if keys.is_empty() { Err(SealError::NoKeys { path: path.to_owned() }) } else { Ok(keys) }
}

fn read_key_file(path: &Path) -> Result<SecretSlice<u8>, SealError> {
    let read = |file: File| read_secret(file).map(SecretSlice::from);
    let file = File::open(path).and_then(read);
    let file = file.map_err(|source| SealError::KeyFile { path: path.to_owned(), source })?;
    if file.expose_secret().len() as u64 > KEY_FILE_BYTES_MAX {
        return Err(SealError::KeyFileSize { path: path.to_owned() });
    }
    Ok(file)
}

/// One byte more than a file of keys may have, at most, into memory that does not move while it grows.
fn read_secret(mut input: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(64 << 10);
    (&mut input).take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is_encrypted(file: &[u8]) -> bool {
    file.starts_with(MAGIC) || file.trim_ascii_start().starts_with(b"-----BEGIN AGE ENCRYPTED FILE")
}

/// Opens a file of identities that `age -p` has encrypted, armored or not.
fn open_key_file(
    path: &Path,
    file: &[u8],
    passphrase: impl FnOnce(&Path) -> io::Result<SecretString>,
) -> Result<SecretSlice<u8>, SealError> {
    let path = || path.to_owned();
    let broken = |error| match error {
        DecryptError::ExcessiveWork { required, .. } => {
            SealError::Work { path: path(), work_factor: required }
        }
        DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed => {
            SealError::Passphrase { path: path() }
        }
        DecryptError::Io(source) => SealError::KeyFile { path: path(), source },
        error => SealError::KeyFile { path: path(), source: io::Error::other(error) },
    };
    // Armor is decoded whole, before anything reads it.
    let mut plain = Vec::new();
    ArmoredReader::new(file)
        .read_to_end(&mut plain)
        .map_err(|source| SealError::KeyFile { path: path(), source })?;
    let decryptor = Decryptor::new_buffered(plain.as_slice()).map_err(broken)?;
    if !decryptor.is_scrypt() {
        return Err(SealError::NotByPassphrase { path: path() });
    }
    let passphrase =
        passphrase(&path()).map_err(|source| SealError::NoPassphrase { path: path(), source })?;
    let mut identity = scrypt::Identity::new(passphrase);
    identity.set_max_work_factor(WORK_FACTOR_MAX);
    let identities: [&dyn age::Identity; 1] = [&identity];
    let reader = decryptor.decrypt(identities.into_iter()).map_err(broken)?;
    read_secret(reader)
        .map(SecretSlice::from)
        .map_err(|source| SealError::KeyFile { path: path(), source })
}

/// Encrypts what is written to it, if there are recipients.
pub(super) enum Sealer<W: Write> {
    Plain(W),
    Sealed(StreamWriter<W>),
}

impl<W: Write> Sealer<W> {
    pub(super) fn new(recipients: &Recipients, output: W) -> Result<Self, SealError> {
        if recipients.is_empty() {
            return Ok(Self::Plain(output));
        }
        let keys = recipients.keys.iter().map(|key| key as &dyn age::Recipient);
        let encryptor = Encryptor::with_recipients(keys).map_err(|error| match error {
            EncryptError::Io(error) => SealError::Write(error),
            error => SealError::Write(io::Error::other(error)),
        })?;
        encryptor.wrap_output(output).map(Self::Sealed).map_err(SealError::Write)
    }

    /// Writes the end, without which it would be cut short.
    pub(super) fn finish(self) -> Result<W, SealError> {
        match self {
            Self::Plain(output) => Ok(output),
            Self::Sealed(writer) => writer.finish().map_err(SealError::Write),
        }
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(output) => output.write(bytes),
            Self::Sealed(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(output) => output.flush(),
            Self::Sealed(writer) => writer.flush(),
        }
    }
}

/// A header that was read already, and what follows it.
type HeaderAnd<R> = Chain<Cursor<Vec<u8>>, BufReader<Source<R>>>;

/// Decrypts what is read through it, if it is encrypted.
pub(super) enum Opener<R: Read> {
    Plain(Source<R>),
    // Boxed for its size.
    Sealed(Box<StreamReader<HeaderAnd<R>>>),
}

impl<R: Read> Opener<R> {
    /// Takes the input as it is.
    pub(super) fn plain(input: R) -> Self {
        Self::Plain(Source(input))
    }

    /// Reads the header of an encrypted input.
    pub(super) fn sealed(identities: &Identities, input: R) -> Result<Self, SealError> {
        let mut input = BufReader::with_capacity(64 << 10, Source(input));
        let header = read_header(&mut input)?;
        if identities.is_empty() {
            return Err(SealError::NoIdentity);
        }
        let decryptor =
            Decryptor::new_buffered(Cursor::new(header).chain(input)).map_err(opened)?;
        let keys = identities.keys.iter().map(|key| key as &dyn age::Identity);
        decryptor.decrypt(keys).map(|reader| Self::Sealed(Box::new(reader))).map_err(opened)
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(buffer),
            Self::Sealed(reader) => reader.read(buffer),
        }
    }
}

/// All up to the MAC, but never more than [`HEADER_BYTES_MAX`]: the parser of `age` itself has no bound.
fn read_header(input: &mut impl BufRead) -> Result<Vec<u8>, SealError> {
    let mut header = Vec::new();
    let mut input = input.take(HEADER_BYTES_MAX);
    loop {
        let line = header.len();
        let bytes = input.read_until(b'\n', &mut header).map_err(read_failed)?;
        let line = header.get(line..).unwrap_or_default();
        if line.len() == header.len() && line != MAGIC {
            return Err(SealError::NotAge);
        }
        if bytes == 0 || !line.ends_with(b"\n") {
            let is_over = input.limit() == 0;
            return Err(if is_over { SealError::Header } else { SealError::CutShort });
        }
        if line.starts_with(HEADER_END) {
            return Ok(header);
        }
    }
}

fn opened(error: DecryptError) -> SealError {
    match error {
        DecryptError::NoMatchingKeys => SealError::NotForUs,
        DecryptError::Io(error) => read_failed(error),
        _ => SealError::Header,
    }
}

/// Marks the errors of an input, so that they are not taken for those of the decryption around it.
pub(super) struct Source<R>(R);

/// An error of the input itself.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct SourceError(io::Error);

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => io::Error::other(SourceError(error)),
        })
    }
}

/// What an error that came out of an [`Opener`] means.
pub(super) fn read_failed(error: io::Error) -> SealError {
    match error.downcast::<SourceError>() {
        Ok(SourceError(error)) => SealError::Read(error),
        Err(error) => match error.kind() {
            io::ErrorKind::UnexpectedEof => SealError::CutShort,
            io::ErrorKind::InvalidData => SealError::Damaged,
            _ => SealError::Read(error),
        },
    }
}

#[cfg(test)]
mod tests;
