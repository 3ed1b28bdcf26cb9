//! The plan, executed: each step on all hosts at the same time, a journal line before and after, and again from wherever it stopped.

use crate::{
    agent::{Answer, Expected, Probe, Question, judge},
    build::{Built, Hashes, MemberFile},
    claim::{self, Claim, Elsewhere, Ended, Placed},
    facts::{self, Facts},
    host::{Connections, HostError, Remote, SCRIPT_SECONDS},
    journal::{Journal, JournalError, What},
    plan::{Agent, Plan},
    replace::log_file,
    rescue,
    shell::{ALREADY, DONE, Frame, quote, quote_path},
    spec::{Resolved, Spec},
    steps::{Kind, LOCK, OnHost, SEND, Step, destination, has_data, make_parents, steps},
};
use send::{AS_IT_IS, has_sha256, receive, send, send_all};
use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{task::JoinSet, time::Instant};

/// The wait between two tries.
const AGAIN: Duration = Duration::from_secs(2);
/// Who waits is told so often that it is tried again.
const AGAIN_TOLD: Duration = Duration::from_secs(10);
/// A host that fetches the backup itself more slowly than this hangs.
const PULL_BYTES_PER_SECOND: u64 = 50_000;

mod back;
mod hold;
mod replace;
mod send;
mod wait;

pub use back::Back;

/// What happens, for who shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A step begins.
    Step {
        /// Its number, from 1.
        number: usize,
        /// Of how many.
        of: usize,
        /// What it does.
        title: String,
    },
    /// A host's part of the step begins.
    Begun {
        /// The host.
        label: String,
    },
    /// So many bytes of all are there.
    Sent {
        /// The host.
        label: String,
        /// Bytes.
        bytes: u64,
        /// Of so many.
        of: u64,
    },
    /// A host's part is done.
    Done {
        /// The host.
        label: String,
        /// It was done before.
        already: bool,
    },
    /// A new member learns what the others know.
    CatchingUp {
        /// The host.
        label: String,
        /// The newest raft entry that it has.
        index: u64,
        /// The newest one of the cluster.
        of: u64,
    },
    /// A member is waited for.
    Waiting {
        /// The host.
        label: String,
        /// What for.
        why: String,
    },
    /// A host's part failed and is tried again.
    Again {
        /// The host.
        label: String,
        /// Why.
        why: String,
        /// For how long it is tried again at most, if that is by time.
        left: Option<Duration>,
    },
    /// A host's part failed; why, the error tells at the end.
    Failed {
        /// The host.
        label: String,
    },
    /// A host that cannot be reached is left as it is.
    LeftAlone {
        /// The host.
        label: String,
        /// Why.
        why: String,
    },
}

/// Who is told what happens.
pub type Watcher = Arc<dyn Fn(Event) + Send + Sync>;

/// Why a run stopped. What was done stays done; a run that goes on begins there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// One host, or several.
    #[error("{step}: {}", several(failures))]
    Hosts {
        /// The step.
        step: String,
        /// What each said.
        failures: Vec<HostError>,
    },
    /// The cluster is not what it should be.
    #[error("the new cluster is not as it should be:{}", lines(faults))]
    Cluster {
        /// All that is wrong.
        faults: Vec<String>,
    },
    /// The cluster did not do what it was asked for.
    #[error("{step}:{}", lines(why))]
    Member {
        /// The step.
        step: String,
        /// What each member said that was asked.
        why: Vec<String>,
    },
    /// What is to be sent cannot be written here.
    #[error("cannot write to {}", path.display())]
    Write {
        /// Where.
        path: std::path::PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The journal cannot be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// No data were built, but hosts need them.
    #[error("hosts need data, but none were built")]
    NothingBuilt,
    /// What is in place on these hosts came after the run.
    #[error("{}: the data in place are not those of this run, though it has set older ones aside: {}", hosts.join(", "), put_there(later))]
    Overtaken {
        /// The hosts.
        hosts: Vec<String>,
        /// The runs whose data they are, as far as hosts know.
        later: Vec<Claim>,
        /// One of them is final.
        is_final: bool,
    },
    /// The run goes on from another machine, or has ended there.
    #[error("run {run} {}", elsewhere(how))]
    Elsewhere {
        /// The run.
        run: String,
        /// What has become of it.
        how: Elsewhere,
    },
    /// What answers after a rollback is what the run had made.
    #[error("{}: the NEW cluster, {cluster_id:x}, serves there still, though the old data are back in place", members.join(", "))]
    StillNew {
        /// Members that answered.
        members: Vec<String>,
        /// The new cluster's id.
        cluster_id: u64,
    },
    /// ssh's connections have no place.
    #[error("cannot make a folder in /tmp for ssh's connections")]
    Connections(#[source] io::Error),
}

impl RunError {
    /// What to do next.
    pub fn remedy(&self) -> String {
        match self {
            Self::Hosts { failures, .. } => {
                failures.first().map(HostError::remedy).unwrap_or_default()
            }
            Self::Cluster { .. } => "see etcd's logs on the hosts; `lifeboat recover run` asks again, `lifeboat recover rollback` brings the old cluster back".to_owned(),
            Self::Member { .. } => "see etcd's logs on the hosts; the same command goes on from there, `lifeboat recover rollback` takes back what can be taken back".to_owned(),
            Self::Write { .. } => "check the folder's permissions and free space".to_owned(),
            Self::Journal(error) => error.remedy().to_owned(),
            Self::NothingBuilt => "run the same command again".to_owned(),
            Self::Overtaken { is_final: true, .. } => "nothing was changed, and nothing needs to be: that run was committed, so this one is over. Its old data are where they were set aside; docs/recover.md says how to put them back by hand".to_owned(),
            Self::Elsewhere { run, how } => match how {
                Elsewhere::TakenBack { .. } => "nothing was changed; `lifeboat recover run` or `replace` begins anew".to_owned(),
                Elsewhere::Committed { .. } => "nothing was changed; there is nothing left to do for it, and `lifeboat recover run` or `replace` begins anew".to_owned(),
                Elsewhere::TakenOver { .. } => format!("nothing was changed; finish it there, or take it back to this machine: lifeboat recover adopt CLUSTER.yaml {run}"),
            },
            Self::StillNew { .. } => "an etcd runs there that its service does not know of: stop it by hand (`pgrep -a etcd`), and run the same command again".to_owned(),
            Self::Overtaken { .. } => "nothing was changed. The later run is to be taken back first, on the machine that began it (if that is gone: `lifeboat recover adopt`); `ls -d DATA-DIR.lifeboat-*` on a host tells which runs there were".to_owned(),
            Self::Connections(_) => "make room in /tmp, or let yourself write there".to_owned(),
        }
    }

    /// Whether what arrived on a host is not what was sent, though it was sent again.
    pub fn is_damaged_on_its_way(&self) -> bool {
        let Self::Hosts { failures, .. } = self else { return false };
        failures.iter().any(|failure| matches!(failure, HostError::Damaged { .. }))
    }

    /// Whether a host could not be reached.
    pub fn is_unreachable(&self) -> bool {
        let Self::Hosts { failures, .. } = self else { return false };
        failures.iter().any(|failure| {
            matches!(failure, HostError::Unreachable { .. } | HostError::Silent { .. })
        })
    }
}

fn elsewhere(how: &Elsewhere) -> String {
    let (what, told) = match how {
        Elsewhere::TakenBack { told, .. } => ("was taken back", told),
        Elsewhere::Committed { told } => ("was committed", told),
        Elsewhere::TakenOver { told } => ("was taken over", told),
    };
    format!("{what}, {told}")
}

fn put_there(later: &[Claim]) -> String {
    match later {
        [] => "a later run, or somebody by hand, has put them there".to_owned(),
        later => {
            let later: Vec<_> = later.iter().map(ToString::to_string).collect();
            format!("a later run has put them there: {}", later.join("; "))
        }
    }
}

fn several(failures: &[HostError]) -> String {
    let texts: Vec<_> = failures.iter().map(ToString::to_string).collect();
    if texts.len() == 1 { texts.concat() } else { lines(&texts) }
}

fn lines(texts: &[String]) -> String {
    texts.iter().map(|text| format!("\n  {text}")).collect()
}

/// All hosts of a spec, reached.
pub struct Fleet {
    hosts: Vec<Resolved>,
    remotes: Vec<Remote>,
    pub(crate) watcher: Watcher,
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

    fn exports(&self) -> String {
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
        Ok(gather("inspect the hosts", parts.collect()).await?.into_iter().collect())
    }

    /// Puts the program on every host that has not got it.
    pub async fn push(&self, agent: &Agent, program: &Path) -> Result<(), RunError> {
        let parts = self.hosts.iter().zip(&self.remotes).map(|(host, remote)| {
            let (remote, program) = (remote.clone(), program.to_owned());
            let to = quote_path(&agent_path(agent, host));
            let sha256 = agent.sha256.clone();
            let watcher = self.watcher.clone();
            async move {
                let look = format!(
                    "set -u\nif [ -x {to} ] && {} && {to} --version >/dev/null; then echo {ALREADY}; fi\n",
                    has_sha256(&to, &sha256)
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

/// Where a host is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnHostNow {
    /// Which data are in place: `old`, `new` or `none`; and what lies beside them.
    pub data: String,
    /// Whether etcd runs.
    pub etcd: String,
    /// The clients, and whether they run.
    pub clients: String,
    /// The last line of the host's journal.
    pub last: String,
    /// The run whose data are in place, if they are a run's.
    pub placed: Option<Placed>,
}

impl OnHostNow {
    /// Whether data are in place that are not the run's, though it has set those that were there aside.
    fn is_overtaken(&self) -> bool {
        let has = |what: &str| self.data.split(", ").any(|found| found == what);
        has("old") && has("old aside")
    }

    /// Whether data lie beside that a rollback has taken away.
    pub(crate) fn has_undone(&self) -> bool {
        self.data.split(", ").any(|found| found == "taken back beside")
    }

    /// Which data are in place.
    pub(crate) fn in_place(&self) -> &str {
        match self.data.split(", ").next() {
            None | Some("none" | "") => "no",
            Some(data) => data,
        }
    }

    fn parse(answer: &str) -> Self {
        let mut on = Self::default();
        for line in answer.lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            let field = match key {
                "data" => &mut on.data,
                "etcd" => &mut on.etcd,
                "client" => &mut on.clients,
                "last" => &mut on.last,
                "placed" => {
                    on.placed = Some(Placed::parse(value));
                    continue;
                }
                _ => continue,
            };
            if !field.is_empty() {
                field.push_str(", ");
            }
            field.push_str(value);
        }
        on
    }
}

/// Its answer is read by [`OnHostNow::parse`].
fn status_script(plan: &Plan, host: &Resolved) -> String {
    let (places, frame) = (plan.places(host), plan.frame(host));
    let run_dir = frame.run_dir();
    let (current, mark) = (
        quote_path(&places.member(&places.data.current)),
        quote_path(&places.mark(&places.data.current)),
    );
    let mut text = format!(
        "if [ -e {mark} ]; then echo data new; elif [ -e {current} ]; then echo data old; else echo data none; fi\n"
    );
    for (place, what) in [
        (&places.data.old, "old aside"),
        (&places.data.new, "new beside"),
        (&places.data.undone, "taken back beside"),
    ] {
        text += &format!("[ ! -e {} ] || echo data {what}\n", quote_path(place));
    }
    let mut service = |key: &str, service: &crate::spec::Service, named: bool| {
        let running = crate::service::Shell::new(service, &run_dir).running();
        let name = if named { format!("{} ", quote(&service.name())) } else { String::new() };
        text += &format!(
            "if {running}; then echo {key} {name}runs; else echo {key} {name}stopped; fi\n"
        );
    };
    service("etcd", &host.service, false);
    for client in &host.clients {
        service("client", &client.service, true);
    }
    text +=
        &format!("[ ! -e {run_dir}/journal ] || echo last \"$(tail -n 1 {run_dir}/journal)\"\n");
    let data_dir = quote_path(&places.data_dir());
    text += &claim::look_for_placed(&host.state_dir, &data_dir);
    frame.look(&text)
}

/// A run that goes on.
pub struct Run<'a> {
    /// What will be done.
    pub plan: &'a Plan,
    /// Where it is written down.
    pub journal: &'a Journal,
    /// Where it is done.
    pub fleet: &'a Fleet,
}

impl Run<'_> {
    /// Whether a host still needs data to be sent.
    pub async fn needs_data(&self) -> Result<bool, RunError> {
        if self.plan.pull.is_some() {
            return Ok(false);
        }
        let members = self.fleet.hosts.iter().zip(&self.fleet.remotes);
        let parts = members.filter(|(host, _)| host.member.is_some()).map(|(host, remote)| {
            let text = format!("if {}; then echo {ALREADY}; fi\n", has_data(self.plan, host));
            let (remote, watcher) = (remote.clone(), self.fleet.watcher.clone());
            async move {
                let said = patiently(&remote, &watcher, || remote.script(&text)).await?;
                Ok(said.contains(ALREADY))
            }
        });
        let have = gather("look for data on the hosts", parts.collect()).await?;
        Ok(!have.into_iter().all(|has| has))
    }

    /// All steps, from wherever it stopped. `hashes` is asked for when the cluster is there to be compared.
    pub async fn execute<H, E>(
        &self,
        built: &Built,
        hashes: H,
    ) -> Result<(Vec<(String, Answer)>, Hashes), E>
    where
        H: AsyncFnOnce() -> Result<Hashes, E>,
        E: From<RunError> + std::fmt::Display,
    {
        let mut ended = (Vec::new(), Hashes::default());
        let mut hashes = Some(hashes);
        self.walk(async |step| match (step.kind, hashes.take_if(|_| step.kind == Kind::Verify)) {
            (Kind::Verify, Some(hashes)) => {
                let hashes = hashes().await?;
                ended = (self.verify(step, built, hashes).await?, hashes);
                Ok::<(), E>(())
            }
            _ => Ok(self.on_all(step, built).await?),
        })
        .await?;
        Ok(ended)
    }

    /// All steps in their order, with a line before and after each.
    async fn walk<E>(&self, mut act: impl AsyncFnMut(&Step) -> Result<(), E>) -> Result<(), E>
    where
        E: From<RunError> + std::fmt::Display,
    {
        let steps = steps(self.plan);
        for (number, step) in steps.iter().enumerate() {
            if self.plan.rescue.is_some() && rescue::BEFORE_BUILD.contains(&step.id.as_str()) {
                if step.id == LOCK {
                    self.claim_again(step).await?;
                }
                continue;
            }
            let title = step.title.clone();
            (self.fleet.watcher)(Event::Step { number: number + 1, of: steps.len(), title });
            self.note(What::Begin, &step.id, None)?;
            if let Err(error) = act(step).await {
                self.note(What::Failed, &step.id, Some(&error.to_string()))?;
                return Err(error);
            }
            self.note(What::Done, &step.id, None)?;
        }
        // In this order: a run that is cut off between the two goes on, and one that is finished holds no host.
        self.end(Ended::Finished).await?;
        self.journal.note(What::Finished, None, None, None).map_err(RunError::from)?;
        Ok(())
    }

    /// Refuses to go on with a run whose data another one has replaced.
    pub async fn refuse_overtaken(&self) -> Result<(), RunError> {
        let found = self.status().await.into_iter();
        // A host that does not answer is told of by what comes next.
        let overtaken = found.filter_map(|(label, on)| Some((label, on.ok()?)));
        let (mut hosts, mut later) = (Vec::new(), Vec::<Placed>::new());
        for (label, on) in overtaken.filter(|(_, on)| on.is_overtaken()) {
            hosts.push(label);
            let known =
                |placed: &Placed| later.iter().any(|known| known.claim.run == placed.claim.run);
            later.extend(on.placed.filter(|placed| !known(placed)));
        }
        let is_final = later.iter().any(|placed| placed.ended == Ended::Committed);
        let later: Vec<_> = later.into_iter().map(|placed| placed.claim).collect();
        if hosts.is_empty() {
            return Ok(());
        }
        if is_final {
            let by = later.iter().map(|claim| claim.run.as_str()).collect::<Vec<_>>().join(", ");
            let note = format!("followed by {by}, which was committed");
            self.journal.note(What::Committed, None, None, Some(&note))?;
        }
        Err(RunError::Overtaken { hosts, later, is_final })
    }

    /// Whether every member runs with the data that it had: the run has replaced none, or somebody has put them back.
    pub async fn is_as_before(&self) -> bool {
        let found = self.status().await;
        found
            .iter()
            .all(|(_, on)| on.as_ref().is_ok_and(|on| on.data == "old" && on.etcd == "runs"))
    }

    /// Where each host is, by what is found on it.
    pub async fn status(&self) -> Vec<(String, Result<OnHostNow, HostError>)> {
        let mut asking = JoinSet::new();
        let hosts = self.fleet.hosts.iter().enumerate();
        // Of a replacement only one host has something to tell.
        let touched =
            hosts.filter(|(_, host)| self.plan.replace.is_none() || self.plan.gets_data(host));
        for (number, host) in touched {
            let text = status_script(self.plan, host);
            let remote = self.fleet.remotes[number].clone();
            asking.spawn(async move {
                let found = remote.script(&text).await.map(|answer| OnHostNow::parse(&answer));
                (number, remote.label().to_owned(), found)
            });
        }
        let mut found = asking.join_all().await;
        found.sort_by_key(|(number, ..)| *number);
        found.into_iter().map(|(_, label, found)| (label, found)).collect()
    }

    pub(crate) fn note(&self, what: What, step: &str, note: Option<&str>) -> Result<(), RunError> {
        Ok(self.journal.note(what, Some(step), None, note)?)
    }

    pub(crate) async fn on_all(&self, step: &Step, built: &Built) -> Result<(), RunError> {
        match step.kind {
            Kind::Script if step.id == LOCK => self.keep_plan(step).await?,
            Kind::Script => {}
            _ => self.still_ours(step).await?,
        }
        let mut parts = JoinSet::new();
        for part in &step.hosts {
            let host = &self.fleet.hosts[part.host];
            let mut text = self.plan.frame(host).step(&step.id, &part.check, &part.run);
            if self.plan.pull.is_some() && step.id == SEND {
                text.insert_str(0, &self.fleet.exports());
            }
            let files = match step.kind {
                Kind::Send => Some((self.sending(host, built), make_parents(self.plan, host))),
                _ => None,
            };
            let scripted = self.scripted(part.host, text);
            let remote = self.fleet.remotes[part.host].clone();
            let program = quote_path(&agent_path(&self.plan.agent, host));
            let (watcher, check) = (self.fleet.watcher.clone(), part.check.clone());
            parts.spawn(async move {
                if let Some((files, parents)) = files {
                    let sent = send_all(&remote, &program, &check, &parents, files, &watcher).await;
                    sent.inspect_err(|_| {
                        watcher(Event::Failed { label: remote.label().to_owned() });
                    })?;
                }
                scripted.await
            });
        }
        let mut failures = Vec::new();
        while let Some(part) = parts.join_next().await {
            match part.expect("a part does not panic") {
                Ok((label, already)) => {
                    let what = if already { What::Already } else { What::Done };
                    self.journal.note(what, Some(&step.id), Some(&label), None)?;
                }
                Err(error) => failures.push(error),
            }
        }
        match failures.is_empty() {
            true => Ok(()),
            false => Err(RunError::Hosts { step: step.title.clone(), failures }),
        }
    }

    /// One script on one host, tried again for a while if the host cannot be reached.
    fn scripted(
        &self,
        number: usize,
        text: String,
    ) -> impl Future<Output = Result<(String, bool), HostError>> + Send + 'static {
        let (remote, watcher) = (self.fleet.remotes[number].clone(), self.fleet.watcher.clone());
        let fetched = self.plan.pull.as_ref().map_or(0, |_| self.plan.backup.bytes);
        let seconds = SCRIPT_SECONDS + fetched / PULL_BYTES_PER_SECOND;
        async move {
            let label = remote.label().to_owned();
            watcher(Event::Begun { label: label.clone() });
            match patiently(&remote, &watcher, || remote.script_within(&text, seconds)).await {
                Ok(said) => {
                    let already = said.trim_end().ends_with(ALREADY);
                    debug_assert!(already || said.trim_end().ends_with(DONE), "{said}");
                    watcher(Event::Done { label: label.clone(), already });
                    Ok((label, already))
                }
                Err(error) => {
                    watcher(Event::Failed { label });
                    Err(error)
                }
            }
        }
    }

    /// The files for one host, and where they go.
    fn sending(&self, host: &Resolved, built: &Built) -> Vec<(MemberFile, String)> {
        let to = destination(self.plan, host);
        let name = host.member.as_ref().map(|member| member.name.as_str()).unwrap_or_default();
        let folder = self.journal.build_dir();
        let files = match self.plan.replace {
            Some(_) => vec![log_file(&folder)],
            None => built.files(&folder, name),
        };
        let files = files.into_iter();
        let place = |file: &MemberFile| {
            let folder = if file.folder == "wal" { &to.wal } else { &to.snap };
            quote_path(&folder.join(&file.name))
        };
        files.map(|file| (file.clone(), place(&file))).collect()
    }

    /// Waits until all members are well, compares them with what was built, and writes, reads and removes a key.
    async fn verify(
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
            return Err(RunError::Cluster { faults });
        }
        self.tell_done(step, &answers)?;
        Ok(answers)
    }

    /// Says and writes down that a step is done on the hosts that answered.
    fn tell_done(&self, step: &Step, answers: &[(String, Answer)]) -> Result<(), RunError> {
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
            (Some(&host.label) == first)
                .then(|| Question { probe: Some(probe.clone()), ..Question::to(host) })
        };
        let answers = self.fleet.ask(&self.plan.agent, question).await?;
        Ok(answers.into_iter().next().map(|(_, answer)| answer).unwrap_or_default())
    }
}

/// Where the pushed program is.
pub(crate) fn agent_path(agent: &Agent, host: &Resolved) -> std::path::PathBuf {
    let short: String = agent.sha256.chars().take(12).collect();
    host.state_dir.join("bin").join(format!("lifeboat-{}-{short}", agent.version))
}

fn clock() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// Tries again for a while, if what failed may pass.
pub(crate) async fn patiently<T, F>(
    remote: &Remote,
    watcher: &Watcher,
    attempt: impl FnMut() -> F,
) -> Result<T, HostError>
where
    F: Future<Output = Result<T, HostError>>,
{
    patiently_unless(remote, watcher, |_| false, attempt).await
}

/// The same, but what is hopeless is not tried again.
async fn patiently_unless<T, F>(
    remote: &Remote,
    watcher: &Watcher,
    is_hopeless: impl Fn(&HostError) -> bool,
    mut attempt: impl FnMut() -> F,
) -> Result<T, HostError>
where
    F: Future<Output = Result<T, HostError>>,
{
    let until = Instant::now() + remote.patience();
    let mut told: Option<Instant> = None;
    loop {
        match attempt().await {
            Err(error) if error.is_passing() && !is_hopeless(&error) && Instant::now() < until => {
                // Who waits for minutes is told now and then, not at every try.
                if told.is_none_or(|told| told.elapsed() >= AGAIN_TOLD) {
                    told = Some(Instant::now());
                    let (label, why) = (remote.label().to_owned(), error.to_string());
                    let left = Some(until.saturating_duration_since(Instant::now()));
                    watcher(Event::Again { label, why, left });
                }
                tokio::time::sleep(AGAIN).await;
            }
            result => return result,
        }
    }
}

/// All parts at the same time; every failure is told.
pub(crate) async fn gather<T, F>(step: &str, parts: Vec<F>) -> Result<Vec<T>, RunError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, HostError>> + Send + 'static,
{
    let mut running = JoinSet::new();
    for (number, part) in parts.into_iter().enumerate() {
        running.spawn(async move { (number, part.await) });
    }
    let mut ended = running.join_all().await;
    ended.sort_by_key(|(number, _)| *number);
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    for (_, part) in ended {
        match part {
            Ok(part) => done.push(part),
            Err(failure) => failures.push(failure),
        }
    }
    match failures.is_empty() {
        true => Ok(done),
        false => Err(RunError::Hosts { step: step.to_owned(), failures }),
    }
}
