//! `lifeboat recover` on real Debian hosts: a cluster of etcd units is lost and comes back.
//!
//! Each test has hosts of its own ([`testbed::Hosts`]), a cluster on them with stand-ins of Kubernetes' units, and a
//! backup. Needs root, and what `tools/install.sh test` brings; `./test e2e` runs all of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command;
mod faults;
mod guards;
mod killed;
mod lost_hosts;
mod new_hosts;
mod pull;
mod replace;
mod rescue;
mod secrets;
mod sizes;
mod wal_dir;
mod whole;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use testbed::{
    Client, Etcd, EtcdOnHosts, EtcdOnHostsBuilder, Host, Hosts, KeyValue, Run, Tool, until,
};

/// What the cluster's file says of clients; the scheduler's place is behind the API server's.
const CLIENTS: &str = "clients:
- {systemd: kube-apiserver, ready: 'https://127.0.0.1:6443/readyz'}
- {systemd: kube-scheduler}
- {systemd: kube-controller-manager}
";

/// A key whose value says which life of the cluster it is from.
const GENERATION: &str = "generation";
const BACKED_UP: &str = "backed up";

/// A cluster on hosts, and a backup of it.
struct Scene {
    // Before `hosts`: certificates and the like may go first.
    cluster: EtcdOnHosts,
    /// The user of ssh.
    user: &'static str,
    with_kube: bool,
    /// How etcd is run, as the cluster's file says it.
    service: String,
    /// More for the section `etcd` of the cluster's file, as lines of two spaces and a key.
    more_etcd: String,
    /// Another data directory in the cluster's file than the one that this member has.
    misplaced: Option<usize>,
    /// The hosts that have a member in the cluster's file; the others are only stopped.
    members: Vec<usize>,
    /// Where plans and journals are.
    state_dir: PathBuf,
    revision: i64,
    keys: Vec<KeyValue>,
    hosts: Hosts,
}

impl Scene {
    /// Three hosts with the cluster, its clients, and its backup; and a write that no backup has.
    #[track_caller]
    fn new(builder: EtcdOnHostsBuilder) -> Self {
        Self::with(builder, true)
    }

    /// The same, without what uses etcd.
    #[track_caller]
    fn without_clients(builder: EtcdOnHostsBuilder) -> Self {
        Self::with(builder, false)
    }

    #[track_caller]
    fn with(builder: EtcdOnHostsBuilder, with_kube: bool) -> Self {
        Self::on(Hosts::builder().disk_bytes(3 << 30).start(3), builder, with_kube)
    }

    /// The same on hosts that were prepared.
    #[track_caller]
    fn on(hosts: Hosts, builder: EtcdOnHostsBuilder, with_kube: bool) -> Self {
        let cluster = builder.start(&hosts);
        if with_kube {
            hosts.iter().for_each(|host| cluster.start_kube(host));
        }
        let client = cluster.client();
        client.put(GENERATION, BACKED_UP);
        let revision = client.write_sample();
        let keys = client.keys_at(revision);
        let mut scene = Self::of(hosts, cluster, with_kube);
        (scene.revision, scene.keys) = (revision, keys);
        scene.save(&scene.cluster.connection_flags());
        scene.live_on("after the backup");
        scene
    }

    /// A cluster that has no backup yet.
    fn of(hosts: Hosts, cluster: EtcdOnHosts, with_kube: bool) -> Self {
        Self {
            cluster,
            user: "root",
            with_kube,
            service: "{systemd: etcd}".to_owned(),
            more_etcd: String::new(),
            misplaced: None,
            members: (0..hosts.len()).collect(),
            state_dir: hosts.folder().join("state"),
            revision: 0,
            keys: Vec::new(),
            hosts,
        }
    }

    /// Backs up the cluster that is there.
    #[track_caller]
    fn save(&self, connection_flags: &[String]) {
        let mut save = lifeboat().command(["snapshot", "save"]);
        Run::of(save.arg(self.snapshot()).args(connection_flags)).ok();
    }

    /// A client of the members that the cluster's file has.
    fn client(&self) -> Client {
        let endpoints = self.members.iter().map(|index| self.cluster.client_url(*index)).collect();
        Client { endpoints, ..self.cluster.client() }
    }

    /// A snapshot file with the backup.
    fn snapshot(&self) -> PathBuf {
        self.hosts.folder().join("backup.db")
    }

    /// The binary for the hosts: a build for debugging is much larger than the one for users, so what only
    /// a debugger needs is left out.
    fn agent(&self) -> PathBuf {
        let file = self.hosts.folder().join("lifeboat");
        if !file.exists() {
            let mut strip = Command::new("strip");
            Run::of(strip.arg("-o").arg(&file).arg(env!("CARGO_BIN_EXE_lifeboat"))).ok();
        }
        file
    }

    /// Writes what the backup has not.
    #[track_caller]
    fn live_on(&self, generation: &str) {
        self.client().put(GENERATION, generation);
    }

    /// The cluster's file.
    fn spec(&self) -> PathBuf {
        let mut yaml = format!(
            "cluster: prod\nbackup: {{file: {}}}\nssh: {{user: {}, config: {}}}\n",
            self.snapshot().display(),
            self.user,
            self.hosts.ssh_config().display(),
        );
        yaml += &format!("etcd:\n  service: {}\n", self.service);
        if self.cluster.client_url(0).starts_with("https") {
            yaml += "  certificates:\n    ca: /etc/etcd/pki/ca.pem\n    \
                     cert: /etc/etcd/pki/client.pem\n    key: /etc/etcd/pki/client-key.pem\n";
        }
        yaml += &self.more_etcd;
        if self.with_kube {
            yaml += CLIENTS;
        }
        yaml += "hosts:\n";
        for (index, host) in self.hosts.iter().enumerate() {
            let mut data_dir = self.cluster.data_dir(index);
            if self.misplaced == Some(index) {
                data_dir += "-elsewhere";
            }
            yaml += &format!("- host: {}\n  etcd: {{data-dir: {data_dir}}}\n", host.address());
            if self.members.contains(&index) {
                yaml += &format!(
                    "  member: {{name: {}, peer-urls: ['{}'], client-urls: ['{}']}}\n",
                    self.cluster.member_name(index),
                    self.cluster.peer_url(index),
                    self.cluster.client_url(index),
                );
            }
        }
        let file = self.hosts.folder().join("prod.yaml");
        std::fs::write(&file, yaml).unwrap();
        file
    }

    /// `recover COMMAND` for this cluster, not yet started.
    fn recover<A: AsRef<OsStr>>(
        &self,
        command: &str,
        more: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut recover = lifeboat().command(["recover", command]);
        match command {
            "run" => drop(recover.arg(self.spec()).arg("--yes").arg("--agent").arg(self.agent())),
            "plan" => drop(recover.arg(self.spec()).arg("--agent").arg(self.agent())),
            "adopt" => drop(recover.arg(self.spec())),
            "rollback" => drop(recover.args(["prod", "--yes"])),
            _ => drop(recover.arg("prod")),
        }
        recover.arg("--state-dir").arg(&self.state_dir).args(more);
        recover.stdin(Stdio::null());
        recover
    }

    /// `recover run` to its end.
    fn run(&self) -> Run {
        Run::of(&mut self.recover("run", [""; 0]))
    }

    /// The same, though the cluster may live.
    fn run_over_the_living(&self) -> Command {
        self.recover("run", ["--even-though-healthy"])
    }

    /// Every member is killed, and stays down.
    #[track_caller]
    fn lose_all_members(&self) {
        for host in self.hosts.iter() {
            host.ssh("systemctl kill --signal=KILL etcd; systemctl stop etcd");
        }
    }

    /// All that the backup has is served by every member, and nothing else; the members are those planned.
    #[track_caller]
    fn serves_the_backup(&self) {
        if self.members.len() == self.hosts.len() {
            self.cluster.wait_until_healthy();
        }
        let client = self.client();
        let revision = client.revision();
        assert!(revision >= self.revision);
        let keys = client.keys_at(revision);
        assert_eq!(keys.len(), self.keys.len());
        assert!(keys == self.keys, "keys differ from the backup's");
        client.common_hashkv(revision);
        let members = client.etcdctl(["member", "list"]).stdout;
        assert_eq!(members.lines().count(), self.members.len(), "{members}");
        for index in &self.members {
            let (name, peer) = (self.cluster.member_name(*index), self.cluster.peer_url(*index));
            assert!(members.contains(&format!("started, {name}, {peer}")), "{members}");
        }
    }

    /// The old cluster is there, with what it had last.
    #[track_caller]
    fn serves_the_old_data(&self, generation: &str) {
        self.cluster.wait_until_healthy();
        let client = self.cluster.client();
        let said = client.etcdctl(["get", GENERATION]).stdout;
        assert_eq!(said, format!("{GENERATION}\n{generation}\n"));
        client.common_hashkv(client.revision());
    }

    /// Every client runs, and every API server is ready: it is not for a moment, if its etcd waits for a leader.
    #[track_caller]
    fn clients_run(&self) {
        for host in self.hosts.iter() {
            let ready = || host.try_ssh("curl -fsk https://127.0.0.1:6443/readyz").code == Some(0);
            let account = || host.journal("kube-apiserver");
            until("a ready API server", || ready().then_some(()), account);
            for unit in ["kube-scheduler", "kube-controller-manager"] {
                assert!(host.is_active(unit), "{unit} on {}", host.name());
            }
        }
    }

    /// Directories that hosts keep beside the data directory of each.
    fn beside(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for (index, host) in self.hosts.iter().enumerate() {
            let data = host.path(self.cluster.data_dir(index));
            let folder = std::fs::read_dir(data.parent().unwrap()).unwrap();
            found.extend(folder.map(|entry| entry.unwrap().path()).filter(|path| *path != data));
        }
        found
    }
}

fn lifeboat() -> Tool {
    Tool::new(env!("CARGO_BIN_EXE_lifeboat"))
}

/// A run that a test watches while it goes on, by the lines that it says.
struct Watched {
    command: String,
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
    said: String,
}

impl Watched {
    fn start(command: &mut Command) -> Self {
        let text = format!("{command:?}");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { command: text, child, lines, said: String::new() }
    }

    /// Reads on to the first line that fits; `None` if it ends before.
    fn wait_for(&mut self, fits: impl Fn(&str) -> bool) -> Option<String> {
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            self.said += &line;
            self.said.push('\n');
            if fits(&line) {
                return Some(line);
            }
        }
        None
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// What it came to.
    fn end(mut self) -> Run {
        self.wait_for(|_| false);
        let mut stdout = Vec::new();
        self.child.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
        let status = self.child.wait().unwrap();
        let output = std::process::Output { status, stdout, stderr: self.said.into_bytes() };
        Run::from_output(self.command, output)
    }
}

/// Commands of a host that wait to be let through: what a test does meanwhile is done before them, however slow it is.
struct Gate<'h> {
    host: &'h Host,
    program: String,
}

impl<'h> Gate<'h> {
    /// Holds back every command of `program` whose arguments are those, in a pattern of `case`.
    fn before(host: &'h Host, program: &str, arguments: &str) -> Self {
        let stand_in = format!("/usr/local/bin/{program}");
        host.write_script(
            &stand_in,
            &format!(
                "#!/bin/dash\ncase \"$*\" in {arguments}) : >>{stand_in}.waits\n\
                 while [ -e {stand_in}.waits ]; do sleep 0.1; done ;; esac\n\
                 PATH=/usr/bin:/usr/sbin exec {program} \"$@\"\n"
            ),
        );
        Self { host, program: stand_in }
    }

    fn waits(&self) -> String {
        format!("{}.waits", self.program)
    }

    /// Until one is held back.
    #[track_caller]
    fn wait(&self) {
        let waits = || self.host.path(self.waits()).exists().then_some(());
        until("a command that is held back", waits, || self.program.clone());
    }

    /// Lets others pass from now on.
    fn hold_no_more(&self) {
        std::fs::remove_file(self.host.path(&self.program)).unwrap();
    }

    /// Lets what waits go on.
    fn open(self) {
        // Nothing does if it has not come so far.
        let _ = std::fs::remove_file(self.host.path(&self.program));
        let _ = std::fs::remove_file(self.host.path(self.waits()));
    }
}

/// `[3/12] Stop etcd`: a step begins.
fn is_step(line: &str) -> bool {
    line.starts_with('[') && line.contains("] ")
}

fn tls(version: Etcd) -> EtcdOnHostsBuilder {
    EtcdOnHosts::builder(version)
}

/// A sequence that a seed gives.
#[derive(Debug)]
struct Random(u64);

impl Random {
    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        // SplitMix64: every seed is as good as any other.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
