use super::decide::{ATTEMPTS, Order, Step, THEIR_FINALIZER, decide};
use crate::api::coreos::CoreosBackup;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const NOW: &str = "2026-11-23T06:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn object(policy: Value, status: Value) -> CoreosBackup {
    let object = json!({
        "apiVersion": "etcd.database.coreos.com/v1beta2", "kind": "EtcdBackup",
        "metadata": { "name": "a", "namespace": "default", "generation": 2 },
        "spec": {
            "etcdEndpoints": ["http://127.0.0.1:2379"], "storageType": "S3",
            "s3": { "path": "bucket/etcd.db", "awsSecret": "aws" }, "backupPolicy": policy,
        },
        "status": status,
    });
    serde_json::from_value(object).unwrap()
}

/// The attempt that begins now; 0: it is only looked for.
fn begun(object: &CoreosBackup) -> u32 {
    match decide(object, now()) {
        Step::Begin(_, attempt) => attempt.unwrap_or(0),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(object: &CoreosBackup) -> String {
    match decide(object, now()) {
        Step::Refuse(failure) => failure.text(),
        other => panic!("{other:?}"),
    }
}

fn at(time: &str) -> Step {
    Step::Wait(time.parse().unwrap())
}

#[test]
fn one_backup_is_tried_until_it_is_made_or_has_a_reason() {
    let once = |status: Value| object(json!(null), status);
    assert_eq!(begun(&once(json!({ "succeeded": false }))), 1);
    assert_eq!(begun(&once(json!({ "succeeded": false, "attempts": 1 }))), 2);
    assert_eq!(begun(&once(json!({ "succeeded": false, "attempts": ATTEMPTS }))), 0);
    let waiting = json!({ "attempts": 1, "retryAt": "2026-11-23T06:00:10Z" });
    assert_eq!(decide(&once(waiting), now()), at("2026-11-23T06:00:10Z"));
    assert_eq!(decide(&once(json!({ "succeeded": true })), now()), Step::Rest);
    assert_eq!(decide(&once(json!({ "Reason": "no route" })), now()), Step::Rest);
}

#[test]
fn what_the_coreos_operator_has_ended_is_not_done_again() {
    let made = json!({ "succeeded": true, "etcdRevision": 1, "lastSuccessDate": NOW });
    assert_eq!(decide(&object(json!(null), made), now()), Step::Rest);
    let failed = json!({ "succeeded": false, "Reason": "timeout", "lastSuccessDate": null });
    assert_eq!(decide(&object(json!(null), failed), now()), Step::Rest);
}

#[test]
fn a_spec_that_is_corrected_begins_anew_and_that_of_a_backup_that_is_made_does_not() {
    let failed = |generation: i64| {
        let status = json!({ "Reason": "x", "attempts": 3, "observedGeneration": generation });
        object(json!(null), status)
    };
    assert_eq!(decide(&failed(2), now()), Step::Rest);
    assert_eq!(begun(&failed(1)), 1);
    let made = object(json!(null), json!({ "succeeded": true, "observedGeneration": 1 }));
    assert_eq!(decide(&made, now()), Step::Rest);
}

#[test]
fn in_an_interval_the_next_one_is_due_that_long_after_the_last_began() {
    let every = |status: Value| object(json!({ "backupIntervalInSecond": 60 }), status);
    assert_eq!(begun(&every(json!(null))), 1);
    let last = json!({ "succeeded": true, "lastExecutionDate": "2026-11-23T05:59:30Z" });
    assert_eq!(decide(&every(last), now()), at("2026-11-23T06:00:30Z"));
    let over = json!({ "succeeded": true, "lastExecutionDate": "2026-11-23T05:59:00Z" });
    assert_eq!(begun(&every(over)), 1);
    let theirs = json!({ "succeeded": true, "lastSuccessDate": "2026-11-23T05:59:40Z" });
    assert_eq!(decide(&every(theirs), now()), at("2026-11-23T06:00:40Z"));
}

#[test]
fn in_an_interval_a_failure_is_tried_again_and_no_number_of_them_ends_it() {
    let every = |status: Value| object(json!({ "backupIntervalInSecond": 60 }), status);
    let cut = json!({ "attempts": 7, "lastExecutionDate": NOW, "Reason": "x" });
    assert_eq!(begun(&every(cut)), 8);
    let waiting = json!({ "attempts": 7, "retryAt": "2026-11-23T06:00:20Z" });
    assert_eq!(decide(&every(waiting), now()), at("2026-11-23T06:00:20Z"));
    let corrected = json!({
        "attempts": 7, "retryAt": "2026-11-23T06:00:20Z", "observedGeneration": 1,
        "lastExecutionDate": "2026-11-23T05:58:00Z",
    });
    assert_eq!(begun(&every(corrected)), 1);
}

#[test]
fn a_failure_is_never_waited_for_longer_than_the_interval() {
    let order = |policy: Value| Order::of(&object(policy, json!(null)).spec).unwrap();
    let short = order(json!({ "backupIntervalInSecond": 15 }));
    assert_eq!(short.back_off(1), SignedDuration::from_secs(10));
    assert_eq!(short.back_off(9), SignedDuration::from_secs(15));
    assert!(order(json!(null)).back_off(9) > SignedDuration::from_secs(15));
}

#[test]
fn what_is_wrong_is_named() {
    for field in ["backupIntervalInSecond", "timeoutInSecond", "maxBackups"] {
        let said = refused(&object(json!({ field: -1 }), json!(null)));
        assert_eq!(said, format!("spec.backupPolicy.{field} is -1; write 0 or more"));
    }
    let mut nowhere = object(json!(null), json!(null));
    nowhere.spec.etcd_endpoints.clear();
    assert!(refused(&nowhere).starts_with("spec.etcdEndpoints is empty; "));
    nowhere.spec.etcd_endpoints.push("ftp://a".to_owned());
    assert!(refused(&nowhere).starts_with("spec.etcdEndpoints: "));
}

#[test]
fn an_object_that_the_coreos_operator_holds_is_let_go_when_it_is_deleted() {
    let mut held = object(json!({ "backupIntervalInSecond": 60 }), json!(null));
    held.metadata.finalizers = Some(vec![THEIR_FINALIZER.to_owned()]);
    assert_eq!(begun(&held), 1);
    held.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    assert_eq!(decide(&held, now()), Step::LetGo);
    held.metadata.finalizers = Some(vec!["others".to_owned()]);
    assert_eq!(decide(&held, now()), Step::Rest);
}
