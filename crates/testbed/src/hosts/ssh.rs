//! The ssh client of a test: its key, its known hosts, its config. Nothing of the user's own is touched.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use super::machine::Host;
use crate::command::Run;

/// What the client does with every host. The key exchange that ssh prefers, sntrup761, takes a core 20 ms a connection, which
/// was an eighth of all that the tests of `recover` computed.
const FOR_ALL: &str = "\
Host *
  User root
  IdentitiesOnly yes
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
  KexAlgorithms curve25519-sha256
  ConnectTimeout 10
  ServerAliveInterval 5
  ServerAliveCountMax 3
";

/// A folder with all that a client needs.
#[derive(Debug)]
pub(super) struct SshClient {
    folder: PathBuf,
}

impl SshClient {
    pub(super) fn make_in(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("our own folder is writable");
        make_key(&folder.join("id"));
        let client = Self { folder: folder.to_owned() };
        client.know(&[]);
        client
    }

    pub(super) fn config(&self) -> PathBuf {
        self.folder.join("config")
    }

    pub(super) fn key(&self) -> PathBuf {
        self.folder.join("id")
    }

    pub(super) fn public_key(&self) -> String {
        public_half(&self.key())
    }

    pub(super) fn known_hosts(&self) -> PathBuf {
        self.folder.join("known_hosts")
    }

    /// Knows these hosts and no others, by the keys that they have now.
    pub(super) fn know(&self, hosts: &[&Host]) {
        let mut config = String::new();
        let mut known = String::new();
        for host in hosts {
            config.push_str(&format!("Host {}\n  HostName {}\n", host.name(), host.address()));
            known.push_str(&format!("{} {}", host.address(), host.public_key()));
        }
        config.push_str(FOR_ALL);
        config.push_str(&format!("  IdentityFile {}\n", self.key().display()));
        config.push_str(&format!("  UserKnownHostsFile {}\n", self.known_hosts().display()));
        std::fs::write(self.known_hosts(), known).expect("our own folder is writable");
        std::fs::write(self.config(), config).expect("our own folder is writable");
    }
}

/// The test's own connections to one host, one for each user: a login takes a quarter of a second, and a test
/// runs dozens of commands. `recover` has the same config and none of these connections.
#[derive(Debug)]
pub(super) struct Connections {
    config: PathBuf,
    /// Holds the sockets, whose names have a limit.
    folder: PathBuf,
    host: String,
    /// Users who have one.
    open: Mutex<Vec<String>>,
}

impl Connections {
    pub(super) fn new(config: PathBuf, folder: &Path, host: &str) -> Self {
        let (folder, host) = (folder.to_owned(), host.to_owned());
        Self { config, folder, host, open: Mutex::default() }
    }

    /// `ssh` as a user, over the connection if there is one; the name of the host and a command are to follow.
    pub(super) fn ssh(&self, user: &str) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(&self.config).arg("-S").arg(self.folder.join(format!("ssh-{user}")));
        ssh.args(["-l", user]);
        ssh
    }

    /// Connects, unless that is done. A host that does not answer is nobody's error here: whoever runs a
    /// command is told by that.
    pub(super) fn open(&self, user: &str) {
        let mut open = self.open.lock().expect("no connecting panics half way");
        if open.iter().any(|other| other == user) {
            return;
        }
        let mut master = self.ssh(user);
        master.args(["-M", "-N", "-f", &self.host]);
        master.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if master.status().is_ok_and(|status| status.success()) {
            open.push(user.to_owned());
        }
    }

    /// Ends them: the host has gone, which they would notice late.
    pub(super) fn close(&self) {
        for user in self.open.lock().expect("no connecting panics half way").drain(..) {
            let mut exit = self.ssh(&user);
            exit.args(["-O", "exit", &self.host]);
            let _ = exit.stdin(Stdio::null()).output(); // it may have gone by itself
        }
    }
}

/// Makes a pair of keys, in place of one that is there.
pub(super) fn make_key(file: &Path) {
    let _ = std::fs::remove_file(file);
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(file);
    Run::of(&mut keygen).ok();
}

/// The public key beside a key, with its line's end.
pub(super) fn public_half(key: &Path) -> String {
    std::fs::read_to_string(key.with_extension("pub")).expect("ssh-keygen wrote a public key")
}
