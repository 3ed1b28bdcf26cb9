//! One host: its disk, its power, its cable.

use std::cell::Cell;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::network::Cable;
use super::place::Place;
use super::ssh::{Connections, SshClient, make_key, public_half};
use super::{groups, run, text_of, wait_until};
use crate::command::Run;
use crate::etcd::from_environment;

/// The users that the test's key logs in as, with their home folders in the tree.
const USERS: [(&str, &str); 2] = [("root", "/root"), ("ops", "/var/ops")];

const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key";

/// Longer than it takes to shut down: systemd kills what does not end for 90 s.
const TOLD_AGAIN: Duration = Duration::from_secs(100);

/// What fills a disk.
const FILLER: &str = "/var/filler";

/// A Debian host. Its methods take `&self`, so that a test may cut its power from another thread.
#[derive(Debug)]
pub struct Host {
    name: String,
    /// The name that systemd-nspawn has for it, unique on this machine.
    machine: String,
    folder: PathBuf,
    cable: Cable,
    groups: Vec<PathBuf>,
    connections: Connections,
    nspawn: Mutex<Option<Child>>,
}

/// What it is, and its files.
impl Host {
    /// h1, h2, ...
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on the bridge.
    pub fn address(&self) -> Ipv4Addr {
        self.cable.address
    }

    /// Where this machine sees a file of the host, also while its power is cut.
    pub fn path(&self, file: impl AsRef<Path>) -> PathBuf {
        let file = file.as_ref();
        self.root().join(file.strip_prefix("/").expect("files of a host are named from its root"))
    }

    /// Writes a file of the host, and makes the folders that it needs. It belongs to root.
    #[track_caller]
    pub fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        let path = self.path(file);
        let folder = path.parent().expect("a file is in a folder");
        let done = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, content));
        done.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }

    /// Writes a script, which may be run.
    #[track_caller]
    pub fn write_script(&self, file: &str, content: &str) {
        self.write(file, content);
        let runnable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.path(file), runnable).expect("it was just written");
    }

    /// The public key of its sshd, with a line's end.
    pub(super) fn public_key(&self) -> String {
        public_half(&self.path(HOST_KEY))
    }

    /// Gives it another host key, which the test's client does not know.
    pub fn change_host_key(&self) {
        make_key(&self.path(HOST_KEY));
        self.ssh_restart_for_new_key();
    }

    fn ssh_restart_for_new_key(&self) {
        let Some(init) = self.init() else { return };
        // sshd reads its keys when it starts; connections that are open stay.
        run(&format!("nsenter --target {init} --all systemctl restart ssh.service"));
    }

    /// The process id of its systemd, as this machine sees it.
    fn init(&self) -> Option<u32> {
        groups::processes(&self.groups[0]).into_iter().find(|id| {
            let status = text_of(Path::new(&format!("/proc/{id}/status")));
            let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            inner.is_some_and(|ids| ids.split_whitespace().skip(1).last() == Some("1"))
        })
    }

    /// What its processes hold in memory together: each page counted once. Its disk is not in it.
    pub fn memory_bytes(&self) -> u64 {
        let of_one = |id: u32| -> u64 {
            let rollup = text_of(Path::new(&format!("/proc/{id}/smaps_rollup")));
            let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
            let kib = pss
                .and_then(|pss| pss.split_whitespace().next())
                .map_or(0, |kib| kib.parse().expect("the kernel writes sizes as numbers"));
            kib * 1024
        };
        groups::processes(&self.groups[0]).into_iter().map(of_one).sum()
    }

    fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    fn console(&self) -> PathBuf {
        self.folder.join("console")
    }
}

/// Talking to it.
impl Host {
    /// Runs a shell command as root.
    pub fn try_ssh(&self, command: &str) -> Run {
        self.ssh_as("root", command)
    }

    /// Runs a shell command as root; panics unless it succeeds.
    #[track_caller]
    pub fn ssh(&self, command: &str) -> Run {
        self.try_ssh(command).ok()
    }

    /// Runs a shell command as `root` or as `ops`.
    pub fn ssh_as(&self, user: &str, command: &str) -> Run {
        self.connections.open(user);
        let mut ssh = self.connections.ssh(user);
        Run::of(ssh.args([&self.name, command]).stdin(Stdio::null()))
    }

    /// Whether a unit of its systemd is active.
    pub fn is_active(&self, unit: &str) -> bool {
        self.try_ssh(&format!("systemctl is-active --quiet {unit}")).code == Some(0)
    }

    /// When a unit became active, in microseconds of a clock that all hosts of this machine share.
    #[track_caller]
    pub fn active_since(&self, unit: &str) -> u64 {
        self.unit_clock(unit, "ActiveEnterTimestampMonotonic")
    }

    /// When a unit was last no longer active, by the same clock; 0 if never.
    #[track_caller]
    pub fn inactive_since(&self, unit: &str) -> u64 {
        self.unit_clock(unit, "InactiveEnterTimestampMonotonic")
    }

    #[track_caller]
    fn unit_clock(&self, unit: &str, property: &str) -> u64 {
        let shown = self.ssh(&format!("systemctl show --value --property={property} {unit}"));
        shown.stdout.trim().parse().unwrap_or_else(|_| panic!("{unit} has no {property}\n{shown}"))
    }

    /// The journal of one unit.
    pub fn journal(&self, unit: &str) -> String {
        self.try_ssh(&format!("journalctl --no-pager --output=cat --unit={unit}")).stdout
    }
}

/// Its power, its cable, its disk.
impl Host {
    /// The host as it was delivered: not yet booted, keys and disk of its own.
    pub(super) fn lay_out(place: &Place, number: u8, ssh: &SshClient, disk_bytes: u64) -> Self {
        let name = format!("h{number}");
        let folder = place.folder().join(&name);
        let host = Self {
            machine: machine_name(place.number(), &name),
            cable: Cable::make(place.number(), number),
            groups: groups::make(&place.folder(), place.number(), &name),
            connections: Connections::new(ssh.config(), &folder, &name),
            nspawn: Mutex::new(None),
            folder,
            name,
        };
        host.mount_disk(disk_bytes);
        host.write("/etc/hostname", &host.name);
        make_key(&host.path(HOST_KEY));
        for (_, home) in USERS {
            host.write(&format!("{home}/.ssh/authorized_keys"), ssh.public_key());
        }
        host
    }

    fn mount_disk(&self, bytes: u64) {
        let (disk, root) = (self.folder.join("disk"), self.root());
        for folder in [&disk, &root] {
            std::fs::create_dir_all(folder).expect("our own folder is writable");
        }
        run(&format!("mount -t tmpfs -o size={bytes},mode=755 lifeboat-disk {}", disk.display()));
        for part in ["upper", "work"] {
            std::fs::create_dir(disk.join(part)).expect("a fresh disk is writable");
        }
        let layers = format!(
            "lowerdir={},upperdir={disk}/upper,workdir={disk}/work",
            tree().display(),
            disk = disk.display(),
        );
        run(&format!("mount -t overlay -o {layers} lifeboat-root {}", root.display()));
    }

    /// Starts its systemd; does not wait for it.
    pub(super) fn boot(&self) {
        let console = File::options().create(true).append(true).open(self.console());
        let console = console.expect("our own folder is writable");
        let mut nspawn = self.nspawn.lock().expect("no boot panics half way");
        assert!(nspawn.is_none(), "{} has power already", self.name);
        let mut command = self.nspawn_command();
        command.stdin(Stdio::null());
        command.stdout(console.try_clone().expect("a file handle can be doubled")).stderr(console);
        *nspawn = Some(command.spawn().expect("sh can be started"));
    }

    /// systemd-nspawn of the tree, with the libraries of the tree. It enters the host's groups first, so
    /// that nothing of it is ever outside of them.
    fn nspawn_command(&self) -> Command {
        let mut script = String::from("set -e\n");
        for group in &self.groups {
            script.push_str(&format!("echo $$ >{}/cgroup.procs\n", group.display()));
        }
        script.push_str("exec \"$@\"\n");
        let libraries = tree().join("usr/lib/x86_64-linux-gnu");
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]);
        command.arg(libraries.join("ld-linux-x86-64.so.2")).arg("--library-path");
        command.arg(format!("{0}:{0}/systemd", libraries.display()));
        command.arg(tree().join("usr/bin/systemd-nspawn"));
        command.args(["--boot", "--register=no", "--keep-unit", "--console=pipe"]);
        command.args(["--resolv-conf=off", "--timezone=off", "--link-journal=no", "--quiet"]);
        command.arg(format!("--directory={}", self.root().display()));
        command.arg(format!("--machine={}", self.machine));
        command.arg(format!("--hostname={}", self.name));
        command.arg(format!("--network-namespace-path=/run/netns/{}", self.cable.namespace));
        command
    }

    /// Waits until every user can log in.
    #[track_caller]
    pub(super) fn wait_until_up(&self) {
        let logged_in = || self.try_ssh("systemctl is-active --quiet systemd-user-sessions").code;
        wait_until(
            &format!("{} is up", self.name),
            || logged_in() == Some(0),
            || text_of(&self.console()),
        );
    }

    /// Kills all that runs on it, at once. Its disk keeps what was written.
    pub fn cut_power(&self) {
        if let Some(process) = self.nspawn.lock().expect("no boot panics half way").as_mut() {
            // It may not have entered its group yet.
            process.kill().expect("our own child can be killed");
        }
        groups::kill(&self.groups[0]);
        self.wait_until_down();
    }

    /// Boots it; returns when every user can log in.
    #[track_caller]
    pub fn power_on(&self) {
        self.boot();
        self.wait_until_up();
    }

    /// Shuts it down in good order.
    #[track_caller]
    pub fn power_off(&self) {
        self.leave("poweroff");
    }

    /// Shuts it down in good order and boots it again.
    #[track_caller]
    pub fn reboot(&self) {
        self.leave("reboot");
        self.power_on();
    }

    /// The connection may end before the command does, so its exit code tells nothing: a host that stays is told again.
    #[track_caller]
    fn leave(&self, how: &str) {
        let told: Cell<Option<Instant>> = Cell::new(None);
        let has_left = || {
            if told.get().is_none_or(|told| told.elapsed() > TOLD_AGAIN) {
                self.try_ssh(&format!("systemctl --no-block {how}"));
                told.set(Some(Instant::now()));
            }
            self.has_ended()
        };
        wait_until(&format!("{} is down", self.name), has_left, || text_of(&self.console()));
        self.wait_until_down();
    }

    fn has_ended(&self) -> bool {
        let mut nspawn = self.nspawn.lock().expect("no boot panics half way");
        nspawn
            .as_mut()
            .is_none_or(|process| process.try_wait().expect("our own child can be asked").is_some())
    }

    fn wait_until_down(&self) {
        let mut nspawn = self.nspawn.lock().expect("no boot panics half way");
        if let Some(mut process) = nspawn.take() {
            process.wait().expect("our own child can be waited for");
        }
        self.connections.close();
    }

    /// Nobody reaches it any more, and it reaches nobody.
    pub fn cut_network(&self) {
        self.cable.unplug();
    }

    /// Puts its cable back.
    pub fn restore_network(&self) {
        self.cable.plug_in();
    }

    /// Leaves so many bytes free on its disk.
    #[track_caller]
    pub fn fill_disk(&self, leave_bytes: u64) {
        self.empty_disk();
        let disk = self.folder.join("disk");
        let free = run(&format!("df --output=avail --block-size=1 {}", disk.display())).stdout;
        let free = free.lines().last().and_then(|bytes| bytes.trim().parse::<u64>().ok());
        let fill = free.expect("df prints bytes").saturating_sub(leave_bytes);
        run(&format!("fallocate --length {fill} {}", self.path(FILLER).display()));
    }

    /// Takes back what filled the disk.
    pub fn empty_disk(&self) {
        let _ = std::fs::remove_file(self.path(FILLER));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.cut_power();
    }
}

fn machine_name(number: u8, host: &str) -> String {
    format!("lifeboat-testbed-{number}-{host}")
}

/// Removes what systemd-nspawn leaves on this machine when it is killed.
pub(super) fn forget(number: u8) {
    let prefix = machine_name(number, "");
    let Ok(left) = std::fs::read_dir("/run/systemd/nspawn/propagate") else { return };
    for folder in left.flatten() {
        if folder.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = std::fs::remove_dir_all(folder.path());
        }
    }
}

/// The Debian tree that all hosts share.
fn tree() -> PathBuf {
    from_environment("LIFEBOAT_HOSTS")
}
