//! The raft files of a restored cluster: a log in which N members join one after the other, and a
//! raft snapshot at index N.
//!
//! ```text
//! member/wal/0000000000000000-0000000000000000.wal
//!   1          crc       0
//!   2          metadata  this member, the cluster
//!   3          snapshot  {index 0, term 0}
//!   4 ..= 3+N  entry     ConfChange: add the i-th member, ids ascending; term 1, index i
//!   4+N        state     {term 1, vote: first voter, commit N}
//!   5+N        snapshot  {index N, term 1}, with the ConfState for 3.5 and later
//! member/snap/0000000000000001-<N>.snap
//!              the same ConfState, and the members as a v2 store
//! ```
//!
//! Only the metadata record differs between members (and the CRCs after it). The database beside
//! them must have `consistent_index` N: with more, etcd would drop every write in silence.

use etcd_schema::{Member, MemberId};
use prost::Message;

use crate::ids::{self, ClusterId};
use crate::raftpb::{
    ConfChange, ConfChangeType, ConfState, Entry, EntryType, HardState, Metadata, Snapshot,
    SnapshotMetadata, WalSnapshot,
};
use crate::snap::{self, SnapName};
use crate::v2store;
use crate::wal::{Encoder, SegmentName};

/// The term of everything that a restore writes.
pub const TERM: u64 = 1;

/// A member whose id follows from its peer URLs and the cluster token. It has not started yet, so it
/// has no client URLs.
pub fn founding_member<S: AsRef<str>>(
    name: &str,
    peer_urls: &[S],
    is_learner: bool,
    token: &str,
) -> Member {
    let mut urls: Vec<String> = peer_urls.iter().map(|url| url.as_ref().to_owned()).collect();
    urls.sort_unstable();
    let id = ids::founding_member(&urls, token);
    Member { id, name: name.to_owned(), peer_urls: urls, is_learner, client_urls: Vec::new() }
}

/// Why members do not make a cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// Nobody could lead it.
    #[error("the new cluster has no member that votes")]
    NoVoter,
    /// Raft takes 0 for "nobody".
    #[error("the id of member {name:?} would be 0")]
    ZeroId {
        /// The member.
        name: String,
    },
    /// Two members would be one to raft.
    #[error("members {first:?} and {second:?} would both have the id {id}")]
    SameId {
        /// A member.
        first: String,
        /// Another.
        second: String,
        /// Their id.
        id: MemberId,
    },
}

impl ClusterError {
    /// One imperative sentence on what to do next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoVoter => "name at least one member that is not a learner",
            Self::ZeroId { .. } => "choose another cluster token",
            Self::SameId { .. } => "give each member peer URLs of its own",
        }
    }
}

/// Which etcd a log is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// 3.4: the last snapshot record has no ConfState.
    Etcd34,
    /// 3.5 and later.
    Etcd35,
}

/// A cluster to be: its members and the raft files that each begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredCluster {
    id: ClusterId,
    members: Vec<Member>,
}

impl RestoredCluster {
    /// A cluster of these members, in any order.
    ///
    /// # Errors
    /// When no member votes, two have one id, or an id is 0.
    pub fn new(mut members: Vec<Member>) -> Result<Self, ClusterError> {
        members.sort_by_key(|member| member.id);
        if members.iter().all(|member| member.is_learner) {
            return Err(ClusterError::NoVoter);
        }
        if let Some(member) = members.iter().find(|member| member.id.0 == 0) {
            return Err(ClusterError::ZeroId { name: member.name.clone() });
        }
        if let Some(pair) = members.windows(2).find(|pair| pair[0].id == pair[1].id) {
            let (first, second) = (pair[0].name.clone(), pair[1].name.clone());
            return Err(ClusterError::SameId { first, second, id: pair[0].id });
        }
        let ids: Vec<MemberId> = members.iter().map(|member| member.id).collect();
        Ok(Self { id: ClusterId::founding(&ids), members })
    }

    /// The cluster's id.
    pub fn id(&self) -> ClusterId {
        self.id
    }

    /// The members, by ascending id.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The index of the raft log that the database must be at: the number of members.
    pub fn raft_index(&self) -> u64 {
        u64::try_from(self.members.len()).expect("a length in memory fits 64 bits")
    }

    /// Who takes part in raft.
    pub fn conf_state(&self) -> ConfState {
        let ids = |learner| {
            let those = self.members.iter().filter(move |member| member.is_learner == learner);
            those.map(|member| member.id.0).collect()
        };
        ConfState { voters: ids(false), learners: ids(true), ..ConfState::default() }
    }

    /// The name of the one WAL segment.
    pub fn wal_name() -> SegmentName {
        SegmentName { seq: 0, first_index: 0 }
    }

    /// The one WAL segment of the member `local`: a few hundred bytes, without preallocation.
    pub fn wal(&self, local: MemberId, target: Target) -> Vec<u8> {
        let mut wal = Encoder::new(0);
        wal.metadata(Metadata { node_id: local.0, cluster_id: self.id.0 });
        wal.snapshot(&WalSnapshot::default());
        for (member, index) in self.members.iter().zip(1..) {
            wal.entry(&join(member, index));
        }
        let conf_state = self.conf_state();
        let vote = conf_state.voters.first().copied().expect("a cluster has a voter");
        let index = self.raft_index();
        wal.state(HardState { term: TERM, vote, commit: index });
        let conf_state = (target == Target::Etcd35).then_some(conf_state);
        wal.snapshot(&WalSnapshot { index, term: TERM, conf_state });
        wal.finish()
    }

    /// The name of the raft snapshot.
    pub fn snap_name(&self) -> SnapName {
        SnapName { term: TERM, index: self.raft_index() }
    }

    /// The raft snapshot, the same for every member.
    pub fn snap(&self) -> Vec<u8> {
        snap::encode(&Snapshot {
            data: Some(v2store::with_members(&self.members).into_bytes()),
            metadata: SnapshotMetadata {
                conf_state: self.conf_state(),
                index: self.raft_index(),
                term: TERM,
            },
        })
    }
}

/// The entry with which a member joins.
fn join(member: &Member, index: u64) -> Entry {
    let change_type =
        if member.is_learner { ConfChangeType::AddLearnerNode } else { ConfChangeType::AddNode };
    let change = ConfChange {
        id: 0,
        change_type: change_type.into(),
        node_id: member.id.0,
        context: Some(member.encode()),
    };
    Entry {
        entry_type: EntryType::ConfChange.into(),
        term: TERM,
        index,
        data: Some(change.encode_to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str, learner: bool) -> Member {
        let peer_urls = vec!["http://127.0.0.1:1".to_owned()];
        let (id, name) = (MemberId(id), name.to_owned());
        Member { id, name, peer_urls, is_learner: learner, client_urls: Vec::new() }
    }

    #[test]
    fn a_cluster_needs_a_voter_and_ids_that_differ() {
        let no_voter = RestoredCluster::new(vec![member(1, "a", true)]);
        assert_eq!(no_voter, Err(ClusterError::NoVoter));
        assert_eq!(RestoredCluster::new(vec![]), Err(ClusterError::NoVoter));
        let zero = RestoredCluster::new(vec![member(0, "a", false)]);
        assert_eq!(zero, Err(ClusterError::ZeroId { name: "a".into() }));
        let same = RestoredCluster::new(vec![member(7, "a", false), member(7, "b", false)]);
        let (first, second) = ("a".into(), "b".into());
        assert_eq!(same, Err(ClusterError::SameId { first, second, id: MemberId(7) }));
    }

    #[test]
    fn a_learner_joins_as_a_learner_and_gets_no_vote() {
        let cluster =
            RestoredCluster::new(vec![member(1, "l", true), member(2, "v", false)]).unwrap();
        let conf_state = cluster.conf_state();
        assert_eq!((conf_state.voters, conf_state.learners), (vec![2], vec![1]));
        assert_eq!(
            cluster.members()[0].encode(),
            br#"{"id":1,"peerURLs":["http://127.0.0.1:1"],"isLearner":true,"name":"l"}"#
        );

        let bytes = cluster.wal(MemberId(2), Target::Etcd35);
        let segment = [crate::wal::Segment { name: RestoredCluster::wal_name(), bytes: &bytes }];
        let wal = crate::wal::Wal::read(&segment, 0).unwrap();
        assert_eq!(wal.hard_state.unwrap().vote, 2);
        let change = ConfChange::decode(wal.entries[0].data.unwrap()).unwrap();
        assert_eq!(change.change_type(), ConfChangeType::AddLearnerNode);
    }

    #[test]
    fn a_member_without_a_name_has_no_name_in_its_json() {
        assert_eq!(member(5, "", false).encode(), br#"{"id":5,"peerURLs":["http://127.0.0.1:1"]}"#);
    }
}
