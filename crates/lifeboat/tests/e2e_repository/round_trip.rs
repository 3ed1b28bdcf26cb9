//! Back up, list, verify, prune, restore, start: the cluster is the same as before.

use testbed::{Cluster, Etcd, HashKv, KeyValue, Rclone, Run, S3};

use crate::keys::Keys;
use crate::{Repo, observed, reported, text};

/// What must be the same before and after.
#[derive(Debug, PartialEq)]
struct Contents {
    hash: HashKv,
    keys: Vec<KeyValue>,
}

impl Contents {
    #[track_caller]
    fn of(cluster: &Cluster, revision: i64) -> Self {
        Self { hash: cluster.common_hashkv(revision), keys: cluster.keys_at(revision) }
    }
}

/// One backup of the cluster into all of the repositories, which must be of one kind of credentials.
#[track_caller]
fn backup(cluster: &Cluster, repos: &[&Repo]) -> Run {
    let mut command = repos[0].command(["backup", "--cluster", "prod", "-w", "json"]);
    for repo in &repos[1..] {
        command.args(["--repo", &repo.url]).envs(repo.env.iter().cloned());
    }
    command.args(cluster.connection_flags()).args(["--hash-kv", "fail"]);
    observed(&mut command).ok()
}

/// All members, from a repository to where the cluster expects them.
#[track_caller]
fn restore(cluster: &Cluster, repo: &Repo, more: &[&str]) -> Run {
    let (data, peers) = (cluster.data_root(), cluster.initial_cluster());
    let mut command = repo.command(["restore", "--cluster", "prod", "--all-members"]);
    command.arg(data).args(["--initial-cluster", &peers]);
    command.args(["--target-version", cluster.version().minor()]).args(more);
    observed(&mut command).ok()
}

#[test]
fn a_name_that_goes_to_another_cluster_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::folder(&folder.path().join("repo"));
    // By their ports, the two have different ids.
    let (first, second) =
        (Cluster::builder(Etcd::V3_5).start(), Cluster::builder(Etcd::V3_5).start());
    let warning = "the first backup of that name";
    for (cluster, warned) in [(&first, 0), (&first, 0), (&second, 1), (&second, 0), (&first, 0)] {
        cluster.put("key", "value");
        let run = backup(cluster, &[&repo]);
        assert_eq!(run.stderr.matches(warning).count(), warned, "{run}");
    }
}

fn a_cluster_comes_back_from(version: Etcd, repos: &[&Repo]) {
    let mut cluster = Cluster::builder(version).start();
    cluster.put("first", "before the sample");
    let first = reported(&backup(&cluster, repos));
    let revision = cluster.write_sample();
    let before = Contents::of(&cluster, revision);
    let second = reported(&backup(&cluster, repos));
    assert_eq!((first.len(), second.len()), (repos.len(), repos.len()));

    for (index, repo) in repos.iter().enumerate() {
        let expected = [second[index].clone(), first[index].clone()];
        assert_eq!(repo.all_verify(), expected, "newest first");
        let backups = &repo.list()["backups"];
        let etcd = &backups[0]["manifest"]["etcd"];
        assert_eq!(etcd["revision"], revision);
        assert_eq!(etcd["hash_kv"]["hash"], before.hash.hash);
        assert_eq!(backups[0]["state"], "verified");

        let would = repo.run(["prune", "--keep-last", "1", "--dry-run"]).ok();
        assert!(would.stdout.contains("would free"), "{would}");
        assert_eq!(repo.names().len(), 2, "a dry run does nothing");
        repo.run(["prune", "--keep-last", "1"]).ok();
        assert_eq!(repo.all_verify(), expected[..1]);

        cluster.kill_all();
        cluster.set_data_aside();
        restore(&cluster, repo, &["--bump-revision", "0"]);
        cluster.start_all();
        assert_eq!(Contents::of(&cluster, revision), before, "{}", repo.url);
    }

    // Without another word, revisions are above all that clients have seen.
    cluster.kill_all();
    cluster.set_data_aside();
    restore(&cluster, repos[0], &[]);
    cluster.start_all();
    assert_eq!(cluster.revision(), revision + 1_000_000_000);
    let old = cluster.try_etcdctl(["get", "first", &format!("--rev={revision}")]);
    old.code_is(1).stderr_has(&["has been compacted"]);
    let values = |keys: Vec<KeyValue>| {
        let named = keys.into_iter().filter(|key| !key.key.is_empty());
        named.map(|key| (key.key, key.value)).collect::<Vec<_>>()
    };
    assert_eq!(values(cluster.keys_at(0)), values(before.keys));
}

#[test]
fn a_cluster_of_3_4_comes_back_from_a_folder_and_from_seaweedfs() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3::start();
    let keys = Keys::make_in(folder.path());
    let repo = Repo::folder(&folder.path().join("repo")).encrypted(&keys);
    let bucket = Repo::in_s3(&s3, "etcd").encrypted(&keys);
    a_cluster_comes_back_from(Etcd::V3_4, &[&repo, &bucket]);
}

#[test]
fn a_cluster_of_3_5_comes_back_from_seaweedfs_with_tls() {
    let s3 = S3::start_with_tls();
    a_cluster_comes_back_from(Etcd::V3_5_30, &[&Repo::in_s3(&s3, "deep/in/the/bucket")]);
}

/// A second implementation of S3, without conditional puts. It takes half a minute to delete an object beside others,
/// so there is nothing here that deletes.
#[test]
fn a_cluster_of_3_5_comes_back_from_rclone() {
    let rclone = Rclone::start();
    let repo = Repo::in_rclone(&rclone, "etcd");
    let mut cluster = Cluster::builder(Etcd::V3_5).start();
    let revision = cluster.write_sample();
    let before = Contents::of(&cluster, revision);
    let name = reported(&backup(&cluster, &[&repo]));
    assert_eq!(repo.all_verify(), name);
    cluster.kill_all();
    cluster.set_data_aside();
    restore(&cluster, &repo, &["--bump-revision", "0"]);
    cluster.start_all();
    assert_eq!(Contents::of(&cluster, revision), before);
}

#[test]
fn backups_that_are_copied_restore_from_their_new_place() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3::start();
    let from = Repo::folder(&folder.path().join("repo"));
    let to = Repo::in_s3(&s3, "archive");
    from.backup(&crate::snapshot()).ok();
    from.backup(&crate::snapshot()).ok();
    let copy = || {
        observed(from.command(["copy", "--all", "--to", &to.url]).envs(to.env.iter().cloned())).ok()
    };
    assert_eq!(copy().stdout.matches("copied ").count(), 2);
    assert_eq!(copy().stdout.matches("is there already").count(), 2);
    assert_eq!(to.all_verify(), from.names());
    let data = folder.path().join("data");
    to.run(["restore", "--data-dir", text(&data)]).ok();
    assert!(data.join("member/snap/db").is_file());
}

#[test]
fn a_pin_holds_a_backup_that_the_policy_would_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::folder(&folder.path().join("repo"));
    let oldest = reported(&repo.backup(&crate::snapshot()).ok()).remove(0);
    repo.run(["keep", &oldest, "--as", "before-upgrade", "--note", "3.4 to 3.5"]).ok();
    repo.backup(&crate::snapshot()).ok();
    let newest = reported(&repo.backup(&crate::snapshot()).ok()).remove(0);
    repo.run(["prune", "--keep-last", "1"]).ok();
    assert_eq!(repo.all_verify(), [newest.clone(), oldest]);
    repo.run(["keep", "--remove", "before-upgrade"]).ok();
    repo.run(["prune", "--keep-last", "1"]).ok();
    assert_eq!(repo.all_verify(), [newest]);
}
