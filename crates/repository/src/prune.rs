//! Pruning: what the policy does not keep goes, and so do the remains of backups that never became one.
//!
//! Planned in full, printable, then executed. A kill at any instant leaves what the next run completes.
//!
//! * A backup goes manifest first, so nothing is ever claimed that is not whole; a note of damage goes last, so a
//!   damaged backup never looks sound meanwhile. Manifests of earlier generations go before the one that counts.
//! * Right before the first deletion everything is listed anew and decided anew. Only what both say goes. If one of the
//!   backups that the plan kept as the newest or the floor is not there or not sound any more, nothing goes.
//! * The remains of a broken backup go when they are older than a grace period, by the time in their name, and are
//!   not the run of whoever holds the writer's lease. First their door is closed
//!   ([`abandon`]), so a writer that slept all that time cannot commit what is being deleted. What
//!   closes the door stays for 30 days.
//! * Objects of generations before the one that counts go, as long as that one is whole.
//! * What cannot be read stays, and so does everything while a pin cannot be read.

use crate::{
    BackupId, ClusterName,
    checks::DAMAGED,
    lease::{LeaseError, Settled, abandon, current},
    listing::{Backup, Listing, Orphan, State, bytes, name},
    manifest::{
        self, Abandoned, Committed, FIRST_GENERATION, MANIFEST_BYTES_MAX, generation_of,
        manifest_generation, manifest_name,
    },
    repository::{Repository, RepositoryError, create_json, folder},
    retention::{Decision, Policy, Reason, decide},
    store::{Entry, StoreError},
};
use futures::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::BTreeSet,
    fmt,
    sync::atomic::{AtomicU32, Ordering},
};

/// How long what closes the door of a broken backup stays: longer than any writer sleeps.
const CLOSED_DOOR_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

/// After so many deletions in a row that could not reach the store, the rest is not tried: each waits for its retries.
const UNREACHABLE_MAX: u32 = 8;

/// How to prune.
#[derive(Clone, Copy, Debug)]
pub struct PruneOptions {
    /// How old the remains of a broken backup must be.
    pub grace: SignedDuration,
    /// How many folders are cleared at once.
    pub parallel: usize,
}

impl Default for PruneOptions {
    /// A day: longer than any backup takes.
    fn default() -> Self {
        Self { grace: SignedDuration::from_hours(24), parallel: 8 }
    }
}

/// What is going to be done, and why.
#[derive(Debug)]
pub struct PrunePlan {
    /// Every backup, newest first.
    pub backups: Vec<PlannedBackup>,
    /// Every folder that is no backup.
    pub orphans: Vec<PlannedOrphan>,
    /// Folders that cannot be read; they stay.
    pub unreadable: Vec<(BackupId, String)>,
    /// What `max-total-size` asks for but the floor, pins and the newest forbid, in bytes.
    pub over_size: Option<u64>,
    policy: Policy,
    options: PruneOptions,
    now: Timestamp,
    listing: Listing,
}

/// What happens to a backup.
#[derive(Clone, Debug)]
pub struct PlannedBackup {
    /// Whether it stays, and why.
    pub decision: Decision,
    /// What it has in the store.
    pub bytes: u64,
    /// Bytes of generations before the one that counts; they go also if it stays.
    pub superseded_bytes: u64,
}

/// What happens to a folder that is no backup.
#[derive(Clone, Debug)]
pub struct PlannedOrphan {
    /// The backup that it would have been.
    pub id: BackupId,
    /// What it has in the store.
    pub bytes: u64,
    /// How old it is, by its name.
    pub age: SignedDuration,
    /// What happens.
    pub fate: Fate,
}

/// What happens to a folder that is no backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes.
    Remove,
    /// It stays: it is younger than the grace period.
    TooYoung,
    /// It stays: whoever holds the lease writes it, or did.
    Running,
    /// It stays: nothing is left but what keeps a writer from committing it.
    Closed,
}

/// What was done.
#[derive(Debug, Default)]
pub struct PruneReport {
    /// Backups and remains that are gone.
    pub removed: Vec<BackupId>,
    /// Bytes that are free now.
    pub bytes_freed: u64,
    /// Objects that the store keeps for now.
    pub locked: Vec<StoreError>,
    /// What else could not be done.
    pub failed: Vec<RepositoryError>,
    /// Folders that were not tried, because the store could not be reached any more.
    pub untried: usize,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneProgress {
    /// Folders done.
    pub done: usize,
    /// Folders to do.
    pub of: usize,
    /// Bytes that are free now.
    pub bytes_freed: u64,
}

/// Why nothing was pruned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PruneError {
    /// A backup that the plan relied on has changed.
    #[error("{id}, which was to stay ({reason}), is not there or not sound any more")]
    Changed {
        /// The backup.
        id: BackupId,
        /// Why it was to stay.
        reason: Reason,
    },
    /// A pin cannot be read.
    #[error("a pin of {cluster} cannot be read, so it is not known what it holds")]
    Pin {
        /// The cluster.
        cluster: ClusterName,
        /// Why not.
        source: RepositoryError,
    },
    /// What was to be removed is pinned.
    #[error("{id} is pinned as {}", pins.join(", "))]
    Pinned {
        /// The backup.
        id: BackupId,
        /// Its pins.
        pins: Vec<String>,
    },
    /// The repository cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl PruneError {
    /// One imperative sentence; printed after `help:`.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Changed { .. } => {
                "see `lifeboat list`, find out who deletes there, then prune again"
            }
            Self::Pin { .. } => "repair or remove that pin, then prune again",
            Self::Pinned { .. } => "remove its pins with `lifeboat keep --remove` if it is to go",
            Self::Repository(source) => source.remedy(),
        }
    }

    /// Whether the store could not be reached; the reason for exit code 4.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Changed { .. } | Self::Pinned { .. } => false,
            Self::Pin { source, .. } | Self::Repository(source) => source.is_unreachable(),
        }
    }
}

impl PruneReport {
    /// Whether everything that was to go is gone.
    pub fn is_complete(&self) -> bool {
        self.locked.is_empty() && self.failed.is_empty() && self.untried == 0
    }
}

impl PrunePlan {
    /// Decides, and deletes nothing.
    pub async fn new(
        repository: &Repository,
        cluster: &ClusterName,
        policy: &Policy,
        now: Timestamp,
        options: PruneOptions,
    ) -> Result<Self, PruneError> {
        let listing = repository.backups(cluster).await?;
        Self::of(repository, listing, policy, now, options).await
    }

    /// Decides over a listing.
    async fn of(
        repository: &Repository,
        mut listing: Listing,
        policy: &Policy,
        now: Timestamp,
        options: PruneOptions,
    ) -> Result<Self, PruneError> {
        if let Some(source) = listing.pins.unreadable.pop() {
            return Err(PruneError::Pin { cluster: listing.cluster, source });
        }
        // After the list: a writer claims a run before its first byte, so each folder listed is known to the claim.
        let claim = current(repository.store(), &listing.cluster).await;
        let running = claim.map_err(RepositoryError::from)?.and_then(|claim| claim.run);
        let running = running.map(|run| run.id);

        let candidates: Vec<_> = listing.backups.iter().map(Backup::candidate).collect();
        let decisions = decide(&candidates, now, policy);
        // Both are sorted the same way.
        let planned = listing.backups.iter().zip(decisions).map(|(backup, decision)| {
            assert_eq!(backup.id(), decision.id, "a decision for each backup, in order");
            PlannedBackup {
                decision,
                bytes: backup.stored_bytes(),
                superseded_bytes: bytes(&superseded(backup)),
            }
        });
        let backups: Vec<_> = planned.collect();
        let plan_orphan = |orphan: &Orphan| plan_orphan(orphan, running, now, options.grace);
        let orphans = listing.orphans.iter().map(plan_orphan).collect();
        let unreadable = listing.unreadable.iter().map(|u| (u.id, u.error.to_string())).collect();

        let kept = backups.iter().filter(|planned| planned.decision.keep).map(|p| p.bytes);
        let kept = kept.fold(0, u64::saturating_add);
        let over_size = policy.max_total_size.and_then(|max| kept.checked_sub(max.bytes()));
        let over_size = over_size.filter(|over| *over > 0);
        let policy = policy.clone();
        Ok(Self { backups, orphans, unreadable, over_size, policy, options, now, listing })
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.removals().next().is_none()
            && self.backups.iter().all(|planned| planned.superseded_bytes == 0)
    }

    /// What is going to go: backups, and remains of broken ones.
    pub fn removals(&self) -> impl Iterator<Item = BackupId> {
        let backups = self.backups.iter().map(|planned| &planned.decision);
        let backups = backups.filter(|decision| !decision.keep).map(|decision| decision.id);
        let orphans = self.orphans.iter().filter(|orphan| orphan.fate == Fate::Remove);
        backups.chain(orphans.map(|orphan| orphan.id))
    }

    /// How many bytes that will free.
    pub fn bytes_to_free(&self) -> u64 {
        let backups = self.backups.iter().map(|planned| {
            if planned.decision.keep { planned.superseded_bytes } else { planned.bytes }
        });
        let orphans = self.orphans.iter().filter(|orphan| orphan.fate == Fate::Remove);
        backups.chain(orphans.map(|orphan| orphan.bytes)).fold(0, u64::saturating_add)
    }

    /// Decides anew, then deletes what both say. One folder that fails does not keep the others.
    pub async fn execute(
        self,
        repository: &Repository,
        progress: impl Fn(PruneProgress),
    ) -> Result<PruneReport, PruneError> {
        let Self { backups, orphans, policy, options, now, listing, .. } = self;
        let planned: BTreeSet<BackupId> = {
            let backups = backups.iter().filter(|p| !p.decision.keep).map(|p| p.decision.id);
            let orphans = orphans.iter().filter(|o| o.fate == Fate::Remove).map(|o| o.id);
            backups.chain(orphans).collect()
        };
        if planned.is_empty() && backups.iter().all(|p| p.superseded_bytes == 0) {
            return Ok(PruneReport::default());
        }
        let again = repository.backups_again(listing).await?;
        let again = Self::of(repository, again, &policy, now, options).await?;
        again.still_has_the_floor_of(&backups)?;
        Ok(again.delete(repository, &planned, progress).await)
    }

    /// Nothing is deleted for the sake of backups that are not there.
    fn still_has_the_floor_of(&self, before: &[PlannedBackup]) -> Result<(), PruneError> {
        for Decision { id, reasons, .. } in before.iter().map(|planned| &planned.decision) {
            let relied_on =
                |reason: &&Reason| matches!(reason, Reason::NewestVerified | Reason::Floor { .. });
            let Some(reason) = reasons.iter().find(relied_on) else { continue };
            let backup = self.listing.get(*id);
            if backup.is_none_or(|backup| backup.unfit().is_some()) {
                return Err(PruneError::Changed { id: *id, reason: reason.clone() });
            }
        }
        Ok(())
    }

    async fn delete(
        &self,
        repository: &Repository,
        planned: &BTreeSet<BackupId>,
        progress: impl Fn(PruneProgress),
    ) -> PruneReport {
        // The oldest first, should this be cut.
        let jobs: Vec<_> = self.jobs(planned).into_iter().rev().collect();
        let of = jobs.len();
        let sweep = Sweep {
            repository,
            cluster: &self.listing.cluster,
            now: self.now,
            unreachable: AtomicU32::new(0),
        };
        let sweep = &sweep;
        let swept: Vec<_> =
            jobs.into_iter().map(|job| async move { sweep.run(job).await }).collect();
        let mut swept = stream::iter(swept).buffer_unordered(self.options.parallel.max(1));
        let (mut report, mut done) = (PruneReport::default(), 0);
        while let Some(part) = swept.next().await {
            done += 1;
            report.removed.extend(part.removed);
            report.bytes_freed += part.bytes_freed;
            report.locked.extend(part.locked);
            report.failed.extend(part.failed);
            report.untried += part.untried;
            progress(PruneProgress { done, of, bytes_freed: report.bytes_freed });
        }
        report.removed.sort();
        report
    }

    fn jobs(&self, planned: &BTreeSet<BackupId>) -> Vec<Job<'_>> {
        let mut jobs = Vec::new();
        for orphan in &self.listing.orphans {
            let fate = self.orphans.iter().find(|o| o.id == orphan.id).map(|o| o.fate);
            if fate == Some(Fate::Remove) && planned.contains(&orphan.id) {
                jobs.push(Job::Orphan(orphan));
            }
        }
        for (backup, decided) in self.listing.backups.iter().zip(&self.backups) {
            if !decided.decision.keep && planned.contains(&backup.id()) {
                jobs.push(Job::Backup(backup));
            } else if decided.superseded_bytes > 0 {
                jobs.push(Job::Superseded(backup));
            }
        }
        jobs
    }
}

impl Repository {
    /// Deletes one backup, whatever a policy would say; not one that is pinned. That it is gone already is no error, and
    /// what an earlier attempt has left of it goes too.
    pub async fn remove(
        &self,
        cluster: &ClusterName,
        id: BackupId,
        now: Timestamp,
    ) -> Result<PruneReport, PruneError> {
        let mut listing = self.backups(cluster).await?;
        if let Some(source) = listing.pins.unreadable.pop() {
            return Err(PruneError::Pin { cluster: listing.cluster, source });
        }
        let pins = listing.pins.on(id);
        if !pins.is_empty() {
            return Err(PruneError::Pinned { id, pins });
        }
        let sweep = Sweep { repository: self, cluster, now, unreachable: AtomicU32::new(0) };
        let left = listing.orphans.iter().find(|orphan| orphan.id == id);
        Ok(match (listing.get(id), left) {
            (Some(backup), _) => sweep.run(Job::Backup(backup)).await,
            (None, Some(left)) if !left.is_only_closed() => sweep.run(Job::Orphan(left)).await,
            (None, _) => PruneReport::default(),
        })
    }
}

fn plan_orphan(
    orphan: &Orphan,
    running: Option<BackupId>,
    now: Timestamp,
    grace: SignedDuration,
) -> PlannedOrphan {
    let age = now.duration_since(orphan.id.started());
    let fate = if running == Some(orphan.id) {
        Fate::Running
    } else if age <= grace {
        // Also what is dated in the future.
        Fate::TooYoung
    } else if orphan.is_only_closed() && age <= CLOSED_DOOR_KEPT {
        Fate::Closed
    } else {
        Fate::Remove
    };
    PlannedOrphan { id: orphan.id, bytes: orphan.stored_bytes(), age, fate }
}

/// Objects of generations before the one that counts, in the order in which they may go; none unless that one is whole.
fn superseded(backup: &Backup) -> Vec<Entry> {
    if backup.state != State::Whole {
        return Vec::new();
    }
    let before = |entry: &&Entry| {
        generation_of(name(&entry.path)).is_some_and(|generation| generation < backup.generation)
    };
    let mut objects: Vec<_> = backup.objects.iter().filter(before).cloned().collect();
    objects.sort_by_key(|entry| deletion_rank(name(&entry.path)));
    objects
}

/// Manifests first, from the lowest generation; then objects; what says that they are damaged last.
fn deletion_rank(object: &str) -> (u8, u32) {
    match manifest_generation(object) {
        Some(generation) => (0, generation),
        None if object == DAMAGED => (2, 0),
        None => (1, 0),
    }
}

/// A folder to clear.
enum Job<'a> {
    Backup(&'a Backup),
    Orphan(&'a Orphan),
    Superseded(&'a Backup),
}

/// Deletes folders.
struct Sweep<'a> {
    repository: &'a Repository,
    cluster: &'a ClusterName,
    now: Timestamp,
    /// Deletions in a row that could not reach the store.
    unreachable: AtomicU32,
}

impl Sweep<'_> {
    async fn run(&self, job: Job<'_>) -> PruneReport {
        let mut report = PruneReport::default();
        if self.unreachable.load(Ordering::Relaxed) >= UNREACHABLE_MAX {
            report.untried = 1;
            return report;
        }
        let removed = match job {
            Job::Backup(backup) => {
                let mut objects = backup.objects.clone();
                objects.sort_by_key(|entry| deletion_rank(name(&entry.path)));
                self.delete_in_order(&objects, &mut report).await.then_some(backup.id())
            }
            Job::Superseded(backup) => {
                self.delete_in_order(&superseded(backup), &mut report).await;
                None
            }
            Job::Orphan(orphan) => self.clear(orphan, &mut report).await.then_some(orphan.id),
        };
        report.removed.extend(removed);
        report
    }

    /// Closes the door, then deletes what lies behind it.
    async fn clear(&self, orphan: &Orphan, report: &mut PruneReport) -> bool {
        let names = orphan.objects.iter().map(|entry| name(&entry.path));
        let mut generations: BTreeSet<_> = names.filter_map(generation_of).collect();
        generations.insert(FIRST_GENERATION);
        for generation in &generations {
            match self.close(orphan.id, *generation).await {
                Ok(Settled::Abandoned) => {}
                // It was just being committed: no orphan at all.
                Ok(Settled::Committed) => return false,
                Err(LeaseError::Store { source, .. }) => {
                    self.note(source, report);
                    return false;
                }
                Err(error) => {
                    report.failed.push(error.into());
                    return false;
                }
            }
        }
        let is_door = |entry: &&Entry| manifest_generation(name(&entry.path)).is_some();
        let behind = orphan.objects.iter().filter(|entry| !is_door(entry));
        let behind: Vec<_> = behind.cloned().collect();
        if !self.delete_in_order(&behind, report).await {
            return false;
        }
        if self.now.duration_since(orphan.id.started()) <= CLOSED_DOOR_KEPT {
            return true;
        }
        let doors = generations.into_iter().map(|generation| {
            let path = folder(self.cluster, orphan.id) + &manifest_name(generation);
            let listed = orphan.objects.iter().find(|entry| entry.path == path);
            listed.cloned().unwrap_or(Entry { path, bytes: 0 })
        });
        self.delete_in_order(&doors.collect::<Vec<_>>(), report).await
    }

    /// Makes sure that a generation of a backup can never be committed. Those after the first are not the lease's.
    async fn close(&self, id: BackupId, generation: u32) -> Result<Settled, LeaseError> {
        let store = self.repository.store();
        if generation == FIRST_GENERATION {
            return abandon(store, self.cluster, id, 0, self.now).await;
        }
        let path = folder(self.cluster, id) + &manifest_name(generation);
        let door = Abandoned { format: manifest::FORMAT, id, abandoned_by: 0, at: self.now };
        let failed = |source| LeaseError::Store { attempted: "close a broken backup", source };
        match create_json(store, &path, &door).await {
            Ok(()) => return Ok(Settled::Abandoned),
            Err(StoreError::Exists { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
        let json = store.read(&path, MANIFEST_BYTES_MAX).await.map_err(failed)?;
        Ok(match Committed::parse(&path, &json)? {
            Committed::Backup(_) => Settled::Committed,
            Committed::Abandoned(_) => Settled::Abandoned,
        })
    }

    /// Deletes one after the other. After a manifest that stays nothing goes: its backup must stay whole.
    /// Says whether all are gone.
    async fn delete_in_order(&self, objects: &[Entry], report: &mut PruneReport) -> bool {
        let mut all = true;
        for entry in objects {
            match self.repository.store().delete(&entry.path).await {
                Ok(()) | Err(StoreError::NotFound { .. }) => {
                    self.unreachable.store(0, Ordering::Relaxed);
                    report.bytes_freed += entry.bytes;
                }
                Err(error) => {
                    all = false;
                    self.note(error, report);
                    if manifest_generation(name(&entry.path)).is_some() {
                        break;
                    }
                }
            }
        }
        all
    }

    fn note(&self, error: StoreError, report: &mut PruneReport) {
        if error.is_unreachable() {
            self.unreachable.fetch_add(1, Ordering::Relaxed);
        }
        match error {
            StoreError::Locked { .. } => report.locked.push(error),
            error => report.failed.push(error.into()),
        }
    }
}

impl fmt::Display for PrunePlan {
    /// A line each: what happens, to what, why.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for PlannedBackup { decision: Decision { id, keep, reasons }, .. } in &self.backups {
            let verdict = if *keep { "keep" } else { "remove" };
            let reasons: Vec<_> = reasons.iter().map(Reason::to_string).collect();
            writeln!(f, "{verdict:7} {id}  {}", reasons.join(", "))?;
        }
        for PlannedOrphan { id, age, fate, .. } in &self.orphans {
            let verdict = if *fate == Fate::Remove { "remove" } else { "keep" };
            writeln!(f, "{verdict:7} {id}  no backup, {} h old: {fate}", age.as_hours())?;
        }
        for (id, error) in &self.unreadable {
            writeln!(f, "{:7} {id}  {error}", "keep")?;
        }
        Ok(())
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Remove => "broken off",
            Self::TooYoung => "within the grace period",
            Self::Running => "a writer is at it",
            Self::Closed => "closed to a writer that may still wake",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_goes_manifests_first_and_the_note_of_damage_last() {
        let mut objects =
            ["damaged.json", "db.2.zst", "manifest.2.json", "db.zst", "manifest.json"];
        objects.sort_by_key(|object| deletion_rank(object));
        assert_eq!(
            objects,
            ["manifest.json", "manifest.2.json", "db.2.zst", "db.zst", "damaged.json"]
        );
    }
}
