//! What was read back, when, and what came of it.
//!
//! ```text
//!   <cluster>/checks/20261122T020000Z-3of7.json       a share of all backups
//!   <cluster>/checks/20261122T093000Z-named.json      backups that someone named
//!   <cluster>/snapshots/<id>/damaged.json             this one was found damaged: it never counts again
//! ```
//!
//! * The share that a backup belongs to is a hash of its name, the same for every version and machine. So a round of
//!   shares covers every backup that was there when it began, whatever comes and goes meanwhile.
//! * Which share is due follows from the newest record of the same division; nothing is kept in between.
//! * Damage is noted before the record of the check, so that a check cut short has not hidden it.

use crate::{
    BackupId, ClusterName,
    repository::{FORMAT, Repository, RepositoryError, create_json, folder, read_json},
    store::StoreError,
};
use futures::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fmt, num::NonZeroU32, str::FromStr};

/// The name of the note of damage in a backup's folder.
pub const DAMAGED: &str = "damaged.json";

/// Records that stay of every share: the newest, and the one before it should that one tell of less.
const RECORDS_KEPT: usize = 2;

/// Records of named backups that stay.
const NAMED_RECORDS_KEPT: usize = 32;

/// How many records are read at once.
const PARALLEL: usize = 32;

/// How many seconds on a record is put when another has its name.
const NAMES_TRIED_MAX: u32 = 60;

const TIME_FORMAT: &str = "%Y%m%dT%H%M%SZ";

/// One of so many equal shares of all backups: `3of7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Share {
    index: u32,
    of: NonZeroU32,
}

impl Share {
    /// Everything at once.
    pub const ALL: Self = Self { index: 1, of: NonZeroU32::MIN };

    /// The `index`-th, from 1, of so many; none if there are not so many.
    pub fn new(index: u32, of: NonZeroU32) -> Option<Self> {
        (1..=of.get()).contains(&index).then_some(Self { index, of })
    }

    /// The one that follows the newest check of the same division; the first if there was none.
    pub fn due(of: NonZeroU32, checks: &[Check]) -> Self {
        let same = checks.iter().filter_map(|check| Some((check.at, check.share?)));
        let newest = same.filter(|(_, share)| share.of == of).max();
        let index = newest.map_or(1, |(_, share)| share.index % of.get() + 1);
        Self { index, of }
    }

    /// Whether the backup belongs to it.
    pub fn covers(self, id: BackupId) -> bool {
        let hash = Sha256::digest(id.to_string());
        let head = hash[..8].try_into().expect("a SHA-256 has 32 bytes");
        u64::from_be_bytes(head) % u64::from(self.of.get()) == u64::from(self.index - 1)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}of{}", self.index, self.of))
    }
}

/// Why something names no share.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no share: write it like 3of7")]
pub struct ShareError(String);

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let parsed = || {
            let (index, of) = text.split_once("of")?;
            Self::new(index.parse().ok()?, of.parse().ok()?)
        };
        parsed().ok_or_else(|| ShareError(text.to_owned()))
    }
}

impl From<Share> for String {
    fn from(share: Share) -> Self {
        share.to_string()
    }
}

impl TryFrom<String> for Share {
    type Error = ShareError;

    fn try_from(text: String) -> Result<Self, ShareError> {
        text.parse()
    }
}

/// The record of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    format: u32,
    /// When it began.
    pub at: Timestamp,
    /// Which share it covered; none if backups were named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// Backups that were read back whole and proved.
    pub verified: Vec<BackupId>,
    /// Backups that were found damaged.
    #[serde(default)]
    pub damaged: Vec<BackupId>,
}

impl Check {
    /// A check that has found that.
    pub fn new(
        at: Timestamp,
        share: Option<Share>,
        verified: Vec<BackupId>,
        damaged: Vec<BackupId>,
    ) -> Self {
        Self { format: FORMAT, at, share, verified, damaged }
    }

    /// Where it belongs among others: a share, or the named ones.
    fn kind(&self) -> String {
        self.share.map_or_else(|| "named".to_owned(), |share| share.to_string())
    }
}

/// A note that a backup is damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    format: u32,
    /// When it was found.
    pub at: Timestamp,
    /// What was found, a line each.
    pub findings: Vec<String>,
}

impl Damage {
    /// Damage found at that time.
    pub fn new(at: Timestamp, findings: Vec<String>) -> Self {
        Self { format: FORMAT, at, findings }
    }
}

/// When each backup was last read back whole.
pub fn last_verified(checks: &[Check]) -> BTreeMap<BackupId, Timestamp> {
    let mut last = BTreeMap::new();
    for check in checks {
        for id in &check.verified {
            let at = last.entry(*id).or_insert(check.at);
            *at = check.at.max(*at);
        }
    }
    last
}

impl Repository {
    /// Notes for good that a backup is damaged. What was noted first stays.
    pub async fn mark_damaged(
        &self,
        cluster: &ClusterName,
        id: BackupId,
        damage: &Damage,
    ) -> Result<(), RepositoryError> {
        let path = format!("{}{DAMAGED}", folder(cluster, id));
        match create_json(self.store(), &path, damage).await {
            Ok(()) | Err(StoreError::Exists { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What was noted of the damage of a backup.
    pub async fn damage(
        &self,
        cluster: &ClusterName,
        id: BackupId,
    ) -> Result<Option<Damage>, RepositoryError> {
        match read_json(self.store(), &format!("{}{DAMAGED}", folder(cluster, id))).await {
            Ok(damage) => Ok(Some(damage)),
            Err(RepositoryError::Store(StoreError::NotFound { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Records a check, then forgets records that newer ones have made needless.
    pub async fn record_check(
        &self,
        cluster: &ClusterName,
        check: &Check,
    ) -> Result<(), RepositoryError> {
        self.create_record(cluster, check).await?;
        // Only tidiness: a record that cannot be deleted now is deleted by a later check.
        let Ok(records) = self.records(cluster).await else { return Ok(()) };
        for path in needless(&records) {
            let _ = self.store().delete(path).await;
        }
        Ok(())
    }

    async fn create_record(
        &self,
        cluster: &ClusterName,
        check: &Check,
    ) -> Result<(), RepositoryError> {
        let mut taken = None;
        for second in 0..NAMES_TRIED_MAX {
            let later = SignedDuration::from_secs(second.into());
            let time = check.at.saturating_add(later).unwrap_or(check.at).strftime(TIME_FORMAT);
            let path = format!("{cluster}/checks/{time}-{}.json", check.kind());
            match create_json(self.store(), &path, check).await {
                Ok(()) => return Ok(()),
                Err(error @ StoreError::Exists { .. }) => taken = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(taken.expect("one name at least was tried").into())
    }

    /// All records of checks, the oldest first. One that cannot be read is left out: it only tells of the past.
    pub async fn checks(&self, cluster: &ClusterName) -> Result<Vec<Check>, RepositoryError> {
        let records = self.records(cluster).await?;
        Ok(records.into_iter().map(|(_, check)| check).collect())
    }

    async fn records(
        &self,
        cluster: &ClusterName,
    ) -> Result<Vec<(String, Check)>, RepositoryError> {
        let entries = self.store().list(&format!("{cluster}/checks/")).await?;
        let reads = entries.into_iter().map(|entry| async move {
            let check = read_json::<Check>(self.store(), &entry.path).await;
            (entry.path, check)
        });
        let mut reads = stream::iter(reads).buffered(PARALLEL);
        let mut records = Vec::new();
        while let Some((path, check)) = reads.next().await {
            match check {
                Ok(check) => records.push((path, check)),
                Err(error) if error.is_unreachable() => return Err(error),
                Err(_) => {}
            }
        }
        records.sort_by(|a, b| (a.1.at, &a.0).cmp(&(b.1.at, &b.0)));
        Ok(records)
    }
}

/// Paths of records that newer ones of the same kind have made needless. Records are sorted, the oldest first.
fn needless(records: &[(String, Check)]) -> Vec<&str> {
    let mut seen = BTreeMap::new();
    let needless = records.iter().rev().filter(|(_, check)| {
        let seen = seen.entry(check.kind()).or_insert(0);
        *seen += 1;
        let kept = if check.share.is_some() { RECORDS_KEPT } else { NAMED_RECORDS_KEPT };
        *seen > kept
    });
    needless.map(|(path, _)| path.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn seconds(n: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + n).unwrap()
    }

    fn share(text: &str) -> Share {
        text.parse().unwrap()
    }

    #[test]
    fn every_backup_belongs_to_exactly_one_share_and_always_the_same() {
        let ids: Vec<_> = (0..700).map(|n| BackupId::new(1000, seconds(n))).collect();
        let seven = NonZeroU32::new(7).unwrap();
        let shares: Vec<_> = (1..=7).map(|index| Share::new(index, seven).unwrap()).collect();
        for id in &ids {
            assert_eq!(shares.iter().filter(|share| share.covers(*id)).count(), 1);
            assert!(Share::ALL.covers(*id));
        }
        for share in shares {
            let covered = ids.iter().filter(|id| share.covers(**id)).count();
            assert!((60..140).contains(&covered), "{share} of 700 covers {covered}");
        }
        // As the first version computed it; another answer would let backups slip between two shares.
        let id = "00000000000000012345-20261122T164424Z".parse().unwrap();
        assert!(share("2of7").covers(id));
    }

    #[test]
    fn shares_follow_one_another_and_begin_again() {
        let seven = NonZeroU32::new(7).unwrap();
        let check = |n, text| Check::new(seconds(n), Some(share(text)), vec![], vec![]);
        assert_eq!(Share::due(seven, &[]), share("1of7"));
        let named = Check::new(seconds(9), None, vec![], vec![]);
        let checks = [check(2, "3of7"), check(1, "6of7"), check(3, "1of4"), named];
        assert_eq!(Share::due(seven, &checks), share("4of7"));
        assert_eq!(Share::due(seven, &[check(1, "7of7")]), share("1of7"));
    }

    #[test]
    fn a_share_is_read_as_it_is_written() {
        assert_eq!(share("3of7").to_string(), "3of7");
        for text in ["0of7", "8of7", "1of0", "3/7", "", "of"] {
            assert_eq!(text.parse::<Share>(), Err(ShareError(text.to_owned())));
        }
    }

    #[tokio::test]
    async fn records_are_kept_while_they_tell_something() {
        let root = tempfile::tempdir().unwrap();
        let repository =
            Repository::open_or_create(Store::local(root.path()), seconds(0)).await.unwrap();
        let prod: ClusterName = "prod".parse().unwrap();
        let id = BackupId::new(7, seconds(0));
        for round in 0..5 {
            for index in 1..=3 {
                let share = Share::new(index, NonZeroU32::new(3).unwrap());
                // All within one second: a name that is taken costs no record.
                let check = Check::new(seconds(round), share, vec![id], vec![]);
                repository.record_check(&prod, &check).await.unwrap();
                repository.record_check(&prod, &check).await.unwrap();
            }
        }
        let checks = repository.checks(&prod).await.unwrap();
        assert_eq!(checks.len(), 6, "two of each of three shares");
        assert!(checks.iter().all(|check| check.at == seconds(4)));
        assert_eq!(last_verified(&checks)[&id], seconds(4));
    }

    #[tokio::test]
    async fn the_first_note_of_damage_stays() {
        let root = tempfile::tempdir().unwrap();
        let repository =
            Repository::open_or_create(Store::local(root.path()), seconds(0)).await.unwrap();
        let prod: ClusterName = "prod".parse().unwrap();
        let id = BackupId::new(7, seconds(0));
        assert_eq!(repository.damage(&prod, id).await.unwrap(), None);
        let first = Damage::new(seconds(1), vec!["page 7 is torn".to_owned()]);
        repository.mark_damaged(&prod, id, &first).await.unwrap();
        repository.mark_damaged(&prod, id, &Damage::new(seconds(2), vec![])).await.unwrap();
        assert_eq!(repository.damage(&prod, id).await.unwrap(), Some(first));
    }
}
