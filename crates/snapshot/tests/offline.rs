//! Members that were killed under load: what a restart of the same etcd had, saved without it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use snapshot::{
    Existing, OfflineError, SavedOffline, SnapshotError, StoppedMember, UseLog, glance,
    save_offline,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn fixture(version: &str, name: &str) -> PathBuf {
    PathBuf::from("../../fixtures").join(version).join(name)
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

fn save(data_dir: &Path, to: &Path, log: UseLog) -> Result<SavedOffline, OfflineError> {
    let member = StoppedMember { data_dir: data_dir.to_owned(), wal_dir: None, log };
    save_offline(&member, to, Existing::Keep, &mut |finding| panic!("{finding}"), &|| false)
}

/// Overwrites the database of a member with a damaged one.
fn with_database(dir: &Path, name: &str) {
    let packed = fixture("damaged", &format!("{name}.db.zst"));
    let db = dir.join("member/snap/db");
    let unpacked = Command::new("zstd").arg("-dfqo").arg(db).arg(packed).status();
    assert!(unpacked.unwrap().success());
}

const VERSIONS: [&str; 4] = ["3.4.23", "3.5.16", "3.5.30", "3.6.14"];

#[test]
fn no_acknowledged_write_of_a_killed_member_is_lost() {
    for version in VERSIONS {
        let (dir, expected) = (unpacked(version), json(version));
        let file = dir.path().join("saved.db");
        let member =
            StoppedMember { data_dir: dir.path().to_owned(), wal_dir: None, log: UseLog::Whole };
        let seen = glance(&member, u64::MAX).unwrap();
        let counted = glance(&member, 0).unwrap();
        let saved = save(dir.path(), &file, UseLog::Whole).unwrap();
        assert_eq!(seen.revision, Some(saved.snapshot.survey().revision()), "{version}");
        assert_eq!(Some(seen.replayed), saved.replayed, "{version}");
        assert_eq!((counted.revision, Some(counted.replayed)), (None, saved.replayed), "{version}");
        let recorded = &expected["hashkv_after_restart"];
        let acknowledged = recorded["revision"].as_i64();
        let hash = saved.snapshot.hash_kv(acknowledged).unwrap();
        assert_eq!(u64::from(hash.hash), recorded["hash"], "{version}");
        assert_eq!(hash.compact_revision, recorded["compact_revision"].as_i64(), "{version}");
        let revision = saved.snapshot.survey().revision();
        assert_eq!(revision, expected["revision_after_restart"], "{version}");
        let (log, replayed) = (&expected["wal"], saved.replayed.unwrap());
        assert_eq!(replayed.beyond_commit, log["entries_above_commit"], "{version}");
        let within_commit = replayed.entries - replayed.beyond_commit;
        assert_eq!(within_commit, log["entries_to_apply"], "{version}");
        assert_eq!(replayed.index, log["last_entry_index"], "{version}");
        assert_eq!(replayed.term, log["last_entry_term"].as_u64(), "{version}");
        assert_eq!(replayed.torn, None);
    }
}

#[test]
fn on_request_entries_beyond_the_commit_of_the_log_are_left_out() {
    for version in VERSIONS {
        let (dir, expected) = (unpacked(version), json(version));
        let saved = save(dir.path(), &dir.path().join("saved.db"), UseLog::Committed).unwrap();
        let revision = saved.snapshot.survey().revision();
        assert_eq!(revision, expected["revision_at_hard_state_commit"], "{version}");
        let replayed = saved.replayed.unwrap();
        assert_eq!(replayed.entries, expected["wal"]["entries_to_apply"], "{version}");
        assert_eq!(replayed.beyond_commit, 0);
    }
}

#[test]
fn a_log_that_breaks_off_in_a_write_is_taken_up_to_there_and_this_is_told() {
    let (dir, expected) = (unpacked("3.6.14"), json("3.6.14"));
    let segment = dir.path().join("member/wal/0000000000000000-0000000000000000.wal");
    let bytes = fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    fs::File::options().write(true).open(&segment).unwrap().set_len(end as u64 - 10).unwrap();
    let saved = save(dir.path(), &dir.path().join("saved.db"), UseLog::Whole).unwrap();
    let replayed = saved.replayed.unwrap();
    let torn = replayed.torn.unwrap();
    assert_eq!(torn.segment.to_string(), segment.file_name().unwrap().to_str().unwrap());
    assert!(torn.offset < end as u64 && torn.offset.is_multiple_of(8));
    assert!(replayed.index <= expected["wal"]["last_entry_index"].as_u64().unwrap());
}

/// Goal: no log is applied to a database of another cluster. Method: each of the four with each
/// other's.
#[test]
fn the_log_of_another_cluster_is_refused_and_nothing_is_left() {
    let dirs = VERSIONS.map(unpacked);
    let out = tempfile::tempdir().unwrap();
    for (n, database) in dirs.iter().enumerate() {
        for (m, log) in dirs.iter().enumerate().filter(|(m, _)| *m != n) {
            let member = StoppedMember {
                data_dir: database.path().to_owned(),
                wal_dir: Some(log.path().join("member/wal")),
                log: UseLog::Whole,
            };
            let file = out.path().join("saved.db");
            let saved = save_offline(&member, &file, Existing::Keep, &mut |_| {}, &|| false);
            let error = saved.unwrap_err();
            let foreign = matches!(
                &error,
                OfflineError::Apply { source: etcd_apply::ApplyError::ForeignLog { .. }, .. }
            );
            assert!(foreign, "{} and {}: {error:?}", VERSIONS[n], VERSIONS[m]);
            assert!(error.remedy().contains("--db-only") && !error.is_damage());
        }
    }
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
}

#[test]
fn a_damaged_database_is_told_as_damage_whether_its_log_is_taken_or_not() {
    let dir = unpacked("3.5.30");
    let out = tempfile::tempdir().unwrap();
    for name in ["freelist-lists-used-page", "key-order-broken", "page-cycle"] {
        with_database(dir.path(), name);
        for log in [UseLog::Whole, UseLog::No] {
            let member = StoppedMember { data_dir: dir.path().to_owned(), wal_dir: None, log };
            let (file, mut told) = (out.path().join("saved.db"), 0);
            let on_finding = &mut |_| told += 1;
            let saved = save_offline(&member, &file, Existing::Keep, on_finding, &|| false);
            let error = saved.unwrap_err();
            let found = match error {
                OfflineError::Damaged { findings, .. } => findings,
                ref other => panic!("{name}, {log:?}: {other:?}"),
            };
            assert!(error.is_damage() && found > 0 && told == found, "{name}: {told} of {found}");
        }
    }
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_read_again_is_no_damage_but_an_unreadable_record_is() {
    let io = || std::io::Error::other("the disk is gone");
    let path = PathBuf::from("saved.db");
    let unread = OfflineError::Unsound(SnapshotError::Io {
        action: "map",
        path: path.clone(),
        source: io(),
    });
    assert!(!unread.is_damage());
    assert!(unread.remedy().contains("disk"), "{}", unread.remedy());
    let record = etcd_schema::SchemaError::RevisionForm { key: "00".into() };
    let record = OfflineError::Database { path, source: record.into() };
    assert!(record.is_damage());
    assert!(record.remedy().contains("another member's data"), "{}", record.remedy());
}

#[test]
fn without_the_log_the_database_is_taken_as_it_is() {
    let (dir, expected) = (unpacked("3.5.30"), json("3.5.30"));
    let saved = save(dir.path(), &dir.path().join("saved.db"), UseLog::No).unwrap();
    let in_db = &expected["max_revision_in_db_before_restart"];
    assert_eq!(saved.snapshot.survey().last_record(), *in_db);
    assert_eq!(saved.replayed, None);
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
    save(dir.path(), &out.path().join("saved.db"), UseLog::Whole).unwrap();
    assert_eq!(listing(dir.path()), before);
}

#[test]
fn a_database_that_is_in_use_or_missing_is_refused_and_nothing_is_left() {
    let dir = unpacked("3.5.16");
    let db = fs::File::open(dir.path().join("member/snap/db")).unwrap();
    db.lock().unwrap();
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("saved.db");
    assert!(matches!(save(dir.path(), &file, UseLog::Whole), Err(OfflineError::InUse { .. })));
    drop(db);
    let inside = save(dir.path(), &dir.path().join("member/saved.db"), UseLog::Whole);
    assert!(matches!(inside, Err(OfflineError::InsideDataDir { .. })));
    let nowhere = save(out.path(), &file, UseLog::Whole);
    assert!(matches!(nowhere, Err(OfflineError::NotADataDir { .. })));
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
}
