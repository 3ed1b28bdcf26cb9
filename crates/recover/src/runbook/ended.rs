//! What a run or a rollback has come to, for a person.

use super::replace;
use crate::{
    journal::Line,
    plan::Plan,
    run::Back,
    service::Shell,
    shell::quote_path,
    spec::{Resolved, Service},
};
use std::fmt::Write as _;

/// What a rollback has come to, for a person.
pub fn rolled_back(plan: &Plan, lines: &[Line], back: &Back) -> String {
    let serves = serves(plan, back);
    let mut text = match &plan.replace {
        Some(replace) => replace::rolled_back(plan, replace, lines, back) + &serves,
        None => old_data(plan) + &serves,
    };
    for (label, on) in &back.hosts {
        let host = plan.hosts().into_iter().find(|host| host.label == *label);
        if let Some(host) = host.filter(|_| on.has_undone()) {
            let places = plan.places(&host);
            let undone: Vec<_> = places.all().map(|place| quote_path(&place.undone)).collect();
            let _ = writeln!(
                text,
                "{label}: the new data, with what was written to them: {}",
                undone.join(" and ")
            );
        }
    }
    text + &manifests_kept(plan, lines)
}

/// Static pods that are not started, as they have no data, stay without their manifests: kubelet would start what is there.
fn manifests_kept(plan: &Plan, lines: &[Line]) -> String {
    let mut text = String::new();
    let was_stopped = lines.iter().any(|line| line.step.as_deref() == Some("stop-etcd"));
    let hosts = plan.hosts();
    let without_data = |host: &&Resolved| {
        !plan.has_old_data(host) && (plan.replace.is_none() || plan.gets_data(host))
    };
    for host in hosts.iter().filter(without_data).filter(|_| was_stopped) {
        let Service::StaticPod(manifest) = &host.service else { continue };
        let run_dir = plan.frame(host).run_dir();
        let kept = Shell::new(&host.service, &run_dir).kept();
        let _ = writeln!(
            text,
            "{}: without old data, etcd would begin anew and empty, so kubelet has not got its manifest back. The next `lifeboat recover` takes it from {kept}; by hand: mv {kept} {}",
            host.label,
            quote_path(manifest)
        );
    }
    text
}

/// Which old data were put back.
fn old_data(plan: &Plan) -> String {
    let cluster = &plan.spec.cluster;
    let (old, none): (Vec<_>, Vec<_>) =
        plan.hosts().into_iter().partition(|host| plan.has_old_data(host));
    let labels: Vec<_> = none.iter().map(|host| host.label.as_str()).collect();
    let labels = labels.join(", ");
    match (old.is_empty(), none.is_empty()) {
        (false, true) => format!("{cluster}: the old data are back\n"),
        (false, false) => format!(
            "{cluster}: the old data are back; {labels} had none in etcd.data-dir, and etcd is not started there\n"
        ),
        (true, _) => format!(
            "{cluster}: the run is taken back; no host had old data, and etcd is not started\n"
        ),
    }
}

/// Whether the old cluster serves, if it does.
fn serves(plan: &Plan, back: &Back) -> String {
    let serving = back.serving();
    if serving.is_empty() {
        return String::new();
    }
    let answers = back.answers.iter().filter(|(_, answer)| answer.healthy);
    let revision = answers.map(|(_, answer)| answer.revision).max().unwrap_or_default();
    let cluster = &plan.spec.cluster;
    format!(
        "{cluster}: the old cluster serves: {} healthy, revision {revision}\n",
        serving.join(", ")
    )
}

/// What is to be known of an old cluster that does not serve, or not in whole.
pub fn not_serving(plan: &Plan, back: &Back) -> Option<String> {
    let had_data = plan.hosts().iter().any(|host| plan.has_old_data(host));
    if !had_data && plan.replace.is_none() {
        return None;
    }
    let silent: Vec<_> = back.answers.iter().filter(|(_, answer)| !answer.healthy).collect();
    let begin = match (back.serving().is_empty(), silent.is_empty()) {
        (false, true) => return None,
        (false, false) => "not all of its members are healthy",
        (true, _) => {
            "the old cluster does not serve. If it did not before the recovery either, it is as it was then; if it did, see etcd's logs on the hosts"
        }
    };
    let mut text = begin.to_owned();
    if let Some(why) = &back.not_asked {
        text += &format!("\n  it could not be asked: {why}");
    }
    for (label, answer) in silent {
        let why = answer.error.as_deref().unwrap_or("no answer");
        text += &format!("\n  {label}: {why}");
    }
    for (label, on) in back.hosts.iter().filter(|(_, on)| on.etcd != "runs") {
        text += &format!("\n  {label}: etcd does not run, {} data are in place", on.in_place());
    }
    Some(text)
}

/// What stays on hosts after a run, for a person.
pub fn left_on_hosts(plan: &Plan) -> String {
    let mut text = String::new();
    let hosts = plan.hosts();
    let had = |host: &&Resolved| {
        plan.has_old_data(host) && (plan.replace.is_none() || plan.gets_data(host))
    };
    for host in hosts.iter().filter(had) {
        for place in plan.places(host).all() {
            let _ = writeln!(text, "{}: old data: {}", host.label, quote_path(&place.old));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{journal::What, plan::tests::plan};

    #[test]
    fn a_rollback_says_where_the_manifest_of_a_pod_without_data_is() {
        let mut plan = plan();
        plan.spec.etcd.service =
            Some(Service::StaticPod("/etc/kubernetes/manifests/etcd.yaml".into()));
        let data = &mut plan.facts.get_mut("m2").unwrap().data;
        data.as_mut().unwrap().filled = false;
        let line = Line {
            at: plan.made,
            what: What::Begin,
            step: Some("stop-etcd".to_owned()),
            host: None,
            note: None,
        };
        let text = rolled_back(&plan, &[line], &Back::default());
        let kept = "/var/lib/lifeboat/recover/20261122t160000-12ab/m2/manifests/etcd.yaml";
        let by_hand = format!("mv {kept} /etc/kubernetes/manifests/etcd.yaml");
        assert!(text.contains("m2: without old data") && text.contains(&by_hand), "{text}");
        assert!(
            !text.contains("m1: ") && !rolled_back(&plan, &[], &Back::default()).contains(kept)
        );
    }
}
