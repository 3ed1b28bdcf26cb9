//! Hosts that fetch the backup themselves, from S3 on the test's machine.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use testbed::{Etcd, Fault, FaultProxy, Host, Identity, Run, S3};

use crate::secrets::{files_with, never_in_a_process_list};
use crate::{Scene, lifeboat, tls};

/// Where a host keeps the program, and what is there: its inode, its hash.
fn program(host: &Host) -> (String, String) {
    let found =
        host.ssh("cd /var/lib/lifeboat/bin && stat -c %i * && sha256sum * && ./* --version");
    let lines: Vec<&str> = found.stdout.lines().collect();
    let [inode, hash, version] = lines[..] else { panic!("one program is there\n{found}") };
    let name = format!("lifeboat-{}-{}", env!("CARGO_PKG_VERSION"), &hash[..12]);
    assert!(hash.ends_with(&name), "{found}");
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{found}");
    (inode.to_owned(), hash[..64].to_owned())
}

/// Goal: nothing is sent but the program, and who may read the store is told to hosts and kept by none. Method: hosts
/// reach S3 by a proxy on the bridge, which counts; processes are watched meanwhile, and files searched afterwards.
#[test]
fn hosts_fetch_the_backup_themselves_and_keep_no_credentials() {
    let mut scene = Scene::without_clients(tls(Etcd::V3_5));
    scene.user = "ops";
    let s3 = S3::start();
    let until_refused = Arc::new(AtomicI32::new(i32::MAX));
    let proxy = FaultProxy::at(scene.hosts.gateway(), s3.endpoint(), {
        let left = Arc::clone(&until_refused);
        move |request| match request.is("GET", "/db.") && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            true => Fault::Answer(403),
            false => Fault::Pass,
        }
    });
    let repo = s3.url_through(&proxy.url(), "etcd");
    let mut backup = lifeboat().command(["backup", "--cluster", "prod", "--repo", &repo]);
    backup.arg("--from-file").arg(scene.snapshot()).envs(s3.env(Identity::Admin));
    Run::of(&mut backup).ok();
    let with_store = |command: &mut Command| {
        Run::of(command.args(["--pull", "--backup", &repo]).envs(s3.env(Identity::ReadOnly)))
    };
    let reads_of_data =
        || proxy.seen().iter().filter(|(request, _)| request.is("GET", "/db.")).count();

    scene.lose_all_members();
    let secret = Identity::ReadOnly.secret();
    let said = never_in_a_process_list(secret, || {
        let plan = with_store(&mut scene.recover("plan", [""; 0])).ok();
        assert!(plan.stdout.contains("is told AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"), "{plan}");
        [plan, with_store(&mut scene.recover("run", [""; 0])).ok()]
    });
    for run in said {
        assert!(!run.stdout.contains(secret) && !run.stderr.contains(secret), "{run}");
    }
    scene.serves_the_backup();
    // One is ours, to prove it; a store that is busy may be asked again.
    assert!(reads_of_data() >= 4, "{:?}", proxy.seen());
    assert_eq!(files_with(secret, &scene.state_dir), [""; 0]);
    for host in scene.hosts.iter() {
        for folder in ["/etc", "/root", "/run", "/tmp", "/var"] {
            assert_eq!(files_with(secret, &host.path(folder)), [""; 0], "{folder}");
        }
        let logged = host.ssh("journalctl --no-pager").stdout;
        assert!(logged.contains("sudo") && !logged.contains(secret), "{logged}");
    }

    // A program that is whole stays; one that is not is put there again.
    let programs: Vec<_> = scene.hosts.iter().map(program).collect();
    scene.hosts[1].ssh("echo >>/var/lib/lifeboat/bin/lifeboat-*");
    // The first to fetch is this machine, and the next a host.
    until_refused.store(2, Ordering::SeqCst);
    let refused = with_store(&mut scene.run_over_the_living()).code_is(1);
    let refused = refused.stderr_has(&["(exit code 1): error: read ", "AccessDenied"]);
    assert!(!refused.stderr.contains("Stop etcd"), "{refused}");
    with_store(&mut scene.run_over_the_living()).ok();
    scene.serves_the_backup();
    let again: Vec<_> = scene.hosts.iter().map(program).collect();
    assert_eq!((&again[0], &again[2]), (&programs[0], &programs[2]));
    assert!(again[1].1 == programs[1].1 && again[1].0 != programs[1].0, "{again:?}");
}
