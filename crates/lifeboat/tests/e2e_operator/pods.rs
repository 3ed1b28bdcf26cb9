//! What kubelet and the controllers of Kubernetes would do, of which none run here.

use crate::waiting::Kind;
use crate::world::World;
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    batch::v1::Job,
    core::v1::{PersistentVolumeClaim, Pod, Secret},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::path::Path;
use testbed::{Run, Tool};

/// The Job whose name has that in it, when it is there.
pub(crate) async fn job(world: &World, part: &str) -> Job {
    let there = |jobs: &[Job]| jobs.iter().find(|job| job.name_any().contains(part)).cloned();
    world.until_listed(&format!("a Job {part}"), there).await
}

/// A claim that is there.
pub(crate) async fn claim(world: &World, name: &str) {
    let claim = json!({
        "metadata": { "name": name },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } },
        },
    });
    let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
    world.all().create(&PostParams::default(), &claim).await.unwrap();
}

/// Runs a Job to its end: its volume, mounted at `mounted`, is the folder `volume`.
pub(crate) async fn run(world: &World, job: &Job, mounted: &str, volume: &Path) -> Run {
    let pod = job.spec.clone().unwrap().template.spec.unwrap();
    let secrets = world.folder().join("mounted");
    for found in pod.volumes.unwrap() {
        let Some(name) = found.secret.and_then(|secret| secret.secret_name) else { continue };
        let folder = secrets.join(found.name.trim_start_matches("lifeboat-"));
        std::fs::create_dir_all(&folder).unwrap();
        let secret: Secret = world.all().get(&name).await.unwrap();
        for (key, value) in secret.data.unwrap() {
            std::fs::write(folder.join(key), value.0).unwrap();
        }
    }
    let args = pod.containers[0].args.clone().unwrap().into_iter().map(|arg| {
        let arg = arg.replace("/etc/lifeboat/", &format!("{}/", secrets.display()));
        arg.replace(&format!("\"{mounted}"), &format!("\"{}", volume.display()))
    });
    let run = Tool::new(env!("CARGO_BIN_EXE_lifeboat")).run(args);
    end(world, job, &run).await;
    run
}

/// What Kubernetes says of a Job whose pod has ended.
async fn end(world: &World, job: &Job, run: &Run) {
    let name = job.name_any();
    let mut pod = json!({
        "metadata": { "name": name, "labels": job.metadata.labels },
        "spec": { "containers": [{ "name": "lifeboat", "image": "i" }] },
    });
    pod["metadata"]["ownerReferences"] = json!([job.controller_owner_ref(&()).unwrap()]);
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let pods: Api<Pod> = world.all();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let ended = json!({ "exitCode": run.code, "message": run.stdout });
    let status = json!({ "status": { "phase": "Succeeded", "containerStatuses": [{
        "name": "lifeboat", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "terminated": ended },
    }] } });
    patch_status::<Pod>(world, &name, &status).await;
    let how = if run.code == Some(0) { "Complete" } else { "Failed" };
    let succeeded = i32::from(run.code == Some(0));
    let conditions = json!([{ "type": how, "status": "True" }]);
    let status = json!({ "status": { "succeeded": succeeded, "conditions": conditions } });
    patch_status::<Job>(world, &name, &status).await;
}

async fn patch_status<K: Kind>(world: &World, name: &str, status: &Value) {
    let all: Api<K> = world.all();
    all.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

/// A StatefulSet `etcd` of one pod, with etcd's data in `/data/etcd` of the claim `data-etcd-0`.
pub(crate) async fn etcd_set(world: &World) {
    let set = json!({
        "metadata": { "name": "etcd" },
        "spec": {
            "replicas": 1, "serviceName": "peers", "selector": { "matchLabels": { "app": "etcd" } },
            "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": { "requests": { "storage": "1Gi" } },
            } }],
            "template": { "metadata": { "labels": { "app": "etcd" } }, "spec": { "containers": [{
                "name": "etcd", "image": "etcd", "command": ["etcd", "--data-dir=/data/etcd"],
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
            }] } },
        },
    });
    let set: StatefulSet = serde_json::from_value(set).unwrap();
    world.all().create(&PostParams::default(), &set).await.unwrap();
    claim(world, "data-etcd-0").await;
    pod_of_set(world).await;
}

/// Waits until the StatefulSet is to have so many pods.
pub(crate) async fn until_scaled(world: &World, replicas: i32) {
    let is = |set: &StatefulSet| set.spec.as_ref().unwrap().replicas == Some(replicas);
    world.until::<StatefulSet>("etcd", "scaled", is).await;
}

/// Its pod is gone.
pub(crate) async fn no_pod_of_set(world: &World) {
    let pods: Api<Pod> = world.all();
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods.delete("etcd-0", &at_once).await.unwrap();
    patch_status::<StatefulSet>(world, "etcd", &json!({ "status": { "replicas": 0 } })).await;
}

/// Its pod runs.
pub(crate) async fn pod_of_set(world: &World) {
    let set: StatefulSet = world.all().get("etcd").await.unwrap();
    let mut pod = json!({
        "metadata": { "name": "etcd-0", "labels": { "app": "etcd" } },
        "spec": { "containers": [{ "name": "etcd", "image": "etcd" }] },
    });
    pod["metadata"]["ownerReferences"] = json!([set.controller_owner_ref(&()).unwrap()]);
    let pod: Pod = serde_json::from_value(pod).unwrap();
    world.all().create(&PostParams::default(), &pod).await.unwrap();
    patch_status::<Pod>(world, "etcd-0", &json!({ "status": { "phase": "Running" } })).await;
    let status = json!({ "status": { "replicas": 1 } });
    patch_status::<StatefulSet>(world, "etcd", &status).await;
}
