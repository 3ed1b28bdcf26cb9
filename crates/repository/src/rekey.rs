//! A backup encrypted to other keys: after a key was lost, or someone left.
//!
//! Nothing in a store is overwritten, so the backup gets a further [generation](crate::manifest):
//!
//! ```text
//!   db.zst.age      manifest.json        as it was
//!   db.2.zst.age                         1. written, and read back
//!   db.2.zst.age    manifest.2.json      2. from here on the second generation counts
//!   db.2.zst.age    manifest.2.json      3. the older manifest is deleted, then its objects
//! ```
//!
//! * After a stop at any instant there is a whole backup, and [`rekey`] again goes on: before 2 it begins anew
//!   under a number that nobody used, after 2 it does what is left of 3.
//! * Two at once cannot harm the backup: they have different numbers, or meet at the creation of one object. The
//!   higher number counts, and nobody deletes it on account of a lower one.
//! * The compressed bytes are the same ones: nothing is decompressed.
//!
//! Who holds an old key and has kept a copy of the old objects can still read that copy.

use crate::codec::{
    self, Bandwidth, CodecError, Encoding, Expected, Identities, Recipients, Resealing,
};
use crate::manifest::{
    Committed, Include, MANIFEST_BYTES_MAX, Manifest, ManifestError, Object, ObjectKind,
    generation_of, manifest_generation, manifest_name, object_name,
};
use crate::name::{BackupId, ClusterName};
use crate::store::{Store, StoreError};
use std::collections::BTreeSet;

/// Why a backup was not encrypted to other keys. It is what it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RekeyError {
    /// There is no such backup, or a later writer has given it up.
    #[error("{cluster} has no backup {id}")]
    NoBackup {
        /// The cluster.
        cluster: ClusterName,
        /// The name.
        id: BackupId,
    },
    /// There is nobody to encrypt it to.
    #[error("there are no recipients to encrypt to")]
    NoRecipients,
    /// No further generation can be numbered.
    #[error("backup {id} was written anew too often")]
    Generations {
        /// The name.
        id: BackupId,
    },
    /// Its manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// An object cannot be read, opened or written.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RekeyError {
    /// One imperative sentence; none where the store says it.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::NoBackup { .. } => Some("see lifeboat list for the names of backups"),
            Self::NoRecipients => Some("give the new public keys with --recipient"),
            Self::Generations { .. } => Some("make a new backup"),
            Self::Manifest(_) => Some("use the version of lifeboat that wrote it, or a newer one"),
            Self::Codec(error) => error.remedy(),
            Self::Store(_) => None,
        }
    }
}

/// What became of a backup.
#[derive(Debug)]
pub struct Rekeyed {
    /// The manifest that counts now.
    pub manifest: Manifest,
    /// Whether anything had to be encrypted: it may have been to these keys already.
    pub is_rewritten: bool,
    /// Objects of older generations that the store keeps for now; old keys still open them.
    pub locked: Vec<String>,
}

/// Encrypts a backup to `recipients` and to nobody else. `progress` is called with the bytes of each object
/// done.
pub async fn rekey(
    store: &Store,
    cluster: &ClusterName,
    id: BackupId,
    identities: &Identities,
    recipients: &Recipients,
    bandwidth: Option<&Bandwidth>,
    progress: impl Fn(u64) + Clone + Send + 'static,
) -> Result<Rekeyed, RekeyError> {
    if recipients.is_empty() {
        return Err(RekeyError::NoRecipients);
    }
    let folder = Folder::list(store, cluster, id).await?;
    let current = folder.manifest().await?;
    if is_encrypted_to(&current, recipients) {
        let locked = folder.delete_older_than(current.generation).await?;
        return Ok(Rekeyed { manifest: current, is_rewritten: false, locked });
    }
    let generation = folder.next_generation()?;
    let anew = Anew { folder: &folder, generation, identities, recipients, bandwidth };
    let manifest = anew.write(current, progress).await?;
    let locked = folder.delete_older_than(generation).await?;
    Ok(Rekeyed { manifest, is_rewritten: true, locked })
}

fn is_encrypted_to(manifest: &Manifest, recipients: &Recipients) -> bool {
    let wanted = recipients.keys();
    manifest.encryption.as_ref().is_some_and(|encryption| {
        let found: BTreeSet<_> = encryption.recipients.iter().collect();
        found == wanted.iter().collect()
    })
}

/// The folder of a backup.
struct Folder<'a> {
    store: &'a Store,
    cluster: &'a ClusterName,
    id: BackupId,
    prefix: String,
    names: Vec<String>,
}

impl<'a> Folder<'a> {
    async fn list(
        store: &'a Store,
        cluster: &'a ClusterName,
        id: BackupId,
    ) -> Result<Self, StoreError> {
        let prefix = format!("{cluster}/snapshots/{id}/");
        let entries = store.list(&prefix).await?;
        let name = |path: &str| path.strip_prefix(&prefix).map(str::to_owned);
        let names = entries.iter().filter_map(|entry| name(&entry.path)).collect();
        Ok(Self { store, cluster, id, prefix, names })
    }

    fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The manifest that counts.
    async fn manifest(&self) -> Result<Manifest, RekeyError> {
        let none = || RekeyError::NoBackup { cluster: self.cluster.clone(), id: self.id };
        let newest = self.names.iter().filter_map(|name| manifest_generation(name)).max();
        let path = self.path(&manifest_name(newest.ok_or_else(none)?));
        let json = self.store.read(&path, MANIFEST_BYTES_MAX).await?;
        match Committed::parse(&path, &json)? {
            Committed::Backup(manifest) => Ok(*manifest),
            Committed::Abandoned(_) => Err(none()),
        }
    }

    /// A number that nothing has, not even what a stopped attempt left.
    fn next_generation(&self) -> Result<u32, RekeyError> {
        let newest = self.names.iter().filter_map(|name| generation_of(name)).max();
        newest.unwrap_or_default().checked_add(1).ok_or(RekeyError::Generations { id: self.id })
    }

    /// Deletes what belongs to older generations: their manifests before their objects, so that none ever
    /// names an object that is gone. What is locked is returned.
    async fn delete_older_than(&self, generation: u32) -> Result<Vec<String>, StoreError> {
        let is_older = |name: &&String| generation_of(name).is_some_and(|older| older < generation);
        let mut older: Vec<_> = self.names.iter().filter(is_older).collect();
        older.sort_by_key(|name| manifest_generation(name).is_none());
        let mut locked = Vec::new();
        for name in older {
            let path = self.path(name);
            match self.store.delete(&path).await {
                Ok(()) => {}
                Err(StoreError::Locked { .. }) => locked.push(path),
                Err(error) => return Err(error),
            }
        }
        Ok(locked)
    }
}

/// A further generation.
struct Anew<'a> {
    folder: &'a Folder<'a>,
    generation: u32,
    identities: &'a Identities,
    recipients: &'a Recipients,
    bandwidth: Option<&'a Bandwidth>,
}

impl Anew<'_> {
    /// Writes the objects, then their manifest.
    async fn write(
        &self,
        current: Manifest,
        progress: impl Fn(u64) + Clone + Send + 'static,
    ) -> Result<Manifest, RekeyError> {
        let expected = Expected::db(&current);
        let object =
            self.object(ObjectKind::Db, &current.object.name, expected, progress.clone()).await?;
        let include = match (&current.include, Expected::include(&current)) {
            (Some(include), Some(expected)) => {
                let kind = ObjectKind::Include;
                let object = self.object(kind, &include.object.name, expected, progress).await?;
                Some(Include { object, ..include.clone() })
            }
            _ => None,
        };
        let encoding = Encoding { recipients: self.recipients.clone(), ..Encoding::default() };
        let encryption = encoding.encryption();
        let generation = self.generation;
        let manifest = Manifest { generation, object, include, encryption, ..current };
        let json = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
        let path = self.folder.path(&manifest_name(generation));
        self.folder.store.create(&path, json.into()).await?;
        Ok(manifest)
    }

    async fn object(
        &self,
        kind: ObjectKind,
        from: &str,
        expected: Expected,
        progress: impl Fn(u64) + Send + 'static,
    ) -> Result<Object, RekeyError> {
        let name = object_name(kind, self.generation, true);
        let (from, to) = (self.folder.path(from), self.folder.path(&name));
        let resealing = Resealing {
            from: &from,
            expected,
            identities: self.identities,
            to: &to,
            recipients: self.recipients,
            bandwidth: self.bandwidth,
        };
        let store = self.folder.store;
        let stored = codec::reseal(store, &resealing, progress).await?;
        // The older one is deleted on the word of the store; so hear it.
        codec::prove_stored(store, &to, &stored).await?;
        Ok(Object { name, stored })
    }
}
