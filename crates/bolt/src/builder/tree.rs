//! A bucket's tree that grows at its right edge.
//!
//! Each level has one open node. A node that is full is written, and its first key and page id go to the
//! level above:
//!
//! ```text
//!   level 2                      [ a    m    ]
//!   level 1        (a .. l)      [ m  p  t  ]
//!   level 0        ( ... )( ... )[ t  u  v  w ]     ( ) written   [ ] open
//! ```
//!
//! A branch must not end up with one child, so a full branch takes one more element, and is cut in two
//! only when it is known what comes after it.

use std::io::{Seek, Write};

use super::error::BuildError;
use super::node::Node;
use super::pages::PageWriter;
use crate::error::BoltError;
use crate::page::{ELEMENT_BYTES, Kind, Page, PageSize, Pgid};

/// A leaf of one large pair takes a second one if that saves a page, up to this many pages. So do bbolt's,
/// which have two pairs at least. Beyond that, what is saved is little beside the value.
const JOINED_PAGES_MAX: usize = 16;

pub(super) struct Tree {
    page_size: PageSize,
    /// Bytes of a node that is full.
    fill: usize,
    leaf: Node,
    /// Whether a leaf was written.
    has_pages: bool,
    branches: Vec<Branch>,
    last_key: Vec<u8>,
}

struct Branch {
    node: Node,
    /// Whether the node has an element more than the fill allows.
    has_spare: bool,
}

impl Tree {
    pub(super) fn new(page_size: PageSize, fill_percent: u8) -> Tree {
        Tree {
            page_size,
            fill: page_size.bytes() * usize::from(fill_percent) / 100,
            leaf: Node::new(Kind::Leaf),
            has_pages: false,
            branches: Vec::new(),
            last_key: Vec::new(),
        }
    }

    /// A tree that goes on where another ends, whose pages at the right edge, from the root down, are `edge`: they are
    /// the open nodes. All others are written.
    pub(super) fn continued(
        page_size: PageSize,
        fill_percent: u8,
        edge: &[Page<'_>],
    ) -> Result<Tree, BoltError> {
        let mut tree = Tree::new(page_size, fill_percent);
        let Some((leaf, branches)) = edge.split_last() else { return Ok(tree) };
        tree.leaf = Node::of_page(leaf, leaf.count())?;
        tree.last_key = tree.leaf.last_key().to_vec();
        tree.has_pages = !branches.is_empty();
        for branch in branches.iter().rev() {
            // The last child is the open node below.
            let node = Node::of_page(branch, branch.count() - 1)?;
            tree.branches.push(Branch { node, has_spare: false });
        }
        Ok(tree)
    }

    /// The greatest key so far, or an empty one.
    pub(super) fn last_key(&self) -> &[u8] {
        &self.last_key
    }

    /// Adds an element at the right edge; the value is given in parts.
    #[inline]
    pub(super) fn put<W: Write + Seek>(
        &mut self,
        pages: &mut PageWriter<W>,
        flags: u32,
        key: &[u8],
        value: &[&[u8]],
    ) -> Result<(), BuildError> {
        let vsize: usize = value.iter().map(|part| part.len()).sum();
        if !self.takes(ELEMENT_BYTES + key.len() + vsize) {
            self.write_leaf(pages)?;
        }
        self.leaf.push_pair(flags, key, value);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        Ok(())
    }

    /// Whether the open leaf takes an element of so many bytes.
    #[inline]
    fn takes(&self, bytes: usize) -> bool {
        let joined = self.leaf.bytes() + bytes;
        match self.leaf.len() {
            0 => true,
            1 if joined > self.fill => {
                let pages = |bytes: usize| bytes.div_ceil(self.page_size.bytes());
                let alone = Node::new(Kind::Leaf).bytes() + bytes;
                pages(joined) <= JOINED_PAGES_MAX
                    && pages(joined) < pages(self.leaf.bytes()) + pages(alone)
            }
            _ => joined <= self.fill,
        }
    }

    fn write_leaf<W: Write + Seek>(&mut self, pages: &mut PageWriter<W>) -> Result<(), BuildError> {
        let pgid = pages.write(&mut self.leaf)?;
        self.has_pages = true;
        let first_key = self.leaf.first_key().to_vec();
        self.leaf.clear();
        self.add_child(pages, 0, &first_key, pgid)
    }

    /// Adds a child to the branch at `level` (0 is above the leaves).
    fn add_child<W: Write + Seek>(
        &mut self,
        pages: &mut PageWriter<W>,
        level: usize,
        key: &[u8],
        child: Pgid,
    ) -> Result<(), BuildError> {
        if level == self.branches.len() {
            self.branches.push(Branch { node: Node::new(Kind::Branch), has_spare: false });
        }
        let fill = self.fill;
        let branch = &mut self.branches[level];
        if branch.has_spare {
            let last = branch.node.split_off(branch.node.len() - 1);
            let mut full = std::mem::replace(&mut branch.node, last);
            branch.has_spare = false;
            let pgid = pages.write(&mut full)?;
            self.add_child(pages, level + 1, full.first_key(), pgid)?;
        }
        let branch = &mut self.branches[level];
        let joined = branch.node.bytes() + ELEMENT_BYTES + key.len();
        branch.has_spare = joined > fill && branch.node.len() >= 2;
        branch.node.push_child(key, child);
        Ok(())
    }

    /// Writes what is open, and returns the root.
    pub(super) fn finish<W: Write + Seek>(
        &mut self,
        pages: &mut PageWriter<W>,
    ) -> Result<Pgid, BuildError> {
        if !self.has_pages {
            return pages.write(&mut self.leaf);
        }
        self.write_leaf(pages)?;
        let mut level = 0;
        loop {
            let Branch { node, has_spare } = &mut self.branches[level];
            let mut last = std::mem::replace(node, Node::new(Kind::Branch));
            // Two for the last branch, if that leaves two for the one before it.
            let cut = (*has_spare && last.len() >= 4).then(|| last.len() - 2);
            if let Some(cut) = cut {
                let mut full = last;
                last = full.split_off(cut);
                let pgid = pages.write(&mut full)?;
                self.add_child(pages, level + 1, full.first_key(), pgid)?;
            }
            let pgid = pages.write(&mut last)?;
            if level + 1 == self.branches.len() {
                return Ok(pgid);
            }
            self.add_child(pages, level + 1, last.first_key(), pgid)?;
            level += 1;
        }
    }

    /// The bucket as a page image, if it has no page yet, no bucket inside, and at most `bytes_max` bytes.
    pub(super) fn inline_image(&mut self, bytes_max: usize) -> Option<Vec<u8>> {
        let fits = !self.has_pages && self.leaf.bytes() <= bytes_max && !self.leaf.has_bucket();
        fits.then(|| self.leaf.image())
    }
}
