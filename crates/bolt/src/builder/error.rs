//! Why a file could not be built.

use std::io;

use super::NESTED_BUCKETS_MAX;
use crate::check::Key;
use crate::error::BoltError;
use crate::page::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// Why a file could not be built. A refused key or value leaves the builder as it was; after a failed
/// write it can only be dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A key that is not greater than the one before it in the same bucket.
    #[error("key {key} is not greater than {previous} before it")]
    KeyOrder {
        /// The key that was refused.
        key: Key,
        /// The one before it.
        previous: Key,
    },
    /// bbolt has no empty keys or bucket names.
    #[error("a key or bucket name is empty")]
    EmptyKey,
    /// Longer than any key.
    #[error("key {key} has {len} bytes, more than {KEY_BYTES_MAX}")]
    KeyTooLong {
        /// The key that was refused.
        key: Key,
        /// Its length.
        len: usize,
    },
    /// Longer than any value.
    #[error("the value of key {key} has {len} bytes, more than {VALUE_BYTES_MAX}")]
    ValueTooLong {
        /// The key of the value.
        key: Key,
        /// Length of the value.
        len: usize,
    },
    /// A pair, or the end of a bucket, where no bucket is open.
    #[error("no bucket is open")]
    NoBucket,
    /// A bucket in a bucket in a bucket, and so on.
    #[error("buckets are nested more than {NESTED_BUCKETS_MAX} deep")]
    NestedTooDeep,
    /// The end of the file in the middle of a bucket.
    #[error("bucket {name} is still open")]
    BucketOpen {
        /// The name of the bucket.
        name: Key,
    },
    /// The end of the file after a write failed.
    #[error("an earlier write failed, so the file cannot be finished")]
    Broken,
    /// A fill that is no percentage, or 0.
    #[error("pages cannot be filled to {found} %")]
    FillPercent {
        /// What was asked for.
        found: u8,
    },
    /// Each meta has a transaction id of its own: 0 has none before it, and the greatest ones none after them.
    #[error("the transaction id leaves none for the other meta")]
    Txid,
    /// The file that is amended cannot be read.
    #[error(transparent)]
    Read(#[from] BoltError),
    /// A write failed.
    #[error("cannot write at offset {offset}")]
    Write {
        /// Bytes of the file before the failed write, or before the buffer it belongs to.
        offset: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl BuildError {
    /// One imperative sentence on what can be done next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Write { .. } | Self::Broken => {
                "free some space or check the disk, then try again from the start"
            }
            Self::KeyOrder { .. } | Self::EmptyKey | Self::Read(_) => {
                "check the source of the records; they are damaged or not sorted"
            }
            Self::KeyTooLong { .. } | Self::ValueTooLong { .. } | Self::NestedTooDeep => {
                "leave out or shorten the record; bbolt cannot hold it"
            }
            Self::NoBucket | Self::BucketOpen { .. } | Self::FillPercent { .. } | Self::Txid => {
                "report this as a bug, with the command and its output"
            }
        }
    }
}
