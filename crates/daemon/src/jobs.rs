//! What the daemon has done: behind a trait, so that a simulation can do it instead.

mod live;

pub use live::{Live, apart, on_a_thread};

use futures::future::BoxFuture;
use jiff::Timestamp;
use repository::{BackupId, ClusterName};
use std::time::Duration;

/// The work itself. Each call is one attempt; the runner tries again.
pub trait Jobs: Send + Sync + 'static {
    /// What a repository has of a cluster.
    fn survey<'a>(
        &'a self,
        cluster: &'a ClusterName,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Survey, Failure>>;

    /// One backup into several repositories. What becomes of one does not depend on the others; there is a result for each.
    ///
    /// Dropped, it leaves no backup, and nothing that keeps the next from working.
    fn backup<'a>(
        &'a self,
        order: Order<'a>,
    ) -> BoxFuture<'a, Vec<(String, Result<Outcome, Failure>)>>;

    /// Reads back the next share of the backups in a repository.
    fn verify<'a>(
        &'a self,
        cluster: &'a ClusterName,
        repository: &'a str,
        of: u32,
    ) -> BoxFuture<'a, Result<Verified, Failure>>;

    /// Deletes what need not be kept.
    fn prune<'a>(
        &'a self,
        cluster: &'a ClusterName,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Pruned, Failure>>;

    /// Has what runs stop soon, and clean up. There is no way back.
    fn interrupt(&self) {}
}

/// A backup that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Of which cluster.
    pub cluster: &'a ClusterName,
    /// Into which repositories.
    pub repositories: &'a [String],
    /// For which slot. None when the store's newest slot lies in the future, because some clock was wrong.
    pub scheduled_for: Option<Timestamp>,
}

/// What came of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is there.
    Made(Made),
    /// Another daemon has done that slot, or a later one.
    AlreadyDone,
}

/// A backup that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its name.
    pub id: BackupId,
    /// Its revision.
    pub revision: i64,
    /// When it was whole.
    pub finished: Timestamp,
    /// Size of the snapshot.
    pub bytes: u64,
    /// Size of all that is stored.
    pub stored_bytes: u64,
    /// How long it took.
    pub took: Duration,
    /// Members whose HashKV differs.
    pub differing_members: Vec<String>,
}

/// What a repository has of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The newest slot that is done.
    pub last_scheduled: Option<Timestamp>,
    /// The newest backup, if there is one.
    pub newest: Option<Newest>,
    /// How many there are.
    pub backups: u64,
    /// What they take in the store.
    pub stored_bytes: u64,
    /// Whether the store refuses a second creation; without, two daemons are kept apart as well as can be, no better.
    pub create_only: bool,
}

/// The newest backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Its name.
    pub id: BackupId,
    /// Its revision.
    pub revision: i64,
    /// When it was whole.
    pub finished: Timestamp,
    /// Size of the snapshot.
    pub bytes: u64,
    /// Size of what is stored.
    pub stored_bytes: u64,
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Backups that are sound.
    pub sound: u64,
    /// Backups that are not.
    pub damaged: Vec<BackupId>,
}

/// What pruning did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Backups that were deleted.
    pub removed: u64,
    /// Their bytes.
    pub freed_bytes: u64,
    /// Objects that the store keeps for now.
    pub locked: u64,
}

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    /// What kind of failure: all that metrics say.
    pub reason: FailureReason,
    /// What happened, with all its causes. Without secrets.
    pub error: String,
    /// What to do about it.
    pub remedy: String,
    /// Whether trying again may help.
    pub retryable: bool,
}

/// The kinds of failures. Closed, so that metrics have few of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureReason {
    /// No member could be reached, or none would give a snapshot.
    Cluster,
    /// What came is not a sound snapshot.
    Verification,
    /// Members disagree on HashKV, and that is to fail.
    HashMismatch,
    /// The store cannot be reached.
    StoreUnreachable,
    /// The store refuses the credentials.
    StoreDenied,
    /// The store is full.
    StoreFull,
    /// The store failed otherwise.
    Store,
    /// Another writer is at work, or has taken over.
    Lease,
    /// No room for the copy on this machine.
    Spool,
    /// Keys, recipients, settings.
    Settings,
    /// The daemon was stopped.
    Stopped,
    /// A fault of Lifeboat's own.
    Internal,
}

impl FailureReason {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Cluster,
        Self::Verification,
        Self::HashMismatch,
        Self::StoreUnreachable,
        Self::StoreDenied,
        Self::StoreFull,
        Self::Store,
        Self::Lease,
        Self::Spool,
        Self::Settings,
        Self::Stopped,
        Self::Internal,
    ];

    /// As metrics and events name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Verification => "verification",
            Self::HashMismatch => "hash-mismatch",
            Self::StoreUnreachable => "store-unreachable",
            Self::StoreDenied => "store-denied",
            Self::StoreFull => "store-full",
            Self::Store => "store",
            Self::Lease => "lease",
            Self::Spool => "spool",
            Self::Settings => "settings",
            Self::Stopped => "stopped",
            Self::Internal => "internal",
        }
    }
}

impl FailureReason {
    /// Whether it is the store that failed.
    pub fn is_of_store(self) -> bool {
        matches!(self, Self::StoreUnreachable | Self::StoreDenied | Self::StoreFull | Self::Store)
    }
}
