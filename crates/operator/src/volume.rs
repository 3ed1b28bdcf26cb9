//! What a restore does to one volume. Knows no Kubernetes: a [`Job`](crate::restore) runs it as `lifeboat volume`, on the
//! volume that it has mounted.
//!
//! ```text
//!   DATA-DIR/member                     what etcd reads
//!   DATA-DIR/member.lifeboat-RUN.new    built, and not yet in place      build ─▶
//!   DATA-DIR/member.lifeboat-RUN        the old data, set aside          swap  ─▶
//!   DATA-DIR/member.lifeboat-RUN.failed data that were taken back        undo  ─▶
//! ```
//!
//! etcd reads `member` alone, whatever lies beside it. Names are changed inside the data directory, never above it, so that it may be
//! the root of the volume.
//!
//! * The names that exist say what was done: there is no journal, and every step that was cut is completed by the next one.
//! * Old data are renamed, never changed and never deleted.
//! * What a swap puts in place was proved first, and is durable.

mod access;
mod build;
mod place;

pub use access::{StoreAccess, of_object};
pub use build::{Built, Contents, build, probe};
pub use place::{Place, State};

use crate::failure::Failure;
use backup::fetch::FetchError;
use repository::{RepositoryError, listing::FindError};
use restore::RestoreError;
use serde::{Deserialize, Serialize};
use snapshot::SnapshotError;
use std::{io, path::PathBuf};

/// What is to be done with a volume. The same for each step of a run, so that any of them can be repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// The run's name.
    pub run: String,
    /// Where it is done.
    pub target: Target,
    /// Where backups lie. Only the first step needs to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreAccess>,
    /// What is built. Only the first step needs to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<Contents>,
}

/// What is written in the volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// A member's data, beside those that it has.
    Member {
        /// etcd's `--data-dir`.
        data_dir: PathBuf,
        /// etcd's `--name`.
        name: String,
    },
    /// Data directories of all members, in an empty folder.
    Members {
        /// The folder.
        folder: PathBuf,
    },
    /// The snapshot itself.
    File {
        /// The file, which must not be there.
        path: PathBuf,
    },
}

/// What one step says in the end: one line of JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// How the volume is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// What was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<Built>,
    /// Why the step failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What can be done about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// The store cannot be entered.
    #[error(transparent)]
    Settings(#[from] Failure),
    /// The store cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The backup is not there.
    #[error(transparent)]
    NotFound(#[from] FindError),
    /// It could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It is not sound.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// It could not be restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The snapshot is not what the manifest says.
    #[error("the manifest says {what} {said}, but the snapshot has {found}")]
    Differs {
        /// `revision` or `hash`.
        what: &'static str,
        /// In the manifest.
        said: i64,
        /// In the snapshot.
        found: i64,
    },
    /// The names that lie there are of no step.
    #[error("{} has {}, which no step of run {run} leaves behind", data_dir.display(), found.join(", "))]
    Strange {
        /// Where.
        data_dir: PathBuf,
        /// The run.
        run: String,
        /// Names.
        found: Vec<String>,
    },
    /// The step does not follow on what was done before.
    #[error("nothing is {wanted} in {}: the volume is {state}", data_dir.display())]
    OutOfTurn {
        /// Where.
        data_dir: PathBuf,
        /// What should have been done before.
        wanted: &'static str,
        /// What was.
        state: State,
    },
    /// Another pod is at work there.
    #[error("another step works in {}", .0.display())]
    Busy(PathBuf),
    /// The file is there already.
    #[error("{} exists", .0.display())]
    Exists(PathBuf),
    /// The order is not complete.
    #[error("the order says nothing of {0}")]
    Incomplete(&'static str),
    /// The file system said no.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl VolumeError {
    /// One imperative sentence: what to do next.
    pub fn remedy(&self) -> &str {
        match self {
            Self::Settings(failure) => &failure.remedy,
            Self::Repository(error) => error.remedy(),
            Self::NotFound(error) => error.remedy(),
            Self::Fetch(error) => error.remedy(),
            Self::Snapshot(error) => error.remedy(),
            Self::Restore(RestoreError::NoSpace { .. }) => {
                "enlarge the volume, or remove old data (member.lifeboat-*) from it"
            }
            Self::Restore(error) => error.remedy(),
            Self::Differs { .. } => {
                "restore another backup; `lifeboat verify` tells what else differs in this one"
            }
            Self::Strange { .. } => "look at the volume: somebody has renamed what lies there",
            Self::OutOfTurn { .. } => "begin a new restore",
            Self::Busy(_) => "wait for the other pod to end",
            Self::Exists(_) => "name another file, or move that one aside",
            Self::Incomplete(_) => "this command is for the operator's Jobs",
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run the Job as the user that etcd runs as, or as root"
            }
            Self::Io { .. } => "check the volume and its free space",
        }
    }
}

pub(crate) fn io_error(
    action: &'static str,
    path: &std::path::Path,
) -> impl FnOnce(io::Error) -> VolumeError + use<> {
    let path = path.to_owned();
    move |source| VolumeError::Io { action, path, source }
}

impl Answer {
    /// What is said of a failure.
    pub fn failed(error: &VolumeError) -> Self {
        Self {
            error: Some(etcd_live::one_line(error)),
            help: Some(error.remedy().to_owned()),
            ..Self::default()
        }
    }
}

impl Order {
    /// The place of a member's data. Only there are old data, so only there is something to swap.
    pub fn place(&self) -> Option<Place> {
        match &self.target {
            Target::Member { data_dir, .. } => Some(Place::new(data_dir, &self.run)),
            Target::Members { .. } | Target::File { .. } => None,
        }
    }
}
