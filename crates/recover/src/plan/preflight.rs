//! What speaks against a plan, as far as the hosts tell: looked at before anything is stopped.

use super::{
    Plan,
    other_runs::{HeldHosts, other_runs},
};
use crate::{
    facts::{self, Facts},
    replace::minor,
    shell::quote_path,
    spec::{Resolved, Service},
};
use restore::TargetVersion;
use std::collections::BTreeMap;

/// Clocks that differ by more are told: etcd warns at one second.
const CLOCK_SECONDS: f64 = 1.0;
/// Certificates that end sooner are told.
const CERTIFICATE_SECONDS: i64 = 7 * 86_400;
/// Where packages keep the data of what they install: a folder that is missing here is made.
const DATA_OF_PACKAGES: &str = "/var/lib";
/// What etcd writes first beside the database: two WAL segments of 64 MB.
const WAL_BYTES: u64 = 160 << 20;

/// What preflight has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Hosts that other runs hold: nothing can be done before these have ended.
    pub held: Vec<HeldHosts>,
    /// Nothing can be done before these are put right.
    pub problems: Vec<String>,
    /// To know.
    pub warnings: Vec<String>,
}

impl Plan {
    /// What speaks against it, as far as the hosts tell.
    pub fn findings(&self, machine: &str) -> Findings {
        let mut findings = Findings::default();
        other_runs(self, &mut findings);
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

    /// The members of which nobody tells the version of etcd, so that what is said cannot be compared with it.
    pub(crate) fn not_compared(&self) -> Vec<String> {
        let said = self.spec.etcd.version.is_some() && self.replace.is_none();
        let hosts = self.hosts().into_iter().filter(|host| said && host.member.is_some());
        let unknown = hosts.filter(|host| self.facts(host).etcd_version.is_none());
        unknown.map(|host| host.label).collect()
    }

    fn check_host(&self, host: &Resolved, machine: &str, findings: &mut Findings) {
        let (facts, label) = (self.facts(host), &host.label);
        let mut problem = |text: String| findings.problems.push(format!("{label}: {text}"));
        if !facts.root {
            let user = host.ssh.user.as_deref().unwrap_or("the user of ssh");
            problem(match host.ssh.sudo {
                Some(false) => format!(
                    "{user} is not root there: set `ssh.user: root`, or `ssh.sudo: true` if that user may run sudo without a password"
                ),
                _ => "commands do not run as root, though by sudo".to_owned(),
            });
        }
        for missing in &facts.missing_commands {
            let (which, program) = missing.split_once(' ').unwrap_or(("", missing));
            problem(format!(
                "{program}, which command.{which} begins with, is not there or may not be executed"
            ));
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
        let is_left = self.replace.as_ref().is_some_and(|replace| replace.member != *label);
        let elsewhere = facts.data_elsewhere.as_ref().filter(|_| facts.service_running && !is_left);
        if let Some(other) = elsewhere {
            problem(facts::told_elsewhere(other, host) + ": correct etcd.data-dir");
        }
        if self.gets_data(host) {
            check_parents(facts, &mut problem);
            check_whose(facts, &mut problem);
            for unknown in &facts.unknown_owners {
                problem(format!("there is no {unknown}, which etcd.owner names"));
            }
        }
        if host.member.is_some() && !facts.service_known {
            problem(match &host.service {
                Service::StaticPod(manifest) => format!("{} is not there", manifest.display()),
                service => format!("there is no service {}", service.name()),
            });
        }
        // On the member's host its snapshot lies too, for a while.
        let copies = u64::from(self.gets_data(host)) + u64::from(self.is_source(host));
        if copies > 0 {
            self.check_space(facts, copies, &mut problem);
        }
        let own_name = host.member.as_ref().zip(facts.etcd_name.as_ref());
        if let Some((member, name)) = own_name.filter(|(member, name)| member.name != **name) {
            findings.warnings.push(format!(
                "{label}: etcd there calls itself {name}, but the cluster's file calls it {}",
                member.name
            ));
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
            let mut told = format!("{label}: there are no old data in {}", host.data_dir.display());
            let beside = facts.data.iter().flat_map(|data| &data.beside);
            let beside: Vec<_> = beside.map(String::as_str).collect();
            if !beside.is_empty() {
                told += &format!(
                    ", but beside it lie {}: was a run cut off, whose ssh.state-dir was another? Then `lifeboat recover adopt` with that one finds it",
                    beside.join(", ")
                );
            }
            // Nobody but a run in its middle leaves it so.
            if beside.iter().any(|name| name.ends_with(".new")) {
                findings.problems.push(told);
                return;
            }
            findings.warnings.push(told);
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
}

/// A folder is renamed as a whole, so it is to have nothing but etcd's data.
fn check_whose(facts: &Facts, problem: &mut dyn FnMut(String)) {
    for found in [&facts.data, &facts.wal].into_iter().flatten() {
        let path = found.path.display();
        match &found.foreign {
            _ if found.no_folder => problem(format!("{path} is no folder")),
            Some(foreign) => problem(format!(
                "{path} has {foreign:?} in it, and nothing of etcd's: name the folder with etcd's data, or an empty one, as it is renamed with all that is in it"
            )),
            None => {}
        }
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
mod tests {
    use super::*;
    use crate::{claim::Claim, facts::Directory, plan::tests::plan, summary};
    use std::path::PathBuf;

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
        assert_eq!(findings.held[0].hosts, ["m1"]);
        assert_eq!(findings.held[0].claim.to_string(), "another of cluster prod");
        let problems = findings.problems.join("\n");
        for part in [
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
    fn what_is_misspelt_in_the_file_is_told_before_anything_is_stopped() {
        let mut plan = plan();
        let m1 = plan.facts.get_mut("m1").unwrap();
        (m1.root, m1.missing_commands) = (false, vec!["start start-etdc".to_owned()]);
        let m2 = plan.facts.get_mut("m2").unwrap();
        m2.data_elsewhere = Some("/data/etcd".into());
        m2.etcd_name = Some("infra2".to_owned());
        m2.root = false;
        plan.spec.hosts[1].ssh.sudo = Some(false);
        let elsewhere = "m2: the etcd that runs there has its data in /data/etcd, not in /var/lib/my etcd: correct etcd.data-dir";
        let findings = plan.findings("x86_64");
        assert!(!findings.problems.iter().any(|problem| problem == elsewhere), "it does not run");
        assert!(findings.warnings[0].contains("calls itself infra2"), "{:?}", findings.warnings);
        plan.facts.get_mut("m2").unwrap().service_running = true;
        let problems = plan.findings("x86_64").problems;
        assert_eq!(
            problems,
            [
                "m1: commands do not run as root, though by sudo",
                "m1: start-etdc, which command.start begins with, is not there or may not be executed",
                "m2: admin is not root there: set `ssh.user: root`, or `ssh.sudo: true` if that user may run sudo without a password",
                elsewhere,
            ]
        );
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
    fn a_folder_of_somebody_else_is_not_set_aside() {
        let mut plan = plan();
        let data = plan.facts.get_mut("m2").unwrap().data.as_mut().unwrap();
        (data.path, data.filled, data.foreign) = ("/srv/www".into(), false, Some("a".to_owned()));
        let problems = plan.findings("x86_64").problems;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("m2: /srv/www has \"a\" in it"), "{problems:?}");
        plan.facts.get_mut("m2").unwrap().data.as_mut().unwrap().no_folder = true;
        assert_eq!(plan.findings("x86_64").problems, ["m2: /srv/www is no folder"]);
    }

    #[test]
    fn what_another_run_has_left_is_told_where_there_are_no_old_data() {
        let mut plan = plan();
        let data = plan.facts.get_mut("m2").unwrap().data.as_mut().unwrap();
        (data.filled, data.beside) = (false, vec!["etcd.lifeboat-r0".to_owned()]);
        let warnings = plan.findings("x86_64").warnings;
        let told =
            "m2: there are no old data in /var/lib/my etcd, but beside it lie etcd.lifeboat-r0";
        assert!(warnings[0].starts_with(told), "{warnings:?}");
        let data = plan.facts.get_mut("m2").unwrap().data.as_mut().unwrap();
        data.beside.push("etcd.lifeboat-r0.new".to_owned());
        let problems = plan.findings("x86_64").problems;
        assert!(problems[0].starts_with(told), "{problems:?}");
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
    fn a_version_that_can_be_compared_with_nothing_is_told_in_the_plan() {
        let mut plan = plan();
        plan.spec.etcd.version = Some("3.5".parse().unwrap());
        let told = |plan: &Plan| summary(plan, plan.made);
        assert!(!told(&plan).contains("not compared"), "{}", told(&plan));
        for member in ["m1", "m3"] {
            plan.facts.get_mut(member).unwrap().etcd_version = None;
        }
        let line = "\n            not compared: which etcd m1, m3 run is not known";
        assert!(told(&plan).contains(line), "{}", told(&plan));
        plan.spec.etcd.version = None;
        assert!(!told(&plan).contains("not compared"), "{}", told(&plan));
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
}
