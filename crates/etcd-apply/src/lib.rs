//! Raft entries applied to an etcd database offline.
//!
//! etcd commits to bbolt every 100 ms or 10,000 operations, so the database of a member that was
//! killed lacks the newest writes, though they were acknowledged: they are only in the WAL. When etcd
//! starts it applies them again, and so does [`apply`], without running etcd:
//!
//! ```text
//!            consistent_index        commit   last entry
//!   WAL   ... e e e | e e e e e e e e e | e e |
//!   db    ----------|
//!   [`apply`]       |------------------------>|  = Applied: records to append to `key`, and
//!                                                rows of the other buckets
//! ```
//!
//! The commit in the log is no bound of what was acknowledged: raft writes it down with later
//! records, and a member that is killed has answered clients beyond it. So all entries are applied,
//! unless [`UpTo::Commit`] is asked for. One that was still in flight is as good as one whose answer
//! was lost: its client may find it done. Only among the logs of a majority can be seen that an entry
//! was dropped: raft elects the log whose last entry has the greatest term, then the greatest index.
//! [`Applied`] tells both of this one.
//!
//! It is exact or it refuses. Every entry must be understood to the last byte; the rules of puts,
//! deletions, transactions, leases, alarms and compaction are those of etcd's own state machine,
//! down to the order of sub revisions. What depends on more than the database and the log (users and
//! permissions), or differs between versions of etcd, is a typed [`ApplyError`].
//!
//! What is best effort, because a restore writes it anew and HashKV does not see it: the rows of
//! `members`, `members_removed` and `cluster`, and `meta/confState`.
//!
//! Memory grows with the log after `consistent_index` and with the live keys its ranges cover, not
//! with the database: entries are looked at first, to see which keys and leases matter, and then one
//! pass over the bucket `key` gathers just those.

mod alarms;
mod applied;
mod apply;
mod error;
mod interest;
mod leases;
mod membership;
mod origin;
mod range;
mod request;
mod store;
#[cfg(test)]
mod tests;
mod txn;

pub use applied::{Applied, NewRecord};
pub use apply::{Options, UpTo, apply, consistent_index};
pub use error::{ApplyError, Impossible};
