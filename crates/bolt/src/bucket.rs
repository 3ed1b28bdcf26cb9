//! Buckets: a sorted map of keys to values, or to further buckets.

use std::fmt;

use crate::cursor::Cursor;
use crate::db::Db;
use crate::error::BoltError;
use crate::page::{BucketHeader, LeafElement, Page, Pgid};

/// A key and its value.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

/// A bucket. It is cheap to copy and borrows nothing but the file.
#[derive(Clone, Copy)]
pub struct Bucket<'a> {
    db: Db<'a>,
    name: &'a [u8],
    sequence: u64,
    tree: Tree<'a>,
    /// The value of the element that names it.
    value: &'a [u8],
}

/// Where a bucket's tree is.
#[derive(Clone, Copy)]
pub(crate) enum Tree<'a> {
    /// Pages of its own, and the page that points to the root (0 stands for the meta).
    Pages { root: Pgid, parent: Pgid },
    /// A page image in the element of the bucket.
    Inline(Page<'a>),
}

impl<'a> Bucket<'a> {
    /// The bucket that holds the buckets.
    pub(crate) fn root_of(db: Db<'a>) -> Bucket<'a> {
        let tree = Tree::Pages { root: db.meta().root, parent: Pgid(0) };
        Bucket { db, name: b"", sequence: db.meta().sequence, tree, value: b"" }
    }

    /// The bucket that an element of page `holder` describes.
    fn from_element(
        db: Db<'a>,
        element: LeafElement<'a>,
        holder: Pgid,
        index: usize,
    ) -> Result<Bucket<'a>, BoltError> {
        let header = BucketHeader::decode(element.value).map_err(|defect| BoltError::Element {
            pgid: holder,
            index,
            defect,
        })?;
        let tree = if header.root.0 == 0 {
            let image = Page::read_inline(header.rest, holder)
                .map_err(|defect| BoltError::InlineBucket { pgid: holder, index, defect })?;
            Tree::Inline(image)
        } else {
            Tree::Pages { root: header.root, parent: holder }
        };
        let (name, value) = (element.key, element.value);
        Ok(Bucket { db, name, sequence: header.sequence, tree, value })
    }

    /// The bucket's name.
    pub fn name(&self) -> &'a [u8] {
        self.name
    }

    /// The bucket's sequence number; etcd leaves it at 0.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether the bucket lies in the element that names it, with no page of its own.
    pub fn is_inline(&self) -> bool {
        matches!(self.tree, Tree::Inline(_))
    }

    /// The root page of the bucket's tree, unless it is inline.
    pub fn root(&self) -> Option<Pgid> {
        match self.tree {
            Tree::Pages { root, .. } => Some(root),
            Tree::Inline(_) => None,
        }
    }

    /// The header, and the page image of an inline bucket.
    pub(crate) fn value(&self) -> &'a [u8] {
        self.value
    }

    /// The pages at the right edge of the tree, from the root down.
    pub(crate) fn right_edge(&self) -> Result<Vec<Page<'a>>, BoltError> {
        crate::cursor::right_edge(self.db, self.tree)
    }

    /// All pairs, in key order. Nested buckets are left out.
    pub fn iter(&self) -> Pairs<'a> {
        Pairs { cursor: Cursor::first(self.db, self.tree) }
    }

    /// The pairs from the first key that is not less than `from`, in key order.
    pub fn range_from(&self, from: &[u8]) -> Pairs<'a> {
        Pairs { cursor: Cursor::seek(self.db, self.tree, from) }
    }

    /// The value of a key, if there is one and it is not a nested bucket.
    pub fn get(&self, key: &[u8]) -> Result<Option<&'a [u8]>, BoltError> {
        let found = self.find(key)?;
        Ok(found.filter(|found| !found.element.is_bucket).map(|found| found.element.value))
    }

    /// The pair with the greatest key, if there is a pair. Reads one path of the tree, not all of it.
    pub fn last(&self) -> Result<Option<Pair<'a>>, BoltError> {
        let last = crate::cursor::last_pair(self.db, self.tree)?;
        Ok(last.map(|element| (element.key, element.value)))
    }

    /// The buckets in this one, in the order of their names.
    pub fn buckets(&self) -> Buckets<'a> {
        Buckets { db: self.db, cursor: Cursor::first(self.db, self.tree) }
    }

    /// The bucket of that name in this one, if there is one.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket<'a>>, BoltError> {
        match self.find(name)? {
            Some(found) if found.element.is_bucket => {
                Bucket::from_element(self.db, found.element, found.pgid, found.index).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn find(&self, key: &[u8]) -> Result<Option<Found<'a>>, BoltError> {
        let found = Cursor::seek(self.db, self.tree, key).next().transpose()?;
        Ok(found.filter(|found| found.element.key == key))
    }
}

impl<'a> IntoIterator for Bucket<'a> {
    type Item = Result<Pair<'a>, BoltError>;
    type IntoIter = Pairs<'a>;

    fn into_iter(self) -> Pairs<'a> {
        self.iter()
    }
}

impl fmt::Debug for Bucket<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("name", &self.name.escape_ascii().to_string())
            .field("root", &self.root())
            .finish()
    }
}

/// An element, and where it is.
#[derive(Clone, Copy)]
pub(crate) struct Found<'a> {
    pub(crate) pgid: Pgid,
    pub(crate) index: usize,
    pub(crate) element: LeafElement<'a>,
}

/// The pairs of a bucket, in strictly ascending key order. Ends after the first error.
pub struct Pairs<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<Pair<'a>, BoltError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.cursor.next()? {
                Ok(found) if found.element.is_bucket => {}
                Ok(found) => return Some(Ok((found.element.key, found.element.value))),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl std::iter::FusedIterator for Pairs<'_> {}

/// The buckets in a file or in a bucket, in the order of their names. A bucket that cannot be read is
/// an error, and the next ones follow; damage to the tree that holds them ends the iteration.
pub struct Buckets<'a> {
    db: Db<'a>,
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Buckets<'a> {
    type Item = Result<Bucket<'a>, BoltError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let found = match self.cursor.next()? {
                Ok(found) => found,
                Err(error) => return Some(Err(error)),
            };
            if found.element.is_bucket {
                let Found { pgid, index, element } = found;
                return Some(Bucket::from_element(self.db, element, pgid, index));
            }
        }
    }
}

impl std::iter::FusedIterator for Buckets<'_> {}
