//! A file that appears under its final name only when it is complete.
//!
//! ```text
//!   PATH.part   created 0600, locked, filled   ->  fsync  ->  renamed to PATH  ->  folder fsynced
//! ```
//!
//! * A stop at any instant leaves the old `PATH` or the new one. What is left of a killed run is
//!   `PATH.part`, which the next run takes over; its lock died with the run.
//! * Only what looks like such a leftover is taken over: a regular file of ours, with no other name,
//!   that nobody else may read. Anything else of that name is not touched.
//! * Two runs that write the same `PATH` never mix: the second finds the lock and is refused.
//! * An existing `PATH` is refused at the start, and again by the rename, so that one that appeared
//!   meanwhile is not lost.

use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, flock, renameat_with};
use std::{
    ffi::OsString,
    fs::{File, Metadata, OpenOptions, Permissions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Mode of what is written: a snapshot holds every secret of the cluster.
const MODE: u32 = 0o600;

/// Why a file could not be put in place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PartFileError {
    /// Something stands under the final name.
    #[error("{} exists", path.display())]
    Exists {
        /// The final name.
        path: PathBuf,
    },
    /// A folder stands under the final name, which no file can replace.
    #[error("{} is a folder", path.display())]
    Folder {
        /// The final name.
        path: PathBuf,
    },
    /// What stands under the name of the part file is not left over from a run.
    #[error("{} is in the way: it is not a leftover of an earlier run of this user", part.display())]
    NotALeftover {
        /// The part file.
        part: PathBuf,
    },
    /// A link, a pipe or a device stands there; replacing it would not be what was meant.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The final name.
        path: PathBuf,
    },
    /// Another run holds the lock of the part file.
    #[error("another run is writing {}", part.display())]
    Busy {
        /// The part file.
        part: PathBuf,
    },
    /// The file system said no.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted, such as `create`.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl PartFileError {
    /// One imperative sentence: what to do next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotAFile { .. } => "choose another name",
            Self::Exists { .. } => "choose another name, or replace it with --force",
            Self::Folder { .. } => "give the name of a file in it",
            Self::NotALeftover { .. } => "move it away, or choose another name",
            Self::Busy { .. } => "wait for the other run to end",
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => "make the folder first",
                io::ErrorKind::PermissionDenied => "run as a user that may write there",
                io::ErrorKind::StorageFull => "free space there, or write to another file system",
                _ => "check the path and the disk that it is on",
            },
        }
    }
}

/// What to do with a file that stands under the final name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse to write.
    Keep,
    /// Replace it when the new one is complete.
    Replace,
}

/// A file being written. Dropped before [`commit`](Self::commit), it is removed.
#[derive(Debug)]
pub struct PartFile {
    file: File,
    part: PathBuf,
    target: PathBuf,
    existing: Existing,
    committed: bool,
}

impl PartFile {
    /// Begins to write `target`, in a file beside it.
    pub fn create(target: &Path, existing: Existing) -> Result<Self, PartFileError> {
        Self::check_target(target, existing)?;
        let mut name = OsString::from(target);
        name.push(".part");
        let part = PathBuf::from(name);
        let file = lock_new(&part)?;
        let this = Self { file, part, target: target.to_owned(), existing, committed: false };
        this.file.set_len(0).map_err(|e| this.error("truncate", e))?;
        Ok(this)
    }

    /// Refuses what cannot become of `target`, without touching anything.
    pub fn check_target(target: &Path, existing: Existing) -> Result<(), PartFileError> {
        let path = || target.to_owned();
        match target.symlink_metadata() {
            Ok(found) if found.is_dir() => Err(PartFileError::Folder { path: path() }),
            Ok(_) if existing == Existing::Keep => Err(PartFileError::Exists { path: path() }),
            Ok(found) if !found.is_file() => Err(PartFileError::NotAFile { path: path() }),
            _ => Ok(()),
        }
    }

    /// The file to write to, and to read back before it is committed.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where the bytes are until then.
    pub fn path(&self) -> &Path {
        &self.part
    }

    /// Makes the bytes durable and gives them their final name.
    pub fn commit(mut self) -> Result<(), PartFileError> {
        self.file.sync_all().map_err(|e| self.error("fsync", e))?;
        self.rename()?;
        self.committed = true;
        sync_parent(&self.target).map_err(|e| self.error("fsync the folder of", e))
    }

    fn rename(&self) -> Result<(), PartFileError> {
        let flags = match self.existing {
            Existing::Keep => RenameFlags::NOREPLACE,
            Existing::Replace => RenameFlags::empty(),
        };
        match renameat_with(CWD, &self.part, CWD, &self.target, flags) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::EXIST) => {
                Err(PartFileError::Exists { path: self.target.clone() })
            }
            // Some network file systems know no flags.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS)
                if self.existing == Existing::Keep =>
            {
                self.link()
            }
            Err(errno) => Err(self.error("rename", errno.into())),
        }
    }

    /// Gives the file its final name where a rename cannot be told not to replace: a new link never does.
    fn link(&self) -> Result<(), PartFileError> {
        match std::fs::hard_link(&self.part, &self.target) {
            Ok(()) => std::fs::remove_file(&self.part).map_err(|e| self.error("remove", e)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(PartFileError::Exists { path: self.target.clone() })
            }
            Err(error) => Err(self.error("rename", error)),
        }
    }

    fn error(&self, action: &'static str, source: io::Error) -> PartFileError {
        PartFileError::Io { action, path: self.part.clone(), source }
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.committed {
            // Nothing can be done about a failure here; the next run takes the file over.
            let _ = std::fs::remove_file(&self.part);
        }
    }
}

/// Opens and locks `part`. The run that held it before may remove or rename the file between the two
/// steps, so what was locked must still be what the name says.
fn lock_new(part: &Path) -> Result<File, PartFileError> {
    let error = |action, source| PartFileError::Io { action, path: part.to_owned(), source };
    loop {
        let Some((file, is_new)) = open_or_create(part)? else { continue };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(PartFileError::Busy { part: part.to_owned() });
            }
            Err(errno) => return Err(error("lock", errno.into())),
        }
        let locked = file.metadata().map_err(|e| error("inspect", e))?;
        let named = part.symlink_metadata().ok();
        if named.is_none_or(|named| (named.dev(), named.ino()) != (locked.dev(), locked.ino())) {
            continue;
        }
        if !is_new {
            if !is_leftover(&locked) {
                return Err(PartFileError::NotALeftover { part: part.to_owned() });
            }
            let private = Permissions::from_mode(MODE);
            file.set_permissions(private).map_err(|e| error("change the mode of", e))?;
        }
        return Ok(file);
    }
}

/// Whether a run of ours may have left this behind: a file system may show the mode and owner of a
/// new file as it likes, but one that keeps neither never has leftovers taken over.
fn is_leftover(found: &Metadata) -> bool {
    let ours = found.uid() == rustix::process::geteuid().as_raw();
    found.is_file() && ours && found.nlink() == 1 && found.mode() & 0o7777 & !MODE == 0
}

/// The file of that name, and whether it was made just now. `None` if it was removed meanwhile.
fn open_or_create(part: &Path) -> Result<Option<(File, bool)>, PartFileError> {
    match create(part) {
        Ok(file) => return Ok(Some((file, true))),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => {
            return Err(PartFileError::Io { action: "create", path: part.to_owned(), source });
        }
    }
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    match OpenOptions::new().read(true).write(true).custom_flags(flags).open(part) {
        Ok(file) => Ok(Some((file, false))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // A symbolic link, or a folder.
        Err(error) if is_no_file(&error) => {
            Err(PartFileError::NotALeftover { part: part.to_owned() })
        }
        Err(source) => Err(PartFileError::Io { action: "open", path: part.to_owned(), source }),
    }
}

fn is_no_file(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::LOOP | Errno::ISDIR))
}

fn create(part: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(MODE).open(part)
}

/// Makes the entry of `path` in its folder durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn target() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        (dir, path)
    }

    fn leave(part: &Path, bytes: &[u8]) {
        create(part).unwrap().write_all(bytes).unwrap();
    }

    #[test]
    fn the_file_appears_whole_private_and_only_on_commit() {
        let (_dir, path) = target();
        let part = PartFile::create(&path, Existing::Keep).unwrap();
        part.file().write_all(b"data").unwrap();
        assert!(!path.exists());
        let left = part.path().to_owned();
        part.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert!(!left.exists());
    }

    #[test]
    fn a_dropped_run_leaves_nothing_and_a_killed_one_does_not_block() {
        let (_dir, path) = target();
        let part = PartFile::create(&path, Existing::Keep).unwrap().path().to_owned();
        assert!(!part.exists());
        leave(&part, b"left by kill -9, longer than what follows");
        let again = PartFile::create(&path, Existing::Keep).unwrap();
        again.file().write_all(b"new").unwrap();
        again.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_file_that_exists_or_appears_meanwhile_is_never_replaced_unasked() {
        let (_dir, path) = target();
        let part = PartFile::create(&path, Existing::Keep).unwrap();
        std::fs::write(&path, b"old").unwrap();
        assert!(matches!(part.commit(), Err(PartFileError::Exists { .. })));
        let refused = PartFile::create(&path, Existing::Keep);
        assert!(matches!(refused, Err(PartFileError::Exists { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        PartFile::create(&path, Existing::Replace).unwrap().commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn links_pipes_and_devices_are_never_replaced_even_when_told_to() {
        let (dir, path) = target();
        std::os::unix::fs::symlink(dir.path().join("kept"), &path).unwrap();
        for path in [path.as_path(), Path::new("/dev/null")] {
            let refused = PartFile::create(path, Existing::Replace);
            assert!(matches!(refused, Err(PartFileError::NotAFile { .. })), "{}", path.display());
        }
        assert!(path.is_symlink());
    }

    #[test]
    fn a_second_run_on_the_same_path_is_refused() {
        let (_dir, path) = target();
        let first = PartFile::create(&path, Existing::Keep).unwrap();
        let second = PartFile::create(&path, Existing::Keep);
        assert!(matches!(second, Err(PartFileError::Busy { .. })));
        first.commit().unwrap();
    }

    #[test]
    fn what_is_no_leftover_of_ours_is_refused_and_left_alone() {
        let (dir, path) = target();
        let part = dir.path().join("x.db.part");
        let other = dir.path().join("other");
        leave(&other, b"precious");
        let open_to_all = || {
            leave(&part, b"precious");
            std::fs::set_permissions(&part, Permissions::from_mode(0o666)).unwrap();
        };
        let hard_link = || std::fs::hard_link(&other, &part).unwrap();
        let symbolic_link = || std::os::unix::fs::symlink(&other, &part).unwrap();
        let in_the_way: [&dyn Fn(); 3] = [&open_to_all, &hard_link, &symbolic_link];
        for put in in_the_way {
            put();
            let refused = PartFile::create(&path, Existing::Replace);
            assert!(matches!(refused, Err(PartFileError::NotALeftover { .. })), "{refused:?}");
            assert_eq!(std::fs::read(&part).unwrap(), b"precious");
            std::fs::remove_file(&part).unwrap();
        }
        std::fs::create_dir(&part).unwrap();
        let refused = PartFile::create(&path, Existing::Replace);
        assert!(matches!(refused, Err(PartFileError::NotALeftover { .. })), "{refused:?}");
        assert_eq!(std::fs::read(&other).unwrap(), b"precious");
    }

    #[test]
    fn a_folder_is_refused_at_the_start_even_by_force() {
        let (dir, _) = target();
        let refused = PartFile::create(dir.path(), Existing::Replace);
        assert!(matches!(refused, Err(PartFileError::Folder { .. })), "{refused:?}");
    }

    #[test]
    fn without_a_rename_that_refuses_a_link_puts_the_file_in_place_and_replaces_nothing() {
        let (_dir, path) = target();
        let part = PartFile::create(&path, Existing::Keep).unwrap();
        part.file().write_all(b"new").unwrap();
        std::fs::write(&path, b"old").unwrap();
        assert!(matches!(part.link(), Err(PartFileError::Exists { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        std::fs::remove_file(&path).unwrap();
        part.link().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert!(!part.path().exists());
    }
}
