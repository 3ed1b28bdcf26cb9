//! Reading segments: the chain of records, and what the log says as a whole.

use std::fmt;

use prost::Message;

use super::frame::{LENGTH_BYTES, Length, has_unwritten_sector, left_in_sector, written_head};
use super::name::SegmentName;
use super::record::{Record, RecordDefect, RecordKind, head_agrees};
use crate::raftpb::{EntryType, HardState, Metadata, WalSnapshot};

/// One segment file: its name and its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Parsed from the file's name.
    pub name: SegmentName,
    /// The whole file, preallocated zeros included.
    pub bytes: &'a [u8],
}

/// A raft entry that borrows its data from the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// What `data` is.
    pub entry_type: EntryType,
    /// The term of the leader that made it.
    pub term: u64,
    /// Its place in the log, from 1.
    pub index: u64,
    /// The request; absent in a new leader's first entry.
    pub data: Option<&'a [u8]>,
}

/// A record and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located<'a> {
    /// The segment.
    pub segment: SegmentName,
    /// Offset of its frame in the segment.
    pub offset: u64,
    /// Bytes of the record in the frame.
    pub len: usize,
    /// Zeros after it.
    pub pad: u8,
    /// The record; its CRC has been found right.
    pub record: Record<'a>,
}

/// Where the log ended, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The last segment.
    pub segment: SegmentName,
    /// The first byte after the last good record.
    pub offset: u64,
    /// How.
    pub kind: EndKind,
}

impl End {
    /// Whether the server stopped in the middle of a write.
    pub fn is_torn(&self) -> bool {
        matches!(self.kind, EndKind::Torn | EndKind::TornBehindZeros { .. })
    }
}

/// How a log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndKind {
    /// In preallocated zeros, up to the end of the file.
    Zeros,
    /// At the end of the file, after a whole record.
    EndOfFile,
    /// In a record that was not written in full; it is ignored, as etcd does when it starts.
    Torn,
    /// In a zero length, but with something else behind it, from this offset on: a later part of a
    /// write whose first part is missing. It is ignored, as etcd does.
    TornBehindZeros {
        /// The first byte that is not zero.
        offset: u64,
    },
}

/// Why a log cannot be believed. Each says where.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// There is no segment.
    #[error("there is no WAL segment")]
    NoSegments,
    /// A segment is missing in the middle.
    #[error("WAL segment {found} follows {before}: the sequence has a gap")]
    NotContiguous {
        /// A segment.
        before: SegmentName,
        /// The one found after it.
        found: SegmentName,
    },
    /// A record is wrong, and not as a stop in the middle of a write would leave it.
    #[error("WAL segment {segment} is damaged at offset {offset}: {why}")]
    Corrupt {
        /// The segment.
        segment: SegmentName,
        /// Offset of the record's frame.
        offset: u64,
        /// What is wrong.
        why: Defect,
    },
    /// There are records, but none that says whose log it is.
    #[error("no record of the WAL says whose log it is")]
    NoMetadata,
    /// The log is shorter than what it says was committed.
    #[error("the WAL says that entry {commit} was committed, but its last entry is {last}")]
    ShorterThanCommit {
        /// From the last hard state.
        commit: u64,
        /// The last entry, or the last snapshot.
        last: u64,
    },
}

impl WalError {
    /// One imperative sentence on what to do next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoSegments => "check that this is the WAL directory of an etcd member",
            Self::NotContiguous { .. } => "find the missing segment, or use another member's data",
            Self::Corrupt { .. } | Self::NoMetadata | Self::ShorterThanCommit { .. } => {
                "use another member's data, or only the database of this one"
            }
        }
    }
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// The record is cut off by the end of a segment that is not the last.
    CutOff,
    /// Its length is not the one that the record itself tells, or is not padded to 8 bytes.
    Length,
    /// It is not a protobuf record.
    Undecodable,
    /// It has a type that etcd does not write.
    UnknownType(u64),
    /// The running sum is another.
    Crc {
        /// In the record.
        stored: u32,
        /// Of the data up to here.
        computed: u32,
    },
    /// A crc record does not stand at the head of a segment, or another record does.
    CrcRecord,
    /// The padding is not zero.
    Padding,
    /// The message in it does not decode, or is not one that etcd writes in such a record.
    Payload(RecordKind),
    /// A hard state or an entry is of an earlier term than the one before it, or commits less.
    GoesBack,
    /// It says that the log is another member's.
    OtherMetadata,
    /// An entry is missing before it.
    EntryGap {
        /// The index that should follow.
        expected: u64,
        /// The index found.
        found: u64,
    },
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CutOff => write!(f, "the record is cut off, and this is not the last segment"),
            Self::Length => write!(f, "the record is not as long as its frame says"),
            Self::Undecodable => write!(f, "not a WAL record"),
            Self::UnknownType(number) => write!(f, "unknown record type {number}"),
            Self::Crc { stored, computed } => {
                write!(f, "the CRC is {computed:08x}, but the record says {stored:08x}")
            }
            Self::CrcRecord => write!(f, "crc records stand at the head of segments, only there"),
            Self::Padding => write!(f, "the padding is not zero"),
            Self::Payload(kind) => write!(f, "the message of the {kind:?} record is not one"),
            Self::GoesBack => write!(f, "term or commit is lower than in an earlier record"),
            Self::OtherMetadata => write!(f, "the log is said to be another member's"),
            Self::EntryGap { expected, found } => {
                write!(f, "entry {found} follows where {expected} should")
            }
        }
    }
}

/// The records of a log, one by one, each checked before it is given out.
///
/// Ends with `None`; then [`end`](Self::end) tells where and how. After an error it gives nothing
/// more.
#[derive(Debug)]
pub struct Records<'a> {
    segments: Vec<Segment<'a>>,
    current: usize,
    offset: usize,
    crc: u32,
    end: Option<End>,
    failed: bool,
}

/// What stands at the reader's place.
enum Step<'a> {
    Record(Located<'a>),
    EndOfSegment(EndKind),
}

impl<'a> Records<'a> {
    /// Starts at the first of these segments, which are in the order of their names.
    ///
    /// # Errors
    /// When there is none, or one is missing in the middle.
    pub fn new(segments: &[Segment<'a>]) -> Result<Self, WalError> {
        if segments.is_empty() {
            return Err(WalError::NoSegments);
        }
        for pair in segments.windows(2) {
            let (before, found) = (pair[0].name, pair[1].name);
            if before.seq.checked_add(1) != Some(found.seq) {
                return Err(WalError::NotContiguous { before, found });
            }
        }
        let segments = segments.to_vec();
        Ok(Self { segments, current: 0, offset: 0, crc: 0, end: None, failed: false })
    }

    /// Where the log ended; `None` until [`next`](Iterator::next) has returned `None`, and after an error.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    fn step(&mut self) -> Result<Step<'a>, Defect> {
        let Segment { name, bytes } = self.segments[self.current];
        let rest = &bytes[self.offset..];
        let Some((field, after_field)) = rest.split_first_chunk::<LENGTH_BYTES>() else {
            return self.partial_length(rest);
        };
        let Some(length) = Length::decode(*field) else {
            return self.behind_zero_length(rest).map(Step::EndOfSegment);
        };

        if !length.is_as_written(*field) {
            return Err(Defect::Length); // a length field is written in one piece, so it is not torn
        }
        let pad = usize::from(length.pad);
        let whole = usize::try_from(length.record).ok().and_then(|record| {
            let total = record.checked_add(pad)?;
            Some((record, after_field.get(..total)?))
        });
        let Some((record_len, frame)) = whole else {
            return self.cut_off(length, after_field);
        };
        let (record_bytes, padding) = frame.split_at(record_len);
        match self.check(record_bytes, padding) {
            Ok((record, crc)) => {
                let located = Located {
                    segment: name,
                    offset: to_u64(self.offset),
                    len: record_len,
                    pad: length.pad,
                    record,
                };
                self.crc = crc;
                self.offset += LENGTH_BYTES + frame.len();
                Ok(Step::Record(located))
            }
            Err(defect) => self.torn_or(defect, length, frame),
        }
    }

    /// The record, and the running sum after it.
    fn check(&self, bytes: &'a [u8], padding: &[u8]) -> Result<(Record<'a>, u32), Defect> {
        let record = Record::decode(bytes).map_err(|defect| match defect {
            RecordDefect::Undecodable => Defect::Undecodable,
            RecordDefect::UnknownType(number) => Defect::UnknownType(number),
        })?;
        let is_crc = record.kind == RecordKind::Crc;
        if is_crc != (self.offset == 0) || is_crc != record.data.is_none() {
            return Err(Defect::CrcRecord);
        }
        let computed = crc32c::crc32c_append(self.crc, record.data.unwrap_or_default());
        // The first segment at hand may continue one that etcd has already purged.
        let at_first = self.current == 0 && self.offset == 0;
        let continues_unseen = at_first && self.segments[0].name.seq > 0;
        if record.crc != computed && !continues_unseen {
            return Err(Defect::Crc { stored: record.crc, computed });
        }
        if padding.iter().any(|byte| *byte != 0) {
            return Err(Defect::Padding);
        }
        Ok((record, record.crc))
    }

    fn partial_length(&self, rest: &[u8]) -> Result<Step<'a>, Defect> {
        if rest.is_empty() {
            Ok(Step::EndOfSegment(EndKind::EndOfFile))
        } else if rest.iter().all(|byte| *byte == 0) {
            Ok(Step::EndOfSegment(EndKind::Zeros))
        } else if self.in_last_segment() {
            Ok(Step::EndOfSegment(EndKind::Torn))
        } else {
            Err(Defect::CutOff)
        }
    }

    /// A length that a stop left unwritten is zero together with the rest of its sector.
    fn behind_zero_length(&self, rest: &[u8]) -> Result<EndKind, Defect> {
        match rest.iter().position(|byte| *byte != 0) {
            None => Ok(EndKind::Zeros),
            Some(zeros) if zeros < left_in_sector(self.offset) => Err(Defect::Length),
            Some(zeros) => Ok(EndKind::TornBehindZeros { offset: to_u64(self.offset + zeros) }),
        }
    }

    /// The frame is longer than what is left of the segment.
    fn cut_off(&self, length: Length, content: &[u8]) -> Result<Step<'a>, Defect> {
        if !self.in_last_segment() {
            return Err(Defect::CutOff);
        }
        self.torn(length, content)
    }

    /// The frame is whole, but the record in it is wrong.
    fn torn_or(&self, defect: Defect, length: Length, frame: &[u8]) -> Result<Step<'a>, Defect> {
        let offset = self.offset + LENGTH_BYTES;
        if !self.in_last_segment() || !has_unwritten_sector(frame, offset) {
            return Err(defect);
        }
        self.torn(length, frame)
    }

    /// The end of the log, unless the record's own head shows that it is its length that is wrong.
    fn torn(&self, length: Length, content: &[u8]) -> Result<Step<'a>, Defect> {
        let written = written_head(content, self.offset + LENGTH_BYTES);
        let record = usize::try_from(length.record).unwrap_or(usize::MAX);
        if head_agrees(&written[..written.len().min(record)], length.record) {
            Ok(Step::EndOfSegment(EndKind::Torn))
        } else {
            Err(Defect::Length)
        }
    }

    fn in_last_segment(&self) -> bool {
        self.current + 1 == self.segments.len()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Located<'a>, WalError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.end.is_none() && !self.failed {
            let segment = self.segments[self.current].name;
            let offset = to_u64(self.offset);
            match self.step() {
                Ok(Step::Record(located)) => return Some(Ok(located)),
                Ok(Step::EndOfSegment(kind)) if self.in_last_segment() => {
                    self.end = Some(End { segment, offset, kind });
                }
                Ok(Step::EndOfSegment(EndKind::TornBehindZeros { .. })) => {
                    self.failed = true;
                    return Some(Err(WalError::Corrupt { segment, offset, why: Defect::CutOff }));
                }
                Ok(Step::EndOfSegment(_)) => {
                    self.current += 1;
                    self.offset = 0;
                }
                Err(why) => {
                    self.failed = true;
                    return Some(Err(WalError::Corrupt { segment, offset, why }));
                }
            }
        }
        None
    }
}

/// What a log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wal<'a> {
    /// Whose log it is.
    pub metadata: Metadata,
    /// The last hard state; `None` in a log that ends before the first.
    pub hard_state: Option<HardState>,
    /// All snapshot records, in order: the `.snap` files that are whole.
    pub snapshots: Vec<WalSnapshot>,
    /// The entries asked for, by index, without gaps, the newest of each index. Those above
    /// [`commit`](Self::commit) may be committed or not: this log alone does not tell.
    pub entries: Vec<EntryRef<'a>>,
    /// The index of the last entry that the log holds, or that a raft snapshot covers: 0 in an empty
    /// log. Unlike [`entries`](Self::entries) it counts those that were not asked for.
    pub last_index: u64,
    /// Where the log ended, and how.
    pub end: End,
}

impl<'a> Wal<'a> {
    /// Reads the entries with an index greater than `after`, and all else that these segments say.
    ///
    /// The segments are in the order of their names; [`first_needed`](super::first_needed) tells
    /// from which on. Memory: about 40 bytes for each entry after `after`; the data stays where it
    /// is.
    ///
    /// # Errors
    /// When a record is damaged other than by a torn write at the very end.
    pub fn read(segments: &[Segment<'a>], after: u64) -> Result<Self, WalError> {
        let mut records = Records::new(segments)?;
        // A segment that was just cut may hold no entry: its name tells the last one before it.
        let last_index = records.segments[0].name.first_index.saturating_sub(1);
        let mut log = Log { after, last_index, ..Log::default() };
        for located in &mut records {
            let located = located?;
            log.add(&located.record).map_err(|why| WalError::Corrupt {
                segment: located.segment,
                offset: located.offset,
                why,
            })?;
        }
        let end = records.end().expect("the iterator ended without an error");
        let metadata = log.metadata.ok_or(WalError::NoMetadata)?;
        let wal = Self {
            metadata,
            hard_state: log.hard_state,
            snapshots: log.snapshots,
            entries: log.entries,
            last_index: log.last_index,
            end,
        };
        let (commit, last) = (wal.commit(), wal.last_index);
        if commit > last {
            // A damaged tail would otherwise pass for a torn one.
            return Err(WalError::ShorterThanCommit { commit, last });
        }
        Ok(wal)
    }

    /// The newest index that the log says is committed; 0 before the first hard state. A lower bound:
    /// raft writes it down with later records only, when clients have long had their answers.
    pub fn commit(&self) -> u64 {
        self.hard_state.map_or(0, |state| state.commit)
    }

    /// The entries that the log says are committed.
    pub fn committed(&self) -> &[EntryRef<'a>] {
        let commit = self.commit();
        &self.entries[..self.entries.partition_point(|entry| entry.index <= commit)]
    }

    /// The term of the entry of that index, if it is among [`entries`](Self::entries) or a raft
    /// snapshot stands at it.
    pub fn term_of(&self, index: u64) -> Option<u64> {
        let first = self.entries.first().map_or(0, |first| first.index);
        let at = index.checked_sub(first).and_then(|at| usize::try_from(at).ok());
        let entry = at.and_then(|at| self.entries.get(at)).map(|entry| entry.term);
        let snapshot = || self.snapshots.iter().rev().find(|snapshot| snapshot.index == index);
        entry.or_else(|| snapshot().map(|snapshot| snapshot.term))
    }
}

/// What the records so far have said.
///
/// The CRC does not cover a record's type, so the checks here are also those that find a record
/// whose type was changed: each message must be spelt as etcd spells it, and terms never go back.
#[derive(Debug, Default)]
struct Log<'a> {
    after: u64,
    metadata: Option<Metadata>,
    hard_state: Option<HardState>,
    snapshots: Vec<WalSnapshot>,
    entries: Vec<EntryRef<'a>>,
    last_index: u64,
}

impl<'a> Log<'a> {
    fn add(&mut self, record: &Record<'a>) -> Result<(), Defect> {
        let data = record.data.unwrap_or_default();
        let payload = Defect::Payload(record.kind);
        if self.metadata.is_none() && !matches!(record.kind, RecordKind::Crc | RecordKind::Metadata)
        {
            return Err(Defect::OtherMetadata);
        }
        match record.kind {
            RecordKind::Crc => Ok(()),
            RecordKind::Metadata => {
                let metadata = decode_exactly(data).ok_or(payload)?;
                let same = *self.metadata.get_or_insert(metadata) == metadata;
                if same { Ok(()) } else { Err(Defect::OtherMetadata) }
            }
            RecordKind::Entry => self.add_entry(EntryRef::decode(data).ok_or(payload)?),
            RecordKind::State => self.add_state(decode_exactly(data).ok_or(payload)?),
            RecordKind::Snapshot => {
                let snapshot: WalSnapshot = decode_exactly(data).ok_or(payload)?;
                self.last_index = self.last_index.max(snapshot.index);
                self.snapshots.push(snapshot);
                Ok(())
            }
        }
    }

    fn add_state(&mut self, state: HardState) -> Result<(), Defect> {
        let before = self.hard_state.unwrap_or_default();
        if state.term == 0 || state.term < before.term || state.commit < before.commit {
            return Err(Defect::GoesBack);
        }
        self.hard_state = Some(state);
        Ok(())
    }

    /// A later entry replaces the one of its index and all after it. A gap is right only where the
    /// member got a snapshot from the leader in place of the entries.
    fn add_entry(&mut self, entry: EntryRef<'a>) -> Result<(), Defect> {
        if entry.entry_type != EntryType::Normal && entry.data.is_none() {
            return Err(Defect::Payload(RecordKind::Entry));
        }
        self.last_index = entry.index;
        if entry.index <= self.after {
            self.entries.clear();
            return Ok(());
        }
        let first = self.entries.first().map_or(entry.index, |first| first.index);
        let kept = usize::try_from(entry.index.saturating_sub(first)).unwrap_or(usize::MAX);
        if kept > self.entries.len() {
            self.check_gap(first + to_u64(self.entries.len()), entry.index)?;
            self.entries.clear();
        }
        self.entries.truncate(kept);
        if self.entries.last().is_some_and(|before| before.term > entry.term) {
            return Err(Defect::GoesBack);
        }
        self.entries.push(entry);
        Ok(())
    }

    fn check_gap(&self, expected: u64, found: u64) -> Result<(), Defect> {
        let snapshot_before = |snapshot: &WalSnapshot| snapshot.index.checked_add(1) == Some(found);
        if self.snapshots.iter().any(snapshot_before) {
            Ok(())
        } else {
            Err(Defect::EntryGap { expected, found })
        }
    }
}

/// The message, if the bytes are just what writing it gives: no unknown field, none missing.
fn decode_exactly<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    (message.encode_to_vec() == bytes).then_some(message)
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).expect("a length in memory fits 64 bits")
}
