//! The controller of `EtcdBackupSchedule`: backups that recur, and which of them are kept.
//!
//! ```text
//!   schedule, its EtcdBackups, now ──decide──▶ what to create, skip, remove, show, and when to look again
//! ```
//!
//! * What to do is decided without asking anybody ([`decide`]); doing it is thin.
//! * An EtcdBackup is named by its slot, so that a slot has one, however often an operator is killed. Where somebody else's has
//!   that name, the schedule's own uid is added.
//! * Of several slots that were missed, the newest is made up for.

mod doing;
mod ready;
mod retention;

use crate::{
    api::{EtcdBackup, EtcdBackupSchedule, EtcdBackupScheduleStatus, Phase},
    conditions::{self, seconds},
    context::Context,
    failure::Failure,
    metrics,
    run::Scope,
};
use daemon::schedule::{Due, Schedule, ScheduleError};
use doing::Doing;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, Resource, ResourceExt,
    api::ListParams,
    runtime::{
        Controller,
        controller::{self, Action},
        watcher,
    },
};
use std::{cmp::Reverse, sync::Arc, time::Duration};

/// The schedule that an EtcdBackup was made by.
pub const LABEL: &str = "lifeboat.dev/schedule";

/// Whenever its value changes, a backup is made at once.
pub const RUN_NOW: &str = "lifeboat.dev/run-now";

/// No start is later than that by accident alone, so that a small deadline does not skip all.
const PUNCTUAL: SignedDuration = SignedDuration::from_secs(10);

/// When a store that is missing is looked for again, and where retention could not do its work.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_mins(1);

/// The condition that says what retention has done.
const RETAINED: &str = "Retained";

/// What to do about a schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The name of the EtcdBackup to create.
    pub create: Option<String>,
    /// The slot that is skipped, and why.
    pub skipped: Option<(Timestamp, String)>,
    /// EtcdBackups that are no longer shown.
    pub remove: Vec<String>,
    /// Whether retention looks at the store: after a new success, and again where it could not do its work.
    pub retains: bool,
    /// What the schedule then shows.
    pub status: EtcdBackupScheduleStatus,
    /// When to look again.
    pub wake: Option<Timestamp>,
}

impl Decision {
    /// Looks again after that, if not before.
    fn wake_in(&mut self, wait: SignedDuration, now: Timestamp) {
        let again = now.saturating_add(wait).unwrap_or(now);
        self.wake = Some(self.wake.map_or(again, |wake| wake.min(again)));
    }
}

/// What to do about a schedule that has those backups.
pub fn decide(
    schedule: &EtcdBackupSchedule,
    children: &[EtcdBackup],
    now: Timestamp,
) -> Result<Decision, Failure> {
    let times = times(schedule)?;
    let name = schedule.name_any();
    let mut status = schedule.status.clone().unwrap_or_default();
    status.observed_generation = schedule.meta().generation;
    let active = children.iter().find(|child| is_active(child)).map(ResourceExt::name_any);
    let exists = |name: &str| children.iter().any(|child| child.name_any() == name);

    let (mut create, mut skipped, mut wake) = (None, None, None);
    let asked = schedule.annotations().get(RUN_NOW).filter(|value| !value.is_empty());
    let asked = asked.filter(|value| status.last_run_now.as_ref() != Some(value));
    if let (Some(value), None) = (asked, &active) {
        let run = format!("{}-now-{:08x}", short(&name), fnv(value) & 0xffff_ffff);
        create = (!exists(&run)).then_some(run);
        status.last_run_now = Some(value.clone());
    }
    let done = status.last_schedule_time.clone().map(|Time(at)| at);
    let begun = schedule.meta().creation_timestamp.clone().map(|Time(at)| at);
    let key = format!("{}/{name}", schedule.namespace().unwrap_or_default());
    let next = match times.due(&key, done.or(begun), now) {
        Due::Now(slot) if !schedule.spec.suspend => {
            let run = format!("{}-{}", short(&name), slot.strftime("%Y%m%d-%H%M%S"));
            let late = now.duration_since(slot) - times.delay(&key);
            if exists(&run) {
                // Created by an operator that ended before it could say so.
            } else if is_too_late(schedule, late) {
                skipped = Some((slot, "the deadline for its start was missed".to_owned()));
            } else if let Some(before) = active.as_ref().or(create.as_ref()) {
                let why = format!("the one before it, EtcdBackup {before}, has not ended");
                skipped = Some((slot, why));
            } else {
                create = Some(run);
            }
            status.last_schedule_time = Some(Time(slot));
            times.after(slot)
        }
        Due::Now(_) => None,
        Due::At { slot, .. } => Some(slot),
        Due::Never => None,
    };
    let next = next.filter(|_| !schedule.spec.suspend);
    if let Some(slot) = next {
        wake = slot.checked_add(times.delay(&key)).ok();
    }
    status.next_schedule_time = wake.map(seconds);
    status.active = create.clone().or(active);

    // Times are whole seconds: of two successes in one, the later name in the store is the newer. A name is used once.
    let newest = children.iter().filter(|child| phase(child) == Phase::Succeeded);
    let newest = newest.filter_map(|child| Some((finished(child)?, child.status.as_ref()?)));
    let newest = newest.max_by_key(|(at, made)| (*at, made.backup.as_ref()));
    let shown = status.last_success_time.as_ref().map(|Time(at)| *at);
    let shown = (shown, status.last_success_backup.as_ref());
    let newest = newest.filter(|(at, made)| shown < (Some(*at), made.backup.as_ref()));
    if schedule.spec.retention.is_none() {
        status.conditions.retain(|condition| condition.type_ != RETAINED);
    }
    let is_unretained = is_unretained(&status);
    let retains = newest.is_some() || is_unretained;
    if let Some((at, made)) = newest {
        status.last_success_time = Some(Time(at));
        status.last_success_revision = made.revision;
        status.last_success_backup = made.backup.clone();
    }
    ready::note_failure(&mut status, children);
    let (is_ready, reason, text) = ready::judge(schedule, &status, children, times.delay(&key));
    let generation = schedule.meta().generation;
    conditions::set(&mut status.conditions, "Ready", is_ready, reason, &text, generation, now);
    let remove = history(schedule, children);
    let mut decision = Decision { create, skipped, remove, retains, status, wake };
    if is_unretained {
        decision.wake_in(LOOK_AGAIN, now);
    }
    Ok(decision)
}

/// Whether retention could not do its work when it last tried.
fn is_unretained(status: &EtcdBackupScheduleStatus) -> bool {
    let retained = conditions::get(&status.conditions, RETAINED);
    retained.is_some_and(|retained| retained.status == conditions::Is::False.name())
}

fn times(schedule: &EtcdBackupSchedule) -> Result<Schedule, Failure> {
    let spec = &schedule.spec;
    let times = Schedule::new(&spec.schedule, &spec.time_zone);
    let mut times = times.map_err(|error| {
        let (field, remedy) = match &error {
            ScheduleError::Zone { .. } => {
                ("spec.timeZone", "write it as `Europe/Berlin`, or leave it out for UTC")
            }
            _ => (
                "spec.schedule",
                "write minute (0-59), hour (0-23), day (1-31), month (1-12) and weekday (0-7), as `0 */6 * * *`, or @hourly, @daily, @weekly, @monthly, @yearly",
            ),
        };
        Failure { reason: "Invalid", ..Failure::of_setting(field, &error, remedy) }
    })?;
    times.jitter = Duration::from_secs(u64::try_from(spec.jitter_seconds).unwrap_or(0));
    Ok(times)
}

fn is_too_late(schedule: &EtcdBackupSchedule, late: SignedDuration) -> bool {
    let deadline = schedule.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    deadline.is_some_and(|deadline| late > deadline.max(PUNCTUAL))
}

fn phase(child: &EtcdBackup) -> Phase {
    child.status.as_ref().and_then(|status| status.phase).unwrap_or_default()
}

fn finished(child: &EtcdBackup) -> Option<Timestamp> {
    child.status.as_ref()?.finished_at.clone().map(|Time(at)| at)
}

fn is_active(child: &EtcdBackup) -> bool {
    matches!(phase(child), Phase::Pending | Phase::Running)
}

/// The EtcdBackups that are more than the schedule shows, of each kind the oldest.
fn history(schedule: &EtcdBackupSchedule, children: &[EtcdBackup]) -> Vec<String> {
    let spec = &schedule.spec;
    let limits = [
        (Phase::Succeeded, spec.successful_history_limit),
        (Phase::Failed, spec.failed_history_limit),
    ];
    let over = |(wanted, limit): (Phase, u32)| {
        let ended = children.iter().filter(move |child| phase(child) == wanted);
        let mut ended: Vec<_> =
            ended.filter(|child| child.meta().deletion_timestamp.is_none()).collect();
        ended.sort_by_key(|child| Reverse((finished(child), child.name_any())));
        ended.into_iter().skip(limit as usize).map(ResourceExt::name_any)
    };
    limits.into_iter().flat_map(over).collect()
}

/// As much of a name as leaves room for a slot, in what a name and a label may have.
fn short(name: &str) -> String {
    const MAX: usize = 40;
    match name.len() <= MAX {
        true => name.to_owned(),
        false => format!(
            "{}-{:08x}",
            name[..MAX - 9].trim_end_matches(['-', '.']),
            fnv(name) & 0xffff_ffff
        ),
    }
}

/// FNV-1a: the same in every version and on every machine.
pub(crate) fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// So many are looked at at once: hundreds that fire in the same second leave the API server room for the Lease.
const AT_ONCE: u16 = 16;

/// Follows all objects of the kind.
pub async fn run(
    context: Arc<Context>,
    scope: Scope,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let api: Api<EtcdBackupSchedule> = scope.api(&context.client);
    let backups: Api<EtcdBackup> = scope.api(&context.client);
    let ours = watcher::Config::default().labels(LABEL).page_size(500);
    let controller = Controller::new(api, watcher::Config::default().page_size(500))
        .owns(backups, ours)
        .with_config(controller::Config::default().concurrency(AT_ONCE))
        .graceful_shutdown_on(stop);
    crate::run::drive(controller, context, "EtcdBackupSchedule", reconcile).await;
}

async fn reconcile(
    schedule: Arc<EtcdBackupSchedule>,
    context: Arc<Context>,
) -> Result<Action, Failure> {
    if schedule.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let api: Api<EtcdBackup> = context.beside(&*schedule);
    let children = children(&api, &schedule).await?;
    let now = Timestamp::now();
    match decide(&schedule, &children, now) {
        Ok(decision) => {
            Doing { context: &context, schedule: &schedule, api, children }.act(decision, now).await
        }
        Err(failure) => refuse(&context, &schedule, &failure, now).await,
    }
}

/// The EtcdBackups of a schedule.
///
/// Out of the API server's cache, which also tells of their changes: else each schedule that is looked at makes it read and decode
/// the EtcdBackups of the whole namespace from its etcd, and hundreds that are due at once do nothing else.
async fn children(
    api: &Api<EtcdBackup>,
    schedule: &EtcdBackupSchedule,
) -> Result<Vec<EtcdBackup>, Failure> {
    let label = format!("{LABEL}={}", short(&schedule.name_any()));
    let found = api.list(&ListParams::default().labels(&label).match_any()).await?;
    let mut children: Vec<_> =
        found.items.into_iter().filter(|child| is_of(child, schedule)).collect();
    // The cache may not have heard yet of the one that was just created: nothing else would seem to run.
    if let Some(active) = schedule.status.as_ref().and_then(|status| status.active.as_ref())
        && !children.iter().any(|child| child.name_any() == *active)
    {
        let active = api.get_opt(active).await?;
        children.extend(active.filter(|child| is_of(child, schedule)));
    }
    Ok(children)
}

/// Whether the schedule has made it.
fn is_of(child: &EtcdBackup, schedule: &EtcdBackupSchedule) -> bool {
    let uid = schedule.uid().unwrap_or_default();
    child.owner_references().iter().any(|owner| owner.uid == uid)
}

/// Says that a schedule cannot be followed.
async fn refuse(
    context: &Context,
    schedule: &EtcdBackupSchedule,
    failure: &Failure,
    now: Timestamp,
) -> Result<Action, Failure> {
    let mut status = schedule.status.clone().unwrap_or_default();
    let generation = schedule.meta().generation;
    status.observed_generation = generation;
    status.next_schedule_time = None;
    let text = failure.text();
    conditions::set(&mut status.conditions, "Ready", false, failure.reason, &text, generation, now);
    if schedule.status.as_ref() != Some(&status) {
        context.write_status(schedule, &status).await?;
        let (name, namespace) = (schedule.name_any(), schedule.namespace().unwrap_or_default());
        let (error, remedy) = (&failure.message, &failure.remedy);
        tracing::warn!(namespace, schedule = name, error, remedy, "a schedule cannot be followed");
        context.warn(schedule, failure.reason, &text).await;
    }
    measure(context, schedule, &status);
    // Only another spec mends it.
    Ok(Action::await_change())
}

/// Shows as metrics what a schedule's status says.
fn measure(context: &Context, schedule: &EtcdBackupSchedule, status: &EtcdBackupScheduleStatus) {
    #[expect(clippy::cast_precision_loss, reason = "seconds are far below 2^53")]
    let as_seconds = |time: &Time| time.0.as_second() as f64;
    let ready = conditions::get(&status.conditions, "Ready").filter(|_| !schedule.spec.suspend);
    let success = status.last_success_time.as_ref().map(as_seconds);
    let shown = metrics::ScheduleShown {
        is_ready: ready.map(|ready| ready.status == "True"),
        created: schedule.meta().creation_timestamp.as_ref().map(as_seconds),
        next: status.next_schedule_time.as_ref().map(as_seconds),
        success,
    };
    let namespace = schedule.namespace().unwrap_or_default();
    let object = metrics::Object { namespace: namespace.clone(), name: schedule.name_any() };
    context.metrics.show_schedule(&object, shown);
    let template = &schedule.spec.template.spec;
    let place = metrics::Place {
        namespace,
        cluster: template.cluster.name.clone(),
        store: template.store_name.clone(),
    };
    context.metrics.begin(&place, success, status.last_success_revision);
}

#[cfg(test)]
mod tests;
