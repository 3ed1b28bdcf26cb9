//! Backups that others made, taken as they are: etcdctl, k3s and RKE2, OpenShift, kOps, etcd-backup-restore.
//!
//! | made by | what it is |
//! | --- | --- |
//! | `etcdctl snapshot save` | the snapshot itself |
//! | k3s, RKE, RKE2 | the same in a `.zip`, if so configured |
//! | OpenShift's `cluster-backup.sh` | a folder: `snapshot_<time>.db` and an archive of static pods |
//! | kOps' etcd-manager | `etcd.backup.gz` |
//! | etcd-backup-restore v2 | `Full-<first>-<last>-<time>`, as it is or `.gz`, `.Z`, `.zlib` |
//!
//! A folder is searched by names, a file is unwrapped by what is in it ([`Layer`]). Nothing of it is
//! believed: what comes out is a snapshot that is still to be proved.

mod layers;
mod lzw;
mod names;

pub use layers::{Layer, LayerError};
pub use names::{LeftOut, Picked};

use names::NoPick;
use repository::codec::{self, CodecError, Decoding, Identities};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Why a foreign backup cannot be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file or folder cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A folder without files.
    #[error("{place} holds no backup")]
    Empty {
        /// The folder, or the prefix in a store.
        place: String,
    },
    /// A folder of which it cannot be told what is meant.
    #[error("{place} holds {} files, and their names do not tell which is the backup", names.len())]
    Ambiguous {
        /// The folder, or the prefix in a store.
        place: String,
        /// The files.
        names: Vec<String>,
    },
    /// The data directory of a member, which is no backup.
    #[error("{} is the data directory of an etcd member", path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
    },
    /// The file cannot be unwrapped.
    #[error("cannot take a snapshot out of {place}")]
    Unwrap {
        /// The file.
        place: String,
        /// Why not.
        source: LayerError,
    },
    /// The file is encrypted by age, and cannot be opened, or has no zstd in it.
    #[error("cannot decrypt {place}")]
    Decrypt {
        /// The file.
        place: String,
        /// Why not.
        source: Box<CodecError>,
    },
}

impl ImportError {
    /// One imperative sentence: what to do next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => "check the path",
            Self::Io { .. } => "run as a user that may read it, or with sudo",
            Self::Empty { .. } => "give the folder that the backups are in",
            Self::Ambiguous { .. } => "give the file that is meant",
            Self::DataDir { .. } => "stop the member, and give its folder as --from-data-dir",
            Self::Unwrap { source, .. } => source.remedy(),
            Self::Decrypt { source, .. } => {
                source.remedy().unwrap_or("decrypt it by `age -d`, and give the result")
            }
        }
    }

    /// Whether the bytes of the backup are at fault.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Unwrap { source, .. } => source.is_damage(),
            Self::Decrypt { source, .. } => source.is_damage(),
            _ => false,
        }
    }
}

/// The file to take for a path that a user gave, and what is left out beside it.
pub fn find(path: &Path) -> Result<(PathBuf, Vec<LeftOut>), ImportError> {
    let io_error = |source| ImportError::Io { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(io_error)?.is_dir() {
        return Ok((path.to_owned(), Vec::new()));
    }
    if path.join("member/snap/db").exists() {
        return Err(ImportError::DataDir { path: path.to_owned() });
    }
    // etcd-backup-restore puts a folder of that name under the one that it was given.
    let v2 = path.join("v2");
    let folder = if v2.is_dir() { v2.as_path() } else { path };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error)? {
        let entry = entry.map_err(io_error)?;
        let name = entry.file_name().into_string();
        if let (Ok(name), true) = (name, entry.file_type().map_err(io_error)?.is_file()) {
            names.push(name);
        }
    }
    let Picked { name, left } = pick(&folder.display().to_string(), names)?;
    Ok((folder.join(name), left))
}

/// Which of the files in one place is the backup. The names are the last parts of their paths.
pub fn pick(place: &str, mut names: Vec<String>) -> Result<Picked, ImportError> {
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names::pick(&names).map_err(|none| match none {
        NoPick::None => ImportError::Empty { place: place.to_owned() },
        NoPick::Several(names) => ImportError::Ambiguous { place: place.to_owned(), names },
    })
}

/// Whether the file is one that must be unwrapped before it can be read as a database.
pub fn is_wrapped(path: &Path) -> Result<bool, ImportError> {
    let io_error = |source| ImportError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io_error)?;
    layers::is_wrapped(&file).map_err(io_error)
}

/// The same of a file that is open; it is read from its beginning afterwards.
pub(crate) fn is_wrapped_file(file: &File) -> io::Result<bool> {
    layers::is_wrapped(file)
}

/// Writes the snapshot that `file` is, or has in it, to `output`, `bytes_max` bytes at most. Returns what
/// it was wrapped in, the outermost first. `place` is what errors call it.
///
/// What age has encrypted must be a zstd file within, as backups of ours are.
pub fn unwrap(
    place: &str,
    mut file: File,
    output: &mut dyn Write,
    bytes_max: u64,
    identities: &Identities,
) -> Result<Vec<Layer>, ImportError> {
    let unwrap = |source| ImportError::Unwrap { place: place.to_owned(), source };
    if !layers::is_age(&mut file).map_err(|e| unwrap(LayerError::Read(e)))? {
        return layers::unwrap(file, output, bytes_max).map_err(unwrap);
    }
    let mut output = AtMost { output, left: bytes_max, exceeded: false };
    let decoding =
        Decoding { object: place, identities: Some(identities), expected: None, workers: 1 };
    let decoded = codec::decode(file, &mut output, &decoding, &|_| {});
    if output.exceeded {
        return Err(unwrap(LayerError::TooLarge { max: bytes_max }));
    }
    match decoded {
        Ok(_) => Ok(vec![Layer::Age, Layer::Zstd]),
        Err(error) => {
            Err(ImportError::Decrypt { place: place.to_owned(), source: Box::new(error) })
        }
    }
}

/// Refuses what goes beyond the room.
struct AtMost<'o> {
    output: &'o mut dyn Write,
    left: u64,
    exceeded: bool,
}

impl Write for AtMost<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.left.checked_sub(bytes.len() as u64) {
            Some(left) => self.left = left,
            None => {
                self.exceeded = true;
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        self.output.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests;
