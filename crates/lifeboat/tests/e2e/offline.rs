//! A backup of a member that does not run: nothing acknowledged is lost.

use testbed::{Cluster, Etcd, Security, bolt_check};

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
