//! One host: which etcd it runs, how, and what uses it; from what was gathered there.
//!
//! ```text
//!   units ───────┐                        ┌─ the one that counts ─▶ name, URLs, directories, certificates
//!   static pods ─┼─▶ etcds, compared with ┤
//!   processes ───┘   what runs            └─ the others are named
//! ```
//!
//! What would start counts more than what runs: a recovery starts it anew. Where the two differ, that is told.

use super::finding::{Finding, Platform};
use super::gather::{Facts, Gathered, Process};
use super::pod::Pod;
use super::setting::{EtcdConfig, SettingError, Variable};
use super::shell;
use super::systemd::Unit;
use crate::spec::{Certificates, Client, Service};
use std::path::{Path, PathBuf};

/// What is known of a host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostReport {
    /// As it was given.
    pub host: String,
    /// What it calls itself.
    pub hostname: String,
    /// Its etcd.
    pub etcd: Option<HostEtcd>,
    /// What uses etcd there, in the order in which it is stopped and started.
    pub clients: Vec<Client>,
    /// What a person must know.
    pub findings: Vec<Finding>,
    /// Files and directories that turned out to matter after the script had run.
    pub wanted: Vec<String>,
}

/// An etcd of a host. Paths are those of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostEtcd {
    /// What a person calls it: `etcd.service`, `/etc/kubernetes/manifests/etcd.yaml`.
    pub title: String,
    /// How it is started and stopped; none if only a process was seen.
    pub service: Option<Service>,
    /// All its settings.
    pub config: EtcdConfig,
    /// Its data directory; none if it is in no directory of the host.
    pub data_dir: Option<PathBuf>,
    /// Its WAL directory, if that is apart.
    pub wal_dir: Option<PathBuf>,
    /// `USER:GROUP` of the data, where the service says so and no data is there to tell.
    pub owner: Option<String>,
    /// What a client on the host uses, if etcd has TLS.
    pub certificates: Option<Certificates>,
    /// Whether those are the server's own.
    pub server_certificate: bool,
    /// Its version, `3.5.12`.
    pub version: Option<String>,
    /// Whether it runs.
    pub running: bool,
    /// Whether it would be started by itself.
    pub enabled: bool,
}

/// Says what a host runs.
pub fn examine(host: &str, gathered: &Gathered) -> HostReport {
    let mut report = HostReport {
        host: host.to_owned(),
        hostname: gathered.system.get("hostname").unwrap_or_default().to_owned(),
        ..HostReport::default()
    };
    let platforms = gathered.system.all("platform").filter_map(Platform::by_name);
    let embedded = platforms.map(|platform| Finding::Embedded { host: host.to_owned(), platform });
    report.findings.extend(embedded);
    let mut etcds = of_units(gathered, &mut report);
    etcds.extend(of_pods(gathered, &mut report));
    compare_with_processes(gathered, &mut etcds, &mut report);
    report.choose(etcds, gathered);
    report.clients = clients(gathered);
    report
}

impl HostReport {
    fn note(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    fn unreadable(&mut self, error: &SettingError) {
        if let SettingError::NoFile { path } = error {
            self.wanted.push(path.clone());
        }
        let why = match error {
            SettingError::NoFile { .. } => error.to_string(),
            SettingError::File { source, .. } => format!("{error}: {source}"),
        };
        self.note(Finding::Unreadable { host: self.host.clone(), why });
    }

    /// Takes the etcd that counts, and names the others.
    fn choose(&mut self, mut etcds: Vec<HostEtcd>, gathered: &Gathered) {
        etcds.sort_by_key(|etcd| std::cmp::Reverse(etcd.weight(gathered)));
        // An alias is the same unit under another name.
        let mut seen: Vec<HostEtcd> = Vec::new();
        for etcd in etcds {
            let same = |other: &&HostEtcd| {
                other.data_dir == etcd.data_dir && other.config.name() == etcd.config.name()
            };
            if seen.iter().find(same).is_none() {
                seen.push(etcd);
            }
        }
        let mut seen = seen.into_iter();
        let Some(mut taken) = seen.next() else {
            if self.findings.iter().all(|finding| !finding.is_refusal()) {
                self.missing("etcd", "no unit, static pod or process of it is there");
            }
            return;
        };
        // A package that is installed and not used is no etcd.
        let in_use = |etcd: &HostEtcd| etcd.running || etcd.enabled || etcd.has_data(gathered);
        let others: Vec<_> = seen.filter(in_use).map(|etcd| etcd.title).collect();
        if !others.is_empty() {
            let (host, taken) = (self.host.clone(), taken.title.clone());
            self.note(Finding::Several { host, taken, others });
        }
        if taken.has_data(gathered) {
            // The data themselves tell their owner.
            taken.owner = None;
        }
        self.check(&taken, gathered);
        self.etcd = Some(taken);
    }

    /// Names what is not known of the etcd that was taken.
    fn check(&mut self, etcd: &HostEtcd, gathered: &Gathered) {
        if etcd.service.is_none() {
            let hint = format!("{} was started by hand: give service.command", etcd.title);
            self.missing("how etcd is started", &hint);
        }
        match &etcd.data_dir {
            None => {
                let hint = format!("{} is in no directory of the host", etcd.config.data_dir());
                self.missing("data-dir", &hint);
            }
            Some(dir) if !gathered.directories.contains_key(&dir.display().to_string()) => {
                self.wanted.push(dir.display().to_string());
            }
            Some(_) => {}
        }
        let tls = etcd.config.client_urls().iter().any(|url| url.starts_with("https:"));
        match &etcd.certificates {
            None if tls => self.missing("certificates", "etcd speaks TLS"),
            Some(Certificates { ca: None, .. }) => {
                self.missing("certificates.ca", "the CA that signed etcd's certificate");
            }
            _ => {}
        }
        if etcd.server_certificate {
            self.note(Finding::ServerCertificate { host: self.host.clone() });
        }
    }

    fn missing(&mut self, what: &'static str, hint: &str) {
        let host = Some(self.host.clone());
        self.note(Finding::NotFound { host, what, hint: hint.to_owned() });
    }
}

impl HostEtcd {
    /// How likely it is the one that is meant.
    fn weight(&self, gathered: &Gathered) -> u32 {
        let data = self.has_data(gathered);
        let usual = self.title == "etcd.service";
        [self.running, data, self.enabled, usual].iter().fold(0, |w, is| w * 2 + u32::from(*is))
    }

    fn has_data(&self, gathered: &Gathered) -> bool {
        let dir = self.data_dir.as_ref().map(|dir| dir.display().to_string());
        let facts = dir.and_then(|dir| gathered.directories.get(&dir));
        facts.is_some_and(|facts| facts.get("member").is_some())
    }
}

/// etcds that systemd would start.
fn of_units(gathered: &Gathered, report: &mut HostReport) -> Vec<HostEtcd> {
    let mut etcds = Vec::new();
    for (name, text) in &gathered.units {
        let unit = Unit::parse(name, &report.hostname, text);
        let read = |path: &str| gathered.files.get(path).cloned();
        let variables = unit.variables(read);
        let commands = unit.commands(&variables);
        let direct = commands.iter().find_map(|command| shell::etcd_of(command, &variables));
        let command = match (direct, commands.first()) {
            (Some(command), _) => command,
            (None, Some(command)) if is_wrapper(command, &variables) => {
                let (host, unit) = (report.host.clone(), name.clone());
                let program = command[0].clone();
                report.note(Finding::Wrapped { host, unit, program });
                command.clone()
            }
            _ => continue,
        };
        match EtcdConfig::resolve(&command[1..], name, &variables, read) {
            Ok(config) => etcds.push(of_unit(gathered, &unit, &command, &variables, config)),
            Err(error) => report.unreadable(&error),
        }
    }
    etcds
}

/// A program that is not etcd, but is told what etcd must be told.
fn is_wrapper(command: &[String], variables: &[Variable]) -> bool {
    let told = |name: &str| Variable::last(variables, name).is_some();
    let flags = ["--data-dir", "--initial-cluster", "--listen-client-urls"];
    let flagged = command.iter().any(|word| flags.iter().any(|flag| word.starts_with(flag)));
    flagged || (told("ETCD_DATA_DIR") && told("ETCD_NAME") && command[0].contains("etcd"))
}

fn of_unit(
    gathered: &Gathered,
    unit: &Unit,
    command: &[String],
    variables: &[Variable],
    config: EtcdConfig,
) -> HostEtcd {
    let folder = unit.working_directory.as_deref().unwrap_or("/");
    let on_host = |path: &str| Some(Path::new(folder).join(path));
    let state = gathered.states.get(&unit.name);
    let is = |key: &str, value: &str| state.and_then(|facts| facts.get(key)) == Some(value);
    let user = unit.user.as_ref();
    let group = unit.group.as_ref().or(user);
    let (certificates, server_certificate) = certificates(gathered, &config, variables, &on_host);
    HostEtcd {
        service: Some(Service::Systemd(
            unit.name.strip_suffix(".service").unwrap_or(&unit.name).to_owned(),
        )),
        data_dir: on_host(&config.data_dir()),
        wal_dir: config.wal_dir().and_then(on_host),
        owner: user.zip(group).map(|(user, group)| format!("{user}:{group}")),
        certificates,
        server_certificate,
        version: gathered.version_of(&command[0]).map(str::to_owned),
        running: is("ActiveState", "active") || is("ActiveState", "activating"),
        enabled: is("UnitFileState", "enabled"),
        title: unit.name.clone(),
        config,
    }
}

/// etcds that kubelet would start.
fn of_pods(gathered: &Gathered, report: &mut HostReport) -> Vec<HostEtcd> {
    let mut etcds = Vec::new();
    for (path, text) in &gathered.files {
        let in_folder = |end| path.contains("/manifests/") && path.ends_with(end);
        // Whatever else is in kubelet's folder is not shown; a config file of etcd has no containers.
        if !in_folder(".yaml")
            && !in_folder(".yml")
            && !in_folder(".json")
            && !text.contains("containers:")
        {
            continue;
        }
        let pod = match Pod::parse(path, text) {
            Ok(Some(pod)) => pod,
            Ok(None) => continue,
            Err(error) => {
                let why = format!("{path} cannot be understood: {error}");
                report.note(Finding::Unreadable { host: report.host.clone(), why });
                continue;
            }
        };
        if pod.namespace == "openshift-etcd" {
            let (host, platform) = (report.host.clone(), Platform::OpenShift);
            let finding = Finding::Embedded { host, platform };
            if !report.findings.contains(&finding) {
                report.note(finding);
            }
            continue;
        }
        etcds.extend(of_pod(gathered, path, &pod, report));
    }
    etcds
}

fn of_pod(gathered: &Gathered, path: &str, pod: &Pod, report: &mut HostReport) -> Option<HostEtcd> {
    let command = shell::etcd_of(&pod.command, &pod.variables)
        .unwrap_or_else(|| [vec!["etcd".to_owned()], pod.command.clone()].concat());
    let on_host = |path: &str| pod.on_host(Path::new(path));
    let read = |path: &str| gathered.files.get(&on_host(path)?.display().to_string()).cloned();
    let config = match EtcdConfig::resolve(&command[1..], path, &pod.variables, read) {
        Ok(config) => config,
        Err(error) => {
            report.unreadable(&error);
            return None;
        }
    };
    let (certificates, server_certificate) =
        certificates(gathered, &config, &pod.variables, &on_host);
    Some(HostEtcd {
        title: path.to_owned(),
        service: Some(Service::StaticPod(path.into())),
        data_dir: on_host(&config.data_dir()),
        wal_dir: config.wal_dir().and_then(on_host),
        owner: None,
        certificates,
        server_certificate,
        version: pod.version().map(str::to_owned),
        running: false,
        enabled: true,
        config,
    })
}

/// What a client on the host uses, and whether it is the server's.
fn certificates(
    gathered: &Gathered,
    config: &EtcdConfig,
    variables: &[Variable],
    on_host: &dyn Fn(&str) -> Option<PathBuf>,
) -> (Option<Certificates>, bool) {
    let tls = config.client_tls();
    let ca = tls.ca.as_deref().and_then(on_host);
    let (cert, key) = (tls.cert.as_deref().and_then(on_host), tls.key.as_deref().and_then(on_host));
    if cert.is_none() && !tls.auto {
        return (None, false);
    }
    // Installers leave etcdctl's settings beside etcd's.
    let told = |name: &str| Variable::last(variables, name).map(|v| PathBuf::from(&v.value));
    if let Some((cert, key)) = told("ETCDCTL_CERT").zip(told("ETCDCTL_KEY")) {
        let ca = told("ETCDCTL_CACERT").or(ca);
        return (Some(Certificates { ca, cert: Some(cert), key: Some(key) }), false);
    }
    let usable = cert.as_ref().and_then(|server| client_certificate(gathered, server));
    match usable {
        Some((cert, Some(key))) => {
            (Some(Certificates { ca, cert: Some(cert), key: Some(key) }), false)
        }
        // The server's own may be used as a client's.
        Some((_, None)) => (Some(Certificates { ca, cert, key }), false),
        None => {
            let server = cert.is_some();
            (Some(Certificates { ca, cert, key }), server)
        }
    }
}

/// A certificate that etcd takes from a client: one beside the server's, by the same issuer, that is for clients
/// only; with its key. Else the server's own, without a key, if it is for clients too.
fn client_certificate(gathered: &Gathered, server: &Path) -> Option<(PathBuf, Option<PathBuf>)> {
    let own = gathered.certificates.get(&server.display().to_string())?;
    let uses = |facts: &Facts, what: &str| facts.all("use").any(|is| is == what);
    let for_clients = |(path, facts): &(&String, &Facts)| {
        Path::new(path).parent() == server.parent()
            && facts.get("issuer") == own.get("issuer")
            && facts.get("key").is_some()
            && uses(facts, "client")
            && !uses(facts, "server")
    };
    let beside: Vec<_> = gathered.certificates.iter().filter(for_clients).collect();
    let named = beside.iter().find(|(path, _)| path.contains("client")).or(beside.first());
    if let Some((path, facts)) = named {
        return Some((path.into(), facts.get("key").map(PathBuf::from)));
    }
    let any_use = own.get("use").is_none();
    (any_use || uses(own, "client")).then(|| (server.to_owned(), None))
}

/// Marks what runs, and adds what runs without a unit or a pod.
fn compare_with_processes(gathered: &Gathered, etcds: &mut Vec<HostEtcd>, report: &mut HostReport) {
    for (pid, process) in &gathered.processes {
        let variables: Vec<_> = process
            .environment
            .iter()
            .filter_map(|line| Variable::parse(line, &format!("process {pid}")))
            .collect();
        let read = |path: &str| gathered.files.get(path).cloned();
        let arguments = process.command.get(1..).unwrap_or_default();
        let place = format!("process {pid}");
        let config = EtcdConfig::resolve(arguments, &place, &variables, read);
        let owner = etcds.iter_mut().find(|etcd| {
            process.belongs_to(etcd)
                || config.as_ref().is_ok_and(|c| c.name() == etcd.config.name())
        });
        match (owner, config) {
            (Some(etcd), Ok(config)) => {
                etcd.running = true;
                report.findings.extend(differences(&report.host, etcd, &config));
            }
            (Some(etcd), Err(_)) => etcd.running = true,
            (None, Ok(config)) => etcds.push(process.etcd(gathered, pid, config, &variables)),
            // In a container whose files are not the host's.
            (None, Err(error)) => report.unreadable(&error),
        }
    }
}

/// What an etcd that runs was told otherwise than it would be told now.
fn differences(host: &str, etcd: &HostEtcd, running: &EtcdConfig) -> Vec<Finding> {
    let settings: [(&'static str, String, String); 4] = [
        ("name", running.name().to_owned(), etcd.config.name().to_owned()),
        ("data-dir", running.data_dir(), etcd.config.data_dir()),
        (
            "wal-dir",
            running.wal_dir().unwrap_or("none").to_owned(),
            etcd.config.wal_dir().unwrap_or("none").to_owned(),
        ),
        (
            "initial-advertise-peer-urls",
            running.peer_urls().join(","),
            etcd.config.peer_urls().join(","),
        ),
    ];
    let different = settings.into_iter().filter(|(_, running, configured)| running != configured);
    different
        .map(|(setting, running, configured)| Finding::RunningDiffers {
            host: host.to_owned(),
            setting,
            running,
            configured,
        })
        .collect()
}

impl Process {
    /// Whether its control group is that of the service.
    fn belongs_to(&self, etcd: &HostEtcd) -> bool {
        self.about.all("cgroup").any(|group| match &etcd.service {
            Some(Service::Systemd(unit)) => group.ends_with(&format!("/{unit}.service")),
            Some(Service::StaticPod(_)) => group.contains("kubepods"),
            _ => false,
        })
    }

    fn etcd(
        &self,
        gathered: &Gathered,
        pid: &str,
        config: EtcdConfig,
        variables: &[Variable],
    ) -> HostEtcd {
        let folder = self.about.get("cwd").unwrap_or("/");
        let on_host = |path: &str| Some(Path::new(folder).join(path));
        let (certificates, server_certificate) =
            certificates(gathered, &config, variables, &on_host);
        HostEtcd {
            title: format!("process {pid}"),
            service: None,
            data_dir: on_host(&config.data_dir()),
            wal_dir: config.wal_dir().and_then(on_host),
            owner: None,
            certificates,
            server_certificate,
            version: self
                .about
                .get("exe")
                .and_then(|exe| gathered.version_of(exe))
                .map(str::to_owned),
            running: true,
            enabled: false,
            config,
        }
    }
}

/// Kubernetes' own users of etcd, the apiserver first: the others want it when they start.
fn clients(gathered: &Gathered) -> Vec<Client> {
    let mut clients = Vec::new();
    for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"] {
        let is_manifest = |(path, _): &&(String, String)| {
            path.rsplit('/').next().is_some_and(|file| file.starts_with(&format!("{name}.")))
                && path.starts_with('/')
        };
        let pod = gathered.manifests.iter().find(is_manifest);
        let service = match pod {
            Some((path, _)) => Service::StaticPod(path.into()),
            None if is_used(gathered, name) => Service::Systemd(name.to_owned()),
            None => continue,
        };
        let flags = pod.or_else(|| {
            gathered.manifests.iter().find(|(unit, _)| *unit == format!("{name}.service"))
        });
        let port = flags.and_then(|(_, text)| secure_port(text)).unwrap_or(6443);
        let ready = (name == "kube-apiserver").then(|| format!("https://127.0.0.1:{port}/readyz"));
        clients.push(Client { service, ready, restart: name == "kubelet" });
    }
    clients
}

/// Whether a unit is there and either runs or starts by itself.
fn is_used(gathered: &Gathered, name: &str) -> bool {
    gathered.states.get(&format!("{name}.service")).is_some_and(|state| {
        state.get("LoadState") == Some("loaded")
            && (state.get("ActiveState") == Some("active")
                || state.get("UnitFileState") == Some("enabled"))
    })
}

fn secure_port(flags: &str) -> Option<u16> {
    let value = flags.lines().find_map(|line| line.strip_prefix("--secure-port"))?;
    let digits = value.trim_start_matches(['=', ' ']);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

#[cfg(test)]
mod tests;
