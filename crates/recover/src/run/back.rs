//! A run, taken back: each step undone, from the last to the first; and the old cluster asked whether it serves.

use super::{Event, OnHostNow, Run, RunError, gather};
use crate::{
    agent::{Answer, Question},
    build::{Built, new_cluster_id},
    journal::What,
    rescue::{HOLD, TAKE},
    spec::Resolved,
    steps::{Kind, LOCK, MemberChange, SEND, Step, steps},
};
use tokio::time::{Duration, Instant};

/// How long an old cluster may take until it serves, if most of its members run.
const SERVES_SECONDS: u64 = 120;
/// The same if they do not, as far as is known: there may have been fewer.
const SERVES_YET_SECONDS: u64 = 15;
/// When the first member serves, the others are waited for so long.
const OTHERS_SECONDS: u64 = 30;
/// The wait inside of one question.
const ASKED_SECONDS: u64 = 5;

/// What a rollback has come to.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Back {
    /// What is on the hosts now.
    pub hosts: Vec<(String, OnHostNow)>,
    /// What the members of the old cluster answered, after some time to find each other.
    pub answers: Vec<(String, Answer)>,
    /// Why they could not be asked.
    pub not_asked: Option<String>,
}

impl Back {
    /// The members that serve.
    pub fn serving(&self) -> Vec<&str> {
        let healthy = self.answers.iter().filter(|(_, answer)| answer.healthy);
        healthy.map(|(label, _)| label.as_str()).collect()
    }
}

impl Run<'_> {
    /// Takes all steps back that were begun, from the last to the first.
    pub async fn roll_back(&self) -> Result<Back, RunError> {
        self.refuse_elsewhere().await?;
        self.refuse_overtaken().await?;
        let mut steps = steps(self.plan);
        let gone = self.replaced_and_gone().await?;
        if let Some(gone) = gone {
            steps.iter_mut().for_each(|step| step.hosts.retain(|part| part.host != gone));
        }
        let (lock, rest) = steps.split_first().expect("a plan has steps");
        let mut undoing = Vec::new();
        for step in rest.iter().rev() {
            if self.is_to_be_undone(step)? {
                undoing.push(step);
            }
        }
        // Two runs that were begun at once may each hold some of the hosts: neither could claim them all.
        if undoing.is_empty() {
            self.let_go_of(lock).await?;
            self.journal.note(What::RolledBack, None, None, None)?;
            return Ok(self.look_back(gone).await);
        }
        let of = undoing.len() + 3;
        let told = |number, title: &str| {
            (self.fleet.watcher)(Event::Step { number, of, title: title.to_owned() });
        };
        // What is taken back is not changed by another run meanwhile.
        told(1, "Claim the hosts");
        self.on_all(lock, &Built::default()).await?;
        for (step, number) in undoing.into_iter().zip(2..) {
            told(number, &self.undone_title(step));
            self.undo(step).await?;
        }
        told(of - 1, "Ask the old cluster whether it serves");
        let back = self.look_back(gone).await;
        self.refuse_new_cluster(&back)?;
        told(of, &self.undone_title(lock));
        self.undo(lock).await?;
        self.journal.note(What::RolledBack, None, None, None)?;
        Ok(back)
    }

    /// Fails if what serves is still what the run has made: from files that have another name by now, so they alone tell nothing.
    fn refuse_new_cluster(&self, back: &Back) -> Result<(), RunError> {
        let made = new_cluster_id(self.plan).filter(|_| self.plan.replace.is_none());
        let Some(cluster_id) = made else { return Ok(()) };
        let members = serving_as(&back.answers, cluster_id);
        if members.is_empty() { Ok(()) } else { Err(RunError::StillNew { members, cluster_id }) }
    }

    /// Whether a step may have done anything that is to be taken back. A line of the journal is written before a step begins.
    fn is_to_be_undone(&self, step: &Step) -> Result<bool, RunError> {
        let (begun_by, has_undo) = match step.kind {
            // The new member is removed while it still runs.
            Kind::Member(MemberChange::Promote) => ("add-member", true),
            _ => (step.id.as_str(), step.hosts.iter().any(|part| !part.undo.is_empty())),
        };
        // What was only restarted runs on.
        let has_undo = has_undo && !step.id.starts_with("restart-");
        let lines = self.journal.lines()?;
        let begun = |id: &str| {
            lines.iter().any(|line| line.what == What::Begin && line.step.as_deref() == Some(id))
        };
        // Where files were only on their way, no host has written down that the step began.
        Ok(has_undo && (step.id == SEND || begun(begun_by)))
    }

    /// What undoing a step does, for a person.
    pub(crate) fn undone_title(&self, step: &Step) -> String {
        let label = || {
            let host = step.hosts.first().map(|part| &self.fleet.hosts[part.host]);
            host.map(|host| host.label.clone()).unwrap_or_default()
        };
        match step.id.as_str() {
            LOCK => "Let the hosts go".to_owned(),
            SEND => "Remove what was put beside the old data".to_owned(),
            "stop-clients" => "Start what uses etcd again".to_owned(),
            "stop-etcd" => "Start etcd again where there are old data".to_owned(),
            "set-aside" => "Put the old data back where there are some".to_owned(),
            "swap-in" => "Take the new data away".to_owned(),
            "start-etcd" => "Stop the new members".to_owned(),
            "promote" => format!("Remove the new {} from the cluster", self.replaced()),
            HOLD => format!("Start etcd on {} again", label()),
            TAKE => format!("Remove the snapshot on {}", label()),
            _ => match step.title.strip_prefix("Start ") {
                Some(client) => format!("Stop {client}"),
                None => format!("Take back: {}", step.title),
            },
        }
    }

    fn replaced(&self) -> &str {
        self.plan.replace.as_ref().map_or("member", |replace| replace.member.as_str())
    }

    pub(crate) async fn undo(&self, step: &Step) -> Result<(), RunError> {
        self.journal.note(What::Undo, Some(&step.id), None, None)?;
        // As long as all run: without the new member's vote, a cluster of two could not agree to remove it.
        if let (Kind::Member(MemberChange::Promote), Some(replace)) =
            (step.kind, &self.plan.replace)
        {
            self.take_back_member(replace, step).await?;
        }
        let parts = step.hosts.iter().filter(|part| !part.undo.is_empty()).map(|part| {
            let host = &self.fleet.hosts[part.host];
            let frame = self.plan.frame(host);
            let text = frame.step(
                &format!("undo-{}", step.id),
                "[ \"${undone-no}\" = yes ]",
                &format!("{}\nundone=yes", part.undo),
            );
            self.scripted(part.host, text)
        });
        gather(&self.undone_title(step), parts.collect()).await?;
        Ok(())
    }

    /// What is on the hosts, and what the old cluster says. All is back by now, so it is no error if it says nothing.
    async fn look_back(&self, gone: Option<usize>) -> Back {
        let gone = gone.map(|number| self.fleet.hosts[number].label.clone());
        let found = self.status().await.into_iter();
        let hosts: Vec<_> = found.filter_map(|(label, on)| Some((label, on.ok()?))).collect();
        let patience = self.time_to_serve(&hosts);
        let mut back = Back { hosts, ..Back::default() };
        let (begun, mut first_served) = (Instant::now(), None);
        loop {
            match self.ask_old(gone.as_deref(), &back.hosts, patience).await {
                Ok(answers) => (back.answers, back.not_asked) = (answers, None),
                Err(error) => back.not_asked = Some(error.to_string()),
            }
            let is_over = match back.serving().len() {
                0 => begun.elapsed() >= patience,
                serving if serving == back.answers.len() => true,
                _ => {
                    let since = first_served.get_or_insert_with(Instant::now).elapsed();
                    since >= patience.min(Duration::from_secs(OTHERS_SECONDS))
                }
            };
            if is_over || back.answers.is_empty() {
                return back;
            }
        }
    }

    /// How long the old cluster is waited for. One that had lost its quorum does not get it back by waiting.
    fn time_to_serve(&self, hosts: &[(String, OnHostNow)]) -> Duration {
        let running = hosts.iter().filter(|(_, on)| on.etcd == "runs").count();
        Duration::from_secs(match (running * 2 > hosts.len(), &self.plan.rescue) {
            _ if self.plan.replace.is_some() => SERVES_SECONDS,
            (true, _) => SERVES_SECONDS,
            (false, None) if running > 0 => SERVES_YET_SECONDS,
            (false, _) => 0,
        })
    }

    /// Asks where etcd runs; of a replacement, all others too.
    async fn ask_old(
        &self,
        gone: Option<&str>,
        hosts: &[(String, OnHostNow)],
        patience: Duration,
    ) -> Result<Vec<(String, Answer)>, RunError> {
        let runs = |host: &Resolved| {
            hosts.iter().any(|(label, on)| *label == host.label && on.etcd == "runs")
        };
        let question = |host: &Resolved| {
            let is_other = self.plan.replace.as_ref().is_some_and(|replace| {
                replace.others.contains_key(&host.label) && gone != Some(host.label.as_str())
            });
            (is_other || self.plan.replace.is_none() && runs(host)).then(|| Question {
                wait_seconds: ASKED_SECONDS.min(patience.as_secs()),
                ..Question::to(host)
            })
        };
        self.fleet.ask(&self.plan.agent, question).await
    }
}

/// The members that answer for a cluster.
fn serving_as(answers: &[(String, Answer)], cluster_id: u64) -> Vec<String> {
    let serving = answers.iter().filter(|(_, answer)| answer.cluster_id == cluster_id);
    serving.map(|(label, _)| label.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_that_a_run_has_made_is_known_by_its_id() {
        let cluster_id = new_cluster_id(&plan()).unwrap();
        let answer = |label: &str, cluster_id| {
            (label.to_owned(), Answer { cluster_id, ..Answer::default() })
        };
        let answers = [answer("m1", 7), answer("m2", cluster_id), answer("m3", 0)];
        assert_eq!(serving_as(&answers, cluster_id), ["m2"]);
    }
    use crate::{journal::Runs, plan::tests::plan, run::Fleet};
    use std::sync::Arc;

    #[test]
    fn what_was_not_begun_is_not_taken_back_and_every_title_says_what_is_done() {
        let (folder, plan) = (tempfile::tempdir().unwrap(), plan());
        let journal = Runs::new(folder.path()).begin(&plan).unwrap();
        let fleet = Fleet::new(&plan.spec, Arc::new(|_| {})).unwrap();
        let run = Run { plan: &plan, journal: &journal, fleet: &fleet };
        let steps = steps(&plan);
        let undone = || -> Vec<&Step> {
            steps.iter().filter(|step| run.is_to_be_undone(step).unwrap()).collect()
        };
        let ids = |steps: Vec<&Step>| -> Vec<String> {
            steps.into_iter().map(|step| step.id.clone()).collect()
        };
        assert_eq!(ids(undone()), [SEND]);
        for step in [LOCK, SEND, "stop-clients", "stop-etcd"] {
            journal.note(What::Begin, Some(step), None, None).unwrap();
        }
        assert_eq!(ids(undone()), [LOCK, SEND, "stop-clients", "stop-etcd"]);
        for step in &steps {
            journal.note(What::Begin, Some(&step.id), None, None).unwrap();
        }
        for step in undone() {
            assert!(!step.id.starts_with("restart-"), "{step:?}");
            let title = run.undone_title(step);
            assert!(!title.contains("Take back"), "{}: {title}", step.id);
        }
    }
}
