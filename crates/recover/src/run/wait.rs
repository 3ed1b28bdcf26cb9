//! Members are waited for until they are healthy, and who waits is told what for.

use super::{Event, Run, RunError};
use crate::{
    agent::{Answer, Question},
    facts,
    service::{POD_SECONDS, Shell},
    spec::{Resolved, Service},
};
use std::time::Duration;
use tokio::{task::JoinSet, time::Instant};

/// How long members have to find each other.
const WAIT_SECONDS: u64 = 180;
/// For how long a cluster that was healthy is asked again: on slow disks it may lose its leader for some seconds at any time, and a
/// request fails then.
pub(super) const ELECTED_SECONDS: u64 = 30;
/// A word is said so often.
const WORD_SECONDS: u64 = 10;

impl Run<'_> {
    /// Asks every member for itself, and for its hash at a revision. One that is not healthy is asked again for a while; the others
    /// are not asked twice.
    pub(super) async fn hash_when_healthy(
        &self,
        revision: Option<i64>,
    ) -> Result<Vec<(String, Answer)>, RunError> {
        let pods = self.fleet.hosts().iter().any(is_pod);
        let patience = Duration::from_secs(if pods { POD_SECONDS.into() } else { WAIT_SECONDS });
        let begun = Instant::now();
        let mut answers: Vec<(String, Answer)> = Vec::new();
        loop {
            let is_healthy = |label: &str| {
                answers.iter().any(|(known, answer)| known == label && answer.healthy)
            };
            let question = |host: &Resolved| {
                let asked = host.member.is_some() && !is_healthy(&host.label);
                let wait_seconds = WORD_SECONDS;
                asked.then(|| Question { wait_seconds, hash_at: revision, ..Question::to(host) })
            };
            for (label, answer) in self.fleet.ask(&self.plan.agent, question).await? {
                match answers.iter_mut().find(|(known, _)| *known == label) {
                    Some((_, before)) => *before = answer,
                    None => answers.push((label, answer)),
                }
            }
            let waits = answers.iter().filter(|(_, answer)| !answer.healthy);
            let waited_for = |label: &str| waits.clone().any(|(waits, _)| waits == label);
            if waits.clone().next().is_none()
                || begun.elapsed() >= patience
                || !self.with_other_data(waited_for).await.is_empty()
            {
                return Ok(self.in_order(answers));
            }
            for (label, answer) in waits {
                let label = label.clone();
                let why = waited(begun.elapsed(), patience, answer.error.as_deref(), pods);
                (self.fleet.watcher)(Event::Waiting { label, why });
            }
        }
    }

    /// The same of a cluster that was healthy just now, whatever they say.
    pub(super) async fn hash_all(
        &self,
        revision: Option<i64>,
    ) -> Result<Vec<(String, Answer)>, RunError> {
        let question = |host: &Resolved| {
            host.member.as_ref()?;
            let wait_seconds = ELECTED_SECONDS;
            Some(Question { wait_seconds, hash_at: revision, ..Question::to(host) })
        };
        self.fleet.ask(&self.plan.agent, question).await
    }

    /// Says of each of these members whose etcd has other data than those that were put there; it would be waited for in vain.
    pub(super) async fn with_other_data(&self, is_asked: impl Fn(&str) -> bool) -> Vec<String> {
        let mut asking = JoinSet::new();
        let hosts = self.fleet.hosts.iter().zip(&self.fleet.remotes);
        for (host, remote) in hosts.filter(|(host, _)| is_asked(&host.label)) {
            let frame = self.plan.frame(host);
            let running = Shell::new(&host.service, &frame.run_dir()).running();
            let text = frame.look(&format!("if {running}; then\n{}fi", facts::elsewhere(host)));
            let (host, remote) = (host.clone(), remote.clone());
            asking.spawn(async move {
                // A host that does not answer is told of by who needs it.
                let answer = remote.script(&text).await.ok()?;
                let other = facts::parse(&answer, 0.0, 0.0).data_elsewhere?;
                Some(format!("{}: {}", host.label, facts::told_elsewhere(&other, &host)))
            });
        }
        let mut told: Vec<_> = asking.join_all().await.into_iter().flatten().collect();
        told.sort();
        told
    }

    fn in_order(&self, mut answers: Vec<(String, Answer)>) -> Vec<(String, Answer)> {
        let place = |label: &str| self.fleet.hosts().iter().position(|host| host.label == label);
        answers.sort_by_key(|(label, _)| place(label));
        answers
    }
}

fn is_pod(host: &Resolved) -> bool {
    host.member.is_some() && matches!(host.service, Service::StaticPod(_))
}

/// What is waited for, for a person.
fn waited(for_now: Duration, patience: Duration, error: Option<&str>, pods: bool) -> String {
    let mut text = format!(
        "not healthy yet after {} s ({}); it has {} s",
        for_now.as_secs(),
        error.unwrap_or("no answer"),
        patience.as_secs()
    );
    if pods {
        text += ", as kubelet waits for up to 5 min before it starts a pod again that has failed";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_told_why_and_for_how_long() {
        let seconds = Duration::from_secs;
        assert_eq!(
            waited(seconds(20), seconds(180), Some("connection refused"), false),
            "not healthy yet after 20 s (connection refused); it has 180 s"
        );
        let of_pod = waited(seconds(20), seconds(360), None, true);
        assert!(of_pod.contains("360 s, as kubelet waits for up to 5 min"), "{of_pod}");
    }
}
