//! Save from a live cluster, restore all members, start them: the cluster is the same as before, and
//! goes on living.

use std::sync::atomic::{AtomicBool, Ordering};

use testbed::{Cluster, Etcd, HashKv, KeyValue, Security, bolt_check, until};

use crate::{hash_of_file, judged_by, lifeboat, restore_all, save, text};

/// What must be the same before and after.
#[derive(Debug, PartialEq)]
struct Contents {
    hash: HashKv,
    keys: Vec<KeyValue>,
    leases: Vec<String>,
}

impl Contents {
    #[track_caller]
    fn of(cluster: &Cluster, revision: i64) -> Self {
        // First, as all members have that revision then, and so whatever was before it.
        let hash = cluster.common_hashkv(revision);
        let leases = cluster.etcdctl(["lease", "list"]).stdout;
        let mut leases: Vec<String> = leases.lines().skip(1).map(str::to_owned).collect();
        leases.sort();
        Self { hash, keys: cluster.keys_at(revision), leases }
    }
}

fn a_cluster_is_saved_and_comes_back(version: Etcd) {
    let mut cluster = Cluster::builder(version).variable("ETCD_VERIFY", "all").start();
    let revision = cluster.write_sample();
    let before = Contents::of(&cluster, revision);
    assert_eq!(before.leases.len(), 2);

    let file = cluster.folder().join("saved.db");
    save(&cluster, &file);
    judge_snapshot(version, &file);
    assert_eq!(hash_of_file(&file, revision), u64::from(before.hash.hash));

    cluster.kill_all();
    cluster.set_data_aside();
    restore_all(&cluster, &file, &[]).ok();
    for member in cluster.members() {
        let db = member.data_dir().join("member/snap/db");
        bolt_check(&db);
        judged_by(version, &["snapshot", "status", text(&db)]);
    }
    cluster.start_all();
    assert_eq!(Contents::of(&cluster, revision), before);
    live_on(&mut cluster, revision);
}

/// The real tool restores from the file, and says of it what lifeboat says, in every format.
fn judge_snapshot(version: Etcd, file: &std::path::Path) {
    bolt_check(file);
    lifeboat().run(["snapshot", "verify", text(file)]).ok();
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    judged_by(version, &["snapshot", "restore", text(file), "--data-dir", text(&data_dir)]);
    for format in ["simple", "table", "json", "fields"] {
        if format == "table" && version == Etcd::V3_5_30 {
            // Debian builds it with a newer table library, which draws its borders in Unicode.
            continue;
        }
        let arguments = ["snapshot", "status", text(file), "-w", format];
        let theirs = judged_by(version, &arguments);
        let ours = lifeboat().run(arguments).ok();
        assert_eq!(ours.stdout, theirs.stdout, "{format}");
    }
}

/// Writes, a compaction, restarts, a defragmentation, a new member: after each, all members agree.
fn live_on(cluster: &mut Cluster, restored: i64) {
    for n in 0..50 {
        cluster.put(&format!("after/{n}"), "written to the restored cluster");
    }
    let revision = cluster.revision();
    assert!(revision >= restored + 50);
    let written = cluster.common_hashkv(revision);
    cluster.etcdctl(["compaction", &(revision - 10).to_string(), "--physical"]);
    let compacted = cluster.common_hashkv(revision);
    assert_ne!(compacted, written, "the compaction took revisions away");

    cluster.stop_all();
    cluster.start_all();
    assert_eq!(cluster.common_hashkv(revision), compacted);

    cluster.etcdctl(["defrag", "--command-timeout=60s"]);
    assert_eq!(cluster.common_hashkv(revision), compacted);

    cluster.add_member();
    assert_eq!(cluster.common_hashkv(revision), compacted);
    let list = || cluster.etcdctl(["member", "list"]).stdout;
    until("four", || (list().matches("started").count() == 4).then_some(()), list);

    cluster.kill_all();
    cluster.start_all();
    cluster.put("last", "word");
    cluster.common_hashkv(revision + 1);
}

#[test]
fn a_cluster_of_3_4_is_saved_and_comes_back_and_lives_on() {
    a_cluster_is_saved_and_comes_back(Etcd::V3_4);
}

#[test]
fn a_cluster_of_3_5_is_saved_and_comes_back_and_lives_on() {
    a_cluster_is_saved_and_comes_back(Etcd::V3_5);
}

#[test]
fn a_cluster_of_the_newest_3_5_is_saved_and_comes_back_and_lives_on() {
    a_cluster_is_saved_and_comes_back(Etcd::V3_5_30);
}

#[test]
fn a_snapshot_of_3_4_comes_up_as_3_5_and_back() {
    let mut cluster = Cluster::builder(Etcd::V3_4).start();
    let revision = cluster.write_sample();
    let before = Contents::of(&cluster, revision);
    for version in [Etcd::V3_5_30, Etcd::V3_4] {
        let file = cluster.folder().join(format!("before-{}.db", version.minor()));
        save(&cluster, &file);
        cluster.kill_all();
        cluster.set_data_aside();
        cluster.set_version(version);
        restore_all(&cluster, &file, &[]).ok();
        cluster.start_all();
        assert_eq!(Contents::of(&cluster, revision), before, "{version:?}");
    }
}

/// Clients that remember the old cluster's revisions must find every one of them compacted.
#[test]
fn revisions_are_bumped_above_all_that_clients_have_seen() {
    for version in [Etcd::V3_4, Etcd::V3_5] {
        let mut cluster = Cluster::builder(version).start();
        let revision = cluster.write_sample();
        let keys = cluster.keys_at(revision);
        let file = cluster.folder().join("saved.db");
        save(&cluster, &file);
        cluster.kill_all();
        cluster.set_data_aside();
        restore_all(&cluster, &file, &["--bump-revision=1000", "--mark-compacted"]).ok();
        cluster.start_all();
        assert_eq!(cluster.revision(), revision + 1000, "{version:?}");
        let old = cluster.try_etcdctl(["get", "single/1", &format!("--rev={revision}")]);
        old.code_is(1).stderr_has(&["has been compacted"]);
        let now: Vec<KeyValue> = cluster.keys_at(0);
        // The marker of the bump is a record of the empty key, which no client can have written.
        let now: Vec<KeyValue> = now.into_iter().filter(|kv| !kv.key.is_empty()).collect();
        assert_eq!(now, keys, "{version:?}");
        cluster.put("a", "b");
        assert_eq!(cluster.revision(), revision + 1001, "{version:?}");
    }
}

/// Goal: a backup that is taken while clients write is one moment of the store, whole. Method: save
/// again and again beside a writer, and let the server hash the revision that each file says it has.
#[test]
fn a_snapshot_under_load_is_the_store_at_one_revision() {
    let cluster = Cluster::builder(Etcd::V3_5).start();
    cluster.write_sample();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut generation = 0;
            while !stop.load(Ordering::SeqCst) {
                generation += 1;
                let puts: Vec<String> =
                    (0..100).map(|n| format!("put load/{n} {generation}")).collect();
                cluster.transact(&puts);
            }
            generation
        });
        let mut revisions = Vec::new();
        for n in 0..5 {
            let file = cluster.folder().join(format!("{n}.db"));
            save(&cluster, &file);
            let status = lifeboat().run(["snapshot", "status", text(&file), "-w", "json"]).ok();
            let revision = status.json()["revision"].as_i64().unwrap();
            let live = cluster.common_hashkv(revision);
            assert_eq!(hash_of_file(&file, revision), u64::from(live.hash));
            revisions.push(revision);
        }
        stop.store(true, Ordering::SeqCst);
        assert!(writer.join().unwrap() > 0 && revisions.is_sorted());
    });
}

#[test]
fn another_cluster_with_a_learner_is_made_from_the_backup() {
    let old = Cluster::builder(Etcd::V3_5).members(1).security(Security::Plain).start();
    let revision = old.write_sample();
    let hash = old.common_hashkv(revision);
    let file = old.folder().join("saved.db");
    save(&old, &file);

    // The old one goes on running: nothing of it is in the new one.
    let mut new = Cluster::builder(Etcd::V3_5_30).lay_out();
    restore_all(&new, &file, &["--learner=m3"]).ok();
    new.start_all();
    // A learner is not asked: it does not answer.
    let list = || new.try_etcdctl_at(0, ["member", "list"]);
    let answered = |run: &testbed::Run| run.code == Some(0);
    let listed = || Some(list()).filter(answered);
    let list = until("a list", listed, || list().to_string()).stdout;
    let learners: Vec<&str> = list.lines().filter(|line| line.ends_with("true")).collect();
    assert!(matches!(learners[..], [m3] if m3.contains(" m3,")), "{list}");
    let id = learners[0].split(',').next().unwrap();
    // The leader does it when it has heard from the learner that it has all.
    let promote = || new.try_etcdctl_at(0, ["member", "promote", id]);
    until("a third voter", || Some(promote()).filter(answered), || promote().to_string());
    assert_eq!(new.common_hashkv(revision), hash);
    assert_eq!(old.etcdctl(["member", "list"]).stdout.lines().count(), 1);
}

#[test]
fn users_and_roles_come_back_and_alarms_do_not() {
    let old = Cluster::builder(Etcd::V3_5)
        .members(1)
        .security(Security::Plain)
        .flag("--quota-backend-bytes=2000000")
        .start();
    let large = "x".repeat(100_000);
    let full = (0..100).any(|n| {
        let put = old.try_etcdctl(["put", &format!("large/{n}"), &large]);
        put.stderr.contains("database space exceeded")
    });
    assert!(full, "the quota fills up");
    let alarms = || old.etcdctl(["alarm", "list"]).stdout;
    until("the alarm", || alarms().contains("NOSPACE").then_some(()), alarms);
    old.etcdctl(["user", "add", "root:secret"]);
    old.etcdctl(["user", "grant-role", "root", "root"]);
    old.etcdctl(["auth", "enable"]);
    let file = old.folder().join("saved.db");
    let endpoint = old.client_url(0);
    let user = ["--endpoints", &endpoint, "--user=root:secret"];
    lifeboat().run(user.into_iter().chain(["snapshot", "save", text(&file)])).ok();

    let mut new = Cluster::builder(Etcd::V3_5).members(1).security(Security::Plain).lay_out();
    restore_all(&new, &file, &[]).ok();
    new.start_all();
    new.try_etcdctl(["get", "large/0"]).code_is(1).stderr_has(&["user name is empty"]);
    let user = "--user=root:secret";
    assert_eq!(new.etcdctl([user, "alarm", "list"]).stdout, "");
    assert_eq!(new.etcdctl([user, "put", "a", "1"]).stdout, "OK\n");
    assert_eq!(new.etcdctl([user, "user", "list"]).stdout, "root\n");
}
