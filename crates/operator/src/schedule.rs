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

mod retention;

use crate::{
    api::{EtcdBackup, EtcdBackupSchedule, EtcdBackupScheduleStatus, Phase},
    backup::{self, LOCKED, RETAIN, remove_object, stored},
    conditions::{self, seconds},
    context::{Context, is_gone},
    failure::Failure,
    metrics,
    run::Scope,
    secrets,
};
use daemon::schedule::{Due, Schedule};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::{
        Controller,
        controller::{self, Action},
        watcher,
    },
};
use retention::{Kept, Pruned};
use serde_json::json;
use std::{cmp::Reverse, sync::Arc, time::Duration};

/// The schedule that an EtcdBackup was made by.
pub const LABEL: &str = "lifeboat.dev/schedule";

/// Whenever its value changes, a backup is made at once.
pub const RUN_NOW: &str = "lifeboat.dev/run-now";

/// No start is later than that by accident alone, so that a small deadline does not skip all.
const PUNCTUAL: SignedDuration = SignedDuration::from_secs(10);

/// A delay by jitter that need not be told of.
const SHORT_DELAY: SignedDuration = SignedDuration::from_mins(10);

/// When a store that is missing is looked for again.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_mins(1);

/// What to do about a schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The name of the EtcdBackup to create.
    pub create: Option<String>,
    /// The slot that is skipped, and why.
    pub skipped: Option<(Timestamp, String)>,
    /// EtcdBackups that are no longer shown.
    pub remove: Vec<String>,
    /// Whether there is a new success, after which retention looks at the store.
    pub has_new_success: bool,
    /// What the schedule then shows.
    pub status: EtcdBackupScheduleStatus,
    /// When to look again.
    pub wake: Option<Timestamp>,
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
    let has_new_success = newest.is_some();
    if let Some((at, made)) = newest {
        status.last_success_time = Some(Time(at));
        status.last_success_revision = made.revision;
        status.last_success_backup = made.backup.clone();
    }
    let (is_ready, reason, text) = match schedule.spec.suspend {
        true => (false, "Suspended", "spec.suspend is set"),
        false => (true, "Scheduled", "backups are made when they are due"),
    };
    let text = match times.delay(&key) {
        delay if is_ready && delay >= SHORT_DELAY => format!(
            "{text}; each begins {delay:#} after its time, which is this schedule's share of jitterSeconds"
        ),
        _ => text.to_owned(),
    };
    let generation = schedule.meta().generation;
    conditions::set(&mut status.conditions, "Ready", is_ready, reason, &text, generation, now);
    Ok(Decision {
        create,
        skipped,
        remove: history(schedule, children),
        has_new_success,
        status,
        wake,
    })
}

fn times(schedule: &EtcdBackupSchedule) -> Result<Schedule, Failure> {
    let spec = &schedule.spec;
    let times = Schedule::new(&spec.schedule, &spec.time_zone);
    let mut times = times.map_err(|error| Failure {
        reason: "Invalid",
        ..Failure::of_setting(
            "spec.schedule or spec.timeZone",
            &error,
            "write minute (0-59), hour (0-23), day (1-31), month (1-12) and weekday (0-7), as `0 */6 * * *`, or @hourly, @daily, @weekly, @monthly, @yearly, and a zone as `Europe/Berlin`",
        )
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
    Ok(found.items.into_iter().filter(|child| is_of(child, schedule)).collect())
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

/// What was decided, being done.
struct Doing<'a> {
    context: &'a Context,
    schedule: &'a EtcdBackupSchedule,
    api: Api<EtcdBackup>,
    children: Vec<EtcdBackup>,
}

impl Doing<'_> {
    async fn act(&self, mut decision: Decision, now: Timestamp) -> Result<Action, Failure> {
        let Self { context, schedule, .. } = *self;
        if let Some(name) = &decision.create {
            decision.status.active = Some(self.create(name).await?);
        }
        if let Some((slot, why)) = &decision.skipped {
            let (namespace, name) = (schedule.namespace().unwrap_or_default(), schedule.name_any());
            tracing::warn!(namespace, schedule = name, %slot, why, "a backup is skipped");
            context
                .warn(schedule, "Skipped", &format!("the backup of {slot} is skipped: {why}"))
                .await;
        }
        let store = &schedule.spec.template.spec.store_name;
        let namespace = schedule.namespace().unwrap_or_default();
        if let Err(failure) = secrets::store(context, &namespace, store).await {
            let (generation, text) = (schedule.meta().generation, failure.text());
            let conditions = &mut decision.status.conditions;
            conditions::set(conditions, "Ready", false, failure.reason, &text, generation, now);
            let again = now.saturating_add(LOOK_AGAIN).unwrap_or(now);
            decision.wake = Some(decision.wake.map_or(again, |wake| wake.min(again)));
        }
        let mut gone = std::mem::take(&mut decision.remove);
        if decision.has_new_success
            && let Some(policy) = &schedule.spec.retention
        {
            gone.extend(self.retain(policy, &mut decision.status, now).await);
        }
        for name in gone {
            self.forget(&name).await?;
        }
        if schedule.status.as_ref() != Some(&decision.status) {
            context.write_status(schedule, &decision.status).await?;
        }
        measure(context, schedule, &decision.status);
        Ok(match decision.wake {
            Some(wake) => backup::wait(now, wake),
            None => Action::await_change(),
        })
    }

    /// Makes the EtcdBackup of that name, or, where somebody else's has it, one of another. Says which.
    async fn create(&self, name: &str) -> Result<String, Failure> {
        if self.is_ours_after_creation(name).await? {
            return Ok(name.to_owned());
        }
        let Self { context, schedule, .. } = *self;
        let uid = schedule.uid().unwrap_or_default();
        let other = format!("{name}-{:08x}", fnv(&uid) & 0xffff_ffff);
        if !self.is_ours_after_creation(&other).await? {
            return Err(Failure {
                reason: "NameTaken",
                ..Failure::settings(
                    format!(
                        "there are EtcdBackups {name} and {other}, and neither is this schedule's"
                    ),
                    "remove one of them, or rename the schedule",
                )
            });
        }
        let text = format!("EtcdBackup {name} is not this schedule's; it makes {other} instead");
        context.warn(schedule, "NameTaken", &text).await;
        Ok(other)
    }

    /// Creates an EtcdBackup. Whether it is the schedule's: made now, or by an operator that ended before it could say so.
    async fn is_ours_after_creation(&self, name: &str) -> Result<bool, Failure> {
        let Self { context, schedule, .. } = *self;
        let template = &schedule.spec.template;
        let mut labels = template.labels.clone();
        labels.insert(LABEL.to_owned(), short(&schedule.name_any()));
        let mut backup = EtcdBackup::new(name, template.spec.clone());
        backup.metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: schedule.namespace(),
            labels: Some(labels),
            annotations: Some(template.annotations.clone()),
            owner_references: Some(schedule.controller_owner_ref(&()).into_iter().collect()),
            ..ObjectMeta::default()
        };
        match self.api.create(&PostParams::default(), &backup).await {
            Ok(_) => {
                context.note(schedule, "Created", &format!("EtcdBackup {name}")).await;
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let found = self.api.get_opt(name).await?;
                Ok(found.is_some_and(|found| is_of(&found, schedule)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Lets retention look at the store. Says which EtcdBackups show a backup that is gone.
    async fn retain(
        &self,
        policy: &crate::api::Retention,
        status: &mut EtcdBackupScheduleStatus,
        now: Timestamp,
    ) -> Vec<String> {
        let Self { context, schedule, .. } = *self;
        let generation = schedule.meta().generation;
        let before = conditions::get(&status.conditions, "Retained").map(|c| c.reason.clone());
        let mut set = |is: bool, reason: &str, text: &str| {
            conditions::set(&mut status.conditions, "Retained", is, reason, text, generation, now);
        };
        let Pruned { removed, left, kept } =
            match retention::apply(context, schedule, policy, now).await {
                Ok(pruned) => pruned,
                Err(failure) => {
                    set(false, failure.reason, &failure.text());
                    context.warn(schedule, "PruneFailed", &failure.text()).await;
                    return Vec::new();
                }
            };
        match kept {
            None => {
                let text = format!(
                    "what the policy does not keep is deleted: the cluster has {left} backups in the store, whoever made them"
                );
                set(true, "Pruned", &text);
            }
            Some(Kept { objects, until }) => {
                let first = until.map_or_else(String::new, |at| format!(", the first until {at}"));
                let text = format!(
                    "{objects} objects that the policy does not keep are locked in the store{first}; they go with a later backup, when their lock has ended"
                );
                set(true, LOCKED, &text);
                if before.as_deref() != Some(LOCKED) {
                    context.note(schedule, LOCKED, &text).await;
                }
            }
        }
        if !removed.is_empty() {
            let text = format!("{} backups were deleted, and {left} are left", removed.len());
            context.note(schedule, "Pruned", &text).await;
        }
        let shows = |child: &&EtcdBackup| {
            let backup = child.status.as_ref().and_then(|status| status.backup.as_ref());
            backup.is_some_and(|backup| removed.contains(backup))
        };
        let ours: Vec<_> = self.children.iter().filter(shows).map(ResourceExt::name_any).collect();
        let spec = &schedule.spec.template.spec;
        let place = (&*spec.store_name, &*spec.cluster.name);
        let by = format!("EtcdBackupSchedule {}", schedule.name_any());
        // The look at the store tells of it too, later.
        if let Err(failure) = stored::pruned(context, schedule, place, &removed, &ours, &by).await {
            tracing::warn!(
                error = failure.message,
                "who shows a backup that was pruned is not told yet"
            );
        }
        ours
    }

    /// Removes an EtcdBackup; which backups stay in the store is for retention alone to say.
    async fn forget(&self, name: &str) -> Result<(), Failure> {
        let Some(child) = self.children.iter().find(|child| child.name_any() == name) else {
            return Ok(());
        };
        if !child.finalizers().is_empty() {
            let patch = json!({ "metadata": { "annotations": { RETAIN: "true" } } });
            match self.api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Err(error) if !is_gone(&error) => return Err(error.into()),
                _ => {}
            }
        }
        remove_object(&self.api, child).await.map(drop)
    }
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
