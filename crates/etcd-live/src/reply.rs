//! What members answer, as plain values.
//!
//! Zero means "not said" in etcd's messages: a server that does not know a field leaves it out.

use std::fmt;

use etcd_client::ResponseHeader;

/// Who answered, and where its history stood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The cluster.
    pub cluster_id: u64,
    /// The member that answered.
    pub member_id: u64,
    /// Its newest revision; 0 in answers that have nothing to do with keys.
    pub revision: i64,
    /// Its raft term.
    pub raft_term: u64,
}

impl From<Option<&ResponseHeader>> for Header {
    fn from(header: Option<&ResponseHeader>) -> Self {
        header.map_or_else(Self::default, |header| Self {
            cluster_id: header.cluster_id(),
            member_id: header.member_id(),
            revision: header.revision(),
            raft_term: header.raft_term(),
        })
    }
}

/// The state of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Who answered.
    pub header: Header,
    /// The version of its binary, such as `3.5.16`.
    pub version: String,
    /// The size of its database file.
    pub db_size: i64,
    /// What of that file is in use.
    pub db_size_in_use: i64,
    /// The member that it takes for the leader; 0 if it knows none.
    pub leader: u64,
    /// The newest raft entry that it knows to be agreed on.
    pub raft_index: u64,
    /// Its raft term.
    pub raft_term: u64,
    /// The newest raft entry whose effect is in its database.
    pub raft_applied_index: u64,
    /// Alarms of the whole cluster, and `etcdserver: no leader`.
    pub errors: Vec<String>,
    /// A member without a vote, which is still catching up.
    pub is_learner: bool,
    /// The format of its database, such as `3.6.0`; said since etcd 3.6.
    pub storage_version: String,
    /// The size at which it refuses writes; said since etcd 3.6.
    pub db_size_quota: i64,
}

impl Status {
    /// Whether the member takes itself for the leader.
    pub fn is_leader(&self) -> bool {
        self.leader == self.header.member_id
    }
}

impl From<&etcd_client::StatusResponse> for Status {
    fn from(reply: &etcd_client::StatusResponse) -> Self {
        Self {
            header: reply.header().into(),
            version: reply.version().to_owned(),
            db_size: reply.db_size(),
            db_size_in_use: reply.raft_used_db_size(),
            leader: reply.leader(),
            raft_index: reply.raft_index(),
            raft_term: reply.raft_term(),
            raft_applied_index: reply.raft_applied_index(),
            errors: reply.errors().to_vec(),
            is_learner: reply.is_learner(),
            storage_version: reply.storage_version().to_owned(),
            db_size_quota: reply.db_size_quota(),
        }
    }
}

/// The members of a cluster, as one of them knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Who answered.
    pub header: Header,
    /// In ascending order of their ids.
    pub members: Vec<Member>,
}

/// One member of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its name; empty until it has started for the first time.
    pub name: String,
    /// Where it listens for the other members.
    pub peer_urls: Vec<String>,
    /// Where it listens for clients; empty until it has started for the first time.
    pub client_urls: Vec<String>,
    /// It has no vote yet.
    pub is_learner: bool,
}

impl From<&etcd_client::MemberListResponse> for Members {
    fn from(reply: &etcd_client::MemberListResponse) -> Self {
        let members = reply.members().iter().map(|member| Member {
            id: member.id(),
            name: member.name().to_owned(),
            peer_urls: member.peer_urls().to_vec(),
            client_urls: member.client_urls().to_vec(),
            is_learner: member.is_learner(),
        });
        Self { header: reply.header().into(), members: members.collect() }
    }
}

/// The hash of a member's key-value history up to a revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashKv {
    /// Who answered; its revision is the member's newest, not the one hashed.
    pub header: Header,
    /// The hash. Two members agree only if their compact revisions are equal too.
    pub hash: u32,
    /// The member's compact revision; -1 before the first compaction, or 0 where it is not said.
    pub compact_revision: i64,
    /// The revision up to which was hashed; said since etcd 3.6.
    pub hash_revision: i64,
}

impl From<&etcd_client::HashKvResponse> for HashKv {
    fn from(reply: &etcd_client::HashKvResponse) -> Self {
        Self {
            header: reply.header().into(),
            hash: reply.hash(),
            compact_revision: reply.compact_version(),
            hash_revision: reply.hash_revision(),
        }
    }
}

/// An alarm that a member raised; it stays until somebody disarms it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// The member.
    pub member_id: u64,
    /// What is wrong.
    pub kind: AlarmKind,
}

/// What is wrong with a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmKind {
    /// An alarm that is none.
    None,
    /// Its database reached the quota; the cluster refuses writes.
    NoSpace,
    /// Its data differs from the other members'.
    Corrupt,
}

impl fmt::Display for AlarmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "NONE",
            Self::NoSpace => "NOSPACE",
            Self::Corrupt => "CORRUPT",
        })
    }
}

impl From<&etcd_client::AlarmMember> for Alarm {
    fn from(alarm: &etcd_client::AlarmMember) -> Self {
        let kind = match alarm.alarm() {
            etcd_client::AlarmType::None => AlarmKind::None,
            etcd_client::AlarmType::Nospace => AlarmKind::NoSpace,
            etcd_client::AlarmType::Corrupt => AlarmKind::Corrupt,
        };
        Self { member_id: alarm.member_id(), kind }
    }
}
