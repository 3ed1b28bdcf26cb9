//! Applying the entries of a log to a database, in order.

use bolt::Db;
use etcd_raftfiles::raftpb::{ConfChange, EntryType};
use etcd_raftfiles::wal::{EntryRef, Wal};
use etcd_schema::{AUTH_ENABLED, Lease, Meta, ReadError, Revision, bucket, lease_key};
use prost::Message;

use crate::alarms::{Alarms, Gate};
use crate::applied::{Applied, Rows};
use crate::error::ApplyError;
use crate::interest::Interest;
use crate::leases::Leases;
use crate::membership::Membership;
use crate::origin;
use crate::range::KeyRange;
use crate::request::{BadRequest, LeaseCheckpointRequest, Request, V2Request};
use crate::store::{Fault, Store};
use crate::txn::{self, Outcome};

/// What the outcome depends on beside database and log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Seconds to which etcd raises a shorter TTL of a new lease: one and a half election timeouts,
    /// rounded up. It only matters for the time a restored lease has left.
    pub lease_ttl_min: i64,
    /// Where to stop.
    pub up_to: UpTo,
}

/// The last entry that is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpTo {
    /// The last one of the log, so that no write is lost that this member has and a client was told
    /// is done.
    #[default]
    LastEntry,
    /// The last one that the log says is committed. Writes that were acknowledged after this was
    /// written down are lost.
    Commit,
}

impl Default for Options {
    /// All entries; and for etcd's own default, an election timeout of one second: 2 seconds.
    fn default() -> Self {
        Self { lease_ttl_min: 2, up_to: UpTo::default() }
    }
}

/// Index of the last raft entry whose effects are in the database; 0 for a database in which there
/// is none. The WAL is to be read from it on.
///
/// # Errors
/// When the database is damaged.
pub fn consistent_index(db: &Db<'_>) -> Result<u64, ApplyError> {
    Ok(Meta::of(db)?.consistent_index.unwrap_or(0))
}

/// Applies the entries of `wal` that are not in `db` yet.
///
/// `wal` has been read from [`consistent_index`] on, or from before it. With the entry at
/// `consistent_index` itself in it, it can be seen whether log and database belong together.
///
/// # Errors
/// When the database is damaged, or the outcome would not be certain to the last byte: see
/// [`ApplyError`]. Every error has a [`remedy`](ApplyError::remedy).
pub fn apply(db: &Db<'_>, wal: &Wal<'_>, options: &Options) -> Result<Applied, ApplyError> {
    let meta = Meta::of(db)?;
    let consistent_index = meta.consistent_index.unwrap_or(0);
    check_auth(db)?;
    let entries = match options.up_to {
        UpTo::LastEntry => &wal.entries[..],
        UpTo::Commit => wal.committed(),
    };
    let entries = &entries[entries.partition_point(|entry| entry.index <= consistent_index)..];
    origin::check(db, &meta, wal, entries)?;
    check_reach(wal, consistent_index)?;
    let term = wal.term_of(consistent_index).or(meta.term);

    let mut interest = Interest::default();
    for entry in entries {
        if let Action::Request(request) = Action::of(entry)? {
            interest.add(&request);
        }
    }
    interest.finish();

    let mut state = State::new(db, meta, &interest, options)?;
    for entry in entries {
        state.apply(entry)?;
    }
    let applied = state.finish(entries, consistent_index);
    let beyond_commit = entries.iter().filter(|entry| entry.index > wal.commit()).count();
    Ok(Applied { term: applied.term.or(term), beyond_commit, ..applied })
}

fn check_auth(db: &Db<'_>) -> Result<(), ApplyError> {
    let enabled = match db.bucket(bucket::AUTH)? {
        Some(auth) => auth.get(AUTH_ENABLED)?.is_some_and(|value| value != [0]),
        None => false,
    };
    if enabled { Err(ApplyError::AuthEnabled) } else { Ok(()) }
}

/// The log must begin where the database ends, or before, and not end before it.
fn check_reach(wal: &Wal<'_>, consistent_index: u64) -> Result<(), ApplyError> {
    let commit = wal.commit();
    let snapshots = wal.snapshots.iter().map(|snapshot| snapshot.index);
    let snapshot = snapshots.filter(|index| *index <= commit).max().unwrap_or(0);
    if snapshot > consistent_index {
        return Err(ApplyError::SnapshotAhead { snapshot, consistent_index });
    }
    let needed = wal.entries.iter().find(|entry| entry.index > consistent_index);
    match needed {
        Some(entry) if entry.index - 1 > consistent_index => {
            Err(ApplyError::MissingEntries { consistent_index, first: entry.index })
        }
        Some(_) => Ok(()),
        None => {
            let last = wal.last_index;
            if last < consistent_index {
                Err(ApplyError::LogBehindDatabase { consistent_index, last })
            } else {
                Ok(())
            }
        }
    }
}

/// What an entry does.
pub(crate) enum Action {
    Request(Request),
    ConfChange(ConfChange),
    /// A new leader's first entry.
    Nothing,
}

impl Action {
    pub(crate) fn of(entry: &EntryRef<'_>) -> Result<Self, ApplyError> {
        let index = entry.index;
        let unknown = ApplyError::UnknownEntry { index };
        let data = entry.data.unwrap_or_default();
        match entry.entry_type {
            EntryType::Normal if data.is_empty() => Ok(Self::Nothing),
            EntryType::Normal => match Request::decode(data) {
                Ok(request) => Ok(Self::Request(request)),
                Err(BadRequest::Auth(request)) => Err(ApplyError::AuthEntry { index, request }),
                Err(BadRequest::Unknown) => Err(unknown),
            },
            EntryType::ConfChange => {
                ConfChange::decode(data).map(Self::ConfChange).map_err(|_| unknown)
            }
            EntryType::ConfChangeV2 => Err(unknown), // no etcd of these formats proposes one
        }
    }
}

/// The state machine.
struct State<'a> {
    meta: Meta,
    store: Store<'a>,
    alarms: Alarms,
    membership: Membership<'a>,
    keeps_checkpoints: bool,
    refused: usize,
}

impl<'a> State<'a> {
    fn new(
        db: &Db<'a>,
        mut meta: Meta,
        interest: &Interest,
        options: &Options,
    ) -> Result<Self, ApplyError> {
        let keys = db.bucket(bucket::KEY)?;
        let leases = db.bucket(bucket::LEASE)?;
        let compact_revision = meta.compact_revision().unwrap_or(-1);
        let newest = match &keys {
            Some(keys) => keys.last()?.map(|(key, _)| etcd_schema::RevisionKey::parse(key)),
            None => None,
        };
        let newest = newest.transpose()?.map_or(1, |key| key.revision.main);
        let revision = newest.max(compact_revision);

        let leases = Leases::new(leases, options.lease_ttl_min);
        let membership = Membership::new(db, meta.conf_state.take())?;
        Ok(Self {
            store: Store::gather(keys, interest, leases, revision, compact_revision)?,
            alarms: Alarms::read(db.bucket(bucket::ALARM)?)?,
            keeps_checkpoints: keeps_checkpoints(db)?,
            membership,
            meta,
            refused: 0,
        })
    }

    fn apply(&mut self, entry: &EntryRef<'_>) -> Result<(), ApplyError> {
        let index = entry.index;
        match Action::of(entry)? {
            Action::Nothing => Ok(()),
            Action::ConfChange(change) => Ok(self.membership.conf_change(&change)?),
            Action::Request(request) => {
                let outcome = self.request(&request, index)?;
                self.refused += usize::from(outcome == Outcome::Refused);
                if outcome == Outcome::Doubtful {
                    return Err(ApplyError::TxnReadsUnavailable { index });
                }
                Ok(())
            }
        }
    }

    fn request(&mut self, request: &Request, index: u64) -> Result<Outcome, ApplyError> {
        if self.is_gated(request) {
            return Ok(Outcome::Refused);
        }
        let at = |fault: Fault| match fault {
            Fault::Read(error) => ApplyError::Read(error),
            Fault::Impossible(why) => ApplyError::Impossible { index, why },
        };
        match request {
            Request::Put(put) => return txn::apply_put(&mut self.store, put).map_err(at),
            Request::Txn(request) => return txn::apply(&mut self.store, request).map_err(at),
            Request::DeleteRange(delete) => {
                let mut txn = self.store.write().map_err(at)?;
                txn.delete_range(KeyRange::new(&delete.key, &delete.range_end));
                txn.end();
            }
            Request::Compaction(compaction) => self.store.compact(compaction.revision),
            Request::LeaseGrant(grant) => self.store.leases.grant(grant.id, grant.ttl)?,
            Request::LeaseRevoke(revoke) => self.store.revoke(revoke.id).map_err(at)?,
            Request::LeaseCheckpoint(request) => self.checkpoint(request)?,
            Request::Alarm(alarm) => {
                self.alarms.apply(alarm).map_err(|_| ApplyError::TwoAlarms { index })?;
            }
            Request::ClusterVersionSet(request) => self.set_cluster_version(&request.ver),
            Request::ClusterMemberAttrSet(request) => self.membership.set_attributes(request)?,
            Request::DowngradeInfoSet(request) => self.membership.set_downgrade(request),
            Request::V2(request) => self.v2(request)?,
            Request::NoEffect => {}
        }
        Ok(Outcome::Done)
    }

    /// Whether an alarm makes etcd refuse the request.
    fn is_gated(&self, request: &Request) -> bool {
        match (self.alarms.gate(), request) {
            (Gate::Open, _) => false,
            (Gate::Capped, Request::Txn(request)) => txn::has_put(request),
            (Gate::Capped, request) => matches!(request, Request::Put(_) | Request::LeaseGrant(_)),
            (Gate::Corrupt, request) => matches!(
                request,
                Request::Put(_)
                    | Request::DeleteRange(_)
                    | Request::Txn(_)
                    | Request::Compaction(_)
                    | Request::LeaseGrant(_)
                    | Request::LeaseRevoke(_)
            ),
        }
    }

    fn checkpoint(&mut self, request: &LeaseCheckpointRequest) -> Result<(), ReadError> {
        if self.keeps_checkpoints {
            for checkpoint in &request.checkpoints {
                self.store.leases.checkpoint(checkpoint.id, checkpoint.remaining_ttl)?;
            }
        }
        Ok(())
    }

    fn set_cluster_version(&mut self, version: &str) {
        self.keeps_checkpoints |= origin::parse_version(version) >= (3, 6);
        self.membership.set_cluster_version(version);
    }

    fn v2(&mut self, request: &V2Request) -> Result<(), ReadError> {
        self.membership.v2(request)
    }

    fn finish(self, entries: &[EntryRef<'_>], consistent_index: u64) -> Applied {
        let last = entries.last();
        let (revision, compact_revision) = (self.store.revision(), self.store.compact_revision());
        let (records, leases) = self.store.into_parts();
        let mut applied = Applied {
            consistent_index: last.map_or(consistent_index, |entry| entry.index),
            term: last.map(|entry| entry.term),
            revision,
            compact_revision: (compact_revision >= 0).then_some(compact_revision),
            entries: entries.len(),
            refused: self.refused,
            records,
            leases,
            ..Applied::default()
        };
        applied.add_meta_rows(&self.meta);
        applied.add_lease_rows();
        for (key, there) in self.alarms.into_changed() {
            applied.row(bucket::ALARM, key, there.then(Vec::new));
        }
        for (bucket, key, value) in self.membership.into_rows() {
            applied.row(bucket, key, value);
        }
        applied
    }
}

impl Applied {
    fn row(&mut self, bucket: &'static [u8], key: Vec<u8>, value: Option<Vec<u8>>) {
        let rows: &mut Rows = self.rows.entry(bucket).or_default();
        rows.insert(key, value);
    }

    fn add_meta_rows(&mut self, before: &Meta) {
        let Some(term) = self.term else { return };
        let index = self.consistent_index.to_be_bytes().to_vec();
        self.row(bucket::META, Meta::CONSISTENT_INDEX.to_vec(), Some(index));
        // 3.4 keeps no term, and 3.6 takes a database with one for newer than it is.
        if before.term.is_some() {
            self.row(bucket::META, Meta::TERM.to_vec(), Some(term.to_be_bytes().to_vec()));
        }
        if self.compact_revision != before.compact_revision()
            && let Some(main) = self.compact_revision
        {
            let scheduled = Revision { main, sub: 0 }.encode().to_vec();
            self.row(bucket::META, Meta::SCHEDULED_COMPACT.to_vec(), Some(scheduled));
        }
    }

    fn add_lease_rows(&mut self) {
        let rows: Vec<_> = self
            .leases
            .iter()
            .map(|(id, lease)| (lease_key(*id).to_vec(), lease.as_ref().map(Lease::encode_value)))
            .collect();
        for (key, value) in rows {
            self.row(bucket::LEASE, key, value);
        }
    }
}

/// Whether etcd stores the time that a lease has left: always from cluster version 3.6 on, before
/// that by a flag, of which only a stored remainder tells.
fn keeps_checkpoints(db: &Db<'_>) -> Result<bool, ReadError> {
    if origin::cluster_version(db)?.is_some_and(|version| version >= (3, 6)) {
        return Ok(true);
    }
    for pair in db.bucket(bucket::LEASE)?.iter().flat_map(bolt::Bucket::iter) {
        if Lease::parse(pair?.1)?.remaining_ttl != 0 {
            return Ok(true);
        }
    }
    Ok(false)
}
