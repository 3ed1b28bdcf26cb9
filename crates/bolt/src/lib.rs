//! The bbolt file format: read, check, build.
//!
//! A bbolt file is an array of pages. Two of them are metas, the rest are nodes of B+ trees, one tree
//! per bucket:
//!
//! ```text
//!   page 0   page 1   page 2 ...                                 high water mark
//!   | meta   | meta   | branch | leaf | leaf  overflow | free | ... |   (digest of a snapshot)
//! ```
//!
//! * [`Db`] reads. Any input is safe: no panic, no recursion or memory that an input can drive up, and
//!   every loop ends. Keys and values are borrowed from the input.
//! * [`Check`] walks the whole tree once, reports every [`Violation`], and hands all sound pairs to
//!   the same [`Visitor`], so that hashing or copying a file costs no second pass.
//! * [`Builder`] writes a file from sorted pairs in one sequential pass, or makes the [`Patch`] that gives a file other
//!   buckets.
//! * [`Mapped`] maps a file. It is the only module with `unsafe`; all the others work on `&[u8]` and
//!   open nothing.
//!
//! Nothing here knows etcd.

mod bucket;
mod builder;
mod check;
mod cursor;
mod db;
mod error;
mod map;
mod meta;
mod page;

pub use bucket::{Bucket, Buckets, Pair, Pairs};
pub use builder::{
    BuildError, Builder, Built, Freelist, Inline, NESTED_BUCKETS_MAX, Options, Patch,
};
pub use check::{BucketStart, Check, Key, Summary, VIOLATIONS_PER_PAGE_MAX, Violation, Visitor};
pub use db::Db;
pub use error::{BoltError, ElementDefect, PageDefect};
pub use map::Mapped;
pub use meta::{Meta, MetaDefect};
pub use page::{
    BUCKET_HEADER_BYTES, DEPTH_MAX, ELEMENT_BYTES, ELEMENTS_MAX, KEY_BYTES_MAX, PAGE_HEADER_BYTES,
    PageSize, Pgid, Txid, VALUE_BYTES_MAX,
};
