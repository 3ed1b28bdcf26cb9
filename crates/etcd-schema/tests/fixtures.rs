//! What real etcds wrote, read by this crate, against what the same etcds answered.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use base64::{Engine, prelude::BASE64_STANDARD};
use bolt::{Db, Mapped};
use etcd_schema::{
    KeyValue, Lease, Member, Meta, StatusHash, bucket, count_live_keys, hash_kv, lease_key, records,
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs, path::PathBuf};

const VERSIONS: [&str; 4] = ["3.4.23", "3.5.16", "3.5.30", "3.6.14"];

fn fixture(version: &str, name: &str) -> PathBuf {
    PathBuf::from("../../fixtures").join(version).join(name)
}

fn json(version: &str, name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixture(version, name)).unwrap()).unwrap()
}

/// Runs `check` on both snapshots of all versions, with what etcd answered about each.
fn for_each_snapshot(check: impl Fn(&str, &Db<'_>, &Value)) {
    for version in VERSIONS {
        let expected = json(version, "expected.json");
        for name in ["base", "final"] {
            let file = fs::File::open(fixture(version, &format!("{name}.db"))).unwrap();
            let mapped = Mapped::open(&file).unwrap();
            check(&format!("{version}/{name}"), &Db::open(&mapped).unwrap(), &expected[name]);
        }
    }
}

fn meta(db: &Db<'_>) -> Meta {
    let mut meta = Meta::default();
    for pair in db.bucket(bucket::META).unwrap().unwrap().iter() {
        let (key, value) = pair.unwrap();
        meta.read(key, value).unwrap();
    }
    meta
}

#[test]
fn status_hash_and_both_key_counts_are_those_that_the_tools_print() {
    for_each_snapshot(|case, db, expected| {
        let (mut hash, mut pairs) = (StatusHash::default(), 0u64);
        for bucket in db.buckets() {
            let bucket = bucket.unwrap();
            hash.bucket(bucket.name());
            for pair in bucket.iter() {
                let (key, value) = pair.unwrap();
                hash.pair(key, value);
                pairs += 1;
            }
        }
        let key = db.bucket(bucket::KEY).unwrap().unwrap();
        let live = count_live_keys(|| records(&key)).unwrap();
        let total = if case.starts_with("3.6") { live } else { pairs };
        let status = &expected["status"];
        assert_eq!(u64::from(hash.value()), status["hash"], "{case}");
        assert_eq!(total, status["totalKey"], "{case}");
        assert_eq!(live, expected["live_keys"], "{case}");
        assert_eq!(db.size(), status["totalSize"], "{case}");
    });
}

#[test]
fn meta_is_what_the_servers_said() {
    for_each_snapshot(|case, db, expected| {
        let meta = meta(db);
        let number = |name: &str| expected[name].as_u64();
        assert_eq!(meta.consistent_index, number("consistent_index"), "{case}");
        assert_eq!(meta.term, number("term"), "{case}");
        assert_eq!(meta.compact_revision(), expected["compact_revision"].as_i64(), "{case}");
        let version = case.starts_with("3.6").then(|| "3.6.0".to_owned());
        assert_eq!(meta.storage_version, version, "{case}");
    });
}

#[test]
fn hash_kv_at_every_recorded_revision_is_the_servers() {
    for_each_snapshot(|case, db, expected| {
        let key = db.bucket(bucket::KEY).unwrap().unwrap();
        let compact_revision = meta(db).compact_revision();
        let answers = expected["hashkv"].as_array().unwrap();
        assert!(!answers.is_empty());
        for answer in answers {
            let revision = answer["revision"].as_i64();
            let hash = hash_kv(|| records(&key), compact_revision, revision).unwrap();
            assert_eq!(u64::from(hash.hash), answer["hash"], "{case} at {revision:?}");
            assert_eq!(hash.compact_revision, answer["compact_revision"].as_i64(), "{case}");
        }
        let newest = hash_kv(|| records(&key), compact_revision, None).unwrap();
        assert_eq!(newest.hash_revision, expected["revision"].as_i64().unwrap(), "{case}");
    });
}

#[test]
fn point_reads_at_any_revision_find_what_the_server_found() {
    for_each_snapshot(|case, db, expected| {
        let bucket = db.bucket(bucket::KEY).unwrap().unwrap();
        let reads = expected["point_reads"].as_array().unwrap();
        assert!(!reads.is_empty());
        for read in reads {
            let key = BASE64_STANDARD.decode(read["key"].as_str().unwrap()).unwrap();
            let revision = read["revision"].as_i64().unwrap();
            let found = read_at(&bucket, &key, revision);
            let case = format!("{case}: {} at {revision}", read["key"]);
            match &read["result"] {
                Value::String(absent) => {
                    assert_eq!((absent.as_str(), found), ("absent", None), "{case}");
                }
                result => {
                    let found = found.unwrap_or_else(|| panic!("{case}: not found"));
                    let digest = Sha256::digest(found.value);
                    let digest: String = digest.iter().map(|b| format!("{b:02x}")).collect();
                    assert_eq!(digest, result["value_sha256"], "{case}");
                    assert_eq!(found.create_revision, result["create_revision"], "{case}");
                    assert_eq!(found.mod_revision, result["mod_revision"], "{case}");
                    assert_eq!(found.version, result["version"], "{case}");
                    assert_eq!(found.lease.to_string(), result["lease"], "{case}");
                }
            }
        }
    });
}

/// The newest record of `key` up to `revision`, unless it deletes the key.
fn read_at<'a>(bucket: &bolt::Bucket<'a>, key: &[u8], revision: i64) -> Option<KeyValue<'a>> {
    let mut found = None;
    for record in records(bucket).map(Result::unwrap) {
        if record.main() > revision {
            break;
        }
        if record.user_key().unwrap() == key {
            found = (!record.key.tombstone).then(|| KeyValue::parse(record.value).unwrap());
        }
    }
    found
}

#[test]
fn leases_and_members_are_those_that_the_servers_listed() {
    for_each_snapshot(|case, db, _| {
        let (version, name) = case.split_once('/').unwrap();
        let mut stored = BTreeMap::new();
        for pair in db.bucket(bucket::LEASE).unwrap().unwrap().iter() {
            let (key, value) = pair.unwrap();
            let lease = Lease::parse(value).unwrap();
            assert_eq!((key, lease.encode_value().as_slice()), (&lease_key(lease.id)[..], value));
            stored.insert(lease.id.to_string(), lease.ttl);
        }
        let listed: BTreeMap<String, i64> = json(version, "leases.json")[name]
            .as_array()
            .unwrap()
            .iter()
            .map(|lease| (lease["id"].as_str().unwrap().to_owned(), &lease["granted_ttl"]))
            .map(|(id, ttl)| (id, ttl.as_i64().unwrap()))
            .collect();
        assert_eq!(stored, listed, "{case}");

        for pair in db.bucket(bucket::MEMBERS).unwrap().unwrap().iter() {
            let (key, value) = pair.unwrap();
            let member = Member::parse(value).unwrap();
            assert_eq!(member.id.to_string().as_bytes(), key, "{case}");
            assert_eq!(member.encode(), value, "{case}");
        }
    });
}
