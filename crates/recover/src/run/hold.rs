//! Hosts, held for a run and let go; and the plan kept on them.

use super::{Run, RunError, gather, patiently};
use crate::{
    claim::{self, Elsewhere, Ended, Standing},
    journal::What,
    shell::{durable, quote},
    spec::Resolved,
    steps::{LOCK, Step, steps},
};
use tokio::task::JoinSet;

impl Run<'_> {
    /// Notes on the hosts how the run has ended, and lets them go, so that other runs may have them.
    pub async fn end(&self, ended: Ended) -> Result<(), RunError> {
        let text = |host: &Resolved| whole(&claim::end(self.plan, host, ended));
        self.on_each(&self.lock(), "let the hosts go", text).await
    }

    /// Lets the hosts go: the run is taken back.
    pub async fn let_go(&self) -> Result<(), RunError> {
        self.let_go_of(&self.lock()).await
    }

    /// The same for the hosts of a step.
    pub(super) async fn let_go_of(&self, step: &Step) -> Result<(), RunError> {
        let text = |host: &Resolved| whole(&claim::take_back(self.plan, host));
        self.on_each(step, "let the hosts go", text).await
    }

    /// Claims the hosts for this process and this machine; that it may have the run is decided.
    pub async fn claim(&self) -> Result<(), RunError> {
        let lock = self.lock();
        self.keep_plan(&lock).await?;
        let text = |host: &Resolved| {
            let held = claim::is_held(self.plan, &self.plan.frame(host).lock());
            self.plan.frame(host).step(LOCK, &held, &claim::hold(self.plan, host, true))
        };
        self.on_each(&lock, &lock.title, text).await
    }

    /// Refuses a run that goes on from another machine, or has ended there: hosts know, this machine's journal may not. What has ended
    /// ends here too.
    pub async fn refuse_elsewhere(&self) -> Result<(), RunError> {
        let mut asking = JoinSet::new();
        for part in self.lock().hosts {
            let frame = self.plan.frame(&self.fleet.hosts[part.host]);
            let text = claim::look_for_standing(self.plan, &self.fleet.hosts[part.host]);
            let (text, remote) = (frame.look(&text), self.fleet.remotes[part.host].clone());
            let label = self.fleet.hosts[part.host].label.clone();
            asking.spawn(async move { Some((label, remote.script(&text).await.ok()?)) });
        }
        // A host that does not answer is told of by what comes next.
        let answers = asking.join_all().await.into_iter().flatten();
        let standing = |(label, answer): (String, String)| {
            self.plan.standing(&label, Standing::parse(&answer))
        };
        let standings: Vec<_> = answers.map(standing).collect();
        let seat = self.plan.by.as_ref().map_or("", |by| by.seat.as_str());
        let Some(how) = Elsewhere::of(seat, &standings) else { return Ok(()) };
        let (what, told) = match &how {
            Elsewhere::TakenBack { told, .. } => (What::RolledBack, told),
            Elsewhere::Committed { told } => (What::Committed, told),
            Elsewhere::TakenOver { .. } => {
                return Err(RunError::Elsewhere { run: self.plan.run.clone(), how });
            }
        };
        self.journal.note(what, None, None, Some(told))?;
        Err(RunError::Elsewhere { run: self.plan.run.clone(), how })
    }

    /// The hosts are the run's, but another process of it may have claimed them.
    pub(super) async fn claim_again(&self, lock: &Step) -> Result<(), RunError> {
        let text = |host: &Resolved| {
            let at = |number: usize| &self.fleet.hosts[number].label;
            let part = lock.hosts.iter().find(|part| *at(part.host) == host.label);
            let part = part.expect("it is asked for the hosts of this step");
            self.plan.frame(host).step(LOCK, &part.check, &part.run)
        };
        self.on_each(lock, &lock.title, text).await
    }

    /// Keeps the plan on the hosts of a step: if this machine is lost, another one goes on with it.
    pub(super) async fn keep_plan(&self, step: &Step) -> Result<(), RunError> {
        let yaml = quote(&self.plan.to_yaml());
        let text = |host: &Resolved| {
            let run_dir = self.plan.frame(host).run_dir();
            whole(&format!(
                "umask 077\n\
                 mkdir -p {run_dir}\n\
                 printf %s {yaml} >{run_dir}/plan.yaml.part\n\
                 mv {run_dir}/plan.yaml.part {run_dir}/plan.yaml\n\
                 {}",
                durable(&format!("{run_dir}/plan.yaml"))
            ))
        };
        self.on_each(step, "keep the plan on the hosts", text).await
    }

    /// Fails if another process has taken the run over. Scripts of steps look for themselves; all else asks here before.
    pub(super) async fn still_ours(&self, step: &Step) -> Result<(), RunError> {
        self.on_each(step, &step.title, |host| self.look_for_claim(host)).await
    }

    pub(super) fn look_for_claim(&self, host: &Resolved) -> String {
        whole(&format!(":\n{}", self.plan.frame(host).still_ours()))
    }

    fn lock(&self) -> Step {
        let mut lock = steps(self.plan).swap_remove(0);
        lock.hosts.retain(|part| !self.fleet.is_absent(part.host));
        lock
    }

    /// One script on each host of a step.
    async fn on_each(
        &self,
        step: &Step,
        title: &str,
        text: impl Fn(&Resolved) -> String,
    ) -> Result<(), RunError> {
        let parts = step.hosts.iter().map(|part| {
            let text = text(&self.fleet.hosts[part.host]);
            let remote = self.fleet.remotes[part.host].clone();
            let watcher = self.fleet.watcher.clone();
            async move { patiently(&remote, &watcher, || remote.script(&text)).await }
        });
        gather(title, parts.collect()).await?;
        Ok(())
    }
}

/// Commands that are not begun before all of them have arrived.
fn whole(commands: &str) -> String {
    format!("set -eu\nmain() {{\n{commands}\n}}\nmain </dev/null\n")
}
