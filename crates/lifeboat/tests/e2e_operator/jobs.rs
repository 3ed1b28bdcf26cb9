//! Backups in Jobs. No pod runs here: the test does what its Job says, and says what Kubernetes would.

use crate::world::{World, backup_of, plain};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use operator::api::{BackupStore, EtcdBackup, Phase};
use serde_json::{Value, json};
use testbed::{Etcd, Run, Tool};

/// The Job of an attempt, when it is there.
async fn job(world: &World, attempt: u32) -> Job {
    let is_meant = |job: &&Job| job.name_any().ends_with(&format!("-{attempt}"));
    let there = |jobs: &[Job]| jobs.iter().find(is_meant).cloned();
    world.until_listed(&format!("the Job of attempt {attempt}"), there).await
}

/// Does what a Job's container does.
fn obey(job: &Job) -> Run {
    let pod = job.spec.clone().unwrap().template.spec.unwrap();
    let args = pod.containers[0].args.clone().unwrap();
    Tool::new(env!("CARGO_BIN_EXE_lifeboat")).run(args)
}

async fn end(world: &World, job: &Job, how: &str) {
    let status = json!({ "status": { "conditions": [{ "type": how, "status": "True" }] } });
    let jobs: Api<Job> = world.all();
    let params = PatchParams::default();
    jobs.patch_status(&job.name_any(), &params, &Patch::Merge(&status)).await.unwrap();
}

/// A pod of the Job whose container is in that state.
async fn leave_pod(world: &World, job: &Job, state: Value) {
    let name = job.name_any();
    let pod = json!({
        "metadata": { "name": name, "labels": { "job-name": name } },
        "spec": { "containers": [{ "name": "lifeboat", "image": "i" }] },
    });
    let pods: Api<Pod> = world.all();
    let pod: Pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let status = json!({ "status": { "containerStatuses": [{
        "name": "lifeboat", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": state,
    }] } });
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
}

#[tokio::test]
async fn a_backup_in_a_job_outlives_its_operator_and_is_found_by_the_next() {
    let world = World::ready().await;
    let cluster = plain(Etcd::V3_5);
    let revision = cluster.write_sample();
    let first = world.operator("first");
    let url = format!("file://{}/store", world.folder().display());
    world.make::<BackupStore>("here", json!({ "url": url })).await;
    let more =
        json!({ "runAs": "Job", "job": { "image": "lifeboat:1" }, "deletionPolicy": "Delete" });
    world.make::<EtcdBackup>("near", backup_of(&cluster.endpoints(), "here", more)).await;

    let failed = job(&world, 1).await;
    let told = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } });
    leave_pod(&world, &failed, told).await;
    end(&world, &failed, "Failed").await;
    let second_job = job(&world, 2).await;
    first.kill();
    obey(&second_job).ok();
    end(&world, &second_job, "Complete").await;

    let _second = world.operator("second");
    let near = world.until_phase("near", Phase::Succeeded).await.status.unwrap();
    assert_eq!((near.attempts, near.revision), (Some(2), Some(revision)));
    world.events_until("near", "BackupFailed").await;
    let snapshots = world.folder().join("store/prod/snapshots");
    let folder = snapshots.join(near.backup.unwrap());
    assert!(folder.join("manifest.json").exists());
    world.remove::<EtcdBackup>("near").await;
    assert!(!folder.exists(), "and it goes with its object");
}

#[tokio::test]
async fn a_job_without_an_image_is_not_made_and_says_what_to_set() {
    let world = World::ready().await;
    let _operator = world.operator("a");
    world.store("s3", "jobs", json!({})).await;
    let more = json!({ "runAs": "Job", "attempts": 1 });
    world.make::<EtcdBackup>("imageless", backup_of("http://127.0.0.1:1", "s3", more)).await;
    let says_so = |backup: &EtcdBackup| {
        let conditions = backup.status.iter().flat_map(|status| &status.conditions);
        conditions.clone().any(|condition| condition.message.contains("spec.job.image"))
    };
    let waiting: EtcdBackup = world.until("imageless", "waiting for an image", says_so).await;
    assert_eq!(waiting.status.unwrap().phase, Some(Phase::Pending));
    let jobs: Api<Job> = world.all();
    assert!(jobs.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn a_job_has_its_secrets_mounted_and_none_in_its_order_and_a_pod_that_does_not_begin_is_told_of()
 {
    let world = World::ready().await;
    let _operator = world.operator("a");
    world.secret("etcd-user", [("username", "root"), ("password", "pass-word-of-etcd")]).await;
    world.store("s3", "jobs", json!({})).await;
    let more = json!({ "runAs": "Job", "job": { "image": "lifeboat:1" } });
    let mut spec = backup_of("http://127.0.0.1:1", "s3", more);
    spec["cluster"]["authSecretName"] = json!("etcd-user");
    world.make::<EtcdBackup>("near", spec).await;
    let running = job(&world, 1).await;
    let text = serde_json::to_string(&running).unwrap();
    assert!(!text.contains("pass-word-of-etcd"));
    assert!(!text.contains(testbed::Identity::Admin.secret()));
    let pod = running.spec.clone().unwrap().template.spec.unwrap();
    let secrets = pod.volumes.unwrap().into_iter().filter_map(|volume| volume.secret?.secret_name);
    assert_eq!(secrets.collect::<Vec<_>>(), ["etcd-user", "s3"]);
    assert_eq!(pod.automount_service_account_token, Some(false));

    let waiting =
        json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } });
    leave_pod(&world, &running, waiting).await;
    let is_told = |backup: &EtcdBackup| {
        let conditions = backup.status.iter().flat_map(|status| &status.conditions);
        conditions.clone().any(|condition| condition.message.contains("no such image"))
    };
    let told: EtcdBackup = world.until("near", "told of", is_told).await;
    assert_eq!(told.status.unwrap().conditions[0].reason, "PodWaits");
}

#[tokio::test]
async fn who_is_removed_while_its_job_runs_goes_after_the_job() {
    let world = World::ready().await;
    let _operator = world.operator("a");
    world.store("s3", "jobs", json!({})).await;
    let more =
        json!({ "runAs": "Job", "job": { "image": "lifeboat:1" }, "deletionPolicy": "Delete" });
    world.make::<EtcdBackup>("near", backup_of("http://127.0.0.1:1", "s3", more)).await;
    let running = job(&world, 1).await.name_any();
    world.all::<EtcdBackup>().delete("near", &DeleteParams::default()).await.unwrap();
    let is_ending = |job: &Job| job.metadata.deletion_timestamp.is_some();
    let ending: Job = world.until(&running, "ending", is_ending).await;
    assert_eq!(ending.metadata.finalizers.unwrap(), ["foregroundDeletion"], "its pod goes first");
    assert!(world.all::<EtcdBackup>().get_opt("near").await.unwrap().is_some());
    // What Kubernetes does when the pod has ended.
    let patch = json!({ "metadata": { "finalizers": null } });
    let jobs: Api<Job> = world.all();
    jobs.patch(&running, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    world.until_gone::<EtcdBackup>("near").await;
}
