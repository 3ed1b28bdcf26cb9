//! The ssh client of a test: its key, its known hosts, its config. Nothing of the user's own is touched.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::machine::Host;
use crate::command::Run;

/// What the client does with every host. The control path stays short: a socket's name has a limit.
const FOR_ALL: &str = "\
Host *
  User root
  IdentitiesOnly yes
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
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
