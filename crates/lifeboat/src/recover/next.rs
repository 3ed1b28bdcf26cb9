//! What is said to be done next: commands as they can be given here, with the cluster's file and the folder of runs of this one.

use super::args::{ClusterArgs, RunsArgs};
use crate::report::{Exit, Failure};
use recover::{Elsewhere, HeldHosts, Plan, RunError, State, quote};

/// Where no file was named.
const ANY_FILE: &str = "CLUSTER.yaml";

/// The commands.
#[derive(Clone, Debug)]
pub(super) struct Next {
    file: Option<String>,
    /// ` --state-dir DIR`, if that was given.
    more: String,
}

impl Next {
    /// After a command that names the cluster's file.
    pub(super) fn with(cluster: &ClusterArgs) -> Self {
        Self { file: Some(quote(&cluster.spec.to_string_lossy())), ..Self::of(&cluster.runs) }
    }

    /// After one that does not.
    pub(super) fn of(runs: &RunsArgs) -> Self {
        let dir = runs.state_dir.as_ref();
        let more = dir.map(|dir| format!(" --state-dir {}", quote(&dir.to_string_lossy())));
        Self { file: None, more: more.unwrap_or_default() }
    }

    fn file(&self) -> &str {
        self.file.as_deref().unwrap_or(ANY_FILE)
    }

    pub(super) fn rollback(&self, run: &str) -> String {
        format!("lifeboat recover rollback {run}{}", self.more)
    }

    pub(super) fn commit(&self, run: &str) -> String {
        format!("lifeboat recover commit {run}{}", self.more)
    }

    pub(super) fn status(&self, run: &str) -> String {
        format!("lifeboat recover status {run}{}", self.more)
    }

    pub(super) fn adopt(&self, run: &str) -> String {
        format!("lifeboat recover adopt {} {run}{}", self.file(), self.more)
    }

    pub(super) fn replace(&self, member: &str) -> String {
        format!("lifeboat recover replace {} {}{}", self.file(), quote(member), self.more)
    }

    fn run(&self) -> String {
        format!("lifeboat recover run {}{}", self.file(), self.more)
    }

    /// Goes on with a run.
    pub(super) fn go_on(&self, plan: &Plan) -> String {
        plan.replace.as_ref().map_or_else(|| self.run(), |replace| self.replace(&replace.member))
    }

    /// What is done after a run was stopped.
    pub(super) fn after_stop(&self, plan: &Plan) -> String {
        format!("the same command goes on; `{}` takes it back", self.rollback(&plan.run))
    }

    /// A rollback is to be finished first.
    pub(super) fn rolling_back(&self, plan: &Plan) -> Failure {
        Failure::new(
            Exit::Refused,
            format!("run {} is being taken back", plan.run),
            format!("finish that: {}", self.rollback(&plan.run)),
        )
    }

    /// Another recovery of the same cluster is not finished.
    pub(super) fn another_run(&self, plan: &Plan) -> Failure {
        let what = match &plan.replace {
            Some(replace) => format!("replaces {}", replace.member),
            None => "brings the whole cluster back".to_owned(),
        };
        Failure::new(
            Exit::Refused,
            format!("run {} is not finished, which {what}", plan.run),
            format!(
                "finish it with `{}`, or take it back with `{}`",
                self.go_on(plan),
                self.rollback(&plan.run)
            ),
        )
    }

    /// A run that goes on from another machine can be taken back to this one.
    pub(super) fn if_taken_over(&self, failure: Failure) -> Failure {
        let Some(RunError::Elsewhere { run, how: Elsewhere::TakenOver { .. } }) =
            failure.error.downcast_ref()
        else {
            return failure;
        };
        let help = format!(
            "nothing was changed; finish it there, or take it back to this machine: {}",
            self.adopt(run)
        );
        Failure { help: Some(help), ..failure }
    }

    /// That another run holds hosts, and what is done about it. `here`: it was begun with this folder of runs, and is so far.
    pub(super) fn held(&self, held: &HeldHosts, here: Option<State>) -> String {
        let run = &held.claim.run;
        let back = self.rollback(run);
        let go_on = || held.claim.replaces().map_or_else(|| self.run(), |name| self.replace(name));
        let what = match here {
            None => format!(
                "finish it where it was begun, by the same command, or take it back there, by `lifeboat recover rollback {run}`; if that machine is gone, take it over: `{}`",
                self.adopt(run)
            ),
            Some(State::Unfinished) => format!(
                "it was begun here, and is not finished: `{}` finishes it, `{back}` takes it back",
                go_on()
            ),
            Some(State::RollingBack) => format!("it is being taken back here: `{back}` goes on"),
            Some(State::RolledBack) => format!(
                "it was taken back here while this host could not be reached: `{back}` lets it go"
            ),
            Some(State::Finished | State::Committed) => format!(
                "it has ended here, and was cut off before it let go: `{}` does that first",
                self.run()
            ),
        };
        format!("{}: held by the run {}: {what}", held.hosts.join(", "), held.claim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use recover::Claim;

    fn next() -> Next {
        Next { file: Some("my.yaml".to_owned()), more: " --state-dir /s".to_owned() }
    }

    #[test]
    fn who_finds_a_host_held_is_told_what_can_be_typed() {
        let claim = |told: &str| Claim { run: "r1".to_owned(), told: told.to_owned() };
        let hosts = vec!["m1".to_owned(), "m2".to_owned()];
        let whole = HeldHosts { hosts, claim: claim("of cluster prod, begun T by ops@laptop") };
        let one =
            HeldHosts { claim: claim("of cluster prod, replacing m3, begun T"), ..whole.clone() };
        let back = "`lifeboat recover rollback r1 --state-dir /s`";
        let says = |held: &HeldHosts, here, parts: &[&str]| {
            let told = next().held(held, here);
            assert!(told.starts_with("m1, m2: held by the run r1 of cluster prod, "), "{told}");
            for part in parts {
                assert!(told.contains(part), "{part} not in {told}");
            }
        };
        says(
            &whole,
            None,
            &["where it was begun", "`lifeboat recover adopt my.yaml r1 --state-dir /s`"],
        );
        says(
            &whole,
            Some(State::Unfinished),
            &["`lifeboat recover run my.yaml --state-dir /s`", back],
        );
        says(
            &one,
            Some(State::Unfinished),
            &["`lifeboat recover replace my.yaml m3 --state-dir /s`"],
        );
        for here in [State::RollingBack, State::RolledBack] {
            says(&one, Some(here), &[back]);
            assert!(!next().held(&one, Some(here)).contains("replace my.yaml"));
        }
        says(&whole, Some(State::Finished), &["`lifeboat recover run my.yaml --state-dir /s`"]);
    }
}
