//! One walk over a database: is it sound, and what does it hold?
//!
//! The walk is `bolt`'s check; what it finds sound is hashed, counted and, at [`Depth::Records`],
//! held against what etcd writes. Findings are streamed; memory does not grow with the database.

use crate::{
    finding::{Finding, RecordDefect},
    hashing::HashThread,
};
use bolt::{BucketStart, Check, Db, Violation, Visitor};
use etcd_schema::{
    AUTH_ENABLED, AlarmMember, KeyValue, Lease, Member, Meta, Revision, RevisionKey, SchemaError,
    bucket, lease_key,
};
use std::ops::ControlFlow;

/// How much of a database is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Pages, keys and their order; what `etcdutl snapshot status` checks, and more.
    Tree,
    /// That, and each record: its revision, its message, the steps between records.
    Records,
}

/// What a database holds. Sound only if the walk had no findings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The hash of `snapshot status`.
    pub status_hash: u32,
    /// Pairs in each bucket, in the order of the file.
    pub buckets: Vec<BucketCount>,
    /// The last record of bucket `key`.
    pub newest: Option<Revision>,
    /// Bucket `meta`.
    pub meta: Meta,
    /// Bucket `members`, by id as text.
    pub members: Vec<Member>,
    /// Bucket `alarm`.
    pub alarms: Vec<AlarmMember>,
    /// `clusterVersion` of bucket `cluster`, such as `3.5.0`.
    pub cluster_version: Option<String>,
    /// Whether authentication is on.
    pub auth_enabled: bool,
    /// Number of findings that are not harmless.
    pub findings: u64,
}

/// Number of pairs of one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketCount {
    /// Bucket name; what is not UTF-8 is replaced.
    pub name: String,
    /// Pairs in it.
    pub pairs: u64,
}

impl Survey {
    /// Pairs in all buckets: `totalKey` of etcd 3.4 and 3.5.
    pub fn pairs(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.pairs).sum()
    }

    /// Pairs in the bucket of that name.
    pub fn pairs_in(&self, name: &[u8]) -> u64 {
        let named = self.buckets.iter().find(|bucket| bucket.name.as_bytes() == name);
        named.map_or(0, |bucket| bucket.pairs)
    }

    /// Main revision of the last record, 0 if there is none: what `snapshot status` prints.
    pub fn last_record(&self) -> i64 {
        self.newest.map_or(0, |revision| revision.main)
    }

    /// The store's revision: that of the last record, or of the last compaction if that is greater.
    pub fn revision(&self) -> i64 {
        self.last_record().max(self.meta.compact_revision().unwrap_or(1)).max(1)
    }
}

/// Walks `db`. Every finding goes to `on_finding` as it is made.
pub fn survey(db: &Db<'_>, depth: Depth, on_finding: &mut dyn FnMut(Finding)) -> Survey {
    std::thread::scope(|scope| {
        let mut surveyor = Surveyor {
            depth,
            compacted: compact_revision(db),
            on_finding,
            survey: Survey::default(),
            hash: HashThread::begin(scope),
            within: Within::Other,
            last_key: None,
            previous: None,
        };
        let _ = Check::new(db).walk(&mut surveyor);
        surveyor.finish()
    })
}

/// The compact revision, which the walk would only learn after bucket `key`. What cannot be read
/// here is reported by the walk.
fn compact_revision(db: &Db<'_>) -> i64 {
    let mut meta = Meta::default();
    if let Ok(Some(bucket)) = db.bucket(bucket::META) {
        for (key, value) in bucket.iter().map_while(Result::ok) {
            let _ = meta.read(key, value);
        }
    }
    meta.compact_revision().unwrap_or(1)
}

/// The bucket that the walk is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Key,
    Meta,
    Lease,
    Members,
    Alarm,
    Auth,
    Cluster,
    Other,
}

struct Surveyor<'scope, 'a, 'f> {
    depth: Depth,
    compacted: i64,
    on_finding: &'f mut dyn FnMut(Finding),
    survey: Survey,
    hash: HashThread<'scope, 'a>,
    within: Within,
    /// Key of the last record, parsed when its bucket ends.
    last_key: Option<&'a [u8]>,
    /// The record before this one, at `Depth::Records`.
    previous: Option<Revision>,
}

impl<'scope, 'a: 'scope> Visitor<'a> for Surveyor<'scope, 'a, '_> {
    fn bucket(&mut self, start: BucketStart<'a>) -> ControlFlow<()> {
        self.hash.bucket(start.name);
        let name = String::from_utf8_lossy(start.name).into_owned();
        self.survey.buckets.push(BucketCount { name, pairs: 0 });
        self.within = match start.name {
            _ if start.depth > 0 => Within::Other,
            bucket::KEY => Within::Key,
            bucket::META => Within::Meta,
            bucket::LEASE => Within::Lease,
            bucket::MEMBERS => Within::Members,
            bucket::ALARM => Within::Alarm,
            bucket::AUTH => Within::Auth,
            bucket::CLUSTER => Within::Cluster,
            _ => Within::Other,
        };
        ControlFlow::Continue(())
    }

    fn bucket_end(&mut self) -> ControlFlow<()> {
        self.within = Within::Other;
        ControlFlow::Continue(())
    }

    fn pair(&mut self, key: &'a [u8], value: &'a [u8]) -> ControlFlow<()> {
        self.hash.pair(key, value);
        if let Some(bucket) = self.survey.buckets.last_mut() {
            bucket.pairs += 1;
        }
        if self.within == Within::Key {
            self.last_key = Some(key);
            if self.depth == Depth::Records {
                self.record(key, value);
            }
        } else if let Err(error) = self.small_value(key, value) {
            self.value_finding(error);
        }
        ControlFlow::Continue(())
    }

    fn violation(&mut self, violation: Violation) -> ControlFlow<()> {
        self.found(Finding::Tree(violation));
        ControlFlow::Continue(())
    }
}

impl<'scope, 'a: 'scope> Surveyor<'scope, 'a, '_> {
    fn found(&mut self, finding: Finding) {
        self.survey.findings += u64::from(!finding.is_harmless());
        (self.on_finding)(finding);
    }

    fn value_finding(&mut self, error: SchemaError) {
        let bucket = self.survey.buckets.last().map(|bucket| bucket.name.clone());
        self.found(Finding::Value { bucket: bucket.unwrap_or_default(), error });
    }

    /// Takes in a pair of any bucket but `key`.
    fn small_value(&mut self, key: &[u8], value: &[u8]) -> Result<(), SchemaError> {
        match self.within {
            Within::Meta => self.survey.meta.read(key, value)?,
            Within::Members => self.survey.members.push(Member::parse(value)?),
            Within::Alarm => self.survey.alarms.push(AlarmMember::parse(key)?),
            Within::Auth if key == AUTH_ENABLED => self.survey.auth_enabled = value == [1],
            Within::Cluster if key == b"clusterVersion" => {
                self.survey.cluster_version = Some(String::from_utf8_lossy(value).into_owned());
            }
            Within::Lease => check_lease(key, value)?,
            _ => {}
        }
        Ok(())
    }

    /// Takes in a record of bucket `key`.
    fn record(&mut self, key: &[u8], value: &[u8]) {
        let parsed = RevisionKey::parse(key).and_then(|key| Ok((key, KeyValue::parse(value)?)));
        let (key, kv) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => return self.value_finding(error),
        };
        let revision = key.revision;
        let gap = self.previous.filter(|previous| !self.follows(*previous, revision));
        self.previous = Some(revision);
        let gap = gap.map(|previous| RecordDefect::Gap { previous });
        if let Some(defect) = defect_of(key, &kv, value.is_empty()).or(gap) {
            self.found(Finding::Record { revision, defect });
        }
    }

    /// Whether `next` may come after `previous`. Compaction leaves holes; above it there are none, as
    /// every revision has at least one record, numbered from 0.
    fn follows(&self, previous: Revision, next: Revision) -> bool {
        if next.main <= self.compacted {
            return true;
        }
        let next_of_same = next.main == previous.main && next.sub == previous.sub + 1;
        let first_of_next = next.main == previous.main.max(self.compacted) + 1 && next.sub == 0;
        next_of_same || first_of_next
    }

    fn finish(mut self) -> Survey {
        match self.last_key.map(RevisionKey::parse) {
            Some(Ok(key)) => self.survey.newest = Some(key.revision),
            Some(Err(error)) if self.depth == Depth::Tree => {
                self.found(Finding::Value { bucket: "key".into(), error });
            }
            _ => {}
        }
        for (name, text) in [(bucket::KEY, "key"), (bucket::META, "meta")] {
            if self.survey.findings == 0
                && !self.survey.buckets.iter().any(|bucket| bucket.name.as_bytes() == name)
            {
                self.found(Finding::NotEtcd { bucket: text });
            }
        }
        let mut survey = self.survey;
        survey.status_hash = self.hash.finish();
        survey
    }
}

fn check_lease(key: &[u8], value: &[u8]) -> Result<(), SchemaError> {
    let lease = Lease::parse(value)?;
    if lease_key(lease.id) != key {
        let why = format!("it holds lease {:x} under another key", lease.id);
        return Err(SchemaError::Message { what: "leasepb.Lease", why });
    }
    Ok(())
}

fn defect_of(key: RevisionKey, kv: &KeyValue<'_>, value_is_empty: bool) -> Option<RecordDefect> {
    let bumped_marker = value_is_empty && !key.tombstone;
    if bumped_marker {
        return None;
    }
    if kv.key.is_empty() {
        return Some(RecordDefect::NoKey);
    }
    if key.tombstone {
        let key_only = KeyValue { key: kv.key, ..KeyValue::default() };
        return (*kv != key_only).then_some(RecordDefect::TombstoneWithValue);
    }
    if kv.mod_revision != key.revision.main {
        return Some(RecordDefect::ModRevision { found: kv.mod_revision });
    }
    if !(1..=kv.mod_revision).contains(&kv.create_revision) {
        return Some(RecordDefect::CreateRevision { found: kv.create_revision });
    }
    (kv.version < 1).then_some(RecordDefect::Version { found: kv.version })
}
