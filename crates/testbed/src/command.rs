//! Running commands to their end, and the tool under test under any of its names.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::etcd::from_environment;

/// How a command ended.
#[derive(Debug)]
pub struct Run {
    /// The command line, for messages.
    pub command: String,
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout, byte for byte.
    pub stdout_bytes: Vec<u8>,
    /// `stdout_bytes` as text.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Run {
    /// Runs the command and waits for it.
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self::from_output(format!("{command:?}"), output)
    }

    /// What a command that ran by other means came to.
    pub fn from_output(command: String, output: Output) -> Self {
        Self {
            command,
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stdout_bytes: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Panics with the whole account unless the command ended with 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.code_is(0)
    }

    /// Panics with the whole account unless the command ended with this code.
    #[track_caller]
    pub fn code_is(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Panics unless stderr holds each of the words.
    #[track_caller]
    pub fn stderr_has(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "stderr lacks {word:?}\n{self}");
        }
        self
    }

    /// Stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("stdout is no JSON: {error}\n{self}"))
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.command)?;
        match self.code {
            Some(code) => writeln!(f, "ended with {code}")?,
            None => writeln!(f, "was ended by a signal")?,
        }
        writeln!(f, "--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr)
    }
}

/// The `lifeboat` binary under one of its names.
///
/// Variables that would change what it does (`ETCDCTL_*`, `LIFEBOAT_*`, `AWS_*`) are taken out of its
/// environment; a test gives its own with [`Tool::command`].
#[derive(Clone, Debug)]
pub struct Tool {
    program: PathBuf,
    variables: &'static [(&'static str, &'static str)],
}

/// For tests that are not about time: what a person would wait for a member, on a machine that has nothing else to do, is
/// not enough on one that is busy.
const PATIENT: [(&str, &str); 2] =
    [("LIFEBOAT_DIAL_TIMEOUT", "60s"), ("LIFEBOAT_COMMAND_TIMEOUT", "60s")];

impl Tool {
    /// The binary itself; tests of the `lifeboat` crate pass `env!("CARGO_BIN_EXE_lifeboat")`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), variables: &[] }
    }

    /// Waits long for members, unless its flags say otherwise.
    pub fn patient(self) -> Self {
        Self { variables: &PATIENT, ..self }
    }

    /// The same binary through a link of this name in `folder`.
    pub fn linked_as(&self, name: &str, folder: &Path) -> Self {
        let link = folder.join(name);
        std::os::unix::fs::symlink(&self.program, &link)
            .unwrap_or_else(|error| panic!("cannot link {}: {error}", link.display()));
        Self { program: link, ..self.clone() }
    }

    /// A command of the tool, not yet started.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if ["ETCDCTL_", "LIFEBOAT_", "AWS_"].iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(&*name);
            }
        }
        command.envs(self.variables.iter().copied());
        command
    }

    /// Runs the tool to its end.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        Run::of(&mut self.command(arguments))
    }
}

/// Lets bbolt itself judge a database file (a `db`, or a snapshot, whose trailer it ignores).
#[track_caller]
pub fn bolt_check(file: &Path) {
    Run::of(Command::new(from_environment("LIFEBOAT_BOLT_CHECK")).arg(file)).ok();
}
