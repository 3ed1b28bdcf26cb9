//! What a verification found wrong.

use crate::digest::Sha256Digest;
use bolt::Violation;
use etcd_schema::{Revision, SchemaError};

/// One thing that is wrong with a snapshot. Unless it [is harmless](Self::is_harmless), it means: do
/// not restore from this file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Finding {
    /// The file is not a bbolt file, or not a whole one.
    #[error("not a usable bbolt file: {0}")]
    NotBolt(bolt::BoltError),
    /// The tree of pages is damaged.
    #[error("{0}")]
    Tree(Violation),
    /// A file made by `snapshot save` ends with a digest; this one has none.
    #[error(
        "there is no SHA-256 digest at the end: the file is cut, or was copied from a data directory"
    )]
    DigestMissing,
    /// The bytes are not those that etcd sent.
    #[error("the SHA-256 digest is {computed}, but the file says {stored}")]
    DigestWrong {
        /// Digest at the end of the file.
        stored: Sha256Digest,
        /// Digest of the bytes before it.
        computed: Sha256Digest,
    },
    /// A bbolt file, but not etcd's.
    #[error("bucket {bucket:?} is missing: this is not etcd's database")]
    NotEtcd {
        /// Name of the bucket.
        bucket: &'static str,
    },
    /// etcd's buckets all stand at the top.
    #[error("bucket {name:?} stands inside another one: this is not etcd's database")]
    NestedBucket {
        /// Name of the bucket; what is not UTF-8 is replaced.
        name: String,
    },
    /// A record of bucket `key` that etcd would not write.
    #[error("record {revision}: {defect}")]
    Record {
        /// Its revision.
        revision: Revision,
        /// What is wrong.
        defect: RecordDefect,
    },
    /// A key or value that does not parse.
    #[error("bucket {bucket:?}: {error}")]
    Value {
        /// Bucket it stands in.
        bucket: String,
        /// What is wrong.
        error: SchemaError,
    },
}

impl Finding {
    /// Whether the data does not depend on what is wrong: the spare meta page is never read when the
    /// other is in force.
    pub fn is_harmless(&self) -> bool {
        matches!(self, Self::Tree(Violation::SpareMeta { .. }))
    }
}

/// Why a record is not one that etcd writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordDefect {
    /// `mod_revision` is always the record's own main revision.
    #[error("its mod_revision is {found}")]
    ModRevision {
        /// What it says.
        found: i64,
    },
    /// A key is created before or when it is changed, at revision 1 at the earliest.
    #[error("its create_revision is {found}")]
    CreateRevision {
        /// What it says.
        found: i64,
    },
    /// Versions count from 1.
    #[error("its version is {found}")]
    Version {
        /// What it says.
        found: i64,
    },
    /// Only the marker of a bumped revision has no key.
    #[error("it has no key")]
    NoKey,
    /// A tombstone holds the key and nothing else.
    #[error("it is a tombstone, but holds more than the key")]
    TombstoneWithValue,
    /// Above the compact revision each revision has its records, numbered from 0.
    #[error("it comes next after {previous}: what was between them is missing")]
    Gap {
        /// The record before it, or the revision that the store began at.
        previous: Revision,
    },
}
