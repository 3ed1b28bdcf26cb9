//! What becomes of a backup whose object is removed with `deletionPolicy: Delete`.
//!
//! * It is found by what the status says, and if that says nothing, by the object's uid in the manifest.
//! * Where no attempt can have left a backup, the store is not asked: it may be gone, or never have been there.
//! * A store that keeps the backup keeps the object too, and the object says until when.

use super::{LOCKED, RETAIN, cluster_name, hold, in_force, job, made_by, of, wait};
use crate::{
    api::{EtcdBackup, EtcdBackupStatus, RunAs},
    conditions::{self, seconds},
    context::Context,
    failure::Failure,
    secrets,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, Resource, ResourceExt, runtime::controller::Action};
use repository::{BackupId, Repository, RepositoryError, store::StoreError};

/// The condition that says why an object that is to go is still there.
pub(super) const DELETED: &str = "Deleted";

/// A lock that has no end, or a far one, may be lifted before: so it is looked at again.
const LOCK_LOOK: SignedDuration = SignedDuration::from_hours(24);

/// Failures after which nothing can be in the store: they come before the first byte of a backup's manifest is sent there.
const LEFT_NOTHING: [&str; 8] = [
    "Settings",
    "StoreMissing",
    "StoreDenied",
    "Cluster",
    "Verification",
    "HashMismatch",
    "Spool",
    job::NOT_STARTED,
];

/// Whether an attempt that failed so is sure to have left nothing in the store.
pub(super) fn left_nothing(reason: &str) -> bool {
    LEFT_NOTHING.contains(&reason)
}

/// Whether a backup of the object may be in the store. One that nobody has told of may have been made all the same, if the
/// operator or its connection ended right then.
pub(super) fn may_be_there(status: &EtcdBackupStatus) -> bool {
    status.backup.is_some() || status.attempts > status.left_nothing.or(Some(0))
}

/// Until when the store keeps the backup of an object that is to go, if that is known and to come.
pub(super) fn kept_until(backup: &EtcdBackup, now: Timestamp) -> Option<Timestamp> {
    let status = backup.status.as_ref()?;
    let Time(until) = status.retry_at.clone()?;
    let told = conditions::get(&status.conditions, DELETED)?;
    (told.reason == LOCKED && until > now).then_some(until)
}

/// Deletes the backup that the object has made; that backup, and no other.
pub(super) async fn delete(
    context: &Context,
    api: &Api<EtcdBackup>,
    backup: &EtcdBackup,
) -> Result<Action, Failure> {
    let attempts = backup.status.as_ref().and_then(|status| status.attempts).unwrap_or(0);
    if backup.spec_in_force().run_as == RunAs::Job
        && attempts > 0
        && !job::end(context, backup, attempts).await?
    {
        // Of its end we hear.
        return Ok(Action::await_change());
    }
    let (now, why) = match delete_backup(context, backup).await {
        Ok(None) => return hold(api, backup, false).await,
        Ok(Some(kept)) => (Timestamp::now(), kept),
        Err(failure) => {
            let failure = in_force(backup, failure);
            let text = format!("{}; {}", failure.text(), let_go(backup));
            not_deleted(context, backup, failure.reason, &text, None).await?;
            return Err(failure);
        }
    };
    let look = now.saturating_add(LOCK_LOOK).unwrap_or(Timestamp::MAX);
    let again = why.until.map_or(look, |until| until.min(look));
    let when = why.until.map_or_else(String::new, |until| format!(" until {until}"));
    let text = format!(
        "the store keeps the backup{when}, and the object stays with it; {}",
        let_go(backup)
    );
    not_deleted(context, backup, LOCKED, &text, Some(again)).await?;
    Ok(wait(now, again))
}

/// How an object goes without its backup.
pub(super) fn let_go(backup: &EtcdBackup) -> String {
    let name = backup.name_any();
    format!(
        "to let the object go and keep the backup: kubectl annotate etcdbackup {name} {RETAIN}=true"
    )
}

/// Says why an object that is to go is still there; as an event only when it is new.
async fn not_deleted(
    context: &Context,
    backup: &EtcdBackup,
    reason: &'static str,
    text: &str,
    again: Option<Timestamp>,
) -> Result<(), Failure> {
    let mut status = backup.status.clone().unwrap_or_default();
    let told = conditions::get(&status.conditions, DELETED);
    let is_new = told.is_none_or(|told| told.reason != reason);
    let (generation, now) = (backup.meta().generation, Timestamp::now());
    conditions::set(&mut status.conditions, DELETED, false, reason, text, generation, now);
    status.retry_at = again.map(seconds);
    context.write_status(backup, &status).await?;
    if is_new {
        context.warn(backup, "DeletionFailed", text).await;
    }
    Ok(())
}

/// A backup that the store does not let go.
struct Kept {
    /// When it will, if it tells.
    until: Option<Timestamp>,
}

async fn delete_backup(context: &Context, backup: &EtcdBackup) -> Result<Option<Kept>, Failure> {
    let status = backup.status.clone().unwrap_or_default();
    let namespace = backup.namespace().unwrap_or_default();
    if !may_be_there(&status) {
        return Ok(None);
    }
    let cluster = cluster_name(backup)?;
    let id = status.backup.as_deref().map(backup_id).transpose()?;
    let store = &backup.spec_in_force().store_name;
    let place = secrets::place(context, &namespace, store).await?;
    let repository = match Repository::open(place.store.clone()).await {
        Ok(repository) => repository,
        Err(RepositoryError::NotARepository { .. }) => return Ok(None),
        Err(error) => return Err(of(&error)),
    };
    let id = match id {
        Some(id) => id,
        None => match made_by(backup, &repository, &cluster).await? {
            Some(manifest) => manifest.id,
            None => return Ok(None),
        },
    };
    let report = repository.remove(&cluster, id, Timestamp::now()).await;
    let report = report.map_err(|error| Failure::from(daemon::jobs::Failure::from(&error)))?;
    if let Some(error) = report.failed.first() {
        return Err(of(error));
    }
    if !report.locked.is_empty() {
        return Ok(Some(Kept { until: locked_until(&report.locked) }));
    }
    context
        .note(backup, "BackupDeleted", &format!("{cluster}/{id} was deleted from the store"))
        .await;
    Ok(None)
}

/// When a store lets the first of some objects go, if it tells.
pub(crate) fn locked_until(locked: &[StoreError]) -> Option<Timestamp> {
    let until = locked.iter().filter_map(|error| match error {
        StoreError::Locked { until, .. } => until.as_ref()?.parse().ok(),
        _ => None,
    });
    until.min()
}

fn backup_id(id: &str) -> Result<BackupId, Failure> {
    id.parse().map_err(|error| {
        Failure::of_setting("status.backup", &error, "see `lifeboat list` for the backup's name")
    })
}
