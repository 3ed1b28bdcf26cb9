//! The `lifeboat` command: arguments in, results out. What is decided is decided in the crates below.

mod backups;
mod cli;
mod commands;
mod connection;
mod interrupt;
mod live;
mod output;
mod progress;
mod report;
mod restoring;
mod serve;

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let program = std::env::args_os().next().unwrap_or_default();
    let tool = cli::Tool::of(Path::new(&program));
    report::exit(cli::Cli::parse_for(tool).run(tool))
}
