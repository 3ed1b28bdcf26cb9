//! An open backup beside encrypted ones: a recipient that was forgotten, by a variable that was not set, say.
//!
//! Whoever has encrypted once has not meant to leave the next one open, and what was stored in the clear cannot be
//! taken back. So it is refused, unless it is asked for.

use repository::{
    BackupId, ClusterName,
    store::{Store, StoreError},
};
use std::cmp::Reverse;

/// How many of the newest folders are looked at: one may be the remains of a run that broke off, or its own that
/// has just begun.
const FOLDERS_MAX: usize = 4;

/// Whether the newest backup of the cluster is encrypted; `false` if there is none, or if it may not be listed.
pub(super) async fn is_newest_encrypted(
    store: &Store,
    cluster: &ClusterName,
) -> Result<bool, StoreError> {
    let prefix = format!("{cluster}/snapshots/");
    let folders = match store.folders(&prefix).await {
        // Who may only write is not kept from it by what it must not know.
        Err(error) if error.is_denied() => return Ok(false),
        folders => folders?,
    };
    let mut ids: Vec<BackupId> = folders.iter().filter_map(|name| name.parse().ok()).collect();
    ids.sort_by_key(|id| Reverse((id.started(), *id)));
    for id in ids.into_iter().take(FOLDERS_MAX) {
        let folder = format!("{prefix}{id}/");
        let entries = store.list(&folder).await?;
        let names = entries.iter().filter_map(|entry| entry.path.strip_prefix(&folder));
        let mut databases = names.filter(|name| name.starts_with("db.")).peekable();
        if databases.peek().is_some() {
            return Ok(databases.any(|name| name.ends_with(".age")));
        }
    }
    Ok(false)
}
