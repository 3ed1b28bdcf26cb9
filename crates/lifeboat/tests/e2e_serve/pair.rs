//! Two daemons of the same clusters on one store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use testbed::{Cluster, Etcd, Fault, FaultProxy, S3, Security, until};

use crate::{ADMIN, Daemon, Settings, listed, minutes_ago};

const CLUSTERS: usize = 6;

fn yaml(cluster: &Cluster, url: &str, cron: &str) -> String {
    let mut yaml = "clusters:\n".to_owned();
    for number in 0..CLUSTERS {
        yaml += &format!(
            "- {{name: c{number}, endpoints: ['{}'], repositories: [bucket], schedule: {{cron: '{cron}'}}}}\n",
            cluster.client_url(0)
        );
    }
    yaml + &format!(
        "repositories: [{{name: bucket, url: '{url}', {ADMIN}}}]
spool: FOLDER/spool
retries: {{attempts: 100, first-wait: 1s, longest-wait: 1s}}
http: {{listen: '127.0.0.1:0'}}
"
    )
}

/// How many backups there are for each cluster and slot.
fn slots(s3: &S3) -> BTreeMap<(String, String), usize> {
    let mut slots = BTreeMap::new();
    for backup in listed(&s3.url("pair"), Some(s3)) {
        let word = |name: &str| backup["manifest"][name].as_str().unwrap().to_owned();
        *slots.entry((word("cluster"), word("scheduled_for"))).or_default() += 1;
    }
    slots
}

fn next_is_planned(daemon: &Daemon) {
    for number in 0..CLUSTERS {
        daemon.until_metric(&format!(
            "lifeboat_schedule_next_run_timestamp_seconds{{cluster=\"c{number}\"}}"
        ));
    }
}

/// Goal: what is due is done once, by whichever daemon, also when one of them dies in the middle of it.
#[test]
fn two_daemons_make_each_backup_once_and_one_goes_on_when_the_other_is_killed() {
    let cluster = Cluster::builder(Etcd::V3_5).security(Security::Plain).members(1).start();
    cluster.write_sample();
    let s3 = S3::start();
    let (stalls, stalled) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let proxy = {
        let (stalls, stalled) = (stalls.clone(), stalled.clone());
        FaultProxy::before(s3.endpoint(), move |request| {
            let upload = request.method != "GET" && request.target.contains("db.zst");
            if upload && stalls.load(Ordering::Acquire) {
                stalled.store(true, Ordering::Release);
                return Fault::Stall;
            }
            Fault::Pass
        })
    };
    let through = s3.url_through(&proxy.url(), "pair");
    let cron = minutes_ago(500);
    let (one, other) = (
        Settings::new(&yaml(&cluster, &through, &cron)),
        Settings::new(&yaml(&cluster, &s3.url("pair"), &cron)),
    );
    one.admin();
    other.admin();
    let (mut first, mut second) = (Daemon::start(&one), Daemon::start(&other));
    next_is_planned(&first);
    next_is_planned(&second);
    let done = slots(&s3);
    assert_eq!(done.len(), CLUSTERS, "{done:?}");
    assert!(done.values().all(|&times| times == 1), "{done:?}");

    // The next slot: one daemon is killed while it sends, the other comes to it.
    stalls.store(true, Ordering::Release);
    let cron = minutes_ago(400);
    first.reload(&one, &yaml(&cluster, &through, &cron));
    until("a stalled upload", || stalled.load(Ordering::Acquire).then_some(()), || first.said());
    second.reload(&other, &yaml(&cluster, &s3.url("pair"), &cron));
    first.process.kill().unwrap();
    first.ended();
    let all = || Some(slots(&s3)).filter(|slots| slots.len() == 2 * CLUSTERS);
    let done = until("every backup", all, || format!("{:?}\n{}", slots(&s3), second.said()));
    assert!(done.values().all(|&times| times == 1), "{done:?}");
    second.stop();
    assert_eq!(slots(&s3), done);
}
