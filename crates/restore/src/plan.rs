//! What will be restored, where and how: decided in full before anything is touched.

use crate::{ahead::raised, cluster::ClusterError, error::RestoreError, find_member};
use etcd_raftfiles::restore::{RestoredCluster, Target};
use snapshot::{Snapshot, Surveyed, Walked};
use std::path::{Path, PathBuf};

/// The etcd minor version that the data directories are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetVersion {
    /// etcd 3.4
    V3_4,
    /// etcd 3.5
    V3_5,
    /// etcd 3.6
    V3_6,
}

impl TargetVersion {
    /// The minor version of a release such as `3.5.0`.
    pub fn of_release(release: &str) -> Option<Self> {
        let mut parts = release.trim().trim_start_matches('v').split('.');
        match (parts.next()?, parts.next()?) {
            ("3", "4") => Some(Self::V3_4),
            ("3", "5") => Some(Self::V3_5),
            ("3", "6") => Some(Self::V3_6),
            _ => None,
        }
    }

    /// The version that the snapshot was taken from, as far as it tells: its cluster version, else
    /// its storage version; else 3.5, whose layout all three open.
    ///
    /// # Errors
    /// When the snapshot names a version that is none of the three.
    pub fn of_snapshot<S: Surveyed>(snapshot: &Snapshot<S>) -> Result<Self, RestoreError> {
        let survey = snapshot.survey();
        match survey.cluster_version.as_ref().or(survey.meta.storage_version.as_ref()) {
            None => Ok(Self::V3_5),
            Some(release) => Self::of_release(release)
                .ok_or_else(|| RestoreError::UnknownVersion { found: release.clone() }),
        }
    }

    pub(crate) fn wal_target(self) -> Target {
        if self == Self::V3_4 { Target::Etcd34 } else { Target::Etcd35 }
    }
}

impl std::fmt::Display for TargetVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V3_4 => "3.4",
            Self::V3_5 => "3.5",
            Self::V3_6 => "3.6",
        })
    }
}

/// Which members' directories are made, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// One member.
    Member {
        /// Its name.
        name: String,
        /// Its data directory: absent or empty.
        data_dir: PathBuf,
        /// Its WAL directory, if that is not `member/wal` of the data directory: absent.
        wal_dir: Option<PathBuf>,
    },
    /// All members: `dir/<name>` for each.
    AllMembers {
        /// The folder of the data directories: absent or empty.
        dir: PathBuf,
    },
}

impl Destination {
    /// The directory that the user named.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Member { data_dir, .. } => data_dir,
            Self::AllMembers { dir } => dir,
        }
    }
}

/// A restore that has been decided.
#[derive(Debug)]
pub struct RestorePlan<'s> {
    pub(crate) source: &'s Snapshot<Walked>,
    pub(crate) cluster: RestoredCluster,
    pub(crate) destination: Destination,
    pub(crate) target: TargetVersion,
    pub(crate) bump_to: Option<i64>,
}

impl<'s> RestorePlan<'s> {
    /// Decides a restore of `source`. `bump` is how much to raise the revision by, marking what was
    /// before as compacted; 0 leaves it.
    ///
    /// # Errors
    /// When the destination names no member of the cluster, or the revision cannot be raised so far.
    pub fn new(
        source: &'s Snapshot<Walked>,
        cluster: RestoredCluster,
        destination: Destination,
        target: TargetVersion,
        bump: u64,
    ) -> Result<Self, RestoreError> {
        match &destination {
            Destination::Member { name, .. } => {
                find_member(&cluster, "--name", name)?;
            }
            Destination::AllMembers { .. } => check_folder_names(&cluster)?,
        }
        let revision = source.survey().revision();
        let bump_to = raised(revision, bump)?;
        let bump_to = (bump > 0).then_some(bump_to);
        Ok(Self { source, cluster, destination, target, bump_to })
    }

    /// The new cluster.
    pub fn cluster(&self) -> &RestoredCluster {
        &self.cluster
    }

    /// The revision that the cluster will begin at.
    pub fn revision(&self) -> i64 {
        self.bump_to.unwrap_or_else(|| self.source.survey().revision())
    }

    /// The version of etcd that the directories are for.
    pub fn target(&self) -> TargetVersion {
        self.target
    }

    /// Members whose directories will be made: their names, in the order of their ids.
    pub fn members(&self) -> Vec<&str> {
        match &self.destination {
            Destination::Member { name, .. } => vec![name],
            Destination::AllMembers { .. } => {
                self.cluster.members().iter().map(|member| member.name.as_str()).collect()
            }
        }
    }
}

/// A name becomes a folder, so it must not lead elsewhere.
pub(crate) fn check_folder_names(cluster: &RestoredCluster) -> Result<(), ClusterError> {
    for member in cluster.members() {
        let name = &member.name;
        if name.contains(['/', '\0']) || matches!(name.as_str(), "." | "..") {
            return Err(ClusterError::NameAsFolder { name: name.clone() });
        }
    }
    Ok(())
}
