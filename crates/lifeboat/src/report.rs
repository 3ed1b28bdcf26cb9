//! How a command ends: its exit code, and what a person is told when it failed.
//!
//! ```text
//!   error: what and where
//!   caused by: the chain, a line each
//!   help: what to do next
//! ```

use backup::BackupError;
use etcd_live::LiveError;
use repository::{
    NameError, RepositoryError,
    codec::{CodecError, SealError},
    lease::LeaseError,
    listing::FindError,
    prune::PruneError,
    rekey::RekeyError,
    store::StoreError,
};
use restore::RestoreError;
use snapshot::{OfflineError, PartFileError, SaveError, SnapshotError};
use std::{error::Error, process::ExitCode};

/// Exit codes. They are documented in `docs/commands.md` and never change meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It failed for another reason than those below.
    Failed = 1,
    /// The command line is not right.
    Usage = 2,
    /// Verification found damage, or members differ.
    Damaged = 3,
    /// The cluster or the store could not be reached.
    Unreachable = 4,
    /// It would have overwritten or destroyed something.
    Refused = 5,
    /// Ctrl-C or SIGTERM ended it: 128 and the number of SIGINT, as shells have it.
    Interrupted = 130,
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) error: Box<dyn Error + Send + Sync>,
    pub(crate) help: Option<String>,
}

impl Failure {
    /// A failure of its own words.
    pub(crate) fn new(exit: Exit, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { exit, error: message.into().into(), help: Some(help.into()) }
    }

    /// The user ended it.
    pub(crate) fn interrupted() -> Self {
        let help = "run again when you are ready";
        Self::new(Exit::Interrupted, "interrupted; nothing was left behind", help)
    }

    /// Damage was found.
    pub(crate) fn damaged(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Exit::Damaged, message, help)
    }

    /// A failure of its own words, with the chain of what caused it.
    pub(crate) fn caused(
        exit: Exit,
        message: impl Into<String>,
        error: &(dyn Error + 'static),
        help: impl Into<String>,
    ) -> Self {
        let message = format!("{}\ncaused by: {}", message.into(), etcd_live::one_line(error));
        Self::new(exit, message, help)
    }

    /// What one repository's failure is to the whole.
    pub(crate) fn from_kind(
        kind: backup::Kind,
        message: impl Into<String>,
        error: &backup::TargetError,
    ) -> Self {
        let exit = if matches!(error, backup::TargetError::Lease(LeaseError::Held { .. })) {
            Exit::Refused
        } else {
            kind.into()
        };
        Self::caused(exit, message, error, error.remedy())
    }

    /// Tells it as a warning, where others are still to be done.
    pub(crate) fn warn(&self) {
        for line in self.render().lines() {
            say!("warning: {line}");
        }
    }

    /// The three parts, as they are printed.
    fn render(&self) -> String {
        let mut text = format!("error: {}\n", self.error);
        let mut cause = self.error.source();
        while let Some(error) = cause {
            text += &format!("caused by: {error}\n");
            cause = error.source();
        }
        if let Some(help) = &self.help {
            text += &format!("help: {help}\n");
        }
        text
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

/// Prints what is to be said of a result, and turns it into an exit code.
pub(crate) fn exit(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say_part!("{}", failure.render());
            ExitCode::from(failure.exit as u8)
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self { exit: Exit::Failed, error: error.into(), help: None }
    }
}

impl From<LiveError> for Failure {
    fn from(error: LiveError) -> Self {
        let exit = if error.is_unreachable() { Exit::Unreachable } else { Exit::Failed };
        let help = Some(error.remedy().to_owned());
        Self { exit, error: error.into(), help }
    }
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        let exit = match error {
            SnapshotError::InUse { .. } => Exit::Refused,
            SnapshotError::Damaged { .. }
            | SnapshotError::NotBolt { .. }
            | SnapshotError::NoDigest { .. }
            | SnapshotError::Read { .. } => Exit::Damaged,
            _ => Exit::Failed,
        };
        let help = Some(error.remedy().to_owned());
        Self { exit, error: error.into(), help }
    }
}

impl From<PartFileError> for Failure {
    fn from(error: PartFileError) -> Self {
        let exit = match error {
            PartFileError::Exists { .. }
            | PartFileError::NotAFile { .. }
            | PartFileError::Folder { .. }
            | PartFileError::NotALeftover { .. }
            | PartFileError::Busy { .. } => Exit::Refused,
            _ => Exit::Failed,
        };
        let help = Some(error.remedy().to_owned());
        Self { exit, error: error.into(), help }
    }
}

impl From<SaveError> for Failure {
    fn from(error: SaveError) -> Self {
        match error {
            SaveError::Live(error) => error.into(),
            SaveError::PartFile(error) => error.into(),
            error => {
                let exit = if error.is_damage() { Exit::Damaged } else { Exit::Failed };
                let help = Some(error.remedy().to_owned());
                Self { exit, error: error.into(), help }
            }
        }
    }
}

impl From<OfflineError> for Failure {
    fn from(error: OfflineError) -> Self {
        let exit = match error {
            OfflineError::PartFile(error) => return error.into(),
            OfflineError::InUse { .. } | OfflineError::InsideDataDir { .. } => Exit::Refused,
            OfflineError::Interrupted => Exit::Interrupted,
            _ if error.is_damage() => Exit::Damaged,
            _ => Exit::Failed,
        };
        let help = Some(error.remedy().to_owned());
        Self { exit, error: error.into(), help }
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        let exit = match error {
            RestoreError::NotEmpty { .. }
            | RestoreError::Exists { .. }
            | RestoreError::Busy { .. }
            | RestoreError::NotOurs { .. }
            | RestoreError::Leftover { .. } => Exit::Refused,
            RestoreError::Cluster(_)
            | RestoreError::BumpTooFar { .. }
            | RestoreError::WalDirInDataDir { .. }
            | RestoreError::UnknownVersion { .. } => Exit::Usage,
            RestoreError::SelfCheck { .. } => Exit::Damaged,
            RestoreError::Interrupted => Exit::Interrupted,
            _ => Exit::Failed,
        };
        let help = Some(error.remedy().to_owned());
        Self { exit, error: error.into(), help }
    }
}

impl From<restore::ClusterError> for Failure {
    fn from(error: restore::ClusterError) -> Self {
        RestoreError::from(error).into()
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        Self { exit: Exit::Usage, error: error.into(), help: None }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = match error {
            StoreError::BadUrl { .. } | StoreError::BadOption { .. } => Exit::Usage,
            _ if error.is_unreachable() => Exit::Unreachable,
            _ => Exit::Failed,
        };
        let help = Some(error.remedy().to_owned());
        Self { exit, error: error.into(), help }
    }
}

impl From<RepositoryError> for Failure {
    fn from(error: RepositoryError) -> Self {
        let exit = match &error {
            RepositoryError::PinTaken { .. } => Exit::Refused,
            RepositoryError::PinName(_) => Exit::Usage,
            _ if error.is_unreachable() => Exit::Unreachable,
            _ => Exit::Failed,
        };
        let help = Some(error.remedy().to_owned());
        Self { exit, error: error.into(), help }
    }
}

impl From<FindError> for Failure {
    fn from(error: FindError) -> Self {
        let help = Some(error.remedy().to_owned());
        Self { exit: Exit::Failed, error: error.into(), help }
    }
}

impl From<PruneError> for Failure {
    fn from(error: PruneError) -> Self {
        let exit = match &error {
            PruneError::Changed { .. } => Exit::Refused,
            _ if error.is_unreachable() => Exit::Unreachable,
            _ => Exit::Failed,
        };
        let help = Some(error.remedy().to_owned());
        Self { exit, error: error.into(), help }
    }
}

impl From<SealError> for Failure {
    fn from(error: SealError) -> Self {
        let exit = if error.is_damage() { Exit::Damaged } else { Exit::Usage };
        let help = Some(error.remedy().to_owned());
        Self { exit, error: error.into(), help }
    }
}

impl From<CodecError> for Failure {
    fn from(error: CodecError) -> Self {
        let exit = match &error {
            CodecError::Store(store) if store.is_unreachable() => Exit::Unreachable,
            _ if error.is_damage() => Exit::Damaged,
            _ => Exit::Failed,
        };
        let help = error.remedy().map(str::to_owned);
        Self { exit, error: error.into(), help }
    }
}

impl From<RekeyError> for Failure {
    fn from(error: RekeyError) -> Self {
        match error {
            RekeyError::Store(error) => error.into(),
            RekeyError::Codec(error) => error.into(),
            error => {
                let help = error.remedy().map(str::to_owned);
                Self { exit: Exit::Failed, error: error.into(), help }
            }
        }
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        let exit = match error {
            BackupError::Interrupted => Exit::Interrupted,
            _ => error.kind().into(),
        };
        let help = Some(error.remedy().to_owned());
        Self { exit, error: error.into(), help }
    }
}

impl From<backup::fetch::FetchError> for Failure {
    fn from(error: backup::fetch::FetchError) -> Self {
        let help = Some(error.remedy().to_owned());
        Self { exit: error.kind().into(), error: error.into(), help }
    }
}

impl From<repository::copy::CopyError> for Failure {
    fn from(error: repository::copy::CopyError) -> Self {
        let exit = if error.is_unreachable() { Exit::Unreachable } else { Exit::Failed };
        let help = Some(error.remedy().to_owned());
        Self { exit, error: error.into(), help }
    }
}

impl From<daemon::ConfigError> for Failure {
    fn from(error: daemon::ConfigError) -> Self {
        let help = Some(error.remedy().to_owned());
        Self { exit: Exit::Usage, error: error.into(), help }
    }
}

impl From<daemon::ServeError> for Failure {
    fn from(error: daemon::ServeError) -> Self {
        match error {
            daemon::ServeError::Config(error) => error.into(),
            error => {
                let help = Some(error.remedy().to_owned());
                Self { exit: Exit::Failed, error: error.into(), help }
            }
        }
    }
}

impl From<recover::spec::SpecError> for Failure {
    fn from(error: recover::spec::SpecError) -> Self {
        let help = Some(error.remedy().to_owned());
        Self { exit: Exit::Usage, error: error.into(), help }
    }
}

impl From<recover::JournalError> for Failure {
    fn from(error: recover::JournalError) -> Self {
        let exit = match error {
            recover::JournalError::Busy { .. } => Exit::Refused,
            _ => Exit::Failed,
        };
        let help = Some(error.remedy().to_owned());
        Self { exit, error: error.into(), help }
    }
}

impl From<recover::RunError> for Failure {
    fn from(error: recover::RunError) -> Self {
        let exit = match &error {
            recover::RunError::Cluster { .. } => Exit::Damaged,
            recover::RunError::Overtaken { .. } | recover::RunError::Elsewhere { .. } => {
                Exit::Refused
            }
            _ if error.is_outrun() => Exit::Refused,
            _ if error.is_unreachable() => Exit::Unreachable,
            _ => Exit::Failed,
        };
        let help = Some(error.remedy());
        Self { exit, error: error.into(), help }
    }
}

impl From<recover::BuildError> for Failure {
    fn from(error: recover::BuildError) -> Self {
        match error {
            recover::BuildError::Snapshot(error) => error.into(),
            recover::BuildError::Restore(error) => error.into(),
            error @ recover::BuildError::Version { .. } => Self::new(
                Exit::Usage,
                error.to_string(),
                "say in the cluster's file for which etcd the data shall be: etcd.version, 3.4, 3.5 or 3.6",
            ),
            error => Self::new(
                Exit::Failed,
                etcd_live::one_line(&error),
                "choose another backup, or correct the cluster's file",
            ),
        }
    }
}
