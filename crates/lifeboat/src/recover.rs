//! `lifeboat recover …`: a whole cluster, over SSH.

mod adopt;
mod agent;
mod args;
mod backup;
mod confirm;
mod discover;
mod meant;
mod next;
mod plan;
mod prepare;
mod receive;
mod replace;
mod rescue;
mod run;
mod show;
mod status;
mod undo;

pub(crate) use show::{above, take_away};

use crate::{cli::Context, report::Failure};

/// Bring a whole cluster back over SSH
///
/// What an administrator would do by hand, at night, as a plan that is printed before it is run, can be resumed after a stop, and taken back
/// until it is committed. docs/recover.md describes the file and the steps.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum RecoverCommand {
    Plan(plan::PlanArgs),
    Run(run::RunArgs),
    Replace(replace::ReplaceArgs),
    Rollback(undo::RollbackArgs),
    Commit(undo::CommitArgs),
    Status(status::StatusArgs),
    Adopt(adopt::AdoptArgs),
    #[command(hide = true)]
    Agent(agent::AgentArgs),
    #[command(hide = true)]
    Receive(receive::ReceiveArgs),
    #[command(hide = true)]
    Digest(receive::DigestArgs),
}

impl RecoverCommand {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Plan(args) => args.run(context),
            Self::Run(args) => args.run(context),
            Self::Replace(args) => args.run(context),
            Self::Rollback(args) => args.run(context),
            Self::Commit(args) => args.run(context),
            Self::Status(args) => args.run(context),
            Self::Adopt(args) => args.run(context),
            Self::Agent(args) => args.run(context),
            Self::Receive(args) => args.run(),
            Self::Digest(args) => args.run(),
        }
    }
}
