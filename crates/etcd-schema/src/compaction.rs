//! Which records a compaction to revision C deletes, and which HashKV leaves out.
//!
//! For each user key, its records are cut into generations; a tombstone ends one. The *keep set* for
//! revision R holds, per key, the newest record with main <= R of the first generation that is the
//! last one or whose tombstone has main >= R (`mvcc/key_index.go`, `doCompact`). Compaction to C
//! deletes every record with main <= C outside the keep set for C.
//!
//! One user key may change twice in one revision, so a record is known by its place among the
//! records, never by (main, key).

use crate::{ReadError, Record, slices::for_each_slice};

/// What becomes of a tombstone that is the newest record of its key at the compacted revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TombstoneAtRevision {
    /// Kept: compaction in etcd 3.4.34, 3.5.16, 3.6 and later.
    Kept,
    /// Dropped: compaction in older etcds, and HashKV in all.
    Dropped,
}

/// The records with main <= some revision that a keep set leaves out, by their place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    bits: Vec<u64>,
    records: usize,
    dropped: usize,
}

impl Dropped {
    /// Whether the record at `place` (counted from 0 among all records) is left out.
    pub fn contains(&self, place: usize) -> bool {
        self.bits.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    /// Number of records left out.
    pub fn len(&self) -> usize {
        self.dropped
    }

    /// Whether no record is left out.
    pub fn is_empty(&self) -> bool {
        self.dropped == 0
    }

    /// Number of records that were looked at and stay.
    pub fn kept(&self) -> usize {
        self.records - self.dropped
    }

    fn insert(&mut self, place: usize) {
        if self.bits.len() <= place / 64 {
            self.bits.resize(place / 64 + 1, 0);
        }
        let (word, bit) = (&mut self.bits[place / 64], 1 << (place % 64));
        self.dropped += usize::from(*word & bit == 0);
        *word |= bit;
    }
}

/// The records that a compaction to `revision` deletes.
///
/// `records` is called once per pass; see [`count_live_keys`](crate::count_live_keys) for the cost.
pub fn dropped_by_compaction<'a, I>(
    records: impl Fn() -> I,
    revision: i64,
    rule: TombstoneAtRevision,
) -> Result<Dropped, ReadError>
where
    I: Iterator<Item = Result<Record<'a>, ReadError>>,
{
    outside_keep_set(records, revision, revision, rule)
}

/// The records with main <= `below` that are not in the keep set for `revision`.
pub(crate) fn outside_keep_set<'a, I>(
    records: impl Fn() -> I,
    revision: i64,
    below: i64,
    rule: TombstoneAtRevision,
) -> Result<Dropped, ReadError>
where
    I: Iterator<Item = Result<Record<'a>, ReadError>>,
{
    let mut dropped = Dropped::default();
    for_each_slice(
        |slice| {
            dropped.records = 0;
            for (place, record) in records().enumerate() {
                let record = record?;
                if record.main() > revision {
                    break;
                }
                let user_key = record.user_key()?;
                let state = if record.main() <= below {
                    dropped.records += 1;
                    slice.get_or_insert(user_key, KeyState::default)
                } else {
                    slice.get(user_key)
                };
                if let Some(state) = state {
                    let place = (record.main() <= below).then_some(place);
                    let ends = record.key.tombstone && record.main() == revision;
                    state.take(place, record.key.tombstone, ends, rule, &mut dropped);
                }
            }
            Ok(())
        },
        |_| {},
    )?;
    Ok(dropped)
}

/// What is known of one user key after some of its records.
#[derive(Default)]
struct KeyState {
    /// Place of the record that is in the keep set if no more come.
    kept: Option<usize>,
    /// A tombstone at the very revision has ended the generation that counts.
    ended: bool,
}

impl KeyState {
    /// Takes in the next record of the key; `place` is `None` above the range asked about.
    fn take(
        &mut self,
        place: Option<usize>,
        tombstone: bool,
        ends: bool,
        rule: TombstoneAtRevision,
        dropped: &mut Dropped,
    ) {
        if self.ended {
            place.into_iter().for_each(|place| dropped.insert(place));
            return;
        }
        self.kept.take().into_iter().for_each(|place| dropped.insert(place));
        self.ended = ends;
        if !tombstone || ends && rule == TombstoneAtRevision::Kept {
            self.kept = place;
        } else {
            place.into_iter().for_each(|place| dropped.insert(place));
        }
    }
}
