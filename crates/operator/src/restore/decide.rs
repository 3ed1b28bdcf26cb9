//! What a restore does next: a pure function of its object, of what was seen, and of the time.
//!
//! * A phase is a goal. Whatever is not as the phase wants it is asked for again each time, so an action that was lost with a killed
//!   operator is done by the next.
//! * The status is written before its actions are done: what must be remembered (the replicas there were) is, before it changes.
//! * Until [`Stopping`] nothing is changed, so a refusal there leaves nothing to take back. From then on
//!   every failure leads through [`RollingBack`].
//! * From then on, too, it goes by the spec that it has begun with (`status.begunWith`), and holds its target.

mod check;
mod forward;
mod rollback;

use super::begun;
use crate::{
    api::{
        EtcdRestore, EtcdRestoreStatus, Member, RestoreFailure, RestorePhase, RestoreSource,
        StatefulSetTarget,
    },
    conditions::{self, seconds},
    failure::Failure,
    volume::Answer,
};
use RestorePhase::{
    Building, Checking, Failed, Pending, RollingBack, Starting, Stopping, Succeeded, Swapping,
    Verifying,
};
use jiff::Timestamp;
use k8s_openapi::{api::apps::v1::StatefulSet, apimachinery::pkg::apis::meta::v1::Time};
use kube::{Resource, ResourceExt};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long pods may take to end, or a Job's to begin.
const PATIENCE_SECONDS: i64 = 600;
/// When a look is taken again although nothing has told of a change.
const AGAIN: Duration = Duration::from_secs(5);
/// The same where somebody else must do something first.
const LATER: Duration = Duration::from_secs(20);

/// A step that Jobs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A look at all that the others need but the volume, before anything is changed.
    Probe,
    /// New data.
    Build,
    /// New data in place.
    Swap,
    /// Old data in place again.
    Undo,
}

impl Step {
    /// As `lifeboat volume` and labels have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Build => "build",
            Self::Swap => "swap",
            Self::Undo => "undo",
        }
    }
}

/// A Job, as far as it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobSeen {
    /// It runs; or its pod waits, for that.
    Running {
        /// Why its pod has not begun.
        waits_for: Option<String>,
        /// Since when it waits.
        since: Option<Timestamp>,
        /// Whether any pod of it has begun.
        begun: bool,
    },
    /// It was removed, and its pods may still be there.
    Ending,
    /// It ended well, with its last words.
    Succeeded(Answer),
    /// It was given up.
    Failed(String),
}

/// How many replicas something has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas {
    /// Asked for.
    pub wanted: i32,
    /// There.
    pub there: i32,
}

/// A source that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// It, with a backup's own name in place of `latest`.
    pub source: RestoreSource,
    /// The backup's name.
    pub backup: Option<String>,
    /// Its revision.
    pub revision: Option<i64>,
    /// The members that the cluster had.
    pub members: Vec<Member>,
}

/// Why a source cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Not now: somebody else may do something about it.
    Now(Failure),
    /// Never.
    Ever(Failure),
}

impl From<Failure> for Unusable {
    fn from(failure: Failure) -> Self {
        Self::Now(failure)
    }
}

impl From<kube::Error> for Unusable {
    fn from(error: kube::Error) -> Self {
        Self::Now(error.into())
    }
}

/// What was seen. Only what the phase needs is looked at.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The StatefulSet.
    pub set: Option<StatefulSet>,
    /// Its pods, and whether each runs.
    pub pods: BTreeMap<String, bool>,
    /// The claims that there are.
    pub claims: BTreeSet<String>,
    /// Pods that use the one claim that is written to.
    pub users: Vec<String>,
    /// The Deployment that is to keep still.
    pub deployment: Option<Replicas>,
    /// The Jobs of this run, by step and volume.
    pub jobs: BTreeMap<(Step, usize), JobSeen>,
    /// Those of them that were made from another `spec.job` than there is now.
    pub outdated: BTreeSet<(Step, usize)>,
    /// The source, or why it cannot be used.
    pub source: Option<Result<Found, Unusable>>,
    /// What speaks against the restored cluster; none if it was not asked.
    pub faults: Option<Vec<String>>,
    /// Another restore that is at work on the target.
    pub other: Option<String>,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Give the StatefulSet so many replicas.
    ScaleSet(i32),
    /// The same for the Deployment that keeps still.
    ScaleDeployment(i32),
    /// Start a Job.
    Start(Step, usize),
    /// Remove a Job, and its pods.
    Remove(Step, usize),
    /// Take hold of the object, or let it go.
    Hold(bool),
}

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The new status, written first.
    pub status: EtcdRestoreStatus,
    /// Then this is done.
    pub actions: Vec<Action>,
    /// When to look again, if nothing changes before.
    pub again: Option<Duration>,
}

/// How a phase goes on.
enum Next {
    /// Not yet: a reason, and in full.
    Stay(String, String, Option<Duration>),
    Go(RestorePhase),
    /// What has failed: a reason, and in full.
    Fail(&'static str, String),
    /// Nothing was changed, and nothing will be.
    Refuse(&'static str, String),
}

/// The condition that tells of a change that came too late.
pub const CHANGED: &str = "SpecChanged";

/// Holds an object until its cluster runs again.
pub const FINALIZER: &str = "lifeboat.dev/restore";

/// What is written to, and how it is told: `statefulset/etcd`.
pub fn target(restore: &EtcdRestore) -> Option<(&'static str, &str)> {
    let target = &restore.spec.target;
    match (&target.stateful_set, &target.pvc, &target.files) {
        (Some(set), None, None) => Some(("statefulset", &set.name)),
        (None, Some(pvc), None) => Some(("persistentvolumeclaim", &pvc.claim_name)),
        (None, None, Some(files)) => Some(("persistentvolumeclaim", &files.claim_name)),
        _ => None,
    }
}

/// Whether it is on its way.
pub fn is_active(phase: RestorePhase) -> bool {
    !matches!(phase, Pending | Succeeded | Failed)
}

/// Whether its target is its own. Before, it only looks.
pub fn holds(phase: RestorePhase) -> bool {
    is_active(phase) && phase != Checking
}

/// What comes next.
pub fn decide(restore: &EtcdRestore, seen: &Seen, now: Timestamp) -> Decision {
    let changed = begun::changed(restore);
    let restore = &begun::as_begun(restore);
    let status = restore.status.clone().unwrap_or_default();
    let mut phase = status.phase.unwrap_or_default();
    let mut turn = Turn { restore, seen, now, status, actions: Vec::new() };
    turn.tell_changed(&changed);
    let held = restore.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    if matches!(phase, Succeeded | Failed) {
        turn.actions.extend(held.then_some(Action::Hold(false)));
        return turn.end(None);
    }
    if phase == Checking && !turn.is_still_confirmed() {
        turn.forget();
        phase = Pending;
    }
    let next = turn.next(phase);
    let again = turn.apply(phase, next);
    let active = is_active(turn.status.phase.unwrap_or_default());
    if active && !held && turn.restore.meta().deletion_timestamp.is_none() {
        turn.actions.insert(0, Action::Hold(true));
    }
    turn.end(again)
}

struct Turn<'a> {
    restore: &'a EtcdRestore,
    seen: &'a Seen,
    now: Timestamp,
    status: EtcdRestoreStatus,
    actions: Vec<Action>,
}

impl Turn<'_> {
    fn end(self, again: Option<Duration>) -> Decision {
        Decision { status: self.status, actions: self.actions, again }
    }

    fn next(&mut self, phase: RestorePhase) -> Next {
        let deleted = self.restore.meta().deletion_timestamp.is_some();
        match phase {
            Pending | Checking if deleted => {
                Next::Refuse("Deleted", "the object was deleted".to_owned())
            }
            Stopping | Building | Swapping | Starting | Verifying if deleted => {
                Next::Fail("Deleted", "the object was deleted".to_owned())
            }
            Pending => self.pending(),
            Checking => self.checking().unwrap_or_else(|text| Next::Refuse("Refused", text)),
            Stopping => self.stopping(),
            Building => self.building(),
            Swapping => self.swapping(),
            Starting => self.starting(),
            Verifying => self.verifying(),
            RollingBack => self.rolling_back(),
            Succeeded | Failed => unreachable!("an end has no next"),
        }
    }

    /// Writes down how it goes on.
    fn apply(&mut self, phase: RestorePhase, next: Next) -> Option<Duration> {
        let generation = self.restore.meta().generation;
        self.status.observed_generation = generation;
        let (reason, message, again) = match next {
            Next::Stay(reason, message, again) => {
                self.enter(phase);
                (reason, message, again)
            }
            Next::Go(Succeeded) => {
                self.enter(Succeeded);
                let text = self.summary();
                let (conditions, now) = (&mut self.status.conditions, self.now);
                conditions::set(conditions, "Succeeded", true, "Restored", &text, generation, now);
                return None;
            }
            Next::Go(Failed) => {
                self.enter(Failed);
                let failure = self.status.failure.clone();
                let failure = failure.map_or_else(
                    || ("Failed".to_owned(), String::new()),
                    |failure| {
                        let message = format!("{}; the old data are in place", failure.message);
                        (failure.reason, message + &self.left())
                    },
                );
                (failure.0, failure.1, None)
            }
            Next::Go(next) => {
                if holds(next) && !holds(phase) {
                    self.status.begun_with = Some(begun::remembered(self.restore));
                }
                self.enter(next);
                (format!("{next:?}"), doing(next).to_owned(), Some(Duration::ZERO))
            }
            Next::Refuse(reason, message) => {
                self.status.failure = Some(RestoreFailure {
                    phase,
                    reason: reason.to_owned(),
                    message: message.clone(),
                });
                self.enter(Failed);
                (reason.to_owned(), format!("{message}; nothing was changed"), None)
            }
            Next::Fail(reason, message) => {
                self.status.failure = Some(RestoreFailure {
                    phase,
                    reason: reason.to_owned(),
                    message: message.clone(),
                });
                self.actions.clear();
                self.enter(RollingBack);
                (
                    reason.to_owned(),
                    format!("{message}; the old data are put back"),
                    Some(Duration::ZERO),
                )
            }
        };
        let (conditions, now) = (&mut self.status.conditions, self.now);
        conditions::set(conditions, "Succeeded", false, &reason, &message, generation, now);
        again
    }

    fn enter(&mut self, phase: RestorePhase) {
        // What is started has one deadline until it is proved.
        let goes_on = self.status.phase == Some(Starting) && phase == Verifying;
        if self.status.phase != Some(phase) && !goes_on {
            self.status.phase_since = Some(seconds(self.now));
        }
        if matches!(phase, Succeeded | Failed) {
            self.status.finished_at = Some(seconds(self.now));
        }
        self.status.phase = Some(phase);
    }

    fn summary(&self) -> String {
        let revision = self.status.restored_revision.or(self.status.revision);
        let revision = revision.map_or_else(String::new, |at| format!(" at revision {at}"));
        let run = self.run();
        match &self.restore.spec.target.stateful_set {
            Some(_) => format!(
                "{} members serve the backup's data{revision}; the old data are kept in each volume as member.lifeboat-{run}",
                self.status.volumes.len()
            ),
            None => "the volume has what was asked for".to_owned(),
        }
    }

    fn run(&self) -> &str {
        self.status.run.as_deref().unwrap_or_default()
    }

    /// Seconds since the phase began.
    fn age(&self) -> i64 {
        let since = self.status.phase_since.as_ref().map_or(self.now, |Time(since)| *since);
        self.now.duration_since(since).as_secs()
    }

    /// Seconds since then; else since the phase began.
    fn seconds_since(&self, since: Option<Timestamp>) -> i64 {
        since.map_or_else(|| self.age(), |since| self.now.duration_since(since).as_secs())
    }

    /// Says which changes came too late.
    fn tell_changed(&mut self, fields: &[&str]) {
        let generation = self.restore.meta().generation;
        if fields.is_empty() {
            self.status.conditions.retain(|condition| condition.type_ != CHANGED);
            return;
        }
        let text = format!(
            "{} was changed after the restore had begun, and the change is ignored: only job and readySeconds count from then on; \
             to stop a restore delete it, to restore anything else make another EtcdRestore",
            fields.join(", ")
        );
        let conditions = &mut self.status.conditions;
        conditions::set(conditions, CHANGED, true, "Ignored", &text, generation, self.now);
    }

    fn set_target(&self) -> Option<&StatefulSetTarget> {
        self.restore.spec.target.stateful_set.as_ref()
    }
}

fn stay(reason: &str, message: &str, again: Option<Duration>) -> Next {
    Next::Stay(reason.to_owned(), message.to_owned(), again)
}

fn wanted(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn doing(phase: RestorePhase) -> &'static str {
    match phase {
        Checking => "source and target are looked at",
        Stopping => "etcd is stopped",
        Building => "new data are made beside the old",
        Swapping => "new and old data change places",
        Starting => "etcd is started",
        Verifying => "membership, health and HashKV are asked",
        Pending | RollingBack | Succeeded | Failed => "",
    }
}

fn names(members: &[Member]) -> String {
    members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod safety;
#[cfg(test)]
mod tests;
