//! Raft snapshots: the `.snap` files.
//!
//! ```text
//!   TTTTTTTTTTTTTTTT-IIIIIIIIIIIIIIII.snap      term and index, 16 hex digits each
//!
//!   08 crc   12 length data                     snappb.snapshot; crc = CRC-32C of data
//!                      data = raftpb.Snapshot
//! ```
//!
//! A raft snapshot holds membership and the cluster version as JSON, and no key of the v3 API: those
//! are always in `member/snap/db`.

use std::fmt;
use std::str::FromStr;

use prost::Message;

use crate::raftpb::Snapshot;
use crate::wal::BadName;

/// The name of a `.snap` file. Sorts by term, then index: the newest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapName {
    /// The term of `index`.
    pub term: u64,
    /// The last index the snapshot covers.
    pub index: u64,
}

impl FromStr for SnapName {
    type Err = BadName;

    fn from_str(name: &str) -> Result<Self, BadName> {
        let (term, index) = crate::wal::parse_pair(name, ".snap")?;
        Ok(Self { term, index })
    }
}

impl fmt::Display for SnapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}.snap", self.term, self.index)
    }
}

/// Why bytes are not a raft snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapError {
    /// Not the envelope, or one without content. etcd refuses an empty file and a CRC of zero too.
    #[error("the raft snapshot is empty or not one")]
    NotASnapshot,
    /// The content is damaged.
    #[error("the raft snapshot says CRC {stored:08x}, but its content has {computed:08x}")]
    Crc {
        /// In the file.
        stored: u32,
        /// Of the content.
        computed: u32,
    },
    /// The CRC is right, but the content is no `raftpb.Snapshot`.
    #[error("the content of the raft snapshot does not decode")]
    Content,
}

impl SnapError {
    /// One imperative sentence on what to do next.
    pub fn remedy(&self) -> &'static str {
        "use an older raft snapshot whose index is in the WAL, or another member's data"
    }
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Envelope {
    #[prost(uint32, required, tag = "1")]
    crc: u32,
    #[prost(bytes = "vec", optional, tag = "2")]
    data: Option<Vec<u8>>,
}

/// Reads a `.snap` file.
///
/// # Errors
/// When it is empty, damaged, or not such a file.
pub fn parse(bytes: &[u8]) -> Result<Snapshot, SnapError> {
    let Envelope { crc: stored, data } =
        Envelope::decode(bytes).map_err(|_| SnapError::NotASnapshot)?;
    let data = data.unwrap_or_default();
    if stored == 0 || data.is_empty() {
        return Err(SnapError::NotASnapshot);
    }
    let computed = crc32c::crc32c(&data);
    if stored != computed {
        return Err(SnapError::Crc { stored, computed });
    }
    Snapshot::decode(data.as_slice()).map_err(|_| SnapError::Content)
}

/// The bytes of a `.snap` file.
pub fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let data = snapshot.encode_to_vec();
    Envelope { crc: crc32c::crc32c(&data), data: Some(data) }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raftpb::{ConfState, SnapshotMetadata};
    use proptest::prelude::*;

    fn snapshots() -> impl Strategy<Value = Snapshot> {
        let ids = || prop::collection::vec(any::<u64>(), 0..4);
        let data = prop::option::of(prop::collection::vec(any::<u8>(), 0..200));
        (ids(), ids(), any::<(u64, u64, bool)>(), data).prop_map(
            |(voters, learners, (index, term, auto_leave), data)| {
                let conf_state = ConfState { voters, learners, auto_leave, ..ConfState::default() };
                Snapshot { data, metadata: SnapshotMetadata { conf_state, index, term } }
            },
        )
    }

    proptest! {
        #[test]
        fn a_snapshot_that_is_written_reads_back(snapshot in snapshots()) {
            prop_assert_eq!(parse(&encode(&snapshot)), Ok(snapshot));
        }

        #[test]
        fn every_flipped_bit_is_found(snapshot in snapshots(), at: prop::sample::Index, bit in 0..8u8) {
            let mut bytes = encode(&snapshot);
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            // A flip in the envelope can make the same value in another spelling; never another value.
            prop_assert!(parse(&bytes).is_err() || parse(&bytes) == Ok(snapshot));
        }

        #[test]
        fn garbage_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(parse(&bytes).is_err());
        }
    }

    #[test]
    fn an_empty_file_and_a_cut_one_are_refused() {
        assert_eq!(parse(b""), Err(SnapError::NotASnapshot));
        let bytes = encode(&Snapshot { data: Some(vec![7; 50]), ..Snapshot::default() });
        for cut in 0..bytes.len() {
            assert!(parse(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn names_are_parsed_and_printed() {
        let name: SnapName = "0000000000000002-0000000000000130.snap".parse().unwrap();
        assert_eq!(name, SnapName { term: 2, index: 0x130 });
        assert_eq!(name.to_string(), "0000000000000002-0000000000000130.snap");
        assert!("0000000000000130.snap.db".parse::<SnapName>().is_err());
        assert!("db".parse::<SnapName>().is_err());
    }
}
