//! What will be done, decided in full before anything is touched: pure data, kept as `plan.yaml` of the run.

use crate::{
    claim::{self, Holder},
    contents::Contents,
    facts::Facts,
    place::Places,
    replace::{Replace, minor},
    rescue::{Rescue, Survivor},
    shell::{Frame, quote_path},
    spec::{Resolved, Spec},
};
use jiff::Timestamp;
use restore::TargetVersion;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
};

/// Added to the newest revision that anybody can have seen, unless something else is asked for: what a cluster with 1,500 writes a
/// second makes in a week.
pub const BUMP_MARGIN: u64 = 1_000_000_000;
/// Clocks that differ by more are told: etcd warns at one second.
const CLOCK_SECONDS: f64 = 1.0;
/// Certificates that end sooner are told.
const CERTIFICATE_SECONDS: i64 = 7 * 86_400;
/// Where packages keep the data of what they install: a folder that is missing here is made.
const DATA_OF_PACKAGES: &str = "/var/lib";
/// What etcd writes first beside the database: two WAL segments of 64 MB.
const WAL_BYTES: u64 = 160 << 20;

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

/// What preflight has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Nothing can be done before these are put right.
    pub problems: Vec<String>,
    /// To know.
    pub warnings: Vec<String>,
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

    /// What speaks against it, as far as the hosts tell.
    pub fn findings(&self, machine: &str) -> Findings {
        let mut findings = Findings::default();
        claim::other_runs(self, &mut findings);
        let target = self.target_version().filter(|_| self.replace.is_none());
        if let Some(version) = target.filter(|version| TargetVersion::of_release(version).is_none())
        {
            findings.problems.push(format!(
                "data cannot be made for etcd {version}, which will run: only for 3.4, 3.5 and 3.6"
            ));
        }
        self.check_said_version(&mut findings);
        for host in self.hosts() {
            self.check_host(&host, machine, &mut findings);
        }
        findings
    }

    /// Data are made for the etcd that is said, so it must be the one that is there.
    fn check_said_version(&self, findings: &mut Findings) {
        let Some(said) = self.spec.etcd.version.as_ref().filter(|_| self.replace.is_none()) else {
            return;
        };
        let mut others = BTreeMap::<String, Vec<String>>::new();
        for host in self.hosts().into_iter().filter(|host| host.member.is_some()) {
            let found = self.facts(&host).etcd_version.clone();
            let other = found.filter(|found| minor(found).is_some() && minor(found) != minor(said));
            other
                .into_iter()
                .for_each(|found| others.entry(found).or_default().push(host.label.clone()));
        }
        for (found, labels) in others {
            findings.problems.push(format!(
                "etcd.version says {said}, but etcd on {} is {found}: data are made for what it says. Correct it, or leave it out",
                labels.join(", ")
            ));
        }
    }

    fn check_host(&self, host: &Resolved, machine: &str, findings: &mut Findings) {
        let (facts, label) = (self.facts(host), &host.label);
        let mut problem = |text: String| findings.problems.push(format!("{label}: {text}"));
        if !facts.root && host.ssh.sudo != Some(false) {
            problem("commands do not run as root".to_owned());
        }
        if !facts.missing_tools.is_empty() {
            problem(format!("these commands are missing: {}", facts.missing_tools.join(", ")));
        }
        for file in &facts.missing_files {
            problem(format!("{file} is not there, or cannot be read"));
        }
        if facts.machine != machine {
            problem(format!(
                "it is a {}, but the program to be pushed is for {machine}: give --agent",
                facts.machine
            ));
        }
        if facts.wal.as_ref().is_some_and(|wal| wal.mount_point) {
            problem("the WAL directory is a mount point: name a folder in it".to_owned());
        }
        if self.gets_data(host) {
            check_parents(facts, &mut problem);
            for unknown in &facts.unknown_owners {
                problem(format!("there is no {unknown}, which etcd.owner names"));
            }
        }
        if host.member.is_some() && !facts.service_known {
            problem(format!("there is no service {}", host.service.name()));
        }
        // On the member's host its snapshot lies too, for a while.
        let copies = u64::from(self.gets_data(host)) + u64::from(self.is_source(host));
        if copies > 0 {
            self.check_space(facts, copies, &mut problem);
        }
        if host.member.is_some() && facts.service_disabled {
            let unit = host.service.name();
            findings.warnings.push(format!(
                "{label}: the unit {unit} is not enabled: it will not start when the host boots"
            ));
        }
        self.check_version(label, facts, findings);
        if facts.clock_ahead.abs() > CLOCK_SECONDS {
            let text = format!("{label}: its clock is {:+.1} s from ours", facts.clock_ahead);
            findings.warnings.push(text);
        }
        if !facts.names_not_in_certificate.is_empty() {
            findings.problems.push(format!(
                "{label}: the member's certificate is not for {}",
                facts.names_not_in_certificate.join(", ")
            ));
        }
        self.check_ends(host, facts, findings);
        for (client, (known, _)) in host.clients.iter().zip(&facts.clients) {
            if !known {
                let text = format!(
                    "{label}: there is no service {}; it is left out",
                    client.service.name()
                );
                findings.warnings.push(text);
            }
        }
        if self.gets_data(host) && !self.has_old_data(host) && self.other_holder(host).is_none() {
            findings
                .warnings
                .push(format!("{label}: there are no old data in {}", host.data_dir.display()));
        }
    }

    fn check_ends(&self, host: &Resolved, facts: &Facts, findings: &mut Findings) {
        let now = self.made.as_second();
        let certificates =
            [("client", facts.certificate_ends), ("member's", facts.server_certificate_ends)];
        for (whose, ends) in certificates {
            let Some(ends) = ends.filter(|ends| *ends < now + CERTIFICATE_SECONDS) else {
                continue;
            };
            let label = &host.label;
            match ends < now {
                true => {
                    findings.problems.push(format!("{label}: the {whose} certificate has expired"));
                }
                false => findings
                    .warnings
                    .push(format!("{label}: the {whose} certificate expires in less than a week")),
            }
        }
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

    fn check_space(&self, facts: &Facts, copies: u64, problem: &mut dyn FnMut(String)) {
        let needed = copies * (self.backup.bytes + self.backup.bytes / 8) + WAL_BYTES;
        for (found, needed) in [(&facts.data, needed), (&facts.wal, WAL_BYTES)] {
            if let Some(found) = found.as_ref().filter(|found| found.free < needed) {
                problem(format!(
                    "{} bytes are free for {}, but {needed} are needed beside the old data",
                    found.free,
                    found.path.display()
                ));
            }
        }
    }

    /// etcd opens data of its own minor version and of the one before.
    fn check_version(&self, label: &str, facts: &Facts, findings: &mut Findings) {
        let (Some(runs), Some(backup)) = (
            facts.etcd_version.as_deref().and_then(minor),
            self.backup.version.as_deref().and_then(minor),
        ) else {
            return;
        };
        if runs < backup {
            findings.warnings.push(format!(
                "{label}: etcd {}.{} will run on data of {}.{}; they are made for {}.{}",
                runs.0, runs.1, backup.0, backup.1, runs.0, runs.1
            ));
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

/// A folder that is made where a disk should be would take the data to another disk.
fn check_parents(facts: &Facts, problem: &mut dyn FnMut(String)) {
    for found in [&facts.data, &facts.wal].into_iter().flatten() {
        match (&found.not_mounted, &found.no_parent) {
            (Some(point), _) => problem(format!(
                "nothing is mounted on {}, though /etc/fstab names it: mount it, as {} lies there",
                point.display(),
                found.path.display()
            )),
            (None, Some(parent)) if !parent.starts_with(DATA_OF_PACKAGES) => problem(format!(
                "{0} is not there: is its disk mounted? If there is no such disk: mkdir -p {0}",
                quote_path(parent)
            )),
            _ => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        claim::{Claim, Placed},
        facts::Directory,
    };

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
    fn what_speaks_against_it_is_told_of_every_host() {
        let mut plan = plan();
        assert_eq!(plan.findings("x86_64"), Findings::default());
        plan.backup.bytes = 1 << 41;
        plan.facts.get_mut("m1").unwrap().lock = Some(Claim::parse("another of cluster prod"));
        plan.facts.get_mut("m2").unwrap().clock_ahead = -30.0;
        let m3 = plan.facts.get_mut("m3").unwrap();
        m3.service_known = false;
        m3.wal =
            Some(Directory { path: "/wal/etcd".into(), free: 1 << 20, ..Directory::default() });
        let findings = plan.findings("aarch64");
        let problems = findings.problems.join("\n");
        for part in [
            "m1: held by the run another of cluster prod: ",
            "m1: it is a x86_64",
            "m2: 1099511627776 bytes are free",
            "m3: there is no service etcd",
            "m3: 1048576 bytes are free for /wal/etcd",
        ] {
            assert!(problems.contains(part), "{part} not in\n{problems}");
        }
        assert_eq!(findings.warnings, ["m2: its clock is -30.0 s from ours"]);
    }

    #[test]
    fn a_run_that_can_still_be_taken_back_is_told_of_once_before_its_data_are_replaced() {
        let mut plan = plan();
        let finished = |old: &str| Placed {
            old: Some(old.to_owned()),
            ..Placed::parse("r0 finished of cluster prod, begun T by ops@laptop; finished T")
        };
        plan.facts.get_mut("m1").unwrap().placed = Some(finished("/old/1"));
        plan.facts.get_mut("m2").unwrap().placed = Some(finished("/old/2"));
        plan.facts.get_mut("m3").unwrap().placed = Some(Placed::parse("r0 committed x"));
        let warnings = plan.findings("x86_64").warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        for part in [
            "m1, m2: the data in place are those of run r0 of cluster prod, begun T by ops@laptop; finished T, which was never committed",
            "(m1: /old/1, m2: /old/2)",
            "can no longer be rolled back",
        ] {
            assert!(warnings[0].contains(part), "{part} not in {}", warnings[0]);
        }
        // A replacement touches one host only.
        let member = "m3".to_owned();
        plan.replace = Some(Replace { member, ..Replace::default() });
        assert_eq!(plan.findings("x86_64").warnings, Vec::<String>::new());
    }

    #[test]
    fn where_a_disk_is_missing_nothing_is_made_in_its_place() {
        let problems = |data: Directory| {
            let mut plan = plan();
            plan.facts.get_mut("m2").unwrap().data = Some(data);
            plan.findings("x86_64").problems
        };
        let on = |no_parent: Option<&str>, not_mounted: Option<&str>| Directory {
            path: "/data/etcd/m2".into(),
            no_parent: no_parent.map(PathBuf::from),
            not_mounted: not_mounted.map(PathBuf::from),
            free: 1 << 40,
            ..Directory::default()
        };
        assert_eq!(problems(on(None, None)), [""; 0]);
        assert_eq!(problems(on(Some("/var/lib/etcd"), None)), [""; 0]);
        assert_eq!(
            problems(on(Some("/data/etcd"), None)),
            [
                "m2: /data/etcd is not there: is its disk mounted? If there is no such disk: mkdir -p /data/etcd"
            ]
        );
        assert_eq!(
            problems(on(Some("/data/etcd"), Some("/data"))),
            [
                "m2: nothing is mounted on /data, though /etc/fstab names it: mount it, as /data/etcd/m2 lies there"
            ]
        );
    }

    #[test]
    fn an_etcd_that_data_cannot_be_made_for_is_told_before_anything_is_done() {
        let mut plan = plan();
        for facts in plan.facts.values_mut() {
            facts.etcd_version = Some("3.7.0".to_owned());
        }
        let problems = plan.findings("x86_64").problems;
        assert_eq!(
            problems,
            ["data cannot be made for etcd 3.7.0, which will run: only for 3.4, 3.5 and 3.6"]
        );
    }

    #[test]
    fn a_version_in_the_file_that_is_not_the_one_on_the_hosts_is_refused() {
        let mut plan = plan();
        plan.spec.etcd.version = Some("3.6".parse().unwrap());
        assert_eq!(
            plan.findings("x86_64").problems,
            [
                "etcd.version says 3.6, but etcd on m1, m2, m3 is 3.5.16: data are made for what it says. Correct it, or leave it out"
            ]
        );
        plan.spec.etcd.version = Some("3.5".parse().unwrap());
        assert_eq!(plan.findings("x86_64").problems, [""; 0]);
    }

    #[test]
    fn data_that_another_run_has_set_aside_are_not_told_to_be_missing() {
        let mut plan = plan();
        let facts = plan.facts.get_mut("m2").unwrap();
        facts.data.as_mut().unwrap().filled = false;
        let missing = "m2: there are no old data in /var/lib/my etcd";
        assert!(plan.findings("x86_64").warnings.contains(&missing.to_owned()));
        plan.facts.get_mut("m2").unwrap().lock =
            Some(crate::claim::Claim { run: "r0".to_owned(), ..Default::default() });
        assert!(!plan.findings("x86_64").warnings.contains(&missing.to_owned()));
        let text = crate::runbook::summary(&plan, plan.made);
        assert!(text.contains("run r0 holds the host"), "{text}");
        assert!(text.contains("/var/lib/my etcd.lifeboat-r0"), "{text}");
        assert!(!text.contains("there are no old data"), "{text}");
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
