//! One snapshot as a plain file in a store: what `etcdutl` takes as it is. No repository, no encryption, nothing beside it.
//!
//! ```text
//!   choose members ─▶ stream ─▶ spool ─▶ walk, HashKV ──▶ proved ─▶ upload ─▶ the file appears, whole
//! ```
//!
//! * It is proved as any other backup is, and uploaded only then.
//! * What is there already is never overwritten: [`StoreError::Exists`](repository::store::StoreError).
//! * When it is interrupted, or the future is dropped, no file appears.

use super::{Options, Source, source, unless};
use crate::{
    error::{BackupError, TargetError},
    event::{Event, Watcher},
    facts::{self, Facts},
    fetch::{self, FetchError},
    spool::Tail,
};
use futures::FutureExt;
use repository::{
    codec::Identities,
    manifest::{self, Content},
    store::{ObjectWriter, Store},
};
use sha2::{Digest, Sha256};
use snapshot::{DigestRule, Sha256Digest, SnapshotError};
use std::{
    io::{self, Read},
    pin::pin,
};

/// How much is read and sent at once.
const PIECE_BYTES: usize = 4 << 20;

/// A plain file to be made.
#[derive(Debug)]
pub struct PlainJob {
    /// What is backed up.
    pub source: Source,
    /// Where to.
    pub store: Store,
    /// How; what is of repositories alone is not looked at.
    pub options: Options,
}

/// Why there is no plain file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlainError {
    /// There is no snapshot.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// It could not be stored.
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// Why a file that is there is not taken for a snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FoundError {
    /// It cannot be read.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It is not sound.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Its records cannot be read.
    #[error(transparent)]
    Backup(#[from] BackupError),
}

/// Makes one. `name` says how it is called, when it is known what is in it. When `interrupted` is ready, it stops.
pub async fn plain(
    job: &PlainJob,
    name: impl FnOnce(&Facts) -> String,
    watcher: &Watcher,
    interrupted: impl Future<Output = ()>,
) -> Result<Facts, PlainError> {
    let mut interrupted = pin!(interrupted.fuse());
    unless(&mut interrupted, make(job, name, watcher)).await?
}

/// Proves a file that is there, as far as that can be done without its cluster.
pub async fn found(store: &Store, path: &str, options: &Options) -> Result<Facts, FoundError> {
    let from = fetch::From::Object { store: store.clone(), path: path.to_owned() };
    let (none, dir) = (Identities::none(), &options.spool_dir);
    let fetched = fetch::fetch(&from, &none, dir, &Watcher::none()).await?;
    let now = options.clock.now();
    let source = manifest::Source::File { path: path.to_owned() };
    let proof = move || {
        let snapshot = fetched.verify(DigestRule::Required, &mut |_| {})?;
        let content = facts::content_of(&snapshot, snapshot.digests().file);
        Ok(facts::gather(&snapshot, source, content, now)?.0)
    };
    tokio::task::spawn_blocking(proof).await.expect("proving a snapshot does not panic")
}

async fn make(
    job: &PlainJob,
    name: impl FnOnce(&Facts) -> String,
    watcher: &Watcher,
) -> Result<Facts, PlainError> {
    let prepared = source::prepare(&job.source, &job.options, watcher).await?;
    let (spool, filling) = prepared.into_spool(&job.options)?;
    let facts = filling.fill(&spool, &job.source, &job.options, watcher).await?;
    spool.proved();
    let tail = spool.reader().tail().await.ok_or(TargetError::NoSnapshot)?;
    upload(&job.store, &name(&facts), tail, &facts.content, watcher).await?;
    Ok(facts)
}

/// Stores what is in the spool, if it is what was proved.
async fn upload(
    store: &Store,
    path: &str,
    tail: Tail,
    proved: &Content,
    watcher: &Watcher,
) -> Result<(), TargetError> {
    let mut writer = store.writer(path).await?;
    match send(&mut *writer, tail, watcher).await {
        Ok(found) if found == *proved => Ok(writer.finish().await?),
        Ok(found) => {
            let _ = writer.abort().await;
            Err(TargetError::NotAsProved { proved: proved.clone(), found })
        }
        Err(error) => {
            let _ = writer.abort().await;
            Err(error)
        }
    }
}

async fn send(
    writer: &mut dyn ObjectWriter,
    mut tail: Tail,
    watcher: &Watcher,
) -> Result<Content, TargetError> {
    let (mut digest, mut bytes) = (Sha256::new(), 0);
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let piece = read_piece(&mut tail, &mut digest)?;
            Ok((piece, tail, digest))
        });
        let piece;
        (piece, tail, digest) =
            read.await.expect("reading does not panic").map_err(TargetError::Reopen)?;
        if piece.is_empty() {
            return Ok(Content {
                bytes,
                sha256: Sha256Digest(digest.finalize().into()).to_string(),
            });
        }
        bytes += piece.len() as u64;
        writer.write(piece.into()).await?;
        watcher.tell(Event::Uploaded { repository: 0, bytes });
    }
}

fn read_piece(tail: &mut Tail, digest: &mut Sha256) -> io::Result<Vec<u8>> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    tail.take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    digest.update(&piece);
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use super::*;
    use repository::{store::StoreError, store::testing::faulty};
    use std::path::Path;
    use testbed::fixtures::{damaged, fixture};

    fn job(path: impl AsRef<Path>, store: &Store) -> PlainJob {
        let path = path.as_ref().to_owned();
        let digest = DigestRule::Required;
        let source = Source::File { path, digest, identities: Identities::none() };
        PlainJob { source, store: store.clone(), options: Options::default() }
    }

    fn make(job: &PlainJob) -> Result<Facts, PlainError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let never = std::future::pending();
        let name = |facts: &Facts| format!("etcd.db_v{}", facts.etcd.revision);
        runtime.block_on(plain(job, name, &Watcher::none(), never))
    }

    fn files(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with('.')).collect()
    }

    #[tokio::test]
    async fn the_file_is_the_snapshot_byte_for_byte_and_is_proved_again_where_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::local(folder.path());
        let snapshot = fixture("3.5.30/base.db");
        let (path, to) = (snapshot.clone(), store.clone());
        let made = tokio::task::spawn_blocking(move || make(&job(path, &to)).unwrap());
        let made = made.await.unwrap();
        let name = format!("etcd.db_v{}", made.etcd.revision);
        assert_eq!(files(folder.path()), [name.as_str()]);
        assert_eq!(
            std::fs::read(folder.path().join(&name)).unwrap(),
            std::fs::read(snapshot).unwrap()
        );
        let found = found(&store, &name, &Options::default()).await.unwrap();
        assert_eq!((found.content, found.etcd.revision), (made.content, made.etcd.revision));
    }

    #[test]
    fn what_is_there_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::local(folder.path());
        let job = job(fixture("3.5.30/base.db"), &store);
        make(&job).unwrap();
        let again = make(&job).unwrap_err();
        let PlainError::Target(TargetError::Store(error)) = &again else { panic!("{again:?}") };
        assert!(matches!(error, StoreError::Exists { .. }), "{error}");
    }

    #[test]
    fn a_damaged_snapshot_and_a_store_that_breaks_off_leave_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::local(folder.path());
        let bad = damaged("leaf-value-bit-flip");
        assert!(matches!(make(&job(bad.path(), &store)), Err(PlainError::Backup(_))));
        let sound = fixture("3.5.30/base.db");
        let (broken, faults) = faulty(store.clone());
        make(&job(&sound, &broken)).unwrap();
        std::fs::remove_file(folder.path().join(&files(folder.path())[0])).unwrap();
        for at in 1..=faults.operations() {
            let (broken, faults) = faulty(Store::local(folder.path().join(at.to_string())));
            faults.fail_at(at);
            assert!(make(&job(&sound, &broken)).is_err(), "at {at}");
            let left = folder.path().join(at.to_string());
            assert!(!left.exists() || files(&left).is_empty(), "at {at}");
        }
    }
}
