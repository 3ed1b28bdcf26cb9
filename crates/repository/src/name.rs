//! Names: of clusters, and of the backups of one.
//!
//! ```text
//!   00000000000000012345-20261122T164424Z
//!   | revision, 20 digits | start, UTC |
//! ```
//!
//! Names sort as text in the order of their revisions. The number is the revision that the member had
//! when its snapshot was asked for: an upload needs its name before the stream has shown what is in it,
//! so the snapshot may be some revisions newer. The manifest has the exact one.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The longest name of a cluster: room is left for what is put around it in hosts' and pods' names.
const CLUSTER_NAME_BYTES_MAX: usize = 63;

/// How the time in a name is written.
const TIME_FORMAT: &str = "%Y%m%dT%H%M%SZ";

/// Why a name is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Not a cluster's name.
    #[error(
        "{0:?} cannot name a cluster: use 1 to {CLUSTER_NAME_BYTES_MAX} letters, digits, '.', '_' or '-', beginning with a letter or digit; `lifeboat.json` is taken"
    )]
    Cluster(String),
    /// Not a backup's name.
    #[error(
        "{0:?} does not name a backup: it is written REVISION-TIME, as `lifeboat list` prints it"
    )]
    Backup(String),
}

/// The name of a cluster in a repository, and of its folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(String);

impl ClusterName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let follows = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let valid = name.len() <= CLUSTER_NAME_BYTES_MAX
            && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
            && name.bytes().all(follows)
            // What makes a folder a repository has that name, beside the folders of clusters.
            && name != crate::repository::MARKER;
        if valid { Ok(Self(name.to_owned())) } else { Err(NameError::Cluster(name.to_owned())) }
    }
}

impl TryFrom<String> for ClusterName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        name.parse()
    }
}

impl From<ClusterName> for String {
    fn from(name: ClusterName) -> Self {
        name.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The name of a backup: where it stands among the others of its cluster.
///
/// The order is that of the names as text: by revision, then by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId {
    at_least: u64,
    started: Timestamp,
}

impl BackupId {
    /// A name for a backup of at least that revision, begun at that time; parts of a second are dropped.
    pub fn new(at_least: u64, started: Timestamp) -> Self {
        let started = Timestamp::from_second(started.as_second())
            .expect("a timestamp's own second is a timestamp");
        Self { at_least, started }
    }

    /// The revision that the snapshot has at least.
    pub fn at_least(self) -> u64 {
        self.at_least
    }

    /// When the backup began, by the writer's clock, in whole seconds.
    pub fn started(self) -> Timestamp {
        self.started
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:020}-{}", self.at_least, self.started.strftime(TIME_FORMAT)))
    }
}

impl FromStr for BackupId {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let parsed = || {
            let (revision, time) = name.split_once('-')?;
            let time = time.strip_suffix('Z')?;
            let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S", time).ok()?;
            let started = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
            Some(Self { at_least: revision.parse().ok()?, started })
        };
        // Only the one spelling that sorts: no sign, no missing zeros.
        parsed()
            .filter(|id| id.to_string() == name)
            .ok_or_else(|| NameError::Backup(name.to_owned()))
    }
}

impl TryFrom<String> for BackupId {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        name.parse()
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_is_read_as_it_was_written() {
        let id = BackupId::new(12345, at("2026-11-22T16:44:24.9Z"));
        assert_eq!(id.to_string(), "00000000000000012345-20261122T164424Z");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn names_sort_as_their_revisions_do() {
        let ids = [
            BackupId::new(9, at("2026-11-22T16:44:24Z")),
            BackupId::new(10, at("2026-01-01T00:00:00Z")),
            BackupId::new(10, at("2026-01-01T00:00:01Z")),
            BackupId::new(u64::MAX, at("2026-01-01T00:00:00Z")),
        ];
        assert!(ids.is_sorted());
        assert!(ids.map(|id| id.to_string()).is_sorted());
    }

    #[test]
    fn only_the_spelling_that_sorts_names_a_backup() {
        for name in [
            "",
            "12345-20261122T164424Z",
            "+0000000000000012345-20261122T164424Z",
            "00000000000000012345-20261122T164424",
            "00000000000000012345-20261322T164424Z",
            "00000000000000012345-20261122T164424Z/",
        ] {
            assert_eq!(name.parse::<BackupId>(), Err(NameError::Backup(name.to_owned())));
        }
    }

    #[test]
    fn a_cluster_is_named_by_what_is_safe_in_a_path() {
        for name in ["prod", "k8s.eu-1_a", "3"] {
            assert_eq!(name.parse::<ClusterName>().unwrap().as_str(), name);
        }
        for name in ["", ".", "..", "-x", "a/b", "a b", "ä", &"x".repeat(64)] {
            assert_eq!(name.parse::<ClusterName>(), Err(NameError::Cluster(name.to_owned())));
        }
    }
}
