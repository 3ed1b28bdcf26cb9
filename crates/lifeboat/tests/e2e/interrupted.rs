//! kill -9 and full disks, in the middle of everything.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use testbed::{Cluster, Etcd, Run, Security};

use crate::{lifeboat, listing, text};

const KILLS: u32 = 50;

/// Runs a command again and again, killing it a little later each time, over all of its life.
/// `clean` is told how it went and must leave things as they were.
fn kill_at_every_instant(mut command: impl FnMut() -> Command, mut after: impl FnMut(bool)) {
    let begin = std::time::Instant::now();
    Run::of(&mut command()).ok();
    let life = begin.elapsed();
    after(true);
    for n in 0..KILLS {
        let mut child = command()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        // Not to wait for something: the instant itself is what is tried.
        std::thread::sleep(life.mul_f64(f64::from(n) / f64::from(KILLS)));
        let _ = child.kill();
        after(child.wait().unwrap().success());
    }
}

#[test]
fn a_save_killed_at_any_instant_leaves_no_wrong_file_and_blocks_no_retry() {
    let cluster = Cluster::builder(Etcd::V3_5).members(1).security(Security::Plain).start();
    cluster.write_sample();
    let endpoint = cluster.client_url(0);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.db");
    let mut complete = 0;
    kill_at_every_instant(
        || lifeboat().command(["--endpoints", &endpoint, "snapshot", "save", text(&file)]),
        |succeeded| {
            if file.exists() {
                lifeboat().run(["snapshot", "verify", text(&file)]).ok();
                std::fs::remove_file(&file).unwrap();
                complete += 1;
            } else {
                assert!(!succeeded, "a success without a file");
            }
        },
    );
    assert!(complete >= 1);
    lifeboat().run(["--endpoints", &endpoint, "snapshot", "save", text(&file)]).ok();
    assert_eq!(listing(folder.path()), ["saved.db"], "the retry leaves no leftovers either");
}

#[test]
fn a_restore_killed_at_any_instant_leaves_no_wrong_directory_and_blocks_no_retry() {
    let snapshot = testbed::fixtures::fixture("3.5.30/final.db");
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let restore = || {
        lifeboat().command([
            "snapshot",
            "restore",
            text(&snapshot),
            "--all-members",
            text(&data),
            "--initial-cluster=m1=http://127.0.0.1:1,m2=http://127.0.0.1:2,m3=http://127.0.0.1:3",
        ])
    };
    kill_at_every_instant(restore, |succeeded| {
        for member in ["m1", "m2", "m3"] {
            let member = data.join(member);
            if member.exists() {
                assert_whole(&member);
            } else {
                assert!(!succeeded, "a success without {}", member.display());
            }
        }
        if data.exists() {
            std::fs::remove_dir_all(&data).unwrap();
        }
    });
    Run::of(&mut restore()).ok();
    assert_eq!(listing(folder.path()), ["data"], "the retry clears what the killed ones left");
}

/// What stands under a member's final name is complete.
fn assert_whole(data_dir: &Path) {
    testbed::bolt_check(&data_dir.join("member/snap/db"));
    assert_eq!(listing(&data_dir.join("member/wal")), ["0000000000000000-0000000000000000.wal"]);
    assert_eq!(
        listing(&data_dir.join("member/snap")),
        ["0000000000000001-0000000000000003.snap", "db"]
    );
}

/// Runs lifeboat with `folder` on a disk of 1 MiB; returns how that went and what it left there.
fn on_a_small_disk(folder: &Path, arguments: &[&str]) -> (Run, Vec<String>) {
    let script = "mount -t tmpfs -o size=1m small \"$1\" && shift && status=0 && \
                  { \"$@\" || status=$?; } && echo \"left: $(ls -A \"$FOLDER\" | tr '\\n' ' ')\" && \
                  exit $status";
    let lifeboat = lifeboat().command(arguments);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command.arg(folder).arg(lifeboat.get_program()).args(lifeboat.get_args());
    let run = Run::of(command.env("FOLDER", folder));
    let left = run.stdout.lines().find_map(|line| line.strip_prefix("left: "));
    let left = left.unwrap_or_else(|| panic!("the small disk could not be made\n{run}"));
    let left = left.split_whitespace().map(str::to_owned).collect();
    (run, left)
}

#[test]
fn a_full_disk_is_told_and_nothing_is_left_on_it() {
    let cluster = Cluster::builder(Etcd::V3_5).members(1).security(Security::Plain).start();
    for n in 0..40 {
        cluster.put(&format!("large/{n}"), &"x".repeat(60_000));
    }
    let endpoint = cluster.client_url(0);
    let disk = tempfile::tempdir().unwrap();
    let file = disk.path().join("saved.db");
    let (run, left) =
        on_a_small_disk(disk.path(), &["--endpoints", &endpoint, "snapshot", "save", text(&file)]);
    assert_eq!(left, [""; 0], "{run}");
    assert!(matches!(run.code, Some(1 | 5)), "{run}");
    run.stderr_has(&["error:", "space", "help:"]);

    let snapshot = testbed::fixtures::fixture("3.5.30/final.db");
    let data = disk.path().join("data");
    let (run, left) = on_a_small_disk(
        disk.path(),
        &["snapshot", "restore", text(&snapshot), "--data-dir", text(&data)],
    );
    assert_eq!(left, [""; 0], "{run}");
    assert!(matches!(run.code, Some(1 | 5)), "{run}");
    run.stderr_has(&["error:", "space", "help:"]);
}
