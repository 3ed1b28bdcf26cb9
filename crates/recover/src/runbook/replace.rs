//! The plan to replace one member, for people.

use super::commands;
use crate::{host::ssh_line, plan::Plan, replace::Replace, steps::steps};
use std::fmt::Write as _;

pub(super) fn summary(plan: &Plan, replace: &Replace) -> String {
    let name = &replace.member;
    let mut text =
        format!("Replacement of {name} in cluster {}, run {}\n\n", plan.spec.cluster, plan.run);
    let hosts = plan.hosts();
    line(
        &mut text,
        "lost",
        match replace.old {
            Some(id) => {
                format!("the member {name}, {id:x}: it is removed from the cluster, for good")
            }
            None => format!("a member {name} is not in the cluster any more"),
        },
    );
    let others: Vec<_> = replace.others.keys().map(String::as_str).collect();
    line(&mut text, "lives on", format!("{}, etcd {}", others.join(", "), replace.version));
    for host in hosts.iter().filter(|host| host.label == *name) {
        let urls = host.member.as_ref().map(|member| member.peer_urls.join(", "));
        let what = format!("a new member on {}, {}", host.host, urls.unwrap_or_default());
        line(&mut text, "new", what);
        let from =
            "it gets its data from the other members; no backup is needed, and no write is lost";
        line(&mut text, "data", from.to_owned());
        let kept = match plan.facts(host).data.as_ref().is_some_and(|data| data.exists) {
            true => format!("the old directory, as {}", plan.places(host).data.old.display()),
            false => "there is no old directory".to_owned(),
        };
        line(&mut text, "kept", kept);
    }
    text
}

pub(super) fn runbook(plan: &Plan, replace: &Replace) -> String {
    let mut text = summary(plan, replace);
    let hosts = plan.hosts();
    text += "\nBefore anything is changed\n\n1. Reach every host and look at it; ask every member: the others must be healthy, and enough without the lost one\n";
    for host in &hosts {
        let _ = writeln!(text, "   {}: {} true", host.label, ssh_line(host));
    }
    text += "\nFrom here on; the cluster is served throughout by the others\n";
    for (step, number) in steps(plan).iter().zip(2..) {
        let _ = writeln!(text, "\n{number}. {}", step.title);
        commands(&mut text, plan, &hosts, step);
    }
    let _ = writeln!(
        text,
        "\nTo take it back, at any time until `lifeboat recover commit {run}`: lifeboat recover rollback {run}\n\
         Before step `Remove` that leaves all as it was. After it, the lost member cannot come back, as no removed member can: \
         the new one is removed again, the old directory is put back, and the cluster goes on with {others} members.\n\
         $RUN is the run's folder on the host: {state}/recover/{run}/MEMBER",
        run = plan.run,
        others = replace.others.len(),
        state = hosts.first().map(|host| host.state_dir.display().to_string()).unwrap_or_default(),
    );
    text
}

fn line(text: &mut String, key: &str, value: String) {
    let _ = writeln!(text, "  {key:<9} {value}");
}
