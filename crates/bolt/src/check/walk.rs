//! The walk itself: metas, then the tree of each bucket, then the freelist.

use std::ops::ControlFlow;

use super::order::{Bounds, Fault, Order};
use super::page_set::PageSet;
use super::report::Reports;
use super::{BucketStart, Key, Summary, Violation, Visitor};
use crate::db::Db;
use crate::page::{
    BranchElement, BucketHeader, DEPTH_MAX, FLAG_META, Header, Kind, LeafElement, Page, Pgid,
};

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

pub(super) struct Walk<'a, 'v, V> {
    pub(super) db: Db<'a>,
    pub(super) visitor: &'v mut V,
    pub(super) summary: Summary,
    pub(super) reached: PageSet,
    /// The last key of the present bucket that was handed over.
    pub(super) handed: Option<&'a [u8]>,
}

impl<'a, V: Visitor<'a>> Walk<'a, '_, V> {
    /// The whole file.
    pub(super) fn file(&mut self) -> ControlFlow<()> {
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
}
