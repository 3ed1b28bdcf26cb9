//! A folder as a store.
//!
//! ```text
//!   <root>/prod/snapshots/…/manifest.json     an object: a file, mode 0600, in folders of mode 0700
//!   <root>/.lifeboat-tmp/<random>             an object on its way, locked (flock) by the process that writes it
//! ```
//!
//! * An object is written aside, synced, and then renamed with `RENAME_NOREPLACE` (where the file system has no such
//!   rename, hard-linked): it appears whole or not at all, and of two that create it one fails. Its folders are synced
//!   after it, so what was created outlives a power cut.
//! * The lock on a file aside ends with its process, whatever ended that. Who next writes to the store removes files
//!   that nobody locks; no clock is asked.
//! * Symbolic links below the root are not listed, so that no listing leaves it.
//! * A root that is not there is an empty store. Creating makes it.

use super::{
    At, Backend, Entry, ObjectLock, ObjectWriter, Operation, StoreError,
    path::{HIDDEN, check_path, check_prefix, random_name},
};
use bytes::Bytes;
use futures::{
    FutureExt,
    future::BoxFuture,
    stream::{self, BoxStream, StreamExt},
};
use rustix::{
    fs::{CWD, FlockOperation, RenameFlags, flock, fstat, linkat, renameat_with, stat},
    io::Errno,
};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// What a reader takes at once.
const PIECE_BYTES: usize = 1 << 20;

/// How often creating begins anew when another process removes the empty folders that it just made.
/// Each time costs that process a whole deletion, so a few are plenty.
const FOLDER_ATTEMPTS_MAX: u32 = 100;

/// What file systems put into the root of a volume; only the administrator can read it.
const LOST_AND_FOUND: &str = "lost+found";

/// A folder as a store; see the [module](self).
pub(super) struct Local {
    root: Arc<Root>,
}

impl Local {
    /// The folder `root`, which need not be there. A relative path is taken from the current folder, now.
    pub(super) fn new(root: &Path) -> Self {
        let path = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let url = url::Url::from_file_path(&path)
            .map_or_else(|()| path.display().to_string(), String::from);
        Self { root: Arc::new(Root { path, url }) }
    }

    /// Does `work` where it may block.
    fn blocking<T: Send + 'static>(
        &self,
        operation: Operation,
        path: &str,
        work: impl FnOnce(&Root, &str) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let (root, path) = (self.root.clone(), path.to_owned());
        async move {
            let at = root.at(operation, &path);
            join(at, move || work(&root, &path)).await
        }
        .boxed()
    }
}

impl Backend for Local {
    fn url(&self) -> &str {
        &self.root.url
    }

    fn object_lock<'a>(
        &'a self,
        _path: Option<&'a str>,
    ) -> BoxFuture<'a, Result<ObjectLock, StoreError>> {
        Box::pin(async { Ok(ObjectLock::Open) })
    }

    fn is_create_only(&self) -> bool {
        true
    }

    fn create<'a>(&'a self, path: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        self.blocking(Operation::Create, path, move |root, path| {
            check_path(path)?;
            let aside = Aside::new(root, path)?;
            let failed = |e| root.failed(Operation::Write, path, e);
            (&aside.file).write_all(&bytes).map_err(failed)?;
            aside.complete(root, path)
        })
    }

    fn writer<'a>(
        &'a self,
        path: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn ObjectWriter>, StoreError>> {
        self.blocking(Operation::Create, path, |root, path| {
            check_path(path)?;
            if fs::symlink_metadata(root.path.join(path)).is_ok() {
                return Err(StoreError::Exists { at: root.at(Operation::Create, path) });
            }
            let aside = Arc::new(Aside::new(root, path)?);
            let root = Root { path: root.path.clone(), url: root.url.clone() };
            let writer = LocalWriter { root, path: path.to_owned(), aside, is_broken: false };
            Ok(Box::new(writer) as Box<dyn ObjectWriter>)
        })
    }

    fn read<'a>(
        &'a self,
        path: &'a str,
        bytes_max: u64,
    ) -> BoxFuture<'a, Result<Bytes, StoreError>> {
        self.blocking(Operation::Read, path, move |root, path| {
            let (file, bytes) = root.open(Operation::Read, path)?;
            let at = || root.at(Operation::Read, path);
            if bytes > bytes_max {
                return Err(StoreError::TooLarge { at: at(), bytes, bytes_max });
            }
            let mut content = Vec::new();
            let mut limited = file.take(bytes_max);
            limited.read_to_end(&mut content).map_err(|e| root.failed(Operation::Read, path, e))?;
            Ok(content.into())
        })
    }

    fn reader<'a>(
        &'a self,
        path: &'a str,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError>> {
        async move {
            let (file, _) = self
                .blocking(Operation::Read, path, |root, path| root.open(Operation::Read, path))
                .await?;
            let at = self.root.at(Operation::Read, path);
            Ok(pieces(file, at))
        }
        .boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Entry>, StoreError>> {
        self.blocking(Operation::List, prefix, |root, prefix| {
            check_prefix(prefix)?;
            let mut entries = Vec::new();
            // Folders to visit: a stack and not a recursion, as how deep they go is not ours to say.
            let mut folders = vec![prefix.to_owned()];
            while let Some(folder) = folders.pop() {
                for (name, kind) in root.children(&folder)? {
                    let path = format!("{folder}{name}");
                    match kind {
                        Kind::Folder => folders.push(path + "/"),
                        Kind::Object { bytes } => entries.push(Entry { path, bytes }),
                    }
                }
            }
            entries.sort_by(|a, b| a.path.cmp(&b.path));
            Ok(entries)
        })
    }

    fn folders<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        self.blocking(Operation::List, prefix, |root, prefix| {
            check_prefix(prefix)?;
            let children = root.children(prefix)?;
            let folders = children.into_iter().filter(|(_, kind)| matches!(kind, Kind::Folder));
            let mut names: Vec<String> = folders.map(|(name, _)| name).collect();
            names.sort();
            Ok(names)
        })
    }

    fn size<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<u64, StoreError>> {
        self.blocking(Operation::Size, path, |root, path| {
            check_path(path)?;
            match fs::metadata(root.path.join(path)) {
                Ok(metadata) if metadata.is_file() => Ok(metadata.len()),
                Ok(_) => Err(StoreError::NotFound { at: root.at(Operation::Size, path) }),
                Err(e) => Err(root.failed(Operation::Size, path, e)),
            }
        })
    }

    fn delete<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        self.blocking(Operation::Delete, path, |root, path| {
            check_path(path)?;
            match fs::remove_file(root.path.join(path)) {
                Ok(()) => root.tidy(path).map_err(|e| root.failed(Operation::Delete, path, e)),
                // A folder is no object.
                Err(e) if is_absent(&e) || e.kind() == io::ErrorKind::IsADirectory => Ok(()),
                Err(e) => Err(root.failed(Operation::Delete, path, e)),
            }
        })
    }
}

/// Runs `work` on a thread that may block.
async fn join<T: Send + 'static>(
    at: At,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(StoreError::Io { at, source: e.into() }))
}

/// The rest of `file`, piece by piece; an error ends it.
fn pieces(file: File, at: At) -> BoxStream<'static, Result<Bytes, StoreError>> {
    stream::try_unfold((file, at), |(mut file, at)| async move {
        let during = at.clone();
        join(during, move || {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            let limit = u64::try_from(PIECE_BYTES).expect("a constant");
            match (&mut file).take(limit).read_to_end(&mut piece) {
                Ok(0) => Ok(None),
                Ok(_) => Ok(Some((Bytes::from(piece), (file, at)))),
                Err(e) => Err(failed(at, e)),
            }
        })
        .await
    })
    .boxed()
}

/// The folder, and how it is called in errors.
struct Root {
    path: PathBuf,
    url: String,
}

/// What lies in a folder.
enum Kind {
    Folder,
    Object { bytes: u64 },
}

impl Root {
    fn at(&self, operation: Operation, path: &str) -> At {
        At::new(&self.url, operation, path)
    }

    fn failed(&self, operation: Operation, path: &str, error: io::Error) -> StoreError {
        failed(self.at(operation, path), error)
    }

    /// Opens an object, and tells its size.
    fn open(&self, operation: Operation, path: &str) -> Result<(File, u64), StoreError> {
        check_path(path)?;
        // A pipe must not make us wait for its other end.
        let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).expect("a small flag");
        let opened =
            OpenOptions::new().read(true).custom_flags(nonblock).open(self.path.join(path));
        let file = opened.map_err(|e| self.failed(operation, path, e))?;
        let metadata = file.metadata().map_err(|e| self.failed(operation, path, e))?;
        match metadata.is_file() {
            true => Ok((file, metadata.len())),
            false => Err(StoreError::NotFound { at: self.at(operation, path) }),
        }
    }

    /// What lies directly below a prefix, in no order. What vanishes meanwhile is left out.
    fn children(&self, prefix: &str) -> Result<Vec<(String, Kind)>, StoreError> {
        let failed = |e| self.failed(Operation::List, prefix, e);
        let entries = match fs::read_dir(self.path.join(prefix)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            // A root that is a file is a mistake; a prefix that is one has nothing below it.
            Err(e) if is_absent(&e) && !prefix.is_empty() => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let mut children = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            // We create no name that is not UTF-8, so it is none of our objects.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if prefix.is_empty() && (name == HIDDEN || name == LOST_AND_FOUND) {
                continue;
            }
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => children.push((name, Kind::Folder)),
                Ok(metadata) if metadata.is_file() => {
                    children.push((name, Kind::Object { bytes: metadata.len() }));
                }
                Ok(_) => {}
                Err(e) if is_absent(&e) => {}
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(children)
    }

    /// After a deletion: removes the folders that it left empty, and syncs the one that is left.
    fn tidy(&self, path: &str) -> io::Result<()> {
        let mut folder = path;
        while let Some((above, _)) = folder.rsplit_once('/') {
            folder = above;
            if fs::remove_dir(self.path.join(folder)).is_err() {
                // Not empty, or another was faster.
                return ignore_absent(sync_folder(&self.path.join(folder)));
            }
        }
        ignore_absent(sync_folder(&self.path))
    }
}

/// An object on its way into the folder.
struct LocalWriter {
    root: Root,
    path: String,
    aside: Arc<Aside>,
    /// A write failed or was cancelled half-way: what is aside is not what the caller gave.
    is_broken: bool,
}

impl LocalWriter {
    fn check(&self, operation: Operation) -> Result<(), StoreError> {
        match self.is_broken {
            false => Ok(()),
            true => {
                let source = io::Error::other("an earlier write to it failed or was given up");
                Err(StoreError::Io {
                    at: self.root.at(operation, &self.path),
                    source: source.into(),
                })
            }
        }
    }
}

impl ObjectWriter for LocalWriter {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            self.check(Operation::Write)?;
            self.is_broken = true;
            let at = self.root.at(Operation::Write, &self.path);
            let aside = self.aside.clone();
            let during = at.clone();
            join(during, move || (&aside.file).write_all(&bytes).map_err(|e| failed(at, e)))
                .await?;
            self.is_broken = false;
            Ok(())
        }
        .boxed()
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        async move {
            self.check(Operation::Finish)?;
            let at = self.root.at(Operation::Finish, &self.path);
            join(at, move || self.aside.complete(&self.root, &self.path)).await
        }
        .boxed()
    }

    fn abort(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        drop(self);
        async { Ok(()) }.boxed()
    }
}

/// A file in the hidden folder, locked. Dropped, it removes what is still there under its name.
struct Aside {
    file: File,
    path: PathBuf,
}

impl Aside {
    /// A new one, to become the object `path`. Also removes those of processes that are no more.
    fn new(root: &Root, path: &str) -> Result<Self, StoreError> {
        let folder = root.path.join(HIDDEN);
        let made = make_folders(&folder).and_then(|()| {
            sweep(&folder);
            Self::locked(&folder)
        });
        made.map_err(|e| root.failed(Operation::Create, path, e))
    }

    fn locked(folder: &Path) -> io::Result<Self> {
        loop {
            let path = folder.join(random_name());
            let created =
                OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
            let file = match created {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other?,
            };
            let aside = Self { file, path };
            match flock(&aside.file, FlockOperation::LockExclusive) {
                // Without locks nobody sweeps either.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOLCK | Errno::INVAL) => {}
                Err(e) => return Err(e.into()),
            }
            // Between its creation and its lock another process may have swept it away.
            if fstat(&aside.file)?.st_nlink > 0 {
                return Ok(aside);
            }
        }
    }

    /// Makes it the object `path`, for good.
    fn complete(&self, root: &Root, path: &str) -> Result<(), StoreError> {
        let at = || root.at(Operation::Finish, path);
        self.file.sync_all().map_err(|e| failed(at(), e))?;
        let target = root.path.join(path);
        let folder = target.parent().expect("the root, at least");
        let mut attempts_left = FOLDER_ATTEMPTS_MAX;
        while let Err(e) = make_folders(folder).and_then(|()| Ok(self.place(&target)?)) {
            match e.kind() {
                io::ErrorKind::AlreadyExists => return Err(StoreError::Exists { at: at() }),
                // A deletion has just removed the folder, as it was empty.
                io::ErrorKind::NotFound if attempts_left > 0 && self.path.exists() => {
                    attempts_left -= 1;
                }
                _ => return Err(failed(at(), e)),
            }
        }
        sync_folder(folder).map_err(|e| failed(at(), e))
    }

    /// Gives it the name `target`, unless that is taken.
    fn place(&self, target: &Path) -> Result<(), Errno> {
        match renameat_with(CWD, &self.path, CWD, target, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.link(target),
            other => other,
        }
    }

    /// As [`place`](Self::place), where the file system (NFS is one) has no such rename.
    fn link(&self, target: &Path) -> Result<(), Errno> {
        let linked = linkat(CWD, &self.path, CWD, target, rustix::fs::AtFlags::empty());
        match linked {
            // Over a network the answer to our own success may have been lost.
            Err(Errno::EXIST) => {
                let (ours, there) = (fstat(&self.file)?, stat(target)?);
                match (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino) {
                    true => Ok(()),
                    false => Err(Errno::EXIST),
                }
            }
            other => other,
        }
        // The name aside goes when `self` does.
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // After a rename there is nothing under this random name. What cannot be removed now is swept later.
        drop(fs::remove_file(&self.path));
    }
}

/// Removes files aside that no living process holds. Failures are for the next one who sweeps.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(file) = File::open(entry.path()) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            drop(fs::remove_file(entry.path()));
        }
    }
}

/// Makes a folder and those above it, mode 0700, each synced into the one above.
fn make_folders(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => sync_folder(folder.parent().unwrap_or(folder)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match folder.is_dir() {
            true => Ok(()),
            false => Err(io::Error::from(Errno::NOTDIR)),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let Some(above) = folder.parent() else { return Err(e) };
            make_folders(above)?;
            match DirBuilder::new().mode(0o700).create(folder) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
                _ => sync_folder(above),
            }
        }
        Err(e) => Err(e),
    }
}

/// Makes the names in a folder outlive a power cut, where the file system can.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::INVAL | Errno::OPNOTSUPP)) => {
            Ok(())
        }
        other => other,
    }
}

/// Whether an object is not there, or cannot be as a part of its path is one.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn ignore_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if is_absent(&e) => Ok(()),
        other => other,
    }
}

/// Sorts what the file system said.
fn failed(at: At, error: io::Error) -> StoreError {
    use io::ErrorKind::{
        NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    let reading = matches!(at.operation, Operation::Read | Operation::Size);
    match error.kind() {
        NotFound | NotADirectory if reading => StoreError::NotFound { at },
        PermissionDenied | ReadOnlyFilesystem => StoreError::Denied { at, source: error.into() },
        StorageFull | QuotaExceeded => StoreError::NoSpace { at, source: error.into() },
        _ => StoreError::Io { at, source: error.into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_file_system_says_is_sorted() {
        let sorted = |operation, errno: Errno| {
            failed(At::new("file:///x", operation, "a"), io::Error::from(errno))
        };
        let write = Operation::Write;
        assert!(matches!(sorted(write, Errno::NOSPC), StoreError::NoSpace { .. }));
        assert!(matches!(sorted(write, Errno::DQUOT), StoreError::NoSpace { .. }));
        assert!(sorted(write, Errno::ROFS).is_denied());
        assert!(sorted(write, Errno::ACCESS).is_denied());
        assert!(sorted(Operation::Read, Errno::NOENT).is_not_found());
        assert!(matches!(sorted(write, Errno::NOTDIR), StoreError::Io { .. }));
        assert!(matches!(sorted(Operation::Read, Errno::IO), StoreError::Io { .. }));
    }

    /// File systems without `RENAME_NOREPLACE` take this way.
    #[test]
    fn a_hard_link_is_create_only_too_and_knows_its_own_success() {
        let folder = tempfile::tempdir().unwrap();
        let root = Local::new(folder.path()).root;
        let (one, other) = (Aside::new(&root, "x").unwrap(), Aside::new(&root, "x").unwrap());
        let target = folder.path().join("x");
        one.link(&target).unwrap();
        assert_eq!(other.link(&target), Err(Errno::EXIST));
        one.link(&target).unwrap();
        drop((one, other));
        assert!(target.exists());
        assert_eq!(fs::read_dir(folder.path().join(HIDDEN)).unwrap().count(), 0);
    }
}
