//! The hosts of a cluster: reached, looked at, given lifeboat's program, and asked for their etcd.

use super::{
    RunError, Watcher, gather, patiently,
    send::{AS_IT_IS, receive, send},
    together::{each, patiently_unless},
};
use crate::{
    agent::{Answer, Question},
    facts::{self, Facts},
    host::{Connections, HostError, Remote},
    plan::Agent,
    shell::{ALREADY, Frame, quote, quote_path},
    spec::{Resolved, Spec},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// What is done first.
const INSPECT: &str = "inspect the hosts";

/// All hosts of a spec, reached.
pub struct Fleet {
    pub(super) hosts: Vec<Resolved>,
    pub(super) remotes: Vec<Remote>,
    pub(crate) watcher: Watcher,
    /// Hosts that did not answer, and are left as they are.
    pub(super) absent: BTreeSet<usize>,
    /// Who looks at the hosts for the first time learns at once what looks like a mistake.
    waits_for_anything: bool,
    /// What hosts are told that fetch the backup themselves: variables and their values.
    variables: Vec<(String, String)>,
    _connections: Connections,
}

impl Fleet {
    /// Nothing is connected yet.
    pub fn new(spec: &Spec, watcher: Watcher) -> Result<Self, RunError> {
        let connections = Connections::new().map_err(RunError::Connections)?;
        let hosts = spec.resolved();
        let remotes = hosts
            .iter()
            .enumerate()
            .map(|(number, host)| connections.remote(number, host))
            .collect();
        Ok(Self {
            hosts,
            remotes,
            watcher,
            absent: BTreeSet::new(),
            waits_for_anything: false,
            variables: Vec::new(),
            _connections: connections,
        })
    }

    /// Hosts that fetch the backup themselves are told these variables with what they hold: on ssh's standard input, for the time
    /// of the step.
    pub fn telling(self, variables: Vec<(String, String)>) -> Self {
        Self { variables, ..self }
    }

    /// A host that cannot be reached is tried again for so long.
    pub fn patient(mut self, patience: Duration) -> Self {
        self.remotes.iter_mut().for_each(|remote| remote.be_patient(patience));
        self
    }

    /// Also a host whose name is not known, or that refuses, may be on its way up: it is waited for from the beginning.
    pub fn waiting_for_anything(self, waits_for_anything: bool) -> Self {
        Self { waits_for_anything, ..self }
    }

    /// These hosts did not answer: a run is adopted without them.
    pub fn without(mut self, labels: &[String]) -> Self {
        let hosts = self.hosts.iter().enumerate();
        let absent = hosts.filter(|(_, host)| labels.contains(&host.label));
        self.absent = absent.map(|(number, _)| number).collect();
        self
    }

    /// The hosts that answer.
    pub(crate) fn present(&self) -> impl Iterator<Item = (&Resolved, &Remote)> {
        let hosts = self.hosts.iter().zip(&self.remotes).enumerate();
        hosts.filter(|(number, _)| !self.absent.contains(number)).map(|(_, host)| host)
    }

    /// Whether a host did not answer.
    pub(crate) fn is_absent(&self, number: usize) -> bool {
        self.absent.contains(&number)
    }

    pub(super) fn exports(&self) -> String {
        let export = |(name, value): &(String, String)| format!("export {name}={}\n", quote(value));
        self.variables.iter().map(export).collect()
    }

    /// The hosts.
    pub fn hosts(&self) -> &[Resolved] {
        &self.hosts
    }

    pub(crate) fn remote(&self, number: usize) -> &Remote {
        &self.remotes[number]
    }

    /// Reaches every host, and looks at it. One that cannot be reached is waited for, unless that looks like a mistake: nothing
    /// has begun yet.
    pub async fn inspect(&self, run: &str) -> Result<BTreeMap<String, Facts>, RunError> {
        let (found, failures) = self.inspect_each(run).await;
        match failures.is_empty() {
            true => Ok(found),
            false => Err(RunError::Hosts { step: INSPECT.to_owned(), failures }),
        }
    }

    /// The same, but hosts that cannot be reached are left out, and told of: unless all are.
    pub async fn inspect_who_answers(
        &self,
        run: &str,
    ) -> Result<(BTreeMap<String, Facts>, Vec<HostError>), RunError> {
        let (found, failures) = self.inspect_each(run).await;
        let is_away = |failure: &HostError| {
            matches!(failure, HostError::Unreachable { .. } | HostError::Silent { .. })
        };
        match !found.is_empty() && failures.iter().all(is_away) {
            true => Ok((found, failures)),
            false => Err(RunError::Hosts { step: INSPECT.to_owned(), failures }),
        }
    }

    async fn inspect_each(&self, run: &str) -> (BTreeMap<String, Facts>, Vec<HostError>) {
        let parts = self.hosts.iter().zip(&self.remotes).map(|(host, remote)| {
            let frame = Frame { run, label: &host.label, state_dir: &host.state_dir, claim: None };
            let (text, remote) = (frame.look(&facts::script(host, &frame)), remote.clone());
            let (watcher, anything) = (self.watcher.clone(), self.waits_for_anything);
            async move {
                let look = || async {
                    let begun = clock();
                    let answer = remote.script(&text).await?;
                    Ok((facts::parse(&answer, begun, clock()), answer))
                };
                let is_hopeless = |error: &HostError| !anything && error.looks_mistaken();
                let (facts, answer) =
                    patiently_unless(&remote, &watcher, is_hopeless, look).await?;
                match facts.machine.is_empty() {
                    true => Err(remote.not_understood(&answer)),
                    false => Ok((remote.label().to_owned(), facts)),
                }
            }
        });
        let (mut found, mut failures) = (BTreeMap::new(), Vec::new());
        for part in each(parts.collect()).await {
            match part {
                Ok((label, facts)) => drop(found.insert(label, facts)),
                Err(failure) => failures.push(failure),
            }
        }
        (found, failures)
    }

    /// Puts the program on every host that has not got it.
    pub async fn push(&self, agent: &Agent, program: &Path) -> Result<(), RunError> {
        let parts = self.hosts.iter().zip(&self.remotes).map(|(host, remote)| {
            let (remote, program) = (remote.clone(), program.to_owned());
            let to = quote_path(&agent_path(agent, host));
            let sha256 = agent.sha256.clone();
            let watcher = self.watcher.clone();
            async move {
                // It hashes itself, many times faster than sha256sum does on most hosts; one that is damaged does not come to say
                // what it would say if it were whole.
                let look = format!(
                    "set -u\nif [ -x {to} ] && [ \"$({to} recover digest {to} 2>/dev/null)\" = {} ]; then echo {ALREADY}; fi\n",
                    quote(&sha256)
                );
                let there = patiently(&remote, &watcher, || remote.script(&look)).await?;
                if there.contains(ALREADY) {
                    return Ok(());
                }
                let proved = "chmod 755 \"$part\"\n\"$part\" --version >/dev/null";
                let receive = receive(AS_IT_IS, &to, &sha256, proved);
                send(&remote, &receive, &program, &sha256, &|_| {}, &watcher).await
            }
        });
        gather("put lifeboat on the hosts", parts.collect()).await?;
        Ok(())
    }

    /// Asks on every host that `question` has a question for.
    pub async fn ask(
        &self,
        agent: &Agent,
        question: impl Fn(&Resolved) -> Option<Question>,
    ) -> Result<Vec<(String, Answer)>, RunError> {
        let parts = self.hosts.iter().zip(&self.remotes).filter_map(|(host, remote)| {
            let question = serde_json::to_string(&question(host)?).expect("a question is JSON");
            let (program, remote) = (quote_path(&agent_path(agent, host)), remote.clone());
            // The text is quoted as one word, so nothing in it is taken for the shell's.
            let text = format!(
                "set -eu\nmain() {{\nprintf %s {} | {program} recover agent\n}}\nmain\n",
                quote(&question)
            );
            let watcher = self.watcher.clone();
            Some(async move {
                let answer = patiently(&remote, &watcher, || remote.script(&text)).await?;
                match serde_json::from_str(&answer) {
                    Ok(answer) => Ok((remote.label().to_owned(), answer)),
                    Err(_) => Err(remote.not_understood(&answer)),
                }
            })
        });
        gather("ask etcd on its hosts", parts.collect()).await
    }
}

/// Where the pushed program is.
pub(crate) fn agent_path(agent: &Agent, host: &Resolved) -> PathBuf {
    let short: String = agent.sha256.chars().take(12).collect();
    host.state_dir.join("bin").join(format!("lifeboat-{}-{short}", agent.version))
}

fn clock() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
