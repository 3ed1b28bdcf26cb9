//! The SHA-256 digest that follows the database in a snapshot.

use sha2::{Digest as _, Sha256};

/// Bytes of the digest.
pub const DIGEST_BYTES: usize = 32;

/// Page sizes are multiples of this, so `size % 512` tells whether a digest follows the database.
pub(crate) const SECTOR_BYTES: usize = 512;

/// A SHA-256 digest; shown in hex.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sha256Digest(pub [u8; DIGEST_BYTES]);

impl Sha256Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = DigestHasher::default();
        hasher.update(bytes);
        hasher.finish()
    }
}

/// Not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 digest has 64 hexadecimal digits")]
pub struct NotADigest;

impl std::str::FromStr for Sha256Digest {
    type Err = NotADigest;

    fn from_str(hex: &str) -> Result<Self, NotADigest> {
        let mut digest = [0; DIGEST_BYTES];
        if hex.len() != 2 * DIGEST_BYTES || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotADigest);
        }
        for (byte, digits) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| NotADigest)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NotADigest)?;
        }
        Ok(Self(digest))
    }
}

impl std::fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// What is computed in one pass over a snapshot file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digests {
    /// SHA-256 of the database: what etcd writes after it.
    pub database: Sha256Digest,
    /// SHA-256 of the whole file, the digest after the database included: what `sha256sum` prints.
    pub file: Sha256Digest,
}

impl Digests {
    /// The digests of a database that `hasher` has taken in, followed by its digest.
    pub fn with_trailer(mut hasher: DigestHasher) -> Self {
        let database = hasher.clone().finish();
        hasher.update(&database.0);
        Self { database, file: hasher.finish() }
    }
}

/// A digest in the making.
#[derive(Clone, Default)]
pub struct DigestHasher(Sha256);

impl DigestHasher {
    /// Takes `bytes` in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes so far.
    pub fn finish(self) -> Sha256Digest {
        Sha256Digest(self.0.finalize().into())
    }
}

/// Splits a file into database and digest. A file copied from a data directory has no digest.
pub fn split_digest(file: &[u8]) -> (&[u8], Option<Sha256Digest>) {
    if file.len() % SECTOR_BYTES != DIGEST_BYTES {
        return (file, None);
    }
    match file.split_last_chunk::<DIGEST_BYTES>() {
        Some((database, digest)) => (database, Some(Sha256Digest(*digest))),
        None => (file, None),
    }
}
