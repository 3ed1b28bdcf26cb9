//! A leaf or branch page that is being filled.

use crate::error::BoltError;
use crate::page::{
    ELEMENT_BUCKET, ELEMENT_BYTES, ELEMENTS_MAX, FLAG_BRANCH, FLAG_LEAF, Header, Kind,
    PAGE_HEADER_BYTES, Page, Pgid,
};

/// Elements and data, apart from each other: in a page the data comes behind all elements, whose number
/// is known only when the page is full.
pub(super) struct Node {
    kind: Kind,
    elements: Vec<Element>,
    encoded: Vec<[u8; ELEMENT_BYTES]>,
    data: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Element {
    /// Where in the data the key starts.
    start: u32,
    ksize: u32,
    rest: Rest,
}

#[derive(Clone, Copy)]
enum Rest {
    Leaf { flags: u32, vsize: u32 },
    Branch { child: Pgid },
}

impl Node {
    pub(super) fn new(kind: Kind) -> Node {
        Node { kind, elements: Vec::new(), encoded: Vec::new(), data: Vec::new() }
    }

    /// The first `count` elements of a page.
    pub(super) fn of_page(page: &Page<'_>, count: usize) -> Result<Node, BoltError> {
        let mut node = Node::new(page.kind);
        for index in 0..count {
            let at = |defect| BoltError::Element { pgid: page.id, index, defect };
            match page.kind {
                Kind::Branch => {
                    let element = page.branch(index).map_err(at)?;
                    node.push_child(element.key, element.child);
                }
                Kind::Leaf => {
                    let element = page.leaf(index).map_err(at)?;
                    let flags = if element.is_bucket { ELEMENT_BUCKET } else { 0 };
                    node.push_pair(flags, element.key, &[element.value]);
                }
            }
        }
        Ok(node)
    }

    pub(super) fn len(&self) -> usize {
        self.elements.len()
    }

    /// Bytes of the page so far, header included.
    pub(super) fn bytes(&self) -> usize {
        PAGE_HEADER_BYTES + ELEMENT_BYTES * self.elements.len() + self.data.len()
    }

    pub(super) fn flags(&self) -> u16 {
        match self.kind {
            Kind::Branch => FLAG_BRANCH,
            Kind::Leaf => FLAG_LEAF,
        }
    }

    pub(super) fn count(&self) -> u16 {
        assert!(self.elements.len() <= ELEMENTS_MAX, "{} elements", self.elements.len());
        u16::try_from(self.elements.len()).expect("the limit is less than a u16 holds")
    }

    pub(super) fn has_bucket(&self) -> bool {
        let is_bucket = |rest| matches!(rest, Rest::Leaf { flags: ELEMENT_BUCKET, .. });
        self.elements.iter().any(|element| is_bucket(element.rest))
    }

    /// The last key, or an empty one if there is none.
    pub(super) fn last_key(&self) -> &[u8] {
        self.elements.last().map_or(&[], |last| {
            let start = last.start as usize;
            &self.data[start..start + last.ksize as usize]
        })
    }

    /// The first key of a node that has one.
    pub(super) fn first_key(&self) -> &[u8] {
        &self.data[..self.elements[0].ksize as usize]
    }

    /// Adds an element to a leaf; the value is given in parts.
    #[inline]
    pub(super) fn push_pair(&mut self, flags: u32, key: &[u8], value: &[&[u8]]) {
        let vsize = value.iter().map(|part| part.len()).sum();
        self.push(key, Rest::Leaf { flags, vsize: small(vsize) });
        for part in value {
            self.data.extend_from_slice(part);
        }
    }

    /// Adds an element to a branch.
    pub(super) fn push_child(&mut self, key: &[u8], child: Pgid) {
        self.push(key, Rest::Branch { child });
    }

    #[inline]
    fn push(&mut self, key: &[u8], rest: Rest) {
        let (start, ksize) = (small(self.data.len()), small(key.len()));
        self.elements.push(Element { start, ksize, rest });
        self.data.extend_from_slice(key);
    }

    /// Takes away the elements from `at` on, as a node of their own.
    pub(super) fn split_off(&mut self, at: usize) -> Node {
        let mut elements = self.elements.split_off(at);
        let cut = elements.first().map_or(small(self.data.len()), |first| first.start);
        let data = self.data.split_off(cut as usize);
        for element in &mut elements {
            element.start -= cut;
        }
        Node { kind: self.kind, elements, encoded: Vec::new(), data }
    }

    /// Empties the node, and keeps its memory for the next page.
    pub(super) fn clear(&mut self) {
        self.elements.clear();
        self.data.clear();
    }

    /// The element array as a page has it, and the data behind it.
    pub(super) fn encoded(&mut self) -> (&[u8], &[u8]) {
        self.encoded.clear();
        let array = ELEMENT_BYTES * self.elements.len();
        self.encoded.extend(self.elements.iter().enumerate().map(|(index, element)| {
            let pos = small(array - ELEMENT_BYTES * index) + element.start;
            element.encode(pos)
        }));
        (self.encoded.as_flattened(), &self.data)
    }

    /// The whole page, as an inline bucket has it.
    pub(super) fn image(&mut self) -> Vec<u8> {
        let header = Header { id: 0, flags: self.flags(), count: self.count(), overflow: 0 };
        let header = header.encode();
        let (elements, data) = self.encoded();
        [&header, elements, data].concat()
    }
}

impl Element {
    fn encode(self, pos: u32) -> [u8; ELEMENT_BYTES] {
        let mut bytes = [0; ELEMENT_BYTES];
        match self.rest {
            Rest::Leaf { flags, vsize } => {
                bytes[..4].copy_from_slice(&flags.to_le_bytes());
                bytes[4..8].copy_from_slice(&pos.to_le_bytes());
                bytes[8..12].copy_from_slice(&self.ksize.to_le_bytes());
                bytes[12..].copy_from_slice(&vsize.to_le_bytes());
            }
            Rest::Branch { child } => {
                bytes[..4].copy_from_slice(&pos.to_le_bytes());
                bytes[4..8].copy_from_slice(&self.ksize.to_le_bytes());
                bytes[8..].copy_from_slice(&child.0.to_le_bytes());
            }
        }
        bytes
    }
}

/// A size or a place in a node. Keys and values are limited, and a node with a large value takes no
/// further one, so that all of them fit into a u32.
#[inline]
fn small(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a node is shorter than 2^32 bytes")
}
