//! Where objects of a backup lie.

use repository::{BackupId, ClusterName, Manifest, manifest::manifest_name};

/// An object in the folder of a backup.
pub(crate) fn object_path(cluster: &ClusterName, id: BackupId, name: &str) -> String {
    format!("{cluster}/snapshots/{id}/{name}")
}

/// The snapshot of a backup.
pub(crate) fn db_path(manifest: &Manifest) -> String {
    object_path(&manifest.cluster, manifest.id, &manifest.object.name)
}

/// The files beside it, if there are any.
pub(crate) fn include_path(manifest: &Manifest) -> Option<String> {
    let include = manifest.include.as_ref()?;
    Some(object_path(&manifest.cluster, manifest.id, &include.object.name))
}

/// The manifest of a backup.
pub(crate) fn manifest_path(manifest: &Manifest) -> String {
    object_path(&manifest.cluster, manifest.id, &manifest_name(manifest.generation))
}
