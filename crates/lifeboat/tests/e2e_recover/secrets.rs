//! A cluster with auth: it comes back, and its password is nowhere but in its file.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use testbed::{Etcd, Run};

use crate::{Scene, tls};

const PASSWORD: &str = "pw-91c4e07d5b";

/// Whether any process of this machine, hosts included, was told the password in its arguments.
fn is_in_a_process_list() -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.into_iter().any(|line| holds(&line))
}

fn holds(bytes: &[u8]) -> bool {
    bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes())
}

/// Files below a folder that hold the password.
fn files_with_it(folder: &Path) -> Vec<String> {
    let run = Run::of(std::process::Command::new("grep").args(["-rlF", PASSWORD]).arg(folder));
    run.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn a_cluster_with_auth_comes_back_and_its_password_is_told_to_nobody() {
    let mut scene = Scene::without_clients(tls(Etcd::V3_5).auth(PASSWORD));
    for host in scene.hosts.iter() {
        host.write("/etc/etcd/password", format!("{PASSWORD}\n"));
        host.ssh("chmod 600 /etc/etcd/password");
    }
    scene.more_etcd = "  user: root\n  password-file: /etc/etcd/password\n".to_owned();
    scene.lose_all_members();

    let (ended, seen) = (AtomicBool::new(false), AtomicBool::new(false));
    let (plan, run) = thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::SeqCst) {
                seen.fetch_or(is_in_a_process_list(), Ordering::SeqCst);
            }
        });
        let plan = Run::of(&mut scene.recover("plan", ["--as-shell"]));
        let run = scene.run();
        ended.store(true, Ordering::SeqCst);
        (plan, run)
    });
    assert!(!seen.load(Ordering::SeqCst), "a list of processes shows the password");
    for said in [plan.ok(), run.ok()] {
        assert!(!holds(&said.stdout_bytes) && !holds(said.stderr.as_bytes()), "{said}");
    }
    assert_eq!(files_with_it(&scene.state_dir), [""; 0]);
    for host in scene.hosts.iter() {
        assert_eq!(files_with_it(&host.path("/var/lib/lifeboat")), [""; 0]);
    }
    scene.serves_the_backup();
}
