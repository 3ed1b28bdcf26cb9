//! What is found out before a plan can be made: the hosts, and where the old cluster is.

use super::{
    args::{ClusterArgs, ProgramArgs},
    next::Next,
    rescue::Selected,
};
use crate::report::{Exit, Failure};
use jiff::Timestamp;
use recover::{
    Agent, Answer, Bump, Ended, Fleet, Holder, Plan, Pull, Question, Run, Runs, State, Survivor,
    Watcher, spec::Spec, survivors,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

/// A cluster that has just lost its leader, or whose disks are slow, has none for a moment. It would be taken for a dead one, and
/// so it is asked again so often, so long after.
const ELECTIONS: u32 = 3;
const ELECTION: Duration = Duration::from_secs(3);

/// Hosts that were looked at, and etcd that was asked.
pub(super) struct Looked {
    pub(super) run: String,
    pub(super) facts: BTreeMap<String, recover::Facts>,
    pub(super) answers: Vec<(String, Answer)>,
    /// Hosts that have data left, unless the cluster has a quorum.
    pub(super) survivors: Vec<Survivor>,
}

/// Reaches every host and looks at it.
pub(super) async fn look(
    spec: &Spec,
    fleet: &Fleet,
    agent: &Agent,
    program: Option<&Path>,
) -> Result<Looked, Failure> {
    let run = Plan::new_run(Timestamp::now())?;
    let mut facts = fleet.inspect(&run).await?;
    let answers = match program {
        Some(program) => ask(fleet, agent, program).await?,
        None => Vec::new(),
    };
    for (label, answer) in answers.iter().filter(|(_, answer)| !answer.version.is_empty()) {
        let Some(facts) = facts.get_mut(label) else { continue };
        // Which etcd a command starts, only that etcd can tell.
        facts.etcd_version = facts.etcd_version.take().or(Some(answer.version.clone()));
        let own = answer.members.iter().find(|(id, ..)| *id == answer.member_id);
        facts.etcd_name = own.map(|(_, name, _)| name.clone()).filter(|name| !name.is_empty());
    }
    let survivors = match has_quorum(spec, &facts, &answers) {
        true => Vec::new(),
        false => survivors(spec, &facts, &answers),
    };
    Ok(Looked { run, facts, answers, survivors })
}

/// Whether the cluster has a quorum; as long as etcd was not asked, whether it may have one.
fn has_quorum(
    spec: &Spec,
    facts: &BTreeMap<String, recover::Facts>,
    answers: &[(String, Answer)],
) -> bool {
    if !answers.is_empty() {
        return !healthy(answers).is_empty();
    }
    let members: Vec<_> =
        spec.resolved().into_iter().filter(|host| host.member.is_some()).collect();
    let runs = |label| facts.get(label).is_some_and(|facts: &recover::Facts| facts.service_running);
    let running = members.iter().filter(|host| runs(&host.label)).count();
    running > members.len() / 2
}

/// Lets hosts go that are held by a run which has ended here: it was cut off before it could do so.
pub(super) async fn free_ended(
    runs: &Runs,
    spec: &Spec,
    looked: &mut Looked,
    watcher: &Watcher,
) -> Result<(), Failure> {
    for (plan, state) in runs.of(&spec.cluster)? {
        let ended = match state {
            State::Finished => Ended::Finished,
            State::Committed => Ended::Committed,
            _ => continue,
        };
        let holds =
            |facts: &recover::Facts| facts.lock.as_ref().is_some_and(|lock| lock.run == plan.run);
        if !looked.facts.values().any(holds) {
            continue;
        }
        let (_, journal) = runs.open(&plan.run)?;
        let fleet = Fleet::new(&plan.spec, watcher.clone())?;
        let run = Run { plan: &plan, journal: &journal, fleet: &fleet };
        run.refuse_elsewhere().await?;
        run.end(ended).await?;
        say!("run {} has ended, and held hosts still: they are free now", plan.run);
        looked.facts.values_mut().filter(|facts| holds(facts)).for_each(|facts| facts.lock = None);
    }
    Ok(())
}

/// Puts the program on the hosts, and asks each for its member.
pub(super) async fn ask(
    fleet: &Fleet,
    agent: &Agent,
    program: &Path,
) -> Result<Vec<(String, Answer)>, Failure> {
    fleet.push(agent, program).await?;
    let question = |host: &recover::spec::Resolved| {
        let (data_dir, wal_dir) = (Some(host.data_dir.clone()), host.wal_dir.clone());
        Some(Question { data_dir, wal_dir, as_root: true, ..Question::to(host) })
    };
    let mut answers = fleet.ask(agent, question).await?;
    for _ in 0..ELECTIONS {
        if !may_be_electing(&answers) {
            break;
        }
        tokio::time::sleep(ELECTION).await;
        answers = fleet.ask(agent, question).await?;
    }
    Ok(answers)
}

/// Whether members that could agree are there, and some of them say that they cannot.
fn may_be_electing(answers: &[(String, Answer)]) -> bool {
    let runs = |answer: &&Answer| answer.member_id != 0;
    let running: Vec<_> = answers.iter().map(|(_, answer)| answer).filter(runs).collect();
    running.len() * 2 > answers.len()
        && running.iter().any(|answer| !answer.healthy && !answer.denied)
}

/// Puts all together.
pub(super) fn plan(
    spec: Spec,
    looked: Looked,
    selected: &Selected,
    bump: Bump,
    pull: Option<Pull>,
    agent: Agent,
) -> Plan {
    let Looked { run, facts, survivors, .. } = looked;
    let token = format!("lifeboat-{run}");
    let Selected { chosen, rescue, other_backup } = selected;
    Plan {
        run,
        made: Timestamp::now(),
        by: Some(Holder::here()),
        begun_by: None,
        left: None,
        token,
        backup: chosen.clone(),
        rescue: rescue.clone(),
        survivors,
        other_backup: other_backup.clone(),
        replace: None,
        bump,
        pull,
        agent,
        facts,
        spec,
    }
}

/// Tells what speaks against a plan; an error if it cannot be done.
pub(super) fn check(plan: &Plan, cluster: &ClusterArgs) -> Result<(), Failure> {
    let findings = plan.findings(std::env::consts::ARCH);
    let here = cluster.runs.runs()?.of(&plan.spec.cluster)?;
    let state =
        |run: &str| here.iter().find(|(known, _)| known.run == run).map(|(_, state)| *state);
    let next = Next::with(cluster);
    let held = findings.held.iter().map(|held| next.held(held, state(&held.claim.run)));
    let problems: Vec<_> = held.chain(findings.problems).collect();
    for warning in &findings.warnings {
        say!("warning: {warning}");
    }
    match problems.as_slice() {
        [] => Ok(()),
        problems => {
            let lines: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
            Err(Failure::new(
                Exit::Refused,
                format!("the hosts are not ready; nothing was stopped:{lines}"),
                "put right what is listed, then run the same command again",
            ))
        }
    }
}

/// Whether the old cluster is healthy: each member that is.
pub(super) fn healthy(answers: &[(String, Answer)]) -> Vec<&str> {
    answers.iter().filter(|(_, answer)| answer.healthy).map(|(label, _)| label.as_str()).collect()
}

/// The program for the hosts.
pub(super) fn program(args: &ProgramArgs) -> Result<(PathBuf, Agent), Failure> {
    args.program()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_may_be_electing_is_not_yet_taken_for_dead() {
        let electing = |members: &[(bool, bool, bool)]| {
            let answer = |(runs, healthy, denied): &(bool, bool, bool)| {
                let member_id = u64::from(*runs);
                let answer =
                    Answer { member_id, healthy: *healthy, denied: *denied, ..Answer::default() };
                (String::new(), answer)
            };
            may_be_electing(&members.iter().map(answer).collect::<Vec<_>>())
        };
        let (gone, serves) = ((false, false, false), (true, true, false));
        let (waits, refuses) = ((true, false, false), (true, false, true));
        assert!(electing(&[waits, waits, waits]) && electing(&[gone, waits, waits]));
        assert!(electing(&[gone, waits, serves]), "one may have found the leader first");
        assert!(!electing(&[gone, serves, serves]) && !electing(&[serves; 3]));
        assert!(!electing(&[gone, gone, waits]), "too few to agree");
        assert!(!electing(&[refuses; 3]) && !electing(&[gone; 3]) && !electing(&[]));
    }
}
