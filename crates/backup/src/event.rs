//! What happens while a backup is made, for those who watch.

use crate::import::LeftOut;
use etcd_live::{Endpoint, one_line};
use repository::BackupId;
use snapshot::{Finding, Replayed, SaveError};
use std::{error::Error, fmt, sync::Arc, time::Duration};

/// Something that happened. Repositories are counted in the order in which they were given.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// An endpoint that is not asked.
    PassedOver {
        /// Which.
        endpoint: Endpoint,
        /// Why.
        why: String,
    },
    /// The member that is asked for the snapshot.
    Chosen {
        /// Which.
        endpoint: Endpoint,
        /// Why.
        why: String,
    },
    /// A stream began.
    Fetching {
        /// From where.
        endpoint: Endpoint,
        /// Bytes of the database.
        total: u64,
    },
    /// So many bytes have come from etcd.
    Received(u64),
    /// A member did not deliver, or nothing sound; the next one is asked, and uploads begin again.
    FailedOver {
        /// Why, in one line.
        why: String,
        /// The member asked next.
        next: Endpoint,
    },
    /// What stands beside a file that another tool has made, and is not taken.
    LeftOut(LeftOut),
    /// The log of a stopped member was applied.
    Replayed(Replayed),
    /// All is there; it is being proved.
    Verifying,
    /// Something was found wrong.
    Found(Finding),
    /// The members were asked for the hash of what the snapshot holds.
    HashKv {
        /// At which revision.
        revision: i64,
        /// Members with the same data.
        agreed: Vec<String>,
        /// Members whose data differs.
        differed: Vec<String>,
        /// Members that could not be compared.
        unasked: Vec<String>,
    },
    /// Under this name, backups of another cluster were made before: it was restored meanwhile, or two
    /// clusters are given one name.
    OtherCluster {
        /// Which repository.
        repository: usize,
        /// The id of the cluster of the first backup.
        first: String,
        /// The id of the one that was backed up now.
        found: String,
    },
    /// So many bytes of the snapshot have been sent to a repository.
    Uploaded {
        /// Which repository.
        repository: usize,
        /// How many.
        bytes: u64,
    },
    /// An upload failed and begins again.
    UploadFailed {
        /// Which repository.
        repository: usize,
        /// Why, in one line.
        why: String,
        /// When it begins again.
        again_in: Duration,
    },
    /// A backup is there.
    Committed {
        /// Which repository.
        repository: usize,
        /// Its name.
        id: BackupId,
        /// Bytes that it takes there, the manifest left out.
        stored: u64,
    },
    /// A repository has no backup of this run.
    RepositoryFailed {
        /// Which repository.
        repository: usize,
        /// Why, in one line.
        why: String,
    },
}

/// Whom to tell. May be called from any thread, and often: it must not wait.
#[derive(Clone)]
pub struct Watcher(Arc<dyn Fn(Event) + Send + Sync>);

impl Watcher {
    /// Tells `watch`.
    pub fn new(watch: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(watch))
    }

    /// Tells nobody.
    pub fn none() -> Self {
        Self::new(|_| {})
    }

    /// Tells it.
    pub(crate) fn tell(&self, event: Event) {
        (self.0)(event);
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").finish_non_exhaustive()
    }
}

/// An error and its causes, in one line.
pub(crate) fn why(error: &(dyn Error + 'static)) -> String {
    one_line(error)
}

pub(crate) fn failed_over(error: &SaveError, next: &Endpoint) -> Event {
    Event::FailedOver { why: why(error), next: next.clone() }
}
