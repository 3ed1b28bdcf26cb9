//! etcd's write-ahead log (WAL) and raft snapshots, read and written.
//!
//! A member's data directory holds, beside the bbolt file:
//!
//! ```text
//! member/wal/SSSSSSSSSSSSSSSS-IIIIIIIIIIIIIIII.wal    segments of the raft log     -> wal
//! member/snap/TTTTTTTTTTTTTTTT-IIIIIIIIIIIIIIII.snap  raft snapshots               -> snap
//! ```
//!
//! This crate turns their bytes into values and back. It opens no file and knows nothing of bbolt.
//!
//! * [`wal`]: [`wal::Wal::read`] for what a log says, [`wal::Records`] for its records one by one,
//!   [`wal::Encoder`] to write a segment.
//! * [`snap`]: the `.snap` envelope and its name.
//! * [`restore`]: both files as a restore writes them for each member of a new cluster.
//! * [`ids`]: how member and cluster ids come from peer URLs and the cluster token.
//! * [`raftpb`]: the protobuf messages inside.
//!
//! **Invariant:** any input is safe. Nothing here panics on bytes from outside, recurses over them,
//! or allocates more than a small multiple of their length.

pub mod ids;
pub mod raftpb;
pub mod restore;
pub mod snap;
mod v2store;
pub mod wal;

pub use ids::ClusterId;
