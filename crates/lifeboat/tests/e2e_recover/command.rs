//! etcd that no service manager knows: three commands say how it is run.

use testbed::{Etcd, Host, Run, UnitStyle};

use crate::{Scene, Watched, is_step, tls};

const START: &str = "/usr/local/sbin/start-etcd";

/// As a person writes it: in the background, its process id in a file.
const SCRIPT: &str = "#!/bin/sh
setsid nohup setpriv --reuid=etcd --regid=etcd --clear-groups \\
  /opt/etcd-3.5/etcd --config-file=/etc/etcd/etcd.conf.yaml </dev/null >>/var/log/etcd.log 2>&1 &
echo $! >/run/etcd.pid
";

/// Takes the unit away, and starts the member with the script.
fn without_unit(host: &Host) {
    host.ssh("systemctl disable --quiet --now etcd && rm /etc/systemd/system/etcd.service");
    host.ssh("systemctl daemon-reload");
    host.write_script(START, SCRIPT);
    host.ssh(START);
}

/// One etcd runs on each host, as its user.
#[track_caller]
fn run_as_commands(scene: &Scene) {
    for host in scene.hosts.iter() {
        let users = host.ssh("ps -o user= -p $(pgrep -d, -x etcd)");
        assert_eq!(users.stdout, "etcd\n", "{}", host.name());
        assert!(!host.is_active("etcd"));
    }
}

/// A cluster on hosts that runs by commands.
#[track_caller]
pub(crate) fn scene() -> Scene {
    let mut scene = Scene::without_clients(tls(Etcd::V3_5).style(UnitStyle::ConfigFile));
    scene.hosts.iter().for_each(without_unit);
    scene.cluster.wait_until_healthy();
    // Which etcd a command starts cannot be seen, and a backup of its first seconds does not say it either.
    scene.more_etcd = "  version: '3.5'\n".to_owned();
    scene.service = format!(
        "{{command: {{start: {START}, stop: 'kill $(cat /run/etcd.pid)', running: 'kill -0 $(cat /run/etcd.pid)'}}}}"
    );
    scene
}

#[test]
fn etcd_as_a_plain_command_comes_back_and_is_taken_back() {
    let mut scene = scene();
    let right = std::mem::replace(&mut scene.more_etcd, "  version: '3.6'\n".to_owned());
    let refused = Run::of(&mut scene.run_over_the_living()).code_is(5);
    refused.stderr_has(&["etcd.version says 3.6, but etcd on m1, m2, m3 is 3.5."]);
    scene.more_etcd = right;
    let misspelt = scene.service.replace(START, "/usr/local/sbin/start-etdc");
    let right = std::mem::replace(&mut scene.service, misspelt);
    let refused = Run::of(&mut scene.run_over_the_living()).code_is(5);
    refused.stderr_has(&[
        "m1: /usr/local/sbin/start-etdc, which command.start begins with, is not there",
    ]);
    scene.service = right;
    for host in scene.hosts.iter() {
        host.ssh("kill -KILL $(cat /run/etcd.pid)");
    }

    // Cut off while they start, and gone on with: none is started twice.
    let mut run = Watched::start(&mut scene.recover("run", [""; 0]));
    let reached = run.wait_for(|line| is_step(line) && line.contains("Start all members"));
    run.kill();
    let cut_off = run.end();
    assert!(reached.is_some(), "{cut_off}");
    scene.run().ok();
    scene.serves_the_backup();
    run_as_commands(&scene);

    Run::of(&mut scene.recover("rollback", [""; 0])).ok();
    scene.serves_the_old_data("after the backup");
    run_as_commands(&scene);
}
