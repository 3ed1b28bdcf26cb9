//! `walpb.Record`: what a frame holds.
//!
//! ```text
//!   08 type   10 crc   [ 1a length data ]        all lengths and numbers are varints
//! ```
//!
//! Type and CRC are always there, even when zero; the data is absent when Go holds nil. Records are
//! decoded by hand so that the data, which is most of a log, is borrowed.

use super::reader::EntryRef;
use crate::raftpb::EntryType;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// Whose log it is: [`crate::raftpb::Metadata`].
    Metadata,
    /// A raft entry.
    Entry,
    /// A [`crate::raftpb::HardState`].
    State,
    /// The running CRC at the head of a segment; it has no data.
    Crc,
    /// A [`crate::raftpb::WalSnapshot`].
    Snapshot,
}

impl RecordKind {
    const ALL: [Self; 5] = [Self::Metadata, Self::Entry, Self::State, Self::Crc, Self::Snapshot];

    /// The number in the record's `type` field.
    pub fn number(self) -> u64 {
        match self {
            Self::Metadata => 1,
            Self::Entry => 2,
            Self::State => 3,
            Self::Crc => 4,
            Self::Snapshot => 5,
        }
    }

    pub(super) fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// A record as it stands in a segment. Its CRC is the running one, so it is right or wrong only
/// after the records before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it is.
    pub kind: RecordKind,
    /// The running CRC-32C after this record's data.
    pub crc: u32,
    /// The message, encoded.
    pub data: Option<&'a [u8]>,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordDefect {
    /// Not protobuf, a field missing, or a field that does not belong.
    Undecodable,
    /// A type that no etcd writes.
    UnknownType(u64),
}

impl<'a> Record<'a> {
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, RecordDefect> {
        let (mut number, mut crc, mut data) = (None, None, None);
        let mut fields = Fields(bytes);
        while !fields.0.is_empty() {
            match fields.next_field().ok_or(RecordDefect::Undecodable)? {
                (1, Value::Varint(value)) => number = Some(value),
                (2, Value::Varint(value)) => crc = Some(value),
                (3, Value::Bytes(value)) => data = Some(value),
                _ => return Err(RecordDefect::Undecodable),
            }
        }
        let number = number.ok_or(RecordDefect::Undecodable)?;
        let crc = crc.and_then(|crc| u32::try_from(crc).ok()).ok_or(RecordDefect::Undecodable)?;
        let kind = RecordKind::from_number(number).ok_or(RecordDefect::UnknownType(number))?;
        Ok(Self { kind, crc, data })
    }

    pub(super) fn encode_to(&self, out: &mut Vec<u8>) {
        out.push(0x08);
        push_varint(out, self.kind.number());
        out.push(0x10);
        push_varint(out, u64::from(self.crc));
        if let Some(data) = self.data {
            out.push(0x1a);
            push_varint(out, u64::try_from(data.len()).expect("a length in memory fits 64 bits"));
            out.extend_from_slice(data);
        }
    }
}

/// Whether the first bytes of a record can be those of one that is `length` bytes long; `head` is
/// what was written of it. A record that was torn was right before it was torn, so its own head
/// tells a torn write from a damaged length field (which would swallow all that follows it).
pub(super) fn head_agrees(head: &[u8], length: u64) -> bool {
    let mut fields = Fields(head);
    for expected in [1, 2] {
        match fields.next_field() {
            Some((field, Value::Varint(_))) if field == expected => {}
            Some(_) => return false,
            None => return cut_within_head(fields.0),
        }
    }
    let before_data = fields.0;
    let taken = |rest: &[u8]| u64::try_from(head.len() - rest.len()).unwrap_or(u64::MAX);
    match (fields.next_varint(), fields.next_varint()) {
        (Some(0x1a), Some(data)) => taken(fields.0).checked_add(data) == Some(length),
        (Some(_), Some(_)) => false,
        _ => cut_within_head(before_data) || taken(before_data) == length,
    }
}

/// A tag and a varint take at most 11 bytes: with that many left, it was not the cut that stopped
/// the decoder.
fn cut_within_head(rest: &[u8]) -> bool {
    rest.len() < 11
}

impl<'a> EntryRef<'a> {
    /// `None` if the bytes are not a `raftpb.Entry`.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (mut entry_type, mut term, mut index, mut data) = (0, 0, 0, None);
        let mut fields = Fields(bytes);
        while !fields.0.is_empty() {
            match fields.next_field()? {
                (1, Value::Varint(value)) => entry_type = value,
                (2, Value::Varint(value)) => term = value,
                (3, Value::Varint(value)) => index = value,
                (4, Value::Bytes(value)) => data = Some(value),
                _ => return None,
            }
        }
        let entry_type = EntryType::try_from(i32::try_from(entry_type).ok()?).ok()?;
        Some(Self { entry_type, term, index, data })
    }
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message, as far as records and entries need them.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// `None` if the bytes end too early or are of a kind that records and entries do not have;
    /// nothing is consumed then.
    fn next_field(&mut self) -> Option<(u64, Value<'a>)> {
        let start = self.0;
        let field = self.try_field();
        if field.is_none() {
            self.0 = start;
        }
        field
    }

    fn try_field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.next_varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.next_varint()?),
            2 => {
                let len = usize::try_from(self.next_varint()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(len)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn next_varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for (position, byte) in self.0.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if position == 9 && bits > 1 {
                return None; // more than 64 bits
            }
            value |= bits << (7 * position);
            if byte & 0x80 == 0 {
                self.0 = &self.0[position + 1..];
                return Some(value);
            }
        }
        None
    }
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).expect("7 bits") | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).expect("7 bits"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(record: &Record<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        record.encode_to(&mut out);
        out
    }

    #[test]
    fn a_record_with_a_field_that_does_not_belong_is_not_a_record() {
        assert_eq!(Record::decode(b"\x08\x04\x10\x00\x20\x01"), Err(RecordDefect::Undecodable));
        assert_eq!(Record::decode(b"\x08\x04"), Err(RecordDefect::Undecodable), "no crc");
        assert_eq!(Record::decode(b"\x08\x09\x10\x00"), Err(RecordDefect::UnknownType(9)));
        assert_eq!(Record::decode(b"\x08\x02\x10\x00\x1a\x05ab"), Err(RecordDefect::Undecodable));
    }

    #[test]
    fn the_head_of_a_record_agrees_with_its_own_length_however_it_is_cut() {
        let data = vec![7; 300];
        for data in [None, Some(&data[..]), Some(&data[..2])] {
            let record = Record { kind: RecordKind::Entry, crc: 0xdead_beef, data };
            let bytes = encode(&record);
            let length = u64::try_from(bytes.len()).unwrap();
            for cut in 0..=bytes.len() {
                assert!(head_agrees(&bytes[..cut], length), "cut at {cut}");
            }
            assert!(!head_agrees(&bytes, length + 1) || bytes.len() < 17);
            if data.is_some_and(|data| data.len() > 16) {
                assert!(!head_agrees(&bytes, length ^ (1 << 20)));
                assert!(!head_agrees(&bytes, length / 2));
            }
        }
    }

    fn kinds() -> impl Strategy<Value = RecordKind> {
        prop::sample::select(&RecordKind::ALL[..])
    }

    proptest! {
        #[test]
        fn a_record_that_is_written_reads_back(
            kind in kinds(), crc: u32, data in prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
        ) {
            let record = Record { kind, crc, data: data.as_deref() };
            let bytes = encode(&record);
            prop_assert_eq!(Record::decode(&bytes), Ok(record));
        }

        #[test]
        fn an_entry_that_prost_writes_is_read_without_copying(
            term: u64, index: u64, data in prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
        ) {
            let entry = crate::raftpb::Entry { entry_type: 1, term, index, data: data.clone() };
            let bytes = prost::Message::encode_to_vec(&entry);
            let read = EntryRef::decode(&bytes).unwrap();
            let expected =
                EntryRef { entry_type: EntryType::ConfChange, term, index, data: data.as_deref() };
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn garbage_is_refused_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..100), length: u64,
        ) {
            let _ = Record::decode(&bytes);
            let _ = EntryRef::decode(&bytes);
            let _ = head_agrees(&bytes, length);
        }
    }
}
