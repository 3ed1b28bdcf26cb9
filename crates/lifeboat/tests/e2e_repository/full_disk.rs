//! No space left: for the spool, and in the repository's own folder. Each test has a small file system of its own, in
//! a mount namespace that ends with it.

use std::path::Path;
use std::process::Command;

use testbed::Run;

use crate::{lifeboat, observed, snapshot};

/// Runs a script of the shell with an empty file system of so many KiB at `small` in the current folder. `$LIFEBOAT`
/// is the tool, `$SNAPSHOT` a snapshot of 1.2 MB.
#[track_caller]
fn with_small_disk(folder: &Path, kib: u32, script: &str) -> Run {
    std::fs::create_dir_all(folder.join("small")).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--mount", "bash", "-euc"])
        .arg(format!("mount -t tmpfs -o size={kib}k small small\n{script}"))
        .current_dir(folder)
        .env("LIFEBOAT", lifeboat().command([""; 0]).get_program())
        .env("SNAPSHOT", snapshot());
    observed(&mut command)
}

#[test]
fn a_full_spool_disk_is_told_and_leaves_no_backup_and_the_next_run_works() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
        backup() { $LIFEBOAT backup --repo repo --cluster prod --from-file $1 "${@:2}"; }
        # The archive must be unpacked, and that needs the spool.
        gzip -c $SNAPSHOT > snapshot.gz
        code=0; backup snapshot.gz --spool-dir small || code=$?
        echo "code $code"
        [ -z "$(ls -A small)" ] && echo "empty"
        [ -z "$(find repo -name db.zst -o -name manifest.json)" ] && echo "nothing stored"
        code=0; LIFEBOAT_SPOOL_DIR=small backup snapshot.gz >/dev/null || code=$?
        echo "again $code"
        backup snapshot.gz --spool-dir .
        code=0; $LIFEBOAT verify --repo repo --spool-dir small || code=$?
        echo "verify $code"
        [ -z "$(ls -A small)" ] && echo "empty still"
        $LIFEBOAT list --repo repo
        $LIFEBOAT verify --repo repo
        mkdir small/data
        code=0; $LIFEBOAT restore --repo repo --data-dir small/data/dir || code=$?
        echo "restore $code"
        [ -z "$(ls -A small/data)" ] && echo "nothing restored"
    "#;
    let run = with_small_disk(folder.path(), 600, script).ok();
    for line in ["code 1", "empty", "nothing stored", "again 1", "verify 1", "empty still"] {
        assert!(run.stdout.lines().any(|said| said == line), "{line}\n{run}");
    }
    for line in ["restore 1", "nothing restored"] {
        assert!(run.stdout.lines().any(|said| said == line), "{line}\n{run}");
    }
    assert!(run.stdout.contains(", verified\n"), "no space is no damage\n{run}");
    run.stderr_has(&["space", "help: ", "--spool-dir"]);
}

#[test]
fn a_full_repository_is_told_and_keeps_what_it_had_and_the_next_run_works() {
    let folder = tempfile::tempdir().unwrap();
    // 150 kB for a backup: there is room for one or two, and then for none.
    let script = r#"
        backup() { $LIFEBOAT backup --repo small/repo --cluster prod --from-file $SNAPSHOT; }
        count() { $LIFEBOAT list --repo small/repo | wc -l; }
        backup
        dd if=/dev/zero of=small/filler bs=1k count=1000 2>/dev/null || true
        rm -f small/none; : > small/none
        code=0; backup || code=$?
        echo "code $code"
        echo "count $(count)"
        $LIFEBOAT verify --all --no-record --repo small/repo
        code=0; $LIFEBOAT prune --keep-last 5 --grace 0s --repo small/repo || code=$?
        echo "prune $code"
        rm small/filler
        backup
        echo "count $(count)"
        $LIFEBOAT prune --keep-last 5 --grace 0s --repo small/repo
        $LIFEBOAT verify --all --no-record --repo small/repo
        find small/repo -type f
    "#;
    let run = with_small_disk(folder.path(), 400, script).ok();
    for line in ["code 1", "count 1", "prune 0", "count 2"] {
        assert!(run.stdout.lines().any(|said| said == line), "{line}\n{run}");
    }
    assert_eq!(run.stdout.matches("/db.zst").count(), 2, "only of backups\n{run}");
    assert_eq!(run.stdout.matches("verified: ").count(), 3, "{run}");
    run.stderr_has(&["No space left on device", "help: "]);
}
