//! The new cluster, compared with what was built for it.

use super::{Event, Run, RunError, wait::ELECTED_SECONDS};
use crate::{
    agent::{Answer, Expected, Probe, Question, judge},
    build::{Built, Hashes},
    journal::What,
    spec::Resolved,
    steps::{OnHost, Step},
};

impl Run<'_> {
    /// Waits until all members are well, compares them with what was built, and writes, reads and removes a key.
    pub(super) async fn verify(
        &self,
        step: &Step,
        built: &Built,
        hashes: Hashes,
    ) -> Result<Vec<(String, Answer)>, RunError> {
        for part in &step.hosts {
            (self.fleet.watcher)(Event::Begun { label: self.fleet.hosts[part.host].label.clone() });
        }
        // What was equal once is not compared again: clients may have had it compacted since.
        let mut expected = match self.was_done(step)? {
            true => None,
            false => Some(Expected { revision: built.revision, hash_kv: hashes.hash_kv }),
        };
        let mut answers =
            self.hash_when_healthy(expected.map(|expected| expected.revision)).await?;
        let (key, value) = self.plan.probe();
        let written = self.probe(step, Probe::Put { key: key.clone(), value }).await?;
        if answers.iter().any(|(_, answer)| answer.hash_above_compacted) {
            let revision = built.revision + 1;
            expected = Some(Expected { revision, hash_kv: hashes.hash_kv_probed });
            answers = self.hash_all(Some(revision)).await?;
        }
        let mut faults = judge(built, expected, &answers);
        let removed = self.probe(step, Probe::Remove { key }).await?;
        for (what, probed) in [("write", &written), ("removal", &removed)] {
            if faults.is_empty() && probed.probed.is_none() {
                let why = probed.error.as_deref().unwrap_or("it did not read back");
                faults.push(format!("a test {what} failed: {why}"));
            }
        }
        if !faults.is_empty() {
            let is_member = |label: &str| answers.iter().any(|(known, _)| known == label);
            let told = self.with_other_data(is_member).await.into_iter();
            faults.extend(told.map(|told| told + ": take the run back, and correct etcd.data-dir"));
            return Err(RunError::Cluster { faults });
        }
        self.tell_done(step, &answers)?;
        Ok(answers)
    }

    /// Says and writes down that a step is done on the hosts that answered.
    pub(super) fn tell_done(
        &self,
        step: &Step,
        answers: &[(String, Answer)],
    ) -> Result<(), RunError> {
        for (label, _) in answers {
            (self.fleet.watcher)(Event::Done { label: label.clone(), already: false });
            self.journal.note(What::Done, Some(&step.id), Some(label), None)?;
        }
        Ok(())
    }

    /// Whether the journal tells that a step was done on all hosts.
    fn was_done(&self, step: &Step) -> Result<bool, RunError> {
        let lines = self.journal.lines()?;
        let of_step = lines.iter().filter(|line| line.step.as_ref() == Some(&step.id));
        Ok(of_step.into_iter().any(|line| line.what == What::Done && line.host.is_none()))
    }

    /// Does something with the reserved key, through the first member.
    async fn probe(&self, step: &Step, probe: Probe) -> Result<Answer, RunError> {
        let first = step.hosts.first().map(|part: &OnHost| &self.fleet.hosts[part.host].label);
        let question = |host: &Resolved| {
            let wait_seconds = ELECTED_SECONDS;
            (Some(&host.label) == first).then(|| Question {
                wait_seconds,
                probe: Some(probe.clone()),
                ..Question::to(host)
            })
        };
        let answers = self.fleet.ask(&self.plan.agent, question).await?;
        Ok(answers.into_iter().next().map(|(_, answer)| answer).unwrap_or_default())
    }
}
