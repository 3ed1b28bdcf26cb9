//! Runs from files: they need no etcd, so that a store can be cut at each of its operations.

use super::*;
use crate::event::Event;
use repository::{
    codec::{self, Expected, Identities, Recipients},
    lease::LeaseError,
    manifest::{Committed, MANIFEST_BYTES_MAX},
    store::testing::{Faults, faulty},
};
use snapshot::{DigestRule, Snapshot};
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    sync::Mutex,
};
use tempfile::TempDir;
use testbed::fixtures::{damaged, expected, fixture};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

/// A clock that does not wait, so that back-off costs no time. It may be an hour ahead, when leases that
/// could not be given back have expired.
struct Hasty {
    ahead: jiff::SignedDuration,
}

const TOGETHER: Hasty = Hasty { ahead: jiff::SignedDuration::ZERO };
const AN_HOUR_LATER: Hasty = Hasty { ahead: jiff::SignedDuration::from_hours(1) };

impl Clock for Hasty {
    fn now(&self) -> Timestamp {
        Timestamp::now() + self.ahead
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, wait: Duration) -> futures::future::BoxFuture<'static, ()> {
        // What is waited for while work goes on would never come first otherwise.
        let long = wait >= Duration::from_secs(10);
        if long { Box::pin(std::future::pending()) } else { Box::pin(tokio::task::yield_now()) }
    }
}

fn file(path: impl AsRef<Path>) -> Source {
    let path = path.as_ref().to_owned();
    Source::File { path, digest: DigestRule::Required, identities: Identities::none() }
}

fn target(name: &str, store: &Store) -> Target {
    Target {
        name: name.to_owned(),
        store: store.clone(),
        encoding: Encoding::default(),
        may_expose: false,
    }
}

fn job(source: Source, targets: Vec<Target>) -> Job {
    let options = Options { clock: Arc::new(TOGETHER), ..Options::default() };
    Job { cluster: "prod".parse().unwrap(), source, targets, options }
}

fn make(job: &Job) -> Result<Report, BackupError> {
    block_on(run(job, &Watcher::none(), std::future::pending()))
}

#[track_caller]
fn only(report: Report) -> Manifest {
    let [target] = <[TargetReport; 1]>::try_from(report.results).unwrap();
    target.result.unwrap()
}

/// The manifests in a store: what it claims to have.
async fn claimed(store: &Store) -> Vec<Manifest> {
    let mut manifests = Vec::new();
    for entry in store.list("prod/snapshots/").await.unwrap() {
        if entry.path.ends_with("/manifest.json") {
            let json = store.read(&entry.path, MANIFEST_BYTES_MAX).await.unwrap();
            if let Committed::Backup(manifest) = Committed::parse(&entry.path, &json).unwrap() {
                manifests.push(*manifest);
            }
        }
    }
    manifests
}

/// Brings a backup back and proves it; panics unless it is whole.
async fn brought_back(store: &Store, manifest: &Manifest, identities: &Identities) -> Vec<u8> {
    let path = format!("prod/snapshots/{}/{}", manifest.id, manifest.object.name);
    let expected = Expected::db(manifest);
    let output = tempfile::NamedTempFile::new().unwrap();
    let file = output.reopen().unwrap();
    codec::download(store, &path, &expected, identities, file, |_| {}).await.unwrap();
    let snapshot = Snapshot::open(output.path()).unwrap();
    let snapshot = snapshot.verify(DigestRule::Required, &mut |finding| panic!("{finding}"));
    assert_eq!(snapshot.unwrap().digests().file.to_string(), manifest.db.sha256);
    fs::read(output.path()).unwrap()
}

fn folder_and_store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::local(folder.path());
    (folder, store)
}

#[test]
fn a_file_is_stored_as_it_is_and_the_manifest_says_what_etcd_says() {
    for version in ["3.4.23", "3.5.30", "3.6.14"] {
        let (_folder, store) = folder_and_store();
        let path = fixture(&format!("{version}/final.db"));
        let manifest = only(make(&job(file(&path), vec![target("a", &store)])).unwrap());
        let known = expected(version);
        let last = known.final_;
        assert_eq!(manifest.etcd.revision, last.revision, "{version}");
        assert_eq!(manifest.etcd.compact_revision, last.compact_revision);
        assert_eq!(manifest.etcd.hash, last.status.hash);
        assert_eq!(manifest.etcd.live_keys, last.live_keys);
        let newest = last.hashkv.iter().find(|h| h.revision == last.revision).unwrap();
        assert_eq!(manifest.etcd.hash_kv.hash, newest.hash);
        assert_eq!(manifest.etcd.members.len(), 1);
        let back = block_on(brought_back(&store, &manifest, &Identities::none()));
        assert!(back == fs::read(&path).unwrap(), "{version}: not the file that was given");
        assert_eq!(block_on(claimed(&store)), [manifest]);
    }
}

#[test]
fn a_file_without_a_digest_is_stored_with_one_if_that_is_allowed() {
    let (folder, store) = folder_and_store();
    let whole = fs::read(fixture("3.5.30/final.db")).unwrap();
    let bare = folder.path().join("db");
    fs::write(&bare, &whole[..whole.len() - 32]).unwrap();
    let error = make(&job(file(&bare), vec![target("a", &store)])).unwrap_err();
    assert!(matches!(error, BackupError::Snapshot(snapshot::SnapshotError::NoDigest { .. })));

    let source =
        Source::File { path: bare, digest: DigestRule::Skip, identities: Identities::none() };
    let manifest = only(make(&job(source, vec![target("a", &store)])).unwrap());
    assert!(block_on(brought_back(&store, &manifest, &Identities::none())) == whole);
}

#[test]
fn a_file_that_another_tool_has_wrapped_is_stored_as_an_ordinary_snapshot() {
    let (folder, store) = folder_and_store();
    let whole = fs::read(fixture("3.5.30/final.db")).unwrap();
    let path = folder.path().join("etcd.backup.gz");
    let mut gzip =
        flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
    gzip.write_all(&whole).unwrap();
    gzip.finish().unwrap();
    let manifest = only(make(&job(file(&path), vec![target("a", &store)])).unwrap());
    assert!(block_on(brought_back(&store, &manifest, &Identities::none())) == whole);
}

#[test]
fn damage_is_refused_before_a_repository_is_touched() {
    let (_folder, store) = folder_and_store();
    for name in ["leaf-value-bit-flip", "page-cycle", "truncated-one-page"] {
        let copy = damaged(name);
        let error = make(&job(file(copy.path()), vec![target("a", &store)])).unwrap_err();
        assert_eq!(error.kind(), Kind::Damage, "{name}: {error:?}");
    }
    assert_eq!(block_on(store.list("")).unwrap(), []);
}

#[test]
fn a_repository_that_fails_does_not_take_the_others_with_it() {
    let (_one, good) = folder_and_store();
    let (_two, bad) = folder_and_store();
    let (bad, faults) = faulty(bad);
    let job =
        job(file(fixture("3.5.30/final.db")), vec![target("bad", &bad), target("good", &good)]);
    let operations = operations_of_a_clean_run();
    for cut in 1..=operations {
        faults.cut_at(faults.operations() + cut);
        let report = make(&job).unwrap();
        assert!(report.results[1].result.is_ok(), "cut {cut}: {report:?}");
        if report.results[0].result.is_err() {
            assert!(report.failure().is_some());
        }
        faults.heal();
    }
    assert_eq!(block_on(claimed(&good)).len() as u64, operations);
}

fn operations_of_a_clean_run() -> u64 {
    let (_folder, store) = folder_and_store();
    let (store, faults) = faulty(store);
    only(make(&job(file(fixture("3.5.30/final.db")), vec![target("a", &store)])).unwrap());
    faults.operations()
}

/// Goal: whatever operation of the store fails, or is done while its answer is lost, once or for good, no
/// backup is claimed that is not whole, none is lost that was claimed, and the next run works. Method:
/// count the operations of a clean run, then fault each of them in each way.
#[test]
fn a_store_that_is_cut_at_any_operation_claims_nothing_that_is_not_whole() {
    let include = tempfile::tempdir().unwrap();
    fs::write(include.path().join("ca.crt"), "certificate").unwrap();
    let faults: [fn(&Faults, u64); 4] =
        [Faults::fail_at, Faults::lose_answer_at, Faults::cut_at, Faults::cut_after];
    let source = || file(fixture("3.5.30/base.db"));
    let job_to = |store: &Store| {
        let mut job = job(source(), vec![target("a", store)]);
        job.options.include = vec![include.path().to_owned()];
        job.options.include_plain = true;
        job
    };
    let clean = {
        let (_folder, store) = folder_and_store();
        let (store, faults) = faulty(store);
        only(make(&job_to(&store)).unwrap());
        faults.operations()
    };
    assert!(clean >= 10, "objects, manifest and lease: {clean}");
    for (way, fault) in faults.iter().enumerate() {
        for at in 1..=clean {
            let (_folder, good) = folder_and_store();
            let (store, faults) = faulty(good.clone());
            fault(&faults, at);
            let report = make(&job_to(&store)).unwrap();
            faults.heal();
            let found = block_on(claimed(&good));
            for manifest in &found {
                block_on(brought_back(&good, manifest, &Identities::none()));
            }
            if let Ok(manifest) = &report.results[0].result {
                assert!(found.contains(manifest), "way {way}, at {at}: a backup was lost");
            }
            let mut next = job_to(&store);
            next.options.clock = Arc::new(AN_HOUR_LATER);
            let next = only(make(&next).unwrap_or_else(|e| panic!("{way} {at}: {e}")));
            let found = block_on(claimed(&good));
            assert!(found.contains(&next), "way {way}, at {at}: the next run works");
        }
    }
}

#[test]
fn a_slot_of_the_schedule_is_done_once() {
    let (_folder, store) = folder_and_store();
    let mut job = job(file(fixture("3.5.30/base.db")), vec![target("a", &store)]);
    job.options.scheduled_for = Some("2026-11-22T02:00:00Z".parse().unwrap());
    assert_eq!(only(make(&job).unwrap()).scheduled_for, job.options.scheduled_for);
    let report = make(&job).unwrap();
    let error = report.results[0].result.as_ref().unwrap_err();
    assert!(matches!(error, TargetError::Lease(LeaseError::Done { .. })), "{error:?}");
    assert_eq!(block_on(claimed(&store)).len(), 1);
}

#[test]
fn an_interrupted_run_leaves_no_claim_and_nothing_that_blocks_the_next() {
    let (_folder, store) = folder_and_store();
    let job = job(file(fixture("3.5.30/base.db")), vec![target("a", &store)]);
    // At the first byte that is uploaded.
    let (interrupt, interrupted) = tokio::sync::oneshot::channel();
    let interrupt = Mutex::new(Some(interrupt));
    let watcher = Watcher::new(move |event| {
        if matches!(event, Event::Uploaded { .. }) {
            interrupt.lock().unwrap().take().map(|interrupt| interrupt.send(()));
        }
    });
    let result = block_on(run(&job, &watcher, async move { drop(interrupted.await) }));
    match result {
        Err(BackupError::Interrupted) => assert_eq!(block_on(claimed(&store)), []),
        // The signal came when all was done.
        Ok(report) => drop(only(report)),
        Err(error) => panic!("{error:?}"),
    }
    let next = only(make(&job).unwrap());
    assert!(block_on(claimed(&store)).contains(&next));
}

#[test]
fn included_files_are_refused_in_plain_and_come_back_from_what_is_encrypted() {
    let (folder, store) = folder_and_store();
    let secret = folder.path().join("pki/ca.key");
    fs::create_dir(folder.path().join("pki")).unwrap();
    fs::write(&secret, "very secret").unwrap();
    let mut job = job(file(fixture("3.5.30/base.db")), vec![target("a", &store)]);
    job.options.include = vec![folder.path().join("pki")];
    let error = make(&job).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");

    let key = age::x25519::Identity::generate();
    let mut recipients = Recipients::none();
    recipients.add(&key.to_public().to_string()).unwrap();
    job.targets[0].encoding.recipients = recipients;
    let manifest = only(make(&job).unwrap());
    let mut identities = Identities::none();
    let key = key.to_string();
    identities.add(age::secrecy::ExposeSecret::expose_secret(&key), "the test").unwrap();
    block_on(brought_back(&store, &manifest, &identities));

    let include = manifest.include.as_ref().unwrap();
    assert_eq!(include.paths, [folder.path().join("pki").display().to_string()]);
    let to = folder.path().join("unpacked");
    let (dir, store) = (std::env::temp_dir(), &store);
    let unpacked = crate::fetch::fetch_include(store, &manifest, &identities, &dir, &to);
    assert_eq!(block_on(unpacked).unwrap().map(|unpacked| unpacked.files), Some(1));
    let again = crate::fetch::fetch_include(store, &manifest, &identities, &dir, &to);
    assert_eq!(block_on(again).unwrap_err().kind(), Kind::Refused, "nothing is overwritten");
    let back = to.join(secret.strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(back).unwrap(), "very secret");
}

#[test]
fn a_stopped_members_data_is_stored_with_what_its_log_adds() {
    let (_folder, store) = folder_and_store();
    let data_dir = testbed::fixtures::killed("3.5.30");
    let source = Source::DataDir(snapshot::StoppedMember {
        data_dir: data_dir.path().to_owned(),
        wal_dir: None,
        log: snapshot::UseLog::Whole,
    });
    let manifest = only(make(&job(source, vec![target("a", &store)])).unwrap());
    let known = testbed::fixtures::killed_expected("3.5.30");
    assert_eq!(manifest.etcd.revision, known.revision_after_restart);
    assert_eq!(manifest.etcd.live_keys, known.live_keys_after_restart);
    block_on(brought_back(&store, &manifest, &Identities::none()));
}

#[test]
fn an_open_backup_beside_encrypted_ones_is_refused_unless_it_is_meant() {
    let (_folder, store) = folder_and_store();
    let (_other_folder, other) = folder_and_store();
    let path = fixture("3.5.30/final.db");
    let mut recipients = Recipients::none();
    recipients.add("age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p").unwrap();
    let encoding = Encoding { recipients, ..Encoding::default() };
    let sealed = Target { encoding, ..target("a", &store) };
    only(make(&job(file(&path), vec![sealed.clone()])).unwrap());
    let before = block_on(store.list("")).unwrap();

    // The other repository, whose backups were never encrypted, has its backup all the same.
    let both = vec![target("a", &store), target("b", &other)];
    let report = make(&job(file(&path), both)).unwrap();
    assert_eq!(report.failure(), Some(Kind::Refused));
    let [exposed, fine] = <[TargetReport; 2]>::try_from(report.results).unwrap();
    assert!(matches!(exposed.result, Err(TargetError::Exposed { .. })), "{exposed:?}");
    assert!(fine.result.is_ok());
    assert_eq!(block_on(store.list("")).unwrap(), before);

    let meant = Target { may_expose: true, ..target("a", &store) };
    only(make(&job(file(&path), vec![meant])).unwrap());
    // Now that the newest is open, the next may be too.
    only(make(&job(file(&path), vec![target("a", &store)])).unwrap());
    only(make(&job(file(&path), vec![sealed])).unwrap());
}

#[test]
fn of_backups_begun_in_one_second_the_later_says_whose_the_name_is() {
    let (_folder, store) = folder_and_store();
    let sample =
        only(make(&job(file(fixture("3.5.30/final.db")), vec![target("a", &store)])).unwrap());
    // A cluster with more revisions, and one that took its name over within the second.
    let second: Timestamp = "2100-01-01T00:00:00Z".parse().unwrap();
    for (revision, cluster, millis) in [(900, "first", 100), (5, "second", 700)] {
        let mut manifest = sample.clone();
        manifest.id = BackupId::new(revision, second);
        manifest.started = second + jiff::SignedDuration::from_millis(millis);
        manifest.etcd.cluster_id = Some(cluster.to_owned());
        let path = format!("prod/snapshots/{}/manifest.json", manifest.id);
        let json = serde_json::to_vec(&manifest).unwrap();
        block_on(store.create(&path, json.into())).unwrap();
    }
    let is_of = |id| block_on(newest::is_of(&store, &"prod".parse().unwrap(), id)).unwrap();
    assert!(is_of("second"));
    assert!(!is_of("first"));
}
