//! A backup read back and proved, as it lies in the store.
//!
//! ```text
//!   stored bytes ─▶ decrypt ─▶ decompress ─▶ temporary file ─▶ digest, tree, records, hashes
//!        └ SHA-256                   └ SHA-256                        all held against the manifest
//! ```
//!
//! * What is wrong with the backup is a [`Problem`], and all that can be found is found. What only keeps us
//!   from looking, such as a store that does not answer or an identity that is not there, is an error: the
//!   backup is then neither verified nor damaged.
//! * Everything that the manifest says of the snapshot is computed again.

use crate::{
    error::{Kind, is_damage},
    event::{Event, Watcher},
    facts, place, room,
    spool::SpoolError,
};
use repository::{
    Manifest,
    codec::{self, CodecError, Expected, Identities},
    manifest::Etcd,
    store::Store,
};
use snapshot::{DigestRule, Finding, Snapshot, SnapshotError};
use std::{fmt, fs::File, io, path::Path};

/// How many findings of one database are kept: a damaged page may make thousands.
const FINDINGS_MAX: usize = 100;

/// What is wrong with a backup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// An object is gone, or its bytes are not those that were stored.
    #[error("{}", etcd_live::one_line(.0))]
    Object(CodecError),
    /// The database is not sound.
    #[error("{0}")]
    Finding(Finding),
    /// The file is no snapshot.
    #[error("{}", etcd_live::one_line(.0))]
    Snapshot(SnapshotError),
    /// The manifest says something else.
    #[error("the manifest says {field} {said}, but it is {found}")]
    Differs {
        /// What of.
        field: &'static str,
        /// What the manifest says.
        said: String,
        /// What it is.
        found: String,
    },
}

/// Why it could not be found out whether a backup is sound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// It could not be read back.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// There is no room to unpack it.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// What was unpacked could not be read.
    #[error(transparent)]
    Snapshot(SnapshotError),
}

impl VerifyError {
    /// One imperative sentence: what to do next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Codec(CodecError::Store(source)) => source.remedy(),
            Self::Codec(error) => error.remedy().unwrap_or("see the cause, and try again"),
            Self::Spool(error) => error.remedy(),
            Self::Snapshot(error) => error.remedy(),
        }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Codec(CodecError::Store(source)) if source.is_unreachable() => Kind::Unreachable,
            _ => Kind::Failed,
        }
    }
}

/// Reads a backup back, and says what is wrong with it: nothing, if it is sound.
///
/// A backup that is pruned meanwhile looks like one whose objects are gone: whoever finds that lists again.
pub async fn verify(
    store: &Store,
    manifest: &Manifest,
    identities: &Identities,
    spool_dir: &Path,
    watcher: &Watcher,
) -> Result<Vec<Problem>, VerifyError> {
    let mut problems = verify_db(store, manifest, identities, spool_dir, watcher).await?;
    if let Some((path, expected)) = place::include_path(manifest).zip(Expected::include(manifest)) {
        let sink = io::sink();
        let read = codec::download(store, &path, &expected, identities, sink, |_| {}).await;
        problems.extend(object_problem(read)?.1);
    }
    Ok(problems)
}

async fn verify_db(
    store: &Store,
    manifest: &Manifest,
    identities: &Identities,
    spool_dir: &Path,
    watcher: &Watcher,
) -> Result<Vec<Problem>, VerifyError> {
    let path = place::db_path(manifest);
    let file = room::temporary(spool_dir, manifest.db.bytes)?;
    let progress = {
        let watcher = watcher.clone();
        move |bytes| watcher.tell(Event::Received(bytes))
    };
    let expected = Expected::db(manifest);
    let read = codec::download(store, &path, &expected, identities, file, progress).await;
    let file = match object_problem(read)? {
        (Some(downloaded), _) => downloaded.output,
        (None, problem) => return Ok(problem.into_iter().collect()),
    };
    watcher.tell(Event::Verifying);
    let said = manifest.etcd.clone();
    let proving = tokio::task::spawn_blocking(move || prove(&path, &file, &said));
    proving.await.expect("the walk does not panic").map_err(VerifyError::Snapshot)
}

/// Tells what is wrong with an object from what is wrong with the way to it.
fn object_problem<T>(
    read: Result<T, CodecError>,
) -> Result<(Option<T>, Option<Problem>), CodecError> {
    match read {
        Ok(downloaded) => Ok((Some(downloaded), None)),
        Err(error) if error.is_damage() => Ok((None, Some(Problem::Object(error)))),
        Err(error) => Err(error),
    }
}

/// Proves what was unpacked, and holds it against the manifest.
fn prove(path: &str, file: &File, said: &Etcd) -> Result<Vec<Problem>, SnapshotError> {
    let mut problems = Vec::new();
    let mut on_finding = |finding: Finding| {
        if problems.len() < FINDINGS_MAX && !finding.is_harmless() {
            problems.push(Problem::Finding(finding));
        }
    };
    let proved = Snapshot::of_file(Path::new(path), file)
        .and_then(|snapshot| snapshot.verify(DigestRule::Required, &mut on_finding))
        .and_then(|snapshot| {
            let hash_kv = snapshot.hash_kv(None)?;
            facts::etcd_of(&snapshot, &hash_kv)
        });
    match proved {
        Ok(found) => problems.extend(differences(said, &found)),
        Err(error) if is_damage(&error) && problems.is_empty() => {
            problems.push(Problem::Snapshot(error));
        }
        Err(error) if is_damage(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(problems)
}

fn differences(said: &Etcd, found: &Etcd) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut compare = |field, said: &dyn fmt::Display, found: &dyn fmt::Display| {
        let (said, found) = (said.to_string(), found.to_string());
        if said != found {
            problems.push(Problem::Differs { field, said, found });
        }
    };
    compare("revision", &said.revision, &found.revision);
    compare("compact revision", &said.compact_revision, &found.compact_revision);
    compare("hash", &said.hash, &found.hash);
    compare("total key count", &said.total_key, &found.total_key);
    compare("live key count", &said.live_keys, &found.live_keys);
    compare("HashKV", &said.hash_kv.hash, &found.hash_kv.hash);
    let compacted = (said.hash_kv.compact_revision, found.hash_kv.compact_revision);
    compare("HashKV's compact revision", &compacted.0, &compacted.1);
    problems
}

#[cfg(test)]
mod tests;
