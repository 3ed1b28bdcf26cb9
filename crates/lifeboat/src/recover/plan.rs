//! `recover plan`: what would be done, printed.

use super::{
    args::{ClusterArgs, PatienceArgs, ProgramArgs},
    backup::BackupArgs,
    discover::DiscoverArgs,
    prepare,
    show::Shown,
};
use crate::{
    cli::Context,
    output,
    report::{Exit, Failure},
};
use jiff::Timestamp;
use recover::{Fleet, as_shell, runbook};

/// Print what would be done, as a numbered runbook with every command on every host
///
/// Reaches the hosts and the repository, and changes nothing on them. Without --ask, etcd is not asked: the newest revision
/// that clients can have seen is not known then, and of data that members have left only the age.
#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    cluster: ClusterArgs,

    /// Print it as a script for sh that needs no lifeboat: ssh here, and etcd's own tool on the hosts
    #[arg(long)]
    as_shell: bool,

    /// Ask etcd too, and read what data are left; this puts lifeboat's binary on the hosts
    #[arg(long)]
    ask: bool,

    #[command(flatten)]
    discover: DiscoverArgs,

    #[command(flatten)]
    backup: BackupArgs,

    #[command(flatten)]
    program: ProgramArgs,

    #[command(flatten)]
    patience: PatienceArgs,
}

impl PlanArgs {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        self.discover.run(context, &self.cluster.spec, Some(&self.backup))?;
        let spec = self.cluster.load()?;
        let (program, agent) = prepare::program(&self.program)?;
        let source = self.backup.find_if_needed(context, &spec)?;
        let asks = self.ask || self.backup.rescue.is_asked();
        let shown = Shown::new(&spec);
        let looked = context.block_on(async {
            let fleet = self.patience.at_first(Fleet::new(&spec, shown.watcher())?);
            prepare::look(&spec, &fleet, &agent, asks.then_some(program.as_path())).await
        })?;
        let selected = self.backup.rescue.select(&spec, &looked, source.as_ref())?;
        if self.as_shell && selected.rescue.is_some() {
            return Err(Failure::new(
                Exit::Usage,
                "a script without lifeboat cannot read a member's write-ahead log",
                "make a snapshot with `lifeboat snapshot save FILE --data-dir DIR` on the stopped member's host, and give that as --backup",
            ));
        }
        let healthy = prepare::healthy(&looked.answers).join(", ");
        let bump = self.backup.bump(&looked.answers)?;
        let pull = self.backup.pull(&spec)?;
        let plan = prepare::plan(spec, looked, &selected, bump, pull, agent);
        let now = Timestamp::now();
        output::print(&if self.as_shell { as_shell(&plan, now) } else { runbook(&plan, now) })?;
        if !healthy.is_empty() {
            say!(
                "warning: the cluster is healthy: {healthy} can write to it; `lifeboat recover run` refuses that unless --even-though-healthy"
            );
        }
        prepare::check(&plan, &self.cluster)
    }
}
