//! What etcd keeps in its bbolt file: buckets, revision keys, values, and the two hashes over them.
//!
//! ```text
//!   bucket            key                      value                       module
//!   key               revision, 17 or 18 B     mvccpb.KeyValue             revision, key_value
//!   meta              names                    consistent_index, ...       meta
//!   lease             lease id, 8 B BE         leasepb.Lease               lease
//!   alarm             AlarmMember              empty                       alarm
//!   auth*             names                    flags, User, Role           auth
//!   members(_removed) member id, hex           JSON                        member
//!   cluster           names                    version, downgrade JSON
//! ```
//!
//! Everything here is a pure function of bytes: it opens no file and speaks to no server. Input may be
//! anything; what is not etcd's is an error that says where. Memory does not grow with the database.
//!
//! Formats follow etcd 3.4 to 3.6 (`mvcc/kvstore.go`, `mvcc/hash.go`, `storage/schema`).

mod alarm;
mod auth;
pub mod compaction;
mod crc;
mod error;
pub mod go_json;
mod hash;
mod humanize;
mod key_value;
mod lease;
mod live;
mod member;
mod meta;
mod record;
mod revision;
mod slices;
mod wire;

pub use alarm::{AlarmMember, AlarmType};
pub use auth::{AUTH_ENABLED, AUTH_REVISION, Permission, PermissionType, Role, User, UserOptions};
pub use crc::Crc32c;
pub use error::{ReadError, SchemaError};
pub use hash::{HashKv, HashKvError, StatusHash, hash_kv};
pub use humanize::{humanize_bytes, shortage};
pub use key_value::KeyValue;
pub use lease::{Lease, lease_key};
pub use live::count_live_keys;
pub use member::{Member, MemberId};
pub use meta::{ConfState, Meta};
pub use record::{Record, records};
pub use revision::{Revision, RevisionKey};

/// Names of etcd's buckets.
pub mod bucket {
    /// Every revision of every user key.
    pub const KEY: &[u8] = b"key";
    /// What raft and the compactor must remember.
    pub const META: &[u8] = b"meta";
    /// Granted leases.
    pub const LEASE: &[u8] = b"lease";
    /// Raised alarms.
    pub const ALARM: &[u8] = b"alarm";
    /// Whether authentication is on, and its revision.
    pub const AUTH: &[u8] = b"auth";
    /// Roles and their permissions.
    pub const AUTH_ROLES: &[u8] = b"authRoles";
    /// Users, bcrypt hashes and their roles.
    pub const AUTH_USERS: &[u8] = b"authUsers";
    /// Cluster version and downgrade state.
    pub const CLUSTER: &[u8] = b"cluster";
    /// Members of the cluster.
    pub const MEMBERS: &[u8] = b"members";
    /// Ids of members that were removed and may not come back.
    pub const MEMBERS_REMOVED: &[u8] = b"members_removed";
}
