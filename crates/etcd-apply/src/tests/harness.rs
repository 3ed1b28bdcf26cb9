//! A database made by requests, a log of further requests, and what applying gives, as text.

use std::collections::BTreeMap;
use std::io::Cursor;

use bolt::{Builder, Db};
use etcd_raftfiles::raftpb::{ConfChange, Entry, HardState, Metadata, WalSnapshot};
use etcd_raftfiles::wal::{Encoder, Segment, SegmentName, Wal};
use etcd_schema::{KeyValue, Member, MemberId, bucket};
use prost::Message;

use crate::request::Request;
use crate::request::build::entry;
use crate::{Applied, ApplyError, Options, UpTo, apply};

/// A member's files, as the test describes them.
#[derive(Clone, Default)]
pub(super) struct World {
    /// Bucket, key, value.
    rows: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Index of the last entry in the database.
    index: u64,
    /// Its term; 0 stands for 1.
    term: u64,
    /// Whose log it is, if not that of the first member in the database, or of member 1.
    log_of: Option<u64>,
    log: Vec<Entry>,
    /// Entries at the end of the log that are not committed.
    uncommitted: u64,
    /// Indexes of raft snapshots that the log names.
    snapshots: Vec<u64>,
    up_to: UpTo,
}

impl World {
    /// A database as a new 3.5 has it.
    pub(super) fn new() -> Self {
        let mut world = Self::default();
        world.set_row(bucket::META, b"consistent_index", &0u64.to_be_bytes());
        world.set_row(bucket::META, b"term", &1u64.to_be_bytes());
        world.rows.insert(bucket::KEY.to_vec(), BTreeMap::new());
        world
    }

    /// Applies a request to the database itself.
    pub(super) fn base(self, request: Request) -> Self {
        assert!(self.log.is_empty(), "the database comes before the log");
        self.log(request).settle()
    }

    /// Puts the log into the database.
    pub(super) fn settle(self) -> Self {
        let bytes = self.db();
        let db = Db::open(&bytes).unwrap();
        let applied = self.applied();
        let mut rows = BTreeMap::new();
        for name in applied.buckets(&db).unwrap() {
            let pairs = applied.pairs(&db, &name).unwrap().map(Result::unwrap);
            let pairs = pairs.map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
            rows.insert(name, pairs);
        }
        let term = applied.term.unwrap_or_default();
        Self { rows, index: applied.consistent_index, term, ..Self::default() }
    }

    pub(super) fn base_member(mut self, id: u64, peer_url: &str) -> Self {
        let peer_urls = vec![peer_url.to_owned()];
        let member = Member { id: MemberId(id), peer_urls, ..Member::default() };
        self.set_row(bucket::MEMBERS, member.id.to_string().as_bytes(), &member.encode());
        self
    }

    pub(super) fn base_row(mut self, bucket: &[u8], key: &[u8], value: &[u8]) -> Self {
        self.set_row(bucket, key, value);
        self
    }

    pub(super) fn without_lease_rows(mut self) -> Self {
        self.rows.remove(bucket::LEASE);
        self
    }

    pub(super) fn without_key_rows(mut self) -> Self {
        self.rows.insert(bucket::KEY.to_vec(), BTreeMap::new());
        self
    }

    pub(super) fn without_term(mut self) -> Self {
        self.rows.get_mut(bucket::META).unwrap().remove(&b"term"[..]);
        self
    }

    /// Appends an entry to the log.
    pub(super) fn log(self, request: Request) -> Self {
        self.log_data(0, Some(entry(request)))
    }

    /// Appends a new leader's first entry.
    pub(super) fn log_nothing(self) -> Self {
        self.log_data(0, None)
    }

    pub(super) fn log_conf_change(self, change_type: i32, node_id: u64, context: &str) -> Self {
        let context = Some(context.as_bytes().to_vec());
        let change = ConfChange { id: 9, change_type, node_id, context };
        self.log_data(1, Some(change.encode_to_vec()))
    }

    pub(super) fn log_data(mut self, entry_type: i32, data: Option<Vec<u8>>) -> Self {
        let index = self.log.last().map_or(self.index, |entry| entry.index) + 1;
        self.log.push(Entry { entry_type, term: 3, index, data });
        self
    }

    pub(super) fn log_of(self, member: u64) -> Self {
        Self { log_of: Some(member), ..self }
    }

    /// Leaves out the first entries of the log.
    pub(super) fn purge(mut self, entries: usize) -> Self {
        self.log.drain(..entries);
        self
    }

    pub(super) fn commit_back(mut self, entries: u64) -> Self {
        self.uncommitted = entries;
        self
    }

    pub(super) fn committed_only(self) -> Self {
        Self { up_to: UpTo::Commit, ..self }
    }

    pub(super) fn snapshot_at(mut self, index: u64) -> Self {
        self.snapshots.push(index);
        self
    }

    pub(super) fn apply(&self) -> Result<Applied, ApplyError> {
        let (db, segment) = (self.db(), self.segment());
        let segments = [Segment { name: SegmentName { seq: 0, first_index: 0 }, bytes: &segment }];
        let wal = Wal::read(&segments, 0).unwrap();
        let options = Options { up_to: self.up_to, ..Options::default() };
        apply(&Db::open(&db).unwrap(), &wal, &options)
    }

    pub(super) fn applied(&self) -> Applied {
        self.apply().unwrap()
    }

    /// The new records, as text.
    pub(super) fn records(&self) -> Vec<String> {
        let text = |record: &crate::NewRecord| {
            let kv = KeyValue::parse(&record.value).unwrap();
            let (key, value) = (String::from_utf8_lossy(kv.key), String::from_utf8_lossy(kv.value));
            let revision = record.key.revision;
            if record.key.tombstone {
                assert_eq!(kv, KeyValue { key: kv.key, ..KeyValue::default() });
                return format!("{revision} del {key}");
            }
            assert_eq!(kv.mod_revision, revision.main);
            let lease = if kv.lease == 0 { String::new() } else { format!(" lease {}", kv.lease) };
            let (create, version) = (kv.create_revision, kv.version);
            format!("{revision} put {key}={value} create {create} version {version}{lease}")
        };
        let applied = self.applied();
        let last = applied.records.last().map_or(applied.revision, |r| r.key.revision.main);
        assert_eq!(applied.revision, last, "the revision is that of the last record");
        applied.records.iter().map(text).collect()
    }

    /// A bucket afterwards.
    pub(super) fn bucket(&self, name: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let bytes = self.db();
        let db = Db::open(&bytes).unwrap();
        let applied = self.applied();
        let pairs = applied.pairs(&db, name.as_bytes()).unwrap().map(Result::unwrap);
        pairs.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    fn set_row(&mut self, bucket: &[u8], key: &[u8], value: &[u8]) {
        self.rows.entry(bucket.to_vec()).or_default().insert(key.to_vec(), value.to_vec());
    }

    fn db(&self) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        let mut builder = Builder::new(&mut file, bolt::Options::default()).unwrap();
        for (name, pairs) in &self.rows {
            builder.begin_bucket(name).unwrap();
            for (key, value) in pairs {
                builder.put(key, value).unwrap();
            }
            builder.end_bucket().unwrap();
        }
        builder.finish().unwrap();
        file.into_inner()
    }

    fn owner_of_log(&self) -> u64 {
        let members = self.rows.get(bucket::MEMBERS).into_iter().flatten();
        let mut ids = members.map(|(key, _)| MemberId::parse_key(key).unwrap().0);
        self.log_of.or(ids.next()).unwrap_or(1)
    }

    /// The log, and before it the last entry that is in the database.
    fn segment(&self) -> Vec<u8> {
        let mut wal = Encoder::new(0);
        wal.metadata(Metadata { node_id: self.owner_of_log(), cluster_id: 2 })
            .snapshot(&WalSnapshot::default());
        let next = self.index + 1;
        let follows = self.log.first().is_none_or(|entry| entry.index == next);
        if self.index > 0 && follows {
            let term = self.term.max(1);
            wal.entry(&Entry { entry_type: 0, term, index: self.index, data: None });
        }
        for index in &self.snapshots {
            wal.snapshot(&WalSnapshot { index: *index, term: 1, conf_state: None });
        }
        for entry in &self.log {
            wal.entry(entry);
        }
        let last = self.log.last().map_or(self.index, |entry| entry.index);
        wal.state(HardState { term: 3, vote: 1, commit: last - self.uncommitted });
        wal.finish()
    }
}
