//! `lifeboat backup`, `list`, `show`, `verify`, `prune`, `keep`, `copy`, `rekey` and `restore`: the repository.

mod args;
mod backup;
mod copy;
mod encoding;
mod events;
mod keep;
mod list;
mod moment;
mod policy;
mod prune;
mod rekey;
mod restore;
mod show;
mod verify;

pub(crate) use args::{IdentityArgs, RepositoryArgs, one_cluster, place, setting};
pub(crate) use backup::BackupArgs;
pub(crate) use copy::CopyArgs;
pub(crate) use events::Show;
pub(crate) use keep::KeepArgs;
pub(crate) use list::{ListArgs, warn_unreadable};
pub(crate) use prune::PruneArgs;
pub(crate) use rekey::RekeyArgs;
pub(crate) use restore::RestoreArgs;
pub(crate) use show::ShowArgs;
pub(crate) use verify::VerifyArgs;
