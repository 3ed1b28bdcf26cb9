//! The plan for people: as a numbered runbook, and as a script that needs no lifeboat.

use crate::{
    build::Built,
    comparison::{comparison, revisions},
    contents::Kinship,
    host::ssh_line,
    plan::Plan,
    spec::Resolved,
    steps::{Kind, OnHost, Step, steps},
};
use jiff::Timestamp;
use std::fmt::Write as _;

mod ended;
mod replace;
mod script;

pub use ended::{left_on_hosts, not_serving, rolled_back};
pub use script::as_shell;

/// The plan as a numbered runbook, with the commands of each step on each host.
pub fn runbook(plan: &Plan, now: Timestamp) -> String {
    if let Some(replace) = &plan.replace {
        return replace::runbook(plan, replace);
    }
    let mut text = summary(plan, now);
    let hosts = plan.hosts();
    text += "\nBefore anything is stopped\n";
    let mut number = 0;
    let mut heading = |text: &mut String, title: &str| {
        number += 1;
        let _ = writeln!(text, "\n{number}. {title}");
    };
    heading(
        &mut text,
        &format!(
            "Reach every host and look at it: {}, space, etcd's version, clocks, certificates",
            who_works(plan, &hosts)
        ),
    );
    for host in &hosts {
        let _ = writeln!(text, "   {}: {} true", host.label, ssh_line(host));
    }
    let build = match plan.rescue {
        None => {
            "Fetch the backup, prove it, and build the data of all members from it, here and in full"
        }
        Some(_) => {
            "Prove the snapshot, and build the data of all members from it, here and in full"
        }
    };
    if plan.rescue.is_none() {
        heading(&mut text, build);
    }
    let mut stopping = false;
    for step in steps(plan) {
        if plan.rescue.is_some() && step.id == "send" {
            heading(&mut text, build);
        }
        if step.id.starts_with("stop-") && !stopping {
            stopping = true;
            text += "\nFrom here on the cluster is down\n";
        }
        heading(&mut text, &step.title);
        commands(&mut text, plan, &hosts, &step);
    }
    let _ = writeln!(
        text,
        "\nTo take it back, at any time until `lifeboat recover commit {run}`: lifeboat recover rollback {run}\n\
         $RUN is the run's folder on the host: {state}/recover/{run}/MEMBER",
        run = plan.run,
        state = hosts.first().map(|host| host.state_dir.display().to_string()).unwrap_or_default(),
    );
    text
}

/// As whom commands run.
fn who_works(plan: &Plan, hosts: &[Resolved]) -> String {
    let is_plain = |host: &&Resolved| host.ssh.sudo == Some(false) && !plan.facts(host).root;
    let plain: Vec<_> = hosts.iter().filter(is_plain).map(|host| host.label.as_str()).collect();
    match plain.len() {
        0 => "commands as root".to_owned(),
        all if all == hosts.len() => "commands as the user of ssh, without sudo".to_owned(),
        _ => format!(
            "commands as root, but on {} as the user of ssh, without sudo",
            plain.join(", ")
        ),
    }
}

/// What is done, from what, and what is lost.
pub fn summary(plan: &Plan, now: Timestamp) -> String {
    if let Some(replace) = &plan.replace {
        return replace::summary(plan, replace);
    }
    let backup = &plan.backup;
    let mut text = format!("Recovery of cluster {}, run {}\n\n", plan.spec.cluster, plan.run);
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "  {key:<9} {value}");
    };
    let name = backup.name.as_ref().map(|name| format!("{name} in ")).unwrap_or_default();
    line("from", format!("{name}{}", backup.from));
    match (backup.taken, backup.dated) {
        (Some(taken), _) => {
            let key = if plan.rescue.is_some() { "written" } else { "begun" };
            line(key, format!("{taken:.0}, {} ago", span(taken, now)));
        }
        (None, Some(dated)) => line(
            "dated",
            format!(
                "{dated:.0}, its file: a copy has a date of its own, and what is in it may be older"
            ),
        ),
        (None, None) => {}
    }
    line("lost", lost(plan, now));
    if plan.hosts().iter().any(|host| plan.has_old_data(host)) {
        line("kept", "the old data, on their hosts, beside the new".to_owned());
    }
    match (backup.revision, plan.bump.margin) {
        (Some(revision), 0) => line(
            "revision",
            format!("{revision}; it goes back for clients that have seen later ones"),
        ),
        (Some(revision), _) => {
            let by = plan.bump.amount(revision);
            let to = revision.unsigned_abs().saturating_add(by);
            line(
                "revision",
                format!(
                    "{revision}, raised by {by} to {to}, {}; what was before is marked compacted",
                    above(plan)
                ),
            );
        }
        (None, 0) => line(
            "revision",
            "that of the backup; it goes back for clients that have seen later ones".to_owned(),
        ),
        (None, margin) => line(
            "revision",
            format!(
                "raised by {margin} or more, {}; what was before is marked compacted",
                above(plan)
            ),
        ),
    }
    if let Some(pull) = &plan.pull {
        let told = match (pull.variables.as_slice(), &pull.env_file) {
            ([], None) => "by its own role, as no credentials are set here".to_owned(),
            ([], Some(file)) => format!("with what its {} sets", file.display()),
            (names, _) => {
                format!("which is told {} as set here, and keeps them nowhere", names.join(", "))
            }
        };
        line("fetched", format!("from {} by each host, {told}", pull.repo));
    }
    line("members", plan.initial_cluster());
    if let Some(version) = plan.target_version() {
        line("for etcd", version);
    }
    let not_compared = plan.not_compared();
    if !not_compared.is_empty() {
        line(
            "",
            format!(
                "not compared: which etcd {} run is not known, as only a member that answers tells it, to `run` and `plan --ask`",
                not_compared.join(", ")
            ),
        );
    }
    line("token", plan.token.clone());
    for host in plan.hosts() {
        let places = plan.places(&host);
        let what = match host.member {
            Some(_) => format!(
                "on {}, {} in {}; {}",
                host.host,
                host.service.name(),
                host.data_dir.display(),
                match (plan.has_old_data(&host), plan.other_holder(&host)) {
                    (true, _) => format!("old data: {}", places.data.old.display()),
                    (false, Some((run, old))) => format!(
                        "run {run} holds the host, and may have set the old data aside: {}",
                        old.display()
                    ),
                    (false, None) => "there are no old data".to_owned(),
                }
            ),
            None => format!("{} is stopped on {}, and stays so", host.service.name(), host.host),
        };
        line(&host.label, what);
    }
    text += &comparison(plan, now);
    text
}

/// How far the revision is raised. A recovery has raised it before by as much: without an answer, nobody knows whether it is enough.
fn above(plan: &Plan) -> &'static str {
    match plan.bump.last_seen {
        Some(_) => "above all that clients can have seen",
        None => {
            "but how far clients have seen is not known, as no member has told it (`run` and `plan --ask` ask them)"
        }
    }
}

/// What comes back no more.
fn lost(plan: &Plan, now: Timestamp) -> String {
    let (backup, bump) = (&plan.backup, &plan.bump);
    let seen = match (backup.revision, bump.last_seen, &bump.seen_at) {
        (Some(revision), Some(seen), Some(at)) if seen > revision => {
            let was_seen = format!("{at} was seen at revision {seen}");
            match backup.contents().kinship(&bump.contents()) {
                Kinship::Recovered => format!(
                    "; {was_seen}, but the cluster was recovered since the backup, which raised its revisions: the difference does not tell how much is lost"
                ),
                Kinship::Strangers => format!(
                    "; {was_seen}, but has no member in common with the backup: it is of another cluster, or this one was made anew since, and how much is lost is not known"
                ),
                Kinship::Same | Kinship::Unknown => {
                    format!(
                        ": {}, up to {seen}, which {at} was seen at",
                        revisions(seen - revision)
                    )
                }
            }
        }
        _ => String::new(),
    };
    match (&plan.rescue, backup.taken) {
        (Some(rescue), _) => {
            format!("what only other members had, and {} had not yet{seen}", rescue.member)
        }
        (None, Some(taken)) => {
            format!("all writes since the backup, which was begun {} ago{seen}", span(taken, now))
        }
        (None, None) => format!("all writes since the backup{seen}"),
    }
}

/// What was built, in a line.
pub fn built_line(built: &Built) -> String {
    format!("built for etcd {}: revision {}, {} bytes", built.target, built.revision, built.bytes)
}

pub(crate) fn span(then: Timestamp, now: Timestamp) -> String {
    let seconds = (now.as_second() - then.as_second()).max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// The commands of a step; hosts with the same ones together.
fn commands(text: &mut String, plan: &Plan, hosts: &[Resolved], step: &Step) {
    let mut groups: Vec<(Vec<&str>, String)> = Vec::new();
    for part in &step.hosts {
        let host = &hosts[part.host];
        let shown = shown(plan, step, part).replace(&plan.frame(host).run_dir(), "$RUN");
        match groups.iter_mut().find(|(_, known)| *known == shown) {
            Some((labels, _)) => labels.push(&host.label),
            None => groups.push((vec![&host.label], shown)),
        }
    }
    for (labels, shown) in groups {
        let _ = writeln!(text, "   on {}:", labels.join(", "));
        for line in shown.lines() {
            let _ = writeln!(text, "     {line}");
        }
    }
}

/// What is shown of a step: what is run, or what a person does in place of what needs lifeboat.
fn shown(plan: &Plan, step: &Step, part: &OnHost) -> String {
    match (step.kind, &part.by_hand) {
        (Kind::Fetch, _) => {
            format!("# lifeboat fetches it, and compares its SHA-256; then:\n{}", part.run)
        }
        (Kind::Script, _) | (_, None) => part.run.clone(),
        (Kind::Send, Some(by_hand)) if plan.replace.is_some() => by_hand.clone(),
        (Kind::Send, Some(by_hand)) => {
            format!(
                "# lifeboat sends what it has built; by hand, after copying the snapshot to $RUN/snapshot.db:\n{by_hand}"
            )
        }
        (Kind::Member(_), Some(by_hand)) => {
            format!("# lifeboat asks the cluster for it; by hand:\n{by_hand}")
        }
        (Kind::Verify, Some(by_hand)) => {
            format!(
                "# lifeboat compares members, HashKV and alarms, and writes, reads and removes a key; by hand:\n{by_hand}"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::plan;

    fn now() -> Timestamp {
        "2026-11-22T16:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_runbook_says_what_is_lost_and_shows_every_command() {
        let text = runbook(&plan(), now());
        for part in [
            "from      00000000000000000100-20261122T150000Z in s3://backups/etcd",
            "begun     2026-11-22T15:00:00Z, 60 min ago",
            "lost      all writes since the backup, which was begun 60 min ago: 50 revisions, up to 150, which m1 was seen at",
            "revision  100, raised by 1050 to 1150",
            "m2: ssh -p 2222 admin@10.0.0.2 true",
            "From here on the cluster is down\n\n5. Stop what uses etcd\n   on m1, m2:\n",
            "systemctl stop etcd.service",
            "mv '/var/lib/my etcd' '/var/lib/my etcd.lifeboat-20261122t160000-12ab'",
            "     if [ -e '/var/lib/my etcd/member' ] &&",
            "Restart kubelet",
            "chown -R etcd:etcd",
        ] {
            assert!(text.contains(part), "{part}\nnot in\n{text}");
        }
    }

    #[test]
    fn the_runbook_says_as_whom_commands_run() {
        let mut plan = plan();
        let first = |plan: &Plan| {
            let text = runbook(plan, now());
            text.lines().find(|line| line.starts_with("1. ")).unwrap().to_owned()
        };
        assert!(first(&plan).contains(": commands as root, space"), "{}", first(&plan));
        plan.spec.hosts[2].ssh.sudo = Some(false);
        assert!(first(&plan).contains(": commands as root, space"), "{}", first(&plan));
        plan.facts.get_mut("m3").unwrap().root = false;
        assert!(
            first(&plan).contains("on m3 as the user of ssh, without sudo"),
            "{}",
            first(&plan)
        );
        plan.spec.ssh.sudo = Some(false);
        plan.facts.values_mut().for_each(|facts| facts.root = false);
        assert!(
            first(&plan).contains(": commands as the user of ssh, without sudo,"),
            "{}",
            first(&plan)
        );
    }

    #[test]
    fn the_script_is_one_that_sh_can_read() {
        let script = as_shell(&plan(), now());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recover.sh");
        std::fs::write(&path, &script).unwrap();
        let output = std::process::Command::new("sh").arg("-n").arg(&path).output().unwrap();
        assert!(output.status.success(), "{}\n{script}", String::from_utf8_lossy(&output.stderr));
        for part in [
            "ssh -p 2222 admin@10.0.0.2 'exec sh -c",
            "--bump-revision 1050 --mark-compacted",
            "etcdctl --endpoints",
        ] {
            assert!(script.contains(part), "{part}\nnot in\n{script}");
        }
    }
}
