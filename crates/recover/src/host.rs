//! A host, reached through the user's own `ssh`.
//!
//! `ssh` is run as a program, and not by way of a crate: config, agent, jump hosts, known hosts and one shared connection for each
//! host (`ControlMaster`) are all its own, what it says when it fails is what the user knows, and there is nothing to keep up with.
//!
//! * Nobody is asked anything: no password, and no "do you trust this key". A host that ssh does not know is refused, as ssh does.
//! * A script travels on standard input, so that no list of processes shows it; the commands that receive files name only their paths.

use crate::{shell::quote, spec::Resolved};
use rustix::{
    fs::{FallocateFlags, FlockOperation, flock},
    io::Errno,
};
use std::{
    fs::{self, File},
    io::{self, Seek},
    os::unix::{
        fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
        process::ExitStatusExt,
    },
    path::Path,
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    time::{Instant, timeout},
};

/// ssh's own exit code when it, and not the command, failed.
const SSH_FAILED: i32 = 255;
/// A script that takes longer hangs: the longest wait inside of one is shorter.
pub(crate) const SCRIPT_SECONDS: u64 = 900;
/// A transfer that does not move for so long hangs.
const STALL: Duration = Duration::from_secs(60);
/// So much is shown of an answer that cannot be understood.
const SHOWN_CHARS: usize = 200;
/// Where the folder for shared connections is: a socket's path may have 107 bytes, so it cannot be one of the user's choice.
const FOLDERS: &str = "/tmp";
const FOLDER_PREFIX: &str = "lifeboat-ssh-";
/// A folder without a living owner is swept when it was not touched for so long.
const SWEPT_AFTER: Duration = Duration::from_secs(60);
/// For how long a host that cannot be reached is tried again: a reboot is longer, a network that hiccups is not.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often a transfer tells how far it is.
const TICK: Duration = Duration::from_millis(200);

mod error;

pub use error::HostError;

/// Shared connections of one run of the program. Dropped, they are closed.
#[derive(Debug)]
pub(crate) struct Connections {
    folder: tempfile::TempDir,
    /// The folder, locked as long as this process lives: nobody else sweeps it.
    _held: File,
}

/// One host.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    label: String,
    destination: String,
    line: String,
    arguments: Vec<String>,
    sudo: bool,
    patience: Duration,
}

impl Connections {
    /// Nothing is connected yet. What a process that was killed left behind is removed.
    pub(crate) fn new() -> io::Result<Self> {
        let mut folder = tempfile::Builder::new();
        folder.prefix(FOLDER_PREFIX).permissions(fs::Permissions::from_mode(0o700));
        let folder = folder.tempdir_in(FOLDERS)?;
        let held = File::open(folder.path())?;
        flock(&held, FlockOperation::NonBlockingLockExclusive)?;
        sweep(Path::new(FOLDERS), held.metadata()?.uid());
        Ok(Self { folder, _held: held })
    }

    /// The host, connected to when it is first used. `number` tells it from the others.
    pub(crate) fn remote(&self, number: usize, host: &Resolved) -> Remote {
        let mut arguments = Vec::new();
        let mut option = |text: String| arguments.extend(["-o".to_owned(), text]);
        // The first value that ssh sees is the one that counts, so the user's come first.
        host.ssh.options.iter().cloned().for_each(&mut option);
        for fixed in [
            "BatchMode=yes",
            "ConnectTimeout=10",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=3",
            "LogLevel=ERROR",
            "ControlMaster=auto",
            "ControlPersist=30",
        ] {
            option(fixed.to_owned());
        }
        option(format!("ControlPath={}/{number}", self.folder.path().display()));
        if let Some(config) = &host.ssh.config {
            arguments.extend(["-F".to_owned(), config.display().to_string()]);
        }
        if let Some(port) = host.ssh.port {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        let destination = match &host.ssh.user {
            Some(user) => format!("{user}@{}", host.host),
            None => host.host.clone(),
        };
        let sudo = host.ssh.sudo.unwrap_or(true);
        let label = host.label.clone();
        Remote { label, destination, line: ssh_line(host), arguments, sudo, patience: PATIENCE }
    }
}

/// Removes folders of this user for connections whose process is dead: nobody locks them. Only sockets are removed, and then folders
/// that are empty.
fn sweep(place: &Path, user: u32) {
    for folder in fs::read_dir(place).into_iter().flatten().flatten() {
        if folder.file_name().as_encoded_bytes().starts_with(FOLDER_PREFIX.as_bytes()) {
            // Whatever cannot be removed is left to lie.
            let _ = sweep_one(&folder.path(), user);
        }
    }
}

fn sweep_one(folder: &Path, user: u32) -> io::Result<()> {
    let found = fs::symlink_metadata(folder)?;
    // One that was just made may not be locked yet.
    let is_old = found.modified()?.elapsed().is_ok_and(|age| age > SWEPT_AFTER);
    if !found.is_dir() || found.uid() != user || !is_old {
        return Ok(());
    }
    let held = File::open(folder)?;
    flock(&held, FlockOperation::NonBlockingLockExclusive)?;
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type()?.is_socket() {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

impl Drop for Connections {
    fn drop(&mut self) {
        for socket in std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten() {
            let path = format!("ControlPath={}", socket.path().display());
            // One that is gone already needs no closing.
            let _ = std::process::Command::new("ssh")
                .args(["-o", &path, "-O", "exit", "none"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
    }
}

impl Remote {
    /// The member, or the host.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// For how long it is tried again when it cannot be reached.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Sets that.
    pub(crate) fn be_patient(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Why it cannot be gone on with what the host said.
    pub(crate) fn not_understood(&self, answer: &str) -> HostError {
        let answer = answer.chars().take(SHOWN_CHARS).collect();
        HostError::Answer { label: self.label.clone(), answer }
    }

    /// Runs a script, and returns what it printed.
    pub(crate) async fn script(&self, text: &str) -> Result<String, HostError> {
        self.script_within(text, SCRIPT_SECONDS).await
    }

    /// The same for one that may take so long.
    pub(crate) async fn script_within(
        &self,
        text: &str,
        seconds: u64,
    ) -> Result<String, HostError> {
        let line = elevated("exec sh -s", "exec sudo -n sh -s", self.sudo);
        let mut child = self.spawn(&line, Stdio::piped(), Stdio::piped())?;
        let mut stdin = child.stdin.take().expect("it was asked for");
        let text = text.to_owned();
        let sending = tokio::spawn(async move {
            // If it cannot be sent, how ssh ends tells why.
            let _ = stdin.write_all(text.as_bytes()).await;
        });
        let ended = timeout(Duration::from_secs(seconds), child.wait_with_output()).await;
        sending.abort();
        let silent = || HostError::Silent { label: self.label.clone(), seconds };
        let output = ended.map_err(|_| silent())?.map_err(HostError::NoSsh)?;
        self.judge(output.status, &output.stderr)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `command` with a file as its standard input, and returns what it printed. The file goes straight to ssh; how far it is,
    /// its offset tells.
    pub(crate) async fn send(
        &self,
        command: &str,
        path: &Path,
        on_bytes: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<String, HostError> {
        let read = |source| HostError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        let mut progress = file.try_clone().map_err(read)?;
        let line = self.command(command);
        let child = self.spawn(&line, Stdio::from(file), Stdio::piped())?;
        let size = progress.metadata().map_err(read)?.len();
        let output = watch(child, &mut progress, size, on_bytes);
        let output = output.await.map_err(|stopped| stopped.told(&self.label, read))?;
        self.judge(output.status, &output.stderr)?;
        on_bytes(progress.stream_position().map_err(read)?);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `command`, and writes what it prints, `size` bytes, to a file here, which is made anew. There is room for it before
    /// anything is fetched.
    pub(crate) async fn fetch(
        &self,
        command: &str,
        path: &Path,
        size: u64,
        on_bytes: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), HostError> {
        let write = |source| HostError::Write { path: path.to_owned(), source };
        let mut options = File::options();
        let file = options.create(true).truncate(true).write(true).mode(0o600);
        let file = file.open(path).map_err(write)?;
        if size > 0 {
            let reserved = rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, size);
            match reserved {
                // Some file systems cannot reserve room: it is seen when it is full.
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(write(errno.into())),
            }
        }
        let mut progress = file.try_clone().map_err(write)?;
        let line = self.command(command);
        let child = self.spawn(&line, Stdio::null(), Stdio::from(file))?;
        let output = watch(child, &mut progress, size, on_bytes);
        let output = output.await.map_err(|stopped| stopped.told(&self.label, write))?;
        self.judge(output.status, &output.stderr)?;
        on_bytes(progress.stream_position().map_err(write)?);
        Ok(())
    }

    /// The line for the login shell that runs `command` as root.
    fn command(&self, command: &str) -> String {
        let inner = quote(&format!("main() {{\n{command}\n}}\nmain"));
        let (as_root, as_user) =
            (format!("exec sh -c {inner}"), format!("exec sudo -n sh -c {inner}"));
        elevated(&as_root, &as_user, self.sudo)
    }

    fn spawn(&self, line: &str, stdin: Stdio, stdout: Stdio) -> Result<Child, HostError> {
        Command::new("ssh")
            .args(&self.arguments)
            .arg("--")
            .arg(&self.destination)
            .arg(line)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::piped())
            // A Ctrl-C goes to all programs of the terminal's foreground group. It is ours to end ssh, in our order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(HostError::NoSsh)
    }

    fn judge(&self, status: ExitStatus, stderr: &[u8]) -> Result<(), HostError> {
        let said = String::from_utf8_lossy(stderr).trim().replace('\r', "");
        let label = self.label.clone();
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(()),
            (Some(SSH_FAILED), _) => {
                let (destination, line) = (self.destination.clone(), self.line.clone());
                Err(HostError::Unreachable { label, destination, line, said })
            }
            (Some(_), _) if self.sudo && error::is_not_root(&said) => {
                Err(HostError::NoRoot { label, destination: self.destination.clone(), said })
            }
            (Some(code), _) => {
                let status = format!("exit code {code}");
                Err(HostError::Failed { label, status, code: Some(code), said })
            }
            (None, signal) => {
                let status = format!("ended by signal {}", signal.unwrap_or_default());
                Err(HostError::Failed { label, status, code: None, said })
            }
        }
    }
}

/// Why a transfer was not waited for to its end.
enum Stopped {
    NoSsh(io::Error),
    File(io::Error),
    Silent { seconds: u64 },
}

impl Stopped {
    fn told(self, label: &str, of_file: impl Fn(io::Error) -> HostError) -> HostError {
        match self {
            Self::NoSsh(source) => HostError::NoSsh(source),
            Self::File(source) => of_file(source),
            Self::Silent { seconds } => HostError::Silent { label: label.to_owned(), seconds },
        }
    }
}

/// Waits for a transfer of `size` bytes, and tells how far it is: the offset of the file that ssh reads or writes.
async fn watch(
    child: Child,
    progress: &mut File,
    size: u64,
    on_bytes: &(dyn Fn(u64) + Send + Sync),
) -> Result<Output, Stopped> {
    let mut waiting = Box::pin(child.wait_with_output());
    let (mut at, mut moved) = (0, Instant::now());
    loop {
        if let Ok(output) = timeout(TICK, &mut waiting).await {
            return output.map_err(Stopped::NoSsh);
        }
        let now = progress.stream_position().map_err(Stopped::File)?;
        if now != at {
            (at, moved) = (now, Instant::now());
            on_bytes(now);
        }
        // When all is there, it is made durable, which may take as long as it likes to.
        let limit = if at >= size { STALL * 10 } else { STALL };
        if moved.elapsed() > limit {
            return Err(Stopped::Silent { seconds: limit.as_secs() });
        }
    }
}

/// A line for the login shell, whichever that is: `as_root` if that is who we are, else `as_user`.
pub(crate) fn elevated(as_root: &str, as_user: &str, sudo: bool) -> String {
    let text = match sudo {
        true => format!("if [ \"$(id -u)\" = 0 ]; then {as_root}; else {as_user}; fi"),
        false => as_root.to_owned(),
    };
    format!("exec sh -c {}", quote(&text))
}

/// The command line that a person would type to get there.
pub fn ssh_line(host: &Resolved) -> String {
    let mut line = "ssh".to_owned();
    if let Some(config) = &host.ssh.config {
        line += &format!(" -F {}", quote(&config.display().to_string()));
    }
    if let Some(port) = host.ssh.port {
        line += &format!(" -p {port}");
    }
    for option in &host.ssh.options {
        line += &format!(" -o {}", quote(option));
    }
    let user = host.ssh.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
    line + &format!(" {}", quote(&format!("{user}{}", host.host)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;
    use std::path::PathBuf;

    #[test]
    fn the_users_options_come_before_ours_and_nobody_is_asked_anything() {
        let spec = Spec::parse(
            "cluster: c
ssh: {user: admin, port: 2222, options: [ConnectTimeout=1]}
hosts: [{host: h, member: {name: m1, peer-urls: ['http://h:2380']}}]",
        )
        .unwrap();
        let host = &spec.resolved()[0];
        let remote = Connections::new().unwrap().remote(3, host);
        let place = |what: &str| remote.arguments.iter().position(|argument| argument == what);
        assert!(place("ConnectTimeout=1") < place("ConnectTimeout=10"));
        assert!(place("BatchMode=yes").is_some());
        assert_eq!(ssh_line(host), "ssh -p 2222 -o ConnectTimeout=1 admin@h");
    }

    /// A folder as a process leaves it that is killed, of an age in seconds.
    fn left(place: &Path, name: &str, age: u64) -> PathBuf {
        let folder = place.join(name);
        fs::create_dir(&folder).unwrap();
        drop(std::os::unix::net::UnixListener::bind(folder.join("0")).unwrap());
        let then = std::time::SystemTime::now() - Duration::from_secs(age);
        File::open(&folder).unwrap().set_modified(then).unwrap();
        folder
    }

    #[test]
    fn folders_of_dead_processes_are_swept_and_no_others() {
        let place = tempfile::tempdir().unwrap();
        let user = fs::metadata(place.path()).unwrap().uid();
        let dead = left(place.path(), "lifeboat-ssh-dead", 3600);
        let new = left(place.path(), "lifeboat-ssh-new", 0);
        let living = left(place.path(), "lifeboat-ssh-living", 3600);
        let other = left(place.path(), "somebody-else", 3600);
        let mixed = left(place.path(), "lifeboat-ssh-mixed", 3600);
        fs::write(mixed.join("a file"), "of somebody").unwrap();
        let then = std::time::SystemTime::now() - Duration::from_secs(3600);
        File::open(&mixed).unwrap().set_modified(then).unwrap();
        let held = File::open(&living).unwrap();
        flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();

        sweep(place.path(), user + 1);
        assert!(dead.exists(), "it is another user's");
        sweep(place.path(), user);
        assert!(!dead.exists());
        assert!(mixed.join("a file").exists() && !mixed.join("0").exists());
        assert!([new, living, other].iter().all(|folder| folder.join("0").exists()));
    }

    #[test]
    fn a_host_that_cannot_be_reached_is_tried_by_hand_with_the_whole_command() {
        let spec = "cluster: c
ssh: {user: admin, port: 2222, config: /etc/ssh/rescue, options: [ProxyJump=b]}
hosts: [{host: h, member: {name: m1, peer-urls: ['http://h:2380']}}]";
        let host = &Spec::parse(spec).unwrap().resolved()[0];
        let remote = Connections::new().unwrap().remote(0, host);
        let failed = |said: &str| remote.judge(ExitStatus::from_raw(255 << 8), said.as_bytes());
        let refused = failed("ssh: connect to host h port 2222: Connection refused").unwrap_err();
        let command = "`ssh -F /etc/ssh/rescue -p 2222 -o ProxyJump=b admin@h true`";
        assert!(refused.remedy().contains(command), "{}", refused.remedy());
        assert!(refused.looks_mistaken() && refused.is_passing());
        let silent = failed("ssh: connect to host h port 2222: Connection timed out").unwrap_err();
        assert!(!silent.looks_mistaken() && silent.is_passing());
    }

    #[test]
    fn a_user_who_is_not_root_is_told_with_what_to_set() {
        let spec = "cluster: c
ssh: {user: admin}
hosts: [{host: h, member: {name: m1, peer-urls: ['http://h:2380']}}]";
        let host = &Spec::parse(spec).unwrap().resolved()[0];
        let remote = Connections::new().unwrap().remote(0, host);
        let failed = |said: &str| remote.judge(ExitStatus::from_raw(1 << 8), said.as_bytes());
        for said in ["sudo: a password is required", "sh: 1: exec: sudo: not found"] {
            let error = failed(said).unwrap_err();
            assert!(error.to_string().starts_with("m1: admin@h is not root there"), "{error}");
            assert!(error.to_string().ends_with(said) && !error.is_passing(), "{error}");
            assert!(error.remedy().contains("`ssh.user: root`"), "{}", error.remedy());
        }
        let other = failed("sudo: unable to resolve host h\nmv: cannot stat '/a'").unwrap_err();
        assert!(matches!(other, HostError::Failed { .. }), "{other}");
    }

    #[test]
    fn an_end_by_a_signal_is_told_in_words() {
        let spec =
            "cluster: c\nhosts: [{host: h, member: {name: m1, peer-urls: ['http://h:2380']}}]";
        let host = &Spec::parse(spec).unwrap().resolved()[0];
        let remote = Connections::new().unwrap().remote(0, host);
        let error = remote.judge(ExitStatus::from_raw(9), b"").unwrap_err();
        assert_eq!(error.to_string(), "m1: it failed (ended by signal 9)");
    }

    #[test]
    fn a_line_reaches_sh_through_any_quoting() {
        let line = elevated("exec sh -c 'echo \"it'\\''s\"'", "false", true);
        let output = std::process::Command::new("sh").arg("-c").arg(line).output().unwrap();
        let root = output.status.success();
        assert!(!root || output.stdout == b"it's\n", "{output:?}");
    }
}
