//! `lifeboat snapshot …`: files, saved, described, proved and restored.

pub(crate) mod findings;
mod hashkv;
mod restore;
pub(crate) mod save;
mod status;
mod verify;

pub(crate) use hashkv::HashKvArgs;
pub(crate) use restore::RestoreArgs;
pub(crate) use save::SaveArgs;
pub(crate) use status::StatusArgs;
pub(crate) use verify::VerifyArgs;

use crate::{cli::Context, report::Failure};

/// Save, check and restore snapshot files
#[derive(Debug, clap::Subcommand)]
pub(crate) enum SnapshotCommand {
    Save(SaveArgs),
    Status(StatusArgs),
    Verify(VerifyArgs),
    #[command(name = "hashkv")]
    HashKv(HashKvArgs),
    Restore(RestoreArgs),
}

impl SnapshotCommand {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Save(args) => args.run(context),
            Self::Status(args) => args.run(context),
            Self::Verify(args) => args.run(context),
            Self::HashKv(args) => args.run(context),
            Self::Restore(args) => args.run(context),
        }
    }
}
