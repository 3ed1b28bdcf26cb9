//! Which namespaces an operator watches, and an API server that goes and comes.

use crate::world::{World, backup_of, plain};
use operator::api::{BackupStore, EtcdBackup, Phase};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use testbed::{Etcd, Fault, FaultProxy};

/// Makes a store and a backup in a namespace.
async fn ask(world: &mut World, namespace: &str, endpoints: &str) {
    world.namespace = namespace.to_owned();
    let url = format!("file://{}/{namespace}", world.folder().display());
    world.make::<BackupStore>("here", json!({ "url": url })).await;
    world.make::<EtcdBackup>("one", backup_of(endpoints, "here", json!({}))).await;
}

#[tokio::test]
async fn an_operator_watches_the_namespaces_that_it_is_told_or_all() {
    let mut world = World::ready_alone().await;
    let cluster = plain(Etcd::V3_4);
    cluster.put("a", "b");
    for name in ["red", "green", "blue"] {
        world.make_namespace(name).await;
        ask(&mut world, name, &cluster.endpoints()).await;
    }
    let some = world.operator_of("some", &["--namespace", "red", "--namespace", "green"]);
    for name in ["red", "green"] {
        world.namespace = name.to_owned();
        world.until_phase("one", Phase::Succeeded).await;
    }
    world.namespace = "blue".to_owned();
    let unseen = world.all::<EtcdBackup>().get("one").await.unwrap();
    assert_eq!(unseen.status, None, "that namespace is another operator's");
    assert!(some.stop().await.success());

    let all = world.operator_of("all", &["--all-namespaces"]);
    world.until_phase("one", Phase::Succeeded).await;
    assert!(all.stop().await.success());
}

#[tokio::test]
async fn what_ended_while_the_api_server_was_away_is_told_afterwards_and_not_done_again() {
    let mut world = World::ready_alone().await;
    let cluster = plain(Etcd::V3_4);
    cluster.write_sample();
    let (held, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let proxy = {
        let (held, over) = (held.clone(), over.clone());
        FaultProxy::before(world.s3.endpoint(), move |request| {
            while request.is("PUT", "/manifest.json") && !over.load(Ordering::Acquire) {
                held.store(true, Ordering::Release);
                std::thread::sleep(Duration::from_millis(20));
            }
            Fault::Pass
        })
    };
    let options = json!({ "endpoint": proxy.url(), "region": "us-east-1" });
    world.store("slow", "restart", json!({ "options": options })).await;
    let _first = world.elected_operator("first", &[]).await;
    world.make::<EtcdBackup>("one", backup_of(&cluster.endpoints(), "slow", json!({}))).await;
    world.until_phase("one", Phase::Running).await;
    let look = async || held.load(Ordering::Acquire).then_some(()).ok_or_else(String::new);
    world.patiently("the manifest is held up", look).await;
    world.kube.halt();
    over.store(true, Ordering::Release);
    let look =
        async || (!world.manifests("restart").is_empty()).then_some(()).ok_or_else(String::new);
    world.patiently("the manifest is written", look).await;
    world.kube.resume();
    // An operator that could not renew its Lease for too long has ended, and Kubernetes starts it again.
    let _second = world.elected_operator("second", &[]).await;
    let one = world.until_phase("one", Phase::Succeeded).await.status.unwrap();
    assert_eq!(one.attempts, Some(1), "it was made once, and found");
    assert_eq!(world.manifests("restart").len(), 1);
    world.make::<EtcdBackup>("two", backup_of(&cluster.endpoints(), "slow", json!({}))).await;
    world.until_phase("two", Phase::Succeeded).await;
}
