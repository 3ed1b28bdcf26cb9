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

mod page_set;
mod violation;

use std::ops::ControlFlow;

pub use violation::{Key, Violation};

use crate::db::Db;
use crate::error::{ElementDefect, PageDefect};
use crate::page::{
    BranchElement, BucketHeader, DEPTH_MAX, Extent, FLAG_FREELIST, FLAG_META, Header, Kind,
    LeafElement, Page, Pgid,
};
use page_set::PageSet;

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

/// Where keys of a page must lie: `lower` is the separator that leads to it, `upper` the next one.
#[derive(Clone, Copy)]
struct Bounds<'a> {
    lower: Option<&'a [u8]>,
    upper: Option<&'a [u8]>,
}

impl Bounds<'_> {
    const NONE: Bounds<'static> = Bounds { lower: None, upper: None };
}

/// Where a page is in the tree of trees.
#[derive(Clone, Copy)]
struct Place {
    /// Pages above it, in all buckets.
    depth: usize,
    /// Buckets around it; 0 is the root bucket, which holds nothing but buckets.
    buckets: usize,
}

impl Place {
    fn below(self) -> Place {
        Place { depth: self.depth + 1, ..self }
    }
}

/// The reports of one page.
#[derive(Default)]
struct Reports {
    count: u64,
}

struct Walk<'a, 'v, V> {
    db: Db<'a>,
    visitor: &'v mut V,
    summary: Summary,
    reached: PageSet,
    /// The last key of the present bucket that was handed over.
    handed: Option<&'a [u8]>,
}

impl<'a, V: Visitor<'a>> Walk<'a, '_, V> {
    fn file(&mut self) -> ControlFlow<()> {
        self.metas()?;
        let place = Place { depth: 0, buckets: 0 };
        self.tree(self.db.meta().root, Pgid(0), Bounds::NONE, place)?;
        self.summary.pages = self.reached.count();
        match self.db.meta().freelist {
            Some(pgid) => self.freelist(pgid),
            None => ControlFlow::Continue(()),
        }
    }

    fn metas(&mut self) -> ControlFlow<()> {
        let spare = self.db.spare_meta_defect();
        if let Some((slot, defect)) = spare {
            self.violation(Violation::SpareMeta { slot, defect })?;
        }
        for slot in [0, 1] {
            if spare.is_some_and(|(broken, _)| broken == slot) {
                continue;
            }
            let page =
                self.db.used().chunks(self.db.page_size().bytes()).nth(usize::from(slot == 1));
            let Some(header) = page.and_then(|page| page.first_chunk()) else { continue };
            let header = Header::decode(header);
            if header.id != slot || header.flags != FLAG_META {
                let Header { id, flags, .. } = header;
                self.violation(Violation::MetaHeader { slot, id, flags })?;
            }
        }
        ControlFlow::Continue(())
    }

    /// The tree below page `pgid`.
    fn tree(
        &mut self,
        pgid: Pgid,
        parent: Pgid,
        bounds: Bounds<'a>,
        place: Place,
    ) -> ControlFlow<()> {
        if self.reached.contains(pgid) {
            return self.violation(Violation::ReachedTwice { pgid, parent });
        }
        if place.depth == DEPTH_MAX {
            return self.violation(Violation::TooDeep { pgid, parent });
        }
        self.reached.insert(pgid, 1);
        let page = match Page::read(self.db.used(), self.db.page_size(), pgid) {
            Ok(page) => page,
            Err(defect) => return self.violation(Violation::Page { pgid, parent, defect }),
        };
        if let Some(pgid) = self.reached.insert(Pgid(pgid.0 + 1), page.pages - 1) {
            return self.violation(Violation::ReachedTwice { pgid, parent });
        }
        match page.kind {
            Kind::Branch => self.branch(&page, bounds, place),
            Kind::Leaf => self.leaf(&page, bounds, place),
        }
    }

    fn branch(&mut self, page: &Page<'a>, bounds: Bounds<'a>, place: Place) -> ControlFlow<()> {
        let mut reports = Reports::default();
        let mut order = Order { bounds, last: None };
        let mut expected = Some(page.data_start());
        for index in 0..page.count() {
            let mut lower = None;
            match page.branch(index) {
                Ok(element) => {
                    let BranchElement { start, key, .. } = element;
                    self.layout(page, index, start, expected, &mut reports)?;
                    expected = Some(start + key.len());
                    match order.admit(key) {
                        Ok(()) => lower = Some(key),
                        Err(fault) => self.disorder(page, index, key, fault, &mut reports)?,
                    }
                }
                Err(defect) => {
                    expected = None;
                    self.element_defect(page, index, defect, &mut reports)?;
                }
            }
            let upper = self.separator_after(page, index, lower).or(bounds.upper);
            self.tree(page.child(index), page.id, Bounds { lower, upper }, place.below())?;
        }
        self.rest_of(page.id, &reports)
    }

    /// The separator after element `index`, if it is of use as a bound: what is wrong with it is
    /// reported when its turn comes.
    fn separator_after(
        &self,
        page: &Page<'a>,
        index: usize,
        lower: Option<&'a [u8]>,
    ) -> Option<&'a [u8]> {
        let next = index + 1;
        if next == page.count() {
            return None;
        }
        page.branch(next).ok().map(|element| element.key).filter(|key| Some(*key) > lower)
    }

    fn leaf(&mut self, page: &Page<'a>, bounds: Bounds<'a>, place: Place) -> ControlFlow<()> {
        let mut reports = Reports::default();
        let mut order = Order { bounds: self.leaf_bounds(page, bounds), last: self.handed };
        let mut expected = Some(page.data_start());
        // An element is handed over when the next one is seen to start where it ends, with a greater key:
        // if not, one of the two is wrong, and nobody can say which.
        let mut waiting: Option<(usize, LeafElement<'a>)> = None;
        for index in 0..page.count() {
            let element = match page.leaf(index) {
                Ok(element) => element,
                Err(defect) => {
                    expected = None;
                    self.element_defect(page, index, defect, &mut reports)?;
                    continue;
                }
            };
            let fits = expected.is_none_or(|expected| expected == element.start);
            let admitted = order.admit(element.key);
            let agree = fits && !matches!(admitted, Err(Fault::NotAscending(_)));
            if let Some((index, element)) = waiting.take()
                && agree
            {
                self.element(page, index, element, place, &mut reports)?;
            }
            if !fits {
                self.layout(page, index, element.start, expected, &mut reports)?;
            }
            expected = Some(element.start + element.key.len() + element.value.len());
            match admitted {
                Ok(()) if fits => waiting = Some((index, element)),
                Ok(()) => {}
                Err(fault) => self.disorder(page, index, element.key, fault, &mut reports)?,
            }
        }
        if let Some((index, element)) = waiting {
            self.element(page, index, element, place, &mut reports)?;
        }
        self.rest_of(page.id, &reports)
    }

    /// The bounds of a leaf, without the upper one if the last key keeps it: keys ascend, so the others
    /// keep it too, and need not be compared with it one by one.
    fn leaf_bounds(&self, page: &Page<'a>, bounds: Bounds<'a>) -> Bounds<'a> {
        let last = page.count().checked_sub(1).and_then(|last| page.leaf(last).ok());
        let upper = bounds.upper.filter(|upper| last.is_none_or(|last| last.key >= *upper));
        Bounds { upper, ..bounds }
    }

    /// A sound element of a leaf: a pair or a bucket.
    #[inline]
    fn element(
        &mut self,
        page: &Page<'a>,
        index: usize,
        element: LeafElement<'a>,
        place: Place,
        reports: &mut Reports,
    ) -> ControlFlow<()> {
        if element.is_bucket {
            self.handed = Some(element.key);
            return self.bucket(page, index, element, place, reports);
        }
        if place.buckets == 0 {
            let (pgid, key) = (page.id, Key::new(element.key));
            let offset = self.offset(page, index);
            let violation = Violation::PairOutsideBucket { pgid, index, offset, key };
            return self.page_violation(reports, violation);
        }
        self.handed = Some(element.key);
        self.summary.pairs += 1;
        self.visitor.pair(element.key, element.value)
    }

    fn bucket(
        &mut self,
        page: &Page<'a>,
        index: usize,
        element: LeafElement<'a>,
        place: Place,
        reports: &mut Reports,
    ) -> ControlFlow<()> {
        let header = match BucketHeader::decode(element.value) {
            Ok(header) => header,
            Err(defect) => return self.element_defect(page, index, defect, reports),
        };
        let (name, depth, sequence) = (element.key, place.buckets, header.sequence);
        self.summary.buckets += 1;
        self.visitor.bucket(BucketStart { name, depth, sequence })?;
        let outer = self.handed.take();
        let inside = Place { buckets: place.buckets + 1, ..place.below() };
        if header.root.0 == 0 {
            self.inline(header.rest, page, index, inside)?;
        } else {
            self.tree(header.root, page.id, Bounds::NONE, inside)?;
        }
        self.handed = outer;
        self.visitor.bucket_end()
    }

    /// The page image of an inline bucket, in element `index` of `holder`.
    fn inline(
        &mut self,
        image: &'a [u8],
        holder: &Page<'a>,
        index: usize,
        place: Place,
    ) -> ControlFlow<()> {
        let pgid = holder.id;
        if place.depth == DEPTH_MAX {
            return self.violation(Violation::TooDeep { pgid, parent: pgid });
        }
        match Page::read_inline(image, pgid) {
            Ok(page) => self.leaf(&page, Bounds::NONE, place),
            Err(defect) => {
                let offset = self.offset(holder, index);
                self.violation(Violation::InlineBucket { pgid, index, offset, defect })
            }
        }
    }

    /// The stored freelist, against the pages that the tree reaches.
    fn freelist(&mut self, pgid: Pgid) -> ControlFlow<()> {
        let ids = match free_ids(&self.db, pgid) {
            Ok((pages, ids)) => {
                if let Some(pgid) = self.reached.insert(pgid, pages) {
                    self.violation(Violation::ReachedTwice { pgid, parent: Pgid(0) })?;
                }
                ids
            }
            Err(defect) => return self.violation(Violation::Freelist { pgid, defect }),
        };
        let hwm = self.db.high_water_mark();
        let mut free = PageSet::new(hwm);
        let mut reports = Reports::default();
        for id in ids {
            let id = Pgid(u64::from_le_bytes(*id));
            let violation = if id.0 < 2 || id >= hwm {
                Violation::FreeOutOfRange { freelist: pgid, pgid: id, hwm }
            } else if free.insert(id, 1).is_some() {
                Violation::FreeTwice { freelist: pgid, pgid: id }
            } else if self.reached.contains(id) {
                Violation::FreeButUsed { freelist: pgid, pgid: id }
            } else {
                continue;
            };
            self.page_violation(&mut reports, violation)?;
        }
        self.unaccounted(&free, pgid, &mut reports)?;
        self.rest_of(pgid, &reports)
    }

    /// Runs of pages that are neither used nor free.
    fn unaccounted(
        &mut self,
        free: &PageSet,
        freelist: Pgid,
        reports: &mut Reports,
    ) -> ControlFlow<()> {
        let hwm = self.db.high_water_mark().0;
        let mut first = None;
        for pgid in (2..=hwm).map(Pgid) {
            let lost = pgid.0 < hwm && !self.reached.contains(pgid) && !free.contains(pgid);
            match (first, lost) {
                (None, true) => first = Some(pgid),
                (Some(run), false) => {
                    let last = Pgid(pgid.0 - 1);
                    self.page_violation(
                        reports,
                        Violation::Unaccounted { freelist, first: run, last },
                    )?;
                    first = None;
                }
                _ => {}
            }
        }
        ControlFlow::Continue(())
    }

    fn violation(&mut self, violation: Violation) -> ControlFlow<()> {
        self.summary.violations += 1;
        self.visitor.violation(violation)
    }

    /// A violation of a page that can have many.
    #[cold]
    fn page_violation(&mut self, reports: &mut Reports, violation: Violation) -> ControlFlow<()> {
        reports.count += 1;
        self.summary.violations += 1;
        if reports.count > VIOLATIONS_PER_PAGE_MAX {
            return ControlFlow::Continue(());
        }
        self.visitor.violation(violation)
    }

    /// Says how many violations of a page were not reported one by one.
    fn rest_of(&mut self, pgid: Pgid, reports: &Reports) -> ControlFlow<()> {
        match reports.count.saturating_sub(VIOLATIONS_PER_PAGE_MAX) {
            0 => ControlFlow::Continue(()),
            count => self.visitor.violation(Violation::More { pgid, count }),
        }
    }

    #[cold]
    fn element_defect(
        &mut self,
        page: &Page<'a>,
        index: usize,
        defect: ElementDefect,
        reports: &mut Reports,
    ) -> ControlFlow<()> {
        let offset = self.offset(page, index);
        self.page_violation(reports, Violation::Element { pgid: page.id, index, offset, defect })
    }

    /// Reports an element whose data does not start where it should.
    fn layout(
        &mut self,
        page: &Page<'a>,
        index: usize,
        found: usize,
        expected: Option<usize>,
        reports: &mut Reports,
    ) -> ControlFlow<()> {
        match expected {
            Some(expected) if expected != found => {
                let offset = self.offset(page, index);
                let pgid = page.id;
                let violation = Violation::Layout { pgid, index, offset, expected, found };
                self.page_violation(reports, violation)
            }
            _ => ControlFlow::Continue(()),
        }
    }

    #[cold]
    fn disorder(
        &mut self,
        page: &Page<'a>,
        index: usize,
        key: &'a [u8],
        fault: Fault<'a>,
        reports: &mut Reports,
    ) -> ControlFlow<()> {
        let (pgid, offset, key) = (page.id, self.offset(page, index), Key::new(key));
        let violation = match fault {
            Fault::NotAscending(previous) => {
                Violation::KeyOrder { pgid, index, offset, key, previous: Key::new(previous) }
            }
            Fault::BelowLower(separator) => Violation::BelowSeparator {
                pgid,
                index,
                offset,
                key,
                separator: Key::new(separator),
            },
            Fault::AboveUpper(separator) => Violation::AboveSeparator {
                pgid,
                index,
                offset,
                key,
                separator: Key::new(separator),
            },
        };
        self.page_violation(reports, violation)
    }

    /// Where in the file an element is.
    fn offset(&self, page: &Page<'a>, index: usize) -> u64 {
        (page.element_address(index) - self.db.used().as_ptr().addr()) as u64
    }
}

/// What is asked of the next key.
struct Order<'a> {
    bounds: Bounds<'a>,
    /// The greatest key so far.
    last: Option<&'a [u8]>,
}

/// Why a key is not where it may be.
enum Fault<'a> {
    NotAscending(&'a [u8]),
    BelowLower(&'a [u8]),
    AboveUpper(&'a [u8]),
}

impl<'a> Order<'a> {
    /// Takes a key that is in order. One that is not is left out, so that it does not make all that
    /// follow look wrong.
    #[inline]
    fn admit(&mut self, key: &'a [u8]) -> Result<(), Fault<'a>> {
        if let Some(lower) = self.bounds.lower
            && key < lower
        {
            return Err(Fault::BelowLower(lower));
        }
        if let Some(last) = self.last
            && key <= last
        {
            return Err(Fault::NotAscending(last));
        }
        if let Some(upper) = self.bounds.upper
            && key >= upper
        {
            return Err(Fault::AboveUpper(upper));
        }
        self.bounds.lower = None; // what ascends from here is above it
        self.last = Some(key);
        Ok(())
    }
}

/// How many pages the freelist takes, and the page ids in it.
///
/// ```text
///   | page header, count = n       | n ids, u64 each        |
///   | page header, count = 0xFFFF  | n as u64 | n ids       |
/// ```
fn free_ids<'a>(db: &Db<'a>, pgid: Pgid) -> Result<(u64, &'a [[u8; 8]]), PageDefect> {
    let Extent { header, bytes } = Extent::read(db.used(), db.page_size(), pgid)?;
    if header.flags != FLAG_FREELIST {
        return Err(PageDefect::Flags { found: header.flags });
    }
    let too_many = PageDefect::Count { count: header.count };
    let (words, _) = bytes[crate::page::PAGE_HEADER_BYTES..].as_chunks();
    let ids = if header.count == u16::MAX {
        let (count, ids) = words.split_first().ok_or(too_many)?;
        let count = usize::try_from(u64::from_le_bytes(*count)).ok();
        count.and_then(|count| ids.get(..count))
    } else {
        words.get(..usize::from(header.count))
    };
    Ok((u64::from(header.overflow) + 1, ids.ok_or(too_many)?))
}
