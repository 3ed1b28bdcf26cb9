//! A backup of a member that does not run: nothing acknowledged is lost.

use testbed::{Cluster, Etcd, Run, Security, bolt_check};

use crate::{hash_of_file, judged_by, lifeboat, text};

/// Goal: what a client was told is written is in the backup of a killed member. Method: kill the
/// server at once after the last write, which etcd has then in its log but not in its database.
#[test]
fn a_killed_member_is_backed_up_with_all_that_it_acknowledged() {
    for version in Etcd::ALL {
        let mut cluster = Cluster::builder(version)
            .members(1)
            .security(Security::Plain)
            .flag("--backend-batch-interval=60s")
            .start();
        let revision = cluster.write_sample();
        let hash = cluster.common_hashkv(revision);
        cluster.put("last", "word");
        cluster.kill(0);

        let file = cluster.folder().join("saved.db");
        let data_dir = text(cluster.members()[0].data_dir()).to_owned();
        let before = std::fs::read(cluster.members()[0].data_dir().join("member/snap/db")).unwrap();
        lifeboat().run(["snapshot", "save", text(&file), "--data-dir", &data_dir]).ok();
        let after = std::fs::read(cluster.members()[0].data_dir().join("member/snap/db")).unwrap();
        assert!(before == after, "{version:?}: the data directory is only read");
        assert_eq!(hash_of_file(&file, revision), u64::from(hash.hash), "{version:?}");
        bolt_check(&file);
        let restored = cluster.folder().join("restored");
        judged_by(version, &["snapshot", "restore", text(&file), "--data-dir", text(&restored)]);

        cluster.start_all();
        let newest = cluster.revision();
        assert_eq!(newest, revision + 1);
        let live = cluster.common_hashkv(newest).hash;
        assert_eq!(hash_of_file(&file, newest), u64::from(live), "{version:?}");
    }
}

/// A save from the directory of each member of a cluster that is down, in JSON.
fn save_each(cluster: &Cluster, more: &[&str]) -> Vec<Run> {
    let save = |member: &testbed::Member| {
        let file = cluster.folder().join(format!("{}.db", member.name()));
        let base = ["snapshot", "save", text(&file), "--force", "-w", "json", "--data-dir"];
        lifeboat().run(base.iter().chain(&[text(member.data_dir())]).chain(more)).ok()
    };
    cluster.members().iter().map(save).collect()
}

fn revision_of(run: &Run) -> i64 {
    run.json()["revision"].as_i64().unwrap()
}

/// Goal: a cluster of which all members died at once gives back its last acknowledged write. Method:
/// kill all three at once after the last answer, when no log says yet that its entry is committed.
#[test]
fn the_best_of_three_killed_members_has_every_acknowledged_write() {
    for version in Etcd::ALL {
        let mut cluster = Cluster::builder(version)
            .security(Security::Plain)
            .flag("--backend-batch-interval=60s")
            .start();
        cluster.write_sample();
        let before = cluster.revision();
        cluster.put("last", "word");
        let acknowledged = before + 1;
        cluster.kill_all();

        // Mostly less, as the last commit reaches the logs later; on a slow machine it may have.
        let committed = save_each(&cluster, &["--committed-only"]);
        let committed = committed.iter().map(revision_of).max().unwrap();
        assert!(committed <= acknowledged, "{version:?}: {committed}");

        let saved = save_each(&cluster, &[]);
        let last_entry = |run: &Run| {
            let log = &run.json()["log"];
            (log["lastTerm"].as_u64().unwrap(), log["lastIndex"].as_u64().unwrap())
        };
        let best = (0..3).max_by_key(|n| last_entry(&saved[*n])).unwrap();
        let run = &saved[best];
        assert_eq!(revision_of(run), acknowledged, "{version:?}");
        assert!(run.json()["log"]["beyondCommit"].is_u64(), "{version:?}: {run}");
        assert!(run.stderr.contains("the last entry is"), "{run}");
        let newest = saved.iter().map(revision_of).max().unwrap();
        assert_eq!(newest, acknowledged, "{version:?}: nothing else was in flight");

        let file = cluster.folder().join(format!("{}.db", cluster.members()[best].name()));
        bolt_check(&file);
        cluster.start_all();
        let live = cluster.common_hashkv(acknowledged).hash;
        assert_eq!(hash_of_file(&file, acknowledged), u64::from(live), "{version:?}");
    }
}

#[test]
fn a_data_directory_in_use_is_refused() {
    let cluster = Cluster::builder(Etcd::V3_5).members(1).security(Security::Plain).start();
    let file = cluster.folder().join("saved.db");
    let data_dir = text(cluster.members()[0].data_dir()).to_owned();
    let run = lifeboat().run(["snapshot", "save", text(&file), "--data-dir", &data_dir]);
    assert!(matches!(run.code, Some(1 | 5)), "{run}");
    run.stderr_has(&["error:", "help:"]);
    assert!(!file.exists());
}

#[test]
fn a_log_with_auth_in_it_is_refused_and_the_database_alone_can_be_had() {
    let mut cluster = Cluster::builder(Etcd::V3_5)
        .members(1)
        .security(Security::Plain)
        .flag("--backend-batch-interval=60s")
        .start();
    cluster.put("a", "1");
    cluster.etcdctl(["user", "add", "root:secret"]);
    cluster.etcdctl(["user", "grant-role", "root", "root"]);
    cluster.etcdctl(["auth", "enable"]);
    cluster.kill(0);
    let file = cluster.folder().join("saved.db");
    let data_dir = text(cluster.members()[0].data_dir()).to_owned();
    let run = lifeboat().run(["snapshot", "save", text(&file), "--data-dir", &data_dir]);
    assert!(matches!(run.code, Some(1 | 5)), "{run}");
    run.stderr_has(&["error:", "--db-only"]);
    assert!(!file.exists());
    lifeboat().run(["snapshot", "save", text(&file), "--data-dir", &data_dir, "--db-only"]).ok();
    lifeboat().run(["snapshot", "verify", text(&file)]).ok();
}

#[test]
fn a_damaged_database_and_a_foreign_log_are_refused_by_their_own_codes() {
    let dir = testbed::fixtures::killed("3.5.30");
    let other = testbed::fixtures::killed("3.5.16");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.db");
    let wal = other.path().join("member/wal");
    let save = ["snapshot", "save", text(&file), "--data-dir", text(dir.path())];
    let foreign = lifeboat().run(save.iter().chain(&["--wal-dir", text(&wal)]));
    foreign.code_is(1).stderr_has(&["82fcb0bd1d8b3ce", "--db-only"]);

    let damaged = testbed::fixtures::damaged("freelist-lists-used-page");
    std::fs::copy(damaged.path(), dir.path().join("member/snap/db")).unwrap();
    for more in [&[][..], &["--db-only"]] {
        lifeboat().run(save.iter().chain(more)).code_is(3).stderr_has(&["freelist", "is damaged"]);
    }
    assert!(!file.exists());
}
