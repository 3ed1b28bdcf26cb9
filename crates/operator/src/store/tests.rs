use super::{sync::changes, *};
use crate::{
    api::{BackupStoreSpec, EtcdBackup},
    backup::SYNCED,
};
use repository::listing::Listing;
use serde_json::json;

fn store(sync: bool) -> BackupStore {
    let spec: BackupStoreSpec =
        serde_json::from_value(json!({ "url": "s3://bucket", "sync": sync })).unwrap();
    let mut store = BackupStore::new("s", spec);
    store.metadata.generation = Some(1);
    store
}

/// An object that shows a backup of a cluster.
fn object(store: &str, cluster: &str, backup: Option<&str>, synced: bool) -> EtcdBackup {
    let spec = json!({
        "cluster": { "name": cluster, "endpoints": ["http://e:2379"] }, "storeName": store,
    });
    let mut object = EtcdBackup::new("x", serde_json::from_value(spec).unwrap());
    object.status = Some(crate::api::EtcdBackupStatus {
        backup: backup.map(str::to_owned),
        ..Default::default()
    });
    if synced {
        object.labels_mut().insert(SYNCED.to_owned(), "true".to_owned());
    }
    object
}

fn found(unlisted: Vec<Failure>) -> Found {
    let (url, listings) = (String::new(), Vec::<Listing>::new());
    Found { url, create_only: true, lock: Ok(ObjectLock::Open), listings, unlisted }
}

fn look(found: Result<Found, Failure>) -> Look {
    Look { keys: Keys::NotNeeded, found }
}

#[test]
fn objects_whose_backup_is_gone_go_but_only_those_that_merely_show_it() {
    let mut once = object("s", "prod", Some("00000000000000000002-20261123T033653Z"), true);
    once.labels_mut().insert(SYNCED.to_owned(), "once".to_owned());
    let objects = [
        object("s", "prod", Some("00000000000000000002-20261123T033653Z"), true),
        object("s", "prod", Some("00000000000000000002-20261123T033653Z"), false),
        object("other", "prod", Some("00000000000000000002-20261123T033653Z"), true),
        object("s", "prod", None, true),
        once,
    ];
    let found = found(Vec::new());
    let removed =
        |is_wanted| changes(&store(is_wanted), is_wanted, &found.backups(), &objects).removed();
    assert_eq!(removed(true), 2);
    assert_eq!(removed(false), 2, "no sync, no such objects, but those that a command has shown");
}

#[test]
fn a_cluster_that_cannot_be_listed_has_lost_nothing() {
    let objects = [object("s", "prod", Some("00000000000000000002-20261123T033653Z"), true)];
    let found = found(vec![Failure::settings("torn", "")]);
    assert_eq!(changes(&store(true), true, &found.backups(), &objects).removed(), 0);
}

#[test]
fn a_store_is_looked_at_when_it_changes_and_when_its_time_has_come() {
    let now: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
    let mut seen = store(false);
    let status = judge(&seen, BackupStoreStatus::default(), &look(Ok(found(Vec::new()))), now);
    let soon = now + LOOK;
    assert_eq!(still_good(&seen, &status, now), Some(soon));
    assert_eq!(still_good(&seen, &status, soon), None);
    seen.metadata.generation = Some(2);
    assert_eq!(still_good(&seen, &status, now), None);
    seen.metadata.generation = Some(1);
    let untold = Found { lock: Err(Failure::settings("torn", "")), ..found(Vec::new()) };
    let status = judge(&seen, BackupStoreStatus::default(), &look(Ok(untold)), now);
    assert_eq!(still_good(&seen, &status, now), Some(now + LOOK_AGAIN), "it may tell then");
    let never = Found { lock: Ok(ObjectLock::Untold), ..found(Vec::new()) };
    let status = judge(&seen, BackupStoreStatus::default(), &look(Ok(never)), now);
    assert_eq!(still_good(&seen, &status, now), Some(soon));
    let failed = look(Err(Failure::settings("no Secret", "make it")));
    let status = judge(&seen, BackupStoreStatus::default(), &failed, now);
    assert_eq!(still_good(&seen, &status, now), Some(now + LOOK_AGAIN));
}

#[test]
fn a_store_that_fails_says_why_and_keeps_what_is_known_of_it() {
    let now: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
    let good =
        judge(&store(false), BackupStoreStatus::default(), &look(Ok(found(Vec::new()))), now);
    assert_eq!(conditions::get(&good.conditions, "CreateOnly").unwrap().status, "True");
    let bad = judge(
        &store(false),
        good,
        &look(Err(Failure::settings("no Secret \"x\"", "make it"))),
        now,
    );
    let ready = conditions::get(&bad.conditions, "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "Settings"));
    assert!(ready.message.contains("no Secret") && ready.message.contains("make it"));
    assert!(ready.message.contains("looked at again every minute"), "{}", ready.message);
    assert_eq!(bad.backups, Some(0));
}

#[test]
fn a_store_says_for_how_long_it_keeps_what_is_written() {
    let at = |text: &str| Some(text.parse().unwrap());
    let until = at("2026-12-23T10:00:00Z");
    let lock = Lock { mode: "COMPLIANCE".to_owned(), until, since: at("2026-11-23T10:00:00Z") };
    let (is, reason, text) = judge_lock(&Ok(ObjectLock::Locked(lock.clone())));
    assert_eq!((is, reason), (Is::True, "Enabled"));
    assert!(text.contains("COMPLIANCE, 30 days"), "{text}");
    let hold = Lock { mode: Lock::LEGAL_HOLD.to_owned(), until: None, ..lock };
    assert_eq!(judge_lock(&Ok(ObjectLock::Locked(hold))).1, "LegalHold");
    assert_eq!(judge_lock(&Ok(ObjectLock::Untold)).0, Is::Unknown);
    assert_eq!(judge_lock(&Err(Failure::settings("torn", ""))).0, Is::Unknown);
}

#[test]
fn a_missing_private_key_makes_no_store_unusable_and_a_wrong_one_is_seen_at_once() {
    let now: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
    let judged = |keys| {
        let look = Look { keys, found: Ok(found(Vec::new())) };
        judge(&store(false), BackupStoreStatus::default(), &look, now)
    };
    let of = |status: &BackupStoreStatus, type_| {
        let found = conditions::get(&status.conditions, type_).unwrap();
        (found.status.clone(), found.reason.clone())
    };
    let pair = |is: &str, reason: &str| (is.to_owned(), reason.to_owned());
    let missing = judged(Keys::Unreadable(Failure::settings("there is no Secret", "create it")));
    assert_eq!(of(&missing, "Ready"), pair("True", "Reachable"));
    assert_eq!(of(&missing, DECRYPTABLE), pair("False", "KeyMissing"));
    let unfit = judged(Keys::Unfit { secret: "keys".to_owned(), found: Vec::new() });
    assert_eq!(of(&unfit, "Ready"), pair("True", "KeyUnfit"), "kubectl get shows the reason");
    assert_eq!(of(&unfit, DECRYPTABLE), pair("False", "KeyUnfit"));
    let none = judge(&store(false), unfit, &look(Ok(found(Vec::new()))), now);
    assert_eq!(conditions::get(&none.conditions, DECRYPTABLE), None);
}
