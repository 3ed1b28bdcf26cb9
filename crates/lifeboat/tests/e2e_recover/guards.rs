//! What `recover` refuses, before anything is stopped.

use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use testbed::{Etcd, Run, Security};

use crate::{Scene, Watched, is_step, tls};

/// The members run as they did: none was stopped and started.
#[track_caller]
fn untouched(scene: &Scene, since: &[u64]) {
    let now: Vec<u64> = scene.hosts.iter().map(|host| host.active_since("etcd")).collect();
    assert_eq!(now, since);
    scene.serves_the_old_data("after the backup");
}

#[test]
fn a_healthy_cluster_an_unconfirmed_name_and_unknown_host_keys_are_refused() {
    let scene = Scene::without_clients(tls(Etcd::V3_5).security(Security::Plain));
    let since: Vec<u64> = scene.hosts.iter().map(|host| host.active_since("etcd")).collect();

    scene.run().code_is(5).stderr_has(&["the cluster is healthy", "--even-though-healthy"]);
    untouched(&scene, &since);

    // Not even a command line that is complete but for `--yes` goes on without a terminal.
    let run = scene.run_over_the_living();
    let mut unconfirmed = Command::new(run.get_program());
    unconfirmed.args(run.get_args().filter(|argument| *argument != "--yes"));
    Run::of(&mut unconfirmed).code_is(5).stderr_has(&["--yes"]);
    untouched(&scene, &since);

    let known = std::fs::read_to_string(scene.hosts.known_hosts()).unwrap();
    std::fs::write(scene.hosts.known_hosts(), known.lines().next().unwrap()).unwrap();
    let refused = Run::of(&mut scene.run_over_the_living());
    refused.code_is(4).stderr_has(&["m2", "m3", "Host key verification failed"]);
    std::fs::write(scene.hosts.known_hosts(), known).unwrap();
    untouched(&scene, &since);

    scene.hosts[1].change_host_key();
    let refused = Run::of(&mut scene.run_over_the_living());
    refused.code_is(4).stderr_has(&["m2", "Host key verification failed"]);
    let now = scene.hosts[0].active_since("etcd");
    assert_eq!(now, since[0]);
}

/// Goal: nobody disturbs a run, and one that is cut off at its very end keeps no host from others. Method: it is stopped
/// in its middle, and meanwhile others are begun, from the same machine and from one that knows nothing of it; then it
/// cannot remove the lock of one host.
#[test]
fn hosts_are_held_for_one_run_until_it_has_let_them_go() {
    let mut scene = Scene::without_clients(tls(Etcd::V3_5));
    scene.lose_all_members();
    let mut first = Watched::start(&mut scene.recover("run", [""; 0]));
    let locked = first.wait_for(|line| is_step(line) && line.contains("Put the new data"));
    assert!(locked.is_some());
    let id = Pid::from_raw(i32::try_from(first.child.id()).unwrap()).unwrap();
    kill_process(id, Signal::STOP).unwrap();

    scene.run().code_is(5).stderr_has(&["another run for prod goes on"]);
    let here = std::mem::replace(&mut scene.state_dir, scene.hosts.folder().join("elsewhere"));
    let stranger = scene.run();
    scene.state_dir = here;
    let rm = "/usr/local/bin/rm";
    scene.hosts[1].write_script(
        rm,
        "#!/bin/sh\ncase \"$*\" in *.lock) echo 'not now' >&2; exit 1 ;; esac\nexec /usr/bin/rm \"$@\"\n",
    );
    kill_process(id, Signal::CONT).unwrap();
    assert_ne!(stranger.code, Some(0), "{stranger}");
    assert!(stranger.stderr.contains("held by the run"), "{stranger}");

    first.end().code_is(1).stderr_has(&["let the hosts go", "m2", "not now"]);
    scene.hosts[1].ssh(&format!("/usr/bin/rm {rm}"));
    scene.run().ok().stderr_has(&["going on with run"]);
    scene.serves_the_backup();
    // Another may begin, but for the cluster that is back.
    Run::of(&mut scene.recover("plan", [""; 0])).ok();
    scene.run().code_is(5).stderr_has(&["the cluster is healthy"]);
}

/// Goal: a run that another one followed stops nothing. Method: the second is begun on a machine that knows nothing of
/// the first.
#[test]
fn a_run_that_a_later_one_followed_is_not_taken_back_before_it() {
    let mut scene = Scene::without_clients(tls(Etcd::V3_5));
    let here = scene.state_dir.clone();
    Run::of(&mut scene.run_over_the_living()).ok();
    scene.state_dir = scene.hosts.folder().join("elsewhere");
    Run::of(&mut scene.run_over_the_living()).ok();
    let there = std::mem::replace(&mut scene.state_dir, here);

    let since: Vec<_> = scene.hosts.iter().map(|host| host.active_since("etcd")).collect();
    for command in ["rollback", "commit"] {
        let refused = Run::of(&mut scene.recover(command, [""; 0]));
        refused.code_is(5).stderr_has(&["m1, m2, m3", "later run", "help: "]);
    }
    let now: Vec<_> = scene.hosts.iter().map(|host| host.active_since("etcd")).collect();
    assert_eq!(now, since, "nothing was stopped");
    scene.serves_the_backup();

    for state_dir in [there, scene.state_dir.clone()] {
        scene.state_dir = state_dir;
        Run::of(&mut scene.recover("rollback", [""; 0])).ok();
    }
    scene.serves_the_old_data("after the backup");
}

#[test]
fn a_run_that_has_changed_nothing_is_dropped_and_starts_nothing() {
    let scene = Scene::without_clients(tls(Etcd::V3_5));
    scene.lose_all_members();
    let good = std::fs::read(scene.snapshot()).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle..middle + 4].iter_mut().for_each(|byte| *byte ^= 0x5A);
    std::fs::write(scene.snapshot(), bad).unwrap();
    scene.run().code_is(3).stderr_has(&["is dropped", "another snapshot"]);
    std::fs::write(scene.snapshot(), good).unwrap();

    // The program on the hosts is looked at before a run is begun, and then again: that fails.
    let sha256sum = "/usr/local/bin/sha256sum";
    scene.hosts[0].write_script(
        sha256sum,
        "#!/bin/sh\nmkdir /run/looked-at 2>/dev/null || exit 1\nexec /usr/bin/sha256sum \"$@\"\n",
    );
    scene.run().code_is(1).stderr_has(&["m1"]);
    scene.hosts[0].ssh(&format!("rm {sha256sum}"));
    let dropped = Run::of(&mut scene.recover("rollback", [""; 0])).ok();
    assert!(dropped.stdout.contains("had changed nothing yet"), "{dropped}");
    assert!(scene.hosts.iter().all(|host| !host.is_active("etcd")));
    scene.run().ok();
    scene.serves_the_backup();
}
