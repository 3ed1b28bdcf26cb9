//! `recover adopt`: a run whose machine is gone goes on from this one.

use super::{
    args::ClusterArgs,
    next::Next,
    run::{unless_interrupted, with_spec},
    show::Shown,
};
use crate::{
    cli::Context,
    interrupt::Interrupt,
    output,
    report::{Exit, Failure},
};
use jiff::Timestamp;
use recover::{
    Claim, Elsewhere, Ended, Facts, Fleet, Line, Plan, Run, RunError, Runs, State, What,
};
use std::collections::BTreeMap;

/// Take over a run that was begun on a machine that is gone
///
/// Without RUN, tells which runs hold the hosts or have their data in place: who
/// began them, on which machine, and when. With RUN, that one goes on from here:
/// `recover run` finishes it, `recover rollback` takes it back, and one that had
/// finished is committed or taken back. A process of it that still works
/// elsewhere does nothing further on the hosts.
///
/// Examples:
///   lifeboat recover adopt prod.yaml
///   lifeboat recover adopt prod.yaml 20261122t160000-12ab
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct AdoptArgs {
    #[command(flatten)]
    cluster: ClusterArgs,

    /// The run, as `adopt` without it names it
    #[arg(value_name = "RUN")]
    run: Option<String>,
}

/// A run that hosts tell of.
struct Found<'f> {
    claim: &'f Claim,
    /// It holds hosts; else it has finished.
    holds: bool,
    hosts: Vec<&'f str>,
}

impl AdoptArgs {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let spec = self.cluster.load()?;
        let runs = self.cluster.runs.runs()?;
        let lock = runs.lock(&spec.cluster)?;
        let next = Next::with(&self.cluster);
        let interrupt = Interrupt::watch()?;
        let shown = Shown::new(&spec);
        let facts = unless_interrupted(context, &interrupt, async {
            let fleet = Fleet::new(&spec, shown.watcher())?;
            Ok(fleet.inspect(&Plan::new_run(Timestamp::now())?).await?)
        })?;
        shown.clear();
        let found = found(&facts);
        let told: String = found.iter().map(Found::line).collect();
        if found.is_empty() {
            return Err(Failure::new(
                Exit::Failed,
                "no run holds these hosts, and none has finished without being committed",
                "there is nothing to take over; `ls -d DATA-DIR.lifeboat-*` on a host tells which runs there were",
            ));
        }
        let Some(wanted) = &self.run else {
            output::print(&told)?;
            for found in &found {
                say!("help: only if that machine is gone: {}", next.adopt(&found.claim.run));
            }
            return Ok(());
        };
        let known = self.known(context, &runs, wanted, &interrupt)?;
        if !found.iter().any(|found| found.claim.run == *wanted) {
            return Err(Failure::new(
                Exit::Refused,
                format!(
                    "the hosts know no run {wanted} that could be taken over, but:\n{}",
                    told.trim_end()
                ),
                "name one of these, if its machine is gone",
            ));
        }
        say_part!("{told}");
        lock.names(wanted);
        let shown = Shown::new(&spec);
        let plan = unless_interrupted(context, &interrupt, async {
            Ok(Fleet::new(&spec, shown.watcher())?.kept_plan(wanted).await?)
        })?;
        let plan = plan.filter(|plan| plan.spec.cluster == spec.cluster).ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                format!("no host keeps a plan of run {wanted} for cluster {}", spec.cluster),
                "docs/recover.md says how to put a host right by hand",
            )
        })?;
        let before = plan.by.clone();
        let copy = kept_at(&plan);
        let mut plan = with_spec(plan, spec, &next).map_err(|refused| Failure {
            help: Some(format!(
                "adopt it with the file as it was: it lies on the hosts, below `spec:` in {copy}; nothing was done now"
            )),
            ..refused
        })?;
        plan.by = Some(runs.holder()?);
        let state = unless_interrupted(context, &interrupt, async {
            let fleet = Fleet::new(&plan.spec, shown.watcher())?;
            let told = fleet.told_of(&plan).await?;
            let by = before.map_or_else(|| "another machine".to_owned(), |by| by.to_string());
            let mut lines = known;
            lines.extend(told.lines);
            lines.sort_by_key(|line| line.at);
            let journal = runs.adopt(&plan, &lines, &format!("taken over from {by}"))?;
            let run = Run { plan: &plan, journal: &journal, fleet: &fleet };
            match told.has_finished {
                true => {
                    run.end(Ended::Finished).await?;
                    journal.note(What::Finished, None, None, None)?;
                }
                false => run.claim().await?,
            }
            Ok(journal.state()?)
        })?;
        shown.clear();
        output::print(&format!("{}: run {wanted} goes on from here\n", plan.spec.cluster))?;
        say!("help: {}", then(&next, &plan, state));
        Ok(())
    }

    /// What this machine knows of the run already: another one has taken it over since.
    fn known(
        &self,
        context: &Context,
        runs: &Runs,
        wanted: &str,
        interrupt: &Interrupt,
    ) -> Result<Vec<Line>, Failure> {
        let Ok((mut plan, journal)) = runs.open(wanted) else { return Ok(Vec::new()) };
        plan.by = Some(runs.holder()?);
        let shown = Shown::new(&plan.spec);
        let elsewhere = unless_interrupted(context, interrupt, async {
            let fleet = Fleet::new(&plan.spec, shown.watcher())?;
            Ok(Run { plan: &plan, journal: &journal, fleet: &fleet }.refuse_elsewhere().await)
        })?;
        match elsewhere {
            Err(RunError::Elsewhere { how: Elsewhere::TakenOver { .. }, .. }) => {
                Ok(journal.lines()?)
            }
            Err(error) => Err(error.into()),
            Ok(()) => Err(Failure::new(
                Exit::Refused,
                format!("run {wanted} is known on this machine already"),
                format!(
                    "go on with it, or take it back; `{}` shows where it is",
                    Next::with(&self.cluster).status(wanted)
                ),
            )),
        }
    }
}

/// What can be done with it now.
fn then(next: &Next, plan: &Plan, state: State) -> String {
    let back = format!("`{}` takes it back", next.rollback(&plan.run));
    match state {
        State::Finished => format!("`{}` makes it final; {back}", next.commit(&plan.run)),
        State::RollingBack => format!("it was being taken back: {back}"),
        _ => format!("`{}` finishes it; {back}", next.go_on(plan)),
    }
}

/// Where hosts keep the plan of a run.
fn kept_at(plan: &Plan) -> String {
    let hosts = plan.hosts();
    let Some(host) = hosts.first() else { return "plan.yaml".to_owned() };
    let below = format!("recover/{}/{}/plan.yaml", plan.run, host.label);
    format!("{}:{}", host.host, host.state_dir.join(below).display())
}

impl Found<'_> {
    fn line(&self) -> String {
        let hosts = self.hosts.join(", ");
        match self.holds {
            true => format!("run {} holds {hosts}\n", self.claim),
            false => {
                format!(
                    "run {} was neither committed nor taken back; its data are in place on {hosts}\n",
                    self.claim
                )
            }
        }
    }
}

/// The runs that hold hosts, and those that have finished.
fn found(facts: &BTreeMap<String, Facts>) -> Vec<Found<'_>> {
    let mut all: Vec<Found<'_>> = Vec::new();
    for (label, facts) in facts {
        let finished = facts.placed.as_ref().filter(|placed| placed.ended == Ended::Finished);
        let finished = finished.map(|placed| (&placed.claim, false));
        let held = facts.lock.as_ref().map(|lock| (lock, true));
        for (claim, holds) in held.into_iter().chain(finished) {
            match all.iter_mut().find(|found| found.claim.run == claim.run) {
                // A run that was cut off at its end has let some hosts go.
                Some(found) if found.hosts.last() == Some(&label.as_str()) => {}
                Some(found) if found.holds || !holds => found.hosts.push(label),
                Some(found) => *found = Found { claim, holds, hosts: vec![label] },
                None => all.push(Found { claim, holds, hosts: vec![label] }),
            }
        }
    }
    all
}
