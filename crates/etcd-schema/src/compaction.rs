//! Which records a compaction to revision C deletes, and which HashKV leaves out.
//!
//! For each user key, its records are cut into generations; a tombstone ends one. The *keep set* for
//! revision R holds, per key, the newest record with main <= R of the first generation that is the
//! last one or whose tombstone has main >= R, > R in older etcds (`mvcc/key_index.go`, `doCompact`). Compaction to C
//! deletes every record with main <= C outside the keep set for C.
//!
//! One user key may change twice in one revision, so a record is known by its place among the
//! records, never by (main, key).

use crate::{ReadError, Record, slices::for_each_slice};

/// What a compaction does with a tombstone at the very revision that it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TombstoneAtRevision {
    /// It is kept, and a put of its key that follows in the same revision is deleted: etcd 3.4.34,
    /// 3.5.16, 3.6 and later.
    Kept,
    /// It is deleted, and a put of its key that follows in the same revision is kept: older etcds,
    /// which look for a tombstone with main > R.
    Dropped,
}

/// Which keep set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeepSet {
    /// That of a compaction.
    Compaction(TombstoneAtRevision),
    /// That of HashKV in the etcds of [`TombstoneAtRevision::Kept`]: as theirs, without tombstones.
    HashKv,
}

impl KeepSet {
    /// Whether a tombstone at the revision ends the generation that counts.
    fn ends_at_revision(self) -> bool {
        self != Self::Compaction(TombstoneAtRevision::Dropped)
    }

    /// Whether that tombstone is in the set.
    fn keeps_tombstone(self) -> bool {
        self == Self::Compaction(TombstoneAtRevision::Kept)
    }
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
    outside_keep_set(records, revision, revision, KeepSet::Compaction(rule))
}

/// The records with main <= `below` that are not in the keep set for `revision`.
pub(crate) fn outside_keep_set<'a, I>(
    records: impl Fn() -> I,
    revision: i64,
    below: i64,
    keep_set: KeepSet,
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
                    let at_revision = record.main() == revision;
                    state.take(place, record.key.tombstone, at_revision, keep_set, &mut dropped);
                }
            }
            Ok(())
        },
        |_| {},
    )?;
    Ok(dropped)
}

/// What is known of one user key after some of its records, in eight bytes: the table of keys holds
/// one for each.
///
/// ```text
///   bit 0: a tombstone at the very revision has ended the generation that counts
///   bits 1 to 63: 0, or 1 + place of the record that is in the keep set if no more come
/// ```
#[derive(Default)]
struct KeyState(u64);

impl KeyState {
    fn new(kept: Option<usize>, ended: bool) -> Self {
        let kept = kept.map_or(0, |place| place as u64 + 1);
        Self(kept << 1 | u64::from(ended))
    }

    fn kept(&self) -> Option<usize> {
        let place = (self.0 >> 1).checked_sub(1)?;
        Some(usize::try_from(place).expect("it was a usize"))
    }

    fn ended(&self) -> bool {
        self.0 & 1 == 1
    }

    /// Takes in the next record of the key; `place` is `None` above the range asked about.
    fn take(
        &mut self,
        place: Option<usize>,
        tombstone: bool,
        at_revision: bool,
        keep_set: KeepSet,
        dropped: &mut Dropped,
    ) {
        if self.ended() {
            place.into_iter().for_each(|place| dropped.insert(place));
            return;
        }
        self.kept().into_iter().for_each(|place| dropped.insert(place));
        let ends = tombstone && at_revision && keep_set.ends_at_revision();
        let keeps = !tombstone || ends && keep_set.keeps_tombstone();
        *self = Self::new(place.filter(|_| keeps), ends);
        if !keeps {
            place.into_iter().for_each(|place| dropped.insert(place));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slices::KEYS_MAX;
    use hashbrown::HashTable;

    #[test]
    fn a_full_table_takes_less_than_half_of_the_memory_that_is_promised() {
        let table = HashTable::<(&[u8], KeyState)>::with_capacity(KEYS_MAX);
        assert!(table.allocation_size() < 32 << 20, "{}", table.allocation_size());
    }

    #[test]
    fn a_state_gives_back_what_was_put_in() {
        for kept in [None, Some(0), Some(1), Some(usize::MAX >> 2)] {
            for ended in [false, true] {
                let state = KeyState::new(kept, ended);
                assert_eq!((state.kept(), state.ended()), (kept, ended));
            }
        }
    }
}
