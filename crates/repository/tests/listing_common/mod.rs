//! A repository in a folder, with backups that hold a few bytes.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use jiff::{SignedDuration, Timestamp};
use repository::{
    BackupId, ClusterName, Manifest, Repository,
    manifest::{Content, ObjectKind, manifest_name, object_name},
    retention::Policy,
    store::Store,
};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

pub(crate) struct Place {
    _root: tempfile::TempDir,
    pub(crate) path: PathBuf,
    pub(crate) store: Store,
    pub(crate) repository: Repository,
    pub(crate) cluster: ClusterName,
}

/// A new repository.
pub(crate) async fn place() -> Place {
    let root = tempfile::tempdir().unwrap();
    let store = Store::local(root.path());
    let repository = Repository::open_or_create(store.clone(), now()).await.unwrap();
    let path = root.path().to_owned();
    Place { _root: root, path, store, repository, cluster: "prod".parse().unwrap() }
}

pub(crate) fn now() -> Timestamp {
    at("2026-11-22T12:00:00Z")
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn days_ago(days: i64) -> Timestamp {
    now() - SignedDuration::from_hours(24 * days)
}

pub(crate) fn policy(json: serde_json::Value) -> Policy {
    serde_json::from_value(json).unwrap()
}

pub(crate) fn content(bytes: &[u8]) -> Content {
    let sha256 = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    Content { bytes: bytes.len().try_into().unwrap(), sha256 }
}

/// A verified backup whose object holds `stored`.
pub(crate) fn manifest(cluster: &ClusterName, id: BackupId, stored: &[u8]) -> Manifest {
    let stored = content(stored);
    let started = id.started();
    serde_json::from_value(serde_json::json!({
        "format": 1, "generation": 1, "id": id, "cluster": cluster, "fence": 1,
        "source": { "kind": "file", "path": "a.db" },
        "started": started, "finished": started, "tool": "a test",
        "etcd": {
            "revision": id.at_least() + 3, "compact_revision": 0, "hash": 1, "total_key": 1, "live_keys": 1,
            "hash_kv": { "hash": 1, "compact_revision": 0 },
        },
        "db": { "bytes": 1, "sha256": "00" },
        "object": { "name": "db.zst", "bytes": stored.bytes, "sha256": stored.sha256 },
        "compression": { "format": "zstd", "level": 3, "frame_bytes": 4_194_304 },
        "verification": { "at": started, "digest": true, "tree": true, "hash_kv": true },
    }))
    .unwrap()
}

impl Place {
    pub(crate) fn folder(&self, id: BackupId) -> String {
        format!("{}/snapshots/{id}/", self.cluster)
    }

    pub(crate) fn put(&self, id: BackupId, name: &str, bytes: &[u8]) {
        // Not by the store: it syncs each file, and thousands take their time.
        let path = self.path.join(self.folder(id)).join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert!(!path.exists(), "{} is there already", path.display());
        std::fs::write(path, bytes).unwrap();
    }

    /// Stores a backup that `change` has changed something of.
    pub(crate) fn add(&self, id: BackupId, change: impl FnOnce(&mut Manifest)) {
        let stored = format!("what is stored of {id}").into_bytes();
        let mut manifest = manifest(&self.cluster, id, &stored);
        change(&mut manifest);
        let name = object_name(ObjectKind::Db, manifest.generation, false);
        manifest.object.name = name.clone();
        self.put(id, &name, &stored);
        let json = serde_json::to_vec(&manifest).unwrap();
        self.put(id, &manifest_name(manifest.generation), &json);
    }

    /// A verified backup begun at that time.
    pub(crate) fn backup(&self, started: Timestamp) -> BackupId {
        let id = BackupId::new(u64::try_from(started.as_second()).unwrap(), started);
        self.add(id, |_| {});
        id
    }

    pub(crate) async fn paths(&self) -> Vec<String> {
        self.store.list("").await.unwrap().into_iter().map(|entry| entry.path).collect()
    }
}
