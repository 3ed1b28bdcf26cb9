//! The plan as a script that needs no lifeboat.

use super::summary;
use crate::{
    claim::{self, Ended},
    host::{elevated, ssh_line},
    plan::Plan,
    shell::quote,
    spec::Resolved,
    steps::{Kind, OnHost, Step, steps},
};
use jiff::Timestamp;
use std::fmt::Write as _;

/// The plan as a script for `sh` that is run with a snapshot file and needs nothing but ssh, and etcd's own tool on the hosts. It may
/// be run again after a stop, as the plan itself.
pub fn as_shell(plan: &Plan, now: Timestamp) -> String {
    let mut plan = plan.clone();
    // Whoever runs it is no process of ours.
    plan.by.iter_mut().for_each(|by| by.pid = None);
    let plan = &plan;
    let mut text = "#!/bin/sh\n".to_owned();
    for line in summary(plan, now).lines() {
        text += format!("# {line}").trim_end();
        text.push('\n');
    }
    text += "#\n# Usage: sh THIS-FILE SNAPSHOT.db      after a stop, run it again: what is done is found done\n\
             set -eu\n\
             snapshot=${1:?which snapshot file?}\n\
             [ -r \"$snapshot\" ] || { echo \"$snapshot cannot be read\" >&2; exit 1; }\n\
             step() { printf '\\n== %s\\n' \"$1\"; pids=; }\n\
             finish() {\n\
             for pid in $pids; do wait \"$pid\" || { echo 'a host failed; nothing further was done' >&2; exit 1; }; done\n\
             }\n";
    let hosts = plan.hosts();
    for step in steps(plan) {
        let _ = writeln!(text, "\nstep {}", quote(&step.title));
        if step.kind == Kind::Send {
            each(&mut text, plan, &hosts, &step, copy_snapshot);
        }
        each(&mut text, plan, &hosts, &step, script);
    }
    let first = &steps(plan)[0];
    let _ = writeln!(text, "\nstep {}", quote("Let the hosts go"));
    each(&mut text, plan, &hosts, first, |plan, host, _, _| {
        let end = claim::end(plan, host, Ended::Finished);
        on(host, &format!("set -eu\nmain() {{\n{end}\n}}\nmain </dev/null\n"))
    });
    text += "\necho 'the cluster is back'\n";
    text
}

/// One command for each host of a step, all at the same time.
fn each(
    text: &mut String,
    plan: &Plan,
    hosts: &[Resolved],
    step: &Step,
    command: impl Fn(&Plan, &Resolved, &Step, &OnHost) -> String,
) {
    *text += "pids=\n";
    for part in &step.hosts {
        *text += &command(plan, &hosts[part.host], step, part);
        *text += "pids=\"$pids $!\"\n";
    }
    *text += "finish\n";
}

fn copy_snapshot(plan: &Plan, host: &Resolved, _: &Step, _: &OnHost) -> String {
    let run_dir = plan.frame(host).run_dir();
    let sudo = host.ssh.sudo.unwrap_or(true);
    let inner = quote(&format!("umask 077; mkdir -p {run_dir} && cat >{run_dir}/snapshot.db"));
    let line =
        elevated(&format!("exec sh -c {inner}"), &format!("exec sudo -n sh -c {inner}"), sudo);
    format!("{} {} <\"$snapshot\" &\n", ssh_line(host), quote(&line))
}

fn script(plan: &Plan, host: &Resolved, step: &Step, part: &OnHost) -> String {
    let frame = plan.frame(host);
    let by_hand = part.by_hand.as_deref().unwrap_or(&part.run);
    let text = match step.kind {
        Kind::Verify | Kind::Member(_) => {
            format!("set -eu\nmain() {{\n{by_hand}\n}}\nmain </dev/null\n")
        }
        Kind::Script | Kind::Send | Kind::Fetch => frame.step(&step.id, &part.check, by_hand),
    };
    on(host, &text)
}

fn on(host: &Resolved, script: &str) -> String {
    let line = elevated("exec sh -s", "exec sudo -n sh -s", host.ssh.sudo.unwrap_or(true));
    format!("{} {} <<'LIFEBOAT' &\n{script}LIFEBOAT\n", ssh_line(host), quote(&line))
}
