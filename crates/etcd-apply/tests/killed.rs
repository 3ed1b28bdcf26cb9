//! Databases of servers that were killed under load, with the entries of their logs applied, against
//! what the same servers said after a restart.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use bolt::Db;
use etcd_apply::{Applied, ApplyError, Options, UpTo, apply, consistent_index};
use etcd_raftfiles::wal::{Segment, SegmentName, Wal};
use etcd_schema::{Lease, bucket};
use serde_json::Value;
use sha2::{Digest, Sha256};

const VERSIONS: [&str; 4] = ["3.4.23", "3.5.16", "3.5.30", "3.6.14"];

/// A member directory, in memory.
struct Killed {
    recorded: Value,
    db: Vec<u8>,
    segments: Vec<(SegmentName, Vec<u8>)>,
}

impl Killed {
    fn unpack(version: &str) -> Self {
        let fixtures = Path::new("../../fixtures").join(version);
        let dir = tempfile::tempdir().unwrap();
        let status = Command::new("tar")
            .args(["-I", "zstd", "-xf"])
            .arg(fixtures.join("killed.tar.zst"))
            .arg("-C")
            .arg(dir.path())
            .status()
            .expect("tar and zstd are installed");
        assert!(status.success());
        let read = |path: PathBuf| std::fs::read(path).unwrap();
        let mut segments: Vec<(SegmentName, Vec<u8>)> =
            std::fs::read_dir(dir.path().join("member/wal"))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter_map(|path| {
                    let name = path.file_name().unwrap().to_str().unwrap().parse().ok()?;
                    Some((name, read(path)))
                })
                .collect();
        segments.sort();
        Self {
            recorded: serde_json::from_slice(&read(fixtures.join("killed.json"))).unwrap(),
            db: read(dir.path().join("member/snap/db")),
            segments,
        }
    }

    fn segments(&self) -> Vec<Segment<'_>> {
        self.segments.iter().map(|(name, bytes)| Segment { name: *name, bytes }).collect()
    }

    /// The database and what the log adds to it. A member that is alone commits the whole log when
    /// it starts.
    fn applied(&self, up_to: UpTo) -> (Db<'_>, Applied) {
        let db = Db::open(&self.db).unwrap();
        let applied = self.apply_log_of(self, up_to).unwrap();
        (db, applied)
    }

    fn apply_log_of(&self, other: &Self, up_to: UpTo) -> Result<Applied, ApplyError> {
        let db = Db::open(&self.db).unwrap();
        let segments = other.segments();
        let before = consistent_index(&db).unwrap() - 1;
        let wal = Wal::read(&segments, before).unwrap();
        let mut options = Options::default();
        options.up_to = up_to;
        apply(&db, &wal, &options)
    }

    fn number(&self, pointer: &str) -> i64 {
        self.recorded.pointer(pointer).unwrap().as_i64().unwrap()
    }
}

fn key_bucket_digest(db: &Db<'_>, applied: &Applied) -> String {
    let mut sha256 = Sha256::new();
    for pair in applied.pairs(db, bucket::KEY).unwrap() {
        let (key, value) = pair.unwrap();
        for bytes in [key, value] {
            sha256.update(u32::try_from(bytes.len()).unwrap().to_le_bytes());
            sha256.update(bytes);
        }
    }
    sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hash_kv(db: &Db<'_>, applied: &Applied, revision: i64) -> i64 {
    let records = || applied.records(db);
    let hash = etcd_schema::hash_kv(records, applied.compact_revision, Some(revision)).unwrap();
    i64::from(hash.hash)
}

#[test]
fn the_revision_at_the_commit_of_the_log_is_reached() {
    for version in VERSIONS {
        let killed = Killed::unpack(version);
        let (_, applied) = killed.applied(UpTo::Commit);
        assert_eq!(applied.revision, killed.number("/revision_at_hard_state_commit"), "{version}");
        assert_eq!(applied.compact_revision, Some(killed.number("/compact_revision")));
        let commit = killed.number("/wal/hard_state/commit");
        assert_eq!(i64::try_from(applied.consistent_index).unwrap(), commit);
        let entries = killed.number("/wal/entries_to_apply");
        assert_eq!(i64::try_from(applied.entries).unwrap(), entries);
    }
}

#[test]
fn no_acknowledged_write_is_lost_and_hash_kv_is_that_of_the_restarted_server() {
    for version in VERSIONS {
        let killed = Killed::unpack(version);
        let (db, applied) = killed.applied(UpTo::LastEntry);
        let acknowledged = killed.number("/acknowledged_revision");
        assert!(applied.revision >= acknowledged);
        assert!(killed.number("/max_revision_in_db_before_restart") < acknowledged, "a real test");
        let hash = hash_kv(&db, &applied, acknowledged);
        assert_eq!(hash, killed.number("/hashkv_after_restart/hash"), "{version}");
    }
}

#[test]
fn the_whole_log_gives_the_key_bucket_of_the_restarted_server_byte_for_byte() {
    for version in VERSIONS {
        let killed = Killed::unpack(version);
        let (db, applied) = killed.applied(UpTo::LastEntry);
        let revision = killed.number("/revision_after_restart");
        assert_eq!(applied.revision, revision);
        let beyond = killed.number("/wal/entries_above_commit");
        assert_eq!(i64::try_from(applied.beyond_commit).unwrap(), beyond);
        let hash = hash_kv(&db, &applied, revision);
        assert_eq!(hash, killed.number("/hashkv_at_revision_after_restart/hash"), "{version}");
        let digest = key_bucket_digest(&db, &applied);
        let expected = killed.recorded["key_bucket_digest_after_restart"].as_str().unwrap();
        assert_eq!(digest, expected, "{version}");
    }
}

/// Leases as the server lists them: id, TTL, and keys attached.
fn leases(db: &Db<'_>, applied: &Applied) -> BTreeMap<i64, (i64, Vec<Vec<u8>>)> {
    let mut leases = BTreeMap::new();
    for pair in applied.pairs(db, bucket::LEASE).unwrap() {
        let lease = Lease::parse(pair.unwrap().1).unwrap();
        leases.insert(lease.id, (lease.ttl, Vec::new()));
    }
    let mut live: BTreeMap<&[u8], i64> = BTreeMap::new();
    for record in applied.records(db) {
        let record = record.unwrap();
        let kv = etcd_schema::KeyValue::parse(record.value).unwrap();
        live.insert(kv.key, if record.key.tombstone { 0 } else { kv.lease });
    }
    for (key, lease) in live {
        if lease != 0 {
            leases.get_mut(&lease).unwrap().1.push(key.to_vec());
        }
    }
    leases
}

fn decode_base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.trim_end_matches('=').bytes();
    let (mut out, mut bits, mut held) = (Vec::new(), 0u32, 0u32);
    for digit in digits {
        let value = ALPHABET.iter().position(|letter| *letter == digit).unwrap();
        bits = bits << 6 | u32::try_from(value).unwrap();
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held & 0xff).unwrap());
        }
    }
    out
}

#[test]
fn leases_and_the_keys_they_hold_are_those_of_the_restarted_server() {
    for version in VERSIONS {
        let killed = Killed::unpack(version);
        let (db, applied) = killed.applied(UpTo::LastEntry);
        let expected: BTreeMap<i64, (i64, Vec<Vec<u8>>)> = killed.recorded["leases_after_restart"]
            .as_array()
            .unwrap()
            .iter()
            .map(|lease| {
                let keys = lease["keys"].as_array().unwrap().iter();
                let mut keys: Vec<_> =
                    keys.map(|key| decode_base64(key.as_str().unwrap())).collect();
                keys.sort();
                let id = lease["id"].as_str().unwrap().parse().unwrap();
                (id, (lease["granted_ttl"].as_i64().unwrap(), keys))
            })
            .collect();
        assert_eq!(leases(&db, &applied), expected, "{version}");
    }
}

#[test]
fn a_log_read_from_its_beginning_gives_the_same() {
    for version in VERSIONS {
        let killed = Killed::unpack(version);
        let (db, applied) = killed.applied(UpTo::LastEntry);
        let segments = killed.segments();
        let wal = Wal::read(&segments, 0).unwrap();
        assert_eq!(apply(&db, &wal, &Options::default()).unwrap(), applied, "{version}");
    }
}

/// Goal: a log is applied to no database but its own. Method: each of the four with each other's.
#[test]
fn the_log_of_another_cluster_is_refused_in_all_directions() {
    let all = VERSIONS.map(Killed::unpack);
    for (database, own) in VERSIONS.iter().zip(&all) {
        for (log, other) in VERSIONS.iter().zip(&all) {
            let result = own.apply_log_of(other, UpTo::LastEntry);
            if database == log {
                result.unwrap();
                continue;
            }
            let error = result.unwrap_err();
            assert!(matches!(error, ApplyError::ForeignLog { .. }), "{database}, {log}: {error}");
        }
    }
}
