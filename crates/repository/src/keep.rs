//! Pins: names on backups that must not go.
//!
//! ```text
//!   <cluster>/keep/before-upgrade.json    {"format":1,"id":"000…12345-2026…Z","note":…,"by":…,"at":…}
//! ```
//!
//! A pin is created and deleted, never changed. Pruning reads all pins when it plans, and once more right before it
//! deletes; one that cannot be read stops it, because nobody knows what it holds.

use crate::{
    BackupId, ClusterName,
    manifest::manifest_generation,
    repository::{FORMAT, Repository, RepositoryError, create_json, folder, read_json},
    store::StoreError,
};
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// How many pins are read at once.
const PARALLEL: usize = 32;

/// The name of a pin; formed as those of clusters are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PinName(ClusterName);

impl FromStr for PinName {
    type Err = RepositoryError;

    fn from_str(name: &str) -> Result<Self, RepositoryError> {
        name.parse().map(Self).map_err(|_| RepositoryError::PinName(name.to_owned()))
    }
}

impl fmt::Display for PinName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a pin holds, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The format of the pin.
    format: u32,
    /// The backup that must not go.
    pub id: BackupId,
    /// Why, in the words of whoever set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Who set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When.
    pub at: Timestamp,
}

impl Pin {
    /// A pin on that backup.
    pub fn new(id: BackupId, note: Option<String>, by: Option<String>, at: Timestamp) -> Self {
        Self { format: FORMAT, id, note, by, at }
    }
}

/// All pins of a cluster, by name; those that cannot be read apart.
#[derive(Debug, Default)]
pub struct Pins {
    /// Those that were read.
    pub pins: Vec<(PinName, Pin)>,
    /// Why others were not.
    pub unreadable: Vec<RepositoryError>,
}

impl Pins {
    /// Names of the pins on a backup.
    pub fn on(&self, id: BackupId) -> Vec<String> {
        let on = self.pins.iter().filter(|(_, pin)| pin.id == id);
        on.map(|(name, _)| name.to_string()).collect()
    }
}

impl Repository {
    /// Sets a pin. Setting it again is no error; that it holds another backup is.
    pub async fn pin(
        &self,
        cluster: &ClusterName,
        name: &PinName,
        pin: &Pin,
    ) -> Result<(), RepositoryError> {
        self.has_backup(cluster, pin.id).await?;
        let path = path(cluster, name);
        match create_json(self.store(), &path, pin).await {
            // A prune may have decided before it could see the pin.
            Ok(()) => match self.has_backup(cluster, pin.id).await {
                Err(gone @ RepositoryError::NoSuchBackup { .. }) => {
                    self.store().delete(&path).await?;
                    Err(gone)
                }
                other => other,
            },
            Err(StoreError::Exists { .. }) => {
                let Pin { id, .. } = read_json(self.store(), &path).await?;
                let taken = || RepositoryError::PinTaken {
                    cluster: cluster.clone(),
                    name: name.to_string(),
                    id,
                };
                if id == pin.id { Ok(()) } else { Err(taken()) }
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn has_backup(&self, cluster: &ClusterName, id: BackupId) -> Result<(), RepositoryError> {
        let folder = folder(cluster, id);
        let entries = self.store().list(&folder).await?;
        let is_manifest = |path: &str| manifest_generation(&path[folder.len()..]).is_some();
        if entries.iter().any(|entry| is_manifest(&entry.path)) {
            return Ok(());
        }
        Err(RepositoryError::NoSuchBackup { cluster: cluster.clone(), id })
    }

    /// Removes a pin.
    pub async fn unpin(
        &self,
        cluster: &ClusterName,
        name: &PinName,
    ) -> Result<(), RepositoryError> {
        let path = path(cluster, name);
        match self.store().size(&path).await {
            Ok(_) => Ok(self.store().delete(&path).await?),
            Err(StoreError::NotFound { .. }) => {
                Err(RepositoryError::NoSuchPin { cluster: cluster.clone(), name: name.to_string() })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// All pins of a cluster, sorted by name.
    pub async fn pins(&self, cluster: &ClusterName) -> Result<Pins, RepositoryError> {
        let prefix = format!("{cluster}/keep/");
        let entries = self.store().list(&prefix).await?;
        let names = entries.iter().filter_map(|entry| {
            entry.path.strip_prefix(&prefix)?.strip_suffix(".json")?.parse().ok()
        });
        let read = names.map(|name: PinName| async move {
            (read_json::<Pin>(self.store(), &path(cluster, &name)).await, name)
        });
        // The futures are collected first: a stream over a borrowing iterator is not `Send` for every lifetime.
        let read: Vec<_> = read.collect();
        let mut all = stream::iter(read).buffered(PARALLEL);
        let mut pins = Pins::default();
        while let Some((pin, name)) = all.next().await {
            match pin {
                Ok(pin) => pins.pins.push((name, pin)),
                // Removed since it was listed.
                Err(RepositoryError::Store(StoreError::NotFound { .. })) => {}
                Err(error) if error.is_unreachable() => return Err(error),
                Err(error) => pins.unreadable.push(error),
            }
        }
        Ok(pins)
    }
}

fn path(cluster: &ClusterName, name: &PinName) -> String {
    format!("{cluster}/keep/{name}.json")
}
