//! `recover run`: the plan, executed; or an earlier run, taken up again.

use super::{
    args::{ClusterArgs, PatienceArgs, ProgramArgs},
    backup::{self, BackupArgs, Source},
    confirm::{confirm, look, unless_interrupted},
    next::Next,
    prepare, rescue,
    show::Shown,
    undo,
};
use crate::{
    cli::Context,
    commands::findings,
    interrupt::Interrupt,
    output,
    progress::Bytes,
    report::{Exit, Failure},
};
use jiff::Timestamp;
use recover::{
    Answer, Built, DENIED, Fleet, Hashes, Journal, LOCK, Plan, Run, RunError, Runs, State, build,
    built_line, changes, forget, hashes, left_on_hosts, spec::Spec, summary,
};
use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Instant,
};

/// What was built, beside the plan.
const BUILT: &str = "built.yaml";
/// What it hashes to.
const HASHES: &str = "hashes.yaml";

/// Bring a cluster back
///
/// Hosts and backup are checked, and the new data built, before anything is
/// stopped; old data are kept. After any stop (Ctrl-C, a lost connection, a
/// reboot), the same command goes on where it was. `recover rollback` takes it
/// back.
///
/// Examples:
///   lifeboat recover run prod.yaml --backup s3://backups/etcd
///   lifeboat recover run prod.yaml --backup /backup/etcd-snapshot.db --yes
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    cluster: ClusterArgs,

    /// Do not ask for the cluster's name
    #[arg(long)]
    yes: bool,

    /// Go on though the old cluster is healthy; what was written since the backup is then given up
    #[arg(long, conflicts_with = "from_member")]
    even_though_healthy: bool,

    #[command(flatten)]
    backup: BackupArgs,

    #[command(flatten)]
    program: ProgramArgs,

    #[command(flatten)]
    patience: PatienceArgs,
}

impl RunArgs {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let begun = Instant::now();
        let spec = self.cluster.load()?;
        let runs = self.cluster.runs.runs()?;
        let lock = runs.lock(&spec.cluster)?;
        let next = Next::with(&self.cluster);
        let interrupt = Interrupt::watch()?;
        let unfinished = runs.of(&spec.cluster)?.into_iter().next_back();
        let (plan, journal, source) = match unfinished {
            Some((plan, State::Unfinished)) if plan.replace.is_some() => {
                return Err(next.another_run(&plan));
            }
            Some((plan, State::Unfinished)) => {
                let (_, journal) = runs.open(&plan.run)?;
                say!("going on with run {}, begun {:.0}", plan.run, plan.made);
                let mut plan = with_spec(plan, spec, &next)?;
                plan.by = Some(runs.holder()?);
                let patience = self.patience.time();
                let is_as_before =
                    look(context, &plan, &journal, patience, &interrupt, async |run| {
                        run.refuse_stale().await?;
                        Ok(run.is_as_before().await)
                    });
                let is_as_before = is_as_before.map_err(|failure| next.if_taken_over(failure))?;
                // Another build of lifeboat may go on with it.
                plan.agent = prepare::program(&self.program)?.1;
                let source = self.go_on_with(context, &plan)?;
                if is_as_before || !has_stopped(&journal)? {
                    self.ask_again(context, &plan, &interrupt)
                        .map_err(|failure| stopped(failure, next.after_stop(&plan)))?;
                }
                (plan, journal, source)
            }
            Some((plan, State::RollingBack)) => return Err(next.rolling_back(&plan)),
            _ => self.begin(context, spec, &runs, &interrupt)?,
        };
        lock.names(&plan.run);
        let gone_on = self.go_on(context, &plan, &journal, source, &interrupt);
        gone_on.map_err(|failure| broken_off(context, failure, &plan, &journal, &next))?;
        say!("{} is back after {:.1} s", plan.spec.cluster, begun.elapsed().as_secs_f64());
        Ok(())
    }

    /// Looks, plans, asks, and begins a run.
    fn begin(
        &self,
        context: &Context,
        spec: Spec,
        runs: &Runs,
        interrupt: &Interrupt,
    ) -> Result<(Plan, Journal, Option<Source>), Failure> {
        let (program, agent) = prepare::program(&self.program)?;
        let source = self.backup.find_if_needed(context, &spec)?;
        let shown = Shown::new(&spec);
        let looked = unless_interrupted(context, interrupt, async {
            let fleet = self.patience.at_first(Fleet::new(&spec, shown.watcher())?);
            let mut looked = prepare::look(&spec, &fleet, &agent, Some(&program)).await?;
            prepare::free_ended(runs, &spec, &mut looked, &shown.watcher()).await?;
            Ok(looked)
        })?;
        let selected = self.backup.rescue.select(&spec, &looked, source.as_ref())?;
        self.guard(&looked.answers)?;
        let bump = self.backup.bump(&looked.answers)?;
        let pull = self.backup.pull(&spec)?;
        let mut plan = prepare::plan(spec, looked, &selected, bump, pull, agent);
        plan.by = Some(runs.holder()?);
        say_part!("{}", summary(&plan, Timestamp::now()));
        prepare::check(&plan, &self.cluster)?;
        confirm(&plan, "begin", self.yes, interrupt)?;
        let journal = runs.begin(&plan)?;
        Ok((plan, journal, source))
    }

    /// The backup of an earlier run. If another one is named now, that is no going on.
    fn go_on_with(&self, context: &Context, plan: &Plan) -> Result<Option<Source>, Failure> {
        let next = Next::with(&self.cluster);
        self.backup.rescue.same_as(plan, &next)?;
        if !self.backup.is_named() || self.backup.rescue.is_asked() {
            return Ok(None);
        }
        let source = self.backup.find(context, &plan.spec)?;
        if source.chosen.from == plan.backup.from {
            return Ok(None);
        }
        Err(Failure::new(
            Exit::Refused,
            format!(
                "run {} was begun with {}, not {}",
                plan.run, plan.backup.from, source.chosen.from
            ),
            format!("to begin with that, take the run back first: {}", next.rollback(&plan.run)),
        ))
    }

    /// As long as nothing was stopped, the cluster may have come back by itself.
    fn ask_again(
        &self,
        context: &Context,
        plan: &Plan,
        interrupt: &Interrupt,
    ) -> Result<(), Failure> {
        let (program, _) = prepare::program(&self.program)?;
        let shown = Shown::new(&plan.spec);
        let answers = unless_interrupted(context, interrupt, async {
            let fleet = Fleet::new(&plan.spec, shown.watcher())?.patient(self.patience.time());
            prepare::ask(&fleet, &plan.agent, &program).await
        })?;
        self.guard(&answers).map_err(|refused| match plan.rescue {
            None => refused,
            Some(_) => Failure {
                help: Some(format!(
                    "there is nothing to rescue any more: take the run back with `{}`",
                    Next::with(&self.cluster).rollback(&plan.run)
                )),
                ..refused
            },
        })?;
        say_part!("{}", summary(plan, Timestamp::now()));
        confirm(plan, "begin", self.yes, interrupt)
    }

    /// A cluster that works is not stopped.
    fn guard(&self, answers: &[(String, Answer)]) -> Result<(), Failure> {
        if self.even_though_healthy {
            return Ok(());
        }
        let healthy = prepare::healthy(answers);
        if healthy.is_empty() {
            return answers.iter().find(|(_, answer)| answer.denied).map_or(Ok(()), refuses);
        }
        Err(Failure::new(
            Exit::Refused,
            format!("the cluster is healthy: {} can write to it", healthy.join(", ")),
            format!(
                "{}to give up all that was written since the backup, say --even-though-healthy",
                replaced(answers, &Next::with(&self.cluster))
            ),
        ))
    }

    /// All that is not done yet.
    fn go_on(
        &self,
        context: &Context,
        plan: &Plan,
        journal: &Journal,
        source: Option<Source>,
        interrupt: &Interrupt,
    ) -> Result<(), Failure> {
        let shown = Shown::new(&plan.spec);
        let (program, _) = prepare::program(&self.program)?;
        let fleet = Fleet::new(&plan.spec, shown.watcher())?.patient(self.patience.time());
        let run = Run { plan, journal, fleet: &fleet.telling(backup::told(plan)) };
        let needs_data = unless_interrupted(context, interrupt, async {
            run.fleet.push(&plan.agent, &program).await?;
            Ok(run.needs_data().await?)
        })?;
        let (kept, hashed) = (journal.kept::<Built>(BUILT), journal.kept::<Hashes>(HASHES));
        let mut built = match kept {
            Some(built) if !needs_data && hashed.is_some() => built,
            Some(built) if built.is_in(&journal.build_dir()) => built,
            _ => {
                let source = self.source(context, plan, journal, source, interrupt)?;
                self.build(context, plan, journal, &source, interrupt)?
            }
        };
        if built.auth
            && plan.hosts().iter().any(|host| host.member.is_some() && host.user.is_none())
        {
            return Err(Failure::new(
                Exit::Refused,
                "the backup has authentication on, but no user is named; nothing was stopped",
                "name a user with the role root, and the file on the hosts with its password: etcd.user and etcd.password-file",
            ));
        }
        let execute = |built: &Built| {
            let hashing = Hashing::begin(plan, journal, built);
            unless_interrupted(context, interrupt, async {
                run.execute(built, async || hashing.end(journal).await).await
            })
        };
        let mut ended = execute(&built);
        if let Some(file) = damaged_here(&ended, &built, journal) {
            say!("{} is not what was built any more: all is built again", file.display());
            let source = self.source(context, plan, journal, None, interrupt)?;
            built = self.build(context, plan, journal, &source, interrupt)?;
            ended = execute(&built);
        }
        let (answers, hashes) = ended?;
        shown.clear();
        // What was built has served; the old data are the hosts'.
        let _ = std::fs::remove_dir_all(journal.build_dir());
        forget(journal);
        report(plan, &built, hashes, &answers, &Next::with(&self.cluster))
    }

    /// What the data are built from.
    fn source(
        &self,
        context: &Context,
        plan: &Plan,
        journal: &Journal,
        found: Option<Source>,
        interrupt: &Interrupt,
    ) -> Result<Source, Failure> {
        match (&plan.rescue, found) {
            (Some(_), _) => {
                rescue::fetch(context, plan, journal, self.patience.time(), interrupt)?;
                Ok(self.backup.rescued(plan, journal))
            }
            (None, Some(source)) => Ok(source),
            (None, None) => self.backup.find_again(context, plan),
        }
    }

    /// Fetches, proves and builds.
    fn build(
        &self,
        context: &Context,
        plan: &Plan,
        journal: &Journal,
        source: &Source,
        interrupt: &Interrupt,
    ) -> Result<Built, Failure> {
        let (snapshot, rule) = self.backup.fetch(context, source, journal.folder(), interrupt)?;
        let built = built_in(plan, snapshot, rule, &journal.build_dir(), interrupt)?;
        journal.keep(BUILT, &built)?;
        say!("{}", built_line(&built));
        Ok(built)
    }
}

/// The file that arrived damaged because it is damaged here: to send it again would help nobody.
fn damaged_here<T>(
    ended: &Result<T, Failure>,
    built: &Built,
    journal: &Journal,
) -> Option<PathBuf> {
    let error = ended.as_ref().err()?.error.downcast_ref::<RunError>()?;
    error.is_damaged_on_its_way().then(|| built.damaged_file(&journal.build_dir())).flatten()
}

/// Who is refused by a member does not know how the cluster is.
fn refuses((label, answer): &(String, Answer)) -> Result<(), Failure> {
    let why = answer.error.as_deref().unwrap_or("no answer");
    Err(Failure::new(
        Exit::Refused,
        format!(
            "whether the cluster is healthy is not known, as {label} refuses to be asked: {why}"
        ),
        format!("{DENIED}; to go on all the same, say --even-though-healthy"),
    ))
}

/// What is done about members that are lost while the cluster lives.
fn replaced(answers: &[(String, Answer)], next: &Next) -> String {
    let lost = answers.iter().filter(|(_, answer)| !answer.healthy);
    let lines = lost
        .map(|(label, _)| format!("a member that is lost is replaced: {}; ", next.replace(label)));
    lines.collect()
}

/// Whether something was stopped already.
fn has_stopped(journal: &Journal) -> Result<bool, Failure> {
    let lines = journal.lines()?;
    Ok(lines.iter().any(|line| line.step.as_ref().is_some_and(|step| step.starts_with("stop-"))))
}

fn built_in(
    plan: &Plan,
    snapshot: snapshot::Snapshot<snapshot::Fetched>,
    rule: snapshot::DigestRule,
    folder: &Path,
    interrupt: &Interrupt,
) -> Result<Built, Failure> {
    let bar = Bytes::new("building", plan.backup.bytes);
    let on_progress = |progress| {
        if let restore::Progress::Built(more) = progress {
            bar.add(more);
        }
        if interrupt.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut on_finding = |finding| findings::print(&finding);
    Ok(build(plan, snapshot, rule, folder, &mut on_finding, &on_progress)?)
}

/// What was built is hashed while it is sent.
enum Hashing {
    Known(Hashes),
    Running(tokio::sync::oneshot::Receiver<Result<Hashes, recover::BuildError>>),
}

impl Hashing {
    fn begin(plan: &Plan, journal: &Journal, built: &Built) -> Self {
        if let Some(hashes) = journal.kept(HASHES) {
            return Self::Known(hashes);
        }
        let (told, ended) = tokio::sync::oneshot::channel();
        let (plan, built, folder) = (plan.clone(), built.clone(), journal.build_dir());
        std::thread::spawn(move || {
            // Nobody waits for it if the run ended before.
            let _ = told.send(hashes(&plan, &built, &folder));
        });
        Self::Running(ended)
    }

    async fn end(self, journal: &Journal) -> Result<Hashes, Failure> {
        match self {
            Self::Known(hashes) => Ok(hashes),
            Self::Running(ended) => {
                let hashes = ended.await.map_err(|_| {
                    Failure::new(
                        Exit::Failed,
                        "hashing what was built broke off",
                        "run the same command again",
                    )
                })??;
                journal.keep(HASHES, &hashes)?;
                Ok(hashes)
            }
        }
    }
}

/// The result, on stdout.
fn report(
    plan: &Plan,
    built: &Built,
    hashes: Hashes,
    answers: &[(String, Answer)],
    next: &Next,
) -> Result<(), Failure> {
    let mut text = format!(
        "{}: {} healthy, revision {}, HashKV {} on all, equal to {}'s\n",
        plan.spec.cluster,
        match answers.len() {
            1 => "1 member".to_owned(),
            several => format!("{several} members"),
        },
        built.revision,
        hashes.hash_kv,
        if plan.rescue.is_some() { "the snapshot" } else { "the backup" }
    );
    text += &left_on_hosts(plan);
    output::print(&text)?;
    say!(
        "help: `{}` brings the old data back, until `{}`",
        next.rollback(&plan.run),
        next.commit(&plan.run)
    );
    Ok(())
}

/// The plan of an earlier run with what may have been changed since: how hosts are reached, and who asks etcd.
pub(super) fn with_spec(mut plan: Plan, spec: Spec, next: &Next) -> Result<Plan, Failure> {
    let changed = changes(&plan.spec, &spec);
    if !changed.is_empty() {
        let lines: String = changed.iter().map(|line| format!("\n  {line}")).collect();
        return Err(Failure::new(
            Exit::Refused,
            format!("the cluster's file has changed since run {} began:{lines}", plan.run),
            format!(
                "go on with the file as it was, or begin anew with the changed one, after `{}`; nothing was done now",
                next.rollback(&plan.run)
            ),
        ));
    }
    plan.spec = spec;
    Ok(plan)
}

/// What a signal, or a host that cannot be reached, has stopped that had begun to change things.
pub(super) fn stopped(failure: Failure, help: String) -> Failure {
    match (failure.exit, failure.help) {
        (Exit::Interrupted, _) => Failure::new(Exit::Interrupted, "stopped; nothing is lost", help),
        (Exit::Unreachable, Some(first)) => {
            Failure { help: Some(format!("{first}\nhelp: then {help}")), ..failure }
        }
        (_, first) => Failure { help: first, ..failure },
    }
}

/// What has ended a run before its end. One that has done nothing on a host yet is dropped: there is nothing to go on with, and
/// another backup or another file may be given. So is one that another run was quicker than: what it has planned is not true any more
/// when that one has ended.
pub(super) fn broken_off(
    context: &Context,
    failure: Failure,
    plan: &Plan,
    journal: &Journal,
    next: &Next,
) -> Failure {
    let is_outrun = failure.error.downcast_ref().is_some_and(RunError::is_outrun);
    let dropped = failure.exit != Exit::Interrupted
        && match journal.begun() {
            Ok(begun) if begun.is_empty() => undo::drop_untouched(journal).is_ok(),
            Ok(begun) if is_outrun && begun == [LOCK] => {
                undo::let_go(context, plan, journal).is_ok()
            }
            _ => false,
        };
    if dropped {
        say!("nothing was changed on any host, and run {} is dropped", plan.run);
        let help = is_outrun.then(|| {
            "see how far the other run is, and what is left to be done; the same command looks at everything anew".to_owned()
        });
        return Failure { help: help.or(failure.help), ..failure };
    }
    stopped(failure, next.after_stop(plan))
}
