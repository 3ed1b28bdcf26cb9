//! What a person says of a cluster: one short YAML file.
//!
//! ```yaml
//! cluster: prod
//! backup: {repo: s3://backups/etcd, at: newest}      # or {file: /backup/etcd.db}
//! ssh: {user: root, options: [ProxyJump=bastion]}
//! etcd:
//!   data-dir: /var/lib/etcd
//!   service: {systemd: etcd}
//!   certificates: {ca: /etc/etcd/ca.pem, cert: /etc/etcd/client.pem, key: /etc/etcd/client-key.pem}
//! clients:
//! - {systemd: kube-apiserver, ready: 'https://127.0.0.1:6443/readyz'}
//! hosts:
//! - {host: 10.0.0.1, member: {name: m1, peer-urls: ['https://10.0.0.1:2380']}}
//! ```
//!
//! What `ssh`, `etcd` and `clients` say holds for every host; a host may say otherwise under the same names.
//!
//! **Invariant:** no field holds a secret. Passwords and keys are named by the file on the host that has them.

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fmt,
    path::{Component, Path, PathBuf},
};

mod lines;
mod word;

pub use word::{ClusterName, EtcdVersion, Owner, WordError};

/// etcd's port for clients.
pub(crate) const CLIENT_PORT: u16 = 2379;
/// Where etcd's packages keep their data.
const DATA_DIR: &str = "/var/lib/etcd";
/// A command is called by so much of it.
const COMMAND_CHARS: usize = 40;
/// Where lifeboat keeps its own things on a host.
const STATE_DIR: &str = "/var/lib/lifeboat";

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Spec {
    /// The cluster's name: it must be typed before anything is stopped.
    pub cluster: ClusterName,
    /// What it is brought back from. Flags of the command line come first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
    /// How hosts are reached.
    #[serde(default)]
    pub ssh: Ssh,
    /// How etcd runs on them.
    #[serde(default)]
    pub etcd: Etcd,
    /// What uses etcd: stopped before it in this order, started after it in this order.
    #[serde(default)]
    pub clients: Vec<Client>,
    /// The hosts: of the new cluster, and, without a `member`, of what shall only be stopped.
    pub hosts: Vec<Host>,
}

/// What the cluster is brought back from: a repository or a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Backup {
    /// A repository: a folder or a URL, without credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// The cluster's name in that repository, if it is another than `cluster`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    /// Which backup: `newest`, `revision:N`, `time:…` or a name, as `lifeboat restore --at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// A snapshot file on the operator's machine, instead of a repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// How a host is reached: by the user's own `ssh`, whose config, agent and known hosts count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Ssh {
    /// User to log in as. Default: what ssh's config says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Port. Default: what ssh's config says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Another config file for ssh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// Further options as in ssh's config, such as `ProxyJump=bastion`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Whether `sudo -n` makes root of a user who is not. Default: yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sudo: Option<bool>,
    /// Folder on the host for lifeboat's binary, journals and locks. Default: `/var/lib/lifeboat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<PathBuf>,
}

/// How etcd runs on a host. Paths are those of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Etcd {
    /// Data directory. Default: `/var/lib/etcd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// WAL directory, if it is not `member/wal` of the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_dir: Option<PathBuf>,
    /// `USER:GROUP` of the data. Default: that of the old directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// How it is started and stopped. Default: the systemd unit `etcd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// Certificates with which a client on the host reaches etcd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates: Option<Certificates>,
    /// The member's own certificate, for clients and peers. It is only looked at: whether it has the names of the URLs, and when it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_certificate: Option<PathBuf>,
    /// User of etcd, if it has users: one with the role root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// File on the host with that user's password, on its first line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Version of etcd that will run, `3.4`, `3.5` or `3.6`. Default: that of the backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<EtcdVersion>,
}

/// Files of a client's TLS, PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Certificates {
    /// CA of the members' certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// How something is run on a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// A unit of systemd.
    Systemd(String),
    /// A manifest in kubelet's folder of static pods.
    StaticPod(PathBuf),
    /// Anything else.
    Command(Commands),
}

/// Three commands for `sh`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Commands {
    /// Starts it, and returns.
    pub start: String,
    /// Stops it.
    pub stop: String,
    /// Succeeds while it runs.
    pub running: String,
}

/// What uses etcd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ClientYaml", into = "ClientYaml")]
pub struct Client {
    /// How it is run.
    pub service: Service,
    /// URL on the host that answers 200 when it is ready.
    pub ready: Option<String>,
    /// It is left running, and restarted when the others are up: a kubelet.
    pub restart: bool,
}

/// A client as the file has it: the kind of service beside the rest.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct ClientYaml {
    #[serde(skip_serializing_if = "Option::is_none")]
    systemd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    static_pod: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<Commands>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    restart: bool,
}

/// A host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Host {
    /// Its name or address for ssh.
    pub host: String,
    /// The member of the new cluster that runs on it. Without one, the host's etcd and clients are stopped, and stay so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<Member>,
    /// What differs from the cluster's.
    #[serde(default)]
    pub ssh: Ssh,
    /// What differs from the cluster's.
    #[serde(default)]
    pub etcd: Etcd,
    /// In place of the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<Vec<Client>>,
}

/// A member of the new cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it from its own host. Default: the first peer URL's host, port 2379.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub client_urls: Vec<String>,
}

/// A host with all that holds for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What it is called in plan, journal and messages: the member's name, else the host's.
    pub label: String,
    /// Its name or address for ssh.
    pub host: String,
    /// How it is reached.
    pub ssh: Ssh,
    /// The member that will run on it.
    pub member: Option<Member>,
    /// Folder for lifeboat's own things.
    pub state_dir: PathBuf,
    /// Data directory.
    pub data_dir: PathBuf,
    /// WAL directory outside of it.
    pub wal_dir: Option<PathBuf>,
    /// `USER:GROUP`, if it is not taken from the old directory.
    pub owner: Option<Owner>,
    /// How etcd is run.
    pub service: Service,
    /// TLS of a client on the host.
    pub certificates: Certificates,
    /// The member's own certificate.
    pub server_certificate: Option<PathBuf>,
    /// User of etcd.
    pub user: Option<String>,
    /// File on the host with the password.
    pub password_file: Option<PathBuf>,
    /// What uses etcd.
    pub clients: Vec<Client>,
}

/// Something wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting, as `hosts.10.0.0.1.member`.
    pub at: String,
    /// Its line in the file, where it was read from one.
    pub line: Option<usize>,
    /// What is wrong with it, and what would be right.
    pub what: String,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Not YAML, or not with these fields.
    #[error("{} does not describe a cluster", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<serde_saphyr::Error>,
    },
    /// Readable, but not sound.
    #[error("{}: {}", path.display(), problems_text(problems))]
    Problems {
        /// The file.
        path: PathBuf,
        /// All that is wrong.
        problems: Vec<Problem>,
    },
}

impl SpecError {
    /// One imperative sentence: what to do next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Read { .. } => "check the file's name and permissions",
            Self::Syntax { .. } => "correct that line; docs/recover.md shows every setting",
            Self::Problems { .. } => "correct what is listed; docs/recover.md shows every setting",
        }
    }
}

impl Spec {
    /// Reads the text of a file. It is not checked yet.
    pub fn parse(yaml: &str) -> Result<Self, Box<serde_saphyr::Error>> {
        serde_saphyr::from_str(yaml).map_err(Box::new)
    }

    /// Reads a file and checks it.
    pub fn load(path: &Path) -> Result<Self, SpecError> {
        let yaml = std::fs::read_to_string(path)
            .map_err(|source| SpecError::Read { path: path.to_owned(), source })?;
        let mut spec = Self::parse(&yaml)
            .map_err(|source| SpecError::Syntax { path: path.to_owned(), source })?;
        spec.make_absolute();
        match spec.check() {
            problems if problems.is_empty() => Ok(spec),
            mut problems => {
                let labels = spec.resolved().into_iter().map(|host| host.label).collect();
                let lines = lines::Lines::of(&yaml, labels);
                problems.iter_mut().for_each(|problem| problem.line = lines.line_of(&problem.at));
                Err(SpecError::Problems { path: path.to_owned(), problems })
            }
        }
    }

    /// A run may be taken up from another folder.
    fn make_absolute(&mut self) {
        let of_ssh = self.hosts.iter_mut().map(|host| &mut host.ssh).chain([&mut self.ssh]);
        let configs = of_ssh.filter_map(|ssh| ssh.config.as_mut());
        let file = self.backup.as_mut().and_then(|backup| backup.file.as_mut());
        for path in configs.chain(file) {
            // Only an empty path has no absolute one, and that is told when it is used.
            *path = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        }
    }

    /// The same as a file, for a person to read and change.
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(self).expect("a spec has nothing that YAML cannot say")
    }

    /// Every host with all that holds for it.
    pub fn resolved(&self) -> Vec<Resolved> {
        self.hosts.iter().map(|host| self.resolve(host)).collect()
    }

    fn resolve(&self, host: &Host) -> Resolved {
        let (of_host, of_all) = (host.etcd.clone(), self.etcd.clone());
        let ssh = Ssh {
            user: host.ssh.user.clone().or_else(|| self.ssh.user.clone()),
            port: host.ssh.port.or(self.ssh.port),
            config: host.ssh.config.clone().or_else(|| self.ssh.config.clone()),
            options: match host.ssh.options.is_empty() {
                true => self.ssh.options.clone(),
                false => host.ssh.options.clone(),
            },
            sudo: host.ssh.sudo.or(self.ssh.sudo),
            state_dir: host.ssh.state_dir.clone().or_else(|| self.ssh.state_dir.clone()),
        };
        let member = host.member.clone().map(Member::with_client_urls);
        Resolved {
            label: member.as_ref().map_or_else(|| host.host.clone(), |member| member.name.clone()),
            host: host.host.clone(),
            state_dir: ssh.state_dir.clone().unwrap_or_else(|| STATE_DIR.into()),
            ssh,
            member,
            data_dir: of_host.data_dir.or(of_all.data_dir).unwrap_or_else(|| DATA_DIR.into()),
            wal_dir: of_host.wal_dir.or(of_all.wal_dir),
            owner: of_host.owner.or(of_all.owner),
            service: of_host
                .service
                .or(of_all.service)
                .unwrap_or_else(|| Service::Systemd("etcd".to_owned())),
            certificates: of_host.certificates.or(of_all.certificates).unwrap_or_default(),
            server_certificate: of_host.server_certificate.or(of_all.server_certificate),
            user: of_host.user.or(of_all.user),
            password_file: of_host.password_file.or(of_all.password_file),
            clients: host.clients.clone().unwrap_or_else(|| self.clients.clone()),
        }
    }

    /// Everything that is wrong with it; nothing if it can be used.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Problems(Vec::new());
        let members = self.hosts.iter().filter_map(|host| host.member.as_ref());
        problems.unless(members.clone().next().is_some(), "hosts", "none has a member");
        let urls = members.flat_map(|member| &member.peer_urls).map(String::as_str);
        problems.unique("hosts: peer URLs", urls);
        if let Some(backup) = &self.backup {
            let one = backup.repo.is_some() != backup.file.is_some();
            problems.unless(one, "backup", "needs either repo or file");
        }
        for host in self.resolved() {
            problems.host(&host);
        }
        let hosts = self.resolved();
        problems.unique("hosts: names", hosts.iter().map(|host| host.label.as_str()));
        let members = hosts.iter().filter_map(|host| host.member.as_ref());
        // Each host asks for itself, so all may name their own loopback.
        let urls = members.flat_map(|member| &member.client_urls).map(String::as_str);
        problems.unique("hosts: client URLs", urls.filter(|url| !is_loopback(url)));
        problems.places(&hosts);
        problems.0
    }
}

impl Member {
    /// The same with URLs for clients, made up from the peer's if it has none.
    fn with_client_urls(mut self) -> Self {
        let parsed = self.peer_urls.first().and_then(|url| url::Url::parse(url).ok());
        if let Some(mut url) = parsed.filter(|_| self.client_urls.is_empty()) {
            // Only URLs without a host have no port, and these are refused.
            let _ = url.set_port(Some(CLIENT_PORT));
            self.client_urls = vec![url.as_str().trim_end_matches('/').to_owned()];
        }
        self
    }
}

impl Service {
    /// What a person calls it.
    pub fn name(&self) -> String {
        match self {
            Self::Systemd(unit) => unit.clone(),
            Self::StaticPod(manifest) => manifest
                .file_stem()
                .map_or_else(|| manifest.display().to_string(), |s| s.to_string_lossy().into()),
            Self::Command(commands) => {
                let start = commands.start.trim();
                let short: String = start.chars().take(COMMAND_CHARS).collect();
                if short.len() < start.len() { format!("{short}…") } else { short }
            }
        }
    }
}

impl TryFrom<ClientYaml> for Client {
    type Error = &'static str;

    fn try_from(yaml: ClientYaml) -> Result<Self, Self::Error> {
        let service = match (yaml.systemd, yaml.static_pod, yaml.command) {
            (Some(unit), None, None) => Service::Systemd(unit),
            (None, Some(manifest), None) => Service::StaticPod(manifest),
            (None, None, Some(commands)) => Service::Command(commands),
            _ => return Err("a client needs one of systemd, static-pod and command"),
        };
        Ok(Self { service, ready: yaml.ready, restart: yaml.restart })
    }
}

impl From<Client> for ClientYaml {
    fn from(client: Client) -> Self {
        let mut yaml = Self { ready: client.ready, restart: client.restart, ..Self::default() };
        match client.service {
            Service::Systemd(unit) => yaml.systemd = Some(unit),
            Service::StaticPod(manifest) => yaml.static_pod = Some(manifest),
            Service::Command(commands) => yaml.command = Some(commands),
        }
        yaml
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, line, what } = self;
        match line {
            Some(line) => write!(f, "line {line}: {at}: {what}"),
            None => write!(f, "{at}: {what}"),
        }
    }
}

fn problems_text(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

fn is_loopback(url: &str) -> bool {
    use url::Host;
    url::Url::parse(url).is_ok_and(|url| match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    })
}

struct Problems(Vec<Problem>);

impl Problems {
    fn unless(&mut self, right: bool, at: impl fmt::Display, what: impl fmt::Display) {
        if !right {
            self.0.push(Problem { at: at.to_string(), line: None, what: what.to_string() });
        }
    }

    fn unique<'a>(&mut self, at: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = BTreeSet::new();
        for name in names {
            self.unless(seen.insert(name), at, format_args!("{name:?} is there twice"));
        }
    }

    fn host(&mut self, host: &Resolved) {
        let at = format!("hosts.{}", host.label);
        // What begins with a dash would be an option of ssh.
        let plain = |text: &str| {
            let odd = |c: char| c.is_whitespace() || c.is_control();
            !text.is_empty() && !text.starts_with('-') && !text.contains(odd)
        };
        let name = &host.host;
        self.unless(plain(name), format_args!("{at}.host"), format_args!("{name:?} is no host"));
        let user = host.ssh.user.as_deref().unwrap_or("root");
        self.unless(
            plain(user),
            format_args!("{at}.ssh.user"),
            format_args!("{user:?} is no user"),
        );
        if let Some(member) = &host.member {
            self.member(&format!("{at}.member"), member);
        }
        let tls = &host.certificates;
        for (name, path) in [
            ("etcd.data-dir", Some(&host.data_dir)),
            ("etcd.wal-dir", host.wal_dir.as_ref()),
            ("etcd.certificates.ca", tls.ca.as_ref()),
            ("etcd.certificates.cert", tls.cert.as_ref()),
            ("etcd.certificates.key", tls.key.as_ref()),
            ("etcd.server-certificate", host.server_certificate.as_ref()),
            ("etcd.password-file", host.password_file.as_ref()),
            ("ssh.state-dir", Some(&host.state_dir)),
        ] {
            let wrong = path.and_then(|path| wrong_path(path));
            self.unless(wrong.is_none(), format_args!("{at}.{name}"), wrong.unwrap_or_default());
        }
        // They are renamed as a whole, and made anew.
        for (name, path) in
            [("etcd.data-dir", Some(&host.data_dir)), ("etcd.wal-dir", host.wal_dir.as_ref())]
        {
            let Some(path) = path.filter(|path| wrong_path(path).is_none()) else { continue };
            self.unless(
                !is_the_systems(path),
                format_args!("{at}.{name}"),
                format_args!(
                    "{} is a folder of the system, which is never renamed: name a folder of etcd's own",
                    path.display()
                ),
            );
        }
        if let Some(wal_dir) = &host.wal_dir {
            let apart = !wal_dir.starts_with(&host.data_dir) && !host.data_dir.starts_with(wal_dir);
            self.unless(apart, format_args!("{at}.etcd.wal-dir"), "must be outside of data-dir");
        }
        self.unless(
            host.user.is_none() || host.password_file.is_some(),
            format_args!("{at}.etcd.user"),
            "needs password-file",
        );
        self.unless(
            tls.cert.is_some() == tls.key.is_some(),
            format_args!("{at}.etcd.certificates"),
            "cert and key are needed together",
        );
        self.service(&format!("{at}.etcd.service"), &host.service);
        for client in &host.clients {
            self.service(&format!("{at}.clients"), &client.service);
            if let Some(url) = &client.ready {
                self.url(&format!("{at}.clients.ready"), url);
            }
        }
    }

    fn member(&mut self, at: &str, member: &Member) {
        let name = &member.name;
        // It names a folder, is written into a list, and is an argument of commands.
        let folder = !name.is_empty()
            && !name.starts_with('-')
            && !name.contains(|c: char| c.is_control() || "/,=".contains(c))
            && name != ".."
            && name != ".";
        self.unless(
            folder,
            format_args!("{at}.name"),
            format_args!(
                "{name:?} is no member's name: it has no '/', ',', '=' and no control characters, and begins with no '-'"
            ),
        );
        self.unless(!member.peer_urls.is_empty(), format_args!("{at}.peer-urls"), "there is none");
        for url in member.peer_urls.iter().chain(&member.client_urls) {
            self.url(at, url);
        }
    }

    fn url(&mut self, at: &str, url: &str) {
        let right = url::Url::parse(url)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
        self.unless(right, at, format_args!("{url:?} is not of the form https://host:port"));
    }

    fn service(&mut self, at: &str, service: &Service) {
        match service {
            Service::Systemd(unit) => {
                let right = !unit.is_empty()
                    && unit.chars().all(|c| c.is_ascii_alphanumeric() || "@._-:\\".contains(c))
                    && !unit.starts_with('-');
                self.unless(right, at, format_args!("{unit:?} is no unit's name"));
            }
            Service::StaticPod(manifest) => {
                let wrong = wrong_path(manifest);
                self.unless(wrong.is_none(), at, wrong.unwrap_or_default());
            }
            Service::Command(commands) => {
                for text in [&commands.start, &commands.stop, &commands.running] {
                    self.unless(!text.trim().is_empty(), at, "start, stop and running are needed");
                }
            }
        }
    }

    /// Two members on one host need two places, as in a demonstration on one machine.
    fn places(&mut self, hosts: &[Resolved]) {
        let mut seen = BTreeSet::new();
        for host in hosts {
            let place = (&host.host, host.ssh.port, &host.data_dir);
            self.unless(
                seen.insert(place),
                format_args!("hosts.{}", host.label),
                format_args!("{} of {} is there twice", host.data_dir.display(), host.host),
            );
        }
    }
}

/// What keeps a path from being an absolute one that names one thing.
fn wrong_path(path: &Path) -> Option<String> {
    let text = path.to_str().unwrap_or_default();
    if text.chars().any(char::is_control) {
        return Some(format!("{text:?} has control characters"));
    }
    if text.split('/').any(|part| part == "..") {
        return Some(format!("{text} has `..` in it: write the path without"));
    }
    if !path.is_absolute() {
        return Some(format!("{text:?} is not an absolute path: it must begin with /"));
    }
    path.file_name().is_none().then(|| "must not be /".to_owned())
}

/// Folders that belong to the system, or to its packages as a whole.
const OF_THE_SYSTEM: &str = "dev etc etc/kubernetes home opt root run tmp usr usr/local usr/share var var/cache var/lib var/lib/containerd var/lib/docker var/lib/kubelet var/log var/run var/tmp";
/// The same with all that is in them.
const WHOLLY_OF_THE_SYSTEM: &str =
    "bin boot lib lib32 lib64 libx32 proc sbin sys usr/bin usr/lib usr/lib64 usr/sbin";

/// Whether a host is no host any more when this folder is renamed.
fn is_the_systems(path: &Path) -> bool {
    // `/etc/` and `/./etc` are `/etc`.
    let plain: PathBuf =
        path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let is = |known: &str| plain == Path::new(known);
    let is_in = |known: &str| plain.starts_with(known);
    OF_THE_SYSTEM.split(' ').any(is) || WHOLLY_OF_THE_SYSTEM.split(' ').any(is_in)
}

#[cfg(test)]
mod tests;
