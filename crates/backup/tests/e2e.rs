//! Backups of real clusters: what is stored is what the cluster holds.
//!
//! Needs the servers that `tools/install.sh test` brings; `./test e2e` runs all of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use backup::{
    BackupError, Event, HashKvPolicy, Job, Options, Report, Source, Target, Watcher, fetch, verify,
};
use etcd_live::{ConnectOptions, Connector, Endpoint};
use repository::{
    Manifest, Repository,
    codec::{Encoding, Identities, Recipients},
    manifest,
    store::Store,
};
use snapshot::DigestRule;
use std::{
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};
use testbed::{Cluster, CutStream, Etcd, Run, Security};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

fn connector() -> Connector {
    Connector::new(ConnectOptions::unattended()).unwrap()
}

fn endpoint(url: &str) -> Endpoint {
    url.parse().unwrap()
}

fn live(urls: &[String]) -> Source {
    let endpoints = urls.iter().map(|url| endpoint(url)).collect();
    Source::Live { connector: connector(), endpoints }
}

fn target(name: &str, folder: &Path) -> Target {
    let encoding = Encoding::default();
    Target {
        name: name.to_owned(),
        store: Store::local(folder.join(name)),
        encoding,
        may_expose: false,
    }
}

fn job(source: Source, targets: Vec<Target>) -> Job {
    Job { cluster: "prod".parse().unwrap(), source, targets, options: Options::default() }
}

/// Runs the job; returns what was told as well.
fn make(job: &Job) -> (Result<Report, BackupError>, Vec<Event>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&events);
    let watcher = Watcher::new(move |event| told.lock().unwrap().push(event));
    let result = block_on(backup::run(job, &watcher, std::future::pending()));
    let events = std::mem::take(&mut *events.lock().unwrap());
    (result, events)
}

#[track_caller]
fn manifests(report: Report) -> Vec<Manifest> {
    report.results.into_iter().map(|target| target.result.unwrap()).collect()
}

#[track_caller]
fn is_sound(target: &Target, manifest: &Manifest, identities: &Identities) {
    let dir = std::env::temp_dir();
    let watcher = Watcher::none();
    let problems = verify::verify(&target.store, manifest, identities, &dir, &watcher);
    let problems = block_on(problems).unwrap();
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn a_live_cluster_goes_into_two_repositories_and_every_member_agrees() {
    for version in [Etcd::V3_4, Etcd::V3_5_30] {
        let cluster = Cluster::builder(version).security(Security::Plain).start();
        let revision = cluster.write_sample();
        // All members have it then, the one that is asked for its snapshot too.
        let known = cluster.common_hashkv(revision);
        let folder = tempfile::tempdir().unwrap();
        let key = age::x25519::Identity::generate();
        let mut recipients = Recipients::none();
        recipients.add(&key.to_public().to_string()).unwrap();
        let mut identities = Identities::none();
        let key = key.to_string();
        identities.add(age::secrecy::ExposeSecret::expose_secret(&key), "the test").unwrap();

        // One endpoint: the other members are found by what it tells.
        let mut job = job(
            live(&[cluster.client_url(0)]),
            vec![target("plain", folder.path()), target("sealed", folder.path())],
        );
        job.targets[1].encoding.recipients = recipients;
        job.options.hash_kv = HashKvPolicy::Fail;
        let (report, _) = make(&job);
        let manifests = manifests(report.unwrap());

        for (target, manifest) in job.targets.iter().zip(&manifests) {
            let etcd = &manifest.etcd;
            assert_eq!((etcd.revision, etcd.hash_kv.hash), (revision, known.hash), "{version:?}");
            assert_eq!(etcd.hash_kv.agreed.len(), 3, "{:?}", etcd.hash_kv);
            assert_eq!(
                (etcd.members.len(), manifest.id.at_least()),
                (3, u64::try_from(revision).unwrap())
            );
            assert!(manifest.verification.hash_kv && manifest.verification.is_verified());
            assert!(
                matches!(&manifest.source, manifest::Source::Live { member_name, .. } if member_name == "m1")
            );
            is_sound(target, manifest, &identities);
            let listing = block_on(async {
                let repository = Repository::open(target.store.clone()).await.unwrap();
                repository.backups(&manifest.cluster).await.unwrap()
            });
            assert_eq!(listing.backups.len(), 1);
            assert_eq!(listing.backups[0].manifest, *manifest);
        }

        // And back: the digest is known from the way, and nothing is left to find.
        let from = fetch::From::Backup {
            store: job.targets[1].store.clone(),
            manifest: Box::new(manifests[1].clone()),
        };
        let watcher = Watcher::none();
        let fetched = block_on(fetch::fetch(&from, &identities, folder.path(), &watcher)).unwrap();
        let no_finding = &mut |finding| panic!("{finding}");
        let snapshot = fetched.walk(no_finding).unwrap().prove(DigestRule::Required, no_finding);
        let snapshot = snapshot.unwrap();
        assert_eq!(snapshot.digests().file.to_string(), manifests[1].db.sha256);
        assert_eq!(snapshot.hash_kv(Some(revision)).unwrap().hash, known.hash);
    }
}

#[test]
fn a_stream_that_breaks_is_begun_again_from_another_member_and_so_are_the_uploads() {
    let cluster = Cluster::builder(Etcd::V3_5).security(Security::Plain).start();
    cluster.write_sample();
    let is_leader = |index: &usize| {
        let endpoint = endpoint(&cluster.client_url(*index));
        let status = async { connector().connect(&endpoint).await.unwrap().status().await };
        block_on(status).unwrap().is_leader()
    };
    let leader = (0..3).find(is_leader).expect("a cluster that serves has a leader");
    // A follower is asked before the leader.
    let cut = CutStream::before(&cluster.client_url((leader + 1) % 3), 150_000);
    let folder = tempfile::tempdir().unwrap();
    let job = job(
        live(&[cut.url(), cluster.client_url(leader)]),
        vec![target("one", folder.path()), target("two", folder.path())],
    );
    let (report, events) = make(&job);
    let manifests = manifests(report.unwrap());
    assert!(cut.was_cut());
    let count = |matches: fn(&Event) -> bool| events.iter().filter(|e| matches(e)).count();
    assert_eq!(count(|event| matches!(event, Event::FailedOver { .. })), 1);
    assert_eq!(count(|event| matches!(event, Event::Fetching { .. })), 2);
    assert_eq!(count(|event| matches!(event, Event::UploadFailed { .. })), 0, "that is no failure");
    for (target, manifest) in job.targets.iter().zip(&manifests) {
        let manifest::Source::Live { endpoint, .. } = &manifest.source else { panic!() };
        assert_eq!(*endpoint, cluster.client_url(leader));
        is_sound(target, manifest, &Identities::none());
    }
}

/// Goal: a member whose data differ is named, and no backup is made if so wished. Method: three members are
/// restored from two snapshots of the same revision, one of which has another value.
#[test]
fn a_member_whose_data_differ_is_named() {
    let mut cluster = Cluster::builder(Etcd::V3_5).security(Security::Plain).lay_out();
    let snapshot_with = |value: &str| {
        let other = Cluster::builder(Etcd::V3_5).security(Security::Plain).members(1).start();
        other.put("a", value);
        let file = cluster.folder().join(format!("{value}.db"));
        other.etcdctl(["snapshot", "save", file.to_str().unwrap()]);
        file
    };
    let (same, another) = (snapshot_with("same"), snapshot_with("another"));
    for (index, member) in cluster.members().iter().enumerate() {
        let snapshot = if index == 2 { &another } else { &same };
        let mut restore = Command::new(Etcd::V3_5.file_tool());
        restore
            .args(["snapshot", "restore"])
            .arg(snapshot)
            .args(["--name", member.name(), "--initial-cluster", &cluster.initial_cluster()])
            .args(["--initial-advertise-peer-urls", &cluster.peer_url(index), "--data-dir"])
            .arg(member.data_dir());
        Run::of(&mut restore).ok();
    }
    cluster.start_all();

    let folder = tempfile::tempdir().unwrap();
    let urls = [0, 1, 2].map(|index| cluster.client_url(index));
    let mut job = job(live(&urls), vec![target("one", folder.path())]);
    let (report, events) = make(&job);
    let manifest = manifests(report.unwrap()).remove(0);
    let hash_kv = &manifest.etcd.hash_kv;
    assert_eq!(hash_kv.agreed.len() + hash_kv.differed.len(), 3, "{hash_kv:?}");
    assert!(!hash_kv.differed.is_empty() && !manifest.verification.hash_kv);
    let told = events.iter().any(
        |event| matches!(event, Event::HashKv { differed, .. } if *differed == hash_kv.differed),
    );
    assert!(told, "{events:?}");

    job.options.hash_kv = HashKvPolicy::Fail;
    let (result, _) = make(&job);
    let error = result.unwrap_err();
    assert!(matches!(error, BackupError::MembersDiffer { .. }), "{error:?}");
    let backups = block_on(async {
        let repository = Repository::open(job.targets[0].store.clone()).await.unwrap();
        repository.backups(&manifest.cluster).await.unwrap().backups.len()
    });
    assert_eq!(backups, 1, "only the one of before");
}

#[test]
fn a_cluster_that_cannot_be_reached_leaves_repositories_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = "http://127.0.0.1:1".to_owned();
    let job = job(live(&[nobody]), vec![target("one", folder.path())]);
    let (result, _) = make(&job);
    assert_eq!(result.unwrap_err().kind(), backup::Kind::Unreachable);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
