//! Why something on a host failed, and what to do next.

use std::{io, path::PathBuf};

/// What ssh says where waiting rarely helps.
const MISTAKES: [&str; 7] = [
    "Could not resolve hostname",
    "Connection refused",
    "Permission denied",
    "Host key verification failed",
    "REMOTE HOST IDENTIFICATION HAS CHANGED",
    "Bad configuration option",
    "Can't open user config file",
];
/// What is said where sudo does not make a user root.
const NO_SUDO: [&str; 8] = [
    "a password is required",
    "a terminal is required",
    "is not in the sudoers file",
    "may not run sudo",
    "is not allowed to",
    "sudo: not found",
    "sudo: command not found",
    "must be owned by uid 0",
];

/// Why something on a host failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// There is no `ssh` here.
    #[error("cannot run ssh")]
    NoSsh(#[source] io::Error),
    /// ssh did not get there, or was cut off.
    #[error("{label}: {destination} cannot be reached by ssh{}", and_said(said))]
    Unreachable {
        /// The member, or the host.
        label: String,
        /// Where to.
        destination: String,
        /// The command line that a person would type to get there.
        line: String,
        /// What ssh said.
        said: String,
    },
    /// A command failed.
    #[error("{label}: it failed ({status}){}", and_said(said))]
    Failed {
        /// The member, or the host.
        label: String,
        /// How it ended.
        status: String,
        /// Its exit code, if it had one.
        code: Option<i32>,
        /// What it said on stderr.
        said: String,
    },
    /// The user is not root, and cannot become it.
    #[error(
        "{label}: {destination} is not root there, and may not use sudo without a password: {said}"
    )]
    NoRoot {
        /// The member, or the host.
        label: String,
        /// Where to, with the user if one is named.
        destination: String,
        /// What sudo, or the shell in its place, said.
        said: String,
    },
    /// Nothing came for too long.
    #[error("{label}: no answer for {seconds} s")]
    Silent {
        /// The member, or the host.
        label: String,
        /// How long.
        seconds: u64,
    },
    /// A file that shall be sent cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that is fetched cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What arrived is not what was sent.
    #[error("{label}: what arrived of {file} has SHA-256 {arrived}, but {sent} was sent")]
    Damaged {
        /// The member, or the host.
        label: String,
        /// The file.
        file: String,
        /// Computed on the host.
        arrived: String,
        /// Computed here.
        sent: String,
    },
    /// The answer cannot be understood.
    #[error("{label}: the answer {answer:?} cannot be understood")]
    Answer {
        /// The member, or the host.
        label: String,
        /// Its beginning.
        answer: String,
    },
}

impl HostError {
    /// Whether it may be gone when it is tried again.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Silent { .. } | Self::Damaged { .. })
    }

    /// Whether it looks like a mistake rather than like a host that is still booting: a host that nobody knows, a key that is not
    /// accepted, a port at which nobody listens.
    pub(crate) fn looks_mistaken(&self) -> bool {
        let Self::Unreachable { said, .. } = self else { return false };
        MISTAKES.iter().any(|mistake| said.contains(mistake))
    }

    /// The exit code of what ran on the host, if that is what failed.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Failed { code, .. } => *code,
            _ => None,
        }
    }

    /// One imperative sentence: what to do next.
    pub fn remedy(&self) -> String {
        match self {
            Self::NoSsh(_) => "install OpenSSH's client".to_owned(),
            Self::Unreachable { line, .. } => format!(
                "try `{line} true` yourself: it must work without a question; a key of an unknown host is to be accepted there first"
            ),
            Self::NoRoot { .. } => {
                "let that user use sudo without a password (NOPASSWD in sudoers), or name one who can: `ssh.user: root`, or another with `ssh.sudo: true`".to_owned()
            }
            Self::Failed { .. } => {
                "put right what the host says, then run the same command again: it goes on from there".to_owned()
            }
            Self::Silent { .. } | Self::Damaged { .. } => {
                "check the host and the network, then run the same command again: it goes on from there".to_owned()
            }
            Self::Write { .. } => "free space there, or name another folder with --state-dir".to_owned(),
            Self::Read { .. } => "check the disk and the file's permissions".to_owned(),
            Self::Answer { .. } => "check that the host's shell prints nothing of its own".to_owned(),
        }
    }
}

/// Whether a user could not become root, by what was said.
pub(super) fn is_not_root(said: &str) -> bool {
    said.contains("sudo") && NO_SUDO.iter().any(|words| said.contains(words))
}

/// What was said, where something was.
fn and_said(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}
