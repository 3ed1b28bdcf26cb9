//! What a check can find.

use std::fmt;

use crate::error::{ElementDefect, PageDefect};
use crate::meta::MetaDefect;
use crate::page::{DEPTH_MAX, Pgid};

/// Something that no sound file has. Offsets are from the start of the file, to the element in question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are named as in the messages")]
pub enum Violation {
    /// The meta that is not in force is broken. The data does not depend on it.
    #[error("meta {slot} is not valid: {defect}; the other one is in force")]
    SpareMeta { slot: u64, defect: MetaDefect },

    /// The page header before a valid meta is not one of a meta page.
    #[error("meta {slot}: its page header says page {id}, flags {flags:#06x}")]
    MetaHeader { slot: u64, id: u64, flags: u16 },

    /// A page that cannot be part of a tree. What is below it is lost.
    #[error("page {pgid}, named by {}: {defect}", Parent(*parent))]
    Page { pgid: Pgid, parent: Pgid, defect: PageDefect },

    /// A page with two places in the tree, or a cycle.
    #[error("page {pgid}, named by {}, is reached a second time", Parent(*parent))]
    ReachedTwice { pgid: Pgid, parent: Pgid },

    /// A path longer than any sound file's.
    #[error("page {pgid}, named by {}, is more than {DEPTH_MAX} levels deep", Parent(*parent))]
    TooDeep { pgid: Pgid, parent: Pgid },

    /// An element that cannot be read.
    #[error("page {pgid}, element {index} (offset {offset}): {defect}")]
    Element { pgid: Pgid, index: usize, offset: u64, defect: ElementDefect },

    /// An inline bucket whose page image cannot be one. What is in it is lost.
    #[error(
        "page {pgid}, element {index} (offset {offset}): the page in its inline bucket: {defect}"
    )]
    InlineBucket { pgid: Pgid, index: usize, offset: u64, defect: PageDefect },

    /// Data that overlaps, or leaves a gap: a position or a size is wrong.
    #[error(
        "page {pgid}, element {index} (offset {offset}): its data starts at byte {found} of the page, \
         that of the element before ends at {expected}"
    )]
    Layout { pgid: Pgid, index: usize, offset: u64, expected: usize, found: usize },

    /// A key out of order or there twice.
    #[error(
        "page {pgid}, element {index} (offset {offset}): key {key} is not greater than {previous} \
         before it"
    )]
    KeyOrder { pgid: Pgid, index: usize, offset: u64, key: Key, previous: Key },

    /// A key that a search would not find: it belongs further to the left.
    #[error(
        "page {pgid}, element {index} (offset {offset}): key {key} is less than the separator \
         {separator} that leads to it"
    )]
    BelowSeparator { pgid: Pgid, index: usize, offset: u64, key: Key, separator: Key },

    /// A key that a search would not find: it belongs further to the right.
    #[error(
        "page {pgid}, element {index} (offset {offset}): key {key} is not less than the next \
         separator {separator}"
    )]
    AboveSeparator { pgid: Pgid, index: usize, offset: u64, key: Key, separator: Key },

    /// The root bucket holds buckets and nothing else.
    #[error("page {pgid}, element {index} (offset {offset}): key {key} is in no bucket")]
    PairOutsideBucket { pgid: Pgid, index: usize, offset: u64, key: Key },

    /// The stored freelist cannot be read.
    #[error("freelist page {pgid}: {defect}")]
    Freelist { pgid: Pgid, defect: PageDefect },

    /// The freelist has a page that does not exist, or a meta page.
    #[error("freelist page {freelist}: page {pgid} in it is not between 2 and {hwm}")]
    FreeOutOfRange { freelist: Pgid, pgid: Pgid, hwm: Pgid },

    /// The freelist has a page twice.
    #[error("freelist page {freelist}: page {pgid} is in it twice")]
    FreeTwice { freelist: Pgid, pgid: Pgid },

    /// The freelist has a page that the tree reaches: bbolt would write over it.
    #[error("freelist page {freelist}: page {pgid} is in it, but in use")]
    FreeButUsed { freelist: Pgid, pgid: Pgid },

    /// Pages that the tree does not reach and that the freelist does not have.
    #[error("freelist page {freelist}: neither used nor free: pages {first} to {last}")]
    Unaccounted { freelist: Pgid, first: Pgid, last: Pgid },

    /// What else is wrong with a page.
    #[error("page {pgid}: {count} more findings")]
    More { pgid: Pgid, count: u64 },
}

impl Violation {
    /// Whether pairs may be missing or wrong. A broken spare meta, or a wrong freelist, is a danger to
    /// whoever writes to the file; everything in it can still be read.
    pub fn concerns_data(&self) -> bool {
        match self {
            Self::SpareMeta { .. }
            | Self::MetaHeader { .. }
            | Self::Freelist { .. }
            | Self::FreeOutOfRange { .. }
            | Self::FreeTwice { .. }
            | Self::FreeButUsed { .. }
            | Self::Unaccounted { .. }
            | Self::More { .. } => false, // the findings before it say
            Self::Page { .. }
            | Self::ReachedTwice { .. }
            | Self::TooDeep { .. }
            | Self::Element { .. }
            | Self::InlineBucket { .. }
            | Self::Layout { .. }
            | Self::KeyOrder { .. }
            | Self::BelowSeparator { .. }
            | Self::AboveSeparator { .. }
            | Self::PairOutsideBucket { .. } => true,
        }
    }
}

/// Names the page that points to another; page 0 stands for the meta in force.
struct Parent(Pgid);

impl fmt::Display for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Pgid(0) => f.write_str("the meta"),
            pgid => write!(f, "page {pgid}"),
        }
    }
}

/// A key in a message: in hex, and cut if it is long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    head: Vec<u8>,
    len: usize,
}

impl Key {
    /// Bytes of a key that are shown: more than a revision key has, and it still fits on a line.
    const HEAD_BYTES_MAX: usize = 32;

    /// Keeps what is shown of a key.
    pub fn new(key: &[u8]) -> Key {
        Key { head: key[..key.len().min(Self::HEAD_BYTES_MAX)].to_vec(), len: key.len() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.head {
            write!(f, "{byte:02x}")?;
        }
        if self.len > self.head.len() {
            write!(f, "... ({} bytes)", self.len)?;
        }
        Ok(())
    }
}
