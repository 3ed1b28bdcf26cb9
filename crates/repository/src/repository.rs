//! A repository: a store with `lifeboat.json` at its root, and clusters in it.
//!
//! ```text
//!   lifeboat.json              {"format":1,"id":"9f3c…","created":"2026-11-22T16:44:24Z"}
//!   <cluster>/cluster.json     {"format":1,"cluster_id":"cdf818194e3a8c32","created":…}
//! ```
//!
//! Both are created once and never changed. The random id tells one repository from another, also behind another URL.
//!
//! `cluster.json` names the cluster that the first backup was of. A cluster that was restored has a new id, so another
//! id is told ([`Registered::Differs`]), not refused. What a new id means for the order of revisions (timelines) is not
//! written here; that belongs to the history of a cluster.

use crate::{
    BackupId, ClusterName, lease::LeaseError, manifest::ManifestError, store::Store,
    store::StoreError,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The format of repositories that this version makes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// What makes a store a repository.
pub(crate) const MARKER: &str = "lifeboat.json";

/// The most bytes of a small object of ours: a marker, a pin, a note of damage.
const SMALL_BYTES_MAX: u64 = 64 << 10;

/// A store that is known to be a repository. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Repository {
    store: Store,
    marker: Marker,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    format: u32,
    id: String,
    created: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Cluster {
    format: u32,
    cluster_id: String,
    created: Timestamp,
}

/// What the repository knew of a cluster when a backup of it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registered {
    /// Nothing; now it does.
    New,
    /// That same cluster.
    Known,
    /// Another: the cluster was restored meanwhile, or two clusters are given one name.
    Differs {
        /// The id of the first backup's cluster.
        first: String,
    },
}

/// Why a repository cannot be used as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// The store is no repository.
    #[error("{url} is no repository: it has no {MARKER}")]
    NotARepository {
        /// The store.
        url: String,
    },
    /// Something of ours that cannot be understood.
    #[error("{path} in {url} cannot be understood")]
    Malformed {
        /// The store.
        url: String,
        /// The object.
        path: String,
        /// Why not.
        source: serde_json::Error,
    },
    /// Something of a format to come.
    #[error(
        "{path} in {url} was written by a newer Lifeboat (format {format}); this one reads up to format {FORMAT}"
    )]
    Format {
        /// The store.
        url: String,
        /// The object.
        path: String,
        /// Its format.
        format: u32,
    },
    /// A manifest in the folder of another backup.
    #[error("{path} is the manifest of {found}")]
    Misplaced {
        /// The object.
        path: String,
        /// The backup, or the generation, that it says it is of.
        found: String,
    },
    /// Not the name of a pin.
    #[error(
        "{0:?} cannot name a pin: use 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit"
    )]
    PinName(String),
    /// A pin of that name holds another backup.
    #[error("pin {name} of {cluster} holds {id} already")]
    PinTaken {
        /// The cluster.
        cluster: ClusterName,
        /// The pin.
        name: String,
        /// What it holds.
        id: BackupId,
    },
    /// There is no such pin.
    #[error("{cluster} has no pin {name}")]
    NoSuchPin {
        /// The cluster.
        cluster: ClusterName,
        /// The pin.
        name: String,
    },
    /// There is no such backup.
    #[error("{cluster} has no backup {id}")]
    NoSuchBackup {
        /// The cluster.
        cluster: ClusterName,
        /// The backup.
        id: BackupId,
    },
    /// A manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Who writes cannot be found out.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RepositoryError {
    /// One imperative sentence; printed after `help:`.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotARepository { .. } => {
                "check the URL; `lifeboat backup --repo URL` makes a repository of an empty place"
            }
            Self::Malformed { .. } => {
                "compare it with a copy, or remove it if it is not Lifeboat's; backups beside it are not touched"
            }
            Self::Format { .. } => "upgrade Lifeboat to the version that wrote it, or a later one",
            Self::Misplaced { .. } => "move the folder back to the name that its manifest has",
            Self::PinName(_) => "choose another name",
            Self::PinTaken { .. } => "choose another name, or remove that pin first",
            Self::NoSuchPin { .. } => "see `lifeboat keep` for the pins that there are",
            Self::NoSuchBackup { .. } => "see `lifeboat list` for the backups that there are",
            Self::Manifest(ManifestError::Format { .. }) => {
                "upgrade Lifeboat to the version that wrote it, or a later one"
            }
            Self::Manifest(_) => "check the store; this backup's objects may still be whole",
            Self::Lease(source) => source.remedy(),
            Self::Store(source) => source.remedy(),
        }
    }

    /// Whether what is stored is wrong, rather than out of reach, denied or too new for this version.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Malformed { .. }
                | Self::Misplaced { .. }
                | Self::Manifest(ManifestError::Malformed { .. })
        )
    }

    /// Whether the store could not be reached; the reason for exit code 4.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Store(source) | Self::Lease(LeaseError::Store { source, .. }) => {
                source.is_unreachable()
            }
            _ => false,
        }
    }
}

impl Repository {
    /// Opens what is a repository already.
    pub async fn open(store: Store) -> Result<Self, RepositoryError> {
        match read_json(&store, MARKER).await {
            Ok(marker) => Ok(Self { store, marker }),
            Err(RepositoryError::Store(StoreError::NotFound { .. })) => {
                Err(RepositoryError::NotARepository { url: store.url().to_owned() })
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a repository, and makes one if there is none. Of two who make it at once both open the same.
    pub async fn open_or_create(store: Store, now: Timestamp) -> Result<Self, RepositoryError> {
        match Self::open(store.clone()).await {
            Err(RepositoryError::NotARepository { .. }) => {}
            opened => return opened,
        }
        let marker = Marker { format: FORMAT, id: random_id(now), created: now };
        match create_json(&store, MARKER, &marker).await {
            Ok(()) | Err(StoreError::Exists { .. }) => Self::open(store).await,
            Err(error) => Err(error.into()),
        }
    }

    /// Where it lies.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What tells it from any other.
    pub fn id(&self) -> &str {
        &self.marker.id
    }

    /// When it was made.
    pub fn created(&self) -> Timestamp {
        self.marker.created
    }

    /// The clusters in it, sorted: every folder that could be one. Folders with other names are not ours.
    pub async fn clusters(&self) -> Result<Vec<ClusterName>, RepositoryError> {
        let folders = self.store.folders("").await?;
        Ok(folders.into_iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Notes which cluster backups under that name are of, at the first, and compares at the others.
    pub async fn register(
        &self,
        cluster: &ClusterName,
        cluster_id: &str,
        now: Timestamp,
    ) -> Result<Registered, RepositoryError> {
        let path = format!("{cluster}/cluster.json");
        let own = Cluster { format: FORMAT, cluster_id: cluster_id.to_owned(), created: now };
        match create_json(&self.store, &path, &own).await {
            Ok(()) => return Ok(Registered::New),
            Err(StoreError::Exists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let Cluster { cluster_id: first, .. } = read_json(&self.store, &path).await?;
        Ok(if first == cluster_id { Registered::Known } else { Registered::Differs { first } })
    }
}

/// The folder of all backups of a cluster.
pub(crate) fn backups_prefix(cluster: &ClusterName) -> String {
    format!("{cluster}/snapshots/")
}

/// The folder of a backup.
pub(crate) fn folder(cluster: &ClusterName, id: BackupId) -> String {
    format!("{}{id}/", backups_prefix(cluster))
}

/// Reads a small object of ours, of a format that we know.
pub(crate) async fn read_json<T: DeserializeOwned>(
    store: &Store,
    path: &str,
) -> Result<T, RepositoryError> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let json = store.read(path, SMALL_BYTES_MAX).await?;
    let (url, path) = (store.url().to_owned(), path.to_owned());
    match serde_json::from_slice(&json) {
        Ok(Head { format }) if !(1..=FORMAT).contains(&format) => {
            Err(RepositoryError::Format { url, path, format })
        }
        Ok(_) => serde_json::from_slice(&json).map_err(|source| RepositoryError::Malformed {
            url,
            path,
            source,
        }),
        Err(source) => Err(RepositoryError::Malformed { url, path, source }),
    }
}

/// Creates a small object of ours.
pub(crate) async fn create_json(
    store: &Store,
    path: &str,
    value: &impl Serialize,
) -> Result<(), StoreError> {
    let json = serde_json::to_vec_pretty(value).expect("plain data is always JSON");
    store.create(path, json.into()).await
}

/// 128 random bits; the time, should the system have none yet. Nothing is secret about them.
fn random_id(now: Timestamp) -> String {
    let mut bytes = [0; 16];
    if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).is_err() {
        bytes = now.as_nanosecond().to_le_bytes();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    #[tokio::test]
    async fn a_place_without_the_marker_is_no_repository_until_it_is_made_one() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::local(root.path());
        let error = Repository::open(store.clone()).await.unwrap_err();
        assert!(matches!(error, RepositoryError::NotARepository { .. }));
        assert!(error.remedy().contains("lifeboat backup"));

        let made = Repository::open_or_create(store.clone(), now()).await.unwrap();
        let again = Repository::open_or_create(store.clone(), Timestamp::now()).await.unwrap();
        let opened = Repository::open(store).await.unwrap();
        assert_eq!((made.id(), made.created()), (again.id(), again.created()));
        assert_eq!((made.id(), made.created()), (opened.id(), now()));
        assert_eq!(made.id().len(), 32);
    }

    #[tokio::test]
    async fn a_newer_repository_is_refused_not_made_anew() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::local(root.path());
        store.create(MARKER, r#"{"format": 2, "what": "changed"}"#.into()).await.unwrap();
        let error = Repository::open_or_create(store, now()).await.unwrap_err();
        assert!(matches!(error, RepositoryError::Format { format: 2, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_cluster_with_another_id_is_told_of() {
        let root = tempfile::tempdir().unwrap();
        let repository =
            Repository::open_or_create(Store::local(root.path()), now()).await.unwrap();
        let prod: ClusterName = "prod".parse().unwrap();
        assert_eq!(repository.register(&prod, "aa", now()).await.unwrap(), Registered::New);
        assert_eq!(repository.register(&prod, "aa", now()).await.unwrap(), Registered::Known);
        let differs = Registered::Differs { first: "aa".to_owned() };
        assert_eq!(repository.register(&prod, "bb", now()).await.unwrap(), differs);
        assert_eq!(repository.clusters().await.unwrap(), [prod]);
    }
}
