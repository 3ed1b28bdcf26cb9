use crate::cluster::ClusterError;
use std::{io, path::PathBuf};

/// Why data directories could not be made. Nothing was left behind, unless the variant says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The new cluster is not described well.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Something is in the target already.
    #[error("{} exists and is not empty", path.display())]
    TargetExists {
        /// The target.
        path: PathBuf,
    },
    /// Another run is making the same target.
    #[error("another run is working in {}", path.display())]
    Busy {
        /// Its staging folder.
        path: PathBuf,
    },
    /// A run was cut between placing two members, and an etcd was started on one of them since.
    #[error("{} was placed by an interrupted restore and has been used since", path.display())]
    LeftoverInUse {
        /// The member's directory.
        path: PathBuf,
    },
    /// The file system is too full for what would be written.
    #[error(
        "{} has {available} bytes free, but {needed} are needed", path.display()
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
            Self::TargetExists { .. } => {
                "restore into a directory that is absent or empty, or move this one aside first"
            }
            Self::Busy { .. } => "wait for the other run to end",
            Self::LeftoverInUse { .. } => {
                "stop that etcd, move the directory aside, and restore all members again"
            }
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
