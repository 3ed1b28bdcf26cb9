//! What is asked of etcd on its own host, by the program that was pushed there, and how the answers are judged.
//!
//! The operator's machine may reach no client URL, and the certificates stay where they are: a host asks its own member.
//! Question and answer are JSON on standard input and output.

use crate::{
    build::Built,
    rescue::Held,
    spec::{CLIENT_PORT, Resolved},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Question {
    /// The member's client URLs; the first that answers is taken.
    pub endpoints: Vec<String>,
    /// CA, certificate and key, on the host.
    pub ca: Option<PathBuf>,
    /// Client certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// User of etcd.
    pub user: Option<String>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// For how long it is asked again until the member is healthy.
    pub wait_seconds: u64,
    /// The revision to hash up to; nothing is hashed without one.
    pub hash_at: Option<i64>,
    /// A write that proves that the cluster takes writes.
    pub probe: Option<Probe>,
    /// Whether who asks may do what the role root may: change members, hash.
    #[serde(default)]
    pub as_root: bool,
    /// A change of the membership. One that is done already is not done again.
    #[serde(default)]
    pub change: Option<Change>,
    /// A data directory of which is told what it holds, unless the member is healthy.
    pub data_dir: Option<PathBuf>,
    /// Its WAL, if that is elsewhere.
    #[serde(default)]
    pub wal_dir: Option<PathBuf>,
}

/// What is done with the reserved key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// It is written, and read back.
    Put {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// It is removed.
    Remove {
        /// The key.
        key: String,
    },
}

/// How the membership is changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// A member is removed.
    Remove {
        /// Its id.
        id: u64,
    },
    /// A member is added.
    Add {
        /// Its URLs.
        peer_urls: Vec<String>,
        /// Without a vote.
        as_learner: bool,
        /// Ids that are none of it.
        known: Vec<u64>,
    },
    /// A learner gets its vote.
    Promote {
        /// Its id.
        id: u64,
    },
    /// What [`Change::Add`] added is removed.
    RemoveAdded {
        /// Its URLs.
        peer_urls: Vec<String>,
        /// Ids that are none of it.
        known: Vec<u64>,
    },
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Answer {
    /// Whether the cluster agreed on a read through this member.
    pub healthy: bool,
    /// It refuses who asks: no user is named, a wrong password, or one without the role root.
    pub denied: bool,
    /// Why not, or what else failed.
    pub error: Option<String>,
    /// The member's id.
    pub member_id: u64,
    /// The cluster's id.
    pub cluster_id: u64,
    /// The version it runs.
    pub version: String,
    /// Its newest revision.
    pub revision: i64,
    /// Whether it has no vote.
    pub is_learner: bool,
    /// Members as it knows them: id, name, learner.
    pub members: Vec<(u64, String, bool)>,
    /// Where other members reach each.
    pub peer_urls: BTreeMap<u64, Vec<String>>,
    /// Where clients reach each.
    pub client_urls: BTreeMap<u64, Vec<String>>,
    /// The newest raft entry that the member knows to be agreed on.
    pub raft_index: u64,
    /// Alarms of the cluster.
    pub alarms: Vec<String>,
    /// HashKV at the revision that was asked for.
    pub hash: Option<u32>,
    /// It hashes only above the revision that it was compacted to: etcd 3.4, and 3.5 before 3.5.10.
    pub hash_above_compacted: bool,
    /// The revision of the probe's write, if it was read back as it was written; or of its removal.
    pub probed: Option<i64>,
    /// The newest revision in the data directory.
    pub disk_revision: Option<i64>,
    /// What the data directory holds.
    pub held: Option<Held>,
}

impl Question {
    /// A question to the member of that host. Of one that is only stopped nothing says where it is: at etcd's port, most likely.
    pub fn to(host: &Resolved) -> Self {
        let tls = &host.certificates;
        let scheme = if tls.ca.is_some() { "https" } else { "http" };
        let likely = || vec![format!("{scheme}://127.0.0.1:{CLIENT_PORT}")];
        Self {
            endpoints: host
                .member
                .as_ref()
                .map_or_else(likely, |member| member.client_urls.clone()),
            ca: tls.ca.clone(),
            cert: tls.cert.clone(),
            key: tls.key.clone(),
            user: host.user.clone(),
            password_file: host.password_file.clone(),
            ..Self::default()
        }
    }
}

/// The hash that all members must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The revision that was hashed up to.
    pub revision: i64,
    /// The hash.
    pub hash_kv: u32,
}

/// What the members of the new cluster have against being called well; nothing if they are. Hashes are looked at if one is
/// expected. Answers are in the order of the members' hosts.
pub fn judge(
    built: &Built,
    expected: Option<Expected>,
    answers: &[(String, Answer)],
) -> Vec<String> {
    let mut faults = Vec::new();
    for (label, answer) in answers {
        let mut fault = |text: String| faults.push(format!("{label}: {text}"));
        if !answer.healthy {
            let why = answer.error.as_deref().unwrap_or("no answer");
            fault(format!("it is not healthy: {why}"));
            continue;
        }
        if answer.cluster_id != built.cluster_id {
            fault(format!("it is in cluster {:x}, not {:x}", answer.cluster_id, built.cluster_id));
        }
        if Some(&answer.member_id) != built.member_ids.get(label) {
            fault(format!("it is member {:x}, which is another", answer.member_id));
        }
        let mut found: Vec<_> = answer.members.iter().map(|(id, ..)| *id).collect();
        let mut planned: Vec<_> = built.member_ids.values().copied().collect();
        found.sort_unstable();
        planned.sort_unstable();
        if found != planned {
            fault(format!("it knows the members {found:x?}, not {planned:x?}"));
        }
        if let Some((_, name, _)) = answer.members.iter().find(|(.., is_learner)| *is_learner) {
            fault(format!("{name} is a learner"));
        }
        if !answer.alarms.is_empty() {
            fault(format!("alarms are raised: {}", answer.alarms.join(", ")));
        }
        let Some(expected) = expected else { continue };
        match answer.hash {
            None => fault(format!(
                "its data could not be hashed: {}",
                answer.error.as_deref().unwrap_or("no answer")
            )),
            Some(hash) if hash != expected.hash_kv => fault(format!(
                "HashKV at revision {} is {hash}, but {} was expected",
                expected.revision, expected.hash_kv
            )),
            Some(_) => {}
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(built: &Built) -> Option<Expected> {
        Some(Expected { revision: built.revision, hash_kv: 7 })
    }

    fn good() -> (Built, Vec<(String, Answer)>) {
        let names = ["m1", "m2", "m3"];
        let ids: Vec<_> = names.iter().map(|name| (*name).to_owned()).zip(1_u64..).collect();
        let built = Built {
            revision: 1150,
            cluster_id: 99,
            member_ids: ids.iter().cloned().collect(),
            ..Built::default()
        };
        let members: Vec<_> = ids.iter().map(|(name, id)| (*id, name.clone(), false)).collect();
        let answers = ids.into_iter().map(|(name, id)| {
            let answer = Answer {
                healthy: true,
                member_id: id,
                cluster_id: 99,
                members: members.clone(),
                hash: Some(7),
                ..Answer::default()
            };
            (name, answer)
        });
        let answers = answers.collect();
        (built, answers)
    }

    #[test]
    fn a_cluster_that_is_as_planned_has_nothing_against_it() {
        let (built, answers) = good();
        assert_eq!(judge(&built, expected(&built), &answers), Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_differs_is_told_with_its_member() {
        let (built, good) = good();
        let with = |change: &dyn Fn(&mut Answer)| {
            let mut answers = good.clone();
            change(&mut answers[1].1);
            judge(&built, expected(&built), &answers).join("\n")
        };
        assert!(with(&|a| a.healthy = false).contains("m2: it is not healthy"));
        assert!(with(&|a| a.cluster_id = 1).contains("m2: it is in cluster 1, not 63"));
        assert!(with(&|a| a.member_id = 1).contains("m2: it is member 1"));
        assert!(with(&|a| a.members[0].2 = true).contains("m2: m1 is a learner"));
        assert!(with(&|a| a.members.truncate(2)).contains("m2: it knows the members"));
        assert!(with(&|a| a.alarms.push("NOSPACE".to_owned())).contains("m2: alarms are raised"));
        assert!(with(&|a| a.hash = Some(8)).contains("m2: HashKV at revision 1150 is 8"));
        assert!(with(&|a| a.hash = None).contains("m2: its data could not be hashed"));
    }
}
