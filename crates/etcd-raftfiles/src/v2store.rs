//! The v2 store as a restore writes it into its `.snap`: the members, and nothing else.
//!
//! ```text
//! {"Root": the tree of nodes, "WatcherHub": the last 1,000 events, "CurrentIndex": N,
//!  "Stats": counters, "CurrentVersion": 2}
//! ```
//!
//! 3.4 and 3.5 learn from it who the members are; 3.6 only checks that no user data is in it. A short
//! form is enough for all three, but the whole one, with its 1,000 event slots, costs nothing and
//! makes our file equal to that of etcd's own tools, byte for byte.

use etcd_schema::{Member, go_json};
use serde::Serialize;

/// etcd keeps this many events for watchers; slots not yet used are `null`.
const EVENT_SLOTS: usize = 1000;

const COUNTERS_BEFORE_CREATES: [&str; 8] = [
    "getsSuccess",
    "getsFail",
    "setsSuccess",
    "setsFail",
    "deleteSuccess",
    "deleteFail",
    "updateSuccess",
    "updateFail",
];
const COUNTERS_AFTER_CREATES: [&str; 7] = [
    "createFail",
    "compareAndSwapSuccess",
    "compareAndSwapFail",
    "compareAndDeleteSuccess",
    "compareAndDeleteFail",
    "expireCount",
    "watchers",
];

/// The store of a cluster with these members, which were created one after the other.
pub(crate) fn with_members(members: &[Member]) -> String {
    let count = members.len();
    let directories: Vec<String> = sorted_by_path(members).map(member_directory).collect();
    let members_node = if members.is_empty() {
        String::new()
    } else {
        let children = directory("/0/members", 1, &directories.join(","));
        format!("\"members\":{children}")
    };
    let root = directory(
        "/",
        0,
        &format!("\"0\":{},\"1\":{}", directory("/0", 0, &members_node), directory("/1", 0, "")),
    );
    format!(
        "{{\"Root\":{root},\"WatcherHub\":{},\"CurrentIndex\":{count},\"Stats\":{},\
         \"CurrentVersion\":2}}",
        watcher_hub(members),
        stats(count),
    )
}

/// With each member the index at which it was created, from 1. Go writes the children of a node in
/// the order of their names, which for ids of fewer than 16 digits is not the order of the numbers.
fn sorted_by_path(members: &[Member]) -> impl Iterator<Item = (usize, &Member)> {
    let mut numbered: Vec<_> = members.iter().enumerate().map(|(i, m)| (i + 1, m)).collect();
    numbered.sort_by_key(|(_, member)| member.id.to_string());
    numbered.into_iter()
}

fn member_directory((index, member): (usize, &Member)) -> String {
    let id = member.id;
    let attributes = format!(
        "\"raftAttributes\":{}",
        node(&format!("/0/members/{id}/raftAttributes"), index, &raft_attributes(member), "null")
    );
    format!("\"{id}\":{}", directory(&format!("/0/members/{id}"), index, &attributes))
}

fn directory(path: &str, index: usize, children: &str) -> String {
    node(path, index, "", &format!("{{{children}}}"))
}

fn node(path: &str, index: usize, value: &str, children: &str) -> String {
    format!(
        "{{\"Path\":{},\"CreatedIndex\":{index},\"ModifiedIndex\":{index},\
         \"ExpireTime\":\"0001-01-01T00:00:00Z\",\"Value\":{},\"Children\":{children}}}",
        json_string(path),
        json_string(value)
    )
}

fn watcher_hub(members: &[Member]) -> String {
    let created = members.iter().zip(1usize..).map(|(member, index)| {
        format!(
            "{{\"action\":\"create\",\"node\":{{\"key\":\"/0/members/{}/raftAttributes\",\
             \"value\":{},\"modifiedIndex\":{index},\"createdIndex\":{index}}}}}",
            member.id,
            json_string(&raft_attributes(member))
        )
    });
    let unused = std::iter::repeat_n("null".to_owned(), EVENT_SLOTS.saturating_sub(members.len()));
    let events: Vec<String> = created.chain(unused).collect();
    let count = members.len();
    format!(
        "{{\"EventHistory\":{{\"Queue\":{{\"Events\":[{}],\"Size\":{count},\"Front\":0,\
         \"Back\":{count},\"Capacity\":{EVENT_SLOTS}}},\"StartIndex\":1,\"LastIndex\":{count}}}}}",
        events.join(",")
    )
}

fn stats(creates: usize) -> String {
    let zero = |name: &&str| format!("\"{name}\":0");
    let created = std::iter::once(format!("\"createSuccess\":{creates}"));
    let counters: Vec<String> = (COUNTERS_BEFORE_CREATES.iter().map(zero))
        .chain(created)
        .chain(COUNTERS_AFTER_CREATES.iter().map(zero))
        .collect();
    format!("{{{}}}", counters.join(","))
}

/// What raft knows of a member.
#[derive(Serialize)]
struct RaftAttributes<'a> {
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
}

fn raft_attributes(member: &Member) -> String {
    go_json::to_string(&RaftAttributes {
        peer_urls: &member.peer_urls,
        is_learner: member.is_learner,
    })
}

/// A JSON string as Go writes it.
fn json_string(text: &str) -> String {
    go_json::to_string(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etcd_schema::MemberId;

    #[test]
    fn the_store_is_json_whatever_the_members_are() {
        for count in [0u64, 1, 3, 1000, 1001] {
            let members: Vec<_> = (1..=count)
                .map(|n| Member {
                    id: MemberId(n),
                    name: "<n>".into(),
                    peer_urls: vec!["http://h:1".into()],
                    is_learner: n % 2 == 0,
                    client_urls: Vec::new(),
                })
                .collect();
            let store: serde_json::Value = serde_json::from_str(&with_members(&members)).unwrap();
            let listed = store["Root"]["Children"]["0"]["Children"]["members"]["Children"]
                .as_object()
                .map_or(0, serde_json::Map::len);
            assert_eq!(u64::try_from(listed).unwrap(), count);
        }
    }
}
