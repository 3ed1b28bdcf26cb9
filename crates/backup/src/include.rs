//! Files that a restore may need besides the database: certificates, static pods, the encryption config.
//!
//! ```text
//!   etc/kubernetes/pki/            each path as it was given, without the `/` in front
//!   etc/kubernetes/pki/ca.crt      mode, owner and group as numbers, time of change
//!   etc/kubernetes/pki/x -> y      links as links
//! ```
//!
//! * The same files give the same tar, byte for byte.
//! * A file that changes or vanishes while it is read is an error, not a torn copy.
//! * Devices, sockets and pipes are refused when they are named, and when they lie in a folder.
//! * [`unpack()`] puts files below one folder and nowhere else, and overwrites nothing.

mod unpack;

pub use unpack::{UnpackError, Unpacked, check_absent_or_empty, unpack};

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
};
use tar::{Builder, EntryType, Header};

/// Folders in folders, at most: no certificate lies deeper, and no loop of mounts goes on for ever.
const DEPTH_MAX: usize = 64;

/// Why files cannot be kept with a backup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IncludeError {
    /// A file cannot be read.
    #[error("cannot read {} to include it", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file was written to while it was read.
    #[error("{} changed while it was read", path.display())]
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// A device, a socket, a pipe.
    #[error("{} is {kind}, which cannot be included", path.display())]
    Kind {
        /// Which.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A path that means another place after `..`, or none.
    #[error("{} cannot be included under its own name", path.display())]
    Path {
        /// Which.
        path: PathBuf,
    },
    /// Folders within folders without end.
    #[error("{} lies in more than {DEPTH_MAX} folders", path.display())]
    TooDeep {
        /// Which.
        path: PathBuf,
    },
    /// The tar cannot be written.
    #[error("cannot write the archive of included files")]
    Write(#[source] io::Error),
    /// They would be stored for everybody to read.
    #[error("files to include hold secrets, but {repository} is not encrypted")]
    Plain {
        /// Which repository.
        repository: String,
    },
}

impl IncludeError {
    /// One imperative sentence: what to do next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "check the path, or leave it out"
            }
            Self::Read { .. } => "run as a user that may read it, or leave it out",
            Self::Changed { .. } => "run again when nobody writes to it",
            Self::Kind { .. } => "leave it out",
            Self::Path { .. } => "give a path without `..`",
            Self::TooDeep { .. } => {
                "include the files that are meant, and not the folder around them"
            }
            Self::Write(_) => "free space in the spool directory, or choose another",
            Self::Plain { .. } => {
                "give a --recipient to encrypt to, or allow it: --include-unencrypted"
            }
        }
    }
}

/// Writes `paths`, and all that is in them, to `output` as a tar.
pub fn pack(paths: &[PathBuf], output: impl Write) -> Result<(), IncludeError> {
    let mut packing = Packing { tar: Builder::new(output), packed: BTreeSet::new() };
    for path in paths {
        packing.add(path, 0)?;
    }
    packing.tar.into_inner().and_then(|mut output| output.flush()).map_err(IncludeError::Write)
}

struct Packing<W: Write> {
    tar: Builder<W>,
    /// Names that are in it: a folder may be given, and what is in it too.
    packed: BTreeSet<PathBuf>,
}

impl<W: Write> Packing<W> {
    fn add(&mut self, path: &Path, depth: usize) -> Result<(), IncludeError> {
        if depth > DEPTH_MAX {
            return Err(IncludeError::TooDeep { path: path.to_owned() });
        }
        let name = name_of(path)?;
        if !self.packed.insert(name.clone()) {
            return Ok(());
        }
        let found = fs::symlink_metadata(path).map_err(read_error(path))?;
        let kind = found.file_type();
        if kind.is_dir() {
            self.add_folder(path, &name, &found, depth)
        } else if kind.is_symlink() {
            let target = fs::read_link(path).map_err(read_error(path))?;
            let mut header = header(&found, EntryType::Symlink);
            self.tar.append_link(&mut header, name, target).map_err(IncludeError::Write)
        } else if kind.is_file() {
            self.add_file(path, &name)
        } else {
            let kind = match kind {
                kind if kind.is_socket() => "a socket",
                kind if kind.is_fifo() => "a pipe",
                _ => "a device",
            };
            Err(IncludeError::Kind { path: path.to_owned(), kind })
        }
    }

    fn add_folder(
        &mut self,
        path: &Path,
        name: &Path,
        found: &Metadata,
        depth: usize,
    ) -> Result<(), IncludeError> {
        let mut header = header(found, EntryType::Directory);
        if !name.as_os_str().is_empty() {
            self.tar.append_data(&mut header, name, io::empty()).map_err(IncludeError::Write)?;
        }
        let entries = fs::read_dir(path).map_err(read_error(path))?;
        let names: Result<Vec<OsString>, _> =
            entries.map(|entry| entry.map(|entry| entry.file_name())).collect();
        let mut names = names.map_err(read_error(path))?;
        names.sort();
        names.iter().try_for_each(|name| self.add(&path.join(name), depth + 1))
    }

    fn add_file(&mut self, path: &Path, name: &Path) -> Result<(), IncludeError> {
        let mut options = File::options();
        // What was a file a moment ago may be a link or a pipe now.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.read(true).custom_flags(flags.bits().cast_signed());
        let file = options.open(path).map_err(read_error(path))?;
        let before = file.metadata().map_err(read_error(path))?;
        let changed = || IncludeError::Changed { path: path.to_owned() };
        if !before.is_file() {
            return Err(changed());
        }
        let mut header = header(&before, EntryType::Regular);
        header.set_size(before.len());
        let mut content = Exactly { file: &file, left: before.len(), failed: None };
        let appended = self.tar.append_data(&mut header, name, &mut content);
        if let Some(error) = content.failed {
            let short = error.kind() == io::ErrorKind::UnexpectedEof;
            return Err(if short { changed() } else { read_error(path)(error) });
        }
        appended.map_err(IncludeError::Write)?;
        let after = file.metadata().map_err(read_error(path))?;
        let stamp = |found: &Metadata| (found.len(), found.mtime(), found.mtime_nsec());
        if stamp(&before) == stamp(&after) { Ok(()) } else { Err(changed()) }
    }
}

fn read_error(path: &Path) -> impl Fn(io::Error) -> IncludeError {
    let path = path.to_owned();
    move |source| IncludeError::Read { path: path.clone(), source }
}

/// The name in the archive: the path without `/` and `.`.
fn name_of(path: &Path) -> Result<PathBuf, IncludeError> {
    let mut name = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => name.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(IncludeError::Path { path: path.to_owned() });
            }
        }
    }
    if name.as_os_str().is_empty() && path != Path::new(".") {
        return Err(IncludeError::Path { path: path.to_owned() });
    }
    Ok(name)
}

fn header(found: &Metadata, kind: EntryType) -> Header {
    const PERMISSIONS: u32 = 0o7777;
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(found.mode() & PERMISSIONS);
    header.set_uid(u64::from(found.uid()));
    header.set_gid(u64::from(found.gid()));
    header.set_mtime(u64::try_from(found.mtime()).unwrap_or(0));
    header.set_size(0);
    header
}

/// As many bytes as the header says: one more or less, and all after it would be misread.
struct Exactly<'f> {
    file: &'f File,
    left: u64,
    failed: Option<io::Error>,
}

impl Read for &mut Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        let read = match self.file.read(&mut buffer[..room]) {
            Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            read => read,
        };
        match read {
            Ok(read) => {
                self.left -= read as u64;
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let told = io::Error::from(error.kind());
                self.failed = Some(error);
                Err(told)
            }
        }
    }
}

#[cfg(test)]
mod tests;
