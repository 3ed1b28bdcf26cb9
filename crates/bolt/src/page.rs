//! Pages: the header, the element array, and the data behind it.
//!
//! ```text
//!   0          8       10      12          16                  16 + 16 * count
//!   | id u64   | flags | count | overflow  | elements          | key value key value ...
//!                u16     u16     u32         16 bytes each       (branch: key key ...)
//!
//!   leaf element     | flags u32 | pos u32   | ksize u32 | vsize u32 |
//!   branch element   | pos u32   | ksize u32 | child page id u64     |
//!   pos: from the start of this element to its key; the value follows the key
//! ```
//!
//! * All integers are little endian.
//! * A page with `overflow` n is followed by n more pages without headers of their own; together they
//!   are one run of bytes.
//! * [`Page`] holds only what was found to lie inside the file, and its element array inside the page.
//!   Each element is checked when it is asked for.

use std::fmt;

use crate::error::{ElementDefect, PageDefect};

/// Bytes of a page header.
pub const PAGE_HEADER_BYTES: usize = 16;
/// Bytes of one element of a leaf or branch page.
pub const ELEMENT_BYTES: usize = 16;
/// Bytes of a bucket header: the value of a bucket's element, before an inline page.
pub const BUCKET_HEADER_BYTES: usize = 16;
/// The longest key that bbolt takes.
pub const KEY_BYTES_MAX: usize = 32_768;
/// The longest value that bbolt takes.
pub const VALUE_BYTES_MAX: usize = (1 << 31) - 2;
/// The most elements that a leaf or branch page may hold: the count is a u16, and bbolt keeps 0xFFFF
/// for a freelist whose true count is elsewhere.
pub const ELEMENTS_MAX: usize = 0xFFFE;
/// The most pages on a path from the root bucket to a leaf, nested buckets included. Branches have at
/// least two children, so 64 levels are more than a 64-bit file can fill; the rest is for nesting.
pub const DEPTH_MAX: usize = 128;

pub(crate) const FLAG_BRANCH: u16 = 0x01;
pub(crate) const FLAG_LEAF: u16 = 0x02;
pub(crate) const FLAG_META: u16 = 0x04;
pub(crate) const FLAG_FREELIST: u16 = 0x10;
/// A leaf element with this flag is a nested bucket.
pub(crate) const ELEMENT_BUCKET: u32 = 0x01;

/// A page size: a power of two from 512 to 65,536.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize(u32);

impl PageSize {
    /// The smallest page size.
    pub const MIN: PageSize = PageSize(512);
    /// The greatest page size: that of some arm64 and ppc64 hosts.
    pub const MAX: PageSize = PageSize(65_536);
    /// The page size of most hosts, and what etcd's own files have there.
    pub const DEFAULT: PageSize = PageSize(4096);

    /// The page size of that many bytes, if there is one.
    pub const fn new(bytes: u32) -> Option<PageSize> {
        if bytes.is_power_of_two() && bytes >= Self::MIN.0 && bytes <= Self::MAX.0 {
            Some(PageSize(bytes))
        } else {
            None
        }
    }

    /// In bytes.
    pub const fn bytes(self) -> usize {
        self.0 as usize
    }

    /// In bytes, for arithmetic on offsets in a file.
    pub const fn bytes_u64(self) -> u64 {
        self.0 as u64
    }

    /// In bytes, as the meta page stores it.
    pub(crate) const fn bytes_u32(self) -> u32 {
        self.0
    }

    /// All page sizes, in ascending order.
    pub fn all() -> impl Iterator<Item = PageSize> {
        (0..).map(|shift| Self::MIN.0 << shift).map_while(Self::new)
    }
}

impl Default for PageSize {
    fn default() -> PageSize {
        PageSize::DEFAULT
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A page id: a count of pages from the start of the file, never a byte offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pgid(pub u64);

impl Pgid {
    /// The only way from a page id to an offset, so the overflow that a damaged file would cause is
    /// refused here and nowhere else.
    pub fn offset(self, page_size: PageSize) -> Option<u64> {
        self.0.checked_mul(page_size.bytes_u64())
    }
}

impl fmt::Display for Pgid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A transaction id: the number of the commit that wrote a meta page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Txid(pub u64);

impl fmt::Display for Txid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a node page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Branch,
    Leaf,
}

/// A page header as stored; nothing in it is believed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: u64,
    pub(crate) flags: u16,
    pub(crate) count: u16,
    pub(crate) overflow: u32,
}

impl Header {
    pub(crate) fn decode(bytes: &[u8; PAGE_HEADER_BYTES]) -> Header {
        let [a, b, c, d, e, f, g, h, f0, f1, c0, c1, o @ ..] = *bytes;
        Header {
            id: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            flags: u16::from_le_bytes([f0, f1]),
            count: u16::from_le_bytes([c0, c1]),
            overflow: u32::from_le_bytes(o),
        }
    }

    pub(crate) fn encode(self) -> [u8; PAGE_HEADER_BYTES] {
        let mut bytes = [0; PAGE_HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.flags.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..].copy_from_slice(&self.overflow.to_le_bytes());
        bytes
    }
}

/// A run of bytes that belongs to one page id: the page and its overflow pages.
#[derive(Clone, Copy)]
pub(crate) struct Extent<'a> {
    pub(crate) header: Header,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Extent<'a> {
    /// The page `id` of a file whose used part is `used` (high water mark times page size bytes).
    pub(crate) fn read(
        used: &'a [u8],
        page_size: PageSize,
        id: Pgid,
    ) -> Result<Extent<'a>, PageDefect> {
        let hwm = Pgid((used.len() / page_size.bytes()) as u64);
        if id.0 < 2 {
            return Err(PageDefect::IsMeta);
        }
        let past = PageDefect::PastHighWaterMark { hwm };
        let start = id.offset(page_size).and_then(|offset| usize::try_from(offset).ok());
        let rest = start.and_then(|start| used.get(start..)).ok_or(past)?;
        let header = Header::decode(rest.first_chunk().ok_or(past)?);
        if header.id != id.0 {
            return Err(PageDefect::IdMismatch { found: header.id });
        }
        let pages = u64::from(header.overflow) + 1;
        let bytes = usize::try_from(pages * page_size.bytes_u64())
            .ok()
            .and_then(|len| rest.get(..len))
            .ok_or(PageDefect::OverflowPastHighWaterMark { overflow: header.overflow, hwm })?;
        Ok(Extent { header, bytes })
    }
}

/// A branch or leaf page, or the page image in an inline bucket.
#[derive(Clone, Copy)]
pub(crate) struct Page<'a> {
    /// The page that holds these bytes: for an inline bucket, the leaf it lies in.
    pub(crate) id: Pgid,
    pub(crate) kind: Kind,
    /// How many pages this is: 1 and the overflow; 0 for an inline bucket.
    pub(crate) pages: u64,
    bytes: &'a [u8],
    elements: &'a [[u8; ELEMENT_BYTES]],
}

impl<'a> Page<'a> {
    /// Reads page `id` as a node.
    pub(crate) fn read(
        used: &'a [u8],
        page_size: PageSize,
        id: Pgid,
    ) -> Result<Page<'a>, PageDefect> {
        let extent = Extent::read(used, page_size, id)?;
        let kind = match extent.header.flags {
            FLAG_BRANCH => Kind::Branch,
            FLAG_LEAF => Kind::Leaf,
            found => return Err(PageDefect::Flags { found }),
        };
        let elements = element_array(extent.header.count, extent.bytes)?;
        if kind == Kind::Branch && elements.is_empty() {
            return Err(PageDefect::EmptyBranch);
        }
        let pages = u64::from(extent.header.overflow) + 1;
        Ok(Page { id, kind, pages, bytes: extent.bytes, elements })
    }

    /// Reads the page image of an inline bucket, which lies in the leaf `holder`.
    pub(crate) fn read_inline(image: &'a [u8], holder: Pgid) -> Result<Page<'a>, PageDefect> {
        let header = image.first_chunk().ok_or(PageDefect::InlineTooShort { len: image.len() })?;
        let header = Header::decode(header);
        if header.id != 0 {
            return Err(PageDefect::IdMismatch { found: header.id });
        }
        if header.flags != FLAG_LEAF {
            return Err(PageDefect::Flags { found: header.flags });
        }
        if header.overflow != 0 {
            return Err(PageDefect::InlineOverflow { overflow: header.overflow });
        }
        let elements = element_array(header.count, image)?;
        Ok(Page { id: holder, kind: Kind::Leaf, pages: 0, bytes: image, elements })
    }

    /// How many elements there are.
    pub(crate) fn count(&self) -> usize {
        self.elements.len()
    }

    /// Where this page's data begins: behind the element array.
    pub(crate) fn data_start(&self) -> usize {
        PAGE_HEADER_BYTES + ELEMENT_BYTES * self.elements.len()
    }

    /// Element `index` of a leaf.
    #[inline]
    pub(crate) fn leaf(&self, index: usize) -> Result<LeafElement<'a>, ElementDefect> {
        let [f0, f1, f2, f3, p0, p1, p2, p3, k0, k1, k2, k3, v0, v1, v2, v3] = self.elements[index];
        let flags = u32::from_le_bytes([f0, f1, f2, f3]);
        let pos = u32::from_le_bytes([p0, p1, p2, p3]);
        let ksize = u32::from_le_bytes([k0, k1, k2, k3]);
        let vsize = u32::from_le_bytes([v0, v1, v2, v3]);
        if flags & !ELEMENT_BUCKET != 0 {
            return Err(ElementDefect::Flags { found: flags });
        }
        let (start, data) = self.data(index, pos, ksize, vsize)?;
        let (key, value) = data.split_at(ksize as usize);
        Ok(LeafElement { is_bucket: flags == ELEMENT_BUCKET, start, key, value })
    }

    /// Element `index` of a branch.
    #[inline]
    pub(crate) fn branch(&self, index: usize) -> Result<BranchElement<'a>, ElementDefect> {
        let [p0, p1, p2, p3, k0, k1, k2, k3, child @ ..] = self.elements[index];
        let pos = u32::from_le_bytes([p0, p1, p2, p3]);
        let ksize = u32::from_le_bytes([k0, k1, k2, k3]);
        let (start, key) = self.data(index, pos, ksize, 0)?;
        Ok(BranchElement { start, key, child: Pgid(u64::from_le_bytes(child)) })
    }

    /// The child of element `index` of a branch, whatever the rest of the element says.
    pub(crate) fn child(&self, index: usize) -> Pgid {
        let [.., a, b, c, d, e, f, g, h] = self.elements[index];
        Pgid(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }

    /// Where in memory element `index` is.
    pub(crate) fn element_address(&self, index: usize) -> usize {
        self.elements[index].as_ptr().addr()
    }

    /// The key of element `index`, whatever kind of page this is.
    #[inline]
    pub(crate) fn key(&self, index: usize) -> Result<&'a [u8], ElementDefect> {
        match self.kind {
            Kind::Leaf => self.leaf(index).map(|element| element.key),
            Kind::Branch => self.branch(index).map(|element| element.key),
        }
    }

    /// Key and value of an element, together, and where in the page they start.
    #[inline]
    fn data(
        &self,
        index: usize,
        pos: u32,
        ksize: u32,
        vsize: u32,
    ) -> Result<(usize, &'a [u8]), ElementDefect> {
        if ksize == 0 {
            return Err(ElementDefect::EmptyKey);
        }
        if ksize as usize > KEY_BYTES_MAX {
            return Err(ElementDefect::KeyTooLong { len: ksize });
        }
        if vsize as usize > VALUE_BYTES_MAX {
            return Err(ElementDefect::ValueTooLong { len: vsize });
        }
        // Sums of a few u32 cannot overflow a u64, and a position that is no usize is out of the page.
        let start = (PAGE_HEADER_BYTES + ELEMENT_BYTES * index) as u64 + u64::from(pos);
        let end = start + u64::from(ksize) + u64::from(vsize);
        let out = || ElementDefect::OutOfPage { pos, ksize, vsize };
        let start = usize::try_from(start).map_err(|_| out())?;
        let end = usize::try_from(end).map_err(|_| out())?;
        if start < self.data_start() {
            return Err(ElementDefect::InElementArray { pos });
        }
        self.bytes.get(start..end).map(|data| (start, data)).ok_or_else(out)
    }
}

/// The element array, if the count is legal and the array lies in the page.
fn element_array(count: u16, page: &[u8]) -> Result<&[[u8; ELEMENT_BYTES]], PageDefect> {
    if usize::from(count) > ELEMENTS_MAX {
        return Err(PageDefect::Count { count });
    }
    let (elements, _) = page[PAGE_HEADER_BYTES..].as_chunks();
    elements.get(..usize::from(count)).ok_or(PageDefect::Count { count })
}

/// An element of a leaf page.
#[derive(Clone, Copy)]
pub(crate) struct LeafElement<'a> {
    pub(crate) is_bucket: bool,
    /// Where in the page the key starts.
    pub(crate) start: usize,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

/// An element of a branch page.
#[derive(Clone, Copy)]
pub(crate) struct BranchElement<'a> {
    /// Where in the page the key starts.
    pub(crate) start: usize,
    pub(crate) key: &'a [u8],
    pub(crate) child: Pgid,
}

/// The value of a bucket's element: where its tree is.
///
/// ```text
///   0                 8                 16
///   | root page id    | sequence        | (root = 0: a leaf page image, the inline bucket)
/// ```
#[derive(Clone, Copy)]
pub(crate) struct BucketHeader<'a> {
    pub(crate) root: Pgid,
    pub(crate) sequence: u64,
    pub(crate) rest: &'a [u8],
}

impl<'a> BucketHeader<'a> {
    pub(crate) fn decode(value: &'a [u8]) -> Result<BucketHeader<'a>, ElementDefect> {
        let short = ElementDefect::BucketHeader { len: value.len() };
        let (root, rest) = value.split_first_chunk().ok_or(short)?;
        let (sequence, rest) = rest.split_first_chunk().ok_or(short)?;
        let root = Pgid(u64::from_le_bytes(*root));
        if root.0 != 0 && !rest.is_empty() {
            return Err(short);
        }
        Ok(BucketHeader { root, sequence: u64::from_le_bytes(*sequence), rest })
    }

    pub(crate) fn encode(root: Pgid, sequence: u64) -> [u8; BUCKET_HEADER_BYTES] {
        let mut bytes = [0; BUCKET_HEADER_BYTES];
        bytes[..8].copy_from_slice(&root.0.to_le_bytes());
        bytes[8..].copy_from_slice(&sequence.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_the_powers_of_two_from_512_to_65536() {
        let all: Vec<usize> = PageSize::all().map(PageSize::bytes).collect();
        assert_eq!(all, [512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536]);
        for bytes in [0, 1, 256, 511, 4095, 4097, 131_072, u32::MAX] {
            assert_eq!(PageSize::new(bytes), None, "{bytes}");
        }
    }

    #[test]
    fn a_page_id_whose_offset_overflows_has_no_offset() {
        assert_eq!(Pgid(3).offset(PageSize::DEFAULT), Some(12_288));
        assert_eq!(Pgid(u64::MAX / 2).offset(PageSize::DEFAULT), None);
    }

    #[test]
    fn a_header_written_is_the_header_read() {
        let header = Header { id: 0x0102_0304_0506_0708, flags: 2, count: 515, overflow: 77 };
        let bytes = header.encode();
        assert_eq!(bytes, [8, 7, 6, 5, 4, 3, 2, 1, 2, 0, 3, 2, 77, 0, 0, 0]);
        assert_eq!(Header::decode(&bytes), header);
    }
}
