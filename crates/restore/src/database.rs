//! The `db` of a restored cluster: the snapshot's records, and buckets rewritten for new members.
//!
//! ```text
//!   bucket                       what becomes of it
//!   key                          copied; with a bump, one marker record is added at the end
//!   lease, auth*, unknown ones   copied
//!   meta                         consistent_index, term, confState of the new raft log; compaction kept
//!   members                      the new members
//!   members_removed, alarm       emptied
//!   cluster                      clusterVersion kept if the target knows it, the rest dropped
//! ```
//!
//! There are two ways to it. Built, it is a new file, and has no free page. Amended, it is the snapshot's own file:
//! buckets that are copied stay where they are, and all that is written is a few pages behind them.
//!
//! The same `db` serves every member. etcdutl leaves the old alarms and the old `confState` in
//! place; an alarm would make the new cluster refuse writes in the name of a member it does not have.

use crate::plan::TargetVersion;
use bolt::{Bucket, BuildError, Builder, Built, Db, Options, Patch};
use etcd_raftfiles::restore::{RestoredCluster, TERM};
use etcd_schema::{ConfState, MemberId, Meta, Revision, StatusHash, bucket};
use std::{
    collections::BTreeMap,
    io::{Seek, Write},
    ops::ControlFlow,
};

/// Key of bucket `cluster`.
const CLUSTER_VERSION: &[u8] = b"clusterVersion";

/// Buckets that every etcd expects to find.
const ETCD_BUCKETS: [&[u8]; 10] = [
    bucket::ALARM,
    bucket::AUTH,
    bucket::AUTH_ROLES,
    bucket::AUTH_USERS,
    bucket::CLUSTER,
    bucket::KEY,
    bucket::LEASE,
    bucket::MEMBERS,
    bucket::MEMBERS_REMOVED,
    bucket::META,
];

/// What the rewriting needs to know.
#[derive(Debug)]
pub(crate) struct Rewrite<'a> {
    pub(crate) cluster: &'a RestoredCluster,
    pub(crate) target: TargetVersion,
    /// The revision to raise the store to and mark compacted.
    pub(crate) bump_to: Option<i64>,
}

/// Why the `db` could not be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    #[error(transparent)]
    Read(#[from] bolt::BoltError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("interrupted")]
    Interrupted,
}

/// What was built, and the hash that it must read back with.
#[derive(Debug)]
pub(crate) struct BuiltDatabase {
    pub(crate) built: Built,
    pub(crate) status_hash: u32,
}

/// Builds the new `db` from `source` in one pass. `on_bytes` is told of bytes as they are copied, and
/// may end it.
pub(crate) fn build<W: Write + Seek>(
    source: &Db<'_>,
    rewrite: &Rewrite<'_>,
    out: W,
    on_bytes: &dyn Fn(u64) -> ControlFlow<()>,
) -> Result<BuiltDatabase, DatabaseError> {
    let options = Options { page_size: source.page_size(), ..Options::default() };
    let mut sink = Sink { builder: Builder::new(out, options)?, hash: StatusHash::default() };
    for (name, bucket) in all_buckets(source)? {
        sink.begin(name)?;
        if !rewrite.bucket(name, bucket, &mut sink)? {
            copy(bucket, &mut sink, on_bytes)?;
        }
        if let Some(key) = rewrite.marker(name) {
            sink.put(&key, b"")?;
        }
        sink.builder.end_bucket()?;
    }
    Ok(BuiltDatabase { status_hash: sink.hash.value(), built: sink.builder.finish()? })
}

/// What makes the new `db` of the file that `source` is in.
pub(crate) fn amend(source: &Db<'_>, rewrite: &Rewrite<'_>) -> Result<Amendment, DatabaseError> {
    let mut patch = Patch::of(source);
    let written = amend_to(&mut patch, source, rewrite)?;
    Ok(Amendment { patch, marker: rewrite.marker(bucket::KEY), written })
}

fn amend_to(
    patch: &mut Patch,
    source: &Db<'_>,
    rewrite: &Rewrite<'_>,
) -> Result<Written, DatabaseError> {
    let builder = Builder::amend(patch, source)?;
    let mut sink = Sink { builder, hash: StatusHash::default() };
    for (name, bucket) in all_buckets(source)? {
        let kept = bucket.filter(|_| !Rewrite::concerns(name));
        let marker = rewrite.marker(name);
        match kept {
            Some(bucket) if marker.is_none() => {
                sink.builder.keep(&bucket)?;
                continue;
            }
            Some(bucket) => sink.builder.begin_after(&bucket)?,
            None if Rewrite::concerns(name) => sink.begin(name)?,
            None => sink.builder.begin_bucket(name)?,
        }
        rewrite.bucket(name, bucket, &mut sink)?;
        if let Some(key) = marker {
            sink.put(&key, b"")?;
        }
        sink.builder.end_bucket()?;
    }
    Ok(Written { hash: sink.hash.value(), pairs: sink.builder.finish()?.pairs })
}

/// A change of a snapshot's file, and what it must read back with.
#[derive(Debug)]
pub(crate) struct Amendment {
    pub(crate) patch: Patch,
    /// The last key of bucket `key`, if it was put there.
    marker: Option<[u8; 17]>,
    written: Written,
}

/// The hash of the buckets that were written anew and of all pairs put in, and the number of these.
#[derive(Debug, PartialEq, Eq)]
struct Written {
    hash: u32,
    pairs: u64,
}

impl Amendment {
    /// Whether `db`, which the patch was applied to, has what was put in. What was kept was walked before.
    pub(crate) fn reads_back(&self, db: &Db<'_>) -> Result<bool, bolt::BoltError> {
        let (mut hash, mut pairs) = (StatusHash::default(), 0);
        for bucket in db.buckets() {
            let bucket = bucket?;
            let name = bucket.name();
            let put = match &self.marker {
                _ if Rewrite::concerns(name) => {
                    hash.bucket(name);
                    bucket.iter()
                }
                Some(key) if name == bucket::KEY => bucket.range_from(key),
                _ => continue,
            };
            for pair in put {
                let (key, value) = pair?;
                hash.pair(key, value);
                pairs += 1;
            }
        }
        Ok(self.written == Written { hash: hash.value(), pairs })
    }
}

/// The buckets of `source`, and those that etcd expects to find.
fn all_buckets<'a>(
    source: &Db<'a>,
) -> Result<BTreeMap<&'a [u8], Option<Bucket<'a>>>, bolt::BoltError> {
    let mut buckets: BTreeMap<&[u8], Option<Bucket<'_>>> =
        ETCD_BUCKETS.iter().map(|name| (*name, None)).collect();
    for bucket in source.buckets() {
        let bucket = bucket?;
        buckets.insert(bucket.name(), Some(bucket));
    }
    Ok(buckets)
}

/// The builder, and the hash of what went into it.
struct Sink<W: Write + Seek> {
    builder: Builder<W>,
    hash: StatusHash,
}

impl<W: Write + Seek> Sink<W> {
    fn begin(&mut self, name: &[u8]) -> Result<(), BuildError> {
        self.hash.bucket(name);
        self.builder.begin_bucket(name)
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), BuildError> {
        self.hash.pair(key, value);
        self.builder.put(key, value)
    }
}

fn copy<W: Write + Seek>(
    source: Option<Bucket<'_>>,
    sink: &mut Sink<W>,
    on_bytes: &dyn Fn(u64) -> ControlFlow<()>,
) -> Result<(), DatabaseError> {
    const REPORT_EVERY_BYTES: usize = 4 << 20;
    let mut bytes = 0;
    for pair in source.iter().flat_map(Bucket::iter) {
        let (key, value) = pair?;
        sink.put(key, value)?;
        bytes += key.len() + value.len();
        let report_due = bytes >= REPORT_EVERY_BYTES;
        if report_due && on_bytes(std::mem::take(&mut bytes) as u64).is_break() {
            return Err(DatabaseError::Interrupted);
        }
    }
    Ok(())
}

impl Rewrite<'_> {
    /// Whether the bucket speaks of the old cluster, so that it is written anew.
    fn concerns(name: &[u8]) -> bool {
        [bucket::ALARM, bucket::MEMBERS_REMOVED, bucket::MEMBERS, bucket::META, bucket::CLUSTER]
            .contains(&name)
    }

    /// Puts in what a bucket that is written anew shall have; says whether it is one.
    fn bucket<W: Write + Seek>(
        &self,
        name: &[u8],
        source: Option<Bucket<'_>>,
        sink: &mut Sink<W>,
    ) -> Result<bool, DatabaseError> {
        match name {
            bucket::MEMBERS => self.members(sink)?,
            bucket::META => self.meta(source, sink)?,
            bucket::CLUSTER => self.cluster(source, sink)?,
            _ => {}
        }
        Ok(Self::concerns(name))
    }

    /// The key of the record that raises the revision, where the bucket gets one: etcd looks at the greatest record
    /// to know its revision. The value may be empty.
    fn marker(&self, name: &[u8]) -> Option<[u8; 17]> {
        let main = self.bump_to.filter(|_| name == bucket::KEY)?;
        Some(Revision { main, sub: 0 }.encode())
    }

    fn members<W: Write + Seek>(&self, sink: &mut Sink<W>) -> Result<(), BuildError> {
        let rows: BTreeMap<String, Vec<u8>> = self
            .cluster
            .members()
            .iter()
            .map(|member| (member.id.to_string(), member.encode()))
            .collect();
        rows.iter().try_for_each(|(id, json)| sink.put(id.as_bytes(), json))
    }

    /// Bucket `meta` for the new raft log. `consistent_index` must be exactly the last index of that
    /// log: with a greater one, etcd would skip every write in silence.
    fn meta<W: Write + Seek>(
        &self,
        source: Option<Bucket<'_>>,
        sink: &mut Sink<W>,
    ) -> Result<(), DatabaseError> {
        let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for pair in source.iter().flat_map(Bucket::iter) {
            let (key, value) = pair?;
            if !self.drops_from_meta(key, value) {
                rows.insert(key.to_vec(), value.to_vec());
            }
        }
        let mut set = |key: &[u8], value: Vec<u8>| rows.insert(key.to_vec(), value);
        set(Meta::CONSISTENT_INDEX, self.cluster.raft_index().to_be_bytes().to_vec());
        if self.target >= TargetVersion::V3_5 {
            set(Meta::TERM, TERM.to_be_bytes().to_vec());
            set(Meta::CONF_STATE, self.conf_state().encode());
        }
        if let Some(main) = self.bump_to {
            set(Meta::SCHEDULED_COMPACT, Revision { main, sub: 0 }.encode().to_vec());
        }
        Ok(rows.iter().try_for_each(|(key, value)| sink.put(key, value))?)
    }

    /// Keys that speak of the old raft log, or that the target would misread.
    fn drops_from_meta(&self, key: &[u8], value: &[u8]) -> bool {
        match key {
            Meta::CONSISTENT_INDEX | Meta::TERM | Meta::CONF_STATE => true,
            Meta::STORAGE_VERSION => {
                self.target < TargetVersion::V3_6 || version_in(value) != Some(self.target)
            }
            _ => false,
        }
    }

    fn conf_state(&self) -> ConfState {
        let state = self.cluster.conf_state();
        let ids = |ids: Vec<u64>| ids.into_iter().map(MemberId).collect();
        ConfState {
            voters: ids(state.voters),
            learners: ids(state.learners),
            ..ConfState::default()
        }
    }

    /// A cluster version above the server's is fatal to it, and a downgrade under way was the old
    /// cluster's; without the key, etcd finds the version by itself.
    fn cluster<W: Write + Seek>(
        &self,
        source: Option<Bucket<'_>>,
        sink: &mut Sink<W>,
    ) -> Result<(), DatabaseError> {
        let Some(source) = source else { return Ok(()) };
        let version = source.get(CLUSTER_VERSION)?;
        let known = |version: &&[u8]| version_in(version).is_some_and(|it| it <= self.target);
        if let Some(version) = version.filter(known) {
            sink.put(CLUSTER_VERSION, version)?;
        }
        Ok(())
    }
}

/// The version that a value such as `3.5.0` names, if it is one of those that are known.
fn version_in(value: &[u8]) -> Option<TargetVersion> {
    std::str::from_utf8(value).ok().and_then(TargetVersion::of_release)
}
