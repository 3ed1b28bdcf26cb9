//! A snapshot, brought to where it can be restored from.
//!
//! | from | how |
//! | --- | --- |
//! | a backup | decrypted, decompressed and compared with the manifest's digests as it arrives |
//! | a file | read in place; unwrapped first, if another tool has wrapped it |
//! | an object of any store, or a prefix with backups of another tool | fetched, and unwrapped if need be |
//!
//! What is written goes to a nameless file in a folder of the caller's choice, best next to the data
//! directories to be made: nothing of it is left, however the process ends. What comes back is still to be
//! proved, but for digests that are known already: they are not computed twice.

use crate::{
    error::Kind,
    event::{Event, Watcher},
    import::{self, ImportError, LeftOut},
    include::{UnpackError, Unpacked, unpack},
    place, room,
    spool::SpoolError,
};
use futures::StreamExt;
use repository::{
    Manifest,
    codec::{self, CodecError, Expected, Identities},
    store::{Store, StoreError},
};
use snapshot::{Digests, Fetched, Output, Sha256Digest, Snapshot, SnapshotError};
use std::{
    fs::File,
    io::{self, Seek, Write},
    path::{Path, PathBuf},
};

/// Where a snapshot is.
#[derive(Clone, Debug)]
pub enum From {
    /// A backup of ours.
    Backup {
        /// The repository's store.
        store: Store,
        /// The backup.
        manifest: Box<Manifest>,
    },
    /// An object, or all objects below a prefix, of which one is the newest.
    Object {
        /// The store.
        store: Store,
        /// The path of the object, or the prefix.
        path: String,
    },
    /// A file, or a folder with one.
    File(PathBuf),
}

/// Why a snapshot could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The backup could not be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The object could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What another tool has made cannot be taken.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// There is no room to unpack it.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// What arrived could not be written.
    #[error("cannot write to a temporary file in {}", dir.display())]
    Write {
        /// Where.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Files beside the snapshot cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

impl FetchError {
    /// One imperative sentence: what to do next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Codec(CodecError::Store(source)) | Self::Store(source) => source.remedy(),
            Self::Codec(error) => error.remedy().unwrap_or("see the cause, and try again"),
            Self::Import(error) => error.remedy(),
            Self::Spool(error) => error.remedy(),
            Self::Write { .. } => {
                "free space there, or name a folder on another file system: --spool-dir"
            }
            Self::Snapshot(error) => error.remedy(),
            Self::Unpack(error) => error.remedy(),
        }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Codec(CodecError::Store(source)) | Self::Store(source)
                if source.is_unreachable() =>
            {
                Kind::Unreachable
            }
            Self::Codec(error) if error.is_damage() => Kind::Damage,
            Self::Import(error) if error.is_damage() => Kind::Damage,
            Self::Snapshot(error) if crate::error::is_damage(error) => Kind::Damage,
            Self::Unpack(UnpackError::NotEmpty { .. }) => Kind::Refused,
            _ => Kind::Failed,
        }
    }
}

/// Brings the snapshot here. `dir` is a folder for the temporary file, where one is needed.
pub async fn fetch(
    from: &From,
    identities: &Identities,
    dir: &Path,
    watcher: &Watcher,
) -> Result<Snapshot<Fetched>, FetchError> {
    match from {
        From::Backup { store, manifest } => {
            fetch_backup(store, manifest, identities, dir, watcher).await
        }
        From::Object { store, path } => fetch_object(store, path, identities, dir, watcher).await,
        From::File(path) => {
            let (path, left) = import::find(path)?;
            tell_left_out(left, watcher);
            if !import::is_wrapped(&path)? {
                return Ok(Snapshot::open(&path)?);
            }
            let opened = File::open(&path);
            let file = opened.map_err(|source| ImportError::Io { path: path.clone(), source })?;
            unwrap(path, file, identities, dir).await
        }
    }
}

/// Unpacks the files that are kept beside a backup below `folder`, which is made, or empty; nothing if it has
/// none. `dir` is a folder for a temporary file.
pub async fn fetch_include(
    store: &Store,
    manifest: &Manifest,
    identities: &Identities,
    dir: &Path,
    folder: &Path,
) -> Result<Option<Unpacked>, FetchError> {
    let Some((path, include)) = place::include_path(manifest).zip(manifest.include.as_ref()) else {
        return Ok(None);
    };
    let expected = Expected::include(manifest).expect("there is one");
    let file = room::temporary(dir, include.tar.bytes)?;
    // All of it is proved before the first file is made.
    let read = codec::download(store, &path, &expected, identities, file, |_| {}).await?;
    let (mut tar, folder) = (read.output, folder.to_owned());
    let write = |source| FetchError::Write { dir: dir.to_owned(), source };
    tar.rewind().map_err(write)?;
    let unpacking = tokio::task::spawn_blocking(move || unpack(io::BufReader::new(tar), &folder));
    Ok(Some(unpacking.await.expect("unpacking does not panic")?))
}

async fn fetch_backup(
    store: &Store,
    manifest: &Manifest,
    identities: &Identities,
    dir: &Path,
    watcher: &Watcher,
) -> Result<Snapshot<Fetched>, FetchError> {
    let path = place::db_path(manifest);
    let file = room::temporary(dir, manifest.db.bytes)?;
    let progress = {
        let watcher = watcher.clone();
        move |bytes| watcher.tell(Event::Received(bytes))
    };
    let expected = Expected::db(manifest);
    let write = |source| FetchError::Write { dir: dir.to_owned(), source };
    let filled = file.try_clone().map_err(write)?;
    let output = Output::of_temporary(filled, manifest.db.bytes);
    let read = codec::download(store, &path, &expected, identities, output, progress).await?;
    read.output.finish().map_err(write)?;
    let name = PathBuf::from(format!("{}/{path}", store.url().trim_end_matches('/')));
    let snapshot = Snapshot::of_temporary(&name, &file)?;
    Ok(match known_digests(manifest, &snapshot) {
        Some(digests) => snapshot.with_digests(digests),
        None => snapshot,
    })
}

/// Bytes with the digest that the manifest has are those of which it says that their own digest, at the
/// end, was compared.
fn known_digests(manifest: &Manifest, snapshot: &Snapshot<Fetched>) -> Option<Digests> {
    let file = manifest.db.sha256.parse::<Sha256Digest>().ok()?;
    let database = snapshot.stored_digest().filter(|_| manifest.verification.digest)?;
    Some(Digests { database, file })
}

async fn fetch_object(
    store: &Store,
    path: &str,
    identities: &Identities,
    dir: &Path,
    watcher: &Watcher,
) -> Result<Snapshot<Fetched>, FetchError> {
    let (path, bytes) = find_object(store, path, watcher).await?;
    let mut file = room::temporary(dir, bytes)?;
    let write = |source| FetchError::Write { dir: dir.to_owned(), source };
    let mut pieces = store.reader(&path).await?;
    let mut received = 0;
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        received += piece.len() as u64;
        file.write_all(&piece).map_err(write)?;
        watcher.tell(Event::Received(received));
    }
    file.rewind().map_err(write)?;
    let name = PathBuf::from(format!("{}/{path}", store.url().trim_end_matches('/')));
    if import::is_wrapped_file(&file).map_err(write)? {
        return unwrap(name, file, identities, dir).await;
    }
    Ok(Snapshot::of_temporary(&name, &file)?)
}

/// The object itself, or the one to take of those below it; and its size.
pub async fn find_object(
    store: &Store,
    path: &str,
    watcher: &Watcher,
) -> Result<(String, u64), FetchError> {
    let path = path.trim_matches('/');
    if !path.is_empty() {
        match store.size(path).await {
            Ok(bytes) => return Ok((path.to_owned(), bytes)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let folder = if path.is_empty() { String::new() } else { format!("{path}/") };
    let entries = store.list(&folder).await?;
    // etcd-backup-restore puts a folder of that name under the prefix that it was given.
    let v2 = format!("{folder}v2/");
    let folder = if entries.iter().any(|e| e.path.starts_with(&v2)) { v2 } else { folder };
    let below =
        |entry: &str| entry.strip_prefix(&folder).filter(|n| !n.contains('/')).map(str::to_owned);
    let names = entries.iter().filter_map(|entry| below(&entry.path)).collect();
    let picked = import::pick(&format!("{}/{folder}", store.url()), names)?;
    tell_left_out(picked.left, watcher);
    let path = format!("{folder}{}", picked.name);
    let bytes = entries.iter().find(|entry| entry.path == path).map_or(0, |entry| entry.bytes);
    Ok((path, bytes))
}

fn tell_left_out(left: Vec<LeftOut>, watcher: &Watcher) {
    left.into_iter().for_each(|left| watcher.tell(Event::LeftOut(left)));
}

/// Unwraps a file into a temporary one, on a thread of its own.
async fn unwrap(
    name: PathBuf,
    file: File,
    identities: &Identities,
    dir: &Path,
) -> Result<Snapshot<Fetched>, FetchError> {
    let unwrapped = room::temporary(dir, 0)?;
    let write = |source| FetchError::Write { dir: dir.to_owned(), source };
    let room = room::free_in(&unwrapped).map_err(write)?;
    let identities = identities.clone();
    let work = tokio::task::spawn_blocking(move || {
        let place = name.display().to_string();
        import::unwrap(&place, file, &mut &unwrapped, room, &identities)?;
        Ok::<_, FetchError>(Snapshot::of_temporary(&name, &unwrapped)?)
    });
    work.await.expect("unwrapping does not panic")
}

#[cfg(test)]
mod tests;
