//! Who may write now: one writer of a cluster at a time, in a store that knows no locks.
//!
//! ```text
//!   <cluster>/writer/00000000000000000041.json   released by a
//!                    00000000000000000042.json   b, no run                          acquire
//!                    00000000000000000043.json   b, run 000…12345-2026…, slot 02:00    begin
//!                    00000000000000000044.json   b, the same, expires later            renew
//!                    00000000000000000045.json   b, released, last slot 02:00          release
//! ```
//!
//! A chain of [`Claim`]s, each created and never changed; the highest number says what holds. Whoever wants to change
//! that creates the next number, and creation is create-only, so of two who try at once one succeeds. It needs no
//! compare-and-swap, and works on a folder as on any bucket with conditional writes.
//!
//! # Why two writers can never both commit one slot
//!
//! A slot is an instant of the schedule; a run is one attempt at it, under a [`BackupId`] of its own; it is committed
//! by the creation of its `manifest.json`. No step below asks a clock, or how long anything took.
//!
//! 1. *The head only grows.* Claims are deleted only when one at least [`CLAIMS_KEPT`] higher was seen, so the highest
//!    number never goes back. A number is created for the first time by one writer alone, who had seen the number
//!    before it as the head; call that claim *true*.
//! 2. *A claim that is not true has no effect.* A writer that slept may find that its next number was used and deleted
//!    long ago, and create it again. But after each creation it lists the chain, finds a higher head, and stops
//!    ([`LeaseError::Lost`]) before it writes anything else.
//! 3. *A run is in a true claim before its first byte is stored*, and stays in the chain's head, copied from claim to
//!    claim, until it is *settled*.
//! 4. *Settling closes the door.* Whoever ends a run that it has not seen committed — its writer, or the one that takes
//!    over — first creates an [`Abandoned`] in the place of its manifest. If that succeeds, no manifest can be created
//!    there any more, however long the old writer slept, and even if its request is still under way. If something is
//!    there already, it is read: a manifest means that the slot *is* done, and `last_scheduled` says so from here on.
//! 5. *A run for a slot begins only if the slot is newer than `last_scheduled`* of the claim that it follows.
//!
//! So of two runs for one slot, the one whose claim is later follows the settlement of the earlier one: either the
//! earlier can never commit, or it has, and the later was refused. Expiry and pauses decide only who is *tried* next.
//! A clock that is wrong costs a run (its writer is told [`LeaseError::Fenced`]), never a backup.
//!
//! This holds as long as an [`Abandoned`] outlives its writer's pause: pruning keeps it far longer than the objects
//! beside it. In a store that cannot refuse a second creation ([`is_create_only`](crate::store::Backend::is_create_only))
//! everything is read back after it was written; that makes a collision unlikely, not impossible.
//!
//! # When a holder is gone
//!
//! A claim is free when it was released, when it has expired, when its process is known to have died (same machine, and
//! no such process any more), or when it has stood unchanged for its whole time to live by the reader's own stopwatch:
//! so a holder whose clock was a year ahead does not block the cluster for a year.

mod claim;
mod clock;
mod error;
mod holder;

pub use claim::{CLAIMS_KEPT, Claim, Run, current};
pub use clock::{Clock, SystemClock};
pub use error::LeaseError;
pub use holder::Holder;

use crate::{
    BackupId, ClusterName, Manifest,
    manifest::{Abandoned, Committed, FIRST_GENERATION, FORMAT, MANIFEST_BYTES_MAX, manifest_name},
    store::{Store, StoreError},
};
use claim::Appended;
use futures::future::{Either, select};
use jiff::{SignedDuration, Timestamp};
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// How often acquiring is tried again at once when another writer was quicker: each time that one made progress.
const OVERTAKEN_MAX: u32 = 16;

/// How many names are tried for a run. Each second has its own, so that many would mean a broken clock.
const IDS_TRIED_MAX: u32 = 1000;

/// How often a manifest that vanishes while it is looked at is looked for again.
const SETTLE_TRIES_MAX: u32 = 3;

/// How long a claim holds, and how long to wait for another's to end.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long a claim holds unless it is renewed; [`Lease::keep`] renews it three times as often.
    pub ttl: Duration,
    /// How long to wait for a writer that holds the cluster. Zero refuses at once.
    pub patience: Duration,
}

impl Default for Terms {
    /// A minute, and no waiting: three renewals may fail before anyone else tries, and a crash costs a minute.
    fn default() -> Self {
        Self { ttl: Duration::from_secs(60), patience: Duration::ZERO }
    }
}

/// The right to write backups of one cluster into one repository.
///
/// Dropped without [`release`](Self::release), it blocks others until it expires.
pub struct Lease {
    store: Store,
    cluster: ClusterName,
    clock: Arc<dyn Clock>,
    ttl: Duration,
    /// The newest claim of ours. Its `run` may be ahead of the chain's: it is set before it is written, so that a
    /// call that was dropped half-way leaves no run that nobody settles.
    claim: tokio::sync::Mutex<Claim>,
    /// Its number, to be read without waiting.
    fence: AtomicU64,
}

/// What became of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was committed.
    Committed,
    /// It never will be.
    Abandoned,
}

impl Lease {
    /// Takes the right to write; settles what a writer that is gone has left.
    pub async fn acquire(
        store: &Store,
        cluster: &ClusterName,
        holder: &Holder,
        terms: Terms,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, LeaseError> {
        let began = clock.monotonic();
        let mut watched = Watched::default();
        let mut overtaken = 0;
        loop {
            let head = claim::head(store, cluster).await?;
            if let Some(held) = head.as_ref().filter(|h| !watched.is_free(h, &*clock)) {
                let left = terms.patience.saturating_sub(clock.monotonic() - began);
                if left.is_zero() {
                    return Err(LeaseError::held(cluster, held, clock.now()));
                }
                clock.sleep(left.min(terms.ttl / 4).max(Duration::from_millis(1))).await;
                continue;
            }
            let claim =
                successor(store, cluster, head.as_ref(), holder, terms.ttl, &*clock).await?;
            match claim::append(store, cluster, &claim).await? {
                Appended::Head => return Ok(Self::new(store, cluster, clock, terms.ttl, claim)),
                Appended::Ours(_) | Appended::Overtaken if overtaken < OVERTAKEN_MAX => {
                    overtaken += 1;
                }
                Appended::Ours(_) | Appended::Overtaken => {
                    let by = head.as_ref().unwrap_or(&claim);
                    return Err(LeaseError::held(cluster, by, clock.now()));
                }
            }
        }
    }

    fn new(
        store: &Store,
        cluster: &ClusterName,
        clock: Arc<dyn Clock>,
        ttl: Duration,
        claim: Claim,
    ) -> Self {
        let fence = AtomicU64::new(claim.number);
        let (store, cluster) = (store.clone(), cluster.clone());
        Self { store, cluster, clock, ttl, claim: tokio::sync::Mutex::new(claim), fence }
    }

    /// The number of the newest claim: what a manifest says of its writer.
    pub fn fence(&self) -> u64 {
        self.fence.load(Ordering::Acquire)
    }

    /// The cluster it is for.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// The newest slot of the schedule that is done, or was given up, by any writer.
    pub async fn last_scheduled(&self) -> Option<Timestamp> {
        self.claim.lock().await.last_scheduled
    }

    /// Says what is going to be written. Returns the run's name: the one asked for, or, if that is used, the next second's.
    ///
    /// A run that was begun before and not committed is settled first.
    pub async fn begin(&self, run: Run) -> Result<BackupId, LeaseError> {
        let mut claim = self.claim.lock().await;
        self.settle_open(&mut claim).await?;
        let last = claim.last_scheduled;
        if let Some((slot, last)) = run.scheduled_for.zip(last).filter(|(slot, last)| slot <= last)
        {
            return Err(LeaseError::Done { cluster: self.cluster.clone(), slot, last });
        }
        let id = self.free_id(run.id).await?;
        claim.run = Some(Run { id, ..run });
        self.write(&mut claim).await?;
        Ok(id)
    }

    /// Says that this writer is alive.
    pub async fn renew(&self) -> Result<(), LeaseError> {
        self.write(&mut *self.claim.lock().await).await
    }

    /// Does the work, and renews meanwhile. If another writer takes over, the work is dropped: it could not be committed.
    ///
    /// A store that cannot be reached ends nothing here; the commit will tell.
    pub async fn keep<T>(&self, work: impl Future<Output = T>) -> Result<T, LeaseError> {
        match select(pin!(work), pin!(self.renewed_until_lost())).await {
            Either::Left((done, _)) => Ok(done),
            Either::Right((lost, _)) => Err(lost),
        }
    }

    async fn renewed_until_lost(&self) -> LeaseError {
        loop {
            self.clock.sleep(self.ttl / 3).await;
            if let Err(lost @ LeaseError::Lost { .. }) = self.renew().await {
                return lost;
            }
        }
    }

    /// Makes the run a backup, by its manifest, after everything else of it is stored.
    ///
    /// May be called again after a [`LeaseError::Store`]: what a broken connection left open is found out then.
    ///
    /// # Panics
    ///
    /// If the manifest is not of the run that was begun.
    pub async fn commit(&self, manifest: &Manifest) -> Result<(), LeaseError> {
        let mut claim = self.claim.lock().await;
        let run = claim.run.clone().expect("a run is begun before it is committed");
        assert_eq!(
            (run.id, run.scheduled_for, &self.cluster),
            (manifest.id, manifest.scheduled_for, &manifest.cluster),
            "the manifest of the run that was begun"
        );
        self.create_manifest(manifest).await?;
        claim.run = None;
        claim.last_scheduled = claim.last_scheduled.max(run.scheduled_for);
        Ok(())
    }

    async fn create_manifest(&self, manifest: &Manifest) -> Result<(), LeaseError> {
        let path = manifest_path(&self.cluster, manifest.id);
        if !self.store.is_create_only()
            && let Some(found) = read_committed(&self.store, &path).await?
        {
            return self.judge(manifest, found);
        }
        let json = serde_json::to_vec_pretty(manifest).expect("a manifest is plain data");
        let Err(error) = self.store.create(&path, json.into()).await else { return Ok(()) };
        // Also when it failed otherwise: the answer may have been lost, not the request.
        match read_committed(&self.store, &path).await {
            Ok(Some(found)) => self.judge(manifest, found),
            Ok(None) => Err(LeaseError::store("commit a backup", error)),
            Err(unreadable) if matches!(error, StoreError::Exists { .. }) => Err(unreadable),
            Err(_) => Err(LeaseError::store("commit a backup", error)),
        }
    }

    /// What lies in the manifest's place: ours, a closed door, or what can only be there by a miracle.
    fn judge(&self, manifest: &Manifest, found: Committed) -> Result<(), LeaseError> {
        match found {
            Committed::Backup(found) if *found == *manifest => Ok(()),
            Committed::Backup(_) => {
                Err(LeaseError::Taken { cluster: self.cluster.clone(), id: manifest.id })
            }
            Committed::Abandoned(Abandoned { abandoned_by, .. }) => Err(LeaseError::Fenced {
                cluster: self.cluster.clone(),
                id: manifest.id,
                by: abandoned_by,
            }),
        }
    }

    /// Gives the right back. A run that was not committed is closed for good, so that a commit that is still under way
    /// cannot come as a surprise.
    ///
    /// `given_up` is a slot that nobody shall try any more, although it was not done.
    pub async fn release(&self, given_up: Option<Timestamp>) -> Result<(), LeaseError> {
        let mut claim = self.claim.lock().await;
        self.settle_open(&mut claim).await?;
        claim.last_scheduled = claim.last_scheduled.max(given_up);
        claim.released = true;
        self.write(&mut claim).await
    }

    async fn settle_open(&self, claim: &mut Claim) -> Result<(), LeaseError> {
        let Some(run) = claim.run.clone() else { return Ok(()) };
        let settled =
            abandon(&self.store, &self.cluster, run.id, claim.number, self.clock.now()).await?;
        if settled == Settled::Committed {
            claim.last_scheduled = claim.last_scheduled.max(run.scheduled_for);
        }
        claim.run = None;
        Ok(())
    }

    /// Writes the claim under the next number.
    async fn write(&self, claim: &mut Claim) -> Result<(), LeaseError> {
        let now = self.clock.now();
        let mut next = Claim {
            number: claim.number + 1,
            at: now,
            expires_at: after(now, self.ttl),
            ..claim.clone()
        };
        loop {
            match claim::append(&self.store, &self.cluster, &next).await? {
                Appended::Head => break,
                // A call of ours that was dropped half-way, or whose answer was lost: go on behind it.
                Appended::Ours(number) => next.number = number + 1,
                Appended::Overtaken => return Err(self.lost().await),
            }
        }
        self.fence.store(next.number, Ordering::Release);
        *claim = next;
        Ok(())
    }

    async fn lost(&self) -> LeaseError {
        let by = match claim::head(&self.store, &self.cluster).await {
            Ok(Some(head)) => head.holder.to_string(),
            Ok(None) | Err(_) => "another writer".to_owned(),
        };
        LeaseError::Lost { cluster: self.cluster.clone(), by }
    }

    /// The id itself, or the same with a later second: whatever was ever begun has left something in its folder,
    /// a manifest or an [`Abandoned`].
    async fn free_id(&self, mut id: BackupId) -> Result<BackupId, LeaseError> {
        for _ in 0..IDS_TRIED_MAX {
            let folder = folder(&self.cluster, id);
            let used = self.store.list(&folder).await;
            if used.map_err(|source| LeaseError::store("look for a free name", source))?.is_empty()
            {
                return Ok(id);
            }
            id = BackupId::new(id.at_least(), after(id.started(), Duration::from_secs(1)));
        }
        Err(LeaseError::Taken { cluster: self.cluster.clone(), id })
    }
}

/// Closes a run for good, unless it was committed already: says which.
///
/// Whoever deletes the objects of a run that has no manifest calls this first. `by` is the number of the writer, or 0.
pub async fn abandon(
    store: &Store,
    cluster: &ClusterName,
    id: BackupId,
    by: u64,
    at: Timestamp,
) -> Result<Settled, LeaseError> {
    let path = manifest_path(cluster, id);
    let abandoned = Abandoned { format: FORMAT, id, abandoned_by: by, at };
    let json = serde_json::to_vec_pretty(&abandoned).expect("plain data");
    for _ in 0..SETTLE_TRIES_MAX {
        if !store.is_create_only()
            && let Some(settled) = settled(store, &path).await?
        {
            return Ok(settled);
        }
        match store.create(&path, json.clone().into()).await {
            Ok(()) => return Ok(Settled::Abandoned),
            Err(StoreError::Exists { .. }) => {}
            Err(source) => return Err(LeaseError::store("close an abandoned backup", source)),
        }
        if let Some(settled) = settled(store, &path).await? {
            return Ok(settled);
        }
    }
    Err(LeaseError::Taken { cluster: cluster.clone(), id })
}

/// What lies in a manifest's place says of its run.
async fn settled(store: &Store, path: &str) -> Result<Option<Settled>, LeaseError> {
    Ok(match read_committed(store, path).await {
        Ok(Some(Committed::Backup(_))) => Some(Settled::Committed),
        Ok(Some(Committed::Abandoned(_))) => Some(Settled::Abandoned),
        Ok(None) => None,
        // By a version to come: it commits there as this one does.
        Err(LeaseError::Manifest(crate::manifest::ManifestError::Format { .. })) => {
            Some(Settled::Committed)
        }
        // Damaged: no backup, and as it is there, nobody can commit in its place.
        Err(LeaseError::Manifest(_)) => Some(Settled::Abandoned),
        Err(error) => return Err(error),
    })
}

async fn read_committed(store: &Store, path: &str) -> Result<Option<Committed>, LeaseError> {
    match store.read(path, MANIFEST_BYTES_MAX).await {
        Ok(json) => Ok(Some(Committed::parse(path, &json)?)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(source) => Err(LeaseError::store("read a manifest", source)),
    }
}

/// The claim that follows the head, when what the head left open is settled.
async fn successor(
    store: &Store,
    cluster: &ClusterName,
    head: Option<&Claim>,
    holder: &Holder,
    ttl: Duration,
    clock: &dyn Clock,
) -> Result<Claim, LeaseError> {
    let number = head.map_or(0, |h| h.number) + 1;
    let mut last_scheduled = head.and_then(|h| h.last_scheduled);
    if let Some(run) = head.and_then(|h| h.run.as_ref())
        && abandon(store, cluster, run.id, number, clock.now()).await? == Settled::Committed
    {
        last_scheduled = last_scheduled.max(run.scheduled_for);
    }
    let now = clock.now();
    Ok(Claim {
        format: claim::FORMAT,
        number,
        lease: holder.lease(),
        holder: holder.clone(),
        at: now,
        expires_at: after(now, ttl),
        ttl_seconds: ttl.as_secs(),
        run: None,
        last_scheduled,
        released: false,
    })
}

/// For how long a claim was seen unchanged, by the reader's own stopwatch.
#[derive(Default)]
struct Watched {
    since: Option<((u64, String), Duration)>,
}

impl Watched {
    fn is_free(&mut self, head: &Claim, clock: &dyn Clock) -> bool {
        let seen = clock.monotonic();
        let this = (head.number, head.lease.clone());
        let since = match &self.since {
            Some((watched, since)) if *watched == this => *since,
            _ => {
                self.since = Some((this, seen));
                seen
            }
        };
        head.released
            || head.expires_at <= clock.now()
            || head.holder.is_known_dead()
            || seen - since >= Duration::from_secs(head.ttl_seconds)
    }
}

/// As late as a timestamp can be, if the sum is later than that.
fn after(start: Timestamp, wait: Duration) -> Timestamp {
    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
    start.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

fn folder(cluster: &ClusterName, id: BackupId) -> String {
    format!("{cluster}/snapshots/{id}/")
}

fn manifest_path(cluster: &ClusterName, id: BackupId) -> String {
    format!("{}{}", folder(cluster, id), manifest_name(FIRST_GENERATION))
}
