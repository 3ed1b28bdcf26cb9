//! Files of real etcds, whole and damaged, against what etcd's own tools say of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use snapshot::{DigestRule, Finding, Snapshot, SnapshotError, Status, Verified};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn fixtures() -> PathBuf {
    PathBuf::from("../../fixtures")
}

fn json(path: &str) -> Value {
    serde_json::from_slice(&fs::read(fixtures().join(path)).unwrap()).unwrap()
}

fn status(path: &Path) -> (Result<Status, SnapshotError>, Vec<Finding>) {
    let mut findings = Vec::new();
    let file = Snapshot::open(path).unwrap();
    let status = file.status(&mut |finding| findings.push(finding)).map(|(status, _)| status);
    (status, findings)
}

fn verify(
    path: &Path,
    rule: DigestRule,
) -> (Result<Snapshot<Verified>, SnapshotError>, Vec<Finding>) {
    let mut findings = Vec::new();
    let file = Snapshot::open(path).unwrap();
    let verified = file.verify(rule, &mut |finding| findings.push(finding));
    (verified, findings)
}

/// Makes the damaged file of a case from its recipe.
fn damaged(case: &Value, dir: &Path) -> PathBuf {
    let recipe = &case["recipe"];
    let mut bytes = fs::read(fixtures().join("3.5.30/final.db")).unwrap();
    let keep = usize::try_from(recipe["keep_bytes"].as_u64().unwrap()).unwrap();
    bytes.truncate(keep);
    for edit in recipe["edits"].as_array().unwrap() {
        let offset = usize::try_from(edit["offset"].as_u64().unwrap()).unwrap();
        let with = match edit["zeros"].as_u64() {
            Some(zeros) => vec![0; usize::try_from(zeros).unwrap()],
            None => unhex(edit["hex"].as_str().unwrap()),
        };
        bytes[offset..offset + with.len()].copy_from_slice(&with);
    }
    if recipe["trailer"] == "recomputed" {
        let database = bytes.len() - usize::from(bytes.len() % 512 == 32) * 32;
        let digest = snapshot::Sha256Digest::of(&bytes[..database]);
        bytes.truncate(database);
        bytes.extend_from_slice(&digest.0);
    }
    assert_eq!(bytes.len() as u64, case["size"], "{}", case["name"]);
    let path = dir.join(case["name"].as_str().unwrap());
    fs::write(&path, bytes).unwrap();
    path
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

#[test]
fn whole_snapshots_verify_and_their_status_is_that_of_the_tools() {
    for version in ["3.4.23", "3.5.16", "3.5.30", "3.6.14"] {
        let expected = json(&format!("{version}/expected.json"));
        for name in ["base", "final"] {
            let path = fixtures().join(version).join(format!("{name}.db"));
            let (verified, findings) = verify(&path, DigestRule::Required);
            assert_eq!(findings, [], "{version}/{name}");
            let survey = verified.unwrap().survey().clone();
            let expected = &expected[name];
            assert_eq!(survey.revision(), expected["revision"], "{version}/{name}");
            for (bucket, pairs) in expected["bucket_pairs"].as_object().unwrap() {
                assert_eq!(survey.pairs_in(bucket.as_bytes()), *pairs, "{version}/{name} {bucket}");
            }
            let (status, findings) = status(&path);
            let status = status.unwrap();
            assert_eq!(findings, [], "{version}/{name}");
            assert_eq!(u64::from(status.hash), expected["status"]["hash"], "{version}/{name}");
            assert_eq!(status.revision, expected["status"]["revision"], "{version}/{name}");
            assert_eq!(status.total_size, expected["status"]["totalSize"], "{version}/{name}");
        }
    }
}

/// What must be found in each damaged file, with its digest and without looking at it. `None`: the
/// data can be read in full.
const DAMAGED: [(&str, Option<&str>, Option<&str>); 19] = [
    ("truncated-half", Some("Truncated"), Some("Truncated")),
    ("truncated-one-page", Some("Truncated"), Some("Truncated")),
    ("no-trailer", Some("DigestMissing"), None),
    // Only the digest can tell: the structure is whole.
    ("leaf-value-bit-flip", Some("DigestWrong"), None),
    ("branch-pointer-flip-high", Some("PastHighWaterMark"), Some("PastHighWaterMark")),
    ("branch-pointer-flip-low", Some("ReachedTwice"), Some("ReachedTwice")),
    ("both-metas-broken", Some("NoValidMeta"), Some("NoValidMeta")),
    ("one-meta-broken", None, None),
    ("meta0-zeroed", None, None),
    ("page-cycle", Some("ReachedTwice"), Some("ReachedTwice")),
    ("free-page-referenced", Some("BelowSeparator"), Some("BelowSeparator")),
    ("freelist-lists-used-page", Some("FreeButUsed"), Some("FreeButUsed")),
    ("key-order-broken", Some("KeyOrder"), Some("KeyOrder")),
    ("leaf-element-out-of-page", Some("Element"), Some("Element")),
    ("leaf-page-id-wrong", Some("IdMismatch"), Some("IdMismatch")),
    ("leaf-page-flags-zero", Some("Flags"), Some("Flags")),
    ("zero-length", Some("TooShort"), Some("TooShort")),
    ("random-4k", Some("NoValidMeta"), Some("NoValidMeta")),
    ("not-etcd", Some("NotEtcd"), Some("NotEtcd")),
];

#[test]
fn every_damaged_file_is_refused_for_the_right_reason_or_read_where_it_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let cases = json("damaged/damaged.json");
    let cases = cases["cases"].as_array().unwrap();
    assert_eq!(cases.len(), DAMAGED.len());
    for (name, required, skipped) in DAMAGED {
        let case = cases.iter().find(|case| case["name"] == name).unwrap();
        let path = if case["recipe"].is_object() {
            damaged(case, dir.path())
        } else {
            fixtures().join("damaged").join(case["file"].as_str().unwrap())
        };
        for (rule, expected) in [(DigestRule::Required, required), (DigestRule::Skip, skipped)] {
            let (verified, findings) = verify(&path, rule);
            let findings = format!("{findings:?}");
            let found = expected.is_none_or(|expected| findings.contains(expected));
            assert!(found, "{name}, {rule:?}: {findings}");
            assert_eq!(verified.is_ok(), expected.is_none(), "{name}, {rule:?}: {findings}");
        }
        assert_eq!(status(&path).0.is_ok(), skipped.is_none(), "status of {name}");
    }
}

#[test]
fn a_pipe_or_a_folder_is_refused_without_waiting_for_anything() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [pipe.as_path(), dir.path(), Path::new("/dev/zero")] {
        assert!(
            matches!(Snapshot::open(path), Err(SnapshotError::Io { .. })),
            "{}",
            path.display()
        );
    }
}

/// An etcd holds this lock as long as it runs.
#[test]
fn a_database_that_is_written_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    fs::copy(fixtures().join("3.5.30/final.db"), &path).unwrap();
    let etcd = fs::File::open(&path).unwrap();
    etcd.lock().unwrap();
    assert!(matches!(Snapshot::open(&path), Err(SnapshotError::InUse { .. })));
    drop(etcd);
    assert!(status(&path).0.is_ok());
}
