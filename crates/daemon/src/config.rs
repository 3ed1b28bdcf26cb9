//! The daemon's settings: one YAML file.
//!
//! Doc comments here are the reference; `docs/configuration.md` is made of them. A file is first read
//! ([`Config::parse`]: one error, with its line), then checked ([`Config::check`]: everything that is wrong with it, at once).
//!
//! **Invariant:** no field holds a secret. Passwords, tokens and keys are named by the file that has them.

mod check;
mod scalar;

pub use check::{Problem, checked};
pub use scalar::{Secret, Share, Span};

use crate::schedule::{Schedule, ScheduleError};
use repository::{ClusterName, retention::Policy};
use serde::Deserialize;
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The clusters to back up. At least one.
    pub clusters: Vec<Cluster>,
    /// Where backups go. At least one.
    pub repositories: Vec<Repository>,
    /// Folder for the copy of a snapshot while it is proved and sent. It needs as much space as the largest
    /// databases that are backed up at once. `LIFEBOAT_SPOOL_DIR` beats it. Default: the system's folder for
    /// temporary files.
    #[serde(default)]
    pub spool: Option<PathBuf>,
    /// Backups of different clusters that may run at once. Those of one cluster never overlap.
    #[serde(default = "two")]
    pub parallel_backups: usize,
    /// How a backup that failed is tried again.
    #[serde(default)]
    pub retries: Retries,
    /// How long a backup may go on after SIGTERM before it is abandoned. What is abandoned is never a backup.
    #[serde(default = "Span::half_minute")]
    pub stop_grace: Span,
    /// Health, metrics and state over HTTP.
    #[serde(default)]
    pub http: Http,
    /// What to run or call when something happens.
    #[serde(default)]
    pub hooks: Vec<Hook>,
    /// What is logged, and how.
    #[serde(default)]
    pub log: Log,
}

/// A cluster to back up.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Cluster {
    /// Its name in the repositories: letters, digits, `.`, `_`, `-`.
    pub name: ClusterName,
    /// URLs of its members. A healthy, current member is chosen, a follower before the leader; the others are tried next.
    pub endpoints: Vec<String>,
    /// Certificates for etcd.
    #[serde(default)]
    pub tls: ClientTls,
    /// User of etcd, if it has users.
    #[serde(default)]
    pub user: Option<String>,
    /// File with that user's password, on its first line.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Names of the repositories that every backup goes to. One that fails does not disturb the others.
    pub repositories: Vec<String>,
    /// When.
    pub schedule: Timetable,
    /// When backups are read back and proved, and how many. Default: never.
    #[serde(default)]
    pub verify: Option<Verify>,
    /// Which backups are kept, in place of what the repository says.
    #[serde(default)]
    pub retention: Option<Policy>,
    /// Whether backups that need not be kept are deleted after each success. Without a retention rule, nothing is.
    #[serde(default = "yes")]
    pub prune: bool,
    /// Files and folders of this host that a restore will need: certificates, manifests of static pods.
    #[serde(default)]
    pub include: Vec<PathBuf>,
    /// Whether such files may go into a repository without recipients, where all who read it can read them.
    #[serde(default)]
    pub include_unencrypted: bool,
    /// What to do when members disagree on HashKV.
    #[serde(default)]
    pub hash_mismatch: HashMismatch,
    /// How long there may be no success before the cluster is called stale. Default: twice the time between two runs.
    #[serde(default)]
    pub stale_after: Option<Span>,
}

/// Certificates for a connection to etcd.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClientTls {
    /// CA certificates, PEM. Default: those of the system.
    pub ca: Option<PathBuf>,
    /// Client certificate, PEM.
    pub cert: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
    /// The name that the member's certificate must have, in place of the host in its URL.
    pub server_name: Option<String>,
    /// Whether any certificate is accepted. Whoever is in between can then read everything.
    pub insecure_skip_verify: bool,
}

/// When something is done.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Timetable {
    /// Five fields: minute, hour, day, month, weekday; or `@hourly`, `@daily`, `@weekly`.
    pub cron: String,
    /// The zone whose clock is meant, as `Europe/Berlin`.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// The longest delay of a start. Each cluster has its own, always the same, so that not all begin at once.
    #[serde(default)]
    pub jitter: Span,
    /// Whether a run that was missed, because nothing ran then, is made up for. Of several only the newest is.
    #[serde(default = "yes")]
    pub catch_up: bool,
}

/// When backups are read back and proved.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Verify {
    /// As in a schedule.
    pub cron: String,
    /// As in a schedule.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// The share of all backups that each run reads: with `1/7`, seven runs read all.
    #[serde(default)]
    pub sample: Share,
}

/// What to do when members disagree on HashKV.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HashMismatch {
    /// Name the member, and go on.
    #[default]
    Warn,
    /// Make no backup.
    Fail,
}

/// A place for backups.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Repository {
    /// What clusters call it.
    pub name: String,
    /// A folder, or a URL: `file:///…`, `s3://bucket/prefix`, `gcs://…`, `azblob://…`, `oss://…`. Without credentials.
    pub url: String,
    /// Options of the store, as they may stand in its URL: `endpoint`, `region`, `path-style`, `ca`, `sse`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Credentials of the store, each by the name of a file that has it: `access-key-id`, `secret-access-key`,
    /// `session-token`. Default: what the provider's own tools would use.
    #[serde(default)]
    pub credential_files: BTreeMap<String, PathBuf>,
    /// Public keys (`age1…`) that backups are encrypted to. With none, backups are not encrypted.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// Whether backups may be stored unencrypted although the newest one there is encrypted. Without, a list of
    /// recipients that was lost makes no open backup.
    #[serde(default)]
    pub unencrypted: bool,
    /// Files of identities (private keys), only for verification: what makes backups needs none.
    #[serde(default)]
    pub identities: Vec<PathBuf>,
    /// File with the passphrase of those files.
    #[serde(default)]
    pub passphrase_file: Option<PathBuf>,
    /// Which backups are kept. Default: all.
    #[serde(default)]
    pub retention: Policy,
    /// The most bytes per second that go to it: `20MiB/s`.
    #[serde(default)]
    pub bandwidth_limit: Option<String>,
    /// zstd's level, 1 to 19.
    #[serde(default = "three")]
    pub compression_level: i32,
}

/// How a backup that failed is tried again, until the next one is due.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Retries {
    /// Attempts in all.
    pub attempts: u32,
    /// The wait after the first failure; it doubles with each.
    pub first_wait: Span,
    /// The longest wait.
    pub longest_wait: Span,
}

/// Health, metrics and state over HTTP.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Http {
    /// Address and port; `null` for none. Another one is taken only by a restart. Any address but loopback needs `tls` and `token-file`.
    pub listen: Option<SocketAddr>,
    /// The server's certificate.
    pub tls: Option<ServerTls>,
    /// File with the bearer token that requests must carry, on its first line. `/healthz` and `/readyz` need none.
    pub token_file: Option<PathBuf>,
}

/// A server's certificate.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServerTls {
    /// Certificate and its chain, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// What to run or call when something happens. Either `command` or `webhook-file`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Hook {
    /// Events: `success`, `failure`, `stale`, `damage`.
    pub on: Vec<Occasion>,
    /// Program and arguments; the event comes as JSON on its standard input. Of the daemon's variables it has only
    /// `PATH`, `HOME` and `LANG`, as others may hold keys of stores; and those that tell of the event: `LIFEBOAT_EVENT`,
    /// `LIFEBOAT_CLUSTER`, `LIFEBOAT_REPOSITORY`, `LIFEBOAT_BACKUPS` (by spaces), `LIFEBOAT_REVISION`, `LIFEBOAT_REASON`.
    #[serde(default)]
    pub command: Vec<String>,
    /// File with the URL that the event is posted to as JSON. A file, because such URLs are secrets.
    #[serde(default)]
    pub webhook_file: Option<PathBuf>,
    /// File with a bearer token for it.
    #[serde(default)]
    pub bearer_file: Option<PathBuf>,
    /// After so long it is given up.
    #[serde(default = "Span::half_minute")]
    pub timeout: Span,
}

/// What a hook can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Occasion {
    /// A backup is in a repository.
    Success,
    /// A backup is not in a repository, and will not be tried again before the next one is due.
    Failure,
    /// There was no success for too long.
    Stale,
    /// A verification found damage.
    Damage,
}

/// What is logged, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Log {
    /// `text` or `json`. This and the level are changed only by a restart.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`; also per part, as `info,repository=debug`. Default: `info`.
    pub level: Option<String>,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// A line for a person.
    #[default]
    Text,
    /// A JSON object on each line.
    Json,
}

impl Config {
    /// Reads the text of a file. What it names is not looked at yet.
    pub fn parse(yaml: &str) -> Result<Self, ConfigError> {
        serde_saphyr::from_str(yaml)
            .map_err(|source| ConfigError::Syntax { source: Box::new(source) })
    }

    /// Reads a file and checks it.
    pub fn load(path: &std::path::Path) -> Result<Self, ConfigError> {
        let yaml = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let config = Self::parse(&yaml)?;
        let problems = config.check();
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Problems(problems)) }
    }

    /// A file to begin with: every setting, explained.
    pub fn example() -> &'static str {
        include_str!("config/example.yaml")
    }

    /// The repository of that name.
    pub fn repository(&self, name: &str) -> Option<&Repository> {
        self.repositories.iter().find(|repository| repository.name == name)
    }
}

impl Timetable {
    /// As instants.
    pub fn schedule(&self) -> Result<Schedule, ScheduleError> {
        let mut schedule = Schedule::new(&self.cron, &self.time_zone)?;
        (schedule.jitter, schedule.catch_up) = (self.jitter.0, self.catch_up);
        Ok(schedule)
    }
}

impl Verify {
    /// As instants.
    pub fn schedule(&self) -> Result<Schedule, ScheduleError> {
        // A verification that was missed is covered by the next one's turn.
        let mut schedule = Schedule::new(&self.cron, &self.time_zone)?;
        schedule.catch_up = false;
        Ok(schedule)
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self { attempts: 5, first_wait: Span::half_minute(), longest_wait: Span::minutes(10) }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from(([127, 0, 0, 1], 9812))), tls: None, token_file: None }
    }
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Cannot be read.
    #[error("cannot read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Not YAML, or not with these fields.
    #[error("the settings cannot be read")]
    Syntax {
        /// Where and why.
        source: Box<serde_saphyr::Error>,
    },
    /// Readable, but not sound.
    #[error("{}", problems_text(.0))]
    Problems(Vec<Problem>),
}

impl ConfigError {
    /// One imperative sentence; printed after `help:`.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Read { .. } => {
                "check the file's name and permissions; `lifeboat config example` prints one to begin with"
            }
            Self::Syntax { .. } => {
                "correct that line; `lifeboat config example` shows every setting"
            }
            Self::Problems(_) => "correct what is listed, then run `lifeboat config check`",
        }
    }
}

fn problems_text(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    format!(
        "{} wrong in the settings:{}",
        if lines.len() == 1 {
            "one thing is".to_owned()
        } else {
            format!("{} things are", lines.len())
        },
        lines.concat()
    )
}

fn yes() -> bool {
    true
}

fn two() -> usize {
    2
}

fn three() -> i32 {
    3
}

fn utc() -> String {
    "UTC".to_owned()
}

#[cfg(test)]
mod tests;
