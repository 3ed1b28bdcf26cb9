//! The objects of `lifeboat.dev/v1alpha1`: shapes, and nothing that acts.
//!
//! ```text
//!   BackupStore ◀── EtcdBackup ◀── EtcdRestore ──▶ StatefulSet, PersistentVolumeClaim
//!        ▲              ▲ made from the template of
//!        └───── EtcdBackupSchedule
//! ```
//!
//! A cluster is no object of its own: every object that reaches one has a [`Cluster`].
//!
//! The doc comments are what `kubectl explain` prints and what the reference in `docs/` is made of. Defaults stand in the
//! schema, so that the API server writes them into the object and everybody sees what holds.

#![allow(clippy::duplicated_attributes, reason = "each printer column has a type and a path")]

mod backup;
mod cluster;
pub mod coreos;
mod job;
mod phase;
mod restore;
mod retention;
mod schedule;
mod store;

pub use backup::{
    DeletionPolicy, EtcdBackup, EtcdBackupSpec, EtcdBackupStatus, HashMismatch, RunAs, Verification,
};
pub use cluster::{Cluster, MembersRef, Scheme, Tls};
pub use job::{JobOptions, JobUser};
pub use phase::Phase;
pub use restore::{
    BumpRevision, EtcdRestore, EtcdRestoreSpec, EtcdRestoreStatus, FilesTarget, Member, PvcTarget,
    RestoreFailure, RestorePhase, RestoreSource, RestoreTarget, StatefulSetTarget, StorePoint,
    VolumePhase, VolumeStatus,
};
pub use retention::Retention;
pub use schedule::{
    BackupTemplate, EtcdBackupSchedule, EtcdBackupScheduleSpec, EtcdBackupScheduleStatus,
};
pub use store::{
    BackupStore, BackupStoreSpec, BackupStoreStatus, Encryption, SecretKey, StoreCredentials,
};

/// The API group.
pub const GROUP: &str = "lifeboat.dev";
/// Its version.
pub const VERSION: &str = "v1alpha1";
