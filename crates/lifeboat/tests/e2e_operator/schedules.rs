//! Backups that recur.

use crate::world::{World, backup_of, is_ready, plain};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use operator::api::{BackupStore, EtcdBackup, EtcdBackupSchedule, Phase};
use operator::conditions;
use serde_json::{Value, json};
use testbed::Etcd;

fn schedule(backup: Value, more: Value) -> Value {
    let mut spec = json!({ "schedule": "0 0 1 1 *", "template": { "spec": backup } });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

async fn run_now(world: &World, name: &str, value: &str) {
    let patch = json!({ "metadata": { "annotations": { "lifeboat.dev/run-now": value } } });
    let all = world.all::<EtcdBackupSchedule>();
    all.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

/// Waits until a run that was asked for has made a backup of that revision, and been looked after.
async fn answered(world: &World, name: &str, value: &str, revision: i64) {
    let is_answered = |schedule: &EtcdBackupSchedule| {
        let status = schedule.status.clone().unwrap_or_default();
        let retained = conditions::get(&status.conditions, "Retained");
        status.last_run_now.as_deref() == Some(value)
            && status.active.is_none()
            && status.last_success_revision == Some(revision)
            && retained.is_none_or(|retained| retained.status == "True")
    };
    world.until::<EtcdBackupSchedule>(name, "answered", is_answered).await;
}

#[tokio::test]
async fn a_run_that_is_asked_for_is_made_at_once_and_retention_keeps_what_it_says() {
    let world = World::ready().await;
    let cluster = plain(Etcd::V3_5);
    let _operator = world.operator("a");
    world.store("s3", "sched", json!({})).await;
    // It is looked at again in ten minutes, and retention tells what it has deleted.
    world.until::<BackupStore>("s3", "ready", is_ready).await;
    world.make::<EtcdBackup>("by-hand", backup_of(&cluster.endpoints(), "s3", json!({}))).await;
    let by_hand = world.until_phase("by-hand", Phase::Succeeded).await.status.unwrap();
    assert_eq!(conditions::get(&by_hand.conditions, "Stored").unwrap().status, "True");
    let template = backup_of(&cluster.endpoints(), "s3", json!({ "deletionPolicy": "Delete" }));
    let more = json!({ "retention": { "keepLast": 2 }, "suspend": true });
    world.make::<EtcdBackupSchedule>("yearly", schedule(template, more)).await;

    let mut revisions = Vec::new();
    for run in ["1", "2", "3"] {
        cluster.put("run", run);
        revisions.push(cluster.revision());
        run_now(&world, "yearly", run).await;
        answered(&world, "yearly", run, cluster.revision()).await;
    }
    assert_eq!(world.manifests("sched").len(), 2);
    let is_told = |backup: &EtcdBackup| {
        let status = backup.status.clone().unwrap_or_default();
        conditions::get(&status.conditions, "Stored").is_some_and(|told| told.reason == "Pruned")
    };
    world.until::<EtcdBackup>("by-hand", "told to be gone", is_told).await;
    world.remove::<EtcdBackup>("by-hand").await;
    let shows_the_rest = |all: &[EtcdBackup]| {
        let revision = |backup: &EtcdBackup| backup.status.as_ref()?.revision;
        let mut shown: Vec<_> = all.iter().filter_map(revision).collect();
        shown.sort_unstable();
        (shown == revisions[1..]).then_some(())
    };
    world.until_listed("that an object whose backup is gone goes too", shows_the_rest).await;
    world.events_until("yearly", "Pruned").await;
}

#[tokio::test]
async fn objects_that_history_removes_leave_their_backups_to_retention() {
    let world = World::ready().await;
    let cluster = plain(Etcd::V3_4);
    let _operator = world.operator("a");
    world.store("s3", "hist", json!({})).await;
    let template = backup_of(&cluster.endpoints(), "s3", json!({ "deletionPolicy": "Delete" }));
    let more = json!({ "successfulHistoryLimit": 1 });
    world.make::<EtcdBackupSchedule>("kept", schedule(template, more)).await;
    let all = world.all::<EtcdBackup>();
    let mut first = None;
    for run in ["1", "2"] {
        cluster.put("run", run);
        run_now(&world, "kept", run).await;
        answered(&world, "kept", run, cluster.revision()).await;
        let made = all.list(&ListParams::default()).await.unwrap().items;
        first = first.or_else(|| made[0].metadata.name.clone());
    }
    let is_one = |all: &[EtcdBackup]| (all.len() == 1).then_some(());
    world.until_listed("that history keeps one", is_one).await;
    assert_eq!(world.manifests("hist").len(), 2);

    // The name that the first run had is somebody else's now.
    let dead = backup_of("http://127.0.0.1:1", "s3", json!({ "attempts": 1 }));
    world.make::<EtcdBackup>(&first.unwrap(), dead).await;
    cluster.put("run", "1 again");
    run_now(&world, "kept", "1").await;
    answered(&world, "kept", "1", cluster.revision()).await;
    world.events_until("kept", "NameTaken").await;

    // Until the next is due, whoever looks sees that the last one failed.
    let dead = json!({ "attempts": 1, "cluster": { "endpoints": ["http://127.0.0.1:1"] } });
    let patch = json!({ "spec": { "template": { "spec": dead } } });
    let schedules = world.all::<EtcdBackupSchedule>();
    schedules.patch("kept", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    run_now(&world, "kept", "4").await;
    let has_failed = |schedule: &EtcdBackupSchedule| {
        let status = schedule.status.clone().unwrap_or_default();
        conditions::get(&status.conditions, "Ready").is_some_and(|ready| {
            ready.reason == "BackupFailed" && ready.message.contains("127.0.0.1:1")
        })
    };
    world.until::<EtcdBackupSchedule>("kept", "told to have failed", has_failed).await;
}

#[tokio::test]
async fn what_is_no_schedule_says_so_and_is_followed_when_it_is_mended() {
    let world = World::ready().await;
    let _operator = world.operator("a");
    let template = backup_of("http://127.0.0.1:1", "s3", json!({}));
    for refused in
        [json!({ "schedule": "@reboot" }), json!({ "retention": { "keepWithin": "2fortnights" } })]
    {
        let spec = serde_json::from_value(schedule(template.clone(), refused)).unwrap();
        let refused = EtcdBackupSchedule::new("refused", spec);
        let all = world.all::<EtcdBackupSchedule>();
        let answer = all.create(&PostParams::default(), &refused).await;
        assert!(answer.unwrap_err().to_string().contains("should match"));
    }
    let wrong = json!({ "schedule": "99 0 1 1 *" });
    world.make::<EtcdBackupSchedule>("wrong", schedule(template, wrong)).await;
    let ready = |schedule: &EtcdBackupSchedule| {
        let status = schedule.status.clone().unwrap_or_default();
        conditions::get(&status.conditions, "Ready").cloned()
    };
    let is_refused = |schedule: &EtcdBackupSchedule| {
        ready(schedule).is_some_and(|ready| {
            ready.reason == "Invalid" && ready.message.contains("spec.schedule")
        })
    };
    world.until::<EtcdBackupSchedule>("wrong", "refused", is_refused).await;
    let patch = json!({ "spec": { "schedule": "0 0 1 1 *" } });
    let all = world.all::<EtcdBackupSchedule>();
    all.patch("wrong", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    // The schedule is one; that its store is missing is told too.
    let is_followed = |schedule: &EtcdBackupSchedule| {
        ready(schedule).is_some_and(|ready| ready.reason == "StoreMissing")
            && schedule.status.as_ref().is_some_and(|status| status.next_schedule_time.is_some())
    };
    world.until::<EtcdBackupSchedule>("wrong", "followed", is_followed).await;
}
