//! What a database says of itself: how far it goes, and of which cluster it is. The date of a file says neither, as a copy has one of
//! its own.
//!
//! | revisions are | they say |
//! | --- | --- |
//! | of members of one cluster | which is newer, and by how much |
//! | [`BUMP_MARGIN`] apart, or more | that the cluster was recovered in between, which raised them: the greater is newer, by how much is not known |
//! | of clusters that have no member in common | nothing: one is another cluster, or this one before it was made anew |
//! | of one that does not list its members | nothing that is certain |
//!
//! A member's id is drawn from its URLs and the cluster's token. Each recovery has a token of its own, so it has other members too.

use crate::plan::BUMP_MARGIN;
use etcd_schema::{Meta, RevisionKey, bucket};
use serde::{Deserialize, Serialize};
use snapshot::SnapshotError;
use std::{collections::BTreeSet, fs::File, path::Path};

/// How far data go, and whose they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Contents {
    /// The newest revision.
    pub revision: Option<i64>,
    /// Ids of the cluster's members; none if they are not told.
    pub members: BTreeSet<u64>,
}

/// What two revisions say of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kinship {
    /// They can be compared.
    Same,
    /// The cluster was recovered in between.
    Recovered,
    /// They are of different clusters.
    Strangers,
    /// Nobody knows.
    Unknown,
}

impl Contents {
    /// Fails for a file that is no database, or not all of one; what is wrong inside of it is found when it is proved.
    pub fn refuse_other(path: &Path) -> Result<(), SnapshotError> {
        let io = |action, source| SnapshotError::Io { action, path: path.to_owned(), source };
        let file = File::open(path).map_err(|source| io("open", source))?;
        let mapped = bolt::Mapped::open(&file).map_err(|source| io("map", source))?;
        match bolt::Db::open(&mapped) {
            Ok(_) => Ok(()),
            Err(source) => Err(SnapshotError::NotBolt { path: path.to_owned(), source }),
        }
    }

    /// Reads a database file, if it is one. Nothing of it is proved.
    pub fn of_file(path: &Path) -> Option<Self> {
        let mapped = bolt::Mapped::open(&File::open(path).ok()?).ok()?;
        let db = bolt::Db::open(&mapped).ok()?;
        let last = db.bucket(bucket::KEY).ok()??.last().ok()?;
        let last = last.and_then(|(key, _)| RevisionKey::parse(key).ok());
        let mut meta = Meta::default();
        if let Ok(Some(pairs)) = db.bucket(bucket::META) {
            for (key, value) in pairs.iter().map_while(Result::ok) {
                // What cannot be read here is told when it is proved.
                let _ = meta.read(key, value);
            }
        }
        let members = db.bucket(bucket::MEMBERS).ok().flatten();
        let members = members.iter().flat_map(bolt::Bucket::iter).map_while(Result::ok);
        let ids = members.filter_map(|(key, _)| etcd_schema::MemberId::parse_key(key).ok());
        Some(Self {
            revision: last.map(|key| key.revision.main).max(meta.compact_revision()),
            members: ids.map(|id| id.0).collect(),
        })
    }

    /// What this revision and the other's say of each other.
    pub(crate) fn kinship(&self, other: &Self) -> Kinship {
        let revisions = self.revision.zip(other.revision);
        // Also with members in common: who recovers by hand may have taken the old token.
        if revisions.is_some_and(|(ours, theirs)| ours.abs_diff(theirs) >= BUMP_MARGIN) {
            return Kinship::Recovered;
        }
        match (self.members.is_empty() || other.members.is_empty(), &self.members & &other.members)
        {
            (true, _) => Kinship::Unknown,
            (false, common) if common.is_empty() => Kinship::Strangers,
            (false, _) => Kinship::Same,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> Contents {
        let fixtures = Path::new("../../fixtures");
        Contents::of_file(&fixtures.join(name)).unwrap()
    }

    #[test]
    fn a_snapshot_of_any_version_tells_its_revision_and_its_members() {
        for version in ["3.4.23", "3.5.16", "3.5.30", "3.6.14"] {
            let base = fixture(&format!("{version}/base.db"));
            let last = fixture(&format!("{version}/final.db"));
            assert_eq!((base.revision, last.revision), (Some(360), Some(600)), "{version}");
            assert_eq!(base.members.len(), 1, "{version}");
            assert_eq!(base.kinship(&last), Kinship::Same, "{version}");
        }
        assert_eq!(Contents::of_file(Path::new("/no/such.db")), None);
        assert_eq!(Contents::of_file(Path::new("/dev/null")), None);
        let refused = Contents::refuse_other(Path::new("/dev/null"));
        assert!(matches!(refused, Err(SnapshotError::NotBolt { .. })), "{refused:?}");
    }

    #[test]
    fn revisions_are_compared_within_a_cluster_alone() {
        let of = |revision, members: &[u64]| Contents {
            revision: Some(revision),
            members: members.iter().copied().collect(),
        };
        let backup = of(100, &[1, 2, 3]);
        for (other, kinship) in [
            (of(150, &[3, 4]), Kinship::Same),
            (of(150, &[4, 5]), Kinship::Strangers),
            (of(150, &[]), Kinship::Unknown),
            (of(1_000_000_103, &[4, 5]), Kinship::Recovered),
            (of(1_000_000_103, &[1, 2, 3]), Kinship::Recovered),
        ] {
            assert_eq!(backup.kinship(&other), kinship, "{other:?}");
            assert_eq!(other.kinship(&backup), kinship, "{other:?}");
        }
    }
}
