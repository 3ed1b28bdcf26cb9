//! What the newest backup of a cluster is, for two questions that are asked before the next one is made.
//!
//! * Is it encrypted? Then an open one beside it is a recipient that was forgotten, by a variable that was not set, say.
//!   Whoever has encrypted once has not meant to leave the next one open, and what was stored in the clear cannot be
//!   taken back. So it is refused, unless it is asked for.
//! * Is it of this cluster? Then the name is this cluster's, whoever had it first.

use repository::{
    BackupId, ClusterName,
    manifest::{Committed, MANIFEST_BYTES_MAX, Manifest, manifest_generation},
    store::{Store, StoreError},
};
use std::cmp::Reverse;

/// How many of the newest folders are looked at: one may be the remains of a run that broke off, or its own that
/// has just begun.
const FOLDERS_MAX: usize = 4;

/// Whether the newest backup of the cluster is encrypted; `false` if there is none, or if it may not be listed.
pub(super) async fn is_encrypted(store: &Store, cluster: &ClusterName) -> Result<bool, StoreError> {
    for folder in folders(store, cluster).await? {
        let names = names(store, &folder).await?;
        let mut databases = names.iter().filter(|name| name.starts_with("db.")).peekable();
        if databases.peek().is_some() {
            return Ok(databases.any(|name| name.ends_with(".age")));
        }
    }
    Ok(false)
}

/// Whether the newest backup is of the cluster with that id; `false` if there is none that can be read.
///
/// Names hold whole seconds. Of backups that were begun in the same one, the manifests tell which is the newest.
pub(super) async fn is_of(
    store: &Store,
    cluster: &ClusterName,
    cluster_id: &str,
) -> Result<bool, StoreError> {
    let mut newest: Option<Box<Manifest>> = None;
    for folder in folders(store, cluster).await? {
        let Some(manifest) = manifest(store, &folder).await? else { continue };
        if newest.as_ref().is_some_and(|newest| newest.id.started() != manifest.id.started()) {
            break;
        }
        if newest.as_ref().is_none_or(|newest| newest.started < manifest.started) {
            newest = Some(manifest);
        }
    }
    let found = newest.and_then(|manifest| manifest.etcd.cluster_id);
    Ok(found.as_deref() == Some(cluster_id))
}

/// The newest manifest in the folder; `None` if there is none, or none that is a backup's.
async fn manifest(store: &Store, folder: &str) -> Result<Option<Box<Manifest>>, StoreError> {
    let names = names(store, folder).await?;
    let manifests = names.iter().filter(|name| manifest_generation(name).is_some());
    let Some(newest) = manifests.max_by_key(|name| manifest_generation(name)) else {
        return Ok(None);
    };
    let path = format!("{folder}{newest}");
    let json = store.read(&path, MANIFEST_BYTES_MAX).await?;
    Ok(match Committed::parse(&path, &json) {
        Ok(Committed::Backup(manifest)) => Some(manifest),
        _ => None,
    })
}

/// The newest folders of backups, newest first. Who may only write is not kept from it by what it must not know.
async fn folders(store: &Store, cluster: &ClusterName) -> Result<Vec<String>, StoreError> {
    let prefix = format!("{cluster}/snapshots/");
    let folders = match store.folders(&prefix).await {
        Err(error) if error.is_denied() => return Ok(Vec::new()),
        folders => folders?,
    };
    let mut ids: Vec<BackupId> = folders.iter().filter_map(|name| name.parse().ok()).collect();
    ids.sort_by_key(|id| Reverse((id.started(), *id)));
    Ok(ids.into_iter().take(FOLDERS_MAX).map(|id| format!("{prefix}{id}/")).collect())
}

/// The names of the objects in a folder.
async fn names(store: &Store, folder: &str) -> Result<Vec<String>, StoreError> {
    let entries = store.list(folder).await?;
    let names = entries.iter().filter_map(|entry| entry.path.strip_prefix(folder));
    Ok(names.map(str::to_owned).collect())
}
