//! Directories that are built aside and put in place last.
//!
//! ```text
//!   TARGET.part/            or TARGET/.lifeboat-part/ where TARGET exists, so that its owner, its
//!     placing                 modes and its mount stay
//!     0, 1, …                 what is being built
//! ```
//!
//! * A target is absent or complete: it comes into being by one rename of a synced tree.
//! * Where several renames are needed, `placing` names their targets. A run that was cut between them
//!   has not committed; the next one takes back what that run had placed, unless an etcd has run on it
//!   since.
//! * The staging folder is locked while a run lives, so two runs never share one. Leftovers of a dead
//!   run are cleared by the next.

use crate::error::RestoreError;
use rustix::fs::{FlockOperation, flock};
use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

const INSIDE: &str = ".lifeboat-part";
const PLACING: &str = "placing";
/// A fresh file system has this folder; it makes a directory no less empty.
const LOST_FOUND: &str = "lost+found";

/// A tree to put in place.
#[derive(Clone, Debug)]
struct Move {
    staged: PathBuf,
    target: PathBuf,
}

/// A folder in which trees are built. Dropped before [`commit`](Self::commit), it is removed with
/// all that is in it.
#[derive(Debug)]
pub(crate) struct Staging {
    root: PathBuf,
    /// Holds the lock.
    _lock: File,
    moves: Vec<Move>,
    /// Folders above the root that this run made, outermost last.
    made_parents: Vec<PathBuf>,
    committed: bool,
}

impl Staging {
    /// Begins to stage trees beside or inside `target`, which must be absent or empty.
    pub(crate) fn begin(target: &Path) -> Result<Self, RestoreError> {
        let target = &absolute(target)?;
        let inside = is_directory(target)?;
        let root = if inside { target.join(INSIDE) } else { beside(target) };
        let made_parents = make_parents(&root)?;
        let lock = match lock_folder(&root) {
            Ok(lock) => lock,
            Err(error) => {
                remove_empty(&made_parents);
                return Err(error);
            }
        };
        let staging = Self { root, _lock: lock, moves: Vec::new(), made_parents, committed: false };
        staging.take_back_placed()?;
        if inside {
            check_empty(target)?;
        }
        staging.clear()?;
        Ok(staging)
    }

    /// Makes a folder to build the tree that shall become `target`. Trees are put in place in the
    /// order of these calls.
    pub(crate) fn stage(&mut self, target: &Path) -> Result<PathBuf, RestoreError> {
        let staged = self.root.join(self.moves.len().to_string());
        self.stage_at(staged, target)
    }

    /// The same for a tree whose target may be on another file system: it is built beside it.
    pub(crate) fn stage_beside(&mut self, target: &Path) -> Result<PathBuf, RestoreError> {
        let staged = beside(&absolute(target)?);
        if staged.exists() {
            fs::remove_dir_all(&staged).map_err(io_error("remove", &staged))?;
        }
        self.made_parents.extend(make_parents(&staged)?);
        self.stage_at(staged, target)
    }

    fn stage_at(&mut self, staged: PathBuf, target: &Path) -> Result<PathBuf, RestoreError> {
        if target.symlink_metadata().is_ok() {
            return Err(RestoreError::TargetExists { path: target.to_owned() });
        }
        make_dir(&staged)?;
        self.moves.push(Move { staged: staged.clone(), target: absolute(target)? });
        Ok(staged)
    }

    /// Makes all trees durable.
    pub(crate) fn sync(&self) -> Result<(), RestoreError> {
        self.moves.iter().try_for_each(|tree| sync_tree(&tree.staged))
    }

    /// Puts all trees, which must be [synced](Self::sync), in place. The last rename is the commit.
    pub(crate) fn commit(mut self) -> Result<(), RestoreError> {
        if self.moves.len() > 1 {
            self.write_placing()?;
        }
        for tree in &self.moves {
            fs::rename(&tree.staged, &tree.target).map_err(io_error("rename to", &tree.target))?;
            sync_dir(tree.target.parent().expect("an absolute path of a tree has a parent"))?;
        }
        self.committed = true;
        self.remove_root();
        Ok(())
    }

    fn write_placing(&self) -> Result<(), RestoreError> {
        let mut text = String::new();
        for tree in &self.moves {
            let target =
                std::path::absolute(&tree.target).map_err(io_error("find", &tree.target))?;
            let target =
                target.to_str().ok_or_else(|| RestoreError::NotUtf8(tree.target.clone()))?;
            text += &format!("{} {target}\n", wal_bytes(&tree.staged).unwrap_or(0));
        }
        let path = self.root.join(PLACING);
        fs::write(&path, text).map_err(io_error("write", &path))?;
        File::open(&path).and_then(|file| file.sync_all()).map_err(io_error("fsync", &path))?;
        sync_dir(&self.root)
    }

    /// If the run before this one was cut between its renames, takes back what it had placed.
    fn take_back_placed(&self) -> Result<(), RestoreError> {
        let Ok(text) = fs::read_to_string(self.root.join(PLACING)) else { return Ok(()) };
        let placed: Vec<(u64, PathBuf)> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(bytes, target)| Some((bytes.parse().ok()?, PathBuf::from(target))))
            .collect();
        let committed = placed.last().is_some_and(|(_, last)| last.exists());
        if committed {
            return Ok(());
        }
        for (number, (bytes, target)) in placed.iter().enumerate() {
            if !target.exists() {
                continue;
            }
            if wal_bytes(target) != Some(*bytes) {
                return Err(RestoreError::LeftoverInUse { path: target.clone() });
            }
            let back = self.root.join(format!("taken-back-{number}"));
            fs::rename(target, back).map_err(io_error("take back", target))?;
        }
        Ok(())
    }

    /// Removes what a dead run left in the staging folder.
    fn clear(&self) -> Result<(), RestoreError> {
        for entry in fs::read_dir(&self.root).map_err(io_error("list", &self.root))? {
            let path = entry.map_err(io_error("list", &self.root))?.path();
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(io_error("remove", &path))?;
        }
        Ok(())
    }

    /// Nothing can be done about a failure here; the next run clears what is left.
    fn remove_root(&self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.committed {
            for tree in &self.moves {
                let _ = fs::remove_dir_all(&tree.staged);
            }
            self.remove_root();
            remove_empty(&self.made_parents);
        }
    }
}

/// A path that has a parent and outlives a change of the working directory.
fn absolute(path: &Path) -> Result<PathBuf, RestoreError> {
    std::path::absolute(path).map_err(io_error("find", path))
}

/// Whether `path` is a directory; `false` if nothing is there, an error if something else is.
fn is_directory(path: &Path) -> Result<bool, RestoreError> {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(true),
        Ok(_) => Err(RestoreError::TargetExists { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("inspect", path)(error)),
    }
}

fn check_empty(target: &Path) -> Result<(), RestoreError> {
    for entry in fs::read_dir(target).map_err(io_error("list", target))? {
        let name = entry.map_err(io_error("list", target))?.file_name();
        if name != INSIDE && name != LOST_FOUND {
            return Err(RestoreError::TargetExists { path: target.to_owned() });
        }
    }
    Ok(())
}

fn beside(target: &Path) -> PathBuf {
    let mut name: OsString = target.components().collect::<PathBuf>().into();
    name.push(".part");
    name.into()
}

/// Bytes of the one WAL segment in a tree that nobody has run on: a data directory, a WAL directory,
/// or a folder of data directories.
fn wal_bytes(tree: &Path) -> Option<u64> {
    let wal = tree.join("member/wal");
    let wal = if wal.is_dir() { wal } else { tree.to_owned() };
    let mut entries = fs::read_dir(wal).ok()?.filter_map(Result::ok);
    match (entries.next(), entries.next()) {
        (Some(only), None) => Some(only.metadata().ok()?.len()),
        _ => None,
    }
}

/// Makes the folders above `path`. Returns those that were not there, innermost first.
fn make_parents(path: &Path) -> Result<Vec<PathBuf>, RestoreError> {
    let missing: Vec<PathBuf> = path
        .ancestors()
        .skip(1)
        .take_while(|parent| !parent.as_os_str().is_empty() && !parent.exists())
        .map(Path::to_owned)
        .collect();
    for parent in missing.iter().rev() {
        make_dir(parent)?;
    }
    Ok(missing)
}

fn remove_empty(innermost_first: &[PathBuf]) {
    for path in innermost_first {
        // Only empty ones go; somebody else may have put something there.
        let _ = fs::remove_dir(path);
    }
}

/// Makes a directory as etcd does, for its owner alone.
pub(crate) fn make_dir(path: &Path) -> Result<(), RestoreError> {
    DirBuilder::new().mode(0o700).create(path).map_err(io_error("create", path))
}

/// Makes `root` if need be and locks it. A run that ends removes its root, so what was locked must
/// still be what the name says.
fn lock_folder(root: &Path) -> Result<File, RestoreError> {
    loop {
        match DirBuilder::new().mode(0o700).create(root) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io_error("create", root)(error));
            }
            _ => {}
        }
        let folder = match File::open(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(io_error("open", root))?,
        };
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(RestoreError::Busy { path: root.to_owned() });
            }
            Err(errno) => return Err(io_error("lock", root)(errno.into())),
        }
        let locked = folder.metadata().map_err(io_error("inspect", root))?;
        let named = root.symlink_metadata().ok();
        if named.is_some_and(|named| (named.dev(), named.ino()) == (locked.dev(), locked.ino())) {
            return Ok(folder);
        }
    }
}

/// Makes a tree durable: files first, then each folder after what is in it.
fn sync_tree(path: &Path) -> Result<(), RestoreError> {
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(io_error("list", path))? {
            sync_tree(&entry.map_err(io_error("list", path))?.path())?;
        }
    }
    sync_dir(path)
}

fn sync_dir(path: &Path) -> Result<(), RestoreError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(io_error("fsync", path))
}

/// Adds what was attempted, and on what, to an I/O error.
pub(crate) fn io_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> RestoreError + use<> {
    let path = path.to_owned();
    move |source| RestoreError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a data directory in `staging`, as far as staging looks at it.
    fn build(staging: &mut Staging, target: &Path) {
        let tree = staging.stage(target).unwrap();
        fs::create_dir_all(tree.join("member/wal")).unwrap();
        fs::write(tree.join("member/wal/0.wal"), b"wal").unwrap();
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_tree_appears_under_its_name_only_on_commit_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let relative = Path::new(dir.path().file_name().unwrap());
        let target = relative.join("made/m1.etcd");
        let mut staging = Staging::begin(&target).unwrap();
        build(&mut staging, &target);
        assert!(!target.exists());
        staging.commit().unwrap();
        assert_eq!(names(target.parent().unwrap()), ["m1.etcd"]);
        assert_eq!(names(&target), ["member"]);
    }

    #[test]
    fn a_run_that_fails_leaves_nothing_not_even_the_folders_above() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("made/m1.etcd");
        let mut staging = Staging::begin(&target).unwrap();
        build(&mut staging, &target);
        drop(staging);
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn what_a_killed_run_left_does_not_block_and_a_running_one_does() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("m1.etcd");
        fs::create_dir_all(beside(&target).join("0/member/snap")).unwrap();
        let mut staging = Staging::begin(&target).unwrap();
        assert!(matches!(Staging::begin(&target), Err(RestoreError::Busy { .. })));
        build(&mut staging, &target);
        staging.commit().unwrap();
        assert_eq!(names(dir.path()), ["m1.etcd"]);
    }

    #[test]
    fn an_empty_target_is_filled_from_inside_and_a_full_one_is_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let (target, member) = (dir.path().to_owned(), dir.path().join("member"));
        fs::create_dir(target.join(LOST_FOUND)).unwrap();
        let inode = target.metadata().unwrap().ino();
        let mut staging = Staging::begin(&target).unwrap();
        staging.stage(&member).unwrap();
        staging.commit().unwrap();
        assert_eq!(names(&target), [LOST_FOUND, "member"]);
        assert_eq!(target.metadata().unwrap().ino(), inode);
        assert!(matches!(Staging::begin(&target), Err(RestoreError::TargetExists { .. })));
        assert_eq!(names(&target), [LOST_FOUND, "member"]);
    }

    /// Leaves what a run leaves that was killed after the first of two renames.
    fn cut_after_first_rename(dir: &Path) {
        let mut staging = Staging::begin(dir).unwrap();
        ["m1", "m2"].iter().for_each(|name| build(&mut staging, &dir.join(name)));
        staging.write_placing().unwrap();
        fs::rename(&staging.moves[0].staged, &staging.moves[0].target).unwrap();
        std::mem::forget(staging._lock.try_clone().unwrap());
        staging.committed = true;
        flock(&staging._lock, FlockOperation::Unlock).unwrap();
    }

    #[test]
    fn a_run_cut_between_two_renames_is_taken_back_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        cut_after_first_rename(dir.path());
        assert_eq!(names(dir.path()), [INSIDE, "m1"]);
        let mut again = Staging::begin(dir.path()).unwrap();
        ["m1", "m2"].iter().for_each(|name| build(&mut again, &dir.path().join(name)));
        again.commit().unwrap();
        assert_eq!(names(dir.path()), ["m1", "m2"]);
    }

    #[test]
    fn a_member_that_etcd_has_run_on_is_never_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        cut_after_first_rename(dir.path());
        fs::write(dir.path().join("m1/member/wal/0.wal"), b"wal that has grown").unwrap();
        let refused = Staging::begin(dir.path());
        assert!(matches!(refused, Err(RestoreError::LeftoverInUse { .. })));
        assert!(dir.path().join("m1/member").is_dir());
    }
}
