//! Pruning for real, in a folder: what goes, what stays, and what a cut leaves behind.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod listing_common;

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use jiff::{SignedDuration, Timestamp};
use listing_common::{Place, days_ago, now, place, policy};
use repository::{
    BackupId, Repository,
    checks::Damage,
    keep::Pin,
    lease::{self, Holder, Lease, Run, SystemClock, Terms},
    listing::{Listing, State},
    prune::{Fate, PruneError, PruneOptions, PrunePlan, PruneProgress, PruneReport},
    retention::Policy,
    store::{At, Backend, Entry, ObjectWriter, Operation, Store, StoreError, testing::faulty},
};
use std::{collections::BTreeSet, sync::Arc};

async fn plan(place: &Place, policy: &Policy) -> PrunePlan {
    plan_at(place, policy, now()).await
}

async fn plan_at(place: &Place, policy: &Policy, now: Timestamp) -> PrunePlan {
    let options = PruneOptions::default();
    PrunePlan::new(&place.repository, &place.cluster, policy, now, options).await.unwrap()
}

async fn prune(place: &Place, policy: &Policy) -> PruneReport {
    plan(place, policy).await.execute(&place.repository, |_| {}).await.unwrap()
}

async fn list(place: &Place) -> Listing {
    place.repository.backups(&place.cluster).await.unwrap()
}

fn last(n: u32) -> Policy {
    policy(serde_json::json!({ "keep-last": n }))
}

fn ids(listing: &Listing) -> Vec<BackupId> {
    listing.backups.iter().map(|backup| backup.id()).collect()
}

#[tokio::test]
async fn what_the_policy_does_not_keep_goes_with_everything_in_its_folder() {
    let place = place().await;
    let mut all = Vec::new();
    for day in 1..=5 {
        all.push(place.backup(days_ago(day)));
    }
    let plan = plan(&place, &last(2)).await;
    let printed = plan.to_string();
    assert!(printed.contains("last 2 of 2") && printed.contains("no rule keeps it"), "{printed}");
    let to_free = plan.bytes_to_free();
    assert_eq!(ids(&list(&place).await).len(), 5, "a plan deletes nothing");

    let report = plan.execute(&place.repository, |_| {}).await.unwrap();
    assert!(report.is_complete());
    assert_eq!(report.removed, [all[4], all[3], all[2]]);
    assert_eq!(report.bytes_freed, to_free);
    assert_eq!(ids(&list(&place).await), all[..2]);
    for gone in &all[2..] {
        assert!(!place.paths().await.iter().any(|path| path.starts_with(&place.folder(*gone))));
    }
    assert!(self::plan(&place, &last(2)).await.is_empty(), "a second run has nothing to do");
}

#[tokio::test]
async fn a_pin_set_after_the_plan_still_holds() {
    let place = place().await;
    let (_, old) = (place.backup(days_ago(1)), place.backup(days_ago(2)));
    let plan = plan(&place, &last(1)).await;
    let pin = Pin::new(old, None, None, now());
    place.repository.pin(&place.cluster, &"late".parse().unwrap(), &pin).await.unwrap();
    let report = plan.execute(&place.repository, |_| {}).await.unwrap();
    assert!(report.removed.is_empty());
    assert_eq!(ids(&list(&place).await).len(), 2);
}

#[tokio::test]
async fn a_pin_that_cannot_be_read_stops_it() {
    let place = place().await;
    place.backup(days_ago(1));
    place.store.create("prod/keep/torn.json", "{".into()).await.unwrap();
    let options = PruneOptions::default();
    let plan = PrunePlan::new(&place.repository, &place.cluster, &last(1), now(), options).await;
    assert!(matches!(plan.unwrap_err(), PruneError::Pin { .. }));
}

#[tokio::test]
async fn nothing_goes_when_the_newest_is_gone_or_damaged_since_the_plan() {
    for damage in [false, true] {
        let place = place().await;
        let new = place.backup(days_ago(1));
        place.backup(days_ago(2));
        place.backup(days_ago(3));
        let plan = plan(&place, &last(1)).await;
        if damage {
            let damage = Damage::new(now(), vec![]);
            place.repository.mark_damaged(&place.cluster, new, &damage).await.unwrap();
        } else {
            place.store.delete(&(place.folder(new) + "manifest.json")).await.unwrap();
        }
        let before = place.paths().await;
        let error = plan.execute(&place.repository, |_| {}).await.unwrap_err();
        assert!(matches!(error, PruneError::Changed { id, .. } if id == new), "{error}");
        assert_eq!(place.paths().await, before);
    }
}

#[tokio::test]
async fn a_backup_that_lost_an_object_does_not_count() {
    let place = place().await;
    let (broken, good) = (place.backup(days_ago(1)), place.backup(days_ago(2)));
    let old = place.backup(days_ago(3));
    place.store.delete(&(place.folder(broken) + "db.zst")).await.unwrap();
    let report = prune(&place, &last(1)).await;
    assert_eq!(report.removed, [old]);
    assert_eq!(ids(&list(&place).await), [broken, good]);
}

#[tokio::test]
async fn remains_of_broken_backups_go_after_the_grace_period_and_their_doors_stay_closed() {
    let place = place().await;
    place.backup(days_ago(1));
    let young = BackupId::new(1, now() - SignedDuration::from_hours(23));
    let old = BackupId::new(2, days_ago(2));
    let ancient = BackupId::new(3, days_ago(31));
    for id in [young, old, ancient] {
        place.put(id, "db.zst", b"half");
    }
    // Even with a policy that keeps all.
    let report = prune(&place, &Policy::default()).await;
    assert_eq!(report.removed, [old, ancient]);

    let plan = plan(&place, &Policy::default()).await;
    let fates: Vec<_> = plan.orphans.iter().map(|o| (o.id, o.fate)).collect();
    assert_eq!(fates, [(young, Fate::TooYoung), (old, Fate::Closed)]);
    assert!(plan.is_empty());

    // The writer that slept can commit no more; after thirty days the last of it goes.
    let manifest = listing_common::manifest(&place.cluster, old, b"half");
    let json = serde_json::to_vec(&manifest).unwrap();
    let late = place.store.create(&(place.folder(old) + "manifest.json"), json.into()).await;
    assert!(late.unwrap_err().is_exists());
    let later = now() + SignedDuration::from_hours(24 * 30);
    let plan = plan_at(&place, &Policy::default(), later).await;
    let report = plan.execute(&place.repository, |_| {}).await.unwrap();
    assert_eq!(report.removed, [young, old]);
    assert!(!place.paths().await.iter().any(|path| path.starts_with(&place.folder(old))));
}

#[tokio::test]
async fn the_run_of_whoever_holds_the_lease_stays_however_old_its_name() {
    let place = place().await;
    place.backup(days_ago(1));
    let clock = Arc::new(SystemClock::default());
    let holder = Holder::named("a writer");
    let lease = Lease::acquire(&place.store, &place.cluster, &holder, Terms::default(), clock)
        .await
        .unwrap();
    // Its clock is weeks behind.
    let id = BackupId::new(7, days_ago(40));
    let id = lease.begin(Run { id, scheduled_for: None }).await.unwrap();
    place.put(id, "db.zst", b"half");

    let plan = plan(&place, &last(1)).await;
    assert_eq!(plan.orphans[0].fate, Fate::Running);
    assert!(plan.execute(&place.repository, |_| {}).await.unwrap().removed.is_empty());
    let mut manifest = listing_common::manifest(&place.cluster, id, b"half");
    manifest.fence = lease.fence();
    lease.commit(&manifest).await.unwrap();
    assert_eq!(list(&place).await.get(id).unwrap().state, State::Whole);
}

#[tokio::test]
async fn an_orphan_that_is_committed_after_the_plan_is_a_backup() {
    let place = place().await;
    place.backup(days_ago(1));
    let late = BackupId::new(2, days_ago(2));
    place.put(late, "db.zst", b"half");
    let plan = plan(&place, &Policy::default()).await;
    assert_eq!(plan.orphans[0].fate, Fate::Remove);
    let manifest = listing_common::manifest(&place.cluster, late, b"half");
    place.put(late, "manifest.json", &serde_json::to_vec(&manifest).unwrap());
    assert!(plan.execute(&place.repository, |_| {}).await.unwrap().removed.is_empty());
    assert_eq!(list(&place).await.get(late).unwrap().state, State::Whole);
}

#[tokio::test]
async fn generations_before_the_one_that_counts_go() {
    let place = place().await;
    let id = place.backup(days_ago(1));
    place.add(id, |manifest| manifest.generation = 2);
    let report = prune(&place, &Policy::default()).await;
    assert!(report.is_complete() && report.removed.is_empty() && report.bytes_freed > 0);
    let left: Vec<_> = place.store.list(&place.folder(id)).await.unwrap();
    let left: Vec<_> = left.iter().map(|e| e.path.rsplit('/').next().unwrap()).collect();
    assert_eq!(left, ["db.2.zst", "manifest.2.json"]);
}

#[tokio::test]
async fn what_the_store_locks_is_reported_and_left_whole_and_the_rest_goes() {
    let place = place().await;
    place.backup(days_ago(1));
    let (with_manifest, with_object) = (place.backup(days_ago(2)), place.backup(days_ago(3)));
    let free = place.backup(days_ago(4));
    let locked =
        [place.folder(with_manifest) + "manifest.json", place.folder(with_object) + "db.zst"];
    let store = Store::new(Locking { store: place.store.clone(), locked: locked.to_vec() });
    let repository = Repository::open(store).await.unwrap();
    let plan = plan(&place, &last(1)).await;
    let report = plan.execute(&repository, |_| {}).await.unwrap();
    assert_eq!(report.removed, [free]);
    assert_eq!((report.locked.len(), report.failed.len()), (2, 0), "{report:?}");
    assert!(!report.is_complete());
    let listing = list(&place).await;
    assert_eq!(listing.get(with_manifest).unwrap().state, State::Whole);
    assert!(listing.get(with_object).is_none(), "without its manifest it is no backup");
    assert_eq!(listing.orphans[0].id, with_object);

    // Once the locks have ended.
    assert!(prune(&place, &last(1)).await.is_complete());
    assert_eq!(ids(&list(&place).await).len(), 1);
}

#[tokio::test]
async fn a_store_that_is_gone_is_not_asked_for_every_object() {
    let place = place().await;
    for hour in 0..100 {
        place.backup(days_ago(1) - SignedDuration::from_hours(hour));
    }
    let (store, faults) = faulty(place.store.clone());
    let repository = Repository::open(store).await.unwrap();
    let cut = |progress: PruneProgress| {
        // The first is deleted; then the cable is pulled.
        if progress.done == 1 {
            faults.cut_at(faults.operations() + 1);
        }
    };
    let report = plan(&place, &last(1)).await.execute(&repository, cut).await.unwrap();
    assert!(report.untried > 50, "{} untried", report.untried);
    assert!(!report.is_complete());
}

#[tokio::test]
async fn two_that_prune_at_once_do_not_disturb_each_other() {
    let place = place().await;
    for day in 1..=6 {
        place.backup(days_ago(day));
    }
    let (one, two) = (plan(&place, &last(2)).await, plan(&place, &last(3)).await);
    let (one, two) = futures::join!(
        one.execute(&place.repository, |_| {}),
        two.execute(&place.repository, |_| {})
    );
    assert!(one.unwrap().is_complete() && two.unwrap().is_complete());
    assert_eq!(ids(&list(&place).await).len(), 2);
}

#[tokio::test]
async fn the_door_is_closed_to_whoever_was_writing_it_anew_too() {
    let place = place().await;
    place.backup(days_ago(1));
    let id = BackupId::new(2, days_ago(2));
    place.put(id, "db.2.zst.age", b"whole");
    assert_eq!(prune(&place, &Policy::default()).await.removed, [id]);
    let late = place.store.create(&(place.folder(id) + "manifest.2.json"), "{}".into()).await;
    assert!(late.unwrap_err().is_exists());
    assert_eq!(plan(&place, &Policy::default()).await.orphans[0].fate, Fate::Closed);
}

/// A place with something of every kind: to keep, to remove, damaged, of two generations, orphaned.
async fn of_every_kind() -> (Place, BTreeSet<BackupId>) {
    let place = place().await;
    let mut stay = BTreeSet::new();
    for day in 1..=4 {
        let id = place.backup(days_ago(day));
        if day <= 2 {
            stay.insert(id);
        }
    }
    let damaged = place.backup(days_ago(5));
    let damage = Damage::new(now(), vec![]);
    place.repository.mark_damaged(&place.cluster, damaged, &damage).await.unwrap();
    let renewed = place.backup(days_ago(6));
    place.add(renewed, |manifest| manifest.generation = 2);
    let pinned = place.backup(days_ago(7));
    place.add(pinned, |manifest| manifest.generation = 2);
    let pin = Pin::new(pinned, None, None, now());
    place.repository.pin(&place.cluster, &"held".parse().unwrap(), &pin).await.unwrap();
    stay.insert(pinned);
    for days in [8, 40] {
        place.put(BackupId::new(1, days_ago(days)), "db.zst", b"half");
    }
    lease::abandon(&place.store, &place.cluster, BackupId::new(2, days_ago(50)), 1, now())
        .await
        .unwrap();
    (place, stay)
}

/// Goal: a prune that is cut after any operation leaves no backup that is not whole, has removed none that
/// should stay, and the next prune completes it. Method: count a clean run's operations, cut at each of them, with the last one done
/// and not done; and fail each of them alone.
#[tokio::test]
async fn a_prune_that_is_cut_at_any_operation_is_completed_by_the_next() {
    let (clean, stay) = of_every_kind().await;
    let (store, faults) = faulty(clean.store.clone());
    let repository = Repository::open(store).await.unwrap();
    let options = PruneOptions::default();
    let run = async |repository: &Repository, place: &Place| {
        let plan = PrunePlan::new(repository, &place.cluster, &last(2), now(), options).await?;
        plan.execute(repository, |_| {}).await
    };
    let before = faults.operations();
    assert!(run(&repository, &clean).await.unwrap().is_complete());
    let operations = faults.operations() - before;
    assert!(operations > 30, "lists, manifests and deletions: {operations}");
    let expected = clean.paths().await;
    assert_eq!(ids(&list(&clean).await).into_iter().collect::<BTreeSet<_>>(), stay);

    for cut in 1..=operations {
        for how in 0..3 {
            let (place, stay) = of_every_kind().await;
            let (store, faults) = faulty(place.store.clone());
            let repository = Repository::open(store).await.unwrap();
            let at = faults.operations() + cut;
            match how {
                0 => faults.cut_at(at),
                1 => faults.cut_after(at),
                _ => faults.fail_at(at),
            }
            let outcome = run(&repository, &place).await;
            if outcome.is_ok_and(|report| report.is_complete()) {
                assert_eq!(place.paths().await, expected, "cut {cut}, {how}: says it is complete");
            }
            let listing = list(&place).await;
            assert!(listing.unreadable.is_empty());
            for backup in &listing.backups {
                assert_eq!(backup.state, State::Whole, "cut {cut}, {how}: {}", backup.id());
                let is_damaged = backup.manifest.started == days_ago(5);
                assert_eq!(backup.is_damaged, is_damaged, "cut {cut}, {how}");
            }
            let left: BTreeSet<_> = ids(&listing).into_iter().collect();
            assert!(left.is_superset(&stay), "cut {cut}, {how}");

            faults.heal();
            // What was removed half-way is an orphan now, and all here are older than the grace period.
            run(&repository, &place).await.unwrap();
            let backups: BTreeSet<_> = ids(&list(&place).await).into_iter().collect();
            assert_eq!(backups, stay, "cut {cut}, {how}");
            let objects = |paths: Vec<String>| -> Vec<String> {
                paths.into_iter().filter(|path| !path.contains("/manifest.")).collect()
            };
            let left = objects(place.paths().await);
            assert_eq!(left, objects(expected.clone()), "cut {cut}, {how}");
        }
    }
}

/// A store that keeps some objects for now.
struct Locking {
    store: Store,
    locked: Vec<String>,
}

type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

impl Backend for Locking {
    fn url(&self) -> &str {
        self.store.url()
    }

    fn is_create_only(&self) -> bool {
        self.store.is_create_only()
    }

    fn create<'a>(&'a self, path: &'a str, bytes: Bytes) -> Answer<'a, ()> {
        self.store.create(path, bytes)
    }

    fn writer<'a>(&'a self, path: &'a str) -> Answer<'a, Box<dyn ObjectWriter>> {
        self.store.writer(path)
    }

    fn read<'a>(&'a self, path: &'a str, bytes_max: u64) -> Answer<'a, Bytes> {
        self.store.read(path, bytes_max)
    }

    fn reader<'a>(
        &'a self,
        path: &'a str,
    ) -> Answer<'a, BoxStream<'static, Result<Bytes, StoreError>>> {
        self.store.reader(path)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<Entry>> {
        self.store.list(prefix)
    }

    fn folders<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<String>> {
        self.store.folders(prefix)
    }

    fn size<'a>(&'a self, path: &'a str) -> Answer<'a, u64> {
        self.store.size(path)
    }

    fn delete<'a>(&'a self, path: &'a str) -> Answer<'a, ()> {
        if self.locked.iter().any(|locked| locked == path) {
            let at = At::new(self.url(), Operation::Delete, path);
            return Box::pin(async { Err(StoreError::Locked { at, until: None }) });
        }
        self.store.delete(path)
    }
}

#[tokio::test]
async fn one_backup_is_removed_whatever_a_policy_says_unless_it_is_pinned() {
    let place = place().await;
    let (new, old) = (place.backup(days_ago(1)), place.backup(days_ago(2)));
    let pin = Pin::new(old, None, None, now());
    place.repository.pin(&place.cluster, &"held".parse().unwrap(), &pin).await.unwrap();
    let refused = place.repository.remove(&place.cluster, old, now()).await.unwrap_err();
    assert!(matches!(refused, PruneError::Pinned { .. }), "{refused}");
    let report = place.repository.remove(&place.cluster, new, now()).await.unwrap();
    assert!(report.is_complete() && report.removed == [new]);
    assert_eq!(ids(&list(&place).await), [old]);
    let again = place.repository.remove(&place.cluster, new, now()).await.unwrap();
    assert!(again.is_complete() && again.removed.is_empty(), "gone is gone");
}
