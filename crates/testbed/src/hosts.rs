//! Real Debian hosts: systemd, sshd, sudo, addresses of their own. They boot in a second.
//!
//! ```text
//!   /run/lifeboat-testbed/N/             one run of a test; N is its number while the lock is held
//!       groups                           its control groups
//!       ssh/  config  known_hosts  id    the test's own client: `ssh -F config h1`
//!       h1/   disk/                      a tmpfs: all that the host has written, and the limit of its disk
//!             root/                      the host's / : `disk` laid over the tree of tools/hosts.sh
//!             console                    what systemd-nspawn and systemd said
//!
//!   bridge lbN   10.177.N.1 ─┬─ lbNh1 ═ eth0 10.177.N.11   h1    each host in a network namespace lbN-h1,
//!                            ├─ lbNh2 ═ eth0 10.177.N.12   h2    with no way to anywhere but the bridge
//!                            └─ ...
//! ```
//! The test itself stands on the bridge, at [`Hosts::gateway`], and reaches every host by its address.
//!
//! * A host is one `systemd-nspawn --boot`, all of whose processes are in one control group. Cutting its
//!   power kills them all at once, whatever they do; the disk keeps what was written.
//! * Dropping [`Hosts`] ends them, and removes namespaces, mounts and files. What a killed run left is
//!   removed by the next that starts; runs side by side have other numbers.
//! * The tree must have been made (`LIFEBOAT_HOSTS`, from `tools/install.sh test`), and all this needs root.

mod etcd;
mod groups;
mod kube;
mod machine;
mod network;
mod place;
mod ssh;

use std::net::Ipv4Addr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

pub use etcd::{EtcdOnHosts, EtcdOnHostsBuilder, UnitStyle};
pub use machine::Host;

use crate::command::Run;
use place::Place;
use ssh::SshClient;

/// A host boots in a second; many at once on a busy machine take their time.
const BOOT: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(100);

/// What the hosts are to be like.
#[derive(Clone, Debug)]
pub struct HostsBuilder {
    disk_bytes: u64,
}

impl HostsBuilder {
    /// How much each host can write before its disk is full [default: 1 GiB]. It is held in memory, as
    /// far as it is written.
    pub fn disk_bytes(mut self, bytes: u64) -> Self {
        self.disk_bytes = bytes;
        self
    }

    /// Boots so many hosts, h1 first; returns when all take ssh connections from every user.
    #[track_caller]
    pub fn start(self, count: u8) -> Hosts {
        let place = Place::take();
        network::make_bridge(place.number());
        let ssh = SshClient::make_in(&place.folder().join("ssh"));
        let mut hosts = Hosts { machines: Vec::new(), ssh, settings: self, place };
        for _ in 0..count {
            hosts.lay_out();
        }
        for host in &hosts.machines {
            host.boot();
        }
        for host in &hosts.machines {
            host.wait_until_up();
        }
        hosts
    }
}

/// Hosts of one test. Indexed as a slice: `hosts[0]` is h1.
#[derive(Debug)]
pub struct Hosts {
    // Before `place`, so that they have ended when it is cleared.
    machines: Vec<Host>,
    ssh: SshClient,
    settings: HostsBuilder,
    place: Place,
}

impl Hosts {
    /// Hosts that may be told more before they start.
    pub fn builder() -> HostsBuilder {
        HostsBuilder { disk_bytes: 1 << 30 }
    }

    /// Boots so many hosts.
    #[track_caller]
    pub fn start(count: u8) -> Self {
        Self::builder().start(count)
    }

    /// Boots one more host.
    #[track_caller]
    pub fn add(&mut self) -> &Host {
        self.lay_out();
        let host = self.machines.last().expect("one was added");
        host.power_on();
        host
    }

    /// The host of this name.
    #[track_caller]
    pub fn host(&self, name: &str) -> &Host {
        let found = self.machines.iter().find(|host| host.name() == name);
        found.unwrap_or_else(|| panic!("no host is called {name}"))
    }

    /// What `ssh -F` takes: h1, h2 ... by name or by address, as root, with the test's key. Unknown host
    /// keys are refused.
    pub fn ssh_config(&self) -> PathBuf {
        self.ssh.config()
    }

    /// The key file that logs in as `root` and as `ops`, who has sudo without a password.
    pub fn ssh_key(&self) -> PathBuf {
        self.ssh.key()
    }

    /// The host keys that the test's client knows.
    pub fn known_hosts(&self) -> PathBuf {
        self.ssh.known_hosts()
    }

    /// The address of the test itself, as hosts see it.
    pub fn gateway(&self) -> Ipv4Addr {
        network::gateway(self.place.number())
    }

    /// A folder that lives as long as the hosts, for a test's own files.
    pub fn folder(&self) -> PathBuf {
        let folder = self.place.folder().join("test");
        std::fs::create_dir_all(&folder).expect("our own folder is writable");
        folder
    }

    fn lay_out(&mut self) {
        let number = u8::try_from(self.machines.len() + 1).expect("a test has few hosts");
        let host = Host::lay_out(&self.place, number, &self.ssh, self.settings.disk_bytes);
        self.machines.push(host);
        let known: Vec<&Host> = self.machines.iter().collect();
        self.ssh.know(&known);
        let names = names_of(&self.machines);
        for host in &self.machines {
            host.write("/etc/hosts", &names);
        }
    }
}

impl Deref for Hosts {
    type Target = [Host];

    fn deref(&self) -> &[Host] {
        &self.machines
    }
}

/// `/etc/hosts` of all of them.
fn names_of(hosts: &[Host]) -> String {
    let of_one = |host: &Host| format!("{} {}\n", host.address(), host.name());
    format!("127.0.0.1 localhost\n{}", hosts.iter().map(of_one).collect::<String>())
}

/// Polls until `holds`; panics with `account` when it takes longer than a boot may.
#[track_caller]
fn wait_until(what: &str, holds: impl Fn() -> bool, account: impl Fn() -> String) {
    let deadline = Instant::now() + BOOT;
    loop {
        let asked = Instant::now();
        if holds() {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: not after {BOOT:?}\n{}", account());
        // Half of the time at most goes into questions: those who boot need the cores.
        thread::sleep(asked.elapsed().clamp(POLL, 4 * POLL));
    }
}

/// Runs a program of this machine; panics unless it succeeds.
#[track_caller]
fn run(command_line: &str) -> Run {
    try_run(command_line).ok()
}

/// Runs a program of this machine. No argument of ours holds a space.
fn try_run(command_line: &str) -> Run {
    let mut words = command_line.split_whitespace();
    let program = words.next().expect("a command line has a program");
    Run::of(Command::new(program).args(words))
}

/// Text of a file, or why there is none.
fn text_of(file: &Path) -> String {
    std::fs::read(file)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_else(|error| format!("{}: {error}", file.display()))
}
