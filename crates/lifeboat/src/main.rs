//! The `lifeboat` command: arguments in, results out. What is decided is decided in the crates below.

/// A line on stderr. Where nobody can read it, what is being done goes on all the same.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::output::say(format_args!($($text)*), "\n")
    };
}

/// The same without the line's end.
macro_rules! say_part {
    ($($text:tt)*) => {
        $crate::output::say(format_args!($($text)*), "")
    };
}

mod backups;
mod cli;
mod commands;
mod connection;
mod crds;
mod interrupt;
mod live;
mod operator;
mod output;
mod progress;
mod recover;
mod report;
mod restoring;
mod serve;
mod volume;

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let program = std::env::args_os().next().unwrap_or_default();
    let tool = cli::Tool::of(Path::new(&program));
    report::exit(cli::Cli::parse_for(tool).run(tool))
}
