//! `recover plan`: what would be done, printed.

use super::{
    args::{ClusterArgs, ProgramArgs},
    discover::DiscoverArgs,
    prepare::{self, BackupArgs},
    show::Shown,
};
use crate::{cli::Context, output, report::Failure};
use jiff::Timestamp;
use recover::{Fleet, as_shell, runbook};

/// Print what would be done, as a numbered runbook with every command on every host
///
/// Reaches the hosts and the repository, and changes nothing on them. Without --ask, etcd is not asked: the newest revision
/// that clients can have seen is not known then.
#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    cluster: ClusterArgs,

    /// Print it as a script for sh that needs no lifeboat: ssh here, and etcd's own tool on the hosts
    #[arg(long)]
    as_shell: bool,

    /// Ask etcd too; this puts lifeboat's binary on the hosts
    #[arg(long)]
    ask: bool,

    #[command(flatten)]
    discover: DiscoverArgs,

    #[command(flatten)]
    backup: BackupArgs,

    #[command(flatten)]
    program: ProgramArgs,
}

impl PlanArgs {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        self.discover.run(context, &self.cluster.spec, &self.backup)?;
        let spec = self.cluster.load()?;
        let (program, agent) = prepare::program(&self.program)?;
        let source = self.backup.find(context, &spec)?;
        let shown = Shown::new(&spec);
        let looked = context.block_on(async {
            let fleet = Fleet::new(&spec, shown.watcher())?;
            prepare::look(&fleet, &agent, self.ask.then_some(program.as_path())).await
        })?;
        let bump = self.backup.bump(&looked.answers)?;
        let pull = self.backup.pull(&spec)?;
        let plan = prepare::plan(spec, looked, source.chosen, bump, pull, agent);
        let now = Timestamp::now();
        output::print(&if self.as_shell { as_shell(&plan, now) } else { runbook(&plan, now) })?;
        prepare::check(&plan)
    }
}
