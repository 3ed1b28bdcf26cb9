//! Hosts that are lost in a step.

use std::os::unix::process::CommandExt;
use std::process::Command;

use testbed::{Etcd, Run};

use crate::{Scene, Watched, is_step, tls};

/// Goal: a host whose power is cut, in whichever step, costs nothing but time. Method: one run, and whenever a step
/// begins, another host loses its power and boots again.
#[test]
fn in_every_step_a_host_loses_its_power_and_the_run_goes_on() {
    let scene = Scene::new(tls(Etcd::V3_5));
    scene.lose_all_members();
    // The step that was last cut off; one that is gone through again is not.
    let (mut reached, mut all) = (0, 0);
    for _ in 0..5 {
        let mut run = Watched::start(&mut scene.recover("run", [""; 0]));
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
/// is cut when a step begins, and put back after the run has ended: by Ctrl-C, and by itself.
#[test]
fn a_host_that_stays_away_ends_the_run_until_it_is_back() {
    let scene = Scene::without_clients(tls(Etcd::V3_4));
    scene.lose_all_members();
    let cut_at = |step: &str| {
        let mut run = scene.recover("run", ["--patience", "5s"]);
        // As a shell does with a job.
        let mut run = Watched::start(run.process_group(0));
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

    let run = cut_at("Start all members");
    let ended = run.end();
    assert!(matches!(ended.code, Some(1 | 4)), "{ended}");
    ended.stderr_has(&["m2: FAILED\n", "m2: root@10.177.", "cannot be reached by ssh"]);
    scene.hosts[1].restore_network();

    Run::of(&mut scene.recover("run", [""; 0])).ok();
    scene.serves_the_backup();
}
