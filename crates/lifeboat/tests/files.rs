//! The commands that need no server, on the files that real servers wrote, and on damaged ones.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use testbed::fixtures::{
    VERSIONS, damaged, damaged_cases, expected, fixture, killed, killed_expected,
};
use testbed::{Run, Tool};

fn lifeboat() -> Tool {
    Tool::new(env!("CARGO_BIN_EXE_lifeboat"))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn hash_of(file: &Path, revision: i64) -> Run {
    let revision = revision.to_string();
    lifeboat().run(["snapshot", "hashkv", text(file), "--rev", &revision, "-w", "json"])
}

#[test]
fn status_and_hashes_of_every_fixture_are_those_that_its_server_gave() {
    for version in VERSIONS {
        let expected = expected(version);
        for (name, snapshot) in [("base", &expected.base), ("final", &expected.final_)] {
            let file = fixture(&format!("{version}/{name}.db"));
            let minor = &version[..3];
            let flags = ["--etcd-version", minor, "-w", "json"];
            let status =
                lifeboat().run(["snapshot", "status", text(&file)].into_iter().chain(flags)).ok();
            let status = status.json();
            assert_eq!(status["hash"], snapshot.status.hash, "{version} {name}");
            assert_eq!(status["revision"], snapshot.status.revision, "{version} {name}");
            assert_eq!(status["totalKey"], snapshot.status.total_key, "{version} {name}");
            assert_eq!(status["totalSize"], snapshot.status.total_size, "{version} {name}");
            lifeboat().run(["snapshot", "verify", text(&file)]).ok();
            for hash in &snapshot.hashkv {
                let ours = hash_of(&file, hash.revision).ok().json();
                assert_eq!(ours["hash"], hash.hash, "{version} {name} {}", hash.revision);
                assert_eq!(ours["compactRevision"], hash.compact_revision);
                assert_eq!(ours["hashRevision"], hash.revision);
            }
        }
    }
}

#[test]
fn killed_members_of_every_version_are_saved_with_all_they_acknowledged() {
    for version in VERSIONS {
        let expected = killed_expected(version);
        let member = killed(version);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("saved.db");
        lifeboat().run(["snapshot", "save", text(&file), "--data-dir", text(member.path())]).ok();
        lifeboat().run(["snapshot", "verify", text(&file)]).ok();
        let hash = expected.hashkv_after_restart;
        assert!(hash.revision >= expected.acknowledged_revision);
        let ours = hash_of(&file, hash.revision).ok().json();
        assert_eq!(ours["hash"], hash.hash, "{version}");
    }
}

#[test]
fn every_damaged_file_is_told_with_code_3_or_can_be_read() {
    for case in damaged_cases() {
        let file = damaged(&case.name);
        let verify = lifeboat().run(["snapshot", "verify", text(file.path())]);
        // The spare meta page is nobody's data.
        let harmless = ["one-meta-broken", "meta0-zeroed"].contains(&case.name.as_str());
        assert_eq!(verify.code, Some(if harmless { 0 } else { 3 }), "{}: {verify}", case.name);
        assert!(!format!("{}{}", verify.stdout, verify.stderr).is_empty(), "{}", case.name);

        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let restore =
            lifeboat().run(["snapshot", "restore", text(file.path()), "--data-dir", text(&data)]);
        if harmless {
            restore.ok();
        } else {
            assert!(matches!(restore.code, Some(1 | 3)), "{}: {restore}", case.name);
            restore.stderr_has(&["error:", "help:"]);
            assert!(!data.exists(), "{}: nothing is left behind", case.name);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{}", case.name);
        }
    }
}

/// Goal: no single changed bit of a snapshot goes unseen. Method: 500 places drawn from a fixed seed,
/// over the whole file, digest included.
#[test]
fn a_flipped_bit_anywhere_in_a_snapshot_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flipped.db");
    let mut bytes = std::fs::read(fixture("3.5.16/base.db")).unwrap();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..500 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let place = usize::try_from(state % u64::try_from(bytes.len()).unwrap()).unwrap();
        let bit = 1 << (state >> 61);
        bytes[place] ^= bit;
        std::fs::write(&file, &bytes).unwrap();
        bytes[place] ^= bit;
        let verify = lifeboat().run(["snapshot", "verify", text(&file)]);
        assert_eq!(verify.code, Some(3), "bit {bit:#x} of byte {place}\n{verify}");
    }
}

/// A restore that must not happen: this code, these words, and nothing in the folder but what was there.
#[track_caller]
fn restore_fails(code: i32, words: &[&str], arguments: &[&str]) {
    let snapshot = fixture("3.5.30/final.db");
    let folder = tempfile::tempdir().unwrap();
    let mut command = lifeboat().command(["snapshot", "restore", text(&snapshot)]);
    let run = Run::of(command.args(arguments).current_dir(folder.path()));
    run.code_is(code).stderr_has(&["error:"]).stderr_has(words);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_restore_that_does_not_add_up_is_refused_before_anything_is_written() {
    let peers = "--initial-cluster=m1=http://127.0.0.1:1,m2=http://127.0.0.1:2";
    let advertise = "--initial-advertise-peer-urls=http://127.0.0.1:1";
    let to = "--data-dir=data";
    restore_fails(2, &["m3"], &[peers, "--name=m3", advertise, to]);
    restore_fails(
        2,
        &["http://127.0.0.1:9"],
        &[peers, "--name=m1", "--initial-advertise-peer-urls=http://127.0.0.1:9", to],
    );
    restore_fails(
        2,
        &["http://127.0.0.1:1"],
        &[
            "--initial-cluster=m1=http://127.0.0.1:1,m2=http://127.0.0.1:1",
            "--name=m1",
            advertise,
            to,
        ],
    );
    restore_fails(2, &["ftp"], &["--initial-cluster=m1=ftp://127.0.0.1:1", "--name=m1", to]);
    restore_fails(2, &["--bump-revision"], &["--mark-compacted", to]);
    restore_fails(2, &["--no-such-flag"], &["--no-such-flag"]);
}

#[test]
fn a_target_that_is_not_empty_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("precious"), "data").unwrap();
    let snapshot = fixture("3.5.30/final.db");
    lifeboat()
        .run(["snapshot", "restore", text(&snapshot), "--data-dir", text(&data)])
        .code_is(5)
        .stderr_has(&["error:", text(&data), "help:"]);
    assert_eq!(std::fs::read_to_string(data.join("precious")).unwrap(), "data");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn files_that_are_not_there_or_not_ours_to_read_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent.db");
    for command in ["status", "verify", "restore"] {
        let run = lifeboat().run(["snapshot", command, text(&absent)]);
        run.code_is(1).stderr_has(&["error:", text(&absent), "help:"]);
        let run = lifeboat().run(["snapshot", command, text(folder.path())]);
        run.code_is(1).stderr_has(&["error:", text(folder.path())]);
    }
}

/// Goal: what the user may not read or write is told as that. Method: in a user namespace without
/// users even root has no more rights than the owner of a file.
#[test]
fn missing_permissions_are_told_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret.db");
    std::fs::copy(fixture("3.5.30/final.db"), &secret).unwrap();
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&closed, 0o500);
    let unprivileged = |arguments: &[&str]| {
        let command = lifeboat().command(arguments);
        let mut unshare = Command::new("unshare");
        Run::of(unshare.arg("--user").arg(command.get_program()).args(command.get_args()))
    };
    let target = closed.join("data");
    let restore = ["snapshot", "restore", text(&secret), "--data-dir", text(&target)];
    unprivileged(&restore).code_is(1).stderr_has(&["error:", "Permission denied", "help:"]);
    mode(&secret, 0o000);
    for command in ["status", "verify"] {
        let run = unprivileged(&["snapshot", command, text(&secret)]);
        run.code_is(1).stderr_has(&["error:", text(&secret), "Permission denied", "help:"]);
    }
    mode(&closed, 0o700);
    assert_eq!(std::fs::read_dir(&closed).unwrap().count(), 0);
}

#[test]
fn a_file_of_a_newer_format_is_told_as_that() {
    let mut bytes = std::fs::read(fixture("3.5.30/final.db")).unwrap();
    for meta in [16, 4096 + 16] {
        bytes[meta + 4] = 3;
        let sum = bytes[meta..meta + 56].iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
        bytes[meta + 56..meta + 64].copy_from_slice(&sum.to_le_bytes());
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("newer.db");
    std::fs::write(&file, bytes).unwrap();
    for command in ["status", "verify", "restore"] {
        let run = lifeboat().run(["snapshot", command, text(&file)]);
        run.code_is(3).stderr_has(&["error:", "version is 3"]);
    }
}

#[test]
fn a_bare_db_is_restored_when_told_to_skip_the_digest() {
    let member = killed("3.5.30");
    let db = member.path().join("member/snap/db");
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    lifeboat()
        .run(["snapshot", "restore", text(&db), "--data-dir", text(&data)])
        .code_is(3)
        .stderr_has(&["--skip-hash-check"]);
    assert!(!data.exists());
    lifeboat()
        .run(["snapshot", "restore", text(&db), "--data-dir", text(&data), "--skip-hash-check"])
        .ok();
    assert!(data.join("member/snap/db").is_file());
}
