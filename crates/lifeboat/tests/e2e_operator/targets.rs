//! One StatefulSet, and restores that want it: one at a time, as it was when it began, and none that could not be ended. No pod runs
//! here: the test does what Jobs say, and says what Kubernetes would.

use crate::{
    pods::{etcd_set, job, no_pod_of_set, run, until_scaled},
    world::World,
};
use k8s_openapi::api::{apps::v1::StatefulSet, batch::v1::Job};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use operator::api::{BackupStore, EtcdRestore, RestorePhase};
use serde_json::{Value, json};

/// A restore of a plain snapshot into the StatefulSet `etcd`.
fn into_set(world: &World, object: &str) -> Value {
    json!({
        "source": { "url": world.s3.url(object), "urlCredentials": { "secretName": "s3" } },
        "target": { "statefulSet": {
            "name": "etcd",
            "cluster": { "name": "prod", "endpoints": ["http://127.0.0.1:1"] },
            "members": [{ "name": "etcd-0", "peerUrls": ["http://etcd-0.peers:2380"] }],
        } },
        "confirm": "etcd",
    })
}

fn phase(restore: &EtcdRestore) -> RestorePhase {
    restore.status.as_ref().and_then(|status| status.phase).unwrap_or_default()
}

/// `type=reason: message` of each condition.
fn told(restore: &EtcdRestore) -> String {
    let conditions = restore.status.iter().flat_map(|status| &status.conditions);
    let texts = conditions.map(|c| format!("{}={}: {}\n", c.type_, c.reason, c.message));
    texts.collect()
}

async fn until_told(world: &World, name: &str, text: &str) -> EtcdRestore {
    world.until(name, text, |restore: &EtcdRestore| told(restore).contains(text)).await
}

async fn patch(world: &World, name: &str, spec: Value) {
    let restores: Api<EtcdRestore> = world.all();
    let patch = Patch::Merge(json!({ "spec": spec }));
    restores.patch(name, &PatchParams::default(), &patch).await.unwrap();
}

/// What Kubernetes does when the pods of a Job that is deleted have ended.
async fn ends(world: &World, name: &str) {
    let is_ending = |job: &Job| job.metadata.deletion_timestamp.is_some();
    world.until::<Job>(name, "ending", is_ending).await;
    let jobs: Api<Job> = world.all();
    let patch = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    jobs.patch(name, &PatchParams::default(), &patch).await.unwrap();
}

fn image(job: &Job) -> Option<&str> {
    let pod = job.spec.as_ref()?.template.spec.as_ref()?;
    pod.containers[0].image.as_deref()
}

#[tokio::test]
async fn a_restore_that_cannot_be_is_refused_or_waits_while_etcd_runs() {
    let world = World::ready().await;
    let _operator = world.operator_with("a", &["--image", "lifeboat:1"]);
    etcd_set(&world).await;
    let here = json!({ "url": format!("file://{}", world.folder().display()) });
    world.make::<BackupStore>("here", here).await;
    let mut of_folder = into_set(&world, "x");
    of_folder["source"] = json!({ "store": { "name": "here", "cluster": "prod" } });
    world.make::<EtcdRestore>("folder", of_folder).await;
    until_told(&world, "folder", "which the pods of a restore do not have").await;

    let mut typo = into_set(&world, "x");
    typo["source"] = json!({ "backupName": "zzz" });
    world.make::<EtcdRestore>("typo", typo).await;
    let waits = until_told(&world, "typo", "there is no EtcdBackup \"zzz\"").await;
    assert!(told(&waits).contains("looked at again every 20 s"), "{}", told(&waits));
    assert_eq!(phase(&waits), RestorePhase::Checking);

    // It is in nobody's way.
    world.make::<EtcdRestore>("gone", into_set(&world, "plain/none.db")).await;
    let probe = job(&world, "gone-").await;
    let probed = run(&world, &probe, "/none", world.folder()).await;
    assert_ne!(probed.code, Some(0), "the object is not there");
    let refused = until_told(&world, "gone", "ProbeFailed").await;
    assert_eq!(phase(&refused), RestorePhase::Failed);
    assert!(told(&refused).contains("nothing was changed"), "{}", told(&refused));
    let set: StatefulSet = world.all().get("etcd").await.unwrap();
    assert_eq!(set.spec.unwrap().replicas, Some(1));
}

#[tokio::test]
async fn one_restore_at_a_time_has_a_target_and_keeps_it_whatever_is_written_meanwhile() {
    let world = World::ready().await;
    world.s3.put("plain/etcd.db", b"looked for, and not read");
    etcd_set(&world).await;
    let first = world.operator_with("a", &["--image", "nowhere/lifeboat:x"]);
    let names = ["twin-1", "twin-2", "twin-3"];
    let mut probes = Vec::new();
    for name in names {
        world.make::<EtcdRestore>(name, into_set(&world, "plain/etcd.db")).await;
    }
    for name in names {
        probes.push(job(&world, &format!("{name}-")).await);
    }
    // All are ready to begin, and an operator finds them so.
    first.kill();
    for probe in &probes {
        run(&world, probe, "/none", world.folder()).await.ok();
    }
    let _second = world.operator_with("b", &["--image", "nowhere/lifeboat:x"]);
    until_scaled(&world, 0).await;
    let decided = |restores: &[EtcdRestore]| {
        let (leads, others): (Vec<_>, Vec<_>) =
            restores.iter().partition(|restore| phase(restore) == RestorePhase::Stopping);
        assert!(leads.len() < 2, "{leads:#?} are at work at once\n{}", world.logs());
        let have_decided = others.iter().all(|other| told(other).contains("Waiting"));
        (have_decided && leads.len() == 1).then(|| leads[0].name_any())
    };
    let lead = world.until_listed("that one is at work, and the others wait", decided).await;
    let lead = lead.as_str();

    patch(&world, lead, json!({ "target": { "statefulSet": { "name": "victim" } } })).await;
    until_told(&world, lead, "SpecChanged=Ignored: spec.target was changed after").await;
    no_pod_of_set(&world).await;
    let build = job(&world, "build").await;
    assert_eq!(image(&build), Some("nowhere/lifeboat:x"));
    let build = build.name_any();

    // The image is corrected.
    patch(&world, lead, json!({ "job": { "image": "good/lifeboat:1" } })).await;
    ends(&world, &build).await;
    let is_good = |job: &Job| image(job) == Some("good/lifeboat:1");
    world.until::<Job>(&build, "made anew", is_good).await;

    // They would take the target as soon as they may.
    for other in names.into_iter().filter(|name| *name != lead) {
        world.remove::<EtcdRestore>(other).await;
    }
    // Nothing has begun, so nothing is to be taken back by a pod that may not start either.
    let restores: Api<EtcdRestore> = world.all();
    restores.delete(lead, &DeleteParams::default()).await.unwrap();
    ends(&world, &build).await;
    until_scaled(&world, 1).await;
    world.until_gone::<EtcdRestore>(lead).await;
    let jobs: Api<Job> = world.all();
    let jobs = jobs.list(&ListParams::default()).await.unwrap();
    assert!(jobs.iter().all(|job| !job.name_any().contains("undo")));
}
