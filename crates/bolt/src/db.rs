//! A bbolt file, open for reading.

use crate::bucket::{Bucket, Buckets};
use crate::error::BoltError;
use crate::meta::{self, Meta, MetaDefect};
use crate::page::{Page, PageSize, Pgid};

/// A bbolt file, open for reading. It borrows the bytes, and is cheap to copy.
///
/// What follows the last page in use (the digest of a snapshot, or the room that a live file keeps) is
/// not looked at.
#[derive(Clone, Copy)]
pub struct Db<'a> {
    /// The pages up to the high water mark.
    used: &'a [u8],
    meta: Meta,
    spare_defect: Option<(u64, MetaDefect)>,
}

impl<'a> Db<'a> {
    /// Opens a file given as bytes: finds the meta in force and checks that all pages are there.
    /// Reads no other page.
    pub fn open(bytes: &'a [u8]) -> Result<Db<'a>, BoltError> {
        let len = bytes.len() as u64;
        if len < 2 * PageSize::MIN.bytes_u64() {
            return Err(BoltError::TooShort { len });
        }
        let selection = meta::select(bytes)?;
        let meta = selection.meta;
        let used = meta
            .high_water_mark
            .offset(meta.page_size)
            .and_then(|size| usize::try_from(size).ok())
            .and_then(|size| bytes.get(..size))
            .ok_or(BoltError::Truncated {
                len,
                pages: meta.high_water_mark.0,
                needed: u128::from(meta.high_water_mark.0) * u128::from(meta.page_size.bytes_u64()),
            })?;
        Ok(Db { used, meta, spare_defect: selection.spare_defect })
    }

    /// The meta in force.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The meta that is not in force, by its slot (0 or 1), if it is not valid. That is no harm to the
    /// data, but a snapshot as etcd serves it has two valid metas.
    pub fn spare_meta_defect(&self) -> Option<(u64, MetaDefect)> {
        self.spare_defect
    }

    /// The size of all pages.
    pub fn page_size(&self) -> PageSize {
        self.meta.page_size
    }

    /// The first page that was never used: the number of pages in use.
    pub fn high_water_mark(&self) -> Pgid {
        self.meta.high_water_mark
    }

    /// Bytes up to the high water mark: the size of the database, without what follows it.
    pub fn size(&self) -> u64 {
        self.used.len() as u64
    }

    /// All buckets, in the order of their names.
    pub fn buckets(&self) -> Buckets<'a> {
        self.root().buckets()
    }

    /// The bucket of that name, if there is one.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket<'a>>, BoltError> {
        self.root().bucket(name)
    }

    /// The bucket that holds the buckets.
    fn root(&self) -> Bucket<'a> {
        Bucket::root_of(*self)
    }

    /// The pages up to the high water mark.
    pub(crate) fn used(&self) -> &'a [u8] {
        self.used
    }

    /// Page `pgid`, to which `parent` points.
    pub(crate) fn page(&self, pgid: Pgid, parent: Pgid) -> Result<Page<'a>, BoltError> {
        Page::read(self.used, self.meta.page_size, pgid).map_err(|defect| BoltError::Page {
            pgid,
            parent,
            defect,
        })
    }
}

impl std::fmt::Debug for Db<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("size", &self.size()).field("meta", &self.meta).finish()
    }
}
