//! `lifeboat serve` as a process of its own, with real etcd, SeaweedFS, folders, signals, scrapers and hooks.
//!
//! Slots are not waited for: a schedule that names one minute of the past is due at start, and new settings with a
//! later such minute make the next slot due at once. Needs the servers that `tools/install.sh test` brings.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod check;
mod life;
mod pair;
mod secrets;
mod stop;
mod told;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use jiff::{Span, Timestamp, tz::TimeZone};
use testbed::{Identity, Run, S3, Tool, until};

fn lifeboat() -> Tool {
    Tool::new(env!("CARGO_BIN_EXE_lifeboat"))
}

/// A schedule whose newest slot is that many minutes ago, and whose next is a year away. Asked for a minute later, it has
/// another slot.
fn minutes_ago(minutes: i64) -> String {
    let slot = Timestamp::now() - Span::new().minutes(minutes);
    slot.to_zoned(TimeZone::UTC).strftime("%-M %-H %-d %-m *").to_string()
}

/// A folder with settings, and all that a daemon writes.
struct Settings {
    folder: tempfile::TempDir,
}

impl Settings {
    fn new(yaml: &str) -> Self {
        let settings = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(settings.path("spool")).unwrap();
        settings.write(yaml);
        settings
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self) -> PathBuf {
        self.path("lifeboat.yaml")
    }

    /// Writes them; `FOLDER` stands for this folder.
    fn write(&self, yaml: &str) {
        let folder = self.folder.path().display().to_string();
        std::fs::write(self.file(), yaml.replace("FOLDER", &folder)).unwrap();
    }

    /// A file with a secret, by its name in this folder.
    fn secret(&self, name: &str, secret: &str) {
        std::fs::write(self.path(name), format!("{secret}\n")).unwrap();
    }

    /// Files with the administrator's credentials, as `ADMIN` in settings names them.
    fn admin(&self) {
        self.secret("s3-id", Identity::Admin.access_key());
        self.secret("s3-secret", Identity::Admin.secret());
    }
}

const ADMIN: &str =
    "credential-files: {access-key-id: FOLDER/s3-id, secret-access-key: FOLDER/s3-secret}";

/// A running daemon; it ends with this value.
struct Daemon {
    process: Child,
    log: PathBuf,
    origin: String,
    curl: Vec<String>,
}

impl Daemon {
    #[track_caller]
    fn start(settings: &Settings) -> Self {
        Self::start_as(settings, "http", "log")
    }

    /// With what is said going to a file of that name.
    #[track_caller]
    fn start_as(settings: &Settings, scheme: &str, log: &str) -> Self {
        let log = settings.path(log);
        let output = File::create(&log).unwrap();
        let mut command = lifeboat().command(["serve", "--config"]);
        command.arg(settings.file()).env("AWS_EC2_METADATA_DISABLED", "true");
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let process = command.spawn().unwrap();
        let mut daemon = Self { process, log, origin: String::new(), curl: Vec::new() };
        let address = until("its port", || daemon.listens(), || daemon.said());
        daemon.origin = format!("{scheme}://{address}");
        daemon
    }

    fn listens(&self) -> Option<String> {
        let said = self.said();
        let (_, rest) = said.split_once("listening address=")?;
        rest.split_once('\n').map(|(address, _)| address.to_owned())
    }

    /// All that it has written.
    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Status and body.
    fn ask(&self, path: &str, more: &[&str]) -> (u16, String) {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", "60", "--write-out", "\n%{http_code}"]);
        let url = format!("{}{path}", self.origin);
        let run = Run::of(curl.args(&self.curl).args(more).arg(url));
        let (body, status) = run.stdout.rsplit_once('\n').expect("curl tells the status");
        (status.parse().expect("a number"), body.to_owned())
    }

    fn metrics(&self) -> String {
        self.ask("/metrics", &[]).1
    }

    /// Waits for a line that begins so in the metrics.
    #[track_caller]
    fn until_metric(&self, line: &str) {
        let found = || self.metrics().lines().any(|l| l.starts_with(line)).then_some(());
        until(line, found, || format!("{}\n{}", self.said(), self.metrics()));
    }

    #[track_caller]
    fn until_said(&self, words: &str) {
        until(words, || self.said().contains(words).then_some(()), || self.said());
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        Run::of(Command::new("kill").args([&format!("-{name}"), &id])).ok();
    }

    /// Writes other settings and has them read.
    fn reload(&self, settings: &Settings, yaml: &str) {
        settings.write(yaml);
        self.signal("HUP");
    }

    /// Waits for its end.
    #[track_caller]
    fn ended(&mut self) -> ExitStatus {
        let (process, log) = (&mut self.process, &self.log);
        until("its end", || process.try_wait().unwrap(), || std::fs::read_to_string(log).unwrap())
    }

    /// Stops it as a service manager does; that is no failure.
    #[track_caller]
    fn stop(&mut self) {
        self.signal("TERM");
        let status = self.ended();
        assert_eq!(status.code(), Some(0), "{}", self.said());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has ended already, or it ends now.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Backups in a repository, as `list` shows them.
#[track_caller]
fn listed(url: &str, s3: Option<&S3>) -> Vec<serde_json::Value> {
    let mut command = lifeboat().command(["list", "-w", "json", "--repo", url]);
    if let Some(s3) = s3 {
        command.envs(s3.env(Identity::Admin));
    }
    let list = Run::of(&mut command).ok().json();
    list["backups"].as_array().expect("a list of backups").clone()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}
