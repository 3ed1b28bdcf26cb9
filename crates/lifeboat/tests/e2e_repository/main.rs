//! The commands of the repository and real servers: etcd, SeaweedFS, rclone, and the stock `age` and `zstd`.
//!
//! Every run of the tool goes through [`Repo`] or [`observed`], which look for secrets in all that it says.
//! Needs the servers that `tools/install.sh test` brings; `./test e2e` runs all of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ahead;
mod configured;
mod failing_stores;
mod faults;
mod flips;
mod full_disk;
mod guards;
mod imports;
mod keys;
mod killed;
mod round_trip;
mod secrets;
mod stock_tools;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use keys::Keys;
use testbed::fixtures::fixture;
use testbed::{Identity, Rclone, Run, S3, Tool};

/// What no run may say and no repository may hold: secrets of the stores, of etcd, of age, and passphrases.
const SECRETS: [&str; 8] = [
    "admin-secret-7f2c81d0a9",
    "reader-secret-3b9e44c17d",
    "nobody-secret-a06d5e92f8",
    "unknown-secret-5c1f73be20",
    "wrong-secret-e84b0d6a31",
    "AGE-SECRET-KEY-",
    keys::PASSPHRASE,
    secrets::PASSWORD,
];

fn lifeboat() -> Tool {
    Tool::new(env!("CARGO_BIN_EXE_lifeboat")).patient()
}

/// Runs a command to its end; panics if it says a secret, or was told one in an argument.
#[track_caller]
fn observed(command: &mut Command) -> Run {
    for argument in command.get_args() {
        assert_holds_no_secret(argument.as_encoded_bytes(), "an argument");
    }
    told(Run::of(command))
}

/// Panics if the run says a secret.
#[track_caller]
fn told(run: Run) -> Run {
    assert_holds_no_secret(&run.stdout_bytes, "stdout");
    assert_holds_no_secret(run.stderr.as_bytes(), "stderr");
    run
}

#[track_caller]
fn assert_holds_no_secret(bytes: &[u8], place: &str) {
    for secret in SECRETS {
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{secret:?} is in {place}");
    }
}

/// A repository, and what it takes to reach it.
#[derive(Clone, Debug)]
struct Repo {
    url: String,
    env: Vec<(&'static str, String)>,
    /// Where the keys are, if its backups are encrypted.
    keys: Option<Keys>,
}

impl Repo {
    fn folder(path: &Path) -> Self {
        Self { url: text(path).to_owned(), env: Vec::new(), keys: None }
    }

    /// At a URL of S3, as the administrator.
    fn s3(url: String) -> Self {
        Self { url, env: Identity::Admin.env(), keys: None }
    }

    fn in_s3(s3: &S3, prefix: &str) -> Self {
        Self::s3(s3.url(prefix))
    }

    fn in_rclone(rclone: &Rclone, prefix: &str) -> Self {
        Self::s3(rclone.url(prefix))
    }

    fn encrypted(self, keys: &Keys) -> Self {
        Self { keys: Some(keys.clone()), ..self }
    }

    fn as_identity(&self, identity: Identity) -> Self {
        Self { env: identity.env(), ..self.clone() }
    }

    /// A command on it, not yet started.
    fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut arguments = arguments.into_iter();
        let mut command = lifeboat().command(arguments.next());
        command.args(["--repo", &self.url]).args(arguments).envs(self.env.iter().cloned());
        if let Some(keys) = &self.keys {
            command.env("LIFEBOAT_IDENTITY", &keys.identity);
            command.env("LIFEBOAT_RECIPIENTS", &keys.recipient);
        }
        command
    }

    #[track_caller]
    fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        observed(&mut self.command(arguments))
    }

    /// A backup of a file or folder, dated now if it is there.
    #[track_caller]
    fn backup(&self, file: &Path) -> Run {
        if file.exists() {
            written_now(file);
        }
        self.run(["backup", "--cluster", "prod", "-w", "json", "--from-file", text(file)])
    }

    /// What `list` says.
    #[track_caller]
    fn list(&self) -> serde_json::Value {
        self.run(["list", "-w", "json"]).ok().json()
    }

    /// Names of its backups, newest first.
    #[track_caller]
    fn names(&self) -> Vec<String> {
        let list = self.list();
        let backups = list["backups"].as_array().expect("a list of backups").iter();
        backups.map(|backup| backup["manifest"]["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Panics unless all that is listed is proved by reading it back. Returns the names, newest first.
    #[track_caller]
    fn all_verify(&self) -> Vec<String> {
        let names = self.names();
        let run = self.run(["verify", "--all", "--no-record"]).ok();
        assert_eq!(run.stdout.matches("verified: ").count(), names.len(), "{run}");
        names
    }
}

/// Names of the backups that a run of `backup -w json` reports.
fn reported(run: &Run) -> Vec<String> {
    let Ok(report) = serde_json::from_str::<serde_json::Value>(&run.stdout) else {
        return Vec::new();
    };
    let results = report["results"].as_array().cloned().unwrap_or_default();
    let id = |result: &serde_json::Value| Some(result["manifest"]["id"].as_str()?.to_owned());
    results.iter().filter_map(id).collect()
}

/// A small snapshot that etcd wrote.
fn snapshot() -> PathBuf {
    fixture("3.5.30/final.db")
}

/// Dates a file now: a backup of a file is dated by it, and here each shall be newer than the one before.
#[track_caller]
fn written_now(file: &Path) {
    let file = std::fs::File::open(file).unwrap();
    // The same file is dated by tests that run beside this one: each in its turn, so that no date goes back.
    file.lock().unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
}

/// A path as an argument.
fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

/// All files under a folder, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Random numbers from a seed (splitmix64), the same on every machine.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below the limit.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("it is below a usize")
    }
}
