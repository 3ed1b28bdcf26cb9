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
    /// Pages in use; the others of the file are free.
    pub pages: u64,
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
    let compacted = compact_revision(db);
    std::thread::scope(|scope| {
        let mut surveyor = Surveyor {
            depth,
            compacted,
            on_finding,
            survey: Survey::default(),
            hash: HashThread::begin(scope),
            within: Within::Other,
            last_key: None,
            previous: Revision { main: compacted, sub: 0 },
        };
        let pages = Check::new(db).walk(&mut surveyor).pages;
        Survey { pages, ..surveyor.finish() }
    })
}

/// The compact revision, 1 at least, which the walk would only learn after bucket `key`. What cannot be
/// read here is reported by the walk.
fn compact_revision(db: &Db<'_>) -> i64 {
    let mut meta = Meta::default();
    if let Ok(Some(bucket)) = db.bucket(bucket::META) {
        for (key, value) in bucket.iter().map_while(Result::ok) {
            let _ = meta.read(key, value);
        }
    }
    meta.compact_revision().unwrap_or(1).max(1)
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
    /// The record before this one, at `Depth::Records`. What comes first stands where compaction
    /// ended, or on an empty store, which is at revision 1.
    previous: Revision,
}

impl<'scope, 'a: 'scope> Visitor<'a> for Surveyor<'scope, 'a, '_> {
    fn bucket(&mut self, start: BucketStart<'a>) -> ControlFlow<()> {
        self.hash.bucket(start.name);
        let name = String::from_utf8_lossy(start.name).into_owned();
        if start.depth > 0 {
            self.found(Finding::NestedBucket { name: name.clone() });
        }
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
        let previous = std::mem::replace(&mut self.previous, revision);
        let gap = (!self.follows(previous, revision)).then_some(RecordDefect::Gap { previous });
        let marker = value.is_empty() && self.may_be_marker(key);
        let defect = if marker { None } else { defect_of(key, &kv) };
        if let Some(defect) = defect.or(gap) {
            self.found(Finding::Record { revision, defect });
        }
    }

    /// Whether `next` may come after `previous`. Compaction leaves holes; above it there are none, as
    /// every revision has at least one record, numbered from 0.
    fn follows(&self, previous: Revision, next: Revision) -> bool {
        if next.main <= self.compacted {
            return true;
        }
        let next_of_same =
            next.main == previous.main && previous.sub.checked_add(1) == Some(next.sub);
        let main = previous.main.max(self.compacted).checked_add(1);
        let first_of_next = main == Some(next.main) && next.sub == 0;
        next_of_same || first_of_next
    }

    /// A restore that bumps the revision adds one record without a value, as the only one of its
    /// revision, and marks all up to it as compacted.
    fn may_be_marker(&self, key: RevisionKey) -> bool {
        let Revision { main, sub } = key.revision;
        !key.tombstone && sub == 0 && main <= self.compacted
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

fn defect_of(key: RevisionKey, kv: &KeyValue<'_>) -> Option<RecordDefect> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use bolt::{Builder, Options};

    /// A put of key `k`, as etcd writes it.
    fn put(main: i64, sub: i64) -> (Vec<u8>, Vec<u8>) {
        let main_byte = u8::try_from(main.min(100)).unwrap();
        let mut value = vec![0x0a, 1, b'k', 0x10, 1, 0x18];
        match main {
            i64::MAX => value.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
            _ => value.push(main_byte),
        }
        value.extend([0x20, 1]);
        (Revision { main, sub }.encode().to_vec(), value)
    }

    fn marker(main: i64, sub: i64) -> (Vec<u8>, Vec<u8>) {
        (Revision { main, sub }.encode().to_vec(), Vec::new())
    }

    /// What is found in a database of these records, compacted to that revision.
    fn found(compacted: Option<i64>, records: &[(Vec<u8>, Vec<u8>)]) -> Vec<RecordDefect> {
        let file = tempfile::tempfile().unwrap();
        let mut builder = Builder::new(&file, Options::default()).unwrap();
        builder.begin_bucket(bucket::KEY).unwrap();
        records.iter().for_each(|(key, value)| builder.put(key, value).unwrap());
        builder.end_bucket().unwrap();
        builder.begin_bucket(bucket::META).unwrap();
        if let Some(main) = compacted {
            let revision = Revision { main, sub: 0 }.encode();
            builder.put(b"finishedCompactRev", &revision).unwrap();
        }
        builder.end_bucket().unwrap();
        builder.finish().unwrap();
        let mapped = bolt::Mapped::open(&file).unwrap();
        let mut defects = Vec::new();
        survey(&Db::open(&mapped).unwrap(), Depth::Records, &mut |finding| match finding {
            Finding::Record { defect, .. } => defects.push(defect),
            other => panic!("{other}"),
        });
        defects
    }

    fn gap(main: i64, sub: i64) -> RecordDefect {
        RecordDefect::Gap { previous: Revision { main, sub } }
    }

    #[test]
    fn records_from_the_first_revision_on_have_no_gap() {
        assert_eq!(found(None, &[]), []);
        assert_eq!(found(None, &[put(2, 0), put(3, 0), put(3, 1), put(4, 0)]), []);
        assert_eq!(found(Some(5), &[put(3, 1), put(6, 0)]), []);
        assert_eq!(found(Some(5), &[put(6, 0)]), []);
    }

    #[test]
    fn a_lost_beginning_is_found() {
        assert_eq!(found(None, &[put(3, 0), put(4, 0)]), [gap(1, 0)]);
        assert_eq!(found(None, &[put(2, 1)]), [gap(1, 0)]);
        assert_eq!(found(Some(5), &[put(7, 0)]), [gap(5, 0)]);
        assert_eq!(found(Some(5), &[put(3, 0), put(7, 0)]), [gap(3, 0)]);
    }

    #[test]
    fn the_greatest_numbers_are_no_gap_by_overflow() {
        let last = i64::MAX;
        assert_eq!(found(Some(last - 1), &[put(last, 0)]), []);
        let (main, sub) = (10, last);
        assert_eq!(found(Some(9), &[put(main, sub), put(11, 0)]), [gap(9, 0)]);
        assert_eq!(found(Some(last - 1), &[put(last, 1)]), [gap(last - 1, 0)]);
    }

    #[test]
    fn a_record_without_a_value_is_the_marker_of_a_bump_or_a_defect() {
        assert_eq!(found(Some(50), &[put(2, 0), marker(50, 0), put(51, 0)]), []);
        assert_eq!(found(Some(50), &[marker(40, 0)]), [], "compacted again since");
        assert_eq!(found(Some(50), &[marker(50, 0), marker(51, 0)]), [RecordDefect::NoKey]);
        assert_eq!(found(Some(50), &[marker(50, 1)]), [RecordDefect::NoKey]);
        assert_eq!(found(None, &[marker(2, 0)]), [RecordDefect::NoKey]);
    }

    #[test]
    fn a_bucket_inside_another_is_not_etcds() {
        let file = tempfile::tempfile().unwrap();
        let mut builder = Builder::new(&file, Options::default()).unwrap();
        builder.begin_bucket(bucket::KEY).unwrap();
        builder.begin_bucket(b"inner").unwrap();
        builder.end_bucket().unwrap();
        builder.end_bucket().unwrap();
        builder.begin_bucket(bucket::META).unwrap();
        builder.end_bucket().unwrap();
        builder.finish().unwrap();
        let mapped = bolt::Mapped::open(&file).unwrap();
        for depth in [Depth::Tree, Depth::Records] {
            let mut findings = Vec::new();
            survey(&Db::open(&mapped).unwrap(), depth, &mut |finding| findings.push(finding));
            assert_eq!(findings, [Finding::NestedBucket { name: "inner".into() }], "{depth:?}");
        }
    }
}
