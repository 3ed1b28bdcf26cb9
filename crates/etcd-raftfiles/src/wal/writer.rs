//! Writing a segment.

use prost::Message;

use super::frame::Length;
use super::record::{Record, RecordKind};
use crate::raftpb::{Entry, HardState, Metadata, WalSnapshot};

/// Builds the bytes of one segment, record by record, without preallocated zeros.
///
/// The crc record at its head is written by [`new`](Self::new); what follows is the caller's: first
/// the metadata, then, in segment 0, the snapshot record `{0, 0}`, or, in a later one, the last
/// hard state.
#[derive(Debug)]
pub struct Encoder {
    out: Vec<u8>,
    crc: u32,
}

impl Encoder {
    /// Starts a segment. `crc` is [`Encoder::crc`] at the end of the segment before, 0 in the first.
    pub fn new(crc: u32) -> Self {
        let mut encoder = Self { out: Vec::new(), crc };
        encoder.frame(RecordKind::Crc, None);
        encoder
    }

    /// Says whose log it is.
    pub fn metadata(&mut self, metadata: Metadata) -> &mut Self {
        self.record(RecordKind::Metadata, &metadata.encode_to_vec())
    }

    /// Appends an entry.
    pub fn entry(&mut self, entry: &Entry) -> &mut Self {
        self.record(RecordKind::Entry, &entry.encode_to_vec())
    }

    /// Appends a hard state.
    pub fn state(&mut self, state: HardState) -> &mut Self {
        self.record(RecordKind::State, &state.encode_to_vec())
    }

    /// Says that the `.snap` of this index and term is whole.
    pub fn snapshot(&mut self, snapshot: &WalSnapshot) -> &mut Self {
        self.record(RecordKind::Snapshot, &snapshot.encode_to_vec())
    }

    /// Bytes so far. etcd cuts a segment when this reaches 64,000,000.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Never: a segment has at least its crc record.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// The running CRC, with which the next segment starts.
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// The segment.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    fn record(&mut self, kind: RecordKind, data: &[u8]) -> &mut Self {
        self.crc = crc32c::crc32c_append(self.crc, data);
        self.frame(kind, Some(data));
        self
    }

    fn frame(&mut self, kind: RecordKind, data: Option<&[u8]>) {
        let mut record = Vec::new();
        Record { kind, crc: self.crc, data }.encode_to(&mut record);
        let length = Length::of(record.len());
        self.out.extend_from_slice(&length.encode());
        self.out.extend_from_slice(&record);
        self.out.resize(self.out.len() + usize::from(length.pad), 0);
    }
}
