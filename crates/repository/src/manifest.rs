//! The manifest of a backup: what it holds, how it is stored, what was proved of it.
//!
//! JSON, written once, last. Field names are etcd's own where etcd has one. Numbers that may be beyond what
//! every JSON reader keeps exactly (member ids) are hexadecimal text, as etcd prints them.
//!
//! A reader takes any manifest whose `format` it knows, and ignores fields that it does not.
//!
//! Nothing is overwritten, so a backup whose objects are written anew (encrypted to other keys) gets a further
//! *generation* of them, with a manifest of its own. The highest generation that has a manifest counts:
//!
//! ```text
//!   generation 1    manifest.json      db.zst    db.zst.age      include.tar.zst    include.tar.zst.age
//!   generation 2    manifest.2.json    db.2.zst  db.2.zst.age    include.2.tar.zst  include.2.tar.zst.age
//! ```
//!
//! In the place of a manifest there may be an [`Abandoned`]: a later writer has put it there, create-only, so
//! that the writer it took over from cannot commit any more. The folder is then no backup, for good.

use crate::name::{BackupId, ClusterName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// The most bytes that a manifest may have: a member list and a list of included files fit many times.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// The generation of a backup that was never written anew.
pub const FIRST_GENERATION: u32 = 1;

/// What an object in a backup's folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// The snapshot.
    Db,
    /// The tar of files beside it.
    Include,
}

/// The name of the manifest of a generation, in the backup's folder.
pub fn manifest_name(generation: u32) -> String {
    format!("manifest{}.json", infix(generation))
}

/// The generation whose manifest has that name; none if it is no manifest's name.
pub fn manifest_generation(name: &str) -> Option<u32> {
    let infix = name.strip_prefix("manifest")?.strip_suffix(".json")?;
    let generation = match infix.strip_prefix('.') {
        Some(number) => number.parse().ok()?,
        None => FIRST_GENERATION,
    };
    // Only the one spelling: no sign, no zeros in front, no number for the first.
    (generation >= FIRST_GENERATION && manifest_name(generation) == name).then_some(generation)
}

/// The name of an object in the backup's folder.
pub fn object_name(kind: ObjectKind, generation: u32, encrypted: bool) -> String {
    let (stem, extension) = match kind {
        ObjectKind::Db => ("db", ".zst"),
        ObjectKind::Include => ("include", ".tar.zst"),
    };
    let age = if encrypted { ".age" } else { "" };
    format!("{stem}{}{extension}{age}", infix(generation))
}

/// The generation of whatever has that name in a backup's folder; none if it belongs to no generation.
pub fn generation_of(name: &str) -> Option<u32> {
    let is_object = |generation: &u32| {
        [ObjectKind::Db, ObjectKind::Include].into_iter().any(|kind| {
            [false, true].into_iter().any(|age| object_name(kind, *generation, age) == name)
        })
    };
    let numbered = || name.split('.').nth(1)?.parse().ok();
    manifest_generation(name)
        .or_else(|| Some(FIRST_GENERATION).filter(is_object))
        .or_else(|| numbered().filter(|generation| *generation > 1).filter(is_object))
}

fn infix(generation: u32) -> String {
    if generation == FIRST_GENERATION { String::new() } else { format!(".{generation}") }
}

fn first_generation() -> u32 {
    FIRST_GENERATION
}

/// What lies in the place of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// A backup.
    Backup(Box<Manifest>),
    /// None, for good.
    Abandoned(Abandoned),
}

/// A backup that a later writer has closed the door on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abandoned {
    /// The format of the manifest that it stands for.
    pub format: u32,
    /// The backup that it would have been.
    pub id: BackupId,
    /// The number of the writer that took over.
    pub abandoned_by: u64,
    /// When.
    pub at: Timestamp,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not what a manifest looks like.
    #[error("{path} is no manifest")]
    Malformed {
        /// Where.
        path: String,
        /// Why not.
        source: serde_json::Error,
    },
    /// Of a format to come.
    #[error(
        "{path} was written by a newer Lifeboat (format {format}); this one reads up to format {FORMAT}"
    )]
    Format {
        /// Where.
        path: String,
        /// Its format.
        format: u32,
    },
}

impl Committed {
    /// Reads what lies at `path`.
    pub fn parse(path: &str, json: &[u8]) -> Result<Self, ManifestError> {
        // What of the rest is needed to say what is wrong.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let malformed = |source| ManifestError::Malformed { path: path.to_owned(), source };
        let wrong = match serde_json::from_slice::<Manifest>(json) {
            Ok(manifest) if manifest.format == FORMAT => {
                return Ok(Self::Backup(Box::new(manifest)));
            }
            Ok(Manifest { format, .. }) => {
                return Err(ManifestError::Format { path: path.to_owned(), format });
            }
            Err(wrong) => wrong,
        };
        // Another format may have other fields.
        let Head { format } = serde_json::from_slice(json).map_err(malformed)?;
        if format != FORMAT {
            return Err(ManifestError::Format { path: path.to_owned(), format });
        }
        match serde_json::from_slice(json) {
            Ok(abandoned) => Ok(Self::Abandoned(abandoned)),
            Err(_) => Err(malformed(wrong)),
        }
    }
}

/// What is known of one backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format of the manifest.
    pub format: u32,
    /// How often the backup's objects were written anew, and once more.
    #[serde(default = "first_generation")]
    pub generation: u32,
    /// The backup's own name.
    pub id: BackupId,
    /// The name of the cluster in the repository.
    pub cluster: ClusterName,
    /// The number under which its writer wrote; see [`crate::lease`].
    pub fence: u64,
    /// Where the snapshot came from.
    pub source: Source,
    /// When the backup began; of a file, when that was written: the time of the data.
    pub started: Timestamp,
    /// When all of it was stored and proved.
    pub finished: Timestamp,
    /// The instant of the schedule that it answers, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_for: Option<Timestamp>,
    /// The tool and its version.
    pub tool: String,
    /// What etcd says.
    pub etcd: Etcd,
    /// The snapshot as a file: what `zstd -d` brings back.
    pub db: Content,
    /// The snapshot as it is stored.
    pub object: Object,
    /// Files beside it that a restore may need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<Include>,
    /// How objects were compressed.
    pub compression: Compression,
    /// How objects were encrypted, if they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// What was proved before the manifest was written.
    pub verification: Verification,
}

/// Where a snapshot came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Source {
    /// A running member.
    Live {
        /// Its URL, without credentials.
        endpoint: String,
        /// Its id, hexadecimal.
        member_id: String,
        /// Its name.
        member_name: String,
    },
    /// A snapshot file that was there already.
    File {
        /// Its name.
        path: String,
    },
    /// The data directory of a stopped member.
    DataDir {
        /// Its name.
        path: String,
    },
}

/// What was read of etcd: from the snapshot itself, and from the members that answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Etcd {
    /// The version of the member, or of the file's storage, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The cluster's id, hexadecimal, if a member told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The newest revision in the snapshot.
    pub revision: i64,
    /// The revision up to which history was compacted; 0 if never.
    pub compact_revision: i64,
    /// `snapshot status`'s hash.
    pub hash: u32,
    /// `snapshot status`'s count of keys: every record counts.
    pub total_key: u64,
    /// Keys that exist at the newest revision.
    pub live_keys: u64,
    /// The hash of the keys and values at the newest revision, and who agreed on it.
    pub hash_kv: HashKv,
    /// The members, as the cluster or the snapshot lists them.
    #[serde(default)]
    pub members: Vec<Member>,
}

/// HashKV at the snapshot's revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashKv {
    /// Computed from the snapshot.
    pub hash: u32,
    /// The compacted revision that it was computed with.
    pub compact_revision: i64,
    /// Ids of the members that said the same.
    #[serde(default)]
    pub agreed: Vec<String>,
    /// Ids of the members that said something else: their data differs.
    #[serde(default)]
    pub differed: Vec<String>,
    /// Ids of the members that could not be asked, or had compacted that revision meanwhile.
    #[serde(default)]
    pub unasked: Vec<String>,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id, hexadecimal.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where its clients reach it.
    #[serde(default)]
    pub client_urls: Vec<String>,
    /// Whether it has no vote.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub learner: bool,
}

/// Bytes and their digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// How many.
    pub bytes: u64,
    /// SHA-256 of all of them, hexadecimal.
    pub sha256: String,
}

/// An object in the backup's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its name in the folder.
    pub name: String,
    /// What is stored.
    #[serde(flatten)]
    pub stored: Content,
}

/// Files kept beside the snapshot, as a tar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Include {
    /// The tar as it is stored.
    pub object: Object,
    /// The tar itself.
    pub tar: Content,
    /// Names of the files in it, as they were given.
    pub paths: Vec<String>,
}

/// How objects were compressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compression {
    /// Always `zstd`.
    pub format: String,
    /// Its level.
    pub level: i32,
    /// Bytes in each frame before compression, but for the last.
    pub frame_bytes: u64,
}

/// How objects were encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// Always `age`.
    pub format: String,
    /// Public keys: whoever holds the identity of one can read.
    pub recipients: Vec<String>,
}

/// What was proved before the manifest was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// When.
    pub at: Timestamp,
    /// SHA-256 as the member sent it.
    pub digest: bool,
    /// Every page and record of the database.
    pub tree: bool,
    /// HashKV equal on every member that was asked, and at least one was.
    pub hash_kv: bool,
}

impl Verification {
    /// Whether the backup may be relied on: digest and tree were proved.
    pub fn is_verified(&self) -> bool {
        self.digest && self.tree
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_generation_has_plain_names_and_later_ones_a_number() {
        assert_eq!(manifest_name(1), "manifest.json");
        assert_eq!(manifest_name(2), "manifest.2.json");
        assert_eq!(object_name(ObjectKind::Db, 1, false), "db.zst");
        assert_eq!(object_name(ObjectKind::Db, 3, true), "db.3.zst.age");
        assert_eq!(object_name(ObjectKind::Include, 1, true), "include.tar.zst.age");
        assert_eq!(object_name(ObjectKind::Include, 2, false), "include.2.tar.zst");
    }

    #[test]
    fn a_manifest_is_known_by_its_name_alone() {
        for generation in [1, 2, 10, u32::MAX] {
            assert_eq!(manifest_generation(&manifest_name(generation)), Some(generation));
        }
        for name in ["manifest.1.json", "manifest.02.json", "manifest.0.json", "manifest..json"] {
            assert_eq!(manifest_generation(name), None, "{name}");
        }
        for name in ["manifest", "manifest.+2.json", "db.zst", "damaged.json", "manifest2.json"] {
            assert_eq!(manifest_generation(name), None, "{name}");
        }
    }

    #[test]
    fn whatever_belongs_to_a_generation_tells_which() {
        for generation in [1, 2, 10, u32::MAX] {
            assert_eq!(generation_of(&manifest_name(generation)), Some(generation));
            for kind in [ObjectKind::Db, ObjectKind::Include] {
                for age in [false, true] {
                    assert_eq!(
                        generation_of(&object_name(kind, generation, age)),
                        Some(generation)
                    );
                }
            }
        }
        for name in ["", "db", "db.0.zst", "db.1.zst", "db.02.zst", "damaged.json", "x.2.zst"] {
            assert_eq!(generation_of(name), None, "{name}");
        }
    }
}
