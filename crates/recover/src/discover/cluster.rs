//! All that was found, made into one description of the cluster.
//!
//! A member's peer URLs are taken from the first of these that has them: the member list of a live member or of
//! the backup (what the cluster itself knows), `--initial-advertise-peer-urls`, the member's own entry in
//! `--initial-cluster`. All of them are compared. kubeadm starts each member with those that were there before it,
//! so lists of different length are no contradiction; different URLs for one name are.

use super::finding::Finding;
use super::host::{HostEtcd, HostReport};
use super::setting::Origin;
use crate::spec::{Backup, ClusterName, Etcd, Host, Member, Spec, Ssh};
use std::collections::{BTreeMap, BTreeSet};

/// What there is to make a spec of.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The cluster's name.
    pub cluster: Option<ClusterName>,
    /// What it shall be brought back from.
    pub backup: Option<Backup>,
    /// How hosts are reached.
    pub ssh: Ssh,
    /// What was found on hosts, in the order in which they were given.
    pub hosts: Vec<HostReport>,
    /// A member list.
    pub known: Option<Known>,
}

/// A member list, and who told it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// As a person would call it: `https://10.0.0.1:2379`, `the backup`.
    pub said_by: String,
    /// The members.
    pub members: Vec<KnownMember>,
}

/// A member, as a member list has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownMember {
    /// Its name; empty if it never started.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// It has no vote.
    pub learner: bool,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Discovery {
    /// The description, as far as it was found.
    pub spec: Spec,
    /// What is missing in it, and what contradicts itself.
    pub findings: Vec<Finding>,
}

/// Makes one description of all sources.
pub fn combine(sources: &Sources) -> Discovery {
    let mut findings: Vec<_> =
        sources.hosts.iter().flat_map(|report| report.findings.clone()).collect();
    let reports = with_hosts_of_members(sources);
    let claims = Claims::of(&reports, sources.known.as_ref());
    let mut hosts: Vec<_> =
        reports.iter().map(|report| host(report, sources, &claims, &mut findings)).collect();
    findings.extend(same_names(&hosts));
    findings.extend(claims.contradictions());
    findings.extend(strangers(&reports, sources.known.as_ref()));
    findings.extend(without_host(&hosts, &claims, sources.known.as_ref()));
    let etcd = hoisted(&mut hosts, &mut findings);
    let clients = shared_clients(&mut hosts);
    let cluster = sources.cluster.clone().unwrap_or_else(|| {
        let hint = "give --cluster; it must be typed before anything is stopped".to_owned();
        findings.insert(0, Finding::NotFound { host: None, what: "the cluster's name", hint });
        ClusterName::default()
    });
    let (backup, ssh) = (sources.backup.clone(), sources.ssh.clone());
    Discovery { spec: Spec { cluster, backup, ssh, etcd, clients, hosts }, findings }
}

impl Discovery {
    /// The description as a file, with what is missing as comments in it.
    pub fn to_yaml(&self) -> String {
        let with = commented(&self.spec, &self.findings);
        let same = Spec::parse(&with).is_ok_and(|spec| spec == self.spec);
        // Comments may only stand where they change nothing.
        if same { with } else { comments(&self.findings, "") + &self.spec.to_yaml() }
    }
}

/// The hosts that were looked at; without any, those of the members' URLs.
fn with_hosts_of_members(sources: &Sources) -> Vec<HostReport> {
    let mut reports = sources.hosts.clone();
    if reports.is_empty() {
        let members = sources.known.iter().flat_map(|known| &known.members);
        let hosts = members.filter_map(|member| host_of_url(member.peer_urls.first()?));
        reports.extend(hosts.map(|host| HostReport { host, ..HostReport::default() }));
    }
    reports
}

/// The host of a URL, without port and brackets.
pub fn host_of_url(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    let host = url.host_str()?;
    Some(host.trim_matches(['[', ']']).to_owned())
}

/// One host of the description.
fn host(
    report: &HostReport,
    sources: &Sources,
    claims: &Claims,
    findings: &mut Vec<Finding>,
) -> Host {
    let known = known_member(report, sources.known.as_ref());
    if let Some(member) = known.filter(|member| member.learner) {
        findings.push(Finding::Learner { name: member.name.clone() });
    }
    let member = match (&report.etcd, known) {
        (Some(etcd), _) => Some(member_of(etcd, known, report, sources, claims, findings)),
        (None, Some(known)) => Some(Member {
            name: known.name.clone(),
            peer_urls: known.peer_urls.clone(),
            client_urls: known.client_urls.clone(),
        }),
        (None, None) => None,
    };
    // Of a host that nobody looked at, nothing is known but its member.
    let looked_at = sources.hosts.iter().any(|looked| looked.host == report.host);
    if !looked_at {
        let hint = "nobody looked at the host: etcd.data-dir, service, certificates, clients";
        let (host, hint) = (Some(report.host.clone()), hint.to_owned());
        findings.push(Finding::NotFound { host, what: "how etcd runs", hint });
    }
    Host {
        host: report.host.clone(),
        member,
        ssh: Ssh::default(),
        etcd: report.etcd.as_ref().map(etcd_of).unwrap_or_default(),
        clients: looked_at.then(|| report.clients.clone()),
    }
}

/// The member of a list that runs on a host: by name, else by the host of its URLs.
fn known_member<'a>(report: &HostReport, known: Option<&'a Known>) -> Option<&'a KnownMember> {
    let members = &known?.members;
    let name = report.etcd.as_ref().map(|etcd| etcd.config.name());
    let named = members.iter().find(|member| name == Some(&member.name));
    let is_here = |url: &String| {
        host_of_url(url).is_some_and(|host| host == report.host || host == report.hostname)
    };
    let placed = || {
        let mut members = members.iter();
        members.find(|member| member.peer_urls.iter().chain(&member.client_urls).any(is_here))
    };
    // An etcd with another name than the list's at this address is another member: that is told elsewhere.
    if name.is_some() { named } else { placed() }
}

fn member_of(
    etcd: &HostEtcd,
    known: Option<&KnownMember>,
    report: &HostReport,
    sources: &Sources,
    claims: &Claims,
    findings: &mut Vec<Finding>,
) -> Member {
    let config = &etcd.config;
    let name = config.name().to_owned();
    let cluster = config.initial_cluster();
    if !cluster.is_empty() && cluster.iter().all(|(listed, _)| *listed != name) {
        let (host, name) = (report.host.clone(), name.clone());
        findings.push(Finding::NotInItsCluster { host, name });
    }
    let peer_urls = claims.taken(&name).unwrap_or_else(|| {
        if sources.hosts.len() > 1 {
            let hint = "neither --initial-advertise-peer-urls nor --initial-cluster is set; etcd's default reaches nobody";
            let (host, hint) = (Some(report.host.clone()), hint.to_owned());
            findings.push(Finding::NotFound { host, what: "peer-urls", hint });
        }
        config.peer_urls()
    });
    let listed = known.map(|member| member.client_urls.clone()).filter(|urls| !urls.is_empty());
    Member { name, peer_urls, client_urls: listed.unwrap_or_else(|| config.client_urls()) }
}

fn etcd_of(etcd: &HostEtcd) -> Etcd {
    let minor = |version: &String| {
        let (minor, _) = version.rsplit_once('.')?;
        minor.parse().ok()
    };
    Etcd {
        data_dir: etcd.data_dir.clone(),
        wal_dir: etcd.wal_dir.clone(),
        owner: etcd.owner.as_ref().and_then(|owner| owner.parse().ok()),
        service: etcd.service.clone(),
        certificates: etcd.certificates.clone(),
        server_certificate: None,
        user: None,
        password_file: None,
        version: etcd.version.as_ref().and_then(minor),
    }
}

/// Who says which peer URLs of whom; what counts more comes first.
#[derive(Default)]
struct Claims(BTreeMap<String, Vec<(String, BTreeSet<String>)>>);

impl Claims {
    fn of(reports: &[HostReport], known: Option<&Known>) -> Self {
        let mut claims = Self::default();
        if let Some(known) = known {
            for member in &known.members {
                claims.add(&member.name, &known.said_by, member.peer_urls.clone());
            }
        }
        let etcds = reports.iter().filter_map(|report| Some((report, report.etcd.as_ref()?)));
        for (report, etcd) in etcds.clone() {
            let config = &etcd.config;
            if config.origin("initial-advertise-peer-urls") != Origin::Default {
                claims.add(config.name(), &report.host, config.peer_urls());
            }
        }
        for (report, etcd) in etcds {
            let place = format!("initial-cluster of {}", report.host);
            let mut listed: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (name, url) in etcd.config.initial_cluster() {
                listed.entry(name).or_default().push(url);
            }
            for (name, urls) in listed {
                claims.add(&name, &place, urls);
            }
        }
        claims
    }

    fn add(&mut self, name: &str, place: &str, urls: Vec<String>) {
        let urls: BTreeSet<_> =
            urls.into_iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        if !name.is_empty() && !urls.is_empty() {
            self.0.entry(name.to_owned()).or_default().push((place.to_owned(), urls));
        }
    }

    fn taken(&self, name: &str) -> Option<Vec<String>> {
        let (_, urls) = self.0.get(name)?.first()?;
        Some(urls.iter().cloned().collect())
    }

    fn contradictions(&self) -> Vec<Finding> {
        let differ = |claims: &&Vec<(String, BTreeSet<String>)>| {
            claims.iter().any(|(_, urls)| *urls != claims[0].1)
        };
        let different = self.0.iter().filter(|(_, claims)| differ(claims));
        different
            .map(|(name, claims)| {
                let said = claims.iter().map(|(place, urls)| {
                    (place.clone(), urls.iter().cloned().collect::<Vec<_>>().join(","))
                });
                Finding::UrlsDiffer { name: name.clone(), said: said.collect() }
            })
            .collect()
    }
}

fn same_names(hosts: &[Host]) -> Vec<Finding> {
    let mut named: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for host in hosts {
        if let Some(member) = &host.member {
            named.entry(&member.name).or_default().push(host.host.clone());
        }
    }
    let same = named.into_iter().filter(|(_, hosts)| hosts.len() > 1);
    same.map(|(name, hosts)| Finding::SameName { name: name.to_owned(), hosts }).collect()
}

/// Members on hosts that the member list does not have.
fn strangers(reports: &[HostReport], known: Option<&Known>) -> Vec<Finding> {
    let Some(known) = known else { return Vec::new() };
    let listed = |name: &str| known.members.iter().any(|member| member.name == name);
    let names = reports.iter().filter_map(|r| Some((r, r.etcd.as_ref()?.config.name())));
    names
        .filter(|(_, name)| !listed(name))
        .map(|(report, name)| Finding::NotListed {
            host: report.host.clone(),
            name: name.to_owned(),
            said_by: known.said_by.clone(),
        })
        .collect()
}

/// Members that are known, but run on no host that was given.
fn without_host(hosts: &[Host], claims: &Claims, known: Option<&Known>) -> Vec<Finding> {
    let here = |name: &str| {
        hosts.iter().filter_map(|host| host.member.as_ref()).any(|member| member.name == name)
    };
    // A member list is newer than what members were once started with.
    let counts = |name: &str| {
        known.is_none_or(|known| known.members.iter().any(|member| member.name == name))
    };
    let missing = claims.0.iter().filter(|(name, _)| counts(name) && !here(name));
    missing
        .map(|(name, claims)| Finding::WithoutHost {
            name: name.clone(),
            urls: claims[0].1.iter().cloned().collect(),
            said_by: claims[0].0.clone(),
        })
        .collect()
}

/// Takes from the hosts what is the same on all of them, so that it is said once.
fn hoisted(hosts: &mut [Host], findings: &mut Vec<Finding>) -> Etcd {
    let mut shared = Etcd::default();
    let mut ours: Vec<_> = hosts.iter_mut().filter(|host| host.member.is_some()).collect();
    macro_rules! hoist {
        ($($field:ident),*) => {$(
            let first = ours.first().and_then(|host| host.etcd.$field.clone());
            if first.is_some() && ours.iter().all(|host| host.etcd.$field == first) {
                ours.iter_mut().for_each(|host| host.etcd.$field = None);
                shared.$field = first;
            }
        )*};
    }
    hoist!(data_dir, wal_dir, owner, service, certificates, version);
    // One version is restored for all.
    let versions: BTreeSet<_> = ours.iter_mut().filter_map(|h| h.etcd.version.take()).collect();
    if shared.version.is_none() {
        if versions.len() > 1 {
            findings.push(Finding::VersionsDiffer {
                versions: versions.iter().map(ToString::to_string).collect(),
            });
        }
        // The oldest reads what the others read; versions up to 3.9 sort as text.
        shared.version = versions.into_iter().next();
    }
    shared
}

/// Takes the clients from the hosts if they are the same on all of them.
fn shared_clients(hosts: &mut [Host]) -> Vec<crate::spec::Client> {
    let first = hosts.first().and_then(|host| host.clients.clone());
    if !hosts.iter().all(|host| host.clients == first) {
        return Vec::new();
    }
    hosts.iter_mut().for_each(|host| host.clients = None);
    first.unwrap_or_default()
}

/// The file: comments about all of it at its head, those about one host above that.
fn commented(spec: &Spec, findings: &[Finding]) -> String {
    let of_hosts: BTreeSet<_> = spec.hosts.iter().map(|host| host.host.as_str()).collect();
    let (of_one, of_all): (Vec<_>, Vec<_>) = findings
        .iter()
        .cloned()
        .partition(|finding| finding.host().is_some_and(|host| of_hosts.contains(host)));
    let mut out = comments(&of_all, "");
    let mut hosts = spec.hosts.iter();
    for line in spec.to_yaml().lines() {
        let bare = line.trim_start();
        if matches!(bare, "ssh: {}" | "etcd: {}" | "clients: []") {
            // Empty is what it is if it is not said; but a host without clients says so.
            if !(bare == "clients: []" && line.starts_with(' ')) {
                continue;
            }
        }
        if bare.starts_with("- host: ")
            && let Some(host) = hosts.next()
        {
            let its: Vec<_> =
                of_one.iter().filter(|f| f.host() == Some(&host.host)).cloned().collect();
            out += &comments(&its, &line[..line.len() - bare.len()]);
        }
        out += line;
        out.push('\n');
    }
    out
}

fn comments(findings: &[Finding], indent: &str) -> String {
    let line = |finding: &Finding| {
        let text = finding.to_string().replace(char::is_control, " ");
        let mark = match finding {
            Finding::NotFound { .. } => "",
            _ if finding.is_refusal() => "REFUSED: ",
            _ if finding.is_contradiction() => "CONTRADICTION: ",
            _ => "note: ",
        };
        format!("{indent}# {mark}{text}\n")
    };
    findings.iter().map(line).collect()
}

#[cfg(test)]
mod tests;
