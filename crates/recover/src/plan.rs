//! What will be done, decided in full before anything is touched: pure data, kept as `plan.yaml` of the run.

use crate::{
    claim::{self, Holder, Left, Standing},
    contents::Contents,
    facts::Facts,
    place::Places,
    replace::Replace,
    rescue::{Rescue, Survivor},
    shell::Frame,
    spec::{Resolved, Spec},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
};

/// Added to the newest revision that anybody can have seen, unless something else is asked for: what a cluster with 1,500 writes a
/// second makes in a week.
pub const BUMP_MARGIN: u64 = 1_000_000_000;
mod other_runs;
mod preflight;

pub use other_runs::HeldHosts;
pub use preflight::Findings;

/// A recovery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// The run's id: time and chance.
    pub run: String,
    /// When it was made.
    pub made: Timestamp,
    /// Who works on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Holder>,
    /// Who began it, if another has taken it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_by: Option<Holder>,
    /// The hosts that were not there when it was taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Left>,
    /// The new cluster's token: no other cluster has it.
    pub token: String,
    /// What the cluster is brought back from.
    pub backup: Chosen,
    /// By how much the revision is raised.
    pub bump: Bump,
    /// The member whose data are taken, if it is not a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rescue: Option<Rescue>,
    /// The hosts that have data left, if the cluster has no quorum.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub survivors: Vec<Survivor>,
    /// The backup that could be taken in place of a member's data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_backup: Option<Chosen>,
    /// The one member that is exchanged, if the cluster lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace: Option<Replace>,
    /// Hosts fetch the backup themselves, and are sent nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<Pull>,
    /// The program on the hosts that asks etcd.
    pub agent: Agent,
    /// What was found on each host, by label.
    pub facts: BTreeMap<String, Facts>,
    /// What a person said.
    pub spec: Spec,
}

/// A backup that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Chosen {
    /// The repository or the file, without credentials.
    pub from: String,
    /// The cluster in the repository.
    pub cluster: Option<String>,
    /// The backup's name.
    pub name: Option<String>,
    /// The revision it has.
    pub revision: Option<i64>,
    /// Ids of the members of its cluster, as far as it tells.
    pub members: BTreeSet<u64>,
    /// When it was begun.
    pub taken: Option<Timestamp>,
    /// The date of its file, if that is all there is: that of what is in it, or of a copy.
    pub dated: Option<Timestamp>,
    /// Size of the database.
    pub bytes: u64,
    /// Version of etcd that it is from.
    pub version: Option<String>,
}

/// How hosts fetch the backup themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Pull {
    /// The repository, without credentials.
    pub repo: String,
    /// A file on the hosts that sets variables with the store's credentials.
    pub env_file: Option<PathBuf>,
    /// Variables with the store's credentials that hosts are told, by name: what they hold is in no plan.
    pub variables: Vec<String>,
    /// A file on the hosts with an age identity.
    pub identity: Option<PathBuf>,
}

/// By how much the revision is raised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Bump {
    /// Above the newest revision that is known. 0: nothing is raised.
    pub margin: u64,
    /// The newest revision that a member was seen at.
    pub last_seen: Option<i64>,
    /// Which member that was.
    pub seen_at: Option<String>,
    /// Ids of the members of its cluster.
    pub members: BTreeSet<u64>,
}

/// The program that is pushed to hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Agent {
    /// Its version.
    pub version: String,
    /// SHA-256 in hex.
    pub sha256: String,
}

impl Chosen {
    /// How far it goes, and whose it is.
    pub(crate) fn contents(&self) -> Contents {
        Contents { revision: self.revision, members: self.members.clone() }
    }
}

impl Bump {
    /// How far the cluster is known to have gone.
    pub(crate) fn contents(&self) -> Contents {
        Contents { revision: self.last_seen, members: self.members.clone() }
    }

    /// What is added to the revision of the backup.
    pub fn amount(&self, backup_revision: i64) -> u64 {
        if self.margin == 0 {
            return 0;
        }
        let ahead = self.last_seen.unwrap_or(0).saturating_sub(backup_revision).max(0);
        self.margin.saturating_add(ahead.unsigned_abs())
    }
}

impl Plan {
    /// A new run's id: sorts by time.
    pub fn new_run(now: Timestamp) -> io::Result<String> {
        let mut random = [0; 2];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        Ok(format!("{}-{:04x}", now.strftime("%Y%m%dt%H%M%S"), u16::from_ne_bytes(random)))
    }

    /// The hosts, in the order of the spec.
    pub fn hosts(&self) -> Vec<Resolved> {
        self.spec.resolved()
    }

    /// What was found on a host.
    pub fn facts(&self, host: &Resolved) -> &Facts {
        static NOTHING: std::sync::LazyLock<Facts> = std::sync::LazyLock::new(Facts::default);
        self.facts.get(&host.label).unwrap_or(&NOTHING)
    }

    /// Whether something of etcd was found where it has its data.
    pub(crate) fn has_old_data(&self, host: &Resolved) -> bool {
        self.facts(host).data.as_ref().is_some_and(|data| data.filled)
    }

    /// Another run that holds the host, and where it keeps the old data if it has set them aside.
    pub(crate) fn other_holder(&self, host: &Resolved) -> Option<(&str, PathBuf)> {
        let run = self.facts(host).lock.as_ref().map(|lock| lock.run.as_str());
        let run = run.filter(|run| *run != self.run)?;
        Some((run, self.places_of(host, run).data.old))
    }

    /// The reserved key that is written, read and removed, and its value.
    pub fn probe(&self) -> (String, String) {
        (
            format!("lifeboat/recover/{}", self.run),
            "written by lifeboat recover, and removed".to_owned(),
        )
    }

    /// Members as `--initial-cluster` has them.
    pub fn initial_cluster(&self) -> String {
        let members = self.hosts().into_iter().filter_map(|host| host.member);
        let pairs = members.flat_map(|member| {
            let name = member.name.clone();
            member.peer_urls.into_iter().map(move |url| format!("{name}={url}"))
        });
        pairs.collect::<Vec<_>>().join(",")
    }

    /// The same as YAML.
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(self).expect("a plan has nothing that YAML cannot say")
    }

    /// Reads it back.
    pub fn parse(yaml: &str) -> Result<Self, Box<serde_saphyr::Error>> {
        serde_saphyr::from_str(yaml).map_err(Box::new)
    }

    /// The seat that a host was left with, if it did not answer when the run was taken over.
    pub(crate) fn left_with(&self, label: &str) -> Option<&str> {
        let left = self.left.as_ref().filter(|left| left.hosts.iter().any(|host| host == label));
        left.map(|left| left.seat.as_str()).filter(|seat| !seat.is_empty())
    }

    /// What a host tells of who has the run. One that was left with the machine before does not know better.
    pub(crate) fn standing(&self, label: &str, found: Standing) -> Standing {
        let is_old = self.left_with(label) == Some(found.seat.as_str());
        match self.by.as_ref().filter(|_| is_old && found.word != "taken-back") {
            Some(by) => Standing { seat: by.seat.clone(), ..found },
            None => found,
        }
    }

    pub(crate) fn frame<'a>(&'a self, host: &'a Resolved) -> Frame<'a> {
        let mut frame =
            Frame { run: &self.run, label: &host.label, state_dir: &host.state_dir, claim: None };
        frame.claim = self.by.as_ref().map(|_| claim::is_held(self, &frame.lock()));
        frame
    }

    pub(crate) fn places(&self, host: &Resolved) -> Places {
        self.places_of(host, &self.run)
    }

    fn places_of(&self, host: &Resolved, run: &str) -> Places {
        let facts = self.facts(host);
        let real = |found: Option<&crate::facts::Directory>, said: &std::path::Path| {
            found.map_or_else(|| said.to_owned(), |directory| directory.path.clone())
        };
        let inside = facts.data.as_ref().is_some_and(|data| data.mount_point);
        let data_dir = real(facts.data.as_ref(), &host.data_dir);
        let wal_dir = host.wal_dir.as_ref().map(|wal_dir| real(facts.wal.as_ref(), wal_dir));
        Places::new(&data_dir, wal_dir.as_deref(), inside, run)
    }

    /// Whether this host's data are taken.
    pub(crate) fn is_source(&self, host: &Resolved) -> bool {
        self.rescue.as_ref().is_some_and(|rescue| rescue.member == host.label)
    }

    /// Whether this host gets new data.
    pub(crate) fn gets_data(&self, host: &Resolved) -> bool {
        match &self.replace {
            Some(replace) => replace.member == host.label,
            None => host.member.is_some(),
        }
    }

    /// The version of etcd that the data are made for: what is said, else the oldest that will run, else the backup's.
    pub fn target_version(&self) -> Option<String> {
        let said = self.spec.etcd.version.clone().map(String::from);
        let hosts = self.hosts();
        let found = hosts.iter().filter(|host| host.member.is_some());
        let oldest =
            found.filter_map(|host| self.facts(host).etcd_version.clone()).min_by_key(|version| {
                version.split('.').map(|part| part.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>()
            });
        said.or(oldest).or_else(|| self.backup.version.clone())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::facts::Directory;

    /// Three members: two with systemd units, one whose data directory is a mount point.
    pub(crate) fn plan() -> Plan {
        let spec = Spec::parse(
            "cluster: prod
etcd: {data-dir: '/var/lib/my etcd', owner: 'etcd:etcd'}
clients: [{systemd: kube-apiserver, ready: 'https://127.0.0.1:6443/readyz'}, {systemd: kubelet, restart: true}]
hosts:
- {host: 10.0.0.1, member: {name: m1, peer-urls: ['http://10.0.0.1:2380']}}
- {host: 10.0.0.2, ssh: {user: admin, port: 2222}, member: {name: m2, peer-urls: ['http://10.0.0.2:2380']}}
- {host: 10.0.0.3, clients: [], member: {name: m3, peer-urls: ['http://10.0.0.3:2380']}}
",
        )
        .unwrap();
        let facts = |mount_point, clients: usize| Facts {
            root: true,
            machine: "x86_64".to_owned(),
            service_known: true,
            etcd_version: Some("3.5.16".to_owned()),
            clients: vec![(true, true); clients],
            data: Some(Directory {
                path: "/var/lib/my etcd".into(),
                exists: true,
                filled: true,
                mount_point,
                owner: Some("etcd:etcd".to_owned()),
                mode: Some("700".to_owned()),
                bytes: 1 << 20,
                free: 1 << 40,
                ..Directory::default()
            }),
            ..Facts::default()
        };
        Plan {
            run: "20261122t160000-12ab".to_owned(),
            made: "2026-11-22T16:00:00Z".parse().unwrap(),
            token: "lifeboat-20261122t160000-12ab".to_owned(),
            backup: Chosen {
                from: "s3://backups/etcd".to_owned(),
                cluster: Some("prod".to_owned()),
                name: Some("00000000000000000100-20261122T150000Z".to_owned()),
                revision: Some(100),
                members: [1, 2, 3].into(),
                dated: None,
                taken: Some("2026-11-22T15:00:00Z".parse().unwrap()),
                bytes: 1 << 20,
                version: Some("3.5.16".to_owned()),
            },
            bump: Bump {
                margin: 1000,
                last_seen: Some(150),
                seen_at: Some("m1".to_owned()),
                members: [1, 2, 3].into(),
            },
            by: None,
            begun_by: None,
            left: None,
            rescue: None,
            survivors: Vec::new(),
            other_backup: None,
            replace: None,
            pull: None,
            agent: Agent { version: "0.1.0".to_owned(), sha256: "ab".repeat(32) },
            facts: [("m1", facts(false, 2)), ("m2", facts(false, 2)), ("m3", facts(true, 0))]
                .map(|(label, facts)| (label.to_owned(), facts))
                .into(),
            spec,
        }
    }

    #[test]
    fn a_plan_that_is_written_reads_back_the_same() {
        let yaml = plan().to_yaml();
        assert_eq!(Plan::parse(&yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}")), plan());
    }

    #[test]
    fn the_revision_is_raised_above_what_was_seen_last() {
        assert_eq!(plan().bump.amount(100), 1050);
        assert_eq!(Bump { margin: 7, ..Bump::default() }.amount(100), 7);
        assert_eq!(Bump { margin: 0, last_seen: Some(500), ..Bump::default() }.amount(100), 0);
    }

    #[test]
    fn run_ids_sort_by_time_and_differ_by_chance() {
        let id = |at: &str| Plan::new_run(at.parse().unwrap()).unwrap();
        let first = id("2026-11-22T15:00:00Z");
        assert!(first.starts_with("20261122t150000-") && first < id("2026-11-22T15:00:01Z"));
    }

    #[test]
    fn the_new_cluster_is_that_of_the_spec() {
        assert_eq!(
            plan().initial_cluster(),
            "m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380,m3=http://10.0.0.3:2380"
        );
        assert_eq!(plan().target_version().as_deref(), Some("3.5.16"));
    }
}
