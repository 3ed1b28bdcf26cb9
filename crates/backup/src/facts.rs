//! What the manifest says of a snapshot, read from the snapshot itself.

use crate::{error::BackupError, hashkv};
use jiff::Timestamp;
use repository::manifest::{Content, Etcd, Member, Source, Verification};
use snapshot::{DIGEST_BYTES, Snapshot, SnapshotError, Survey, Verified};

/// What is known of a proved snapshot.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where it came from.
    pub source: Source,
    /// What it holds.
    pub etcd: Etcd,
    /// The file, its digest included.
    pub content: Content,
    /// What was proved.
    pub verification: Verification,
}

/// What a running cluster tells of itself, beyond its snapshot.
pub(crate) struct Told {
    pub(crate) version: String,
    pub(crate) cluster_id: u64,
    pub(crate) members: Vec<etcd_live::Member>,
}

/// HashKV of the snapshot, and its facts so far. Reads all records several times.
pub(crate) fn gather(
    snapshot: &Snapshot<Verified>,
    source: Source,
    content: Content,
    at: Timestamp,
) -> Result<(Facts, etcd_schema::HashKv), BackupError> {
    let hash_kv = snapshot.hash_kv(None)?;
    let etcd = etcd_of(snapshot, &hash_kv)?;
    let verification = Verification { at, digest: true, tree: true, hash_kv: false };
    Ok((Facts { source, etcd, content, verification }, hash_kv))
}

/// What the snapshot alone tells.
pub(crate) fn etcd_of(
    snapshot: &Snapshot<Verified>,
    hash_kv: &etcd_schema::HashKv,
) -> Result<Etcd, SnapshotError> {
    let survey = snapshot.survey();
    Ok(Etcd {
        version: version_of(survey),
        cluster_id: None,
        revision: survey.revision(),
        compact_revision: survey.meta.compact_revision().unwrap_or(0),
        hash: survey.status_hash,
        total_key: survey.pairs(),
        live_keys: snapshot.live_keys()?,
        hash_kv: hashkv::of_snapshot(hash_kv),
        members: survey.members.iter().map(member_of_snapshot).collect(),
    })
}

/// etcd 3.6 writes the version of its storage, all write that of the cluster: the lowest of its members.
fn version_of(survey: &Survey) -> Option<String> {
    survey.meta.storage_version.clone().or_else(|| survey.cluster_version.clone())
}

impl Told {
    /// What the cluster tells is newer than what its database does.
    pub(crate) fn add_to(self, etcd: &mut Etcd) {
        etcd.version = Some(self.version);
        etcd.cluster_id = Some(format!("{:x}", self.cluster_id));
        if !self.members.is_empty() {
            etcd.members = self.members.iter().map(member_of_cluster).collect();
        }
    }
}

fn member_of_snapshot(member: &etcd_schema::Member) -> Member {
    Member {
        id: member.id.to_string(),
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        client_urls: member.client_urls.clone(),
        learner: member.is_learner,
    }
}

fn member_of_cluster(member: &etcd_live::Member) -> Member {
    Member {
        id: format!("{:x}", member.id),
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        client_urls: member.client_urls.clone(),
        learner: member.is_learner,
    }
}

/// The file as it is stored: the database and its digest.
pub(crate) fn content_of(
    snapshot: &Snapshot<Verified>,
    file_digest: snapshot::Sha256Digest,
) -> Content {
    let bytes = snapshot.database_bytes() + DIGEST_BYTES as u64;
    Content { bytes, sha256: file_digest.to_string() }
}
