//! One member lost, quorum alive: it is removed from the cluster, added again, and started with no data of its own.
//!
//! ```text
//!   lock ─ stop-etcd ─ remove-member ─ add-member ─ send ─ set-aside ─ swap-in ─ start-etcd ─ promote ─ verify ─ start-…
//!          (that host)  (through a healthy member)   └──────────── (that host) ─────────┘   └ (the cluster) ┘
//! ```
//!
//! A member that joins must be told the cluster that it joins. etcd has two flags for that (`--initial-cluster` and
//! `--initial-cluster-state=existing`), which it reads only while it has no write-ahead log. Its unit, manifest or command says
//! something else, and where a config file is given, further flags are not even looked at. So none of them is touched: the member
//! is sent the write-ahead log that a joining etcd writes first, which holds nothing but the ids of cluster and member. etcd finds
//! it, takes itself for a member that has been away since it joined, and lets the leader tell it everything. It is what an etcd
//! finds that was cut off right after it joined; 3.4 and 3.5 start from it, whether the leader has its whole log left or must send
//! its database.
//!
//! * Nothing is changed before [`Replace::examine`] finds that the others agree without the member.
//! * The member is removed before it is added, as etcd's guides say: added first, it would raise the majority that is needed.
//! * A new member has a new id. So what the lost one has on disk cannot come back, and nothing is lost by a rollback that leaves
//!   it out.

use crate::{
    agent::{Answer, Change},
    build::{MemberFile, sha256_of_bytes},
    facts::Facts,
    spec::{Resolved, Spec},
};
use etcd_raftfiles::{
    raftpb::{Metadata, WalSnapshot},
    restore::RestoredCluster,
    wal::Encoder,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, io, path::Path};

/// What is done about members that refuse who asks.
pub const DENIED: &str = "name a user with the role root, and the file on the hosts with its password: etcd.user and etcd.password-file";
/// In the journal: a rollback has not reached the host.
pub(crate) const LEFT_ALONE: &str = "left-alone";
/// Learners are known since then.
const LEARNERS_SINCE: (u32, u32) = (3, 4);

/// The member that is exchanged, and the cluster that goes on without it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Replace {
    /// Its host's label: the name that it will have.
    pub member: String,
    /// The lost member's id; none if it was removed from the cluster already.
    pub old: Option<u64>,
    /// Where clients reached the lost member.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub old_urls: Vec<String>,
    /// Ids of all other members, by label or else name.
    pub others: BTreeMap<String, u64>,
    /// The cluster.
    pub cluster_id: u64,
    /// The version that the others run.
    pub version: String,
    /// It is added as a learner, which has no vote until it has caught up.
    pub learner: bool,
    /// Hosts of healthy members: the cluster is asked, and changed, through the first that can.
    pub through: Vec<String>,
}

/// Why a member is not replaced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplaceError {
    /// The file has no such member.
    #[error("the cluster's file has no member {wanted}; it has {}", known.join(", "))]
    Unknown {
        /// What was said.
        wanted: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Without a quorum nobody can be removed.
    #[error("the cluster has no quorum: none of the other members can write to it{}", lines(why))]
    NoQuorum {
        /// What each says.
        why: Vec<String>,
    },
    /// Nobody can be asked.
    #[error("the members refuse who asks{}", lines(why))]
    Denied {
        /// What each says.
        why: Vec<String>,
    },
    /// There is nothing to replace.
    #[error("{member} is healthy{at}")]
    Healthy {
        /// The member.
        member: String,
        /// Where it was seen.
        at: String,
    },
    /// Too few members would be left.
    #[error(
        "without {member}, {voters} members would have a vote, of which {healthy} are healthy: too few to agree"
    )]
    TooFew {
        /// The member.
        member: String,
        /// Members with a vote that would be left.
        voters: usize,
        /// Those of them that are healthy.
        healthy: usize,
    },
    /// The others do not know the same members.
    #[error("{one} and {other} do not know the same cluster")]
    Differ {
        /// A host.
        one: String,
        /// Another host.
        other: String,
    },
    /// etcd takes one learner at a time.
    #[error("{name} is a learner, which is to be promoted or removed first")]
    Learner {
        /// Its name.
        name: String,
    },
    /// Something is wrong with the cluster that replacing a member does not mend.
    #[error("alarms are raised: {}", alarms.join(", "))]
    Alarms {
        /// Which.
        alarms: Vec<String>,
    },
    /// Another member has that URL.
    #[error("the peer URL {url} is that of the member {name}")]
    UrlTaken {
        /// The URL.
        url: String,
        /// Whose it is.
        name: String,
    },
    /// The host has another etcd.
    #[error("{member}'s host has etcd {found}, but the cluster runs {wanted}")]
    OtherVersion {
        /// The member.
        member: String,
        /// What the host has.
        found: String,
        /// What the others run.
        wanted: String,
    },
}

impl ReplaceError {
    /// What to do next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => {
                "name a member as the file does; a new host is written into the file first"
            }
            Self::NoQuorum { .. } => {
                "bring the whole cluster back: `lifeboat recover run`, from a backup, or with --from-member from the data of a member that is left"
            }
            Self::Denied { .. } => DENIED,
            Self::Healthy { .. } => {
                "it need not be replaced; to do so all the same, say --even-though-healthy"
            }
            Self::TooFew { .. } => "bring another member up first",
            Self::Differ { .. } => {
                "see `etcdctl member list` on both; in a minute they may know the same"
            }
            Self::Learner { .. } => "`etcdctl member promote ID`, or `etcdctl member remove ID`",
            Self::Alarms { .. } => {
                "mend that first: NOSPACE with compaction and `etcdctl defrag`, then `etcdctl alarm disarm`"
            }
            Self::UrlTaken { .. } => "correct member.peer-urls in the cluster's file",
            Self::OtherVersion { .. } => "install the cluster's version there",
        }
    }
}

fn lines(texts: &[String]) -> String {
    texts.iter().map(|text| format!("\n  {text}")).collect()
}

impl Replace {
    /// Decides whether `member` can be replaced, by what the hosts answered.
    pub fn examine(
        spec: &Spec,
        member: &str,
        facts: &BTreeMap<String, Facts>,
        answers: &[(String, Answer)],
        even_though_healthy: bool,
    ) -> Result<Self, ReplaceError> {
        let hosts = spec.resolved();
        let host = host_of(&hosts, member)?;
        let (lost, others): (Vec<_>, Vec<_>) =
            answers.iter().partition(|(label, _)| *label == host.label);
        let healthy: Vec<_> = others.iter().copied().filter(|(_, answer)| answer.healthy).collect();
        let Some((first, known)) = healthy.first() else {
            let denied = others.iter().any(|(_, answer)| answer.denied);
            let why = others.iter().map(why).collect();
            return Err(match denied {
                true => ReplaceError::Denied { why },
                false => ReplaceError::NoQuorum { why },
            });
        };
        // A package that was just installed may have started a cluster of its own there.
        let is_well = |answer: &Answer| answer.healthy && answer.cluster_id == known.cluster_id;
        if !even_though_healthy && lost.iter().any(|(_, answer)| is_well(answer)) {
            return Err(ReplaceError::Healthy { member: member.to_owned(), at: String::new() });
        }
        if let Some((label, _)) = healthy.iter().find(|(_, answer)| answer.denied) {
            let why = format!("{label}: who asks has not the role root");
            return Err(ReplaceError::Denied { why: vec![why] });
        }
        for (other, answer) in &healthy {
            if ids(answer) != ids(known) || answer.cluster_id != known.cluster_id {
                let (one, other) = (first.clone(), other.clone());
                return Err(ReplaceError::Differ { one, other });
            }
        }
        let old = former(known, host);
        let left = || known.members.iter().filter(|(id, ..)| Some(*id) != old);
        check_left(known, host, left().cloned().collect())?;
        let voters = left().filter(|(.., is_learner)| !is_learner).count();
        if healthy.len() <= voters / 2 {
            let (member, healthy) = (member.to_owned(), healthy.len());
            return Err(ReplaceError::TooFew { member, voters, healthy });
        }
        check_version(host, facts, &known.version)?;
        let label_of = |id: u64, name: &str| {
            let host = answers.iter().find(|(_, answer)| answer.member_id == id);
            host.map_or_else(|| name.to_owned(), |(label, _)| label.clone())
        };
        Ok(Self {
            member: host.label.clone(),
            old,
            old_urls: old.and_then(|old| known.client_urls.get(&old).cloned()).unwrap_or_default(),
            others: left().map(|(id, name, _)| (label_of(*id, name), *id)).collect(),
            cluster_id: known.cluster_id,
            version: known.version.clone(),
            learner: minor(&known.version).is_none_or(|version| version >= LEARNERS_SINCE),
            through: healthy.iter().map(|(label, _)| label.clone()).collect(),
        })
    }

    /// The change that removes the lost member; none if that was done before.
    pub(crate) fn remove(&self) -> Option<Change> {
        Some(Change::Remove { id: self.old? })
    }

    /// The change that adds the member.
    pub(crate) fn add(&self, host: &Resolved) -> Change {
        Change::Add {
            peer_urls: peer_urls(host),
            as_learner: self.learner,
            known: self.known().collect(),
        }
    }

    /// The change that removes the member that was added.
    pub(crate) fn take_back(&self, host: &Resolved) -> Change {
        Change::RemoveAdded { peer_urls: peer_urls(host), known: self.known().collect() }
    }

    /// The member that was added, if it was, by what a member answered.
    pub(crate) fn joined(&self, host: &Resolved, answer: &Answer) -> Option<u64> {
        let known: Vec<_> = self.known().collect();
        added(&answer.peer_urls, &peer_urls(host), &known)
    }

    /// Ids that were there before.
    fn known(&self) -> impl Iterator<Item = u64> {
        self.others.values().copied().chain(self.old)
    }
}

/// The member with these URLs that is not among those known before. Ids are made of the time, too: it is the one that we added.
pub fn added(
    members: &BTreeMap<u64, Vec<String>>,
    peer_urls: &[String],
    known: &[u64],
) -> Option<u64> {
    let sorted = |urls: &[String]| {
        let mut urls = urls.to_vec();
        urls.sort_unstable();
        urls
    };
    let ours = |(id, urls): &(&u64, &Vec<String>)| {
        !known.contains(id) && sorted(urls) == sorted(peer_urls)
    };
    members.iter().find(ours).map(|(id, _)| *id)
}

fn peer_urls(host: &Resolved) -> Vec<String> {
    host.member.as_ref().map(|member| member.peer_urls.clone()).unwrap_or_default()
}

fn host_of<'a>(hosts: &'a [Resolved], member: &str) -> Result<&'a Resolved, ReplaceError> {
    let members = || hosts.iter().filter(|host| host.member.is_some());
    members().find(|host| host.label == member).ok_or_else(|| ReplaceError::Unknown {
        wanted: member.to_owned(),
        known: members().map(|host| host.label.clone()).collect(),
    })
}

fn why((label, answer): &&(String, Answer)) -> String {
    format!("{label}: {}", answer.error.as_deref().unwrap_or("no answer"))
}

fn ids(answer: &Answer) -> Vec<u64> {
    let mut ids: Vec<_> = answer.members.iter().map(|(id, ..)| *id).collect();
    ids.sort_unstable();
    ids
}

/// The lost member in the cluster's list: by its name, or, if it was added and never started, by a URL.
fn former(known: &Answer, host: &Resolved) -> Option<u64> {
    let by_name = known.members.iter().find(|(_, name, _)| *name == host.label);
    let urls = peer_urls(host);
    let by_url = || {
        let mut members = known.peer_urls.iter();
        members.find(|(_, theirs)| theirs.iter().any(|url| urls.contains(url))).map(|(id, _)| *id)
    };
    by_name.map(|(id, ..)| *id).or_else(by_url)
}

/// What would make etcd refuse the new member.
fn check_left(
    known: &Answer,
    host: &Resolved,
    left: Vec<(u64, String, bool)>,
) -> Result<(), ReplaceError> {
    for (id, name, is_learner) in left {
        if is_learner {
            return Err(ReplaceError::Learner { name });
        }
        let theirs = known.peer_urls.get(&id).cloned().unwrap_or_default();
        if let Some(url) = peer_urls(host).into_iter().find(|url| theirs.contains(url)) {
            return Err(ReplaceError::UrlTaken { url, name });
        }
    }
    match known.alarms.is_empty() {
        true => Ok(()),
        false => Err(ReplaceError::Alarms { alarms: known.alarms.clone() }),
    }
}

/// A member must be able to read what the others send it, and they what it answers.
fn check_version(
    host: &Resolved,
    facts: &BTreeMap<String, Facts>,
    wanted: &str,
) -> Result<(), ReplaceError> {
    let found = facts.get(&host.label).and_then(|facts| facts.etcd_version.clone());
    match found {
        Some(found) if minor(&found).is_some() && minor(&found) != minor(wanted) => {
            let (member, wanted) = (host.label.clone(), wanted.to_owned());
            Err(ReplaceError::OtherVersion { member, found, wanted })
        }
        _ => Ok(()),
    }
}

pub(crate) fn minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The write-ahead log of a member that has joined and heard nothing yet, in `folder`. The same ids give the same bytes.
pub(crate) fn write_log(folder: &Path, cluster_id: u64, member_id: u64) -> Result<(), io::Error> {
    let mut log = Encoder::new(0);
    log.metadata(Metadata { node_id: member_id, cluster_id });
    log.snapshot(&WalSnapshot::default());
    fs::create_dir_all(folder)?;
    fs::write(folder.join(LOG), log.finish())
}

const LOG: &str = "joining.wal";

/// What [`write_log`] has written, as a file to be sent.
pub(crate) fn log_file(folder: &Path) -> MemberFile {
    let path = folder.join(LOG);
    let bytes = fs::read(&path).unwrap_or_default();
    let (name, sha256) = (RestoredCluster::wal_name().to_string(), sha256_of_bytes(&bytes));
    MemberFile { path, folder: "wal", name, sha256, packed: false }
}

#[cfg(test)]
mod tests;
