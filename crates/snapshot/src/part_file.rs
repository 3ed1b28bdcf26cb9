//! A file that appears under its final name only when it is complete.
//!
//! ```text
//!   PATH.part   created 0600, locked, filled   ->  fsync  ->  renamed to PATH  ->  folder fsynced
//! ```
//!
//! * A stop at any instant leaves the old `PATH` or the new one. What is left of a killed run is
//!   `PATH.part`, which the next run takes over; its lock died with the run.
//! * Two runs that write the same `PATH` never mix: the second finds the lock and is refused.
//! * An existing `PATH` is refused at the start, and again by the rename, so that one that appeared
//!   meanwhile is not lost.

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

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
            Self::Exists { .. } => "choose another name, or replace it with --force",
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
        if existing == Existing::Keep && target.symlink_metadata().is_ok() {
            return Err(PartFileError::Exists { path: target.to_owned() });
        }
        let mut name = OsString::from(target);
        name.push(".part");
        let part = PathBuf::from(name);
        let file = lock_new(&part)?;
        let this = Self { file, part, target: target.to_owned(), existing, committed: false };
        this.file.set_len(0).map_err(|e| this.error("truncate", e))?;
        Ok(this)
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
            // Some network file systems know no flags; the check at the start is all there is then.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                std::fs::rename(&self.part, &self.target).map_err(|e| self.error("rename", e))
            }
            Err(errno) => Err(self.error("rename", errno.into())),
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
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(part)
            .map_err(|e| error("create", e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(PartFileError::Busy { part: part.to_owned() });
            }
            Err(errno) => return Err(error("lock", errno.into())),
        }
        let locked = file.metadata().map_err(|e| error("inspect", e))?;
        let named = part.symlink_metadata().ok();
        if named.is_some_and(|named| (named.dev(), named.ino()) == (locked.dev(), locked.ino())) {
            return Ok(file);
        }
    }
}

/// Makes the entry of `path` in its folder durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
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
        std::fs::write(&part, b"left by kill -9, longer than what follows").unwrap();
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
    fn a_second_run_on_the_same_path_is_refused() {
        let (_dir, path) = target();
        let first = PartFile::create(&path, Existing::Keep).unwrap();
        let second = PartFile::create(&path, Existing::Keep);
        assert!(matches!(second, Err(PartFileError::Busy { .. })));
        first.commit().unwrap();
    }
}
