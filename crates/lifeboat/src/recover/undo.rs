//! `recover rollback`, `recover commit` and `recover status`.

use super::{
    args::{PatienceArgs, RunsArgs},
    next::Next,
    run::{confirm, stopped, unless_interrupted},
    show::Shown,
};
use crate::{
    cli::Context,
    interrupt::Interrupt,
    output::{self, Format},
    report::{Exit, Failure},
};
use recover::{
    Elsewhere, Ended, Fleet, Journal, Line, Plan, Question, Run, RunError, Runs, State, What,
    not_serving, rolled_back, spec::Resolved,
};
use serde::Serialize;
use std::{io::IsTerminal, time::Duration};

/// So many runs are named to who names one that there is not.
const KNOWN_MAX: usize = 10;

/// The run that is meant.
#[derive(Debug, clap::Args)]
struct Meant {
    /// The run, or the cluster's name for its newest run [default: the newest run of the only cluster]
    #[arg(value_name = "RUN|CLUSTER")]
    run: Option<String>,

    #[command(flatten)]
    runs: RunsArgs,
}

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

/// Show how far a recovery is, on each host
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    meant: Meant,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusJson {
    run: String,
    cluster: String,
    state: &'static str,
    hosts: Vec<HostJson>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HostJson {
    host: String,
    data: String,
    etcd: String,
    clients: String,
    last: String,
}

impl Meant {
    fn find(&self) -> Result<(Runs, Plan, Journal), Failure> {
        let runs = self.runs.runs()?;
        let all = runs.all()?;
        let named = |wanted: &str| {
            all.iter().rev().find(|plan| plan.run == wanted || plan.spec.cluster == wanted)
        };
        let mut clusters: Vec<_> = all.iter().map(|plan| plan.spec.cluster.as_str()).collect();
        clusters.sort_unstable();
        clusters.dedup();
        let found = match (&self.run, clusters.as_slice()) {
            (Some(wanted), _) => named(wanted),
            (None, [only]) => named(only),
            (None, []) => None,
            (None, several) => {
                return Err(Failure::new(
                    Exit::Usage,
                    format!("there are runs of several clusters: {}", several.join(", ")),
                    "name the cluster, or the run",
                ));
            }
        };
        let Some(found) = found else { return Err(self.unknown(&all)) };
        let (mut plan, journal) = runs.open(&found.run)?;
        plan.by = Some(runs.holder()?);
        Ok((runs, plan, journal))
    }
}

impl Meant {
    /// There is no such run: those that there are.
    fn unknown(&self, all: &[Plan]) -> Failure {
        let wanted = self.run.as_ref().map(|run| format!(" {run}")).unwrap_or_default();
        let lines = all.iter().rev().take(KNOWN_MAX);
        let lines: String = lines
            .map(|plan| format!("\n  {} of cluster {}", plan.run, plan.spec.cluster))
            .collect();
        let message = match all {
            [] => format!("there is no run{wanted}: none is known here"),
            _ => format!(
                "there is no run or cluster{wanted}; known here are, the newest first:{lines}"
            ),
        };
        Failure::new(
            Exit::Failed,
            message,
            "runs are known on the machine that began them, below its --state-dir; `lifeboat recover adopt CLUSTER.yaml` asks the hosts which there are",
        )
    }
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
        let looked = self.look(context, &plan, &journal, &interrupt);
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

    /// Before a person is asked: the run may have ended elsewhere, or another one may have come after it.
    fn look(
        &self,
        context: &Context,
        plan: &Plan,
        journal: &Journal,
        interrupt: &Interrupt,
    ) -> Result<(), Failure> {
        let shown = Shown::new(&plan.spec);
        unless_interrupted(context, interrupt, async {
            let fleet = Fleet::new(&plan.spec, shown.watcher())?.patient(self.patience.time());
            let run = Run { plan, journal, fleet: &fleet };
            run.refuse_elsewhere().await?;
            Ok(run.refuse_overtaken().await?)
        })
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

/// The run that one has followed which was taken back, if it is in place again and can be taken back too.
fn older_finished(runs: &Runs, plan: &Plan) -> Result<Option<String>, Failure> {
    let known = runs.of(&plan.spec.cluster)?.into_iter().rev();
    let mut older = known.filter(|(other, _)| other.run < plan.run);
    let before = older.find(|(_, state)| *state != State::RolledBack);
    Ok(before.filter(|(_, state)| *state == State::Finished).map(|(other, _)| other.run))
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

impl StatusArgs {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let (runs, plan, journal) = self.meant.find()?;
        let has_ended = matches!(journal.state()?, State::RolledBack | State::Committed);
        let shown = Shown::new(&plan.spec);
        let (found, elsewhere, served) = context.block_on(async {
            let fleet = Fleet::new(&plan.spec, shown.watcher())?.patient(Duration::ZERO);
            let run = Run { plan: &plan, journal: &journal, fleet: &fleet };
            let found = run.status().await;
            let elsewhere = if has_ended { Ok(()) } else { run.refuse_elsewhere().await };
            Ok((found, elsewhere, served(&plan, &fleet).await))
        })?;
        // What has ended elsewhere is written down here by now.
        let state = match (journal.state()?, &elsewhere) {
            (_, Err(RunError::Elsewhere { how: Elsewhere::TakenOver { .. }, .. })) => "taken over",
            (State::Unfinished, _) => "unfinished",
            (State::RollingBack, _) => "being taken back",
            (State::Finished, _) => "finished",
            (State::RolledBack, _) => "taken back",
            (State::Committed, _) => "committed",
        };
        if let Err(error) = elsewhere {
            say!("{error}");
        }
        if let Some(changed) = changed_members(&plan, &journal)? {
            say!("{changed}");
        }
        if let Some(older) = older_finished(&runs, &plan)?.filter(|_| state == "taken back") {
            say!(
                "run {older}, which it had followed, is in place, neither committed nor taken back"
            );
        }
        let unknown: Vec<_> = found
            .iter()
            .filter_map(|(host, found)| Some((host.clone(), found.as_ref().err()?.remedy())))
            .collect();
        let hosts = found.into_iter().map(|(host, found)| match found {
            Ok(on) => {
                HostJson { host, data: on.data, etcd: on.etcd, clients: on.clients, last: on.last }
            }
            Err(error) => HostJson {
                host,
                data: "unknown".to_owned(),
                etcd: "unknown".to_owned(),
                clients: "unknown".to_owned(),
                last: error.to_string(),
            },
        });
        let mut hosts: Vec<_> = hosts.collect();
        let order: Vec<_> = plan.hosts().into_iter().map(|host| host.label).collect();
        for (label, serves) in served {
            match hosts.iter_mut().find(|known| known.host == label) {
                Some(known) => known.etcd += &format!(", {serves}"),
                // Only the lost member's host is changed.
                None => hosts.push(HostJson {
                    host: label,
                    data: "not touched".to_owned(),
                    etcd: serves,
                    clients: String::new(),
                    last: String::new(),
                }),
            }
        }
        let place = |host: &HostJson| order.iter().position(|label| *label == host.host);
        hosts.sort_by_key(place);
        let json = StatusJson {
            run: plan.run.clone(),
            cluster: plan.spec.cluster.to_string(),
            state,
            hosts,
        };
        output::print(&json.render(context.format))?;
        let Some((_, remedy)) = unknown.first() else { return Ok(()) };
        let labels: Vec<_> = unknown.iter().map(|(label, _)| label.as_str()).collect();
        Err(Failure::new(
            Exit::Unreachable,
            format!("where {} is could not be found out", labels.join(", ")),
            remedy,
        ))
    }
}

/// Of a replacement: what the cluster was asked for last, which is in no host's journal.
fn changed_members(plan: &Plan, journal: &Journal) -> Result<Option<String>, Failure> {
    let Some(replace) = &plan.replace else { return Ok(None) };
    let lines = journal.lines()?;
    let told = |line: &Line| match (line.what, line.step.as_deref()?) {
        (What::Done, "remove-member") => Some("was removed from the cluster"),
        (What::Done, "add-member") => Some("was removed from the cluster, and added anew"),
        (What::Done, "promote") => Some("is a new member of the cluster"),
        (What::Undo, "promote") => Some("is taken out of the cluster, if it was added"),
        _ => None,
    };
    let last = lines.iter().rev().find_map(told);
    Ok(last.map(|told| format!("{} {told}", replace.member)))
}

/// Of a replacement: which members serve meanwhile. Of a recovery, nobody is asked.
async fn served(plan: &Plan, fleet: &Fleet) -> Vec<(String, String)> {
    let mut served = Vec::new();
    let hosts = fleet.hosts().iter().filter(|host| plan.replace.is_some() && host.member.is_some());
    for host in hosts {
        let one = |other: &Resolved| (other.label == host.label).then(|| Question::to(other));
        // One that cannot be asked does not keep the others from being told of.
        let serves = match fleet.ask(&plan.agent, one).await {
            Ok(answers) => match answers.first() {
                Some((_, answer)) if answer.healthy => "serves".to_owned(),
                Some((_, answer)) => {
                    let why = answer.error.as_deref().unwrap_or("no answer");
                    format!("does not serve: {why}")
                }
                None => "was not asked".to_owned(),
            },
            Err(error) => format!("cannot be asked: {error}"),
        };
        served.push((host.label.clone(), serves));
    }
    served
}

impl StatusJson {
    fn render(&self, format: Format) -> String {
        if format == Format::Json {
            return output::json(self);
        }
        // Hosts without a member have their own name.
        let headers = ["member", "data", "etcd", "clients", "last"];
        // Who reads it line by line finds each in one.
        let table = match std::io::stdout().is_terminal() {
            true => output::table,
            false => output::wide_table,
        };
        let rows = self.hosts.iter().map(|on| {
            [&on.host, &on.data, &on.etcd, &on.clients, &on.last].map(Clone::clone).to_vec()
        });
        format!(
            "run {} of cluster {}: {}\n{}",
            self.run,
            self.cluster,
            self.state,
            table(&headers, &rows.collect::<Vec<_>>())
        )
    }
}
