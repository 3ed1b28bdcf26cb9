//! The checker: one walk over the file that finds everything wrong with its structure, and hands over
//! everything that is right.
//!
//! ```text
//!   metas --> root bucket --> for each bucket: bucket, pair, pair, ..., bucket_end
//!         --> freelist    --> pages that are neither used nor free
//! ```
//!
//! * All [`Violation`]s are reported as they are found. A page that cannot be read costs what is below
//!   it; the walk goes on beside it.
//! * The pairs that the [`Visitor`] gets are in strictly ascending order in each bucket, damaged or not.
//!   In a file without violations they are all pairs.
//! * Each page is walked at most once, so the time is bounded by the size of the file, whatever it says.
//!   Memory is one bit for each page (two with a stored freelist), and the path.
//!
//! bbolt has no checksum on data pages. A changed bit in a value, or in a key that keeps its place in the
//! order, is not seen here; a digest or a hash of the records tells.

mod freelist;
mod order;
mod page_set;
mod report;
mod violation;
mod walk;

use std::ops::ControlFlow;

pub use violation::{Key, Violation};

use crate::db::Db;
use page_set::PageSet;
use walk::Walk;

/// The most violations that are reported one by one for a page; the rest are counted. A page of
/// garbage has hundreds, and the first few say all.
pub const VIOLATIONS_PER_PAGE_MAX: u64 = 16;

/// What a [`Check`] calls. Return [`ControlFlow::Break`] to end the walk.
pub trait Visitor<'a> {
    /// A bucket begins. Buckets inside it come between its pairs, in the order of their names.
    fn bucket(&mut self, bucket: BucketStart<'a>) -> ControlFlow<()> {
        let _ = bucket;
        ControlFlow::Continue(())
    }

    /// The bucket that began last, and has not ended, ends.
    fn bucket_end(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// A sound pair of that bucket.
    fn pair(&mut self, key: &'a [u8], value: &'a [u8]) -> ControlFlow<()> {
        let _ = (key, value);
        ControlFlow::Continue(())
    }

    /// Something is wrong.
    fn violation(&mut self, violation: Violation) -> ControlFlow<()>;
}

/// A bucket that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketStart<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// How many buckets it lies in: 0 for those that [`Db::buckets`] lists.
    pub depth: usize,
    /// Its sequence number.
    pub sequence: u64,
}

/// What a walk has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Buckets that began.
    pub buckets: u64,
    /// Pairs that were handed over.
    pub pairs: u64,
    /// Violations that were found, with those that were only counted.
    pub violations: u64,
    /// Pages that the tree reaches, with overflow pages.
    pub pages: u64,
    /// Whether the visitor ended the walk.
    pub stopped: bool,
}

/// A check of a whole file.
pub struct Check<'a> {
    db: Db<'a>,
}

impl<'a> Check<'a> {
    /// A check of this file; nothing is read yet.
    pub fn new(db: &Db<'a>) -> Check<'a> {
        Check { db: *db }
    }

    /// Walks the file.
    pub fn walk<V: Visitor<'a>>(&self, visitor: &mut V) -> Summary {
        let mut walk = Walk {
            db: self.db,
            visitor,
            summary: Summary::default(),
            reached: PageSet::new(self.db.high_water_mark()),
            handed: None,
        };
        walk.summary.stopped = walk.file().is_break();
        walk.summary
    }

    /// The first `max` violations.
    pub fn violations(&self, max: usize) -> Vec<Violation> {
        let mut first = First { max, found: Vec::new() };
        self.walk(&mut first);
        first.found
    }
}

/// Keeps the first few violations.
struct First {
    max: usize,
    found: Vec<Violation>,
}

impl Visitor<'_> for First {
    fn violation(&mut self, violation: Violation) -> ControlFlow<()> {
        if self.found.len() == self.max {
            return ControlFlow::Break(());
        }
        self.found.push(violation);
        ControlFlow::Continue(())
    }
}
