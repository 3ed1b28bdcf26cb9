//! A client of a cluster: the real etcdctl of its version, as the tests use it.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use serde::Deserialize;

use crate::command::Run;
use crate::etcd::Etcd;
use crate::wait::{INTERVAL, PATIENCE};

/// etcd takes 128 operations in a transaction.
const TXN_OPERATIONS: usize = 100;

/// What members say that wait for a processor, for the disk, or for a leader. It passes, and nothing is wrong.
const PASSING: [&str; 6] = [
    "etcdserver: request timed out",
    "etcdserver: leader changed",
    "etcdserver: no leader",
    "etcdserver: too many requests",
    "context deadline exceeded",
    "code = Unavailable",
];

/// What a member says in its own name that has not applied yet what others have: a token, a revision.
const BEHIND: [&str; 2] = ["invalid auth token", "required revision is a future revision"];

/// Where a cluster is, and what it wants to see of its clients.
#[derive(Clone, Debug)]
pub struct Client {
    /// Which etcdctl.
    pub version: Etcd,
    /// Client URLs of all members.
    pub endpoints: Vec<String>,
    /// Certificates, user and password, as etcdctl takes them.
    pub flags: Vec<String>,
}

impl Client {
    /// Runs etcdctl against all members; panics unless it succeeds. What passes is waited for.
    #[track_caller]
    pub fn etcdctl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        let arguments: Vec<A> = arguments.into_iter().collect();
        patiently(&[], || self.try_etcdctl(&arguments))
    }

    /// Runs etcdctl against all members.
    pub fn try_etcdctl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        Run::of(self.etcdctl_command(&self.endpoints.join(",")).args(arguments))
    }

    /// Runs etcdctl against one member.
    pub fn try_etcdctl_at<A: AsRef<OsStr>>(
        &self,
        index: usize,
        arguments: impl IntoIterator<Item = A>,
    ) -> Run {
        Run::of(self.etcdctl_command(&self.endpoints[index]).args(arguments))
    }

    /// Puts one key.
    #[track_caller]
    pub fn put(&self, key: &str, value: &str) {
        self.etcdctl(["put", key, value]);
    }

    /// Carries out operations in etcdctl's own words (`put k v`, `del k`), as few transactions as
    /// etcd allows; each transaction is one revision.
    #[track_caller]
    pub fn transact(&self, operations: &[String]) {
        for operations in operations.chunks(TXN_OPERATIONS) {
            let input = format!("\n{}\n\n\n", operations.join("\n"));
            patiently(&[], || self.etcdctl_with_input(&["txn"], &input));
        }
    }

    /// Writes what a real cluster has seen in its life: puts and overwrites, deletes of keys and of
    /// ranges, transactions, empty and large values, odd keys, leases with keys and without, and a
    /// compaction in the middle. Returns the revision at the end.
    #[track_caller]
    pub fn write_sample(&self) -> i64 {
        let puts = |generation: usize| -> Vec<String> {
            let value = "v".repeat(generation * 37 % 900);
            (0..500).map(|n| format!("put sample/{n:04} {generation}-{n}-{value}")).collect()
        };
        self.transact(&puts(1));
        self.transact(&(0..100).map(|n| format!("del sample/{n:04}")).collect::<Vec<_>>());
        self.transact(&puts(2));
        self.etcdctl(["compaction", &self.revision().to_string()]);
        self.transact(&puts(3));
        self.etcdctl(["del", "sample/01", "--prefix"]);
        for n in 0..20 {
            self.put(&format!("single/{n}"), &format!("value {n}"));
        }
        self.put("empty", "");
        self.put("large", &"0123456789abcdef".repeat(6_000));
        self.put("key with spaces / and \u{fc}\u{f1}\u{ee}code", "\u{2603}");
        let lease = self.grant_lease(86_400);
        self.grant_lease(3_600);
        // After the leases, which have no revision: who has this one has those too.
        let with_lease = format!("--lease={lease}");
        self.etcdctl(["put", &with_lease, "leased/1", "one"]);
        self.etcdctl(["put", &with_lease, "leased/2", "two"]);
        self.revision()
    }

    /// Grants a lease of so many seconds; returns its id as etcdctl writes it.
    #[track_caller]
    pub fn grant_lease(&self, seconds: u32) -> String {
        let run = self.etcdctl(["lease", "grant", &seconds.to_string()]);
        run.stdout.split_whitespace().nth(1).expect("lease ID granted with TTL(s)").to_owned()
    }

    /// The revision that the cluster is at.
    #[track_caller]
    pub fn revision(&self) -> i64 {
        let answer = self.etcdctl(["get", "no such key", "-w", "json"]).json();
        answer["header"]["revision"].as_i64().expect("every answer has a revision")
    }

    /// All keys, as of a revision.
    #[track_caller]
    pub fn keys_at(&self, revision: i64) -> Vec<KeyValue> {
        let revision = format!("--rev={revision}");
        let mut answer = self.etcdctl(["get", "", "--prefix", &revision, "-w", "json"]).json();
        match answer.get_mut("kvs") {
            Some(kvs) => serde_json::from_value(kvs.take()).expect("kvs are keys and values"),
            None => Vec::new(),
        }
    }

    /// HashKV of one revision, as every member computes it. Members that are not there yet are waited for.
    #[track_caller]
    pub fn hashkv(&self, revision: i64) -> Vec<HashKv> {
        let revision = format!("--rev={revision}");
        let ask = || self.try_etcdctl(["endpoint", "hashkv", &revision, "-w", "json"]);
        let answer = patiently(&BEHIND, ask).json();
        let endpoints = answer.as_array().expect("one entry for each endpoint");
        assert_eq!(endpoints.len(), self.endpoints.len(), "every member answers");
        endpoints
            .iter()
            .map(|endpoint| serde_json::from_value(endpoint["HashKV"].clone()).expect("a HashKV"))
            .collect()
    }

    /// HashKV of one revision; panics unless all members agree on it.
    #[track_caller]
    pub fn common_hashkv(&self, revision: i64) -> HashKv {
        let hashes = self.hashkv(revision);
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "members differ: {hashes:?}");
        hashes[0].clone()
    }

    fn etcdctl_with_input(&self, arguments: &[&str], input: &str) -> Run {
        let mut command = self.etcdctl_command(&self.endpoints.join(","));
        command.args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("etcdctl can be started");
        let mut stdin = child.stdin.take().expect("stdin is a pipe");
        stdin.write_all(input.as_bytes()).expect("etcdctl reads its input");
        drop(stdin);
        let output = child.wait_with_output().expect("etcdctl ends");
        Run::from_output(format!("{command:?} with input:\n{input}"), output)
    }

    fn etcdctl_command(&self, endpoints: &str) -> Command {
        let mut command = Command::new(self.version.etcdctl());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCDCTL_") {
                command.env_remove(name);
            }
        }
        command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={endpoints}"))
            .args(&self.flags)
            .args(["--dial-timeout=5s", "--command-timeout=20s"]);
        command
    }
}

/// Asks again while what stands in the way passes; then it must have succeeded. A write that is asked for again may
/// have been done the first time, which costs a revision.
#[track_caller]
fn patiently(more: &[&str], ask: impl Fn() -> Run) -> Run {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let run = ask();
        let passes = |words: &&str| run.stderr.contains(words);
        let waits = run.code != Some(0) && PASSING.iter().chain(more).any(passes);
        if !waits || Instant::now() > deadline {
            return run.ok();
        }
        thread::sleep(INTERVAL);
    }
}

/// What a member says of its hash.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct HashKv {
    /// CRC-32C over the records of the revision asked for.
    pub hash: u32,
    /// -1 on a store that was never compacted.
    pub compact_revision: i64,
}

/// A key with all that the API tells about it; `key` and `value` in base64, as `etcdctl -w json`
/// prints them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[expect(missing_docs, reason = "the fields are etcd's own")]
pub struct KeyValue {
    pub key: String,
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    #[serde(default)]
    pub value: String,
    #[serde(default)]
    pub lease: i64,
}
