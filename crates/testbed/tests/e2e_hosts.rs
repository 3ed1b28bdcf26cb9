//! The Debian hosts themselves: what the tests of `lifeboat recover` take for granted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use testbed::{Etcd, EtcdOnHosts, Hosts, Run, Security, UnitStyle};

#[test]
fn three_hosts_boot_and_run_members_of_either_version_as_units_with_tls() {
    let began = Instant::now();
    let hosts = Hosts::start(3);
    eprintln!("three hosts took {:?}", began.elapsed());
    for host in hosts.iter() {
        assert_eq!(host.ssh("systemctl is-system-running --wait").stdout, "running\n");
        assert_eq!(host.ssh("hostname").stdout.trim(), host.name());
        assert_eq!(host.ssh_as("ops", "sudo -n id -u").stdout, "0\n");
        eprintln!("{} takes {} KiB", host.name(), host.memory_bytes() / 1024);
    }

    for (version, style) in [
        (Etcd::V3_4, UnitStyle::EnvironmentFile),
        (Etcd::V3_5, UnitStyle::EnvironmentFile),
        (Etcd::V3_5, UnitStyle::Flags),
        (Etcd::V3_4, UnitStyle::ConfigFile),
    ] {
        let cluster = EtcdOnHosts::builder(version).style(style).start(&hosts);
        let client = cluster.client();
        let revision = client.write_sample();
        assert_eq!(client.hashkv(revision).len(), 3);
        client.common_hashkv(revision);
        for (index, host) in hosts.iter().enumerate() {
            assert!(host.path(cluster.data_dir(index)).join("member/snap/db").is_file());
            let own = format!(
                "ETCDCTL_API=3 {} {} endpoint health",
                cluster.etcdctl_on_host(),
                cluster.flags_on_host(),
            );
            host.ssh(&own);
            let server = host.ssh("readlink /proc/$(systemctl show -P MainPID etcd)/exe").stdout;
            assert_eq!(server.trim(), cluster.server_on_host());
            eprintln!("{} takes {} KiB with etcd", host.name(), host.memory_bytes() / 1024);
        }
        cluster.remove(&hosts);
    }
}

#[test]
fn a_cluster_with_auth_asks_for_the_password() {
    let hosts = Hosts::start(1);
    let plain = EtcdOnHosts::builder(Etcd::V3_5).security(Security::Plain).auth("s3cret");
    let cluster = plain.start(&hosts);
    cluster.client().put("a", "1");
    let nobody = testbed::Client { flags: Vec::new(), ..cluster.client() };
    nobody.try_etcdctl(["get", "a"]).code_is(1).stderr_has(&["user name is empty"]);
}

#[test]
fn ssh_knows_the_hosts_and_refuses_one_whose_key_has_changed() {
    let mut hosts = Hosts::start(2);
    let ssh = |config: &Path, to: &str| {
        Run::of(Command::new("ssh").arg("-F").arg(config).args([to, "true"]))
    };
    let config = hosts.ssh_config();
    ssh(&config, "h1").ok();
    ssh(&config, &hosts[1].address().to_string()).ok();

    hosts[1].change_host_key();
    ssh(&config, "h2").code_is(255).stderr_has(&["Host key verification failed"]);
    ssh(&config, "h1").ok();

    let known = std::fs::read_to_string(hosts.known_hosts()).unwrap();
    std::fs::write(hosts.known_hosts(), "").unwrap();
    ssh(&config, "h1").code_is(255).stderr_has(&["Host key verification failed"]);
    std::fs::write(hosts.known_hosts(), known).unwrap();

    hosts.add();
    ssh(&config, "h3").ok();
    assert!(hosts.host("h3").ssh("cat /etc/hosts").stdout.contains("h1"));
}

#[test]
fn a_host_without_power_comes_back_with_its_data() {
    let hosts = Hosts::start(3);
    let cluster = EtcdOnHosts::builder(Etcd::V3_4).start(&hosts);
    let client = cluster.client();
    client.put("a", "1");

    hosts[2].cut_power();
    assert_eq!(hosts[2].memory_bytes(), 0);
    assert_ne!(hosts[2].try_ssh("true").code, Some(0));
    client.put("b", "2");
    hosts[2].power_on();
    cluster.wait_until_healthy();
    let revision = client.revision();
    client.common_hashkv(revision);

    hosts[1].reboot();
    cluster.wait_until_healthy();
    hosts[0].power_off();
    hosts[0].power_on();
    cluster.wait_until_healthy();
    assert_eq!(client.etcdctl(["get", "a", "--prefix"]).stdout, "a\n1\n");
}

#[test]
fn a_host_loses_its_network_and_its_disk_fills_up() {
    let hosts = Hosts::start(2);
    hosts[1].cut_network();
    // Nothing comes for a while, or the kernel has given up by then.
    let cut = hosts[0].try_ssh("curl -sS --max-time 2 telnet://h2:22 </dev/null");
    assert!(matches!(cut.code, Some(7 | 28)), "{cut}");
    hosts[1].restore_network();
    hosts[1].ssh("true");

    hosts[0].fill_disk(1 << 20);
    let filled = hosts[0].try_ssh("dd if=/dev/zero of=/var/lib/etcd/big bs=64K count=64");
    filled.code_is(1).stderr_has(&["No space left on device"]);
    hosts[1].ssh("dd if=/dev/zero of=/var/lib/etcd/big bs=64K count=64");
    hosts[0].empty_disk();
    hosts[0].ssh("dd if=/dev/zero of=/var/lib/etcd/big bs=64K count=64");
}

#[test]
fn the_stand_ins_of_kubernetes_are_ready_while_etcd_answers() {
    let hosts = Hosts::start(1);
    let cluster = EtcdOnHosts::builder(Etcd::V3_5).start(&hosts);
    cluster.start_kube(&hosts[0]);
    for unit in ["kube-scheduler", "kube-controller-manager"] {
        assert!(hosts[0].is_active(unit), "{}", hosts[0].journal(unit));
        assert!(hosts[0].active_since(unit) > 0);
    }
    // It was ready, and is not for a moment if it has to wait for etcd or for a processor.
    let ready = "curl -fsk https://127.0.0.1:6443/readyz";
    let answer = hosts[0].ssh(&format!("until {ready}; do sleep 0.1; done"));
    assert_eq!(answer.stdout, "ok\n");
    hosts[0].ssh("systemctl stop etcd");
    hosts[0].ssh(&format!("while {ready}; do sleep 0.1; done"));
    hosts[0].ssh("systemctl start etcd");
    hosts[0].ssh(&format!("until {ready}; do sleep 0.1; done"));
}

/// Goal: nothing of a killed run is left after the next. Method: this test runs itself again as a child
/// that boots a host and says where it is, and kills that. Other tests boot hosts meanwhile: any of them may be the
/// next, and have the same number then, so it is looked for what only the killed run can have left.
#[test]
fn what_a_killed_run_left_is_swept_by_the_next() {
    const CHILD: &str = "LIFEBOAT_TEST_SWEPT";
    let boot = |mark: &str| {
        let hosts = Hosts::start(1);
        hosts[0].write(&format!("/var/{mark}"), "");
        let folder = hosts.folder().parent().unwrap().to_owned();
        (hosts, folder)
    };
    if let Ok(mark) = std::env::var(CHILD) {
        let (_hosts, folder) = boot(&mark);
        println!("folder {}", folder.display());
        loop {
            std::thread::park();
        }
    }
    let [first, second] = ["first", "second"].map(|run| format!("{run}-of-{}", std::process::id()));
    let left_in = |folder: &Path, mark: &str| folder.join("h1/root").join("var").join(mark);
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "what_a_killed_run_left_is_swept_by_the_next", "--nocapture"]);
    child.env(CHILD, &first).stdout(std::process::Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let line = lines.find_map(|line| line.ok()?.strip_prefix("folder ").map(str::to_owned));
    let folder = PathBuf::from(line.expect("the child says where it is"));
    assert!(left_in(&folder, &first).exists());
    let processes = processes_of(&folder);
    assert!(!processes.is_empty());
    child.kill().unwrap();
    child.wait().unwrap();

    let (hosts, own) = boot(&second);
    assert!(!left_in(&folder, &first).exists(), "its disk is gone");
    let still: Vec<_> = processes.intersection(&processes_now()).cloned().collect();
    assert!(still.is_empty(), "{still:?}");
    assert!(left_in(&own, &second).exists());
    drop(hosts);
    assert!(!left_in(&own, &second).exists());
}

/// A process is its number and when it began, in the kernel's ticks: the number alone is given again.
type Process = (u32, String);

/// All processes of this machine.
fn processes_now() -> BTreeSet<Process> {
    let entries = std::fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter_map(began).collect()
}

/// Those of the hosts of a run.
fn processes_of(folder: &Path) -> BTreeSet<Process> {
    let groups = std::fs::read_to_string(folder.join("groups")).expect("a run lists its groups");
    let mut groups: Vec<_> = groups.lines().map(PathBuf::from).collect();
    let mut found = BTreeSet::new();
    while let Some(group) = groups.pop() {
        let ids = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        found.extend(ids.lines().filter_map(|id| began(id.parse().ok()?)));
        let below = std::fs::read_dir(&group).into_iter().flatten().flatten();
        groups.extend(below.map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    found
}

fn began(id: u32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name before it may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // One that has ended stays in the list until it is asked for, which nobody may do.
    (fields[0] != "Z").then(|| (id, fields[19].to_owned()))
}
