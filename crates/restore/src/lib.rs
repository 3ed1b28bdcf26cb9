//! Data directories for the members of a new cluster: plan, then execute.
//!
//! ```text
//!   Snapshot<Walked> + cluster + destination  ─▶  RestorePlan  ──build──▶  Staged
//!   Snapshot<Verified>                        ──────────────────commit──▶  RestoreReport
//! ```
//!
//! Records are written straight into a fresh bbolt file, in one pass, at their own revisions; no
//! etcd runs. The `db` is the same for every member and is built once. The raft files beside it say
//! that the new members have joined a log of that many entries.
//!
//! **Invariants:** nothing is put in place before the snapshot is proved; a target that holds anything is never touched; a directory appears complete and
//! durable, by a rename, or not at all; what a killed run left never blocks the next.

mod ahead;
mod cluster;
mod database;
mod error;
mod execute;
mod hash;
mod plan;
mod staging;

pub use ahead::{Room, raised};
pub use cluster::{ClusterError, check_advertised, find_member, parse_cluster};
pub use error::RestoreError;
pub use etcd_raftfiles::restore::RestoredCluster;
pub use execute::{Progress, RestoreReport, Staged};
pub use hash::hash_restored;
pub use plan::{Destination, RestorePlan, TargetVersion};
