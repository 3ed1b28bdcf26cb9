//! Any bytes as raft entries that a killed member's database lacks: no panic, and whatever is applied
//! continues the store without a gap.
//!
//! The input is a row of entries, each a byte for its length (255: the rest of the input) and its data.
#![no_main]

use std::io::Cursor;
use std::sync::LazyLock;

use bolt::{Builder, Db, Options};
use etcd_apply::{Applied, UpTo};
use etcd_raftfiles::raftpb::{Entry, EntryType, HardState, Metadata};
use etcd_raftfiles::wal::{Encoder, Segment, SegmentName, Wal};
use etcd_schema::{KeyValue, Lease, Meta, Revision, RevisionKey, lease_key};
use libfuzzer_sys::fuzz_target;

/// Entries that the database holds already.
const APPLIED: u64 = 3;

static DATABASE: LazyLock<Vec<u8>> = LazyLock::new(database);

fuzz_target!(|input: &[u8]| {
    let log = log(input);
    let name = SegmentName { seq: 0, first_index: 0 };
    let wal = Wal::read(&[Segment { name, bytes: &log }], APPLIED).expect("we wrote it");
    let db = Db::open(&DATABASE).expect("we wrote it");
    let Ok(applied) = etcd_apply::apply(&db, &wal, &etcd_apply::Options::default()) else { return };
    check_committed(&db, &wal, &applied);
    let mut last = Revision { main: 4, sub: 0 };
    for record in &applied.records {
        let revision = record.key.revision;
        let next_sub = Revision { main: last.main, sub: last.sub + 1 };
        let next_main = Revision { main: last.main + 1, sub: 0 };
        assert!(revision == next_sub || revision == next_main, "{last} is followed by {revision}");
        last = revision;
    }
    assert!(applied.revision >= last.main);
    for bucket in applied.buckets(&db).expect("the database is sound") {
        let pairs = applied.pairs(&db, &bucket).expect("the database is sound");
        let keys: Vec<_> = pairs.map(|pair| pair.expect("the database is sound").0).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "keys ascend");
    }
    let records = applied.records(&db).collect::<Result<Vec<_>, _>>().expect("they can be read");
    assert!(records.len() >= 3);
});

/// What is applied up to the commit is the beginning of the whole.
fn check_committed(db: &Db<'_>, wal: &Wal<'_>, whole: &Applied) {
    let mut options = etcd_apply::Options::default();
    options.up_to = UpTo::Commit;
    let committed = etcd_apply::apply(db, wal, &options).expect("a part of what was applied");
    assert!(whole.records.starts_with(&committed.records));
    assert_eq!(committed.entries + whole.beyond_commit, whole.entries);
    assert_eq!(committed.beyond_commit, 0);
}

fn log(mut input: &[u8]) -> Vec<u8> {
    let mut log = Encoder::new(0);
    log.metadata(Metadata { node_id: 1, cluster_id: 2 });
    let mut index = 0;
    let mut add = |data: Option<Vec<u8>>| {
        index += 1;
        log.entry(&Entry { entry_type: EntryType::Normal.into(), term: 1, index, data });
    };
    (0..APPLIED).for_each(|_| add(None));
    while let Some((&length, rest)) = input.split_first() {
        let length = if length == 255 { rest.len() } else { rest.len().min(length.into()) };
        let (data, rest) = rest.split_at(length);
        add(Some(data.to_vec()));
        input = rest;
    }
    log.state(HardState { term: 1, vote: 1, commit: APPLIED + (index - APPLIED) / 2 });
    log.finish()
}

/// Keys `a`, `b` and `c` at revisions 2 to 4, one of them on lease 7.
fn database() -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let mut builder = Builder::new(&mut file, Options::default()).expect("the options are good");
    builder.begin_bucket(b"key").expect("names ascend");
    for (main, key) in [(2, b"a"), (3, b"b"), (4, b"c")] {
        let revision = RevisionKey { revision: Revision { main, sub: 0 }, tombstone: false };
        let value = KeyValue {
            key,
            create_revision: main,
            mod_revision: main,
            version: 1,
            value: b"value",
            lease: if main == 3 { 7 } else { 0 },
        };
        builder.put(&revision.encode(), &value.encode()).expect("keys ascend");
    }
    builder.end_bucket().expect("it has begun");
    builder.begin_bucket(b"lease").expect("names ascend");
    let lease = Lease { id: 7, ttl: 60, remaining_ttl: 0 };
    builder.put(&lease_key(7), &lease.encode_value()).expect("keys ascend");
    builder.end_bucket().expect("it has begun");
    builder.begin_bucket(b"meta").expect("names ascend");
    builder.put(Meta::CONSISTENT_INDEX, &APPLIED.to_be_bytes()).expect("keys ascend");
    builder.end_bucket().expect("it has begun");
    builder.finish().expect("memory does not fail");
    file.into_inner()
}
