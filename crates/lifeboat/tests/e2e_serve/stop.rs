//! SIGTERM while a backup runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use testbed::{Cluster, Etcd, Fault, FaultProxy, Identity, Run, S3, Security, until};

use crate::{ADMIN, Daemon, Settings, lifeboat, listed, minutes_ago};

/// Where backups go in the store, and of what: a place for each way to stop, as they are tried at once.
#[derive(Clone, Copy)]
struct Place<'a> {
    cluster: &'a Cluster,
    s3: &'a S3,
    prefix: &'a str,
}

impl Place<'_> {
    /// A daemon whose one backup is on its way to a store that does that to it.
    fn begun(self, fault: Fault, grace: &str) -> (Settings, FaultProxy, Daemon) {
        let arrived = Arc::new(AtomicBool::new(false));
        let sending = arrived.clone();
        let proxy = FaultProxy::before(self.s3.endpoint(), move |request| {
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
            self.cluster.client_url(0),
            minutes_ago(60),
            self.s3.url_through(&proxy.url(), self.prefix)
        ));
        settings.admin();
        let daemon = Daemon::start(&settings);
        let is_sent = || arrived.load(Ordering::Acquire).then_some(());
        until("the upload", is_sent, || daemon.said());
        (settings, proxy, daemon)
    }

    #[track_caller]
    fn has_backups(self, number: usize) {
        assert_eq!(listed(&self.s3.url(self.prefix), Some(self.s3)).len(), number);
    }

    /// There is no backup, and the next writer need not wait for a claim to run out.
    #[track_caller]
    fn has_no_backup_and_no_claim(self, settings: &Settings) {
        assert_eq!(std::fs::read_dir(settings.path("spool")).unwrap().count(), 0);
        self.has_backups(0);
        let mut backup = lifeboat().command(["backup", "--cluster", "prod", "--endpoints"]);
        backup.arg(self.cluster.client_url(0)).args(["--repo", &self.s3.url(self.prefix)]);
        Run::of(backup.envs(self.s3.env(Identity::Admin))).ok();
        self.has_backups(1);
    }
}

fn it_takes_too_long(place: Place) {
    let (settings, _proxy, mut daemon) = place.begun(Fault::Stall, "1s");
    daemon.stop();
    assert!(daemon.said().contains("abandoned"), "{}", daemon.said());
    place.has_no_backup_and_no_claim(&settings);
}

/// The grace is long, but whoever stops it has no patience. Reading settings again ends nothing.
fn it_is_told_twice(place: Place) {
    let (settings, _proxy, mut daemon) = place.begun(Fault::Stall, "1h");
    daemon.signal("TERM");
    until("not ready", || (daemon.ask("/readyz", &[]).0 == 503).then_some(()), || daemon.said());
    daemon.signal("HUP");
    assert_eq!(daemon.ask("/healthz", &[]).0, 200);
    daemon.stop();
    place.has_no_backup_and_no_claim(&settings);
}

fn it_is_done_in_time(place: Place) {
    let slow = Fault::Delay(Duration::from_secs(3));
    let (_settings, _proxy, mut daemon) = place.begun(slow, "1h");
    daemon.stop();
    assert!(daemon.said().contains("backup done"), "{}", daemon.said());
    place.has_backups(1);
}

#[test]
fn a_backup_that_runs_is_finished_within_the_grace_or_leaves_nothing_that_counts_or_hinders() {
    let cluster = Cluster::builder(Etcd::V3_5).security(Security::Plain).members(1).start();
    cluster.write_sample();
    let s3 = S3::start();
    let place = |prefix| Place { cluster: &cluster, s3: &s3, prefix };
    // At once, as they wait.
    std::thread::scope(|scope| {
        scope.spawn(|| it_takes_too_long(place("long")));
        scope.spawn(|| it_is_told_twice(place("twice")));
        scope.spawn(|| it_is_done_in_time(place("in-time")));
    });
}
