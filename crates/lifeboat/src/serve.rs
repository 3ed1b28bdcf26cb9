//! `serve` and `config`: the daemon and its file.

use crate::{
    backups::setting,
    cli::Context,
    output,
    report::{Exit, Failure},
};
use daemon::{Config, Signals};
use std::path::PathBuf;

/// Run the daemon: backups by schedule, retention, checks, metrics, hooks
///
/// All settings are in one YAML file; `lifeboat config example` prints it with every setting explained. SIGHUP reads it
/// again, and keeps what was if it is wrong; SIGTERM finishes what runs, or gives it up cleanly.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// The daemon's settings (YAML) [env: LIFEBOAT_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Check the daemon's settings, or print an example of them
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ConfigCommand {
    Check(CheckArgs),
    Example(ExampleArgs),
}

/// Check the daemon's settings; everything that is wrong is told at once
///
/// Reaches no store and no cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// The settings
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,

    /// The same as FILE [env: LIFEBOAT_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Print an example of the daemon's settings, every one explained
#[derive(Debug, clap::Args)]
pub(crate) struct ExampleArgs {}

impl ServeArgs {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let config = config_file(self.config)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let served =
            runtime.block_on(async { daemon::serve(&config, Signals::of_process()?).await });
        runtime.shutdown_background();
        Ok(served?)
    }
}

impl ConfigCommand {
    pub(crate) fn run(self, _: &Context) -> Result<(), Failure> {
        match self {
            Self::Check(args) => args.run(),
            Self::Example(ExampleArgs {}) => output::print(Config::example()),
        }
    }
}

impl CheckArgs {
    fn run(self) -> Result<(), Failure> {
        let file = config_file(self.file.or(self.config))?;
        let problems = daemon::check(&file)?;
        for problem in &problems {
            say!("{}: {problem}", file.display());
        }
        match problems.len() {
            0 => output::print(&format!("{} is right\n", file.display())),
            1 => Err(wrong("a setting is wrong".to_owned())),
            several => Err(wrong(format!("{several} settings are wrong"))),
        }
    }
}

fn wrong(message: String) -> Failure {
    Failure::new(
        Exit::Usage,
        message,
        "correct what is told above; `lifeboat config example` explains each setting",
    )
}

/// The file that is meant.
fn config_file(flag: Option<PathBuf>) -> Result<PathBuf, Failure> {
    flag.or_else(|| setting(None, "LIFEBOAT_CONFIG").map(PathBuf::from)).ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            "no config file is given",
            "give --config FILE; `lifeboat config example` prints one to begin with",
        )
    })
}
