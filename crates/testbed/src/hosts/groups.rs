//! Control groups: what holds all processes of a host together, and ends them at once.
//!
//! systemd needs a group of its own in the hierarchy that it manages: the one of cgroup v2, and on a
//! machine with both versions also the v1 hierarchy that is named after systemd. Both are made below the
//! group that the test itself is in. `cgroup.kill` of v2 is the power switch.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{text_of, wait_until};

/// The file in a run's folder that lists its groups, written before they are made.
const LIST: &str = "groups";

/// Makes the groups of a host; the first is that of cgroup v2.
pub(super) fn make(folder: &Path, number: u8, host: &str) -> Vec<PathBuf> {
    let name = format!("lifeboat-testbed-{number}-{host}");
    let groups: Vec<PathBuf> = own_groups().iter().map(|group| group.join(&name)).collect();
    let mut list = std::fs::read_to_string(folder.join(LIST)).unwrap_or_default();
    for group in &groups {
        list.push_str(&format!("{}\n", group.display()));
    }
    std::fs::write(folder.join(LIST), list).expect("our own folder is writable");
    for group in &groups {
        std::fs::create_dir_all(group)
            .unwrap_or_else(|error| panic!("cannot make {}: {error}", group.display()));
    }
    groups
}

/// The groups of this process: of cgroup v2 first, and then systemd's of v1 if there is one.
fn own_groups() -> Vec<PathBuf> {
    let own = std::fs::read_to_string("/proc/self/cgroup").expect("/proc is mounted");
    let path_in = |controllers: &str| {
        own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            (parts.next()? == controllers).then(|| parts.next())?
        })
    };
    let v2 = path_in("").zip(mounted("cgroup2", "")).expect("this machine has no cgroup v2");
    let v1 = path_in("name=systemd").zip(mounted("cgroup", "name=systemd"));
    [Some(v2), v1]
        .into_iter()
        .flatten()
        .map(|(path, mount)| mount.join(path.trim_start_matches('/')))
        .collect()
}

fn mounted(kind: &str, option: &str) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let holds = fields.get(2) == Some(&kind)
            && (option.is_empty() || fields.get(3)?.split(',').any(|given| given == option));
        holds.then(|| PathBuf::from(fields[1]))
    })
}

/// Kills every process of a group and of those below it; returns when the last is gone.
pub(super) fn kill(group: &Path) {
    if std::fs::write(group.join("cgroup.kill"), "1").is_ok() {
        wait_until(
            "a killed group is empty",
            || processes(group).is_empty(),
            || format!("{group:?}"),
        );
    }
}

/// The processes of a group and of those below it.
pub(super) fn processes(group: &Path) -> BTreeSet<u32> {
    let own = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let own = own.lines().filter_map(|id| id.parse().ok());
    own.chain(below(group).iter().flat_map(|group| processes(group))).collect()
}

fn below(group: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(group) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Ends all processes in the groups of a run, and removes the groups.
pub(super) fn remove(folder: &Path) {
    if !folder.join(LIST).exists() {
        return;
    }
    let list = text_of(&folder.join(LIST));
    list.lines().for_each(|group| kill(Path::new(group)));
    list.lines().for_each(|group| remove_tree(Path::new(group)));
}

/// A group is removed as an empty folder is, although it shows files.
fn remove_tree(group: &Path) {
    below(group).iter().for_each(|group| remove_tree(group));
    let _ = std::fs::remove_dir(group);
}
