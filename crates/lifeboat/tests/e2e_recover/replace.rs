//! `recover replace`: one member is lost while the others live, and comes back as a new one. The others serve meanwhile.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use testbed::{Client, Etcd, EtcdOnHosts, Hosts, Run, Security, UnitStyle, until};

use crate::{
    Gate, Scene, Watched, command, guards::only_run, is_step, killed::kill_at_step, lifeboat, tls,
};

const PASSWORD: &str = "pw-5a1f0c";

/// `recover replace MEMBER` for this cluster, not yet started.
fn replace(scene: &Scene, member: &str, more: &[&str]) -> Command {
    let mut replace = lifeboat().command(["recover", "replace"]);
    replace.arg(scene.spec()).arg(member).arg("--agent").arg(scene.agent());
    replace.arg("--state-dir").arg(&scene.state_dir).args(more).stdin(Stdio::null());
    replace
}

/// A client of all members but the last.
fn survivors(scene: &Scene) -> Client {
    let mut client = scene.client();
    client.endpoints.pop();
    client
}

/// The last member is gone, with its data or without, and the others have a leader.
#[track_caller]
fn lose_the_last(scene: &Scene, how: &str) {
    let host = scene.hosts.iter().next_back().unwrap();
    host.ssh("systemctl kill --signal=KILL etcd; systemctl stop etcd");
    host.ssh(how);
    wait_until_healthy(&survivors(scene));
}

/// Writes through the other members until `act` has ended. Every write must succeed, and is found on all members afterwards. One may
/// be refused once: members may lose each other for a moment where many others want the processor.
#[track_caller]
fn while_written_to<T>(scene: &Scene, act: impl FnOnce() -> T) -> T {
    let ended = AtomicBool::new(false);
    let client = survivors(scene);
    let (done, written) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut written, mut was_refused) = (0, false);
            while !ended.load(Ordering::SeqCst) {
                let key = format!("meanwhile/{written}");
                let put = client.try_etcdctl(["put", key.as_str(), ""]);
                if put.code == Some(0) {
                    written += 1;
                } else {
                    assert!(!was_refused, "{put}");
                    was_refused = true;
                }
            }
            written
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        ended.store(true, Ordering::SeqCst);
        (done, writer.join())
    });
    let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let written: usize = written.unwrap();
    assert!(written > 3, "{written} writes");
    let found = scene.client().etcdctl(["get", "meanwhile/", "--prefix", "--keys-only"]).stdout;
    let found = found.lines().filter(|line| !line.is_empty()).count();
    assert_eq!(found, written);
    println!("{written} writes meanwhile");
    done
}

/// All of the client's members are.
#[track_caller]
fn wait_until_healthy(client: &Client) {
    let health = || client.try_etcdctl(["endpoint", "health"]);
    until(
        "the health of all",
        || (health().code == Some(0)).then_some(()),
        || client.try_etcdctl(["endpoint", "status"]).to_string(),
    );
}

/// Three healthy members with a vote and one history; the last is another than `lost`.
#[track_caller]
fn is_whole_again(client: &Client, lost: &str) {
    wait_until_healthy(client);
    let members = client.etcdctl(["member", "list"]).stdout;
    assert_eq!(members.lines().count(), 3, "{members}");
    let good = |line: &str| line.contains(", started, ") && line.ends_with(", false");
    assert!(members.lines().all(good), "{members}");
    assert!(!members.contains(lost), "{members}");
    client.common_hashkv(client.revision());
}

/// The id of the last member.
fn id_of_last(scene: &Scene) -> String {
    let name = format!(", {}, ", scene.cluster.member_name(scene.hosts.len() - 1));
    let members = survivors(scene).etcdctl(["member", "list"]).stdout;
    let line = members.lines().find(|line| line.contains(&name));
    line.unwrap().split(',').next().unwrap().to_owned()
}

/// What the last host has beside its data directory.
fn kept(scene: &Scene) -> Vec<String> {
    let data = scene.cluster.data_dir(2);
    let listed = scene.hosts[2].ssh(&format!("ls -d {data}.* 2>/dev/null || true"));
    listed.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn a_member_whose_disk_was_emptied_is_replaced_while_the_others_serve() {
    let scene = Scene::new(tls(Etcd::V3_5).style(UnitStyle::Flags));
    let lost = id_of_last(&scene);
    let data = scene.cluster.data_dir(2);
    lose_the_last(&scene, &format!("rm -rf {data}; systemctl stop kube-apiserver"));

    let plan = Run::of(&mut replace(&scene, "m3", &["--dry-run"])).ok();
    for part in [&format!("member remove {lost}"), "member add m3 --learner", "no write is lost"] {
        assert!(plan.stdout.contains(part), "{part} not in\n{plan}");
    }
    assert_eq!(id_of_last(&scene), lost, "a dry run changes nothing");
    let refused = Run::of(&mut replace(&scene, "m3", &[]));
    refused.code_is(5).stderr_has(&["--yes"]);

    let limit = || scene.hosts[2].ssh("systemctl show -p TimeoutStartUSec etcd").stdout;
    let before = limit();
    // What it is when etcd starts, the unit itself writes down.
    let noting =
        "ExecStartPre=+/bin/sh -c 'systemctl show -p TimeoutStartUSec etcd >/run/limit-at-start'";
    let drop_in = "/etc/systemd/system/etcd.service.d/noting.conf";
    scene.hosts[2].write(drop_in, format!("[Service]\n{noting}\n"));
    scene.hosts[2].ssh("systemctl daemon-reload");
    let run = while_written_to(&scene, || Run::of(&mut replace(&scene, "m3", &["--yes"])).ok());
    assert!(run.stdout.contains("3 members healthy"), "{run}");
    // It may take as long as it needs to catch up, and only then.
    let at_start = scene.hosts[2].ssh("cat /run/limit-at-start").stdout;
    assert_eq!((at_start.as_str(), limit()), ("TimeoutStartUSec=infinity\n", before));
    is_whole_again(&scene.client(), &lost);
    scene.clients_run();
    let owned = scene.hosts[2].ssh(&format!("find {data} ! -user etcd; stat -c %a {data}"));
    assert_eq!(owned.stdout, "700\n");
    assert!(kept(&scene).is_empty());
    // It is a member like the others: it comes back from a restart by itself.
    scene.hosts[2].ssh("systemctl restart etcd");
    is_whole_again(&scene.client(), &lost);
    let status = Run::of(&mut scene.recover("status", [""; 0])).ok();
    assert!(status.stderr.contains("m3 is a new member of the cluster"), "{status}");
    let line = |member: &str| status.stdout.lines().find(|line| line.contains(member)).unwrap();
    for (member, parts) in [("m1", ["not touched", "serves"]), ("m3", ["new", "runs, serves"])] {
        assert!(parts.iter().all(|part| line(member).contains(part)), "{status}");
    }
    Run::of(&mut scene.recover("commit", [""; 0])).ok();
}

#[test]
fn a_member_with_damaged_data_is_replaced_with_auth_on_and_its_old_data_are_kept() {
    let mut scene =
        Scene::without_clients(tls(Etcd::V3_4).style(UnitStyle::ConfigFile).auth(PASSWORD));
    for host in scene.hosts.iter() {
        host.write("/etc/etcd/password", format!("{PASSWORD}\n"));
    }
    let (lost, data) = (id_of_last(&scene), scene.cluster.data_dir(2));
    lose_the_last(
        &scene,
        &format!(
            "dd if=/dev/zero of={data}/member/snap/db bs=4096 count=8 conv=notrunc; systemctl start --no-block etcd"
        ),
    );
    scene.more_etcd = "  user: root\n  password-file: /etc/etcd/password\n".to_owned();

    let run = while_written_to(&scene, || Run::of(&mut replace(&scene, "m3", &["--yes"]))).ok();
    is_whole_again(&scene.client(), &lost);
    let kept = kept(&scene);
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(run.stdout.contains(&format!("m3: old data: {}", kept[0])), "{run}");
    assert!(scene.hosts[2].path(&kept[0]).join("member/snap/db").exists());

    // Taken back, the new member is gone again, and the old directory in its place; then again a new one is made.
    let run = Run::of(&mut scene.recover("rollback", [""; 0])).ok();
    assert!(run.stdout.contains("goes on with 2 members"), "{run}");
    let members = survivors(&scene).etcdctl(["member", "list"]).stdout;
    assert_eq!(members.lines().count(), 2, "{members}");
    assert!(scene.hosts[2].path(&data).join("member/snap/db").exists());
    Run::of(&mut replace(&scene, "m3", &["--yes"])).ok();
    is_whole_again(&scene.client(), &lost);
}

/// After a restore the leader has not its whole log, so the new member is sent the database.
#[test]
fn a_cluster_that_was_restored_takes_a_new_member_on_another_host() {
    let hosts = Hosts::builder().disk_bytes(3 << 30).start(4);
    let cluster = EtcdOnHosts::builder(Etcd::V3_5).security(Security::Plain).start(&hosts[..3]);
    let client = cluster.client();
    client.write_sample();
    let scene = Scene { members: vec![0, 1, 2], ..Scene::of(hosts, cluster, false) };
    let spec = |last: usize| spec_of(&scene, &[0, 1, last]);
    scene.save(&scene.cluster.connection_flags());
    let mut restore = lifeboat().command(["recover", "run"]);
    restore.arg(spec(2)).args(["--yes", "--even-though-healthy", "--agent"]).arg(scene.agent());
    restore.arg("--backup").arg(scene.snapshot()).arg("--state-dir").arg(&scene.state_dir);
    Run::of(restore.stdin(Stdio::null())).ok();
    client.write_sample();

    // The new host is set up as the old one was, but for its address; etcd was never started there.
    let (old, new) = (scene.hosts[2].address().to_string(), scene.hosts[3].address().to_string());
    let settings = std::fs::read_to_string(scene.hosts[2].path("/etc/default/etcd")).unwrap();
    let own = |name: &str| name.contains("LISTEN") || name.contains("ADVERTISE");
    let moved = settings.lines().map(|line| match own(line) {
        true => line.replace(&old, &new) + "\n",
        false => line.to_owned() + "\n",
    });
    scene.hosts[3].write("/etc/default/etcd", moved.collect::<String>());
    let drop_in = "/etc/systemd/system/etcd.service.d/version.conf";
    let version = std::fs::read_to_string(scene.hosts[2].path(drop_in)).unwrap();
    scene.hosts[3].write(drop_in, version);
    scene.hosts[3].ssh("systemctl daemon-reload");

    let mut replace = lifeboat().command(["recover", "replace"]);
    replace.arg(spec(3)).args(["m3", "--yes", "--agent"]).arg(scene.agent());
    replace.arg("--state-dir").arg(&scene.state_dir).stdin(Stdio::null());
    // The old one still runs, where the file does not say.
    Run::of(&mut replace).code_is(5).stderr_has(&["m3 is healthy at", &old]);

    scene.hosts[2].cut_power();
    let survivors = Client { endpoints: client.endpoints[..2].to_vec(), ..client.clone() };
    wait_until_healthy(&survivors);
    let run = Run::of(&mut replace).ok();
    assert!(!run.stdout.contains("old data"), "{run}");
    let mut now = survivors.clone();
    now.endpoints.push(client.endpoints[2].replace(&old, &new));
    is_whole_again(&now, &old);
}

/// The cluster's file with the first members on some of the hosts.
fn spec_of(scene: &Scene, on: &[usize]) -> std::path::PathBuf {
    let mut yaml = format!(
        "cluster: prod\nssh: {{user: root, config: {}}}\nhosts:\n",
        scene.hosts.ssh_config().display()
    );
    for (member, host) in on.iter().enumerate() {
        let address = scene.hosts[*host].address();
        yaml += &format!(
            "- {{host: {address}, etcd: {{data-dir: {}}}, member: {{name: {}, peer-urls: ['http://{address}:2380']}}}}\n",
            scene.cluster.data_dir(member),
            scene.cluster.member_name(member),
        );
    }
    let file = scene.hosts.folder().join("prod.yaml");
    std::fs::write(&file, yaml).unwrap();
    file
}

#[test]
fn the_clusters_file_is_found_for_a_replacement_too() {
    let scene = Scene::without_clients(tls(Etcd::V3_5));
    let lost = id_of_last(&scene);
    lose_the_last(&scene, &format!("rm -rf {}", scene.cluster.data_dir(2)));
    let addresses: Vec<_> = scene.hosts.iter().map(|host| host.address().to_string()).collect();
    let file = scene.hosts.folder().join("found.yaml");
    let mut replace = lifeboat().command(["recover", "replace"]);
    replace.arg(&file).args(["m3", "--dry-run", "--cluster", "prod"]);
    replace.args(["--discover", &addresses.join(","), "--ssh-user", "root", "--ssh-config"]);
    replace.arg(scene.hosts.ssh_config()).arg("--agent").arg(scene.agent());
    replace.arg("--state-dir").arg(&scene.state_dir).stdin(Stdio::null());
    let run = Run::of(&mut replace).ok();
    assert!(run.stdout.contains(&format!("member remove {lost}")), "{run}");
}

#[test]
fn a_member_that_is_a_plain_command_is_replaced() {
    let scene = command::scene();
    let lost = id_of_last(&scene);
    let data = scene.cluster.data_dir(2);
    scene.hosts[2].ssh(&format!("kill -KILL $(cat /run/etcd.pid); rm -rf {data}/member/snap"));
    wait_until_healthy(&survivors(&scene));

    Run::of(&mut replace(&scene, "m3", &["--yes"])).ok();
    is_whole_again(&scene.client(), &lost);
    assert_eq!(kept(&scene).len(), 1);
}

/// No kubelet, but what it does with the one manifest: etcd runs while it is there.
const KUBELET: &str = "#!/bin/sh
while :; do
  if [ -e /etc/kubernetes/manifests/etcd.yaml ]; then
    pgrep -x etcd >/dev/null || setpriv --reuid=etcd --regid=etcd --clear-groups \\
      /opt/etcd-3.5/etcd --config-file=/etc/etcd/etcd.conf.yaml </dev/null >>/var/log/etcd.log 2>&1 &
  else
    pkill -x etcd
  fi
  sleep 0.5
done
";

#[test]
fn a_member_that_is_a_static_pod_is_replaced_and_its_manifest_is_as_it_was() {
    let mut scene = Scene::without_clients(tls(Etcd::V3_5).style(UnitStyle::ConfigFile));
    let manifest = "/etc/kubernetes/manifests/etcd.yaml";
    let text = "kind: Pod\nspec:\n  containers:\n  - name: etcd\n    image: etcd:3.5.16-0\n";
    for host in scene.hosts.iter() {
        host.ssh("systemctl disable --quiet --now etcd && rm /etc/systemd/system/etcd.service");
        host.write(manifest, text);
        host.write_script("/usr/local/sbin/kubelet", KUBELET);
        host.ssh("systemd-run --quiet --unit=kubelet /usr/local/sbin/kubelet");
    }
    scene.cluster.wait_until_healthy();
    scene.service = format!("{{static-pod: {manifest}}}");
    let (lost, data) = (id_of_last(&scene), scene.cluster.data_dir(2));
    scene.hosts[2].ssh(&format!("rm -rf {data}/member/wal; pkill -KILL -x etcd"));
    wait_until_healthy(&survivors(&scene));

    Run::of(&mut replace(&scene, "m3", &["--yes"])).ok();
    is_whole_again(&scene.client(), &lost);
    assert_eq!(scene.hosts[2].ssh(&format!("cat {manifest}")).stdout, text);
    assert_eq!(kept(&scene).len(), 1);
}

#[test]
fn a_replacement_killed_at_every_step_comes_to_its_end() {
    let mut scene = Scene::without_clients(tls(Etcd::V3_4).security(Security::Plain));
    let lost = id_of_last(&scene);
    lose_the_last(&scene, &format!("rm -rf {}/member/wal", scene.cluster.data_dir(2)));
    let mut kills = 0;
    while kill_at_step(&mut replace(&scene, "m3", &["--yes"]), kills) {
        kills += 1;
        if kills == 5 {
            let refused = scene.run();
            refused.code_is(5).stderr_has(&["not finished, which replaces m3"]);
            // The machine is lost, too.
            let run = only_run(&scene);
            scene.state_dir = scene.hosts.folder().join("elsewhere");
            let adopted = Run::of(&mut scene.recover("adopt", [&run])).ok();
            adopted.stderr_has(&["recover replace", " m3 --state-dir", "finishes it"]);
        }
    }
    assert!(kills >= 9, "{kills} kills");
    is_whole_again(&scene.client(), &lost);
    assert_eq!(kept(&scene).len(), 1);
    let left = scene.hosts[2].ssh("ls /var/lib/lifeboat/recover | grep '\\.lock$' || true");
    assert_eq!(left.stdout, "");
}

/// The host dies too, with the new member half made: the others are rid of both, and it is used again when it is back.
#[test]
fn a_host_that_dies_in_a_replacement_is_not_waited_for_by_a_rollback() {
    let scene = Scene::without_clients(tls(Etcd::V3_5).security(Security::Plain));
    let lost = id_of_last(&scene);
    lose_the_last(&scene, &format!("rm -rf {}", scene.cluster.data_dir(2)));
    let mut run = Watched::start(&mut replace(&scene, "m3", &["--yes"]));
    assert!(run.wait_for(|line| is_step(line) && line.contains("Start m3")).is_some());
    run.kill();
    run.end();
    scene.hosts[2].cut_power();
    let back = Run::of(&mut scene.recover("rollback", ["--patience", "5s"])).ok();
    assert!(back.stdout.contains("m3: its host could not be reached"), "{back}");
    assert!(!back.stdout.contains("old directory"), "{back}");
    assert!(back.stdout.contains("the old cluster serves: m1, m2 healthy"), "{back}");
    let members = survivors(&scene).etcdctl(["member", "list"]).stdout;
    assert_eq!(members.lines().count(), 2, "{members}");

    scene.hosts[2].power_on();
    Run::of(&mut replace(&scene, "m3", &["--yes"])).code_is(5).stderr_has(&["held by the run"]);
    Run::of(&mut scene.recover("rollback", [""; 0])).ok();
    Run::of(&mut replace(&scene, "m3", &["--yes"])).ok();
    is_whole_again(&scene.client(), &lost);
}

#[test]
fn what_would_cost_the_cluster_its_quorum_or_a_healthy_member_is_refused() {
    let builder = tls(Etcd::V3_5).security(Security::Plain).auth(PASSWORD);
    let mut scene = Scene::without_clients(builder);
    for host in scene.hosts.iter() {
        host.write("/etc/etcd/password", format!("{PASSWORD}\n"));
    }
    let since: Vec<u64> = scene.hosts.iter().map(|host| host.active_since("etcd")).collect();
    let before = scene.client().etcdctl(["member", "list"]).stdout;

    // Who is refused by the members does not take that for a cluster without quorum.
    let refused = Run::of(&mut replace(&scene, "m3", &["--yes"]));
    refused.code_is(5).stderr_has(&["the members refuse who asks", "etcd.user"]);
    scene.run().code_is(5).stderr_has(&["refuses to be asked", "etcd.user"]);
    scene.more_etcd = "  user: root\n  password-file: /etc/etcd/password\n".to_owned();
    let healthy = Run::of(&mut replace(&scene, "m3", &["--yes"]));
    healthy.code_is(5).stderr_has(&["m3 is healthy", "--even-though-healthy"]);
    let unknown = Run::of(&mut replace(&scene, "m9", &["--yes"]));
    unknown.code_is(2).stderr_has(&["no member m9; it has m1, m2, m3"]);
    let now: Vec<u64> = scene.hosts.iter().map(|host| host.active_since("etcd")).collect();
    assert_eq!(now, since);
    assert_eq!(scene.client().etcdctl(["member", "list"]).stdout, before);

    // Taken back before the member was removed, all is as it was.
    let stop = Gate::before(&scene.hosts[2], "systemctl", "'stop etcd.service'");
    let mut run = Watched::start(&mut replace(&scene, "m3", &["--yes", "--even-though-healthy"]));
    assert!(run.wait_for(|line| is_step(line) && line.contains("Stop")).is_some());
    stop.wait();
    // Its machine sleeps, as a laptop that is closed. What it finds when it wakes up is no business of its any more.
    let id = Pid::from_raw(i32::try_from(run.child.id()).unwrap()).unwrap();
    kill_process(id, Signal::STOP).unwrap();
    stop.open();
    let name = only_run(&scene);
    let elsewhere = scene.hosts.folder().join("elsewhere");
    let here = std::mem::replace(&mut scene.state_dir, elsewhere);
    Run::of(&mut scene.recover("adopt", [&name])).ok();
    kill_process(id, Signal::CONT).unwrap();
    run.end().code_is(1).stderr_has(&["not held by this process any more"]);
    // On its machine, nobody is asked to confirm what is refused.
    let elsewhere = std::mem::replace(&mut scene.state_dir, here);
    let over = Run::of(&mut replace(&scene, "m3", &["--even-though-healthy"])).code_is(5);
    over.stderr_has(&["was taken over", &format!("adopt {} {name}", scene.spec().display())]);
    scene.state_dir = elsewhere;
    Run::of(&mut scene.recover("rollback", [""; 0])).ok();
    wait_until_healthy(&scene.client());
    assert_eq!(scene.client().etcdctl(["member", "list"]).stdout, before);

    for host in scene.hosts.iter().skip(1) {
        host.ssh("systemctl kill --signal=KILL etcd; systemctl stop etcd");
    }
    let lost = Run::of(&mut replace(&scene, "m3", &["--yes"]));
    lost.code_is(5).stderr_has(&["the cluster has no quorum", "recover run", "--from-member"]);
    let held = "/etc/systemd/system/etcd.service.d/lifeboat-recover.conf";
    assert!(!scene.hosts[2].path(held).exists() && scene.hosts[0].is_active("etcd"));
}
