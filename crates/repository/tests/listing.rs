//! What a listing says of a repository, and which backup is found in it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod listing_common;

use jiff::{SignedDuration, Timestamp};
use listing_common::{Place, at, days_ago, manifest, now, place};
use repository::{
    BackupId,
    checks::{Check, Damage, Share},
    keep::Pin,
    lease,
    listing::{FindError, Listing, State, Target, Unfit},
    manifest::manifest_name,
    retention::Soundness,
    store::testing::faulty,
};

async fn list(place: &Place) -> Listing {
    place.repository.backups(&place.cluster).await.unwrap()
}

#[tokio::test]
async fn backups_are_listed_newest_first_whatever_their_revisions() {
    let place = place().await;
    // Restored meanwhile: the newer backup has the lower revision.
    let before = BackupId::new(900, days_ago(2));
    let after = BackupId::new(100, days_ago(1));
    place.add(before, |_| {});
    place.add(after, |_| {});
    let listing = list(&place).await;
    assert_eq!(listing.backups.iter().map(|b| b.id()).collect::<Vec<_>>(), [after, before]);
    assert!(listing.backups.iter().all(|b| b.state == State::Whole));
    assert_eq!(listing.between(Some(days_ago(1)), None).count(), 1);
    assert_eq!(listing.between(None, Some(days_ago(1))).count(), 1);
    assert!(place.repository.backups(&"other".parse().unwrap()).await.unwrap().backups.is_empty());
}

#[tokio::test]
async fn one_manifest_that_cannot_be_read_hides_no_other() {
    let place = place().await;
    let good = place.backup(days_ago(1));
    let broken = BackupId::new(1, days_ago(2));
    place.put(broken, "manifest.json", b"{\"format\": 1, \"id\"");
    let future = BackupId::new(2, days_ago(2));
    place.put(future, "manifest.json", b"{\"format\": 99}");
    let moved = BackupId::new(3, days_ago(2));
    let other = serde_json::to_vec(&manifest(&place.cluster, good, b"")).unwrap();
    place.put(moved, "manifest.json", &other);

    let listing = list(&place).await;
    assert_eq!(listing.backups.iter().map(|b| b.id()).collect::<Vec<_>>(), [good]);
    let unreadable: Vec<_> = listing.unreadable.iter().map(|u| u.id).collect();
    assert_eq!(unreadable, [broken, future, moved]);
    assert!(listing.orphans.is_empty());
}

#[tokio::test]
async fn what_is_no_backup_is_told_apart() {
    let place = place().await;
    let unfinished = BackupId::new(1, days_ago(1));
    place.put(unfinished, "db.zst", b"half");
    let closed = BackupId::new(2, days_ago(1));
    lease::abandon(&place.store, &place.cluster, closed, 7, now()).await.unwrap();
    place.store.create("prod/snapshots/notes.txt", "mine".into()).await.unwrap();
    place.store.create("prod/snapshots/elsewhere/db.zst", "mine".into()).await.unwrap();

    let listing = list(&place).await;
    assert!(listing.backups.is_empty());
    let orphans: Vec<_> = listing.orphans.iter().map(|o| (o.id, o.is_abandoned)).collect();
    assert_eq!(orphans, [(unfinished, false), (closed, true)]);
    assert_eq!(listing.orphans[0].stored_bytes(), 4);
}

#[tokio::test]
async fn an_object_that_is_missing_or_cut_short_is_seen_without_reading_it() {
    let place = place().await;
    let whole = place.backup(days_ago(1));
    let cut = BackupId::new(1, days_ago(2));
    place.add(cut, |manifest| manifest.object.stored.bytes += 1);
    let missing = place.backup(days_ago(3));
    place.store.delete(&(place.folder(missing) + "db.zst")).await.unwrap();

    let listing = list(&place).await;
    assert_eq!(listing.get(whole).unwrap().state, State::Whole);
    assert!(
        matches!(&listing.get(cut).unwrap().state, State::WrongSize { object, listed, expected }
        if object == "db.zst" && listed + 1 == *expected)
    );
    let state = &listing.get(missing).unwrap().state;
    assert_eq!(*state, State::Missing { object: "db.zst".to_owned() });
    assert_eq!(listing.get(missing).unwrap().soundness(), Soundness::Damaged);
}

#[tokio::test]
async fn the_highest_generation_with_a_manifest_counts() {
    let place = place().await;
    let id = place.backup(days_ago(1));
    place.add(id, |manifest| manifest.generation = 2);
    // The next was begun only.
    place.put(id, "db.3.zst", b"half");
    let listing = list(&place).await;
    assert_eq!(listing.backups.len(), 1);
    assert_eq!((listing.backups[0].generation, &listing.backups[0].state), (2, &State::Whole));
    assert_eq!(listing.backups[0].manifest.object.name, "db.2.zst");
    assert_eq!(manifest_name(2), "manifest.2.json");
}

#[tokio::test]
async fn pins_damage_and_checks_are_shown() {
    let place = place().await;
    let (pinned, damaged) = (place.backup(days_ago(1)), place.backup(days_ago(2)));
    let name = "before-upgrade".parse().unwrap();
    let pin = |id| Pin::new(id, None, Some("me".to_owned()), now());
    place.repository.pin(&place.cluster, &name, &pin(pinned)).await.unwrap();
    place.repository.pin(&place.cluster, &name, &pin(pinned)).await.unwrap();
    assert!(place.repository.pin(&place.cluster, &name, &pin(damaged)).await.is_err());
    let nothing = BackupId::new(5, now());
    let other = "other".parse().unwrap();
    assert!(place.repository.pin(&place.cluster, &other, &pin(nothing)).await.is_err());
    let damage = Damage::new(now(), vec!["torn".to_owned()]);
    place.repository.mark_damaged(&place.cluster, damaged, &damage).await.unwrap();
    let check = Check::new(now(), Some(Share::ALL), vec![pinned], vec![damaged]);
    place.repository.record_check(&place.cluster, &check).await.unwrap();

    let listing = list(&place).await;
    let (first, second) = (&listing.backups[0], &listing.backups[1]);
    assert_eq!(
        (first.id(), &*first.pins, first.last_check),
        (pinned, &["before-upgrade".to_owned()][..], Some(now()))
    );
    assert_eq!((second.id(), second.is_damaged, second.last_check), (damaged, true, None));

    place.repository.unpin(&place.cluster, &name).await.unwrap();
    assert!(place.repository.unpin(&place.cluster, &name).await.is_err());
    assert!(list(&place).await.backups[0].pins.is_empty());
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_is_an_error_not_an_empty_listing() {
    let place = place().await;
    for day in 1..4 {
        place.backup(days_ago(day));
    }
    let (store, faults) = faulty(place.store.clone());
    let repository = repository::Repository::open(store).await.unwrap();
    let before = faults.operations();
    repository.backups(&place.cluster).await.unwrap();
    let operations = faults.operations() - before;
    assert!(operations >= 6, "lists and manifests: {:?}", faults.log());
    for cut in 1..=operations {
        faults.cut_at(faults.operations() + cut);
        assert!(
            repository.backups(&place.cluster).await.unwrap_err().is_unreachable(),
            "cut {cut}"
        );
    }
}

#[tokio::test]
async fn thousands_of_backups_are_listed() {
    let place = place().await;
    for n in 0..2000 {
        let started = now() - SignedDuration::from_mins(30 * n);
        place.backup(started);
    }
    let listing = list(&place).await;
    assert_eq!(listing.backups.len(), 2000);
    assert!(listing.backups.is_sorted_by_key(|b| std::cmp::Reverse(b.manifest.started)));
}

// ---- finding ---------------------------------------------------------------------------------

fn found(listing: &Listing, target: &str) -> (BackupId, bool, Vec<(BackupId, Unfit)>) {
    let found = listing.find(&target.parse().unwrap(), now()).unwrap();
    (found.backup.id(), found.is_exact, found.skipped)
}

fn id(revision: u64, started: Timestamp) -> BackupId {
    BackupId::new(revision, started)
}

#[tokio::test]
async fn only_what_can_be_relied_on_is_found_unless_it_is_named() {
    let place = place().await;
    let (unproved, damaged, cut, good) =
        (id(400, days_ago(1)), id(300, days_ago(2)), id(200, days_ago(3)), id(100, days_ago(4)));
    place.add(unproved, |manifest| manifest.verification.tree = false);
    for backup in [damaged, cut, good] {
        place.add(backup, |_| {});
    }
    let damage = Damage::new(now(), vec![]);
    place.repository.mark_damaged(&place.cluster, damaged, &damage).await.unwrap();
    place.store.delete(&(place.folder(cut) + "db.zst")).await.unwrap();

    let listing = list(&place).await;
    let missing = Unfit::Incomplete(State::Missing { object: "db.zst".to_owned() });
    let skipped = vec![(unproved, Unfit::Unverified), (damaged, Unfit::Damaged), (cut, missing)];
    assert_eq!(found(&listing, "latest"), (good, true, skipped));
    assert_eq!(found(&listing, &damaged.to_string()), (damaged, true, vec![]));

    place.store.delete(&(place.folder(good) + "manifest.json")).await.unwrap();
    let error = list(&place).await.find(&Target::Newest, now()).unwrap_err();
    assert!(
        matches!(error, FindError::NoneFit { ref skipped, .. } if skipped.len() == 3),
        "{error}"
    );
}

#[tokio::test]
async fn a_backup_is_found_by_revision_time_and_the_beginning_of_its_name() {
    let place = place().await;
    // A manifest of these says a revision that is newer by three than the name does.
    let (new, middle, old) = (id(3000, days_ago(1)), id(2000, days_ago(2)), id(1000, days_ago(3)));
    for backup in [new, middle, old] {
        place.add(backup, |_| {});
    }
    let listing = list(&place).await;
    assert_eq!(found(&listing, "latest").0, new);
    assert_eq!(found(&listing, "revision:2003"), (middle, true, vec![]));
    assert_eq!(found(&listing, "revision:3002"), (middle, false, vec![]));
    assert_eq!(found(&listing, &format!("time:{}", days_ago(2))), (middle, true, vec![]));
    assert_eq!(found(&listing, "time:2026-11-20T11:59:59Z"), (old, false, vec![]));
    assert_eq!(found(&listing, "2000").0, middle);
    assert_eq!(found(&listing, "000000000000000020").0, middle);
    assert_eq!(found(&listing, &new.to_string()).0, new);

    let error = |target: &str| listing.find(&target.parse().unwrap(), now()).unwrap_err();
    assert!(matches!(error("revision:1002"), FindError::AllNewer { oldest, .. } if oldest == old));
    assert!(matches!(error("9"), FindError::NoSuchName { .. }));
    assert!(matches!(error("0000"), FindError::NoSuchName { .. }));
    place.add(id(2001, days_ago(2)), |_| {});
    let error = list(&place).await.find(&Target::Name("200".to_owned()), now()).unwrap_err();
    assert!(matches!(error, FindError::Ambiguous { ref ids, .. } if ids.len() == 2), "{error}");
    for wrong in ["", "revision:x", "time:yesterday", "mark:x"] {
        assert!(wrong.parse::<Target>().is_err(), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_backup_from_the_future_is_the_newest_only_when_all_are() {
    let place = place().await;
    let (jumped, ahead, present) =
        (id(1, at("2036-01-01T00:00:00Z")), id(2, at("2026-11-22T12:10:00Z")), id(3, days_ago(1)));
    for backup in [jumped, ahead, present] {
        place.add(backup, |_| {});
    }
    let listing = list(&place).await;
    assert_eq!(found(&listing, "latest").0, ahead);
    // Our own clock is the one that is wrong.
    let then = at("1970-01-01T00:00:00Z");
    assert_eq!(listing.find(&Target::Newest, then).unwrap().backup.id(), jumped);
}
