//! Command lines that people have in their scripts, run through a link named `etcdctl`.

use std::path::Path;

use testbed::{Cluster, Etcd, Run, Security, Tool, until};

use crate::{judged_by, lifeboat, listing, text};

/// A cluster, and lifeboat through a link named `etcdctl` in a folder of its own.
struct Stage {
    cluster: Cluster,
    etcdctl: Tool,
    folder: tempfile::TempDir,
}

impl Stage {
    fn set(security: Security, members: usize) -> Self {
        let cluster = Cluster::builder(Etcd::V3_4).security(security).members(members).start();
        cluster.put("greeting", "hello");
        // Whichever member a snapshot is taken from has it.
        cluster.common_hashkv(cluster.revision());
        let folder = tempfile::tempdir().unwrap();
        let etcdctl = lifeboat().linked_as("etcdctl", folder.path());
        Self { cluster, etcdctl, folder }
    }

    /// Runs a line as a shell would: words, and `NAME=value` before them.
    #[track_caller]
    fn line(&self, line: &str) -> Run {
        let words: Vec<&str> = line.split_whitespace().collect();
        let command = words.iter().position(|word| *word == "etcdctl").expect("a line of etcdctl");
        let mut run = self.etcdctl.command(&words[command + 1..]);
        for variable in &words[..command] {
            let (name, value) = variable.split_once('=').expect("NAME=value");
            run.env(name, value);
        }
        Run::of(run.current_dir(self.folder.path()))
    }

    /// `--cert=… --key=… --cacert=…` under the given names.
    fn certificates(&self, cert: &str, key: &str, ca: &str) -> String {
        let certificates = self.cluster.certificates();
        let (cert_file, key_file) = certificates.client();
        format!(
            "--{cert}={} --{key}={} --{ca}={}",
            text(&cert_file),
            text(&key_file),
            text(&certificates.ca())
        )
    }

    fn good_snapshot(&self, name: &str) {
        judged_by(Etcd::V3_4, &["snapshot", "status", text(&self.folder.path().join(name))]);
    }
}

#[test]
fn a_save_from_the_default_variables_as_in_a_cron_job() {
    let stage = Stage::set(Security::Plain, 1);
    let endpoint = stage.cluster.client_url(0);
    stage
        .line(&format!("ETCDCTL_API=3 ETCDCTL_ENDPOINTS={endpoint} etcdctl snapshot save X.db"))
        .ok();
    stage.good_snapshot("X.db");
    let bare = endpoint.strip_prefix("http://").unwrap();
    stage.line(&format!("ETCDCTL_API=3 etcdctl --endpoints {bare} snapshot save Y.db")).ok();
    stage.good_snapshot("Y.db");
}

#[test]
fn a_save_with_three_endpoints_and_certificates_flags_first_or_last() {
    let stage = Stage::set(Security::Tls, 3);
    let endpoints = stage.cluster.endpoints();
    let tls = stage.certificates("cert", "key", "cacert");
    stage.line(&format!("etcdctl --endpoints={endpoints} {tls} snapshot save X.db")).ok();
    stage.good_snapshot("X.db");
    stage.line(&format!("etcdctl snapshot save Y.db --endpoints={endpoints} {tls}")).ok();
    stage.good_snapshot("Y.db");
    let old = stage.certificates("cert-file", "key-file", "ca-file");
    stage.line(&format!("etcdctl snapshot {old} --endpoints={endpoints} save Z.db")).ok();
    stage.good_snapshot("Z.db");
}

#[test]
fn the_variables_of_the_connection_flags() {
    let stage = Stage::set(Security::Tls, 1);
    let certificates = stage.cluster.certificates();
    let (cert, key) = certificates.client();
    let variables = format!(
        "ETCDCTL_ENDPOINTS={} ETCDCTL_CACERT={} ETCDCTL_CERT={} ETCDCTL_KEY={}",
        stage.cluster.endpoints(),
        text(&certificates.ca()),
        text(&cert),
        text(&key)
    );
    stage.line(&format!("{variables} etcdctl snapshot save X.db")).ok();
    let list = stage.line(&format!("ETCDCTL_WRITE_OUT=json {variables} etcdctl member list")).ok();
    assert_eq!(list.json()["members"].as_array().map(Vec::len), Some(1));
}

#[test]
fn status_restore_member_list_and_cluster_health_as_they_stand_in_runbooks() {
    let mut stage = Stage::set(Security::Tls, 3);
    let endpoints = stage.cluster.endpoints();
    let tls = stage.certificates("cert", "key", "cacert");
    stage.line(&format!("etcdctl --endpoints={endpoints} {tls} snapshot save X.db")).ok();

    let status = stage.line("ETCDCTL_API=3 etcdctl --write-out=table snapshot status X.db").ok();
    let file = stage.folder.path().join("X.db");
    let theirs = judged_by(Etcd::V3_4, &["--write-out=table", "snapshot", "status", text(&file)]);
    assert_eq!(status.stdout, theirs.stdout);

    stage.cluster.kill_all();
    let data = stage.cluster.set_data_aside();
    let old = stage.certificates("cert-file", "key-file", "ca-file");
    for (index, member) in stage.cluster.members().iter().enumerate() {
        let name = member.name();
        stage
            .line(&format!(
                "ETCDCTL_API=3 etcdctl snapshot {old} restore X.db --name={name} \
                 --data-dir={} --initial-cluster={} --initial-cluster-token=again \
                 --initial-advertise-peer-urls={}",
                text(&data.join(name)),
                stage.cluster.initial_cluster(),
                stage.cluster.peer_url(index),
            ))
            .ok();
    }
    stage.cluster.start_all();
    assert_eq!(stage.cluster.etcdctl(["get", "greeting"]).stdout, "greeting\nhello\n");

    let list = format!("etcdctl --endpoints={endpoints} {tls} member list");
    let (ours, theirs) = (|| stage.line(&list).ok(), || stage.cluster.etcdctl(["member", "list"]));
    // Each member says what it knows, and one may hear a little later than another that a third has started.
    let same = || (ours().stdout == theirs().stdout).then_some(());
    until("the same list", same, || format!("{}{}", ours(), theirs()));
    let ca_only = stage.certificates("cert-file", "key-file", "ca-file");
    let health =
        || stage.line(&format!("etcdctl {ca_only} --endpoints={endpoints} cluster-health"));
    let is_healthy = |run: &Run| run.stdout.contains("cluster is healthy");
    until("health", || Some(health()).filter(is_healthy), || health().to_string()).ok();
}

#[test]
fn a_link_named_etcdutl_takes_the_line_of_etcdutl() {
    let folder = tempfile::tempdir().unwrap();
    let etcdutl = lifeboat().linked_as("etcdutl", folder.path());
    let snapshot = testbed::fixtures::fixture("3.5.30/final.db");
    let status = etcdutl.run(["snapshot", "status", text(&snapshot), "-w", "json"]).ok();
    let theirs = judged_by(Etcd::V3_5_30, &["snapshot", "status", text(&snapshot), "-w", "json"]);
    assert_eq!(status.stdout, theirs.stdout);
    let data_dir = folder.path().join("data");
    etcdutl.run(["snapshot", "restore", text(&snapshot), "--data-dir", text(&data_dir)]).ok();
    assert_eq!(listing(&data_dir.join("member")), ["snap", "wal"]);
    assert_db_is_readable(&data_dir);
}

fn assert_db_is_readable(data_dir: &Path) {
    testbed::bolt_check(&data_dir.join("member/snap/db"));
}
