use super::*;
use crate::api::EtcdBackupScheduleSpec;
use serde_json::json;

fn at(text: &str) -> Timestamp {
    format!("2026-11-23T{text}Z").parse().unwrap()
}

fn schedule(spec: serde_json::Value) -> EtcdBackupSchedule {
    let mut whole = json!({
        "schedule": "0 * * * *",
        "template": { "spec": {
            "cluster": { "name": "prod", "endpoints": ["http://e:2379"] }, "storeName": "s",
        } },
    });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let spec: EtcdBackupScheduleSpec = serde_json::from_value(whole).unwrap();
    let mut schedule = EtcdBackupSchedule::new("hourly", spec);
    schedule.metadata.namespace = Some("prod".to_owned());
    schedule.metadata.creation_timestamp = Some(Time(at("09:30:00")));
    schedule
}

fn child(name: &str, phase: Phase, finished: Option<&str>) -> EtcdBackup {
    let spec = schedule(json!({})).spec.template.spec;
    let mut child = EtcdBackup::new(name, spec);
    child.status = Some(crate::api::EtcdBackupStatus {
        phase: Some(phase),
        finished_at: finished.map(|finished| Time(at(finished))),
        revision: Some(7),
        backup: Some("00000000000000000007-20261123T094000Z".to_owned()),
        ..Default::default()
    });
    child
}

fn decided(schedule: &EtcdBackupSchedule, children: &[EtcdBackup], now: &str) -> Decision {
    decide(schedule, children, at(now)).unwrap()
}

/// The schedule as it is after what was decided.
fn after(schedule: EtcdBackupSchedule, decision: &Decision) -> EtcdBackupSchedule {
    after_status(&schedule, &decision.status)
}

/// The schedule with that status.
fn after_status(
    schedule: &EtcdBackupSchedule,
    status: &EtcdBackupScheduleStatus,
) -> EtcdBackupSchedule {
    EtcdBackupSchedule { status: Some(status.clone()), ..schedule.clone() }
}

#[test]
fn a_new_schedule_waits_for_its_first_slot_and_makes_nothing_up() {
    let decision = decided(&schedule(json!({})), &[], "09:31:00");
    assert_eq!(decision.create, None);
    assert_eq!(decision.wake, Some(at("10:00:00")));
    assert_eq!(decision.status.next_schedule_time, Some(Time(at("10:00:00"))));
}

#[test]
fn a_slot_makes_one_backup_however_often_it_is_looked_at() {
    let hourly = schedule(json!({}));
    let first = decided(&hourly, &[], "10:00:00");
    assert_eq!(first.create.as_deref(), Some("hourly-20261123-100000"));
    assert_eq!(first.wake, Some(at("11:00:00")));
    // Killed after the object was created, before the status was written.
    let made = child("hourly-20261123-100000", Phase::Pending, None);
    let again = decided(&hourly, &[made], "10:00:01");
    assert_eq!((again.create, again.skipped), (None, None));
    assert_eq!(again.status.last_schedule_time, Some(Time(at("10:00:00"))));
    assert_eq!(decided(&after(hourly, &first), &[], "10:00:02").create, None);
}

#[test]
fn a_slot_is_skipped_while_the_backup_before_it_runs() {
    let running = [child("hourly-20261123-090000", Phase::Running, None)];
    let decision = decided(&schedule(json!({})), &running, "10:00:00");
    assert_eq!(decision.create, None);
    assert!(decision.skipped.unwrap().1.contains("hourly-20261123-090000, has not ended"));
    assert_eq!(decision.status.active.as_deref(), Some("hourly-20261123-090000"));
    assert_eq!(decision.status.last_schedule_time, Some(Time(at("10:00:00"))));
}

#[test]
fn the_newest_missed_slot_is_made_up_for_within_the_deadline() {
    let late = decided(&schedule(json!({})), &[], "12:40:00");
    assert_eq!(late.create.as_deref(), Some("hourly-20261123-120000"));
    let strict = schedule(json!({ "startingDeadlineSeconds": 600 }));
    let skipped = decided(&strict, &[], "12:40:00");
    assert_eq!(skipped.create, None);
    assert!(skipped.skipped.unwrap().1.contains("deadline"));
    assert!(decided(&strict, &[], "12:09:00").create.is_some());
    let zero = schedule(json!({ "startingDeadlineSeconds": 0 }));
    assert!(decided(&zero, &[], "12:00:01").create.is_some(), "a second late is not late");
}

#[test]
fn a_suspended_schedule_makes_nothing_but_what_is_asked_for_by_hand() {
    let mut suspended = schedule(json!({ "suspend": true }));
    let decision = decided(&suspended, &[], "10:00:00");
    assert_eq!((decision.create, decision.wake), (None, None));
    assert_eq!(conditions::get(&decision.status.conditions, "Ready").unwrap().reason, "Suspended");
    suspended.annotations_mut().insert(RUN_NOW.to_owned(), "1".to_owned());
    let asked = decided(&suspended, &[], "10:00:00");
    assert!(asked.create.as_ref().unwrap().starts_with("hourly-now-"));
    assert_eq!(asked.status.last_schedule_time, None, "its slot is still to come");
    let mut answered = after(suspended, &asked);
    assert_eq!(decided(&answered, &[], "10:01:00").create, None);
    answered.annotations_mut().insert(RUN_NOW.to_owned(), "2".to_owned());
    let running = [child("hourly-now-1", Phase::Running, None)];
    assert_eq!(decided(&answered, &running, "10:02:00").create, None, "it waits for its turn");
    assert!(decided(&answered, &[], "10:03:00").create.is_some());
}

#[test]
fn jitter_delays_the_start_and_not_the_slot() {
    let jittered = schedule(json!({ "jitterSeconds": 600 }));
    let waiting = decided(&jittered, &[], "09:31:00");
    let start = waiting.wake.unwrap();
    assert!(start > at("10:00:00") && start <= at("10:10:00"), "{start}");
    assert_eq!(decide(&jittered, &[], at("10:00:00")).unwrap().create, None);
    let begun = decide(&jittered, &[], start).unwrap();
    assert_eq!(begun.create.as_deref(), Some("hourly-20261123-100000"));
    let day = decided(&schedule(json!({ "jitterSeconds": 86400 })), &[], "09:31:00");
    let ready = conditions::get(&day.status.conditions, "Ready").unwrap();
    assert!(ready.message.contains("after its time"), "{}", ready.message);
}

#[test]
fn a_success_is_shown_once_and_never_goes_back() {
    let hourly = schedule(json!({}));
    let done = [child("a", Phase::Succeeded, Some("09:40:00"))];
    let first = decided(&hourly, &done, "09:41:00");
    assert!(first.retains);
    assert_eq!(first.status.last_success_time, Some(Time(at("09:40:00"))));
    assert_eq!(first.status.last_success_revision, Some(7));
    let shown = after(hourly, &first);
    // Nothing was written in between: the revision is the same too.
    let mut next = child("b", Phase::Succeeded, Some("09:40:00"));
    next.status.as_mut().unwrap().backup = Some("00000000000000000007-20261123T094001Z".to_owned());
    let same_second = decided(&shown, &[done[0].clone(), next], "09:41:00");
    assert!(same_second.retains);
    let both = after(shown.clone(), &same_second);
    assert!(!decided(&both, &done, "09:41:00").retains);
    assert!(!decided(&shown, &done, "09:42:00").retains);
    assert_eq!(
        decided(&shown, &[], "09:43:00").status.last_success_time,
        Some(Time(at("09:40:00")))
    );
}

#[test]
fn only_so_many_backups_are_shown_and_the_newest_stay() {
    let limited = schedule(json!({ "successfulHistoryLimit": 1, "failedHistoryLimit": 0 }));
    let children = [
        child("a", Phase::Succeeded, Some("07:00:00")),
        child("b", Phase::Succeeded, Some("08:00:00")),
        child("c", Phase::Failed, Some("09:00:00")),
        child("d", Phase::Running, None),
    ];
    assert_eq!(decided(&limited, &children, "09:31:00").remove, ["a", "c"]);
}

#[test]
fn what_is_no_schedule_is_refused_with_the_field() {
    let wrong = schedule(json!({ "schedule": "every day" }));
    let failure = decide(&wrong, &[], at("10:00:00")).unwrap_err();
    assert!(failure.text().contains("spec.schedule"), "{failure:?}");
}

#[test]
fn a_long_name_leaves_room_for_its_slots() {
    let long = "x".repeat(200);
    assert!(short(&long).len() <= 40 && short(&long) != short(&"x".repeat(201)));
    assert_eq!(short("hourly"), "hourly");
}

#[test]
fn a_policy_is_taken_as_it_stands_and_what_is_none_names_its_field() {
    let retention = |json| serde_json::from_value(json).unwrap();
    let good = retention(json!({ "keepLast": 3, "keepWithin": "36h", "maxTotalSize": "50GiB" }));
    let policy = retention::policy(&good, "Europe/Berlin").unwrap();
    assert_eq!((policy.keep_last, policy.min_backups), (3, 1));
    assert_eq!(policy.max_total_size.unwrap().bytes(), 50 << 30);
    let bad = retention(json!({ "keepWithin": "5parsecs" }));
    let failure = retention::policy(&bad, "UTC").unwrap_err();
    assert!(failure.message.contains("spec.retention.keepWithin"), "{failure:?}");
    assert_eq!(failure.text().matches("write it").count(), 1, "{}", failure.text());
}

#[test]
fn every_way_to_write_a_time_that_is_taken_is_followed() {
    for text in ["0 */6 * * *", "@hourly", "@daily", "@weekly", "@monthly", "@yearly", "@annually"]
    {
        decide(&schedule(json!({ "schedule": text })), &[], at("09:31:00")).unwrap();
    }
    for text in ["36h", "15d", "4w", "1y 6mo", "2 days", "1 month", "2 wks", "3yrs"] {
        let retention = serde_json::from_value(json!({ "keepWithin": text })).unwrap();
        retention::policy(&retention, "UTC").unwrap();
    }
}

#[test]
fn retention_that_failed_is_tried_again_before_the_next_backup() {
    let mut yearly = schedule(json!({ "schedule": "0 0 1 1 *", "retention": { "keepLast": 1 } }));
    let made = [child("yearly-1", Phase::Succeeded, Some("09:40:00"))];
    let first = decided(&yearly, &made, "09:41:00");
    assert!(first.retains);
    let mut failed = first.status;
    assert!(!decided(&after_status(&yearly, &failed), &made, "09:41:01").retains);
    conditions::set(&mut failed.conditions, RETAINED, false, "Store", "", None, at("09:41:00"));
    let again = decided(&after_status(&yearly, &failed), &made, "09:41:01");
    assert!(again.retains);
    assert_eq!(again.wake, Some(at("09:42:01")));
    yearly.spec.retention = None;
    let without = decided(&after_status(&yearly, &failed), &made, "09:41:01");
    assert!(!without.retains);
    assert!(conditions::get(&without.status.conditions, RETAINED).is_none(), "it says nothing");
}

#[test]
fn a_schedule_tells_that_its_last_backup_failed_until_one_succeeds() {
    let hourly = schedule(json!({ "failedHistoryLimit": 0 }));
    let mut failed = child("hourly-1", Phase::Failed, Some("09:40:00"));
    let why = &mut failed.status.as_mut().unwrap().conditions;
    conditions::set(why, "Succeeded", false, "StoreUnreachable", "no route", None, at("09:40:00"));
    let ready = |decision: &Decision| {
        let ready = conditions::get(&decision.status.conditions, "Ready").unwrap();
        (format!("{} {}", ready.status, ready.reason), ready.message.clone())
    };
    let first = decided(&hourly, &[failed], "09:41:00");
    let (is, text) = ready(&first);
    assert_eq!(is, "False BackupFailed");
    assert!(text.contains("EtcdBackup hourly-1 failed: no route"), "{text}");
    assert!(text.contains("annotate etcdbackupschedule hourly lifeboat.dev/run-now="), "{text}");
    // Its object is not shown any more, and the next is under way.
    let hourly = after(hourly, &first);
    let running = child("hourly-2", Phase::Running, None);
    assert_eq!(ready(&decided(&hourly, &[running], "09:42:00")), (is.clone(), text));
    let before = child("hourly-0", Phase::Succeeded, Some("09:40:00"));
    assert_eq!(ready(&decided(&hourly, &[before], "09:42:00")).0, is, "it is no later");
    let made = child("hourly-2", Phase::Succeeded, Some("09:43:00"));
    assert_eq!(ready(&decided(&hourly, &[made], "09:43:01")).0, "True Scheduled");
}

#[test]
fn a_field_that_is_wrong_is_named_alone() {
    let refused = |spec| decide(&schedule(spec), &[], at("09:31:00")).unwrap_err();
    let zone = refused(json!({ "timeZone": "Mars/Olympus" }));
    assert!(zone.message.starts_with("spec.timeZone: \"Mars/Olympus\""), "{}", zone.message);
    assert!(zone.remedy.contains("Europe/Berlin") && !zone.remedy.contains("weekday"));
    let cron = refused(json!({ "schedule": "99 * * * *" }));
    assert!(cron.message.starts_with("spec.schedule: \"99"), "{}", cron.message);
}
