//! Whether a log is the one that a database was made from.
//!
//! ```text
//!   WAL  metadata.node_id  ── a member that the database, or the log itself, knows of?
//!   WAL  term of the entry at consistent_index  ── meta/term?
//! ```
//!
//! Two members of two clusters have entries of the same index that say different things; applied to
//! the wrong database they would make one that looks sound. A log of another member of the same
//! cluster passes: raft sees to it that it says the same.

use bolt::Db;
use etcd_raftfiles::raftpb::ConfChangeType;
use etcd_raftfiles::wal::{EntryRef, Wal};
use etcd_schema::{MemberId, Meta, ReadError, bucket};

use crate::apply::Action;
use crate::error::ApplyError;

/// Refuses a log that is not this database's. `entries` are those to be applied.
pub(crate) fn check(
    db: &Db<'_>,
    meta: &Meta,
    wal: &Wal<'_>,
    entries: &[EntryRef<'_>],
) -> Result<(), ApplyError> {
    let member = MemberId(wal.metadata.node_id);
    if !is_known(db, member)? && !is_added(entries, member) {
        return Err(ApplyError::ForeignLog { member });
    }
    check_term(db, meta, wal)
}

/// Whether the member is, or was, one of the database's. A database without members cannot tell.
fn is_known(db: &Db<'_>, member: MemberId) -> Result<bool, ReadError> {
    let Some(members) = db.bucket(bucket::MEMBERS)? else { return Ok(true) };
    let Some(first) = members.iter().next() else { return Ok(true) };
    first?;
    let key = member.to_string();
    let removed = match db.bucket(bucket::MEMBERS_REMOVED)? {
        Some(removed) => removed.get(key.as_bytes())?.is_some(),
        None => false,
    };
    Ok(removed || members.get(key.as_bytes())?.is_some())
}

/// Whether one of the entries adds the member: the database of one that has just joined may not
/// have its row yet.
fn is_added(entries: &[EntryRef<'_>], member: MemberId) -> bool {
    let adds = [ConfChangeType::AddNode, ConfChangeType::AddLearnerNode];
    entries.iter().any(|entry| match Action::of(entry) {
        Ok(Action::ConfChange(change)) => {
            let kind = ConfChangeType::try_from(change.change_type);
            change.node_id == member.0 && kind.is_ok_and(|kind| adds.contains(&kind))
        }
        _ => false,
    })
}

/// 3.4 leaves a term that is there as it is, so the row says something only from cluster version 3.5
/// on. The log may have been cut off before the entry; then there is nothing to compare.
fn check_term(db: &Db<'_>, meta: &Meta, wal: &Wal<'_>) -> Result<(), ApplyError> {
    let index = meta.consistent_index.unwrap_or(0);
    let (Some(database), Some(log)) = (meta.term, wal.term_of(index)) else { return Ok(()) };
    if database != log && cluster_version(db)?.is_some_and(|version| version >= (3, 5)) {
        return Err(ApplyError::OtherTerm { index, database, log });
    }
    Ok(())
}

/// `clusterVersion` of bucket `cluster`, major and minor.
pub(crate) fn cluster_version(db: &Db<'_>) -> Result<Option<(u64, u64)>, ReadError> {
    let Some(cluster) = db.bucket(bucket::CLUSTER)? else { return Ok(None) };
    let version = cluster.get(b"clusterVersion")?;
    Ok(version.map(|version| parse_version(&String::from_utf8_lossy(version))))
}

/// Major and minor of a version such as `3.5.0`; 0 for what is no number.
pub(crate) fn parse_version(version: &str) -> (u64, u64) {
    let mut numbers = version.split('.').map(|part| part.parse::<u64>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
