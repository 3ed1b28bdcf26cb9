//! The key-value store: live keys of interest, and the records that requests add.
//!
//! A record's key is (main, sub): `main` is one more than the store's revision, the same for all
//! changes of a transaction; `sub` counts them from 0. A transaction that changes nothing does not
//! raise the revision. One key may change twice in a transaction, so nothing here is keyed by
//! (key, main).

use std::collections::{BTreeMap, BTreeSet};

use bolt::{BoltError, Bucket};
use etcd_schema::{KeyValue, Lease, ReadError, Revision, RevisionKey, SchemaError, records};

use crate::applied::NewRecord;
use crate::error::Impossible;
use crate::interest::Interest;
use crate::leases::Leases;
use crate::range::KeyRange;

/// Why the store cannot go on.
#[derive(Debug)]
pub(crate) enum Fault {
    Read(ReadError),
    Impossible(Impossible),
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<BoltError> for Fault {
    fn from(error: BoltError) -> Self {
        Self::Read(error.into())
    }
}

impl From<SchemaError> for Fault {
    fn from(error: SchemaError) -> Self {
        Self::Read(error.into())
    }
}

/// The newest record of a live key.
#[derive(Clone, Copy, Debug)]
enum Newest<'a> {
    /// In the database.
    Base(&'a [u8]),
    /// Among the new records.
    New(usize),
}

#[derive(Clone, Copy, Debug)]
struct Live<'a> {
    newest: Newest<'a>,
    /// The lease that etcd holds the key attached to. Not always the one in the record: a key whose
    /// lease is not in the database is attached to none.
    attached: i64,
}

/// The store, as far as the log's requests need it.
#[derive(Debug)]
pub(crate) struct Store<'a> {
    live: BTreeMap<Vec<u8>, Live<'a>>,
    attached: BTreeSet<(i64, Vec<u8>)>,
    pub(crate) leases: Leases<'a>,
    records: Vec<NewRecord>,
    revision: i64,
    /// -1 before the first compaction.
    compact_revision: i64,
}

impl<'a> Store<'a> {
    /// A store at this revision, with the live keys of interest that the bucket `key` holds.
    pub(crate) fn gather(
        keys: Option<Bucket<'a>>,
        interest: &Interest,
        leases: Leases<'a>,
        revision: i64,
        compact_revision: i64,
    ) -> Result<Self, ReadError> {
        let mut live = BTreeMap::new();
        if let Some(keys) = keys.filter(|_| !interest.is_empty()) {
            live = live_keys(&keys, interest)?;
        }
        let mut store = Self {
            live,
            attached: BTreeSet::new(),
            leases,
            records: Vec::new(),
            revision,
            compact_revision,
        };
        store.attach_all()?;
        Ok(store)
    }

    /// Attaches the keys to their leases, as etcd does when it starts: a lease must exist.
    fn attach_all(&mut self) -> Result<(), ReadError> {
        for (key, live) in &mut self.live {
            let Newest::Base(value) = live.newest else { continue };
            let lease = KeyValue::parse(value)?.lease;
            if lease != 0 && self.leases.exists(lease)? {
                live.attached = lease;
                self.attached.insert((lease, key.clone()));
            }
        }
        Ok(())
    }

    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    pub(crate) fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// Schedules a compaction, unless the revision is compacted already or still to come. The
    /// records below it stay: etcd deletes them when it starts, and no reader may look at them.
    pub(crate) fn compact(&mut self, revision: i64) {
        if revision > self.compact_revision && revision <= self.revision {
            self.compact_revision = revision;
        }
    }

    /// The live key of that name.
    pub(crate) fn get(&self, key: &[u8]) -> Option<KeyValue<'_>> {
        self.live.get(key).map(|live| self.key_value(live))
    }

    /// The live keys of a range, ascending.
    pub(crate) fn range(&self, range: KeyRange<'_>) -> impl Iterator<Item = KeyValue<'_>> {
        self.keys_in(range).map(|(_, live)| self.key_value(live))
    }

    fn keys_in(&self, range: KeyRange<'_>) -> impl Iterator<Item = (&Vec<u8>, &Live<'a>)> {
        range.bounds().into_iter().flat_map(|bounds| self.live.range::<[u8], _>(bounds))
    }

    fn key_value<'s>(&'s self, live: &Live<'a>) -> KeyValue<'s> {
        let bytes: &'s [u8] = match live.newest {
            Newest::Base(value) => value,
            Newest::New(at) => &self.records[at].value,
        };
        KeyValue::parse(bytes).expect("parsed when it was gathered, or written here")
    }

    /// Begins a transaction.
    pub(crate) fn write(&mut self) -> Result<WriteTxn<'_, 'a>, Fault> {
        let main = self.revision.checked_add(1).ok_or(Fault::Impossible(Impossible::Revision))?;
        Ok(WriteTxn { store: self, main, subs: 0 })
    }

    /// Deletes a lease's keys, ascending, in one revision, and the lease.
    pub(crate) fn revoke(&mut self, lease: i64) -> Result<(), Fault> {
        if !self.leases.exists(lease)? {
            return Ok(());
        }
        let from = (lease, Vec::new());
        let of_lease = self.attached.range(from..).take_while(|(id, _)| *id == lease);
        let keys: Vec<Vec<u8>> = of_lease.map(|(_, key)| key.clone()).collect();
        let mut txn = self.write()?;
        for key in &keys {
            txn.delete(key);
        }
        txn.end();
        self.leases.remove(lease);
        Ok(())
    }

    pub(crate) fn into_parts(self) -> (Vec<NewRecord>, BTreeMap<i64, Option<Lease>>) {
        (self.records, self.leases.into_changed())
    }
}

/// One pass over all records; only the live keys of interest are kept.
fn live_keys<'a>(
    keys: &Bucket<'a>,
    interest: &Interest,
) -> Result<BTreeMap<Vec<u8>, Live<'a>>, ReadError> {
    let mut live: BTreeMap<Vec<u8>, Live<'a>> = BTreeMap::new();
    for record in records(keys) {
        let record = record?;
        let key = record.user_key()?;
        if record.key.tombstone {
            live.remove(key);
            continue;
        }
        let newest = Live { newest: Newest::Base(record.value), attached: 0 };
        if let Some(known) = live.get_mut(key) {
            *known = newest;
        } else if interest.has_key(key) || is_of_lease(record.value, interest)? {
            live.insert(key.to_vec(), newest);
        }
    }
    Ok(live)
}

fn is_of_lease(value: &[u8], interest: &Interest) -> Result<bool, SchemaError> {
    Ok(interest.has_leases() && interest.has_lease(KeyValue::parse(value)?.lease))
}

/// A transaction: its changes have one main revision.
#[derive(Debug)]
pub(crate) struct WriteTxn<'s, 'a> {
    store: &'s mut Store<'a>,
    main: i64,
    subs: i64,
}

impl WriteTxn<'_, '_> {
    pub(crate) fn store(&self) -> &Store<'_> {
        self.store
    }

    /// Puts a key; its lease, if any, exists.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8], lease: i64) -> Result<(), Fault> {
        if lease != 0 && !self.store.leases.exists(lease)? {
            return Err(Fault::Impossible(Impossible::LeaseGone(lease)));
        }
        let before = self.store.get(key).map(|kv| (kv.create_revision, kv.version));
        let (create_revision, version) = before.unwrap_or((self.main, 0));
        let kv = KeyValue {
            key,
            create_revision,
            mod_revision: self.main,
            version: version.wrapping_add(1),
            value,
            lease,
        };
        let newest = Newest::New(self.store.records.len());
        self.append(false, kv.encode());
        self.detach(key);
        self.store.live.insert(key.to_vec(), Live { newest, attached: lease });
        if lease != 0 {
            self.store.attached.insert((lease, key.to_vec()));
        }
        Ok(())
    }

    /// Deletes the live keys of a range, ascending.
    pub(crate) fn delete_range(&mut self, range: KeyRange<'_>) {
        let keys: Vec<Vec<u8>> = self.store.keys_in(range).map(|(key, _)| key.clone()).collect();
        for key in &keys {
            self.delete(key);
        }
    }

    /// Deletes a live key.
    fn delete(&mut self, key: &[u8]) {
        self.append(true, KeyValue { key, ..KeyValue::default() }.encode());
        self.detach(key);
        self.store.live.remove(key);
    }

    fn detach(&mut self, key: &[u8]) {
        let attached = self.store.live.get(key).map_or(0, |live| live.attached);
        if attached != 0 {
            self.store.attached.remove(&(attached, key.to_vec()));
        }
    }

    fn append(&mut self, tombstone: bool, value: Vec<u8>) {
        let revision = Revision { main: self.main, sub: self.subs };
        self.store.records.push(NewRecord::new(RevisionKey { revision, tombstone }, value));
        self.subs += 1;
    }

    /// Ends the transaction: the revision goes up if anything changed.
    pub(crate) fn end(self) {
        if self.subs > 0 {
            self.store.revision = self.main;
        }
    }
}
