//! Meta pages: the two roots of the file, of which one is in force.
//!
//! ```text
//!   0       4         8            12      16          24
//!   | magic | version | page size  | flags | root pgid | root sequence |
//!   32         40                 48     56         64
//!   | freelist | high water mark  | txid | checksum |      after the page header
//! ```
//!
//! * The checksum is FNV-1a 64 over the 56 bytes before it. It is the only checksum in the file.
//! * A commit with transaction id T writes page T mod 2, so a torn commit leaves the other meta. The
//!   valid one with the greater id is in force.
//! * The page size is in the metas, and the second meta is one page in. If the first cannot be read,
//!   the second is looked for at every page size that exists.

use crate::error::BoltError;
use crate::page::{FLAG_META, Header, PAGE_HEADER_BYTES, PageSize, Pgid, Txid};

/// Bytes of a meta structure, without the page header.
const META_BYTES: usize = 64;
const MAGIC: u32 = 0xED0C_DAED;
/// The version of the format; it has not changed since the first release of bbolt.
const VERSION: u32 = 2;
/// In place of a page id: no freelist is stored.
const NO_FREELIST: u64 = u64::MAX;

const _: () = assert!(PAGE_HEADER_BYTES + META_BYTES <= PageSize::MIN.bytes());

/// What a meta page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The page size of the whole file.
    pub page_size: PageSize,
    /// The root page of the root bucket, whose elements are the buckets.
    pub root: Pgid,
    /// The root bucket's sequence number.
    pub sequence: u64,
    /// The freelist page, if one is stored.
    pub freelist: Option<Pgid>,
    /// The first page that was never used: the number of pages in use.
    pub high_water_mark: Pgid,
    /// The commit that wrote this meta.
    pub txid: Txid,
}

/// Why a meta page cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetaDefect {
    /// The file ends before it, or, for the second meta, it is not found at any page size.
    #[error("not found")]
    NotFound,
    /// The first bytes are not bbolt's.
    #[error("magic number is {found:#010x}, not {MAGIC:#010x}")]
    Magic {
        /// What is there.
        found: u32,
    },
    /// The magic number is there with its bytes reversed.
    #[error("written on a big-endian host")]
    BigEndian,
    /// Another version of the format.
    #[error("format version is {found}, not {VERSION}")]
    Version {
        /// What is there.
        found: u32,
    },
    /// The stored checksum is not that of the bytes.
    #[error("checksum is {stored:#018x}, the bytes give {computed:#018x}")]
    Checksum {
        /// What is there.
        stored: u64,
        /// What should be.
        computed: u64,
    },
    /// No page size that exists, or not the other meta's.
    #[error("page size is {found}")]
    PageSize {
        /// What is there.
        found: u32,
    },
}

impl Meta {
    /// Reads the meta at the start of `page`, a page with its header.
    pub fn decode(page: &[u8]) -> Result<Meta, MetaDefect> {
        let meta: &[u8; META_BYTES] = page
            .get(PAGE_HEADER_BYTES..)
            .and_then(|rest| rest.first_chunk())
            .ok_or(MetaDefect::NotFound)?;
        let magic = u32_at(meta, 0);
        if magic == MAGIC.swap_bytes() {
            return Err(MetaDefect::BigEndian);
        }
        if magic != MAGIC {
            return Err(MetaDefect::Magic { found: magic });
        }
        if u32_at(meta, 4) != VERSION {
            return Err(MetaDefect::Version { found: u32_at(meta, 4) });
        }
        let (stored, computed) = (u64_at(meta, 56), fnv1a(&meta[..56]));
        if stored != computed {
            return Err(MetaDefect::Checksum { stored, computed });
        }
        let page_size = u32_at(meta, 8);
        let page_size =
            PageSize::new(page_size).ok_or(MetaDefect::PageSize { found: page_size })?;
        let freelist = u64_at(meta, 32);
        Ok(Meta {
            page_size,
            root: Pgid(u64_at(meta, 16)),
            sequence: u64_at(meta, 24),
            freelist: (freelist != NO_FREELIST).then_some(Pgid(freelist)),
            high_water_mark: Pgid(u64_at(meta, 40)),
            txid: Txid(u64_at(meta, 48)),
        })
    }

    /// The bytes of the meta page in the given slot (0 or 1), as far as they are not zero.
    pub fn encode(&self, slot: u64) -> [u8; PAGE_HEADER_BYTES + META_BYTES] {
        let header = Header { id: slot, flags: FLAG_META, count: 0, overflow: 0 };
        let mut meta = [0; META_BYTES];
        meta[..4].copy_from_slice(&MAGIC.to_le_bytes());
        meta[4..8].copy_from_slice(&VERSION.to_le_bytes());
        meta[8..12].copy_from_slice(&self.page_size.bytes_u32().to_le_bytes());
        meta[16..24].copy_from_slice(&self.root.0.to_le_bytes());
        meta[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        let freelist = self.freelist.map_or(NO_FREELIST, |pgid| pgid.0);
        meta[32..40].copy_from_slice(&freelist.to_le_bytes());
        meta[40..48].copy_from_slice(&self.high_water_mark.0.to_le_bytes());
        meta[48..56].copy_from_slice(&self.txid.0.to_le_bytes());
        let checksum = fnv1a(&meta[..56]);
        meta[56..].copy_from_slice(&checksum.to_le_bytes());

        let mut page = [0; PAGE_HEADER_BYTES + META_BYTES];
        page[..PAGE_HEADER_BYTES].copy_from_slice(&header.encode());
        page[PAGE_HEADER_BYTES..].copy_from_slice(&meta);
        page
    }
}

/// The meta in force, and what is wrong with the other one.
pub(crate) struct Selection {
    pub(crate) meta: Meta,
    /// Slot and defect.
    pub(crate) spare_defect: Option<(u64, MetaDefect)>,
}

/// Chooses the meta in force: the valid one with the greater transaction id.
pub(crate) fn select(bytes: &[u8]) -> Result<Selection, BoltError> {
    let first = Meta::decode(bytes);
    let second = match first {
        Ok(meta) => second_at(bytes, meta.page_size),
        Err(_) => probe_second(bytes),
    };
    let (meta, spare_defect) = match (first, second) {
        (Ok(first), Ok(second)) if second.txid > first.txid => (second, None),
        (Ok(first), Ok(_)) => (first, None),
        (Ok(first), Err(defect)) => (first, Some((1, defect))),
        (Err(defect), Ok(second)) => (second, Some((0, defect))),
        (Err(meta0), Err(meta1)) => return Err(BoltError::NoValidMeta { meta0, meta1 }),
    };
    Ok(Selection { meta, spare_defect })
}

/// The second meta, one page of this size into the file.
fn second_at(bytes: &[u8], page_size: PageSize) -> Result<Meta, MetaDefect> {
    let page = bytes.get(page_size.bytes()..).ok_or(MetaDefect::NotFound)?;
    let meta = Meta::decode(page)?;
    if meta.page_size != page_size {
        return Err(MetaDefect::PageSize { found: meta.page_size.bytes_u32() });
    }
    Ok(meta)
}

/// The second meta, at whatever page size has one. Of those that are broken, one that has the magic
/// number says more than bytes that were never a meta.
fn probe_second(bytes: &[u8]) -> Result<Meta, MetaDefect> {
    let mut defect = MetaDefect::NotFound;
    for page_size in PageSize::all() {
        match second_at(bytes, page_size) {
            Ok(meta) => return Ok(meta),
            Err(MetaDefect::NotFound | MetaDefect::Magic { .. }) => {}
            Err(found) => defect = found,
        }
    }
    Err(defect)
}

/// FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

fn u32_at(meta: &[u8; META_BYTES], offset: usize) -> u32 {
    u32::from_le_bytes(*meta[offset..].first_chunk().expect("offsets are constants in the meta"))
}

fn u64_at(meta: &[u8; META_BYTES], offset: usize) -> u64 {
    u64::from_le_bytes(*meta[offset..].first_chunk().expect("offsets are constants in the meta"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(txid: u64, page_size: PageSize) -> Meta {
        Meta {
            page_size,
            root: Pgid(2),
            sequence: 0,
            freelist: None,
            high_water_mark: Pgid(3),
            txid: Txid(txid),
        }
    }

    /// A file of three pages whose metas have these transaction ids.
    fn file(page_size: PageSize, txids: [u64; 2]) -> Vec<u8> {
        let mut bytes = vec![0; 3 * page_size.bytes()];
        for (slot, txid) in (0u64..).zip(txids) {
            let page = meta(txid, page_size).encode(slot);
            let start = page_size.bytes() * usize::try_from(slot).unwrap();
            bytes[start..start + page.len()].copy_from_slice(&page);
        }
        bytes
    }

    #[test]
    fn fnv1a_gives_the_published_values() {
        assert_eq!(fnv1a(b""), 0xCBF2_9CE4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xAF63_DC4C_8601_EC8C);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_F739_67E8);
    }

    #[test]
    fn a_meta_written_is_the_meta_read() {
        let mut meta = meta(7, PageSize::MAX);
        meta.freelist = Some(Pgid(9));
        meta.sequence = 11;
        assert_eq!(Meta::decode(&meta.encode(1)), Ok(meta));
    }

    #[test]
    fn the_valid_meta_with_the_greater_txid_is_in_force() {
        for (txids, want) in [([4, 3], 4), ([4, 5], 5), ([0, 1], 1), ([6, 6], 6)] {
            let bytes = file(PageSize::DEFAULT, txids);
            assert_eq!(select(&bytes).unwrap().meta.txid, Txid(want), "{txids:?}");
        }
    }

    #[test]
    fn a_broken_meta_leaves_the_other_in_force_at_every_page_size() {
        for page_size in PageSize::all() {
            for slot in [0u64, 1] {
                let mut bytes = file(page_size, [8, 9]);
                let start = page_size.bytes() * usize::try_from(slot).unwrap();
                bytes[start + PAGE_HEADER_BYTES + 50] ^= 1;
                let selection = select(&bytes).unwrap();
                assert_eq!(selection.meta.txid, Txid(9 - slot), "{page_size} {slot}");
                let (broken, defect) = selection.spare_defect.unwrap();
                assert_eq!(broken, slot);
                assert!(matches!(defect, MetaDefect::Checksum { .. }), "{defect:?}");
            }
        }
    }

    #[test]
    fn two_broken_metas_are_reported_with_their_defects() {
        let mut bytes = file(PageSize::DEFAULT, [1, 2]);
        bytes[PAGE_HEADER_BYTES] ^= 1;
        bytes[4096 + PAGE_HEADER_BYTES + 4] = 3;
        let Err(BoltError::NoValidMeta { meta0, meta1 }) = select(&bytes) else {
            panic!("a file without a valid meta was read");
        };
        assert_eq!(meta0, MetaDefect::Magic { found: MAGIC ^ 1 });
        assert_eq!(meta1, MetaDefect::Version { found: 3 });
    }

    #[test]
    fn a_meta_of_a_big_endian_host_is_named_as_such() {
        let mut page = meta(1, PageSize::DEFAULT).encode(0);
        page[PAGE_HEADER_BYTES..PAGE_HEADER_BYTES + 4].reverse();
        assert_eq!(Meta::decode(&page), Err(MetaDefect::BigEndian));
    }
}
