//! Which backup someone means.

use super::{Backup, Listing, State};
use crate::{BackupId, ClusterName, retention::Soundness};
use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};
use std::{fmt, str::FromStr};

/// How far a writer's clock may be ahead of ours before its backups are taken to be of a clock that jumped.
const CLOCK_SKEW_MAX: SignedDuration = SignedDuration::from_hours(1);

/// How many names an error lists.
const NAMES_SHOWN_MAX: usize = 5;

/// Which backup is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The newest. One dated in the future by more than an hour comes after all others: a clock was wrong, and it
    /// would stay the newest for as long.
    Newest,
    /// The one of that name, or the only one whose name begins so. Zeros in front may be left out. It is taken
    /// whatever is known against it: whoever names it has a reason.
    Name(String),
    /// The one with the highest revision that is not above this; of several, the newest.
    Revision(i64),
    /// The newest that began no later than this. A snapshot is of the instant at which its stream begins, a moment
    /// after that: a write in this moment may be in it.
    Time(Timestamp),
}

/// The backup that was meant.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// It.
    pub backup: &'a Backup,
    /// Whether it is of exactly the revision or time that was asked for; otherwise it is older.
    pub is_exact: bool,
    /// Those that would have been better, but cannot be relied on.
    pub skipped: Vec<(BackupId, Unfit)>,
}

/// Why a backup is not taken unless it is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It was never verified.
    Unverified,
    /// A check found it damaged.
    Damaged,
    /// Objects are missing or cut short.
    Incomplete(State),
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// The cluster has no backup at all.
    #[error("there is no backup of {cluster}")]
    Empty {
        /// The cluster.
        cluster: ClusterName,
    },
    /// None that would do can be relied on.
    #[error("no backup of {cluster} can be relied on: {}", list(skipped))]
    NoneFit {
        /// The cluster.
        cluster: ClusterName,
        /// What there is, and what speaks against it.
        skipped: Vec<(BackupId, Unfit)>,
    },
    /// None has that name.
    #[error("no backup of {cluster} is called {name}")]
    NoSuchName {
        /// The cluster.
        cluster: ClusterName,
        /// The name.
        name: String,
    },
    /// Several have names that begin so.
    #[error("{name} may be any of {} backups of {cluster}: {}", ids.len(), list(ids))]
    Ambiguous {
        /// The cluster.
        cluster: ClusterName,
        /// The beginning.
        name: String,
        /// Whose it is.
        ids: Vec<BackupId>,
    },
    /// All are newer than what was asked for.
    #[error("every backup of {cluster} is newer; the oldest is {oldest}")]
    AllNewer {
        /// The cluster.
        cluster: ClusterName,
        /// The oldest.
        oldest: BackupId,
    },
}

impl FindError {
    /// One imperative sentence; printed after `help:`.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Empty { .. } => "check the names of the cluster and of the repository",
            Self::NoneFit { .. } => {
                "see `lifeboat list`; a backup given by its name is taken whatever is known against it"
            }
            Self::NoSuchName { .. } => "see `lifeboat list` for the names that there are",
            Self::Ambiguous { .. } => "give more of the name",
            Self::AllNewer { .. } => {
                "ask for a later revision or time, or look in another repository"
            }
        }
    }
}

impl Listing {
    /// Finds the backup that is meant: verified, undamaged and whole, unless it is named.
    pub fn find(&self, target: &Target, now: Timestamp) -> Result<Found<'_>, FindError> {
        let cluster = || self.cluster.clone();
        let Some(oldest) = self.backups.last() else {
            return Err(FindError::Empty { cluster: cluster() });
        };
        let mut matching: Vec<&Backup> = match target {
            Target::Name(name) => return self.by_name(name),
            Target::Newest => {
                let latest = now.saturating_add(CLOCK_SKEW_MAX).unwrap_or(Timestamp::MAX);
                let (future, present): (Vec<_>, Vec<_>) =
                    self.backups.iter().partition(|backup| backup.manifest.started > latest);
                present.into_iter().chain(future).collect()
            }
            Target::Revision(revision) => {
                self.backups.iter().filter(|b| b.manifest.etcd.revision <= *revision).collect()
            }
            Target::Time(time) => {
                self.backups.iter().filter(|b| b.manifest.started <= *time).collect()
            }
        };
        if matching.is_empty() {
            return Err(FindError::AllNewer { cluster: cluster(), oldest: oldest.id() });
        }
        if let Target::Revision(_) = target {
            // Stable: of equal revisions the newest stays first.
            matching.sort_by_key(|backup| std::cmp::Reverse(backup.manifest.etcd.revision));
        }
        let mut skipped = Vec::new();
        for backup in matching {
            match backup.unfit() {
                Some(unfit) => skipped.push((backup.id(), unfit)),
                None => return Ok(Found { backup, is_exact: target.is_met_by(backup), skipped }),
            }
        }
        Err(FindError::NoneFit { cluster: cluster(), skipped })
    }

    fn by_name(&self, name: &str) -> Result<Found<'_>, FindError> {
        let (cluster, name) = (self.cluster.clone(), name.to_owned());
        let found = |backup| Ok(Found { backup, is_exact: true, skipped: Vec::new() });
        if let Some(backup) = self.backups.iter().find(|backup| backup.id().to_string() == name) {
            return found(backup);
        }
        let short = name.trim_start_matches('0');
        let begins_so = |b: &&Backup| b.id().to_string().trim_start_matches('0').starts_with(short);
        let matching: Vec<_> = self.backups.iter().filter(begins_so).collect();
        match matching.as_slice() {
            _ if short.is_empty() => Err(FindError::NoSuchName { cluster, name }),
            [] => Err(FindError::NoSuchName { cluster, name }),
            [backup] => found(backup),
            several => {
                let ids = several.iter().map(|backup| backup.id()).collect();
                Err(FindError::Ambiguous { cluster, name, ids })
            }
        }
    }
}

impl Backup {
    /// What speaks against relying on it.
    pub fn unfit(&self) -> Option<Unfit> {
        match self.soundness() {
            Soundness::Verified => None,
            Soundness::Unverified => Some(Unfit::Unverified),
            Soundness::Damaged if self.is_damaged => Some(Unfit::Damaged),
            Soundness::Damaged => Some(Unfit::Incomplete(self.state.clone())),
        }
    }
}

impl Target {
    fn is_met_by(&self, backup: &Backup) -> bool {
        match self {
            Self::Newest | Self::Name(_) => true,
            Self::Revision(revision) => backup.manifest.etcd.revision == *revision,
            Self::Time(time) => backup.manifest.started == *time,
        }
    }
}

/// Why something names no target.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no backup: write newest, revision:N, time:2026-11-22T16:00:00Z, time:2026-11-22T16:00 (local time), time:2026-11-22, or a backup's name"
)]
pub struct TargetError(String);

impl FromStr for Target {
    type Err = TargetError;

    /// `latest`, `revision:N`, `time:RFC3339`, or a name.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        let wrong = || TargetError(text.to_owned());
        match text.split_once(':') {
            Some(("revision", number)) => match number.parse() {
                Ok(revision) if revision > 0 => Ok(Self::Revision(revision)),
                _ => Err(wrong()),
            },
            Some(("time", time)) => instant(time).map(Self::Time).ok_or_else(wrong),
            Some(_) => Err(wrong()),
            None if text.is_empty() => Err(wrong()),
            None if text == "latest" || text == "newest" => Ok(Self::Newest),
            None => Ok(Self::Name(text.to_owned())),
        }
    }
}

/// An instant by RFC 3339, or a date, with a time or the day's begin, on the clock of this machine's zone.
fn instant(text: &str) -> Option<Timestamp> {
    let local = || {
        let local = text.parse::<civil::DateTime>().ok()?;
        Some(local.to_zoned(TimeZone::system()).ok()?.timestamp())
    };
    text.parse().ok().or_else(local)
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unverified => write!(f, "never verified"),
            Self::Damaged => write!(f, "damaged"),
            Self::Incomplete(state) => state.fmt(f),
        }
    }
}

/// What an error can list.
trait Item {
    fn show(&self) -> String;
}

impl Item for BackupId {
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Item for (BackupId, Unfit) {
    fn show(&self) -> String {
        format!("{} ({})", self.0, self.1)
    }
}

fn list(items: &[impl Item]) -> String {
    let shown: Vec<_> = items.iter().take(NAMES_SHOWN_MAX).map(Item::show).collect();
    let more = items.len().saturating_sub(NAMES_SHOWN_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &more
}
