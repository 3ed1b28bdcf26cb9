//! Replacing one member: the steps that the cluster does.

use super::{Event, Run, RunError, patiently, wait::ELECTED_SECONDS};
use crate::{
    agent::{Answer, Change, Expected, Probe, Question, judge},
    build::Built,
    journal::{Line, What},
    replace::{LEFT_ALONE, Replace, write_log},
    shell::quote_path,
    spec::Resolved,
    steps::{Kind, MemberChange, Step},
};
use std::time::Duration;
use tokio::time::Instant;

/// For how long a change is asked for again: etcd refuses all for seconds after a member came or went, or a leader was lost.
const CHANGE_SECONDS: u64 = 60;
/// A new member that gets nowhere for so long hangs.
const STALL: Duration = Duration::from_secs(600);
/// The wait between two looks at a new member.
const LOOK: Duration = Duration::from_millis(500);
/// Hashes that differ, or cannot be had, may do so as the history was compacted meanwhile.
const HASHINGS_MAX: u32 = 3;

impl Run<'_> {
    /// All steps that replace a member, from wherever it stopped. Returns what the members answered last.
    pub async fn replace(&self, replace: &Replace) -> Result<Vec<(String, Answer)>, RunError> {
        let mut found = Vec::new();
        self.walk(async |step| {
            match step.kind {
                Kind::Member(MemberChange::Remove) => {
                    if let Some(change) = replace.remove() {
                        self.change(replace, step, change).await?;
                    }
                }
                Kind::Member(MemberChange::Add) => {
                    let add = replace.add(self.host(replace));
                    self.change(replace, step, add).await?;
                }
                Kind::Member(MemberChange::Promote) => self.promote(replace, step).await?,
                Kind::Send => {
                    let id = self.joined(replace, step).await?;
                    let folder = self.journal.build_dir();
                    write_log(&folder, replace.cluster_id, id)
                        .map_err(|source| RunError::Write { path: folder, source })?;
                    self.on_all(step, &Built::default()).await?;
                }
                Kind::Verify => found = self.compare(replace, step).await?,
                Kind::Script | Kind::Fetch => self.on_all(step, &Built::default()).await?,
            }
            Ok::<(), RunError>(())
        })
        .await?;
        Ok(found)
    }

    /// Removes the member that was added, if one was.
    pub(super) async fn take_back_member(
        &self,
        replace: &Replace,
        step: &Step,
    ) -> Result<(), RunError> {
        let lines = self.journal.lines()?;
        // As long as nothing was added, nobody needs to be asked.
        let begun =
            |line: &Line| line.what == What::Begin && line.step.as_deref() == Some("add-member");
        if !lines.iter().any(begun) {
            return Ok(());
        }
        let take_back = replace.take_back(self.host(replace));
        self.change(replace, step, take_back).await?;
        Ok(())
    }

    /// The host of the member, if it cannot be reached: it may be dead too, and the others are not to wait for it.
    pub(super) async fn replaced_and_gone(&self) -> Result<Option<usize>, RunError> {
        let Some(replace) = &self.plan.replace else { return Ok(None) };
        let number = self.number(replace);
        let (remote, watcher) = (self.fleet.remote(number), &self.fleet.watcher);
        match patiently(remote, watcher, || remote.script("true\n")).await {
            Err(error) if error.is_passing() => {
                let (label, why) = (replace.member.clone(), error.to_string());
                self.journal.note(What::Failed, Some(LEFT_ALONE), Some(&label), Some(&why))?;
                watcher(Event::LeftAlone { label, why });
                Ok(Some(number))
            }
            _ => Ok(None),
        }
    }

    fn number(&self, replace: &Replace) -> usize {
        let number = self.fleet.hosts.iter().position(|host| host.label == replace.member);
        number.expect("the plan has that host")
    }

    fn host(&self, replace: &Replace) -> &Resolved {
        &self.fleet.hosts[self.number(replace)]
    }

    /// Changes the membership through the first healthy member that can.
    async fn change(
        &self,
        replace: &Replace,
        step: &Step,
        change: Change,
    ) -> Result<Answer, RunError> {
        self.still_ours_through(replace, step).await?;
        let question = |host: &Resolved| Question {
            wait_seconds: CHANGE_SECONDS,
            change: Some(change.clone()),
            ..Question::to(host)
        };
        self.ask_one(replace, step, question).await
    }

    /// Fails if another process has taken the run over. Who cannot be reached cannot tell, and will not be asked for the change.
    async fn still_ours_through(&self, replace: &Replace, step: &Step) -> Result<(), RunError> {
        let hosts = self.fleet.hosts.iter().enumerate();
        for (number, host) in hosts.filter(|(_, host)| replace.through.contains(&host.label)) {
            match self.fleet.remote(number).script(&self.look_for_claim(host)).await {
                Err(error) if !error.is_passing() => {
                    let (step, failures) = (step.title.clone(), vec![error]);
                    return Err(RunError::Hosts { step, failures });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The first good answer of the members that were healthy at the beginning.
    async fn ask_one(
        &self,
        replace: &Replace,
        step: &Step,
        question: impl Fn(&Resolved) -> Question,
    ) -> Result<Answer, RunError> {
        let mut why = Vec::new();
        for through in &replace.through {
            let to_one = |host: &Resolved| (host.label == *through).then(|| question(host));
            match self.fleet.ask(&self.plan.agent, to_one).await {
                Ok(answers) => match answers.into_iter().next() {
                    Some((_, answer)) if answer.healthy => return Ok(answer),
                    Some((_, answer)) => {
                        let error = answer.error.unwrap_or_else(|| "no answer".to_owned());
                        why.push(format!("{through}: {error}"));
                    }
                    None => {}
                },
                Err(error) => why.push(error.to_string()),
            }
        }
        Err(RunError::Member { step: step.title.clone(), why })
    }

    /// The new member's id.
    async fn joined(&self, replace: &Replace, step: &Step) -> Result<u64, RunError> {
        let question =
            |host: &Resolved| Question { wait_seconds: ELECTED_SECONDS, ..Question::to(host) };
        let answer = self.ask_one(replace, step, question).await?;
        replace.joined(self.host(replace), &answer).ok_or_else(|| RunError::Member {
            step: step.title.clone(),
            why: vec![format!(
                "{} was added, but is not a member any more: somebody has removed it",
                replace.member
            )],
        })
    }

    /// Tries until etcd finds that the member has caught up.
    async fn promote(&self, replace: &Replace, step: &Step) -> Result<(), RunError> {
        let id = self.joined(replace, step).await?;
        let label = replace.member.clone();
        (self.fleet.watcher)(Event::Begun { label: label.clone() });
        let (mut at, mut moved) = ((0, 0), Instant::now());
        loop {
            let promote = |host: &Resolved| Question {
                change: Some(Change::Promote { id }),
                ..Question::to(host)
            };
            let why = match self.ask_one(replace, step, promote).await {
                Ok(_) => {
                    (self.fleet.watcher)(Event::Done { label: label.clone(), already: false });
                    self.journal.note(What::Done, Some(&step.id), Some(&label), None)?;
                    return Ok(());
                }
                Err(error) => error,
            };
            let now = self.caught_up(replace).await?;
            if now != at {
                (at, moved) = (now, Instant::now());
                let (bytes, index) = now;
                let event = match index {
                    0 => Event::Sent { label: label.clone(), bytes, of: self.plan.backup.bytes },
                    _ => {
                        let of = self.leader_index(replace, step).await?.max(index);
                        Event::CatchingUp { label: label.clone(), index, of }
                    }
                };
                (self.fleet.watcher)(event);
            }
            if moved.elapsed() > STALL {
                (self.fleet.watcher)(Event::Failed { label });
                return Err(why);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How far the new member is: bytes in its data directory, and the newest entry that it has. As long as it is sent a whole
    /// database, it answers nobody, and only the bytes tell.
    async fn caught_up(&self, replace: &Replace) -> Result<(u64, u64), RunError> {
        let ask = |host: &Resolved| (host.label == replace.member).then(|| Question::to(host));
        let learner = self.fleet.ask(&self.plan.agent, ask).await?;
        let index = learner.first().map_or(0, |(_, answer)| answer.raft_index);
        let data_dir = quote_path(&self.host(replace).data_dir);
        let size = format!("du -sk {data_dir} 2>/dev/null | sed 's/[^0-9].*//'\n");
        let kib = self.fleet.remote(self.number(replace)).script(&size).await;
        let kib = kib.map_or(0, |kib| kib.trim().parse::<u64>().unwrap_or_default());
        Ok((kib.saturating_mul(1024), index))
    }

    async fn leader_index(&self, replace: &Replace, step: &Step) -> Result<u64, RunError> {
        let question =
            |host: &Resolved| Question { wait_seconds: ELECTED_SECONDS, ..Question::to(host) };
        Ok(self.ask_one(replace, step, question).await?.raft_index)
    }

    /// Asks every member for itself: all healthy, exactly the members that there should be, none a learner, and all with the same
    /// history up to a write that was just made.
    async fn compare(
        &self,
        replace: &Replace,
        step: &Step,
    ) -> Result<Vec<(String, Answer)>, RunError> {
        let id = self.joined(replace, step).await?;
        let mut member_ids = replace.others.clone();
        member_ids.insert(replace.member.clone(), id);
        let planned = Built { cluster_id: replace.cluster_id, member_ids, ..Built::default() };
        for part in &step.hosts {
            (self.fleet.watcher)(Event::Begun { label: self.fleet.hosts[part.host].label.clone() });
        }
        let (key, value) = self.plan.probe();
        let mut hashings = 0;
        let (answers, mut faults) = loop {
            hashings += 1;
            let put = Probe::Put { key: key.clone(), value: value.clone() };
            let written = self.ask_probe(replace, step, put).await?;
            let revision = written.probed.unwrap_or(written.revision);
            let answers = self.hash_when_healthy(Some(revision)).await?;
            let hash_kv = answers.iter().find_map(|(_, answer)| answer.hash).unwrap_or_default();
            let mut faults = judge(&planned, Some(Expected { revision, hash_kv }), &answers);
            if faults.is_empty() && written.probed.is_none() {
                faults.push("a test write did not read back".to_owned());
            }
            let all_healthy = answers.iter().all(|(_, answer)| answer.healthy);
            if faults.is_empty() || !all_healthy || hashings == HASHINGS_MAX {
                break (answers, faults);
            }
        };
        let removed = self.ask_probe(replace, step, Probe::Remove { key }).await?;
        if faults.is_empty() && removed.probed.is_none() {
            faults.push("a test key could not be removed".to_owned());
        }
        if !faults.is_empty() {
            return Err(RunError::Cluster { faults });
        }
        self.tell_done(step, &answers)?;
        Ok(answers)
    }

    async fn ask_probe(
        &self,
        replace: &Replace,
        step: &Step,
        probe: Probe,
    ) -> Result<Answer, RunError> {
        let question = |host: &Resolved| Question {
            wait_seconds: ELECTED_SECONDS,
            probe: Some(probe.clone()),
            ..Question::to(host)
        };
        self.ask_one(replace, step, question).await
    }
}
