//! Stores: what is in them as objects, and what they keep from being deleted.

use crate::world::{World, backup_of, is_synced, plain};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use operator::{
    api::{BackupStore, EtcdBackup, EtcdBackupSchedule, Phase},
    conditions,
};
use serde_json::json;
use testbed::{Etcd, Identity, Run, Tool};

const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

/// Of age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj.
const IDENTITY_OF_ANOTHER: &str =
    "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

/// Runs the tool beside the API server, with the store's credentials.
fn tool(world: &World, arguments: &[&str]) -> Run {
    let mut command = Tool::new(env!("CARGO_BIN_EXE_lifeboat")).command(arguments);
    command.env("KUBECONFIG", world.kubeconfig()).envs(world.s3.env(Identity::Admin));
    Run::of(&mut command)
}

async fn shown(world: &World) -> Vec<EtcdBackup> {
    let all = world.all::<EtcdBackup>().list(&ListParams::default()).await.unwrap().items;
    all.into_iter().filter(is_synced).collect()
}

#[tokio::test]
async fn a_command_shows_the_backups_of_a_repository_once_and_no_operator_takes_that_back() {
    let world = World::ready().await;
    let cluster = plain(Etcd::V3_4);
    let url = world.s3.url("lost");
    let back_up = |key: &str| {
        cluster.put(key, "value");
        let endpoints = cluster.endpoints();
        let made = ["backup", "--repo", &url, "--cluster", "prod", "--endpoints", &endpoints];
        tool(&world, &made).ok();
    };
    let list = |store: &str| tool(&world, &["list", "--repo", &url, "--sync", store]);
    back_up("a");
    back_up("b");
    let namespace = &world.namespace;
    let missing = format!("no BackupStore \"s3\" in namespace \"{namespace}\"");
    list("s3").code_is(1).stderr_has(&[&missing]);
    world.store("s3", "lost", json!({})).await;
    world.store("other", "elsewhere", json!({})).await;
    list(&format!("{namespace}/other"))
        .code_is(1)
        .stderr_has(&["s3://backups/elsewhere", "--repo"]);

    let made = format!("in namespace {namespace}: 2 EtcdBackups made, 0 removed");
    list("s3").ok().stderr_has(&[&made]);
    let before = shown(&world).await;
    assert_eq!(before.len(), 2);
    let status = before[0].status.clone().unwrap();
    assert_eq!(status.phase, Some(Phase::Succeeded));
    assert!(status.uri.unwrap().starts_with("s3://backups/lost/prod/snapshots/"));
    list("s3").ok().stderr_has(&["0 EtcdBackups made, 0 removed"]);

    let operator = world.operator("a");
    let patch = json!({ "spec": { "compressionLevel": 3 } });
    let stores = world.all::<BackupStore>();
    stores.patch("s3", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let is_seen = |store: &BackupStore| {
        store.metadata.generation == Some(2)
            && store.status.as_ref().is_some_and(|s| s.observed_generation == Some(2))
    };
    world.until::<BackupStore>("s3", "seen", is_seen).await;
    assert_eq!(shown(&world).await.len(), 2, "no `sync` in the store is no reason to hide them");
    assert!(operator.stop().await.success());

    let gone = before[0].status.clone().unwrap().backup.unwrap();
    for path in world.s3.list(&format!("lost/prod/snapshots/{gone}/")) {
        world.s3.delete(&path);
    }
    list("s3").ok().stderr_has(&["0 EtcdBackups made, 1 removed because their backup is gone"]);
    let left: Vec<_> = shown(&world).await.iter().map(ResourceExt::name_any).collect();
    assert_eq!(left, [before[1].name_any()]);
}

/// `STATUS REASON: MESSAGE` of a store's condition; nothing if there is none. A store that is busy for a moment says another first.
fn told(store: &BackupStore, type_: &str) -> String {
    let status = store.status.clone().unwrap_or_default();
    let told = conditions::get(&status.conditions, type_);
    told.map(|c| format!("{} {}: {}", c.status, c.reason, c.message)).unwrap_or_default()
}

/// A private key that is to come later, one that fits no recipient, a certificate that is none.
async fn keys_are_compared_and_secrets_are_named_but_not_kept(world: &World) {
    let keyed = |secret: &str| {
        let identities = json!({ "secretName": secret, "key": "k" });
        json!({ "encryption": { "recipients": [RECIPIENT], "identities": identities } })
    };
    world.secret("of-another", [("k", IDENTITY_OF_ANOTHER)]).await;
    world.secret("garbage", [("ca.crt", "no certificate")]).await;
    world.store("later", "later", keyed("to-come")).await;
    world.store("wrong", "wrong", keyed("of-another")).await;
    let ca = json!({ "ca": { "secretName": "garbage", "key": "ca.crt" } });
    world.store("garbage", "garbage", ca).await;
    let judged = async |name: &str, ready: &str, decryptable: &str| {
        let is_judged = |store: &BackupStore| {
            told(store, "Ready").starts_with(ready)
                && told(store, "Decryptable").starts_with(decryptable)
        };
        let what = format!("{ready}, and {decryptable}");
        told(&world.until::<BackupStore>(name, &what, is_judged).await, "Ready")
    };
    judged("later", "True Reachable", "False KeyMissing").await;
    judged("wrong", "True KeyUnfit", "False KeyUnfit").await;
    world.events_until("wrong", "KeyUnfit").await;
    let ready = judged("garbage", "False Store", "").await;
    assert!(ready.contains("\"ca.crt\" in Secret \"garbage\""), "{ready}");
    assert!(!ready.contains("/proc") && !ready.contains("/tmp"), "{ready}");
    let logs = world.logs();
    assert!(logs.contains("a store cannot be used") && !logs.contains("SECRET-KEY"), "{logs}");
    let left = std::fs::read_dir(world.folder()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("secret")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn what_a_store_locks_stays_is_told_and_does_not_keep_the_operator_busy() {
    let world = World::ready().await;
    world.s3.make_locking_bucket("locked");
    world.s3.retain_by_default("locked", 1);
    let cluster = plain(Etcd::V3_5);
    cluster.put("a", "b");
    let _operator = world.operator("a");
    world.store("s3", "", json!({ "url": "s3://locked/p" })).await;
    world.store("free", "free", json!({})).await;
    let is_locking = |store: &BackupStore| {
        let lock = told(store, "ObjectLock");
        lock.starts_with("True Enabled: ") && lock.contains("(COMPLIANCE, 1 day)")
    };
    world.until::<BackupStore>("s3", "known to lock", is_locking).await;
    let is_free = |store: &BackupStore| told(store, "ObjectLock").starts_with("False Disabled: ");
    world.until::<BackupStore>("free", "known not to lock", is_free).await;

    keys_are_compared_and_secrets_are_named_but_not_kept(&world).await;

    let owning = backup_of(&cluster.endpoints(), "s3", json!({ "deletionPolicy": "Delete" }));
    world.make::<EtcdBackup>("owned", owning.clone()).await;
    world.until_phase("owned", Phase::Succeeded).await;
    let backups = world.all::<EtcdBackup>();
    backups.delete("owned", &DeleteParams::default()).await.unwrap();
    let deleted = |backup: &EtcdBackup| {
        let status = backup.status.clone().unwrap_or_default();
        conditions::get(&status.conditions, "Deleted").cloned()
    };
    let is_kept = |backup: &EtcdBackup| deleted(backup).is_some_and(|told| told.reason == "Locked");
    let kept: EtcdBackup = world.until("owned", "kept", is_kept).await;
    let told = deleted(&kept).unwrap();
    assert_eq!(told.status, "False");
    assert!(told.message.contains("annotate etcdbackup owned lifeboat.dev/retain=true"));
    let again = kept.status.unwrap().retry_at.unwrap().0;
    assert!(again > jiff::Timestamp::now() + jiff::SignedDuration::from_hours(22), "{again}");
    world.events_until("owned", "DeletionFailed").await;

    let patch = json!({ "metadata": { "annotations": { "lifeboat.dev/retain": "true" } } });
    backups.patch("owned", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    world.until_gone::<EtcdBackup>("owned").await;

    let template = backup_of(&cluster.endpoints(), "s3", json!({}));
    let schedule = json!({
        "schedule": "0 0 1 1 *", "template": { "spec": template }, "retention": { "keepLast": 1 },
    });
    world.make::<EtcdBackupSchedule>("yearly", schedule).await;
    let patch = json!({ "metadata": { "annotations": { "lifeboat.dev/run-now": "1" } } });
    let schedules = world.all::<EtcdBackupSchedule>();
    schedules.patch("yearly", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let retained = |schedule: &EtcdBackupSchedule| {
        let status = schedule.status.clone().unwrap_or_default();
        conditions::get(&status.conditions, "Retained").cloned()
    };
    let is_locked = |schedule: &EtcdBackupSchedule| {
        retained(schedule).is_some_and(|told| told.reason == "Locked")
    };
    let done: EtcdBackupSchedule = world.until("yearly", "looked after", is_locked).await;
    let told = retained(&done).unwrap();
    assert_eq!(told.status, "True", "{told:?}");
    assert!(told.message.contains("locked in the store, the first until 2"), "{told:?}");
    let all = world.s3.list_in("locked", "p/");
    assert_eq!(all.iter().filter(|path| path.ends_with("/manifest.json")).count(), 2, "{all:?}");
}
