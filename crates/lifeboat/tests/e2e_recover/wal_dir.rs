//! A write-ahead log on a disk of its own.

use testbed::{Etcd, Hosts, Run};

use crate::{Scene, tls};

const WAL: &str = "/wal/etcd";

/// Hosts with a second disk at `/wal`.
fn hosts() -> Hosts {
    let hosts = Hosts::builder().disk_bytes(3 << 30).start(3);
    for host in hosts.iter() {
        host.ssh("mkdir /wal && mount -t tmpfs -o size=1g wal /wal && chown etcd:etcd /wal");
    }
    hosts
}

/// How many logs lie on the second disk: the one that is used, and what `recover` keeps.
#[track_caller]
fn logs_are(scene: &Scene, count: usize) {
    for (index, host) in scene.hosts.iter().enumerate() {
        let logs = host.ssh("stat -c '%U:%G %a %n' /wal/*").stdout;
        assert_eq!(logs.lines().count(), count, "{logs}");
        assert!(logs.lines().all(|line| line.starts_with("etcd:etcd 700 ")), "{logs}");
        host.ssh(&format!("ls {WAL}/*.wal && [ -z \"$(find {WAL} ! -user etcd)\" ]"));
        assert!(!host.path(scene.cluster.data_dir(index)).join("member/wal").exists());
    }
}

#[test]
fn a_log_on_a_disk_of_its_own_is_exchanged_with_the_data_and_taken_back_with_them() {
    let builder = tls(Etcd::V3_5).setting("wal-dir", WAL);
    let mut scene = Scene::on(hosts(), builder, false);
    scene.lose_all_members();

    scene.more_etcd = "  wal-dir: /wal\n".to_owned();
    let mount_point = Run::of(&mut scene.recover("plan", [""; 0]));
    mount_point.code_is(5).stderr_has(&["the WAL directory is a mount point"]);

    // A disk that is not mounted, with and without the folder for it.
    scene.more_etcd = "  wal-dir: /disk/etcd\n".to_owned();
    scene.hosts[0].ssh("mkdir /disk && echo '/dev/none /disk ext4 noauto 0 2' >>/etc/fstab");
    scene.run().code_is(5).stderr_has(&[
        "m1: nothing is mounted on /disk, though /etc/fstab names it",
        "m2: /disk is not there: is its disk mounted?",
        "nothing was stopped",
    ]);
    assert!(!scene.hosts[1].path("/disk").exists());
    scene.hosts[0].ssh("sed -i '/none/d' /etc/fstab");

    scene.more_etcd = format!("  wal-dir: {WAL}\n");
    scene.hosts[1].ssh("fallocate -l 800M /wal/filler");
    scene.run().code_is(5).stderr_has(&[
        "m2: ",
        "bytes are free for /wal/etcd",
        "nothing was stopped",
    ]);
    scene.hosts[1].ssh("rm /wal/filler");

    scene.run().ok();
    scene.serves_the_backup();
    logs_are(&scene, 2);

    Run::of(&mut scene.recover("rollback", [""; 0])).ok();
    scene.serves_the_old_data("after the backup");
    logs_are(&scene, 2);
}
