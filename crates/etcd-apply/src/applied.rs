//! What applying entries gives: the difference to the database, and the database with it.

use std::collections::BTreeMap;

use bolt::{BoltError, Db};
use etcd_schema::{Lease, ReadError, Record, RevisionKey, bucket};

/// A record to be appended to the bucket `key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// Its revision, and whether it is a tombstone.
    pub key: RevisionKey,
    /// `key` as stored.
    pub raw_key: Vec<u8>,
    /// The value as stored: an encoded `mvccpb.KeyValue`.
    pub value: Vec<u8>,
}

impl NewRecord {
    pub(crate) fn new(key: RevisionKey, value: Vec<u8>) -> Self {
        Self { key, raw_key: key.encode(), value }
    }
}

/// Rows of a bucket that changed: the new value, or `None` if the row is gone.
pub(crate) type Rows = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What the log adds to a database.
///
/// The records are greater than all in the database, so they are appended. [`pairs`](Self::pairs)
/// gives a bucket as it is afterwards, ready to be written; [`records`](Self::records) the same of
/// the bucket `key`, for hashing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Records to append to `key`, ascending.
    pub records: Vec<NewRecord>,
    /// Leases that changed; `None` for one that was revoked.
    pub leases: BTreeMap<i64, Option<Lease>>,
    /// Index of the last entry whose effects are in the result.
    pub consistent_index: u64,
    /// Term of that entry; `None` if neither log nor database tells.
    pub term: Option<u64>,
    /// The store's revision.
    pub revision: i64,
    /// The store's compact revision; `None` if it was never compacted. A compaction from the log is
    /// only scheduled: the records it deletes are still there, and etcd deletes them when it starts.
    pub compact_revision: Option<i64>,
    /// How many entries were applied.
    pub entries: usize,
    /// How many of them lay beyond the commit that the log has: a client may have been told that they
    /// are done, or not.
    pub beyond_commit: usize,
    /// How many of them etcd answered with an error, so that they changed nothing.
    pub refused: usize,
    pub(crate) rows: BTreeMap<&'static [u8], Rows>,
}

impl Applied {
    /// The names of all buckets that the result has, ascending: those of the database, and those in
    /// which there are new rows.
    ///
    /// # Errors
    /// When the database is damaged.
    pub fn buckets(&self, db: &Db<'_>) -> Result<Vec<Vec<u8>>, BoltError> {
        let mut names: Vec<Vec<u8>> = self.rows.keys().map(|name| name.to_vec()).collect();
        if !self.records.is_empty() {
            names.push(bucket::KEY.to_vec());
        }
        for bucket in db.buckets() {
            names.push(bucket?.name().to_vec());
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// The pairs of a bucket as they are afterwards, in key order. `db` is the database that the
    /// entries were applied to.
    ///
    /// # Errors
    /// When the database is damaged; each pair can be an error too.
    pub fn pairs<'x>(
        &'x self,
        db: &Db<'x>,
        bucket: &[u8],
    ) -> Result<impl Iterator<Item = Result<Pair<'x>, BoltError>> + use<'x>, BoltError> {
        let base = db.bucket(bucket)?.map(|bucket| bucket.iter());
        let changes = if bucket == bucket::KEY {
            self.records.iter().map(|r| (&r.raw_key[..], Some(&r.value[..]))).collect()
        } else {
            let rows = self.rows.get(bucket);
            rows.into_iter().flatten().map(|(k, v)| (k.as_slice(), v.as_deref())).collect()
        };
        Ok(Merged { base: base.into_iter().flatten().peekable(), changes, next_change: 0 })
    }

    /// The records of the bucket `key` as they are afterwards: those of `db`, then the new ones.
    pub fn records<'x>(
        &'x self,
        db: &Db<'x>,
    ) -> impl Iterator<Item = Result<Record<'x>, ReadError>> + use<'x> {
        let (base, damage) = match db.bucket(bucket::KEY) {
            Ok(base) => (base, None),
            Err(error) => (None, Some(Err(error.into()))),
        };
        let new = self
            .records
            .iter()
            .map(|new| Ok(Record { key: new.key, raw_key: &new.raw_key, value: &new.value }));
        let base = base.into_iter().flat_map(|base| etcd_schema::records(&base));
        damage.into_iter().chain(base).chain(new)
    }
}

/// A key and its value.
pub(crate) type Pair<'x> = (&'x [u8], &'x [u8]);

/// The pairs of a bucket with changes laid over them, in key order.
struct Merged<'x, I: Iterator<Item = Result<Pair<'x>, BoltError>>> {
    base: std::iter::Peekable<I>,
    changes: Vec<(&'x [u8], Option<&'x [u8]>)>,
    next_change: usize,
}

impl<'x, I: Iterator<Item = Result<Pair<'x>, BoltError>>> Iterator for Merged<'x, I> {
    type Item = Result<Pair<'x>, BoltError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((key, value)) = self.changes.get(self.next_change).copied() else {
                return self.base.next();
            };
            match self.base.peek() {
                Some(Err(_)) => return self.base.next(),
                Some(Ok((base_key, _))) if *base_key < key => return self.base.next(),
                Some(Ok((base_key, _))) if *base_key == key => {
                    self.base.next(); // replaced or deleted
                }
                _ => {}
            }
            self.next_change += 1;
            if let Some(value) = value {
                return Some(Ok((key, value)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn merging_lays_changes_over_the_base_in_key_order(
            base: BTreeMap<Vec<u8>, Vec<u8>>, changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
        ) {
            let mut expected = base.clone();
            for (key, value) in &changes {
                match value {
                    Some(value) => expected.insert(key.clone(), value.clone()),
                    None => expected.remove(key),
                };
            }
            let pairs = base.iter().map(|(key, value)| Ok((key.as_slice(), value.as_slice())));
            let changes = changes.iter().map(|(k, v)| (k.as_slice(), v.as_deref())).collect();
            let merged = Merged { base: pairs.peekable(), changes, next_change: 0 };
            let merged: Vec<_> = merged.map(Result::unwrap).collect();
            let expected: Vec<Pair<'_>> =
                expected.iter().map(|(k, v)| (k.as_slice(), v.as_slice())).collect();
            prop_assert_eq!(merged, expected);
        }
    }
}
