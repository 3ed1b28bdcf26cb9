//! The protobuf messages inside WAL records and raft snapshots.
//!
//! They are proto2 with etcd's own habit: a scalar is written even when it is zero, so most fields
//! here are `required`. Bytes and messages that Go holds as nil are left out, so those are options.

/// What an entry's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum EntryType {
    /// A request for the state machine, or nothing (a new leader's first entry).
    Normal = 0,
    /// A [`ConfChange`].
    ConfChange = 1,
    /// A [`ConfChangeV2`].
    ConfChangeV2 = 2,
}

/// One entry of the raft log. Reading gives [`crate::wal::EntryRef`], which borrows its data.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Entry {
    /// What `data` is.
    #[prost(enumeration = "EntryType", required, tag = "1")]
    pub entry_type: i32,
    /// The term of the leader that made the entry.
    #[prost(uint64, required, tag = "2")]
    pub term: u64,
    /// Its place in the log, from 1.
    #[prost(uint64, required, tag = "3")]
    pub index: u64,
    /// The request; absent in a new leader's first entry.
    #[prost(bytes = "vec", optional, tag = "4")]
    pub data: Option<Vec<u8>>,
}

/// What a raft node must not forget across a restart.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct HardState {
    /// The newest term the node has seen.
    #[prost(uint64, required, tag = "1")]
    pub term: u64,
    /// The node it voted for in that term, or 0.
    #[prost(uint64, required, tag = "2")]
    pub vote: u64,
    /// The newest index it knows to be committed.
    #[prost(uint64, required, tag = "3")]
    pub commit: u64,
}

/// Who takes part in raft.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfState {
    /// Members that vote.
    #[prost(uint64, repeated, packed = "false", tag = "1")]
    pub voters: Vec<u64>,
    /// Members that only listen.
    #[prost(uint64, repeated, packed = "false", tag = "2")]
    pub learners: Vec<u64>,
    /// Voters of the configuration being left, in a joint change.
    #[prost(uint64, repeated, packed = "false", tag = "3")]
    pub voters_outgoing: Vec<u64>,
    /// Voters that become learners when the joint change ends.
    #[prost(uint64, repeated, packed = "false", tag = "4")]
    pub learners_next: Vec<u64>,
    /// Whether raft leaves the joint configuration by itself.
    #[prost(bool, required, tag = "5")]
    pub auto_leave: bool,
}

/// What a membership change does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ConfChangeType {
    /// Adds a voter, or makes a learner one.
    AddNode = 0,
    /// Removes a member.
    RemoveNode = 1,
    /// Changes a member's peer URLs.
    UpdateNode = 2,
    /// Adds a learner.
    AddLearnerNode = 3,
}

/// One membership change.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfChange {
    /// The request's id; 0 in entries that found a cluster.
    #[prost(uint64, required, tag = "1")]
    pub id: u64,
    /// What it does.
    #[prost(enumeration = "ConfChangeType", required, tag = "2")]
    pub change_type: i32,
    /// To which member.
    #[prost(uint64, required, tag = "3")]
    pub node_id: u64,
    /// The member as JSON; absent in a removal.
    #[prost(bytes = "vec", optional, tag = "4")]
    pub context: Option<Vec<u8>>,
}

/// One step of a [`ConfChangeV2`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ConfChangeSingle {
    /// What it does.
    #[prost(enumeration = "ConfChangeType", required, tag = "1")]
    pub change_type: i32,
    /// To which member.
    #[prost(uint64, required, tag = "2")]
    pub node_id: u64,
}

/// Several membership changes at once. etcd 3.4 to 3.6 does not propose them.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfChangeV2 {
    /// How to go to the new configuration: 0 by itself, 1 joint and left by itself, 2 joint.
    #[prost(int32, required, tag = "1")]
    pub transition: i32,
    /// The steps.
    #[prost(message, repeated, tag = "2")]
    pub changes: Vec<ConfChangeSingle>,
    /// Free to the proposer.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub context: Option<Vec<u8>>,
}

/// Where in the log a raft snapshot stands.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SnapshotMetadata {
    /// Who took part at that index.
    #[prost(message, required, tag = "1")]
    pub conf_state: ConfState,
    /// The last index the snapshot covers.
    #[prost(uint64, required, tag = "2")]
    pub index: u64,
    /// The term of that index.
    #[prost(uint64, required, tag = "3")]
    pub term: u64,
}

/// A raft snapshot: the payload of a `.snap` file.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Snapshot {
    /// The v2 store as JSON: members and cluster version. It holds no key of the v3 API.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub data: Option<Vec<u8>>,
    /// Where in the log it stands.
    #[prost(message, required, tag = "2")]
    pub metadata: SnapshotMetadata,
}

/// The metadata record at the head of every WAL segment: whose log it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Metadata {
    /// The member.
    #[prost(uint64, required, tag = "1")]
    pub node_id: u64,
    /// Its cluster.
    #[prost(uint64, required, tag = "2")]
    pub cluster_id: u64,
}

/// A snapshot record of the WAL: the `.snap` of this name is whole.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WalSnapshot {
    /// The last index the snapshot covers.
    #[prost(uint64, required, tag = "1")]
    pub index: u64,
    /// The term of that index.
    #[prost(uint64, required, tag = "2")]
    pub term: u64,
    /// Who took part; from 3.5 on, and not in the `{0, 0}` record of a new log.
    #[prost(message, optional, tag = "3")]
    pub conf_state: Option<ConfState>,
}
