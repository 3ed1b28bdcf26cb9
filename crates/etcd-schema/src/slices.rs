//! A table of user keys whose memory has a bound.
//!
//! What must be known of every user key ("is this its newest record?") cannot be kept for all keys at
//! once: a database of 8 GB may hold fifty million. So the space of key hashes is cut into slices,
//! and the records are read once per slice. A slice starts as all that is left, and is halved
//! whenever the table is full; what falls out is the business of a later pass. The table is made once
//! and never grows, as two of them would be there while it does.

use crate::ReadError;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

/// Most keys in the table: seven eighths of 2^20 slots. With a slot of 24 bytes, which is a key's
/// place and eight bytes of state, and one byte for the table's own use, these are 25 MiB.
pub(crate) const KEYS_MAX: usize = 7 << 17;

pub(crate) struct Slice<'a, T> {
    table: HashTable<(&'a [u8], T)>,
    hasher: DefaultHashBuilder,
    first: u32,
    last: u32,
    keys_max: usize,
}

/// Runs `pass` over all records once per slice, and `done` on the keys the slice ended with.
pub(crate) fn for_each_slice<'a, T>(
    mut pass: impl FnMut(&mut Slice<'a, T>) -> Result<(), ReadError>,
    mut done: impl FnMut(&T),
) -> Result<(), ReadError> {
    for_each_slice_of(KEYS_MAX, &mut pass, &mut done)
}

fn for_each_slice_of<'a, T>(
    keys_max: usize,
    pass: &mut impl FnMut(&mut Slice<'a, T>) -> Result<(), ReadError>,
    done: &mut impl FnMut(&T),
) -> Result<(), ReadError> {
    let hasher = DefaultHashBuilder::default();
    let table = HashTable::with_capacity(keys_max);
    let mut slice = Slice { table, hasher, first: 0, last: u32::MAX, keys_max };
    loop {
        pass(&mut slice)?;
        slice.table.iter().for_each(|(_, state)| done(state));
        slice.table.clear();
        let Some(next) = slice.last.checked_add(1) else { return Ok(()) };
        (slice.first, slice.last) = (next, u32::MAX);
    }
}

impl<'a, T> Slice<'a, T> {
    /// The state of `key`, if it is in this slice and was put in.
    #[inline]
    pub(crate) fn get(&mut self, key: &[u8]) -> Option<&mut T> {
        let hash = self.hasher.hash_one(key);
        self.table.find_mut(hash, |(k, _)| *k == key).map(|(_, state)| state)
    }

    /// The state of `key`, put in as `new()` if it is not there. `None` if another pass has the key.
    #[inline]
    pub(crate) fn get_or_insert(
        &mut self,
        key: &'a [u8],
        new: impl FnOnce() -> T,
    ) -> Option<&mut T> {
        let hash = self.hasher.hash_one(key);
        if !self.holds(hash) {
            return None;
        }
        while self.is_full() {
            self.halve();
            if !self.holds(hash) {
                return None;
            }
        }
        let hasher = &self.hasher;
        let entry = self.table.entry(hash, |(k, _)| *k == key, |(k, _)| hasher.hash_one(*k));
        Some(&mut entry.or_insert_with(|| (key, new())).into_mut().1)
    }

    /// Forgets `key`.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        let hash = self.hasher.hash_one(key);
        if let Ok(entry) = self.table.find_entry(hash, |(k, _)| *k == key) {
            entry.remove();
        }
    }

    /// Whether one more key may be too many. Slots of keys that were removed are not all free at once;
    /// where none is left, the table puts itself in order if it is no more than half full, and would
    /// grow if it were.
    fn is_full(&self) -> bool {
        let len = self.table.len();
        let none_left = len == self.table.capacity();
        len >= self.keys_max || none_left && len >= self.keys_max / 2
    }

    fn holds(&self, hash: u64) -> bool {
        (self.first..=self.last).contains(&position(hash))
    }

    fn halve(&mut self) {
        self.last = self.first + (self.last - self.first) / 2;
        let (first, last, hasher) = (self.first, self.last, &self.hasher);
        self.table.retain(|(key, _)| (first..=last).contains(&position(hasher.hash_one(*key))));
    }
}

/// Where in the space of slices a hash lies: bits 0 to 31, of which the table uses the lowest for
/// its own order and a slice is chosen by the highest.
#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
fn position(hash: u64) -> u32 {
    hash as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_exactly_one_slice_however_small_the_table() {
        let keys: Vec<String> = (0..1000).map(|i| format!("key-{i}")).collect();
        let (mut passes, mut seen) = (0, Vec::new());
        let result: Result<(), ReadError> = for_each_slice_of(
            16,
            &mut |slice| {
                passes += 1;
                for (i, key) in keys.iter().enumerate() {
                    slice.get_or_insert(key.as_bytes(), || i);
                    assert!(slice.table.len() <= 16);
                }
                Ok(())
            },
            &mut |i| seen.push(*i),
        );
        result.unwrap();
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
        assert!(passes >= 1000 / 16, "{passes} passes");
    }

    #[test]
    fn the_table_never_grows_however_keys_come_and_go() {
        const KEYS: usize = 448;
        let keys: Vec<String> = (0..20 * KEYS).map(|i| format!("key-{i}")).collect();
        let size = HashTable::<(&[u8], ())>::with_capacity(KEYS).allocation_size();
        let result: Result<(), ReadError> = for_each_slice_of(
            KEYS,
            &mut |slice| {
                for (i, key) in keys.iter().enumerate() {
                    slice.get_or_insert(key.as_bytes(), || ());
                    if i % 3 > 0 {
                        slice.remove(keys[i / 2].as_bytes());
                    }
                    assert_eq!(slice.table.allocation_size(), size);
                }
                Ok(())
            },
            &mut |()| {},
        );
        result.unwrap();
    }
}
