//! What is wrong with settings that can be read: all of it, at once.

use super::{Cluster, Config, Hook, Http, Repository, Secret};
use crate::{chain, place};
use etcd_live::Endpoint;
use repository::store::{Store, StoreOptions};
use std::{
    collections::BTreeSet,
    env, fmt, io,
    path::{Path, PathBuf},
};

/// Something wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting, as `clusters.prod.schedule`.
    pub at: String,
    /// What is wrong with it, and what would be right.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// The problems of settings. Reads the files that they name, but reaches no store and no cluster.
pub fn checked(config: &Config) -> Vec<Problem> {
    let mut problems = Problems(Vec::new());
    problems.whole(config);
    for cluster in &config.clusters {
        problems.cluster(config, cluster);
    }
    for repository in &config.repositories {
        problems.repository(repository);
    }
    problems.http(&config.http);
    for (index, hook) in config.hooks.iter().enumerate() {
        problems.hook(&format!("hooks[{index}]"), hook);
    }
    problems.0
}

impl Config {
    /// Everything that is wrong with it; nothing if it can be used.
    pub fn check(&self) -> Vec<Problem> {
        checked(self)
    }
}

struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, at: impl fmt::Display, what: impl fmt::Display) {
        self.0.push(Problem { at: at.to_string(), what: what.to_string() });
    }

    fn unless(&mut self, right: bool, at: impl fmt::Display, what: impl fmt::Display) {
        if !right {
            self.add(at, what);
        }
    }

    fn whole(&mut self, config: &Config) {
        self.unless(!config.clusters.is_empty(), "clusters", "there is none");
        self.unless(!config.repositories.is_empty(), "repositories", "there is none");
        self.unless(config.parallel_backups > 0, "parallel-backups", "must be at least 1");
        self.unless(config.retries.attempts > 0, "retries.attempts", "must be at least 1");
        let names = config.clusters.iter().map(|cluster| cluster.name.as_str());
        self.unique("clusters", names);
        let names = config.repositories.iter().map(|repository| repository.name.as_str());
        self.unique("repositories", names);
        if let Some(Err(error)) = config.log.level.as_deref().map(crate::logs::filter) {
            self.add("log.level", error);
        }
        if let Some(spool) = &config.spool {
            self.unless(spool.is_dir(), "spool", format_args!("{} is no folder", spool.display()));
        }
    }

    fn unique<'a>(&mut self, at: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = BTreeSet::new();
        for name in names {
            self.unless(seen.insert(name), at, format_args!("two have the name {name:?}"));
        }
    }

    fn cluster(&mut self, config: &Config, cluster: &Cluster) {
        let at = format!("clusters.{}", cluster.name);
        self.unless(!cluster.endpoints.is_empty(), format_args!("{at}.endpoints"), "there is none");
        for endpoint in &cluster.endpoints {
            if let Err(error) = endpoint.parse::<Endpoint>() {
                self.add(format_args!("{at}.endpoints"), chain(&error));
            }
        }
        self.unless(
            !cluster.repositories.is_empty(),
            format_args!("{at}.repositories"),
            "there is none",
        );
        self.unique(&format!("{at}.repositories"), cluster.repositories.iter().map(String::as_str));
        for name in &cluster.repositories {
            let known = config.repository(name);
            let unknown = || format!("no repository has the name {name:?}");
            self.unless(known.is_some(), format_args!("{at}.repositories"), unknown());
            let open =
                known.is_some_and(|r| r.recipients.is_empty()) && !cluster.include.is_empty();
            self.unless(!open || cluster.include_unencrypted, format_args!("{at}.include"), format_args!(
                "repository {name:?} has no recipients, so keys among these files would lie there in the clear: give it recipients, or set include-unencrypted"
            ));
        }
        if let Err(error) = cluster.schedule.schedule() {
            self.add(format_args!("{at}.schedule"), chain(&error));
        }
        if let Some(Err(error)) = cluster.verify.as_ref().map(super::Verify::schedule) {
            self.add(format_args!("{at}.verify"), chain(&error));
        }
        self.access(&at, cluster);
        for path in &cluster.include {
            self.unless(
                path.exists(),
                format_args!("{at}.include"),
                format_args!("{} is not there", path.display()),
            );
        }
    }

    fn access(&mut self, at: &str, cluster: &Cluster) {
        let tls = &cluster.tls;
        for (name, file) in [("ca", &tls.ca), ("cert", &tls.cert), ("key", &tls.key)] {
            self.readable(&format!("{at}.tls.{name}"), file.as_ref());
        }
        self.unless(
            tls.cert.is_some() == tls.key.is_some(),
            format_args!("{at}.tls"),
            "cert and key are needed together",
        );
        self.unless(
            cluster.user.is_some() == cluster.password_file.is_some(),
            format_args!("{at}.user"),
            "user and password-file are needed together",
        );
        self.secret(&format!("{at}.password-file"), cluster.password_file.as_ref());
    }

    fn repository(&mut self, repository: &Repository) {
        let at = format!("repositories.{}", repository.name);
        self.unless(!repository.name.is_empty(), "repositories", "one has no name");
        self.unless(!repository.url.is_empty(), format_args!("{at}.url"), "is empty");
        let credentials = url::Url::parse(&repository.url)
            .is_ok_and(|url| url.password().is_some() || !url.username().is_empty());
        self.unless(
            !credentials,
            format_args!("{at}.url"),
            "has credentials in it: use credential-files",
        );
        if !credentials && !repository.url.is_empty() {
            self.store(&at, repository);
        }
        self.credentials(&format!("{at}.credential-files"), repository);
        for recipient in &repository.recipients {
            if let Err(error) = repository::codec::Recipients::none().add(recipient) {
                self.add(format_args!("{at}.recipients"), chain(&error));
            }
        }
        for file in &repository.identities {
            self.readable(&format!("{at}.identities"), Some(file));
        }
        self.secret(&format!("{at}.passphrase-file"), repository.passphrase_file.as_ref());
        if let Some(Err(error)) =
            repository.bandwidth_limit.as_ref().map(|l| l.parse::<repository::codec::Bandwidth>())
        {
            self.add(format_args!("{at}.bandwidth-limit"), chain(&error));
        }
        let level = repository.compression_level;
        self.unless(
            (1..=19).contains(&level),
            format_args!("{at}.compression-level"),
            "must be 1 to 19",
        );
    }

    /// What can be said of the store without reaching it.
    fn store(&mut self, at: &str, repository: &Repository) {
        let url = &repository.url;
        if !url.contains("://") && !Path::new(url).is_absolute() {
            // A daemon is started in one folder today and in another tomorrow.
            self.add(
                format_args!("{at}.url"),
                format_args!("{url:?} is neither a URL nor an absolute path"),
            );
            return;
        }
        let settings = repository.options.clone();
        let options = StoreOptions { settings, ..StoreOptions::default() };
        if let Err(error) = Store::open(url, &options) {
            self.add(at, chain(&error));
        }
    }

    fn credentials(&mut self, at: &str, repository: &Repository) {
        let files = &repository.credential_files;
        for (name, file) in files {
            let known = place::CREDENTIALS.contains(&name.as_str());
            self.unless(
                known,
                at,
                format_args!("{name:?} is none of {}", place::CREDENTIALS.join(", ")),
            );
            self.secret(&format!("{at}.{name}"), Some(file));
        }
        let [id, key, token] = place::CREDENTIALS.map(|name| files.contains_key(name));
        let whole = id == key && (id || !token);
        self.unless(whole, at, "access-key-id and secret-access-key are needed together");
    }

    fn http(&mut self, http: &Http) {
        if let Some(tls) = &http.tls {
            self.readable("http.tls.cert", Some(&tls.cert));
            self.readable("http.tls.key", Some(&tls.key));
        }
        self.secret("http.token-file", http.token_file.as_ref());
        let Some(listen) = http.listen.filter(|listen| !listen.ip().is_loopback()) else { return };
        self.unless(
            http.tls.is_some() && http.token_file.is_some(),
            "http.listen",
            format_args!("{listen} can be reached from outside: set http.tls and http.token-file, or listen on 127.0.0.1"),
        );
    }

    fn hook(&mut self, at: &str, hook: &Hook) {
        self.unless(!hook.on.is_empty(), format_args!("{at}.on"), "names no event");
        let one = hook.command.is_empty() == hook.webhook_file.is_some();
        self.unless(one, at, "needs either command or webhook-file");
        if let Some(program) = hook.command.first() {
            self.program(&format!("{at}.command"), program);
        }
        self.secret(&format!("{at}.webhook-file"), hook.webhook_file.as_ref());
        self.secret(&format!("{at}.bearer-file"), hook.bearer_file.as_ref());
        self.unless(
            !hook.timeout.0.is_zero(),
            format_args!("{at}.timeout"),
            "must be longer than nothing",
        );
    }

    /// A hook's program, which is found as the system finds it: by its path, else in `PATH`.
    fn program(&mut self, at: &str, program: &str) {
        if program.contains('/') {
            if let Err(error) = executable(Path::new(program)) {
                self.add(at, format_args!("cannot run {program}: {error}"));
            }
            return;
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let found = env::split_paths(&path).any(|folder| executable(&folder.join(program)).is_ok());
        self.unless(found, at, format_args!("{program:?} is in no folder of PATH"));
    }

    fn readable(&mut self, at: &str, file: Option<&PathBuf>) {
        let Some(file) = file else { return };
        if let Err(error) = std::fs::File::open(file) {
            self.add(at, format_args!("cannot read {}: {error}", shown(file)));
        }
    }

    fn secret(&mut self, at: &str, file: Option<&PathBuf>) {
        let Some(file) = file else { return };
        if let Err(error) = Secret::read(file) {
            self.add(at, format_args!("cannot read {}: {error}", shown(file)));
        }
    }
}

/// Whether this process may run that file.
fn executable(file: &Path) -> io::Result<()> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    Ok(rustix::fs::access(file, rustix::fs::Access::EXEC_OK)?)
}

fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}
