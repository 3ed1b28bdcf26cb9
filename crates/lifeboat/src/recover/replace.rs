//! `recover replace`: one member lost, quorum alive.

use super::{
    args::{ClusterArgs, PatienceArgs, ProgramArgs},
    confirm::{confirm, look, unless_interrupted},
    discover::DiscoverArgs,
    next::Next,
    prepare::{self, Looked},
    run::{broken_off, stopped, with_spec},
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
    Answer, Bump, Chosen, Fleet, Journal, Plan, Question, Replace, ReplaceError, Run, Runs, State,
    left_on_hosts, runbook, spec::Spec, summary,
};
use std::time::Instant;

/// Replace one lost member while the others live: no restore, and no write is lost
///
/// The member is removed from the cluster, added again without a vote, started
/// without its old data, waited for until it has caught up, and given its vote.
/// The others serve meanwhile. The host may be the old one, or a new one that was
/// written into the file: with etcd installed and set up as on the others, but
/// not yet started. Old data are set aside and kept.
///
/// After any stop (Ctrl-C, a lost connection, a reboot), the same command goes on
/// where it was. `recover rollback` takes back what can be: a member that was
/// removed from a cluster stays removed.
///
/// Examples:
///   lifeboat recover replace prod.yaml m3 --dry-run
///   lifeboat recover replace prod.yaml m3
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, mut_arg("from_backup", |arg| arg.hide(true)))]
pub(crate) struct ReplaceArgs {
    #[command(flatten)]
    cluster: ClusterArgs,

    /// The lost member, as it is called in the file
    #[arg(value_name = "MEMBER")]
    member: String,

    /// Print what would be done, with every command on every host; the members are asked, and nothing is changed
    #[arg(long, short = 'n')]
    dry_run: bool,

    /// Do not ask for the cluster's name
    #[arg(long)]
    yes: bool,

    /// Replace the member though it is healthy
    #[arg(long)]
    even_though_healthy: bool,

    #[command(flatten)]
    discover: DiscoverArgs,

    #[command(flatten)]
    program: ProgramArgs,

    #[command(flatten)]
    patience: PatienceArgs,
}

impl ReplaceArgs {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let begun = Instant::now();
        self.discover.run(context, &self.cluster.spec, None)?;
        let spec = self.cluster.load()?;
        let runs = self.cluster.runs.runs()?;
        let lock = runs.lock(&spec.cluster)?;
        let next = Next::with(&self.cluster);
        let interrupt = Interrupt::watch()?;
        let (plan, journal) = match runs.of(&spec.cluster)?.into_iter().next_back() {
            Some((plan, State::Unfinished)) => {
                let (_, journal) = runs.open(&plan.run)?;
                let plan = Plan { by: Some(runs.holder()?), ..plan };
                (self.take_up(context, plan, spec, &journal, &interrupt)?, journal)
            }
            Some((plan, State::RollingBack)) => return Err(next.rolling_back(&plan)),
            _ => {
                let plan = self.plan(context, &runs, spec, &interrupt)?;
                if self.dry_run {
                    output::print(&runbook(&plan, Timestamp::now()))?;
                    return prepare::check(&plan, &self.cluster);
                }
                let journal = self.begin(&runs, &plan, &interrupt)?;
                (plan, journal)
            }
        };
        if self.dry_run {
            return output::print(&runbook(&plan, Timestamp::now()));
        }
        lock.names(&plan.run);
        let gone_on = self.go_on(context, &plan, &journal, &interrupt);
        gone_on.map_err(|failure| broken_off(context, failure, &plan, &journal, &next))?;
        say!("{} is back after {:.1} s", self.member, begun.elapsed().as_secs_f64());
        Ok(())
    }

    /// Looks, asks, and decides.
    fn plan(
        &self,
        context: &Context,
        runs: &Runs,
        spec: Spec,
        interrupt: &Interrupt,
    ) -> Result<Plan, Failure> {
        let (program, agent) = self.program.program()?;
        let shown = Shown::new(&spec);
        let (looked, replace) = unless_interrupted(context, interrupt, async {
            let fleet = self.patience.at_first(Fleet::new(&spec, shown.watcher())?);
            let mut looked = prepare::look(&spec, &fleet, &agent, Some(&program)).await?;
            let replace = self.examine(&spec, &looked)?;
            if !self.dry_run {
                prepare::free_ended(runs, &spec, &mut looked, &shown.watcher()).await?;
            }
            self.is_gone(&fleet, &agent, &replace).await?;
            Ok((looked, replace))
        })?;
        let Looked { run, facts, .. } = looked;
        // What the new member will have is what the others have.
        let others = facts.iter().filter(|(label, _)| **label != replace.member);
        let bytes = others.filter_map(|(_, facts)| Some(facts.data.as_ref()?.bytes)).max();
        Ok(Plan {
            token: format!("lifeboat-{run}"),
            run,
            made: Timestamp::now(),
            by: Some(runs.holder()?),
            begun_by: None,
            left: None,
            backup: Chosen { bytes: bytes.unwrap_or_default(), ..Chosen::default() },
            bump: Bump::default(),
            rescue: None,
            survivors: Vec::new(),
            other_backup: None,
            replace: Some(replace),
            pull: None,
            agent,
            facts,
            spec,
        })
    }

    fn examine(&self, spec: &Spec, looked: &Looked) -> Result<Replace, ReplaceError> {
        let even_so = self.even_though_healthy;
        Replace::examine(spec, &self.member, &looked.facts, &looked.answers, even_so)
    }

    /// A member that moves to a new host may still run on its old one: what it was reached at is asked, from a host of the others.
    async fn is_gone(
        &self,
        fleet: &Fleet,
        agent: &recover::Agent,
        replace: &Replace,
    ) -> Result<(), Failure> {
        if self.even_though_healthy || replace.old_urls.is_empty() {
            return Ok(());
        }
        let old = |host: &recover::spec::Resolved| {
            (Some(&host.label) == replace.through.first())
                .then(|| Question { endpoints: replace.old_urls.clone(), ..Question::to(host) })
        };
        let answers = fleet.ask(agent, old).await?;
        let runs = |answer: &Answer| answer.healthy && Some(answer.member_id) == replace.old;
        match answers.iter().any(|(_, answer)| runs(answer)) {
            false => Ok(()),
            true => {
                let at = format!(" at {}", replace.old_urls.join(", "));
                Err(ReplaceError::Healthy { member: replace.member.clone(), at }.into())
            }
        }
    }

    fn begin(&self, runs: &Runs, plan: &Plan, interrupt: &Interrupt) -> Result<Journal, Failure> {
        say_part!("{}", summary(plan, Timestamp::now()));
        prepare::check(plan, &self.cluster)?;
        confirm(plan, "begin", self.yes, interrupt)?;
        Ok(runs.begin(plan)?)
    }

    /// A run that was cut off. As long as the lost member is in the cluster, it may have come back by itself.
    fn take_up(
        &self,
        context: &Context,
        plan: Plan,
        spec: Spec,
        journal: &Journal,
        interrupt: &Interrupt,
    ) -> Result<Plan, Failure> {
        let next = Next::with(&self.cluster);
        let Some(replace) = plan.replace.clone().filter(|known| known.member == self.member) else {
            return Err(next.another_run(&plan));
        };
        say!("going on with run {}, begun {:.0}", plan.run, plan.made);
        let mut plan = with_spec(plan, spec, &next)?;
        // Before a person is asked anything: the run may have ended elsewhere.
        let patience = self.patience.time();
        look(context, &plan, journal, patience, interrupt, async |run| {
            Ok(run.refuse_stale().await?)
        })
        .map_err(|failure| next.if_taken_over(failure))?;
        let (program, agent) = self.program.program()?;
        plan.agent = agent;
        let lines = journal.lines()?;
        let is_change = |step: &str| step == "remove-member" || step == "add-member";
        if lines.iter().any(|line| line.step.as_deref().is_some_and(is_change)) {
            return Ok(plan);
        }
        let shown = Shown::new(&plan.spec);
        let answers = unless_interrupted(context, interrupt, async {
            let fleet = Fleet::new(&plan.spec, shown.watcher())?.patient(self.patience.time());
            prepare::ask(&fleet, &plan.agent, &program).await
        });
        let answers = answers.map_err(|failure| stopped(failure, next.after_stop(&plan)))?;
        let even_so = self.even_though_healthy;
        let now = Replace::examine(&plan.spec, &self.member, &plan.facts, &answers, even_so)?;
        // Who is healthy may have changed; who is a member may not.
        if (now.old, &now.others) != (replace.old, &replace.others) {
            return Err(Failure::new(
                Exit::Refused,
                format!("the cluster's members have changed since run {} began", plan.run),
                format!("begin again, after `{}`", next.rollback(&plan.run)),
            ));
        }
        plan.replace = Some(now);
        say_part!("{}", summary(&plan, Timestamp::now()));
        if !self.dry_run {
            confirm(&plan, "begin", self.yes, interrupt)?;
        }
        Ok(plan)
    }

    /// All that is not done yet.
    fn go_on(
        &self,
        context: &Context,
        plan: &Plan,
        journal: &Journal,
        interrupt: &Interrupt,
    ) -> Result<(), Failure> {
        let shown = Shown::new(&plan.spec);
        let (program, _) = self.program.program()?;
        let replace = plan.replace.as_ref().expect("it was planned here");
        let answers = unless_interrupted(context, interrupt, async {
            let fleet = Fleet::new(&plan.spec, shown.watcher())?.patient(self.patience.time());
            fleet.push(&plan.agent, &program).await?;
            Ok(Run { plan, journal, fleet: &fleet }.replace(replace).await?)
        })?;
        shown.clear();
        let _ = std::fs::remove_dir_all(journal.build_dir());
        report(plan, &answers, &Next::with(&self.cluster))
    }
}

/// The result, on stdout.
fn report(plan: &Plan, answers: &[(String, Answer)], next: &Next) -> Result<(), Failure> {
    let (members, revision, hash) = (
        answers.len(),
        answers.iter().map(|(_, answer)| answer.revision).max().unwrap_or_default(),
        answers.iter().find_map(|(_, answer)| answer.hash).unwrap_or_default(),
    );
    let mut text = format!(
        "{}: {members} members healthy, none a learner, revision {revision}, HashKV {hash} on all\n",
        plan.spec.cluster
    );
    text += &left_on_hosts(plan);
    output::print(&text)?;
    say!(
        "help: `{}` makes it final; `{}` removes the new member again",
        next.commit(&plan.run),
        next.rollback(&plan.run)
    );
    Ok(())
}

impl From<ReplaceError> for Failure {
    fn from(error: ReplaceError) -> Self {
        let exit = match &error {
            ReplaceError::Unknown { .. } => Exit::Usage,
            _ => Exit::Refused,
        };
        let help = Some(error.remedy().to_owned());
        Self { exit, error: error.into(), help }
    }
}
