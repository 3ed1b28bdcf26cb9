//! A data directory, and the names in it that one run knows.
//!
//! | `member` | `…-RUN` | `….new` | `….failed` | state |
//! | --- | --- | --- | --- | --- |
//! | ? | – | – | – | untouched |
//! | ? | – | ✓ | – | built |
//! | – | ✓ | ✓ | – | swapping |
//! | ✓ | ✓ | – | – | swapped |
//! | – | ✓ | – | ✓ | undoing |
//! | ? | – | – | ✓ | rolled back |
//!
//! Where there were no old data, an empty folder stands for them, so that the same names tell the same.

use super::{VolumeError, io_error};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// How far a volume has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Nothing of this run is there.
    Untouched,
    /// New data lie beside the old.
    Built,
    /// The old data are set aside, the new ones not yet in place.
    Swapping,
    /// The new data are in place.
    Swapped,
    /// The new data are set aside, the old ones not yet back.
    Undoing,
    /// The old data are back.
    RolledBack,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untouched => "untouched",
            Self::Built => "built",
            Self::Swapping => "being swapped",
            Self::Swapped => "swapped",
            Self::Undoing => "being rolled back",
            Self::RolledBack => "rolled back",
        })
    }
}

/// A data directory, as one run sees it.
#[derive(Clone, Debug)]
pub struct Place {
    data_dir: PathBuf,
    run: String,
}

impl Place {
    /// The place; nothing is looked at.
    pub fn new(data_dir: &Path, run: &str) -> Self {
        Self { data_dir: data_dir.to_owned(), run: run.to_owned() }
    }

    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// What etcd reads.
    pub(super) fn member(&self) -> PathBuf {
        self.data_dir.join("member")
    }

    fn named(&self, suffix: &str) -> PathBuf {
        self.data_dir.join(format!("member.lifeboat-{}{suffix}", self.run))
    }

    /// The old data, once they are set aside.
    pub fn old(&self) -> PathBuf {
        self.named("")
    }

    /// The new data, until they are in place.
    pub(super) fn new_data(&self) -> PathBuf {
        self.named(".new")
    }

    fn failed(&self) -> PathBuf {
        self.named(".failed")
    }

    /// Where new data are built, before they have their name.
    pub(super) fn building(&self) -> PathBuf {
        self.named(".build")
    }

    /// New data that never were in place, on their way out.
    fn unused(&self) -> PathBuf {
        self.named(".unused")
    }

    /// How far this run has come here.
    pub fn state(&self) -> Result<State, VolumeError> {
        let is = |path: PathBuf| path.symlink_metadata().is_ok();
        let found = [self.member(), self.old(), self.new_data(), self.failed()];
        Ok(match found.clone().map(is) {
            [_, false, false, false] => State::Untouched,
            [_, false, true, false] => State::Built,
            [false, true, true, false] => State::Swapping,
            [true, true, false, false] => State::Swapped,
            [false, true, false, true] => State::Undoing,
            [_, false, false, true] => State::RolledBack,
            _ => return Err(self.strange(found)),
        })
    }

    fn strange(&self, names: [PathBuf; 4]) -> VolumeError {
        let there = names.into_iter().filter(|path| path.symlink_metadata().is_ok());
        let name = |path: PathBuf| Some(path.file_name()?.to_string_lossy().into_owned());
        VolumeError::Strange {
            data_dir: self.data_dir.clone(),
            run: self.run.clone(),
            found: there.filter_map(name).collect(),
        }
    }

    /// Puts the new data in place of the old. Whatever a killed one has done of that is completed.
    pub fn swap(&self) -> Result<State, VolumeError> {
        let _lock = self.lock()?;
        match self.state()? {
            State::Built => {
                self.set_aside()?;
                self.rename(&self.new_data(), &self.member())?;
            }
            State::Swapping => self.rename(&self.new_data(), &self.member())?,
            State::Swapped => {}
            state => return Err(self.out_of_turn("built", state)),
        }
        Ok(State::Swapped)
    }

    fn set_aside(&self) -> Result<(), VolumeError> {
        if self.member().symlink_metadata().is_ok() {
            return self.rename(&self.member(), &self.old());
        }
        let old = self.old();
        DirBuilder::new().mode(0o700).create(&old).map_err(io_error("create", &old))?;
        self.sync()
    }

    /// Puts the old data back, from wherever the run has come to. New data that etcd may have run on are kept.
    pub fn undo(&self) -> Result<State, VolumeError> {
        if !self.data_dir.exists() {
            return Ok(State::Untouched);
        }
        let _lock = self.lock()?;
        let state = self.state()?;
        match state {
            State::Swapped => {
                self.rename(&self.member(), &self.failed())?;
                self.put_back()?;
            }
            State::Swapping | State::Undoing => self.put_back()?,
            State::Built | State::Untouched | State::RolledBack => {}
        }
        if self.new_data().exists() {
            // A folder that is removed in part must not look like one that was built.
            self.rename(&self.new_data(), &self.unused())?;
        }
        let part = self.named(".build.part");
        for leftover in [self.unused(), self.building(), part] {
            if leftover.exists() {
                fs::remove_dir_all(&leftover).map_err(io_error("remove", &leftover))?;
            }
        }
        self.state()
    }

    fn put_back(&self) -> Result<(), VolumeError> {
        let old = self.old();
        // An empty folder stands for no data.
        match fs::remove_dir(&old) {
            Ok(()) => self.sync(),
            Err(_) => self.rename(&old, &self.member()),
        }
    }

    pub(super) fn out_of_turn(&self, wanted: &'static str, state: State) -> VolumeError {
        VolumeError::OutOfTurn { data_dir: self.data_dir.clone(), wanted, state }
    }

    /// Renames, durably. What is there already is never replaced.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), VolumeError> {
        if to.symlink_metadata().is_ok() {
            return Err(VolumeError::Exists(to.to_owned()));
        }
        fs::rename(from, to).map_err(io_error("rename", from))?;
        self.sync()
    }

    fn sync(&self) -> Result<(), VolumeError> {
        let synced = File::open(&self.data_dir).and_then(|folder| folder.sync_all());
        synced.map_err(io_error("fsync", &self.data_dir))
    }

    /// Keeps other pods out, while the file that is returned lives.
    pub(super) fn lock(&self) -> Result<File, VolumeError> {
        let folder = File::open(&self.data_dir).map_err(io_error("open", &self.data_dir))?;
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(folder),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(VolumeError::Busy(self.data_dir.clone())),
            Err(errno) => Err(io_error("lock", &self.data_dir)(errno.into())),
        }
    }

    /// Makes the data directory if it is not there, as the folder's owner would have.
    pub(super) fn prepare(&self) -> Result<(), VolumeError> {
        if self.data_dir.is_dir() {
            return Ok(());
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.data_dir);
        made.map_err(io_error("create", &self.data_dir))?;
        let above = self.data_dir.parent().unwrap_or(Path::new("/"));
        let owner = above.metadata().map_err(io_error("inspect", above))?;
        chown(&self.data_dir, (owner.uid(), owner.gid()))
    }

    /// Gives new data the owner and the mode that the old have; where there are none, the data directory's owner.
    pub(super) fn take_owner(&self, tree: &Path) -> Result<(), VolumeError> {
        let (like, mode) = match self.member().symlink_metadata() {
            Ok(member) if member.is_dir() => {
                let mode = member.permissions();
                (member, Some(mode))
            }
            _ => (self.data_dir.metadata().map_err(io_error("inspect", &self.data_dir))?, None),
        };
        give(tree, (like.uid(), like.gid()))?;
        match mode {
            // Its owner must be able to write there, whatever stood there before.
            Some(mode) => {
                let mode = fs::Permissions::from_mode(mode.mode() & 0o7777 | 0o700);
                fs::set_permissions(tree, mode).map_err(io_error("chmod", tree))
            }
            None => Ok(()),
        }
    }
}

fn give(path: &Path, owner: (u32, u32)) -> Result<(), VolumeError> {
    let found = path.symlink_metadata().map_err(io_error("inspect", path))?;
    if found.is_dir() {
        for entry in fs::read_dir(path).map_err(io_error("list", path))? {
            give(&entry.map_err(io_error("list", path))?.path(), owner)?;
        }
    }
    if (found.uid(), found.gid()) == owner { Ok(()) } else { chown(path, owner) }
}

/// A group that cannot be given is no harm: who owns a file reads it.
fn chown(path: &Path, (uid, gid): (u32, u32)) -> Result<(), VolumeError> {
    let given = std::os::unix::fs::lchown(path, Some(uid), Some(gid));
    let owned = || path.symlink_metadata().is_ok_and(|found| found.uid() == uid);
    match given {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && owned() => Ok(()),
        given => given.map_err(io_error("chown", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data directory with old data, and new ones built.
    fn built() -> (tempfile::TempDir, Place) {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(folder.path(), "r1");
        put(&place.member(), "old");
        put(&place.new_data(), "new");
        (folder, place)
    }

    fn put(dir: &Path, what: &str) {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("what"), what).unwrap();
    }

    fn what(dir: &Path) -> Option<String> {
        fs::read_to_string(dir.join("what")).ok()
    }

    #[test]
    fn a_swap_puts_the_new_in_place_and_keeps_the_old() {
        let (_folder, place) = built();
        for _ in 0..2 {
            assert_eq!(place.swap().unwrap(), State::Swapped);
            assert_eq!(what(&place.member()).as_deref(), Some("new"));
            assert_eq!(what(&place.old()).as_deref(), Some("old"));
        }
    }

    #[test]
    fn a_swap_that_was_cut_is_completed_or_undone() {
        for undo in [false, true] {
            let (_folder, place) = built();
            fs::rename(place.member(), place.old()).unwrap();
            assert_eq!(place.state().unwrap(), State::Swapping);
            if undo {
                assert_eq!(place.undo().unwrap(), State::Untouched);
                assert_eq!(what(&place.member()).as_deref(), Some("old"));
                assert!(!place.new_data().exists());
            } else {
                assert_eq!(place.swap().unwrap(), State::Swapped);
                assert_eq!(what(&place.member()).as_deref(), Some("new"));
            }
        }
    }

    #[test]
    fn undo_puts_the_old_back_and_keeps_what_etcd_may_have_written() {
        let (_folder, place) = built();
        place.swap().unwrap();
        for _ in 0..2 {
            assert_eq!(place.undo().unwrap(), State::RolledBack);
            assert_eq!(what(&place.member()).as_deref(), Some("old"));
            assert_eq!(what(&place.failed()).as_deref(), Some("new"));
        }
        assert!(matches!(place.swap(), Err(VolumeError::OutOfTurn { .. })));
    }

    #[test]
    fn an_undo_that_was_cut_is_completed() {
        let (_folder, place) = built();
        place.swap().unwrap();
        fs::rename(place.member(), place.failed()).unwrap();
        assert_eq!(place.state().unwrap(), State::Undoing);
        assert_eq!(place.undo().unwrap(), State::RolledBack);
        assert_eq!(what(&place.member()).as_deref(), Some("old"));
    }

    #[test]
    fn what_was_built_and_never_used_is_removed_even_by_an_undo_that_was_cut() {
        let (_folder, place) = built();
        fs::rename(place.new_data(), place.unused()).unwrap();
        fs::create_dir_all(place.building().join("member")).unwrap();
        assert_eq!(place.undo().unwrap(), State::Untouched);
        assert_eq!(what(&place.member()).as_deref(), Some("old"));
        assert!(!place.unused().exists() && !place.building().exists());
    }

    #[test]
    fn a_volume_without_old_data_is_swapped_and_undone_like_any_other() {
        let (_folder, place) = built();
        fs::remove_dir_all(place.member()).unwrap();
        // Cut after the folder that stands for the old data was made.
        place.set_aside().unwrap();
        assert_eq!(place.state().unwrap(), State::Swapping);
        assert_eq!(place.swap().unwrap(), State::Swapped);
        assert_eq!(what(&place.member()).as_deref(), Some("new"));
        assert_eq!(place.undo().unwrap(), State::RolledBack);
        assert!(!place.member().exists() && !place.old().exists());
        assert_eq!(place.undo().unwrap(), State::RolledBack);
    }

    #[test]
    fn names_of_no_step_are_told_and_left_alone() {
        let (_folder, place) = built();
        put(&place.old(), "whose");
        let error = place.swap().unwrap_err().to_string();
        assert!(error.contains("member.lifeboat-r1, member.lifeboat-r1.new"), "{error}");
        assert_eq!(what(&place.member()).as_deref(), Some("old"));
    }

    #[test]
    fn two_pods_never_work_in_one_place() {
        let (_folder, place) = built();
        let lock = place.lock().unwrap();
        assert!(matches!(place.swap(), Err(VolumeError::Busy(_))));
        drop(lock);
        place.swap().unwrap();
    }

    #[test]
    fn nothing_is_swapped_that_was_not_built() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(folder.path(), "r1");
        assert!(matches!(place.swap(), Err(VolumeError::OutOfTurn { .. })));
        assert_eq!(place.undo().unwrap(), State::Untouched);
    }
}
