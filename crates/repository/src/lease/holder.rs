//! Who holds a lease, and whether that process still lives.

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

/// A process that writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// What a person would call it.
    name: String,
    /// Random: tells it from any other process, also one of the same name.
    token: String,
    /// Where its process can be looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    process: Option<Process>,
}

/// A process, so that nothing else is taken for it: not one with the same id after a restart of the machine, in another
/// container, or later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    /// Of this start of the machine.
    boot_id: String,
    /// The name space that its id is of.
    pid_namespace: String,
    pid: u32,
    /// When it began, in ticks since the machine did.
    started_ticks: u64,
}

impl Holder {
    /// This process, on this host.
    pub fn this_process() -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
        let host = host.as_deref().map_or("this host", str::trim);
        let pid = std::process::id();
        Self { process: Process::read(pid), ..Self::named(&format!("{host}, process {pid}")) }
    }

    /// Someone of that name, of whose process nothing is known.
    pub fn named(name: &str) -> Self {
        let mut random = [0; 12];
        // Nothing is secret about it; should the system have no randomness yet, process and time must do.
        if rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).is_err() {
            let now = jiff::Timestamp::now().as_nanosecond().to_le_bytes();
            random[..8].copy_from_slice(&now[..8]);
            random[8..].copy_from_slice(&std::process::id().to_le_bytes());
        }
        let token = random.iter().map(|b| format!("{b:02x}")).collect();
        Self { name: name.to_owned(), token, process: None }
    }

    /// A name for one acquisition.
    pub(super) fn lease(&self) -> String {
        static ACQUISITIONS: AtomicU64 = AtomicU64::new(0);
        format!("{}-{}", self.token, ACQUISITIONS.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether its process ran on this machine, in this container, and does no more.
    pub(super) fn is_known_dead(&self) -> bool {
        let Some(theirs) = &self.process else { return false };
        let Some(ours) = Process::read(std::process::id()) else { return false };
        let here = (&ours.boot_id, &ours.pid_namespace) == (&theirs.boot_id, &theirs.pid_namespace);
        here && Process::read(theirs.pid).as_ref() != Some(theirs)
    }
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let pid_namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in brackets, may hold anything; the start is the 20th field after it.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        // One that has ended and whose parent does not look stays in the list, as `Z`.
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        let started_ticks = fields.nth(18)?.parse().ok()?;
        Some(Self {
            boot_id: boot_id.trim().to_owned(),
            pid_namespace: pid_namespace.to_string_lossy().into_owned(),
            pid,
            started_ticks,
        })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_is_not_dead_and_one_that_has_ended_is() {
        let me = Holder::this_process();
        assert!(me.process.is_some(), "this system tells of processes");
        assert!(!me.is_known_dead());

        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let its = Holder { process: Process::read(child.id()), ..me.clone() };
        assert!(!its.is_known_dead());
        child.kill().unwrap();
        // Also before its parent has looked.
        while !its.is_known_dead() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(its.is_known_dead());
    }

    #[test]
    fn a_process_elsewhere_is_never_known_to_be_dead() {
        let mut other = Holder::this_process();
        let process = other.process.as_mut().unwrap();
        process.pid = u32::MAX;
        process.boot_id = "another machine".to_owned();
        assert!(!other.is_known_dead());
        assert!(!Holder::named("someone").is_known_dead());
    }

    #[test]
    fn a_successor_with_the_same_id_is_not_taken_for_it() {
        let mut before = Holder::this_process();
        before.process.as_mut().unwrap().started_ticks += 1;
        assert!(before.is_known_dead());
    }
}
