use super::{
    deletion::{DELETED, left_nothing, may_be_there},
    *,
};
use crate::{api::EtcdBackupSpec, conditions::seconds};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::json;

fn backup(spec: serde_json::Value) -> EtcdBackup {
    let mut whole =
        json!({ "cluster": { "name": "prod", "endpoints": ["http://e:2379"] }, "storeName": "s" });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let spec: EtcdBackupSpec = serde_json::from_value(whole).unwrap();
    let mut backup = EtcdBackup::new("b", spec);
    backup.metadata.generation = Some(1);
    backup
}

fn with(mut backup: EtcdBackup, phase: Phase, attempts: u32) -> EtcdBackup {
    backup.status = Some(EtcdBackupStatus {
        phase: Some(phase),
        attempts: Some(attempts),
        observed_generation: Some(1),
        begun_with: Some(backup.spec.kept()),
        finished_at: Some(Time(now())),
        ..EtcdBackupStatus::default()
    });
    backup
}

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().unwrap()
}

fn later(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

#[test]
fn a_new_object_begins() {
    assert_eq!(decide(&backup(json!({})), now()), Step::Begin(Some(1)));
}

#[test]
fn after_a_failed_attempt_it_waits_then_tries_again() {
    let mut waiting = with(backup(json!({})), Phase::Pending, 1);
    waiting.status.as_mut().unwrap().retry_at = Some(Time(later(10)));
    assert_eq!(decide(&waiting, now()), Step::Wait(later(10)));
    assert_eq!(decide(&waiting, later(10)), Step::Begin(Some(2)));
}

#[test]
fn a_run_whose_operator_ended_is_tried_again_as_often_as_there_are_attempts() {
    let running = |attempts| with(backup(json!({ "attempts": 2 })), Phase::Running, attempts);
    assert_eq!(decide(&running(1), now()), Step::Begin(Some(2)));
    assert_eq!(decide(&running(2), now()), Step::Begin(None));
}

#[test]
fn a_run_in_a_job_goes_on_without_its_operator() {
    let running = with(backup(json!({ "runAs": "Job", "attempts": 1 })), Phase::Running, 1);
    assert_eq!(decide(&running, now()), Step::Look(1));
}

#[test]
fn an_object_that_is_to_take_its_backup_along_is_held_before_anything_begins() {
    let mut owning = backup(json!({ "deletionPolicy": "Delete" }));
    assert_eq!(decide(&owning, now()), Step::Hold(true));
    owning.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    assert_eq!(decide(&owning, now()), Step::Begin(Some(1)));
    owning.metadata.deletion_timestamp = Some(Time(now()));
    assert_eq!(decide(&owning, now()), Step::DeleteBackup);
    owning.spec.deletion_policy = DeletionPolicy::Retain;
    assert_eq!(decide(&owning, now()), Step::Hold(false), "before it has begun, it may be changed");
    owning.metadata.finalizers = None;
    assert_eq!(decide(&owning, now()), Step::Rest);
}

#[test]
fn an_object_that_shows_anothers_backup_makes_none_and_deletes_none() {
    let mut synced = backup(json!({ "deletionPolicy": "Delete" }));
    synced.metadata.labels = Some([(SYNCED.to_owned(), "true".to_owned())].into());
    assert_eq!(decide(&synced, now()), Step::Rest);
    synced.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    synced.metadata.deletion_timestamp = Some(Time(now()));
    assert_eq!(decide(&synced, now()), Step::Hold(false));
}

#[test]
fn an_object_that_has_ended_goes_when_its_time_is_over() {
    let ended = with(backup(json!({ "ttlSecondsAfterFinished": 60 })), Phase::Failed, 3);
    assert_eq!(decide(&ended, later(59)), Step::Wait(later(60)));
    assert_eq!(decide(&ended, later(60)), Step::RemoveObject);
    assert_eq!(decide(&with(backup(json!({})), Phase::Succeeded, 1), later(1_000_000)), Step::Rest);
}

#[test]
fn a_change_after_the_begin_is_told_once_for_each_change_and_again_when_it_is_taken_back() {
    for phase in [Phase::Pending, Phase::Running, Phase::Succeeded, Phase::Failed] {
        let mut changed = with(backup(json!({ "runAs": "Job" })), phase, 1);
        let unchanged = decide(&changed, now());
        let was = changed.spec.store_name.clone();
        changed.spec.store_name = "elsewhere".to_owned();
        changed.metadata.generation = Some(2);
        assert_eq!(decide(&changed, now()), Step::TellChanged);
        assert_eq!(changed.spec_in_force().store_name, was);
        let told: &mut Vec<Condition> = &mut changed.status.as_mut().unwrap().conditions;
        conditions::set(told, SPEC_CHANGED, true, "Ignored", "", Some(2), now());
        assert_eq!(decide(&changed, now()), unchanged, "and it goes on as if nothing was changed");
        changed.metadata.generation = Some(3);
        assert_eq!(decide(&changed, now()), Step::TellChanged);
        changed.spec.store_name = was;
        assert_eq!(decide(&changed, now()), Step::TellChanged);
        let told: &mut Vec<Condition> = &mut changed.status.as_mut().unwrap().conditions;
        conditions::set(told, SPEC_CHANGED, false, "TakenBack", "", Some(3), now());
        assert_eq!(decide(&changed, now()), unchanged);
    }
}

#[test]
fn a_deletion_policy_that_comes_later_deletes_nothing() {
    let mut changed = with(backup(json!({})), Phase::Succeeded, 1);
    changed.spec.deletion_policy = DeletionPolicy::Delete;
    assert_eq!(decide(&changed, now()), Step::TellChanged);
    changed.metadata.deletion_timestamp = Some(Time(now()));
    assert_eq!(decide(&changed, now()), Step::Rest);
    let mut kept = with(backup(json!({ "deletionPolicy": "Delete" })), Phase::Succeeded, 1);
    kept.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    kept.spec.deletion_policy = DeletionPolicy::Retain;
    assert!(changed_text(&kept).contains(RETAIN), "there is a way to keep it, and it is told");
    kept.annotations_mut().insert(RETAIN.to_owned(), "true".to_owned());
    assert_eq!(decide(&kept, now()), Step::Hold(false));
}

fn changed_text(backup: &EtcdBackup) -> String {
    super::changed(backup).unwrap()
}

#[test]
fn what_waits_before_its_first_attempt_is_corrected_at_once() {
    let mut waiting = with(backup(json!({})), Phase::Pending, 0);
    let status = waiting.status.as_mut().unwrap();
    status.begun_with = None;
    status.retry_at = Some(seconds(later(60)));
    assert_eq!(decide(&waiting, now()), Step::Wait(later(60)));
    waiting.metadata.generation = Some(2);
    waiting.spec.store_name = "right".to_owned();
    assert_eq!(decide(&waiting, now()), Step::Begin(Some(1)));
}

#[test]
fn only_an_attempt_that_may_have_left_something_makes_the_store_be_asked() {
    let status = |attempts, clean, backup: Option<&str>| EtcdBackupStatus {
        attempts: Some(attempts),
        left_nothing: clean,
        backup: backup.map(str::to_owned),
        ..EtcdBackupStatus::default()
    };
    assert!(!may_be_there(&EtcdBackupStatus::default()));
    assert!(!may_be_there(&status(2, Some(2), None)));
    assert!(may_be_there(&status(2, Some(1), None)));
    assert!(may_be_there(&status(1, None, None)), "an operator ended in it");
    assert!(may_be_there(&status(1, Some(1), Some("a"))));
    assert!(left_nothing("StoreDenied") && !left_nothing("StoreUnreachable"));
}

#[test]
fn what_a_status_keeps_of_a_spec_has_no_empty_texts() {
    let spec = backup(json!({ "job": { "tolerations": [{ "key": "", "operator": "Exists" }] } }));
    let kept = serde_json::to_value(spec.spec.kept()).unwrap();
    assert_eq!(kept["job"]["tolerations"], json!([{ "operator": "Exists" }]));
}

#[test]
fn waits_between_attempts_double_and_are_bounded() {
    let waits: Vec<_> = [1, 2, 3, 19].map(|attempts| back_off(attempts).as_secs()).to_vec();
    assert_eq!(waits, [10, 20, 40, 600]);
}

#[test]
fn an_object_whose_backup_the_store_keeps_waits_for_that_and_no_longer() {
    let mut kept = with(backup(json!({ "deletionPolicy": "Delete" })), Phase::Succeeded, 1);
    kept.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    kept.metadata.deletion_timestamp = Some(Time(now()));
    let status = kept.status.as_mut().unwrap();
    status.retry_at = Some(Time(later(60)));
    assert_eq!(decide(&kept, now()), Step::DeleteBackup, "a wait between attempts is no lock");
    let told = &mut kept.status.as_mut().unwrap().conditions;
    conditions::set(told, DELETED, false, LOCKED, "", Some(1), now());
    assert_eq!(decide(&kept, now()), Step::Wait(later(60)));
    assert_eq!(decide(&kept, later(60)), Step::DeleteBackup);
    kept.annotations_mut().insert(RETAIN.to_owned(), "true".to_owned());
    assert_eq!(decide(&kept, now()), Step::Hold(false), "who lets it go does not wait");
}

#[test]
fn of_a_store_that_is_missing_is_told_what_helps() {
    let failure = Failure { reason: "StoreMissing", ..Failure::settings("gone", "storeName") };
    let mut begun = backup(json!({}));
    assert_eq!(in_force(&begun, failure.clone()), failure);
    begun.status =
        Some(EtcdBackupStatus { begun_with: Some(begun.spec.clone()), ..Default::default() });
    assert!(in_force(&begun, failure).remedy.contains("does not count any more"));
}
