//! Files written by real etcd servers.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use bolt::Db;
use serde_json::Value;

use crate::dump;

const VERSIONS: [&str; 4] = ["3.4.23", "3.5.16", "3.5.30", "3.6.14"];

pub(crate) fn fixture(path: &str) -> PathBuf {
    PathBuf::from("../../fixtures").join(path)
}

pub(crate) fn json(path: &str) -> Value {
    serde_json::from_slice(&fs::read(fixture(path)).unwrap()).unwrap()
}

/// Calls `check` with each version, the name of each of its snapshots, its bytes, and what the live
/// server said about it.
fn each_snapshot(check: impl Fn(&str, &[u8], &Value)) {
    for version in VERSIONS {
        let expected = json(&format!("{version}/expected.json"));
        for name in ["base", "final"] {
            let path = format!("{version}/{name}.db");
            check(&path, &fs::read(fixture(&path)).unwrap(), &expected[name]);
        }
    }
}

#[test]
fn the_meta_of_every_snapshot_is_what_was_recorded() {
    each_snapshot(|path, bytes, expected| {
        let db = Db::open(bytes).unwrap();
        let file = &expected["file"];
        assert_eq!(db.page_size().bytes_u64(), file["page_size"].as_u64().unwrap(), "{path}");
        assert_eq!(db.high_water_mark().0, file["pages"].as_u64().unwrap(), "{path}");
        assert_eq!(db.meta().txid.0, file["txid"].as_u64().unwrap(), "{path}");
        assert_eq!(db.size(), expected["status"]["totalSize"].as_u64().unwrap(), "{path}");
        assert_eq!(db.spare_meta_defect(), None, "{path}");
    });
}

#[test]
fn every_bucket_of_every_snapshot_has_the_recorded_number_of_pairs() {
    each_snapshot(|path, bytes, expected| {
        let db = Db::open(bytes).unwrap();
        let pairs: BTreeMap<String, u64> = db
            .buckets()
            .map(|bucket| {
                let bucket = bucket.unwrap();
                let name = String::from_utf8(bucket.name().to_vec()).unwrap();
                let pairs = bucket.iter().inspect(|pair| assert!(pair.is_ok(), "{pair:?}")).count();
                (name, u64::try_from(pairs).unwrap())
            })
            .collect();
        let expected: BTreeMap<String, u64> =
            serde_json::from_value(expected["bucket_pairs"].clone()).unwrap();
        assert_eq!(pairs, expected, "{path}");
    });
}

#[test]
fn every_key_of_every_snapshot_is_found_by_get_and_by_seek() {
    each_snapshot(|path, bytes, _| {
        let db = Db::open(bytes).unwrap();
        for bucket in db.buckets() {
            let name = bucket.unwrap().name();
            let bucket = db.bucket(name).unwrap().unwrap();
            let mut last = None;
            for pair in bucket {
                let (key, value) = pair.unwrap();
                assert_eq!(bucket.get(key).unwrap(), Some(value), "{path}");
                let from = bucket.range_from(key).next().unwrap().unwrap();
                assert_eq!(from, (key, value), "{path}");
                let after = [key, b"\0"].concat();
                assert_eq!(bucket.get(&after).unwrap(), None, "{path}");
                last = Some((key, value));
            }
            assert_eq!(bucket.last().unwrap(), last, "{path}");
        }
        assert!(db.bucket(b"nothing").unwrap().is_none(), "{path}");
    });
}

#[test]
fn every_snapshot_is_checked_clean_and_the_checker_hands_over_what_the_reader_reads() {
    each_snapshot(|path, bytes, _| {
        let db = Db::open(bytes).unwrap();
        let checked = dump::check(&db);
        assert_eq!(checked.violations, [], "{path}");
        assert_eq!(checked.dump, dump::read(&db).unwrap(), "{path}");
    });
}
