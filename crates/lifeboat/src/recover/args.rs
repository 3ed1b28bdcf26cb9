//! What the commands of `recover` share: the cluster's file, the backup, the program for the hosts, the folder of runs.

use crate::{
    backups::setting,
    report::{Exit, Failure},
};
use daemon::config::Span;
use recover::{Agent, Fleet, Runs, sha256_of, spec::Spec};
use repository::listing::Target;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// The cluster and the runs.
#[derive(Debug, clap::Args)]
pub(super) struct ClusterArgs {
    /// The cluster's file: hosts, members, how etcd runs (YAML; docs/recover.md)
    #[arg(value_name = "CLUSTER.yaml")]
    pub(super) spec: PathBuf,

    #[command(flatten)]
    pub(super) runs: RunsArgs,
}

/// The folder of runs.
#[derive(Debug, clap::Args)]
pub(super) struct RunsArgs {
    /// Where plans and journals are kept [default: $XDG_STATE_HOME/lifeboat or ~/.local/state/lifeboat] [env: LIFEBOAT_STATE_DIR]
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
}

/// How long hosts are waited for.
#[derive(Debug, clap::Args)]
pub(super) struct PatienceArgs {
    /// For how long a host that cannot be reached is tried again before the command ends: 90s, 10m while one is booting, 0 for
    /// not at all [default: 60s; before a run begins, a host that is not known or refuses ends the command at once]
    #[arg(long, value_name = "TIME", value_parser = patience)]
    patience: Option<Duration>,
}

/// Unless something else is said: a reboot takes longer, a network that hiccups does not.
const PATIENCE: Duration = Duration::from_secs(60);

/// A length of time; zero needs no unit.
fn patience(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { text.parse::<Span>().map(|span| span.0) }
}

impl PatienceArgs {
    pub(super) fn time(&self) -> Duration {
        self.patience.unwrap_or(PATIENCE)
    }

    /// The same hosts, waited for before anything has begun.
    pub(super) fn at_first(&self, fleet: Fleet) -> Fleet {
        fleet.patient(self.time()).waiting_for_anything(self.patience.is_some())
    }
}

/// The program that is put on the hosts.
#[derive(Debug, clap::Args)]
pub(super) struct ProgramArgs {
    /// The lifeboat that is put on the hosts to ask etcd there: a static binary for their kind of machine [default: this one]
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
}

impl ClusterArgs {
    pub(super) fn load(&self) -> Result<Spec, Failure> {
        let spec = Spec::load(&self.spec)?;
        // Here, so that every command refuses it, whether it looks for a backup or not.
        let at = spec.backup.as_ref().and_then(|backup| backup.at.as_deref());
        match at.map(str::parse::<Target>) {
            Some(Err(error)) => Err(Failure::new(
                Exit::Usage,
                format!("{}: backup.at: {error}", self.spec.display()),
                "correct it",
            )),
            _ => Ok(spec),
        }
    }
}

impl RunsArgs {
    pub(super) fn runs(&self) -> Result<Runs, Failure> {
        let flag = self.state_dir.as_ref().map(|dir| dir.display().to_string());
        let named = setting(flag.as_deref(), "LIFEBOAT_STATE_DIR").map(PathBuf::from);
        let usual = || setting(None, "XDG_STATE_HOME").map(|dir| Path::new(&dir).join("lifeboat"));
        let home =
            || setting(None, "HOME").map(|dir| Path::new(&dir).join(".local/state/lifeboat"));
        let folder = named.or_else(usual).or_else(home).ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                "there is no folder for plans and journals",
                "give --state-dir",
            )
        })?;
        Ok(Runs::new(&folder))
    }
}

impl ProgramArgs {
    /// The file, and what it is.
    pub(super) fn program(&self) -> Result<(PathBuf, Agent), Failure> {
        let path = match &self.agent {
            Some(path) => path.clone(),
            None => std::env::current_exe()?,
        };
        let sha256 = sha256_of(&path).map_err(|error| {
            Failure::new(
                Exit::Failed,
                format!("cannot read {}: {error}", path.display()),
                "give --agent",
            )
        })?;
        Ok((path, Agent { version: env!("CARGO_PKG_VERSION").to_owned(), sha256 }))
    }
}
