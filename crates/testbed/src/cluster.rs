//! A real etcd cluster on loopback.
//!
//! ```text
//!   <temporary folder>/data/m1   m2   m3       data directories; `set_data_aside` moves them away
//!                     /log/m1.log ...          what each server said, over all its lives
//!                     /tls/ca.pem ...          if it speaks TLS
//! ```
//! Dropping the cluster kills its members by their process ids and removes the folder.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::client::{Client, HashKv, KeyValue};
use crate::command::Run;
use crate::etcd::Etcd;
use crate::ports::Port;
use crate::tls::Certificates;
use crate::wait::until;
use rustix::process::{Pid, Signal, kill_process};

/// How clients and peers talk to the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// http, nobody asks who you are.
    Plain,
    /// https, and both sides show certificates of the cluster's CA.
    Tls,
}

/// What a cluster is to be like.
#[derive(Debug)]
pub struct Builder {
    version: Etcd,
    members: usize,
    security: Security,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Builder {
    /// How many members [default: 3].
    pub fn members(mut self, members: usize) -> Self {
        self.members = members;
        self
    }

    /// With TLS or without [default: with].
    pub fn security(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    /// One more flag for every server, as `--name=value`.
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// A variable for the environment of every server.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lays the cluster out: names, ports, certificates. Nothing runs and there are no data yet, so a
    /// backup of another cluster can be put into [`data_root`](Cluster::data_root).
    pub fn lay_out(self) -> Cluster {
        let folder = tempfile::Builder::new()
            .prefix("lifeboat-cluster-")
            .tempdir()
            .expect("the folder for temporary files is writable");
        std::fs::create_dir(folder.path().join("log")).expect("a fresh folder is writable");
        let certificates = (self.security == Security::Tls)
            .then(|| Certificates::make_in(&folder.path().join("tls")));
        let members = (1..=self.members).map(|n| Member::lay_out(n, folder.path())).collect();
        Cluster { settings: self, members, certificates, folder, times_set_aside: 0 }
    }

    /// Lays the cluster out and starts it; returns when every member serves.
    pub fn start(self) -> Cluster {
        let mut cluster = self.lay_out();
        cluster.start_all();
        cluster
    }
}

/// One member: its place, and its process while it runs.
#[derive(Debug)]
pub struct Member {
    name: String,
    client: Port,
    peer: Port,
    data_dir: PathBuf,
    log: PathBuf,
    process: Option<Child>,
    /// It has joined as one, and answers hardly anything.
    is_learner: bool,
}

impl Member {
    fn lay_out(number: usize, folder: &Path) -> Self {
        let name = format!("m{number}");
        Self {
            client: Port::take(),
            peer: Port::take(),
            data_dir: folder.join("data").join(&name),
            log: folder.join("log").join(format!("{name}.log")),
            process: None,
            is_learner: false,
            name,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The process id, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// What the server has written to its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Member {
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("our own child can be killed");
            process.wait().expect("a killed child ends");
        }
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// A cluster of real servers.
#[derive(Debug)]
pub struct Cluster {
    // Before `folder`, so that the members are gone when the folder goes.
    members: Vec<Member>,
    settings: Builder,
    certificates: Option<Certificates>,
    folder: tempfile::TempDir,
    times_set_aside: usize,
}

impl Cluster {
    /// Three members with TLS, unless told otherwise.
    pub fn builder(version: Etcd) -> Builder {
        Builder {
            version,
            members: 3,
            security: Security::Tls,
            flags: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// The version of its servers.
    pub fn version(&self) -> Etcd {
        self.settings.version
    }

    /// Servers of another version from the next start on.
    pub fn set_version(&mut self, version: Etcd) {
        self.settings.version = version;
    }

    /// Its members, m1 first.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// A folder that lives as long as the cluster, for a test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its certificates.
    #[track_caller]
    pub fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("this cluster was built with Security::Plain")
    }

    /// Where clients reach member `index`.
    pub fn client_url(&self, index: usize) -> String {
        self.url(&self.members[index].client)
    }

    /// Where peers reach member `index`.
    pub fn peer_url(&self, index: usize) -> String {
        self.url(&self.members[index].peer)
    }

    /// Client URLs of all members, as `--endpoints` takes them.
    pub fn endpoints(&self) -> String {
        self.joined(|cluster, index| cluster.client_url(index))
    }

    /// What `--initial-cluster` is for this cluster.
    pub fn initial_cluster(&self) -> String {
        self.joined(|cluster, index| {
            format!("{}={}", cluster.members[index].name, cluster.peer_url(index))
        })
    }

    /// The flags that a client of this cluster needs: all endpoints, and certificates.
    pub fn connection_flags(&self) -> Vec<String> {
        self.connection_flags_to(&self.endpoints())
    }

    /// The same, with endpoints of the caller's choice.
    pub fn connection_flags_to(&self, endpoints: &str) -> Vec<String> {
        let mut flags = vec![format!("--endpoints={endpoints}")];
        flags.extend(self.security_flags());
        flags
    }

    fn security_flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        if let Some(certificates) = &self.certificates {
            let (cert, key) = certificates.client();
            flags.push(format!("--cacert={}", certificates.ca().display()));
            flags.push(format!("--cert={}", cert.display()));
            flags.push(format!("--key={}", key.display()));
        }
        flags
    }

    fn scheme(&self) -> &'static str {
        if self.certificates.is_some() { "https" } else { "http" }
    }

    fn url(&self, port: &Port) -> String {
        format!("{}://127.0.0.1:{}", self.scheme(), port.number)
    }

    fn joined(&self, of: impl Fn(&Self, usize) -> String) -> String {
        (0..self.members.len()).map(|index| of(self, index)).collect::<Vec<_>>().join(",")
    }
}

/// Starting and stopping.
impl Cluster {
    /// Starts every member that does not run; returns when all serve.
    #[track_caller]
    pub fn start_all(&mut self) {
        let started: Vec<usize> =
            (0..self.members.len()).filter(|&i| self.members[i].process.is_none()).collect();
        for &index in &started {
            self.spawn(index, &self.initial_cluster(), "new");
        }
        for &index in &started {
            self.wait_until_healthy(index);
        }
    }

    /// Starts one member; returns when it serves, so a majority must be there.
    #[track_caller]
    pub fn start(&mut self, index: usize) {
        self.spawn(index, &self.initial_cluster(), "new");
        self.wait_until_healthy(index);
    }

    /// SIGTERM: the member says good-bye and writes everything down.
    pub fn stop(&mut self, index: usize) {
        let process = self.members[index].process.take();
        let mut process = process.expect("only a running member can be stopped");
        let id = i32::try_from(process.id()).expect("process ids are small");
        let id = Pid::from_raw(id).expect("process ids are not 0");
        kill_process(id, Signal::TERM).expect("our own child takes signals");
        process.wait().expect("a stopped child ends");
    }

    /// SIGTERM to all.
    pub fn stop_all(&mut self) {
        for index in 0..self.members.len() {
            self.stop(index);
        }
    }

    /// SIGKILL: the member writes nothing more.
    pub fn kill(&mut self, index: usize) {
        self.members[index].kill();
    }

    /// SIGKILL to all.
    pub fn kill_all(&mut self) {
        for member in &mut self.members {
            member.kill();
        }
    }

    /// Where the members have their data, each in `FOLDER/<name>`.
    pub fn data_root(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Moves the data of all members away, as an administrator does before a restore. Returns
    /// [`data_root`](Self::data_root), which does not exist now.
    pub fn set_data_aside(&mut self) -> PathBuf {
        let data = self.data_root();
        self.times_set_aside += 1;
        let aside = self.folder.path().join(format!("data.old.{}", self.times_set_aside));
        std::fs::rename(&data, aside).expect("a folder of ours can be renamed");
        data
    }

    /// Adds a member to the running cluster and starts it.
    #[track_caller]
    pub fn add_member(&mut self) -> usize {
        let index = self.announce(&[]);
        self.wait_until_healthy(index);
        index
    }

    /// Adds a learner to the running cluster and starts it.
    #[track_caller]
    pub fn add_learner(&mut self) -> usize {
        let index = self.announce(&["--learner"]);
        self.members[index].is_learner = true;
        self.wait_until_healthy(index);
        index
    }

    /// Tells the cluster of a new member and starts that.
    #[track_caller]
    fn announce(&mut self, flags: &[&str]) -> usize {
        let index = self.members.len();
        let member = Member::lay_out(index + 1, self.folder.path());
        let peer_url = format!("--peer-urls={}", self.url(&member.peer));
        let mut arguments = vec!["member", "add", &member.name, &peer_url];
        arguments.extend(flags);
        // etcd refuses ("unhealthy cluster") until all members have been connected for some seconds.
        self.wait_for(0, |cluster, _| {
            let run = cluster.try_etcdctl(&arguments);
            // A first try may have been heard, and its answer lost.
            run.code == Some(0) || run.stderr.contains("Peer URLs already exists")
        });
        self.members.push(member);
        self.spawn(index, &self.initial_cluster(), "existing");
        index
    }

    fn spawn(&mut self, index: usize, initial_cluster: &str, state: &str) {
        let mut command = Command::new(self.settings.version.server());
        command.args(self.server_flags(index)).args([
            format!("--initial-cluster={initial_cluster}"),
            format!("--initial-cluster-state={state}"),
        ]);
        command.envs(self.settings.variables.iter().map(|(name, value)| (name, value)));
        let member = &mut self.members[index];
        assert!(member.process.is_none(), "{} runs already", member.name);
        let log = File::options().create(true).append(true).open(&member.log);
        let log = log.expect("the log folder is writable");
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a file handle can be doubled")).stderr(log);
        member.process = Some(command.spawn().expect("the server can be started"));
    }

    fn server_flags(&self, index: usize) -> Vec<String> {
        let member = &self.members[index];
        let (client, peer) = (self.client_url(index), self.peer_url(index));
        let mut flags = vec![
            format!("--name={}", member.name),
            format!("--data-dir={}", member.data_dir.display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            "--initial-cluster-token=lifeboat-testbed".to_owned(),
            "--logger=zap".to_owned(),
            // What is written is in files when a member is killed, and no machine loses its power here. To wait for
            // a slow disk would cost time, and now and then the leader.
            "--unsafe-no-fsync".to_owned(),
        ];
        if let Some(certificates) = &self.certificates {
            let ca = certificates.ca();
            let (cert, key) = certificates.server();
            for side in ["", "peer-"] {
                flags.push(format!("--{side}cert-file={}", cert.display()));
                flags.push(format!("--{side}key-file={}", key.display()));
                flags.push(format!("--{side}trusted-ca-file={}", ca.display()));
                flags.push(format!("--{side}client-cert-auth"));
            }
        }
        flags.extend(self.settings.flags.iter().cloned());
        flags
    }

    #[track_caller]
    fn wait_until_healthy(&mut self, index: usize) {
        self.wait_for(index, |cluster, index| {
            let health = cluster.try_etcdctl_at(index, ["endpoint", "health"]);
            // A learner that runs says that it may not answer, and one with auth that we may not ask.
            let refusals = ["not supported for learner", "user name is empty"];
            health.code == Some(0) || refusals.iter().any(|no| health.stderr.contains(no))
        });
    }

    #[track_caller]
    fn wait_for(&mut self, index: usize, holds: impl Fn(&Self, usize) -> bool) {
        let Member { name, log, .. } = &self.members[index];
        let (name, log) = (name.clone(), log.clone());
        let met = || {
            let process = self.members[index].process.as_mut().expect("it was started");
            if let Some(status) = process.try_wait().expect("our own child can be asked") {
                panic!("{name} ended with {status}:\n{}", tail(&log));
            }
            holds(self, index).then_some(())
        };
        until(&format!("what {name} is waited for"), met, || tail(&log));
    }
}

/// Talking to it, as [`Client`] does.
impl Cluster {
    /// A client that knows all members, but those that have joined as learners.
    pub fn client(&self) -> Client {
        self.client_of((0..self.members.len()).filter(|&index| !self.members[index].is_learner))
    }

    fn client_of(&self, members: impl IntoIterator<Item = usize>) -> Client {
        let endpoints = members.into_iter().map(|index| self.client_url(index)).collect();
        Client { version: self.settings.version, endpoints, flags: self.security_flags() }
    }

    /// [`Client::etcdctl`].
    #[track_caller]
    pub fn etcdctl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        self.client().etcdctl(arguments)
    }

    /// [`Client::try_etcdctl`].
    pub fn try_etcdctl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        self.client().try_etcdctl(arguments)
    }

    /// [`Client::try_etcdctl`] of one member.
    pub fn try_etcdctl_at<A: AsRef<OsStr>>(
        &self,
        index: usize,
        arguments: impl IntoIterator<Item = A>,
    ) -> Run {
        self.client_of([index]).try_etcdctl(arguments)
    }

    /// [`Client::put`].
    #[track_caller]
    pub fn put(&self, key: &str, value: &str) {
        self.client().put(key, value);
    }

    /// [`Client::transact`].
    #[track_caller]
    pub fn transact(&self, operations: &[String]) {
        self.client().transact(operations);
    }

    /// [`Client::write_sample`].
    #[track_caller]
    pub fn write_sample(&self) -> i64 {
        self.client().write_sample()
    }

    /// [`Client::grant_lease`].
    #[track_caller]
    pub fn grant_lease(&self, seconds: u32) -> String {
        self.client().grant_lease(seconds)
    }

    /// [`Client::revision`].
    #[track_caller]
    pub fn revision(&self) -> i64 {
        self.client().revision()
    }

    /// [`Client::keys_at`].
    #[track_caller]
    pub fn keys_at(&self, revision: i64) -> Vec<KeyValue> {
        self.client().keys_at(revision)
    }

    /// [`Client::hashkv`].
    #[track_caller]
    pub fn hashkv(&self, revision: i64) -> Vec<HashKv> {
        self.client().hashkv(revision)
    }

    /// [`Client::common_hashkv`].
    #[track_caller]
    pub fn common_hashkv(&self, revision: i64) -> HashKv {
        self.client().common_hashkv(revision)
    }
}
