//! A place in a bucket's tree, and the way onward from it.
//!
//! * The path is kept, not the pages behind it: memory is [`DEPTH_MAX`] frames at most.
//! * A sound tree reaches each page once, so a walk that has met more pages than the file has is
//!   stopped. Without that, a few branch pages that point to each other many times would keep a walk
//!   busy for ever.

use crate::bucket::{Found, Tree};
use crate::db::Db;
use crate::error::BoltError;
use crate::page::{DEPTH_MAX, Kind, LeafElement, Page, Pgid};

/// An iterator over the elements of a tree, in key order. Ends after the first error.
pub(crate) struct Cursor<'a> {
    path: Path<'a>,
    previous: Option<&'a [u8]>,
    /// What went wrong on the way to the first element.
    failed: Option<BoltError>,
}

impl<'a> Cursor<'a> {
    /// At the first element.
    pub(crate) fn first(db: Db<'a>, tree: Tree<'a>) -> Cursor<'a> {
        Cursor::at(Path::new(db, tree, |_| Ok(0)))
    }

    /// At the first element whose key is not less than `key`.
    pub(crate) fn seek(db: Db<'a>, tree: Tree<'a>, key: &[u8]) -> Cursor<'a> {
        Cursor::at(Path::new(db, tree, |page| place_of(page, key)).and_then(|mut path| {
            path.seek(key)?;
            Ok(path)
        }))
    }

    fn at(path: Result<Path<'a>, BoltError>) -> Cursor<'a> {
        match path {
            Ok(path) => Cursor { path, previous: None, failed: None },
            Err(error) => Cursor { path: Path::EMPTY, previous: None, failed: Some(error) },
        }
    }

    fn step(&mut self) -> Result<Option<Found<'a>>, BoltError> {
        while let Some(frame) = self.path.frames.last_mut() {
            let (page, index) = (frame.page, frame.next);
            if index == page.count() {
                self.path.frames.pop();
                continue;
            }
            frame.next += 1;
            let at = |defect| BoltError::Element { pgid: page.id, index, defect };
            match page.kind {
                Kind::Branch => {
                    let child = page.branch(index).map_err(at)?.child;
                    self.path.push(child, page.id, |_| Ok(0))?;
                }
                Kind::Leaf => {
                    let element = page.leaf(index).map_err(at)?;
                    if self.previous.is_some_and(|previous| previous >= element.key) {
                        return Err(BoltError::KeyOrder { pgid: page.id, index });
                    }
                    self.previous = Some(element.key);
                    return Ok(Some(Found { pgid: page.id, index, element }));
                }
            }
        }
        Ok(None)
    }
}

impl<'a> Iterator for Cursor<'a> {
    type Item = Result<Found<'a>, BoltError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let step = match self.failed.take() {
            Some(error) => Err(error),
            None => self.step(),
        };
        if step.is_err() {
            self.path.frames.clear();
        }
        step.transpose()
    }
}

/// The pair with the greatest key of a tree.
pub(crate) fn last_pair<'a>(
    db: Db<'a>,
    tree: Tree<'a>,
) -> Result<Option<LeafElement<'a>>, BoltError> {
    // Here `next` counts down: it is one more than the element to look at.
    let mut path = Path::new(db, tree, |page| Ok(page.count()))?;
    while let Some(frame) = path.frames.last_mut() {
        let page = frame.page;
        let Some(index) = frame.next.checked_sub(1) else {
            path.frames.pop();
            continue;
        };
        frame.next = index;
        let at = |defect| BoltError::Element { pgid: page.id, index, defect };
        match page.kind {
            Kind::Branch => {
                let child = page.branch(index).map_err(at)?.child;
                path.push(child, page.id, |page| Ok(page.count()))?;
            }
            Kind::Leaf => {
                let element = page.leaf(index).map_err(at)?;
                if !element.is_bucket {
                    return Ok(Some(element));
                }
            }
        }
    }
    Ok(None)
}

/// The pages that lead to the last element of a tree, from the root down. The last is a leaf.
pub(crate) fn right_edge<'a>(db: Db<'a>, tree: Tree<'a>) -> Result<Vec<Page<'a>>, BoltError> {
    let mut path = Path::new(db, tree, |_| Ok(0))?;
    while let Some(page) = path.frames.last().map(|frame| frame.page)
        && page.kind == Kind::Branch
    {
        // A branch without an element is not read as a page.
        let index = page.count() - 1;
        let at = |defect| BoltError::Element { pgid: page.id, index, defect };
        path.push(page.branch(index).map_err(at)?.child, page.id, |_| Ok(0))?;
    }
    Ok(path.frames.iter().map(|frame| frame.page).collect())
}

/// The pages from a root to a place below it.
struct Path<'a> {
    db: Option<Db<'a>>,
    frames: Vec<Frame<'a>>,
    /// How many pages a sound tree can still have.
    pages_left: u64,
}

struct Frame<'a> {
    page: Page<'a>,
    next: usize,
}

impl<'a> Path<'a> {
    const EMPTY: Path<'static> = Path { db: None, frames: Vec::new(), pages_left: 0 };

    /// A path of one page, the root, at the element that `start` names.
    fn new(
        db: Db<'a>,
        tree: Tree<'a>,
        start: impl FnOnce(&Page<'a>) -> Result<usize, BoltError>,
    ) -> Result<Path<'a>, BoltError> {
        let pages_left = db.high_water_mark().0;
        let mut path = Path { db: Some(db), frames: Vec::new(), pages_left };
        match tree {
            Tree::Pages { root, parent } => path.push(root, parent, start)?,
            Tree::Inline(page) => path.frames.push(Frame { page, next: start(&page)? }),
        }
        Ok(path)
    }

    /// Goes down to a child, to the element that `start` names.
    fn push(
        &mut self,
        pgid: Pgid,
        parent: Pgid,
        start: impl FnOnce(&Page<'a>) -> Result<usize, BoltError>,
    ) -> Result<(), BoltError> {
        if self.frames.len() == DEPTH_MAX {
            return Err(BoltError::TooDeep { pgid });
        }
        let db = self.db.expect("a path without a file has no frame to go down from");
        let page = db.page(pgid, parent)?;
        self.pages_left =
            self.pages_left.checked_sub(page.pages).ok_or(BoltError::TooManyPages { pgid })?;
        let next = start(&page)?;
        self.frames.push(Frame { page, next });
        Ok(())
    }

    /// Goes down to the leaf where `key` belongs.
    fn seek(&mut self, key: &[u8]) -> Result<(), BoltError> {
        while let Some(frame) = self.frames.last_mut() {
            if frame.page.kind == Kind::Leaf {
                return Ok(());
            }
            let (page, index) = (frame.page, frame.next);
            frame.next += 1;
            let child = page
                .branch(index)
                .map_err(|defect| BoltError::Element { pgid: page.id, index, defect })?
                .child;
            self.push(child, page.id, |page| place_of(page, key))?;
        }
        Ok(())
    }
}

/// Where `key` belongs: in a leaf, the first element that is not less; in a branch, the last one that
/// is not greater, or the first.
fn place_of(page: &Page<'_>, key: &[u8]) -> Result<usize, BoltError> {
    let (mut low, mut high) = (0, page.count());
    while low < high {
        let middle = low.midpoint(high);
        let found = page.key(middle).map_err(|defect| BoltError::Element {
            pgid: page.id,
            index: middle,
            defect,
        })?;
        match found.cmp(key) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Equal => return Ok(middle),
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    Ok(match page.kind {
        Kind::Leaf => low,
        Kind::Branch => low.saturating_sub(1),
    })
}
