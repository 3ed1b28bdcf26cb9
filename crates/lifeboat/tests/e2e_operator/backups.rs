//! One backup: made, shown, deleted or kept.

use crate::world::{World, backup_of, is_ready, is_synced, line_of, plain};
use kube::api::{ListParams, Patch, PatchParams};
use operator::api::{BackupStore, EtcdBackup, Phase};
use operator::conditions;
use serde_json::json;
use std::fs;
use testbed::{Cluster, Etcd, Identity, Security};

const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

#[tokio::test]
async fn a_backup_is_made_verified_shown_and_goes_with_its_object_only_where_that_is_wanted() {
    let world = World::ready().await;
    let cluster = Cluster::builder(Etcd::V3_5).security(Security::Tls).members(3).start();
    let revision = cluster.write_sample();
    let read = |path| fs::read_to_string(path).unwrap();
    let (cert, key) = cluster.certificates().client();
    let (ca, cert, key) = (read(cluster.certificates().ca()), read(cert), read(key));
    let keys =
        [("etcd-client-ca.crt", &*ca), ("etcd-client.crt", &*cert), ("etcd-client.key", &*key)];
    world.secret("etcd-tls", keys).await;
    let _operator = world.operator("a");

    let sealed = json!({ "encryption": { "recipients": [RECIPIENT] } });
    world.store("sealed", "one", sealed).await;
    let store: BackupStore = world.until("sealed", "ready", is_ready).await;
    let status = store.status.unwrap();
    assert_eq!(conditions::get(&status.conditions, "CreateOnly").unwrap().status, "True");

    let spec = |policy: &str| {
        let mut spec =
            backup_of(&cluster.endpoints(), "sealed", json!({ "deletionPolicy": policy }));
        spec["cluster"]["tls"] = json!({ "secretName": "etcd-tls" });
        spec
    };
    world.make::<EtcdBackup>("kept", spec("Retain")).await;
    let kept = world.until_phase("kept", Phase::Succeeded).await;
    let shown = kept.status.unwrap();
    assert_eq!(shown.revision, Some(revision));
    assert!(shown.etcd_version.unwrap().starts_with("3.5."));
    let proved = shown.verification.unwrap();
    assert_eq!((proved.agreed.len(), proved.differed.len()), (3, 0));
    let uri = shown.uri.unwrap();
    assert!(uri.ends_with("db.zst.age"), "{uri}");
    assert_eq!(world.manifests("one").len(), 1);

    world.make::<EtcdBackup>("owned", spec("Delete")).await;
    world.until_phase("owned", Phase::Succeeded).await;
    assert_eq!(world.manifests("one").len(), 2);
    world.remove::<EtcdBackup>("owned").await;
    assert_eq!(world.manifests("one").len(), 1);
    assert!(world.manifests("one")[0].contains(&shown.backup.unwrap()), "that one, and no other");
    world.remove::<EtcdBackup>("kept").await;
    assert_eq!(world.manifests("one").len(), 1);

    let told = world.told().await;
    for secret in [Identity::Admin.secret(), line_of(&key)] {
        assert!(!told.contains(secret), "a secret was told");
    }
}

#[tokio::test]
async fn what_is_missing_is_named_and_waited_for_and_who_made_nothing_goes_without_its_store() {
    let world = World::ready().await;
    let cluster = plain(Etcd::V3_4);
    cluster.put("a", "b");
    let _operator = world.operator("a");
    world.store("s3", "two", json!({})).await;

    let once = json!({ "attempts": 1 });
    world.make::<EtcdBackup>("lost", backup_of(&cluster.endpoints(), "nowhere", once)).await;
    let why = |backup: &EtcdBackup| {
        let status = backup.status.clone().unwrap_or_default();
        let told = conditions::get(&status.conditions, "Succeeded");
        told.map(|told| format!("{} {}: {}", told.status, told.reason, told.message))
            .unwrap_or_default()
    };
    let is_lost = |backup: &EtcdBackup| {
        let why = why(backup);
        why.starts_with("False StoreMissing: ")
            && why.contains("\"nowhere\"")
            && why.contains("create it")
    };
    let lost: EtcdBackup = world.until("lost", "waiting for its store", is_lost).await;
    let lost = lost.status.unwrap();
    assert_eq!((lost.phase, lost.attempts), (Some(Phase::Pending), None));
    assert!(lost.retry_at.is_some());
    assert_eq!(world.events_until("lost", "BackupWaits").await, ["BackupWaits"]);

    let mut guarded = backup_of(&cluster.endpoints(), "s3", json!({ "attempts": 1 }));
    guarded["cluster"]["authSecretName"] = json!("etcd-user");
    world.make::<EtcdBackup>("patient", guarded).await;
    let is_waiting = |backup: &EtcdBackup| why(backup).contains("Secret \"etcd-user\"");
    let waiting: EtcdBackup = world.until("patient", "waiting for its Secret", is_waiting).await;
    assert!(waiting.status.unwrap().retry_at.is_some());
    // etcd without users takes anybody's name for nobody's: what counts is that the Secret was read.
    world.secret("etcd-user", [("username", "root"), ("password", "pass-word-of-etcd")]).await;
    let ended = |backup: &EtcdBackup| {
        let status = backup.status.clone().unwrap_or_default();
        conditions::get(&status.conditions, "Ended").is_some()
    };
    let tried: EtcdBackup = world.until("patient", "tried", ended).await;
    assert!(!is_waiting(&tried), "{tried:#?}");

    world.store("nowhere", "found", json!({})).await;
    let found = world.until_phase("lost", Phase::Succeeded).await.status.unwrap();
    assert_eq!(found.attempts, Some(1), "what was waited for was no attempt");
    let down = json!({ "attempts": 1, "deletionPolicy": "Delete" });
    world.make::<EtcdBackup>("down", backup_of("http://127.0.0.1:1", "nowhere", down)).await;
    let down = world.until_phase("down", Phase::Failed).await;
    assert!(why(&down).contains("given up"), "{down:#?}");
    world.remove::<BackupStore>("nowhere").await;
    world.remove::<EtcdBackup>("down").await;
    assert!(!world.told().await.contains("pass-word-of-etcd"));
}

#[tokio::test]
async fn a_change_after_the_begin_changes_nothing_and_is_told_as_another_cluster_is() {
    let world = World::ready().await;
    let cluster = plain(Etcd::V3_4);
    cluster.put("a", "b");
    let _operator = world.operator("a");
    world.store("s3", "three", json!({})).await;
    world.make::<EtcdBackup>("done", backup_of(&cluster.endpoints(), "s3", json!({}))).await;
    let done = world.until_phase("done", Phase::Succeeded).await;
    let patch = json!({ "spec": { "cluster": { "name": "other" }, "deletionPolicy": "Delete" } });
    let all = world.all::<EtcdBackup>();
    all.patch("done", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let is_told = |backup: &EtcdBackup| {
        let status = backup.status.clone().unwrap_or_default();
        conditions::get(&status.conditions, "SpecChanged").is_some()
    };
    let told: EtcdBackup = world.until("done", "told", is_told).await;
    let told = told.status.unwrap();
    assert_eq!(told.backup, done.status.unwrap().backup);
    assert_eq!(told.cluster.as_deref(), Some("prod"), "where it is, not where it would be now");
    world.remove::<EtcdBackup>("done").await;
    assert_eq!(world.manifests("three").len(), 1);

    let stranger = plain(Etcd::V3_4);
    stranger.put("c", "d");
    world.make::<EtcdBackup>("same", backup_of(&stranger.endpoints(), "s3", json!({}))).await;
    let same = world.until_phase("same", Phase::Succeeded).await.status.unwrap();
    let other = conditions::get(&same.conditions, "ClusterChanged").expect("a condition");
    assert!(other.message.contains("\"prod\""), "{other:?}");

    let brief = json!({ "ttlSecondsAfterFinished": 0 });
    world.make::<EtcdBackup>("brief", backup_of(&cluster.endpoints(), "s3", brief)).await;
    world.until::<BackupStore>("s3", "ready", is_ready).await;
    world.until_gone::<EtcdBackup>("brief").await;
    assert_eq!(world.manifests("three").len(), 3, "its backup stays");
}

#[tokio::test]
async fn backups_of_a_lost_cluster_reappear_as_objects_that_delete_nothing() {
    let mut world = World::ready().await;
    let cluster = plain(Etcd::V3_4);
    cluster.put("a", "b");
    let operator = world.operator("a");
    world.store("first", "four", json!({})).await;
    world.make::<EtcdBackup>("made", backup_of(&cluster.endpoints(), "first", json!({}))).await;
    let made = world.until_phase("made", Phase::Succeeded).await.status.unwrap();
    world.remove::<EtcdBackup>("made").await;

    world.store("again", "four", json!({ "sync": true })).await;
    world.until::<BackupStore>("again", "ready", is_ready).await;
    let all = world.all::<EtcdBackup>();
    let found = all.list(&ListParams::default()).await.unwrap().items;
    let [shown] = &found[..] else { panic!("{found:#?}") };
    assert!(is_synced(shown));
    let status = shown.status.clone().unwrap();
    assert_eq!((status.phase, &status.backup), (Some(Phase::Succeeded), &made.backup));
    assert_eq!((status.revision, &status.sha256), (made.revision, &made.sha256));

    world.remove::<EtcdBackup>(shown.metadata.name.as_deref().unwrap()).await;
    assert_eq!(world.manifests("four").len(), 1);

    // A store that fails a backup is looked at then, and not ten minutes later.
    world.s3.halt();
    let once = backup_of(&cluster.endpoints(), "again", json!({ "attempts": 1 }));
    world.make::<EtcdBackup>("late", once).await;
    let is_lost = |store: &BackupStore| !is_ready(store);
    world.until::<BackupStore>("again", "known to be away", is_lost).await;
    assert!(operator.stop().await.success());
}

#[tokio::test]
async fn who_is_removed_while_its_backup_is_made_leaves_nothing_of_it() {
    let world = World::ready().await;
    let cluster = plain(Etcd::V3_4);
    cluster.write_sample();
    let (proxy, _) = world.stalled_store("slow", "cut").await;
    let operator = world.operator("a");
    for (name, policy, times) in [("kept", "Retain", 1), ("owned", "Delete", 2)] {
        let more = json!({ "deletionPolicy": policy });
        world.make::<EtcdBackup>(name, backup_of(&cluster.endpoints(), "slow", more)).await;
        world.until_phase(name, Phase::Running).await;
        world.until_stalled_times(&proxy, times).await;
        world.remove::<EtcdBackup>(name).await;
        operator.says_times("removed while its backup was being made", times).await;
    }
    let manifests = world.manifests("cut");
    let content = |path: &String| String::from_utf8(world.s3.get(path)).unwrap();
    assert!(manifests.iter().all(|path| content(path).contains("abandoned")), "{manifests:?}");
    let left = world.s3.list("cut/prod/snapshots/");
    assert!(!left.iter().any(|path| path.contains("db.zst")), "{left:?}");
    assert_eq!(world.s3.unfinished_uploads(), Vec::<String>::new());
    assert!(operator.stop().await.success());
}
