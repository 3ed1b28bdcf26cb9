//! All backups of a cluster, from what the store lists and what manifests say; no other object is opened.
//!
//! * One list tells of every object and its size, so whether objects are missing or cut short is known at once
//!   ([`State`]); whether their bytes are right, only reading them tells.
//! * Manifests are read many at a time. One that cannot be read hides no other: it is told of apart.
//! * The highest generation with a manifest counts. One that was [abandoned](crate::manifest::Abandoned) does not.
//! * Newest first means by the time at which a backup began, then by name. Revisions would not do: a cluster that
//!   was restored from an older backup begins again at lower ones.

use crate::{
    BackupId, ClusterName, Manifest,
    checks::{DAMAGED, last_verified},
    keep::Pins,
    manifest::{Committed, MANIFEST_BYTES_MAX, Object, manifest_generation},
    repository::{Repository, RepositoryError, backups_prefix},
    retention::{Candidate, Soundness},
    store::{Entry, StoreError},
};
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

mod find;

pub use find::{FindError, Found, Target, TargetError, Unfit};

/// How many manifests are read at once, unless said otherwise: it hides a store's answering time, and no store minds.
pub const PARALLEL: usize = 64;

/// All that lies in the repository for one cluster.
#[derive(Debug)]
pub struct Listing {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its backups, newest first.
    pub backups: Vec<Backup>,
    /// Folders that are no backups, in the order of their names.
    pub orphans: Vec<Orphan>,
    /// Folders of which it cannot be said what they are, in the order of their names.
    pub unreadable: Vec<Unreadable>,
    /// All pins.
    pub pins: Pins,
}

/// A backup.
#[derive(Clone, Debug)]
pub struct Backup {
    /// What its manifest says.
    pub manifest: Manifest,
    /// Which generation that is.
    pub generation: u32,
    /// Whether all its objects are there.
    pub state: State,
    /// Whether a check has found it damaged.
    pub is_damaged: bool,
    /// Names of the pins on it.
    pub pins: Vec<String>,
    /// When a check last read it back whole, if that is still known.
    pub last_check: Option<Timestamp>,
    /// Everything in its folder.
    pub objects: Vec<Entry>,
}

/// What sizes alone tell of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// All objects are there and as large as they should be.
    Whole,
    /// An object is not there.
    Missing {
        /// Its name.
        object: String,
    },
    /// An object has another size.
    WrongSize {
        /// Its name.
        object: String,
        /// The bytes that it has.
        listed: u64,
        /// The bytes that it should have.
        expected: u64,
    },
}

/// A folder that is no backup: still being written, broken off, or closed for good.
#[derive(Clone, Debug)]
pub struct Orphan {
    /// The backup that it would have been.
    pub id: BackupId,
    /// Whether its door is closed: it can never become one.
    pub is_abandoned: bool,
    /// Everything in it.
    pub objects: Vec<Entry>,
}

/// A folder whose manifest cannot be read or understood.
#[derive(Debug)]
pub struct Unreadable {
    /// The backup.
    pub id: BackupId,
    /// Why not.
    pub error: RepositoryError,
    /// Everything in it.
    pub objects: Vec<Entry>,
}

impl Backup {
    /// Its name.
    pub fn id(&self) -> BackupId {
        self.manifest.id
    }

    /// What it has in the store.
    pub fn stored_bytes(&self) -> u64 {
        bytes(&self.objects)
    }

    /// Whether it can be relied on, as far as is known.
    pub fn soundness(&self) -> Soundness {
        if self.is_damaged || self.state != State::Whole {
            Soundness::Damaged
        } else if self.manifest.verification.is_verified() {
            Soundness::Verified
        } else {
            Soundness::Unverified
        }
    }

    /// What retention needs to know of it.
    pub fn candidate(&self) -> Candidate {
        Candidate {
            id: self.id(),
            started: self.manifest.started,
            bytes: self.stored_bytes(),
            soundness: self.soundness(),
            pins: self.pins.clone(),
        }
    }
}

impl Orphan {
    /// What it has in the store.
    pub fn stored_bytes(&self) -> u64 {
        bytes(&self.objects)
    }

    /// Whether nothing is left but what closes its door.
    pub fn is_only_closed(&self) -> bool {
        self.is_abandoned
            && self.objects.iter().all(|entry| manifest_generation(name(&entry.path)).is_some())
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => write!(f, "whole"),
            Self::Missing { object } => write!(f, "{object} is missing"),
            Self::WrongSize { object, listed, expected } => {
                write!(f, "{object} has {listed} bytes instead of {expected}")
            }
        }
    }
}

impl Listing {
    /// The backup of that name.
    pub fn get(&self, id: BackupId) -> Option<&Backup> {
        self.backups.iter().find(|backup| backup.id() == id)
    }

    /// Backups that began in that span of time: not before the first, before the second.
    pub fn between(
        &self,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    ) -> impl Iterator<Item = &Backup> {
        self.backups.iter().filter(move |backup| {
            let started = backup.manifest.started;
            from.is_none_or(|from| started >= from) && to.is_none_or(|to| started < to)
        })
    }

    /// What the backups have in the store.
    pub fn stored_bytes(&self) -> u64 {
        self.backups.iter().map(Backup::stored_bytes).fold(0, u64::saturating_add)
    }

    /// Manifests by place, so that the next listing need not read them: they never change.
    fn into_known(self) -> Known {
        let known = self.backups.into_iter().map(|b| ((b.manifest.id, b.generation), b.manifest));
        known.collect()
    }
}

type Known = HashMap<(BackupId, u32), Manifest>;

impl Repository {
    /// Lists the backups of a cluster.
    pub async fn backups(&self, cluster: &ClusterName) -> Result<Listing, RepositoryError> {
        self.backups_in_parallel(cluster, PARALLEL).await
    }

    /// The same, with so many manifests read at once.
    pub async fn backups_in_parallel(
        &self,
        cluster: &ClusterName,
        parallel: usize,
    ) -> Result<Listing, RepositoryError> {
        self.list_backups(cluster, Known::new(), parallel).await
    }

    /// Lists again, and reads only manifests that are new since `before`.
    pub async fn backups_again(&self, before: Listing) -> Result<Listing, RepositoryError> {
        let cluster = before.cluster.clone();
        self.list_backups(&cluster, before.into_known(), PARALLEL).await
    }

    async fn list_backups(
        &self,
        cluster: &ClusterName,
        known: Known,
        parallel: usize,
    ) -> Result<Listing, RepositoryError> {
        let prefix = backups_prefix(cluster);
        let (entries, checks) = futures::try_join!(
            async { self.store().list(&prefix).await.map_err(RepositoryError::from) },
            self.checks(cluster),
        )?;
        let last_verified = last_verified(&checks);

        let folders: Vec<_> = into_folders(&prefix, entries).into_iter().collect();
        let known = &known;
        let read = folders
            .into_iter()
            .map(|(id, objects)| async move { self.read_folder(id, objects, known).await });
        let mut folders = stream::iter(read).buffer_unordered(parallel.max(1));

        let (mut backups, mut orphans, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(folder) = folders.next().await {
            match folder? {
                Folder::Backup(mut backup) => {
                    backup.last_check = last_verified.get(&backup.id()).copied();
                    backups.push(*backup);
                }
                Folder::Orphan(orphan) => orphans.push(orphan),
                Folder::Unreadable(folder) => unreadable.push(folder),
                Folder::Gone => {}
            }
        }
        drop(folders);
        // Read last: a pin on a backup of this listing that was set meanwhile is seen.
        let pins = self.pins(cluster).await?;
        for backup in &mut backups {
            backup.pins = pins.on(backup.id());
        }
        backups.sort_by_key(|b| std::cmp::Reverse((b.manifest.started, b.manifest.id)));
        orphans.sort_by_key(|orphan| orphan.id);
        unreadable.sort_by_key(|folder| folder.id);
        Ok(Listing { cluster: cluster.clone(), backups, orphans, unreadable, pins })
    }

    /// Says what a folder is, by its manifest of the highest generation that is one.
    async fn read_folder(
        &self,
        id: BackupId,
        objects: Vec<Entry>,
        known: &Known,
    ) -> Result<Folder, RepositoryError> {
        let mut manifests: Vec<_> = objects
            .iter()
            .filter_map(|entry| Some((manifest_generation(name(&entry.path))?, &entry.path)))
            .collect();
        manifests.sort();
        let (mut is_abandoned, mut is_gone) = (false, false);
        for (generation, path) in manifests.into_iter().rev() {
            let manifest = match known.get(&(id, generation)) {
                Some(manifest) => Ok(Some(manifest.clone())),
                None => self.read_manifest(id, generation, path).await,
            };
            match manifest {
                Ok(Some(manifest)) => {
                    return Ok(Folder::Backup(Box::new(backup(manifest, generation, objects))));
                }
                Ok(None) => is_abandoned = true,
                // Deleted since it was listed.
                Err(RepositoryError::Store(StoreError::NotFound { .. })) => is_gone = true,
                Err(error) if error.is_unreachable() => return Err(error),
                Err(error) => {
                    return Ok(Folder::Unreadable(Unreadable { id, error, objects }));
                }
            }
        }
        // What was there a moment ago is no orphan to clear away: the next listing tells what is left.
        let gone = is_gone && !is_abandoned;
        Ok(if gone { Folder::Gone } else { Folder::Orphan(Orphan { id, is_abandoned, objects }) })
    }

    /// The manifest, or none if the backup was abandoned.
    async fn read_manifest(
        &self,
        id: BackupId,
        generation: u32,
        path: &str,
    ) -> Result<Option<Manifest>, RepositoryError> {
        let json = self.store().read(path, MANIFEST_BYTES_MAX).await?;
        let found = match Committed::parse(path, &json)? {
            Committed::Abandoned(_) => return Ok(None),
            Committed::Backup(manifest) => *manifest,
        };
        let in_cluster = path.split('/').next() == Some(found.cluster.as_str());
        if !in_cluster || found.id != id || found.generation != generation {
            let found =
                format!("{} of {}, generation {}", found.id, found.cluster, found.generation);
            return Err(RepositoryError::Misplaced { path: path.to_owned(), found });
        }
        Ok(Some(found))
    }
}

enum Folder {
    Backup(Box<Backup>),
    Orphan(Orphan),
    Unreadable(Unreadable),
    Gone,
}

/// Entries by the folder they lie in. What lies in no folder of a backup is not ours.
fn into_folders(prefix: &str, entries: Vec<Entry>) -> BTreeMap<BackupId, Vec<Entry>> {
    let mut folders = BTreeMap::<_, Vec<_>>::new();
    for entry in entries {
        let folder = entry.path.strip_prefix(prefix).and_then(|path| path.split_once('/'));
        if let Some(id) = folder.and_then(|(folder, _)| folder.parse().ok()) {
            folders.entry(id).or_default().push(entry);
        }
    }
    folders
}

fn backup(manifest: Manifest, generation: u32, objects: Vec<Entry>) -> Backup {
    let state = state(&manifest, &objects);
    let is_damaged = objects.iter().any(|entry| name(&entry.path) == DAMAGED);
    let (pins, last_check) = (Vec::new(), None);
    Backup { manifest, generation, state, is_damaged, pins, last_check, objects }
}

fn state(manifest: &Manifest, objects: &[Entry]) -> State {
    let include = manifest.include.as_ref().map(|include| &include.object);
    for Object { name: object, stored } in std::iter::once(&manifest.object).chain(include) {
        let object = object.clone();
        match objects.iter().find(|entry| name(&entry.path) == object) {
            None => return State::Missing { object },
            Some(entry) if entry.bytes != stored.bytes => {
                return State::WrongSize { object, listed: entry.bytes, expected: stored.bytes };
            }
            Some(_) => {}
        }
    }
    State::Whole
}

/// The last part of a path.
pub(crate) fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// Bytes of all of them.
pub(crate) fn bytes(objects: &[Entry]) -> u64 {
    objects.iter().map(|entry| entry.bytes).fold(0, u64::saturating_add)
}
