//! Why a backup failed: as a whole, or in one repository.

use crate::{import::ImportError, include::IncludeError, spool::SpoolError};
use etcd_live::LiveError;
use repository::{
    ClusterName, RepositoryError, codec::CodecError, lease::LeaseError, manifest::Content,
    store::StoreError,
};
use snapshot::{OfflineError, SaveError, SnapshotError};
use std::path::PathBuf;

/// What kind of failure it is: each has an exit code of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It failed.
    Failed,
    /// Damage was found.
    Damage,
    /// The store or the cluster could not be reached.
    Unreachable,
    /// Refused, as it would overwrite or expose something.
    Refused,
}

/// Why there is no snapshot to keep. No repository has got a backup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The cluster did not answer.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// No member delivered a sound snapshot.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// A stopped member's data cannot be taken.
    #[error(transparent)]
    Offline(#[from] OfflineError),
    /// A file is no sound snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A file of another tool cannot be taken.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// There is no place for temporary files.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// Files beside the snapshot cannot be taken.
    #[error(transparent)]
    Include(#[from] IncludeError),
    /// The members' data differ, and that shall be an error.
    #[error("at revision {revision} the data of members {} differ from the snapshot's", differed.join(", "))]
    MembersDiffer {
        /// The snapshot's revision.
        revision: i64,
        /// The members.
        differed: Vec<String>,
    },
    /// The snapshot is older than what its member had said before.
    #[error("the members were at revision {promised}, but the snapshot is of {found}")]
    WentBack {
        /// What they said.
        promised: u64,
        /// What the snapshot holds.
        found: i64,
    },
    /// A file of a size that no database has.
    #[error("{} has {bytes} bytes, which is no whole number of pages", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        bytes: u64,
    },
    /// It was to stop.
    #[error("interrupted; no backup was made")]
    Interrupted,
}

impl BackupError {
    /// One imperative sentence: what to do next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Live(error) => error.remedy(),
            Self::Save(error) => error.remedy(),
            Self::Offline(error) => error.remedy(),
            Self::Snapshot(error) => error.remedy(),
            Self::Import(error) => error.remedy(),
            Self::Spool(error) => error.remedy(),
            Self::Include(error) => error.remedy(),
            Self::MembersDiffer { .. } => {
                "find out which member is right: a majority of equal hashes is a hint; then replace the other"
            }
            Self::WentBack { .. } => {
                "check whether the cluster was restored just now, and run the backup again"
            }
            Self::Size { .. } => "copy it again from its source; it is cut",
            Self::Interrupted => "run again when you are ready",
        }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        let damage = match self {
            Self::Live(error) | Self::Save(SaveError::Live(error)) => {
                return if error.is_unreachable() { Kind::Unreachable } else { Kind::Failed };
            }
            Self::Include(IncludeError::Plain { .. }) => return Kind::Refused,
            Self::Save(error) => error.is_damage(),
            Self::Offline(error) => error.is_damage(),
            Self::Snapshot(error) => is_damage(error),
            Self::Import(error) => error.is_damage(),
            Self::MembersDiffer { .. } | Self::Size { .. } => true,
            Self::Spool(_) | Self::Include(_) | Self::WentBack { .. } | Self::Interrupted => false,
        };
        if damage { Kind::Damage } else { Kind::Failed }
    }
}

/// Whether the bytes of a snapshot are at fault.
pub(crate) fn is_damage(error: &SnapshotError) -> bool {
    !matches!(
        error,
        SnapshotError::Io { .. } | SnapshotError::InUse { .. } | SnapshotError::HashKv { .. }
    )
}

/// Why one repository has no backup of a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// It may not be written to, or not any more.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// It is no repository, or cannot be opened.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// An object could not be stored.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// An object could not be completed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was read for the upload is not what was proved.
    #[error(
        "{found_bytes} bytes with SHA-256 {found_hash} were uploaded, but {proved_bytes} with {proved_hash} were proved",
        found_bytes = .found.bytes, found_hash = .found.sha256,
        proved_bytes = .proved.bytes, proved_hash = .proved.sha256,
    )]
    NotAsProved {
        /// What was proved.
        proved: Content,
        /// What was read again.
        found: Content,
    },
    /// A file for the upload could not be opened again.
    #[error("cannot read the temporary file again")]
    Reopen(#[source] std::io::Error),
    /// Its backups are encrypted, and this one would not be.
    #[error("the newest backup of {cluster} there is encrypted, and this one would not be")]
    Exposed {
        /// The cluster.
        cluster: ClusterName,
    },
    /// There was nothing to store in the end.
    #[error("there is no snapshot to store")]
    NoSnapshot,
}

impl TargetError {
    /// One imperative sentence: what to do next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Lease(LeaseError::Store { source, .. })
            | Self::Store(source)
            | Self::Codec(CodecError::Store(source)) => source.remedy(),
            Self::Lease(error) => error.remedy(),
            Self::Repository(error) => error.remedy(),
            Self::Codec(error) => error.remedy().unwrap_or("see the cause, and try again"),
            Self::NotAsProved { .. } | Self::Reopen(_) => {
                "check the disk and the memory of this machine, then run the backup again"
            }
            Self::Exposed { .. } => {
                "name its recipients (--recipient, LIFEBOAT_RECIPIENTS, `recipients` in the config file), or say \
                 that it is meant (--unencrypted, `unencrypted: true`)"
            }
            Self::NoSnapshot => "see why there is no snapshot",
        }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        match self.store() {
            Some(error) if error.is_unreachable() => Kind::Unreachable,
            _ if matches!(self, Self::NotAsProved { .. }) => Kind::Damage,
            _ if matches!(self, Self::Exposed { .. }) => Kind::Refused,
            _ => Kind::Failed,
        }
    }

    /// What the store said, if that is why.
    pub fn store(&self) -> Option<&StoreError> {
        match self {
            Self::Lease(LeaseError::Store { source, .. })
            | Self::Store(source)
            | Self::Repository(RepositoryError::Store(source))
            | Self::Codec(CodecError::Store(source)) => Some(source),
            _ => None,
        }
    }

    /// Whether to try the upload again.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, Self::NotAsProved { .. })
            || self.store().is_some_and(StoreError::is_retryable)
    }
}
