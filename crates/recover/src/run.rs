//! The plan, executed: each step on all hosts at the same time, a journal line before and after, and again from wherever it stopped.

use crate::{
    agent::Answer,
    build::{Built, Hashes, MemberFile},
    claim::Ended,
    host::{HostError, SCRIPT_SECONDS},
    journal::{Journal, What},
    plan::Plan,
    replace::log_file,
    rescue,
    shell::{ALREADY, DONE, quote_path},
    spec::Resolved,
    steps::{Kind, LOCK, SEND, Step, destination, has_data, make_parents, steps},
};
use send::send_all;
use tokio::task::JoinSet;

/// A host that fetches the backup itself more slowly than this hangs.
const PULL_BYTES_PER_SECOND: u64 = 50_000;

mod back;
mod error;
mod event;
mod fleet;
mod hold;
mod replace;
mod send;
mod status;
mod together;
mod verify;
mod wait;

pub use back::Back;
pub use error::RunError;
pub use event::{Event, Watcher};
pub use fleet::Fleet;
pub(crate) use fleet::agent_path;
pub use status::OnHostNow;
pub(crate) use together::{gather, patiently};

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
            let acted = match act(step).await {
                // What was planned may have been waited for, until another run let the hosts go.
                Ok(()) if step.id == LOCK => self.refuse_stale().await.map_err(E::from),
                acted => acted,
            };
            if let Err(error) = acted {
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
}
