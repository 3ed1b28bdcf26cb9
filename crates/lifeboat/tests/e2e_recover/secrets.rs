//! A cluster with auth: it comes back, and its password is nowhere but in its file.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use testbed::{Etcd, Run};

use crate::{Scene, tls};

const PASSWORD: &str = "pw-91c4e07d5b";

/// Does something, and panics if meanwhile any process of this machine, hosts included, is told `secret` in its
/// arguments.
#[track_caller]
pub(crate) fn never_in_a_process_list<T: Send>(secret: &str, act: impl FnOnce() -> T + Send) -> T {
    let (ended, seen) = (AtomicBool::new(false), AtomicBool::new(false));
    let done = thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::SeqCst) {
                seen.fetch_or(is_in_a_process_list(secret), Ordering::SeqCst);
            }
        });
        let done = catch_unwind(AssertUnwindSafe(act));
        ended.store(true, Ordering::SeqCst);
        done
    });
    let done = done.unwrap_or_else(|panic| resume_unwind(panic));
    assert!(!seen.load(Ordering::SeqCst), "a list of processes shows {secret}");
    done
}

fn is_in_a_process_list(secret: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines =
        processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| holds(&line, secret))
}

fn holds(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

/// Files below a folder that hold a word.
pub(crate) fn files_with(word: &str, folder: &Path) -> Vec<String> {
    let mut grep = std::process::Command::new("grep");
    let run = Run::of(grep.args(["-rlF", "--devices=skip", word]).arg(folder));
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

    let said = never_in_a_process_list(PASSWORD, || {
        [Run::of(&mut scene.recover("plan", ["--as-shell"])).ok(), scene.run().ok()]
    });
    for run in said {
        let told = holds(&run.stdout_bytes, PASSWORD) || holds(run.stderr.as_bytes(), PASSWORD);
        assert!(!told, "{run}");
    }
    assert_eq!(files_with(PASSWORD, &scene.state_dir), [""; 0]);
    for host in scene.hosts.iter() {
        assert_eq!(files_with(PASSWORD, &host.path("/var/lib/lifeboat")), [""; 0]);
    }
    scene.serves_the_backup();
}
