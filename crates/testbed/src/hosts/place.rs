//! A number for a run of a test, with a folder that is named after it, and the broom for what it leaves.
//!
//! The kernel's names (network namespaces, bridges, control groups) are shared by all tests of a machine,
//! so each run makes its own from its number. The number is held by a lock, which ends with its process:
//! whoever takes the lock next knows that nobody uses what is there, and removes it.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::{groups, machine, network, try_run};

/// Where the runs have their folders: gone with the next boot, as everything else that is named here.
const ROOT: &str = "/run/lifeboat-testbed";

/// Enough for all tests of a machine at once; the third byte of the addresses.
const NUMBERS: std::ops::RangeInclusive<u8> = 1..=250;

/// How many watchers of files root may have, over all hosts: the systemd of each wants eight, and does not boot without.
const WATCHERS: (&str, u32) = ("/proc/sys/fs/inotify/max_user_instances", 4096);

/// The number of a run, and its folder, while this value lives.
#[derive(Debug)]
pub(super) struct Place {
    number: u8,
    _lock: File,
}

impl Place {
    /// Takes a free number, and sweeps what ended runs have left under any.
    #[track_caller]
    pub(super) fn take() -> Self {
        assert!(rustix::process::geteuid().is_root(), "hosts need root: run the tests as root");
        raise_watchers();
        let mut taken = None;
        for number in NUMBERS {
            let was_used = folder_of(number).exists();
            if taken.is_some() && !was_used {
                continue;
            }
            let Some(lock) = lock(number) else { continue };
            if was_used {
                sweep(number);
            }
            taken.get_or_insert((number, lock));
        }
        let (number, lock) = taken.expect("250 runs at once are not all taken");
        std::fs::create_dir_all(folder_of(number)).expect("/run is writable for root");
        Self { number, _lock: lock }
    }

    pub(super) fn number(&self) -> u8 {
        self.number
    }

    pub(super) fn folder(&self) -> PathBuf {
        folder_of(self.number)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        sweep(self.number);
    }
}

/// Until the next boot. Where that is not allowed, fewer hosts boot at once.
fn raise_watchers() {
    let (file, wanted) = WATCHERS;
    let now = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<u32>().ok());
    if now.is_some_and(|now| now < wanted) {
        let _ = std::fs::write(file, wanted.to_string());
    }
}

fn folder_of(number: u8) -> PathBuf {
    Path::new(ROOT).join(number.to_string())
}

fn lock(number: u8) -> Option<File> {
    std::fs::create_dir_all(ROOT).expect("/run is writable for root");
    let file = Path::new(ROOT).join(format!("{number}.lock"));
    let lock = File::options().create(true).append(true).open(file);
    let lock = lock.expect("a lock file can be opened");
    match lock.try_lock() {
        Ok(()) => Some(lock),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(error)) => panic!("cannot lock number {number}: {error}"),
    }
}

/// Ends and removes all that carries the number. Nothing here panics for what is not there: a run may
/// have been killed at any instant.
fn sweep(number: u8) {
    let folder = folder_of(number);
    groups::remove(&folder);
    network::remove(number);
    for mount in mounts_below(&folder).iter().rev() {
        try_run(&format!("umount --lazy {}", mount.display()));
    }
    machine::forget(number);
    // What is still mounted is no longer ours to remove, and a leftover is swept by the next run.
    if mounts_below(&folder).is_empty() {
        let _ = std::fs::remove_dir_all(&folder);
    }
}

/// Mount points below a folder, in the order in which they were mounted.
fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    points.filter(|point| point.starts_with(folder)).collect()
}
