//! Hosts that are lost in a step.

use std::os::unix::process::CommandExt;
use std::process::Command;

use testbed::{Etcd, Run};

use crate::{Gate, Scene, Watched, is_step, tls};

/// Goal: a host whose power is cut, in whichever step, costs nothing but time. Method: one run, and whenever a step
/// begins, another host loses its power and boots again.
#[test]
fn in_every_step_a_host_loses_its_power_and_the_run_goes_on() {
    let scene = Scene::new(tls(Etcd::V3_5));
    scene.lose_all_members();
    // The step that was last cut off; one that is gone through again is not.
    let (mut reached, mut all) = (0, 0);
    for _ in 0..20 {
        let mut run = Watched::start(&mut scene.recover("run", ["--patience", "300s"]));
        while let Some(step) = run.wait_for(|line| number_of(line).0 > reached) {
            (reached, all) = number_of(&step);
            let host = &scene.hosts[reached % 3];
            host.cut_power();
            host.power_on();
        }
        // A question to etcd, unlike a step on a host, is not asked again by itself.
        let ended = run.end();
        if ended.code == Some(0) {
            break;
        }
        assert!(matches!(ended.code, Some(1 | 4)), "{ended}");
    }
    assert!(reached >= 10 && reached == all, "{reached} of {all} steps were reached");
    let status = Run::of(&mut scene.recover("status", ["-w", "json"])).ok().json();
    assert_eq!(status["state"], "finished", "{status}");
    scene.serves_the_backup();
}

/// `[3/12] Stop etcd`: 3 of 12.
fn number_of(line: &str) -> (usize, usize) {
    let numbers = || -> Option<(usize, usize)> {
        let (number, all) = line.strip_prefix('[')?.split_once(']')?.0.split_once('/')?;
        Some((number.parse().ok()?, all.parse().ok()?))
    };
    numbers().unwrap_or_default()
}

/// Goal: a host that does not come back in time ends the run, and it goes on when the host is there. Method: its cable
/// is cut when a step begins, and put back after the run has ended: by Ctrl-C, and by itself. It is also cut before the
/// run is begun, and before it is taken up again, and put back when it is waited for.
#[test]
fn a_host_that_stays_away_ends_the_run_until_it_is_back() {
    let scene = Scene::without_clients(tls(Etcd::V3_4));
    scene.lose_all_members();
    scene.hosts[1].cut_network();
    let refused = Run::of(&mut scene.recover("run", ["--patience", "0"])).code_is(4);
    assert!(!refused.stderr.contains("trying again"), "{refused}");
    let by_hand = format!("`ssh -F {} root@10.177.", scene.hosts.ssh_config().display());
    refused.stderr_has(&["m2", "inspect the hosts", &by_hand]);
    let status = Run::of(&mut scene.recover("status", [""; 0])).code_is(1);
    status.stderr_has(&["there is no run"]);

    let waited_for = |run: &mut Watched| {
        let waits = |line: &str| line.contains("m2: ") && line.contains("trying again for up to ");
        assert!(run.wait_for(waits).is_some());
        scene.hosts[1].restore_network();
    };
    let mut first = true;
    let mut cut_at = |step: &str| {
        let patience = if first { "120s" } else { "5s" };
        let mut run = scene.recover("run", ["--patience", patience]);
        // As a shell does with a job.
        let mut run = Watched::start(run.process_group(0));
        if std::mem::take(&mut first) {
            waited_for(&mut run);
        }
        assert!(run.wait_for(|line| is_step(line) && line.contains(step)).is_some(), "{step}");
        scene.hosts[1].cut_network();
        run
    };

    let mut run = cut_at("Set the old data aside");
    assert!(run.wait_for(|line| line.contains("m1: ")).is_some());
    // A terminal sends it to the whole group, and so to every ssh that is in it.
    let group = format!("-{}", run.child.id());
    assert!(Command::new("kill").args(["-INT", "--", &group]).status().unwrap().success());
    let ended = run.end().code_is(130);
    let words = ["stopped; nothing is lost", "the same command goes on", "recover rollback"];
    let ended = ended.stderr_has(&words);
    for never in ["FAILED", "Some(", "signal", "error: Set"] {
        assert!(!ended.stderr.contains(never), "{never} in\n{ended}");
    }
    scene.hosts[1].restore_network();

    // It cannot be done before the host is cut off.
    let start = Gate::before(&scene.hosts[1], "systemctl", "'start '*etcd.service");
    let run = cut_at("Start all members");
    let ended = run.end();
    start.open();
    assert!(matches!(ended.code, Some(1 | 4)), "{ended}");
    let ended = ended.stderr_has(&["m2: FAILED\n", "m2: root@10.177.", "cannot be reached by ssh"]);
    ended.stderr_has(&["the same command goes on; `lifeboat recover rollback"]);
    let status = Run::of(&mut scene.recover("status", [""; 0])).code_is(4);
    assert!(status.stdout.contains("MEMBER"), "{status}");
    status.stderr_has(&["where m2 is could not be found out"]);

    let mut again = Watched::start(&mut scene.recover("run", ["--patience", "120s"]));
    waited_for(&mut again);
    again.end().ok();
    scene.serves_the_backup();
}
