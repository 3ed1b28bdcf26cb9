//! The new data, built here once and in full: the trial restore is the build.
//!
//! The database is the same for every member; a WAL segment and a raft snapshot of a few hundred bytes are each member's own. Built
//! again from the same backup with the same plan, they are the same.

use crate::{
    plan::Plan,
    transfer::{digest_of_packed, pack},
};
use etcd_raftfiles::restore::{RestoredCluster, Target};
use etcd_schema::{KeyValue, Record, Revision};
use restore::{
    Destination, Progress, RestoreError, RestorePlan, TargetVersion, hash_restored, parse_cluster,
};
use serde::{Deserialize, Serialize};
use snapshot::{DigestRule, Fetched, Finding, Snapshot, SnapshotError};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

/// What was built.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Built {
    /// Bytes of the database.
    pub bytes: u64,
    /// SHA-256 of each file, by its path below the build folder.
    pub sha256: BTreeMap<String, String>,
    /// The backup's revision.
    pub backup_revision: i64,
    /// The revision that the cluster begins at.
    pub revision: i64,
    /// The etcd that the data are for.
    pub target: String,
    /// The new cluster's id.
    pub cluster_id: u64,
    /// Ids of the members, by name.
    pub member_ids: BTreeMap<String, u64>,
    /// Whether users and passwords are asked for.
    pub auth: bool,
}

/// What the members' data must hash to. It takes as long as sending the data does, so it is computed meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Hashes {
    /// HashKV at the revision that the cluster begins at.
    pub hash_kv: u32,
    /// HashKV after the write that proves that the cluster takes writes, for those that do not hash at the revision that they were
    /// compacted to.
    pub hash_kv_probed: u32,
}

/// A file of a member, and where it goes below `member`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberFile {
    /// Where it is.
    pub path: PathBuf,
    /// `snap` or `wal`.
    pub folder: &'static str,
    /// Its name there.
    pub name: String,
    /// In hex: of what it is there.
    pub sha256: String,
    /// Whether it is compressed on its way.
    pub packed: bool,
}

/// Why nothing could be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The backup is not sound.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The data cannot be made.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The backup is not the one that was planned.
    #[error("the backup has revision {found}, but the plan says {planned}")]
    OtherRevision {
        /// In the backup.
        found: i64,
        /// In the plan.
        planned: i64,
    },
    /// The version is none that is known.
    #[error("etcd {found} is not known here")]
    Version {
        /// What was said.
        found: String,
    },
    /// The file system said no.
    #[error("cannot write {}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Built {
    /// The files of a member.
    pub fn files(&self, folder: &Path, member: &str) -> Vec<MemberFile> {
        let of = |below: String, to: &'static str, name: String| MemberFile {
            path: folder.join(&below),
            folder: to,
            name,
            sha256: self.sha256.get(&below).cloned().unwrap_or_default(),
            packed: false,
        };
        let members =
            u64::try_from(self.member_ids.len()).expect("a length in memory fits 64 bits");
        let snap =
            etcd_raftfiles::snap::SnapName { term: etcd_raftfiles::restore::TERM, index: members };
        vec![
            of(wal_path(member), "wal", RestoredCluster::wal_name().to_string()),
            of(snap_path(member), "snap", snap.to_string()),
            MemberFile {
                path: folder.join(PACKED),
                packed: true,
                ..of(DB.to_owned(), "snap", "db".to_owned())
            },
        ]
    }

    /// The first file of those that are sent that is not what was built: a power cut or a bad disk may have changed it.
    pub fn damaged_file(&self, folder: &Path) -> Option<PathBuf> {
        let files = self.sha256.iter().map(|(below, sha256)| match below == DB {
            true => (folder.join(PACKED), digest_of_packed(&folder.join(PACKED)), sha256),
            false => (folder.join(below), sha256_of(&folder.join(below)), sha256),
        });
        let mut damaged = files.filter(|(_, found, sha256)| found.as_ref().ok() != Some(*sha256));
        damaged.next().map(|(path, ..)| path)
    }

    /// Whether all files are there, as far as their sizes tell.
    pub fn is_in(&self, folder: &Path) -> bool {
        let db = fs::metadata(folder.join(DB)).is_ok_and(|found| found.len() == self.bytes);
        db && folder.join(PACKED).is_file()
            && self.sha256.keys().all(|below| folder.join(below).is_file())
    }
}

const DB: &str = "tree/member/snap/db";
/// The same, compressed to be sent.
const PACKED: &str = "db.zst";

fn wal_path(member: &str) -> String {
    format!("{member}.wal")
}

fn snap_path(member: &str) -> String {
    format!("{member}.snap")
}

/// Builds the data of all members in `folder`, which is emptied first.
pub fn build(
    plan: &Plan,
    snapshot: Snapshot<Fetched>,
    rule: DigestRule,
    folder: &Path,
    on_finding: &mut dyn FnMut(Finding),
    on_progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<Built, BuildError> {
    let io_error = |path: &Path| {
        let path = path.to_owned();
        move |source| BuildError::Io { path, source }
    };
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(io_error(folder))?;
    }
    fs::create_dir_all(folder).map_err(io_error(folder))?;
    let snapshot = snapshot.walk(on_finding)?;
    let found = snapshot.survey().revision();
    if let Some(planned) =
        plan.backup.revision.filter(|planned| plan.backup.name.is_some() && *planned != found)
    {
        return Err(BuildError::OtherRevision { found, planned });
    }
    let target = match plan.target_version() {
        Some(version) => {
            TargetVersion::of_release(&version).ok_or(BuildError::Version { found: version })?
        }
        None => TargetVersion::of_snapshot(&snapshot).map_err(|error| match error {
            RestoreError::UnknownVersion { found } => BuildError::Version { found },
            error => error.into(),
        })?,
    };
    let cluster =
        parse_cluster(&plan.initial_cluster(), &plan.token, &[]).map_err(RestoreError::from)?;
    let first = cluster.members()[0].name.clone();
    let data_dir = folder.join("tree");
    let destination = Destination::Member { name: first, data_dir, wal_dir: None };
    let restoring =
        RestorePlan::new(&snapshot, cluster.clone(), destination, target, plan.bump.amount(found))?;
    let auth = snapshot.survey().auth_enabled;
    let revision = restoring.revision();
    let staged = restoring.build(on_progress)?;
    let snapshot = snapshot.prove(rule, on_finding)?;
    staged.commit(snapshot)?;

    let db = folder.join(DB);
    let bytes = fs::metadata(&db).map_err(io_error(&db))?.len();
    let packed = folder.join(PACKED);
    let digest = pack(&db, &packed).map_err(io_error(&packed))?;
    let mut sha256 = BTreeMap::from([(DB.to_owned(), digest)]);
    let wal_target = if target == TargetVersion::V3_4 { Target::Etcd34 } else { Target::Etcd35 };
    for member in cluster.members() {
        let files = [
            (wal_path(&member.name), cluster.wal(member.id, wal_target)),
            (snap_path(&member.name), cluster.snap()),
        ];
        for (below, bytes) in files {
            let path = folder.join(&below);
            let written = fs::File::create(&path).and_then(|mut file| {
                file.write_all(&bytes)?;
                file.sync_all()
            });
            written.map_err(io_error(&path))?;
            sha256.insert(below, sha256_of_bytes(&bytes));
        }
    }
    // All of it is durable before anybody notes that it was built.
    for dir in [Some(folder), folder.parent()].into_iter().flatten() {
        fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error(dir))?;
    }
    Ok(Built {
        bytes,
        sha256,
        backup_revision: found,
        revision,
        target: target.to_string(),
        cluster_id: cluster.id().0,
        member_ids: cluster
            .members()
            .iter()
            .map(|member| (member.name.clone(), member.id.0))
            .collect(),
        auth,
    })
}

/// The id of the cluster that a plan makes.
pub(crate) fn new_cluster_id(plan: &Plan) -> Option<u64> {
    Some(parse_cluster(&plan.initial_cluster(), &plan.token, &[]).ok()?.id().0)
}

/// Reads back what was built as etcd will read it, and hashes it as etcd will hash it; on two cores, as both take several passes.
pub fn hashes(plan: &Plan, built: &Built, folder: &Path) -> Result<Hashes, BuildError> {
    let db = folder.join(DB);
    // The first write is known to the byte.
    let (probe, value) = plan.probe();
    let at = built.revision + 1;
    let record = KeyValue {
        key: probe.as_bytes(),
        create_revision: at,
        mod_revision: at,
        version: 1,
        value: value.as_bytes(),
        lease: 0,
    };
    let (raw_key, raw_value) = (Revision { main: at, sub: 0 }.encode(), record.encode());
    let record = Record::parse(&raw_key, &raw_value).expect("it was just encoded");
    let (hash, probed) = std::thread::scope(|scope| {
        let probed = scope.spawn(|| hash_restored(&db, Some(record), Some(at)));
        let hash = hash_restored(&db, None, Some(built.revision));
        (hash, probed.join().expect("hashing does not panic"))
    });
    Ok(Hashes { hash_kv: hash?.hash, hash_kv_probed: probed?.hash })
}

/// SHA-256 of bytes, in hex.
pub(crate) fn sha256_of_bytes(bytes: &[u8]) -> String {
    use sha2::Digest;
    in_hex(&sha2::Sha256::digest(bytes))
}

pub(crate) fn in_hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a file, in hex.
pub fn sha256_of(path: &Path) -> io::Result<String> {
    use sha2::Digest;
    let mut hasher = sha2::Sha256::new();
    io::copy(&mut fs::File::open(path)?, &mut Hashing(&mut hasher))?;
    Ok(in_hex(&hasher.finalize()))
}

struct Hashing<'a>(&'a mut sha2::Sha256);

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sha2::Digest::update(self.0, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_what_was_built_any_more_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("tree/member/snap")).unwrap();
        fs::write(at(DB), vec![7; 100_000]).unwrap();
        fs::write(at("m1.wal"), "a log").unwrap();
        let sha256 = [
            (DB.to_owned(), pack(&at(DB), &at(PACKED)).unwrap()),
            ("m1.wal".to_owned(), sha256_of_bytes(b"a log")),
        ];
        let built = Built { bytes: 100_000, sha256: sha256.into(), ..Built::default() };
        assert_eq!(built.damaged_file(folder.path()), None);

        fs::write(at("m1.wal"), "a lag").unwrap();
        assert_eq!(built.damaged_file(folder.path()), Some(at("m1.wal")));
        fs::write(at("m1.wal"), "a log").unwrap();
        // What a power cut leaves of a file that was not durable: its size.
        let len = fs::metadata(at(PACKED)).unwrap().len();
        fs::write(at(PACKED), vec![0; usize::try_from(len).unwrap()]).unwrap();
        assert!(built.is_in(folder.path()));
        assert_eq!(built.damaged_file(folder.path()), Some(at(PACKED)));
    }
}
