//! Members that were killed under load: what a restart of the same etcd had, saved without it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use snapshot::{Existing, OfflineError, SavedOffline, StoppedMember, save_offline};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn fixture(version: &str, name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).join(version).join(name)
}

fn json(version: &str) -> Value {
    serde_json::from_slice(&fs::read(fixture(version, "killed.json")).unwrap()).unwrap()
}

fn unpacked(version: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let tar = Command::new("tar")
        .args(["-I", "zstd", "-xf"])
        .arg(fixture(version, "killed.tar.zst"))
        .arg("-C")
        .arg(dir.path())
        .status();
    assert!(tar.unwrap().success());
    dir
}

fn save(data_dir: &Path, to: &Path, db_only: bool) -> Result<SavedOffline, OfflineError> {
    let member = StoppedMember { data_dir: data_dir.to_owned(), wal_dir: None, db_only };
    save_offline(&member, to, Existing::Keep, &mut |finding| panic!("{finding}"), &|| false)
}

#[test]
fn no_acknowledged_write_of_a_killed_member_is_lost() {
    for version in ["3.4.23", "3.5.16", "3.5.30", "3.6.14"] {
        let (dir, expected) = (unpacked(version), json(version));
        let file = dir.path().join("saved.db");
        let saved = save(dir.path(), &file, false).unwrap();
        let recorded = &expected["hashkv_after_restart"];
        let acknowledged = recorded["revision"].as_i64();
        let hash = saved.snapshot.hash_kv(acknowledged).unwrap();
        assert_eq!(u64::from(hash.hash), recorded["hash"], "{version}");
        assert_eq!(hash.compact_revision, recorded["compact_revision"].as_i64(), "{version}");
        let revision = saved.snapshot.survey().revision();
        assert_eq!(revision, expected["revision_at_hard_state_commit"], "{version}");
        assert_eq!(saved.entries, expected["wal"]["entries_to_apply"], "{version}");
    }
}

#[test]
fn without_the_log_the_database_is_taken_as_it_is() {
    let (dir, expected) = (unpacked("3.5.30"), json("3.5.30"));
    let saved = save(dir.path(), &dir.path().join("saved.db"), true).unwrap();
    let in_db = &expected["max_revision_in_db_before_restart"];
    assert_eq!(saved.snapshot.survey().last_record(), *in_db);
    assert_eq!(saved.entries, 0);
}

#[test]
fn the_data_directory_is_never_written_to() {
    let dir = unpacked("3.4.23");
    let listing = |dir: &Path| {
        Command::new("sh")
            .args(["-c", "find \"$0\" -printf '%p %s %T@\\n' | sort; cat \"$0\"/*/* | sha256sum"])
            .arg(dir.join("member"))
            .output()
            .unwrap()
            .stdout
    };
    let before = listing(dir.path());
    let out = tempfile::tempdir().unwrap();
    save(dir.path(), &out.path().join("saved.db"), false).unwrap();
    assert_eq!(listing(dir.path()), before);
}

#[test]
fn a_database_that_is_in_use_or_missing_is_refused_and_nothing_is_left() {
    let dir = unpacked("3.5.16");
    let db = fs::File::open(dir.path().join("member/snap/db")).unwrap();
    db.lock().unwrap();
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("saved.db");
    assert!(matches!(save(dir.path(), &file, false), Err(OfflineError::InUse { .. })));
    let nowhere = save(out.path(), &file, false);
    assert!(matches!(nowhere, Err(OfflineError::NotADataDir { .. })));
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
}
