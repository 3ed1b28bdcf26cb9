//! `recover plan --discover` on real Debian hosts: what is found is what was laid out there.

use std::path::Path;
use std::process::{Command, Output};
use testbed::{Etcd, EtcdOnHosts, Hosts, Security, UnitStyle, until};

/// Runs `lifeboat recover plan` for a file that shall be made; by a user who needs sudo.
fn plan(hosts: &Hosts, file: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lifeboat"))
        .args(["recover", "plan"])
        .arg(file)
        .args(["--cluster=prod", "--ssh-user=ops"])
        .arg(format!("--ssh-config={}", hosts.ssh_config().display()))
        .args(more)
        .output()
        .expect("lifeboat is built")
}

/// Runs `lifeboat recover plan` for a file that is there.
fn plan_as_it_is(file: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    command.args(["recover", "plan"]).arg(file).output().expect("lifeboat is built")
}

fn addresses(hosts: &Hosts) -> Vec<String> {
    hosts.iter().map(|host| host.address().to_string()).collect()
}

/// The file that was made; a plan of it needs a backup, and fails without one after it was written.
#[track_caller]
fn found(output: &Output, file: &Path) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[track_caller]
fn assert_has(yaml: &str, lines: &[&str]) {
    let has = |line: &&&str| yaml.lines().any(|there| there.trim() == **line);
    let missing: Vec<_> = lines.iter().filter(|line| !has(line)).collect();
    assert!(missing.is_empty(), "{missing:?} are not in\n{yaml}");
}

#[test]
fn every_style_of_unit_is_found_while_etcd_runs_and_when_it_is_dead() {
    let hosts = Hosts::start(3);
    for (style, security, dead) in [
        (UnitStyle::EnvironmentFile, Security::Tls, true),
        (UnitStyle::Flags, Security::Tls, false),
        (UnitStyle::ConfigFile, Security::Plain, true),
    ] {
        let cluster =
            EtcdOnHosts::builder(Etcd::V3_5).style(style).security(security).start(&hosts);
        if dead {
            for host in hosts.iter() {
                host.ssh("systemctl kill -s KILL etcd; systemctl stop etcd");
            }
        }
        let file = hosts.folder().join(format!("{style:?}.yaml"));
        let output = plan(&hosts, &file, &["--discover", &addresses(&hosts).join(",")]);
        let yaml = found(&output, &file);
        assert!(!yaml.contains('#'), "{style:?} left something open:\n{yaml}");
        assert_has(&yaml, &["cluster: prod", "systemd: etcd", "version: \"3.5\""]);
        for index in 0..3 {
            let name = format!("name: {}", cluster.member_name(index));
            let peer = format!("- {}", cluster.peer_url(index));
            let data_dir = format!("data-dir: {}", cluster.data_dir(index));
            assert_has(&yaml, &[&name, &peer, &data_dir]);
        }
        if security == Security::Tls {
            assert_has(
                &yaml,
                &[
                    "ca: /etc/etcd/pki/ca.pem",
                    "cert: /etc/etcd/pki/client.pem",
                    "key: /etc/etcd/pki/client-key.pem",
                ],
            );
        }
        cluster.remove(&hosts);
    }
}

#[test]
fn clients_are_found_from_a_live_member_and_what_contradicts_is_told() {
    let hosts = Hosts::start(2);
    let cluster = EtcdOnHosts::builder(Etcd::V3_4).security(Security::Plain).start(&hosts);
    cluster.start_kube(&hosts[0]);
    cluster.start_kube(&hosts[1]);

    let file = hosts.folder().join("live.yaml");
    let output = plan(&hosts, &file, &["--from-endpoint", &cluster.client_url(1)]);
    let yaml = found(&output, &file);
    assert!(!yaml.contains('#'), "{yaml}");
    assert_has(&yaml, &["- systemd: kube-apiserver", "- systemd: kube-scheduler"]);
    assert!(yaml.contains("https://127.0.0.1:6443/readyz"), "{yaml}");

    let again = plan(&hosts, &file, &["--from-endpoint", &cluster.client_url(1)]);
    assert_eq!(again.status.code(), Some(5), "a file that is there is not written over: {again:?}");

    // The administrator has copied one host's settings to the other.
    let settings = hosts[0].ssh("cat /etc/default/etcd").stdout;
    hosts[1].ssh("systemctl stop etcd");
    hosts[1].write("/etc/default/etcd", &settings);
    let file = hosts.folder().join("copied.yaml");
    let output = plan(&hosts, &file, &["--discover", &addresses(&hosts).join(",")]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let yaml = found(&output, &file);
    assert!(yaml.contains("# CONTRADICTION: "), "{yaml}");
    assert!(yaml.contains("have the same member \"m1\""), "{yaml}");
}

#[test]
fn a_host_that_does_not_answer_leaves_the_others_found() {
    let hosts = Hosts::start(2);
    EtcdOnHosts::builder(Etcd::V3_5).security(Security::Plain).start(&hosts);
    hosts[1].cut_power();
    let file = hosts.folder().join("half.yaml");
    let output = plan(
        &hosts,
        &file,
        &["--ssh-option=ConnectTimeout=30", "--discover", &addresses(&hosts).join(",")],
    );
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let yaml = found(&output, &file);
    assert_has(&yaml, &["name: m1"]);
    assert!(yaml.contains("did not answer"), "{yaml}");
    assert!(yaml.contains("knows a member \"m2\""), "{yaml}");
}

#[test]
fn a_file_that_leaves_nothing_open_is_planned_at_once_and_again() {
    let hosts = Hosts::start(1);
    let cluster = EtcdOnHosts::builder(Etcd::V3_5).start(&hosts);
    let snapshot = hosts.folder().join("snapshot.db");
    let saved = snapshot.to_str().expect("a plain path");
    let client = cluster.client();
    client.put("a", "1");
    client.etcdctl(["snapshot", "save", saved]);

    let file = hosts.folder().join("whole.yaml");
    let output = plan(&hosts, &file, &["--backup", saved, "--discover", &addresses(&hosts)[0]]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let yaml = found(&output, &file);
    assert_has(&yaml, &[&format!("file: {saved}")]);
    let runbook = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(runbook.contains(&cluster.data_dir(0)), "{runbook}");

    let again = plan_as_it_is(&file);
    assert_eq!(again.status.code(), Some(0), "{again:?}");
}

/// Goal: docs/runbook.md, step 2, and step 0 of what is done by hand: what only the last data directory holds is brought back.
#[test]
fn a_cluster_is_found_and_rescued_from_the_only_data_directory_that_is_left() {
    let hosts = Hosts::start(3);
    let cluster = EtcdOnHosts::builder(Etcd::V3_5).start(&hosts);
    let client = cluster.client();
    client.put("rescued", "yes");
    // A majority has agreed on it, of which the one that is left need not be: it answers when it has all.
    let has_it = || client.try_etcdctl_at(1, ["get", "rescued"]).stdout == "rescued\nyes\n";
    until("the last write, from m2", || has_it().then_some(()), String::new);
    for (index, host) in hosts.iter().enumerate() {
        host.ssh("systemctl kill -s KILL etcd; systemctl stop etcd");
        if index != 1 {
            host.ssh(&format!("rm -rf {}", cluster.data_dir(index)));
        }
    }
    let file = hosts.folder().join("rescue.yaml");
    let output = plan(&hosts, &file, &["--discover", &addresses(&hosts).join(",")]);
    let yaml = found(&output, &file);
    assert!(!yaml.contains('#'), "{yaml}");

    let binary = std::fs::read(env!("CARGO_BIN_EXE_lifeboat")).expect("lifeboat is built");
    hosts[1].write("/usr/local/bin/lifeboat", binary);
    hosts[1].ssh(&format!(
        "chmod 755 /usr/local/bin/lifeboat && lifeboat snapshot save /var/tmp/rescue.db --data-dir {}",
        cluster.data_dir(1)
    ));
    let rescue = hosts.folder().join("rescue.db");
    std::fs::copy(hosts[1].path("/var/tmp/rescue.db"), &rescue).expect("it was saved");

    let run = Command::new(env!("CARGO_BIN_EXE_lifeboat"))
        .args(["recover", "run"])
        .arg(&file)
        .arg("--backup")
        .arg(&rescue)
        .arg("--yes")
        .env("LIFEBOAT_STATE_DIR", hosts.folder().join("state"))
        .output()
        .expect("lifeboat is built");
    assert_eq!(run.status.code(), Some(0), "{}", String::from_utf8_lossy(&run.stderr));
    let got = cluster.client().etcdctl(["get", "rescued", "--print-value-only"]);
    assert_eq!(got.stdout, "yes\n");
}

#[test]
fn a_static_pod_is_found_with_its_folders_on_the_host() {
    let hosts = Hosts::start(1);
    let address = hosts[0].address().to_string();
    let manifest = format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: etcd, namespace: kube-system}}
spec:
  containers:
  - name: etcd
    image: registry.k8s.io/etcd:3.5.12-0
    command:
    - etcd
    - --name=cp1
    - --data-dir=/var/lib/etcd
    - --initial-advertise-peer-urls=http://{address}:2380
    - --advertise-client-urls=http://{address}:2379
    - --initial-cluster=cp1=http://{address}:2380
    volumeMounts: [{{mountPath: /var/lib/etcd, name: etcd-data}}]
  volumes: [{{name: etcd-data, hostPath: {{path: /srv/etcd, type: DirectoryOrCreate}}}}]
"
    );
    hosts[0].ssh("mkdir -p /etc/kubernetes/manifests /srv/etcd/member");
    hosts[0].write("/etc/kubernetes/manifests/etcd.yaml", manifest);
    let apiserver = "spec: {containers: [{command: [kube-apiserver, --secure-port=6444]}]}\n";
    hosts[0].write("/etc/kubernetes/manifests/kube-apiserver.yaml", apiserver);

    let file = hosts.folder().join("pod.yaml");
    let yaml = found(&plan(&hosts, &file, &["--discover", &address]), &file);
    // Debian's package is installed there too; its unit never ran, so it is not worth a word.
    assert!(!yaml.contains('#'), "{yaml}");
    assert_has(
        &yaml,
        &[
            "data-dir: /srv/etcd",
            "static-pod: /etc/kubernetes/manifests/etcd.yaml",
            "- static-pod: /etc/kubernetes/manifests/kube-apiserver.yaml",
            "name: cp1",
        ],
    );
    assert!(yaml.contains("https://127.0.0.1:6444/readyz"), "{yaml}");
}
