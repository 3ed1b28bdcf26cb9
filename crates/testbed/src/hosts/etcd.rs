//! A cluster whose members are units of real hosts, laid out as administrators do.
//!
//! ```text
//!   /etc/default/etcd                       UnitStyle::EnvironmentFile: Debian's own unit reads it
//!   /etc/systemd/system/etcd.service        UnitStyle::Flags: all in the command line
//!   /etc/etcd/etcd.conf.yaml                UnitStyle::ConfigFile: the command line names this
//!   /etc/etcd/pki/ca.pem  server.pem  server-key.pem  client.pem  client-key.pem     with TLS
//!   /var/lib/etcd/m1                        the data directory, owner etcd, mode 700
//! ```
//! Member m1 is on h1, and so on. Clients use port 2379 of the host's address and of loopback, peers use
//! port 2380.

use std::path::PathBuf;

use super::{Host, kube, wait_until};
use crate::client::Client;
use crate::cluster::Security;
use crate::etcd::Etcd;
use crate::tls::Certificates;

const PKI: &str = "/etc/etcd/pki";

/// How the unit is told what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitStyle {
    /// Debian's unit, and variables in `/etc/default/etcd`.
    EnvironmentFile,
    /// A unit of the administrator's, with all flags in its command line.
    Flags,
    /// A unit of the administrator's, whose command line names a YAML file.
    ConfigFile,
}

/// What the cluster is to be like.
#[derive(Clone, Debug)]
pub struct EtcdOnHostsBuilder {
    version: Etcd,
    security: Security,
    style: UnitStyle,
    data_dir: String,
    name: String,
    password: Option<String>,
    settings: Vec<(String, String)>,
}

impl EtcdOnHostsBuilder {
    /// With TLS or without [default: with].
    pub fn security(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    /// How the unit is told what to do [default: as Debian does].
    pub fn style(mut self, style: UnitStyle) -> Self {
        self.style = style;
        self
    }

    /// The data directory; `{name}` is the member's [default: `/var/lib/etcd/{name}`].
    pub fn data_dir(mut self, template: &str) -> Self {
        template.clone_into(&mut self.data_dir);
        self
    }

    /// What members are called, with a number after it [default: m].
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Turns auth on, with this password for the user `root`.
    pub fn auth(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// One more setting, by the name of its flag, as `quota-backend-bytes`.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Installs a member on each of the hosts and starts them; returns when all serve.
    #[track_caller]
    pub fn start(self, hosts: &[Host]) -> EtcdOnHosts {
        let cluster = self.lay_out(hosts);
        for host in hosts {
            host.ssh("systemctl enable --quiet etcd.service");
            host.ssh("systemctl start --no-block etcd.service");
        }
        let journals = || hosts.iter().map(|host| host.journal("etcd")).collect::<String>();
        cluster.wait_until_healthy_or(journals);
        cluster.turn_auth_on();
        cluster
    }

    /// Installs a member on each of the hosts, and starts nothing.
    #[track_caller]
    pub fn lay_out(self, hosts: &[Host]) -> EtcdOnHosts {
        assert!(self.version != Etcd::V3_5_30, "the hosts have etcd 3.4 and 3.5.16");
        let folder = tempfile::Builder::new().prefix("lifeboat-hosts-").tempdir();
        let folder = folder.expect("the folder for temporary files is writable");
        let certificates = (self.security == Security::Tls)
            .then(|| Certificates::make_in(&folder.path().join("tls")));
        let members = hosts.iter().zip(1..).map(|(host, n)| MemberOnHost {
            name: format!("{}{n}", self.name),
            address: host.address().to_string(),
        });
        let cluster = EtcdOnHosts {
            members: members.collect(),
            settings: self,
            certificates,
            _folder: folder,
        };
        for (index, host) in hosts.iter().enumerate() {
            cluster.install(index, host);
        }
        cluster
    }
}

#[derive(Debug)]
struct MemberOnHost {
    name: String,
    address: String,
}

/// A cluster on hosts. It does not hold the hosts: these live and die as the test wants.
#[derive(Debug)]
pub struct EtcdOnHosts {
    members: Vec<MemberOnHost>,
    settings: EtcdOnHostsBuilder,
    certificates: Option<Certificates>,
    _folder: tempfile::TempDir,
}

impl EtcdOnHosts {
    /// TLS, Debian's unit, no auth, unless told otherwise.
    pub fn builder(version: Etcd) -> EtcdOnHostsBuilder {
        EtcdOnHostsBuilder {
            version,
            security: Security::Tls,
            style: UnitStyle::EnvironmentFile,
            data_dir: "/var/lib/etcd/{name}".to_owned(),
            name: "m".to_owned(),
            password: None,
            settings: Vec::new(),
        }
    }

    /// The name of member `index`.
    pub fn member_name(&self, index: usize) -> &str {
        &self.members[index].name
    }

    /// Stops etcd and takes its data, unit and settings away, so that the hosts may have another cluster.
    #[track_caller]
    pub fn remove(&self, hosts: &[Host]) {
        for (index, host) in hosts.iter().enumerate() {
            let data = self.data_dir(index);
            host.ssh(&format!("systemctl disable --quiet --now etcd; rm -rf {data}"));
            host.ssh("rm -rf /etc/systemd/system/etcd.service* /etc/default/etcd; systemctl daemon-reload");
        }
    }

    /// The data directory of member `index`, on its host.
    pub fn data_dir(&self, index: usize) -> String {
        self.settings.data_dir.replace("{name}", self.member_name(index))
    }

    /// Where clients reach member `index`.
    pub fn client_url(&self, index: usize) -> String {
        self.url(&self.members[index].address, 2379)
    }

    /// Where peers reach member `index`.
    pub fn peer_url(&self, index: usize) -> String {
        self.url(&self.members[index].address, 2380)
    }

    /// What `--initial-cluster` is for this cluster.
    pub fn initial_cluster(&self) -> String {
        let of_one = |index| format!("{}={}", self.member_name(index), self.peer_url(index));
        (0..self.members.len()).map(of_one).collect::<Vec<_>>().join(",")
    }

    /// Its certificates, on the test's machine.
    #[track_caller]
    pub fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("this cluster was built with Security::Plain")
    }

    /// The flags that a client on the test's machine needs: all endpoints, certificates, user.
    pub fn connection_flags(&self) -> Vec<String> {
        let client = self.client();
        let mut flags = vec![format!("--endpoints={}", client.endpoints.join(","))];
        flags.extend(client.flags);
        flags
    }

    /// A client on the test's machine that knows all members.
    pub fn client(&self) -> Client {
        let endpoints = (0..self.members.len()).map(|index| self.client_url(index)).collect();
        let mut flags = Vec::new();
        if let Some(certificates) = &self.certificates {
            let (cert, key) = certificates.client();
            flags.push(format!("--cacert={}", certificates.ca().display()));
            flags.push(format!("--cert={}", cert.display()));
            flags.push(format!("--key={}", key.display()));
        }
        if let Some(password) = &self.settings.password {
            flags.push(format!("--user=root:{password}"));
        }
        Client { version: self.settings.version, endpoints, flags }
    }

    /// The flags with which etcdctl on a host asks that host's own member.
    pub fn flags_on_host(&self) -> String {
        let mut flags = format!("--endpoints={}", self.url("127.0.0.1", 2379));
        if self.certificates.is_some() {
            flags += &format!(" --cacert={PKI}/ca.pem --cert={PKI}/client.pem");
            flags += &format!(" --key={PKI}/client-key.pem");
        }
        if let Some(password) = &self.settings.password {
            flags += &format!(" --user=root:{password}");
        }
        flags
    }

    /// etcd's server on the hosts.
    pub fn server_on_host(&self) -> &'static str {
        if self.settings.version == Etcd::V3_4 { "/usr/bin/etcd" } else { "/opt/etcd-3.5/etcd" }
    }

    /// etcdctl on the hosts.
    pub fn etcdctl_on_host(&self) -> String {
        format!("{}ctl", self.server_on_host())
    }

    /// Polls until every member answers that it is healthy.
    #[track_caller]
    pub fn wait_until_healthy(&self) {
        self.wait_until_healthy_or(String::new);
    }

    #[track_caller]
    fn wait_until_healthy_or(&self, account: impl Fn() -> String) {
        // Before auth is on, whoever names a user is refused.
        let client = Client { flags: self.flags_without_user(), ..self.client() };
        let health = || client.try_etcdctl(["endpoint", "health"]);
        let holds = || {
            let health = health();
            health.code == Some(0) || health.stderr.contains("user name is empty")
        };
        wait_until("all members are healthy", holds, || format!("{}\n{}", health(), account()));
    }

    fn flags_without_user(&self) -> Vec<String> {
        let mut flags = self.client().flags;
        flags.retain(|flag| !flag.starts_with("--user="));
        flags
    }

    fn turn_auth_on(&self) {
        let Some(password) = &self.settings.password else { return };
        let client = Client { flags: self.flags_without_user(), ..self.client() };
        client.etcdctl(["user", "add", &format!("root:{password}")]);
        client.etcdctl(["user", "grant-role", "root", "root"]);
        client.etcdctl(["auth", "enable"]);
        // A member that is behind does not know it yet, and gives no token.
        let mut flags = client.flags.clone();
        flags.push(format!("--user=root:not {password}"));
        let stranger = Client { flags, ..client };
        let refused = |index| stranger.try_etcdctl_at(index, ["get", "a"]);
        let refuses = |index| refused(index).stderr.contains("invalid user ID or password");
        let all_refuse = || (0..self.members.len()).all(refuses);
        let account = || (0..self.members.len()).map(|index| refused(index).to_string()).collect();
        wait_until("every member asks for the password", all_refuse, account);
    }

    /// Installs the stand-ins of Kubernetes' units on a host, and starts them.
    #[track_caller]
    pub fn start_kube(&self, host: &Host) {
        kube::install(self, host);
        kube::start(host);
    }

    /// Installs them and starts nothing.
    #[track_caller]
    pub fn lay_out_kube(&self, host: &Host) {
        kube::install(self, host);
    }

    fn url(&self, address: &str, port: u16) -> String {
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}:{port}")
    }
}

/// Installing a member.
impl EtcdOnHosts {
    fn install(&self, index: usize, host: &Host) {
        self.install_certificates(host);
        match self.settings.style {
            UnitStyle::EnvironmentFile => self.write_environment(index, host),
            UnitStyle::Flags => self.write_unit(host, &self.as_flags(index)),
            UnitStyle::ConfigFile => {
                host.write("/etc/etcd/etcd.conf.yaml", self.as_yaml(index));
                self.write_unit(host, " --config-file=/etc/etcd/etcd.conf.yaml");
            }
        }
        let data_dir = PathBuf::from(self.data_dir(index));
        let parent = data_dir.parent().expect("a data directory is in a folder").display();
        host.ssh(&format!("install -d -o etcd -g etcd -m 755 {parent}"));
        host.ssh(&format!("install -d -o etcd -g etcd -m 700 {}", data_dir.display()));
        host.ssh("systemctl daemon-reload");
    }

    fn install_certificates(&self, host: &Host) {
        let Some(certificates) = &self.certificates else { return };
        let (server, server_key) = certificates.server_at(host.name(), host.address());
        let (client, client_key) = certificates.client();
        for (name, file) in [
            ("ca.pem", certificates.ca()),
            ("server.pem", server),
            ("server-key.pem", server_key),
            ("client.pem", client),
            ("client-key.pem", client_key),
        ] {
            let content = std::fs::read(&file).expect("openssl has just made it");
            host.write(&format!("{PKI}/{name}"), content);
        }
        host.ssh(&format!("chown -R root:etcd {PKI} && chmod 640 {PKI}/*-key.pem"));
    }

    /// What this member is told, by the names of etcd's flags.
    fn settings_of(&self, index: usize) -> Vec<(String, String)> {
        let (client, peer) = (self.client_url(index), self.peer_url(index));
        let mut settings = vec![
            ("name", self.member_name(index).to_owned()),
            ("data-dir", self.data_dir(index)),
            ("listen-client-urls", format!("{client},{}", self.url("127.0.0.1", 2379))),
            ("advertise-client-urls", client),
            ("listen-peer-urls", peer.clone()),
            ("initial-advertise-peer-urls", peer),
            ("initial-cluster", self.initial_cluster()),
            ("initial-cluster-token", "lifeboat-hosts".to_owned()),
            ("initial-cluster-state", "new".to_owned()),
            ("logger", "zap".to_owned()),
        ];
        if self.certificates.is_some() {
            for (cert, key, ca, auth) in [
                ("cert-file", "key-file", "trusted-ca-file", "client-cert-auth"),
                (
                    "peer-cert-file",
                    "peer-key-file",
                    "peer-trusted-ca-file",
                    "peer-client-cert-auth",
                ),
            ] {
                settings.push((cert, format!("{PKI}/server.pem")));
                settings.push((key, format!("{PKI}/server-key.pem")));
                settings.push((ca, format!("{PKI}/ca.pem")));
                settings.push((auth, "true".to_owned()));
            }
        }
        let mut all: Vec<(String, String)> =
            settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        all.extend(self.settings.settings.iter().cloned());
        all
    }

    fn write_environment(&self, index: usize, host: &Host) {
        let line = |(name, value): (String, String)| {
            format!("ETCD_{}=\"{value}\"\n", name.to_uppercase().replace('-', "_"))
        };
        let lines: String = self.settings_of(index).into_iter().map(line).collect();
        host.write("/etc/default/etcd", lines);
        if self.settings.version != Etcd::V3_4 {
            let other = format!("[Service]\nExecStart=\nExecStart={}\n", self.server_on_host());
            host.write("/etc/systemd/system/etcd.service.d/version.conf", other);
        }
    }

    fn as_flags(&self, index: usize) -> String {
        let settings = self.settings_of(index);
        settings.iter().map(|(name, value)| format!(" \\\n  --{name}={value}")).collect()
    }

    fn write_unit(&self, host: &Host, flags: &str) {
        host.write(
            "/etc/systemd/system/etcd.service",
            format!(
                "[Unit]\nDescription=etcd\nAfter=network.target\n\n[Service]\nType=notify\nUser=etcd\n\
                 ExecStart={}{flags}\nRestart=on-failure\nLimitNOFILE=65536\n\n\
                 [Install]\nWantedBy=multi-user.target\n",
                self.server_on_host(),
            ),
        );
    }

    /// A file of settings has security in sections, with names of their own.
    fn as_yaml(&self, index: usize) -> String {
        let security = ["cert", "key", "ca-file", "client-cert-auth"];
        let is_security = |name: &str| security.iter().any(|word| name.contains(word));
        let settings = self.settings_of(index);
        let plain = settings.iter().filter(|(name, _)| !is_security(name));
        let mut yaml: String = plain.map(|(name, value)| format!("{name}: {value}\n")).collect();
        if self.certificates.is_some() {
            for section in ["client", "peer"] {
                yaml += &format!(
                    "{section}-transport-security:\n  cert-file: {PKI}/server.pem\n  \
                     key-file: {PKI}/server-key.pem\n  trusted-ca-file: {PKI}/ca.pem\n  \
                     client-cert-auth: true\n",
                );
            }
        }
        yaml
    }
}
