//! Names of segments: `SSSSSSSSSSSSSSSS-IIIIIIIIIIIIIIII.wal`, two numbers of 16 hex digits.

use std::fmt;
use std::str::FromStr;

/// The name of a segment file.
///
/// ```
/// use etcd_raftfiles::wal::SegmentName;
/// let name: SegmentName = "0000000000000001-00000000000000ff.wal".parse().unwrap();
/// assert_eq!(name, SegmentName { seq: 1, first_index: 255 });
/// assert_eq!(name.to_string(), "0000000000000001-00000000000000ff.wal");
/// assert!("0.tmp".parse::<SegmentName>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// Counts segments from 0, without gaps.
    pub seq: u64,
    /// The index of the first entry that this segment may hold.
    pub first_index: u64,
}

/// A file name that is not one of a WAL segment or a raft snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a name of the form 16 hex digits, '-', 16 hex digits, {suffix:?}")]
pub struct BadName {
    /// The name.
    pub name: String,
    /// How such a name ends.
    pub suffix: &'static str,
}

impl FromStr for SegmentName {
    type Err = BadName;

    fn from_str(name: &str) -> Result<Self, BadName> {
        let (seq, first_index) = parse_pair(name, ".wal")?;
        Ok(Self { seq, first_index })
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}.wal", self.seq, self.first_index)
    }
}

/// The position of the oldest segment that is needed to read the entries after `after`; `names`
/// are in order. Segments before it may be left out, at the price of the snapshot records in them.
pub fn first_needed(names: &[SegmentName], after: u64) -> usize {
    names.iter().rposition(|name| name.first_index <= after.saturating_add(1)).unwrap_or(0)
}

/// Parses `<16 hex digits>-<16 hex digits><suffix>`.
pub(crate) fn parse_pair(name: &str, suffix: &'static str) -> Result<(u64, u64), BadName> {
    let bad = || BadName { name: name.to_owned(), suffix };
    let (left, right) =
        name.strip_suffix(suffix).and_then(|stem| stem.split_once('-')).ok_or_else(bad)?;
    Ok((parse_hex16(left).ok_or_else(bad)?, parse_hex16(right).ok_or_else(bad)?))
}

/// Exactly 16 lower-case digits: what etcd writes, and nothing else.
fn parse_hex16(text: &str) -> Option<u64> {
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() != 16 || !text.bytes().all(lower_hex) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_names_in_a_wal_directory_are_not_segments() {
        for name in [
            "0.tmp",
            "0000000000000000-0000000000000000.wal.broken",
            "000000000000000-00000000000000000.wal",
            "0000000000000000-000000000000000G.wal",
            "0000000000000000-000000000000000A.wal",
            "+000000000000000-0000000000000000.wal",
            "",
        ] {
            assert!(name.parse::<SegmentName>().is_err(), "{name}");
        }
    }

    #[test]
    fn only_segments_that_may_hold_a_needed_entry_are_needed() {
        let name = |seq, first_index| SegmentName { seq, first_index };
        let names = [name(3, 0), name(4, 101), name(5, 201)];
        for (after, expected) in [(0, 0), (99, 0), (100, 1), (150, 1), (200, 2), (u64::MAX, 2)] {
            assert_eq!(first_needed(&names, after), expected, "after {after}");
        }
        assert_eq!(first_needed(&[name(4, 101)], 5), 0, "a gap is the reader's to report");
    }
}
