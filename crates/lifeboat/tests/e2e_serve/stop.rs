//! SIGTERM while a backup runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use testbed::{Cluster, Etcd, Fault, FaultProxy, Identity, Run, S3, Security};

use crate::{ADMIN, Daemon, Settings, lifeboat, listed, minutes_ago, until};

/// A daemon whose one backup is on its way to a store that does that to it.
fn begun(cluster: &Cluster, s3: &S3, fault: Fault, grace: &str) -> (Settings, FaultProxy, Daemon) {
    let arrived = Arc::new(AtomicBool::new(false));
    let sending = arrived.clone();
    let proxy = FaultProxy::before(s3.endpoint(), move |request| {
        if request.is("PUT", "db.zst") || request.is("POST", "db.zst") {
            sending.store(true, Ordering::Release);
            return fault;
        }
        Fault::Pass
    });
    let settings = Settings::new(&format!(
        "clusters:
- name: prod
  endpoints: [{}]
  repositories: [bucket]
  schedule: {{cron: '{}'}}
repositories: [{{name: bucket, url: '{}', {ADMIN}}}]
spool: FOLDER/spool
stop-grace: {grace}
http: {{listen: '127.0.0.1:0'}}
",
        cluster.client_url(0),
        minutes_ago(60),
        s3.url_through(&proxy.url(), "serve")
    ));
    settings.admin();
    let daemon = Daemon::start(&settings);
    let is_sent = || arrived.load(Ordering::Acquire).then_some(());
    until("the upload", is_sent, || daemon.said());
    (settings, proxy, daemon)
}

#[test]
fn a_backup_that_runs_is_finished_within_the_grace_or_leaves_nothing_that_counts_or_hinders() {
    let cluster = Cluster::builder(Etcd::V3_5).security(Security::Plain).members(1).start();
    cluster.write_sample();
    let s3 = S3::start();

    // It takes too long.
    let (settings, _proxy, mut daemon) = begun(&cluster, &s3, Fault::Stall, "1s");
    daemon.stop();
    assert!(daemon.said().contains("abandoned"), "{}", daemon.said());
    assert_no_backup_and_no_claim(&cluster, &s3, &settings, 0);

    // The grace is long, but whoever stops it has no patience. Reading settings again ends nothing.
    let (settings, _proxy, mut daemon) = begun(&cluster, &s3, Fault::Stall, "1h");
    daemon.signal("TERM");
    until("not ready", || (daemon.ask("/readyz", &[]).0 == 503).then_some(()), || daemon.said());
    daemon.signal("HUP");
    assert_eq!(daemon.ask("/healthz", &[]).0, 200);
    daemon.stop();
    assert_no_backup_and_no_claim(&cluster, &s3, &settings, 1);

    // It is done in time.
    let slow = Fault::Delay(Duration::from_secs(3));
    let (_settings, _proxy, mut daemon) = begun(&cluster, &s3, slow, "1h");
    daemon.stop();
    assert!(daemon.said().contains("backup done"), "{}", daemon.said());
    assert_eq!(listed(&s3.url("serve"), Some(&s3)).len(), 3);
}

/// There are as many backups as before, and the next writer need not wait for a claim to run out.
#[track_caller]
fn assert_no_backup_and_no_claim(cluster: &Cluster, s3: &S3, settings: &Settings, before: usize) {
    assert_eq!(std::fs::read_dir(settings.path("spool")).unwrap().count(), 0);
    let mut backup = lifeboat().command(["backup", "--cluster", "prod", "--endpoints"]);
    backup.arg(cluster.client_url(0)).args(["--repo", &s3.url("serve")]);
    Run::of(backup.envs(s3.env(Identity::Admin))).ok();
    assert_eq!(listed(&s3.url("serve"), Some(s3)).len(), before + 1);
}
