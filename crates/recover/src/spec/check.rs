//! What is wrong with a file that can be read: told at once, all of it, and before any host is reached.

use super::{Member, Problem, Resolved, Service, Spec};
use std::{
    collections::BTreeSet,
    fmt,
    path::{Component, Path, PathBuf},
};

impl Spec {
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
        self.apart(&at, host);
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

    /// The data directory is renamed, and made anew: what else is needed meanwhile is not to go with it.
    fn apart(&mut self, at: &str, host: &Resolved) {
        let tls = &host.certificates;
        let manifest = match &host.service {
            Service::StaticPod(manifest) => Some(manifest),
            _ => None,
        };
        for (name, path) in [
            ("ssh.state-dir", Some(&host.state_dir)),
            ("etcd.certificates.ca", tls.ca.as_ref()),
            ("etcd.certificates.cert", tls.cert.as_ref()),
            ("etcd.certificates.key", tls.key.as_ref()),
            ("etcd.server-certificate", host.server_certificate.as_ref()),
            ("etcd.password-file", host.password_file.as_ref()),
            ("etcd.service", manifest),
        ] {
            for data in [Some(&host.data_dir), host.wal_dir.as_ref()].into_iter().flatten() {
                let is_in = path.is_some_and(|path| path.starts_with(data));
                self.unless(
                    !is_in,
                    format_args!("{at}.{name}"),
                    format_args!(
                        "must be outside of {}, which is renamed with all that is in it",
                        data.display()
                    ),
                );
            }
        }
        // etcd makes that folder in its data directory.
        self.unless(
            host.data_dir.file_name().is_none_or(|name| name != "member"),
            format_args!("{at}.etcd.data-dir"),
            "name the folder that `member` lies in",
        );
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
