//! Hosts that are lost in a step.

use std::thread;

use testbed::{Etcd, Run};

use crate::{Scene, Watched, is_step, tls};

/// Goal: a host whose power is cut, in whichever step, costs nothing but time. Method: one run, and whenever a step
/// begins, another host loses its power and boots again.
#[test]
fn in_every_step_a_host_loses_its_power_and_the_run_goes_on() {
    let scene = Scene::new(tls(Etcd::V3_5));
    scene.lose_all_members();
    let mut steps = 0;
    let mut run = Watched::start(&mut scene.recover("run", [""; 0]));
    while run.wait_for(is_step).is_some() {
        let host = &scene.hosts[steps % 3];
        host.cut_power();
        host.power_on();
        steps += 1;
    }
    let mut ended = run.end();
    // A step that is no script on one host, such as asking etcd, is not tried again by itself.
    for _ in 0..4 {
        if ended.code == Some(0) {
            break;
        }
        ended = scene.run();
    }
    ended.ok();
    assert!(steps >= 10, "{steps} steps");
    scene.serves_the_backup();
}

/// Goal: a host that does not come back in time ends the run, and it goes on when the host is there. Method: its cable
/// is cut when a step begins, and put back after the run has ended.
#[test]
fn a_host_that_stays_away_ends_the_run_until_it_is_back() {
    let scene = Scene::without_clients(tls(Etcd::V3_4));
    scene.lose_all_members();
    for step in ["Set the old data aside", "Start all members"] {
        let mut run = Watched::start(&mut scene.recover("run", [""; 0]));
        assert!(run.wait_for(|line| is_step(line) && line.contains(step)).is_some(), "{step}");
        scene.hosts[1].cut_network();
        let ended = thread::scope(|scope| scope.spawn(|| run.end()).join().unwrap());
        assert!(matches!(ended.code, Some(1 | 4)), "{ended}");
        scene.hosts[1].restore_network();
    }
    Run::of(&mut scene.recover("run", [""; 0])).ok();
    scene.serves_the_backup();
}
