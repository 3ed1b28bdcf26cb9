//! Directories that are built aside and put in place last.
//!
//! ```text
//!   TARGET.part/            or TARGET/.lifeboat-part/ where TARGET exists, so that its owner, its
//!     lifeboat-staging        modes and its mount stay; and WAL-DIR.part/, on its own file system
//!     placing
//!     0, 1, …                 what is being built
//! ```
//!
//! * A target is absent or complete: it comes into being by one rename of a synced tree.
//! * Where several renames are needed, `placing` names their targets. If one fails, the others are taken
//!   back. If the run is killed between them, it has not committed; the next run of the same plan takes
//!   back what was placed, unless an etcd has run on it since.
//! * A staging folder is locked while its run lives, so two runs never share one. Only folders with
//!   our marker are cleared; anything else of that name is left alone and refused.

use crate::error::RestoreError;
use rustix::fs::{FlockOperation, OFlags, flock};
use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

const INSIDE: &str = ".lifeboat-part";
const MARKER: &str = "lifeboat-staging";
const PLACING: &str = "placing";
/// A fresh file system has this folder; it makes a directory no less empty.
const LOST_FOUND: &str = "lost+found";

/// A tree that shall be put in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// On the file system of the staging folder.
    Near(PathBuf),
    /// Perhaps on another: it is staged beside itself.
    Far(PathBuf),
}

impl Target {
    fn path(&self) -> &Path {
        match self {
            Self::Near(path) | Self::Far(path) => path,
        }
    }
}

/// A tree, and where it goes.
#[derive(Clone, Debug)]
struct Move {
    staged: PathBuf,
    target: PathBuf,
}

/// Folders in which trees are built. Dropped before [`commit`](Self::commit), they are removed with all
/// that is in them.
#[derive(Debug)]
pub(crate) struct Staging {
    folders: Vec<Folder>,
    moves: Vec<Move>,
    /// Whether something in the folders is not ours to remove: an interrupted run's leftovers that could
    /// not be taken back.
    keep: bool,
}

impl Staging {
    /// Begins to stage `targets` beside or inside `place`, which must be absent or empty. The targets
    /// are put in place in their order.
    pub(crate) fn begin(place: &Path, targets: &[Target]) -> Result<Self, RestoreError> {
        let place = absolute(place)?;
        let inside = is_directory(&place)?;
        let root = if inside { place.join(INSIDE) } else { beside(&place) };
        let mut staging =
            Self { folders: vec![Folder::claim(root)?], moves: Vec::new(), keep: false };
        for (number, target) in targets.iter().enumerate() {
            let path = absolute(target.path())?;
            if let Target::Far(_) = target {
                staging.folders.push(Folder::claim(beside(&path))?);
            }
            let folder = match target {
                Target::Near(_) => &staging.folders[0],
                Target::Far(_) => staging.folders.last().expect("it was just put there"),
            };
            staging.moves.push(Move { staged: folder.path.join(number.to_string()), target: path });
        }
        staging.keep = true;
        staging.take_back_placed()?;
        staging.keep = false;
        if inside {
            check_empty(&place)?;
        }
        for tree in &staging.moves {
            if tree.target.symlink_metadata().is_ok() {
                return Err(RestoreError::Exists { path: tree.target.clone() });
            }
        }
        staging.folders.iter().try_for_each(Folder::clear)?;
        staging.moves.iter().try_for_each(|tree| make_dir(&tree.staged))?;
        Ok(staging)
    }

    /// Where the trees are built, in the order of the targets.
    pub(crate) fn trees(&self) -> Vec<PathBuf> {
        self.moves.iter().map(|tree| tree.staged.clone()).collect()
    }

    /// Makes all trees durable.
    pub(crate) fn sync(&self) -> Result<(), RestoreError> {
        self.moves.iter().try_for_each(|tree| sync_tree(&tree.staged))
    }

    /// Puts all trees, which must be [synced](Self::sync), in place. The last rename is the commit; if
    /// it is not reached, those before it are taken back.
    pub(crate) fn commit(mut self) -> Result<(), RestoreError> {
        if self.moves.len() > 1 {
            self.write_placing()?;
        }
        self.folders.iter().try_for_each(Folder::sync_made_parents)?;
        for number in 0..self.moves.len() {
            let Move { staged, target } = &self.moves[number];
            let renamed = fs::rename(staged, target).map_err(|error| match error.kind() {
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory => {
                    RestoreError::Exists { path: target.clone() }
                }
                _ => io_error("rename to", target)(error),
            });
            let placed = number + usize::from(renamed.is_ok());
            if let Err(error) = renamed.and_then(|()| sync_parent(target)) {
                self.keep = !self.take_back(placed);
                return Err(error);
            }
        }
        for folder in &mut self.folders {
            folder.made_parents.clear();
        }
        Ok(())
    }

    /// Takes the first `placed` trees back. Returns whether nothing of them is left.
    fn take_back(&self, placed: usize) -> bool {
        let failed = self.moves[..placed].iter().rev().filter(|tree| tree.take_back().is_err());
        failed.count() == 0
    }

    fn write_placing(&self) -> Result<(), RestoreError> {
        let mut text = String::new();
        for Move { staged, target } in &self.moves {
            let path = target.to_str().ok_or_else(|| RestoreError::NotUtf8(target.clone()))?;
            text += &format!("{} {path}\n", wal_bytes(staged).unwrap_or(0));
        }
        let root = &self.folders[0].path;
        let path = root.join(PLACING);
        fs::write(&path, text).map_err(io_error("write", &path))?;
        File::open(&path).and_then(|file| file.sync_all()).map_err(io_error("fsync", &path))?;
        sync_dir(root)?;
        sync_parent(root)
    }

    /// If the run before this one was cut between its renames, takes back what it had placed.
    fn take_back_placed(&self) -> Result<(), RestoreError> {
        let Ok(text) = fs::read_to_string(self.folders[0].path.join(PLACING)) else {
            return Ok(());
        };
        let placed: Vec<(u64, PathBuf)> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(bytes, target)| Some((bytes.parse().ok()?, PathBuf::from(target))))
            .collect();
        let committed = placed.last().is_some_and(|(_, last)| last.exists());
        if committed {
            return Ok(());
        }
        for (bytes, target) in placed.iter().filter(|(_, target)| target.exists()) {
            // Only this plan's own targets: what the file says is not trusted further.
            let tree = self.moves.iter().find(|tree| tree.target == *target);
            let untouched = wal_bytes(target) == Some(*bytes);
            let tree = tree.filter(|_| untouched);
            let tree = tree.ok_or_else(|| RestoreError::Leftover { path: target.clone() })?;
            if tree.staged.exists() {
                fs::remove_dir_all(&tree.staged).map_err(io_error("remove", &tree.staged))?;
            }
            tree.take_back().map_err(io_error("take back", target))?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.keep {
            self.folders.iter().for_each(Folder::remove);
        }
    }
}

impl Move {
    fn take_back(&self) -> io::Result<()> {
        fs::rename(&self.target, &self.staged)
    }
}

/// A folder of our own, locked against other runs.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
    /// Folders above it that this run made, innermost first; removed if nothing comes of them.
    made_parents: Vec<PathBuf>,
}

impl Folder {
    /// Makes and locks the folder, or takes over what a dead run left.
    fn claim(path: PathBuf) -> Result<Self, RestoreError> {
        let made_parents = make_parents(&path)?;
        let claimed = lock_folder(&path).and_then(|lock| {
            check_ours(&path)?;
            Ok(lock)
        });
        match claimed {
            Ok(lock) => Ok(Self { path, _lock: lock, made_parents }),
            Err(error) => {
                remove_empty(&made_parents);
                Err(error)
            }
        }
    }

    /// Removes all but the marker.
    fn clear(&self) -> Result<(), RestoreError> {
        for entry in fs::read_dir(&self.path).map_err(io_error("list", &self.path))? {
            let entry = entry.map_err(io_error("list", &self.path))?;
            let path = entry.path();
            let is_dir = entry.file_type().map_err(io_error("inspect", &path))?.is_dir();
            if entry.file_name() != MARKER {
                let removed =
                    if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(io_error("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Makes durable that the folders above are there.
    fn sync_made_parents(&self) -> Result<(), RestoreError> {
        self.made_parents.iter().try_for_each(|made| sync_parent(made))
    }

    /// Nothing can be done about a failure here; the next run clears what is left.
    fn remove(&self) {
        let _ = fs::remove_dir_all(&self.path);
        remove_empty(&self.made_parents);
    }
}

/// Makes `path` if need be and locks it. A run that ends removes its folder, so what was locked must
/// still be what the name says.
fn lock_folder(path: &Path) -> Result<File, RestoreError> {
    loop {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io_error("create", path)(error));
            }
            _ => {}
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let mut options = OpenOptions::new();
        let opened = options.read(true).custom_flags(flags.bits().cast_signed()).open(path);
        let folder = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory || is_symlink(path) => {
                return Err(RestoreError::NotOurs { path: path.to_owned() });
            }
            opened => opened.map_err(io_error("open", path))?,
        };
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(RestoreError::Busy { path: path.to_owned() });
            }
            Err(errno) => return Err(io_error("lock", path)(errno.into())),
        }
        let locked = folder.metadata().map_err(io_error("inspect", path))?;
        let named = path.symlink_metadata().ok();
        if named.is_some_and(|named| (named.dev(), named.ino()) == (locked.dev(), locked.ino())) {
            return Ok(folder);
        }
    }
}

fn is_symlink(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink())
}

/// Marks a fresh folder as ours, and refuses one with content that bears no mark.
fn check_ours(path: &Path) -> Result<(), RestoreError> {
    let marker = path.join(MARKER);
    let owner = path.metadata().map_err(io_error("inspect", path))?.uid();
    let mut entries = fs::read_dir(path).map_err(io_error("list", path))?;
    let ours = marker.symlink_metadata().is_ok_and(|marker| marker.is_file());
    if owner != rustix::process::geteuid().as_raw() || !ours && entries.next().is_some() {
        return Err(RestoreError::NotOurs { path: path.to_owned() });
    }
    fs::write(&marker, b"").map_err(io_error("write", &marker))
}

/// A path that has a parent and outlives a change of the working directory.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, RestoreError> {
    let absolute = std::path::absolute(path).map_err(io_error("find", path))?;
    Ok(absolute.components().collect())
}

/// Whether `path` is a directory; `false` if nothing is there, an error if something else is.
fn is_directory(path: &Path) -> Result<bool, RestoreError> {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(true),
        Ok(_) => Err(RestoreError::Exists { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("inspect", path)(error)),
    }
}

/// Whether `place` could be staged, and `far` beside it, as far as can be told without touching anything.
pub(crate) fn check_absent_or_empty(place: &Path, far: Option<&Path>) -> Result<(), RestoreError> {
    let place = absolute(place)?;
    let inside = is_directory(&place)?;
    let root = if inside { place.join(INSIDE) } else { beside(&place) };
    if root.join(PLACING).exists() {
        // What a run that was cut has placed is taken back, or refused, when the next one is staged.
        return Ok(());
    }
    if inside {
        check_empty(&place)?;
    }
    match far.filter(|far| far.symlink_metadata().is_ok()) {
        Some(far) => Err(RestoreError::Exists { path: far.to_owned() }),
        None => Ok(()),
    }
}

fn check_empty(target: &Path) -> Result<(), RestoreError> {
    for entry in fs::read_dir(target).map_err(io_error("list", target))? {
        let name = entry.map_err(io_error("list", target))?.file_name();
        if name != INSIDE && name != LOST_FOUND {
            return Err(RestoreError::NotEmpty { path: target.to_owned() });
        }
    }
    Ok(())
}

fn beside(target: &Path) -> PathBuf {
    let mut name = OsString::from(target);
    name.push(".part");
    name.into()
}

/// Bytes of the one WAL segment in a tree that nobody has run on: a data directory, its `member`
/// folder, or a WAL directory.
fn wal_bytes(tree: &Path) -> Option<u64> {
    let places = ["member/wal", "wal", ""];
    let wal = places.iter().map(|place| tree.join(place)).find(|place| place.is_dir())?;
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
    for (number, parent) in missing.iter().enumerate().rev() {
        make_dir(parent).inspect_err(|_| remove_empty(&missing[number..]))?;
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

/// Makes the entry of `path` durable.
fn sync_parent(path: &Path) -> Result<(), RestoreError> {
    sync_dir(path.parent().expect("an absolute path of a tree has a parent"))
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

    fn near(paths: &[PathBuf]) -> Vec<Target> {
        paths.iter().cloned().map(Target::Near).collect()
    }

    /// Stages data directories, as far as staging looks at them.
    fn stage(place: &Path, targets: &[Target]) -> Result<Staging, RestoreError> {
        let staging = Staging::begin(place, targets)?;
        for tree in staging.trees() {
            fs::create_dir_all(tree.join("member/wal")).unwrap();
            fs::write(tree.join("member/wal/0.wal"), b"wal").unwrap();
        }
        Ok(staging)
    }

    fn stage_one(target: &Path) -> Result<Staging, RestoreError> {
        stage(target, &[Target::Near(target.to_owned())])
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Ends as kill -9 does: the locks go, all else stays.
    fn killed(mut staging: Staging) {
        staging.keep = true;
    }

    #[test]
    fn a_tree_appears_under_its_name_only_on_commit_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let relative = Path::new(dir.path().file_name().unwrap());
        let target = relative.join("made/m1.etcd/");
        let staging = stage_one(&target).unwrap();
        assert!(!target.exists());
        staging.commit().unwrap();
        assert_eq!(names(target.parent().unwrap()), ["m1.etcd"]);
        assert_eq!(names(&target), ["member"]);
    }

    #[test]
    fn a_run_that_fails_leaves_nothing_not_even_the_folders_above() {
        let dir = tempfile::tempdir().unwrap();
        drop(stage_one(&dir.path().join("made/m1.etcd")).unwrap());
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn what_a_killed_run_left_does_not_block_and_a_running_one_does() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("m1.etcd");
        killed(stage_one(&target).unwrap());
        assert_eq!(names(dir.path()), ["m1.etcd.part"]);
        let staging = stage_one(&target).unwrap();
        assert!(matches!(stage_one(&target), Err(RestoreError::Busy { .. })));
        staging.commit().unwrap();
        assert_eq!(names(dir.path()), ["m1.etcd"]);
    }

    #[test]
    fn an_empty_target_is_filled_from_inside_and_a_full_one_is_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let (target, member) = (dir.path().to_owned(), dir.path().join("member"));
        fs::create_dir(target.join(LOST_FOUND)).unwrap();
        let inode = target.metadata().unwrap().ino();
        stage(&target, &near(std::slice::from_ref(&member))).unwrap().commit().unwrap();
        assert_eq!(names(&target), [LOST_FOUND, "member"]);
        assert_eq!(target.metadata().unwrap().ino(), inode);
        let refused = stage(&target, &near(&[member]));
        assert!(matches!(refused, Err(RestoreError::NotEmpty { .. })));
        assert_eq!(names(&target), [LOST_FOUND, "member"]);
    }

    #[test]
    fn a_folder_of_the_staging_name_that_is_not_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("m1.etcd");
        fs::create_dir(beside(&target)).unwrap();
        fs::write(beside(&target).join("thesis.txt"), b"years of work").unwrap();
        assert!(matches!(stage_one(&target), Err(RestoreError::NotOurs { .. })));
        assert_eq!(names(&beside(&target)), ["thesis.txt"]);
        for to in ["nowhere", "m1.etcd.part"] {
            let linked = dir.path().join(format!("to-{to}"));
            std::os::unix::fs::symlink(dir.path().join(to), beside(&linked)).unwrap();
            assert!(matches!(stage_one(&linked), Err(RestoreError::NotOurs { .. })), "{to}");
        }
    }

    /// Two members in an existing folder, which takes two renames.
    fn two(dir: &Path) -> Vec<Target> {
        near(&[dir.join("m1"), dir.join("m2")])
    }

    fn killed_after_first_rename(dir: &Path) {
        let staging = stage(dir, &two(dir)).unwrap();
        staging.write_placing().unwrap();
        fs::rename(&staging.moves[0].staged, &staging.moves[0].target).unwrap();
        killed(staging);
        assert_eq!(names(dir), [INSIDE, "m1"]);
    }

    #[test]
    fn a_run_cut_between_two_renames_is_taken_back_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        killed_after_first_rename(dir.path());
        stage(dir.path(), &two(dir.path())).unwrap().commit().unwrap();
        assert_eq!(names(dir.path()), ["m1", "m2"]);
    }

    #[test]
    fn a_member_that_etcd_has_run_on_or_of_another_plan_is_never_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        killed_after_first_rename(dir.path());
        let other_plan = stage(dir.path(), &near(&[dir.path().join("m3")]));
        assert!(matches!(other_plan, Err(RestoreError::Leftover { .. })));
        fs::write(dir.path().join("m1/member/wal/0.wal"), b"wal that has grown").unwrap();
        for _ in 0..2 {
            let refused = stage(dir.path(), &two(dir.path()));
            assert!(matches!(refused, Err(RestoreError::Leftover { .. })));
            assert!(dir.path().join("m1/member").is_dir());
        }
    }

    #[test]
    fn a_rename_that_fails_takes_back_those_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let staging = stage(dir.path(), &two(dir.path())).unwrap();
        fs::create_dir_all(dir.path().join("m2/in-the-way")).unwrap();
        assert!(matches!(staging.commit(), Err(RestoreError::Exists { .. })));
        assert_eq!(names(dir.path()), ["m2"]);
        fs::remove_dir_all(dir.path().join("m2")).unwrap();
        stage(dir.path(), &two(dir.path())).unwrap().commit().unwrap();
        assert_eq!(names(dir.path()), ["m1", "m2"]);
    }

    #[test]
    fn a_tree_on_another_file_system_is_staged_there_and_taken_back_there() {
        let (here, there) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        let (data, wal) = (here.path().join("data"), there.path().join("wal"));
        let targets = [Target::Far(wal.clone()), Target::Near(data.clone())];
        let begin = || {
            let staging = Staging::begin(&data, &targets).unwrap();
            fs::write(staging.trees()[0].join("0.wal"), b"wal").unwrap();
            staging
        };
        let staging = begin();
        staging.write_placing().unwrap();
        fs::rename(&staging.moves[0].staged, &staging.moves[0].target).unwrap();
        killed(staging);
        assert!(wal.exists() && !data.exists());
        begin().commit().unwrap();
        assert_eq!(
            (names(here.path()), names(there.path())),
            (vec!["data".into()], vec!["wal".into()])
        );
    }
}
