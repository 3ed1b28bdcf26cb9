//! The promise: nobody needs Lifeboat to get a backup back.

use std::path::Path;
use std::process::Command;

use testbed::{Cluster, Etcd, Run, S3, Security};

use crate::keys::Keys;
use crate::{Repo, observed, text};

/// Restores one member with the real tool of the cluster's version.
fn restore_with_stock_tool(cluster: &Cluster, snapshot: &Path) {
    let mut restore = Command::new(cluster.version().file_tool());
    let member = &cluster.members()[0];
    restore
        .env("ETCDCTL_API", "3")
        .args(["snapshot", "restore", text(snapshot), "--name", member.name(), "--data-dir"])
        .arg(member.data_dir())
        .args(["--initial-cluster", &cluster.initial_cluster()])
        .args(["--initial-advertise-peer-urls", &cluster.peer_url(0)]);
    Run::of(&mut restore).ok();
}

/// Goal: an object of the store, `age -d`, `zstd -d` and `etcdutl snapshot restore` are a cluster that is the same.
#[test]
fn stock_age_and_zstd_turn_an_object_into_a_file_that_the_stock_etcdutl_restores() {
    let s3 = S3::start();
    for version in [Etcd::V3_4, Etcd::V3_5_30] {
        let mut cluster = Cluster::builder(version).members(1).security(Security::Plain).start();
        let revision = cluster.write_sample();
        let before = (cluster.common_hashkv(revision), cluster.keys_at(revision));
        let keys = Keys::make_in(cluster.folder());
        let prefix = version.minor();
        let repo = Repo::in_s3(&s3, prefix).encrypted(&keys);
        let endpoint = cluster.client_url(0);
        repo.run(["backup", "--cluster", "prod", "--endpoints", &endpoint]).ok();

        let objects = s3.list(prefix);
        let object = objects.iter().find(|key| key.ends_with("/db.zst.age")).unwrap();
        let [sealed, packed, plain] =
            ["db.zst.age", "db.zst", "db"].map(|name| cluster.folder().join(name));
        std::fs::write(&sealed, s3.get(object)).unwrap();
        observed(
            Command::new("age")
                .args(["-d", "-i"])
                .arg(&keys.identity)
                .arg("-o")
                .args([&packed, &sealed]),
        )
        .ok();
        Run::of(Command::new("zstd").args(["-q", "-d"]).arg(&packed).arg("-o").arg(&plain)).ok();

        cluster.kill_all();
        cluster.set_data_aside();
        restore_with_stock_tool(&cluster, &plain);
        cluster.start_all();
        assert_eq!((cluster.common_hashkv(revision), cluster.keys_at(revision)), before);
    }
}

#[test]
fn stock_zstd_turns_an_object_that_is_not_encrypted_into_the_file_that_was_stored() {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::folder(&folder.path().join("repo"));
    repo.backup(&crate::snapshot()).ok();
    let objects = crate::files(folder.path());
    let object = objects.iter().find(|path| path.ends_with("db.zst")).unwrap();
    let plain = Run::of(Command::new("zstd").args(["-q", "-d", "-c"]).arg(object)).ok();
    assert!(plain.stdout_bytes == std::fs::read(crate::snapshot()).unwrap());
}
