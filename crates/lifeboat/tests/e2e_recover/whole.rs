//! All members lost, and all that is kept, proved and started afterwards; and the way back.

use std::process::Stdio;

use testbed::{Etcd, Host, Run, UnitStyle};

use crate::{Scene, lifeboat, tls};

const CLIENTS: [&str; 3] = ["kube-apiserver", "kube-scheduler", "kube-controller-manager"];

/// Every unit of `first` was at its moment before any of `then` was at its own.
#[track_caller]
fn in_order(
    scene: &Scene,
    first: (&str, fn(&Host, &str) -> u64),
    then: (&str, fn(&Host, &str) -> u64),
) {
    let moments = |(unit, moment): (&str, fn(&Host, &str) -> u64)| -> Vec<u64> {
        scene.hosts.iter().map(|host| moment(host, unit)).collect()
    };
    let (before, after) = (moments(first), moments(then));
    let ordered = before.iter().max() <= after.iter().min();
    assert!(ordered, "{} {before:?} and then {} {after:?}", first.0, then.0);
}

#[track_caller]
fn started_in_order(scene: &Scene) {
    in_order(scene, ("etcd", Host::active_since), (CLIENTS[0], Host::active_since));
    in_order(scene, (CLIENTS[0], Host::active_since), (CLIENTS[1], Host::active_since));
    in_order(scene, (CLIENTS[1], Host::active_since), (CLIENTS[2], Host::active_since));
}

/// The old directory of each member lies beside the new one, as it was.
#[track_caller]
fn old_data_are_kept(scene: &Scene) {
    let kept = scene.beside();
    assert_eq!(kept.len(), 3, "{kept:?}");
    for old in kept {
        assert!(old.join("member/snap/db").is_file(), "{}", old.display());
    }
}

#[track_caller]
fn owned_as_before(scene: &Scene) {
    for (index, host) in scene.hosts.iter().enumerate() {
        let data = scene.cluster.data_dir(index);
        let owned = host.ssh(&format!("stat -c '%U:%G %a' {data}; find {data} ! -user etcd"));
        assert_eq!(owned.stdout, "etcd:etcd 700\n");
    }
}

/// Goal: the main case. Method: the old cluster is killed; HashKV at the backup's revision is what the old
/// members said of it, as the revision is left as it was.
#[test]
fn all_members_of_3_4_are_lost_and_one_command_brings_them_back() {
    let scene = Scene::new(tls(Etcd::V3_4));
    let hash = scene.cluster.client().common_hashkv(scene.revision);
    scene.lose_all_members();

    let run = Run::of(&mut scene.recover("run", ["--bump-revision", "0"])).ok();
    assert!(run.stdout.contains(&hash.hash.to_string()), "{run}\n{hash:?}");
    scene.serves_the_backup();
    assert_eq!(scene.cluster.client().common_hashkv(scene.revision).hash, hash.hash);
    scene.clients_run();
    started_in_order(&scene);
    old_data_are_kept(&scene);
    owned_as_before(&scene);

    for host in scene.hosts.iter() {
        host.reboot();
    }
    scene.serves_the_backup();
}

/// Goal: by way of sudo, from a repository, with the revision raised above all that clients have seen; and
/// back again.
#[test]
fn members_of_3_5_come_back_by_sudo_from_a_repository_and_a_rollback_undoes_it() {
    let mut scene = Scene::new(tls(Etcd::V3_5).style(UnitStyle::Flags));
    scene.user = "ops";
    let repository = scene.hosts.folder().join("repository");
    let mut backup = lifeboat().command(["backup", "--cluster", "prod", "--repo"]);
    Run::of(backup.arg(&repository).arg("--from-file").arg(scene.snapshot())).ok();
    let last_seen = scene.cluster.client().revision();
    scene.lose_all_members();

    Run::of(scene.recover("run", ["--backup"]).arg(&repository)).ok();
    scene.serves_the_backup();
    assert!(scene.cluster.client().revision() > last_seen + 1_000_000);
    scene.clients_run();
    started_in_order(&scene);
    old_data_are_kept(&scene);
    owned_as_before(&scene);
    let status = Run::of(&mut scene.recover("status", ["-w", "json"])).ok().json();
    assert_eq!(status["state"], "finished", "{status}");

    // What is given up is told, and asked for.
    let unconfirmed = || {
        let mut rollback = lifeboat().command(["recover", "rollback", "prod", "--state-dir"]);
        Run::of(rollback.arg(&scene.state_dir).stdin(Stdio::null()))
    };
    let words = ["what was written since then is not in the old data", "--yes"];
    unconfirmed().code_is(5).stderr_has(&words);
    let status = Run::of(&mut scene.recover("status", ["-w", "json"])).ok().json();
    assert_eq!(status["state"], "finished", "{status}");

    // A rollback ends once the new members are stopped, and somebody starts them again.
    let mv = "/usr/local/bin/mv";
    let text = "#!/bin/sh\ncase \"$*\" in *.undone) exit 1 ;; esac\nexec /usr/bin/mv \"$@\"\n";
    scene.hosts.iter().for_each(|host| host.write_script(mv, text));
    Run::of(&mut scene.recover("rollback", [""; 0])).code_is(1).stderr_has(&["Take the new data"]);
    let drop_in = "/etc/systemd/system/etcd.service.d/lifeboat-recover.conf";
    let again =
        format!("rm {mv} {drop_in}; systemctl daemon-reload; systemctl start --no-block etcd");
    scene.hosts.iter().for_each(|host| drop(host.ssh(&again)));
    scene.serves_the_backup();
    let new = put_new_data_under_the_old(&scene);
    unconfirmed().code_is(1).stderr_has(&["m1, m2, m3: the NEW cluster", "serves there still"]);
    take_new_data_away(&scene, &new);
    // It was confirmed before.
    let back = unconfirmed().ok();
    for part in ["prod: the old data are back\n", "the old cluster serves: m1, m2, m3 healthy"] {
        assert!(back.stdout.contains(part), "{part} not in\n{back}");
    }
    assert!(!back.stderr.contains("Take back") && !back.stderr.contains("warning"), "{back}");
    let begun = back.stderr.lines().nth(1).unwrap_or_default();
    assert!(begun.starts_with('['), "no step is done without its title: {back}");
    for undone in scene.beside() {
        assert!(back.stdout.contains(undone.file_name().unwrap().to_str().unwrap()), "{back}");
    }
    scene.serves_the_old_data("after the backup");
    scene.clients_run();
}

/// Whenever etcd is started, somebody's script puts the data there that the rollback has just taken away. Returns where.
fn put_new_data_under_the_old(scene: &Scene) -> String {
    let drop_in = "/etc/systemd/system/etcd.service.d/again.conf".to_owned();
    for (index, host) in scene.hosts.iter().enumerate() {
        let data = scene.cluster.data_dir(index);
        let script = format!(
            "#!/bin/sh\nset -e\ncd {data}.lifeboat-*.undone\n[ ! -e /var/kept ]\nmv {data}/member /var/kept\ncp -a member {data}/\n"
        );
        host.write_script("/usr/local/sbin/again", &script);
        host.write(&drop_in, "[Service]\nExecStartPre=-+/usr/local/sbin/again\n");
        host.ssh("systemctl daemon-reload");
    }
    drop_in
}

fn take_new_data_away(scene: &Scene, drop_in: &str) {
    for (index, host) in scene.hosts.iter().enumerate() {
        let data = scene.cluster.data_dir(index);
        host.ssh(&format!("rm {drop_in}; systemctl daemon-reload; systemctl stop etcd"));
        host.ssh(&format!("rm -r {data}/member; mv /var/kept {data}/member"));
    }
}

#[test]
fn a_committed_run_is_not_taken_back() {
    let mut scene = Scene::without_clients(tls(Etcd::V3_5).style(UnitStyle::ConfigFile));
    scene.lose_all_members();
    scene.run().ok();
    old_data_are_kept(&scene);
    let elsewhere = scene.hosts.folder().join("elsewhere");
    let here = std::mem::replace(&mut scene.state_dir, elsewhere);
    Run::of(&mut scene.run_over_the_living()).ok();
    Run::of(&mut scene.recover("commit", [""; 0])).ok();
    Run::of(&mut scene.recover("rollback", [""; 0])).code_is(5).stderr_has(&["committed"]);
    // Nor is one that it followed.
    scene.state_dir = here;
    for words in ["so this one is over", "is final: followed by"] {
        Run::of(&mut scene.recover("rollback", [""; 0])).code_is(5).stderr_has(&[words]);
    }
    scene.serves_the_backup();
}

/// Goal: over a cluster that lives, nothing writes to etcd any more when etcd stops.
#[test]
fn clients_stop_before_etcd_and_start_after_it() {
    let scene = Scene::new(tls(Etcd::V3_5));
    Run::of(&mut scene.run_over_the_living()).ok();
    for client in CLIENTS {
        in_order(&scene, (client, Host::inactive_since), ("etcd", Host::inactive_since));
    }
    started_in_order(&scene);
    scene.serves_the_backup();
}
