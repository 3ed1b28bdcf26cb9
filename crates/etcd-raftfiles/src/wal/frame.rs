//! WAL frames: the envelope etcd puts around each record.
//!
//! ```text
//!   0              8                 8+n              8+n+pad
//!   | length (LE)  | walpb.Record    | zeros          |    frames are 8-byte aligned, so a
//!                                                          length never straddles a sector
//!   length: bits 0..56 = n    bits 56..59 = pad    bit 63 = there is padding
//! ```

/// Bytes of the length field.
pub(super) const LENGTH_BYTES: usize = 8;

/// etcd writes in 4,096-byte pages of 8 sectors; a stop in between leaves whole sectors unwritten.
const SECTOR_BYTES: usize = 512;

const PADDING_FLAG: u64 = 1 << 63;
const RECORD_LENGTH_MASK: u64 = (1 << 56) - 1;

/// A length field taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Length {
    pub(super) record: u64,
    pub(super) pad: u8,
}

impl Length {
    /// The length field for a record of `record` bytes.
    pub(super) fn of(record: usize) -> Self {
        let pad = record.wrapping_neg() % 8;
        Self {
            record: u64::try_from(record).expect("a length in memory fits 64 bits"),
            pad: u8::try_from(pad).expect("less than 8"),
        }
    }

    /// `None` for zero: the end of the segment.
    pub(super) fn decode(field: [u8; LENGTH_BYTES]) -> Option<Self> {
        let field = u64::from_le_bytes(field);
        let pad = if field & PADDING_FLAG == 0 { 0 } else { (field >> 56) & 7 };
        let pad = u8::try_from(pad).expect("masked to 3 bits");
        (field != 0).then_some(Self { record: field & RECORD_LENGTH_MASK, pad })
    }

    /// Whether `field` is just what etcd writes for this length: padding up to 8 bytes, and no
    /// other bits.
    pub(super) fn is_as_written(self, field: [u8; LENGTH_BYTES]) -> bool {
        let aligned = self.record % 8 == u64::from(self.pad).wrapping_neg() % 8;
        aligned && self.encode() == field
    }

    pub(super) fn encode(self) -> [u8; LENGTH_BYTES] {
        let flag = if self.pad == 0 { 0 } else { PADDING_FLAG | (u64::from(self.pad) << 56) };
        (self.record | flag).to_le_bytes()
    }
}

/// Whether a frame's content, at this offset of the file, has a sector that was never written: any
/// piece of it between sector bounds that is all zeros. This is etcd's own rule for a torn write.
pub(super) fn has_unwritten_sector(content: &[u8], offset: usize) -> bool {
    sectors(content, offset).any(|sector| sector.iter().all(|byte| *byte == 0))
}

/// The content up to the first sector that was never written.
pub(super) fn written_head(content: &[u8], offset: usize) -> &[u8] {
    let unwritten = |sector: &&[u8]| sector.iter().all(|byte| *byte == 0);
    let written = sectors(content, offset).take_while(|sector| !unwritten(sector));
    &content[..written.map(<[u8]>::len).sum()]
}

/// Bytes from this offset to the end of its sector.
pub(super) fn left_in_sector(offset: usize) -> usize {
    SECTOR_BYTES - offset % SECTOR_BYTES
}

fn sectors(content: &[u8], offset: usize) -> impl Iterator<Item = &[u8]> {
    let first = left_in_sector(offset).min(content.len());
    let (head, rest) = content.split_at(first);
    std::iter::once(head).chain(rest.chunks(SECTOR_BYTES)).filter(|sector| !sector.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_field_is_the_one_of_the_format_document() {
        let cases = [
            (4, "0400000000000084"),
            (30, "1e00000000000082"),
            (112, "7000000000000000"),
            (25, "1900000000000087"),
            (51, "3300000000000085"),
        ];
        for (record, hex) in cases {
            let encoded = Length::of(record).encode();
            let printed: String = encoded.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(printed, hex);
            assert_eq!(Length::decode(encoded), Some(Length::of(record)));
        }
        assert_eq!(Length::decode([0; 8]), None);
    }

    #[test]
    fn sectors_are_cut_at_file_offsets_and_not_at_the_start_of_the_record() {
        let mut content = vec![1; 1000];
        assert!(!has_unwritten_sector(&content, 100));
        content[412..924].fill(0); // file offsets 512 to 1024
        assert!(has_unwritten_sector(&content, 100));
        assert_eq!(written_head(&content, 100).len(), 412);
        assert!(!has_unwritten_sector(&content, 101), "one byte of the sector is written");
        assert!(!has_unwritten_sector(&[], 100));
    }
}
