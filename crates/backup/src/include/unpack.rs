//! Files out of the archive, below one folder and nowhere else.
//!
//! * The folder is made here, or was empty: nothing in it can lead elsewhere, and nothing is overwritten.
//! * Files come first, links last: nothing is ever written through a link.
//! * A link that leads out of the folder is not made, but told: where it led to may be of another time.
//! * Owners are set as numbers if we may, which takes root. Set-user-id bits are left off.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink},
    path::{Component, Path, PathBuf},
};
use tar::{Archive, Entry, EntryType};

/// What was unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Files, without folders and links.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Links that were not made, and where they would have led.
    pub links_left_out: Vec<(PathBuf, PathBuf)>,
}

/// Why included files cannot be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// Something is in the folder.
    #[error("{} is not empty", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// A file or folder cannot be made.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The archive cannot be read.
    #[error("the archive of included files is damaged")]
    Read(#[source] io::Error),
    /// An entry that leads out of the folder, or is no file, folder or link.
    #[error("the archive of included files has {}, which is not unpacked", path.display())]
    Hostile {
        /// Its name.
        path: PathBuf,
    },
}

impl UnpackError {
    /// One imperative sentence: what to do next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotEmpty { .. } => "give a folder that is empty, or not there",
            Self::Write { .. } => "check that it can be written there, and the space that is left",
            Self::Read(_) => "check the backup: lifeboat verify",
            Self::Hostile { .. } => "do not trust this backup: no Lifeboat has written that",
        }
    }
}

/// Unpacks a tar that [`pack`](super::pack) has written below `folder`.
pub fn unpack(archive: impl Read, folder: &Path) -> Result<Unpacked, UnpackError> {
    make_empty(folder)?;
    let mut unpacking = Unpacking::new(folder);
    let mut archive = Archive::new(archive);
    for entry in archive.entries().map_err(UnpackError::Read)? {
        unpacking.entry(entry.map_err(UnpackError::Read)?)?;
    }
    unpacking.finish()
}

/// Refuses a folder that [`unpack`] would refuse; touches nothing.
pub fn check_absent_or_empty(folder: &Path) -> Result<(), UnpackError> {
    is_there_and_empty(folder).map(|_| ())
}

fn make_empty(folder: &Path) -> Result<(), UnpackError> {
    if is_there_and_empty(folder)? {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| UnpackError::Write { path: folder.to_owned(), source })
}

/// Whether an empty folder is there; `false` if nothing is, an error if something else is.
fn is_there_and_empty(folder: &Path) -> Result<bool, UnpackError> {
    match fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            None => Ok(true),
            Some(_) => Err(UnpackError::NotEmpty { path: folder.to_owned() }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(UnpackError::Write { path: folder.to_owned(), source }),
    }
}

struct Unpacking<'f> {
    folder: &'f Path,
    as_root: bool,
    done: Unpacked,
    links: Vec<(PathBuf, PathBuf)>,
    /// Modes and owners, set last: a folder may forbid writing.
    folders: Vec<(PathBuf, Attributes)>,
}

#[derive(Clone, Copy)]
struct Attributes {
    mode: u32,
    owner: Option<(u32, u32)>,
}

impl<'f> Unpacking<'f> {
    fn new(folder: &'f Path) -> Self {
        let as_root = rustix::process::geteuid().is_root();
        let (done, links, folders) = (Unpacked::default(), Vec::new(), Vec::new());
        Self { folder, as_root, done, links, folders }
    }

    fn entry<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), UnpackError> {
        let name = entry.path().map_err(UnpackError::Read)?.into_owned();
        let path = self.folder.join(checked(&name)?);
        let attributes = self.attributes(&entry)?;
        match entry.header().entry_type() {
            EntryType::Directory => {
                self.make_folder(&path)?;
                self.folders.push((path, attributes));
            }
            EntryType::Regular => {
                self.make_parents(&path)?;
                let bytes = write_file(&mut entry, &path, attributes)?;
                self.done.files += 1;
                self.done.bytes += bytes;
            }
            EntryType::Symlink => {
                let target = entry.link_name().map_err(UnpackError::Read)?;
                let target = target.ok_or(UnpackError::Hostile { path: name })?.into_owned();
                self.links.push((path, target));
            }
            _ => return Err(UnpackError::Hostile { path: name }),
        }
        Ok(())
    }

    fn attributes<R: Read>(&self, entry: &Entry<'_, R>) -> Result<Attributes, UnpackError> {
        const PLAIN: u32 = 0o777;
        let header = entry.header();
        let mode = header.mode().map_err(UnpackError::Read)? & PLAIN;
        let uid = u32::try_from(header.uid().map_err(UnpackError::Read)?);
        let gid = u32::try_from(header.gid().map_err(UnpackError::Read)?);
        let owner = self.as_root.then(|| uid.ok().zip(gid.ok())).flatten();
        Ok(Attributes { mode, owner })
    }

    fn make_parents(&self, path: &Path) -> Result<(), UnpackError> {
        path.parent().map_or(Ok(()), |parent| self.make_folder(parent))
    }

    fn make_folder(&self, path: &Path) -> Result<(), UnpackError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| UnpackError::Write { path: path.to_owned(), source })
    }

    /// Makes the links, and then gives folders their modes, the innermost first.
    fn finish(mut self) -> Result<Unpacked, UnpackError> {
        for (path, target) in std::mem::take(&mut self.links) {
            if !stays_within(self.folder, &path, &target) {
                self.done.links_left_out.push((path, target));
                continue;
            }
            self.make_parents(&path)?;
            symlink(&target, &path).map_err(|source| UnpackError::Write { path, source })?;
        }
        self.folders.sort_by(|(a, _), (b, _)| b.cmp(a));
        for (path, attributes) in &self.folders {
            attributes.set(path)?;
        }
        Ok(self.done)
    }
}

impl Attributes {
    fn set(self, path: &Path) -> Result<(), UnpackError> {
        let write = |source| UnpackError::Write { path: path.to_owned(), source };
        if let Some((uid, gid)) = self.owner {
            chown(path, Some(uid), Some(gid)).map_err(write)?;
        }
        fs::set_permissions(path, Permissions::from_mode(self.mode)).map_err(write)
    }
}

/// A name with plain parts only, one at least.
fn checked(name: &Path) -> Result<PathBuf, UnpackError> {
    let plain = |component| matches!(component, Component::Normal(_));
    if name.components().next().is_some() && name.components().all(plain) {
        return Ok(name.to_owned());
    }
    Err(UnpackError::Hostile { path: name.to_owned() })
}

fn write_file(
    content: &mut impl Read,
    path: &Path,
    attributes: Attributes,
) -> Result<u64, UnpackError> {
    let write = |source| UnpackError::Write { path: path.to_owned(), source };
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path).map_err(write)?;
    let bytes = io::copy(content, &mut file).map_err(write)?;
    attributes.set(path)?;
    file.sync_all().map_err(write)?;
    Ok(bytes)
}

/// Whether a link at `path` leads to a place in `folder`, as far as its text tells.
fn stays_within(folder: &Path, path: &Path, target: &Path) -> bool {
    let Some(from) = path.strip_prefix(folder).ok().and_then(Path::parent) else { return false };
    let mut depth = from.components().count();
    for component in target.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}
