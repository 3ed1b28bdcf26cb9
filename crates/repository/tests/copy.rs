//! Copying between two repositories: as stored, encrypted anew, and cut at every operation.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod listing_common;

use jiff::Timestamp;
use listing_common::{Place, days_ago, now, place};
use repository::{
    BackupId, Manifest, Repository,
    checks::Damage,
    codec::{self, Encoding, Expected, Identities, Recipients},
    copy::{CopyError, CopyOptions, CopyReport, Outcome, Storage, copy},
    keep::Pin,
    lease::{self, Holder, Lease, SystemClock, Terms},
    listing::{Listing, State},
    manifest::{Include, Object, ObjectKind},
    store::testing::faulty,
};
use std::{sync::Arc, time::Duration};

fn options(storage: Storage) -> CopyOptions {
    CopyOptions {
        storage,
        read_back: true,
        pins: true,
        bandwidth: None,
        holder: Holder::named("the copier"),
        terms: Terms::default(),
        clock: Arc::new(SystemClock::default()),
        progress: Arc::new(|_| {}),
    }
}

async fn list(place: &Place) -> Listing {
    place.repository.backups(&place.cluster).await.unwrap()
}

async fn run(from: &Place, to: &Place, ids: &[BackupId], options: &CopyOptions) -> CopyReport {
    copy(&from.repository, &to.repository, &from.cluster, ids, options).await.unwrap()
}

fn outcome(report: &CopyReport, id: BackupId) -> &Outcome {
    &report.outcomes.iter().find(|(found, _)| *found == id).unwrap().1
}

/// A backup that is stored as real ones are, with files beside it.
async fn real(place: &Place, started: Timestamp, recipients: &Recipients) -> BackupId {
    let id = BackupId::new(7, started);
    let encoding = Encoding { recipients: recipients.clone(), ..Encoding::default() };
    let folder = place.folder(id);
    let db: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut ends = Vec::new();
    let kinds = [(ObjectKind::Db, db), (ObjectKind::Include, b"a tar".to_vec())];
    for (kind, content) in kinds {
        let name = encoding.object_name(kind);
        let content = std::io::Cursor::new(content);
        let path = format!("{folder}{name}");
        let uploaded =
            codec::upload(&place.store, &path, content, &encoding, |_| {}).await.unwrap();
        ends.push((name, uploaded.finish().await.unwrap()));
    }
    let (include, db) = (ends.pop().unwrap(), ends.pop().unwrap());
    let object = |(name, ends): (String, codec::Ends)| Object { name, stored: ends.stored };
    let manifest = Manifest {
        db: db.1.content.clone(),
        include: Some(Include {
            tar: include.1.content.clone(),
            object: object(include),
            paths: vec!["pki/ca.crt".to_owned()],
        }),
        object: object(db),
        compression: encoding.compression(),
        encryption: encoding.encryption(),
        ..listing_common::manifest(&place.cluster, id, b"")
    };
    place.put(id, "manifest.json", &serde_json::to_vec(&manifest).unwrap());
    id
}

fn keys() -> (Recipients, Identities) {
    let identity = age::x25519::Identity::generate();
    let mut recipients = Recipients::none();
    recipients.add(&identity.to_public().to_string()).unwrap();
    let mut identities = Identities::none();
    let secret = identity.to_string();
    identities.add(age::secrecy::ExposeSecret::expose_secret(&secret), "a test").unwrap();
    (recipients, identities)
}

#[tokio::test]
async fn a_copy_has_the_same_bytes_and_its_pins_and_is_copied_once() {
    let (from, to) = (place().await, place().await);
    let (old, new) = (from.backup(days_ago(3)), from.backup(days_ago(1)));
    let other = from.backup(days_ago(2));
    let pin = Pin::new(old, Some("a note".to_owned()), None, now());
    from.repository.pin(&from.cluster, &"held".parse().unwrap(), &pin).await.unwrap();

    let report = run(&from, &to, &[new, old, new], &options(Storage::AsIs)).await;
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(report.outcomes.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [old, new]);
    let listing = list(&to).await;
    assert_eq!(listing.backups.iter().map(|b| b.id()).collect::<Vec<_>>(), [new, old]);
    assert!(listing.get(other).is_none());
    assert_eq!(listing.get(old).unwrap().pins, ["held"]);
    for id in [old, new] {
        let bytes = async |place: &Place| {
            place.store.read(&(place.folder(id) + "db.zst"), 1000).await.unwrap()
        };
        assert_eq!(bytes(&from).await, bytes(&to).await);
    }
    let report = run(&from, &to, &[old, new], &options(Storage::AsIs)).await;
    assert!(matches!(outcome(&report, old), Outcome::Present));
    assert!(report.is_complete());
}

#[tokio::test]
async fn who_cannot_be_read_is_told_as_that_and_not_as_gone() {
    let (from, to) = (place().await, place().await);
    let (broken, sound) = (BackupId::new(1, days_ago(2)), from.backup(days_ago(1)));
    from.put(broken, "manifest.json", b"{");
    let gone = BackupId::new(7, days_ago(3));
    let report = run(&from, &to, &[broken, sound, gone], &options(Storage::AsIs)).await;
    let told = outcome(&report, broken);
    assert!(matches!(told, Outcome::Failed(CopyError::Repository(_))), "{told:?}");
    assert!(matches!(outcome(&report, sound), Outcome::Copied { .. }));
    assert!(matches!(outcome(&report, gone), Outcome::Failed(CopyError::NoSuchBackup { .. })));
}

#[tokio::test]
async fn a_later_generation_is_copied_as_the_first() {
    let (from, to) = (place().await, place().await);
    let id = from.backup(days_ago(1));
    from.add(id, |manifest| manifest.generation = 2);
    assert!(run(&from, &to, &[id], &options(Storage::AsIs)).await.is_complete());
    let listing = list(&to).await;
    let copied = listing.get(id).unwrap();
    assert_eq!((copied.generation, &*copied.manifest.object.name), (1, "db.zst"));
    assert_eq!(copied.state, State::Whole);
}

#[tokio::test]
async fn an_original_that_is_not_what_its_manifest_says_is_not_copied_but_others_are() {
    let (from, to) = (place().await, place().await);
    let (flipped, damaged, cut) =
        (from.backup(days_ago(4)), from.backup(days_ago(3)), from.backup(days_ago(2)));
    let good = from.backup(days_ago(1));
    let path = from.path.join(from.folder(flipped)).join("db.zst");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[5] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let damage = Damage::new(now(), vec![]);
    from.repository.mark_damaged(&from.cluster, damaged, &damage).await.unwrap();
    from.store.delete(&(from.folder(cut) + "db.zst")).await.unwrap();
    let nothing = BackupId::new(1, now());

    let ids = [flipped, damaged, cut, good, nothing];
    let report = run(&from, &to, &ids, &options(Storage::AsIs)).await;
    assert!(!report.is_complete());
    let failed = |id| match outcome(&report, id) {
        Outcome::Failed(error) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(failed(flipped), CopyError::Differs { .. }));
    assert!(matches!(failed(damaged), CopyError::Original { .. }));
    assert!(matches!(failed(cut), CopyError::Original { .. }));
    assert!(matches!(failed(nothing), CopyError::NoSuchBackup { .. }));
    assert!(matches!(outcome(&report, good), Outcome::Copied { .. }));
    assert_eq!(list(&to).await.backups.len(), 1);
}

#[tokio::test]
async fn a_destination_that_another_writes_to_is_left_alone() {
    let (from, to) = (place().await, place().await);
    let id = from.backup(days_ago(1));
    let options = options(Storage::AsIs);
    let holder = Holder::named("a backup");
    let terms = Terms { ttl: Duration::from_secs(600), ..Terms::default() };
    let lease = Lease::acquire(&to.store, &to.cluster, &holder, terms, options.clock.clone()).await;
    let lease = lease.unwrap();
    let report = run(&from, &to, &[id], &options).await;
    assert!(matches!(outcome(&report, id), Outcome::Failed(CopyError::Lease(_))));
    lease.release(None).await.unwrap();
    assert!(run(&from, &to, &[id], &options).await.is_complete());
}

#[tokio::test]
async fn a_copy_is_encrypted_to_other_keys_and_opens_with_those_alone() {
    let (from, to) = (place().await, place().await);
    let (old_recipients, old_identities) = keys();
    let (new_recipients, new_identities) = keys();
    let plain = real(&from, days_ago(2), &Recipients::none()).await;
    let sealed = real(&from, days_ago(1), &old_recipients).await;
    let encoding = Encoding { recipients: new_recipients.clone(), ..Encoding::default() };
    let wrong = Storage::Anew { encoding: encoding.clone(), identities: new_identities.clone() };
    let report = run(&from, &to, &[sealed], &options(wrong)).await;
    assert!(matches!(outcome(&report, sealed), Outcome::Failed(CopyError::Codec(_))), "{report:?}");
    assert!(list(&to).await.backups.is_empty());

    let storage = Storage::Anew { encoding, identities: old_identities.clone() };
    let report = run(&from, &to, &[plain, sealed], &options(storage)).await;
    assert!(report.is_complete(), "{report:?}");
    let listing = list(&to).await;
    for id in [plain, sealed] {
        let manifest = &listing.get(id).unwrap().manifest;
        assert_eq!(manifest.encryption.as_ref().unwrap().recipients, new_recipients.keys());
        let include = manifest.include.as_ref().unwrap();
        for (name, expected) in [
            (&manifest.object.name, Expected::db(manifest)),
            (&include.object.name, Expected::include(manifest).unwrap()),
        ] {
            let path = to.folder(id) + name;
            let read =
                codec::download(&to.store, &path, &expected, &new_identities, Vec::new(), |_| {});
            assert_eq!(read.await.unwrap().output.len() as u64, expected.content.bytes);
            let read =
                codec::download(&to.store, &path, &expected, &old_identities, Vec::new(), |_| {});
            assert!(read.await.is_err());
        }
    }
}

/// Goal: a copy that is cut at any operation of the destination leaves no backup there that is not whole, and
/// the next copy completes it, whatever was left. Method: count a clean run's operations, cut at each of them, with the last one
/// done and not done, and fail each of them alone.
#[tokio::test]
async fn a_copy_that_is_cut_at_any_operation_is_completed_by_the_next() {
    let from = place().await;
    let ids = [from.backup(days_ago(2)), from.backup(days_ago(1))];
    // What an earlier copy left, and whoever took over from it.
    let with_remains = async || {
        let to = place().await;
        to.put(ids[0], "db.zst", b"half");
        lease::abandon(&to.store, &to.cluster, ids[0], 3, now()).await.unwrap();
        to
    };
    let options = options(Storage::AsIs);
    let mut operations = None;
    let mut cut = 0;
    while operations.is_none_or(|operations| cut <= operations) {
        for how in 0..3 {
            let to = with_remains().await;
            let (store, faults) = faulty(to.store.clone());
            let faulty_to = Repository::open(store).await.unwrap();
            let at = faults.operations() + cut;
            match how {
                // The first is the clean run.
                _ if cut == 0 => {}
                0 => faults.cut_at(at),
                1 => faults.cut_after(at),
                _ => faults.fail_at(at),
            }
            let before = faults.operations();
            let report = copy(&from.repository, &faulty_to, &from.cluster, &ids, &options).await;
            if cut == 0 {
                assert!(report.as_ref().unwrap().is_complete(), "{report:?}");
                operations = Some(faults.operations() - before);
            }
            faults.heal();
            let listing = list(&to).await;
            for backup in &listing.backups {
                assert_eq!(backup.state, State::Whole, "cut {cut}, {how}: {}", backup.id());
                let object = to.folder(backup.id()) + "db.zst";
                let original = from.store.read(&object, 1000).await.unwrap();
                assert_eq!(to.store.read(&object, 1000).await.unwrap(), original);
            }
            if let Ok(report) = report {
                for (id, outcome) in &report.outcomes {
                    let is_there = listing.get(*id).is_some();
                    let claimed = !matches!(outcome, Outcome::Failed(_));
                    assert!(is_there || !claimed, "cut {cut}, {how}: {outcome:?}");
                }
            }
            // Its own lease may still stand; the same process goes on, or another after it has expired.
            let mut again = options.clone();
            again.clock = Arc::new(Later(SystemClock::default()));
            let report = run(&from, &to, &ids, &again).await;
            assert!(report.is_complete(), "cut {cut}, {how}: {report:?}");
            let listing = list(&to).await;
            assert_eq!(listing.backups.len(), 2, "cut {cut}, {how}");
            assert!(listing.backups.iter().all(|backup| backup.state == State::Whole));
        }
        cut += 1;
    }
    assert!(operations.unwrap() > 30, "{operations:?}");
}

/// A clock an hour on: leases have expired.
struct Later(SystemClock);

impl lease::Clock for Later {
    fn now(&self) -> Timestamp {
        self.0.now() + jiff::SignedDuration::from_hours(1)
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn sleep(&self, wait: Duration) -> futures::future::BoxFuture<'static, ()> {
        self.0.sleep(wait)
    }
}

/// Goal: a prune beside a copy makes no failure. Method: while the first is copied, the second is pruned: as a whole,
/// or so far only its manifest.
#[tokio::test]
async fn a_backup_that_is_pruned_while_others_are_copied_is_told_as_pruned() {
    for all_of_it in [true, false] {
        let (from, to) = (place().await, place().await);
        let (old, pruned, new) =
            (from.backup(days_ago(3)), from.backup(days_ago(2)), from.backup(days_ago(1)));
        let folder = from.store.url().trim_start_matches("file://").to_owned();
        let folder = format!("{folder}/{}", from.folder(pruned));
        let progress = Arc::new(move |_| {
            // The second time it is gone already.
            let _ = match all_of_it {
                true => std::fs::remove_dir_all(&folder),
                false => std::fs::remove_file(format!("{folder}manifest.json"))
                    .and_then(|()| std::fs::remove_file(format!("{folder}db.zst"))),
            };
        });
        let options = CopyOptions { progress, ..options(Storage::AsIs) };
        let report = run(&from, &to, &[old, pruned, new], &options).await;
        assert!(report.is_complete(), "{report:?}");
        assert!(matches!(outcome(&report, pruned), Outcome::Pruned), "{report:?}");
        let there = list(&to).await;
        assert_eq!(there.backups.iter().map(|b| b.id()).collect::<Vec<_>>(), [new, old]);
    }
}

#[tokio::test]
async fn an_original_that_has_its_manifest_but_not_its_object_is_a_failure() {
    let (from, to) = (place().await, place().await);
    let (old, new) = (from.backup(days_ago(2)), from.backup(days_ago(1)));
    let folder = from.store.url().trim_start_matches("file://").to_owned();
    let object = format!("{folder}/{}db.zst", from.folder(new));
    let progress = Arc::new(move |_| drop(std::fs::remove_file(&object)));
    let options = CopyOptions { progress, ..options(Storage::AsIs) };
    let report = run(&from, &to, &[old, new], &options).await;
    assert!(matches!(outcome(&report, new), Outcome::Failed(_)), "{report:?}");
}
