//! What a schedule's condition `Ready` says: whether it can be followed, and whether its last backup was made.

use super::{finished, phase};
use crate::{
    api::{EtcdBackup, EtcdBackupSchedule, EtcdBackupScheduleStatus, Phase},
    conditions,
};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

/// The reason while the last backup is one that failed.
const BACKUP_FAILED: &str = "BackupFailed";

/// A delay by jitter that need not be told of.
const SHORT_DELAY: SignedDuration = SignedDuration::from_mins(10);

/// Notes when a backup last failed: its object may go.
pub(super) fn note_failure(status: &mut EtcdBackupScheduleStatus, children: &[EtcdBackup]) {
    let failed = children.iter().filter(|child| phase(child) == Phase::Failed);
    let newest = failed.filter_map(finished).max();
    let before = status.last_failure_time.as_ref().map(|Time(at)| *at);
    status.last_failure_time = newest.max(before).map(Time);
}

/// Whether it is ready, with a reason, and in full.
pub(super) fn judge(
    schedule: &EtcdBackupSchedule,
    status: &EtcdBackupScheduleStatus,
    children: &[EtcdBackup],
    delay: SignedDuration,
) -> (bool, &'static str, String) {
    if schedule.spec.suspend {
        return (false, "Suspended", "spec.suspend is set".to_owned());
    }
    if let Some(text) = failed(schedule, status, children) {
        return (false, BACKUP_FAILED, text);
    }
    let mut text = "backups are made when they are due".to_owned();
    if delay >= SHORT_DELAY {
        text += &format!(
            "; each begins {delay:#} after its time, which is this schedule's share of jitterSeconds"
        );
    }
    (true, "Scheduled", text)
}

/// What is told while no backup has succeeded since one failed.
fn failed(
    schedule: &EtcdBackupSchedule,
    status: &EtcdBackupScheduleStatus,
    children: &[EtcdBackup],
) -> Option<String> {
    let Time(at) = status.last_failure_time.as_ref()?;
    // Of two that ended in one second it may be the later one.
    if status.last_success_time.as_ref().is_some_and(|Time(success)| success > at) {
        return None;
    }
    let is_it = |child: &&EtcdBackup| phase(child) == Phase::Failed && finished(child) == Some(*at);
    let Some(child) = children.iter().find(is_it) else {
        // What was told of it while it was there.
        let told = conditions::get(&status.conditions, "Ready");
        let told = told.filter(|told| told.reason == BACKUP_FAILED);
        return Some(told.map_or_else(
            || format!("the last backup failed at {at}"),
            |told| told.message.clone(),
        ));
    };
    let conditions = child.status.iter().flat_map(|status| &status.conditions);
    let why = conditions.clone().find(|condition| condition.type_ == "Succeeded");
    let why = why.map_or("", |why| why.message.as_str());
    Some(format!(
        "EtcdBackup {} failed: {why}; none is made before the next is due: for one at once, kubectl annotate etcdbackupschedule {} lifeboat.dev/run-now=\"$(date +%s)\" --overwrite",
        child.name_any(),
        schedule.name_any()
    ))
}
