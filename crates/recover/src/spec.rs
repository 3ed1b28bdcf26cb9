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

use serde::{Deserialize, Deserializer, Serialize};
use std::{
    fmt,
    path::{Path, PathBuf},
};

mod check;
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
    #[serde(deserialize_with = "a_name")]
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
#[serde(try_from = "ServiceYaml", into = "ServiceYaml")]
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

/// A service as the file has it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct ServiceYaml {
    #[serde(skip_serializing_if = "Option::is_none")]
    systemd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    static_pod: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<Commands>,
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

/// An empty value is no name.
fn a_name<'de, D: Deserializer<'de>>(yaml: D) -> Result<ClusterName, D::Error> {
    let name = Option::<ClusterName>::deserialize(yaml)?;
    name.ok_or_else(|| serde::de::Error::custom("the cluster needs a name"))
}

impl TryFrom<ServiceYaml> for Service {
    type Error = &'static str;

    fn try_from(yaml: ServiceYaml) -> Result<Self, Self::Error> {
        match (yaml.systemd, yaml.static_pod, yaml.command) {
            (Some(unit), None, None) => Ok(Self::Systemd(unit)),
            (None, Some(manifest), None) => Ok(Self::StaticPod(manifest)),
            (None, None, Some(commands)) => Ok(Self::Command(commands)),
            _ => Err("exactly one of systemd, static-pod and command is needed here"),
        }
    }
}

impl From<Service> for ServiceYaml {
    fn from(service: Service) -> Self {
        let mut yaml = Self::default();
        match service {
            Service::Systemd(unit) => yaml.systemd = Some(unit),
            Service::StaticPod(manifest) => yaml.static_pod = Some(manifest),
            Service::Command(commands) => yaml.command = Some(commands),
        }
        yaml
    }
}

impl TryFrom<ClientYaml> for Client {
    type Error = &'static str;

    fn try_from(yaml: ClientYaml) -> Result<Self, Self::Error> {
        let ClientYaml { systemd, static_pod, command, ready, restart } = yaml;
        let service = Service::try_from(ServiceYaml { systemd, static_pod, command })?;
        Ok(Self { service, ready, restart })
    }
}

impl From<Client> for ClientYaml {
    fn from(client: Client) -> Self {
        let Client { service, ready, restart } = client;
        let ServiceYaml { systemd, static_pod, command } = service.into();
        Self { systemd, static_pod, command, ready, restart }
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

#[cfg(test)]
mod tests;
