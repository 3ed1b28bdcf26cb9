//! The write-ahead log: a chain of records in one or more segments.
//!
//! ```text
//! segment 0          | crc 0 | metadata | snapshot {0,0} | entry | entry | state | ...     0 0 0 0 |
//! segment 1          | crc C | metadata | state          | entry | ...                     0 0 0 0 |
//!                          ^ the running sum at the end of segment 0
//! ```
//!
//! * Each record carries the CRC-32C of the data of all records so far, across segments, so a record
//!   cannot be checked alone: [`Records`] is an iterator.
//! * etcd preallocates segments with zeros. A zero length and the end of the file are one event: the
//!   end of the segment.
//! * Only the last segment may be *torn* (cut in the middle of a write); etcd syncs a segment before
//!   it cuts the next. A torn tail is not an error: what stood in it was never acknowledged, and
//!   [`End`] says where it was. The same bytes elsewhere are [`WalError::Corrupt`].
//! * A later entry replaces an earlier one of the same index, and all that came after it: that is
//!   how raft drops entries that were never committed. The last hard state wins.

mod frame;
mod name;
mod reader;
mod record;
mod writer;

pub(crate) use name::parse_pair;
pub use name::{BadName, SegmentName, first_needed};
pub use reader::{Defect, End, EndKind, EntryRef, Located, Records, Segment, Wal, WalError};
pub use record::{Record, RecordKind};
pub use writer::Encoder;
