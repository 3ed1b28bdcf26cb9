//! A run taken over by another machine, as the one that began it is gone: its plan and what was done lie on the hosts.
//!
//! ```text
//!   recover/RUN/MEMBER/plan.yaml ─▶ Plan ─────────┐
//!   recover/RUN/MEMBER/journal   ─▶ lines, merged ┴─▶ a folder of this machine, as if the run had been begun here
//! ```
//!
//! Nothing is decided anew: the run goes on, or is taken back, by the same steps and the same checks as where it was begun. So old data
//! are found where that run has set them aside, whichever half of a rename it was cut in.

use crate::{
    claim,
    journal::{JournalError, Line, What},
    plan::Plan,
    run::{Fleet, RunError, gather},
    shell::{Frame, quote, quote_path},
    steps::{Kind, Step, steps},
};
use std::path::PathBuf;

/// What the hosts tell of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What was begun and done, the oldest first.
    pub lines: Vec<Line>,
    /// It has finished on every host that answered, and holds none of them.
    pub has_finished: bool,
}

impl Fleet {
    /// The plan of a run, from the first host that keeps it whole.
    pub async fn kept_plan(&self, run: &str) -> Result<Option<Plan>, RunError> {
        let parts = self.present().map(|(host, remote)| {
            let frame = Frame { run, label: &host.label, state_dir: &host.state_dir, claim: None };
            let text = frame.look(&format!(
                "for plan in {}/{}/*/plan.yaml; do\n\
                 if [ -e \"$plan\" ]; then cat \"$plan\"; break; fi\n\
                 done",
                quote_path(&host.state_dir.join("recover")),
                quote(run)
            ));
            let remote = remote.clone();
            async move { remote.script(&text).await }
        });
        let mut failed = None;
        for text in gather("look for the run's plan", parts.collect()).await? {
            match Plan::parse(&text) {
                Ok(plan) if plan.run == run => return Ok(Some(plan)),
                Err(source) if !text.is_empty() => {
                    let path = PathBuf::from(format!("{run}/plan.yaml on a host"));
                    failed = Some(JournalError::Plan { path, source });
                }
                _ => {}
            }
        }
        failed.map_or(Ok(None), |failed| Err(failed.into()))
    }

    /// What the hosts of a run's plan tell of it.
    pub async fn told_of(&self, plan: &Plan) -> Result<Told, RunError> {
        let parts = self.present().map(|(host, remote)| {
            let frame = plan.frame(host);
            let run_dir = frame.run_dir();
            let text = frame.look(&format!(
                "if {}; then echo held; fi\n\
                 if [ \"$(sed -n 1p {run_dir}/ended 2>/dev/null)\" = finished ]; then echo finished; fi\n\
                 cat {run_dir}/journal 2>/dev/null || true",
                claim::is_ours(plan, &frame.lock())
            ));
            let remote = remote.clone();
            async move { Ok((remote.label().to_owned(), remote.script(&text).await?)) }
        });
        let answers = gather("ask what was done", parts.collect()).await?;
        let (mut lines, mut has_finished) = (Vec::new(), true);
        for (label, answer) in &answers {
            let says = |what: &str| answer.lines().any(|line| line == what);
            has_finished &= says("finished") && !says("held");
            lines.extend(answer.lines().filter_map(|line| read(label, line)));
        }
        lines.sort_by_key(|line| line.at);
        add_changes(plan, &mut lines);
        if !has_finished {
            add_unknown(plan, |number| self.is_absent(number), &mut lines);
        }
        Ok(Told { lines, has_finished })
    }
}

/// A line of a host's journal: `TIME WORD STEP`.
fn read(label: &str, line: &str) -> Option<Line> {
    let (at, rest) = line.split_once(' ')?;
    let (word, step) = rest.split_once(' ')?;
    let (what, step) = match (word, step.strip_prefix("undo-")) {
        ("begin", Some(step)) => (What::Undo, step),
        (_, Some(_)) => return None,
        // What was found done was begun by this run, or may have been.
        ("begin" | "already", None) => (What::Begin, step),
        ("done", None) => (What::Done, step),
        ("failed", None) => (What::Failed, step),
        _ => return None,
    };
    let (step, host) = (Some(step.to_owned()), Some(label.to_owned()));
    Some(Line { at: at.parse().ok()?, what, step, host, note: None })
}

/// What the cluster was asked to do stands in no host's journal: it may have been, once the step before was begun.
fn add_changes(plan: &Plan, lines: &mut Vec<Line>) {
    let steps = steps(plan);
    for (number, step) in steps.iter().enumerate() {
        let before = steps[..number].iter().rev().find(|step| step.kind == Kind::Script);
        let (Kind::Member(_), Some(before)) = (step.kind, before) else { continue };
        let begun = lines.iter().find(|line| {
            line.what == What::Begin && line.step.as_deref() == Some(before.id.as_str())
        });
        if let Some(begun) = begun.cloned() {
            lines.push(Line { step: Some(step.id.clone()), host: None, ..begun });
        }
    }
}

/// What a host that did not answer may have begun, counts as begun: no step is begun before all hosts have done the one before, so that is
/// whatever comes before the next step of a host that did answer, and that one.
fn add_unknown(plan: &Plan, is_absent: impl Fn(usize) -> bool, lines: &mut Vec<Line>) {
    let hosts = plan.hosts();
    let absent: Vec<_> =
        hosts.iter().enumerate().filter(|(number, _)| is_absent(*number)).collect();
    if absent.is_empty() {
        return;
    }
    let names: Vec<_> = absent.iter().map(|(_, host)| host.label.as_str()).collect();
    let note = format!("it may have been, on {}: no answer", names.join(", "));
    let steps = steps(plan);
    let begun = |step: &Step| {
        let begun = |line: &Line| line.what == What::Begin && line.step.as_ref() == Some(&step.id);
        lines.iter().any(begun)
    };
    let next = steps.iter().rposition(begun).map_or(0, |number| number + 1);
    let at = lines.last().map_or(plan.made, |line| line.at);
    for step in &steps[next..] {
        let (what, id) = (What::Begin, Some(step.id.clone()));
        lines.push(Line { at, what, step: id, host: None, note: Some(note.clone()) });
        let would_be_told = matches!(step.kind, Kind::Script | Kind::Send | Kind::Fetch);
        if would_be_told && step.hosts.iter().any(|part| !is_absent(part.host)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::tests::plan, replace::Replace};

    #[test]
    fn a_hosts_journal_tells_what_was_begun_done_and_taken_back() {
        let what = |line: &str| {
            let line = read("m1", line)?;
            Some((line.what, line.step.unwrap(), line.host.unwrap()))
        };
        let at = "2026-11-22T16:00:00Z";
        for (text, told) in [
            ("begin stop-etcd", Some((What::Begin, "stop-etcd"))),
            ("already lock", Some((What::Begin, "lock"))),
            ("done swap-in", Some((What::Done, "swap-in"))),
            ("begin undo-swap-in", Some((What::Undo, "swap-in"))),
            ("done undo-swap-in", None),
            ("cut", None),
        ] {
            let told = told.map(|(what, step)| (what, step.to_owned(), "m1".to_owned()));
            assert_eq!(what(&format!("{at} {text}")), told, "{text}");
        }
        assert_eq!(what("held"), None);
    }

    #[test]
    fn a_member_may_have_been_removed_once_its_etcd_was_stopped() {
        let (member, old) = ("m2".to_owned(), Some(7));
        let through = vec!["m1".to_owned()];
        let plan = crate::Plan {
            replace: Some(Replace { member, old, through, ..Replace::default() }),
            ..plan()
        };
        let ids = |lines: &[Line]| -> Vec<String> {
            lines.iter().filter_map(|line| line.step.clone()).collect()
        };
        let mut lines: Vec<_> = read("m2", "2026-11-22T16:00:00Z begin lock").into_iter().collect();
        add_changes(&plan, &mut lines);
        assert_eq!(ids(&lines), ["lock"]);
        lines.extend(read("m2", "2026-11-22T16:00:01Z begin stop-etcd"));
        add_changes(&plan, &mut lines);
        assert_eq!(ids(&lines), ["lock", "stop-etcd", "remove-member", "add-member"]);
    }

    /// Goal: a rollback undoes what a host may have begun that did not answer, and no more than that.
    #[test]
    fn what_a_host_may_have_begun_that_did_not_answer_counts_as_begun() {
        let begun = |plan: &Plan, absent: usize, text: &[&str]| -> Vec<String> {
            let line = |step: &&str| read("m1", &format!("2026-11-22T16:00:00Z begin {step}"));
            let mut lines: Vec<_> = text.iter().filter_map(line).collect();
            add_unknown(plan, |number| number == absent, &mut lines);
            lines.split_off(text.len()).into_iter().filter_map(|line| line.step).collect()
        };
        assert_eq!(begun(&plan(), 9, &["lock"]), [""; 0], "all have answered");
        assert_eq!(begun(&plan(), 2, &["lock"]), ["send"]);
        assert_eq!(
            begun(&plan(), 2, &["lock", "send", "stop-clients", "stop-etcd"]),
            ["set-aside"]
        );
        // What only that host does may all have been done.
        let (member, old) = ("m2".to_owned(), Some(7));
        let through = vec!["m1".to_owned()];
        let replace = Some(Replace { member, old, through, ..Replace::default() });
        let of_one = begun(&Plan { replace, ..plan() }, 1, &["lock"]);
        assert_eq!(of_one[..2], ["stop-etcd", "remove-member"]);
        assert!(of_one.contains(&"verify".to_owned()), "{of_one:?}");
    }
}
