//! Operators that begin, end, and wait for each other.

use crate::world::{World, backup_of, plain};
use operator::api::{EtcdBackup, Phase};
use serde_json::json;
use std::{collections::HashSet, sync::atomic::Ordering};
use testbed::Etcd;

#[tokio::test]
async fn without_its_kinds_the_operator_says_what_to_apply() {
    let world = World::new().await;
    let mut operator = world.operator("a");
    assert!(!operator.end().await.success());
    let log = operator.log();
    assert!(log.contains("does not know the kind") && log.contains("lifeboat crds"), "{log}");
}

#[tokio::test]
async fn an_operator_that_may_not_watch_is_not_ready_and_says_once_which_right_it_lacks() {
    let world = World::new().await;
    world.install_kinds().await;
    let operator = world.operator_with("a", &["--listen", "127.0.0.1:0"]);
    let lacks = "cannot list resource \\\"etcdbackups\\\"";
    operator.says(lacks).await;
    let ready = operator.answers("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("cannot list resource"), "{ready}");
    operator.says("give the operator's ServiceAccount that right").await;
    // So that each was told of twice, if it was not told once.
    let look = async || {
        let metrics = operator.answers("/metrics").await;
        let failed = "lifeboat_operator_watch_failures_total{kind=\"EtcdBackup\"} ";
        let times = metrics.lines().find_map(|line| line.strip_prefix(failed)?.parse::<u64>().ok());
        times.filter(|times| *times >= 2).ok_or(metrics)
    };
    world.patiently("a watch failed twice", look).await;
    let log = operator.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("forbidden")).collect();
    let causes: HashSet<_> = told
        .iter()
        .filter_map(|line| line.split_once("\"error\":"))
        .map(|(_, rest)| rest)
        .collect();
    assert_eq!(told.len(), causes.len(), "{log}");
    assert!(!log.contains("ListMeta"), "no dump of a Rust structure: {log}");
}

#[tokio::test]
async fn of_two_operators_one_works_and_the_other_takes_over_when_it_stops() {
    let world = World::ready().await;
    let first = world.elected_operator("first", &[]).await;
    first.says("\"message\":\"leading\"").await;
    let second = world.elected_operator("second", &[]).await;
    second.says("another operator leads").await;
    assert!(!second.log().contains("leading\""), "{}", second.log());
    assert!(first.stop().await.success());
    second.says("\"message\":\"leading\"").await;

    let cluster = plain(Etcd::V3_4);
    cluster.put("a", "b");
    world.store("s3", "lead", json!({})).await;
    world.make::<EtcdBackup>("one", backup_of(&cluster.endpoints(), "s3", json!({}))).await;
    world.until_phase("one", Phase::Succeeded).await;
    assert!(second.stop().await.success());
}

#[tokio::test]
async fn a_backup_whose_operator_is_killed_is_made_by_the_next_and_once() {
    let world = World::ready().await;
    let cluster = plain(Etcd::V3_4);
    cluster.write_sample();
    let (proxy, over) = world.stalled_store("slow", "kill").await;
    let first = world.elected_operator("first", &[]).await;
    world.make::<EtcdBackup>("one", backup_of(&cluster.endpoints(), "slow", json!({}))).await;
    world.until_phase("one", Phase::Running).await;
    world.until_stalled(&proxy).await;
    first.kill();

    over.store(true, Ordering::Release);
    let second = world.elected_operator("second", &[]).await;
    let one = world.until_phase("one", Phase::Succeeded).await;
    assert!(one.status.unwrap().attempts >= Some(2), "the attempt that was cut counts");
    let listed = world.s3.list("kill/prod/snapshots/");
    assert_eq!(listed.iter().filter(|path| path.contains("/db.zst")).count(), 1, "{listed:?}");
    assert!(second.stop().await.success());
}

#[tokio::test]
async fn an_operator_that_stops_hands_a_backup_over_without_counting_it() {
    let world = World::ready().await;
    let cluster = plain(Etcd::V3_4);
    cluster.write_sample();
    let (proxy, _) = world.stalled_store("slow", "stop").await;
    let first = world.elected_operator("first", &["--stop-grace", "0"]).await;
    world.make::<EtcdBackup>("one", backup_of(&cluster.endpoints(), "slow", json!({}))).await;
    world.until_phase("one", Phase::Running).await;
    world.until_stalled(&proxy).await;
    assert!(first.stop().await.success());
    let status = world.until_phase("one", Phase::Pending).await.status.unwrap();
    assert_eq!(status.attempts, Some(0));
    assert!(
        world
            .manifests("stop")
            .iter()
            .all(|path| { String::from_utf8(world.s3.get(path)).unwrap().contains("abandoned") })
    );
}
