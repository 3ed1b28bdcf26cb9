use crate::cluster::ClusterError;
use std::{io, path::PathBuf};

/// Why data directories could not be made. Nothing was left behind, unless the variant says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The new cluster is not described well.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The target directory has something in it.
    #[error("{} is not empty", path.display())]
    NotEmpty {
        /// The target.
        path: PathBuf,
    },
    /// Something stands where a new directory shall be.
    #[error("{} exists", path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// The WAL directory and the data directory lie in each other.
    #[error("--wal-dir {} and --data-dir {} lie one in the other", wal_dir.display(), data_dir.display())]
    WalDirInDataDir {
        /// `--wal-dir`
        wal_dir: PathBuf,
        /// `--data-dir`
        data_dir: PathBuf,
    },
    /// Another run is making the same target.
    #[error("another run is working in {}", path.display())]
    Busy {
        /// Its staging folder.
        path: PathBuf,
    },
    /// Something that is not ours has the name of the staging folder.
    #[error("{} is in the way, and is not of a restore", path.display())]
    NotOurs {
        /// What is in the way.
        path: PathBuf,
    },
    /// A run was cut between placing two members, and what it placed is of another plan, or an etcd was
    /// started on it since.
    #[error("{} was placed by an interrupted restore, and is not this run's to remove", path.display())]
    Leftover {
        /// The directory.
        path: PathBuf,
    },
    /// The snapshot is of an etcd that is not known here.
    #[error("the snapshot is of etcd {found}, which is not known here")]
    UnknownVersion {
        /// The version it names.
        found: String,
    },
    /// The file system is too full for what would be written.
    #[error(
        "{}: {}", path.display(), etcd_schema::shortage(*needed, *available)
    )]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// Bytes to be written.
        needed: u64,
        /// Bytes free.
        available: u64,
    },
    /// A path that must be written down is not text.
    #[error("{} is not UTF-8", .0.display())]
    NotUtf8(PathBuf),
    /// `--bump-revision` leads past the greatest revision.
    #[error("revision {revision} cannot be raised by {by}")]
    BumpTooFar {
        /// Revision of the snapshot.
        revision: i64,
        /// What was to be added.
        by: u64,
    },
    /// The file system said no.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted, such as `create`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The snapshot could not be read, though it was verified: its disk fails.
    #[error("cannot read the snapshot")]
    Read(#[from] bolt::BoltError),
    /// The database could not be written.
    #[error("cannot build {}", path.display())]
    Build {
        /// The new `db`.
        path: PathBuf,
        /// Why not.
        source: bolt::BuildError,
    },
    /// Whoever watches the progress ended it.
    #[error("interrupted; nothing was left behind")]
    Interrupted,
    /// What was written reads back as something else: memory or a disk fails.
    #[error("{} does not read back as it was written: {what}", path.display())]
    SelfCheck {
        /// The new `db`.
        path: PathBuf,
        /// What differs.
        what: String,
    },
}

impl RestoreError {
    /// One imperative sentence: what to do next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Cluster(error) => error.remedy(),
            Self::NotEmpty { .. } | Self::Exists { .. } | Self::NotOurs { .. } => {
                "restore to another place, or move what is there aside first"
            }
            Self::WalDirInDataDir { .. } => {
                "leave --wal-dir out, or give a directory outside of --data-dir"
            }
            Self::Busy { .. } => "wait for the other run to end",
            Self::Leftover { .. } => {
                "if an etcd runs on it, stop it; move the directory aside, and restore again"
            }
            Self::UnknownVersion { .. } => "say for which etcd to restore: --target-version",
            Self::NoSpace { .. } => "free space there, or restore to another file system",
            Self::NotUtf8(_) => "restore to a path that is UTF-8",
            Self::BumpTooFar { .. } => "give a smaller --bump-revision",
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    "run as a user that may write there, or with sudo"
                }
                io::ErrorKind::StorageFull => "free space there, or restore to another file system",
                _ => "check the path and the disk it is on, then run again",
            },
            Self::Read(_) | Self::SelfCheck { .. } => {
                "check the memory and the disks of this machine, or restore on another"
            }
            Self::Interrupted => "run again when you are ready",
            Self::Build { .. } => "check the free space and the disk, then run again",
        }
    }
}
