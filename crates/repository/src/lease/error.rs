//! Why a writer may not write.

use super::Claim;
use crate::{BackupId, ClusterName, manifest::ManifestError, store::StoreError};
use jiff::Timestamp;

/// Why a writer may not write.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// Another writer is at work.
    #[error("{by} is writing a backup of {cluster}; its lease holds until {until}")]
    Held {
        /// The cluster.
        cluster: ClusterName,
        /// Who.
        by: String,
        /// Until when, unless it is renewed.
        until: Timestamp,
    },
    /// Another writer has taken over, because this one was silent for too long.
    #[error(
        "{by} has taken over the backups of {cluster}: this writer was silent for longer than its lease"
    )]
    Lost {
        /// The cluster.
        cluster: ClusterName,
        /// Who.
        by: String,
    },
    /// Another writer has closed the run that was to be committed.
    #[error("backup {id} of {cluster} was abandoned by writer {by}, which had taken over")]
    Fenced {
        /// The cluster.
        cluster: ClusterName,
        /// The backup that will never be.
        id: BackupId,
        /// The number of the writer.
        by: u64,
    },
    /// The slot is done.
    #[error("the backup of {cluster} that was due at {slot} is done: the newest is of {last}")]
    Done {
        /// The cluster.
        cluster: ClusterName,
        /// The slot.
        slot: Timestamp,
        /// The newest that is done.
        last: Timestamp,
    },
    /// Something else has the name.
    #[error("another backup of {cluster} has the name {id}")]
    Taken {
        /// The cluster.
        cluster: ClusterName,
        /// The name.
        id: BackupId,
    },
    /// Not what a claim looks like.
    #[error("{path} is no writer's claim")]
    Malformed {
        /// Where.
        path: String,
        /// Why not.
        source: serde_json::Error,
    },
    /// Of a format to come.
    #[error("{path} has format {format}, which this version does not know")]
    Format {
        /// Where.
        path: String,
        /// Its format.
        format: u32,
    },
    /// What lies in a manifest's place cannot be read.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The store failed.
    #[error("cannot {attempted}")]
    Store {
        /// What was attempted.
        attempted: &'static str,
        /// Why not.
        source: StoreError,
    },
}

impl LeaseError {
    pub(super) fn store(attempted: &'static str, source: StoreError) -> Self {
        Self::Store { attempted, source }
    }

    /// Who holds it, and until when: no later than a whole time to live from now, however wrong its clock is.
    pub(super) fn held(cluster: &ClusterName, claim: &Claim, now: Timestamp) -> Self {
        let latest = super::after(now, std::time::Duration::from_secs(claim.ttl_seconds));
        let (cluster, by) = (cluster.clone(), claim.holder.to_string());
        Self::Held { cluster, by, until: claim.expires_at.min(latest) }
    }

    /// Whether the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Held { .. } | Self::Lost { .. } | Self::Fenced { .. } | Self::Store { .. }
        )
    }

    /// One imperative sentence; printed after `help:`.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Held { .. } => {
                "wait for the other writer (--wait 5m), or stop it; one that died is replaced when its lease ends"
            }
            Self::Lost { .. } | Self::Fenced { .. } => {
                "run the backup again; if this happens often, the writer is paused or the store too slow"
            }
            Self::Done { .. } => "nothing: the other writer has made this backup",
            Self::Taken { .. } => "check this machine's clock, then run the backup again",
            Self::Malformed { .. } => "delete that object if no backup is running, then try again",
            Self::Format { .. } | Self::Manifest(_) => {
                "use the newest version of lifeboat that writes to this repository"
            }
            Self::Store { .. } => {
                "check that the store can be reached and written to, then try again"
            }
        }
    }
}
