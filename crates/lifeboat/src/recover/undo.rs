//! `recover rollback` and `recover commit`.

use super::{
    args::PatienceArgs,
    confirm::{confirm, look, unless_interrupted},
    meant::{Meant, older_finished},
    next::Next,
    run::stopped,
    show::Shown,
};
use crate::{
    cli::Context,
    interrupt::Interrupt,
    output,
    report::{Exit, Failure},
};
use recover::{
    Elsewhere, Ended, Fleet, Journal, Plan, Run, RunError, Runs, State, What, not_serving,
    rolled_back,
};

/// Bring the old data and the old cluster back
///
/// At any time until `recover commit`: members are stopped, their data set aside, the old data put back, and the old cluster and its clients
/// started. What the new cluster has written stays beside them. May be run again after a stop.
#[derive(Debug, clap::Args)]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    meant: Meant,

    /// Do not ask for the cluster's name
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    patience: PatienceArgs,
}

/// Make a recovery final: it can no longer be taken back by a command
///
/// Locks are removed from the hosts. Old data are not: that is yours to do.
#[derive(Debug, clap::Args)]
pub(crate) struct CommitArgs {
    #[command(flatten)]
    meant: Meant,

    #[command(flatten)]
    patience: PatienceArgs,
}

impl RollbackArgs {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let (runs, plan, journal) = self.meant.find()?;
        let lock = runs.lock(&plan.spec.cluster)?;
        lock.names(&plan.run);
        match journal.state()? {
            State::Committed => {
                let how = ending(&journal)?.unwrap_or_else(|| "was committed".to_owned());
                let help = match &plan.replace {
                    None => "the old data are where they were set aside; docs/recover.md says how to put them back by hand".to_owned(),
                    Some(replace) => format!(
                        "etcd never takes a member back that was removed, so its old data are of no use; `lifeboat recover replace` makes another {}",
                        replace.member
                    ),
                };
                return Err(Failure::new(Exit::Refused, format!("run {} {how}", plan.run), help));
            }
            State::RolledBack => {
                say!("run {} was taken back before", plan.run);
                if let Some(older) = older_finished(&runs, &plan)? {
                    say!(
                        "help: run {older}, which it had followed, is in place, neither committed nor taken back: `{}` takes that back too",
                        Next::of(&self.meant.runs).rollback(&older)
                    );
                }
                return release(context, &plan, &journal);
            }
            State::Unfinished if !journal.has_begun_a_step()? => {
                drop_untouched(&journal)?;
                let told = format!(
                    "{}: run {} had changed nothing yet, and is dropped; nothing was started or stopped\n",
                    plan.spec.cluster, plan.run
                );
                return output::print(&told);
            }
            _ => {}
        }
        let interrupt = Interrupt::watch()?;
        let patience = self.patience.time();
        let looked = look(context, &plan, &journal, patience, &interrupt, async |_| Ok(()));
        if looked.as_ref().is_err_and(was_taken_back_here) {
            say!("run {} was taken back before", plan.run);
            return Ok(());
        }
        let next = Next::of(&self.meant.runs);
        looked.map_err(|failure| if_overtaken_here(failure, &runs, &next))?;
        let state = journal.state()?;
        say_part!("{}", given_up(&plan, state));
        // Who goes on with it has confirmed it before.
        if state != State::RollingBack {
            confirm(&plan, "take it back", self.yes, &interrupt)?;
        }
        let shown = Shown::new(&plan.spec);
        let back = unless_interrupted(context, &interrupt, async {
            let fleet = Fleet::new(&plan.spec, shown.watcher())?.patient(self.patience.time());
            Ok(Run { plan: &plan, journal: &journal, fleet: &fleet }.roll_back().await?)
        });
        let back = back.map_err(|failure| match journal.state() {
            // It was only not asked to its end whether the old cluster serves.
            Ok(State::RolledBack) => failure,
            _ => stopped(failure, "the same command goes on".to_owned()),
        })?;
        shown.clear();
        let _ = std::fs::remove_dir_all(journal.build_dir());
        recover::forget(&journal);
        output::print(&rolled_back(&plan, &journal.lines()?, &back))?;
        if let Some(warning) = not_serving(&plan, &back) {
            say!("warning: {warning}");
        }
        Ok(())
    }
}

/// An earlier process of this machine has taken it back, and was cut off before it wrote that down.
fn was_taken_back_here(failure: &Failure) -> bool {
    let by_us = |how: &Elsewhere| matches!(how, Elsewhere::TakenBack { by_us: true, .. });
    matches!(failure.error.downcast_ref(), Some(RunError::Elsewhere { how, .. }) if by_us(how))
}

/// The later run is known here: its command is all that is needed.
fn if_overtaken_here(failure: Failure, runs: &Runs, next: &Next) -> Failure {
    let Some(RunError::Overtaken { later, is_final: false, .. }) = failure.error.downcast_ref()
    else {
        return failure;
    };
    let here = later.iter().find(|claim| runs.open(&claim.run).is_ok());
    let help = here.map(|claim| {
        format!(
            "nothing was changed. The later run is to be taken back first: {}",
            next.rollback(&claim.run)
        )
    });
    Failure { help: help.or(failure.help), ..failure }
}

/// How a run has ended elsewhere, as its journal tells.
fn ending(journal: &Journal) -> Result<Option<String>, Failure> {
    let lines = journal.lines()?;
    let last = lines.iter().rev().find_map(|line| match line.what {
        What::RolledBack => Some(("was taken back", line)),
        What::Committed => Some(("is final", line)),
        _ => None,
    });
    Ok(last.and_then(|(what, line)| Some(format!("{what}: {}", line.note.as_ref()?))))
}

/// What a rollback is about to do, before it does it.
fn given_up(plan: &Plan, state: State) -> String {
    let what = match &plan.replace {
        Some(replace) => format!("the replacement of {}", replace.member),
        None => "the recovery of the whole cluster".to_owned(),
    };
    let lost = match (state, &plan.replace) {
        (State::Finished, None) => {
            "; what was written since then is not in the old data: the new data are kept beside them"
        }
        _ => "",
    };
    format!(
        "{}: run {}, {what}, begun {:.0}, is taken back{lost}\n",
        plan.spec.cluster, plan.run, plan.made
    )
}

/// A run that has changed nothing on any host is no run any more.
pub(super) fn drop_untouched(journal: &Journal) -> Result<(), Failure> {
    let _ = std::fs::remove_dir_all(journal.build_dir());
    recover::forget(journal);
    Ok(journal.note(What::RolledBack, None, None, None)?)
}

/// A run that has done no more than claim hosts lets them go, and is no run any more.
pub(super) fn let_go(context: &Context, plan: &Plan, journal: &Journal) -> Result<(), Failure> {
    let shown = Shown::new(&plan.spec);
    context.block_on(async {
        let fleet = Fleet::new(&plan.spec, shown.watcher())?;
        Ok(Run { plan, journal, fleet: &fleet }.let_go().await?)
    })?;
    drop_untouched(journal)
}

/// A host that could not be reached when the run was taken back is held by it still.
fn release(context: &Context, plan: &Plan, journal: &Journal) -> Result<(), Failure> {
    if plan.replace.is_none() {
        return Ok(());
    }
    let shown = Shown::new(&plan.spec);
    context.block_on(async {
        let fleet = Fleet::new(&plan.spec, shown.watcher())?;
        Ok(Run { plan, journal, fleet: &fleet }.let_go().await?)
    })
}

impl CommitArgs {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let (runs, plan, journal) = self.meant.find()?;
        let lock = runs.lock(&plan.spec.cluster)?;
        lock.names(&plan.run);
        if matches!(journal.state()?, State::Unfinished | State::RollingBack) {
            // Another machine may have ended it, or have it now.
            let shown = Shown::new(&plan.spec);
            context.block_on(async {
                let fleet = Fleet::new(&plan.spec, shown.watcher())?;
                Ok(Run { plan: &plan, journal: &journal, fleet: &fleet }.refuse_elsewhere().await?)
            })?;
        }
        match journal.state()? {
            State::Finished => {}
            State::Committed => {
                let how = ending(&journal)?.unwrap_or_else(|| "is final already".to_owned());
                return output::print(&format!("{}: run {} {how}\n", plan.spec.cluster, plan.run));
            }
            State::RolledBack => {
                let how = ending(&journal)?.unwrap_or_else(|| "was taken back".to_owned());
                let help = match older_finished(&runs, &plan)? {
                    None => "there is nothing to commit: the old data are in place".to_owned(),
                    Some(older) => format!(
                        "run {older}, which it had followed, is in place: `{}` makes that final",
                        Next::of(&self.meant.runs).commit(&older)
                    ),
                };
                return Err(Failure::new(Exit::Refused, format!("run {} {how}", plan.run), help));
            }
            State::RollingBack => return Err(Next::of(&self.meant.runs).rolling_back(&plan)),
            State::Unfinished => return Err(Next::of(&self.meant.runs).another_run(&plan)),
        }
        let shown = Shown::new(&plan.spec);
        context
            .block_on(async {
                let fleet = Fleet::new(&plan.spec, shown.watcher())?.patient(self.patience.time());
                let run = Run { plan: &plan, journal: &journal, fleet: &fleet };
                run.refuse_elsewhere().await?;
                run.refuse_overtaken().await?;
                Ok(run.end(Ended::Committed).await?)
            })
            .map_err(|failure| if_overtaken_here(failure, &runs, &Next::of(&self.meant.runs)))?;
        journal.note(What::Committed, None, None, None)?;
        output::print(&format!("{}: run {} is final\n", plan.spec.cluster, plan.run))?;
        output::print(&recover::left_on_hosts(&plan))
    }
}
