//! Backups in an object store: where they lie, what is known of them, how long they are kept.
//!
//! ```text
//!   <root>/lifeboat.json                                   what this is, and its format
//!   <root>/<cluster>/cluster.json                          which cluster the first backup was of
//!   <root>/<cluster>/snapshots/<revision>-<time>/db.zst[.age]     an etcd snapshot, compressed
//!                                               /include.tar.zst[.age]   files beside it
//!                                               /manifest.json     written last: it is the commit
//!                                               /damaged.json      a later check found it damaged
//!   <root>/<cluster>/keep/<name>.json                      pins
//!   <root>/<cluster>/checks/<time>-<share>.json            what `verify` has read back, and when
//!   <root>/<cluster>/writer/<number>.json                  who may write now
//! ```
//!
//! * Objects are created, never overwritten; see [`store`].
//! * A directory without a manifest is not a backup.
//! * Nothing depends on the time at which a store says that an object was changed.
//!
//! **Invariant:** this crate knows no etcd. What it says of revisions and hashes is what it was told.

pub mod checks;
pub mod codec;
pub mod copy;
pub mod keep;
pub mod lease;
pub mod listing;
pub mod manifest;
mod name;
pub mod prune;
pub mod rekey;
pub mod repository;
pub mod retention;
pub mod store;

pub use manifest::Manifest;
pub use name::{BackupId, ClusterName, NameError};
pub use repository::{Repository, RepositoryError};
