//! One cluster's life: wait for a slot, back up, try again, prune; verify at other times; notice when nothing succeeds.
//!
//! * Backups of one cluster never overlap: one task makes them, one after the other.
//! * A slot is tried until every repository has it, attempts are used up, or the next slot is due: whichever is first.
//!   Only repositories that do not have it yet are tried again.
//! * Waiting is done in pieces of `WAKE`, so a clock that jumps is noticed soon.
//! * Told to stop, a runner finishes the attempt at hand and starts no other.

use crate::{
    board::Board,
    config::Occasion,
    hooks::{Event, Hooks},
    jobs::{Failure, FailureReason, Jobs, Made, Order, Outcome},
    schedule::{Due, Schedule},
};
use futures::{
    FutureExt,
    future::{Either, join3, select},
};
use jiff::{SignedDuration, Timestamp};
use repository::{ClusterName, lease::Clock};
use std::{panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};
use tokio::sync::{Semaphore, watch};

/// The longest sleep between two looks at the clock.
const WAKE: Duration = Duration::from_secs(30);

/// Looks at staleness between two surveys of a store: a survey is a listing.
const LOOKS_PER_SURVEY: u32 = 30;

/// How far in the future a slot may be that is done: clocks of two daemons differ by less.
const SLOT_AHEAD_MAX: SignedDuration = SignedDuration::from_hours(1);

/// What is to be done for a cluster.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which.
    pub cluster: ClusterName,
    /// Where its backups go.
    pub repositories: Vec<String>,
    /// When.
    pub schedule: Schedule,
    /// When backups are verified, and into how many runs all are divided.
    pub verify: Option<(Schedule, u32)>,
    /// Whether to prune after each success.
    pub prune: bool,
    /// How long there may be no success.
    pub stale_after: Option<Duration>,
    /// Attempts for a slot.
    pub attempts: u32,
    /// The first wait between attempts.
    pub first_wait: Duration,
    /// The longest.
    pub longest_wait: Duration,
}

/// What all runners have in common.
pub struct Shared {
    /// The work.
    pub jobs: Arc<dyn Jobs>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is known.
    pub board: Arc<Board>,
    /// Who is told.
    pub hooks: Hooks,
    /// Backups that may run at once.
    pub backups: Semaphore,
    /// Verifications that may run at once.
    pub verifications: Semaphore,
}

/// A cluster's runner.
pub struct Runner {
    plan: Plan,
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
}

impl Runner {
    /// A runner that ends when `stop` says true.
    pub fn new(plan: Plan, shared: Arc<Shared>, stop: watch::Receiver<bool>) -> Self {
        Self { plan, shared, stop }
    }

    /// Runs until it is told to stop.
    pub async fn run(self) {
        join3(self.backups(), self.verifications(), self.watch()).await;
    }

    async fn backups(&self) {
        let mut done = self.newest_done().await;
        while !self.stopped() {
            let now = self.shared.clock.now();
            match self.plan.schedule.due(self.plan.cluster.as_str(), done, now) {
                Due::Now(slot) => {
                    self.slot(slot).await;
                    done = Some(slot);
                }
                Due::At { start, .. } => {
                    self.shared.board.next_run(&self.plan.cluster, start);
                    self.sleep(until(now, start)).await;
                }
                Due::Never => self.sleep(WAKE).await,
            }
        }
    }

    /// The newest slot that every repository has. One that cannot be asked has no say.
    async fn newest_done(&self) -> Option<Timestamp> {
        let mut newest = Vec::new();
        let latest =
            self.shared.clock.now().saturating_add(SLOT_AHEAD_MAX).unwrap_or(Timestamp::MAX);
        for repository in &self.plan.repositories {
            let survey = self.unless_stopped(self.survey(repository)).await.flatten();
            if let Some(survey) = survey {
                newest.push(survey.last_scheduled.filter(|slot| *slot <= latest));
            }
        }
        newest.into_iter().min().flatten()
    }

    async fn survey(&self, repository: &str) -> Option<crate::jobs::Survey> {
        let (cluster, board) = (&self.plan.cluster, &self.shared.board);
        match guarded(self.shared.jobs.survey(cluster, repository)).await {
            Ok(survey) => {
                board.surveyed(cluster, repository, &survey);
                Some(survey)
            }
            Err(failure) => {
                board.unsurveyed(cluster, repository);
                tracing::warn!(%cluster, repository, error = failure.error, "the store cannot be surveyed");
                None
            }
        }
    }

    /// Backs up for one slot.
    async fn slot(&self, slot: Timestamp) {
        let mut attempt =
            Attempt { pending: self.plan.repositories.clone(), scheduled_for: Some(slot) };
        let mut wait = self.plan.first_wait;
        for left in (0..self.plan.attempts).rev() {
            let failures = self.attempt(&mut attempt).await;
            if attempt.pending.is_empty() {
                return;
            }
            let last = left == 0 || self.stopped() || self.is_superseded(slot);
            for (repository, failure) in &failures {
                self.report(repository, slot, failure, last);
            }
            if last {
                return;
            }
            if !failures.is_empty() {
                self.sleep_whole(wait).await;
                wait = (wait * 2).min(self.plan.longest_wait);
            }
            if self.stopped() || self.is_superseded(slot) {
                // The next slot is for those that are still without.
                let given_up = "given up: the next one is due, or the daemon stops";
                tracing::warn!(cluster = %self.plan.cluster, %slot, repositories = ?attempt.pending, "{given_up}");
                for (repository, failure) in &failures {
                    self.tell_failure(repository, slot, failure);
                }
                return;
            }
        }
    }

    /// One attempt; what failed for now. Those that failed for good are reported, and not pending any more.
    async fn attempt(&self, attempt: &mut Attempt) -> Vec<(String, Failure)> {
        let (cluster, board) = (&self.plan.cluster, &self.shared.board);
        // Who still waits for its turn when the daemon stops has begun nothing.
        let Some(permit) = self.unless_stopped(self.shared.backups.acquire()).await else {
            return Vec::new();
        };
        board.running(cluster, Some(self.shared.clock.now()));
        let Attempt { pending, scheduled_for } = attempt.clone();
        let order = Order { cluster, repositories: &pending, scheduled_for };
        let work = self.shared.jobs.backup(order);
        let results = match AssertUnwindSafe(work).catch_unwind().await {
            Ok(results) => results,
            Err(_) => pending.iter().map(|name| (name.clone(), Err(Failure::of_panic()))).collect(),
        };
        board.running(cluster, None);
        drop(permit);

        let mut failures = Vec::new();
        for (repository, result) in results {
            match result {
                Ok(Outcome::Made(made)) => {
                    self.succeeded(&repository, attempt.scheduled_for, &made).await;
                    attempt.pending.retain(|name| *name != repository);
                }
                Ok(Outcome::AlreadyDone) if self.is_done_in_the_future(&repository).await => {
                    attempt.scheduled_for = None;
                }
                Ok(Outcome::AlreadyDone) => {
                    tracing::info!(%cluster, repository, "another daemon has made this backup");
                    attempt.pending.retain(|name| *name != repository);
                }
                Err(failure) => {
                    board.failed(cluster, &repository, &failure);
                    if !failure.retryable {
                        attempt.pending.retain(|name| *name != repository);
                        self.report(
                            &repository,
                            scheduled_for.unwrap_or_else(|| self.shared.clock.now()),
                            &failure,
                            true,
                        );
                    } else {
                        failures.push((repository, failure));
                    }
                }
            }
        }
        failures
    }

    /// Whether the store says that a slot was done whose time has not come: some clock was far ahead. A backup is then
    /// made outside of the schedule, rather than none until that time.
    async fn is_done_in_the_future(&self, repository: &str) -> bool {
        let latest =
            self.shared.clock.now().saturating_add(SLOT_AHEAD_MAX).unwrap_or(Timestamp::MAX);
        let survey = self.survey(repository).await;
        let ahead = survey.and_then(|s| s.last_scheduled).filter(|slot| *slot > latest);
        if let Some(slot) = ahead {
            tracing::warn!(cluster = %self.plan.cluster, repository, %slot, "a slot in the future is marked as done: some clock was wrong");
        }
        ahead.is_some()
    }

    async fn succeeded(&self, repository: &str, slot: Option<Timestamp>, made: &Made) {
        let cluster = &self.plan.cluster;
        self.shared.board.made(cluster, repository, made);
        tracing::info!(
            %cluster, repository, backup = %made.id, revision = made.revision, bytes = made.bytes,
            stored_bytes = made.stored_bytes, seconds = made.took.as_secs_f64(), "backup done"
        );
        if !made.differing_members.is_empty() {
            tracing::error!(%cluster, members = ?made.differing_members, "members disagree on HashKV: their data differs");
        }
        let event = Event {
            repository: Some(repository.to_owned()),
            scheduled_for: slot,
            backups: vec![made.id.to_string()],
            revision: Some(made.revision),
            bytes: Some(made.bytes),
            ..Event::new(Occasion::Success, cluster.as_str(), self.shared.clock.now())
        };
        self.shared.hooks.tell(Occasion::Success, &event);
        if self.plan.prune {
            self.prune(repository).await;
        }
    }

    async fn prune(&self, repository: &str) {
        let (cluster, board) = (&self.plan.cluster, &self.shared.board);
        match guarded(self.shared.jobs.prune(cluster, repository)).await {
            Ok(pruned) => {
                board.pruned(cluster, repository, self.shared.clock.now(), &pruned);
                let crate::jobs::Pruned { removed, freed_bytes, locked } = pruned;
                tracing::info!(%cluster, repository, removed, freed_bytes, locked, "pruned");
            }
            Err(failure) => {
                board.unpruned(cluster, repository, &failure);
                tracing::error!(%cluster, repository, reason = failure.reason.name(), error = failure.error, "pruning failed");
            }
        }
    }

    fn report(&self, repository: &str, slot: Timestamp, failure: &Failure, last: bool) {
        let (cluster, reason, error) = (&self.plan.cluster, failure.reason.name(), &failure.error);
        if failure.reason == FailureReason::Stopped {
            // Whoever stops the daemon knows; the next one catches up.
            tracing::info!(%cluster, repository, %slot, "backup abandoned, as the daemon is stopped");
            return;
        }
        if !last {
            tracing::warn!(%cluster, repository, %slot, reason, error, "backup failed; it will be tried again");
            return;
        }
        tracing::error!(%cluster, repository, %slot, reason, error, help = failure.remedy, "backup failed");
        self.tell_failure(repository, slot, failure);
    }

    fn tell_failure(&self, repository: &str, slot: Timestamp, failure: &Failure) {
        let event = Event {
            repository: Some(repository.to_owned()),
            scheduled_for: Some(slot),
            reason: Some(failure.reason.name()),
            error: Some(failure.error.clone()),
            ..Event::new(Occasion::Failure, self.plan.cluster.as_str(), self.shared.clock.now())
        };
        self.shared.hooks.tell(Occasion::Failure, &event);
    }

    fn is_superseded(&self, slot: Timestamp) -> bool {
        let now = self.shared.clock.now();
        matches!(self.plan.schedule.due(self.plan.cluster.as_str(), Some(slot), now), Due::Now(_))
    }

    async fn verifications(&self) {
        let Some((schedule, of)) = &self.plan.verify else { return };
        let (cluster, board) = (&self.plan.cluster, &self.shared.board);
        let repositories = || self.plan.repositories.iter();
        while !self.stopped() {
            let now = self.shared.clock.now();
            // What was done under earlier settings is known, so that reading them again does not do it again.
            let done = repositories().map(|name| board.verification_slot(cluster, name)).min();
            match schedule.due(cluster.as_str(), done.flatten(), now) {
                Due::Now(slot) => {
                    let is_left = |name: &&String| {
                        board.verification_slot(cluster, name).is_none_or(|done| done < slot)
                    };
                    for repository in repositories().filter(is_left) {
                        self.verify(repository, *of).await;
                        if !self.stopped() {
                            board.verification_done(cluster, repository, slot);
                        }
                    }
                }
                Due::At { start, .. } => self.sleep(until(now, start)).await,
                Due::Never => self.sleep(WAKE).await,
            }
        }
    }

    async fn verify(&self, repository: &str, of: u32) {
        if self.stopped() {
            return;
        }
        let _permit = self.shared.verifications.acquire().await;
        let (cluster, board) = (&self.plan.cluster, &self.shared.board);
        // It changes nothing but its own record, so it need not be waited for when the daemon stops.
        let work = guarded(self.shared.jobs.verify(cluster, repository, of));
        let Some(result) = self.unless_stopped(work).await else { return };
        match result {
            Ok(found) => {
                let now = self.shared.clock.now();
                board.verified(cluster, repository, now, &found);
                if found.damaged.is_empty() {
                    tracing::info!(%cluster, repository, sound = found.sound, "verified");
                    return;
                }
                let damaged: Vec<_> = found.damaged.iter().map(ToString::to_string).collect();
                tracing::error!(%cluster, repository, ?damaged, "damaged backups");
                let event = Event {
                    repository: Some(repository.to_owned()),
                    backups: damaged,
                    ..Event::new(Occasion::Damage, cluster.as_str(), now)
                };
                self.shared.hooks.tell(Occasion::Damage, &event);
            }
            Err(failure) => {
                board.unverified(cluster, repository, &failure);
                tracing::error!(%cluster, repository, reason = failure.reason.name(), error = failure.error, "verification failed");
            }
        }
    }

    /// Notices what does not happen, and asks the stores now and then.
    async fn watch(&self) {
        let since = self.shared.clock.now();
        let mut looks = 1_u32;
        while !self.stopped() {
            self.sleep(WAKE).await;
            if self.stopped() {
                return;
            }
            if looks.is_multiple_of(LOOKS_PER_SURVEY) {
                for repository in &self.plan.repositories {
                    let _ = self.unless_stopped(self.survey(repository)).await;
                }
            }
            looks = looks.wrapping_add(1);
            self.look_for_staleness(since);
        }
    }

    fn look_for_staleness(&self, since: Timestamp) {
        let now = self.shared.clock.now();
        let Some(after) = self.stale_after(now) else { return };
        let cluster = &self.plan.cluster;
        for repository in &self.plan.repositories {
            if self.shared.board.becomes_stale(cluster, repository, (now, since), after) {
                tracing::error!(%cluster, repository, longer_than = %after, "no backup has succeeded for too long");
                let event = Event {
                    repository: Some(repository.clone()),
                    ..Event::new(Occasion::Stale, cluster.as_str(), now)
                };
                self.shared.hooks.tell(Occasion::Stale, &event);
            }
        }
    }

    fn stale_after(&self, now: Timestamp) -> Option<SignedDuration> {
        match self.plan.stale_after {
            Some(after) => SignedDuration::try_from(after).ok(),
            None => self.plan.schedule.period(now)?.checked_mul(2),
        }
    }

    fn stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Sleeps, but not longer than until the clock should be looked at again.
    async fn sleep(&self, wait: Duration) {
        self.sleep_whole(wait.min(WAKE)).await;
    }

    async fn sleep_whole(&self, wait: Duration) {
        self.unless_stopped(self.shared.clock.sleep(wait)).await;
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut stop = self.stop.clone();
        let stopped = async {
            // An error means that nobody can stop this runner any more: then it is at its end too.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        match select(pin!(work), pin!(stopped)).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(_) => None,
        }
    }
}

/// Where a slot is still to be done.
#[derive(Clone)]
struct Attempt {
    pending: Vec<String>,
    scheduled_for: Option<Timestamp>,
}

impl Failure {
    fn of_panic() -> Self {
        Self {
            reason: FailureReason::Internal,
            error: "a fault in Lifeboat itself; its trace is on standard error".to_owned(),
            remedy: "report it, with that trace".to_owned(),
            retryable: true,
        }
    }
}

/// A fault in one cluster's work must not end the others'.
async fn guarded<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result,
        Err(_) => Err(Failure::of_panic()),
    }
}

fn until(now: Timestamp, start: Timestamp) -> Duration {
    Duration::try_from(start.duration_since(now)).unwrap_or(Duration::ZERO)
}
