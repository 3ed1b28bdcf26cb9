//! The two hashes by which etcd tells that data is the same.
//!
//! * [`StatusHash`]: what `snapshot status` prints, over every bucket of the file.
//! * [`hash_kv`]: what `Maintenance.HashKV` answers, over the history of user keys up to a revision.
//!   Members that agree hold the same data, whatever their version and raft index.
//!
//! Both are CRC-32C sums without lengths or separators: equal hashes are strong evidence of equal
//! data, not a proof against an adversary.

use crate::{
    Crc32c, ReadError, Record, bucket,
    compaction::{Dropped, KeepSet, outside_keep_set},
};

/// The hash of `snapshot status`: bucket names, keys and values in the order of the file.
#[derive(Clone, Copy, Debug, Default)]
pub struct StatusHash(Crc32c);

impl StatusHash {
    /// Begins a bucket.
    pub fn bucket(&mut self, name: &[u8]) {
        self.0.update(name);
    }

    /// Takes in one pair of it.
    #[inline]
    pub fn pair(&mut self, key: &[u8], value: &[u8]) {
        self.0.update(key);
        self.0.update(value);
    }

    /// The hash; shown in hex by etcdctl's `simple` and `table`, in decimal in its JSON.
    pub fn value(self) -> u32 {
        self.0.value()
    }
}

/// An answer of [`hash_kv`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C of the history.
    pub hash: u32,
    /// Revision up to which it was taken.
    pub hash_revision: i64,
    /// Compact revision of the store; `None` if it was never compacted (etcd prints -1).
    /// Two hashes may be compared only if it is the same in both.
    pub compact_revision: Option<i64>,
}

/// Why [`hash_kv`] has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HashKvError {
    /// The revision is below the compact revision.
    #[error("revision {revision} has been compacted (compact revision {compact_revision})")]
    Compacted {
        /// Revision asked for.
        revision: i64,
        /// Oldest revision that can be asked for.
        compact_revision: i64,
    },
    /// The revision has not been reached.
    #[error("revision {revision} is in the future (current revision {current})")]
    Future {
        /// Revision asked for.
        revision: i64,
        /// Newest revision of the store.
        current: i64,
    },
    /// The records could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// HashKV of the store that `records` hold, at `revision`, or at the newest when `None`.
///
/// `compact_revision` is [`Meta::compact_revision`](crate::Meta::compact_revision). Equals what
/// etcd 3.4.27, 3.5.10, 3.6 and later answer after a restart, and older ones above the compact
/// revision. (Before 3.4.34 and 3.5.16, a key that was deleted and put again in one and the same
/// revision, which is hashed at, counts otherwise.) The compaction hashes that 3.5.5 and later keep in memory are not on disk.
///
/// `records` is called once per pass, at least three times on a compacted store. Memory stays below
/// 64 MiB up to a hundred million records: 25 MiB for keys, whatever their number, and a bit for each
/// record up to the compact revision.
pub fn hash_kv<'a, I>(
    records: impl Fn() -> I,
    compact_revision: Option<i64>,
    revision: Option<i64>,
) -> Result<HashKv, HashKvError>
where
    I: Iterator<Item = Result<Record<'a>, ReadError>>,
{
    let current = current_revision(records(), compact_revision)?;
    let hash_revision = revision.unwrap_or(current);
    let compacted = compact_revision.unwrap_or(-1);
    if hash_revision > current {
        return Err(HashKvError::Future { revision: hash_revision, current });
    }
    if hash_revision < compacted {
        let (revision, compact_revision) = (hash_revision, compacted);
        return Err(HashKvError::Compacted { revision, compact_revision });
    }
    let dropped = dropped_from_hash(&records, hash_revision, compacted)?;
    let hash = sum(records(), hash_revision, compacted, &dropped)?;
    Ok(HashKv { hash, hash_revision, compact_revision })
}

/// Newest revision of the store: that of the last record, or of the last compaction if that is
/// greater, as it may have removed the newest tombstone. 1 on an empty store.
fn current_revision<'a>(
    records: impl Iterator<Item = Result<Record<'a>, ReadError>>,
    compact_revision: Option<i64>,
) -> Result<i64, ReadError> {
    let mut current = compact_revision.unwrap_or(1).max(1);
    for record in records {
        current = current.max(record?.main());
    }
    Ok(current)
}

/// The records up to the compact revision that do not count. An empty keep set leaves out nothing:
/// so etcd does it (`mvcc/hash.go`).
fn dropped_from_hash<'a, I>(
    records: &impl Fn() -> I,
    revision: i64,
    compacted: i64,
) -> Result<Dropped, ReadError>
where
    I: Iterator<Item = Result<Record<'a>, ReadError>>,
{
    if compacted < 0 {
        return Ok(Dropped::default());
    }
    let dropped = outside_keep_set(records, revision, compacted, KeepSet::HashKv)?;
    if dropped.is_empty() || dropped.kept() > 0 {
        return Ok(dropped);
    }
    let keep_set_is_empty =
        outside_keep_set(records, revision, revision, KeepSet::HashKv)?.kept() == 0;
    Ok(if keep_set_is_empty { Dropped::default() } else { dropped })
}

fn sum<'a>(
    records: impl Iterator<Item = Result<Record<'a>, ReadError>>,
    revision: i64,
    compacted: i64,
    dropped: &Dropped,
) -> Result<u32, ReadError> {
    let mut crc = Crc32c::default();
    crc.update(bucket::KEY);
    for (place, record) in records.enumerate() {
        let record = record?;
        if record.main() > revision {
            break;
        }
        let tombstone_at_compaction = record.key.tombstone && record.main() == compacted;
        if !tombstone_at_compaction && !dropped.contains(place) {
            crc.update(record.raw_key);
            crc.update(record.value);
        }
    }
    Ok(crc.value())
}
