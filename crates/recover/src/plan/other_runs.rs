//! Other runs on the hosts of a plan: those that hold hosts, and those whose data are in place.

use super::{Findings, Plan};
use crate::claim::{Claim, Ended, Placed};

/// Hosts that another run holds: nothing can be done with them before it has let them go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldHosts {
    /// The hosts.
    pub hosts: Vec<String>,
    /// The run, and who began it.
    pub claim: Claim,
}

/// Finds runs that hold hosts, and of those whose data will be replaced though they could still be taken back.
pub(super) fn other_runs(plan: &Plan, findings: &mut Findings) {
    let hosts = plan.hosts();
    let mut held: Vec<(&Claim, Vec<&str>)> = Vec::new();
    let mut placed: Vec<(&Placed, Vec<&str>, Vec<String>)> = Vec::new();
    for host in &hosts {
        let (facts, label) = (plan.facts(host), host.label.as_str());
        let lock = facts.lock.as_ref().filter(|lock| lock.run != plan.run);
        if let Some(lock) = lock {
            match held.iter_mut().find(|(known, _)| *known == lock) {
                Some((_, labels)) => labels.push(label),
                None => held.push((lock, vec![label])),
            }
        }
        let is_replaced = plan.replace.is_none() || plan.gets_data(host);
        let Some(other) = facts.placed.as_ref().filter(|other| {
            let run = &other.claim.run;
            let is_held = lock.is_some_and(|lock| lock.run == *run);
            is_replaced && !is_held && *run != plan.run && other.ended != Ended::Committed
        }) else {
            continue;
        };
        let old = other.old.as_ref().map(|old| format!("{label}: {old}"));
        // What is told may differ in the second at which the host was let go.
        let same =
            |known: &Placed| known.claim.run == other.claim.run && known.ended == other.ended;
        match placed.iter_mut().find(|(known, ..)| same(known)) {
            Some((_, labels, olds)) => {
                labels.push(label);
                olds.extend(old);
            }
            None => placed.push((other, vec![label], old.into_iter().collect())),
        }
    }
    findings.held = held
        .into_iter()
        .map(|(claim, labels)| HeldHosts {
            hosts: labels.into_iter().map(str::to_owned).collect(),
            claim: claim.clone(),
        })
        .collect();
    for (other, labels, olds) in placed {
        let how = match other.ended {
            Ended::Finished => "was never committed or taken back",
            _ => "is not known to have ended",
        };
        let kept = match olds.is_empty() {
            true => "its old data are gone".to_owned(),
            false => format!("its old data stay where they are ({})", olds.join(", ")),
        };
        findings.warnings.push(format!(
            "{}: the data in place are those of run {}, which {how}; {kept}. Once this run has replaced them, that one can no longer be rolled back or committed, unless this one is rolled back first",
            labels.join(", "),
            other.claim,
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::tests::plan, replace::Replace};

    #[test]
    fn a_run_that_can_still_be_taken_back_is_told_of_once_before_its_data_are_replaced() {
        let mut plan = plan();
        let finished = |old: &str| Placed {
            old: Some(old.to_owned()),
            ..Placed::parse("r0 finished of cluster prod, begun T by ops@laptop; finished T")
        };
        plan.facts.get_mut("m1").unwrap().placed = Some(finished("/old/1"));
        plan.facts.get_mut("m2").unwrap().placed = Some(finished("/old/2"));
        plan.facts.get_mut("m3").unwrap().placed = Some(Placed::parse("r0 committed x"));
        let warnings = plan.findings("x86_64").warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        for part in [
            "m1, m2: the data in place are those of run r0 of cluster prod, begun T by ops@laptop; finished T, which was never committed",
            "(m1: /old/1, m2: /old/2)",
            "can no longer be rolled back",
        ] {
            assert!(warnings[0].contains(part), "{part} not in {}", warnings[0]);
        }
        // A replacement touches one host only.
        let member = "m3".to_owned();
        plan.replace = Some(Replace { member, ..Replace::default() });
        assert_eq!(plan.findings("x86_64").warnings, Vec::<String>::new());
    }
}
