//! `recover adopt`: a run whose machine is gone goes on from this one.

use super::{
    args::{ClusterArgs, PatienceArgs},
    confirm::unless_interrupted,
    next::Next,
    run::with_spec,
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
    Claim, Elsewhere, Ended, Facts, Fleet, Holder, Journal, Left, Line, Plan, Run, RunError, Runs,
    State, What, spec::Spec,
};
use std::collections::BTreeMap;

/// Take over a run that was begun on a machine that is gone
///
/// Without RUN, tells which runs hold the hosts or have their data in place: who
/// began them, on which machine, and when. With RUN, that one goes on from here:
/// `recover run` finishes it, `recover rollback` takes it back, and one that had
/// finished is committed or taken back. A process of it that still works
/// elsewhere does nothing further on the hosts. A host that does not answer is
/// left out, and told of: what the others know is enough to go on with.
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

    #[command(flatten)]
    patience: PatienceArgs,
}

/// A run that hosts tell of.
struct Found<'f> {
    claim: &'f Claim,
    /// It holds hosts; else it has finished.
    holds: bool,
    hosts: Vec<&'f str>,
}

/// Hosts that did not answer.
struct Absent(Vec<String>);

impl AdoptArgs {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let spec = self.cluster.load()?;
        let runs = self.cluster.runs.runs()?;
        let lock = runs.lock(&spec.cluster)?;
        let next = Next::with(&self.cluster);
        let interrupt = Interrupt::watch()?;
        let (facts, absent) = self.look(context, &spec, &interrupt)?;
        let found = found(&facts);
        let told: String = found.iter().map(Found::line).collect();
        if found.is_empty() {
            return Err(Failure::new(
                Exit::Failed,
                format!(
                    "no run holds {}, and none has finished there without being committed",
                    absent.others("these hosts")
                ),
                "there is nothing to take over, unless its ssh.state-dir was another; `ls -d DATA-DIR.lifeboat-*` on a host tells which runs there were",
            ));
        }
        let Some(wanted) = &self.run else {
            output::print(&told)?;
            for run in found.iter().map(|found| &found.claim.run) {
                match self.had_here(context, &runs, run, &interrupt) {
                    Ok(Some((plan, journal))) => {
                        say!(
                            "help: run {run} is of this machine: {}",
                            then(&next, &plan, journal.state()?)
                        );
                    }
                    _ => say!("help: only if that machine is gone: {}", next.adopt(run)),
                }
            }
            return Ok(());
        };
        let known = self.known(context, &runs, wanted, &interrupt)?;
        if !found.iter().any(|found| found.claim.run == *wanted) {
            return Err(Failure::new(
                Exit::Refused,
                format!(
                    "{} know no run {wanted} that could be taken over, but:\n{}",
                    absent.others("the hosts"),
                    told.trim_end()
                ),
                "name one of these, if its machine is gone",
            ));
        }
        say_part!("{told}");
        lock.names(wanted);
        let plan = self.kept(context, spec, wanted, &absent, &interrupt)?;
        let state = take_over(context, &runs, &plan, known, &absent, &interrupt)?;
        output::print(&format!("{}: run {wanted} goes on from here\n", plan.spec.cluster))?;
        if !absent.0.is_empty() {
            say!(
                "warning: what was done on {} is not known, and is found out by the next command, which must reach all hosts: `--patience 10m` waits for one that boots",
                absent.0.join(", ")
            );
        }
        say!("help: {}", then(&next, &plan, state));
        Ok(())
    }

    /// What the hosts tell, and which do not answer.
    fn look(
        &self,
        context: &Context,
        spec: &Spec,
        interrupt: &Interrupt,
    ) -> Result<(BTreeMap<String, Facts>, Absent), Failure> {
        let shown = Shown::new(spec);
        let (facts, away) = unless_interrupted(context, interrupt, async {
            let fleet = self.patience.at_first(Fleet::new(spec, shown.watcher())?);
            Ok(fleet.inspect_who_answers(&Plan::new_run(Timestamp::now())?).await?)
        })?;
        shown.clear();
        away.iter().for_each(|error| say!("warning: {error}"));
        let labels = spec.resolved().into_iter().map(|host| host.label);
        let absent = labels.filter(|label| !facts.contains_key(label)).collect();
        Ok((facts, Absent(absent)))
    }

    /// The run's plan, as a host keeps it, with the cluster's file of today; nothing is taken over yet.
    fn kept(
        &self,
        context: &Context,
        spec: Spec,
        wanted: &str,
        absent: &Absent,
        interrupt: &Interrupt,
    ) -> Result<Plan, Failure> {
        let shown = Shown::new(&spec);
        let plan = unless_interrupted(context, interrupt, async {
            let fleet = Fleet::new(&spec, shown.watcher())?.without(&absent.0);
            Ok(fleet.kept_plan(wanted).await?)
        })?;
        let plan = plan.ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                format!("none of {} keeps a plan of run {wanted}", absent.others("the hosts")),
                "docs/recover.md says how to put a host right by hand",
            )
        })?;
        if plan.spec.cluster != spec.cluster {
            return Err(Failure::new(
                Exit::Refused,
                format!("run {wanted} is of cluster {}, not {}", plan.spec.cluster, spec.cluster),
                format!("correct `cluster` in {}", self.cluster.spec.display()),
            ));
        }
        let copy = kept_at(&plan, absent);
        with_spec(plan, spec, &Next::with(&self.cluster)).map_err(|refused| Failure {
            help: Some(format!(
                "adopt it with the file as it was: it lies on the hosts, below `spec:` in {copy}; nothing was done now"
            )),
            ..refused
        })
    }

    /// The run, if it is one of this machine.
    fn had_here(
        &self,
        context: &Context,
        runs: &Runs,
        wanted: &str,
        interrupt: &Interrupt,
    ) -> Result<Option<(Plan, Journal)>, Failure> {
        let Ok((mut plan, journal)) = runs.open(wanted) else { return Ok(None) };
        plan.by = Some(runs.holder()?);
        let shown = Shown::new(&plan.spec);
        let elsewhere = unless_interrupted(context, interrupt, async {
            let fleet = Fleet::new(&plan.spec, shown.watcher())?;
            Ok(Run { plan: &plan, journal: &journal, fleet: &fleet }.refuse_elsewhere().await)
        })?;
        match elsewhere {
            Err(RunError::Elsewhere { how: Elsewhere::TakenOver { .. }, .. }) => Ok(None),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(Some((plan, journal))),
        }
    }

    /// What this machine knows of the run already: another one has taken it over since.
    fn known(
        &self,
        context: &Context,
        runs: &Runs,
        wanted: &str,
        interrupt: &Interrupt,
    ) -> Result<Vec<Line>, Failure> {
        let next = Next::with(&self.cluster);
        match self.had_here(context, runs, wanted, interrupt)? {
            None => Ok(runs.open(wanted).map_or(Ok(Vec::new()), |(_, journal)| journal.lines())?),
            Some((plan, journal)) => Err(Failure::new(
                Exit::Refused,
                format!("run {wanted} is of this machine already"),
                format!(
                    "{}; `{}` shows where it is",
                    then(&next, &plan, journal.state()?),
                    next.status(wanted)
                ),
            )),
        }
    }
}

/// Makes the run one of this machine, which claims the hosts that answer.
fn take_over(
    context: &Context,
    runs: &Runs,
    plan: &Plan,
    known: Vec<Line>,
    absent: &Absent,
    interrupt: &Interrupt,
) -> Result<State, Failure> {
    let before = plan.by.as_ref();
    let note = match before {
        Some(before) => format!("taken over from {before}"),
        None => "taken over from another machine".to_owned(),
    };
    let plan = Plan {
        left: absent.left_with(before),
        begun_by: plan.begun_by.clone().or_else(|| before.cloned()),
        by: Some(runs.holder()?),
        ..plan.clone()
    };
    let shown = Shown::new(&plan.spec);
    let state = unless_interrupted(context, interrupt, async {
        let fleet = Fleet::new(&plan.spec, shown.watcher())?.without(&absent.0);
        let told = fleet.told_of(&plan).await?;
        let mut lines = known;
        lines.extend(told.lines);
        lines.sort_by_key(|line| line.at);
        let journal = runs.adopt(&plan, &lines, &note)?;
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
    Ok(state)
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

/// Where a host that answers keeps the plan of a run.
fn kept_at(plan: &Plan, absent: &Absent) -> String {
    let host = plan.hosts().into_iter().find(|host| !absent.0.contains(&host.label));
    let Some(host) = host else { return "plan.yaml".to_owned() };
    let below = format!("recover/{}/{}/plan.yaml", plan.run, host.label);
    format!("{}:{}", host.host, host.state_dir.join(below).display())
}

impl Absent {
    /// All hosts as they are called, or as many as have answered.
    fn others(&self, all: &str) -> String {
        match self.0.is_empty() {
            true => all.to_owned(),
            false => format!("{all} that answer (all but {})", self.0.join(", ")),
        }
    }

    /// What stands there about the run is of the machine before.
    fn left_with(&self, before: Option<&Holder>) -> Option<Left> {
        let seat = before.map(|before| before.seat.clone()).unwrap_or_default();
        (!self.0.is_empty()).then(|| Left { hosts: self.0.clone(), seat })
    }
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
