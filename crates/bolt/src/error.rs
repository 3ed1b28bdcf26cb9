//! What can be wrong with a file.

use crate::meta::MetaDefect;
use crate::page::{DEPTH_MAX, ELEMENTS_MAX, KEY_BYTES_MAX, Pgid, VALUE_BYTES_MAX};

/// Why a bbolt file could not be read. Each variant says where; [`remedy`](Self::remedy) says what
/// can be done next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BoltError {
    /// Not even two pages of the smallest size.
    #[error("{len} bytes are too few for a bbolt file")]
    TooShort {
        /// How long the file is.
        len: u64,
    },
    /// There is nothing to start from.
    #[error("neither meta page is valid (meta 0: {meta0}; meta 1: {meta1})")]
    NoValidMeta {
        /// What is wrong with the first.
        meta0: MetaDefect,
        /// What is wrong with the second.
        meta1: MetaDefect,
    },
    /// The file ends before the last page in use.
    #[error("the file has {len} bytes, but its {pages} pages need {needed}")]
    Truncated {
        /// How long the file is.
        len: u64,
        /// The high water mark.
        pages: u64,
        /// How long it must be at least.
        needed: u128,
    },
    /// A page that cannot be a node of the tree.
    #[error("page {pgid}, named by page {parent}: {defect}")]
    Page {
        /// The page.
        pgid: Pgid,
        /// The page that points to it; 0 stands for the meta.
        parent: Pgid,
        /// What is wrong.
        defect: PageDefect,
    },
    /// An element of a page that cannot be one.
    #[error("page {pgid}, element {index}: {defect}")]
    Element {
        /// The page.
        pgid: Pgid,
        /// Which of its elements.
        index: usize,
        /// What is wrong.
        defect: ElementDefect,
    },
    /// An inline bucket whose page image cannot be one.
    #[error("page {pgid}, element {index}: the page in its inline bucket: {defect}")]
    InlineBucket {
        /// The page.
        pgid: Pgid,
        /// Which of its elements.
        index: usize,
        /// What is wrong with the image.
        defect: PageDefect,
    },
    /// A key that is not greater than the one before it.
    #[error("page {pgid}, element {index}: its key is not greater than the key before it")]
    KeyOrder {
        /// The page.
        pgid: Pgid,
        /// Which of its elements.
        index: usize,
    },
    /// A path of more than [`DEPTH_MAX`] pages: the tree has a cycle.
    #[error("page {pgid} is more than {DEPTH_MAX} levels deep")]
    TooDeep {
        /// The page where the limit was met.
        pgid: Pgid,
    },
    /// A walk met more pages than the file has: some are reached more than once.
    #[error("page {pgid} is reached after more pages than the file has")]
    TooManyPages {
        /// The page where the limit was met.
        pgid: Pgid,
    },
}

impl BoltError {
    /// One imperative sentence on what can be done next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::TooShort { .. } => {
                "check that this is the right file and that it was copied whole"
            }
            Self::NoValidMeta { meta0: MetaDefect::Version { .. }, .. }
            | Self::NoValidMeta { meta1: MetaDefect::Version { .. }, .. } => {
                "use a newer release of this program; the file's format is newer"
            }
            Self::NoValidMeta { meta0: MetaDefect::BigEndian, .. } => {
                "take a snapshot on a little-endian host; this file is of a big-endian one"
            }
            Self::NoValidMeta { .. } => {
                "check that this is an etcd snapshot or db file and that it was copied whole"
            }
            Self::Truncated { .. } => "copy the file again, whole, or use another snapshot",
            Self::Page { .. }
            | Self::Element { .. }
            | Self::InlineBucket { .. }
            | Self::KeyOrder { .. }
            | Self::TooDeep { .. }
            | Self::TooManyPages { .. } => {
                "use another snapshot; this one is damaged (a full check lists all findings)"
            }
        }
    }
}

/// Why a page cannot be what a pointer to it says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageDefect {
    /// A meta page is no part of a tree.
    #[error("is a meta page")]
    IsMeta,
    /// No such page.
    #[error("is past the high water mark {hwm}")]
    PastHighWaterMark {
        /// The first page that was never used.
        hwm: Pgid,
    },
    /// The header is another page's.
    #[error("its header says that it is page {found}")]
    IdMismatch {
        /// What the header says.
        found: u64,
    },
    /// Not the kind of page that belongs there.
    #[error("its flags {found:#06x} do not fit its place")]
    Flags {
        /// What the header says.
        found: u16,
    },
    /// More overflow pages than there are pages.
    #[error("its {overflow} overflow pages reach past the high water mark {hwm}")]
    OverflowPastHighWaterMark {
        /// What the header says.
        overflow: u32,
        /// The first page that was never used.
        hwm: Pgid,
    },
    /// More elements than the page has room for, or than any page may have.
    #[error("its count {count} is more than fits, or more than {ELEMENTS_MAX}")]
    Count {
        /// What the header says.
        count: u16,
    },
    /// A branch that leads nowhere.
    #[error("is a branch without elements")]
    EmptyBranch,
    /// An inline bucket without room for a page header.
    #[error("it has {len} bytes, fewer than a page header")]
    InlineTooShort {
        /// How long the page image is.
        len: usize,
    },
    /// An inline bucket cannot have overflow pages.
    #[error("it has {overflow} overflow pages")]
    InlineOverflow {
        /// What the image says.
        overflow: u32,
    },
}

/// Why an element of a page cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ElementDefect {
    /// Key and value do not lie in the page.
    #[error("its key and value (pos {pos}, {ksize} and {vsize} bytes) reach out of the page")]
    OutOfPage {
        /// Distance from the element to its key.
        pos: u32,
        /// Length of the key.
        ksize: u32,
        /// Length of the value.
        vsize: u32,
    },
    /// The key lies among the elements.
    #[error("its key (pos {pos}) lies in the element array")]
    InElementArray {
        /// Distance from the element to its key.
        pos: u32,
    },
    /// bbolt has no empty keys.
    #[error("its key is empty")]
    EmptyKey,
    /// Longer than any key.
    #[error("its key has {len} bytes, more than {KEY_BYTES_MAX}")]
    KeyTooLong {
        /// Length of the key.
        len: u32,
    },
    /// Longer than any value.
    #[error("its value has {len} bytes, more than {VALUE_BYTES_MAX}")]
    ValueTooLong {
        /// Length of the value.
        len: u32,
    },
    /// Flags that bbolt does not know.
    #[error("its flags are {found:#x}")]
    Flags {
        /// What is there.
        found: u32,
    },
    /// A bucket's value that is neither a header alone nor a header and an inline page.
    #[error("its bucket header has {len} bytes")]
    BucketHeader {
        /// Length of the value.
        len: usize,
    },
}
