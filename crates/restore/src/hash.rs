//! HashKV of what was built: read back as etcd will read it.

use etcd_schema::{HashKv, HashKvError, Meta, ReadError, Record, bucket, hash_kv, records};
use snapshot::SnapshotError;
use std::{fs::File, path::Path};

/// HashKV of a restored database (`member/snap/db`) at `revision`, or at its newest; with one `more` record after its own, of a
/// write that is to come. It takes several passes.
pub fn hash_restored(
    db: &Path,
    more: Option<Record<'_>>,
    revision: Option<i64>,
) -> Result<HashKv, SnapshotError> {
    let failed = |source| SnapshotError::HashKv { path: db.to_owned(), source };
    let unread = |error| failed(HashKvError::Read(ReadError::Bolt(error)));
    let mapped = File::open(db).and_then(|file| bolt::Mapped::open(&file));
    let mapped = mapped.map_err(|source| SnapshotError::Io {
        action: "open",
        path: db.to_owned(),
        source,
    })?;
    let db = bolt::Db::open(&mapped).map_err(unread)?;
    let meta = Meta::of(&db).map_err(|error| failed(HashKvError::Read(error)))?;
    let key = db.bucket(bucket::KEY).map_err(unread)?.expect("a restored database has bucket key");
    let all = || records(&key).chain(more.map(Ok));
    hash_kv(all, meta.compact_revision(), revision).map_err(failed)
}
