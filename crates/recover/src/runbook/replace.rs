//! The plan to replace one member, for people.

use super::commands;
use crate::{
    host::ssh_line,
    journal::{Line, What},
    plan::Plan,
    replace::{LEFT_ALONE, Replace},
    run::Back,
    steps::steps,
};
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

pub(super) fn rolled_back(plan: &Plan, replace: &Replace, lines: &[Line], back: &Back) -> String {
    let cluster = &plan.spec.cluster;
    let had_data = plan.hosts().iter().any(|host| plan.gets_data(host) && plan.has_old_data(host));
    let (member, others) = (&replace.member, replace.others.len());
    let was = |what: What, step: &str| {
        lines.iter().any(|line| line.what == what && line.step.as_deref() == Some(step))
    };
    let left_alone = was(What::Failed, LEFT_ALONE);
    let data = match left_alone || !had_data {
        true => "",
        false => ", and the old directory put back in its place",
    };
    let mut text = if was(What::Done, "remove-member") || replace.old.is_none() {
        format!(
            "{cluster}: the new member was removed again{data}. The lost member stays removed: the cluster goes on with {others} members\n"
        )
    } else if was(What::Begin, "remove-member") {
        let found = back.answers.iter().find(|(_, answer)| answer.healthy);
        match found
            .map(|(_, answer)| answer.members.iter().any(|(id, ..)| Some(*id) == replace.old))
        {
            Some(true) => {
                format!("{cluster}: the lost {member} was not removed, and is still a member\n")
            }
            Some(false) => format!(
                "{cluster}: the lost {member} is a member no more: the cluster goes on with {others} members\n"
            ),
            None => format!(
                "{cluster}: {member} may have been removed from the cluster, which does not answer now: see `etcdctl member list`\n"
            ),
        }
    } else {
        format!("{cluster}: all is as it was; {member} is still a member\n")
    };
    if left_alone {
        text += &format!(
            "{member}: its host could not be reached, and is as it was left. Before it is used again: lifeboat recover rollback\n"
        );
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
    text += "\nFrom here on the cluster is changed; the others serve it throughout\n";
    for (step, number) in steps(plan).iter().zip(2..) {
        let _ = writeln!(text, "\n{number}. {}", step.title);
        commands(&mut text, plan, &hosts, step);
    }
    let _ = writeln!(
        text,
        "\nTo take it back, at any time until `lifeboat recover commit {run}`: lifeboat recover rollback {run}\n\
         As long as the lost member was not removed, that leaves all as it was. After that, the lost member cannot come back, as no removed member can: \
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

#[cfg(test)]
mod tests {
    use crate::{plan::tests::plan, replace::Replace, runbook, steps};
    use std::process::Command;

    fn replacing() -> crate::Plan {
        let replace = Replace {
            member: "m2".to_owned(),
            old: Some(0xab),
            others: [("m1".to_owned(), 1), ("m3".to_owned(), 3)].into(),
            cluster_id: 99,
            version: "3.5.16".to_owned(),
            learner: true,
            through: vec!["m1".to_owned(), "m3".to_owned()],
            ..Replace::default()
        };
        crate::Plan { replace: Some(replace), ..plan() }
    }

    #[test]
    fn the_runbook_shows_every_command_and_what_cannot_be_taken_back() {
        let text = runbook(&replacing(), "2026-11-22T16:00:00Z".parse().unwrap());
        for part in [
            "lost      the member m2, ab: it is removed from the cluster, for good",
            "lives on  m1, m3, etcd 3.5.16",
            "kept      the old directory, as /var/lib/my etcd.lifeboat-20261122t160000-12ab",
            "3. Stop what is left of etcd on m2\n   on m2:\n",
            "4. Remove the lost m2 from the cluster\n   on m1:\n",
            "member remove ab",
            "member add m2 --learner --peer-urls=http://10.0.0.2:2380",
            "mv '/var/lib/my etcd' '/var/lib/my etcd.lifeboat-20261122t160000-12ab'",
            "TimeoutStartSec=infinity",
            "the cluster goes on with 2 members",
        ] {
            assert!(text.contains(part), "{part}\nnot in\n{text}");
        }
        assert!(!text.contains("Restart kubelet"), "{text}");
    }

    #[test]
    fn every_script_is_one_that_sh_can_read_and_only_the_lost_host_is_changed() {
        let plan = replacing();
        let hosts = plan.hosts();
        for step in steps(&plan) {
            for part in &step.hosts {
                let host = &hosts[part.host];
                assert!(host.label == "m2" || part.run.is_empty() || step.id == "lock", "{step:?}");
                for text in
                    [plan.frame(host).step(&step.id, &part.check, &part.run), part.undo.clone()]
                {
                    let output = Command::new("sh").arg("-nc").arg(&text).output().unwrap();
                    assert!(output.status.success(), "{output:?}\n{text}");
                }
            }
        }
    }
}
