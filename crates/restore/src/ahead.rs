//! What can be known of a restore before the snapshot is there, so that gigabytes are not fetched in vain.
//!
//! Nothing is touched. All of it is found out again when the directories are made: what was free can be taken
//! meanwhile.

use crate::{
    cluster::find_member,
    error::RestoreError,
    execute::{RAFT_FILES_BYTES, elsewhere},
    plan::{Destination, check_folder_names},
    staging::{absolute, check_absent_or_empty, io_error},
};
use etcd_raftfiles::restore::RestoredCluster;
use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// What is to be written to one file system, and what is free there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// A folder on it.
    pub path: PathBuf,
    /// Bytes to be written.
    pub needed: u64,
    /// Bytes free.
    pub available: u64,
}

impl Room {
    /// For each file system, what is to be written to it in all. A path need not be there: the folder that it will
    /// be in counts.
    pub fn of(needs: &[(PathBuf, u64)]) -> Result<Vec<Self>, RestoreError> {
        let mut rooms = BTreeMap::<u64, Self>::new();
        for (path, needed) in needs {
            let folder = existing(path)?;
            let device = folder.metadata().map_err(io_error("inspect", &folder))?.dev();
            let available = free_in(&folder)?;
            let room = Self { path: folder, needed: 0, available };
            let room = rooms.entry(device).or_insert(room);
            room.needed = room.needed.saturating_add(*needed);
        }
        Ok(rooms.into_values().collect())
    }

    /// Refuses what would not fit.
    pub fn check(&self) -> Result<(), RestoreError> {
        let Self { path, needed, available } = self.clone();
        if available < needed {
            return Err(RestoreError::NoSpace { path, needed, available });
        }
        Ok(())
    }
}

impl Destination {
    /// Refuses a destination that no restore could use: one that names no member, or that has something in it.
    pub fn check(&self, cluster: &RestoredCluster) -> Result<(), RestoreError> {
        match self {
            Self::Member { name, data_dir, wal_dir } => {
                find_member(cluster, "--name", name)?;
                let wal_dir = wal_dir.as_deref().map(|dir| elsewhere(dir, data_dir)).transpose()?;
                check_absent_or_empty(data_dir, wal_dir.flatten().as_deref())
            }
            Self::AllMembers { dir } => {
                check_folder_names(cluster)?;
                check_absent_or_empty(dir, None)
            }
        }
    }

    /// Where the data directory of each member will be, in the order of their names.
    pub fn data_dirs(&self, cluster: &RestoredCluster) -> Vec<(String, PathBuf)> {
        match self {
            Self::Member { name, data_dir, .. } => vec![(name.clone(), data_dir.clone())],
            Self::AllMembers { dir } => {
                let members = cluster.members().iter();
                let mut dirs: Vec<_> =
                    members.map(|member| (member.name.clone(), dir.join(&member.name))).collect();
                dirs.sort();
                dirs
            }
        }
    }

    /// Bytes that its data directories will take, of a database of so many.
    pub fn bytes(&self, cluster: &RestoredCluster, database_bytes: u64) -> u64 {
        let each = database_bytes.saturating_add(RAFT_FILES_BYTES);
        each.saturating_mul(self.data_dirs(cluster).len() as u64)
    }

    /// The folder that the data directories, or the one that has all of them, will stand in.
    pub fn parent(&self) -> Result<PathBuf, RestoreError> {
        let target = absolute(self.path())?;
        existing(target.parent().unwrap_or(&target))
    }
}

/// The revision that a cluster begins at whose snapshot is of `revision`, raised by `by`.
pub fn raised(revision: i64, by: u64) -> Result<i64, RestoreError> {
    let raised = i64::try_from(by).ok().and_then(|by| revision.checked_add(by));
    raised.ok_or(RestoreError::BumpTooFar { revision, by })
}

/// The folder itself, or the nearest above it that is there.
fn existing(path: &Path) -> Result<PathBuf, RestoreError> {
    let path = absolute(path)?;
    let found = path.ancestors().find(|path| path.is_dir());
    Ok(found.map_or_else(|| PathBuf::from("/"), Path::to_owned))
}

/// Bytes that can be written to the file system of a folder.
pub(crate) fn free_in(folder: &Path) -> Result<u64, RestoreError> {
    let stat = rustix::fs::statvfs(folder).map_err(|e| io_error("inspect", folder)(e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn cluster() -> RestoredCluster {
        crate::parse_cluster("a=http://127.0.0.1:1,b=http://127.0.0.1:2", "token", &[]).unwrap()
    }

    fn member(data_dir: &Path, wal_dir: Option<&Path>) -> Destination {
        let (data_dir, wal_dir) = (data_dir.to_owned(), wal_dir.map(Path::to_owned));
        Destination::Member { name: "a".to_owned(), data_dir, wal_dir }
    }

    #[test]
    fn a_destination_that_is_in_use_is_refused_and_nothing_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let (absent, empty) = (folder.path().join("absent"), folder.path().join("empty"));
        let (full, file) = (folder.path().join("full"), folder.path().join("file"));
        fs::create_dir_all(&empty).unwrap();
        fs::create_dir_all(full.join("something")).unwrap();
        fs::write(&file, "").unwrap();
        for good in [&absent, &empty] {
            member(good, None).check(&cluster()).unwrap();
            member(good, Some(&folder.path().join("wal"))).check(&cluster()).unwrap();
            Destination::AllMembers { dir: good.clone() }.check(&cluster()).unwrap();
        }
        let refused = |destination: Destination| destination.check(&cluster()).unwrap_err();
        assert!(matches!(refused(member(&full, None)), RestoreError::NotEmpty { .. }));
        let all = Destination::AllMembers { dir: full.clone() };
        assert!(matches!(refused(all), RestoreError::NotEmpty { .. }));
        assert!(matches!(refused(member(&file, None)), RestoreError::Exists { .. }));
        assert!(matches!(refused(member(&absent, Some(&empty))), RestoreError::Exists { .. }));
        let inside = empty.join("wal");
        let error = refused(member(&empty, Some(&inside)));
        assert!(matches!(error, RestoreError::WalDirInDataDir { .. }));
        assert!(!absent.exists() && fs::read_dir(&empty).unwrap().next().is_none());
    }

    #[test]
    fn what_goes_to_one_file_system_is_added_up() {
        let folder = tempfile::tempdir().unwrap();
        let needs = [(folder.path().join("a/b"), 3), (folder.path().to_owned(), 4)];
        let rooms = Room::of(&needs).unwrap();
        assert_eq!(rooms.len(), 1);
        assert_eq!(rooms[0].needed, 7);
        rooms[0].check().unwrap();
        let room = Room { needed: u64::MAX, ..rooms[0].clone() };
        assert!(matches!(room.check(), Err(RestoreError::NoSpace { needed: u64::MAX, .. })));
    }

    #[test]
    fn every_member_takes_a_database() {
        let all = Destination::AllMembers { dir: "all".into() };
        assert_eq!(all.bytes(&cluster(), 100), 2 * (100 + RAFT_FILES_BYTES));
        assert_eq!(member(Path::new("a"), None).bytes(&cluster(), 100), 100 + RAFT_FILES_BYTES);
        assert_eq!(all.data_dirs(&cluster()).len(), 2);
    }

    #[test]
    fn a_revision_past_the_greatest_is_refused() {
        assert_eq!(raised(5, 10).unwrap(), 15);
        for (revision, by) in [(1, u64::MAX), (2, u64::try_from(i64::MAX).unwrap())] {
            assert!(matches!(raised(revision, by), Err(RestoreError::BumpTooFar { .. })));
        }
    }
}
