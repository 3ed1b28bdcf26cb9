//! The test vectors of etcd's hashes, each number as printed by real etcd 3.4, 3.5 and 3.6.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use etcd_schema::{
    HashKv, HashKvError, ReadError, Record, Revision, StatusHash,
    compaction::{TombstoneAtRevision, dropped_by_compaction},
    count_live_keys, hash_kv,
};

/// put a=1, put b=2, put a=3, delete b, txn{put c=4, put d=5}, put b=9.
const RECORDS: [(&str, &str); 7] = [
    ("00000000000000025f0000000000000000", "0a01611002180220012a0131"),
    ("00000000000000035f0000000000000000", "0a01621003180320012a0132"),
    ("00000000000000045f0000000000000000", "0a01611002180420022a0133"),
    ("00000000000000055f000000000000000074", "0a0162"),
    ("00000000000000065f0000000000000000", "0a01631006180620012a0134"),
    ("00000000000000065f0000000000000001", "0a01641006180620012a0135"),
    ("00000000000000075f0000000000000000", "0a01621007180720012a0139"),
];

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn pairs() -> Pairs {
    let unhex = |text: &str| {
        let digits = text.as_bytes().chunks(2);
        digits.map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
    };
    RECORDS.iter().map(|(key, value)| (unhex(key), unhex(value))).collect()
}

fn records(pairs: &Pairs) -> impl Iterator<Item = Result<Record<'_>, ReadError>> {
    pairs.iter().map(|(key, value)| Ok(Record::parse(key, value)?))
}

/// What is left after compaction to revision 5.
fn compacted(rule: TombstoneAtRevision) -> Pairs {
    let pairs = pairs();
    let dropped = dropped_by_compaction(|| records(&pairs), 5, rule).unwrap();
    let left = (0..pairs.len()).filter(|place| !dropped.contains(*place));
    left.map(|place| pairs[place].clone()).collect()
}

fn hash(pairs: &Pairs, compact_revision: Option<i64>, revision: i64) -> u32 {
    let answer = hash_kv(|| records(pairs), compact_revision, Some(revision)).unwrap();
    assert_eq!(answer, HashKv { hash: answer.hash, hash_revision: revision, compact_revision });
    answer.hash
}

#[test]
fn status_hash_of_the_worked_example() {
    let mut hash = StatusHash::default();
    hash.bucket(b"key");
    let pair = &pairs()[0];
    hash.pair(&pair.0, &pair.1);
    hash.bucket(b"lease");
    hash.bucket(b"meta");
    hash.pair(b"consistent_index", &1u64.to_be_bytes());
    assert_eq!(hash.value(), 0xa847_c1eb);
}

#[test]
fn hash_kv_before_a_compaction() {
    let expected =
        [0x40a4_756d, 0x9a39_6dd7, 0x6cee_d8d6, 0x7b5c_bf9c, 0x4318_8ed4, 0xe5ac_3753, 0x1018_95e6];
    for (revision, expected) in (1..).zip(expected) {
        assert_eq!(hash(&pairs(), None, revision), expected, "revision {revision}");
    }
}

#[test]
fn hash_kv_after_a_compaction_is_the_same_whether_the_tombstone_stayed_or_not() {
    for rule in [TombstoneAtRevision::Kept, TombstoneAtRevision::Dropped] {
        let left = compacted(rule);
        for (revision, expected) in [(5, 0xbdc9_12e4), (6, 0xffbd_d89b), (7, 0xd249_2cf8)] {
            assert_eq!(hash(&left, Some(5), revision), expected, "revision {revision}, {rule:?}");
        }
    }
}

/// A member whose compaction was interrupted answers as one whose compaction is complete.
#[test]
fn hash_kv_of_a_partly_compacted_range_is_that_of_a_compacted_one() {
    assert_eq!(hash(&pairs(), Some(5), 7), 0xd249_2cf8);
}

#[test]
fn compaction_leaves_the_records_that_the_versions_of_etcd_leave() {
    let revisions = |rule| {
        let left = compacted(rule);
        let keys = records(&left).map(|record| record.unwrap().key);
        keys.map(|key| (key.revision, key.tombstone)).collect::<Vec<_>>()
    };
    let at = |main, sub| (Revision { main, sub }, false);
    let newer = [at(4, 0), (Revision { main: 5, sub: 0 }, true), at(6, 0), at(6, 1), at(7, 0)];
    let older = [at(4, 0), at(6, 0), at(6, 1), at(7, 0)];
    assert_eq!(revisions(TombstoneAtRevision::Kept), newer);
    assert_eq!(revisions(TombstoneAtRevision::Dropped), older);
}

/// put b, then in one transaction: delete b, put b. Old etcds keep the put, newer ones the tombstone.
#[test]
fn a_key_deleted_and_put_in_the_compacted_revision_is_left_as_each_etcd_leaves_it() {
    let mut pairs = vec![pairs()[1].clone(), pairs()[3].clone()];
    let put_again = Revision { main: 5, sub: 1 }.encode().to_vec();
    pairs.push((put_again, vec![0x0a, 1, b'b', 0x10, 5, 0x18, 5, 0x20, 1]));
    let left = |rule| {
        let dropped = dropped_by_compaction(|| records(&pairs), 5, rule).unwrap();
        (0..pairs.len()).filter(|place| !dropped.contains(*place)).collect::<Vec<_>>()
    };
    assert_eq!(left(TombstoneAtRevision::Kept), [1]);
    assert_eq!(left(TombstoneAtRevision::Dropped), [2]);
}

#[test]
fn revisions_out_of_range_are_refused_with_the_range() {
    let pairs = pairs();
    let answer = |compact, revision| hash_kv(|| records(&pairs), compact, Some(revision));
    assert!(matches!(answer(None, 8), Err(HashKvError::Future { revision: 8, current: 7 })));
    assert!(matches!(
        answer(Some(5), 4),
        Err(HashKvError::Compacted { revision: 4, compact_revision: 5 })
    ));
}

/// etcd skips the keep set when it is empty, so old records count again (`mvcc/hash.go`).
#[test]
fn with_no_key_alive_nothing_is_left_out_of_the_hash() {
    let all = pairs();
    let dead: Pairs = vec![all[1].clone(), all[3].clone()];
    let whole = hash(&dead, None, 5);
    assert_ne!(whole, hash(&dead, Some(5), 5), "the tombstone at the compact revision is left out");
    assert_eq!(hash(&dead, Some(4), 5), whole);
}

#[test]
fn live_keys_are_those_without_a_tombstone_at_the_end() {
    let pairs = pairs();
    assert_eq!(count_live_keys(|| records(&pairs)).unwrap(), 4);
    let until_b_died = pairs[..4].to_vec();
    assert_eq!(count_live_keys(|| records(&until_b_died)).unwrap(), 1);
}
