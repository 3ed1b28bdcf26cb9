//! Answers of etcd's API as Go's JSON encoder writes them: field names, their order, and what is left
//! out when it is zero.

use etcd_live::{HashKv, Header, Member, Members, Status};
use serde::Serialize;

use crate::output::is_default;

#[derive(Serialize)]
pub(super) struct HeaderJson {
    #[serde(skip_serializing_if = "is_default")]
    cluster_id: u64,
    #[serde(skip_serializing_if = "is_default")]
    member_id: u64,
    #[serde(skip_serializing_if = "is_default")]
    revision: i64,
    #[serde(skip_serializing_if = "is_default")]
    raft_term: u64,
}

impl From<&Header> for HeaderJson {
    fn from(header: &Header) -> Self {
        Self {
            cluster_id: header.cluster_id,
            member_id: header.member_id,
            revision: header.revision,
            raft_term: header.raft_term,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusJson<'a> {
    header: HeaderJson,
    #[serde(skip_serializing_if = "is_default")]
    version: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    db_size: i64,
    #[serde(skip_serializing_if = "is_default")]
    leader: u64,
    #[serde(skip_serializing_if = "is_default")]
    raft_index: u64,
    #[serde(skip_serializing_if = "is_default")]
    raft_term: u64,
    #[serde(skip_serializing_if = "is_default")]
    raft_applied_index: u64,
    #[serde(skip_serializing_if = "is_default")]
    errors: &'a [String],
    #[serde(skip_serializing_if = "is_default")]
    db_size_in_use: i64,
    #[serde(skip_serializing_if = "is_default")]
    is_learner: bool,
    #[serde(skip_serializing_if = "is_default")]
    storage_version: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    db_size_quota: i64,
}

impl<'a> From<&'a Status> for StatusJson<'a> {
    fn from(status: &'a Status) -> Self {
        Self {
            header: (&status.header).into(),
            version: &status.version,
            db_size: status.db_size,
            leader: status.leader,
            raft_index: status.raft_index,
            raft_term: status.raft_term,
            raft_applied_index: status.raft_applied_index,
            errors: &status.errors,
            db_size_in_use: status.db_size_in_use,
            is_learner: status.is_learner,
            storage_version: &status.storage_version,
            db_size_quota: status.db_size_quota,
        }
    }
}

#[derive(Serialize)]
pub(super) struct HashKvJson {
    header: HeaderJson,
    #[serde(skip_serializing_if = "is_default")]
    hash: u32,
    #[serde(skip_serializing_if = "is_default")]
    compact_revision: i64,
    #[serde(skip_serializing_if = "is_default")]
    hash_revision: i64,
}

impl From<&HashKv> for HashKvJson {
    fn from(hash: &HashKv) -> Self {
        Self {
            header: (&hash.header).into(),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.hash_revision,
        }
    }
}

#[derive(Serialize)]
pub(super) struct MembersJson<'a> {
    header: HeaderJson,
    #[serde(skip_serializing_if = "is_default")]
    members: Vec<MemberJson<'a>>,
}

#[derive(Default, PartialEq, Serialize)]
struct MemberJson<'a> {
    #[serde(rename = "ID", skip_serializing_if = "is_default")]
    id: u64,
    #[serde(skip_serializing_if = "is_default")]
    name: &'a str,
    #[serde(rename = "peerURLs", skip_serializing_if = "is_default")]
    peer_urls: &'a [String],
    #[serde(rename = "clientURLs", skip_serializing_if = "is_default")]
    client_urls: &'a [String],
    #[serde(rename = "isLearner", skip_serializing_if = "is_default")]
    is_learner: bool,
}

impl<'a> From<&'a Members> for MembersJson<'a> {
    fn from(members: &'a Members) -> Self {
        Self {
            header: (&members.header).into(),
            members: members.members.iter().map(MemberJson::from).collect(),
        }
    }
}

impl<'a> From<&'a Member> for MemberJson<'a> {
    fn from(member: &'a Member) -> Self {
        Self {
            id: member.id,
            name: &member.name,
            peer_urls: &member.peer_urls,
            client_urls: &member.client_urls,
            is_learner: member.is_learner,
        }
    }
}

/// `member list -w json --hex`, which etcdctl 3.5 puts together by hand: ids in hex, one more
/// spelling of `clientURLs`, `null` for a list that is empty, and no word on learners.
#[derive(Serialize)]
pub(super) struct HexMembersJson<'a> {
    header: HexHeaderJson,
    #[serde(skip_serializing_if = "is_default")]
    members: Vec<HexMemberJson<'a>>,
}

#[derive(Serialize)]
struct HexHeaderJson {
    cluster_id: String,
    member_id: String,
    raft_term: u64,
}

#[derive(Default, PartialEq, Serialize)]
struct HexMemberJson<'a> {
    #[serde(rename = "ID")]
    id: String,
    name: &'a str,
    #[serde(rename = "peerURLs")]
    peer_urls: Option<&'a [String]>,
    #[serde(rename = "clientURLS")]
    client_urls: Option<&'a [String]>,
}

impl<'a> From<&'a Members> for HexMembersJson<'a> {
    fn from(members: &'a Members) -> Self {
        let header = &members.header;
        let some = |urls: &'a Vec<String>| (!urls.is_empty()).then_some(urls.as_slice());
        Self {
            header: HexHeaderJson {
                cluster_id: format!("{:x}", header.cluster_id),
                member_id: format!("{:x}", header.member_id),
                raft_term: header.raft_term,
            },
            members: members
                .members
                .iter()
                .map(|member| HexMemberJson {
                    id: format!("{:x}", member.id),
                    name: &member.name,
                    peer_urls: some(&member.peer_urls),
                    client_urls: some(&member.client_urls),
                })
                .collect(),
        }
    }
}

/// The header in `-w fields`.
pub(super) fn header_fields(header: &Header) -> String {
    format!(
        "\"ClusterID\" : {}\n\"MemberID\" : {}\n\"Revision\" : {}\n\"RaftTerm\" : {}\n",
        header.cluster_id, header.member_id, header.revision, header.raft_term
    )
}
